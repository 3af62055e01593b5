import { ApiError, logError } from "../http/worker";

/** How long an answer may take, from the request to its last piece. */
export const MODEL_TIMEOUT_MS = 120_000;

//% if "text" in models
/** One message of a conversation with the model. */
export type ModelMessage = {
	role: "system" | "user" | "assistant";
	content: string;
};

//% endif
//% if "json" in models
/** What the model is asked to answer with JSON. */
export type ModelQuestion = {
	/** What to do with the text. */
	instructions: string;
	/** The text, which may come from anybody. */
	text: string;
	/** The schema's name: letters, digits, `_` and `-`. */
	name: string;
	/** The JSON Schema of the answer: strict objects, nothing optional. */
	schema: Record<string, unknown>;
};

//% endif
/** Why an answer is of no use, in words that may be logged. */
export class ModelAnswerError extends Error {}

/** What an error may tell of the provider's answer; those of the SDKs do. */
type ModelFacts = {
	status?: number;
	code?: string | null;
	requestID?: string | null;
	headers?: Headers;
};

/** The answer to a request for which something is not set up; says what. */
export function modelNotConfigured(message: string): ApiError {
	return new ApiError(503, "model_not_configured", message);
}

/**
 * Logs why the model gave no answer.
 *
 * @param error What was thrown. Its message may repeat what users wrote, so
 * only a ModelAnswerError's is logged, and none goes to the client.
 * @returns What the client may know: 503 with `Retry-After` when the provider
 * gets too many requests, else 502; an ApiError as it is.
 */
export function modelError(error: unknown): ApiError {
	if (error instanceof ApiError) {
		return error;
	}
	const { status, code, requestID, headers }: ModelFacts = Object(error);
	const reason =
		error instanceof ModelAnswerError
			? error.message
			: Object(error).constructor.name;
	logError("The model gave no answer", reason, { status, code, requestID });
	if (status !== 429) {
		return new ApiError(
			502,
			"model_failed",
			"The model gave no usable answer.",
		);
	}
	const retryAfter = headers?.get("Retry-After") ?? "";
	return new ApiError(
		503,
		"model_busy",
		"The model gets too many requests; try again later.",
		{ "Retry-After": /^\d{1,5}$/.test(retryAfter) ? retryAfter : "60" },
	);
}

//% if "text" in models
/**
 * Guards a streamed answer.
 *
 * @param signal Ends the work: nobody waits for it any more. The generator's
 * own `return()` would wait for the piece that is under way.
 * @param ask Asks, and yields the answer's pieces until its signal aborts.
 * @returns The pieces that are not empty. Ends early when `signal` aborts.
 * @throws ApiError as `modelError` has it, also in the middle.
 */
export async function* modelStream(
	signal: AbortSignal,
	ask: (signal: AbortSignal) => AsyncIterable<string>,
): AsyncGenerator<string> {
	// AbortSignal.timeout() cannot be cleared, and until it fires it would keep a
	// Durable Object in memory.
	const timeout = new AbortController();
	const timer = setTimeout(() => timeout.abort(), MODEL_TIMEOUT_MS);
	let isEmpty = true;
	try {
		const either = AbortSignal.any([signal, timeout.signal]);
		for await (const piece of ask(either)) {
			if (piece !== "") {
				isEmpty = false;
				yield piece;
			}
		}
		if (isEmpty) {
			throw new ModelAnswerError("It is empty");
		}
	} catch (error) {
		if (!signal.aborted) {
			throw modelError(error);
		}
	} finally {
		clearTimeout(timer);
	}
}

//% endif
//% if "json" in models
/**
 * Parses the JSON that a model has written.
 *
 * @throws ModelAnswerError when it is none.
 */
export function modelParse(text: string): unknown {
	try {
		return JSON.parse(text);
	} catch {
		throw new ModelAnswerError("It is not JSON");
	}
}

//% endif
