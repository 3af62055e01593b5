import * as z from "zod";
import { ApiError, logError } from "../../base/base/worker";

/** How long an answer may take, with all the tools that it calls. */
export const MODEL_TIMEOUT_MS = 120_000;

/** How often a stream says something while the model is silent, in ms. */
const MODEL_HEARTBEAT_MS = 5_000;

/** How often the model is asked for one answer; tools run in between. */
const MODEL_ROUNDS = 8;

/** Statuses by which the provider says that it gets too many requests. */
const BUSY_STATUSES = [429, 529];

/** Statuses by which the provider says that it will never take this request. */
const REFUSED_STATUSES = [400, 413, 422];

/** One message of a conversation with the model. */
export type ModelMessage = {
	role: "system" | "user" | "assistant";
	content: string;
};

/** Something that the model may do while it answers. Made with `modelTool`. */
export type ModelTool = {
	/** What it does and when to call it, for the model. */
	description: string;
	/** What it takes: an object, which the model is told and held to. */
	input: z.ZodType;
	/** Does it. The model reads what it returns: text, or anything as JSON. */
	run(input: never, signal: AbortSignal): unknown;
};

/** What `modelText` takes beside the conversation. */
export type ModelOptions = {
	/** Ends the work, and with it the answer. */
	signal?: AbortSignal;
	/** Tools by their names: letters, digits, `_` and `-`. */
	tools?: Record<string, ModelTool>;
};

/** How an answer ended. */
export type ModelEnd = {
	/** Whether it was cut off, by the model's limit or by the signal. */
	truncated: boolean;
};

/** What `modelObject` asks. */
export type ModelQuestion<Schema extends z.ZodType> = {
	/** What the answer must be: strict objects, without optional keys. */
	schema: Schema;
	/** What to do with the text. */
	instructions: string;
	/** The text, which may come from anybody. */
	text: string;
	/** The answer's name, for the model: letters, digits, `_` and `-`. */
	name?: string;
	/** Ends the work. */
	signal?: AbortSignal;
};

/** One call of a tool, with its input, or with the JSON of it. */
export type ModelCall = { id: string; name: string; input: unknown };

/** What a called tool returned, as the model reads it. */
export type ModelResult = { call: ModelCall; output: string };

/** What the model said in one round, and which tools it called. */
export type ModelReply = {
	text: string;
	calls: ModelCall[];
	truncated: boolean;
};

/** Why an answer is of no use, in words that may be logged. */
export class ModelAnswerError extends Error {}

/** The provider refused this very request: it may be too long for the model. */
export class ModelRefusedError extends ApiError {
	constructor() {
		super(502, "model_failed", "The model gave no usable answer.");
	}
}

/** The provider gets too many requests. */
export class ModelBusyError extends ApiError {
	/** @param retryAfter The provider's `Retry-After`, if it has sent one. */
	constructor(retryAfter: string | null = null) {
		const seconds = /^\d{1,5}$/.test(retryAfter ?? "") ? retryAfter : null;
		super(503, "model_busy", "Try again later: the model is busy.", {
			"Retry-After": seconds ?? "60",
		});
	}
}

/** A 503 that says which setting is missing. */
export function modelNotConfigured(message: string): ApiError {
	return new ApiError(503, "model_not_configured", message);
}

/** Makes a tool, with its input typed by its schema. */
export function modelTool<Schema extends z.ZodType>(tool: {
	description: string;
	input: Schema;
	run(input: z.infer<Schema>, signal: AbortSignal): unknown;
}): ModelTool {
	return tool;
}

/** Describes tools as providers want them. */
export function modelToolList(tools: Record<string, ModelTool> = {}) {
	return Object.entries(tools).map(([name, { description, input }]) => ({
		name,
		description,
		schema: jsonSchemaOf(input),
	}));
}

/** Returns a schema without the key for its dialect, which no provider takes. */
function jsonSchemaOf(schema: z.ZodType): Record<string, unknown> {
	const { $schema, ...rest } = z.toJSONSchema(schema);
	return rest;
}

/** Parses the JSON that a model has written. */
export function modelParse(text: string): unknown {
	try {
		return JSON.parse(text);
	} catch {
		throw new ModelAnswerError("It is not JSON");
	}
}

