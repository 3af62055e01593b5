import {
	evictDurableObject,
	reset,
	runDurableObjectAlarm,
	runInDurableObject,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { getAgentByName } from "agents";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
	answerForever,
	answerText,
	answerTruncated,
	failWith,
	requests,
	SECRET_WORDS,
	SETTING,
	textFailures,
	textRequest,
	unconfigured,
} from "../../providers/workers-ai/test/provider";
import { AiAgent } from "./worker";

const SITE = "https://example.com";
const TOKEN = env.API_TOKEN;
const OPERATOR = { Authorization: `Bearer ${TOKEN}` };
const INSTRUCTIONS = "You are a helpful assistant. Answer briefly.";
const ADA = "/agents/ai-agent/ada";

type Frame = Record<string, unknown>;
type Message = { id: number; role: string; text: string; at: string };
type Conversation = { state: Frame; messages: Message[] };

let errors: MockInstance<typeof console.error>;

beforeEach(() => {
	// The library writes what it refuses to the console.
	errors = vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(async () => {
	vi.useRealTimers();
	vi.restoreAllMocks();
	env.ALLOWED_ORIGINS = "";
	env.API_TOKEN = TOKEN;
	await reset();
});

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`${SITE}${path}`, init));
}

function say(message: unknown, path = ADA): Promise<Response> {
	return request(path, {
		method: "POST",
		headers: { ...OPERATOR, "Content-Type": "application/json" },
		body: JSON.stringify({ message }),
	});
}

async function conversation(path = ADA): Promise<Conversation> {
	const response = await request(path, { headers: OPERATOR });
	return response.json<Conversation>();
}

async function newTicket(path = ADA): Promise<string> {
	const init = { method: "POST", headers: OPERATOR };
	const response = await request(`${path}/ticket`, init);
	return (await response.json<{ ticket: string }>()).ticket;
}

function upgrade(
	query = "",
	headers: Record<string, string> = {},
	path = ADA,
): Promise<Response> {
	const init = { headers: { Upgrade: "websocket", ...headers } };
	return request(`${path}${query}`, init);
}

/** The lines that the project itself has logged as errors. */
function loggedErrors(): Frame[] {
	const lines = errors.mock.calls.map(([line]) => line);
	return lines
		.filter((line) => typeof line === "string" && line.startsWith("{"))
		.map((line) => JSON.parse(line));
}

/** A page of an agent, with all that it was sent so far. */
async function open(path = ADA) {
	const response = await upgrade(`?ticket=${await newTicket(path)}`, {}, path);
	const { webSocket: socket } = response;
	if (!socket) {
		throw new Error("no WebSocket");
	}
	const frames: Frame[] = [];
	socket.addEventListener("message", ({ data }) => {
		frames.push(JSON.parse(String(data)));
	});
	socket.accept();

	/** Waits for the first frame that fits. */
	function find(fits: (frame: Frame) => boolean): Promise<Frame> {
		return vi.waitFor(
			() => {
				const found = frames.find(fits);
				expect(found).toBeDefined();
				return found as Frame;
			},
			{ interval: 5, timeout: 5000 },
		);
	}

	/** Waits for the first frame like this one. */
	function gets(like: Frame): Promise<Frame> {
		const expected = expect.objectContaining(like);
		return find((frame) => expected.asymmetricMatch(frame));
	}

	/** Calls a method; returns its last frame. */
	function call(method: string, ...args: unknown[]): Promise<Frame> {
		const id = crypto.randomUUID();
		socket?.send(JSON.stringify({ type: "rpc", id, method, args }));
		return find((frame) => frame.id === id && frame.done !== false);
	}

	function send(frame: unknown): void {
		socket?.send(typeof frame === "string" ? frame : JSON.stringify(frame));
	}

	/** Goes away, and waits until the agent knows. */
	async function close(): Promise<void> {
		const closed = new Promise((resolve) => {
			socket?.addEventListener("close", resolve);
		});
		socket?.close(1000);
		await closed;
	}

	await gets({ type: "messages" });
	return { frames, gets, call, send, close };
}

/** Fills ada's conversation behind her back. */
function fill(...messages: [role: string, text: string][]): Promise<void> {
	return runInDurableObject(env.AiAgent.getByName("ada"), (_, { storage }) => {
		for (const message of messages) {
			storage.sql.exec(
				"INSERT INTO messages (role, text, at) VALUES (?, ?, '')",
				...message,
			);
		}
	});
}

/** The request for a reply to what was said. */
function requestAfter(...said: [role: string, content: string][]) {
	const messages = said.map(([role, content]) => ({ role, content }));
	return textRequest([{ role: "system", content: INSTRUCTIONS }, ...messages]);
}

