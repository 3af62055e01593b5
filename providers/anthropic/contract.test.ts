import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as z from "zod";
import {
	answer,
	answerTool,
	asked,
	failWith,
} from "../../providers/anthropic/test/provider";
import { modelObject, modelText, modelTool } from "./worker";

const { ANTHROPIC_API_KEY } = env;
const failed = { status: 502, code: "model_failed" };
const log = vi.fn<(line: string) => void>();

beforeEach(() => {
	log.mockReset();
	vi.spyOn(console, "error").mockImplementation(log);
});

afterEach(() => {
	Object.assign(env, { ANTHROPIC_API_KEY, AI_GATEWAY_BASE_URL: "" });
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
	const message = (stop_reason: string, ...content: object[]) =>
		JSON.stringify({
			type: "message",
			role: "assistant",
			content,
			stop_reason,
		});
	const json = { type: "text", text: '{"city":"Bonn"}' };

	it("is asked for with its schema", async () => {
		answer(json.text);
		expect(await object()).toEqual({ city: "Bonn" });
		expect(JSON.parse(asked[0]?.body ?? "")).toMatchObject({
			model: env.AI_MODEL,
			max_tokens: 8192,
			system: "Find the city.",
			messages: [{ role: "user", content: "Bonn" }],
			output_config: { format: { type: "json_schema" } },
		});
	});

	it("may come after thoughts", async () => {
		const thinking = { type: "thinking", thinking: "Bonn?", signature: "1" };
		reply(message("end_turn", thinking, json), {
			"Content-Type": "application/json",
		});
		expect(await object()).toEqual({ city: "Bonn" });
	});

	it.each([
		["is refused", message("refusal", json)],
		["is cut off", message("max_tokens", json)],
		["is empty", message("end_turn", { ...json, text: "" })],
		["has no content", message("end_turn")],
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
	const event = (type: string, about: object = {}) =>
		`event: ${type}\ndata: ${JSON.stringify({ type, index: 0, ...about })}\n\n`;
	const usage = { output_tokens: 1 };
	const message = { role: "assistant", content: [], usage };
	const start = event("message_start", { message });
	const block = event("content_block_start", {
		content_block: { type: "text", text: "" },
	});
	const piece =
		start +
		block +
		event("content_block_delta", {
			delta: { type: "text_delta", text: "Bonn" },
		});
	const end = (stop_reason: string) =>
		event("message_delta", { delta: { stop_reason }, usage }) +
		event("message_stop");
	const type = { "Content-Type": "text/event-stream" };

	it("is asked for with the instructions apart, and a limit", async () => {
		answer("Bo", "nn");
		expect(await text()).toEqual(["Bo", "nn"]);
		expect(JSON.parse(asked[0]?.body ?? "")).toEqual({
			model: env.AI_MODEL,
			max_tokens: 8192,
			system: "Be brief.",
			messages: [{ role: "user", content: "Bonn" }],
			stream: true,
		});
	});

	it("may be cut off by its limit", async () => {
		reply(piece + end("max_tokens"), type);
		expect(await text()).toEqual(["Bonn"]);
	});

	it.each([
		["breaks off", piece],
		["is refused", piece + end("refusal")],
		["is empty", start + end("end_turn")],
		[
			"ends with an error",
			piece + event("error", { error: { message: "words of the provider" } }),
		],
		["is no JSON", `${piece}event: ping\ndata: words of the provider\n\n`],
	])("that %s is a 502", async (_, body) => {
		reply(body, type);
		await expect(text()).rejects.toMatchObject(failed);
		expect(log).toHaveBeenCalledTimes(1);
	});
});

//% endif
it.each(ways)("%s without a key is a 503 that names it", async (_, ask) => {
	env.ANTHROPIC_API_KEY = "";
	answer("{}");
	await expect(ask()).rejects.toMatchObject({
		status: 503,
		code: "model_not_configured",
		message: expect.stringContaining("ANTHROPIC_API_KEY"),
	});
	expect(asked).toEqual([]);
});

it.each(ways)("%s without a connection is a 502", async (_, ask) => {
	vi.spyOn(globalThis, "fetch").mockRejectedValue(new TypeError("Bonn"));
	await expect(ask()).rejects.toMatchObject(failed);
});

it.each(
	ways.flatMap((way) => [429, 529].map((status) => [...way, status] as const)),
)("%s is told when to come back", async (_, ask, status) => {
	failWith(status, { "Retry-After": "7", "request-id": "req_1" });
	await expect(ask()).rejects.toMatchObject({
		status: 503,
		headers: { "Retry-After": "7" },
	});
	const [[line = ""] = []] = log.mock.calls;
	expect(JSON.parse(line)).toMatchObject({ status, requestID: "req_1" });
});

it.each(ways)("%s comes from the API, or the gateway", async (_, ask) => {
	const fetched = reply("");
	await ask().catch(() => {});
	env.AI_GATEWAY_BASE_URL = "https://gateway.example/v1/anthropic";
	await ask().catch(() => {});
	expect(fetched.mock.calls.map(([url]) => url)).toEqual([
		"https://api.anthropic.com/v1/messages",
		"https://gateway.example/v1/anthropic/v1/messages",
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
	expect(first).not.toHaveProperty("thread");
	expect(first).toMatchObject({
		system: "Be brief.",
		tools: [{ name: "weather", input_schema: { type: "object" } }],
	});
	expect(second.messages.slice(1)).toMatchObject([
		{ role: "assistant", content: [{ type: "tool_use", id: "call_1" }] },
		{
			role: "user",
			content: [
				{ type: "tool_result", tool_use_id: "call_1", content: '"Sun"' },
			],
		},
	]);
});
//% endif
