import { evictDurableObject, runDurableObjectAlarm } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { answer, answerTool, asked, failWith } from "./provider";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

type Frame = Record<string, unknown>;
type Conversation = { state: Frame; messages: { text: string }[] };

/** Each test has an agent of its own. */
let name = "";
let path = "";

beforeEach(() => {
	name = crypto.randomUUID();
	path = `/agents/ai-agent/${name}`;
	// The library writes what it refuses to the console, and so do failures.
	vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
	vi.useRealTimers();
	vi.restoreAllMocks();
});

function request(path: string, init: RequestInit = {}): Promise<Response> {
	const headers = { ...OPERATOR, ...init.headers };
	const url = `https://example.com${path}`;
	return exports.default.fetch(new Request(url, { ...init, headers }));
}

function say(message: unknown): Promise<Response> {
	const headers = { "Content-Type": "application/json" };
	const body = JSON.stringify({ message });
	return request(path, { method: "POST", headers, body });
}

async function conversation(): Promise<Conversation> {
	return (await request(path)).json<Conversation>();
}

async function newTicket(): Promise<string> {
	const response = await request(`${path}/ticket`, { method: "POST" });
	expect(response.status).toBe(201);
	return (await response.json<{ ticket: string }>()).ticket;
}

/** Connects as a browser does, which can set no headers. */
function connect(ticket: string, to = path): Promise<Response> {
	const headers = { Upgrade: "websocket", Authorization: "" };
	return request(`${to}?ticket=${ticket}`, { headers });
}

/** A page of the agent, and all that it was sent so far. */
async function open() {
	const webSocket = (await connect(await newTicket())).webSocket as WebSocket;
	const frames: Frame[] = [];
	webSocket.addEventListener("message", ({ data }) => {
		frames.push(JSON.parse(String(data)));
	});
	webSocket.accept();
	const send = (frame: string | object) =>
		webSocket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
	/** Waits until the page was sent something like this. */
	const gets = (like: Frame) =>
		vi.waitFor(() => {
			const found = frames.find((frame) => {
				return expect.objectContaining(like).asymmetricMatch(frame);
			});
			expect(found, JSON.stringify(frames)).toBeDefined();
			return found as Frame;
		});
	const call = (method: string, ...args: unknown[]) => {
		const id = crypto.randomUUID();
		send({ type: "rpc", id, method, args });
		return gets({ type: "rpc", id });
	};
	await gets({ type: "messages" });
	return { send, gets, call };
}

describe("a conversation", () => {
	it("streams the reply, goes on after a restart, and is cleared", async () => {
		answer("Hel", "lo!");
		expect(await (await say("Hi")).text()).toBe(
			'data: {"text":"Hel"}\n\ndata: {"text":"lo!"}\n\ndata: [DONE]\n\n',
		);
		await evictDurableObject(env.AiAgent.getByName(name));
		await (await say("And now?")).text();
		expect(asked.at(-1)?.body).toMatch(/Hi.*Hello!.*And now\?/s);
		const { messages } = await conversation();
		const texts = messages.map(({ text }) => text);
		expect(texts).toEqual(["Hi", "Hello!", "And now?", "Hello!"]);
		expect((await request(path, { method: "DELETE" })).status).toBe(204);
		expect((await conversation()).messages).toEqual([]);
	});

	it.each(["", " ", 7, undefined, "x".repeat(8001)])(
		"takes no message that is %j",
		async (message) => {
			expect((await say(message)).status).toBe(400);
		},
	);

	it("keeps nothing of a reply that fails, and tells no internals", async () => {
		failWith(429);
		const busy = await say("Hi");
		expect(busy.status).toBe(503);
		expect(busy.headers.get("Retry-After")).toMatch(/^\d+$/);
		failWith(500);
		const failed = await say("Hi");
		expect(failed.status).toBe(502);
		expect(await failed.text()).not.toContain("words of the provider");
		expect((await conversation()).messages).toEqual([]);
	});

	it("lets messages wait for their turn, up to five", async () => {
		const { promise, resolve } = Promise.withResolvers<string>();
		answer(promise);
		const replies = [1, 2, 3, 4, 5, 6, 7].map((n) => say(`Message ${n}`));
		expect((await Promise.race(replies)).status).toBe(409);
		resolve("Yes.");
		await Promise.all(replies.map(async (reply) => (await reply).text()));
		expect((await conversation()).messages).toHaveLength(12);
	});

	it("gives the model tools", async () => {
		answerTool("remind", { text: "Tea", seconds: 60 }, "I will.");
		expect(await (await say("Remind me of tea")).text()).toContain("I will.");
		expect(await env.AiAgent.getByName(name).listReminders()).toMatchObject([
			{ text: "Tea" },
		]);
	});
});

describe("a WebSocket", () => {
	it("answers plain text, and shows each page the messages of all", async () => {
		answer("Hel", "lo!");
		const [ada, bob] = [await open(), await open()];
		ada.send("Hi");
		await ada.gets({ type: "piece", text: "Hel" });
		await ada.gets({ type: "done" });
		const message = expect.objectContaining({ text: "Hello!" });
		await bob.gets({ type: "messages", messages: [message] });
		ada.send(" ");
		await ada.gets({ type: "error" });
	});

	it("may change the title in the state, and nothing else", async () => {
		const page = await open();
		const { state } = await conversation();
		page.send({
			type: "cf_agent_state",
			state: { ...state, lastMessageAt: "" },
		});
		await page.gets({ type: "cf_agent_state_error" });
		page.send({ type: "cf_agent_state", state: { ...state, title: "Plans" } });
		await vi.waitFor(async () => {
			expect((await conversation()).state).toEqual({
				...state,
				title: "Plans",
			});
		});
	});

	it("sets, lists and cancels reminders, which are delivered", async () => {
		vi.useFakeTimers({ toFake: ["Date"] });
		const page = await open();
		const [tea, nap] = [
			await page.call("addReminder", { text: "Tea", seconds: 60 }),
			await page.call("addReminder", { text: "Nap", seconds: 60 }),
		];
		expect(await page.call("cancelReminder", nap.result)).toMatchObject({
			result: true,
		});
		expect(await page.call("listReminders")).toMatchObject({
			result: [{ id: tea.result, text: "Tea", time: expect.any(Number) }],
		});
		vi.setSystemTime(Date.now() + 61_000);
		await runDurableObjectAlarm(env.AiAgent.getByName(name));
		const message = expect.objectContaining({ role: "reminder", text: "Tea" });
		await page.gets({ type: "messages", messages: [message] });
		expect(await page.call("addReminder", { text: "" })).toMatchObject({
			success: false,
		});
	});

	it("opens with a ticket: once, for one agent, within a minute", async () => {
		vi.useFakeTimers({ toFake: ["Date"] });
		const [ticket, late] = [await newTicket(), await newTicket()];
		expect((await connect(ticket, "/agents/ai-agent/bob")).status).toBe(401);
		expect((await connect(ticket)).status).toBe(101);
		expect((await connect(ticket)).status).toBe(401);
		vi.setSystemTime(Date.now() + 60_000);
		expect((await connect(late)).status).toBe(401);
		expect((await connect("")).status).toBe(401);
	});
});