describe("a conversation", () => {
	it("streams the reply and keeps both sides", async () => {
		answerText("Hel", "lo!");
		const response = await say(" Hi ");
		expect(response.status).toBe(200);
		expect(response.headers.get("Content-Type")).toBe("text/event-stream");
		expect(await response.text()).toBe(
			'data: {"text":"Hel"}\n\ndata: {"text":"lo!"}\n\ndata: [DONE]\n\n',
		);
		const { state, messages } = await conversation();
		expect(messages).toEqual([
			{ id: 1, role: "user", text: "Hi", at: expect.any(String) },
			{ id: 2, role: "assistant", text: "Hello!", at: expect.any(String) },
		]);
		expect(state).toMatchObject({ lastMessageAt: messages[1]?.at });
	});

	it("goes on after the object left memory, and tells the model what was said", async () => {
		answerText("Hello!");
		const page = await open();
		await page.call("chat", "Hi");
		await evictDurableObject(env.AiAgent.getByName("ada"), {
			webSockets: "hibernate",
		});
		await page.call("chat", "And now?");
		expect(requests().at(-1)).toEqual(
			requestAfter(
				["user", "Hi"],
				["assistant", "Hello!"],
				["user", "And now?"],
			),
		);
		expect((await conversation()).messages).toHaveLength(4);
	});

	it("sends the model its newest part only, from a question on", async () => {
		answerText("Yes.");
		const said: [string, string][] = [];
		for (let n = 1; n <= 12; n++) {
			await (await say(`Question ${n}`)).text();
			said.push(["user", `Question ${n}`], ["assistant", "Yes."]);
		}
		// Ten questions with their answers, and the last question.
		const sent = requestAfter(...said.slice(2, -1));
		expect(requests().at(-1)).toEqual(sent);
	});

	it("sends the model no more than fits it", async () => {
		answerText("Yes.");
		const much = "x".repeat(1_900_000);
		await conversation();
		await fill(
			...Array.from({ length: 4 }, (): [string, string] => ["user", much]),
			["assistant", "An answer to much."],
			["user", "And now?"],
			["assistant", "Now too."],
		);
		await (await say("Hi")).text();
		const sent = JSON.stringify(requests().at(-1));
		expect(sent).toContain("And now?");
		expect(sent.length).toBeLessThan(4 * much.length);
		expect(sent).not.toContain("An answer to much.");
	});

	it("keeps its newest 1,000 messages and shows 100 of them", async () => {
		answerText("Hello!");
		await conversation();
		await fill(
			...Array.from({ length: 1000 }, (_, n): [string, string] => [
				"note",
				String(n),
			]),
		);
		await (await say("Hi")).text();
		const { messages } = await conversation();
		expect(messages).toHaveLength(100);
		expect(messages[0]?.text).toBe("902");
		const kept = await runInDurableObject(
			env.AiAgent.getByName("ada"),
			(_, { storage }) =>
				storage.sql.exec("SELECT text FROM messages ORDER BY id").toArray(),
		);
		expect(kept).toHaveLength(1000);
		expect(kept[0]).toEqual({ text: "2" });
	});

	it("takes a message of 8,000 characters", async () => {
		answerText("Hello!");
		expect((await say("x".repeat(8000))).status).toBe(200);
	});

	it("says so when the model's limit cuts a reply, and keeps it", async () => {
		answerTruncated("Hel");
		expect(await (await say("Hi")).text()).toBe(
			'data: {"text":"Hel"}\n\ndata: {"truncated":true}\n\ndata: [DONE]\n\n',
		);
		const page = await open();
		expect(await page.call("chat", "Hi")).toMatchObject({
			success: true,
			result: { truncated: true },
		});
		page.send("Hi");
		expect(await page.gets({ type: "done" })).toEqual({
			type: "done",
			truncated: true,
		});
		expect((await conversation()).messages).toHaveLength(6);
	});

	it("is another one under another name", async () => {
		answerText("Hello!");
		await (await say("Hi")).text();
		expect(await conversation("/agents/ai-agent/bob")).toMatchObject({
			messages: [],
			state: { lastMessageAt: null },
		});
	});

	const badMessages = [undefined, null, "", "  ", 7, "x".repeat(8001)];

	it.each(badMessages)("takes no message that is %j", async (message) => {
		answerText("Hello!");
		expect((await say(message)).status).toBe(400);
		const page = await open();
		expect(await page.call("chat", message ?? null)).toMatchObject({
			success: false,
			error: expect.stringMatching(/^invalid_arguments: \w/),
		});
		expect(requests()).toEqual([]);
	});
});

