import { env, exports } from "cloudflare:workers";
import { Hono } from "hono";
import { afterEach, describe, expect, it, vi } from "vitest";
import { operatorOnly } from "../src/access";
import { readSession, sessionOnly } from "../src/auth";
import { startSession } from "./session";

afterEach(() => {
	vi.restoreAllMocks();
});

function request(path, init = {}) {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

function bearer(token) {
	return { Authorization: `Bearer ${token}` };
}

async function isLive(token) {
	const response = await request("/auth/session", { headers: bearer(token) });
	return response.status === 200;
}

describe("POST /auth/sessions", () => {
	function start(body, token = env.API_TOKEN) {
		return request("/auth/sessions", {
			method: "POST",
			headers: { "Content-Type": "application/json", ...bearer(token) },
			body: JSON.stringify(body),
		});
	}

	it("starts a session of a day, in a cookie that scripts cannot read", async () => {
		const response = await start({ userId: "ada" });
		expect(response.status).toBe(201);
		const { token } = await response.json();
		expect(response.headers.get("Set-Cookie")).toBe(
			`auth_token=${token}; Max-Age=86400; Path=/; HttpOnly; Secure; SameSite=Lax`,
		);
	});

	it("keeps the token out of KV", async () => {
		const token = await startSession();
		const { keys } = await env.AUTH_TOKENS.list();
		const get = ({ name }) => env.AUTH_TOKENS.get(name);
		const values = await Promise.all(keys.map(get));
		expect(keys).not.toEqual([]);
		expect(JSON.stringify([keys, values])).not.toContain(token);
	});

	it.each([{}, { userId: "" }, { userId: "ada", admin: true }])(
		"refuses %j",
		async (body) => {
			expect((await start(body)).status).toBe(400);
		},
	);

	it("takes the API token, and no session", async () => {
		const token = await startSession({ operator: true });
		expect((await start({ userId: "eve" }, token)).status).toBe(401);
	});
});

it("shows the session of a bearer token or a cookie", async () => {
	const token = await startSession({ data: { role: "reader" } });
	for (const headers of [bearer(token), { Cookie: `auth_token=${token}` }]) {
		const response = await request("/auth/session", { headers });
		expect(response.status).toBe(200);
		expect(await response.json()).toMatchObject({
			authenticated: true,
			data: { role: "reader" },
		});
	}
});

it("ends a session for good, and no other", async () => {
	const [token, other] = [await startSession(), await startSession()];
	const init = { method: "DELETE", headers: bearer(token) };
	expect((await request("/auth/session", init)).status).toBe(204);
	expect([await isLive(token), await isLive(other)]).toEqual([false, true]);
});

it("ends a session after a day, whatever KV still has", async () => {
	const token = await startSession();
	vi.spyOn(Date, "now").mockReturnValue(Date.now() + 86_401_000);
	expect(await isLive(token)).toBe(false);
});

it("keeps pages of other sites from using a user's cookie", async () => {
	const Cookie = `auth_token=${await startSession()}`;
	const headers = { Cookie, Origin: "https://other.example" };
	const init = { method: "DELETE", headers };
	expect((await request("/auth/session", init)).status).toBe(403);
});

it("lets users and operators pass to their routes", async () => {
	const mine = new Hono();
	mine.use(readSession);
	mine.get("/user", sessionOnly, (c) => c.text(c.var.session.userId));
	mine.get("/operator", operatorOnly, (c) => c.text("opened"));
	const status = async (path, token) =>
		(await mine.request(path, { headers: bearer(token) }, env)).status;
	const user = await startSession();
	const operator = await startSession({ operator: true });
	expect(await status("/user", user)).toBe(200);
	expect(await status("/user", "wrong")).toBe(401);
	expect(await status("/operator", user)).toBe(403);
	expect(await status("/operator", operator)).toBe(200);
	expect(await status("/operator", env.API_TOKEN)).toBe(200);
});
