import { env, exports } from "cloudflare:workers";
import { Hono } from "hono";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as z from "zod";
import {
	answerForever,
	answerText,
	answerTool,
	answerTruncated,
	busy,
	failToAnswer,
	failToConnect,
	failureFields,
	failWith,
	refusals,
	requests,
	SECRET_WORDS,
	SETTING,
	textAnswers,
	textFailures,
	textRequest,
	truncations,
	unconfigured,
} from "../../providers/workers-ai/test/provider";
//% if "vectorize" in features
import { standInForVectorize } from "../vectorize/test/vectorize";
//% endif
import { aiConversation, aiStream } from "./worker";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };
const QUESTION = {
	role: "user",
	content: "What is a Durable Object?",
} as const;
const ANSWERS = 20;

let log: MockInstance<typeof console.error>;

beforeEach(() => {
	log = vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
	vi.useRealTimers();
	vi.restoreAllMocks();
});

function chat(
	messages: unknown = [QUESTION],
	init: RequestInit = {},
): Promise<Response> {
	const body = JSON.stringify({ messages });
	return exports.default.fetch(
		new Request("https://example.com/ai/chat", {
			method: "POST",
			headers: { ...JSON_TYPE, ...OPERATOR },
			body,
			...init,
		}),
	);
}

/** The events of an answer that is read to its end. */
async function eventsOf(response: Response): Promise<unknown[]> {
	const [last, ...events] = (await response.text()).split("\n\n").reverse();
	expect(last).toBe("");
	return events.reverse().map((event) => {
		const data = event.replace(/^data: /, "");
		return data === "[DONE]" ? data : JSON.parse(data);
	});
}

/** Checks an error, and that neither it nor the logs tell what was said. */
async function expectError(response: Response, status: number, code: string) {
	expect(response.status).toBe(status);
	expect(response.headers.get("Content-Type")).toContain("application/json");
	const body = await response.text();
	expect(JSON.parse(body)).toEqual({
		error: { code, message: expect.any(String) },
	});
	expectSecrecy(body);
}

function expectSecrecy(body: string) {
	const lines = log.mock.calls.map(([line]) => String(line));
	for (const text of [body, ...lines]) {
		expect(text).not.toContain(SECRET_WORDS);
		expect(text).not.toContain("Durable");
	}
}

describe("POST /ai/chat", () => {
	it.each(Object.keys(textAnswers))(
		"streams the answer that comes %s",
		async (way) => {
			textAnswers[way]?.("Hel", "lo\n\n!");
			const response = await chat();
			expect(response.status).toBe(200);
			expect(response.headers.get("Content-Type")).toBe("text/event-stream");
			expect(response.headers.get("Cache-Control")).toBe("no-store");
			const events = await eventsOf(response);
			const pieces = events.slice(0, -1) as { text: string }[];
			expect(pieces.map(({ text }) => text).join("")).toBe("Hello\n\n!");
			expect(events.at(-1)).toBe("[DONE]");
		},
	);

	it("hands the conversation on as it is", async () => {
		answerText("Yes.");
		const messages = [
			{ role: "system", content: "Answer briefly." },
			QUESTION,
			{ role: "assistant", content: "A place for state." },
			{ role: "user", content: " Durable? " },
		];
		await (await chat(messages)).text();
		expect(requests()).toEqual([textRequest(messages)]);
	});

	it.each(Object.keys(truncations))(
		"says that the model's limit has cut the answer, %s",
		async (way) => {
			truncations[way]?.("Hel");
			expect(await eventsOf(await chat())).toEqual([
				{ text: "Hel" },
				{ truncated: true },
				"[DONE]",
			]);
		},
	);

	const user = (content: unknown) => ({ role: "user", content });
	const assistant = { role: "assistant", content: "Hi" };
	const system = { role: "system", content: "Be brief." };

	it.each<[string, unknown]>([
		["nothing", null],
		["no list", "Hi"],
		["an empty list", []],
		["an empty message", [user("")]],
		["a blank message", [user(" \n")]],
		["content that is no text", [user(["Hi"])]],
		["another role", [{ role: "tool", content: "Hi" }]],
		["more in a message", [{ ...user("Hi"), name: "ada" }]],
		["instructions alone", [system]],
		["instructions in the middle", [user("Hi"), system, user("Hi")]],
		["instructions twice", [system, system, user("Hi")]],
		["the assistant first", [assistant, user("Hi")]],
		["the assistant last", [user("Hi"), assistant]],
	])("answers 400 to %s and asks nobody", async (_, messages) => {
		answerText("Yes.");
		const response = await chat(messages);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_body", issues: expect.any(Array) },
		});
		expect(requests()).toEqual([]);
	});

	it("takes nothing beside the messages", async () => {
		answerText("Yes.");
		const body = JSON.stringify({ messages: [QUESTION], model: "other" });
		expect((await chat([], { body })).status).toBe(400);
		expect(requests()).toEqual([]);
	});

	it("answers 401 without the token and asks nobody", async () => {
		answerText("Yes.");
		expect((await chat([QUESTION], { headers: JSON_TYPE })).status).toBe(401);
		expect(requests()).toEqual([]);
	});
});

