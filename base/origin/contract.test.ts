import { env } from "cloudflare:workers";
import { Hono } from "hono";
import { afterEach, expect, it, vi } from "vitest";
import type { AppEnv } from "../base/worker";
import { requireTrustedOrigin } from "./worker";

const routes = new Hono<AppEnv>().post("/", (c) => {
	requireTrustedOrigin(c);
	return c.text("in");
});

afterEach(() => {
	vi.restoreAllMocks();
});

async function post(origin: string | undefined, allowed = "") {
	vi.spyOn(env, "ALLOWED_ORIGINS", "get").mockReturnValue(allowed);
	const headers: HeadersInit = origin === undefined ? {} : { Origin: origin };
	const init = { method: "POST", headers };
	return routes.request("https://example.com/", init, env);
}

it.each([
	[undefined, ""],
	["https://example.com", ""],
	["https://other.example", "https://one.example, https://other.example"],
])("trusts the origin %j with ALLOWED_ORIGINS=%j", async (origin, allowed) => {
	expect((await post(origin, allowed)).status).toBe(200);
});

it.each([
	["https://other.example", ""],
	["https://example.com:8443", ""],
	["http://example.com", ""],
	["https://example.com.other.example", ""],
	["null", ""],
	["", ""],
	["https://other.example", "https://one.example"],
	["https://other.example", "*"],
])("refuses the origin %j with ALLOWED_ORIGINS=%j", async (origin, allowed) => {
	const response = await post(origin, allowed);
	expect(response.status).toBe(403);
	const message = "Send this from this site or an allowed origin.";
	expect(await response.json()).toEqual({
		error: { code: "foreign_origin", message },
	});
});
