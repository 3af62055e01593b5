// Stands in for OpenAI's API; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
// Takes long to load the first time, which no test should have to wait for.
import "openai";
import type { Sent } from "../../../base/sdk/test/api";
import * as api from "../../../base/sdk/test/api";

export {
	busy,
	failToAnswer,
	failToConnect,
	failWith,
	hurry,
	refusals,
	requests,
	SECRET_WORDS,
} from "../../../base/sdk/test/api";

/** What its 503 names when the provider is not configured. */
export const SETTING = "OPENAI_API_KEY";

/** What a log line tells of a failure with a status. */
export function failureFields(status: number): Record<string, unknown> {
	return { provider: "openai", status, code: "error", requestID: "req_1" };
}

/** Runs something while the provider is not configured. */
export function unconfigured<T>(run: () => Promise<T>): Promise<T> {
	return api.withoutKey(SETTING, run);
}

function expected(body: Sent["body"]): Sent {
	return {
		url: "https://api.openai.com/v1/chat/completions",
		key: `Bearer ${env.OPENAI_API_KEY}`,
		body: {
			model: env.AI_MODEL,
			max_completion_tokens: 8192,
			...body,
		},
	};
}

/** What the API documents as the request for JSON. */
export function jsonRequest(question: {
	instructions: string;
	text: string;
	name: string;
	schema: Record<string, unknown>;
}): Sent {
	const { instructions, text, name, schema } = question;
	return expected({
		messages: [
			{ role: "system", content: instructions },
			{ role: "user", content: text },
		],
		response_format: {
			type: "json_schema",
			json_schema: { name, strict: true, schema },
		},
	});
}

function complete(message: object, finish_reason = "stop"): void {
	api.standIn(() =>
		Response.json({
			id: "chatcmpl-1",
			object: "chat.completion",
			choices: [{ index: 0, message, finish_reason }],
		}),
	);
}

/** Lets the model answer with a text that should be JSON. */
export function answerJson(content: string): void {
	complete({ role: "assistant", content, refusal: null });
}

/** Ways in which the API answers with JSON. */
export const jsonAnswers: Record<string, (json: string) => void> = {
	"as text": answerJson,
};

/** Ways in which the API answers with 200, and yet not with this JSON. */
export const jsonFailures: Record<string, (json: string) => void> = {
	"a refusal": (content) =>
		complete({ role: "assistant", content, refusal: api.SECRET_WORDS }),
	"a filtered answer": (content) =>
		complete({ role: "assistant", content }, "content_filter"),
	"an answer that is cut off": (content) =>
		complete({ role: "assistant", content }, "length"),
	"no content": () => answerJson(""),
	"no choice": () => api.standIn(() => Response.json({ choices: [] })),
	"another shape": () =>
		api.standIn(() => Response.json({ text: api.SECRET_WORDS })),
	"an answer that never ends": () => api.failToEnd("application/json", "{"),
	"no JSON": () => api.standIn(() => new Response(api.SECRET_WORDS)),
};

/** What the API documents as the request for a streamed answer. */
export function textRequest(
	messages: { role: string; content: string }[],
	tools: Described[] = [],
	rounds: Called[][] = [],
): Sent {
	const functions = tools.map(({ name, description, schema }) => ({
		type: "function",
		function: { name, description, parameters: schema },
	}));
	const called = rounds.flatMap((calls) => [
		{
			role: "assistant",
			content: "",
			tool_calls: calls.map(({ name, input }, index) => ({
				id: `call_${index}`,
				type: "function",
				function: { name, arguments: JSON.stringify(input) },
			})),
		},
		...calls.map(({ output }, index) => ({
			role: "tool",
			tool_call_id: `call_${index}`,
			content: output,
		})),
	]);
	return expected({
		messages: [...messages, ...called],
		stream: true,
		...(tools.length > 0 && { tools: functions, reasoning_effort: "none" }),
	});
}

/** A tool, as the model is told of it. */
type Described = {
	name: string;
	description: string;
	schema: Record<string, unknown>;
};

/** A call of a tool, and what it returned. */
type Called = { name: string; input: unknown; output: string };

