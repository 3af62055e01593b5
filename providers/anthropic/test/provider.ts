// Stands in for Anthropic's API, at `fetch`; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";
// Takes long to load the first time, which no test should have to wait for.
import "@anthropic-ai/sdk";

/** What a request to the API consists of. */
type Sent = { url: string; key: string | null; body: Record<string, unknown> };

/** What only the API says, and no client and no log may repeat. */
export const SECRET_WORDS = "words of the provider";

/** What its 503 names when the provider is not configured. */
export const SETTING = "ANTHROPIC_API_KEY";

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
		url: "https://api.anthropic.com/v1/messages",
		key: `Bearer ${env.ANTHROPIC_API_KEY}`,
		body: { model: env.AI_MODEL, max_tokens: expect.any(Number), ...body },
	};
}

/** The requests since the stand-in was last told what to answer. */
export function requests(): Sent[] {
	return sent;
}

/** Runs something while the provider is not configured. */
export async function unconfigured<T>(run: () => Promise<T>): Promise<T> {
	const key = env.ANTHROPIC_API_KEY;
	env.ANTHROPIC_API_KEY = "";
	try {
		return await run();
	} finally {
		env.ANTHROPIC_API_KEY = key;
	}
}

function fail(status: number, headers: Record<string, string> = {}): void {
	const error = { type: "error", message: SECRET_WORDS };
	standIn(() => Response.json({ type: "error", error }, { status, headers }));
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
	const { instructions, text, schema } = question;
	return expected({
		system: instructions,
		messages: [{ role: "user", content: text }],
		output_config: { format: { type: "json_schema", schema } },
	});
}

function complete(content: object[], stop_reason = "end_turn"): void {
	standIn(() =>
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
			{ type: "thinking", thinking: SECRET_WORDS, signature: "" },
			{ type: "text", text },
		]),
};

/** Ways in which the API answers with 200 and yet with nothing to use. */
export const jsonFailures: Record<string, () => void> = {
	"a refusal": () =>
		complete([{ type: "text", text: SECRET_WORDS }], "refusal"),
	"an answer that is cut off": () =>
		complete([{ type: "text", text: '{"name":' }], "max_tokens"),
	"no content": () => complete([]),
	"another shape": () => standIn(() => Response.json({ text: SECRET_WORDS })),
	"no JSON": () => standIn(() => new Response(SECRET_WORDS)),
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

function streamEvents(...events: string[]): void {
	standIn(
		() =>
			new Response(events.join(""), {
				headers: { "Content-Type": "text/event-stream" },
			}),
	);
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	streamEvents(...pieces.map(textEvent), endEvents("end_turn"));
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
				controller.enqueue(new TextEncoder().encode(textEvent(piece)));
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
	"the stream breaks off": (piece) => streamEvents(textEvent(piece)),
	"the model refuses": (piece) =>
		streamEvents(textEvent(piece), endEvents("refusal")),
	"an error comes": (piece) =>
		streamEvents(
			textEvent(piece),
			event({ type: "error", error: { message: SECRET_WORDS } }),
		),
	"a piece is no JSON": (piece) =>
		streamEvents(
			textEvent(piece),
			`event: content_block_delta\ndata: ${SECRET_WORDS}\n\n`,
		),
};

//% endif
