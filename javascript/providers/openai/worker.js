import { ApiError, logError } from "../../base/base/worker";

const MODEL_TIMEOUT_MS = 120_000;
/** The limit of an answer, reasoning included. */
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
	if (status === 429) {
		const after = headers?.get("Retry-After") ?? "60";
		const message = "Try again later: the model is busy.";
		return new ApiError(503, "model_busy", message, { "Retry-After": after });
	}
	return new ApiError(502, "model_failed", "The model gave no usable answer.");
}

/** Makes a client for one request, since a connection belongs to one. */
async function modelClient(env) {
	if (!env.OPENAI_API_KEY) {
		const message = "Set the secret OPENAI_API_KEY, locally in .dev.vars.";
		throw new ApiError(503, "model_not_configured", message);
	}
	// Imported here, so that only requests that ask the model wait for it.
	const { OpenAI } = await import("openai");
	return new OpenAI({
		apiKey: env.OPENAI_API_KEY,
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
	const { $schema, ...parameters } = input.toJSONSchema();
	return {
		type: "function",
		function: {
			name,
			description,
			parameters,
			parse: (json) => input.parse(JSON.parse(json || "{}")),
			async function(parsed) {
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
		},
	};
}

//% endif
/** Yields the pieces of an answer, and makes sure that it is complete. */
async function* piecesOf(answer, signal) {
	let end = "";
	for await (const { choices } of answer) {
		// Some gateways send chunks without choices.
		const choice = choices?.[0];
		if (choice?.delta?.content) {
			yield choice.delta.content;
		}
		end = choice?.finish_reason ?? end;
	}
	if (end !== "stop" && end !== "length" && !signal.aborted) {
		throw modelError(`It ended with "${end}"`);
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
		const { completions } = (await modelClient(env)).chat;
		const options = { signal: AbortSignal.any([signal, late.signal]) };
		const params = {
			model: env.AI_MODEL,
			messages,
			max_completion_tokens: MODEL_TOKENS,
			stream: true,
		};
		//% if "agents" in features
		if (tools.length > 0) {
			// In this API, newer models call tools only when they do not think.
			const more = { tools, reasoning_effort: "none" };
			const rounds = { ...options, maxChatCompletions: 8 };
			const answer = completions.runTools({ ...params, ...more }, rounds);
			yield* piecesOf(answer, signal);
			return;
		}

		//% endif
		yield* piecesOf(await completions.create(params, options), signal);
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
		const client = await modelClient(env);
		const { choices } = await client.chat.completions.parse(
			{
				model: env.AI_MODEL,
				messages: [
					{ role: "system", content: instructions },
					{ role: "user", content: text },
				],
				response_format: {
					type: "json_schema",
					json_schema: { name: "answer", strict: true, schema: json },
				},
				max_completion_tokens: MODEL_TOKENS,
			},
			{ signal: AbortSignal.timeout(MODEL_TIMEOUT_MS) },
		);
		return schema.parse(choices[0]?.message.parsed);
	} catch (error) {
		throw modelError(error);
	}
}
//% endif