function event(choice: object): string {
	return `data: ${JSON.stringify({ choices: [choice] })}\n\n`;
}

function textEvent(content: string): string {
	return event({ delta: { content } });
}

function endEvents(finish_reason: string): string {
	return `${event({ delta: {}, finish_reason })}data: [DONE]\n\n`;
}

// A call comes in pieces: first its name, then its input, cut anywhere.
function toolEvents([name, input]: Call, index: number): string[] {
	const text = typeof input === "string" ? input : JSON.stringify(input);
	const pieces: object[] = [
		{
			id: `call_${index}`,
			type: "function",
			function: { name, arguments: "" },
		},
		{ function: { arguments: text.slice(0, 3) } },
		{ function: { arguments: text.slice(3) } },
	];
	return pieces.map((piece) =>
		event({ delta: { tool_calls: [{ index, ...piece }] } }),
	);
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	api.streamEvents(() => [...pieces.map(textEvent), endEvents("stop")]);
}

/** Ways in which the API answers with these pieces. */
export const textAnswers: Record<string, (...pieces: string[]) => void> = {
	"in pieces": answerText,
	"with chunks that say nothing": (...pieces) =>
		api.streamEvents(() => [
			'data: {"object":"ping"}\n\n',
			event({}),
			...pieces.map(textEvent),
			endEvents("stop"),
		]),
};

/** Lets the model answer with these pieces, and reach its limit. */
export function answerTruncated(...pieces: string[]): void {
	api.streamEvents(() => [...pieces.map(textEvent), endEvents("length")]);
}

/** Ways of saying that the model has reached its limit. */
export const truncations: Record<string, (...pieces: string[]) => void> = {
	"with length": answerTruncated,
};

/** A call of a tool: its name and its input, which is no JSON as a string. */
type Call = [name: string, input: unknown];

/**
 * Lets the model call tools, and then answer.
 *
 * @param calls The calls, all in one round.
 * @param pieces The answer; without one, it makes the same calls again.
 */
export function answerTools(calls: Call[], ...pieces: string[]): void {
	api.streamEvents((number) =>
		number === 1 || pieces.length === 0
			? [...calls.flatMap(toolEvents), endEvents("tool_calls")]
			: [...pieces.map(textEvent), endEvents("stop")],
	);
}

/** Lets the model call one tool, and then answer with these pieces. */
export function answerTool(
	name: string,
	input: unknown,
	...pieces: string[]
): void {
	answerTools([[name, input]], ...pieces);
}

/** Ways in which the API says that the model calls tools. */
export const toolAnswers: Record<
	string,
	(calls: Call[], ...pieces: string[]) => void
> = {
	"in pieces": answerTools,
};

/** Lets the model reach its limit in the middle of a call. */
export function answerTruncatedTool(name: string, ...pieces: string[]): void {
	const [start = ""] = toolEvents([name, {}], 0);
	api.streamEvents(() => [
		...pieces.map(textEvent),
		start,
		endEvents("length"),
	]);
}

/**
 * Lets the model begin an answer and never end it.
 *
 * @returns Tells whether it has been stopped.
 */
export function answerForever(piece: string): () => boolean {
	return api.answerWithoutEnd("text/event-stream", textEvent(piece));
}

/** Ways in which a stream ends, after this piece, without being complete. */
export const textFailures: Record<string, (piece: string) => void> = {
	"the stream breaks off": (piece) =>
		api.streamEvents(() => [textEvent(piece)]),
	"the stream never ends": (piece) =>
		api.failToEnd("text/event-stream", textEvent(piece)),
	"the answer is filtered": (piece) =>
		api.streamEvents(() => [textEvent(piece), endEvents("content_filter")]),
	"an error comes": (piece) =>
		api.streamEvents(() => [
			textEvent(piece),
			`data: ${JSON.stringify({ error: { message: api.SECRET_WORDS } })}\n\n`,
		]),
	"a piece is no JSON": (piece) =>
		api.streamEvents(() => [textEvent(piece), `data: ${api.SECRET_WORDS}\n\n`]),
};
