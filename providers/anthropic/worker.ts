import type { ModelMessage, ModelQuestion } from "../../base/model/worker";
import {
	MODEL_TIMEOUT_MS,
	ModelAnswerError,
	modelError,
	modelParse,
	modelStream,
} from "../../base/model/worker";
import { MODEL_MAX_TOKENS, modelOptions } from "../../base/sdk/worker";

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

//% if "text" in models
/**
 * Asks the model to go on with a conversation.
 *
 * @param messages The conversation, oldest message first.
 * @param signal Ends the work, and with it the answer.
 * @returns The pieces of the answer, as they come.
 * @throws ApiError 503 when it is not configured or gets too many requests,
 * 502 when it gives no answer, also in the middle of one.
 */
export function modelText(
	env: Env,
	messages: ModelMessage[],
	signal: AbortSignal,
): AsyncGenerator<string> {
	return modelStream(signal, async function* (signal) {
		const client = await modelClient(env);
		const stream = await client.messages.create(
			{
				model: env.AI_MODEL,
				system: messages
					.filter(({ role }) => role === "system")
					.map(({ content }) => content)
					.join("\n\n"),
				messages: messages.flatMap(({ role, content }) =>
					role === "system" ? [] : [{ role, content }],
				),
				max_tokens: MODEL_MAX_TOKENS,
				stream: true,
			},
			{ signal },
		);
		let end: string | null = null;
		for await (const event of stream) {
			if (event.type === "message_delta") {
				end = event.delta.stop_reason;
			} else if (
				event.type === "content_block_delta" &&
				event.delta.type === "text_delta"
			) {
				yield event.delta.text;
			}
		}
		if (end !== "end_turn" && end !== "max_tokens") {
			throw new ModelAnswerError(`It ended with ${end}`);
		}
	});
}

//% endif
//% if "json" in models
/**
 * Asks the model for JSON.
 *
 * @returns What it answers, which may be anything: check it.
 * @throws ApiError 503 when it is not configured or gets too many requests,
 * 502 when it gives no JSON.
 */
export async function modelJson(
	env: Env,
	{ instructions, text, schema }: ModelQuestion,
): Promise<unknown> {
	try {
		const client = await modelClient(env);
		const { content, stop_reason } = await client.messages.create(
			{
				model: env.AI_MODEL,
				system: instructions,
				messages: [{ role: "user", content: text }],
				output_config: { format: { type: "json_schema", schema } },
				max_tokens: MODEL_MAX_TOKENS,
			},
			// The client's own limit ends with the headers of the answer.
			{ signal: AbortSignal.timeout(MODEL_TIMEOUT_MS) },
		);
		if (stop_reason !== "end_turn") {
			throw new ModelAnswerError(`It ended with ${stop_reason}`);
		}
		// Before its text may stand what the model has thought.
		const answer = content.find(({ type }) => type === "text");
		return modelParse(answer?.type === "text" ? answer.text : "");
	} catch (error) {
		throw modelError(error);
	}
}

//% endif