describe("a reply that does not come", () => {
	it("is a 503 that says what to set, on every way", async () => {
		await unconfigured(async () => {
			const response = await say("Hi");
			expect(response.status).toBe(503);
			expect(await response.text()).toContain(SETTING);
			const page = await open();
			const message = expect.stringContaining(SETTING);
			const { error } = await page.call("chat", "Hi");
			expect(error).toMatch(/^model_not_configured: /);
			expect(error).toEqual(message);
			page.send("Hi");
			await page.gets({
				type: "error",
				error: { code: "model_not_configured", message },
			});
			expect((await conversation()).messages).toEqual([]);
		});
	});

	const statuses = [
		[429, 503],
		[500, 502],
	] as const;

	it.each(statuses)("turns the provider's %i into %i", async (theirs, ours) => {
		failWith(theirs);
		const response = await say("Hi");
		expect(response.status).toBe(ours);
		expect(response.headers.has("Retry-After")).toBe(theirs === 429);
		expect(await response.text()).not.toContain(SECRET_WORDS);
	});

	it.each(Object.keys(textFailures))(
		"breaks off and leaves nothing behind when %s",
		async (failure) => {
			textFailures[failure]?.("Hel");
			const response = await say("Hi");
			expect(response.status).toBe(200);
			await expect(response.text()).rejects.toThrow();
			const page = await open();
			const answer = await page.call("chat", "Hi");
			expect(answer).toMatchObject({ success: false });
			expect(JSON.stringify(page.frames)).not.toContain(SECRET_WORDS);
			expect((await conversation()).messages).toEqual([]);
		},
	);

	it("is asked for again with less and less, and never in vain for ever", async () => {
		answerText("Yes.");
		for (const question of ["One?", "Two?", "Three?"]) {
			await (await say(question)).text();
		}
		failWith(400);
		expect((await say("Hi")).status).toBe(502);
		const said = (...questions: string[]) =>
			questions.flatMap((question): [string, string][] => [
				["user", question],
				["assistant", "Yes."],
			]);
		expect(requests()).toEqual([
			requestAfter(...said("One?", "Two?", "Three?"), ["user", "Hi"]),
			requestAfter(...said("Three?"), ["user", "Hi"]),
			requestAfter(["user", "Hi"]),
		]);
		answerText("Yes.");
		expect((await say("Hello")).status).toBe(200);
	});

	it("is asked for once when the provider fails", async () => {
		answerText("Yes.");
		await (await say("One?")).text();
		failWith(500);
		expect((await say("Hi")).status).toBe(502);
		expect(requests()).toHaveLength(1);
	});

	it("ends the work of the model when the client goes away", async () => {
		const isStopped = answerForever("Hel");
		const response = await say("Hi");
		await response.body?.cancel();
		await vi.waitFor(() => expect(isStopped()).toBe(true));
		// Not before all of its work is done.
		await evictDurableObject(env.AiAgent.getByName("ada"));
		expect((await conversation()).messages).toEqual([]);
	});
});

describe("turns", () => {
	it("are taken one at a time, and five may wait", async () => {
		answerForever("Hel");
		const first = await say("Zero");
		const page = await open();
		for (const text of ["One", "Two", "Three", "Four", "Five", "Six"]) {
			page.send(text);
		}
		const busy = { code: "agent_busy", message: expect.any(String) };
		await page.gets({ type: "error", error: busy });
		const refused = await say("Seven");
		expect(refused.status).toBe(409);
		expect(await refused.json()).toEqual({ error: busy });
		expect(await page.call("chat", "Eight")).toMatchObject({
			success: false,
			error: expect.stringMatching(/^agent_busy: /),
		});
		expect(requests()).toHaveLength(1);

		answerText("Yes.");
		await first.body?.cancel();
		await vi.waitFor(async () => {
			expect((await conversation()).messages).toHaveLength(10);
		});
		const { messages } = await conversation();
		expect(messages.map(({ text }) => text)).toEqual(
			["One", "Two", "Three", "Four", "Five"].flatMap((one) => [one, "Yes."]),
		);
		// Each knows those before it.
		expect(requests().at(-1)).toEqual(
			requestAfter(
				...messages
					.slice(0, -1)
					.map(({ role, text }): [string, string] => [role, text]),
			),
		);
	});

	it("of a page that has gone away give up their places", async () => {
		answerForever("Hel");
		const first = await say("Zero");
		const page = await open();
		for (const text of ["One", "Two", "Three", "Four", "Five", "Six"]) {
			page.send(text);
		}
		await page.gets({ type: "error" });
		await page.close();
		const next = say("Hi");
		// It has its place once another one has, too.
		const other = await open();
		other.send("And I?");
		answerText("Yes.");
		await first.body?.cancel();
		expect(await (await next).text()).toContain("Yes.");
		await other.gets({ type: "done" });
		expect(requests()).toHaveLength(2);
	});

	it("of other agents do not wait for them", async () => {
		answerForever("Hel");
		const first = await say("Hi");
		answerText("Yes.");
		const other = await say("Hi", "/agents/ai-agent/bob");
		expect(await other.text()).toContain("Yes.");
		await first.body?.cancel();
	});
});

//% if "rate-limit" in features
describe("messages over a connection", () => {
	it("are limited by the address that opened it, and tell when to go on", async () => {
		const page = await open();
		const full = new Set<string>();
		const limit = vi
			.spyOn(env.RATE_LIMITER, "limit")
			.mockImplementation(async ({ key = "" }) => ({
				success: !full.has(key),
			}));
		answerText("Hello!");
		expect(await page.call("chat", "Hi")).toMatchObject({ success: true });
		await evictDurableObject(env.AiAgent.getByName("ada"), {
			webSockets: "hibernate",
		});
		full.add("address unknown");
		expect(await page.call("chat", "Hi")).toMatchObject({
			success: false,
			error: expect.stringContaining("rate_limited: "),
		});
		page.send("plain text");
		await page.gets({
			type: "error",
			error: { code: "rate_limited", message: expect.any(String) },
		});
		expect(limit.mock.calls).toEqual(
			Array(3).fill([{ key: "address unknown" }]),
		);
		expect(requests()).toHaveLength(1);
	});

	it.each([
		["setTitle", "Tea"],
		["clear"],
		["addReminder", { text: "Tea", when: { delaySeconds: 60 } }],
		["listReminders"],
		["cancelReminder", "none"],
		//% if "workflows" in features
		["startWorkflow", "ada@example.com"],
		//% endif
	])("are limited where they call %s", async (method, ...args) => {
		const page = await open();
		const limit = vi
			.spyOn(env.RATE_LIMITER, "limit")
			.mockResolvedValue({ success: false });
		expect(await page.call(method, ...args)).toMatchObject({
			success: false,
			error: expect.stringContaining("rate_limited: "),
		});
		expect(limit.mock.calls).toEqual([[{ key: "address unknown" }]]);
	});

	it("count once where they come by HTTP", async () => {
		const limit = vi.spyOn(env.RATE_LIMITER, "limit");
		answerText("Hello!");
		await (await say("Hi")).text();
		await request(ADA, { method: "DELETE", headers: OPERATOR });
		expect(limit.mock.calls).toEqual(
			Array(2).fill([{ key: "address unknown" }]),
		);
	});
});

