import { env, exports } from "cloudflare:workers";
import { Hono } from "hono";
import {
	afterAll,
	afterEach,
	beforeAll,
	beforeEach,
	describe,
	expect,
	it,
	vi,
} from "vitest";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import { startSession } from "../auth/test/session";
import { readSession, sessionOnly } from "./worker";

const { API_TOKEN } = env;
const DAY = 24 * 60 * 60 * 1000;
const LONGEST_USER_ID = "ü".repeat(48);
const FOREIGN = "https://other.example";
const COOKIE =
	/^auth_token=([^;]*); Max-Age=(\d+); Path=\/; HttpOnly; Secure; SameSite=Lax$/;

/** The locked routes, each with a path that it matches and that does little. */
const LOCKED: Record<string, string> = {
	//% set wanted = "locked"
	//% include "extensions/routes_with.jinja"
	// All others are open.
};
const FOR_OPERATORS = Object.keys(LOCKED).filter(
	(route) => route !== "POST /auth/sessions",
);

/** The services of other features. A request that reaches one has passed the lock. */
const SERVICES = Object.entries(env).filter(
	([name, value]) =>
		typeof value === "object" &&
		!/^(AUTH_TOKENS|RATE_LIMITER|__.*)$/.test(name),
);
const OUT_OF_ORDER = new Proxy(
	{},
	{
		get() {
			throw new Error("out of order");
		},
	},
);

beforeAll(() => {
	for (const [name] of SERVICES) {
		Object.assign(env, { [name]: OUT_OF_ORDER });
	}
});

afterAll(() => {
	Object.assign(env, Object.fromEntries(SERVICES));
});

