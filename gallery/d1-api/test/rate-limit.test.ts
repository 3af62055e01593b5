import { env, exports } from "cloudflare:workers";
import { Hono } from "hono";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { rateLimited } from "../src/index";

const HOME = { "CF-Connecting-IP": "203.0.113.7" };
const limiter = vi.spyOn(env.RATE_LIMITER, "limit");

beforeEach(() => {
	// One address has reached its limit.
	limiter.mockImplementation(async ({ key }) => ({
		success: key !== "203.0.113.7",
	}));
});

afterEach(() => {
	vi.resetAllMocks();
});

function request(
	method: string,
	headers: HeadersInit = HOME,
): Promise<Response> {
	const init = { method, headers };
	return exports.default.fetch(new Request("https://example.com/health", init));
}

it.each([
	["POST", HOME],
	["GET", { ...HOME, Upgrade: "websocket" }],
])("limits %s with %j, and says when to come back", async (method, headers) => {
	const response = await request(method, headers);
	expect(response.status).toBe(429);
	expect(response.headers.get("Retry-After")).toBe("60");
	expect(await response.json()).toMatchObject({
		error: { code: "rate_limited" },
	});
});

it("limits neither reads nor other addresses", async () => {
	expect((await request("GET")).status).toBe(200);
	const other = { "CF-Connecting-IP": "203.0.113.8" };
	expect((await request("POST", other)).status).toBe(405);
});

it("works on without a limiter, and logs why", async () => {
	const log = vi.spyOn(console, "error").mockImplementation(() => {});
	limiter.mockRejectedValue(new Error("out of order"));
	expect((await request("POST")).status).toBe(405);
	expect(log).toHaveBeenCalledTimes(1);
});

it("limits a route of one's own", async () => {
	const mine = new Hono<{ Bindings: Env }>();
	mine.get("/report", rateLimited, (c) => c.text("done"));
	const read = async (headers: Record<string, string>) =>
		(await mine.request("/report", { headers }, env)).status;
	expect([await read(HOME), await read({})]).toEqual([429, 200]);
});
