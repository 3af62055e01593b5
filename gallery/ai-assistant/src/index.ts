import { isIPv6 } from "node:net";
import { isDeepStrictEqual } from "node:util";
import type { Connection, Schedule, WSMessage } from "agents";
import { Agent, callable, getAgentByName, routeAgentRequest } from "agents";
import type { Context, MiddlewareHandler, Next } from "hono";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { createMiddleware } from "hono/factory";
import { HTTPException } from "hono/http-exception";
import { sign, verify } from "hono/jwt";
import { methodNotAllowed } from "hono/method-not-allowed";
import { secureHeaders } from "hono/secure-headers";
import { timingSafeEqual } from "hono/utils/buffer";
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

app.use(limitChanges);

// Your middleware

app.get("/health", (c) => c.json({ status: "ok" }));

// #region provider
const MODEL_TIMEOUT_MS = 120_000;
/** The limit of an answer, reasoning included. */
const MODEL_TOKENS = 4096;

/** Logs why the model gave no answer, and returns what the client may know. */
function modelError(error: unknown): ApiError {
	if (error instanceof ApiError) {
		return error;
	}
	if (String(error).includes("needs to be run remotely")) {
		const message = "Workers AI runs on Cloudflare only: use dev:online.";
		return new ApiError(503, "model_not_configured", message);
	}
	// An error's message may repeat what users wrote.
	const reason = error instanceof Error ? error.constructor.name : error;
	const [code] = /\b\d{4}(?=:)/.exec(String(error)) ?? [];
	logError("The model gave no answer", reason, { code });
	// The free neurons are used up, or there is no capacity.
	if (code === "3036" || code === "3040") {
		const message = "Try again later: the model is busy.";
		return new ApiError(503, "model_busy", message, { "Retry-After": "60" });
	}
	return new ApiError(502, "model_failed", "The model gave no usable answer.");
}

export type ModelMessage = {
	role: "system" | "user" | "assistant";
	content: string;
};

/**
 * Streams an answer as server-sent events: `{"text":…}` for each piece, then
 * `[DONE]`, or `{"error":…}`. What fails before the first piece is thrown.
 *
 * @param ask Asks the model, until the signal says that the client has left.
 */
export async function modelEvents(
	ask: (signal: AbortSignal) => AsyncGenerator<string>,
): Promise<Response> {
	const left = new AbortController();
	const pieces = ask(left.signal);
	let next = await pieces.next();
	const body = new ReadableStream<string>({
		async start(controller) {
			const send = (event: string) => {
				if (!left.signal.aborted) {
					controller.enqueue(`${event}\n\n`);
				}
			};
			// Only writing tells that a client has left while the model is silent.
			const heartbeat = setInterval(send, 5000, ":");
			try {
				for (; !next.done; next = await pieces.next()) {
					send(`data: ${JSON.stringify({ text: next.value })}`);
				}
				send("data: [DONE]");
			} catch (thrown) {
				const { code, message } = modelError(thrown);
				send(`data: ${JSON.stringify({ error: { code, message } })}`);
			}
			clearInterval(heartbeat);
			if (!left.signal.aborted) {
				controller.close();
			}
		},
		cancel: () => left.abort(),
	});
	const headers = { "Content-Type": "text/event-stream" };
	return new Response(body.pipeThrough(new TextEncoderStream()), { headers });
}

export type ModelTool = ReturnType<typeof modelTool>;

/** Makes a tool. The model reads what it returns, or an ApiError's message. */
export function modelTool<Input extends object>(
	name: string,
	description: string,
	input: ZodType<Input>,
	run: (input: Input) => unknown,
) {
	const { $schema, ...parameters } = input.toJSONSchema();
	return {
		type: "function" as const,
		function: { name, description, parameters },
		async call(json: string): Promise<string> {
			const sent = await new Response(json || "{}").json().catch(() => json);
			const { data, error } = input.safeParse(sent);
			if (error) {
				return error.message;
			}
			try {
				return JSON.stringify((await run(data)) ?? null);
			} catch (error) {
				if (error instanceof ApiError) {
					return error.message;
				}
				logError("A tool failed", error, { tool: name });
				return "The tool failed.";
			}
		},
	};
}

type Called = { name?: string; arguments?: unknown };
type CallPiece = Called & { index?: number; id?: string; function?: Called };
type Call = { name: string; id: string; arguments: string };

