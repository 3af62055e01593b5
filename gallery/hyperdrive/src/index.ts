import { connect } from "node:net";
import type { Context } from "hono";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { createMiddleware } from "hono/factory";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { secureHeaders } from "hono/secure-headers";
import { timingSafeEqual } from "hono/utils/buffer";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import postgres from "postgres";
import type { ZodType } from "zod";
import * as z from "zod";

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
	if (!(await hasApiToken(c))) {
		throw unauthorized();
	}
	await next();
});

// #endregion access

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

app.get("/", (c) => {
	const routes = app.routes.filter(({ method }) => method !== "ALL");
	const list = routes.map(({ method, path }) => `${method} ${path}`);
	return c.json({ routes: [...new Set(list)] });
});

// #region hyperdrive
/** An error of the database. The client gets a 502 that says nothing of it. */
export class DatabaseError extends ApiError {
	/** PostgreSQL's code, such as `23505`; `undefined` when it did not answer. */
	sqlState: string | undefined;

	constructor(sqlState: string | undefined) {
		super(502, "database_failed", "The database failed. The logs say why.");
		this.sqlState = sqlState;
	}
}

/**
 * Asks the database: in a route, a Durable Object, an agent or a Workflow's step.
 *
 * @param query Gets a client, which is closed afterwards. Values belong in the
 * tagged template, which sends them apart from the SQL.
 * @throws What `query` throws; DatabaseError for an error of the database, and
 * after ten seconds.
 */
export async function hyperdriveQuery<T>(
	env: Env,
	query: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
	const { connectionString, host, port } = env.HYPERDRIVE;
	// A Durable Object would keep the sockets. `sql.end()` closes them too, but
	// then throws in Workers where nobody can catch it.
	const end = new AbortController();
	const broken = new Set<unknown>();
	const options = {
		max: 5, // The runtime opens at most six connections per request.
		fetch_types: false, // Saves a round trip; array columns would need it.
		socket: () =>
			connect({ host, port, signal: end.signal }).on("error", (error) =>
				broken.add(error),
			),
	};
	const sql = postgres(connectionString, options);
	try {
		return await Promise.race([query(sql), noAnswer(end.signal)]);
	} catch (error) {
		const { code } = Object(error);
		const isAnswer = error instanceof postgres.PostgresError;
		if (!isAnswer && !broken.has(error) && !/^CONNECT/.test(code)) {
			throw error;
		}
		// Data errors, broken constraints and `RAISE` may quote values.
		const isQuoting = isAnswer && /^(22|23|P0)/.test(code);
		logError("Database query failed", isQuoting ? code : error, { code });
		throw new DatabaseError(isAnswer ? code : undefined);
	} finally {
		end.abort();
	}
}

// Postgres.js itself goes on trying for as long as connections break early.
async function noAnswer(signal: AbortSignal): Promise<never> {
	await scheduler.wait(10_000, { signal });
	throw Object.assign(new Error("No answer"), { code: "CONNECT_TIMEOUT" });
}

const tablesQuery = z.object({
	schema: z
		.stringFormat("identifier", /^[A-Za-z_][\w$]{0,62}$/)
		.default("public"),
});

const database = new Hono<AppEnv>();

database.get("/db/tables", operatorOnly, async (c) => {
	const { schema } = parseInput(tablesQuery, c.req.query(), "invalid_query");
	const tables = await hyperdriveQuery(
		c.env,
		(sql) => sql`
			SELECT schemaname AS schema, tablename AS name
			FROM pg_tables WHERE schemaname = ${schema} ORDER BY tablename`,
	);
	return c.json({ tables });
});

app.route("/", database);

// #endregion hyperdrive

// Your code

export default {
	fetch: app.fetch,
	// Your handlers
} satisfies ExportedHandler<Env>;
