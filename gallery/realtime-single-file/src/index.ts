import { DurableObject } from "cloudflare:workers";
import { isIPv6 } from "node:net";
import type { Context, Next } from "hono";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { cors } from "hono/cors";
import { createMiddleware } from "hono/factory";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { secureHeaders } from "hono/secure-headers";
import { timingSafeEqual } from "hono/utils/buffer";
import { sha256 } from "hono/utils/crypto";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { convertIPv6ToBinary } from "hono/utils/ipaddr";
import type { ZodType } from "zod";
import * as z from "zod";
import { name } from "../package.json";

// Imports above this line come from the template.

// Your imports

// #region base
/** Hono's types for this Worker: its bindings, and what it keeps in `c.var`. */
export type AppEnv = { Bindings: Env; Variables: { requestId: string } };

const app = new Hono<AppEnv>();

/** A problem of an input, and its place, such as `items.0.name`. */
type Issue = { path: string; message: string };

/** An error that the client may see: throw it from a route. */
export class ApiError extends HTTPException {
	code: string;
	headers: Record<string, string>;
	issues: Issue[] | undefined;

	constructor(
		status: ContentfulStatusCode,
		code: string,
		message: string,
		headers: Record<string, string> = {},
		issues?: Issue[],
	) {
		super(status, { message });
		this.code = code;
		this.headers = headers;
		this.issues = issues;
	}

	override getResponse(): Response {
		const { status, code, message, headers, issues } = this;
		const body = errorBody(code, message, { issues });
		return Response.json(body, { status, headers });
	}
}

/** The body of every error. */
function errorBody(code: string, message: string, more: object = {}) {
	return { error: { code, message, ...more } };
}

/** Writes one JSON line to the logs. Never give it a secret. */
export function logInfo(message: string, fields: object = {}): void {
	console.log(JSON.stringify({ level: "info", message, ...fields }));
}

/** Writes one JSON line to the logs, as an error with its causes. */
export function logError(message: string, error: unknown, fields = {}): void {
	const line = { level: "error", message, ...fields, error: describe(error) };
	console.error(JSON.stringify(line));
}

function describe(error: unknown): unknown {
	if (!(error instanceof Error)) {
		return error && String(error);
	}
	const { message, stack, cause } = error;
	const { name } = error.name === "Error" ? error.constructor : error;
	return { name, message, stack, cause: describe(cause) };
}

/** Tells whether pages of another site may call this Worker. */
export function isAllowedOrigin(env: Env, origin: string): boolean {
	return origin !== "" && env.ALLOWED_ORIGINS.split(/[, ]+/).includes(origin);
}

// Every request goes through these, in this order.
app.use(
	async (c, next) => {
		// Never the client's, which need not be unique.
		c.set("requestId", crypto.randomUUID());
		await next();
		// Mutable by now: `cors` has copied the response.
		const { headers } = c.res;
		headers.set("X-Request-Id", c.var.requestId);
		if (!headers.has("Cache-Control")) {
			headers.set("Cache-Control", "no-store");
		}
	},
	secureHeaders({
		contentSecurityPolicy: {
			defaultSrc: ["'none'"],
			frameAncestors: ["'none'"],
		},
		strictTransportSecurity: "max-age=31536000",
		overwrite: false, // A route keeps what it has set.
	}),
	cors({
		origin: (origin, c) => (isAllowedOrigin(c.env, origin) ? origin : null),
		credentials: true,
		exposeHeaders: ["ETag", "Retry-After", "X-Request-Id"],
		maxAge: 600,
	}),
	methodNotAllowed({
		app,
		onMethodNotAllowed: (c, methods) => {
			const Allow = methods.join(", ");
			const message = `This route takes ${Allow}.`;
			return c.json(errorBody("method_not_allowed", message), 405, { Allow });
		},
	}),
);

app.notFound((c) => c.json(errorBody("not_found", "No such route."), 404));

