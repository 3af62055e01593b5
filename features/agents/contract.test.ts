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
} from "../../providers/workers-ai/test/provider";

const TOKEN = env.API_TOKEN;
const OPERATOR = { Authorization: `Bearer ${TOKEN}` };
const ADA = "/agents/ai-agent/ada";
const NEVER = new Promise<string>(() => {});

type Frame = Record<string, unknown>;
type Conversation = { state: Frame; messages: { text: string }[] };

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
	method = "GET",
	headers: Record<string, string> = OPERATOR,
	body: string | null = null,
): Promise<Response> {
	const url = `https://example.com${path}`;
	const init = { method, headers, body };
	return exports.default.fetch(new Request(url, init));
}

function say(message: string, path = ADA): Promise<Response> {
	const headers = { ...OPERATOR, "Content-Type": "application/json" };
	return request(path, "POST", headers, JSON.stringify({ message }));
}

async function conversation(): Promise<Conversation> {
	return (await request(ADA)).json<Conversation>();
}

async function newTicket(): Promise<string> {
	const made = await request(`${ADA}/ticket`, "POST");
	return (await made.json<{ ticket: string }>()).ticket;
}

/** Upgrades; the status, once what was opened is closed again. */
async function join(path: string, headers = {}): Promise<number> {
	const all = { Upgrade: "websocket", ...headers };
	const { status, webSocket } = await request(path, "GET", all);
	webSocket?.accept();
	webSocket?.close();
	return status;
}

/** A page of ada, and all that it was sent so far. */
async function open(path = ADA, headers = {}) {
	const all = { Upgrade: "websocket", ...OPERATOR, ...headers };
	const { webSocket } = await request(path, "GET", all);
	const frames: Frame[] = [];
	webSocket?.addEventListener("message", ({ data }) => {
		frames.push(JSON.parse(String(data)));
	});
	webSocket?.accept();
	const send = (frame: string | object) =>
		webSocket?.send(typeof frame === "string" ? frame : JSON.stringify(frame));
	const gets = (like: Frame) =>
		vi.waitFor(() => {
			const expected = expect.objectContaining(like);
			const found = frames.find((frame) => expected.asymmetricMatch(frame));
			expect(found, JSON.stringify(frames)).toBeDefined();
			return found as Frame;
		});
	const call = (method: string, ...args: unknown[]) => {
		const id = crypto.randomUUID();
		send({ type: "rpc", id, method, args });
		return gets({ type: "rpc", id });
	};
	return { webSocket, frames, send, gets, call };
}

/** Adds to ada's conversation behind her back. */
async function fill(count: number, role: string, text: string): Promise<void> {
	await conversation();
	await runInDurableObject(agent(), (_, { storage }) => {
		for (let n = 0; n < count; n++) {
			const insert = "INSERT INTO messages (role, text, at) VALUES (?, ?, '')";
			storage.sql.exec(insert, role, `${text} ${n}`);
		}
	});
}

describe("the routes", () => {
	it.each([
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
	])("do not reach %s", async (path) => {
		expect((await request(path)).status).toBe(404);
		expect(await join(path, OPERATOR)).toBe(404);
	});

	it.each(["a b", "ü", "a".repeat(65), "a.b", "a/b", "a?b"])(
		"take no name like %j",
		async (name) => {
			const path = `/agents/ai-agent/${encodeURIComponent(name)}`;
			expect((await request(path)).status).toBe(400);
			expect(await join(path, OPERATOR)).toBe(400);
			expect((await request(`${path}/ticket`, "POST")).status).toBe(400);
		},
	);

	it("are locked, whatever ticket a request has that is no upgrade", async () => {
		const query = `?ticket=${await newTicket()}`;
		for (const method of ["GET", "POST", "DELETE"]) {
			expect((await request(ADA + query, method, {})).status).toBe(401);
		}
		expect((await request(`${ADA}/ticket`, "POST", {})).status).toBe(401);
		expect(await join(ADA)).toBe(401);
		expect(await join(ADA, OPERATOR)).toBe(101);
	});

	it("connect no page of a foreign site, and then spend no ticket", async () => {
		const path = `${ADA}?ticket=${await newTicket()}`;
		const Origin = "https://other.example";
		expect(await join(path, { Origin })).toBe(403);
		expect(await join(ADA, { Origin, ...OPERATOR })).toBe(403);
		env.ALLOWED_ORIGINS = Origin;
		expect(await join(path, { Origin })).toBe(101);
	});

	it("pass on nothing that steers the library", async () => {
		const query = "?_pk=chosen&__agents_transport=capnweb";
		const page = await open(ADA + query, {
			"X-Agents-Lifecycle-Props": btoa('{"chosen":true}'),
			"X-Cf-Agents-Subagent-Url": `https://example.com${ADA}/sub/ai-agent/bob`,
		});
		await page.gets({ type: "messages" });
		const identity = { type: "cf_agent_identity", name: "ada" };
		expect(page.frames[0]).toMatchObject(identity);
	});
});