describe("before an answer begins", () => {
	it.each([401, 404, 500, 503])(
		"the provider's %i is a 502 without its words",
		async (status) => {
			failWith(status);
			await expectError(await chat(), 502, "model_failed");
			expect(log).toHaveBeenCalledTimes(1);
			const line = JSON.parse(log.mock.calls[0]?.[0]);
			expect(line).toMatchObject(failureFields(status));
		},
	);

	it.each(busy)(
		"its 429 is a 503 that says to come back in %s seconds",
		async (seconds, fail) => {
			fail();
			const response = await chat();
			expect(response.headers.get("Retry-After")).toBe(seconds);
			await expectError(response, 503, "model_busy");
		},
	);

	it("a provider that is out of reach is a 502", async () => {
		failToConnect();
		await expectError(await chat(), 502, "model_failed");
	});

	it("a provider that takes too long is a 502", async () => {
		failToAnswer();
		await expectError(await chat(), 502, "model_failed");
	});

	it("a provider that is not configured is a 503 that says what to set", async () => {
		const response = await unconfigured(() => chat());
		expect(response.status).toBe(503);
		expect(await response.json()).toEqual({
			error: {
				code: "model_not_configured",
				message: expect.stringContaining(SETTING),
			},
		});
	});

	it.each(Object.keys(refusals))(
		"a refusal %s is a 413 where length can be the reason",
		async (way) => {
			// With all around it, 4,000 bytes.
			const most = "ü".repeat((4000 - 30) / 2);
			refusals[way]?.();
			const long = [{ role: "user", content: `${most}.` }];
			await expectError(await chat(long), 413, "conversation_too_long");
			const short = [{ role: "user", content: most }];
			await expectError(await chat(short), 502, "model_failed");
		},
	);
});

describe("an answer that breaks off", () => {
	it.each(Object.keys(textFailures))(
		"says so, and never that it is done, when %s",
		async (failure) => {
			textFailures[failure]?.("Hel");
			const response = await chat();
			expect(response.status).toBe(200);
			const [first, ...rest] = await eventsOf(response);
			expect(first).toEqual({ text: "Hel" });
			expect(rest).toEqual([
				{ error: { code: "model_failed", message: expect.any(String) } },
			]);
			expectSecrecy(JSON.stringify(rest));
		},
	);
});

describe("a client that goes away", () => {
	it("ends the work of the model", async () => {
		const isStopped = answerForever("Hel");
		const response = await chat();
		await response.body?.cancel();
		await vi.waitFor(() => expect(isStopped()).toBe(true));
		expect(log).not.toHaveBeenCalled();
	});

	it("is noticed while the model is silent, since the stream says that it works", async () => {
		vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
		const abort = new AbortController();
		answerForever("Hel");
		const [response] = await Promise.all(ask(1, abort.signal));
		const reader = response?.body
			?.pipeThrough(new TextDecoderStream())
			.getReader();
		expect((await reader?.read())?.value).toBe('data: {"text":"Hel"}\n\n');
		for (const _ of [1, 2]) {
			vi.advanceTimersByTime(5000);
			expect((await reader?.read())?.value).toBe(":\n\n");
		}
		abort.abort();
		expect((await reader?.read())?.value).toContain('"truncated":true');
		await reader?.cancel();
		expect(vi.getTimerCount()).toBe(0);
	});
});

/** Asks for answers of a route of your own, without waiting for them. */
function ask(number: number, signal = new AbortController().signal) {
	const app = new Hono<{ Bindings: Env }>()
		.onError(() => new Response("", { status: 503 }))
		.get("/", (c) => aiStream(c as never, [QUESTION], { signal }));
	return Array.from({ length: number }, () => app.request("/", {}, env));
}

