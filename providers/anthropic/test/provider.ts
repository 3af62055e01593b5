// Stands in for Anthropic's API; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
// Takes long to load the first time, which no test should have to wait for.
import "@anthropic-ai/sdk";
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
export const SETTING = "ANTHROPIC_API_KEY";

/** What a log line tells of a failure with a status. */
export function failureFields(status: number): Record<string, unknown> {
	return { provider: "anthropic", status, requestID: "req_1" };
}

/** Runs something while the provider is not configured. */
export function unconfigured<T>(run: () => Promise<T>): Promise<T> {
	return api.withoutKey(SETTING, run);
}

function expected(body: Sent["body"]): Sent {
	return {
		url: "https://api.anthropic.com/v1/messages",
		key: `Bearer ${env.ANTHROPIC_API_KEY}`,
		body: { model: env.AI_MODEL, max_tokens: 8192, ...body },
	};
}

/** What the API documents as the request for JSON. */
export function jsonRequest(question: {
	instructions: string;
	text: string;
	name: string;
	schema: Record<string, unknown>;
}): Sent {
	const { instructions, text, schema } = question;
	return expected({
		system: instructions,
		messages: [{ role: "user", content: text }],
		output_config: { format: { type: "json_schema", schema } },
	});
}

function complete(content: object[], stop_reason = "end_turn"): void {
	api.standIn(() =>
		Response.json({
			id: "msg_1",
			type: "message",
			role: "assistant",
			content,
			stop_reason,
		}),
	);
}

/** Lets the model answer with a text that should be JSON. */
export function answerJson(text: string): void {
	complete([{ type: "text", text }]);
}

/** Ways in which the API answers with JSON. */
export const jsonAnswers: Record<string, (json: string) => void> = {
	"as text": answerJson,
	"after its thoughts": (text) =>
		complete([
			{ type: "thinking", thinking: api.SECRET_WORDS, signature: "" },
			{ type: "text", text },
		]),
};

/** Ways in which the API answers with 200, and yet not with this JSON. */
export const jsonFailures: Record<string, (json: string) => void> = {
	"a refusal": (text) => complete([{ type: "text", text }], "refusal"),
	"an answer that is cut off": (text) =>
		complete([{ type: "text", text }], "max_tokens"),
	"no content": () => complete([]),
	"thoughts alone": (thinking) =>
		complete([{ type: "thinking", thinking, signature: "" }]),
	"another shape": () =>
		api.standIn(() => Response.json({ text: api.SECRET_WORDS })),
	"an answer that never ends": () => api.failToEnd("application/json", "{"),
	"no JSON": () => api.standIn(() => new Response(api.SECRET_WORDS)),
};

/** A tool, as the model is told of it. */
type Described = {
	name: string;
	description: string;
	schema: Record<string, unknown>;
};

/** A call of a tool, and what it returned. */
type Called = { name: string; input: unknown; output: string };

/** What the API documents as the request for a streamed answer. */
export function textRequest(
	messages: { role: string; content: string }[],
	tools: Described[] = [],
	rounds: Called[][] = [],
): Sent {
	const isSystem = ({ role }: { role: string }) => role === "system";
	const system = messages.filter(isSystem).map(({ content }) => content);
	const called = rounds.flatMap((calls) => [
		{
			role: "assistant",
			content: [
				THOUGHT,
				...calls.map(({ name, input }, index) => ({
					type: "tool_use",
					id: `call_${index}`,
					name,
					input,
				})),
			],
		},
		{
			role: "user",
			content: calls.map(({ output }, index) => ({
				type: "tool_result",
				tool_use_id: `call_${index}`,
				content: output,
			})),
		},
	]);
	const described = tools.map(({ name, description, schema }) => ({
		name,
		description,
		input_schema: schema,
	}));
	return expected({
		system: system.join("\n\n"),
		messages: [...messages.filter((message) => !isSystem(message)), ...called],
		stream: true,
		...(tools.length > 0 && { tools: described }),
	});
}

function event(data: { type: string; [key: string]: unknown }): string {
	return `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`;
}

const START = event({
	type: "message_start",
	message: {
		id: "msg_1",
		type: "message",
		role: "assistant",
		content: [],
		stop_reason: null,
		usage: { input_tokens: 1, output_tokens: 1 },
	},
});

