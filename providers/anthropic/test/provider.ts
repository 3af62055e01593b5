// Stands in for Anthropic's API; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { expect } from "vitest";
// Takes long to load the first time, which no test should have to wait for.
import "@anthropic-ai/sdk";
import type { Sent } from "../../../base/sdk/test/api";
import * as api from "../../../base/sdk/test/api";

export {
	busy,
	failToAnswer,
	failToConnect,
	failWith,
	requests,
	SECRET_WORDS,
} from "../../../base/sdk/test/api";

/** What its 503 names when the provider is not configured. */
export const SETTING = "ANTHROPIC_API_KEY";

/** Runs something while the provider is not configured. */
export function unconfigured<T>(run: () => Promise<T>): Promise<T> {
	return api.withoutKey(SETTING, run);
}

function expected(body: Sent["body"]): Sent {
	return {
		url: "https://api.anthropic.com/v1/messages",
		key: `Bearer ${env.ANTHROPIC_API_KEY}`,
		body: { model: env.AI_MODEL, max_tokens: expect.any(Number), ...body },
	};
}

//% if "json" in models
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

/** Ways in which the API answers with 200 and yet with nothing to use. */
export const jsonFailures: Record<string, () => void> = {
	"a refusal": () =>
		complete([{ type: "text", text: api.SECRET_WORDS }], "refusal"),
	"an answer that is cut off": () =>
		complete([{ type: "text", text: '{"name":' }], "max_tokens"),
	"no content": () => complete([]),
	"another shape": () =>
		api.standIn(() => Response.json({ text: api.SECRET_WORDS })),
	"an answer that never ends": api.failToEnd,
	"no JSON": () => api.standIn(() => new Response(api.SECRET_WORDS)),
};

//% endif
//% if "text" in models
/** What the API documents as the request for a streamed answer. */
export function textRequest(
	messages: { role: string; content: string }[],
): Sent {
	const isSystem = ({ role }: { role: string }) => role === "system";
	const system = messages.filter(isSystem).map(({ content }) => content);
	return expected({
		system: system.join("\n\n"),
		messages: messages.filter((message) => !isSystem(message)),
		stream: true,
	});
}

function event(data: { type: string; [key: string]: unknown }): string {
	return `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`;
}

function textEvent(text: string): string {
	const delta = { type: "text_delta", text };
	return event({ type: "content_block_delta", index: 0, delta });
}

function endEvents(stop_reason: string): string {
	return (
		event({ type: "message_delta", delta: { stop_reason } }) +
		event({ type: "message_stop" })
	);
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	api.streamEvents(...pieces.map(textEvent), endEvents("end_turn"));
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
	"the stream breaks off": (piece) => api.streamEvents(textEvent(piece)),
	"the model refuses": (piece) =>
		api.streamEvents(textEvent(piece), endEvents("refusal")),
	"an error comes": (piece) =>
		api.streamEvents(
			textEvent(piece),
			event({ type: "error", error: { message: api.SECRET_WORDS } }),
		),
	"a piece is no JSON": (piece) =>
		api.streamEvents(
			textEvent(piece),
			`event: content_block_delta\ndata: ${api.SECRET_WORDS}\n\n`,
		),
};

//% endif
