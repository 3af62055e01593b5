import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import { readJson } from "../../base/base/worker";
import { modelEvents, modelText } from "../../providers/workers-ai/worker";

/** A conversation, oldest message first; instructions may stand before it. */
export const conversation = z.strictObject({
	messages: z
		.array(
			z.strictObject({
				role: z.enum(["system", "user", "assistant"]),
				content: z.string().trim().min(1),
			}),
		)
		.refine(
			(messages) => messages.at(-1)?.role === "user",
			"Must end with a message of the user",
		)
		.refine(
			(messages) => messages.slice(1).every(({ role }) => role !== "system"),
			"May have `system` only as the first message",
		),
});

/** @type {Hono<{ Bindings: Env }>} */
export const aiChat = new Hono();

aiChat.post("/ai/chat", operatorOnly, async (c) => {
	const { messages } = await readJson(c, conversation);
	return modelEvents((signal) => modelText(c.env, messages, signal));
});