/** Adds calls, or pieces of calls; an input is an object, or JSON in pieces. */
function addCalls(calls: Call[], pieces: CallPiece[]): void {
	for (const [position, piece] of pieces.entries()) {
		// Some models send `null` for what a piece does not bring.
		const { name, arguments: sent } = piece.function ?? piece;
		const index = piece.index ?? position;
		const input = sent ?? "";
		const id = piece.id ?? `call_${index}`;
		calls[index] ??= { name: name ?? "", id, arguments: "" };
		calls[index].arguments +=
			typeof input === "string" ? input : JSON.stringify(input);
	}
}

/** An answer or a piece of it; newer models wrap it in `choices`. */
type Said = {
	response?: unknown;
	content?: unknown;
	tool_calls?: CallPiece[];
};
type Piece = Said & { choices?: { delta?: Said; message?: Said }[] };

/** Reads an answer piece by piece; some models give it as a whole. */
async function* readAnswer(answer: unknown): AsyncGenerator<Piece> {
	if (!(answer instanceof ReadableStream)) {
		return yield Object(answer);
	}
	let rest = "";
	for await (const text of answer.pipeThrough(new TextDecoderStream())) {
		const lines = (rest + text).split("\n");
		rest = lines.pop() ?? "";
		for (const line of lines.filter((line) => line.startsWith("data:"))) {
			if (line.includes("[DONE]", 5)) {
				return;
			}
			yield JSON.parse(line.slice(5));
		}
	}
	throw modelError("It broke off");
}

/** Asks the model, and yields the pieces of its answer. */
async function* piecesOf(
	env: Env,
	messages: object[],
	signal: AbortSignal, // Also stops the model.
	tools: ModelTool[] = [],
	rounds = 8,
): AsyncGenerator<string> {
	const inputs: Record<string, unknown> = {
		messages,
		max_tokens: MODEL_TOKENS,
		stream: true,
	};
	if (tools.length > 0) {
		inputs.tools = tools.map(({ call, ...about }) => about);
	}
	const calls: Call[] = [];
	let spoken = "";
	const answer = await env.AI.run(env.AI_MODEL, inputs, { signal });
	for await (const piece of readAnswer(answer)) {
		const [choice] = piece.choices ?? [];
		const said = choice?.delta ?? choice?.message ?? piece;
		const text = String(said.content ?? said.response ?? "");
		if (text) {
			yield text;
		}
		spoken += text;
		addCalls(calls, said.tool_calls ?? []);
	}
	if (calls.length > 0 && rounds === 1) {
		throw modelError("It calls tools without end");
	}
	if (calls.length > 0) {
		const tool_calls = calls.map(({ id, ...called }) => {
			return { id, type: "function", function: called };
		});
		const results = calls.map(async ({ id, name, arguments: json }) => {
			const tool = tools.find((tool) => tool.function.name === name);
			const content = (await tool?.call(json)) ?? "There is no such tool.";
			return { role: "tool", tool_call_id: id, name, content };
		});
		const said = { role: "assistant", content: spoken, tool_calls };
		const more = [...messages, said, ...(await Promise.all(results))];
		yield* piecesOf(env, more, signal, tools, rounds - 1);
	}
}

/**
 * Asks the model to go on with a conversation. Yields the pieces of its answer;
 * may throw an ApiError in the middle.
 */
export async function* modelText(
	env: Env,
	messages: ModelMessage[],
	signal: AbortSignal, // Ends the answer without an error.
	tools: ModelTool[] = [],
): AsyncGenerator<string> {
	// AbortSignal.timeout() cannot be cleared, and keeps what waits in memory.
	const late = new AbortController();
	const timer = setTimeout(() => late.abort(), MODEL_TIMEOUT_MS);
	const limit = AbortSignal.any([signal, late.signal]);
	try {
		yield* piecesOf(env, messages, limit, tools);
	} catch (error) {
		if (!signal.aborted) {
			throw modelError(error);
		}
	} finally {
		clearTimeout(timer);
	}
}

// #endregion provider
// #region assets
const api = new Hono<AppEnv>();
api.get("/api/hello", (c) => c.json({ name }));

app.route("/", api);

// #endregion assets
// #region agents
/** How many messages an agent keeps, and how much of them the model gets. */
const MESSAGES_KEPT = 100;
const CHARACTERS_SENT = 16_000;
/** How many messages may wait for the reply to another one. */
const MESSAGES_WAITING = 5;
const TICKET_SECONDS = 60;

