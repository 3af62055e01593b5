import { ApiError, logError } from "../../base/base/worker";

const MODEL_TIMEOUT_MS = 120_000;
/** The limit of an answer, reasoning included. */
const MODEL_TOKENS = 4096;

/** Logs why the model gave no answer, and returns what the client may know. */
function modelError(error) {
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
		function: { name, description, parameters },
		async call(json) {
			const sent = await new Response(json || "{}").json().catch(() => json);
			const { data, error } = input.safeParse(sent);
			if (error) {
				return error.message;
			}
			try {
				return JSON.stringify((await run(data)) ?? null);
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

/** Adds calls, or pieces of calls; an input is an object, or JSON in pieces. */
function addCalls(calls, pieces) {
	for (const [position, piece] of pieces.entries()) {
		// Some models send `null` for what a piece does not bring.
		const { name, arguments: sent } = piece.function ?? piece;
		const index = piece.index ?? position;
		const input = sent ?? "";
		const id = piece.id ?? `call_${index}`;
		calls[index] ??= { name: name ?? "", id, arguments: "" };
		calls[index].arguments +=
			typeof input === "string" ? input : JSON.stringify(input);
	}
}

//% endif

/** Reads an answer piece by piece; some models give it as a whole. */
async function* readAnswer(answer) {
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
	env,
	messages,
	signal, // Also stops the model.
	//% if "agents" in features
	tools = [],
	rounds = 8,
	//% endif
) {
	const inputs = {
		messages,
		max_tokens: MODEL_TOKENS,
		stream: true,
	};
	//% if "agents" in features
	if (tools.length > 0) {
		inputs.tools = tools.map(({ call, ...about }) => about);
	}
	const calls = [];
	let spoken = "";
	//% endif
	const answer = await env.AI.run(env.AI_MODEL, inputs, { signal });
	for await (const piece of readAnswer(answer)) {
		const [choice] = piece.choices ?? [];
		const said = choice?.delta ?? choice?.message ?? piece;
		const text = String(said.content ?? said.response ?? "");
		if (text) {
			yield text;
		}
		//% if "agents" in features
		spoken += text;
		addCalls(calls, said.tool_calls ?? []);
		//% endif
	}
	//% if "agents" in features
	if (calls.length > 0 && rounds === 1) {
		throw modelError("It calls tools without end");
	}
	if (calls.length > 0) {
		const tool_calls = calls.map(({ id, ...called }) => {
			return { id, type: "function", function: called };
		});
		const results = calls.map(async ({ id, name, arguments: json }) => {
			const tool = tools.find((tool) => tool.function.name === name);
			const content = (await tool?.call(json)) ?? "There is no such tool.";
			return { role: "tool", tool_call_id: id, name, content };
		});
		const said = { role: "assistant", content: spoken, tool_calls };
		const more = [...messages, said, ...(await Promise.all(results))];
		yield* piecesOf(env, more, signal, tools, rounds - 1);
	}
	//% endif
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
	const limit = AbortSignal.any([signal, late.signal]);
	try {
		//% if "agents" in features
		yield* piecesOf(env, messages, limit, tools);
		//% else
		yield* piecesOf(env, messages, limit);
		//% endif
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
		const { $schema, ...json_schema } = schema.toJSONSchema();
		const inputs = {
			messages: [
				{ role: "system", content: instructions },
				{ role: "user", content: text },
			],
			response_format: { type: "json_schema", json_schema },
			max_tokens: MODEL_TOKENS,
		};
		const signal = AbortSignal.timeout(MODEL_TIMEOUT_MS);
		// Newer models answer like OpenAI's; all of them as text or as an object.
		const { response, choices } = Object(
			await env.AI.run(env.AI_MODEL, inputs, { signal }),
		);
		const answer = choices?.[0]?.message.content ?? response;
		return schema.parse(
			typeof answer === "string" ? JSON.parse(answer) : answer,
		);
	} catch (error) {
		throw modelError(error);
	}
}
//% endif