//% endif
describe("what a protocol's frame is", () => {
	const frames = [
		{ type: "rpc" },
		{ type: "cf_agent_state" },
		{ type: "cf_agent_stream_resume_request", id: "x" },
	];

	it.each(frames)("the model never sees: %j", async (frame) => {
		answerText("Yes.");
		const page = await open();
		page.send(frame);
		page.send("Hi");
		await page.gets({ type: "done" });
		expect(requests()).toEqual([requestAfter(["user", "Hi"])]);
	});

	it.each(['{"type":7}', '{"a":1}', '"type"', "null", "{"])(
		"%s is not",
		async (text) => {
			answerText("Yes.");
			const page = await open();
			page.send(text);
			await page.gets({ type: "done" });
			expect(requests()).toEqual([requestAfter(["user", text])]);
		},
	);
});

describe("a conversation that is cleared", () => {
	it("is empty on all pages, and keeps its title and its reminders", async () => {
		answerText("Hello!");
		const page = await open();
		await page.call("setTitle", "Plans");
		const when = { delaySeconds: 60 };
		await page.call("addReminder", { text: "Tea", when });
		await page.call("chat", "Hi");
		const init = { method: "DELETE", headers: OPERATOR };
		const response = await request(ADA, init);
		expect(response.status).toBe(204);
		await page.gets({ type: "cleared" });
		expect(await conversation()).toMatchObject({
			state: { title: "Plans", lastMessageAt: null },
			messages: [],
		});
		const { result } = await page.call("listReminders");
		expect(result).toHaveLength(1);
		await page.call("chat", "Hello");
		expect(requests().at(-1)).toEqual(requestAfter(["user", "Hello"]));
	});

	class Clearing extends AiAgent {
		async clearInTheMiddle(): Promise<void> {
			const pieces = this.reply("Hi");
			await pieces.next();
			await this.clear();
			for await (const _ of pieces) {
				// The rest of the reply.
			}
		}
	}

	it("does not keep a turn that still runs", async () => {
		answerText("Hel", "lo!");
		await conversation();
		await runInDurableObject(env.AiAgent.getByName("ada"), (agent: unknown) =>
			Clearing.prototype.clearInTheMiddle.call(agent as Clearing),
		);
		expect((await conversation()).messages).toEqual([]);
		await (await say("Hello")).text();
		expect((await conversation()).messages).toHaveLength(2);
	});

	it("may be so by any page, and by nobody without a right", async () => {
		answerText("Hello!");
		const page = await open();
		await page.call("chat", "Hi");
		expect((await request(ADA, { method: "DELETE" })).status).toBe(401);
		expect((await conversation()).messages).toHaveLength(2);
		expect(await page.call("clear")).toMatchObject({ success: true });
		expect((await conversation()).messages).toEqual([]);
	});
});

describe("a note", () => {
	class Noting extends AiAgent {
		note(text: string): void {
			this.addNote(text);
		}
	}

	it("is shown, and no part of what the model gets", async () => {
		answerText("Yes.");
		const page = await open();
		await runInDurableObject(env.AiAgent.getByName("ada"), (agent) => {
			const noting: unknown = agent;
			Noting.prototype.note.call(noting as Noting, "The case was closed.");
		});
		const note = { role: "note", text: "The case was closed." };
		await page.gets({
			type: "messages",
			messages: [expect.objectContaining(note)],
		});
		await page.call("chat", "Hi");
		expect(requests()).toEqual([requestAfter(["user", "Hi"])]);
	});
});

describe("an agent that fails", () => {
	it("tells its clients nothing of how, and the logs which one it is", async () => {
		await conversation();
		await runInDurableObject(env.AiAgent.getByName("ada"), (_, { storage }) =>
			storage.sql.exec("DROP TABLE messages"),
		);
		const response = await request(ADA, { headers: OPERATOR });
		expect(response.status).toBe(500);
		expect(await response.json()).toEqual({
			error: {
				code: "internal_error",
				message: expect.any(String),
				requestId: response.headers.get("X-Request-Id"),
			},
		});
		const { webSocket } = await upgrade(`?ticket=${await newTicket()}`);
		const frames: unknown[] = [];
		webSocket?.addEventListener("message", ({ data }) => {
			frames.push(data);
		});
		const closed = new Promise<CloseEvent>((resolve) => {
			webSocket?.addEventListener("close", resolve);
		});
		webSocket?.accept();
		expect((await closed).code).toBe(1011);
		expect(frames.join()).not.toMatch(/SQL|messages|stack/);
		const line = {
			level: "error",
			message: "Agent failed",
			agent: "ada",
			class: "AiAgent",
			error: { message: expect.stringContaining("messages") },
		};
		const failures = loggedErrors().filter(({ agent }) => agent === "ada");
		expect(failures).toMatchObject([line, line]);
	});

	it("tells who calls it nothing of how", async () => {
		const page = await open();
		await runInDurableObject(env.AiAgent.getByName("ada"), (_, { storage }) =>
			storage.sql.exec("DROP TABLE messages"),
		);
		const error = "internal_error: Something went wrong.";
		expect(await page.call("clear")).toMatchObject({ error });
		expect(await page.call("chat", "Hi")).toMatchObject({ error });
		page.send("Hi");
		await page.gets({
			type: "error",
			error: { code: "internal_error", message: "Something went wrong." },
		});
		expect(loggedErrors()).toMatchObject([
			{ message: "Agent failed", agent: "ada" },
			{ message: "Agent failed", agent: "ada" },
			{ message: "Agent failed", agent: "ada" },
		]);
	});
});