/** What the errors of the SDKs tell about the provider's response. */
type ModelFacts = {
	status?: number;
	code?: string | null;
	requestID?: string | null;
	headers?: Headers;
};

/**
 * Logs why the model gave no answer, and returns what the client may know.
 *
 * @param error What was thrown. Its message may repeat what users wrote: only
 * that of a ModelAnswerError is logged, and none goes to the client.
 */
function modelError(provider: string, error: unknown): ApiError {
	if (error instanceof ApiError) {
		return error;
	}
	const { status, code, requestID, headers }: ModelFacts = Object(error);
	const reason =
		error instanceof ModelAnswerError
			? error
			: new ModelAnswerError(Object(error).constructor.name);
	logError("The model gave no answer", reason, {
		provider,
		status,
		code,
		requestID,
	});
	if (status !== undefined && BUSY_STATUSES.includes(status)) {
		return new ModelBusyError(headers?.get("Retry-After"));
	}
	return status !== undefined && REFUSED_STATUSES.includes(status)
		? new ModelRefusedError()
		: new ApiError(502, "model_failed", "The model gave no usable answer.");
}

/** Limits the time of an answer, which `signal` may end before. */
function modelLimit(signal?: AbortSignal) {
	// AbortSignal.timeout() cannot be cleared, and until it fires it would keep a
	// Durable Object in memory.
	const timeout = new AbortController();
	const timer = setTimeout(
		() => timeout.abort(new ModelAnswerError("It took too long")),
		MODEL_TIMEOUT_MS,
	);
	return {
		signal: AbortSignal.any([timeout.signal, ...(signal ? [signal] : [])]),
		clear: () => clearTimeout(timer),
	};
}

/**
 * Leads one turn of a conversation: asks the model, runs the tools that it
 * calls, and asks again with what they returned, until it calls none.
 *
 * @param provider The provider's id, for the logs.
 * @param ask Asks once, after the results of the calls of the round before.
 * Yields the pieces of the answer until its signal aborts.
 * @returns The pieces, none empty. Ends early when the caller's signal aborts:
 * the generator's own `return()` would wait for the piece that is under way.
 * @throws ApiError as `modelError` has it, also in the middle.
 */
export async function* modelTurn(
	provider: string,
	{ signal, tools = {} }: ModelOptions,
	ask: (
		results: ModelResult[],
		signal: AbortSignal,
	) => AsyncGenerator<string, ModelReply>,
): AsyncGenerator<string, ModelEnd> {
	const limit = modelLimit(signal);
	let results: ModelResult[] = [];
	let isEmpty = true;
	try {
		for (let round = 0; round < MODEL_ROUNDS; round++) {
			const { text, calls, truncated } = yield* ask(results, limit.signal);
			isEmpty &&= text === "";
			// A call that was cut off does not count.
			if (calls.length === 0 || truncated) {
				if (isEmpty) {
					throw new ModelAnswerError("It is empty");
				}
				return { truncated };
			}
			results = await untilAborted(
				limit.signal,
				Promise.all(calls.map((call) => useTool(tools, call, limit.signal))),
			);
		}
		throw new ModelAnswerError("It calls tools without end");
	} catch (error) {
		if (signal?.aborted) {
			return { truncated: true };
		}
		throw modelError(provider, reasonOf(limit.signal, error));
	} finally {
		limit.clear();
	}
}

/**
 * Streams an answer to a client, as server-sent events: `{"text":…}` for each
 * piece, `{"truncated":true}` where the model's limit cut it, `[DONE]` at its end.
 * While the model is silent, a comment (`:`) every few seconds: only what is sent
 * tells whether a client is still there.
 *
 * @param first The first piece. Whoever has waited for it could still answer an
 * error with a status.
 * @param pieces The pieces after it.
 * @param abort Stops them when the client goes away.
 * @param explain Returns what the client may know of an error in the middle, which
 * it gets as `{"error":{…}}` in place of `[DONE]`. What this throws breaks the
 * response off.
 */
