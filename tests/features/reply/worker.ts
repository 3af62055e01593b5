import * as z from "zod";
import { ApiError, app } from "../../../base/http/worker";
import { logInfo } from "../../../base/log/worker";
import type { ModelMessage } from "../../../base/model/worker";
import {
	ModelBusyError,
	ModelRefusedError,
	modelTool,
} from "../../../base/model/worker";
import {
	MODEL_WINDOW_CHARACTERS,
	modelObject,
	modelText,
} from "../../../providers/workers-ai/worker";

const REPLY_MESSAGES: ModelMessage[] = [
	{ role: "system", content: "Be brief." },
	{ role: "user", content: "Hello?" },
	{ role: "assistant", content: "Yes?" },
	{ role: "user", content: "How are you?" },
];

const replyTools = {
	add: modelTool({
		description: "Adds two numbers",
		input: z.strictObject({ a: z.number(), b: z.number() }),
		run: ({ a, b }) => ({ sum: a + b }),
	}),
	greet: modelTool({
		description: "Greets somebody",
		input: z.strictObject({ name: z.string().max(9) }),
		run: async ({ name }) => `Hello, ${name}!`,
	}),
	forget: modelTool({
		description: "Forgets everything",
		input: z.strictObject({}),
		run: () => {},
	}),
	book: modelTool({
		description: "Books a table",
		input: z.strictObject({}),
		run: () => {
			const issues = [{ path: "evening", message: "Must be free" }];
			throw new ApiError(409, "taken", "Choose another.", {}, { issues });
		},
	}),
	fail: modelTool({
		description: "Fails",
		input: z.strictObject({}),
		run: () => {
			throw new TypeError("not for the model");
		},
	}),
	wait: modelTool({
		description: "Waits, and never ends",
		input: z.strictObject({}),
		run: (_, signal) => {
			signal.addEventListener("abort", () => logInfo("The tool may stop"));
			return new Promise(() => {});
		},
	}),
	stop: modelTool({
		description: "Waits until it is told to stop",
		input: z.strictObject({}),
		run: (_, signal) =>
			new Promise((_, reject) => {
				signal.addEventListener("abort", () => reject(signal.reason));
			}),
	}),
};

app.get("/reply", async (c) => {
	const { ms, tools, after = "" } = c.req.query();
	const gone = new AbortController();
	const signals = ms
		? [gone.signal, AbortSignal.timeout(Number(ms))]
		: [gone.signal];
	const pieces = modelText(c.env, REPLY_MESSAGES, {
		signal: AbortSignal.any(signals),
		...(tools && { tools: replyTools }),
	});
	// What fails before the first piece still has a status.
	let next = await pieces.next().catch((error) => {
		if (error instanceof ModelRefusedError || error instanceof ModelBusyError) {
			error.headers["X-Error"] = error.constructor.name;
		}
		throw error;
	});
	const body = new ReadableStream({
		async pull(controller) {
			if (next.done) {
				const end = next.value?.truncated ? " (truncated)" : "";
				controller.enqueue(new TextEncoder().encode(end));
				controller.close();
				return;
			}
			const text = next.value.concat(after);
			controller.enqueue(new TextEncoder().encode(text));
			try {
				next = await pieces.next();
			} catch {
				next = { done: false, value: " (failed)" };
			}
		},
		// `pieces.return()` would wait for the piece that is under way.
		cancel: (reason) => gone.abort(reason),
	});
	return new Response(body, {
		headers: { "X-Window": String(MODEL_WINDOW_CHARACTERS) },
	});
});

app.get("/reply/mood", async (c) => {
	const signal = AbortSignal.timeout(Number(c.req.query("ms") ?? 10_000));
	try {
		const mood = await modelObject(c.env, {
			schema: z.strictObject({ mood: z.string().trim() }),
			instructions: "Name the mood.",
			text: "How are you?",
			signal,
		});
		return c.json(mood);
	} catch (error) {
		return c.text(signal.aborted ? "gone" : String(error));
	}
});
