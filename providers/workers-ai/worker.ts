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
const MODEL_TOKENS = 4096;

/** The codes of Workers AI for too many requests: of the account, of all. */
const MODEL_BUSY = ["3036", "3040"];

/** An answer or a piece of one. Newer models have `choices`, like OpenAI's. */
type ModelAnswer = {
	response?: unknown;
	choices?: {
		//% if "json" in models
		message?: { content?: string | null };
		//% endif
		//% if "text" in models
		delta?: { content?: string | null };
		//% endif
	}[];
};

/**
 * Runs the model.
 *
 * @param inputs Its inputs, beside the most that it may answer.
 * @param signal Ends the work.
 * @throws ApiError 503 where there is no Workers AI; an error with a `status`
 * of 429 when there are too many requests.
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
		const message = error instanceof Error ? error.message : "";
		if (message.includes("needs to be run remotely")) {
			throw modelNotConfigured(
				"Workers AI runs on Cloudflare only: use the script `dev:online`.",
			);
		}
		const [code = ""] = /^\d+(?=:)/.exec(message) ?? [];
		const status = MODEL_BUSY.includes(code) ? 429 : undefined;
		throw Object.assign(Object(error), { status, code });
	}
}

//% if "text" in models
/** Reads the data of server-sent events. */
async function* modelEvents(stream: ReadableStream): AsyncGenerator<string> {
	let rest = "";
	for await (const text of stream.pipeThrough(new TextDecoderStream())) {
		const lines = (rest + text).split("\n");
		rest = lines.pop() ?? "";
		for (const line of lines) {
			if (line.startsWith("data:")) {
				yield line.slice("data:".length).trim();
			}
		}
	}
}

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
		const stream = await modelRun(env, { messages, stream: true }, signal);
		if (!(stream instanceof ReadableStream)) {
			throw new ModelAnswerError("It is no stream");
		}
		for await (const data of modelEvents(stream)) {
			if (data === "[DONE]") {
				return;
			}
			const { response, choices }: ModelAnswer = JSON.parse(data);
			// A piece that looks like a number comes as one.
			yield String(choices?.[0]?.delta?.content ?? response ?? "");
		}
		throw new ModelAnswerError("It ended too early");
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
		const { response, choices }: ModelAnswer = Object(
			await modelRun(
				env,
				{
					messages: [
						{ role: "system", content: instructions },
						{ role: "user", content: text },
					],
					response_format: { type: "json_schema", json_schema: schema },
				},
				AbortSignal.timeout(MODEL_TIMEOUT_MS),
			),
		);
		const answer = choices?.[0]?.message?.content ?? response;
		return typeof answer === "string" ? modelParse(answer) : answer;
	} catch (error) {
		throw modelError(error);
	}
}

//% endif
