import type { Context } from "hono";
import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import { ApiError, readJson } from "../../base/base/worker";
import type {
	ModelEnd,
	ModelMessage,
	ModelOptions,
} from "../../base/model/worker";
import {
	MODEL_TIMEOUT_MS,
	ModelRefusedError,
	modelEvents,
} from "../../base/model/worker";
import { modelText } from "../../providers/workers-ai/worker";

/** How many answers an isolate streams at once; Cloudflare runs many isolates. */
const AI_ANSWERS = 20;
/** When to come back where there are more. */
const AI_BUSY_SECONDS = 5;
/** What fits every model: where that is refused, it is not for its length. */
const AI_SHORT_BYTES = 4000;

/** A conversation: maybe instructions, then a question, and the newest at its end. */
export const aiConversation = z.strictObject({
	messages: z
		.array(
			z.strictObject({
				role: z.enum(["system", "user", "assistant"]),
				content: z.string().regex(/\S/, "Must not be empty"),
			}),
		)
		.min(1)
		.refine((messages) => {
			const roles = messages.map(({ role }) => `${role} `).join("");
			return /^(system )?user ((user|assistant) )*(?<=user )$/.test(roles);
		}, "Must begin and end with the user; `system` may only come before"),
});

export const aiChat = new Hono<AppEnv>();

aiChat.post("/ai/chat", operatorOnly, async (c) => {
	const { messages } = await readJson(c, aiConversation);
	return aiStream(c, messages);
});

/** When the answers that stream end at the latest, in ms since 1970. */
const aiUnderWay = new Set<{ until: number }>();

/**
 * Answers a request with the model's answer, as server-sent events:
 * `{"text":…}` for each piece, `{"truncated":true}` where the model's limit cut
 * it, then `[DONE]`; or `{"error":{code,message}}` where it breaks off. While the
 * model is silent, comments (`:`).
 *
 * @param c The request. When its client goes away, the work ends.
 * @param messages The conversation, oldest message first.
 * @param options Tools that the model may call, and a signal that ends the work.
 * @throws ApiError, before the first piece: 413 when the conversation may be too
 * long for the model, 503 when too many answers stream, and what `modelText`
 * throws.
 */
export async function aiStream<E extends AppEnv>(
	c: Context<E>,
	messages: ModelMessage[],
	options: ModelOptions = {},
): Promise<Response> {
	const gone = new AbortController();
	const signals = [gone.signal, ...(options.signal ? [options.signal] : [])];
	const pieces = aiAnswer(c.env, messages, {
		...options,
		signal: AbortSignal.any(signals),
	});
	const first = await pieces.next();
	const events = modelEvents(first, pieces, gone, (error) => {
		if (error instanceof ApiError) {
			return error;
		}
		throw error;
	});
	return c.body(events, 200, { "Content-Type": "text/event-stream" });
}

/**
 * Asks the model, unless too many answers stream. An answer takes its place with
 * its first piece: until then, nothing tells that its client has gone.
 */
async function* aiAnswer(
	env: Env,
	messages: ModelMessage[],
	options: ModelOptions,
): AsyncGenerator<string, ModelEnd> {
	const answer = { until: Date.now() + MODEL_TIMEOUT_MS };
	aiCheckRoom();
	const pieces = modelText(env, messages, options);
	try {
		const first = await pieces.next();
		if (first.done) {
			return first.value;
		}
		aiCheckRoom();
		aiUnderWay.add(answer);
		yield first.value;
		return yield* pieces;
	} catch (error) {
		throw error instanceof ModelRefusedError && !isShort(messages)
			? new ApiError(
					413,
					"conversation_too_long",
					"Send fewer or shorter messages: the model refused these.",
				)
			: error;
	} finally {
		aiUnderWay.delete(answer);
		await pieces.return({ truncated: true });
	}
}

/**
 * Makes sure that one more answer may stream.
 *
 * @throws ApiError 503 when too many do.
 */
function aiCheckRoom(): void {
	const now = Date.now();
	for (const answer of aiUnderWay) {
		// The runtime may end a request without a word.
		if (answer.until < now) {
			aiUnderWay.delete(answer);
		}
	}
	if (aiUnderWay.size >= AI_ANSWERS) {
		throw new ApiError(
			503,
			"ai_busy",
			`Try again in a few seconds: ${AI_ANSWERS} answers stream already.`,
			{ "Retry-After": String(AI_BUSY_SECONDS) },
		);
	}
}

function isShort(messages: ModelMessage[]): boolean {
	const { byteLength } = new TextEncoder().encode(JSON.stringify(messages));
	return byteLength <= AI_SHORT_BYTES;
}