beforeEach(() => {
	vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(async () => {
	vi.restoreAllMocks();
	env.API_TOKEN = API_TOKEN;
	env.ALLOWED_ORIGINS = "";
	const { keys } = await env.AUTH_TOKENS.list();
	await Promise.all(keys.map(({ name }) => env.AUTH_TOKENS.delete(name)));
});

/** Sends a request for `GET /a/path` without a body. */
function ask(route: string, headers: Record<string, string> = {}) {
	const [method = "", path = ""] = route.split(" ");
	const url = `https://example.com${LOCKED[route] ?? path}`;
	return exports.default.fetch(new Request(url, { method, headers }));
}

function start(body: unknown): Promise<Response> {
	return exports.default.fetch(
		new Request("https://example.com/auth/sessions", {
			method: "POST",
			headers: { "Content-Type": "application/json", ...bearer(API_TOKEN) },
			body: JSON.stringify(body),
		}),
	);
}

function bearer(token: string) {
	return { Authorization: `Bearer ${token}` };
}

function cookie(token: string) {
	return { Cookie: `auth_token=${token}` };
}

async function codeOf(response: Response): Promise<string> {
	const { error } = await response.json<{ error: { code: string } }>();
	return error.code;
}

describe.each(Object.keys(LOCKED))("%s", (route) => {
	it.each([{}, bearer("wrong"), cookie("wrong"), cookie(API_TOKEN)])(
		"is locked for %j",
		async (headers) => {
			const response = await ask(route, headers);
			expect(response.status).toBe(401);
			expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
			expect(await codeOf(response)).toBe("unauthorized");
		},
	);

	it.each(["", undefined])("stays locked with API_TOKEN %j", async (secret) => {
		Object.assign(env, { API_TOKEN: secret });
		for (const token of ["", "undefined", API_TOKEN]) {
			expect((await ask(route, bearer(token))).status).toBe(401);
		}
	});

	it("opens for the API token, whatever the cookie says", async () => {
		const ours = cookie(await startSession());
		for (const headers of [{}, ours]) {
			const response = await ask(route, { ...bearer(API_TOKEN), ...headers });
			expect([401, 403]).not.toContain(response.status);
		}
	});

	it("refuses the API token beside a cookie from a foreign page", async () => {
		const headers = { ...bearer(API_TOKEN), ...cookie("any"), Origin: FOREIGN };
		const isRead = route.startsWith("GET ");
		expect((await ask(route, headers)).status === 403).toBe(!isRead);
	});
});

describe.each(FOR_OPERATORS)("%s", (route) => {
	it.each([bearer, cookie])("opens for an operator's session", async (show) => {
		const headers = show(await startSession({ operator: true }));
		const response = await ask(route, headers);
		expect([401, 403]).not.toContain(response.status);
		vi.spyOn(Date, "now").mockReturnValue(Date.now() + DAY + 1000);
		expect((await ask(route, headers)).status).toBe(401);
	});

	it.each([bearer, cookie])("does not open for a user's", async (show) => {
		const response = await ask(route, show(await startSession()));
		expect(response.status).toBe(403);
		expect(await codeOf(response)).toBe("operator_only");
	});

	it("trusts a cookie on its own pages, and to change on no others", async () => {
		const headers = cookie(await startSession({ operator: true }));
		const from = (Origin: string, more = {}) =>
			ask(route, { ...headers, Origin, ...more });
		const own = await from("https://example.com");
		expect([401, 403]).not.toContain(own.status);
		const upgrade = await from(FOREIGN, { Upgrade: "websocket" });
		expect(await codeOf(upgrade)).toBe("foreign_origin");
		const foreign = await from(FOREIGN);
		expect(foreign.status === 403).toBe(!route.startsWith("GET "));
	});

	it("does not open for a session that has ended", async () => {
		const headers = bearer(await startSession({ operator: true }));
		await ask("DELETE /auth/session", headers);
		expect((await ask(route, headers)).status).toBe(401);
	});
});

it("starts no session by a session", async () => {
	const token = await startSession({ operator: true });
	for (const headers of [bearer(token), cookie(token)]) {
		expect((await ask("POST /auth/sessions", headers)).status).toBe(401);
	}
});

describe("a cookie", () => {
	it.each([
		["https://example.com", 204],
		["http://example.com", 403],
		["https://example.com:8443", 403],
		["https://example.com.other.example", 403],
		["https://sub.example.com", 403],
		["https://allowed.example", 204],
		["null", 403],
	])(
		"is of use to a page of %s that changes something: %i",
		async (Origin, status) => {
			env.ALLOWED_ORIGINS = "https://allowed.example";
			const headers = { ...cookie(await startSession()), Origin };
			const response = await ask("DELETE /auth/session", headers);
			expect(response.status).toBe(status);
			const after = await ask("GET /auth/session", headers);
			expect(after.status).toBe(status === 403 ? 200 : 403);
		},
	);

	it.each([
		["POST /no/such/path", cookie("any"), 403],
		["GET /health", { ...cookie("any"), Upgrade: "websocket" }, 403],
		["GET /health", cookie("any"), 200],
		["HEAD /health", cookie("any"), 200],
		["DELETE /auth/session", { Cookie: "other=1" }, 204],
		["DELETE /auth/session", bearer("any"), 204],
	])(
		"is what a foreign page may not send: %s with %j is %i",
		async (route, headers, status) => {
			const response = await ask(route, { ...headers, Origin: FOREIGN });
			expect(response.status).toBe(status);
		},
	);

	it("is found among others, and comes after a bearer token", async () => {
		const [ada, eve] = [
			await startSession(),
			await startSession({ userId: "eve" }),
		];
		const Cookie = `theme=dark; auth_token=${eve}; a=b`;
		const shown = await ask("GET /auth/session", { Cookie });
		expect(await shown.json()).toMatchObject({ userId: "eve" });
		const both = await ask("GET /auth/session", { Cookie, ...bearer(ada) });
		expect(await both.json()).toMatchObject({ userId: "ada" });
	});
});

describe("a new session", () => {
	it("is 32 random bytes, good for a day, in a cookie", async () => {
		const before = Date.now();
		const response = await start({ userId: "ada" });
		expect(response.headers.get("Cache-Control")).toBe("no-store");
		const body = await response.json<{ token: string; expiresAt: string }>();
		expect(Object.keys(body)).toEqual(["token", "expiresAt"]);
		expect(body.token).toMatch(/^[\w-]{43}$/);
		const end = Date.parse(body.expiresAt);
		expect(end).toBeGreaterThanOrEqual(before + DAY);
		expect(end).toBeLessThanOrEqual(Date.now() + DAY);
		const set = response.headers.getSetCookie();
		expect(set).toEqual([expect.stringMatching(COOKIE)]);
		expect(COOKIE.exec(set[0] ?? "")?.slice(1)).toEqual([body.token, "86400"]);
		expect(await startSession()).not.toBe(body.token);
	});

	it("is in KV for a day, under the hash of its token", async () => {
		const before = Math.floor(Date.now() / 1000);
		const token = await startSession({ data: { role: "admin" } });
		const hash = await crypto.subtle.digest(
			"SHA-256",
			new TextEncoder().encode(token),
		);
		const { keys } = await env.AUTH_TOKENS.list();
		expect(keys.map(({ name }) => name)).toEqual([
			new Uint8Array(hash).toHex(),
		]);
		const [{ name, expiration = 0 } = { name: "" }] = keys;
		expect(expiration - before - DAY / 1000).toBeGreaterThanOrEqual(0);
		expect(expiration - before - DAY / 1000).toBeLessThanOrEqual(60);
		expect(await env.AUTH_TOKENS.get(name, "json")).toEqual({
			userId: "ada",
			data: { role: "admin" },
			operator: false,
			expiresAt: expect.any(String),
		});
	});

	it.each([LONGEST_USER_ID, "a:b/c?d=%00", "👩‍💻"])(
		"may be of %s",
		async (userId) => {
			const headers = bearer(await startSession({ userId }));
			const response = await ask("GET /auth/session", headers);
			expect(await response.json()).toMatchObject({ userId, data: {} });
		},
	);

	it.each([
		{},
		{ userId: "" },
		{ userId: 1 },
		{ userId: `${LONGEST_USER_ID}a` },
		{ userId: "ada\u001b[2J" },
		{ userId: "ada", data: [] },
		{ userId: "ada", operator: "true" },
		{ userId: "ada", admin: true },
	])("is not started by %j", async (body) => {
		const response = await start(body);
		expect(response.status).toBe(400);
		expect(await codeOf(response)).toBe("invalid_body");
		expect((await env.AUTH_TOKENS.list()).keys).toEqual([]);
	});

	it("sets no cookie when KV fails", async () => {
		vi.spyOn(env.AUTH_TOKENS, "put").mockRejectedValue(new Error("KV is down"));
		const response = await start({ userId: "ada" });
		expect(response.status).toBe(500);
		expect(response.headers.get("Set-Cookie")).toBeNull();
	});
});

describe("GET /auth/session", () => {
	it.each([
		{},
		{ Authorization: "Basic x" },
		cookie(""),
		cookie("x"),
		bearer("x"),
		bearer(API_TOKEN),
	])("answers 403 to %j", async (headers) => {
		const response = await ask("GET /auth/session", headers);
		expect(response.status).toBe(403);
		expect(await response.json()).toEqual({
			authenticated: false,
			message: expect.any(String),
		});
	});

	it("tells the end of a session by the clock", async () => {
		const headers = bearer(await startSession());
		const { status } = await ask("GET /auth/session", headers);
		const clock = vi
			.spyOn(Date, "now")
			.mockReturnValue(Date.now() + DAY - 60_000);
		const before = await ask("GET /auth/session", headers);
		clock.mockReturnValue(Date.now() + 61_000);
		const after = await ask("GET /auth/session", headers);
		expect([status, before.status, after.status]).toEqual([200, 200, 403]);
	});

	it("answers 500 when KV fails, and logs no token", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env.AUTH_TOKENS, "get").mockRejectedValue(new Error("KV is down"));
		const response = await ask("GET /auth/session", bearer("some-token"));
		expect(response.status).toBe(500);
		expect(log).toHaveBeenCalledExactlyOnceWith(
			expect.not.stringContaining("some-token"),
		);
	});
});

