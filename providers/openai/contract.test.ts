import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as z from "zod";
import {
	answer,
	answerTool,
	asked,
	failWith,
} from "../../providers/openai/test/provider";
import { modelObject, modelText, modelTool } from "./worker";

const { OPENAI_API_KEY } = env;
const failed = { status: 502, code: "model_failed" };
const log = vi.fn<(line: string) => void>();

beforeEach(() => {
	log.mockReset();
	vi.spyOn(console, "error").mockImplementation(log);
});

afterEach(() => {
	Object.assign(env, { OPENAI_API_KEY, AI_GATEWAY_BASE_URL: "" });
	vi.restoreAllMocks();
	expect(JSON.stringify(log.mock.calls)).not.toMatch(/of the provider|Bonn/);
});

const ways: [string, () => Promise<unknown>][] = [];
function reply(body: string, headers: HeadersInit = {}) {
	const respond = async () => new Response(body, { headers });
	return vi.spyOn(globalThis, "fetch").mockImplementation(respond);
}

//% if "structured-output" in features
const place = z.strictObject({ city: z.string() });
const object = () => modelObject(env, place, "Find the city.", "Bonn");
ways.push(["an object", object]);

describe("an object", () => {
	const complete = (message: object, finish_reason = "stop") =>
		JSON.stringify({ choices: [{ index: 0, message, finish_reason }] });
	const content = '{"city":"Bonn"}';

	it("is asked for with its schema", async () => {
		answer(content);
		expect(await object()).toEqual({ city: "Bonn" });
		expect(JSON.parse(asked[0]?.body ?? "")).toMatchObject({
			model: env.AI_MODEL,
			max_completion_tokens: 8192,
			messages: [
				{ role: "system", content: "Find the city." },
				{ role: "user", content: "Bonn" },
			],
			response_format: { json_schema: { strict: true } },
		});
	});

	it.each([
		["is refused", complete({ content, refusal: "words of the provider" })],
		["is filtered", complete({ content }, "content_filter")],
		["is cut off", complete({ content }, "length")],
		["is empty", complete({ content: "" })],
		["has no choice", '{"choices":[]}'],
		["has another shape", '{"text":"words of the provider"}'],
		["is no JSON", "words of the provider"],
	])("that %s is a 502", async (_, body) => {
		reply(body, { "Content-Type": "application/json" });
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

describe("a text", () => {
	const event = (choice: object) =>
		`data: ${JSON.stringify({ id: "1", choices: [{ index: 0, ...choice }] })}\n\n`;
	const piece = event({ delta: { role: "assistant", content: "Bonn" } });
	const end = (finish_reason: string) =>
		`${event({ delta: {}, finish_reason })}data: [DONE]\n\n`;
	const type = { "Content-Type": "text/event-stream" };

	it("is asked for with the conversation and a limit", async () => {
		answer("Bo", "nn");
		expect(await text()).toEqual(["Bo", "nn"]);
		expect(JSON.parse(asked[0]?.body ?? "")).toEqual({
			model: env.AI_MODEL,
			max_completion_tokens: 8192,
			messages,
			stream: true,
		});
	});

	it.each([
		["by its limit", piece + end("length")],
		["among chunks that say nothing", `data: {}\n\n${piece}${end("stop")}`],
	])("may end %s", async (_, body) => {
		reply(body, type);
		expect(await text()).toEqual(["Bonn"]);
	});

	it.each([
		["breaks off", piece],
		["is filtered", piece + end("content_filter")],
		["ends with an error", `${piece}data: {"error":{"message":"Bonn"}}\n\n`],
		["is no JSON", `${piece}data: words of the provider\n\n`],
	])("that %s is a 502", async (_, body) => {
		reply(body, type);
		await expect(text()).rejects.toMatchObject(failed);
		expect(log).toHaveBeenCalledTimes(1);
	});
});

//% endif
it.each(ways)("%s without a key is a 503 that names it", async (_, ask) => {
	env.OPENAI_API_KEY = "";
	answer("{}");
	await expect(ask()).rejects.toMatchObject({
		status: 503,
		code: "model_not_configured",
		message: expect.stringContaining("OPENAI_API_KEY"),
	});
	expect(asked).toEqual([]);
});

it.each(ways)("%s without a connection is a 502", async (_, ask) => {
	vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("Bonn"));
	await expect(ask()).rejects.toMatchObject(failed);
});

it.each(ways)("%s is told when to come back", async (_, ask) => {
	failWith(429, { "Retry-After": "7", "x-request-id": "req_1" });
	await expect(ask()).rejects.toMatchObject({
		status: 503,
		headers: { "Retry-After": "7" },
	});
	const [[line = ""] = []] = log.mock.calls;
	expect(JSON.parse(line)).toMatchObject({ status: 429, requestID: "req_1" });
});

it.each(ways)("%s comes from the API, or the gateway", async (_, ask) => {
	const fetched = reply("");
	await ask().catch(() => {});
	env.AI_GATEWAY_BASE_URL = "https://gateway.example/v1/openai";
	await ask().catch(() => {});
	expect(fetched.mock.calls.map(([url]) => url)).toEqual([
		"https://api.openai.com/v1/chat/completions",
		"https://gateway.example/v1/openai/chat/completions",
	]);
});

//% if "agents" in features
it("a call of a tool and its result go back to the model", async () => {
	const tool = modelTool(
		"weather",
		"Tells it",
		z.strictObject({}),
		() => "Sun",
	);
	answerTool("weather", {}, "Sunny");
	const pieces = modelText(env, messages, signal, [tool]);
	expect(await Array.fromAsync(pieces)).toEqual(["Sunny"]);
	const [first, second] = asked.map(({ body }) => JSON.parse(body));
	expect(first).toMatchObject({
		reasoning_effort: "none",
		tools: [{ type: "function", function: { name: "weather" } }],
	});
	expect(second.messages.slice(2)).toMatchObject([
		{ role: "assistant", tool_calls: [{ id: "call_1" }] },
		{ role: "tool", tool_call_id: "call_1", content: '"Sun"' },
	]);
});
//% endif
