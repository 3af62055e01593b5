import type {
	Connection,
	Schedule,
	StreamingResponse,
	WSMessage,
} from "agents";
import { Agent, callable, getAgentByName, routeAgentRequest } from "agents";
import type { Context } from "hono";
import { createMiddleware } from "hono/factory";
import * as z from "zod";
import { unauthorized } from "../../base/access/worker";
import type { AppEnv } from "../../base/http/worker";
import {
	ApiError,
	app,
	isTrustedOrigin,
	logError,
} from "../../base/http/worker";
import { readJson } from "../../base/json/worker";
import type { ModelMessage } from "../../base/model/worker";
import { operatorOnly } from "../../base/operator/worker";
import { modelText } from "../../providers/workers-ai/worker";
import { workflowsRequest } from "../workflows/worker";

const AGENTS_INSTRUCTIONS = "You are a helpful assistant. Answer briefly.";
const AGENTS_TICKET_SECONDS = 60;
/** How many messages an agent keeps, shows, and sends to the model. */
const AGENTS_MESSAGES = { kept: 1000, shown: 100, sent: 20 };
const AGENTS_MAX_REMINDERS = 100;
const AGENTS_YEAR_SECONDS = 365 * 24 * 60 * 60;

const agentsText = z.string().trim().min(1).max(8000);

const agentsRequest = z.strictObject({ message: agentsText });