const agentName = z.string().regex(/^[\w-]{1,64}$/);
const agentText = z.string().trim().min(1).max(8000);
const agentRequest = z.strictObject({ message: agentText });
const newReminder = z.strictObject({
	text: z.string().trim().min(1).max(500),
	seconds: z.int().min(1).max(31_536_000),
});

/** The state that every client of an agent has at any time. */
export type AgentState = {
	/** The only part that clients may change. */
	title: string;
	lastMessageAt: string | null;
};

type AgentMessage = {
	id: number;
	role: "user" | "assistant" | "reminder";
	text: string;
	at: string;
};

/** Returns what a client may know of an error. The logs get the rest. */
function agentError(error: unknown): ApiError {
	if (error instanceof ApiError) {
		return error;
	}
	logError("The agent failed", error);
	return new ApiError(500, "internal_error", "Something went wrong.");
}

/**
 * Method decorator: lets clients call a method over their WebSocket. Since the
 * library sends them the message of each error, only ApiErrors leave it.
 */
export function forClients<This, Args extends unknown[], Result>(
	method: (this: This, ...args: Args) => Promise<Result>,
	context: ClassMethodDecoratorContext,
) {
	async function guarded(this: This, ...args: Args): Promise<Result> {
		try {
			return await method.apply(this, args);
		} catch (error) {
			const { status, code, message, issues = [] } = agentError(error);
			const wrong = issues.map(({ path, message }) => `${path}: ${message}`);
			throw new ApiError(status, code, [message, ...wrong].join(" "));
		}
	}
	return callable()(guarded, context);
}

/**
 * One conversation with a model. Extend it for agents that act otherwise: override
 * `instructions` and `tools`, add methods with `@forClients`.
 */
export class AiAgent extends Agent<Env, AgentState> {
	override initialState: AgentState = { title: "", lastMessageAt: null };

	/** Ends the replies when the conversation is cleared. */
	#cleared = new AbortController();
	/** The replies under way and to come: each settles when it has ended. */
	#replies: Promise<void>[] = [];

	constructor(ctx: DurableObjectState, env: Env) {
		super(ctx, env);
		// Of two messages with the same source, only the first is kept.
		this.sql`CREATE TABLE IF NOT EXISTS messages (
			id INTEGER PRIMARY KEY AUTOINCREMENT, role TEXT NOT NULL,
			text TEXT NOT NULL, at TEXT NOT NULL, source TEXT UNIQUE)`;
		this.sql`CREATE TABLE IF NOT EXISTS used_tickets (
			id TEXT PRIMARY KEY, expires INTEGER NOT NULL)`;
	}

	/** Tells the model who it is and how to answer. */
	protected instructions(): string {
		return "You are a helpful assistant. Answer briefly.";
	}

	/** The tools that the model may call. */
	protected tools(): ModelTool[] {
		return [
			modelTool(
				"remind",
				"Reminds the user later. Call it only if the user asks for that.",
				newReminder,
				(reminder) => this.addReminder(reminder),
			),
		];
	}

	/** Refuses a client's change of anything but the title. */
	override validateStateChange(next: AgentState, source: unknown): void {
		// The first of the server's changes is the initial state itself.
		if (source !== "server") {
			const title = z.string().max(100).parse(next.title);
			if (!isDeepStrictEqual(next, { ...this.state, title })) {
				throw new Error("Only the title may change");
			}
		}
	}