describe("a ticket", () => {
	const jti = crypto.randomUUID();
	const exp = Math.floor(Date.now() / 1000) + 3600;
	const claims = { aud: "ai-agent/ada", jti, exp };

	it("opens one WebSocket, however often it comes, and after a restart", async () => {
		const path = `${ADA}?ticket=${await newTicket()}`;
		const all = await Promise.all([1, 2, 3].map(() => join(path)));
		expect(all.sort()).toEqual([101, 401, 401]);
		await evictDurableObject(agent(), { webSockets: "close" });
		expect(await join(path)).toBe(401);
	});

	it("is forgotten, but only once nothing that is on its way has it", async () => {
		vi.useFakeTimers({ toFake: ["Date"] });
		const start = Date.now();
		const use = (id: string) =>
			runInDurableObject(agent(), (agent, { storage }) => {
				const used = agent.useTicket(id, Math.floor(start / 1000) + 60);
				const { rowsRead } = storage.sql.exec("SELECT id FROM used_tickets");
				return [used, rowsRead];
			});
		await use("a");
		vi.setSystemTime(start + 61_000);
		expect(await use("a")).toEqual([false, expect.any(Number)]);
		vi.setSystemTime(start + 122_000);
		expect(await use("a")).toEqual([true, expect.any(Number)]);
	});

	it.each([
		["signed with another token", sign(claims, "another", "HS256")],
		["signed otherwise", sign(claims, TOKEN, "HS512")],
		["for another", sign({ ...claims, aud: "ai-agent/bob" }, TOKEN, "HS256")],
		["for nobody", sign({ jti, exp }, TOKEN, "HS256")],
		["late", sign({ ...claims, exp: exp - 4000 }, TOKEN, "HS256")],
		["no ticket", "a.b.c"],
	])("opens nothing when it is %s", async (_, ticket) => {
		expect(await join(`${ADA}?ticket=${await ticket}`)).toBe(401);
	});

	it("opens nothing without an API token, with which anybody could sign", async () => {
		const path = `${ADA}?ticket=${await sign(claims, TOKEN, "HS256")}`;
		// The key of an empty token is one of zeros.
		const forged = `${ADA}?ticket=${await sign(claims, "\0", "HS256")}`;
		env.API_TOKEN = "";
		expect([await join(path), await join(forged)]).toEqual([401, 401]);
		env.API_TOKEN = TOKEN;
		expect(await join(path)).toBe(101);
	});
});