describe("many answers at once", () => {
	/** Asks for as many as may stream. */
	async function fill(): Promise<Response[]> {
		answerForever("Hel");
		return Promise.all(Array.from({ length: ANSWERS }, () => chat()));
	}

	it("number at most twenty; whoever comes then is told to come back", async () => {
		const responses = await fill();
		expect(new Set(responses.map(({ status }) => status))).toEqual(
			new Set([200]),
		);
		const refused = await chat();
		expect(refused.headers.get("Retry-After")).toBe("5");
		await expectError(refused, 503, "ai_busy");
		expect(requests()).toHaveLength(ANSWERS);
		for (const response of responses) {
			await response.body?.cancel();
		}
		answerText("Yes.");
		await vi.waitFor(async () => expect((await chat()).status).toBe(200));
	});

	it("hold no places before they begin: nobody knows whether their clients wait", async () => {
		const abort = new AbortController();
		answerForever("");
		const silent = ask(ANSWERS, abort.signal);
		await vi.waitFor(() => expect(requests()).toHaveLength(ANSWERS));
		answerText("Yes.");
		expect((await chat()).status).toBe(200);
		abort.abort();
		await Promise.all(silent);
	});

	it("end at once where others have begun before", async () => {
		const isStopped = answerForever("Hel");
		const responses = await Promise.all(ask(ANSWERS + 1));
		const streaming = responses.filter(({ status }) => status === 200);
		expect(streaming).toHaveLength(ANSWERS);
		expect(isStopped()).toBe(true);
		for (const response of streaming) {
			await response.body?.cancel();
		}
		answerText("Yes.");
		await vi.waitFor(async () => expect((await chat()).status).toBe(200));
	});

	it("give their places to others however they end", async () => {
		const ends = [
			() => answerText("Yes."),
			() => answerTruncated("Yes"),
			() => failWith(500),
			...Object.values(textFailures).map((fail) => () => fail("Hel")),
		];
		for (const end of ends) {
			for (let number = 0; number < ANSWERS; number++) {
				end();
				await (await chat()).text();
				vi.restoreAllMocks();
				vi.spyOn(console, "error").mockImplementation(() => {});
			}
			answerText("Yes.");
			expect((await chat()).status).toBe(200);
		}
	});

	it("lose their places once they must have ended", async () => {
		const responses = await fill();
		expect((await chat()).status).toBe(503);
		const now = Date.now();
		vi.spyOn(Date, "now").mockReturnValue(now + 121_000);
		answerText("Yes.");
		expect((await chat()).status).toBe(200);
		vi.restoreAllMocks();
		for (const response of responses) {
			await response.body?.cancel();
		}
	});
});

describe("aiStream", () => {
	it("answers a route of your own, with tools and a signal", async () => {
		const run = vi.fn(() => "sunny");
		const weather = {
			description: "Tells the weather",
			input: z.strictObject({ city: z.string() }),
			run,
		};
		const app = new Hono<{ Bindings: Env }>().post("/", async (c) => {
			const { messages } = aiConversation.parse(await c.req.json());
			return aiStream(c as never, messages, { tools: { weather } });
		});
		answerTool("weather", { city: "Rome" }, "It is sunny.");
		const body = JSON.stringify({ messages: [QUESTION] });
		const response = await app.request("/", { method: "POST", body }, env);
		expect(await eventsOf(response)).toEqual([
			{ text: "It is sunny." },
			"[DONE]",
		]);
		expect(run).toHaveBeenCalledTimes(1);
	});

	//% if "vectorize" in features
	it("answers from the texts that a search finds", async () => {
		const ask = (path: string, init: RequestInit = {}) => {
			const headers = { ...JSON_TYPE, ...OPERATOR };
			const url = `https://example.com${path}`;
			return exports.default.fetch(new Request(url, { headers, ...init }));
		};
		standInForVectorize();
		answerTool("search", { question: "bees" }, "At night.");
		const body = JSON.stringify({ text: "Bees sleep at night." });
		const stored = await ask("/documents", { method: "POST", body });
		expect(stored.status).toBe(201);
		const search = {
			description: "Finds texts about a question",
			input: z.strictObject({ question: z.string() }),
			run: async ({ question }: { question: string }) =>
				(await ask(`/search?q=${question}`)).json(),
		};
		const app = new Hono<{ Bindings: Env }>().get("/", (c) =>
			aiStream(c as never, [QUESTION], { tools: { search } }),
		);
		await (await app.request("/", {}, env)).text();
		const [, second] = requests();
		expect(JSON.stringify(second)).toContain("Bees sleep at night.");
	});

	//% endif
	it("ends by a signal of your own", async () => {
		const abort = new AbortController();
		const app = new Hono<{ Bindings: Env }>().get("/", (c) =>
			aiStream(c as never, [QUESTION], { signal: abort.signal }),
		);
		const isStopped = answerForever("Hel");
		const response = await app.request("/", {}, env);
		abort.abort();
		expect(await eventsOf(response)).toEqual([
			{ text: "Hel" },
			{ truncated: true },
			"[DONE]",
		]);
		expect(isStopped()).toBe(true);
	});
});
