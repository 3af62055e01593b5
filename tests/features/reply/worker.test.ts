import { exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
	answerForever,
	answerJson,
	answerText,
	answerTool,
	answerTools,
	answerTruncatedTool,
	failToAnswer,
	failToConnect,
	failWith,
	hurry,
	jsonRequest,
	refusals,
	requests,
	SECRET_WORDS,
	SETTING,
	textAnswers,
	textFailures,
	textRequest,
	toolAnswers,
	truncations,
	unconfigured,
} from "../../../providers/workers-ai/test/provider";

const MESSAGES = [
	{ role: "system", content: "Be brief." },
	{ role: "user", content: "Hello?" },
	{ role: "assistant", content: "Yes?" },
	{ role: "user", content: "How are you?" },
];

const NOTHING = {
	type: "object",
	properties: {},
	additionalProperties: false,
};

const TOOLS = [
	{
		name: "add",
		description: "Adds two numbers",
		schema: {
			type: "object",
			properties: { a: { type: "number" }, b: { type: "number" } },
			required: ["a", "b"],
			additionalProperties: false,
		},
	},
	{
		name: "greet",
		description: "Greets somebody",
		schema: {
			type: "object",
			properties: { name: { type: "string", maxLength: 9 } },
			required: ["name"],
			additionalProperties: false,
		},
	},
	{ name: "forget", description: "Forgets everything", schema: NOTHING },
	{ name: "book", description: "Books a table", schema: NOTHING },
	{ name: "fail", description: "Fails", schema: NOTHING },
	{ name: "wait", description: "Waits, and never ends", schema: NOTHING },
	{
		name: "stop",
		description: "Waits until it is told to stop",
		schema: NOTHING,
	},
];

let log: MockInstance<typeof console.error>;

beforeEach(() => {
	log = vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
	vi.restoreAllMocks();
});

function ask(query = ""): Promise<Response> {
	return exports.default.fetch(`https://example.com/reply${query}`);
}

async function reply(query = ""): Promise<string> {
	return (await ask(query)).text();
}

function logged(): string {
	return JSON.stringify(log.mock.calls);
}

describe("the model's answer", () => {
	it.each(Object.keys(textAnswers))("is streamed, %s", async (way) => {
		textAnswers[way]?.("Fine, ", "1", "0", "0 %.", " Grüße");
		expect(await reply()).toBe("Fine, 100 %. Grüße");
		expect(requests()).toEqual([textRequest(MESSAGES)]);
	});

	it("has no empty pieces", async () => {
		answerText("", "Fi", "", "ne.");
		expect(await reply("?after=|")).toBe("Fi|ne.|");
	});

	it.each(Object.keys(truncations))(
		"says that the model's limit has cut it off, %s",
		async (way) => {
			truncations[way]?.("Fine, ", "and");
			expect(await reply()).toBe("Fine, and (truncated)");
		},
	);

	it("is one of a model that has room for it", async () => {
		answerText("Fine.");
		const room = Number((await ask()).headers.get("X-Window"));
		expect(room).toBeGreaterThan(20_000);
	});

	it("ends when its signal says so", async () => {
		const isStopped = answerForever("Well,");
		expect(await reply("?ms=300")).toBe("Well, (truncated)");
		await vi.waitFor(() => expect(isStopped()).toBe(true));
		expect(log).not.toHaveBeenCalled();
	});

	it("ends when nobody reads on", async () => {
		const isStopped = answerForever("Well,");
		const reader = (await ask()).body?.getReader();
		await reader?.read();
		await reader?.cancel();
		await vi.waitFor(() => expect(isStopped()).toBe(true));
	});

	it.each(Object.keys(textFailures))("fails when %s", async (failure) => {
		textFailures[failure]?.("Well,");
		expect(await reply()).toBe("Well, (failed)");
		expect(logged()).toContain("The model gave no answer");
		expect(logged()).not.toContain(SECRET_WORDS);
	});

	it("leaves no timer behind, which would keep an object in memory", async () => {
		const set = vi.spyOn(globalThis, "setTimeout");
		const clear = vi.spyOn(globalThis, "clearTimeout");
		answerText("Fine.");
		await reply();
		const limits = set.mock.calls.flatMap(([, ms], index) =>
			ms === 120_000 ? [set.mock.results[index]?.value] : [],
		);
		expect(limits).not.toEqual([]);
		const cleared = clear.mock.calls.map(([timer]) => timer);
		for (const limit of limits) {
			expect(cleared).toContain(limit);
		}
	});

	it("says in the logs that it took too long", async () => {
		hurry();
		answerForever("Well,");
		expect(await reply()).toBe("Well, (failed)");
		expect(logged()).toContain("It took too long");
	});
});

const statuses: [number, number, string | null][] = [
	[400, 502, "ModelRefusedError"],
	[401, 502, null],
	[413, 502, "ModelRefusedError"],
	[429, 503, "ModelBusyError"],
	[500, 502, null],
];

