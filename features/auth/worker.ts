import type { Context } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import * as z from "zod";
import {
	bearerToken,
	hasApiToken,
	unauthorized,
} from "../../base/access/worker";
import type { AppEnv } from "../../base/http/worker";
import { ApiError, app, logError } from "../../base/http/worker";
import { readJson } from "../../base/json/worker";

const AUTH_COOKIE = "auth_token";
const AUTH_SESSION_SECONDS = 24 * 60 * 60;

const authBody = z.strictObject({
	userId: z.string().min(1).max(128),
	data: z.record(z.string(), z.unknown()).default({}),
});

/** What KV holds of a session, as JSON. */
type AuthSession = z.infer<typeof authBody> & { expiresAt: string };

function authToken(c: Context<AppEnv>): string | undefined {
	return bearerToken(c) ?? getCookie(c, AUTH_COOKIE);
}

// Who reads the keys of the namespace must not be able to use a session.
async function authKey(token: string): Promise<string> {
	const bytes = new TextEncoder().encode(token);
	const digest = await crypto.subtle.digest("SHA-256", bytes);
	return new Uint8Array(digest).toHex();
}

/**
 * Looks up the session of a request.
 *
 * @returns The session; `null` without a token, or with one that is unknown,
 * ended or expired.
 * @throws Error when KV fails.
 */
export async function authReadSession(
	c: Context<AppEnv>,
): Promise<AuthSession | null> {
	const token = authToken(c);
	if (!token) {
		return null;
	}
	const key = await authKey(token);
	const session = await c.env.AUTH_TOKENS.get<AuthSession>(key, "json");
	const isLive = session !== null && Date.parse(session.expiresAt) > Date.now();
	return isLive ? session : null;
}

app.post("/auth/sessions", async (c) => {
	// A session cannot make further sessions and so outlive its own end.
	if (!(await hasApiToken(c))) {
		throw unauthorized();
	}
	const body = await readJson(c, authBody);
	const token = crypto.getRandomValues(new Uint8Array(32)).toBase64({
		alphabet: "base64url",
		omitPadding: true,
	});
	const expires = new Date(Date.now() + AUTH_SESSION_SECONDS * 1000);
	const expiresAt = expires.toISOString();
	await c.env.AUTH_TOKENS.put(
		await authKey(token),
		JSON.stringify({ ...body, expiresAt } satisfies AuthSession),
		{ expirationTtl: AUTH_SESSION_SECONDS },
	);
	setCookie(c, AUTH_COOKIE, token, {
		httpOnly: true,
		secure: true,
		sameSite: "Lax",
		path: "/",
		maxAge: AUTH_SESSION_SECONDS,
	});
	return c.json({ token, expiresAt }, 201);
});

app.get("/auth/session", async (c) => {
	let session: AuthSession | null;
	try {
		session = await authReadSession(c);
	} catch (error) {
		logError("Session lookup failed", error, { requestId: c.var.requestId });
		const message = "Internal server error";
		return c.json({ authenticated: false, message }, 500);
	}
	if (session === null) {
		const message = authToken(c)
			? "Invalid or expired token"
			: "No authentication token provided";
		return c.json({ authenticated: false, message }, 403);
	}
	const { userId, data } = session;
	const message = "Authentication successful";
	return c.json({ authenticated: true, message, userId, data });
});

app.delete("/auth/session", async (c) => {
	const token = authToken(c);
	if (!token || (await authReadSession(c)) === null) {
		throw new ApiError(403, "no_session", "There is no session to end.");
	}
	await c.env.AUTH_TOKENS.delete(await authKey(token));
	deleteCookie(c, AUTH_COOKIE, { path: "/", secure: true });
	return c.body(null, 204);
});
