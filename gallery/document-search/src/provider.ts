import { ApiError, logError } from "./base";

const MODEL_TIMEOUT_MS = 120_000;
/** The limit of an answer, reasoning included. */
const MODEL_TOKENS = 4096;

/** Logs why the model gave no answer, and returns what the client may know. */
function modelError(error: unknown): ApiError {
	if (error instanceof ApiError) {
		return error;
	}
	if (String(error).includes("needs to be run remotely")) {
		const message = "Workers AI runs on Cloudflare only: use dev:online.";
		return new ApiError(503, "model_not_configured", message);
	}
	// An error's message may repeat what users wrote.
	const reason = error instanceof Error ? error.constructor.name : error;
	const [code] = /\b\d{4}(?=:)/.exec(String(error)) ?? [];
	logError("The model gave no answer", reason, { code });
	// The free neurons are used up, or there is no capacity.
	if (code === "3036" || code === "3040") {
		const message = "Try again later: the model is busy.";
		return new ApiError(503, "model_busy", message, { "Retry-After": "60" });
	}
	return new ApiError(502, "model_failed", "The model gave no usable answer.");
}

export type ModelMessage = {
	role: "system" | "user" | "assistant";
	content: string;
};

/**
 * Streams an answer as server-sent events: `{"text":…}` for each piece, then
 * `[DONE]`, or `{"error":…}`. What fails before the first piece is thrown.
 *
 * @param ask Asks the model, until the signal says that the client has left.
 */
export async function modelEvents(
	ask: (signal: AbortSignal) => AsyncGenerator<string>,
): Promise<Response> {
	const left = new AbortController();
	const pieces = ask(left.signal);
	let next = await pieces.next();
	const body = new ReadableStream<string>({
		async start(controller) {
			const send = (event: string) => {
				if (!left.signal.aborted) {
					controller.enqueue(`${event}\n\n`);
				}
			};
			// Only writing tells that a client has left while the model is silent.
			const heartbeat = setInterval(send, 5000, ":");
			try {
				for (; !next.done; next = await pieces.next()) {
					send(`data: ${JSON.stringify({ text: next.value })}`);
				}
				send("data: [DONE]");
			} catch (thrown) {
				const { code, message } = modelError(thrown);
				send(`data: ${JSON.stringify({ error: { code, message } })}`);
			}
			clearInterval(heartbeat);
			if (!left.signal.aborted) {
				controller.close();
			}
		},
		cancel: () => left.abort(),
	});
	const headers = { "Content-Type": "text/event-stream" };
	return new Response(body.pipeThrough(new TextEncoderStream()), { headers });
}

/** An answer or a piece of it; newer models wrap it in `choices`. */
type Said = {
	response?: unknown;
	content?: unknown;
};
type Piece = Said & { choices?: { delta?: Said; message?: Said }[] };

/** Reads an answer piece by piece; some models give it as a whole. */
async function* readAnswer(answer: unknown): AsyncGenerator<Piece> {
	if (!(answer instanceof ReadableStream)) {
		return yield Object(answer);
	}
	let rest = "";
	for await (const text of answer.pipeThrough(new TextDecoderStream())) {
		const lines = (rest + text).split("\n");
		rest = lines.pop() ?? "";
		for (const line of lines.filter((line) => line.startsWith("data:"))) {
			if (line.includes("[DONE]", 5)) {
				return;
			}
			yield JSON.parse(line.slice(5));
		}
	}
	throw modelError("It broke off");
}

/** Asks the model, and yields the pieces of its answer. */
async function* piecesOf(
	env: Env,
	messages: object[],
	signal: AbortSignal, // Also stops the model.
): AsyncGenerator<string> {
	const inputs: Record<string, unknown> = {
		messages,
		max_tokens: MODEL_TOKENS,
		stream: true,
	};
	const answer = await env.AI.run(env.AI_MODEL, inputs, { signal });
	for await (const piece of readAnswer(answer)) {
		const [choice] = piece.choices ?? [];
		const said = choice?.delta ?? choice?.message ?? piece;
		const text = String(said.content ?? said.response ?? "");
		if (text) {
			yield text;
		}
	}
}

/**
 * Asks the model to go on with a conversation. Yields the pieces of its answer;
 * may throw an ApiError in the middle.
 */
export async function* modelText(
	env: Env,
	messages: ModelMessage[],
	signal: AbortSignal, // Ends the answer without an error.
): AsyncGenerator<string> {
	// AbortSignal.timeout() cannot be cleared, and keeps what waits in memory.
	const late = new AbortController();
	const timer = setTimeout(() => late.abort(), MODEL_TIMEOUT_MS);
	const limit = AbortSignal.any([signal, late.signal]);
	try {
		yield* piecesOf(env, messages, limit);
	} catch (error) {
		if (!signal.aborted) {
			throw modelError(error);
		}
	} finally {
		clearTimeout(timer);
	}
}
