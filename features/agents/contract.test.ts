import {
	evictDurableObject,
	reset,
	runDurableObjectAlarm,
	runInDurableObject,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { sign } from "hono/jwt";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
	answer,
	answerTool,
	asked,
	failWith,
} from "../../providers/workers-ai/test/provider";

const TOKEN = env.API_TOKEN;
const OPERATOR = { Authorization: `Bearer ${TOKEN}` };
const ADA = "/agents/ai-agent/ada";
const MINUTE = 60_000;

type Frame = Record<string, unknown>;
type Conversation = {
	state: Frame;
	messages: { role: string; text: string }[];
};

const log = vi.fn();

beforeEach(() => {
	log.mockReset();
	vi.spyOn(console, "error").mockImplementation(log);
});

afterEach(async () => {
	vi.useRealTimers();
	vi.restoreAllMocks();
	env.ALLOWED_ORIGINS = "";
	env.API_TOKEN = TOKEN;
	await reset();
});

const agent = () => env.AiAgent.getByName("ada");

function request(
	path: string,
	headers: Record<string, string> = OPERATOR,
	init: RequestInit = {},
): Promise<Response> {
	const url = `https://example.com${path}`;
	return exports.default.fetch(new Request(url, { ...init, headers }));
}

function say(message: string, path = ADA): Promise<Response> {
	const headers = { ...OPERATOR, "Content-Type": "application/json" };
	const body = JSON.stringify({ message });
	return request(path, headers, { method: "POST", body });
}

async function conversation(): Promise<Conversation> {
	return (await request(ADA)).json<Conversation>();
}

async function newTicket(): Promise<string> {
	const made = await request(`${ADA}/ticket`, OPERATOR, { method: "POST" });
	return (await made.json<{ ticket: string }>()).ticket;
}

function upgrade(
	query = "",
	headers: Record<string, string> = {},
	path = ADA,
): Promise<Response> {
	return request(path + query, { Upgrade: "websocket", ...headers });
}

/** Tells how upgrades end that come at once; those that succeed are closed. */
async function statuses(...upgrades: Promise<Response>[]): Promise<number[]> {
	const responses = await Promise.all(upgrades);
	for (const { webSocket } of responses) {
		webSocket?.accept();
		webSocket?.close();
	}
	return responses.map(({ status }) => status).sort();
}

/** A page of ada, and all that it was sent so far. */
async function open(headers: Record<string, string> = OPERATOR, query = "") {
	const { webSocket } = await upgrade(query, headers);
	if (!webSocket) {
		throw new Error("no WebSocket");
	}
	const frames: Frame[] = [];
	webSocket.addEventListener("message", ({ data }) => {
		frames.push(JSON.parse(String(data)));
	});
	webSocket.accept();
	const gets = (like: Frame) =>
		vi.waitFor(() => {
			const found = frames.find((frame) =>
				expect.objectContaining(like).asymmetricMatch(frame),
			);
			expect(found, JSON.stringify(frames)).toBeDefined();
			return found as Frame;
		});
	const call = (method: string, ...args: unknown[]) => {
		const id = crypto.randomUUID();
		webSocket.send(JSON.stringify({ type: "rpc", id, method, args }));
		return gets({ type: "rpc", id });
	};
	await gets({ type: "messages" });
	return { webSocket, frames, gets, call };
}

/** Fills ada's conversation behind her back. */
async function fill(count: number, role: string, text: string): Promise<void> {
	await conversation();
	await runInDurableObject(agent(), (_, { storage }) => {
		for (let n = 0; n < count; n++) {
			const insert = "INSERT INTO messages (role, text, at) VALUES (?, ?, '')";
			storage.sql.exec(insert, role, `${text} ${n}`);
		}
	});
}

