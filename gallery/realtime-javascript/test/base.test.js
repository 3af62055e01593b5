import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import * as z from "zod";
import { parseInput } from "../src/base";

const OTHER = "https://other.example";

function request(path, init) {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

afterEach(() => {
	vi.restoreAllMocks();
});

it("runs", async () => {
	const response = await request("/health");
	expect(await response.json()).toEqual({ status: "ok" });
});

describe("errors", () => {
	it("are 404 for an unknown path", async () => {
		const response = await request("/no/such/path");
		expect(response.status).toBe(404);
		const error = { code: "not_found", message: expect.any(String) };
		expect(await response.json()).toEqual({ error });
	});

	it("are 405 with Allow for an unknown method", async () => {
		const response = await request("/health", { method: "POST" });
		expect(response.status).toBe(405);
		expect(response.headers.get("Allow")).toBe("GET, HEAD");
	});

	it("that are unexpected are logged as one line, and kept secret", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env, "ALLOWED_ORIGINS", "get").mockImplementation(() => {
			throw new Error("secret");
		});
		const headers = { Origin: OTHER };
		const response = await request("/health?token=1", { headers });
		expect(response.status).toBe(500);
		const requestId = response.headers.get("X-Request-Id");
		const body = await response.text();
		expect(JSON.parse(body).error).toMatchObject({ requestId });
		expect(body).not.toContain("secret");
		expect(log).toHaveBeenCalledTimes(1);
		expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({
			level: "error",
			requestId,
			path: "/health",
			error: { message: "secret" },
		});
	});

	it("of an input list what is wrong, and where", () => {
		const schema = z.object({ ids: z.array(z.int()) });
		const issues = [{ path: "ids.0", message: expect.any(String) }];
		expect(() => parseInput(schema, { ids: [2.5] })).toThrow(
			expect.objectContaining({ status: 400, issues }),
		);
	});
});

it.each(["/health", "/no/such/path"])("%s has safe headers", async (path) => {
	const response = await request(path, { headers: { "X-Request-Id": "mine" } });
	expect(Object.fromEntries(response.headers)).toMatchObject({
		"cache-control": "no-store",
		"content-security-policy": "default-src 'none'; frame-ancestors 'none'",
		"referrer-policy": "no-referrer",
		"strict-transport-security": expect.stringContaining("max-age="),
		"x-content-type-options": "nosniff",
		"x-request-id": expect.stringMatching(/^[0-9a-f-]{36}$/),
	});
});

it.each([
	["", null],
	["https://other.example.org", null],
	[`https://one.example, ${OTHER}`, OTHER],
])("with ALLOWED_ORIGINS=%j another site gets %j", async (allowed, origin) => {
	vi.spyOn(env, "ALLOWED_ORIGINS", "get").mockReturnValue(allowed);
	for (const method of ["GET", "OPTIONS"]) {
		const headers = { Origin: OTHER, "Access-Control-Request-Method": "GET" };
		const response = await request("/health", { method, headers });
		expect(response.headers.get("Access-Control-Allow-Origin")).toBe(origin);
		expect(response.headers.get("Vary")).toContain("Origin");
	}
});
