// Stands in for Workers AI, at its binding; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { expect, vi } from "vitest";

/** What a call of the binding consists of. */
type Sent = { model: unknown; inputs: unknown };

/** What only Workers AI says, and no client and no log may repeat. */
export const SECRET_WORDS = "words of the provider";

/** What its 503 names when the provider is not configured. */
export const SETTING = "dev:online";

let sent: Sent[] = [];

function standIn(answer: (signal: AbortSignal) => unknown): void {
	sent = [];
	const run = async (model: unknown, inputs: unknown, options?: AiOptions) => {
		sent.push({ model, inputs });
		return answer(options?.signal ?? new AbortController().signal);
	};
	vi.spyOn(env.AI, "run").mockImplementation(run as typeof env.AI.run);
}

function expected(inputs: Record<string, unknown>): Sent {
	return {
		model: env.AI_MODEL,
		inputs: { max_tokens: expect.any(Number), ...inputs },
	};
}

/** The calls since the stand-in was last told what to answer. */
export function requests(): Sent[] {
	return sent;
}

/** Runs something while the provider is not configured. */
export function unconfigured<T>(run: () => Promise<T>): Promise<T> {
	// What it says wherever it is not on Cloudflare.
	standIn(() => {
		throw new Error("Binding AI needs to be run remotely");
	});
	return run();
}

function failWithCode(code: number): void {
	standIn(() => {
		throw new Error(`${code}: ${SECRET_WORDS}`);
	});
}

/** Lets Workers AI fail with a code that it documents for a status. */
export function failWith(status: number): void {
	failWithCode({ 400: 5007, 401: 5018, 429: 3040 }[status] ?? 3043);
}

/** Ways of too many requests, with the seconds that a client is told to wait. */
export const busy: [seconds: string, fail: () => void][] = [
	["60", () => failWithCode(3036)],
	["60", () => failWithCode(3040)],
];

/** Lets Workers AI be out of reach. */
export function failToConnect(): void {
	standIn(() => {
		throw new TypeError("Network connection lost.");
	});
}

/** Lets Workers AI take longer to answer than anybody waits. */
export function failToAnswer(): void {
	const { setTimeout } = globalThis;
	const soon = (run: () => void) => setTimeout(run, 10);
	vi.spyOn(globalThis, "setTimeout").mockImplementation(soon as never);
	const signalSoon = AbortSignal.timeout.bind(AbortSignal, 10);
	vi.spyOn(AbortSignal, "timeout").mockImplementation(signalSoon);
	standIn(
		(signal) =>
			new Promise((_, reject) => {
				signal.addEventListener("abort", () => reject(signal.reason));
			}),
	);
}

//% if "json" in models
/** What Workers AI documents as the request for JSON. */
export function jsonRequest(question: {
	instructions: string;
	text: string;
	name: string;
	schema: Record<string, unknown>;
}): Sent {
	const { instructions, text, schema } = question;
	return expected({
		messages: [
			{ role: "system", content: instructions },
			{ role: "user", content: text },
		],
		response_format: { type: "json_schema", json_schema: schema },
	});
}

/** Lets the model answer with a text that should be JSON. */
export function answerJson(response: string): void {
	standIn(() => ({ response }));
}

/** Ways in which models answer with JSON. */
export const jsonAnswers: Record<string, (json: string) => void> = {
	"as text": answerJson,
	"as an object": (json) => standIn(() => ({ response: JSON.parse(json) })),
	"as newer ones do": (content) =>
		standIn(() => ({ choices: [{ message: { content } }] })),
};

/** Ways in which Workers AI gives nothing to use. */
export const jsonFailures: Record<string, () => void> = {
	"no JSON that fits": () =>
		standIn(() => {
			throw new Error("5024: JSON Mode couldn't be met");
		}),
	"an answer that is cut off": () => answerJson('{"name":'),
	"no content": () => answerJson(""),
	"another shape": () => standIn(() => ({ text: SECRET_WORDS })),
	"nothing at all": () => standIn(() => null),
};

//% endif
//% if "text" in models
/** What Workers AI documents as the request for a streamed answer. */
export function textRequest(
	messages: { role: string; content: string }[],
): Sent {
	return expected({ messages, stream: true });
}

function event(response: unknown): string {
	return `data: ${JSON.stringify({ response })}\n\n`;
}

function streamEvents(...events: string[]): void {
	standIn(() => new Response(events.join("")).body);
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	streamEvents(...pieces.map(event), "data: [DONE]\n\n");
}

/**
 * Lets the model begin an answer and never end it.
 *
 * @returns Tells whether it has been stopped.
 */
export function answerForever(piece: string): () => boolean {
	let isStopped = false;
	standIn(
		(signal) =>
			new ReadableStream({
				start(controller) {
					controller.enqueue(new TextEncoder().encode(event(piece)));
					signal.addEventListener("abort", () => {
						controller.error(signal.reason);
						isStopped = true;
					});
				},
				cancel: () => {
					isStopped = true;
				},
			}),
	);
	return () => isStopped;
}

/** Ways in which a stream ends, after this piece, without being complete. */
export const textFailures: Record<string, (piece: string) => void> = {
	"the stream breaks off": (piece) => streamEvents(event(piece)),
	"a piece is no JSON": (piece) =>
		streamEvents(event(piece), `data: ${SECRET_WORDS}\n\n`),
};

//% endif
