import { AsyncLocalStorage } from "node:async_hooks";
import { isDeepStrictEqual } from "node:util";
import type {
	Connection,
	Schedule,
	StreamingResponse,
	WSMessage,
} from "agents";
import {
	Agent,
	callable,
	getAgentByName,
	getCurrentAgent,
	routeAgentRequest,
} from "agents";
import type { Context, MiddlewareHandler } from "hono";
import { Hono } from "hono";
import { createMiddleware } from "hono/factory";
import * as z from "zod";
import { operatorOnly, unauthorized } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import {
	ApiError,
	isUpgrade,
	logError,
	parseInput,
	readJson,
	requireTrustedOrigin,
} from "../../base/base/worker";
import type {
	ModelEnd,
	ModelMessage,
	ModelTool,
} from "../../base/model/worker";
import { ModelRefusedError, modelEvents } from "../../base/model/worker";
import {
	MODEL_WINDOW_CHARACTERS,
	modelText,
} from "../../providers/workers-ai/worker";
import { rateLimitCount, rateLimitKey } from "../rate-limit/worker";
import { workflowsRequest } from "../workflows/worker";

/** How many messages an agent keeps, shows, and sends to the model at most. */
const AGENT_MESSAGES = { kept: 1000, shown: 100, sent: 20 };
/** How many messages may wait for the reply to an earlier one. */
const AGENT_WAITING = 5;
const AGENT_REMINDERS = 100;
const AGENT_TICKET_SECONDS = 60;
const YEAR_SECONDS = 365 * 24 * 60 * 60;

const agentText = z.string().trim().min(1).max(8000);

const agentRequest = z.strictObject({ message: agentText });

const agentTitle = z.string().trim().max(100);

const reminderRequest = z.strictObject({
	text: z.string().trim().min(1).max(500),
	when: z.union([
		z.strictObject({ delaySeconds: z.int().min(1).max(YEAR_SECONDS) }),
		z.strictObject({ date: z.iso.datetime({ offset: true }) }),
		z.strictObject({ cron: z.string().regex(/^\S+( \S+){4}$/) }),
		z.strictObject({
			everySeconds: z
				.int()
				.min(60)
				.max(30 * 24 * 60 * 60),
		}),
	]),
});

/** What every client of an agent has at any time. */
type AgentState = {
	/** The only part that clients may change. */
	title: string;
	lastMessageAt: string | null;
	//% if "workflows" in features
	/** The Workflow instance that was started last. */
	workflowId: string | null;
	//% endif
	// Your state
};

/** A message as clients see it; its time in ISO 8601. */
type AgentMessage = {
	id: number;
	role: "user" | "assistant" | "reminder" | "note";
	text: string;
	at: string;
};

/** What the schedule of a reminder carries. */
type ReminderPayload = { text: string };

/** A reminder to come; its time in ISO 8601. */
type AgentReminder = {
	id: string;
	type: Schedule["type"];
	text: string;
	next: string;
};

/** Who a turn is for. */
export type AgentAsker = {
	/** Breaks the turn off. */
	signal?: AbortSignal;
	/** Whether anybody still waits for a turn that has not begun. */
	isWanted?: () => boolean;
};

/**
 * Returns what a client may know of an error. The logs get the rest.
 *
 * @param agent The agent that failed.
 */
function agentError(agent: AiAgent, error: unknown): ApiError {
	if (error instanceof ApiError) {
		return error;
	}
	logError("Agent failed", error, {
		agent: agent.name,
		class: agent.constructor.name,
	});
	return new ApiError(500, "internal_error", "Something went wrong.");
}

/**
 * Writes an error as `code: message`: a call can carry nothing else.
 */
function agentErrorText({ code, message, issues }: ApiError): string {
	const listed = issues?.map(({ path, message }) =>
		`${path} ${message}`.trim(),
	);
	return `${code}: ${listed?.join("; ") ?? message}`;
}

/** Is set while a call or a tool runs: what it calls in turn is no call of a client. */
const agentCall = new AsyncLocalStorage<true>();

/**
 * Method decorator: hides from clients what they may not know of an error, since
 * the library sends them the message of every error.
 //% if "rate-limit" in features
 * Limits how often they call the method over a connection.
 //% endif
 * Where another method or a tool of the agent calls it, it does none of this.
 */
