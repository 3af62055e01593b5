import type { Context } from "hono";
import { Hono } from "hono";
import { cors } from "hono/cors";
import { createMiddleware } from "hono/factory";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { matchedRoutes } from "hono/route";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { getPath } from "hono/utils/url";
import type { AuthSession } from "../../features/auth/worker";
import { rateLimitChange } from "../../features/rate-limit/worker";
import { logError } from "../log/worker";

/** What middleware keeps for the handlers of a request, in `c.var`. */
type AppVariables = {
	/** The id of the request, as `X-Request-Id` has it. */
	requestId: string;
	//% if "auth" in features
	/** Behind `operatorOnly` or `sessionOnly`; `null` for the API token. */
	session: AuthSession | null;
	//% endif
	//% if "rate-limit" in features
	/** What this request has been counted under. */
	rateLimitKeys: string[];
	//% endif
	// Your variables
};

/** Hono's types for this Worker: its bindings and its variables. */
export type AppEnv = { Bindings: Env; Variables: AppVariables };

export const app = new Hono<AppEnv>();

//% if "r2" in features
// A key may have encoded slashes; a lock of `/files/private/*` must hold there too.
Object.assign(app, {
	getPath: (request: Request) =>
		getPath(request).replace(/^\/files\/.*/s, (path) =>
			path.replace(/%2f/gi, "/"),
		),
});

//% endif

/** Must equal `name` in wrangler.jsonc. */
export const WORKER_NAME = "{project_name}";

/** What is wrong with one value of an input, and where: `items.0.name`. */
export type InputIssue = { path: string; message: string };

/**
 * An error that the client may see.
 *
 * Throw it from a route: the client gets
 * `{"error":{"code":…,"message":…}}` with its status and headers. It never gets
 * the cause.
 */
export class ApiError extends HTTPException {
	code: string;
	headers: Record<string, string>;
	issues: InputIssue[] | undefined;

	constructor(
		status: ContentfulStatusCode,
		code: string,
		message: string,
		headers: Record<string, string> = {},
		options: { cause?: unknown; issues?: InputIssue[] } = {},
	) {
		super(status, { message, cause: options.cause });
		this.code = code;
		this.headers = headers;
		this.issues = options.issues;
	}
}

/** Tells whether a request asks for a WebSocket. */
export function isUpgrade<E extends AppEnv>(c: Context<E>): boolean {
	return c.req.header("Upgrade")?.toLowerCase() === "websocket";
}

/**
 * Tells whether something may answer a request; otherwise it stays a 404 or 405.
 *
 * Middleware for all paths does not count. Middleware for some does, since it may
 * answer itself. What takes every path, such as an app mounted at `/`, looks like
 * the former: call `requireTrustedOrigin` in it.
 */
export function isRouted<E extends AppEnv>(c: Context<E>): boolean {
	return matchedRoutes(c).some(
		({ method, path, handler }) =>
			method !== "ALL" || path !== "/*" || handler.length < 2,
	);
}

/**
 * Tells whether the page that sent a request may act for its user.
 *
 * @param c The request. Without an `Origin` header, no browser
 * sent it across sites, so it is trusted.
 * @returns Whether `Origin` is this Worker's own, or listed in the
 * `ALLOWED_ORIGINS` var.
 */
export function isTrustedOrigin<E extends AppEnv>(c: Context<E>): boolean {
	const origin = c.req.header("Origin");
	return (
		origin === undefined ||
		origin === new URL(c.req.url).origin ||
		isAllowedOrigin(c.env, origin)
	);
}

/**
 * Refuses a request that a foreign page has sent.
 *
 * @throws ApiError 403 unless `isTrustedOrigin` says yes.
 */
export function requireTrustedOrigin<E extends AppEnv>(c: Context<E>): void {
	if (!isTrustedOrigin(c)) {
		throw new ApiError(
			403,
			"foreign_origin",
			"Send this from this site or from an allowed origin.",
		);
	}
}

function isAllowedOrigin(env: Env, origin: string): boolean {
	// Browsers send `null` for pages without an origin: never trust those.
	return (
		URL.canParse(origin) &&
		env.ALLOWED_ORIGINS.split(",")
			.map((entry) => entry.trim())
			.some((entry) => entry === origin || URL.parse(entry)?.origin === origin)
	);
}

/** Headers of every response; a route that sets one keeps its own value. */
const DEFAULT_HEADERS = Object.entries({
	"Cache-Control": "no-store",
	"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
	"Cross-Origin-Opener-Policy": "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Origin-Agent-Cluster": "?1",
	"Referrer-Policy": "no-referrer",
	"Strict-Transport-Security": "max-age=31536000",
	"X-Content-Type-Options": "nosniff",
	"X-DNS-Prefetch-Control": "off",
	"X-Download-Options": "noopen",
	"X-Frame-Options": "SAMEORIGIN",
	"X-Permitted-Cross-Domain-Policies": "none",
	"X-XSS-Protection": "0",
});

/** Gives a request its id, never the client's, which need not be unique. */
const identify = createMiddleware<AppEnv>(async (c, next) => {
	c.set("requestId", crypto.randomUUID());
	await next();
});

