import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";

const SITE = "https://example.com";

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`${SITE}${path}`, init));
}

describe("health and index", () => {
	it("says that the Worker runs", async () => {
		const response = await request("/health");
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({ status: "ok" });
	});

	//% if "assets" not in features
	it("lists the routes under the Worker's name", async () => {
		const response = await request("/");
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({
			name: "{project_name}",
			routes: expect.arrayContaining([
				{
					method: "GET",
					path: "/health",
					summary: expect.any(String),
				},
			]),
		});
	});

	//% endif
	it("answers HEAD without a body", async () => {
		const response = await request("/health", { method: "HEAD" });
		expect(response.status).toBe(200);
		expect(await response.text()).toBe("");
	});
});

describe("errors", () => {
	it("answers an unknown path with 404", async () => {
		const response = await request("/no/such/path");
		expect(response.status).toBe(404);
		expect(await response.json()).toEqual({
			error: { code: "not_found", message: expect.any(String) },
		});
	});

	it("answers a method that a path does not take with 405 and Allow", async () => {
		const response = await request("/health", { method: "POST" });
		expect(response.status).toBe(405);
		expect(response.headers.get("Allow")).toBe("GET, HEAD");
		expect(await response.json()).toEqual({
			error: { code: "method_not_allowed", message: expect.any(String) },
		});
	});

	const thrown = [new Error("the secret cause"), "the secret cause"];

	it.each(thrown)(
		"logs %s as one line and keeps it to itself",
		async (cause) => {
			const log = vi.spyOn(console, "error").mockImplementation(() => {});
			const stringify = vi.spyOn(JSON, "stringify");
			stringify.mockImplementationOnce(() => {
				throw cause;
			});
			const response = await request("/health");
			stringify.mockRestore();
			const body = await response.text();
			expect(response.status).toBe(500);
			expect(JSON.parse(body)).toEqual({
				error: {
					code: "internal_error",
					message: expect.any(String),
					requestId: response.headers.get("X-Request-Id"),
				},
			});
			expect(body).not.toContain("secret cause");
			expect(log).toHaveBeenCalledTimes(1);
			expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({
				level: "error",
				requestId: response.headers.get("X-Request-Id"),
				method: "GET",
				path: "/health",
				stack: expect.stringContaining("the secret cause"),
			});
			log.mockRestore();
		},
	);
});

describe("headers", () => {
	it("carry an id that the client cannot choose", async () => {
		const headers = { "X-Request-Id": "chosen-by-the-client" };
		const response = await request("/health", { headers });
		expect(response.headers.get("X-Request-Id")).toMatch(/^[\w-]{36}$/);
	});

	const paths = ["/health", "/no/such/path"];

	it.each(paths)("are the safe ones on %s", async (path) => {
		const { headers } = await request(path);
		expect(headers.get("X-Request-Id")).toMatch(/^[\w-]{36}$/);
		expect(headers.get("X-Content-Type-Options")).toBe("nosniff");
		expect(headers.get("Referrer-Policy")).toBe("no-referrer");
		expect(headers.get("Strict-Transport-Security")).toMatch(/^max-age=\d+/);
		expect(headers.get("Content-Security-Policy")).toBe(
			"default-src 'none'; frame-ancestors 'none'",
		);
		expect(headers.get("Cache-Control")).toBe("no-store");
	});
});

describe("pages of other sites", () => {
	const headers = {
		Origin: "https://other.example",
		"Access-Control-Request-Method": "GET",
	};

	afterEach(() => {
		env.ALLOWED_ORIGINS = "";
	});

	it("get no CORS header", async () => {
		for (const method of ["GET", "OPTIONS"]) {
			const response = await request("/health", { method, headers });
			expect(response.status).toBe(method === "GET" ? 200 : 204);
			const names = [...response.headers.keys()];
			expect(names.filter((name) => name.startsWith("access-"))).toEqual([]);
			expect(response.headers.get("Vary")).toContain("Origin");
		}
	});

	it("may read answers once their origin is allowed", async () => {
		env.ALLOWED_ORIGINS = "https://one.example, https://other.example";
		for (const method of ["GET", "OPTIONS"]) {
			const response = await request("/health", { method, headers });
			expect(response.status).toBe(method === "GET" ? 200 : 204);
			expect(response.headers.get("Access-Control-Allow-Origin")).toBe(
				"https://other.example",
			);
			expect(response.headers.get("Vary")).toContain("Origin");
		}
	});
});
