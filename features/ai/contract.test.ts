import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as z from "zod";
import { ApiError } from "../../base/base/worker";
import {
	answer,
	answerTool,
	asked,
	failWith,
} from "../../providers/workers-ai/test/provider";
import {
	modelEvents,
	modelText,
	modelTool,
} from "../../providers/workers-ai/worker";
import { conversation } from "./worker";

const user = { role: "user" as const, content: "What is a Durable Object?" };
const assistant = { role: "assistant" as const, content: "A place for state." };
const system = { role: "system" as const, content: "Be brief." };
const log = vi.fn<(line: string) => void>();

beforeEach(() => {
	log.mockReset();
	vi.spyOn(console, "error").mockImplementation(log);
});

afterEach(() => {
	vi.useRealTimers();
	vi.restoreAllMocks();
});

function chat(body: object): Promise<Response> {
	return exports.default.fetch("https://example.com/ai/chat", {
		method: "POST",
		headers: {
			Authorization: `Bearer ${env.API_TOKEN}`,
			"Content-Type": "application/json",
		},
		body: JSON.stringify(body),
	});
}

function expectSecrecy(body: string) {
	const lines = JSON.stringify(log.mock.calls);
	expect(body + lines).not.toMatch(/words of the provider|Durable/);
}

it.each<[string, object[]]>([
	["a question", [user]],
	["instructions and a question", [system, user]],
	["the assistant first", [assistant, user]],
	["several turns", [system, user, assistant, user]],
])("takes %s", (_, messages) => {
	expect(conversation.safeParse({ messages }).success).toBe(true);
});

it.each<[string, unknown]>([
	["nothing", null],
	["no list", "Hi"],
	["an empty message", [{ ...user, content: "" }]],
	["content that is no text", [{ ...user, content: ["Hi"] }]],
	["another role", [{ ...user, role: "tool" }]],
	["more in a message", [{ ...user, name: "ada" }]],
	["only instructions", [system]],
	["instructions twice", [system, system, user]],
	["instructions in the middle", [user, system, user]],
	["the assistant last", [user, assistant]],
])("refuses %s", (_, messages) => {
	expect(conversation.safeParse({ messages }).success).toBe(false);
});

it("takes nothing beside the messages", () => {
	const more = { messages: [user], model: "another" };
	expect(conversation.safeParse(more).success).toBe(false);
});

it("hands the whole conversation on, and keeps the answer from caches", async () => {
	answer("Yes.");
	const response = await chat({ messages: [system, user, assistant, user] });
	expect(response.headers.get("Cache-Control")).toBe("no-store");
	await response.text();
	expect(asked).toHaveLength(1);
	expect(asked[0]?.body).toMatch(
		/Be brief.*Durable.*state.*Durable|Durable.*state.*Durable.*Be brief/,
	);
});

it.each([400, 401, 404, 413, 500, 503])(
	"answers 502 to the provider's %i, without another try",
	async (status) => {
		failWith(status);
		const response = await chat({ messages: [user] });
		expect(response.status).toBe(502);
		expectSecrecy(await response.text());
		expect(asked).toHaveLength(1);
		expect(log).toHaveBeenCalledTimes(1);
	},
);

it("answers 503 to the provider's 429, without another try", async () => {
	failWith(429);
	const response = await chat({ messages: [user] });
	expect(response.status).toBe(503);
	expect(response.headers.get("Retry-After")).toBe("60");
	expectSecrecy(await response.text());
	expect(asked).toHaveLength(1);
});

it("logs once that an answer broke off, and nothing of it", async () => {
	const { promise, reject } = Promise.withResolvers<string>();
	answer("Hel", promise);
	const response = await chat({ messages: [user] });
	reject(new Error("words of the provider"));
	const text = await response.text();
	expect(text).not.toContain("[DONE]");
	expectSecrecy(text);
	expect(log).toHaveBeenCalledTimes(1);
});