app.onError((error, c) => {
	// An ApiError, or what Hono's own middleware throws, such as `basicAuth`.
	if (error instanceof HTTPException && error.status !== 500) {
		return error.getResponse();
	}
	const { requestId } = c.var;
	// The path alone: a query may hold what must not be logged.
	const { method, path } = c.req;
	logError("Unexpected error", error, { requestId, method, path });
	const message = "Something went wrong. The logs know this requestId.";
	return c.json(errorBody("internal_error", message, { requestId }), 500);
});

/** Checks any input: the 400 that it throws lists what is wrong, and where. */
export function parseInput<Output>(
	schema: ZodType<Output>,
	input: unknown,
	code = "invalid_body",
): Output {
	const { data, error } = schema.safeParse(input);
	if (!error) {
		return data;
	}
	// Names of keys may be the client's, and long.
	const issues = error.issues.slice(0, 20).map(({ path, message }) => ({
		path: path.join(".").slice(0, 200),
		message: message.slice(0, 200),
	}));
	const message = "Correct what `issues` lists, and send it again.";
	throw new ApiError(400, code, message, {}, issues);
}

const limitJson = bodyLimit({
	maxSize: 64 * 1024,
	onError: () => {
		const message = "JSON bodies may have at most 64 KiB.";
		throw new ApiError(413, "body_too_large", message);
	},
});

/** Reads a JSON body and checks it: throws a 415, 413 or 400. */
export async function readJson<E extends AppEnv, Output>(
	c: Context<E>,
	schema: ZodType<Output>,
): Promise<Output> {
	const [type = ""] = c.req.header("Content-Type")?.split(";") ?? [];
	if (!/^application\/([\w.-]+\+)?json *$/i.test(type)) {
		const message = "Send the body as application/json.";
		throw new ApiError(415, "unsupported_media_type", message);
	}
	let body: unknown;
	try {
		// Middleware of your own may have read it before.
		await (c.req.raw.bodyUsed || limitJson(c, async () => {}));
		body = await c.req.json();
	} catch (error) {
		if (error instanceof ApiError) {
			throw error;
		}
		throw new ApiError(400, "invalid_json", "The body is not valid JSON.");
	}
	return parseInput(schema, body);
}

// #endregion base
// #region origin
/** Refuses the pages of sites that are neither this one nor allowed: 403. */
export function requireTrustedOrigin<E extends AppEnv>(c: Context<E>): void {
	const { origin: own } = new URL(c.req.url);
	// Without the header, no browser has sent it across sites.
	const origin = c.req.header("Origin") ?? own;
	if (origin !== own && !isAllowedOrigin(c.env, origin)) {
		const message = "Send this from this site or an allowed origin.";
		throw new ApiError(403, "foreign_origin", message);
	}
}

// #endregion origin
// #region user
/** The id of a user: 1 to 96 bytes of UTF-8 without control characters. */
export const userIdSchema = z
	.string()
	.regex(/^[^\p{Cc}\p{Cs}]+$/u, "Must be text without control characters")
	.refine(
		(id) => new TextEncoder().encode(id).length <= 96,
		"Must have at most 96 bytes of UTF-8",
	);

// #endregion user
// #region access
/** Returns the token of `Authorization: Bearer <token>`, or "". */
export function bearerToken<E extends AppEnv>(c: Context<E>): string {
	const header = c.req.header("Authorization") ?? "";
	return /^Bearer +(\S+)$/i.exec(header)?.[1] ?? "";
}

/** Tells whether a request has the API token. An unset or empty one locks. */
export async function hasApiToken<E extends AppEnv>(
	c: Context<E>,
): Promise<boolean> {
	const { API_TOKEN } = c.env;
	return !!API_TOKEN && timingSafeEqual(bearerToken(c), API_TOKEN);
}

/** The answer to a request that does not show who sends it. */
export function unauthorized(
	message = "Send `Authorization: Bearer <API_TOKEN>`.",
): ApiError {
	const headers = { "WWW-Authenticate": "Bearer" };
	return new ApiError(401, "unauthorized", message, headers);
}