describe("a call that makes others", () => {
	//% if "rate-limit" in features
	it("counts once", async () => {
		const page = await open();
		await runInDurableObject(env.AiAgent.getByName("ada"), (agent) => {
			vi.spyOn(agent, "cancelSchedule").mockImplementation(async () => {
				await agent.setTitle("Tea");
				for await (const piece of Object(agent).reply("Hi")) {
					expect(piece).toBe("Hello!");
				}
				return true;
			});
		});
		const limit = vi.spyOn(env.RATE_LIMITER, "limit");
		answerText("Hello!");
		expect(await page.call("cancelReminder", "id")).toMatchObject({
			success: true,
		});
		expect(limit.mock.calls).toEqual([[{ key: "address unknown" }]]);
		expect((await conversation()).messages).toHaveLength(2);
	});

	//% endif
	it("by a route of one's own says what it refuses", async () => {
		const agent = await getAgentByName(env.AiAgent, "ada");
		const refused = await agent.setTitle("a".repeat(101)).catch(String);
		expect(refused).toMatch(/^Error: invalid_arguments: /);
		await agent.setTitle("Tea");
		expect((await conversation()).state.title).toBe("Tea");
	});

	it("tells its client what one of them refuses", async () => {
		const page = await open();
		await runInDurableObject(env.AiAgent.getByName("ada"), (agent) => {
			// As in a method of yours.
			vi.spyOn(agent, "cancelSchedule").mockImplementation(async () => {
				await agent.setTitle("a".repeat(101));
				return true;
			});
		});
		expect(await page.call("cancelReminder", "id")).toMatchObject({
			success: false,
			error: expect.stringMatching(/^invalid_arguments: /),
		});
		expect(loggedErrors()).toEqual([]);
	});
});

describe("pages of one agent", () => {
	it("show each other's messages", async () => {
		answerText("Hel", "lo!");
		const [ada, bob] = [await open(), await open()];
		await ada.call("chat", "Hi");
		for (const page of [ada, bob]) {
			await page.gets({
				type: "messages",
				messages: [
					expect.objectContaining({ role: "user", text: "Hi" }),
					expect.objectContaining({ role: "assistant", text: "Hello!" }),
				],
			});
		}
		const late = await open();
		expect(late.frames.at(-1)).toMatchObject({
			type: "messages",
			messages: [{ text: "Hi" }, { text: "Hello!" }],
		});
	});

	it("get a reply in pieces, by call and by plain text", async () => {
		answerText("Hel", "lo!");
		const page = await open();
		await page.call("chat", "Hi");
		await page.gets({ type: "rpc", done: false, result: "Hel" });
		await page.gets({ type: "rpc", done: false, result: "lo!" });
		page.send("Hi");
		await page.gets({ type: "done" });
		expect(page.frames.filter(({ type }) => type === "piece")).toEqual([
			{ type: "piece", text: "Hel" },
			{ type: "piece", text: "lo!" },
		]);
	});

	it("share a title that any of them may set", async () => {
		const [ada, bob] = [await open(), await open()];
		const title = "x".repeat(100);
		expect(await ada.call("setTitle", ` ${title} `)).toMatchObject({
			success: true,
		});
		const { state } = await conversation();
		expect(state).toMatchObject({ title });
		await bob.gets({ type: "cf_agent_state", state });
		for (const other of [`${title}x`, 7, null]) {
			expect(await ada.call("setTitle", other)).toMatchObject({
				success: false,
				error: expect.stringMatching(/^invalid_arguments: \w/),
			});
		}
		expect((await conversation()).state).toEqual(state);
	});

	it("may change it in the state as well", async () => {
		const [ada, bob] = [await open(), await open()];
		const { state } = await conversation();
		ada.send({ type: "cf_agent_state", state: { ...state, title: "Plans" } });
		await bob.gets({
			type: "cf_agent_state",
			state: { ...state, title: "Plans" },
		});
		expect((await conversation()).state).toEqual({ ...state, title: "Plans" });
	});

	const forbidden = [
		{ title: 7 },
		{ title: "x".repeat(101) },
		{ lastMessageAt: "2026-01-01T00:00:00.000Z" },
		{ more: 1 },
		null,
	];

	it.each(forbidden)("may not change the state by %j", async (change) => {
		const { state } = await conversation();
		const page = await open();
		const next = change && { ...state, ...change };
		page.send({ type: "cf_agent_state", state: next });
		await page.gets({ type: "cf_agent_state_error" });
		expect((await conversation()).state).toEqual(state);
	});

	const uncallable: [string, ...unknown[]][] = [
		["setState", { title: "Mine" }],
		["useTicket", "id", Date.now() + 1000],
		["deliverReminder", { text: "Tea" }, { id: "id", time: 1 }],
		["addNote", "Tea"],
		["reply", "Hi"],
		["tools"],
		["destroy"],
	];

	it.each(uncallable)("cannot call %s", async (method, ...args) => {
		const page = await open();
		expect(await page.call(method, ...args)).toMatchObject({
			success: false,
			error: `Method ${method} is not callable`,
		});
		expect((await conversation()).messages).toEqual([]);
	});
});

