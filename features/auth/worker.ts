import type { Context } from "hono";
import { getCookie, setCookie } from "hono/cookie";
import { createMiddleware } from "hono/factory";
import * as z from "zod";
import {
	bearerToken,
	hasApiToken,
	unauthorized,
} from "../../base/access/worker";
import type { AppEnv } from "../../base/http/worker";
import { ApiError, app } from "../../base/http/worker";
import { parseInput, readJson } from "../../base/json/worker";
import { logError } from "../../base/log/worker";
import { userIdSchema } from "../../base/text/worker";

/**
 * A session's cookie has two names: a browser lets other hosts of the same domain
 * set `auth_token` as well, so the one that only this host can set comes first.
 */
const AUTH_COOKIES = { plain: "auth_token", host: "__Host-auth_token" };
const AUTH_SESSION_SECONDS = 24 * 60 * 60;

const authUser = z.strictObject({ userId: userIdSchema });

const authNewSession = authUser.extend({
	data: z.record(z.string(), z.unknown()).default({}),
	operator: z.boolean().default(false),
});

/** A session, as KV holds it. */
export type AuthSession = z.infer<typeof authNewSession> & {
	expiresAt: string;
};

function authToken<E extends AppEnv>(c: Context<E>): string | undefined {
	return (
		bearerToken(c) ??
		getCookie(c, AUTH_COOKIES.host) ??
		getCookie(c, AUTH_COOKIES.plain)
	);
}

function authSetCookies<E extends AppEnv>(
	c: Context<E>,
	token: string,
	maxAge: number,
): void {
	for (const name of Object.values(AUTH_COOKIES)) {
		setCookie(c, name, token, {
			httpOnly: true,
			secure: true,
			sameSite: "Lax",
			path: "/",
			maxAge,
		});
	}
}

/** Lets the client of a request forget its session, whoever has ended it. */
export function authClearCookies<E extends AppEnv>(c: Context<E>): void {
	authSetCookies(c, "", 0);
}

/** Returns where KV holds a session. A list of the keys opens nothing. */
async function authSessionKey(token: string): Promise<string> {
	const bytes = new TextEncoder().encode(token);
	const digest = await crypto.subtle.digest("SHA-256", bytes);
	return new Uint8Array(digest).toHex();
}

/** What the keys of a user's index begin with; the keys of sessions follow. */
function authUserPrefix(userId: string): string {
	return `user:${encodeURIComponent(userId)}:`;
}

/**
 * Starts a session, and sets its cookie.
 *
 * @param c The request of a user that you have authenticated.
 * @param user The user's id; what you want to know of the user, such as a role;
 * whether the session opens what only operators may do.
 * @returns The token of the session, which is stored nowhere, and its end.
 * @throws ApiError 400 for a user id that is not valid.
 */
export async function authStartSession<E extends AppEnv>(
	c: Context<E>,
	user: z.input<typeof authNewSession>,
): Promise<{ token: string; expiresAt: string }> {
	const started = parseInput(authNewSession, user);
	const token = crypto.getRandomValues(new Uint8Array(32)).toBase64({
		alphabet: "base64url",
		omitPadding: true,
	});
	const expires = new Date(Date.now() + AUTH_SESSION_SECONDS * 1000);
	const session = { ...started, expiresAt: expires.toISOString() };
	const key = await authSessionKey(token);
	const options = { expirationTtl: AUTH_SESSION_SECONDS };
	// The index first: no session may be missing there.
	const indexKey = authUserPrefix(session.userId) + key;
	await c.env.AUTH_TOKENS.put(indexKey, "", options);
	await c.env.AUTH_TOKENS.put(
		key,
		JSON.stringify(session satisfies AuthSession),
		options,
	);
	authSetCookies(c, token, AUTH_SESSION_SECONDS);
	return { token, expiresAt: session.expiresAt };
}

/**
 * Returns the session of a request, which is looked up only once.
 *
 * @returns The session; `null` without a token, or with one that is unknown,
 * ended or expired.
 * @throws Error when KV fails.
 */
export async function authReadSession<E extends AppEnv>(
	c: Context<E>,
): Promise<AuthSession | null> {
	// Not set yet, whatever its type says.
	if (c.get("session") === undefined) {
		const token = authToken(c);
		const session = token ? await authFindSession(c.env, token) : null;
		c.set("session", session as E["Variables"]["session"]);
	}
	return c.get("session");
}

async function authFindSession(
	env: Env,
	token: string,
): Promise<AuthSession | null> {
	const key = await authSessionKey(token);
	const session = await env.AUTH_TOKENS.get<AuthSession>(key, "json");
	const isLive = session !== null && Date.parse(session.expiresAt) > Date.now();
	return isLive ? session : null;
}

async function authEndSession(
	env: Env,
	userId: string,
	key: string,
): Promise<void> {
	// The index last: should one fail, the next call finds both again.
	await env.AUTH_TOKENS.delete(key);
	await env.AUTH_TOKENS.delete(authUserPrefix(userId) + key);
}

/** Ends all sessions of a user. After a failure, a second call does the rest. */
export async function authEndSessions(env: Env, userId: string): Promise<void> {
	const prefix = authUserPrefix(userId);
	let cursor: string | null = null;
	do {
		const page: KVNamespaceListResult<unknown> = await env.AUTH_TOKENS.list({
			prefix,
			cursor,
		});
		const keys = page.keys.map(({ name }) => name.slice(prefix.length));
		await Promise.all(keys.map((key) => authEndSession(env, userId, key)));
		cursor = page.list_complete ? null : page.cursor;
	} while (cursor !== null);
}

// A session that could start others would outlive its own end.
const authTokenOnly = createMiddleware<AppEnv>(async (c, next) => {
	if (!(await hasApiToken(c))) {
		throw unauthorized();
	}
	await next();
});

app.post("/auth/sessions", authTokenOnly, async (c) => {
	const user = await readJson(c, authNewSession);
	return c.json(await authStartSession(c, user), 201);
});

app.delete("/auth/sessions", authTokenOnly, async (c) => {
	const { userId } = parseInput(authUser, c.req.query(), "invalid_query");
	await authEndSessions(c.env, userId);
	return c.body(null, 204);
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
	const session = await authReadSession(c);
	const token = authToken(c);
	// Also where it has ended elsewhere, so that no page goes on sending it.
	authClearCookies(c);
	if (session === null || !token) {
		throw new ApiError(403, "no_session", "There is no session to end.");
	}
	await authEndSession(c.env, session.userId, await authSessionKey(token));
	return c.body(null, 204);
});