describe("a turn", () => {
	it("ends, with the work of the model, when its client goes away", async () => {
		answer("Hel", NEVER);
		await (await say("Hi")).body?.cancel();
		await vi.waitFor(() => expect(asked[0]?.signal.aborted).toBe(true), 10_000);
		answer("Yes.");
		expect(await (await say("Hello")).text()).toContain("Yes.");
		expect((await conversation()).messages).toHaveLength(2);
	});

	it("of a WebSocket is finished and kept when the page goes away", async () => {
		const { promise, resolve } = Promise.withResolvers<string>();
		answer("Hel", promise);
		const page = await open();
		page.send("Hi");
		await page.gets({ type: "piece" });
		const closed = new Promise((resolve) => {
			page.webSocket?.addEventListener("close", resolve);
		});
		page.webSocket?.close(1000);
		await closed;
		resolve("lo!");
		await vi.waitFor(async () => {
			expect((await conversation()).messages.at(-1)?.text).toBe("Hello!");
		});
	});

	it("comes after those before it, and knows them; five may wait", async () => {
		const { promise, resolve } = Promise.withResolvers<string>();
		answer(promise);
		const page = await open();
		for (let n = 0; n <= 6; n++) {
			page.send(`message ${n}`);
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
	});

	it("does not wait for another agent", async () => {
		answer("Hel", NEVER);
		const first = await say("Hi");
		answer("Yes.");
		const other = await say("Hi", "/agents/ai-agent/bob");
		expect(await other.text()).toContain("Yes.");
		await first.body?.cancel();
	});

	it("ends when the conversation is cleared, and so do those that wait", async () => {
		answer("Hel", NEVER);
		const page = await open();
		page.send("Hi");
		page.send("And I?");
		await page.gets({ type: "piece" });
		expect((await request(ADA, "DELETE")).status).toBe(204);
		await page.gets({ type: "cleared" });
		await vi.waitFor(() => {
			const done = page.frames.filter(({ type }) => type === "done");
			expect(done).toHaveLength(2);
		});
		expect(asked).toHaveLength(1);
		expect((await conversation()).messages).toEqual([]);
	});

	it("that breaks off leaves nothing behind, and tells no internals", async () => {
		const { promise, reject } = Promise.withResolvers<string>();
		answer("Hel", promise);
		const response = await say("Hi");
		reject(new Error("words of the provider"));
		const text = await response.text();
		expect(text).toContain('data: {"error":{"code":"model_failed"');
		expect(text).not.toContain("words of the provider");
		expect((await conversation()).messages).toEqual([]);
	});
});

describe("the model", () => {
	it("gets the newest part that fits, from a question on", async () => {
		answer("Yes.");
		await fill(1, "user", "long ago".padEnd(9000));
		await fill(1, "assistant", "of long ago".padEnd(9000));
		await fill(1, "user", "question");
		await fill(1, "reminder", "Tea");
		await (await say("Hi")).text();
		const body = asked[0]?.body;
		expect(body).toMatch(/You are a helpful assistant.*question 0.*Hi/s);
		expect(body).not.toMatch(/long ago|Tea/);
	});

	it("hears what a tool refuses, which is no failure", async () => {
		answerTool("remind", { text: "Tea", seconds: 1e9 }, "When?");
		expect(await (await say("Remind me")).text()).toContain("When?");
		expect(log).not.toHaveBeenCalledWith(
			expect.stringContaining("tool failed"),
		);
	});
});

describe("an agent", () => {
	it("keeps its hundred newest messages", async () => {
		answer("Hello!");
		await fill(120, "user", "m");
		await (await say("Hi")).text();
		const { messages } = await conversation();
		expect(messages).toHaveLength(100);
		expect(messages[0]?.text).toBe("m 22");
	});

	it("that fails tells its clients nothing of how", async () => {
		const page = await open();
		await page.gets({ type: "messages" });
		await runInDurableObject(agent(), (_, { storage }) =>
			storage.sql.exec("DROP TABLE messages"),
		);
		const response = await request(ADA);
		expect(response.status).toBe(500);
		const requestId = response.headers.get("X-Request-Id");
		const code = "internal_error";
		expect(await response.json()).toEqual({
			error: { code, message: expect.any(String), requestId },
		});
		page.send("Hi");
		const message = "Something went wrong.";
		await page.gets({ type: "error", error: { code, message } });
		const late = await open();
		await vi.waitFor(() => {
			expect(late.webSocket?.readyState).not.toBe(WebSocket.OPEN);
		});
		const told = JSON.stringify([...page.frames, ...late.frames]);
		expect(told).not.toMatch(/SQL|no such table|AiAgent\./);
		const line = expect.stringMatching(
			/^{.*"The agent failed".*no such table/s,
		);
		expect(log).toHaveBeenCalledWith(line);
	});

	it("tells who calls it what was wrong with the call, and no more", async () => {
		const page = await open();
		const { error } = await page.call("addReminder", { text: "Tea" });
		expect(error).toContain("seconds: ");
		await runInDurableObject(agent(), (agent) => {
			vi.spyOn(agent, "listSchedules").mockRejectedValue(new Error("secret"));
		});
		const hidden = { success: false, error: "Something went wrong." };
		expect(await page.call("listReminders")).toMatchObject(hidden);
	});

	it.each([
		["setState", { title: "Mine" }],
		["useTicket", "id", 2e9],
		["deliverReminder", { text: "Tea" }, { id: "id" }],
		["clear"],
		["reply", "Hi"],
		["tools"],
		["destroy"],
	])("lets no client call %s", async (method, ...args) => {
		const error = `Method ${method} is not callable`;
		const page = await open();
		expect(await page.call(method, ...args)).toMatchObject({ error });
	});

	it.each([
		{ title: 7 },
		{ title: "x".repeat(101) },
		{ lastMessageAt: "2026-01-01T00:00:00.000Z" },
		{ more: 1 },
		null,
	])("lets no client change the state by %j", async (change) => {
		const { state } = await conversation();
		const page = await open();
		const next = change && { ...state, ...change };
		page.send({ type: "cf_agent_state", state: next });
		await page.gets({ type: "cf_agent_state_error" });
		expect((await conversation()).state).toEqual(state);
	});

	it.each([
		{},
		{ text: "", seconds: 1 },
		{ text: "Tea", seconds: 0 },
		{ text: "Tea", seconds: 1.5 },
		{ text: "x".repeat(501), seconds: 1 },
		{ text: "Tea", seconds: 31_536_001 },
	])("takes no reminder like %j", async (reminder) => {
		const page = await open();
		const refused = { success: false };
		expect(await page.call("addReminder", reminder)).toMatchObject(refused);
		expect(await page.call("listReminders")).toMatchObject({ result: [] });
	});

	it("keeps a reminder over restarts and clearings, and delivers it once", async () => {
		vi.useFakeTimers({ toFake: ["Date"] });
		const page = await open();
		const reminder = { text: "Tea", seconds: 60 };
		const { result } = await page.call("addReminder", reminder);
		await request(ADA, "DELETE");
		await evictDurableObject(agent(), { webSockets: "hibernate" });
		vi.setSystemTime(Date.now() + 60_000);
		await runDurableObjectAlarm(agent());
		const message = expect.objectContaining({ role: "reminder", text: "Tea" });
		await page.gets({ type: "messages", messages: [message] });
		// The runtime may run an alarm twice.
		await runInDurableObject(agent(), (agent) => {
			agent.deliverReminder({ text: "Tea" }, Object({ id: result }));
		});
		expect((await conversation()).messages).toHaveLength(1);
	});
	//% if "workflows" in features

	it("starts no Workflow for what is not an e-mail address", async () => {
		const create = vi.spyOn(env.MY_WORKFLOW, "create");
		const page = await open();
		const { error } = await page.call("startWorkflow", "ada");
		expect(error).toContain("email: ");
		expect(create).not.toHaveBeenCalled();
	});
	//% endif
});