describe("a provider that fails", () => {
	it.each(statuses)("with %i is a %i", async (theirs, ours, error) => {
		failWith(theirs);
		const response = await ask();
		expect(response.status).toBe(ours);
		expect(response.headers.get("X-Error")).toBe(error);
		expect(await response.text()).not.toContain(SECRET_WORDS);
		expect(logged()).not.toContain(SECRET_WORDS);
	});

	it.each(Object.keys(refusals))("refuses a request %s", async (way) => {
		refusals[way]?.();
		const response = await ask();
		expect(response.status).toBe(502);
		expect(response.headers.get("X-Error")).toBe("ModelRefusedError");
	});

	const silences = { failToConnect, failToAnswer, answerText };

	it.each(Object.entries(silences))("is a 502: %s", async (_, fail) => {
		fail();
		expect((await ask()).status).toBe(502);
	});

	it("for want of a setting is a 503 that says what to set", async () => {
		const response = await unconfigured(ask);
		expect(response.status).toBe(503);
		expect(await response.text()).toContain(SETTING);
	});
});

describe("tools", () => {
	it.each(Object.keys(toolAnswers))(
		"run when the model calls them, %s",
		async (way) => {
			const sum = { a: 1, b: 2 };
			const name = { name: "Ada" };
			const calls: [string, unknown][] = [
				["add", sum],
				["greet", name],
			];
			toolAnswers[way]?.(calls, "Fi", "ne.");
			expect(await reply("?tools=1")).toBe("Fine.");
			expect(requests()).toEqual([
				textRequest(MESSAGES, TOOLS),
				textRequest(MESSAGES, TOOLS, [
					[
						{ name: "add", input: sum, output: '{"sum":3}' },
						{ name: "greet", input: name, output: "Hello, Ada!" },
					],
				]),
			]);
			expect(log).not.toHaveBeenCalled();
		},
	);

	it.each([
		["forget", {}, "Done."],
		["book", {}, "Choose another.\nevening: Must be free"],
		["fail", {}, "The tool failed."],
		["constructor", {}, "There is no such tool."],
		["no_such", {}, "There is no such tool."],
	])("tell the model how %s went", async (name, input, output) => {
		answerTool(name, input, "Fine.");
		expect(await reply("?tools=1")).toBe("Fine.");
		expect(requests()[1]).toEqual(
			textRequest(MESSAGES, TOOLS, [[{ name, input, output }]]),
		);
	});

	it("log why they failed", async () => {
		answerTool("fail", {}, "Fine.");
		await reply("?tools=1");
		expect(log).toHaveBeenCalledTimes(1);
		expect(JSON.parse(String(log.mock.calls[0]?.[0]))).toMatchObject({
			message: "A tool failed",
			tool: "fail",
			error: { name: "TypeError", message: "not for the model" },
		});
	});

	it.each([
		[{ a: 1 }],
		[{ a: 1, b: "2" }],
		[{ a: 1, b: 2, c: 3 }],
		['{"a":1,'],
	])("refuse %j, and tell the model why", async (input) => {
		answerTool("add", input, "Fine.");
		expect(await reply("?tools=1")).toBe("Fine.");
		const [, sent] = requests();
		expect(JSON.stringify(sent)).toContain("Correct the input:\\n✖ ");
		expect(JSON.stringify(sent)).not.toContain("sum");
	});

	it("take an input that is left out for an empty one", async () => {
		answerTool("forget", "", "Fine.");
		await reply("?tools=1");
		expect(JSON.stringify(requests()[1])).not.toContain("Correct");
	});

	it("run in seven rounds and no more", async () => {
		answerTool("add", { a: 1, b: 2 });
		const response = await ask("?tools=1");
		expect(response.status).toBe(502);
		expect(requests()).toHaveLength(8);
		expect(logged()).toContain("It calls tools without end");
	});

	it("do not run when the model's limit has cut off a call", async () => {
		answerTruncatedTool("forget", "Well,");
		expect(await reply("?tools=1")).toBe("Well, (truncated)");
		expect(requests()).toHaveLength(1);
	});

	it("are told to stop when the signal says so", async () => {
		const info = vi.spyOn(console, "log").mockImplementation(() => {});
		answerTools([["wait", {}]], "Fine.");
		expect(await reply("?tools=1&ms=300")).toBe(" (truncated)");
		expect(requests()).toHaveLength(1);
		expect(JSON.stringify(info.mock.calls)).toContain("The tool may stop");
		expect(log).not.toHaveBeenCalled();
	});

	it("have not failed when they stop for the signal", async () => {
		answerTool("stop", {}, "Fine.");
		expect(await reply("?tools=1&ms=300")).toBe(" (truncated)");
		expect(log).not.toHaveBeenCalled();
	});

	it("must end within the time of the answer", async () => {
		vi.spyOn(console, "log").mockImplementation(() => {});
		hurry();
		answerTools([["wait", {}]], "Fine.");
		expect((await ask("?tools=1")).status).toBe(502);
		expect(logged()).toContain("It took too long");
	});
});

describe("an answer in JSON", () => {
	it("is what the schema returns, under a name of its own", async () => {
		answerJson('{"mood":" fine "}');
		expect(JSON.parse(await reply("/mood"))).toEqual({ mood: "fine" });
		expect(requests()).toEqual([
			jsonRequest({
				instructions: "Name the mood.",
				text: "How are you?",
				name: "answer",
				schema: {
					type: "object",
					properties: { mood: { type: "string" } },
					required: ["mood"],
					additionalProperties: false,
				},
			}),
		]);
	});

	it("ends when its signal says so", async () => {
		failToAnswer();
		vi.mocked(globalThis.setTimeout).mockRestore();
		expect(await reply("/mood?ms=100")).toBe("gone");
		expect(log).not.toHaveBeenCalled();
	});
});
