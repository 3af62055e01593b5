import { env, exports } from "cloudflare:workers";
import { describe, expect, it } from "vitest";

const NAME = "{project_name}";
const SITE = "https://example.com";

describe("the API", () => {
	it("says the Worker's name", async () => {
		const response = await exports.default.fetch(
			new Request(`${SITE}/api/hello`),
		);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({ name: NAME });
	});

	it("answers what it does not know with JSON, not with the page", async () => {
		const response = await exports.default.fetch(new Request(`${SITE}/api/no`));
		expect(response.status).toBe(404);
		expect(await response.json()).toEqual({
			error: { code: "not_found", message: expect.any(String) },
		});
	});
});

// The Worker alone serves no file; the platform does, as it does here.
describe("the files", () => {
	it("are the page where there is no file", async () => {
		const page = await env.ASSETS.fetch(`${SITE}/`);
		const response = await env.ASSETS.fetch(`${SITE}/a/path/of/the/page`);
		expect(response.status).toBe(200);
		expect(response.headers.get("Content-Type")).toContain("text/html");
		expect(await response.text()).toBe(await page.text());
	});

	it("carry the security headers", async () => {
		const { headers } = await env.ASSETS.fetch(`${SITE}/`);
		expect(headers.get("Content-Security-Policy")).toContain(
			"default-src 'none'; script-src 'self'",
		);
		expect(headers.get("X-Content-Type-Options")).toBe("nosniff");
		expect(headers.get("Referrer-Policy")).toBe("no-referrer");
		expect(headers.get("Strict-Transport-Security")).toMatch(/^max-age=\d+/);
	});
});