export function agentsGuarded<
	This extends AiAgent,
	Args extends unknown[],
	Result,
>(method: (this: This, ...args: Args) => Promise<Result>) {
	return async function (this: This, ...args: Args): Promise<Result> {
		if (agentCall.getStore()) {
			return method.apply(this, args);
		}
		try {
			//% if "rate-limit" in features
			await this.limitSender();
			//% endif
			return await agentCall.run(true, () => method.apply(this, args));
		} catch (error) {
			throw new Error(agentErrorText(agentError(this, error)));
		}
	};
}

/** Checks what a client passed to a call, like `parseInput`. */
export function agentArguments<Schema extends z.ZodType>(
	schema: Schema,
	input: unknown,
): z.infer<Schema> {
	return parseInput(schema, input, "invalid_arguments");
}

/**
 * Derives the key that signs tickets.
 *
 * @throws ApiError 401 without an `API_TOKEN`, which would make a key that
 * anybody can derive.
 */
async function agentTicketKey(env: Env): Promise<CryptoKey> {
	if (!env.API_TOKEN) {
		throw unauthorized();
	}
	const encoder = new TextEncoder();
	const secret = encoder.encode(env.API_TOKEN);
	return crypto.subtle.deriveKey(
		{
			name: "HKDF",
			hash: "SHA-256",
			salt: new Uint8Array(),
			info: encoder.encode("agents ticket"),
		},
		await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveKey"]),
		{ name: "HMAC", hash: "SHA-256", length: 256 },
		false,
		["sign", "verify"],
	);
}

/**
 * Makes a ticket for one WebSocket to an agent.
 *
 * @param agent The agent, as `<segment>/<name>`.
 * @returns `<when it expires, in milliseconds>.<its id>.<signature>`.
 */
async function makeAgentTicket(env: Env, agent: string): Promise<string> {
	const alphabet = { alphabet: "base64url", omitPadding: true } as const;
	const id = crypto.getRandomValues(new Uint8Array(16)).toBase64(alphabet);
	const expires = Date.now() + AGENT_TICKET_SECONDS * 1000;
	const signature = await crypto.subtle.sign(
		"HMAC",
		await agentTicketKey(env),
		new TextEncoder().encode(`${agent} ${expires} ${id}`),
	);
	return `${expires}.${id}.${new Uint8Array(signature).toBase64(alphabet)}`;
}

/**
 * Reads a ticket.
 *
 * @param agent The agent that it must be for, as `<segment>/<name>`.
 * @returns Its id and when it expires; `null` unless it was made here, for this
 * agent, and has not expired.
 */
async function readAgentTicket(env: Env, agent: string, ticket: string) {
	const [, expires, id, signature] =
		/^(\d{13})\.([\w-]{22})\.([\w-]{43})$/.exec(ticket) ?? [];
	if (!expires || !id || !signature || Number(expires) < Date.now()) {
		return null;
	}
	const isGenuine = await crypto.subtle.verify(
		"HMAC",
		await agentTicketKey(env),
		Uint8Array.fromBase64(signature, { alphabet: "base64url" }),
		new TextEncoder().encode(`${agent} ${expires} ${id}`),
	);
	return isGenuine ? { id, expires: Number(expires) } : null;
}

/**
 * Reads the name of the agent that a request is for.
 *
 * @throws ApiError 400 when it is not valid.
 */
function agentName<E extends AppEnv>(c: Context<E>): string {
	const name = c.req.param("name") ?? "";
	if (!/^[A-Za-z0-9_-]{1,64}$/.test(name)) {
		throw new ApiError(
			400,
			"invalid_name",
			"Name an agent with 1 to 64 letters, digits, `_` or `-`.",
		);
	}
	return name;
}

/**
 * Makes the routes of a class of agents, `/agents/<segment>/:name`: its
 * conversations, WebSockets and tickets. Mount them with `app.route("/", …)`.
 *
 * @param segment The class's name in kebab case, such as `support-agent`.
 * @param namespace Picks the class's binding.
 * @param guard Middleware that decides who may use an agent, by its name and by
 * `c.var`. A ticket has the rights of whoever asked for it.
 */
