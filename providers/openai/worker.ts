import type { ModelMessage, ModelQuestion } from "../../base/model/worker";
import {
	MODEL_TIMEOUT_MS,
	ModelAnswerError,
	modelError,
	modelNotConfigured,
	modelParse,
	modelStream,
} from "../../base/model/worker";

/** The most that an answer may have, with what the model thinks before it. */
const MODEL_TOKENS = 8192;

/**
 * Makes a client for one request.
 *
 * @throws ApiError 503 without a key.
 */
async function modelClient(env: Env) {
	if (!env.OPENAI_API_KEY) {
		throw modelNotConfigured(
			"Set OPENAI_API_KEY: locally in .dev.vars, else with `wrangler secret put OPENAI_API_KEY`.",
		);
	}
	// Imported here, so that only requests that ask the model wait for it.
	const { OpenAI } = await import("openai");
	return new OpenAI({
		apiKey: env.OPENAI_API_KEY,
		baseURL: env.AI_GATEWAY_BASE_URL || "https://api.openai.com/v1",
		timeout: MODEL_TIMEOUT_MS,
		// Who asks knows best whether to wait and try again.
		maxRetries: 0,
		// It would log what the model says.
		logLevel: "off",
	});
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
				max_completion_tokens: MODEL_TOKENS,
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
		const { choices } = await client.chat.completions.create({
			model: env.AI_MODEL,
			messages: [
				{ role: "system", content: instructions },
				{ role: "user", content: text },
			],
			response_format: {
				type: "json_schema",
				json_schema: { name, strict: true, schema },
			},
			max_completion_tokens: MODEL_TOKENS,
		});
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
