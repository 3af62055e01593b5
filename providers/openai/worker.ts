import type { ChatCompletionMessageParam } from "openai/resources";
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
	modelParse,
	modelToolList,
	modelTurn,
} from "../../base/model/worker";
import { MODEL_MAX_TOKENS, modelOptions } from "../../base/sdk/worker";

/**
 * How many characters of a conversation the model takes. That stays below the
 * 272,000 tokens beyond which the default model costs twice as much.
 */
export const MODEL_WINDOW_CHARACTERS = 250_000;

/**
 * Makes a client for one request.
 *
 * @throws ApiError 503 without a key.
 */
async function modelClient(env: Env) {
	const options = modelOptions(
		env,
		"OPENAI_API_KEY",
		"https://api.openai.com/v1",
	);
	// Imported here, so that only requests that ask the model wait for it.
	const { OpenAI } = await import("openai");
	return new OpenAI(options);
}

/** The part of a request that describes tools; without tools, none. */
function modelToolParams(tools: ModelOptions["tools"]) {
	const list = modelToolList(tools).map(({ name, description, schema }) => ({
		type: "function" as const,
		function: { name, description, parameters: schema },
	}));
	// In this API, the newer models call tools only when they do not think.
	return list.length > 0
		? { tools: list, reasoning_effort: "none" as const }
		: {};
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
	const conversation: ChatCompletionMessageParam[] = [...messages];
	const tools = modelToolParams(options.tools);
	return modelTurn("openai", options, async function* (results, signal) {
		conversation.push(
			...results.map(({ call, output }) => ({
				role: "tool" as const,
				tool_call_id: call.id,
				content: output,
			})),
		);
		const client = await modelClient(env);
		const stream = await client.chat.completions.create(
			{
				model: env.AI_MODEL,
				messages: conversation,
				max_completion_tokens: MODEL_MAX_TOKENS,
				stream: true,
				...tools,
			},
			{ signal },
		);
		let text = "";
		let end: string | null = null;
		const calls: (ModelCall & { input: string })[] = [];
		for await (const { choices } of stream) {
			// Gateways and servers like OpenAI's send chunks without either.
			const choice = choices?.[0];
			const piece = choice?.delta?.content ?? "";
			if (piece !== "") {
				text += piece;
				yield piece;
			}
			for (const { index, id, function: called } of choice?.delta?.tool_calls ??
				[]) {
				calls[index] ??= { id: id ?? "", name: called?.name ?? "", input: "" };
				calls[index].input += called?.arguments ?? "";
			}
			end = choice?.finish_reason ?? end;
		}
		if (end !== "stop" && end !== "tool_calls" && end !== "length") {
			throw new ModelAnswerError(`It ended with ${end}`);
		}
		if (calls.length > 0) {
			conversation.push({
				role: "assistant",
				content: text,
				tool_calls: calls.map(({ id, name, input }) => ({
					id,
					type: "function",
					function: { name, arguments: input },
				})),
			});
		}
		return { text, calls, truncated: end === "length" };
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
	const { instructions, text, name = "answer" } = question;
	return modelAnswer("openai", question, async (schema, signal) => {
		const client = await modelClient(env);
		const { choices } = await client.chat.completions.create(
			{
				model: env.AI_MODEL,
				messages: [
					{ role: "system", content: instructions },
					{ role: "user", content: text },
				],
				response_format: {
					type: "json_schema",
					json_schema: { name, strict: true, schema },
				},
				max_completion_tokens: MODEL_MAX_TOKENS,
			},
			{ signal },
		);
		const [choice] = choices;
		if (choice?.finish_reason !== "stop" || choice.message.refusal) {
			throw new ModelAnswerError(`It ended with ${choice?.finish_reason}`);
		}
		return modelParse(choice.message.content ?? "");
	});
}