describe("a route", () => {
	const others = [
		"/agents",
		"/agents/ai-agent",
		"/agents/ai-agent/",
		"/agents/AiAgent/ada",
		"/agents/chat-room/lobby",
		"/agents//ai-agent/ada",
		"/agents/ai-agent/ada/messages",
		"/agents/ai-agent/ada/sub/ai-agent/bob",
		"/agents/%61i-agent%2Fada",
		"//agents/chat-room/lobby",
		"/agents/ai-agent/../chat-room/lobby",
	];

	it.each(others)("is not %s", async (path) => {
		expect((await request(path)).status).toBe(404);
		expect((await upgrade("", OPERATOR, path)).status).toBe(404);
	});

	it.each(["a b", "ü", "a".repeat(65), "a.b", "a/b", "a?b"])(
		"takes no name like %j",
		async (name) => {
			const path = `/agents/ai-agent/${encodeURIComponent(name)}`;
			expect((await request(path)).status).toBe(400);
			expect((await upgrade("", OPERATOR, path)).status).toBe(400);
			const init = { method: "POST" };
			expect((await request(`${path}/ticket`, OPERATOR, init)).status).toBe(
				400,
			);
		},
	);

	it.each([
		["GET", ADA],
		["POST", ADA],
		["DELETE", ADA],
		["POST", `${ADA}/ticket`],
	])("is locked: %s %s", async (method, path) => {
		expect((await request(path, {}, { method })).status).toBe(401);
	});

	it("opens a WebSocket to the operator, but to no foreign page", async () => {
		expect(await statuses(upgrade("", OPERATOR), upgrade())).toEqual([
			101, 401,
		]);
		const query = `?ticket=${await newTicket()}`;
		const Origin = "https://other.example";
		expect(await statuses(upgrade(query, { Origin }))).toEqual([403]);
		expect(await statuses(upgrade("", { Origin, ...OPERATOR }))).toEqual([403]);
		env.ALLOWED_ORIGINS = Origin;
		expect(await statuses(upgrade(query, { Origin }))).toEqual([101]);
	});

	it("passes on nothing that steers the library", async () => {
		const query = "?_pk=chosen&__agents_transport=capnweb";
		const { frames } = await open(
			{
				...OPERATOR,
				"X-Agents-Lifecycle-Props": btoa('{"chosen":true}'),
				"X-Cf-Agents-Subagent-Url": `https://example.com${ADA}/sub/ai-agent/bob`,
			},
			query,
		);
		expect(frames[0]).toMatchObject({ type: "cf_agent_identity", name: "ada" });
	});
});

describe("a ticket", () => {
	it("opens one WebSocket, however many come at once or after a restart", async () => {
		const query = `?ticket=${await newTicket()}`;
		const all = Array.from({ length: 4 }, () => upgrade(query));
		expect(await statuses(...all)).toEqual([101, 401, 401, 401]);
		await evictDurableObject(agent(), { webSockets: "close" });
		expect(await statuses(upgrade(query))).toEqual([401]);
	});

	it("opens a WebSocket only", async () => {
		const query = `?ticket=${await newTicket()}`;
		for (const method of ["GET", "POST", "DELETE"]) {
			expect((await request(ADA + query, {}, { method })).status).toBe(401);
		}
	});

	it("is forgotten only after it cannot be used any more", async () => {
		vi.useFakeTimers({ toFake: ["Date"] });
		const expires = Math.floor(Date.now() / 1000) + 60;
		const use = (id: string) =>
			runInDurableObject(agent(), (agent) => agent.useTicket(id, expires));
		expect(await use("a")).toBe(true);
		vi.setSystemTime(Date.now() + MINUTE + 1000);
		expect(await use("a")).toBe(false);
		vi.setSystemTime(Date.now() + 2 * MINUTE);
		const stored = await runInDurableObject(
			agent(),
			async (agent, { storage }) => {
				agent.useTicket("b", Math.floor(Date.now() / 1000));
				return storage.sql.exec("SELECT id FROM used_tickets").toArray();
			},
		);
		expect(stored).toEqual([{ id: "b" }]);
	});

	const jti = "f3c1cf1e-0b0e-4b0c-8a7b-0d9d1d1c3c3f";
	const exp = Math.floor(Date.now() / 1000) + 3600;
	const claims = { aud: "ai-agent/ada", jti, exp };

	it("is signed with the API token", async () => {
		const forged = (token: string, more = {}) =>
			sign({ ...claims, ...more }, token, "HS256");
		const own = `?ticket=${await forged(TOKEN)}`;
		const [head, body] = own.split(".");
		const none = btoa('{"alg":"none","typ":"JWT"}').replaceAll("=", "");
		for (const ticket of [
			await forged("another"),
			await forged(TOKEN, { aud: "ai-agent/bob" }),
			await forged(TOKEN, { aud: undefined }),
			await forged(TOKEN, { exp: exp - 4000 }),
			await sign(claims, TOKEN, "HS512"),
			`${none}.${body}.`,
			"a.b.c",
			"",
		]) {
			expect(await statuses(upgrade(`?ticket=${ticket}`)), ticket).toEqual([
				401,
			]);
		}
		expect(head).toBeDefined();
		expect(await statuses(upgrade(own))).toEqual([101]);
	});

	it("opens nothing without an API token", async () => {
		const key = await crypto.subtle.importKey(
			"raw",
			new Uint8Array(1),
			{ name: "HMAC", hash: "SHA-256" },
			false,
			["sign"],
		);
		const encoded = [{ alg: "HS256", typ: "JWT" }, claims]
			.map((part) => btoa(JSON.stringify(part)).replaceAll("=", ""))
			.join(".");
		// A key of zeros is the same as an empty one.
		const signature = new Uint8Array(
			await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(encoded)),
		).toBase64({ alphabet: "base64url", omitPadding: true });
		env.API_TOKEN = "";
		const query = `?ticket=${encoded}.${signature}`;
		expect(await statuses(upgrade(query))).toEqual([401]);
	});
});