describe("DELETE /auth/session", () => {
	it.each([bearer, cookie])(
		"ends one session, and its cookie",
		async (show) => {
			const [token, other] = [await startSession(), await startSession()];
			const response = await ask("DELETE /auth/session", show(token));
			expect(response.status).toBe(204);
			const [set = ""] = response.headers.getSetCookie();
			expect(COOKIE.exec(set)?.slice(1)).toEqual(["", "0"]);
			expect((await ask("GET /auth/session", bearer(token))).status).toBe(403);
			expect((await ask("GET /auth/session", bearer(other))).status).toBe(200);
			expect((await env.AUTH_TOKENS.list()).keys).toHaveLength(1);
		},
	);

	it.each([{}, bearer("x"), cookie("x"), bearer(API_TOKEN)])(
		"is 204 with %j too, and writes nothing",
		async (headers) => {
			const remove = vi.spyOn(env.AUTH_TOKENS, "delete");
			const response = await ask("DELETE /auth/session", headers);
			expect(response.status).toBe(204);
			expect(response.headers.get("Set-Cookie")).toMatch(/Max-Age=0/);
			expect(remove).not.toHaveBeenCalled();
		},
	);
});

describe("a route of one's own", () => {
	const mine = new Hono<AppEnv>();
	const session = {
		userId: "ada",
		data: { a: 1 },
		operator: true,
		expiresAt: expect.any(String),
	};

	mine.use(readSession);
	mine.get("/open", (c) => c.json(c.var.session));
	mine.get("/user", sessionOnly, sessionOnly, (c) => c.json(c.var.session));
	mine.get("/operator", operatorOnly, (c) => c.json(c.var.session));

	function see(path: string, headers: Record<string, string> = {}) {
		return mine.request(path, { headers }, env);
	}

	it.each(["/open", "/user", "/operator"])(
		"%s gets the session",
		async (path) => {
			const token = await startSession({ data: { a: 1 }, operator: true });
			const get = vi.spyOn(env.AUTH_TOKENS, "get");
			for (const headers of [bearer(token), cookie(token)]) {
				get.mockClear();
				expect(await (await see(path, headers)).json()).toEqual(session);
				expect(get).toHaveBeenCalledTimes(1);
			}
		},
	);

	it.each([
		["/open", {}, 200],
		["/open", bearer(API_TOKEN), 200],
		["/operator", bearer(API_TOKEN), 200],
		["/operator", {}, 401],
		["/user", bearer(API_TOKEN), 401],
		["/user", {}, 401],
	])(
		"%s has none with %j: %i, without a look-up",
		async (path, headers, status) => {
			const get = vi.spyOn(env.AUTH_TOKENS, "get");
			const response = await see(path, headers);
			expect(response.status).toBe(status);
			expect(status === 200 ? await response.json() : null).toBeNull();
			expect(get).not.toHaveBeenCalled();
		},
	);

	it("is open to nobody where no middleware has read the session", async () => {
		const bare = new Hono<AppEnv>().get("/", sessionOnly, (c) => c.text("no"));
		const headers = bearer(await startSession());
		expect((await bare.request("/", { headers }, env)).status).toBe(401);
	});
});

//% if "rate-limit" in features
it.each([...Object.keys(LOCKED), "DELETE /auth/session"])(
	"%s is limited before a token is looked at",
	async (route) => {
		const get = vi.spyOn(env.AUTH_TOKENS, "get");
		const limit = vi
			.spyOn(env.RATE_LIMITER, "limit")
			.mockResolvedValue({ success: false });
		const isRead = route.startsWith("GET ");
		const response = await ask(route, bearer("guessed"));
		expect(response.status).toBe(isRead ? 401 : 429);
		expect(limit).toHaveBeenCalledTimes(isRead ? 0 : 1);
		expect(get).toHaveBeenCalledTimes(isRead ? 1 : 0);
	},
);

//% endif
