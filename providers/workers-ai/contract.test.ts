import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as z from "zod";
import {
	answer,
	answerTool,
	asked,
} from "../../providers/workers-ai/test/provider";
import { modelObject, modelText, modelTool } from "./worker";

const failed = { status: 502, code: "model_failed" };
const log = vi.fn<(line: string) => void>();

beforeEach(() => {
	log.mockReset();
	vi.spyOn(console, "error").mockImplementation(log);
});

afterEach(() => {
	vi.restoreAllMocks();
	expect(JSON.stringify(log.mock.calls)).not.toMatch(/of the provider|Bonn/);
});

const ways: [string, () => Promise<unknown>][] = [];
/** Lets Workers AI give these answers, one after the other, or throw an error. */
function reply(...answers: unknown[]) {
	return vi.spyOn(env.AI, "run").mockImplementation((async () => {
		const [one = answers[0]] = answers.splice(0, answers.length > 1 ? 1 : 0);
		if (one instanceof Error) {
			throw one;
		}
		return typeof one === "string" ? new Response(one).body : one;
	}) as typeof env.AI.run);
}

//% if "structured-output" in features
const place = z.strictObject({ city: z.string() });
const object = () => modelObject(env, place, "Find the city.", "Bonn");
ways.push(["an object", object]);

describe("an object", () => {
	const content = '{"city":"Bonn"}';

	it("is asked for with its schema, as Workers AI documents it", async () => {
		answer(content);
		expect(await object()).toEqual({ city: "Bonn" });
		expect(JSON.parse(asked[0]?.body ?? "")).toEqual({
			max_tokens: 4096,
			messages: [
				{ role: "system", content: "Find the city." },
				{ role: "user", content: "Bonn" },
			],
			response_format: {
				type: "json_schema",
				json_schema: {
					type: "object",
					properties: { city: { type: "string" } },
					required: ["city"],
					additionalProperties: false,
				},
			},
		});
	});

	it.each([
		["as text", { response: content }],
		["as an object", { response: JSON.parse(content) }],
		["as newer models give it", { choices: [{ message: { content } }] }],
	])("may come %s", async (_, one) => {
		reply(one);
		expect(await object()).toEqual({ city: "Bonn" });
	});

	it.each([
		["does not fit", new Error("5024: JSON Mode couldn't be met")],
		["is cut off", { response: content.slice(0, -1) }],
		["is empty", { response: "" }],
		["has another shape", { text: "words of the provider" }],
		["is nothing", null],
	])("that %s is a 502", async (_, one) => {
		reply(one);
		await expect(object()).rejects.toMatchObject(failed);
		expect(log).toHaveBeenCalledTimes(1);
	});
});

//% endif
//% if "ai" in features or "agents" in features
const messages = [
	{ role: "system" as const, content: "Be brief." },
	{ role: "user" as const, content: "Bonn" },
];
const { signal } = new AbortController();
const text = () => Array.fromAsync(modelText(env, messages, signal));
ways.push(["a text", text]);
const event = (piece: object) => `data: ${JSON.stringify(piece)}\n\n`;
const delta = (about: object) => event({ choices: [{ delta: about }] });
const end = "data: [DONE]\n\n";

describe("a text", () => {
	const piece = event({ response: "Bonn" });

	it("is asked for with the conversation and a limit", async () => {
		answer("Bo", "nn");
		expect(await text()).toEqual(["Bo", "nn"]);
		expect(JSON.parse(asked[0]?.body ?? "")).toEqual({
			messages,
			max_tokens: 4096,
			stream: true,
		});
	});

	it.each<[string, unknown, string[]]>([
		["with numbers", event({ response: 4 }) + end, ["4"]],
		["as newer models give it", delta({ content: "Bonn" }) + end, ["Bonn"]],
		[
			"with what it used",
			piece + event({ choices: [], usage: {} }) + end,
			["Bonn"],
		],
		["as a whole", { response: "Bonn" }, ["Bonn"]],
		[
			"as a whole, from newer models",
			{ choices: [{ message: { content: "Bonn" } }] },
			["Bonn"],
		],
	])("may come %s", async (_, one, pieces) => {
		reply(one);
		expect(await text()).toEqual(pieces);
	});

	it("may come byte by byte", async () => {
		const bytes = new TextEncoder().encode(event({ response: "Köln" }) + end);
		const { readable, writable } = new TransformStream();
		reply(readable);
		const writer = writable.getWriter();
		const written = [...bytes].map((byte) => writer.write(Uint8Array.of(byte)));
		expect(await text()).toEqual(["Köln"]);
		await Promise.allSettled(written);
	});

	it.each([
		["breaks off", piece],
		["is no JSON", `${piece}data: words of the provider\n\n`],
	])("that %s is a 502", async (_, one) => {
		reply(one);
		await expect(text()).rejects.toMatchObject(failed);
		expect(log).toHaveBeenCalledTimes(1);
	});
});

