// Stands in for a provider's API, at `fetch`; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { vi } from "vitest";

/** What a request to the API consists of. */
export type Sent = {
	url: string;
	key: string | null;
	body: Record<string, unknown>;
};

/** What only the API says, and no client and no log may repeat. */
export const SECRET_WORDS = "words of the provider";

let sent: Sent[] = [];

/**
 * Lets the API answer each request.
 *
 * @param answer Answers, until its signal aborts. Gets the number of the request,
 * from 1.
 */
export function standIn(
	answer: (signal: AbortSignal, number: number) => Response | Promise<Response>,
): void {
	sent = [];
	vi.spyOn(globalThis, "fetch").mockImplementation(async (...call) => {
		const request = new Request(...call);
		const body = await request.json<Sent["body"]>();
		const key = request.headers.get("Authorization");
		sent.push({ url: request.url, key, body });
		return answer(request.signal, sent.length);
	});
}

/** The requests since the stand-in was last told what to answer. */
export function requests(): Sent[] {
	return sent;
}

/** Runs something while the provider's key is not set. */
export async function withoutKey<T>(
	name: keyof Env & `${string}_API_KEY`,
	run: () => Promise<T>,
): Promise<T> {
	const key = env[name];
	env[name] = "";
	try {
		return await run();
	} finally {
		env[name] = key;
	}
}

// With what any provider's errors have.
function fail(status: number, headers: Record<string, string> = {}): void {
	const error = { message: SECRET_WORDS, type: "error", code: "error" };
	const ids = { "request-id": "req_1", "x-request-id": "req_1" };
	standIn(() =>
		Response.json(
			{ type: "error", error },
			{ status, headers: { ...ids, ...headers } },
		),
	);
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
	["60", () => fail(429, { "Retry-After": "123456" })],
	["60", () => fail(429)],
	["60", () => fail(529)],
];

/** Ways of refusing a request, which may be too long for the model. */
export const refusals: Record<string, () => void> = {
	"with 400": () => fail(400),
	"with 413": () => fail(413),
	"with 422": () => fail(422),
};

/** Lets the API be out of reach. */
export function failToConnect(): void {
	standIn(() => {
		throw new TypeError("Network connection lost.");
	});
}

/** Lets the two minutes that an answer may take pass at once. */
export function hurry(): void {
	const { setTimeout } = globalThis;
	const soon = (run: () => void, ms: number) =>
		setTimeout(run, ms === 120_000 ? 10 : ms);
	vi.spyOn(globalThis, "setTimeout").mockImplementation(soon as never);
}

/** Lets the API take longer to answer than anybody waits. */
export function failToAnswer(): void {
	hurry();
	standIn(
		(signal) =>
			new Promise((_, reject) => {
				signal.addEventListener("abort", () => reject(signal.reason));
			}),
	);
}

/**
 * Lets the API begin an answer with this text and never end it.
 *
 * @returns Tells whether it has been stopped.
 */
export function answerWithoutEnd(type: string, text: string): () => boolean {
	let isStopped = false;
	standIn((signal) => {
		const body = new ReadableStream({
			start(controller) {
				controller.enqueue(new TextEncoder().encode(text));
				signal.addEventListener("abort", () => {
					controller.error(signal.reason);
					isStopped = true;
				});
			},
			cancel: () => {
				isStopped = true;
			},
		});
		return new Response(body, { headers: { "Content-Type": type } });
	});
	return () => isStopped;
}

/** Lets the API begin an answer that takes longer than anybody waits. */
export function failToEnd(type: string, text: string): void {
	hurry();
	answerWithoutEnd(type, text);
}

/** Lets the API answer with server-sent events, by the number of the request. */
export function streamEvents(events: (number: number) => string[]): void {
	const headers = { "Content-Type": "text/event-stream" };
	standIn((_, number) => new Response(events(number).join(""), { headers }));
}
