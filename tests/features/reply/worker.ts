import { app } from "../../../base/http/worker";
import type { ModelMessage } from "../../../base/model/worker";
import { modelText } from "../../../providers/workers-ai/worker";

const REPLY_MESSAGES: ModelMessage[] = [
	{ role: "system", content: "Be brief." },
	{ role: "user", content: "Hello?" },
	{ role: "assistant", content: "Yes?" },
	{ role: "user", content: "How are you?" },
];

app.get("/reply", async (c) => {
	const gone = new AbortController();
	const ms = Number(c.req.query("ms"));
	const signals = ms ? [gone.signal, AbortSignal.timeout(ms)] : [gone.signal];
	const signal = AbortSignal.any(signals);
	const pieces = modelText(c.env, REPLY_MESSAGES, signal);
	// What fails before the first piece still has a status.
	let next = await pieces.next();
	const body = new ReadableStream({
		async pull(controller) {
			if (next.done) {
				controller.close();
				return;
			}
			controller.enqueue(new TextEncoder().encode(next.value));
			try {
				next = await pieces.next();
			} catch {
				next = { done: false, value: " (failed)" };
			}
		},
		// `pieces.return()` would wait for the piece that is under way.
		cancel: (reason) => gone.abort(reason),
	});
	return new Response(body);
});