// A block of content: how it begins, and what is added to it.
function block(index: number, content_block: object, ...deltas: object[]) {
	return [
		event({ type: "content_block_start", index, content_block }),
		...deltas.map((delta) =>
			event({ type: "content_block_delta", index, delta }),
		),
		event({ type: "content_block_stop", index }),
	].join("");
}

function textBlock(index: number, ...pieces: string[]): string {
	const deltas = pieces.map((text) => ({ type: "text_delta", text }));
	return block(index, { type: "text", text: "" }, ...deltas);
}

/** What the model thinks before it calls a tool; the API wants it back. */
const THOUGHT = {
	type: "thinking",
	thinking: api.SECRET_WORDS,
	signature: "signed",
};

function thoughtBlock(index: number): string {
	const { type, thinking, signature } = THOUGHT;
	return block(
		index,
		{ type, thinking: "", signature: "" },
		{ type: "thinking_delta", thinking },
		{ type: "signature_delta", signature },
	);
}

// Its input comes in pieces, cut anywhere.
function toolBlock(index: number, [name, input]: Call, id: string): string {
	const text = JSON.stringify(input);
	return block(
		index,
		{ type: "tool_use", id, name, input: {} },
		{ type: "input_json_delta", partial_json: text.slice(0, 3) },
		{ type: "input_json_delta", partial_json: text.slice(3) },
	);
}

function endEvents(stop_reason: string): string {
	return (
		event({
			type: "message_delta",
			delta: { stop_reason },
			usage: { output_tokens: 1 },
		}) + event({ type: "message_stop" })
	);
}

// An answer that is text alone.
function answer(pieces: string[], stop_reason: string): string[] {
	return [START, textBlock(0, ...pieces), endEvents(stop_reason)];
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	api.streamEvents(() => answer(pieces, "end_turn"));
}

/** Ways in which the API answers with these pieces. */
export const textAnswers: Record<string, (...pieces: string[]) => void> = {
	"in pieces": answerText,
};

/** Lets the model answer with these pieces, and reach its limit. */
export function answerTruncated(...pieces: string[]): void {
	api.streamEvents(() => answer(pieces, "max_tokens"));
}

/** Ways of saying that the model has reached its limit. */
export const truncations: Record<string, (...pieces: string[]) => void> = {
	"with max_tokens": answerTruncated,
	"with model_context_window_exceeded": (...pieces) =>
		api.streamEvents(() => answer(pieces, "model_context_window_exceeded")),
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
	const called = calls.map((call, index) =>
		toolBlock(index + 1, call, `call_${index}`),
	);
	api.streamEvents((number) =>
		number === 1 || pieces.length === 0
			? [START, thoughtBlock(0), ...called, endEvents("tool_use")]
			: answer(pieces, "end_turn"),
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
	"after its thoughts": answerTools,
};

/** Lets the model reach its limit in the middle of a call. */
export function answerTruncatedTool(name: string, ...pieces: string[]): void {
	api.streamEvents(() => [
		START,
		textBlock(0, ...pieces),
		toolBlock(1, [name, {}], "call_0"),
		endEvents("max_tokens"),
	]);
}

// An answer up to its first piece.
function beginning(text: string): string {
	return (
		START +
		event({
			type: "content_block_start",
			index: 0,
			content_block: { type: "text", text: "" },
		}) +
		event({
			type: "content_block_delta",
			index: 0,
			delta: { type: "text_delta", text },
		})
	);
}

/**
 * Lets the model begin an answer and never end it.
 *
 * @returns Tells whether it has been stopped.
 */
export function answerForever(piece: string): () => boolean {
	return api.answerWithoutEnd("text/event-stream", beginning(piece));
}

/** Ways in which a stream ends, after this piece, without being complete. */
export const textFailures: Record<string, (piece: string) => void> = {
	"the stream breaks off": (piece) =>
		api.streamEvents(() => [beginning(piece)]),
	"the stream never ends": (piece) =>
		api.failToEnd("text/event-stream", beginning(piece)),
	"the model refuses": (piece) =>
		api.streamEvents(() => answer([piece], "refusal")),
	"an error comes": (piece) =>
		api.streamEvents(() => [
			beginning(piece),
			event({ type: "error", error: { message: api.SECRET_WORDS } }),
		]),
	"a piece is no JSON": (piece) =>
		api.streamEvents(() => [
			beginning(piece),
			`event: content_block_delta\ndata: ${api.SECRET_WORDS}\n\n`,
		]),
};