describe("reminders", () => {
	const NOW = Date.parse("2036-11-22T10:00:30Z");

	/** Runs the alarm at a time, in seconds from the start. */
	async function runAt(seconds: number): Promise<void> {
		vi.setSystemTime(NOW + seconds * 1000);
		await runDurableObjectAlarm(env.AiAgent.getByName("ada"));
	}

	async function texts(): Promise<string[]> {
		return (await conversation()).messages.map(({ text }) => text);
	}

	beforeEach(() => {
		vi.useFakeTimers({ now: NOW, toFake: ["Date"] });
	});

	const ways = [
		["delayed", { delaySeconds: 90 }, 90],
		["scheduled", { date: "2036-11-22T12:00:30+01:00" }, 3600],
		["cron", { cron: "5 10 * * *" }, 270],
		["interval", { everySeconds: 60 }, 60],
	] as const;

	it.each(ways)(
		"of type %s are listed and fire when due",
		async (type, when, seconds) => {
			const page = await open();
			const added = await page.call("addReminder", { text: "Tea", when });
			const reminder = {
				id: expect.any(String),
				type,
				text: "Tea",
				next: new Date(NOW + seconds * 1000).toISOString(),
			};
			expect(added).toMatchObject({ success: true, result: reminder });
			const listed = await page.call("listReminders");
			expect(listed).toMatchObject({ result: [reminder] });

			await runAt(seconds);
			await page.gets({
				type: "messages",
				messages: [expect.objectContaining({ role: "reminder", text: "Tea" })],
			});
			const isRepeated = type === "cron" || type === "interval";
			const { result } = await page.call("listReminders");
			expect(result).toHaveLength(isRepeated ? 1 : 0);
		},
	);

	it("that repeat fire again and again, and are there once", async () => {
		const page = await open();
		const reminder = { text: "Tea", when: { everySeconds: 60 } };
		await page.call("addReminder", reminder);
		await page.call("addReminder", reminder);
		await runAt(60);
		await runAt(120);
		expect(await texts()).toEqual(["Tea", "Tea"]);
	});

	it("are cancelled", async () => {
		const page = await open();
		const when = { delaySeconds: 60 };
		const { result } = await page.call("addReminder", { text: "Tea", when });
		const { id } = result as { id: string };
		expect(await page.call("cancelReminder", id)).toMatchObject({
			result: true,
		});
		expect(await page.call("cancelReminder", id)).toMatchObject({
			result: false,
		});
		await runAt(60);
		expect(await texts()).toEqual([]);
	});

	it("outlive an eviction", async () => {
		const page = await open();
		const when = { delaySeconds: 60 };
		await page.call("addReminder", { text: "Tea", when });
		await evictDurableObject(env.AiAgent.getByName("ada"), {
			webSockets: "hibernate",
		});
		await runAt(60);
		expect(await texts()).toEqual(["Tea"]);
	});

	it("that run twice for one time arrive once", async () => {
		const agent = env.AiAgent.getByName("ada");
		const schedule = {
			id: "one",
			type: "delayed",
			callback: "deliverReminder",
			payload: "",
			delayInSeconds: 1,
		} as const;
		for (const time of [1, 1, 2]) {
			await agent.deliverReminder({ text: "Tea" }, { ...schedule, time });
		}
		expect(await texts()).toEqual(["Tea", "Tea"]);
	});

	it("are no part of what the model gets", async () => {
		answerText("Yes.");
		const page = await open();
		await page.call("addReminder", { text: "Tea", when: { delaySeconds: 1 } });
		await runAt(1);
		await page.call("chat", "Hi");
		expect(requests()).toEqual([requestAfter(["user", "Hi"])]);
	});

	it("number at most 100", async () => {
		const page = await open();
		for (let n = 1; n <= 100; n++) {
			const when = { delaySeconds: n };
			await page.call("addReminder", { text: "Tea", when });
		}
		const when = { delaySeconds: 60 };
		expect(await page.call("addReminder", { text: "Tea", when })).toMatchObject(
			{
				success: false,
				error: expect.stringMatching(/^too_many_reminders: /),
			},
		);
	});

	const YEAR = 365 * 24 * 60 * 60;
	const IN_A_YEAR = new Date(NOW + YEAR * 1000).toISOString();
	const LATER = new Date(NOW + (YEAR + 1) * 1000).toISOString();
	const longReminders = [
		{ text: "x".repeat(500), when: { delaySeconds: YEAR } },
		{ text: "Tea", when: { date: IN_A_YEAR } },
		{ text: "Tea", when: { everySeconds: 30 * 24 * 60 * 60 } },
	];

	it.each(longReminders)("may be %j", async (reminder) => {
		const page = await open();
		expect(await page.call("addReminder", reminder)).toMatchObject({
			success: true,
		});
	});

	const badReminders = [
		{},
		{ text: "Tea" },
		{ text: "", when: { delaySeconds: 1 } },
		{ text: "Tea", when: {} },
		{ text: "Tea", when: { delaySeconds: 0 } },
		{ text: "Tea", when: { delaySeconds: 1, everySeconds: 60 } },
		{ text: "x".repeat(501), when: { delaySeconds: 1 } },
		{ text: "Tea", when: { delaySeconds: YEAR + 1 } },
		{ text: "Tea", when: { everySeconds: 59 } },
		{ text: "Tea", when: { everySeconds: 30 * 24 * 60 * 60 + 1 } },
		{ text: "Tea", when: { date: LATER } },
		{ text: "Tea", when: { date: "tomorrow" } },
		{ text: "Tea", when: { date: "2036-11-22T10:00:30Z" } },
		{ text: "Tea", when: { cron: "* * * * * *" } },
		{ text: "Tea", when: { cron: "61 * * * *" } },
		{ text: "Tea", when: { cron: "0 0 31 2 *" } },
	];

	it.each(badReminders)("cannot be %j", async (reminder) => {
		const page = await open();
		expect(await page.call("addReminder", reminder)).toMatchObject({
			success: false,
			error: expect.stringMatching(/^invalid_arguments: \w/),
		});
		expect(await page.call("listReminders")).toMatchObject({ result: [] });
	});
});

