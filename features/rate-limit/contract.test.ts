import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const limiter = vi.spyOn(env.RATE_LIMITER, "limit");

beforeEach(() => {
	limiter.mockResolvedValue({ success: true });
});

afterEach(() => {
	vi.resetAllMocks();
	env.ALLOWED_ORIGINS = "";
});

/** Sends a request for `POST /a/path` without a body. */
function ask(route: string, headers: Record<string, string> = {}) {
	const [method = "", path = ""] = route.split(" ");
	const url = `https://example.com${path}`;
	return exports.default.fetch(new Request(url, { method, headers }));
}

/** The keys that were counted. */
function keys(): unknown[] {
	return limiter.mock.calls.map(([{ key }]) => key);
}

describe("an address", () => {
	it.each([
		["2001:db8:1:2::5", "2001:db8:1:2:3:4:5:6"],
		["2001:db8:1:2::5", "2001:DB8:0001:2::"],
		["2001:db8::6", "2001:db8:0:0:ffff::"],
		["203.0.113.7", "203.0.113.7"],
		["no address", "no address"],
	])("%s counts with %s", async (one, other) => {
		await ask("POST /health", { "CF-Connecting-IP": one });
		await ask("POST /health", { "CF-Connecting-IP": other });
		expect(new Set(keys()).size).toBe(1);
		expect(keys()).toHaveLength(2);
	});

	it.each([
		["2001:db8:1:2::5", "2001:db8:1:3::5"],
		["2001:db8:1:2::5", "2001:db9:1:2::5"],
		["203.0.113.7", "203.0.113.8"],
	])("%s does not count with %s", async (one, other) => {
		await ask("POST /health", { "CF-Connecting-IP": one });
		await ask("POST /health", { "CF-Connecting-IP": other });
		expect(new Set(keys()).size).toBe(2);
	});

	it.each(["X-Forwarded-For", "X-Real-IP", "True-Client-IP", "Forwarded"])(
		"cannot be chosen by %s",
		async (name) => {
			await ask("POST /health", { [name]: "198.51.100.1" });
			expect(keys()).toEqual(["unknown"]);
		},
	);
});

describe("a request", () => {
	it.each([
		["POST /health", {}],
		["PUT /no/such/path", {}],
		["PATCH /health", {}],
		["DELETE /health", {}],
		["GET /health", { Upgrade: "websocket" }],
		["HEAD /health", { Upgrade: "websocket" }],
	])("%s with %j counts once", async (route, headers) => {
		await ask(route, headers);
		expect(keys()).toEqual(["unknown"]);
	});

	it.each(["GET /health", "HEAD /health", "GET /no/such/path"])(
		"%s does not count",
		async (route) => {
			await ask(route);
			expect(keys()).toEqual([]);
		},
	);

	it("of a browser that only asks whether it may change does not count", async () => {
		env.ALLOWED_ORIGINS = "https://allowed.example";
		const response = await ask("OPTIONS /health", {
			Origin: env.ALLOWED_ORIGINS,
			"Access-Control-Request-Method": "POST",
		});
		expect(response.status).toBe(204);
		expect(keys()).toEqual([]);
	});

	it("over the limit is refused as any error, also to an allowed origin", async () => {
		env.ALLOWED_ORIGINS = "https://allowed.example";
		const Origin = env.ALLOWED_ORIGINS;
		limiter.mockResolvedValue({ success: false });
		const response = await ask("POST /health", { Origin });
		expect(response.status).toBe(429);
		expect(response.headers.get("Access-Control-Allow-Origin")).toBe(Origin);
		expect(response.headers.get("Access-Control-Expose-Headers")).toContain(
			"Retry-After",
		);
		expect(response.headers.get("X-Request-Id")).not.toBeNull();
		expect(await response.json()).toEqual({
			error: { code: "rate_limited", message: expect.any(String) },
		});
	});
});

it("logs no address when the limiter fails", async () => {
	const log = vi.spyOn(console, "error").mockImplementation(() => {});
	limiter.mockRejectedValue(new Error("out of order"));
	const headers = { "CF-Connecting-IP": "203.0.113.7" };
	expect((await ask("POST /health", headers)).status).toBe(405);
	expect(log).toHaveBeenCalledTimes(1);
	const line = log.mock.calls[0]?.[0];
	expect(JSON.parse(line)).toMatchObject({
		level: "error",
		message: "Rate limiter failed",
		error: { message: "out of order" },
	});
	expect(line).not.toContain("203.0.113.7");
});