const agentsReminderRequest = z.strictObject({
	text: z.string().trim().min(1).max(500),
	when: z.union([
		z.strictObject({ delaySeconds: z.int().min(1).max(AGENTS_YEAR_SECONDS) }),
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
type AgentsState = {
	/** The only part that clients may change. */
	title: string;
	lastMessageAt: string | null;
	//% if "workflows" in features
	/** The instance that was started last. */
	workflowId: string | null;
	//% endif
};

/** A message as clients see it; its time in ISO 8601. */
type AgentsMessage = {
	id: number;
	role: "user" | "assistant" | "reminder";
	text: string;
	at: string;
};

/** What the schedule of a reminder carries. */
type AgentsPayload = { text: string };

/** A reminder to come; its time in ISO 8601. */
type AgentsReminder = {
	id: string;
	type: Schedule["type"];
	text: string;
	next: string;
};

/**
 * Checks what a client passed to a call.
 *
 * @throws ApiError 400 when it is not what the schema asks for.
 */
function agentsCheck<T>(schema: z.ZodType<T>, input: unknown): T {
	const result = schema.safeParse(input);
	if (!result.success) {
		const message = z.prettifyError(result.error);
		throw new ApiError(400, "invalid_arguments", message);
	}
	return result.data;
}

/** What a client may know of an error; the logs get what it may not. */
function agentsPublicError(error: unknown): ApiError {
	if (error instanceof ApiError) {
		return error;
	}
	logError("Agent failed", error);
	return new ApiError(500, "internal_error", "Something went wrong.");
}

/**
 * Method decorator: lets only errors that clients may see through, since the
 * library sends them the message of any.
 */
function agentsGuarded<Args extends unknown[], Result>(
	method: (this: AiAgent, ...args: Args) => Promise<Result>,
) {
	return async function (this: AiAgent, ...args: Args): Promise<Result> {
		try {
			return await method.apply(this, args);
		} catch (error) {
			throw agentsPublicError(error);
		}
	};
}

/**
 * Derives the key that signs tickets.
 *
 * @throws ApiError 401 without an `API_TOKEN`, which would make a key that
 * anybody can derive.
 */
async function agentsTicketKey(env: Env): Promise<CryptoKey> {
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

/** What the signature of a ticket covers. */
function agentsTicketText(name: string, expires: string, id: string) {
	return new TextEncoder().encode(`${name} ${expires} ${id}`);
}

/**
 * Makes a ticket for one WebSocket to an agent.
 *
 * @returns `<when it expires, in milliseconds>.<its id>.<signature>`.
 */
async function agentsMakeTicket(env: Env, name: string): Promise<string> {
	const alphabet = { alphabet: "base64url", omitPadding: true } as const;
	const id = crypto.getRandomValues(new Uint8Array(16)).toBase64(alphabet);
	const expires = String(Date.now() + AGENTS_TICKET_SECONDS * 1000);
	const signature = await crypto.subtle.sign(
		"HMAC",
		await agentsTicketKey(env),
		agentsTicketText(name, expires, id),
	);
	return `${expires}.${id}.${new Uint8Array(signature).toBase64(alphabet)}`;
}

/**
 * Uses a ticket up.
 *
 * @returns Whether it was good: made here for this agent, not expired and not
 * used before.
 */
async function agentsUseTicket(
	env: Env,
	name: string,
	ticket: string,
): Promise<boolean> {
	const [, expires, id, signature] =
		/^(\d{13})\.([\w-]{22})\.([\w-]{43})$/.exec(ticket) ?? [];
	if (!expires || !id || !signature || Number(expires) < Date.now()) {
		return false;
	}
	const isGenuine = await crypto.subtle.verify(
		"HMAC",
		await agentsTicketKey(env),
		Uint8Array.fromBase64(signature, { alphabet: "base64url" }),
		agentsTicketText(name, expires, id),
	);
	if (!isGenuine) {
		return false;
	}
	const agent = await getAgentByName(env.AiAgent, name);
	return agent.useTicket(id, Number(expires));
}

/**
 * Reads the name of the agent that a request is for.
 *
 * @throws ApiError 400 when it is none.
 */
function agentsName(c: Context<AppEnv>): string {
	const name = c.req.param("name") ?? "";
	if (!/^[A-Za-z0-9_-]{1,64}$/.test(name)) {
		throw new ApiError(
			400,
			"invalid_name",
			"An agent's name has 1 to 64 letters, digits, `_` or `-`.",
		);
	}
	return name;
}

function agentsIsUpgrade(c: Context<AppEnv>): boolean {
	return c.req.header("Upgrade")?.toLowerCase() === "websocket";
}

/**
 * Middleware: lets the operator pass, and upgrades with a ticket, since a
 * browser cannot set headers on a WebSocket.
 */
const agentsAdmit = createMiddleware<AppEnv>(async (c, next) => {
	const ticket = c.req.query("ticket");
	if (agentsIsUpgrade(c) && !isTrustedOrigin(c)) {
		throw new ApiError(
			403,
			"foreign_origin",
			"Connect from this site or an allowed origin.",
		);
	}
	if (!agentsIsUpgrade(c) || ticket === undefined) {
		return operatorOnly(c, next);
	}
	if (!(await agentsUseTicket(c.env, agentsName(c), ticket))) {
		throw unauthorized();
	}
	return next();
});

/**
 * Passes a request on to an agent.
 *
 * @param init All that the agent gets: the library acts on headers, queries and
 * paths that a client could write, and would keep a ticket with the connection.
 */
async function agentsRoute(
	c: Context<AppEnv>,
	name: string,
	init: RequestInit,
): Promise<Response> {
	const url = new URL(`/agents/ai-agent/${name}`, c.req.url);
	// The library routes to all Durable Objects that it is given.
	const { AiAgent } = c.env;
	const response = await routeAgentRequest(new Request(url, init), { AiAgent });
	if (response?.status === 500) {
		// The library would tell the client where the agent failed, and how.
		throw new Error("The agent failed; a line of its own says why");
	}
	return response ?? c.notFound();
}

app.get("/agents/ai-agent/:name", agentsAdmit, (c) => {
	const headers = agentsIsUpgrade(c) ? { Upgrade: "websocket" } : {};
	return agentsRoute(c, agentsName(c), { headers });
});

app.post("/agents/ai-agent/:name", operatorOnly, async (c) => {
	const request = await readJson(c, agentsRequest);
	return agentsRoute(c, agentsName(c), {
		method: "POST",
		body: JSON.stringify(request),
	});
});

app.post("/agents/ai-agent/:name/ticket", operatorOnly, async (c) => {
	const ticket = await agentsMakeTicket(c.env, agentsName(c));
	return c.json({ ticket }, 201);
});

function agentsShowReminder(schedule: Schedule<AgentsPayload>): AgentsReminder {
	const { id, type, payload, time } = schedule;
	const next = new Date(time * 1000).toISOString();
	return { id, type, text: payload.text, next };
}

/**
 * Turns the pieces of a reply into server-sent events. A reply that breaks off
 * breaks the response off, so that it does not look whole.
 *
 * @param pieces The pieces after the first.
 * @param abort Stops them when the client goes away.
 */
function agentsEvents(
	first: IteratorResult<string>,
	pieces: AsyncGenerator<string>,
	abort: AbortController,
): ReadableStream<Uint8Array> {
	const encoder = new TextEncoder();
	let next: IteratorResult<string> | undefined = first;
	return new ReadableStream({
		async pull(controller) {
			try {
				const { done, value } = next ?? (await pieces.next());
				next = undefined;
				if (abort.signal.aborted) {
					return;
				}
				const data = done ? "[DONE]" : JSON.stringify({ text: value });
				controller.enqueue(encoder.encode(`data: ${data}\n\n`));
				if (done) {
					controller.close();
				}
			} catch (error) {
				controller.error(agentsPublicError(error));
			}
		},
		cancel() {
			abort.abort();
			// Where nobody waits for a piece, this ends the generator.
			pieces.return(undefined).catch(() => {});
		},
	});
}

/** One conversation: with a model, remembered, and the same on all its pages. */
export class AiAgent extends Agent<Env, AgentsState> {
	override initialState: AgentsState = {
		title: "",
		lastMessageAt: null,
		//% if "workflows" in features
		workflowId: null,
		//% endif
	};

	constructor(ctx: DurableObjectState, env: Env) {
		super(ctx, env);
		// Of two messages with one source only the first is kept.
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

	/** Refuses what a client may not change. */
	override validateStateChange(
		next: AgentsState,
		source: Connection | "server",
	): void {
		if (source === "server") {
			return;
		}
		const fixed = Object.entries(this.state).map(([key, value]) => {
			return [key, z.literal(value)];
		});
		const allowed = z.strictObject({
			...Object.fromEntries(fixed),
			title: z.string().max(100),
		});
		allowed.parse(next);
	}

	/**
	 * Answers what the Worker passes on: `GET` with the conversation, `POST` with
	 * the reply to a message, as server-sent events.
	 */
	override async onRequest(request: Request): Promise<Response> {
		if (request.method === "GET") {
			return Response.json({ state: this.state, messages: this.#latest() });
		}
		const { message } = agentsRequest.parse(await request.json());
		const abort = new AbortController();
		const pieces = this.#reply(message, abort.signal);
		try {
			const events = agentsEvents(await pieces.next(), pieces, abort);
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
		try {
			const messages = this.#latest();
			connection.send(JSON.stringify({ type: "messages", messages }));
		} catch (error) {
			// The library would send the client where it failed, and how.
			logError("Agent failed", error);
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
		const send = (answer: object) => {
			if (connection.readyState === WebSocket.OPEN) {
				connection.send(JSON.stringify(answer));
			}
		};
		try {
			const text = agentsCheck(agentsText, message);
			for await (const piece of this.#reply(text)) {
				send({ type: "piece", text: piece });
			}
			send({ type: "done" });
		} catch (error) {
			const { code, message } = agentsPublicError(error);
			send({ type: "error", error: { code, message } });
		}
	}

	/** Logs what failed outside of a call; who asked for it gets a failure. */
	override onError(connectionOrError: unknown, error?: unknown): void {
		const cause = error ?? connectionOrError;
		logError("Agent failed", cause);
		throw cause;
	}

	/** Replies to a message, piece by piece. */
	@callable({ streaming: true })
	async chat(stream: StreamingResponse, message: string): Promise<void> {
		try {
			const text = agentsCheck(agentsText, message);
			for await (const piece of this.#reply(text)) {
				stream.send(piece);
			}
			stream.end();
		} catch (error) {
			stream.error(agentsPublicError(error).message);
		}
	}

	/**
	 * Schedules a message to this conversation: `{text, when}`, where `when` is
	 * `{delaySeconds}`, `{date}`, `{cron}` (in UTC) or `{everySeconds}`.
	 */
	@callable()
	@agentsGuarded
	async addReminder(
		request: z.input<typeof agentsReminderRequest>,
	): Promise<AgentsReminder> {
		const { text, when } = agentsCheck(agentsReminderRequest, request);
		if ((await this.#reminders()).length >= AGENTS_MAX_REMINDERS) {
			throw new ApiError(
				409,
				"too_many_reminders",
				`An agent has at most ${AGENTS_MAX_REMINDERS} reminders.`,
			);
		}
		return agentsShowReminder(await this.#schedule(text, when));
	}

	/** Lists the reminders to come. */
	@callable()
	@agentsGuarded
	async listReminders(): Promise<AgentsReminder[]> {
		return (await this.#reminders()).map(agentsShowReminder);
	}

	/** Cancels a reminder; returns whether there was one with that id. */
	@callable()
	@agentsGuarded
	async cancelReminder(id: string): Promise<boolean> {
		return this.cancelSchedule(agentsCheck(z.string(), id));
	}
	/**
	 * Delivers a reminder when it is due. It may run twice for one time; the
	 * message is there once.
	 */
	deliverReminder({ text }: AgentsPayload, { id, time }: Schedule): void {
		this.#keep([{ role: "reminder", text }], `${id} ${time}`);
	}

	//% if "workflows" in features
	/** Starts an instance of the Workflow, whose id is kept in the state. */
	@callable()
	@agentsGuarded
	async startWorkflow(email: string): Promise<string> {
		const params = agentsCheck(workflowsRequest, {
			email,
			metadata: { agent: this.name },
		});
		const id = crypto.randomUUID();
		await this.env.MY_WORKFLOW.create({ id, params });
		this.setState({ ...this.state, workflowId: id });
		return id;
	}

	//% endif
	/**
	 * Replies to a message. Both are kept once the reply is whole, so that one
	 * that breaks off leaves nothing behind.
	 *
	 * @param signal Breaks it off.
	 * @throws ApiError when the model cannot be used or fails.
	 */
	async *#reply(
		text: string,
		signal: AbortSignal = new AbortController().signal,
	): AsyncGenerator<string> {
		const earlier = this.sql<ModelMessage>`
			SELECT role, text AS content FROM messages WHERE role <> 'reminder'
			ORDER BY id DESC LIMIT ${AGENTS_MESSAGES.sent}`;
		const messages: ModelMessage[] = [
			{ role: "system", content: AGENTS_INSTRUCTIONS },
			...earlier.reverse(),
			{ role: "user", content: text },
		];
		let reply = "";
		for await (const piece of modelText(this.env, messages, { signal })) {
			reply += piece;
			yield piece;
		}
		if (!signal.aborted) {
			this.#keep([
				{ role: "user", text },
				{ role: "assistant", text: reply },
			]);
		}
	}

	/** Adds messages to the conversation, and to every page that shows it. */
	#keep(
		messages: Pick<AgentsMessage, "role" | "text">[],
		source: string | null = null,
	): void {
		const at = new Date().toISOString();
		const kept = messages.flatMap(
			({ role, text }) => this.sql<AgentsMessage>`
				INSERT INTO messages (role, text, at, source)
				VALUES (${role}, ${text}, ${at}, ${source})
				ON CONFLICT DO NOTHING RETURNING id, role, text, at`,
		);
		this.sql`DELETE FROM messages
			WHERE id <= (SELECT max(id) FROM messages) - ${AGENTS_MESSAGES.kept}`;
		if (kept.length > 0) {
			this.setState({ ...this.state, lastMessageAt: at });
			this.broadcast(JSON.stringify({ type: "messages", messages: kept }));
		}
	}

	/** The newest messages, the oldest of them first. */
	#latest(): AgentsMessage[] {
		return this.sql<AgentsMessage>`
			SELECT id, role, text, at FROM messages
			ORDER BY id DESC LIMIT ${AGENTS_MESSAGES.shown}`.reverse();
	}

	/**
	 * Schedules a reminder. One that repeats and is there already stays alone.
	 *
	 * @throws ApiError 400 for a date that is past or a cron expression that never
	 * comes.
	 */
	async #schedule(
		text: string,
		when: z.infer<typeof agentsReminderRequest>["when"],
	): Promise<Schedule<AgentsPayload>> {
		const payload: AgentsPayload = { text };
		if ("everySeconds" in when) {
			return this.scheduleEvery(when.everySeconds, "deliverReminder", payload);
		}
		if ("delaySeconds" in when) {
			return this.schedule(when.delaySeconds, "deliverReminder", payload);
		}
		if ("date" in when) {
			const date = new Date(when.date);
			if (date.getTime() <= Date.now()) {
				throw new ApiError(400, "invalid_arguments", "The date is past.");
			}
			return this.schedule(date, "deliverReminder", payload);
		}
		try {
			return await this.schedule(when.cron, "deliverReminder", payload);
		} catch {
			// Nothing tells the parser's errors from others.
			throw new ApiError(
				400,
				"invalid_arguments",
				"The cron expression is not valid.",
			);
		}
	}

	async #reminders(): Promise<Schedule<AgentsPayload>[]> {
		const schedules = await this.listSchedules();
		return schedules.filter(
			(schedule): schedule is Schedule<AgentsPayload> =>
				schedule.callback === "deliverReminder",
		);
	}
}
