import type { Context } from "hono";
import { Hono } from "hono";
import { cors } from "hono/cors";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import type { RequestIdVariables } from "hono/request-id";
import { requestId } from "hono/request-id";
import { matchedRoutes } from "hono/route";
import { secureHeaders } from "hono/secure-headers";
import type { ContentfulStatusCode } from "hono/utils/http-status";

/** What Hono knows here: the bindings, and the id of the current request. */
export type AppEnv = { Bindings: Env; Variables: RequestIdVariables };

export const app = new Hono<AppEnv>();

/** As in wrangler.jsonc. */
export const WORKER_NAME = "{project_name}";

//% if "assets" not in features
/** The routes that `GET /` lists; push your own. */
export const routes: { method: string; path: string; summary: string }[] = [];

//% endif
/**
 * An error that the client may see.
 *
 * Throw it from a route: the client gets
 * `{"error":{"code":…,"message":…}}` with its status and headers.
 */
export class ApiError extends HTTPException {
	code: string;
	headers: Record<string, string>;

	constructor(
		status: ContentfulStatusCode,
		code: string,
		message: string,
		headers: Record<string, string> = {},
	) {
		super(status, { message });
		this.code = code;
		this.headers = headers;
	}
}

/**
 * Tells whether the page that sent a request may act for its user.
 *
 * @param c The request. Without an `Origin` header it is no browser's
 * cross-site request, and trusted.
 * @returns Whether `Origin` is this Worker's own, or listed in the
 * `ALLOWED_ORIGINS` var.
 */
export function isTrustedOrigin(c: Context<AppEnv>): boolean {
	const origin = c.req.header("Origin");
	return (
		origin === undefined ||
		origin === new URL(c.req.url).origin ||
		isAllowedOrigin(c.env, origin)
	);
}

function isAllowedOrigin(env: Env, origin: string | undefined): boolean {
	const allowed = env.ALLOWED_ORIGINS.split(",").map((entry) => entry.trim());
	return !!origin && allowed.includes(origin);
}

/** Writes one JSON line to the logs, as an error. */
export function logError(
	message: string,
	error: unknown,
	fields: Record<string, unknown> = {},
): void {
	const stack = error instanceof Error ? error.stack : String(error);
	console.error(JSON.stringify({ level: "error", message, ...fields, stack }));
}

const corsForAllowed = cors({
	origin: (origin) => origin,
	credentials: true,
	exposeHeaders: ["X-Request-Id"],
});

app.use(
	// No header: an id that clients could choose would not tell requests apart.
	requestId({ headerName: "" }),
	async (c, next) => {
		await next();
		c.header("X-Request-Id", c.var.requestId);
		// Nothing is kept by a cache unless its route says so.
		if (!c.res.headers.has("Cache-Control")) {
			c.header("Cache-Control", "no-store");
		}
	},
	// A route that sets one of these headers itself keeps its own value.
	secureHeaders({
		overwrite: false,
		strictTransportSecurity: "max-age=31536000",
		contentSecurityPolicy: {
			defaultSrc: ["'none'"],
			frameAncestors: ["'none'"],
		},
	}),
	async (c, next) => {
		if (isAllowedOrigin(c.env, c.req.header("Origin"))) {
			return corsForAllowed(c, next);
		}
		if (
			c.req.method === "OPTIONS" &&
			c.req.header("Access-Control-Request-Method") !== undefined
		) {
			// Without CORS headers in the answer, the browser sends nothing more.
			c.res = c.body(null, 204);
		} else {
			await next();
		}
		c.header("Vary", "Origin", { append: true });
	},
	methodNotAllowed({
		app,
		onMethodNotAllowed: (c, methods) =>
			c.json(
				{
					error: {
						code: "method_not_allowed",
						message: `This route takes ${methods.join(", ")}.`,
					},
				},
				405,
				{ Allow: methods.join(", ") },
			),
	}),
	// Browsers attach cookies by themselves, so a foreign page must not be able
	// to spend them on a change or an upgrade.
	async (c, next) => {
		const changes =
			!["GET", "HEAD"].includes(c.req.method) ||
			c.req.header("Upgrade") !== undefined;
		// An unknown route stays a 404 or 405, whatever its headers.
		const isRouted = matchedRoutes(c).some(
			({ method, path }) => method !== "ALL" || path !== "/*",
		);
		if (
			changes &&
			isRouted &&
			c.req.header("Cookie") !== undefined &&
			!isTrustedOrigin(c)
		) {
			throw new ApiError(
				403,
				"foreign_origin",
				"Requests with a cookie must come from this site or an allowed origin.",
			);
		}
		await next();
	},
	// Hono hands only errors to `onError`, but anything can be thrown.
	async (_, next) => {
		try {
			await next();
		} catch (thrown) {
			throw thrown instanceof Error ? thrown : new Error(String(thrown));
		}
	},
);

app.notFound((c) =>
	c.json({ error: { code: "not_found", message: "No such route." } }, 404),
);

app.onError((error, c) => {
	if (error instanceof HTTPException) {
		const { code, headers } =
			error instanceof ApiError
				? error
				: { code: "request_failed", headers: {} };
		const body = { error: { code, message: error.message } };
		return c.json(body, error.status, headers);
	}
	const { requestId } = c.var;
	// The path alone: a query may hold what must not be logged.
	logError("Unexpected error", error, {
		requestId,
		method: c.req.method,
		path: c.req.path,
	});
	return c.json(
		{
			error: {
				code: "internal_error",
				message: "Something went wrong; the logs know this requestId.",
				requestId,
			},
		},
		500,
	);
});

//% if "assets" not in features
app.get("/", (c) => c.json({ name: WORKER_NAME, routes }));

//% endif
app.get("/health", (c) => c.json({ status: "ok" }));