export function makeAgentRoutes(
	segment: string,
	namespace: (env: Env) => DurableObjectNamespace<AiAgent>,
	guard: MiddlewareHandler<AppEnv> = operatorOnly,
): Hono<AppEnv> {
	const routes = new Hono<AppEnv>();
	const path = `/agents/${segment}/:name`;

	/**
	 * Passes a request on to its agent.
	 *
	 * @param init All that the agent gets: the library acts on headers, queries
	 * and paths that a client could write, and would keep a ticket with the
	 * connection.
	 */
	async function pass(c: Context<AppEnv>, init: RequestInit) {
		const url = new URL(`/agents/${segment}/${agentName(c)}`, c.req.url);
		// The library routes to all Durable Objects that it is given.
		const only = { [segment]: namespace(c.env) };
		const response = await routeAgentRequest(new Request(url, init), only);
		if (response?.status === 500) {
			// The library would tell the client where the agent failed, and how.
			throw new Error("The agent failed; a line of its own says why");
		}
		return response ?? c.notFound();
	}

	/**
	 * Middleware: lets the operator pass, and upgrades with a ticket, since a
	 * browser cannot set headers on a WebSocket.
	 */
	const admit = createMiddleware<AppEnv>(async (c, next) => {
		if (isUpgrade(c)) {
			requireTrustedOrigin(c);
		}
		const text = c.req.query("ticket");
		if (!isUpgrade(c) || text === undefined) {
			return guard(c, next);
		}
		const name = agentName(c);
		const ticket = await readAgentTicket(c.env, `${segment}/${name}`, text);
		if (ticket === null) {
			throw unauthorized();
		}
		const agent = await getAgentByName(namespace(c.env), name);
		if (!(await agent.useTicket(ticket.id, ticket.expires))) {
			throw unauthorized();
		}
		return next();
	});

	routes.get(path, admit, (c) => {
		const headers = isUpgrade(c) ? { Upgrade: "websocket" } : {};
		//% if "rate-limit" in features
		// What comes over a connection counts under the address that opened it.
		Object.assign(headers, { "X-Sender": rateLimitKey(c) });
		//% endif
		return pass(c, { headers });
	});

	routes.post(path, guard, async (c) => {
		const body = JSON.stringify(await readJson(c, agentRequest));
		return pass(c, { method: "POST", body });
	});

	routes.delete(path, guard, async (c) => {
		const agent = await getAgentByName(namespace(c.env), agentName(c));
		await agent.clear();
		return c.body(null, 204);
	});

	routes.post(`${path}/ticket`, guard, async (c) => {
		const agent = `${segment}/${agentName(c)}`;
		return c.json({ ticket: await makeAgentTicket(c.env, agent) }, 201);
	});

	return routes;
}

export const aiAgents = new Hono<AppEnv>();

aiAgents.route(
	"/",
	makeAgentRoutes("ai-agent", (env) => env.AiAgent),
);

/** Lets one turn of an agent run at a time; the others wait, in their order. */
class AgentTurns {
	#isRunning = false;
	#waiting: { isWanted: () => boolean; begin: () => void; drop: () => void }[] =
		[];

	/**
	 * Waits for a turn, which `end` then ends.
	 *
	 * @param isWanted Whether anybody still waits for it.
	 * @throws ApiError 409 when too many wait already.
	 */
	async begin(isWanted: () => boolean): Promise<void> {
		if (!this.#isRunning) {
			this.#isRunning = true;
			return;
		}
		this.#dropUnwanted();
		const busy = new ApiError(
			409,
			"agent_busy",
			`Wait for a reply: ${AGENT_WAITING} messages wait for theirs.`,
		);
		if (this.#waiting.length >= AGENT_WAITING) {
			throw busy;
		}
		await new Promise<void>((begin, reject) => {
			this.#waiting.push({ isWanted, begin, drop: () => reject(busy) });
		});
	}

	/** Ends a turn; the next one begins. */
	end(): void {
		this.#dropUnwanted();
		const next = this.#waiting.shift();
		this.#isRunning = next !== undefined;
		next?.begin();
	}

