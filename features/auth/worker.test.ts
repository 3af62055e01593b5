import { reset } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { startSession } from "../auth/test/session";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const DAY = 24 * 60 * 60 * 1000;
const LONGEST_USER_ID = "ü".repeat(48);

afterEach(async () => {
	vi.restoreAllMocks();
	await reset();
});

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

function start(
	body: unknown,
	headers: Record<string, string> = OPERATOR,
): Promise<Response> {
	return request("/auth/sessions", {
		method: "POST",
		headers: { "Content-Type": "application/json", ...headers },
		body: JSON.stringify(body),
	});
}

function endAll(query: string, headers: HeadersInit = OPERATOR) {
	return request(`/auth/sessions${query}`, { method: "DELETE", headers });
}

function newToken(userId = "ada"): Promise<string> {
	return startSession({ userId, data: { role: "admin" } });
}

function bearer(token: string) {
	return { Authorization: `Bearer ${token}` };
}

async function isLive(token: string): Promise<boolean> {
	const response = await request("/auth/session", { headers: bearer(token) });
	return response.status === 200;
}

async function keys(): Promise<string[]> {
	return (await env.AUTH_TOKENS.list()).keys.map(({ name }) => name);
}

describe("POST /auth/sessions", () => {
	it("starts a session of 24 hours", async () => {
		const before = Date.now();
		const response = await start({ userId: "ada", data: {} });
		expect(response.status).toBe(201);
		expect(response.headers.get("Cache-Control")).toBe("no-store");
		const { token, expiresAt } = await response.json<Record<string, string>>();
		// 32 random bytes.
		expect(token).toMatch(/^[\w-]{43}$/);
		const end = Date.parse(expiresAt ?? "");
		expect(end).toBeGreaterThanOrEqual(before + DAY);
		expect(end).toBeLessThanOrEqual(Date.now() + DAY);
		expect(await newToken()).not.toBe(token);
	});

	it("sets cookies that scripts cannot read", async () => {
		const response = await start({ userId: "ada" });
		const { token } = await response.json<{ token: string }>();
		const attributes = "Max-Age=86400; Path=/; HttpOnly; Secure; SameSite=Lax";
		expect(response.headers.getSetCookie()).toEqual([
			`auth_token=${token}; ${attributes}`,
			`__Host-auth_token=${token}; ${attributes}`,
		]);
	});

	it("keeps the token out of KV, and all that it writes for a day", async () => {
		const before = Math.floor(Date.now() / 1000);
		const token = await newToken("ada lovelace");
		const list = await env.AUTH_TOKENS.list();
		const [session = "", index] = list.keys.map(({ name }) => name);
		expect(list.keys).toHaveLength(2);
		expect(session).toMatch(/^[0-9a-f]{64}$/);
		expect(index).toBe(`user:ada%20lovelace:${session}`);
		const stored = await env.AUTH_TOKENS.get(session);
		expect(JSON.stringify(list) + stored).not.toContain(token);
		expect(JSON.parse(stored ?? "")).toEqual({
			userId: "ada lovelace",
			data: { role: "admin" },
			operator: false,
			expiresAt: expect.any(String),
		});
		for (const { expiration } of list.keys) {
			expect(expiration).toBeGreaterThanOrEqual(before + DAY / 1000);
			expect(expiration).toBeLessThanOrEqual(before + DAY / 1000 + 60);
		}
	});

	it("starts no session that the user's index does not know", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		const put = env.AUTH_TOKENS.put.bind(env.AUTH_TOKENS);
		vi.spyOn(env.AUTH_TOKENS, "put").mockImplementation((key, ...rest) =>
			key.startsWith("user:")
				? Promise.reject(new Error("KV is down"))
				: put(key, ...rest),
		);
		const response = await start({ userId: "ada" });
		expect(response.status).toBe(500);
		expect(response.headers.get("Set-Cookie")).toBeNull();
		expect(log).toHaveBeenCalledTimes(1);
		expect(await keys()).toEqual([]);
	});

	it("takes any user id of up to 96 bytes", async () => {
		for (const userId of [LONGEST_USER_ID, "a:b/c?d=%00", "👩‍💻"]) {
			expect((await start({ userId })).status).toBe(201);
		}
	});

	it.each([
		{},
		{ userId: "" },
		{ userId: 1 },
		{ userId: `${LONGEST_USER_ID}a` },
		{ userId: "ada\u001b[2J" },
		{ userId: "\ud800" },
		{ userId: "ada", data: [] },
		{ userId: "ada", operator: "true" },
		{ userId: "ada", admin: true },
	])("refuses the body %j", async (body) => {
		const response = await start(body);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_body", issues: [expect.anything()] },
		});
		expect(await keys()).toEqual([]);
	});
});