export function modelEvents(
	first: IteratorResult<string, ModelEnd>,
	pieces: AsyncGenerator<string, ModelEnd>,
	abort: AbortController,
	explain: (error: unknown) => ApiError,
): ReadableStream<Uint8Array> {
	const encoder = new TextEncoder();
	return new ReadableStream({
		// Not in `pull`: a client that reads slowly would hold up the model.
		async start(controller) {
			const write = (event: string) => {
				if (!abort.signal.aborted) {
					controller.enqueue(encoder.encode(`${event}\n\n`));
				}
			};
			const send = (data: string) => write(`data: ${data}`);
			const heartbeat = setInterval(() => write(":"), MODEL_HEARTBEAT_MS);
			try {
				let next = first;
				for (; !next.done; next = await pieces.next()) {
					send(JSON.stringify({ text: next.value }));
				}
				if (next.value.truncated) {
					send(JSON.stringify({ truncated: true }));
				}
				send("[DONE]");
			} catch (error) {
				try {
					const { code, message } = explain(error);
					send(JSON.stringify({ error: { code, message } }));
				} catch (reason) {
					controller.error(reason);
					return;
				}
			} finally {
				clearInterval(heartbeat);
			}
			if (!abort.signal.aborted) {
				controller.close();
			}
		},
		cancel: () => abort.abort(),
	});
}

/**
 * Guards an answer that is JSON.
 *
 * @param provider The provider's id, for the logs.
 * @param ask Asks for what a JSON Schema describes, until its signal aborts.
 * @returns The answer, as the schema returns it.
 * @throws ApiError as `modelError` has it, also when the answer is not what
 * was asked for; what `signal` aborts with.
 */
export async function modelAnswer<Schema extends z.ZodType>(
	provider: string,
	{ schema, signal }: ModelQuestion<Schema>,
	ask: (
		schema: Record<string, unknown>,
		signal: AbortSignal,
	) => Promise<unknown>,
): Promise<z.infer<Schema>> {
	const jsonSchema = jsonSchemaOf(schema);
	const limit = modelLimit(signal);
	try {
		const answer = await ask(jsonSchema, limit.signal);
		const { success, data } = await schema.safeParseAsync(answer);
		if (!success) {
			throw new ModelAnswerError("It does not fit the schema");
		}
		return data;
	} catch (error) {
		signal?.throwIfAborted();
		throw modelError(provider, reasonOf(limit.signal, error));
	} finally {
		limit.clear();
	}
}

/** Tells why something failed, which the SDKs do not say of an abort. */
function reasonOf(signal: AbortSignal, error: unknown): unknown {
	return signal.aborted ? signal.reason : error;
}

/** Waits for work, but only until a signal aborts. */
async function untilAborted<T>(
	signal: AbortSignal,
	work: Promise<T>,
): Promise<T> {
	const aborted = new Promise<never>((_, reject) => {
		signal.addEventListener("abort", () => reject(signal.reason));
	});
	signal.throwIfAborted();
	return Promise.race([work, aborted]);
}

/** Runs a tool that the model called; tells the model where that fails. */
async function useTool(
	tools: Record<string, ModelTool>,
	call: ModelCall,
	signal: AbortSignal,
): Promise<ModelResult> {
	const result = (output: string) => ({ call, output });
	const tool = Object.hasOwn(tools, call.name) ? tools[call.name] : undefined;
	if (tool === undefined) {
		return result("There is no such tool.");
	}
	try {
		const parsed = await tool.input.safeParseAsync(inputOf(call));
		if (!parsed.success) {
			return result(`Correct the input:\n${z.prettifyError(parsed.error)}`);
		}
		const output = await tool.run(parsed.data as never, signal);
		return result(
			typeof output === "string" ? output : (JSON.stringify(output) ?? "Done."),
		);
	} catch (error) {
		if (error instanceof ApiError) {
			const issues = error.issues ?? [];
			const listed = issues.map(({ path, message }) => `${path}: ${message}`);
			return result([error.message, ...listed].join("\n"));
		}
		if (!signal.aborted) {
			logError("A tool failed", error, { tool: call.name });
		}
		return result("The tool failed.");
	}
}

/** Parses the input of a call. The schema then refuses what is not JSON. */
function inputOf({ input }: ModelCall): unknown {
	try {
		return typeof input === "string" ? JSON.parse(input || "{}") : input;
	} catch {
		return input;
	}
}