describe("a turn", () => {
	it("ends, with the work of the model, when its client goes away", async () => {
		answer("Hel", new Promise<string>(() => {}));
		const response = await say("Hi");
		await response.body?.cancel();
		await vi.waitFor(() => expect(asked[0]?.signal.aborted).toBe(true));
		answer("Yes.");
		expect(await (await say("Hello")).text()).toContain("Yes.");
		expect((await conversation()).messages).toHaveLength(2);
	});

	it("over a WebSocket goes on when the page goes away", async () => {
		const { promise, resolve } = Promise.withResolvers<string>();
		answer("Hel", promise);
		const page = await open();
		page.webSocket.send("Hi");
		await page.gets({ type: "piece" });
		page.webSocket.close();
		resolve("lo!");
		await vi.waitFor(async () => {
			expect((await conversation()).messages.at(-1)?.text).toBe("Hello!");
		});
	});

	it("comes in the order of the messages, and knows those before", async () => {
		const { promise, resolve } = Promise.withResolvers<string>();
		answer(promise);
		const page = await open();
		for (let n = 0; n <= 6; n++) {
			page.webSocket.send(`message ${n}`);
		}
		const busy = { code: "agent_busy", message: expect.any(String) };
		await page.gets({ type: "error", error: busy });
		resolve("Yes.");
		await vi.waitFor(async () => {
			expect((await conversation()).messages).toHaveLength(12);
		});
		expect(asked).toHaveLength(6);
		expect(asked[5]?.body).toMatch(
			/message 0.*Yes.*message 4.*Yes.*message 5/s,
		);
		// Another agent does not wait.
		answer("Hel", new Promise<string>(() => {}));
		const first = await say("Hi");
		answer("Yes.");
		expect(await (await say("Hi", "/agents/ai-agent/bob")).text()).toContain(
			"Yes.",
		);
		await first.body?.cancel();
	});

	it("ends when the conversation is cleared, and so do those that wait", async () => {
		answer("Hel", new Promise<string>(() => {}));
		const page = await open();
		page.webSocket.send("Hi");
		page.webSocket.send("And I?");
		await page.gets({ type: "piece" });
		const cleared = await request(ADA, OPERATOR, { method: "DELETE" });
		expect(cleared.status).toBe(204);
		await page.gets({ type: "cleared" });
		await vi.waitFor(() => {
			const done = page.frames.filter(({ type }) => type === "done");
			expect(done).toHaveLength(2);
		});
		answer("Yes.");
		await (await say("Hello")).text();
		expect((await conversation()).messages).toHaveLength(2);
		expect(asked[0]?.body).not.toContain("And I?");
	});

	it("that breaks off leaves nothing behind", async () => {
		answer("Hel", Promise.reject(new Error("words of the provider")));
		const text = await (await say("Hi")).text();
		expect(text).toContain('data: {"error":{"code":"model_failed"');
		expect(text).not.toContain("words of the provider");
		const page = await open();
		page.webSocket.send("Hi");
		await page.gets({ type: "piece" });
		await page.gets({ type: "error" });
		expect((await conversation()).messages).toEqual([]);
	});
});

describe("what the model gets", () => {
	it("is the newest part that fits, from a question on", async () => {
		answer("Yes.");
		await fill(1, "user", "long ago".padEnd(9000));
		await fill(1, "assistant", "of long ago".padEnd(9000));
		await fill(1, "user", "question");
		await fill(1, "reminder", "Tea");
		await (await say("Hi")).text();
		const [sent] = asked;
		expect(sent?.body).toMatch(/You are a helpful assistant.*question 0.*Hi/s);
		expect(sent?.body).not.toMatch(/long ago|Tea/);
	});

	it("comes from the hundred newest messages, which are all that is kept", async () => {
		answer("Hello!");
		await fill(120, "user", "m");
		await (await say("Hi")).text();
		const { messages } = await conversation();
		expect(messages).toHaveLength(100);
		expect(messages[0]?.text).toBe("m 22");
	});

	it("of a tool's refusal is what is wrong", async () => {
		answerTool("remind", { text: "Tea", seconds: 1e9 }, "When?");
		expect(await (await say("Remind me")).text()).toContain("When?");
		expect(asked).toHaveLength(2);
		expect(log).not.toHaveBeenCalledWith(
			expect.stringContaining("A tool failed"),
		);
	});
});