describe("DELETE /auth/sessions", () => {
	it("ends all sessions of a user, and of nobody else", async () => {
		const others = ["a", "ada:", "ada:x", "ada%3A", "Ada", "adam"];
		const left = await Promise.all(others.map(newToken));
		const before = await keys();
		const ended = [await newToken("ada"), await newToken("ada")];

		const response = await endAll("?userId=ada");

		expect(response.status).toBe(204);
		expect(await response.text()).toBe("");
		expect(await Promise.all(ended.map(isLive))).not.toContain(true);
		expect(await Promise.all(left.map(isLive))).not.toContain(false);
		expect(await keys()).toEqual(before);
	});

	it("finds a user id that a URL has to escape", async () => {
		const userId = "Ada & Zoë/👩‍💻?#%2F";
		const token = await newToken(userId);
		const query = new URLSearchParams({ userId });
		expect((await endAll(`?${query}`)).status).toBe(204);
		expect(await isLive(token)).toBe(false);
	});

	it("goes through all pages of the list", async () => {
		const list = env.AUTH_TOKENS.list.bind(env.AUTH_TOKENS);
		const pages = vi
			.spyOn(env.AUTH_TOKENS, "list")
			.mockImplementation((options) => list({ ...options, limit: 2 }));
		const tokens = await Promise.all(["ada", "ada", "ada"].map(newToken));
		expect((await endAll("?userId=ada")).status).toBe(204);
		expect(pages).toHaveBeenCalledTimes(2);
		expect(pages).toHaveBeenLastCalledWith({
			prefix: "user:ada:",
			cursor: expect.any(String),
		});
		expect(await Promise.all(tokens.map(isLive))).not.toContain(true);
	});

	it("can be repeated after a failure", async () => {
		vi.spyOn(console, "error").mockImplementation(() => {});
		const token = await newToken();
		const remove = env.AUTH_TOKENS.delete.bind(env.AUTH_TOKENS);
		const failing = vi
			.spyOn(env.AUTH_TOKENS, "delete")
			.mockImplementation((key) =>
				key.startsWith("user:")
					? remove(key)
					: Promise.reject(new Error("KV is down")),
			);
		expect((await endAll("?userId=ada")).status).toBe(500);
		failing.mockRestore();
		expect((await endAll("?userId=ada")).status).toBe(204);
		expect(await isLive(token)).toBe(false);
		expect((await endAll("?userId=ada")).status).toBe(204);
	});

	it.each([
		"",
		"?userId=",
		"?user=ada",
		`?userId=${"a".repeat(97)}`,
		"?userId=a%00",
	])("refuses %j", async (query) => {
		const token = await newToken();
		const response = await endAll(query);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_query" },
		});
		expect(await isLive(token)).toBe(true);
	});
});

