// Stands in for OpenAI's API, at `fetch`; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
// Takes long to load the first time, which no test should have to wait for.
import "openai";

/** What a request to the API consists of. */
type Sent = { url: string; key: string | null; body: Record<string, unknown> };

/** What only the API says, and no client and no log may repeat. */
export const SECRET_WORDS = "words of the provider";

/** What its 503 names when the provider is not configured. */
export const SETTING = "OPENAI_API_KEY";

let sent: Sent[] = [];

function standIn(
	answer: (
		body: Sent["body"],
		signal: AbortSignal,
	) => Response | Promise<Response>,
): void {
	sent = [];
	vi.spyOn(globalThis, "fetch").mockImplementation(async (...call) => {
		const request = new Request(...call);
		const body = await request.json<Sent["body"]>();
		const key = request.headers.get("Authorization");
		sent.push({ url: request.url, key, body });
		return answer(body, request.signal);
	});
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

/** The requests since the stand-in was last told what to answer. */
export function requests(): Sent[] {
	return sent;
}

/** Runs something while the provider is not configured. */
export async function unconfigured<T>(run: () => Promise<T>): Promise<T> {
	const key = env.OPENAI_API_KEY;
	env.OPENAI_API_KEY = "";
	try {
		return await run();
	} finally {
		env.OPENAI_API_KEY = key;
	}
}

function fail(status: number, headers: Record<string, string> = {}): void {
	const error = { message: SECRET_WORDS, type: "error", code: "error" };
	standIn(() => Response.json({ error }, { status, headers }));
}

/** Lets the API answer with an error. */
export function failWith(status: number): void {
	fail(status);
}

/** Ways of too many requests, with the seconds that a client is told to wait. */
export const busy: [seconds: string, fail: () => void][] = [
	["7", () => fail(429, { "Retry-After": "7" })],
	["60", () => fail(429, { "Retry-After": new Date().toUTCString() })],
	["60", () => fail(429, { "Retry-After": "-1" })],
	["60", () => fail(429)],
];

/** Lets the API be out of reach. */
export function failToConnect(): void {
	standIn(() => {
		throw new TypeError("Network connection lost.");
	});
}

/** Lets the API take longer to answer than anybody waits. */
export function failToAnswer(): void {
	const { setTimeout } = globalThis;
	const soon = (run: () => void) => setTimeout(run, 10);
	vi.spyOn(globalThis, "setTimeout").mockImplementation(soon as never);
	standIn(
		(_, signal) =>
			new Promise((_, reject) => {
				signal.addEventListener("abort", () => reject(signal.reason));
			}),
	);
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
	standIn(() =>
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
		complete({ role: "assistant", content: null, refusal: SECRET_WORDS }),
	"a filtered answer": () =>
		complete({ role: "assistant", content: "{}" }, "content_filter"),
	"an answer that is cut off": () =>
		complete({ role: "assistant", content: '{"name":' }, "length"),
	"no content": () => answerJson(""),
	"no choice": () => standIn(() => Response.json({ choices: [] })),
	"another shape": () => standIn(() => Response.json({ text: SECRET_WORDS })),
	"no JSON": () => standIn(() => new Response(SECRET_WORDS)),
};

//% endif
//% if "text" in models
/** What the API documents as the request for a streamed answer. */
export function textRequest(
	messages: { role: string; content: string }[],
): Sent {
	return expected({ messages, stream: true });
}

function events(...choices: object[]): string[] {
	return choices.map(
		(choice) => `data: ${JSON.stringify({ choices: [choice] })}\n\n`,
	);
}

function streamEvents(...lines: string[]): void {
	standIn(
		() =>
			new Response(lines.join(""), {
				headers: { "Content-Type": "text/event-stream" },
			}),
	);
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	streamEvents(
		...events(...pieces.map((content) => ({ delta: { content } })), {
			delta: {},
			finish_reason: "stop",
		}),
		"data: [DONE]\n\n",
	);
}

/**
 * Lets the model begin an answer and never end it.
 *
 * @returns Tells whether it has been stopped.
 */
export function answerForever(piece: string): () => boolean {
	let isStopped = false;
	standIn((_, signal) => {
		const body = new ReadableStream({
			start(controller) {
				const [event] = events({ delta: { content: piece } });
				controller.enqueue(new TextEncoder().encode(event));
				signal.addEventListener("abort", () => {
					controller.error(signal.reason);
					isStopped = true;
				});
			},
			cancel: () => {
				isStopped = true;
			},
		});
		const headers = { "Content-Type": "text/event-stream" };
		return new Response(body, { headers });
	});
	return () => isStopped;
}

/** Ways in which a stream ends, after this piece, without being complete. */
export const textFailures: Record<string, (piece: string) => void> = {
	"the stream breaks off": (content) =>
		streamEvents(...events({ delta: { content } })),
	"the answer is filtered": (content) =>
		streamEvents(
			...events(
				{ delta: { content } },
				{ delta: {}, finish_reason: "content_filter" },
			),
			"data: [DONE]\n\n",
		),
	"an error comes": (content) =>
		streamEvents(
			...events({ delta: { content } }),
			`data: ${JSON.stringify({ error: { message: SECRET_WORDS } })}\n\n`,
		),
	"a piece is no JSON": (content) =>
		streamEvents(
			...events({ delta: { content } }),
			`data: ${SECRET_WORDS}\n\n`,
		),
};

//% endif