//% if "workflows" in features
describe("a Workflow", () => {
	it("is started, and its id is in the state", async () => {
		const page = await open();
		const { result } = await page.call("startWorkflow", "ada@example.com");
		expect((await conversation()).state).toMatchObject({ workflowId: result });
		const instance = await env.MY_WORKFLOW.get(String(result));
		expect(await instance.status()).toMatchObject({
			status: expect.stringMatching(/queued|running/),
		});
	});

	it("is not started for what is no e-mail address", async () => {
		const page = await open();
		expect(await page.call("startWorkflow", "ada")).toMatchObject({
			success: false,
		});
		expect((await conversation()).state).toMatchObject({ workflowId: null });
	});
});

//% endif
/** Makes a ticket for ada as who knows an API token could. */
async function forgeTicket(token: string): Promise<string> {
	const bytes = (text: string) => new TextEncoder().encode(text);
	const info = bytes("agents ticket");
	const key = await crypto.subtle.deriveKey(
		{ name: "HKDF", hash: "SHA-256", salt: bytes(""), info },
		await crypto.subtle.importKey("raw", bytes(token), "HKDF", false, [
			"deriveKey",
		]),
		{ name: "HMAC", hash: "SHA-256", length: 256 },
		false,
		["sign"],
	);
	const [expires, id] = [Date.now() + 1000, crypto.randomUUID().slice(0, 22)];
	const signed = bytes(`ai-agent/ada ${expires} ${id}`);
	const signature = await crypto.subtle.sign("HMAC", key, signed);
	const text = new Uint8Array(signature).toBase64({
		alphabet: "base64url",
		omitPadding: true,
	});
	return `${expires}.${id}.${text}`;
}