describe("GET /auth/session", () => {
	it.each(["Authorization: Bearer", "Cookie: auth_token="])(
		"shows the session of %s",
		async (way) => {
			const [name = "", value = ""] = way.split(": ");
			const token = await newToken();
			const separator = value.endsWith("=") ? "" : " ";
			const headers = { [name]: value + separator + token };
			const response = await request("/auth/session", { headers });
			expect(response.status).toBe(200);
			expect(await response.json()).toEqual({
				authenticated: true,
				message: expect.any(String),
				userId: "ada",
				data: { role: "admin" },
			});
		},
	);

	it("finds its cookie among others", async () => {
		const Cookie = `theme=dark; auth_token=${await newToken()}; a=b`;
		const response = await request("/auth/session", { headers: { Cookie } });
		expect(response.status).toBe(200);
	});

	it("takes the cookie that only this host can set before the other", async () => {
		const [own, foreign] = [await newToken("ada"), await newToken("eve")];
		const Cookie = `auth_token=${foreign}; __Host-auth_token=${own}; auth_token=x`;
		const response = await request("/auth/session", { headers: { Cookie } });
		expect(await response.json()).toMatchObject({ userId: "ada" });
	});

	it("takes the header before a cookie", async () => {
		const Cookie = `__Host-auth_token=${await newToken("eve")}`;
		const headers = { Cookie, ...bearer(await newToken("ada")) };
		const response = await request("/auth/session", { headers });
		expect(await response.json()).toMatchObject({ userId: "ada" });
	});

	it.each([
		[{}, "No authentication token provided"],
		[{ Authorization: "Basic x" }, "No authentication token provided"],
		[{ Cookie: "auth_token=" }, "No authentication token provided"],
		[bearer("x"), "Invalid or expired token"],
		[OPERATOR, "Invalid or expired token"],
		[{ Cookie: "auth_token=x" }, "Invalid or expired token"],
	])("answers 403 to %j", async (headers, message) => {
		const response = await request("/auth/session", { headers });
		expect(response.status).toBe(403);
		expect(await response.json()).toEqual({ authenticated: false, message });
	});

	it("looks nothing up without a token", async () => {
		const get = vi.spyOn(env.AUTH_TOKENS, "get");
		await request("/auth/session");
		expect(get).not.toHaveBeenCalled();
	});

	it("answers 403 once the session expired, whatever KV still has", async () => {
		const token = await newToken();
		const now = Date.now();
		const clock = vi.spyOn(Date, "now").mockReturnValue(now + DAY - 60_000);
		expect(await isLive(token)).toBe(true);
		clock.mockReturnValue(now + DAY + 1000);
		expect(await isLive(token)).toBe(false);
	});

	it("answers 500 in the same shape when KV fails, and logs once", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env.AUTH_TOKENS, "get").mockRejectedValue(new Error("KV is down"));
		const headers = bearer("some-token");
		const response = await request("/auth/session", { headers });
		expect(response.status).toBe(500);
		expect(await response.json()).toEqual({
			authenticated: false,
			message: "Internal server error",
		});
		expect(log).toHaveBeenCalledTimes(1);
		const line = log.mock.calls[0]?.[0];
		expect(line).not.toContain("some-token");
		expect(JSON.parse(line)).toMatchObject({
			level: "error",
			message: "Session lookup failed",
			requestId: response.headers.get("X-Request-Id"),
			error: { message: "KV is down" },
		});
	});
});

describe("DELETE /auth/session", () => {
	it("ends this session alone, and takes the cookies back", async () => {
		const [token, other] = [await newToken(), await newToken()];
		const before = await keys();
		const response = await request("/auth/session", {
			method: "DELETE",
			headers: { Cookie: `auth_token=${token}` },
		});
		expect(response.status).toBe(204);
		const attributes = "Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax";
		expect(response.headers.getSetCookie()).toEqual([
			`auth_token=; ${attributes}`,
			`__Host-auth_token=; ${attributes}`,
		]);
		expect(await isLive(token)).toBe(false);
		expect(await isLive(other)).toBe(true);
		expect(before).toHaveLength(4);
		expect(await keys()).toHaveLength(2);
	});

	it("looks the session up once", async () => {
		const headers = bearer(await newToken());
		const get = vi.spyOn(env.AUTH_TOKENS, "get");
		await request("/auth/session", { method: "DELETE", headers });
		expect(get).toHaveBeenCalledTimes(1);
	});

	it.each([{}, bearer("x"), OPERATOR])("answers 403 to %j", async (headers) => {
		const response = await request("/auth/session", {
			method: "DELETE",
			headers,
		});
		expect(response.status).toBe(403);
		expect(await response.json()).toEqual({
			error: { code: "no_session", message: "There is no session to end." },
		});
		// A browser forgets a session that has ended elsewhere.
		const cookies = response.headers.getSetCookie();
		expect(cookies).toHaveLength(2);
		for (const cookie of cookies) {
			expect(cookie).toMatch(/auth_token=; Max-Age=0;/);
		}
	});
});

describe("a page of another site", () => {
	it("cannot spend a user's cookie", async () => {
		const token = await newToken();
		const response = await request("/auth/session", {
			method: "DELETE",
			headers: {
				Cookie: `auth_token=${token}`,
				Origin: "https://other.example",
			},
		});
		expect(response.status).toBe(403);
		expect(await response.json()).toMatchObject({
			error: { code: "foreign_origin" },
		});
		expect(await isLive(token)).toBe(true);
	});
});
