import { Hono } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { sha256 } from "hono/utils/crypto";
import * as z from "zod";
import { bearerToken, hasApiToken, unauthorized } from "./access";
import { readJson } from "./base";
import { requireTrustedOrigin } from "./origin";
import { userIdSchema } from "./user";

const SESSION_SECONDS = 24 * 60 * 60;

const COOKIE = "auth_token";
const COOKIE_OPTIONS = {
	httpOnly: true,
	secure: true,
	sameSite: "Lax",
	path: "/",
};

const newSession = z.strictObject({
	userId: userIdSchema,
	/** Anything else about the user, such as a role. */
	data: z.record(z.string(), z.unknown()).default({}),
	/** Whether the session opens what only operators may do. */
	operator: z.boolean().default(false),
});

/** Middleware for all requests: finds the session, as `c.var.session`. */
export async function readSession(c, next) {
	const isRead = c.req.method === "GET" || c.req.method === "HEAD";
	if (getCookie(c, COOKIE) && (!isRead || c.req.header("Upgrade"))) {
		// Browsers attach the cookie whichever site's page sends the request.
		requireTrustedOrigin(c);
	}
	const hasToken = await hasApiToken(c);
	c.set("session", hasToken ? null : await findSession(c.env, sessionToken(c)));
	await next();
}

async function findSession(env, token) {
	if (!token) {
		return null;
	}
	const key = await sessionKey(token);
	const session = await env.AUTH_TOKENS.get(key, "json");
	const isLive = session && Date.parse(session.expiresAt) > Date.now();
	return isLive ? session : null;
}

function sessionToken(c) {
	return bearerToken(c) || getCookie(c, COOKIE) || "";
}

/** Returns where KV holds a session. A leaked key opens nothing. */
async function sessionKey(token) {
	return String(await sha256(token));
}

/** Middleware: lets only users with a session pass, as `c.var.session`. */
export async function sessionOnly(c, next) {
	if (!c.var.session) {
		throw unauthorized("Sign in first, or send the token of a session.");
	}
	await next();
}

/**
 * Starts a session of a user that you have authenticated, and sets its cookie.
 *
 * @returns Its token, which is stored nowhere, and when it ends.
 */
export async function startSession(c, user) {
	const random = crypto.getRandomValues(new Uint8Array(32));
	const token = random.toBase64({ alphabet: "base64url", omitPadding: true });
	const expires = new Date(Date.now() + SESSION_SECONDS * 1000);
	const session = { ...user, expiresAt: expires.toISOString() };
	const key = await sessionKey(token);
	const options = { expirationTtl: SESSION_SECONDS };
	await c.env.AUTH_TOKENS.put(key, JSON.stringify(session), options);
	setCookie(c, COOKIE, token, { ...COOKIE_OPTIONS, maxAge: SESSION_SECONDS });
	return { token, expiresAt: session.expiresAt };
}

/** @type {Hono<{ Bindings: Env }>} */
export const auth = new Hono();

auth.post("/auth/sessions", async (c) => {
	// Not `operatorOnly`: a session that starts others would outlive its own end.
	if (!(await hasApiToken(c))) {
		throw unauthorized();
	}
	return c.json(await startSession(c, await readJson(c, newSession)), 201);
});

auth.get("/auth/session", (c) => {
	const { session } = c.var;
	if (session === null) {
		const message = "Missing, invalid or expired token";
		return c.json({ authenticated: false, message }, 403);
	}
	const { userId, data } = session;
	const message = "Authentication successful";
	return c.json({ authenticated: true, message, userId, data });
});

auth.delete("/auth/session", async (c) => {
	if (c.var.session) {
		await c.env.AUTH_TOKENS.delete(await sessionKey(sessionToken(c)));
	}
	deleteCookie(c, COOKIE, COOKIE_OPTIONS);
	return c.body(null, 204);
});
