// Stands in for Workers AI, at its binding; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { vi } from "vitest";

/** What a call of the binding consists of. */
type Sent = { model: unknown; inputs: unknown };

/** What only Workers AI says, and no client and no log may repeat. */
export const SECRET_WORDS = "words of the provider";

/** What its 503 names when the provider is not configured. */
export const SETTING = "dev:online";

type AiRun = (model: unknown, inputs: unknown, options?: AiOptions) => unknown;

const real = env.AI.run.bind(env.AI);

let sent: Sent[] = [];

// Gets the number of the call, from 1. Stands in for the model alone: other ones,
// such as that of a search, are asked as before.
function standIn(
	answer: (signal: AbortSignal, number: number) => unknown,
): void {
	sent = [];
	const spy = vi.spyOn(env.AI, "run");
	const before = (spy.getMockImplementation() ?? real) as AiRun;
	const run = async (model: unknown, inputs: unknown, options?: AiOptions) => {
		if (model !== env.AI_MODEL) {
			return before(model, inputs, options);
		}
		sent.push({ model, inputs: structuredClone(inputs) });
		const signal = options?.signal ?? new AbortController().signal;
		return answer(signal, sent.length);
	};
	spy.mockImplementation(run as typeof env.AI.run);
}

function expected(inputs: Record<string, unknown>): Sent {
	return {
		model: env.AI_MODEL,
		inputs: { max_tokens: 4096, ...inputs },
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

function failWithCode(code: number, before = ""): void {
	standIn(() => {
		throw new Error(`${before}${code}: ${SECRET_WORDS}`);
	});
}

// A code that Workers AI has for a status.
function codeOf(status: number): number {
	return { 400: 3003, 401: 5018, 413: 3006, 429: 3040 }[status] ?? 3043;
}

/** Lets Workers AI fail with a code that it has for a status. */
export function failWith(status: number): void {
	failWithCode(codeOf(status));
}

/** What a log line tells of a failure with a status. */
export function failureFields(status: number): Record<string, unknown> {
	return { provider: "workers-ai", code: String(codeOf(status)) };
}

/** Ways of refusing a request, which may be too long for the model. */
export const refusals: Record<string, () => void> = {
	"with 3003": () => failWithCode(3003),
	"with 3006": () => failWithCode(3006),
	"with 3010": () => failWithCode(3010),
	"with 5004": () => failWithCode(5004),
	"with 5021": () => failWithCode(5021),
	"without a code": () =>
		standIn(() => {
			throw new Error("This model's maximum context length is 8 tokens.");
		}),
};

/** Ways of too many requests, with the seconds that a client is told to wait. */
export const busy: [seconds: string, fail: () => void][] = [
	["60", () => failWithCode(3036)],
	["60", () => failWithCode(3040)],
	["60", () => failWithCode(3040, "InferenceUpstreamError: ")],
];

/** Lets Workers AI be out of reach. */
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

/** Lets Workers AI take longer to answer than anybody waits. */
export function failToAnswer(): void {
	hurry();
	standIn(
		(signal) =>
			new Promise((_, reject) => {
				signal.addEventListener("abort", () => reject(signal.reason));
			}),
	);
}

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
export const jsonFailures: Record<string, (json: string) => void> = {
	"no JSON that fits": () =>
		standIn(() => {
			throw new Error("5024: JSON Mode couldn't be met");
		}),
	"an answer that is cut off": (json) => answerJson(json.slice(0, -1)),
	"no content": () => answerJson(""),
	"another shape": () => standIn(() => ({ text: SECRET_WORDS })),
	"nothing at all": () => standIn(() => null),
};

/** A tool, as the model is told of it. */
type Described = {
	name: string;
	description: string;
	schema: Record<string, unknown>;
};

/** A call of a tool, and what it returned. */
type Called = { name: string; input: unknown; output: string };

/** What Workers AI documents as the request for a streamed answer. */
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
		...calls.map(({ name, output }, index) => ({
			role: "tool",
			tool_call_id: `call_${index}`,
			name,
			content: output,
		})),
	]);
	return expected({
		messages: [...messages, ...called],
		stream: true,
		...(tools.length > 0 && { tools: functions }),
	});
}

function event(piece: object): string {
	return `data: ${JSON.stringify(piece)}\n\n`;
}

function textEvent(response: string): string {
	return event({ response });
}

function endEvents(tokens = 1): string {
	const usage = { completion_tokens: tokens };
	return `${event({ response: "", usage })}data: [DONE]\n\n`;
}

function streamEvents(events: (number: number) => string[]): void {
	standIn((_, number) => new Response(events(number).join("")).body);
}

