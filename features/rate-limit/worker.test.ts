import { env, exports } from "cloudflare:workers";
import { Hono } from "hono";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { rateLimit, rateLimited } from "./worker";

const HOME = { "CF-Connecting-IP": "203.0.113.7" };
const HOME_KEY = "address 203.0.113.7";

/** What has reached its limit. */
const full = new Set<string>();
let limiter: MockInstance<typeof env.RATE_LIMITER.limit>;

beforeEach(() => {
	limiter = vi
		.spyOn(env.RATE_LIMITER, "limit")
		.mockImplementation(async ({ key }) => ({ success: !full.has(key ?? "") }));
});

afterEach(() => {
	vi.restoreAllMocks();
	full.clear();
	env.ALLOWED_ORIGINS = "";
});

/** What has been counted. */
function counted(): unknown[] {
	return limiter.mock.calls.map(([{ key }]) => key);
}

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

/** Asks for a WebSocket where there is none, which every Worker has. */
function upgrade(headers: Record<string, string> = HOME): Promise<Response> {
	const Upgrade = "websocket";
	return request("/health", { headers: { Upgrade, ...headers } });
}

describe("a client that sends too much", () => {
	beforeEach(() => {
		full.add(HOME_KEY);
	});

	it("is told when to come back", async () => {
		const response = await upgrade();
		expect(response.status).toBe(429);
		expect(response.headers.get("Retry-After")).toBe("60");
		expect(response.headers.get("X-Request-Id")).not.toBeNull();
		expect(await response.json()).toEqual({
			error: { code: "rate_limited", message: expect.any(String) },
		});
	});

	it("may be told so on a page of an allowed origin", async () => {
		env.ALLOWED_ORIGINS = "https://other.example";
		const Origin = env.ALLOWED_ORIGINS;
		const response = await upgrade({ ...HOME, Origin });
		expect(response.status).toBe(429);
		expect(response.headers.get("Access-Control-Allow-Origin")).toBe(Origin);
	});

	it("still reads what is open", async () => {
		for (const method of ["GET", "HEAD"]) {
			const response = await request("/health", { method, headers: HOME });
			expect(response.status).toBe(200);
		}
		expect(counted()).toEqual([]);
	});

	it.each([
		["/no/such/path", 404],
		["/health", 405],
	])("still learns that nobody takes a POST to %s", async (path, status) => {
		const response = await request(path, { method: "POST", headers: HOME });
		expect(response.status).toBe(status);
		expect(counted()).toEqual([]);
	});

	it("learns nothing of its cookie, which is looked at later", async () => {
		const foreign = { Cookie: "a=b", Origin: "https://other.example" };
		expect((await upgrade({ ...HOME, ...foreign })).status).toBe(429);
		full.clear();
		expect((await upgrade({ ...HOME, ...foreign })).status).toBe(403);
	});

	it("keeps nobody else away", async () => {
		const other = { "CF-Connecting-IP": "203.0.113.8" };
		expect((await upgrade(other)).status).toBe(200);
	});
});

describe("an address", () => {
	it.each([
		["203.0.113.7", HOME_KEY],
		["::ffff:203.0.113.7", HOME_KEY],
		["::FFFF:cb00:7107", HOME_KEY],
		["0:0:0:0:0:ffff:203.0.113.7", HOME_KEY],
		["2001:db8:1:2:3:4:5:6", "address 2001:db8:1:2::/64"],
		["2001:DB8:0001:2::", "address 2001:db8:1:2::/64"],
		["2001:db8:1:2::6", "address 2001:db8:1:2::/64"],
		["2001:db8:1:3::6", "address 2001:db8:1:3::/64"],
		["2001:db8::6", "address 2001:db8::/64"],
		["2001:0:0:1::6", "address 2001:0:0:1::/64"],
		["::1", "address ::/64"],
		["::ffff:1:2:3", "address ::/64"],
		["no address", "address no address"],
		["::no::", "address ::no::"],
	])("%s counts as %s", async (address, key) => {
		await upgrade({ "CF-Connecting-IP": address });
		expect(counted()).toEqual([key]);
	});

	it("is missing where Cloudflare is", async () => {
		await upgrade({});
		expect(counted()).toEqual(["address unknown"]);
	});

	it.each(["X-Forwarded-For", "X-Real-IP", "True-Client-IP", "Forwarded"])(
		"cannot be chosen by %s",
		async (name) => {
			await upgrade({ ...HOME, [name]: "198.51.100.1" });
			expect(counted()).toEqual([HOME_KEY]);
		},
	);
});

describe("without a limiter that works", () => {
	it("the Worker works without limits, and logs why", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		limiter.mockRejectedValue(new Error("out of order"));
		expect((await upgrade()).status).toBe(200);
		expect(log).toHaveBeenCalledTimes(1);
		const line = log.mock.calls[0]?.[0];
		expect(JSON.parse(line)).toMatchObject({
			level: "error",
			message: "Rate limiter failed",
			error: { message: "out of order" },
		});
		expect(line).not.toContain("203.0.113.7");
	});
});

describe("rateLimited", () => {
	const app = new Hono<{ Bindings: Env }>().get(
		"/expensive",
		rateLimited,
		rateLimited,
		(c) => c.text("done"),
	);

	it("limits an open route by the address, and counts once", async () => {
		const read = () => app.request("/expensive", { headers: HOME }, env);
		expect(await (await read()).text()).toBe("done");
		full.add(HOME_KEY);
		expect((await read()).status).toBe(429);
		expect(counted()).toEqual([HOME_KEY, HOME_KEY]);
	});
});

describe("rateLimit", () => {
	it("counts a key of your own, apart from addresses and users", async () => {
		await rateLimit(env, HOME_KEY);
		expect(counted()).toEqual([`own ${HOME_KEY}`]);
		full.add("own report ada");
		await expect(rateLimit(env, "report ada")).rejects.toMatchObject({
			status: 429,
			code: "rate_limited",
			headers: { "Retry-After": "60" },
		});
	});

	it("takes a limiter with other numbers", async () => {
		const limit = vi.fn(async () => ({ success: false }));
		const limited = rateLimit(env, "sign-in ada", { limit }, 10);
		await expect(limited).rejects.toMatchObject({
			status: 429,
			headers: { "Retry-After": "10" },
		});
		expect(limit).toHaveBeenCalledExactlyOnceWith({ key: "own sign-in ada" });
		expect(counted()).toEqual([]);
	});
});

//% if "auth" in features
it("limits what nobody needs a token for, such as signing out", async () => {
	full.add(HOME_KEY);
	const get = vi.spyOn(env.AUTH_TOKENS, "get");
	const headers = { ...HOME, Authorization: "Bearer guessed" };
	const response = await request("/auth/session", {
		method: "DELETE",
		headers,
	});
	expect(response.status).toBe(429);
	expect(get).not.toHaveBeenCalled();
});

//% endif
