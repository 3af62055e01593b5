import { isDeepStrictEqual } from "node:util";
import type { Connection, Schedule, WSMessage } from "agents";
import { Agent, callable, getAgentByName, routeAgentRequest } from "agents";
import type { Context, MiddlewareHandler } from "hono";
import { Hono } from "hono";
import { sign, verify } from "hono/jwt";
import * as z from "zod";
import { operatorOnly, unauthorized } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import {
	ApiError,
	logError,
	parseInput,
	readJson,
} from "../../base/base/worker";
import { requireTrustedOrigin } from "../../base/origin/worker";
import type {
	ModelMessage,
	ModelTool,
} from "../../providers/workers-ai/worker";
import {
	modelEvents,
	modelText,
	modelTool,
} from "../../providers/workers-ai/worker";
import { paramsSchema } from "../workflows/worker";

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

	//% if "workflows" in features
	/** Asks a person, in an instance of the Workflow; returns its id. */
	@forClients
	async startWorkflow(email: string): Promise<string> {
		const metadata = { agent: this.name };
		const params = parseInput(paramsSchema, { email, metadata });
		return (await this.env.MY_WORKFLOW.create({ params })).id;
	}

	//% endif
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

export const agents = new Hono<AppEnv>().route(
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