/** Lets the model answer with these pieces, streamed. */
export function answerText(...pieces: string[]): void {
	streamEvents(() => [...pieces.map(textEvent), endEvents()]);
}

/** Ways in which models answer with these pieces. */
export const textAnswers: Record<string, (...pieces: string[]) => void> = {
	"as older ones do": answerText,
	"with numbers": (...pieces) =>
		streamEvents(() => [
			...pieces.map((piece) =>
				event({ response: /^\d$/.test(piece) ? Number(piece) : piece }),
			),
			endEvents(),
		]),
	"as newer ones do": (...pieces) =>
		streamEvents(() => [
			...pieces.map((content) => event({ choices: [{ delta: { content } }] })),
			event({ choices: [{ delta: {}, finish_reason: "stop" }] }),
			"data: [DONE]\n\n",
		]),
	"byte by byte": (...pieces) =>
		standIn(() => {
			const text = [...pieces.map(textEvent), endEvents()].join("");
			const bytes = [...new TextEncoder().encode(text)];
			return new ReadableStream({
				start(controller) {
					for (const byte of bytes) {
						controller.enqueue(new Uint8Array([byte]));
					}
					controller.close();
				},
			});
		}),
	"without a stream": (...pieces) =>
		standIn(() => ({ response: pieces.join("") })),
};

/** Lets the model answer with these pieces, and reach its limit. */
export function answerTruncated(...pieces: string[]): void {
	streamEvents(() => [...pieces.map(textEvent), endEvents(4096)]);
}

/** Ways of saying that the model has reached its limit. */
export const truncations: Record<string, (...pieces: string[]) => void> = {
	"with its tokens": answerTruncated,
	"with length": (...pieces) =>
		streamEvents(() => [
			...pieces.map(textEvent),
			event({ response: "", finish_reason: "length" }),
			"data: [DONE]\n\n",
		]),
};

/** A call of a tool: its name and its input, which is no JSON as a string. */
type Call = [name: string, input: unknown];

// The first answer, and the pieces of those that follow, if there are some.
function answerFirst(events: string[], pieces: string[]): void {
	streamEvents((number) =>
		number === 1 || pieces.length === 0
			? [...events, endEvents()]
			: [...pieces.map(textEvent), endEvents()],
	);
}

/**
 * Lets the model call tools, and then answer.
 *
 * @param calls The calls, all in one round.
 * @param pieces The answer; without one, it makes the same calls again.
 */
export function answerTools(calls: Call[], ...pieces: string[]): void {
	const tool_calls = calls.map(([name, input]) => ({ name, arguments: input }));
	answerFirst([event({ response: "", tool_calls })], pieces);
}

/** Lets the model call one tool, and then answer with these pieces. */
export function answerTool(
	name: string,
	input: unknown,
	...pieces: string[]
): void {
	answerTools([[name, input]], ...pieces);
}

// A call comes in pieces: first its name, then its input, cut anywhere.
function toolEvents([name, input]: Call, index: number): string[] {
	const text = JSON.stringify(input);
	const pieces: object[] = [
		{ id: `call_${index}`, type: "function", function: { name } },
		{ function: { arguments: text.slice(0, 3) } },
		{ function: { arguments: text.slice(3) } },
		{ id: null, type: null, function: { name: null, arguments: "" } },
	];
	return pieces.map((piece) =>
		event({ choices: [{ delta: { tool_calls: [{ index, ...piece }] } }] }),
	);
}

/** Ways in which models call tools. */
export const toolAnswers: Record<
	string,
	(calls: Call[], ...pieces: string[]) => void
> = {
	"as older ones do": answerTools,
	"as newer ones do": (calls, ...pieces) =>
		answerFirst(calls.flatMap(toolEvents), pieces),
};

/** Lets the model reach its limit in the middle of a call. */
export function answerTruncatedTool(name: string, ...pieces: string[]): void {
	const [start = ""] = toolEvents([name, {}], 0);
	const choice = { delta: {}, finish_reason: "length" };
	streamEvents(() => [
		...pieces.map(textEvent),
		start,
		event({ choices: [choice] }),
		"data: [DONE]\n\n",
	]);
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
					controller.enqueue(new TextEncoder().encode(textEvent(piece)));
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
	"the stream breaks off": (piece) => streamEvents(() => [textEvent(piece)]),
	"the stream never ends": (piece) => {
		hurry();
		answerForever(piece);
	},
	"a piece is no JSON": (piece) =>
		streamEvents(() => [textEvent(piece), `data: ${SECRET_WORDS}\n\n`]),
};
