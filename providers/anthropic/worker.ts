import type { MessageParam } from "@anthropic-ai/sdk/resources";
import type * as z from "zod";
import type {
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
 * 100,000 tokens beyond which the default model costs five times as much.
 */
export const MODEL_WINDOW_CHARACTERS = 100_000;

/** How a usable answer ends, and whether that cut it off. */
const MODEL_ENDS: Record<string, { truncated: boolean }> = {
	end_turn: { truncated: false },
	tool_use: { truncated: false },
	max_tokens: { truncated: true },
	model_context_window_exceeded: { truncated: true },
};

/**
 * Makes a client for one request.
 *
 * @throws ApiError 503 without a key.
 */
async function modelClient(env: Env) {
	const options = modelOptions(
		env,
		"ANTHROPIC_API_KEY",
		"https://api.anthropic.com",
	);
	// Imported here, so that only requests that ask the model wait for it.
	const { Anthropic } = await import("@anthropic-ai/sdk");
	return new Anthropic(options);
}

/** The part of a request that describes tools; without tools, none. */
function modelToolParams(tools: ModelOptions["tools"]) {
	const list = modelToolList(tools).map(({ name, description, schema }) => ({
		name,
		description,
		input_schema: { ...schema, type: "object" as const },
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
	const conversation = messages.flatMap<MessageParam>(({ role, content }) =>
		role === "system" ? [] : [{ role, content }],
	);
	const tools = modelToolParams(options.tools);
	return modelTurn("anthropic", options, async function* (results, signal) {
		if (results.length > 0) {
			conversation.push({
				role: "user",
				content: results.map(({ call, output }) => ({
					type: "tool_result",
					tool_use_id: call.id,
					content: output,
				})),
			});
		}
		const client = await modelClient(env);
		const stream = client.messages.stream(
			{
				model: env.AI_MODEL,
				system: messages
					.filter(({ role }) => role === "system")
					.map(({ content }) => content)
					.join("\n\n"),
				messages: conversation,
				max_tokens: MODEL_MAX_TOKENS,
				...tools,
			},
			{ signal },
		);
		for await (const event of stream) {
			if (
				event.type === "content_block_delta" &&
				event.delta.type === "text_delta" &&
				event.delta.text !== ""
			) {
				yield event.delta.text;
			}
		}
		const { content, stop_reason } = await stream.finalMessage();
		const end = MODEL_ENDS[stop_reason ?? ""];
		if (end === undefined) {
			throw new ModelAnswerError(`It ended with ${stop_reason}`);
		}
		// Whole, since the model wants its thinking before a call back.
		conversation.push({ role: "assistant", content });
		return {
			text: content
				.flatMap((block) => (block.type === "text" ? [block.text] : []))
				.join(""),
			calls: content.filter((block) => block.type === "tool_use"),
			...end,
		};
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
	return modelAnswer("anthropic", question, async (schema, signal) => {
		const client = await modelClient(env);
		const { content, stop_reason } = await client.messages.create(
			{
				model: env.AI_MODEL,
				system: instructions,
				messages: [{ role: "user", content: text }],
				output_config: { format: { type: "json_schema", schema } },
				max_tokens: MODEL_MAX_TOKENS,
			},
			{ signal },
		);
		if (stop_reason !== "end_turn") {
			throw new ModelAnswerError(`It ended with ${stop_reason}`);
		}
		// What the model has thought may stand before its text.
		const answer = content.find(({ type }) => type === "text");
		return modelParse(answer?.type === "text" ? answer.text : "");
	});
}