describe("tickets", () => {
	it("are made for the operator only", async () => {
		const made = await request(`${ADA}/ticket`, {
			method: "POST",
			headers: OPERATOR,
		});
		expect(made.status).toBe(201);
		expect(await made.json()).toEqual({ ticket: expect.any(String) });
		const refused = await request(`${ADA}/ticket`, { method: "POST" });
		expect(refused.status).toBe(401);
	});

	it("open one WebSocket, not a second", async () => {
		const query = `?ticket=${await newTicket()}`;
		const first = await upgrade(query);
		expect(first.status).toBe(101);
		first.webSocket?.accept();
		expect((await upgrade(query)).status).toBe(401);
	});

	it("open one WebSocket when they come many times at once", async () => {
		const query = `?ticket=${await newTicket()}`;
		const all = await Promise.all(
			Array.from({ length: 5 }, () => upgrade(query)),
		);
		for (const { webSocket } of all) {
			webSocket?.accept();
		}
		expect(all.map(({ status }) => status).sort()).toEqual([
			101, 401, 401, 401, 401,
		]);
	});

	it("stay used after the object left memory", async () => {
		const query = `?ticket=${await newTicket()}`;
		(await upgrade(query)).webSocket?.accept();
		await evictDurableObject(env.AiAgent.getByName("ada"), {
			webSockets: "close",
		});
		expect((await upgrade(query)).status).toBe(401);
	});

	it("fit one name only", async () => {
		const query = `?ticket=${await newTicket()}`;
		const other = await upgrade(query, {}, "/agents/ai-agent/bob");
		expect(other.status).toBe(401);
		const own = await upgrade(query);
		expect(own.status).toBe(101);
		own.webSocket?.accept();
	});

	it("expire after 60 seconds", async () => {
		const start = Date.now();
		vi.useFakeTimers({ now: start, toFake: ["Date"] });
		const [ticket, other] = [await newTicket(), await newTicket()];
		vi.setSystemTime(start + 60_000);
		const good = await upgrade(`?ticket=${ticket}`);
		expect(good.status).toBe(101);
		good.webSocket?.accept();
		vi.setSystemTime(start + 60_001);
		expect((await upgrade(`?ticket=${other}`)).status).toBe(401);
		// Those that were used are forgotten then.
		const later = await upgrade(`?ticket=${await newTicket()}`);
		later.webSocket?.accept();
		const used = await runInDurableObject(
			env.AiAgent.getByName("ada"),
			(_, { storage }) =>
				storage.sql.exec("SELECT id FROM used_tickets").toArray(),
		);
		expect(used).toHaveLength(1);
	});

	it("are of no use when they expire on their way to the agent", async () => {
		const used = await runInDurableObject(
			env.AiAgent.getByName("ada"),
			(agent) => agent.useTicket("id", Date.now() - 1),
		);
		expect(used).toBe(false);
	});

	it("open no request but an upgrade", async () => {
		const ticket = await newTicket();
		expect((await request(`${ADA}?ticket=${ticket}`)).status).toBe(401);
		const post = await request(`${ADA}?ticket=${ticket}`, { method: "POST" });
		expect(post.status).toBe(401);
	});

	it("that are changed in any part are refused", async () => {
		const [expires = "", id = "", signature = ""] = (await newTicket()).split(
			".",
		);
		const changed = [
			`${Number(expires) + 1000}.${id}.${signature}`,
			`${expires}.${"A".repeat(22)}.${signature}`,
			`${expires}.${id}.${"A".repeat(43)}`,
			`${expires}.${id}`,
			"",
		];
		for (const ticket of changed) {
			expect((await upgrade(`?ticket=${ticket}`)).status).toBe(401);
		}
	});

	it("are signed with the API token, and with none there are none", async () => {
		const good = await upgrade(`?ticket=${await forgeTicket(TOKEN)}`);
		expect(good.status).toBe(101);
		good.webSocket?.accept();
		for (const other of ["another", ""]) {
			env.API_TOKEN = other;
			const ticket = await forgeTicket(other ? TOKEN : "");
			const response = await upgrade(`?ticket=${ticket}`);
			expect(response.status).toBe(401);
		}
	});
});

describe("an upgrade", () => {
	it("opens with the operator's token too", async () => {
		const response = await upgrade("", OPERATOR);
		expect(response.status).toBe(101);
		response.webSocket?.accept();
		expect((await upgrade()).status).toBe(401);
	});

	it("from a foreign page is refused and spends no ticket", async () => {
		const query = `?ticket=${await newTicket()}`;
		const Origin = "https://other.example";
		expect((await upgrade(query, { Origin })).status).toBe(403);
		env.ALLOWED_ORIGINS = Origin;
		const allowed = await upgrade(query, { Origin });
		expect(allowed.status).toBe(101);
		allowed.webSocket?.accept();
	});
});

describe("the agents route", () => {
	const others = [
		"/agents",
		"/agents/ai-agent",
		"/agents/ai-agent/",
		"/agents/AiAgent/ada",
		"/agents/chat-room/lobby",
		"/agents/reminder/ada",
		"/agents/none/ada",
		"/agents//ai-agent/ada",
		"/agents/ai-agent/ada/messages",
		"/agents/ai-agent/ada/sub/ai-agent/bob",
		"/agents/%61i-agent%2Fada",
		"//agents/chat-room/lobby",
	];

	it.each(others)("does not reach %s", async (path) => {
		const plain = await request(path, { headers: OPERATOR });
		expect(plain.status).toBe(404);
		expect(await plain.json()).toEqual({
			error: { code: "not_found", message: expect.any(String) },
		});
		expect((await upgrade("", OPERATOR, path)).status).toBe(404);
	});

	const badNames = ["a b", "ü", "a".repeat(65), "a.b", "a/b", "..", "a?b"];

	it.each(badNames)("takes no agent named %j", async (name) => {
		const path = `/agents/ai-agent/${encodeURIComponent(name)}`;
		const expected = name === ".." ? 404 : 400;
		expect((await request(path, { headers: OPERATOR })).status).toBe(expected);
		expect((await upgrade("", OPERATOR, path)).status).toBe(expected);
	});

	it("passes on nothing that steers the library", async () => {
		const query = "?_pk=chosen&__agents_transport=capnweb";
		const { webSocket } = await upgrade(query, {
			...OPERATOR,
			"X-Agents-Lifecycle-Props": btoa('{"chosen":true}'),
			"X-Cf-Agents-Subagent-Url": `${SITE}${ADA}/sub/ai-agent/bob`,
		});
		const frames: unknown[] = [];
		webSocket?.addEventListener("message", ({ data }) => {
			frames.push(JSON.parse(String(data)));
		});
		webSocket?.accept();
		await vi.waitFor(() => {
			expect(frames).toContainEqual({ type: "messages", messages: [] });
		});
		// One that is steered says who it is before it hands on.
		expect(frames[0]).toMatchObject({ type: "cf_agent_identity", name: "ada" });
	});

	it("lets nobody but the operator in", async () => {
		expect((await request(ADA)).status).toBe(401);
		expect((await request(ADA, { method: "POST" })).status).toBe(401);
	});
});