	/** Frees the places of those who have gone away. */
	#dropUnwanted(): void {
		const unwanted = this.#waiting.filter(({ isWanted }) => !isWanted());
		this.#waiting = this.#waiting.filter((turn) => !unwanted.includes(turn));
		for (const { drop } of unwanted) {
			drop();
		}
	}
}

/** The part of a conversation that begins with a question, as models need it. */
function fromQuestion(messages: ModelMessage[]): ModelMessage[] {
	const start = messages.findIndex(({ role }) => role === "user");
	return start === -1 ? [] : messages.slice(start);
}

/** Returns the same tools, but calls `tell` before one of them runs. */
function watchTools(
	tools: Record<string, ModelTool>,
	tell: () => void,
): Record<string, ModelTool> {
	const watched = Object.entries(tools).map(([name, tool]) => {
		const run: ModelTool["run"] = (input, signal) => {
			tell();
			return agentCall.run(true, () => tool.run(input, signal));
		};
		return [name, { ...tool, run }];
	});
	return Object.fromEntries(watched);
}

/** Yields the same pieces, but calls `tell` with each one first. */
async function* watchPieces(
	pieces: AsyncGenerator<string, ModelEnd>,
	tell: (piece: string) => void,
): AsyncGenerator<string, ModelEnd> {
	try {
		let next = await pieces.next();
		for (; !next.done; next = await pieces.next()) {
			tell(next.value);
			yield next.value;
		}
		return next.value;
	} finally {
		// A caller that stops early stops the pieces too.
		await pieces.return({ truncated: false });
	}
}

function showReminder(schedule: Schedule<ReminderPayload>): AgentReminder {
	const { id, type, payload, time } = schedule;
	const next = new Date(time * 1000).toISOString();
	return { id, type, text: payload.text, next };
}

/** Tells whether a message belongs to a protocol: JSON with a `type`. */
function isFrame(message: WSMessage): boolean {
	try {
		const { type } = Object(JSON.parse(String(message)));
		return typeof type === "string";
	} catch {
		return false;
	}
}

/**
 * One conversation: with a model, remembered, and the same on all its pages.
 *
 * Extend it for agents that act otherwise: override `instructions` and `tools`,
 * add callable methods.
 */
export class AiAgent extends Agent<Env, AgentState> {
	override initialState: AgentState = {
		title: "",
		lastMessageAt: null,
		//% if "workflows" in features
		workflowId: null,
		//% endif
	};

	#turns = new AgentTurns();
	/** How often the conversation was cleared. */
	#cleared = 0;

	constructor(ctx: DurableObjectState, env: Env) {
		super(ctx, env);
		// Of two messages with the same source, only the first is kept.
		this.sql`CREATE TABLE IF NOT EXISTS messages (
			id INTEGER PRIMARY KEY AUTOINCREMENT,
			role TEXT NOT NULL,
			text TEXT NOT NULL,
			at TEXT NOT NULL,
			source TEXT UNIQUE
		)`;
		this.sql`CREATE TABLE IF NOT EXISTS used_tickets (
			id TEXT PRIMARY KEY,
			expires INTEGER NOT NULL
		)`;
	}

	/** Tells the model who it is and how to answer. */
	protected instructions(): string {
		return "You are a helpful assistant. Answer briefly.";
	}

	/** The tools that the model may call, by name; made with `modelTool`. */
	protected tools(): Record<string, ModelTool> {
		return {};
	}

	/**
	 * Notes that a ticket is used, and forgets those that have expired.
	 *
	 * @returns Whether it was unused so far, and has not expired.
	 */
	useTicket(id: string, expires: number): boolean {
		// It may have expired on the way here.
		if (expires < Date.now()) {
			return false;
		}
		this.sql`DELETE FROM used_tickets WHERE expires < ${Date.now()}`;
		const added = this.sql`
			INSERT INTO used_tickets (id, expires) VALUES (${id}, ${expires})
			ON CONFLICT DO NOTHING RETURNING id`;
		return added.length === 1;
	}

