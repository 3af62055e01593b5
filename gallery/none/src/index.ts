import type { Context } from "hono";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { secureHeaders } from "hono/secure-headers";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { ZodType } from "zod";

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

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

app.get("/", (c) => {
	const routes = app.routes.filter(({ method }) => method !== "ALL");
	const list = routes.map(({ method, path }) => `${method} ${path}`);
	return c.json({ routes: [...new Set(list)] });
});

// Your code

export default {
	fetch: app.fetch,
	// Your handlers
} satisfies ExportedHandler<Env>;
