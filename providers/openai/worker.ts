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
		"OPENAI_API_KEY",
		"https://api.openai.com/v1",
	);
	// Imported here, so that only requests that ask the model wait for it.
	const { OpenAI } = await import("openai");
	return new OpenAI(options);
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
		const stream = await client.chat.completions.create(
			{
				model: env.AI_MODEL,
				messages,
				max_completion_tokens: MODEL_MAX_TOKENS,
				stream: true,
			},
			{ signal },
		);
		let end: string | null = null;
		for await (const { choices } of stream) {
			const [choice] = choices;
			end = choice?.finish_reason ?? end;
			yield choice?.delta.content ?? "";
		}
		if (end !== "stop" && end !== "length") {
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
	{ instructions, text, name, schema }: ModelQuestion,
): Promise<unknown> {
	try {
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
			// The client's own limit ends with the headers of the answer.
			{ signal: AbortSignal.timeout(MODEL_TIMEOUT_MS) },
		);
		const [choice] = choices;
		if (choice?.finish_reason !== "stop" || choice.message.refusal) {
			throw new ModelAnswerError(`It ended with ${choice?.finish_reason}`);
		}
		return modelParse(choice.message.content ?? "");
	} catch (error) {
		throw modelError(error);
	}
}

//% endif