//% endif
it.each(ways)(
	"%s without Workers AI is a 503 that says why",
	async (_, ask) => {
		reply(new Error("Binding AI needs to be run remotely"));
		await expect(ask()).rejects.toMatchObject({
			status: 503,
			code: "model_not_configured",
			message: expect.stringContaining("dev:online"),
		});
	},
);

it.each(ways)("%s without a connection is a 502", async (_, ask) => {
	reply(new TypeError("Bonn"));
	await expect(ask()).rejects.toMatchObject(failed);
});

it.each(
	ways.flatMap(([way, ask]) =>
		["3036", "3040", "InferenceUpstreamError: 3040"].map(
			(code) => [way, code, ask] as const,
		),
	),
)("%s that fails with %s comes in a minute", async (_, code, ask) => {
	reply(new Error(`${code}: words of the provider`));
	await expect(ask()).rejects.toMatchObject({
		status: 503,
		headers: { "Retry-After": "60" },
	});
	const [[line = ""] = []] = log.mock.calls;
	expect(JSON.parse(line)).toMatchObject({ code: code.slice(-4) });
});

//% if "agents" in features
describe("a tool", () => {
	const input = z.strictObject({ city: z.string().optional() });
	const weather = vi.fn<(input: { city?: string | undefined }) => unknown>();
	const tool = modelTool("weather", "Tells it", input, weather);
	const ask = () => Array.fromAsync(modelText(env, messages, signal, [tool]));

	beforeEach(() => {
		weather.mockReset().mockReturnValue("Sun");
	});

	it("has its call and its result go back to the model", async () => {
		answerTool("weather", {}, "Sunny");
		expect(await ask()).toEqual(["Sunny"]);
		const [first, second] = asked.map(({ body }) => JSON.parse(body));
		expect(first.tools).toMatchObject([
			{ type: "function", function: { name: "weather" } },
		]);
		const id = "call_0";
		expect(second.messages.slice(2)).toEqual([
			{
				role: "assistant",
				content: "",
				tool_calls: [
					{
						id,
						type: "function",
						function: { name: "weather", arguments: "{}" },
					},
				],
			},
			{ role: "tool", tool_call_id: id, name: "weather", content: '"Sun"' },
		]);
	});

	it("may be called in pieces, and twice at once", async () => {
		const called = (index: number, ...pieces: object[]) =>
			pieces.map((piece) => delta({ tool_calls: [{ index, ...piece }] }));
		const calls = [
			...called(
				0,
				{ id: "a", type: "function", function: { name: "weather" } },
				{ function: { arguments: '{"ci' } },
				{ function: { arguments: 'ty":"Bonn"}' } },
				{ id: null, function: { name: null, arguments: null } },
			),
			...called(1, { id: "b", function: { name: "weather", arguments: "" } }),
		];
		const first = delta({ content: "Well." }) + calls.join("") + end;
		const run = reply(first, event({ response: "Sunny" }) + end);
		expect(await ask()).toEqual(["Well.", "Sunny"]);
		expect(weather.mock.calls).toEqual([[{ city: "Bonn" }], [{}]]);
		expect(JSON.stringify(run.mock.calls[1])).toContain('"content":"Well."');
	});

	it("is not called with what is no JSON", async () => {
		const call = { name: "weather", arguments: "words" };
		const run = reply({ tool_calls: [call] }, { response: "Sorry" });
		expect(await ask()).toEqual(["Sorry"]);
		expect(weather).not.toHaveBeenCalled();
		expect(JSON.stringify(run.mock.calls[1])).toContain("expected object");
	});
});
//% endif
