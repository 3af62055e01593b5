import { ApiError, logError } from "../../base/base/worker";

const MODEL_TIMEOUT_MS = 120_000;
/** The limit of an answer, thinking included. */
const MODEL_TOKENS = 8192;

/** Logs why the model gave no answer, and returns what the client may know. */
function modelError(error) {
	if (error instanceof ApiError) {
		return error;
	}
	const { status, headers, requestID } = Object(error);
	// An error's message may repeat what users wrote.
	const reason = error instanceof Error ? error.constructor.name : error;
	logError("The model gave no answer", reason, { status, requestID });
	if (status === 429 || status === 529) {
		const after = headers?.get("Retry-After") ?? "60";
		const message = "Try again later: the model is busy.";
		return new ApiError(503, "model_busy", message, { "Retry-After": after });
	}
	return new ApiError(502, "model_failed", "The model gave no usable answer.");
}

/** Makes a client for one request, since a connection belongs to one. */
async function modelClient(env) {
	if (!env.ANTHROPIC_API_KEY) {
		const message = "Set the secret ANTHROPIC_API_KEY, locally in .dev.vars.";
		throw new ApiError(503, "model_not_configured", message);
	}
	// Imported here, so that only requests that ask the model wait for it.
	const { Anthropic } = await import("@anthropic-ai/sdk");
	return new Anthropic({
		apiKey: env.ANTHROPIC_API_KEY,
		baseURL: env.AI_GATEWAY_BASE_URL || null,
		maxRetries: 0, // The client knows best whether to wait.
		logLevel: "off", // It would log prompts and answers.
	});
}

//% if "ai" in features or "agents" in features

/**
 * Streams an answer as server-sent events: `{"text":…}` for each piece, then
 * `[DONE]`, or `{"error":…}`. What fails before the first piece is thrown.
 *
 * @param ask Asks the model, until the signal says that the client has left.
 */
export async function modelEvents(ask) {
	const left = new AbortController();
	const pieces = ask(left.signal);
	let next = await pieces.next();
	const body = new ReadableStream({
		async start(controller) {
			const send = (event) => {
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

//% if "agents" in features

/** Makes a tool. The model reads what it returns, or an ApiError's message. */
export function modelTool(name, description, input, run) {
	const { $schema, ...schema } = input.toJSONSchema();
	return {
		type: "custom",
		name,
		description,
		input_schema: { ...schema, type: "object" },
		parse: (sent) => input.parse(sent),
		async run(parsed) {
			try {
				return JSON.stringify((await run(parsed)) ?? null);
			} catch (error) {
				if (error instanceof ApiError) {
					return error.message;
				}
				logError("A tool failed", error, { tool: name });
				return "The tool failed.";
			}
		},
	};
}

//% endif
/** Yields the pieces of an answer, and makes sure that it is complete. */
async function* piecesOf(answer) {
	for await (const event of answer) {
		if (
			event.type === "content_block_delta" &&
			event.delta.type === "text_delta"
		) {
			yield event.delta.text;
		}
	}
	const { content, stop_reason } = await answer.finalMessage();
	const isEnd = ["end_turn", "max_tokens", "tool_use"].includes(
		stop_reason ?? "",
	);
	if (!isEnd || content.length === 0) {
		throw modelError(`It ended with "${stop_reason}"`);
	}
}

/**
 * Asks the model to go on with a conversation. Yields the pieces of its answer;
 * may throw an ApiError in the middle.
 */
export async function* modelText(
	env,
	messages,
	signal, // Ends the answer without an error.
	//% if "agents" in features
	tools = [],
	//% endif
) {
	// AbortSignal.timeout() cannot be cleared, and keeps what waits in memory.
	const late = new AbortController();
	const timer = setTimeout(() => late.abort(), MODEL_TIMEOUT_MS);
	try {
		const client = await modelClient(env);
		const options = { signal: AbortSignal.any([signal, late.signal]) };
		const params = {
			model: env.AI_MODEL,
			system: messages.find(({ role }) => role === "system")?.content ?? "",
			messages: messages.flatMap(({ role, content }) =>
				role === "system" ? [] : [{ role, content }],
			),
			max_tokens: MODEL_TOKENS,
			stream: true,
		};
		//% if "agents" in features
		if (tools.length > 0) {
			// Without a thread, Anthropic keeps no conversation.
			const rounds = { tools, max_iterations: 8, thread: false };
			const runner = { ...params, ...rounds };
			const answer = client.beta.messages.toolRunner(runner, options);
			for await (const round of answer) {
				yield* piecesOf(round);
			}
			if ((await answer.done()).stop_reason === "tool_use") {
				throw modelError("It calls tools without end");
			}
			return;
		}

		//% endif
		yield* piecesOf(client.messages.stream(params, options));
	} catch (error) {
		if (!signal.aborted) {
			throw modelError(error);
		}
	} finally {
		clearTimeout(timer);
	}
}

//% endif
//% if "structured-output" in features
/** Asks the model for an answer that fits a schema, without optional keys. */
export async function modelObject(env, schema, instructions, text) {
	try {
		const { $schema, ...json } = schema.toJSONSchema();
		const about = { type: "json_schema", schema: json };
		const client = await modelClient(env);
		const { parsed_output, stop_reason } = await client.messages.parse(
			{
				model: env.AI_MODEL,
				system: instructions,
				messages: [{ role: "user", content: text }],
				output_config: { format: { ...about, parse: JSON.parse } },
				max_tokens: MODEL_TOKENS,
			},
			{ signal: AbortSignal.timeout(MODEL_TIMEOUT_MS) },
		);
		if (stop_reason !== "end_turn") {
			throw modelError(`It ended with "${stop_reason}"`);
		}
		return schema.parse(parsed_output);
	} catch (error) {
		throw modelError(error);
	}
}
//% endif