/** Middleware for the operator's routes: lets nobody else pass. */
export const operatorOnly = createMiddleware<AppEnv>(async (c, next) => {
	if (c.var.session?.operator) {
		return next();
	}
	if (c.var.session) {
		const message = "This needs the API token or an operator's session.";
		throw new ApiError(403, "operator_only", message);
	}

	if (!(await hasApiToken(c))) {
		throw unauthorized();
	}
	await next();
});

// #endregion access

app.use(limitChanges);
app.use(readSession);

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

// #region websockets
const MESSAGE_BYTES = 65_536;

const chat = new Hono<AppEnv>();

chat.get("/ws/:room", (c) => {
	const room = c.req.param("room");
	if (!/^[A-Za-z0-9_-]{1,64}$/.test(room)) {
		const message = "Name the room with 1 to 64 letters, digits, `_` or `-`.";
		throw new ApiError(400, "invalid_room", message);
	}
	if (c.req.header("Upgrade")?.toLowerCase() !== "websocket") {
		const message = "Connect with a WebSocket.";
		const headers = { Upgrade: "websocket" };
		throw new ApiError(426, "upgrade_required", message, headers);
	}
	requireTrustedOrigin(c);
	return c.env.CHAT_ROOM.getByName(room).fetch(c.req.raw);
});

/** One chat room: what a client sends, every other client gets. */
export class ChatRoom extends DurableObject<Env> {
	/** Accepts the connection that the route has checked. */
	override fetch(): Response {
		const { 0: client, 1: server } = new WebSocketPair();
		// The runtime answers these by itself, without waking the object.
		this.ctx.setWebSocketAutoResponse(
			new WebSocketRequestResponsePair("ping", "pong"),
		);
		// Accepted this way, the object may leave memory while the connection
		// stays open; the next message brings it back.
		this.ctx.acceptWebSocket(server);
		return new Response(null, { status: 101, webSocket: client });
	}

	/** Passes a message on to the room, and confirms it to its sender. */
	override webSocketMessage(
		sender: WebSocket,
		message: string | ArrayBuffer,
	): void {
		// A client goes on sending until it learns that it was closed.
		if (sender.readyState !== WebSocket.OPEN) {
			return;
		}
		if (typeof message !== "string") {
			sender.close(1003, "Only text messages");
			return;
		}
		if (new TextEncoder().encode(message).length > MESSAGE_BYTES) {
			sender.close(1009, `At most ${MESSAGE_BYTES} bytes`);
			return;
		}
		// A socket stays in the list until its close handshake ends.
		const open = this.ctx
			.getWebSockets()
			.filter((socket) => socket.readyState === WebSocket.OPEN);
		for (const socket of open) {
			if (socket !== sender) {
				socket.send(message);
			}
		}
		sender.send(
			`[Durable Object] message: ${message}, connections: ${open.length}`,
		);
	}

	/** Answers a client's close frame, which ends the handshake. */
	override webSocketClose(socket: WebSocket, code: number): void {
		// Only these are a client's own; no frame may carry some of the others.
		const isOwn = code >= 3000 && code < 5000;
		socket.close(isOwn ? code : 1000, "Closed by the client");
	}

	/** Closes a broken connection, such as one with a malformed frame. */
	override webSocketError(socket: WebSocket, error: unknown): void {
		logError("WebSocket error", error, { room: this.ctx.id.name });
		socket.close(1011, "WebSocket error");
	}
}

app.route("/", chat);

// #endregion websockets
// #region auth
const SESSION_SECONDS = 24 * 60 * 60;

const COOKIE = "auth_token";
const COOKIE_OPTIONS = {
	httpOnly: true,
	secure: true,
	sameSite: "Lax",
	path: "/",
} as const;

const newSession = z.strictObject({
	userId: userIdSchema,
	/** Anything else about the user, such as a role. */
	data: z.record(z.string(), z.unknown()).default({}),
	/** Whether the session opens what only operators may do. */
	operator: z.boolean().default(false),
});

/** A session, as KV holds it. */
export type Session = z.infer<typeof newSession> & { expiresAt: string };

declare module "hono" {
	interface ContextVariableMap {
		/** The session of the request; `null` without one. */
		session: Session | null;
	}
}

