import type * as z from "zod";
import type {
	ModelCall,
	ModelEnd,
	ModelMessage,
	ModelOptions,
	ModelQuestion,
} from "../../base/model/worker";
import {
	ModelAnswerError,
	modelAnswer,
	modelNotConfigured,
	modelParse,
	modelToolList,
	modelTurn,
} from "../../base/model/worker";

/** The token limit of an answer, reasoning included. */
const MODEL_TOKENS = 4096;

/**
 * How many characters of a conversation the model takes: the default one has
 * 24,000 tokens, with those of the answer, and a token has two or more.
 */
export const MODEL_WINDOW_CHARACTERS = 36_000;

/** The HTTP statuses of Workers AI's codes. Other codes need none. */
const MODEL_STATUSES: Record<string, number> = {
	3003: 400,
	5004: 400,
	3006: 413,
	3010: 413,
	5021: 413,
	3036: 429,
	3040: 429,
};

/** An error of Workers AI, without its message, which may repeat the request. */
class ModelRunError extends Error {
	code: string | undefined;
	status: number | undefined;

	constructor(error: unknown) {
		const message = error instanceof Error ? error.message : "";
		super("Workers AI failed");
		[this.code] = /\b\d{4}(?=:)/.exec(message) ?? [];
		// Some models have no code for it.
		this.status = /context (?:window|length)/.test(message)
			? 413
			: MODEL_STATUSES[this.code ?? ""];
	}
}

/** A call of a tool, or a piece of one; older models have no `function`. */
type ModelCallPiece = {
	index?: number;
	id?: string | null;
	name?: string | null;
	arguments?: unknown;
	function?: { name?: string | null; arguments?: unknown };
};

/** What newer models say, like OpenAI's. */
type ModelMessagePiece = {
	content?: string | null;
	tool_calls?: ModelCallPiece[];
};

/** An answer or a piece of one. */
type ModelPiece = {
	response?: unknown;
	tool_calls?: ModelCallPiece[];
	finish_reason?: string | null;
	usage?: { completion_tokens?: number };
	choices?: {
		message?: ModelMessagePiece;
		delta?: ModelMessagePiece;
		finish_reason?: string | null;
	}[];
};

/**
 * Runs the model.
 *
 * @param inputs Its inputs, beside the limit of its answer.
 * @param signal Ends the work.
 * @throws ApiError 503 where there is no Workers AI; ModelRunError.
 */
async function modelRun(
	env: Env,
	inputs: Record<string, unknown>,
	signal: AbortSignal,
): Promise<unknown> {
	try {
		return await env.AI.run(
			env.AI_MODEL,
			{ ...inputs, max_tokens: MODEL_TOKENS },
			{ signal },
		);
	} catch (error) {
		if (String(error).includes("needs to be run remotely")) {
			throw modelNotConfigured(
				"Workers AI runs on Cloudflare only: use the script dev:online.",
			);
		}
		throw new ModelRunError(error);
	}
}

/** Yields the pieces of an answer; some models give it as a whole. */
async function* modelPieces(answer: unknown): AsyncGenerator<ModelPiece> {
	if (!(answer instanceof ReadableStream)) {
		yield Object(answer);
		return;
	}
	let rest = "";
	for await (const text of answer.pipeThrough(new TextDecoderStream())) {
		const lines = (rest + text).split("\n");
		rest = lines.pop() ?? "";
		for (const line of lines.filter((line) => line.startsWith("data:"))) {
			const data = line.slice("data:".length).trim();
			if (data === "[DONE]") {
				return;
			}
			yield Object(JSON.parse(data));
		}
	}
	throw new ModelAnswerError("It ended too early");
}

/** Adds pieces of calls to the calls that they belong to. */
function modelAddCalls(calls: ModelCall[], pieces: ModelCallPiece[]): void {
	for (const [position, piece] of pieces.entries()) {
		const { name, arguments: input } = piece.function ?? piece;
		const index = piece.index ?? position;
		calls[index] ??= { id: "", name: "", input: "" };
		const call = calls[index];
		call.id ||= piece.id ?? `call_${index}`;
		call.name ||= name ?? "";
		call.input =
			typeof input === "object"
				? (input ?? call.input)
				: `${call.input}${input ?? ""}`;
	}
}

/** The part of a request that describes tools; without tools, none. */
function modelToolParams(tools: ModelOptions["tools"]) {
	const list = modelToolList(tools).map(({ name, description, schema }) => ({
		type: "function",
		function: { name, description, parameters: schema },
	}));
	return list.length > 0 ? { tools: list } : {};
}

/**
 * Asks the model to go on with a conversation.
 *
 * @param messages The conversation, oldest message first.
 * @returns The pieces of the answer, as they come, and how it ended.
 * @throws ApiError 503 when it is not configured or gets too many requests,
 * 502 when it gives no answer, also in the middle of one; a ModelRefusedError
 * when the conversation may be too long.
 */
export function modelText(
	env: Env,
	messages: ModelMessage[],
	options: ModelOptions = {},
): AsyncGenerator<string, ModelEnd> {
	const conversation: object[] = [...messages];
	const tools = modelToolParams(options.tools);
	return modelTurn("workers-ai", options, async function* (results, signal) {
		conversation.push(
			...results.map(({ call: { id, name }, output }) => ({
				role: "tool",
				tool_call_id: id,
				name,
				content: output,
			})),
		);
		const inputs = { messages: conversation, stream: true, ...tools };
		const answer = await modelRun(env, inputs, signal);
		let text = "";
		let truncated = false;
		const calls: ModelCall[] = [];
		for await (const piece of modelPieces(answer)) {
			const [choice] = piece.choices ?? [];
			const said = choice?.delta ?? choice?.message;
			// What looks like a number comes as one.
			const more = String(said?.content ?? piece.response ?? "");
			if (more !== "") {
				text += more;
				yield more;
			}
			modelAddCalls(calls, said?.tool_calls ?? piece.tool_calls ?? []);
			const tokens = piece.usage?.completion_tokens ?? 0;
			truncated ||=
				(choice?.finish_reason ?? piece.finish_reason) === "length" ||
				tokens >= MODEL_TOKENS;
		}
		if (calls.length > 0) {
			conversation.push({
				role: "assistant",
				content: text,
				tool_calls: calls.map(({ id, name, input }) => ({
					id,
					type: "function",
					function: {
						name,
						arguments:
							typeof input === "string" ? input : JSON.stringify(input),
					},
				})),
			});
		}
		return { text, calls, truncated };
	});
}

/**
 * Asks the model for an answer in JSON.
 *
 * @returns The answer, as the schema returns it.
 * @throws ApiError 503 when it is not configured or gets too many requests,
 * 502 when it gives no such answer; what the question's signal aborts with.
 */
export function modelObject<Schema extends z.ZodType>(
	env: Env,
	question: ModelQuestion<Schema>,
): Promise<z.infer<Schema>> {
	const { instructions, text } = question;
	return modelAnswer("workers-ai", question, async (schema, signal) => {
		const { response, choices }: ModelPiece = Object(
			await modelRun(
				env,
				{
					messages: [
						{ role: "system", content: instructions },
						{ role: "user", content: text },
					],
					response_format: { type: "json_schema", json_schema: schema },
				},
				signal,
			),
		);
		const answer = choices?.[0]?.message?.content ?? response;
		return typeof answer === "string" ? modelParse(answer) : answer;
	});
}