	/** Refuses a client's change of anything but the title. */
	override validateStateChange(
		next: AgentState,
		source: Connection | "server",
	): void {
		if (source === "server") {
			return;
		}
		const { title, ...rest } = next;
		const { title: _, ...fixed } = this.state;
		agentTitle.parse(title);
		if (!isDeepStrictEqual(rest, fixed)) {
			throw new Error("Only the title may change");
		}
	}

	/**
	 * Answers what the Worker passes on: `GET` with the conversation, `POST` with
	 * the reply to a message, as server-sent events.
	 */
	override async onRequest(request: Request): Promise<Response> {
		if (request.method === "GET") {
			return Response.json({ state: this.state, messages: this.#latest() });
		}
		const { message } = agentRequest.parse(await request.json());
		const abort = new AbortController();
		const pieces = this.reply(message, { signal: abort.signal });
		try {
			// One that breaks off breaks the response off, so that it does not look whole.
			const events = modelEvents(
				await pieces.next(),
				pieces,
				abort,
				(error) => {
					throw agentError(this, error);
				},
			);
			const headers = { "Content-Type": "text/event-stream" };
			return new Response(events, { headers });
		} catch (error) {
			if (!(error instanceof ApiError)) {
				throw error;
			}
			const { status, code, headers } = error;
			const body = { error: { code, message: error.message } };
			return Response.json(body, { status, headers });
		}
	}

	/** Shows a client that has connected the conversation so far. */
	override onConnect(connection: Connection): void {
		//% if "rate-limit" in features
		const { request } = getCurrentAgent();
		connection.setState({ sender: request?.headers.get("X-Sender") });
		//% endif
		try {
			const messages = this.#latest();
			connection.send(JSON.stringify({ type: "messages", messages }));
		} catch (error) {
			// The library would send the client where it failed, and how.
			agentError(this, error);
			connection.close(1011, "The agent failed");
		}
	}

	/**
	 * Replies to a client that sends plain text: `{"type":"piece","text":…}` for
	 * each piece, then `{"type":"done"}`; or `{"type":"error","error":{…}}`.
	 */
	override async onMessage(
		connection: Connection,
		message: WSMessage,
	): Promise<void> {
		// One that the library does not know, since the client is newer.
		if (isFrame(message)) {
			return;
		}
		const isWanted = () => connection.readyState === WebSocket.OPEN;
		const send = (answer: object) => {
			if (isWanted()) {
				connection.send(JSON.stringify(answer));
			}
		};
		try {
			const pieces = this.reply(agentArguments(agentText, message), {
				isWanted,
			});
			let next = await pieces.next();
			for (; !next.done; next = await pieces.next()) {
				send({ type: "piece", text: next.value });
			}
			send({ type: "done", ...(next.value.truncated && { truncated: true }) });
		} catch (error) {
			const { code, message, issues } = agentError(this, error);
			send({ type: "error", error: { code, message, issues } });
		}
	}

	/** Logs what failed outside of a call, and lets it fail for the client. */
	override onError(connectionOrError: unknown, error?: unknown): void {
		const cause = error ?? connectionOrError;
		agentError(this, cause);
		throw cause;
	}

	/**
	 * Replies to a message, piece by piece.
	 *
	 * @returns `{truncated: true}` where the model's limit cut the reply.
	 */
	@callable({ streaming: true })
	async chat(stream: StreamingResponse, message: string): Promise<void> {
		const { connection } = getCurrentAgent();
		try {
			const pieces = this.reply(agentArguments(agentText, message), {
				isWanted: () => connection?.readyState === WebSocket.OPEN,
			});
			let next = await pieces.next();
			for (; !next.done; next = await pieces.next()) {
				stream.send(next.value);
			}
			stream.end(next.value.truncated ? { truncated: true } : undefined);
		} catch (error) {
			stream.error(agentErrorText(agentError(this, error)));
		}
	}

	/** Names the conversation, for all its pages. */
	@callable()
	@agentsGuarded
	async setTitle(title: string): Promise<void> {
		this.setState({ ...this.state, title: agentArguments(agentTitle, title) });
	}

	/**
	 * Forgets all messages, on all pages too, even that of a turn that still runs.
	 * The title and the reminders to come stay.
	 */
	@callable()
	@agentsGuarded
	async clear(): Promise<void> {
		this.#cleared += 1;
		this.sql`DELETE FROM messages`;
		this.setState({ ...this.state, lastMessageAt: null });
		this.broadcast(JSON.stringify({ type: "cleared" }));
	}

	/**
	 * Schedules a message to this conversation: `{text, when}`, where `when` is
	 * `{delaySeconds}`, `{date}`, `{cron}` (in UTC) or `{everySeconds}`.
	 */
	@callable()
	@agentsGuarded
	async addReminder(
		request: z.input<typeof reminderRequest>,
	): Promise<AgentReminder> {
		const { text, when } = agentArguments(reminderRequest, request);
		if ((await this.#reminders()).length >= AGENT_REMINDERS) {
			throw new ApiError(
				409,
				"too_many_reminders",
				`Cancel a reminder first: an agent has at most ${AGENT_REMINDERS}.`,
			);
		}
		return showReminder(await this.#schedule(text, when));
	}

	/** Lists the reminders to come. */
	@callable()
	@agentsGuarded
	async listReminders(): Promise<AgentReminder[]> {
		return (await this.#reminders()).map(showReminder);
	}

	/** Cancels a reminder; returns whether there was one with that id. */
	@callable()
	@agentsGuarded
	async cancelReminder(id: string): Promise<boolean> {
		return this.cancelSchedule(agentArguments(z.string(), id));
	}

	/**
	 * Delivers a reminder when it is due. It may run twice for one time; the
	 * message is there once.
	 */
	deliverReminder({ text }: ReminderPayload, { id, time }: Schedule): void {
		this.#keep([{ role: "reminder", text }], `${id} ${time}`);
	}

	//% if "workflows" in features
	/** Asks a person, in an instance of the Workflow; returns its id. */
	@callable()
	@agentsGuarded
	async startWorkflow(email: string): Promise<string> {
		const metadata = { agent: this.name };
		const params = agentArguments(workflowsRequest, { email, metadata });
		return this.startInstance(this.env.MY_WORKFLOW, params);
	}

	/** Starts an instance of any Workflow, whose id is kept in the state. */
	protected async startInstance<Params>(
		workflow: Workflow<Params>,
		params: Params,
	): Promise<string> {
		const id = crypto.randomUUID();
		await workflow.create({ id, params });
		this.setState({ ...this.state, workflowId: id });
		return id;
	}

	//% endif
	/** Adds what happened to the conversation, for its pages, not for the model. */
	protected addNote(text: string): void {
		this.#keep([{ role: "note", text }]);
	}

	//% if "rate-limit" in features
	/**
	 * Limits the messages and calls that come over a connection, each once, whatever
	 * it does. Those that come by HTTP are limited as requests.
	 *
	 * @throws ApiError 429 when too many have come.
	 */
	async limitSender(): Promise<void> {
		const { connection } = getCurrentAgent();
		if (connection && !agentCall.getStore()) {
			const { sender } = Object(connection.state);
			const key = String(sender ?? `agent ${this.name}`);
			await rateLimitCount(this.env.RATE_LIMITER, key);
		}
	}

	//% endif
	/**
	 * Replies to a message. Both are kept once the reply has ended, so that one
	 * that breaks off leaves nothing behind.
	 *
	 * @param asker Who it is for; by default, somebody who wants all of it.
	 * @throws ApiError when the model cannot be used or fails, or when too many
	 * messages wait already.
	 */
	protected async *reply(
		text: string,
		{
			signal = new AbortController().signal,
			isWanted = () => true,
		}: AgentAsker = {},
	): AsyncGenerator<string, ModelEnd> {
		//% if "rate-limit" in features
		await this.limitSender();
		//% endif
		await this.#turns.begin(isWanted);
		try {
			const cleared = this.#cleared;
			let answer = "";
			const end = yield* watchPieces(this.#ask(text, signal), (piece) => {
				answer += piece;
			});
			if (!signal.aborted && cleared === this.#cleared) {
				this.#keep([
					{ role: "user", text },
					{ role: "assistant", text: answer },
				]);
			}
			return end;
		} finally {
			this.#turns.end();
		}
	}

	/**
	 * Asks the model to go on with the conversation. If it refuses, it is asked
	 * again with half of what was said before, in the end with the message alone.
	 */
	async *#ask(
		text: string,
		signal: AbortSignal,
	): AsyncGenerator<string, ModelEnd> {
		let isFresh = true;
		const touch = () => {
			isFresh = false;
		};
		const tools = watchTools(this.tools(), touch);
		let history = this.#history(text);
		for (;;) {
			const messages: ModelMessage[] = [
				{ role: "system", content: this.instructions() },
				...history,
				{ role: "user", content: text },
			];
			const pieces = modelText(this.env, messages, { signal, tools });
			try {
				return yield* watchPieces(pieces, touch);
			} catch (error) {
				// Never repeat what was said or done already.
				const isLast = history.length === 0 || !isFresh;
				if (isLast || !(error instanceof ModelRefusedError)) {
					throw error;
				}
			}
			history = fromQuestion(history.slice(Math.ceil(history.length / 2)));
		}
	}

	/** The newest messages that fit the model together with a new one. */
	#history(text: string): ModelMessage[] {
		const newest = this.sql<ModelMessage>`
			SELECT role, text AS content FROM messages
			WHERE role IN ('user', 'assistant')
			ORDER BY id DESC LIMIT ${AGENT_MESSAGES.sent}`;
		let room =
			MODEL_WINDOW_CHARACTERS - this.instructions().length - text.length;
		const history: ModelMessage[] = [];
		for (const message of newest) {
			room -= message.content.length;
			if (room < 0) {
				break;
			}
			history.unshift(message);
		}
		return fromQuestion(history);
	}