describe("the time of an answer", () => {
	beforeEach(() => {
		vi.useFakeTimers({
			toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"],
			shouldAdvanceTime: true, // OpenAI's SDK waits for timers of its own.
		});
	});

	const ask = () => modelEvents((signal) => modelText(env, [user], signal));

	it("is two minutes, also for its first piece", async () => {
		answer(new Promise(() => {}));
		const failure = expect(ask()).rejects.toMatchObject({ status: 502 });
		await vi.waitFor(() => expect(asked).toHaveLength(1));
		vi.advanceTimersByTime(120_000);
		await failure;
		expect(asked[0]?.signal.aborted).toBe(true);
	});

	it("passes with comments while the model is silent", async () => {
		answer("Hel", new Promise(() => {}));
		const text = (await ask()).text();
		vi.advanceTimersByTime(120_000);
		expect(await text).toMatch(
			/^data: {"text":"Hel"}\n\n(:\n\n){23,24}data: {"error":.*\n\n$/,
		);
		expect(vi.getTimerCount()).toBe(0);
	});

	it("leaves no timer behind", async () => {
		answer("Hello");
		await (await ask()).text();
		expect(vi.getTimerCount()).toBe(0);
	});
});

it("ends without an error when its caller aborts", async () => {
	const client = new AbortController();
	answer("Hel", new Promise(() => {}));
	const pieces = modelText(env, [user], client.signal);
	expect(await pieces.next()).toEqual({ done: false, value: "Hel" });
	client.abort();
	expect(await pieces.next()).toEqual({ done: true, value: undefined });
	expect(asked[0]?.signal.aborted).toBe(true);
	expect(log).not.toHaveBeenCalled();
});

it("streams what code of the user yields", async () => {
	const response = await modelEvents(async function* () {
		yield "Hi";
		throw new TypeError("Durable");
	});
	const text = await response.text();
	expect(text).toContain('data: {"text":"Hi"}\n\ndata: {"error":');
	expectSecrecy(text);
});

//% if "agents" in features
describe("a tool", () => {
	const weather = vi.fn<(input: { city: string }) => unknown>();
	const input = z.strictObject({ city: z.string() });
	const tools = [modelTool("weather", "Tells the weather", input, weather)];

	function ask() {
		const { signal } = new AbortController();
		return Array.fromAsync(modelText(env, [user], signal, tools));
	}

	beforeEach(() => {
		weather.mockReset();
	});

	it.each<[string, () => unknown, string]>([
		["what it returns", () => ({ degrees: 21 }), "degrees"],
		["that it returns nothing", () => undefined, "null"],
		[
			"an ApiError",
			() => {
				throw new ApiError(404, "no_city", "No such city.");
			},
			"No such city.",
		],
		[
			"nothing of another error",
			() => {
				throw new Error("secret");
			},
			"The tool failed.",
		],
	])("tells the model %s", async (_, run, told) => {
		weather.mockImplementation(run);
		answerTool("weather", { city: "Bonn" }, "Sun", "ny");
		expect(await ask()).toEqual(["Sun", "ny"]);
		expect(weather.mock.calls).toEqual([[{ city: "Bonn" }]]);
		const [first, second] = asked.map(({ body }) => body);
		expect(first).toContain("Tells the weather");
		expect(first).toContain('"required":["city"]');
		expect(second).toContain(told);
		expect(second).not.toContain("secret");
	});

	it.each([
		["weather", { city: 5 }],
		["weather", {}],
		["storm", { city: "Bonn" }],
	])("does not run for %s(%j), and the model learns it", async (name, sent) => {
		answerTool(name, sent, "Sorry");
		expect(await ask()).toEqual(["Sorry"]);
		expect(weather).not.toHaveBeenCalled();
		expect(asked).toHaveLength(2);
	});

	it("that the model calls without end is called at most eight times", async () => {
		weather.mockReturnValue("Sunny");
		answerTool("weather", { city: "Bonn" });
		await expect(ask()).rejects.toMatchObject({ code: "model_failed" });
		expect(asked).toHaveLength(8);
	});
});
//% endif
