import { DurableObject } from "cloudflare:workers";
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

// #region alarms
const reminderBody = z.strictObject({
	everySeconds: z.int().min(1).max(86_400),
});

/** The record of a `Reminder`; times are in ms since 1970. */
type ReminderRecord = {
	userId: string;
	everySeconds: number;
	due: number;
	fired: number;
	failures: number;
	ran: number;
};

const reminders = new Hono<AppEnv>();

reminders.put("/reminders/:userId", operatorOnly, async (c) => {
	const { everySeconds } = await readJson(c, reminderBody);
	const userId = c.req.param("userId");
	const next = await reminderOf(c.env, userId).start(userId, everySeconds);
	return c.json({ userId, everySeconds, next });
});

reminders.get("/reminders/:userId", async (c) => {
	const shown = await reminderOf(c.env, c.req.param("userId")).read();
	if (shown === null) {
		throw new ApiError(404, "no_reminder", "This user has no reminder.");
	}
	return c.json(shown);
});

reminders.delete("/reminders/:userId", operatorOnly, async (c) => {
	await reminderOf(c.env, c.req.param("userId")).cancel();
	return c.body(null, 204);
});

function reminderOf(env: Env, userId: string): DurableObjectStub<Reminder> {
	const id = parseInput(userIdSchema, userId, "invalid_user_id");
	return env.REMINDER.getByName(id);
}

/** The reminder of one user. */
export class Reminder extends DurableObject<Env> {
	/**
	 * Does what the reminder is for. It may take minutes, fail or run twice, and
	 * the reminder may be changed or cancelled meanwhile.
	 */
	async fire(userId: string): Promise<void> {
		logInfo("Reminder fired", { userId });
	}

	/** Starts the reminder, or changes its interval after the next firing. */
	async start(userId: string, everySeconds: number): Promise<string> {
		const { storage } = this.ctx;
		const pending = await storage.getAlarm();
		const due = Date.now() + everySeconds * 1000;
		// `failures`: of the last firing; `ran`: the time of the alarm that ran last.
		const fresh = { due, fired: 0, failures: 0, ran: 0 };
		const record = { ...fresh, ...this.#record(), userId, everySeconds };
		storage.kv.put("reminder", record);
		await storage.setAlarm(pending ?? record.due);
		return new Date(record.due).toISOString();
	}

	/** Returns the reminder, its next time in ISO 8601; `null` without one. */
	async read() {
		const record = this.#record();
		if (record === undefined) {
			return null;
		}
		const { userId, everySeconds, due, fired } = record;
		return { userId, everySeconds, next: new Date(due).toISOString(), fired };
	}

	async cancel(): Promise<void> {
		await this.ctx.storage.deleteAlarm();
		await this.ctx.storage.deleteAll();
	}

	/** Stores the count and the next alarm first: `fire` can undo neither. */
	override async alarm(info?: AlarmInvocationInfo): Promise<void> {
		const { storage } = this.ctx;
		const record = this.#record();
		if (record === undefined) {
			return;
		}
		const { userId, everySeconds, due, failures, ran } = record;
		if (info?.retryCount) {
			logInfo("Alarm retry", { userId, retryCount: info.retryCount });
		}
		// Else the last firing comes again: it failed, or the runtime repeats it.
		if (failures === 0 && info?.scheduledTime !== ran) {
			const interval = everySeconds * 1000;
			const late = Date.now() - due;
			// Times that were missed count as one.
			record.due += Math.max(1, Math.ceil(late / interval)) * interval;
			record.fired += 1;
		}
		record.failures = 0;
		record.ran = info?.scheduledTime ?? 0;
		storage.kv.put("reminder", record);
		await storage.setAlarm(record.due);
		try {
			await this.fire(userId);
		} catch (error) {
			logError("Reminder failed", error, { userId });
			const seconds = Math.min(2 ** (failures + 1), everySeconds / 4);
			const again = Date.now() + seconds * 1000;
			const now = this.#record();
			// Not where it was cancelled or started anew, or the next time is near.
			if (now?.due === record.due && failures < 6 && again < now.due) {
				storage.kv.put("reminder", { ...now, failures: failures + 1 });
				await storage.setAlarm(again);
			}
		}
	}

	#record(): ReminderRecord | undefined {
		return this.ctx.storage.kv.get("reminder");
	}
}

app.route("/", reminders);

// #endregion alarms

// Your code

export default {
	fetch: app.fetch,
	// Your handlers
} satisfies ExportedHandler<Env>;