	/** Adds messages to the conversation, and to every page that shows it. */
	#keep(
		messages: Pick<AgentMessage, "role" | "text">[],
		source: string | null = null,
	): void {
		const at = new Date().toISOString();
		const kept = messages.flatMap(
			({ role, text }) => this.sql<AgentMessage>`
				INSERT INTO messages (role, text, at, source)
				VALUES (${role}, ${text}, ${at}, ${source})
				ON CONFLICT DO NOTHING RETURNING id, role, text, at`,
		);
		this.sql`DELETE FROM messages
			WHERE id <= (SELECT max(id) FROM messages) - ${AGENT_MESSAGES.kept}`;
		if (kept.length > 0) {
			this.setState({ ...this.state, lastMessageAt: at });
			this.broadcast(JSON.stringify({ type: "messages", messages: kept }));
		}
	}

	/** The newest messages, the oldest of them first. */
	#latest(): AgentMessage[] {
		return this.sql<AgentMessage>`
			SELECT id, role, text, at FROM messages
			ORDER BY id DESC LIMIT ${AGENT_MESSAGES.shown}`.reverse();
	}

	/**
	 * Schedules a reminder. A repeating one that is there already is not added.
	 *
	 * @throws ApiError 400 for a date that is past or more than a year ahead, or
	 * a cron expression that never comes.
	 */
	async #schedule(
		text: string,
		when: z.infer<typeof reminderRequest>["when"],
	): Promise<Schedule<ReminderPayload>> {
		const payload: ReminderPayload = { text };
		if ("everySeconds" in when) {
			return this.scheduleEvery(when.everySeconds, "deliverReminder", payload);
		}
		if ("delaySeconds" in when) {
			return this.schedule(when.delaySeconds, "deliverReminder", payload);
		}
		if ("date" in when) {
			const date = new Date(when.date);
			const seconds = (date.getTime() - Date.now()) / 1000;
			if (seconds <= 0 || seconds > YEAR_SECONDS) {
				const message = "Choose a time within a year from now.";
				throw new ApiError(400, "invalid_arguments", message);
			}
			return this.schedule(date, "deliverReminder", payload);
		}
		try {
			return await this.schedule(when.cron, "deliverReminder", payload);
		} catch {
			// Nothing tells the parser's errors from others.
			const message = "Write a cron expression that can fire.";
			throw new ApiError(400, "invalid_arguments", message);
		}
	}

	async #reminders(): Promise<Schedule<ReminderPayload>[]> {
		const schedules = await this.listSchedules();
		return schedules.filter(
			(schedule): schedule is Schedule<ReminderPayload> =>
				schedule.callback === "deliverReminder",
		);
	}
}
