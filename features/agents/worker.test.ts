import {
	evictDurableObject,
	reset,
	runDurableObjectAlarm,
	runInDurableObject,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
	answerForever,
	answerText,
	failWith,
	requests,
	SECRET_WORDS,
	SETTING,
	textFailures,
	textRequest,
	unconfigured,
} from "../../providers/workers-ai/test/provider";

const SITE = "https://example.com";
const TOKEN = env.API_TOKEN;
const OPERATOR = { Authorization: `Bearer ${TOKEN}` };
const INSTRUCTIONS = "You are a helpful assistant. Answer briefly.";
const ADA = "/agents/ai-agent/ada";

type Frame = Record<string, unknown>;
type Message = { id: number; role: string; text: string; at: string };
type Conversation = { state: Frame; messages: Message[] };

beforeEach(() => {
	// The library writes what it refuses to the console.
	vi.spyOn(console, "error").mockImplementation(() => {});
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

	await gets({ type: "messages" });
	return { frames, gets, call, send };
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
			const error = expect.stringContaining(SETTING);
			expect(await page.call("chat", "Hi")).toMatchObject({ error });
			page.send("Hi");
			await page.gets({
				type: "error",
				error: { code: "model_not_configured", message: error },
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

describe("an agent that fails", () => {
	it("tells its clients nothing of how", async () => {
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

	it("share a title that any of them may change", async () => {
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

	it.each(["setState", "useTicket", "deliverReminder", "destroy", "nothing"])(
		"cannot call %s",
		async (method) => {
			const page = await open();
			expect(await page.call(method, {})).toMatchObject({ success: false });
		},
	);
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
			{ success: false },
		);
	});

	const badReminders = [
		{},
		{ text: "Tea" },
		{ text: "", when: { delaySeconds: 1 } },
		{ text: "Tea", when: {} },
		{ text: "Tea", when: { delaySeconds: 0 } },
		{ text: "Tea", when: { delaySeconds: 1, everySeconds: 60 } },
		{ text: "Tea", when: { everySeconds: 59 } },
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
			error: expect.any(String),
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
	const signed = bytes(`ada ${expires} ${id}`);
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
		const query = `?ticket=${await newTicket()}`;
		vi.useFakeTimers({ now: Date.now() + 61_000, toFake: ["Date"] });
		expect((await upgrade(query)).status).toBe(401);
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