/** Adds the headers of every response, once its handler is done. */
const addHeaders = createMiddleware<AppEnv>(async (c, next) => {
	await next();
	try {
		c.res.headers.set("X-Request-Id", c.var.requestId);
	} catch {
		// Headers of `fetch` and of Durable Objects are immutable; this copies them.
		c.header("X-Request-Id", c.var.requestId);
	}
	const { headers } = c.res;
	for (const [name, value] of DEFAULT_HEADERS) {
		if (!headers.has(name)) {
			headers.set(name, value);
		}
	}
	if (!headers.get("Vary")?.includes("Origin")) {
		headers.append("Vary", "Origin");
	}
});

const allowCors = cors({
	origin: (origin) => origin,
	credentials: true,
	exposeHeaders: [
		"Content-Disposition",
		"Content-Range",
		"ETag",
		"Location",
		"Retry-After",
		"X-Request-Id",
	],
	maxAge: 600,
});

/** CORS for `ALLOWED_ORIGINS`; a preflight from elsewhere gets no CORS headers. */
const corsForAllowedOrigins = createMiddleware<AppEnv>(async (c, next) => {
	const origin = c.req.header("Origin");
	if (origin === undefined) {
		return next();
	}
	if (isAllowedOrigin(c.env, origin)) {
		return allowCors(c, next);
	}
	const isPreflight =
		c.req.method === "OPTIONS" &&
		c.req.header("Access-Control-Request-Method") !== undefined;
	return isPreflight ? c.body(null, 204) : next();
});

/** Answers 405 where a path has routes, but none for the method. */
const refuseOtherMethods = methodNotAllowed({
	app,
	onMethodNotAllowed: (c, methods) => {
		const allowed = methods.join(", ");
		const message = `This route takes ${allowed}.`;
		return c.json(errorBody("method_not_allowed", message), 405, {
			Allow: allowed,
		});
	},
});

//% if "rate-limit" in features
/** Refuses a change or an upgrade of a client that sends too many of them. */
const limitChanges = createMiddleware<AppEnv>(async (c, next) => {
	await rateLimitChange(c);
	await next();
});

//% endif
/** Whether a request may change something, or asks for an upgrade. */
export function isChange(c: Context<AppEnv>): boolean {
	const isRead = ["GET", "HEAD"].includes(c.req.method);
	return !isRead || c.req.header("Upgrade") !== undefined;
}

/**
 * Refuses a change or an upgrade that a foreign page makes with a user's
 * cookie, which the browser attaches by itself (CSRF).
 */
const refuseForeignCookies = createMiddleware<AppEnv>(async (c, next) => {
	if (
		!isChange(c) ||
		c.req.header("Cookie") === undefined ||
		isTrustedOrigin(c)
	) {
		return next();
	}
	if (isRouted(c)) {
		throw new ApiError(
			403,
			"foreign_origin",
			"Requests with a cookie must come from this site or an allowed origin.",
		);
	}
	return next();
});

/** Turns anything thrown into an `Error`, the only thing Hono gives `onError`. */
const throwErrorsOnly = createMiddleware<AppEnv>(async (c, next) => {
	try {
		await next();
		if (!c.finalized || !(c.res instanceof Response)) {
			throw new Error("A middleware neither answered nor called next()");
		}
	} catch (thrown) {
		throw thrown instanceof Error ? thrown : new Error(String(thrown));
	}
});

// What every request goes through, in this order.
app.use(
	identify,
	addHeaders,
	corsForAllowedOrigins,
	refuseOtherMethods,
	//% if "rate-limit" in features
	limitChanges,
	//% endif
	refuseForeignCookies,
	throwErrorsOnly,
);

/** The body of every error. */
function errorBody(code: string, message: string, more: object = {}) {
	return { error: { code, message, ...more } };
}

app.notFound((c) => c.json(errorBody("not_found", "No such route."), 404));

app.onError((error, c) => {
	// Where nobody answered, `return next()` of a middleware left no response.
	if (!(c.res instanceof Response)) {
		c.res = undefined;
	}
	if (error instanceof ApiError) {
		const { status, code, message, headers, issues } = error;
		return c.json(errorBody(code, message, { issues }), status, headers);
	}
	const { requestId } = c.var;
	if (error instanceof HTTPException) {
		// Hono's own middleware throws these, such as `basicAuth`.
		const headers = new Headers(error.res?.headers);
		headers.delete("Content-Length");
		headers.delete("Content-Type");
		if (error.status >= 500) {
			logError("Request failed", error, { requestId });
		}
		return c.json(
			errorBody("request_failed", error.message || "The request failed."),
			error.status,
			Object.fromEntries(headers),
		);
	}
	// The path alone: a query may hold what must not be logged.
	logError("Unexpected error", error, {
		requestId,
		method: c.req.method,
		path: c.req.path,
	});
	return c.json(
		errorBody(
			"internal_error",
			"Something went wrong. The logs know this requestId.",
			{ requestId },
		),
		500,
	);
});