describe("an error", () => {
	it("of the agent's is a 500 with its requestId, and tells nothing", async () => {
		const page = await open();
		await runInDurableObject(agent(), (_, { storage }) =>
			storage.sql.exec("DROP TABLE messages"),
		);
		const response = await request(ADA);
		const requestId = response.headers.get("X-Request-Id");
		expect(await response.json()).toEqual({
			error: { code: "internal_error", message: expect.any(String), requestId },
		});
		expect(response.status).toBe(500);
		page.webSocket.send("Hi");
		const message = "Something went wrong.";
		await page.gets({
			type: "error",
			error: { code: "internal_error", message },
		});
		expect(JSON.stringify(page.frames)).not.toMatch(/SQL|stack|at /);
		const joined = await upgrade("", OPERATOR);
		const frames: string[] = [];
		joined.webSocket?.addEventListener("message", ({ data }) => {
			frames.push(String(data));
		});
		joined.webSocket?.accept();
		await scheduler.wait(50);
		expect(frames.join()).not.toMatch(/SQL|stack|at /);
		const line = expect.stringMatching(
			/^{.*"The agent failed".*no such table/s,
		);
		expect(log).toHaveBeenCalledWith(line);
	});

	it("of a call is hidden too, but for what was wrong with it", async () => {
		const page = await open();
		await runInDurableObject(agent(), (agent) => {
			vi.spyOn(agent, "listSchedules").mockRejectedValue(new Error("secret"));
		});
		const hidden = { success: false, error: "Something went wrong." };
		expect(await page.call("listReminders")).toMatchObject(hidden);
		const { error } = await page.call("addReminder", { text: "Tea" });
		expect(error).toContain("seconds: ");
	});

	it.each([
		["setState", { title: "Mine" }],
		["useTicket", "id", 2e9],
		["deliverReminder", { text: "Tea" }, { id: "id" }],
		["clear"],
		["reply", "Hi"],
		["tools"],
		["destroy"],
	])("is what calls of %s get", async (method, ...args) => {
		const page = await open();
		const error = `Method ${method} is not callable`;
		expect(await page.call(method, ...args)).toMatchObject({ error });
	});

	it("is what a page gets that changes the state, except its title", async () => {
		const { state } = await conversation();
		for (const change of [
			{ title: 7 },
			{ title: "x".repeat(101) },
			{ lastMessageAt: "2026-01-01T00:00:00.000Z" },
			{ more: 1 },
			null,
		]) {
			const page = await open();
			const next = change && { ...state, ...change };
			page.webSocket.send(
				JSON.stringify({ type: "cf_agent_state", state: next }),
			);
			await page.gets({ type: "cf_agent_state_error" });
		}
		expect((await conversation()).state).toEqual(state);
	});

	it.each([
		{},
		{ text: "Tea" },
		{ text: "", seconds: 1 },
		{ text: "Tea", seconds: 0 },
		{ text: "Tea", seconds: 1.5 },
		{ text: "x".repeat(501), seconds: 1 },
		{ text: "Tea", seconds: 31_536_001 },
	])("is what a reminder gets that is %j", async (reminder) => {
		const page = await open();
		const refused = { success: false };
		expect(await page.call("addReminder", reminder)).toMatchObject(refused);
		expect(await page.call("listReminders")).toMatchObject({ result: [] });
	});
});

describe("a reminder", () => {
	it("outlives a restart and a clearing, and is there once", async () => {
		vi.useFakeTimers({ toFake: ["Date"] });
		const page = await open();
		const reminder = { text: "Tea", seconds: 60 };
		const { result } = await page.call("addReminder", reminder);
		await request(ADA, OPERATOR, { method: "DELETE" });
		await evictDurableObject(agent(), { webSockets: "hibernate" });
		vi.setSystemTime(Date.now() + MINUTE);
		await runDurableObjectAlarm(agent());
		await page.gets({
			type: "messages",
			messages: [expect.objectContaining({ role: "reminder", text: "Tea" })],
		});
		// The runtime may run an alarm twice.
		await runInDurableObject(agent(), (agent) => {
			agent.deliverReminder({ text: "Tea" }, Object({ id: result }));
		});
		expect((await conversation()).messages).toHaveLength(1);
	});
});
//% if "workflows" in features

describe("a Workflow", () => {
	it("is not started for what is not an e-mail address", async () => {
		const page = await open();
		expect(await page.call("startWorkflow", "ada")).toMatchObject({
			success: false,
			error: expect.stringContaining("email: "),
		});
	});
});
//% endif
