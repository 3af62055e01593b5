// Stands in for OpenAI's API; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { expect } from "vitest";
// Takes long to load the first time, which no test should have to wait for.
import "openai";
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
export const SETTING = "OPENAI_API_KEY";

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
			max_completion_tokens: expect.any(Number),
			...body,
		},
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

/** Ways in which the API answers with 200 and yet with nothing to use. */
export const jsonFailures: Record<string, () => void> = {
	"a refusal": () =>
		complete({ role: "assistant", content: null, refusal: api.SECRET_WORDS }),
	"a filtered answer": () =>
		complete({ role: "assistant", content: "{}" }, "content_filter"),
	"an answer that is cut off": () =>
		complete({ role: "assistant", content: '{"name":' }, "length"),
	"no content": () => answerJson(""),
	"no choice": () => api.standIn(() => Response.json({ choices: [] })),
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
	return expected({ messages, stream: true });
}

function event(choice: object): string {
	return `data: ${JSON.stringify({ choices: [choice] })}\n\n`;
}

function textEvent(content: string): string {
	return event({ delta: { content } });
}

function endEvents(finish_reason: string): string {
	return `${event({ delta: {}, finish_reason })}data: [DONE]\n\n`;
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	api.streamEvents(...pieces.map(textEvent), endEvents("stop"));
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
	"the answer is filtered": (piece) =>
		api.streamEvents(textEvent(piece), endEvents("content_filter")),
	"an error comes": (piece) =>
		api.streamEvents(
			textEvent(piece),
			`data: ${JSON.stringify({ error: { message: api.SECRET_WORDS } })}\n\n`,
		),
	"a piece is no JSON": (piece) =>
		api.streamEvents(textEvent(piece), `data: ${api.SECRET_WORDS}\n\n`),
};

//% endif