	/** Answers `GET` with the conversation, `POST` with the reply to a message. */
	override async onRequest(request: Request): Promise<Response> {
		if (request.method === "GET") {
			return Response.json({ state: this.state, messages: this.#messages() });
		}
		const { message } = agentRequest.parse(await request.json());
		try {
			return await modelEvents((signal) => this.reply(message, signal));
		} catch (error) {
			if (!(error instanceof ApiError)) {
				throw error;
			}
			return error.getResponse();
		}
	}

	/** Shows a client that has connected the conversation so far. */
	override onConnect(connection: Connection): void {
		const messages = this.#messages();
		connection.send(JSON.stringify({ type: "messages", messages }));
	}

	/**
	 * Replies to a client that sends plain text: `{"type":"piece","text":…}` for
	 * each piece, then `{"type":"done"}`, or `{"type":"error","error":…}`.
	 */
	override async onMessage(connection: Connection, message: WSMessage) {
		const send = (answer: object) => {
			// The reply to a client that has left is kept all the same.
			if (connection.readyState === WebSocket.OPEN) {
				connection.send(JSON.stringify(answer));
			}
		};
		try {
			const text = parseInput(agentText, message, "invalid_message");
			for await (const piece of this.reply(text)) {
				send({ type: "piece", text: piece });
			}
			send({ type: "done" });
		} catch (error) {
			const { code, message, issues } = agentError(error);
			send({ type: "error", error: { code, message, issues } });
		}
	}

	/** Logs what else fails; clients would get the stack of what this throws. */
	override onError(connectionOrError: unknown, error?: unknown): never {
		logError("The agent failed", error ?? connectionOrError);
		throw Object.assign(new Error("The agent failed"), { stack: "" });
	}

	/** Forgets all messages, and ends the replies. The title and reminders stay. */
	async clear(): Promise<void> {
		this.#cleared.abort();
		this.#cleared = new AbortController();
		this.sql`DELETE FROM messages`;
		this.setState({ ...this.state, lastMessageAt: null });
		this.broadcast(JSON.stringify({ type: "cleared" }));
	}

	/** Schedules a message to this conversation; returns its id. */
	@forClients
	async addReminder(input: z.infer<typeof newReminder>): Promise<string> {
		const { text, seconds } = parseInput(newReminder, input);
		return (await this.schedule(seconds, "deliverReminder", { text })).id;
	}

	/** Lists the reminders to come; `time` is in seconds since 1970. */
	@forClients
	async listReminders() {
		const schedules = (await this.listSchedules()) as Schedule<{
			text: string;
		}>[];
		return schedules
			.filter(({ callback }) => callback === "deliverReminder")
			.map(({ id, payload, time }) => ({ id, text: payload.text, time }));
	}

	/** Cancels a reminder; returns whether there was one with that id. */
	@forClients
	async cancelReminder(id: string): Promise<boolean> {
		return this.cancelSchedule(String(id));
	}

	/** May run twice; the message is there once. */
	deliverReminder({ text }: { text: string }, { id }: Schedule): void {
		this.#keep("reminder", text, id);
	}

	/** Notes that a ticket is used; returns whether it was unused so far. */
	useTicket(id: string, expires: number): boolean {
		// Not yet those that have just expired: one may be on its way here.
		const old = Date.now() / 1000 - TICKET_SECONDS;
		this.sql`DELETE FROM used_tickets WHERE expires < ${old}`;
		const added = this.sql`
			INSERT INTO used_tickets (id, expires) VALUES (${id}, ${expires})
			ON CONFLICT DO NOTHING RETURNING id`;
		return added.length === 1;
	}

	/**
	 * Replies to a message, one at a time; the others wait for their turn. A message
	 * is kept once its reply has ended, so one that breaks off leaves nothing behind.
	 *
	 * @param left Aborts when nobody wants the reply any more.
	 */
	protected async *reply(text: string, left = new AbortController().signal) {
		if (this.#replies.length > MESSAGES_WAITING) {
			const message = "Wait for the replies to the messages before.";
			throw new ApiError(409, "agent_busy", message);
		}
		const signal = AbortSignal.any([left, this.#cleared.signal]);
		const before = this.#replies.at(-1);
		const { promise, resolve: end } = Promise.withResolvers<void>();
		this.#replies.push(promise);
		try {
			await before;
			const messages: ModelMessage[] = [
				{ role: "system", content: this.instructions() },
				...this.#history(),
				{ role: "user", content: text },
			];
			const pieces = modelText(this.env, messages, signal, this.tools());
			let answer = "";
			for await (const piece of pieces) {
				answer += piece;
				yield piece;
			}
			if (!signal.aborted && answer) {
				this.#keep("user", text);
				this.#keep("assistant", answer);
			}
		} finally {
			this.#replies = this.#replies.slice(1);
			end();
		}
	}

	/** The newest messages that the model gets, from a question on. */
	#history(): ModelMessage[] {
		const messages = this.sql<ModelMessage>`
			SELECT role, text AS content FROM (
				SELECT *, sum(length(text)) OVER (ORDER BY id DESC) AS size
				FROM messages WHERE role IN ('user', 'assistant')
			) WHERE size <= ${CHARACTERS_SENT} ORDER BY id`;
		return messages[0]?.role === "assistant" ? messages.slice(1) : messages;
	}

	/** Adds a message to the conversation, and to every page that shows it. */
	#keep(role: AgentMessage["role"], text: string, source?: string): void {
		const at = new Date().toISOString();
		const messages = this.sql<AgentMessage>`
			INSERT INTO messages (role, text, at, source)
			VALUES (${role}, ${text}, ${at}, ${source ?? null})
			ON CONFLICT DO NOTHING RETURNING id, role, text, at`;
		this.sql`DELETE FROM messages
			WHERE id <= (SELECT max(id) FROM messages) - ${MESSAGES_KEPT}`;
		this.setState({ ...this.state, lastMessageAt: at });
		this.broadcast(JSON.stringify({ type: "messages", messages }));
	}

	#messages(): AgentMessage[] {
		return this.sql`SELECT id, role, text, at FROM messages ORDER BY id`;
	}
}

const agents = new Hono<AppEnv>().route(
	"/",
	makeAgentRoutes("ai-agent", (env) => env.AiAgent),
);

/**
 * Makes the routes of a class of agents: `/agents/<kind>/:name`, and its tickets.
 *
 * @param kind The class's name in kebab case.
 * @param namespace Returns the binding of the class.
 * @param guard Decides who may use an agent. A ticket has the rights of whoever
 * asked for it.
 */
export function makeAgentRoutes(
	kind: string,
	namespace: (env: Env) => DurableObjectNamespace<AiAgent>,
	guard: MiddlewareHandler<AppEnv> = operatorOnly,
): Hono<AppEnv> {
	const routes = new Hono<AppEnv>();
	const path = `/agents/${kind}/:name`;

	const nameOf = (c: Context<AppEnv>) =>
		parseInput(agentName, c.req.param("name"), "invalid_name");
	const agentOf = (c: Context<AppEnv>) =>
		getAgentByName(namespace(c.env), nameOf(c));

	/** Passes on nothing of the client's that could steer the library. */
	async function pass(c: Context<AppEnv>, init: RequestInit) {
		const url = new URL(`/agents/${kind}/${nameOf(c)}`, c.req.url);
		// The library would route to every Durable Object that it is given.
		const only = { [kind]: namespace(c.env) };
		const response = await routeAgentRequest(new Request(url, init), only);
		if (response === null || response.status === 500) {
			throw new Error("The agent failed; its own log line says why");
		}
		return response;
	}

	routes.get(path, async (c, next) => {
		const isUpgrade = c.req.header("Upgrade")?.toLowerCase() === "websocket";
		const ticket = c.req.query("ticket");
		if (isUpgrade) {
			requireTrustedOrigin(c);
		}
		if (!isUpgrade || ticket === undefined) {
			return guard(c, next);
		}
		// Browsers cannot set headers on a WebSocket.
		const aud = `${kind}/${nameOf(c)}`;
		const { jti, exp } = await readTicket(c.env, ticket, aud);
		if (!(await (await agentOf(c)).useTicket(String(jti), Number(exp)))) {
			throw unauthorized();
		}
		await next();
	});

	routes.get(path, (c) => {
		const upgrade = c.req.header("Upgrade");
		return pass(c, { headers: upgrade ? { Upgrade: upgrade } : {} });
	});

	routes.post(path, guard, async (c) => {
		const body = JSON.stringify(await readJson(c, agentRequest));
		return pass(c, { method: "POST", body });
	});

	routes.delete(path, guard, async (c) => {
		await (await agentOf(c)).clear();
		return c.body(null, 204);
	});

	routes.post(`${path}/ticket`, guard, async (c) => {
		const aud = `${kind}/${nameOf(c)}`;
		const exp = Math.floor(Date.now() / 1000) + TICKET_SECONDS;
		const claims = { aud, exp, jti: crypto.randomUUID() };
		return c.json({ ticket: await sign(claims, c.env.API_TOKEN) }, 201);
	});

	return routes;
}

/** Reads a ticket for an agent: a JWT that the API token has signed. */
async function readTicket(env: Env, ticket: string, aud: string) {
	try {
		// With an empty token, anybody could sign.
		const token = z.string().min(1).parse(env.API_TOKEN);
		return await verify(ticket, token, { alg: "HS256", aud });
	} catch {
		throw unauthorized();
	}
}

app.route("/", agents);

// #endregion agents
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