/** Middleware for all requests: finds the session, as `c.var.session`. */
export async function readSession(
	c: Context<AppEnv>,
	next: Next,
): Promise<void> {
	const isRead = c.req.method === "GET" || c.req.method === "HEAD";
	if (getCookie(c, COOKIE) && (!isRead || c.req.header("Upgrade"))) {
		// Browsers attach the cookie whichever site's page sends the request.
		requireTrustedOrigin(c);
	}
	const hasToken = await hasApiToken(c);
	c.set("session", hasToken ? null : await findSession(c.env, sessionToken(c)));
	await next();
}

async function findSession(env: Env, token: string): Promise<Session | null> {
	if (!token) {
		return null;
	}
	const key = await sessionKey(token);
	const session = await env.AUTH_TOKENS.get<Session>(key, "json");
	const isLive = session && Date.parse(session.expiresAt) > Date.now();
	return isLive ? session : null;
}

function sessionToken(c: Context<AppEnv>): string {
	return bearerToken(c) || getCookie(c, COOKIE) || "";
}

/** Returns where KV holds a session. A leaked key opens nothing. */
async function sessionKey(token: string): Promise<string> {
	return String(await sha256(token));
}

/** Middleware: lets only users with a session pass, as `c.var.session`. */
export async function sessionOnly(
	c: Context<AppEnv & { Variables: { session: Session } }, string>,
	next: Next,
): Promise<void> {
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
export async function startSession<E extends AppEnv>(
	c: Context<E>,
	user: z.infer<typeof newSession>,
): Promise<{ token: string; expiresAt: string }> {
	const random = crypto.getRandomValues(new Uint8Array(32));
	const token = random.toBase64({ alphabet: "base64url", omitPadding: true });
	const expires = new Date(Date.now() + SESSION_SECONDS * 1000);
	const session: Session = { ...user, expiresAt: expires.toISOString() };
	const key = await sessionKey(token);
	const options = { expirationTtl: SESSION_SECONDS };
	await c.env.AUTH_TOKENS.put(key, JSON.stringify(session), options);
	setCookie(c, COOKIE, token, { ...COOKIE_OPTIONS, maxAge: SESSION_SECONDS });
	return { token, expiresAt: session.expiresAt };
}

const auth = new Hono<AppEnv>();

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

app.route("/", auth);

// #endregion auth
// #region assets
const api = new Hono<AppEnv>();
api.get("/api/hello", (c) => c.json({ name }));

app.route("/", api);

// #endregion assets
// #region rate-limit
/** Must equal `period` in wrangler.jsonc: the limiter does not tell. */
const PERIOD_SECONDS = 60;

/** Middleware for all requests: limits those that change something or upgrade. */
export async function limitChanges(
	c: Context<AppEnv>,
	next: Next,
): Promise<void> {
	const isRead = c.req.method === "GET" || c.req.method === "HEAD";
	return isRead && !c.req.header("Upgrade") ? next() : rateLimited(c, next);
}

/** Middleware for a route that reads: limits it too, by the client's address. */
export async function rateLimited(
	c: Context<AppEnv>,
	next: Next,
): Promise<void> {
	const limit = c.env.RATE_LIMITER.limit({ key: addressOf(c) });
	const { success } = await limit.catch((error) => {
		// Without a limiter, the Worker works on without limits.
		logError("Rate limiter failed", error);
		return { success: true };
	});
	if (!success) {
		const message = `Wait ${PERIOD_SECONDS} seconds, then try again.`;
		const headers = { "Retry-After": String(PERIOD_SECONDS) };
		throw new ApiError(429, "rate_limited", message, headers);
	}
	await next();
}

/** Returns a client's address; for IPv6 the /64, which belongs to one client. */
function addressOf(c: Context<AppEnv>): string {
	// Cloudflare sets it, whatever the client sends.
	const address = c.req.header("CF-Connecting-IP") ?? "unknown";
	return isIPv6(address) ? `${convertIPv6ToBinary(address) >> 64n}` : address;
}

// #endregion rate-limit

// Your code

export default {
	fetch: app.fetch,
	// Your handlers
} satisfies ExportedHandler<Env>;
