import { reset } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

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

async function newToken(): Promise<string> {
	const response = await start({ userId: "ada", data: { role: "admin" } });
	return (await response.json<{ token: string }>()).token;
}

function bearer(token: string): RequestInit {
	return { headers: { Authorization: `Bearer ${token}` } };
}

describe("POST /auth/sessions", () => {
	it("starts a session of 24 hours and sets a cookie scripts cannot read", async () => {
		const response = await start({ userId: "ada", data: {} });
		expect(response.status).toBe(201);
		const { token, expiresAt } = await response.json<Record<string, string>>();
		const day = 24 * 60 * 60 * 1000;
		expect(Date.parse(expiresAt ?? "") - Date.now()).toBeGreaterThan(
			day - 9000,
		);
		expect(Date.parse(expiresAt ?? "") - Date.now()).toBeLessThanOrEqual(day);
		const [value, ...attributes] =
			response.headers.get("Set-Cookie")?.split("; ") ?? [];
		expect(value).toBe(`auth_token=${token}`);
		expect(attributes).toEqual(
			expect.arrayContaining(["HttpOnly", "Secure", "SameSite=Lax", "Path=/"]),
		);
		expect(response.headers.get("Cache-Control")).toBe("no-store");
	});

	it("keeps the token out of KV", async () => {
		const token = await newToken();
		const { keys } = await env.AUTH_TOKENS.list();
		expect(keys).toHaveLength(1);
		const key = keys[0]?.name ?? "";
		expect(key).toMatch(/^[0-9a-f]{64}$/);
		expect(key + (await env.AUTH_TOKENS.get(key))).not.toContain(token);
		expect(keys[0]?.expiration).toBeGreaterThan(Date.now() / 1000 + 86_000);
	});

	it("opens for the API token only, not for a session", async () => {
		const token = await newToken();
		const headers = { Authorization: `Bearer ${token}` };
		expect((await start({ userId: "eve" }, headers)).status).toBe(401);
		expect((await start({ userId: "eve" }, {})).status).toBe(401);
	});

	it.each([{}, { userId: "" }, { userId: 1 }, { userId: "ada", data: [] }])(
		"refuses the body %j",
		async (body) => {
			expect((await start(body)).status).toBe(400);
		},
	);
});

describe("GET /auth/session", () => {
	it("reads the session by header and by cookie", async () => {
		const token = await newToken();
		const byHeader = await request("/auth/session", bearer(token));
		const byCookie = await request("/auth/session", {
			headers: { Cookie: `theme=dark; auth_token=${token}` },
		});
		for (const response of [byHeader, byCookie]) {
			expect(response.status).toBe(200);
			expect(await response.json()).toEqual({
				authenticated: true,
				message: expect.any(String),
				userId: "ada",
				data: { role: "admin" },
			});
		}
	});

	const refused = [
		{},
		{ Authorization: "Bearer x" },
		{ Cookie: "auth_token=" },
	];

	it.each(refused)("answers 403 to %j", async (headers) => {
		const response = await request("/auth/session", { headers });
		expect(response.status).toBe(403);
		expect(await response.json()).toEqual({
			authenticated: false,
			message: expect.any(String),
		});
	});

	it("answers 403 once the session expired", async () => {
		const token = await newToken();
		const dayAfterTomorrow = Date.now() + 2 * 24 * 60 * 60 * 1000;
		vi.spyOn(Date, "now").mockReturnValue(dayAfterTomorrow);
		expect((await request("/auth/session", bearer(token))).status).toBe(403);
	});

	it("answers 500 in the same shape when KV fails, and logs once", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env.AUTH_TOKENS, "get").mockRejectedValue(new Error("KV is down"));
		const response = await request("/auth/session", bearer("some-token"));
		expect(response.status).toBe(500);
		const body = await response.text();
		expect(JSON.parse(body)).toEqual({
			authenticated: false,
			message: expect.any(String),
		});
		expect(body).not.toContain("KV is down");
		expect(log).toHaveBeenCalledTimes(1);
		expect(log.mock.calls[0]?.[0]).not.toContain("some-token");
	});
});

describe("DELETE /auth/session", () => {
	it("ends the session and takes the cookie back", async () => {
		const token = await newToken();
		const init = { method: "DELETE", ...bearer(token) };
		const response = await request("/auth/session", init);
		expect(response.status).toBe(204);
		expect(response.headers.get("Set-Cookie")).toMatch(
			/^auth_token=; Max-Age=0/,
		);
		expect((await request("/auth/session", bearer(token))).status).toBe(403);
		expect((await env.AUTH_TOKENS.list()).keys).toEqual([]);
	});

	it("answers 403 without a session", async () => {
		const response = await request("/auth/session", { method: "DELETE" });
		expect(response.status).toBe(403);
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
		expect((await request("/auth/session", bearer(token))).status).toBe(200);
	});

	it("learns no more than others that a route is not there", async () => {
		const headers = { Cookie: "a=b", Origin: "https://other.example" };
		const unknown = await request("/nowhere", { method: "POST", headers });
		expect(unknown.status).toBe(404);
		const method = await request("/auth/session", { method: "PUT", headers });
		expect(method.status).toBe(405);
	});
});
