import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";
import { name } from "../package.json";

const SITE = "https://example.com";

it("says the Worker's name", async () => {
	const response = await exports.default.fetch(`${SITE}/api/hello`);
	expect(response.status).toBe(200);
	expect(await response.json()).toEqual({ name });
});

it("answers an unknown route with JSON, not with the page", async () => {
	const response = await exports.default.fetch(`${SITE}/api/no`);
	expect(response.status).toBe(404);
	expect(await response.json()).toMatchObject({ error: { code: "not_found" } });
});

// The platform serves the files, before the Worker or in its place.
it("serves the page where there is no file", async () => {
	const page = await env.ASSETS.fetch(`${SITE}/`);
	const response = await env.ASSETS.fetch(`${SITE}/a/path/of/the/page`);
	expect(response.status).toBe(200);
	expect(await response.text()).toBe(await page.text());
});

it("serves files with a strict policy", async () => {
	const { headers } = await env.ASSETS.fetch(`${SITE}/`);
	expect(headers.get("X-Content-Type-Options")).toBe("nosniff");
	expect(headers.get("Content-Security-Policy")).toContain(
		"default-src 'none'; script-src 'self'",
	);
});
