// Stands in for Anthropic's API; vi.restoreAllMocks() removes it.
import { vi } from "vitest";

/** The questions to the model since a test last said what it answers. */
export const asked = [];

function standIn(respond) {
	asked.length = 0;
	vi.spyOn(globalThis, "fetch").mockImplementation(async (...call) => {
		const request = new Request(...call);
		const body = await request.text();
		asked.push({ body, signal: request.signal });
		return respond();
	});
}

const MESSAGE = { type: "message", role: "assistant", stop_reason: "end_turn" };

//% if "ai" in features or "agents" in features

function stream(content_block, deltas, stop_reason = "end_turn") {
	const usage = { input_tokens: 1, output_tokens: 1 };
	const message = { ...MESSAGE, content: [], stop_reason: null, usage };
	const body = new ReadableStream({
		async start(controller) {
			const { signal } = asked.at(-1) ?? {};
			signal?.addEventListener("abort", () => controller.error(signal.reason));
			const send = (type, about = {}) => {
				const data = JSON.stringify({ type, index: 0, ...about });
				controller.enqueue(`event: ${type}\ndata: ${data}\n\n`);
			};
			send("message_start", { message });
			send("content_block_start", { content_block });
			for (const delta of deltas) {
				send("content_block_delta", { delta: await delta });
			}
			send("content_block_stop");
			send("message_delta", { delta: { stop_reason }, usage });
			send("message_stop");
			controller.close();
		},
	});
	const headers = { "Content-Type": "text/event-stream" };
	return new Response(body.pipeThrough(new TextEncoderStream()), { headers });
}

//% endif
/** Lets the model answer with these pieces, streamed where that is asked for. */
export function answer(...pieces) {
	standIn(() => {
		//% if "ai" in features or "agents" in features
		if (asked.at(-1)?.body.includes('"stream":true')) {
			const deltas = pieces.map(async (piece) => {
				return { type: "text_delta", text: await piece };
			});
			return stream({ type: "text", text: "" }, deltas);
		}

		//% endif
		const content = [{ type: "text", text: pieces.join("") }];
		return Response.json({ ...MESSAGE, content });
	});
}

/** Lets the API answer with an error. */
export function failWith(status, headers = {}) {
	const error = { type: "error", message: "words of the provider" };
	const body = { type: "error", error };
	standIn(() => Response.json(body, { status, headers }));
}

//% if "agents" in features
/** Lets the model call a tool, and then answer; without pieces, always call. */
export function answerTool(name, input, ...pieces) {
	standIn(() => {
		if (asked.length > 1 && pieces.length > 0) {
			const deltas = pieces.map((text) => ({ type: "text_delta", text }));
			return stream({ type: "text", text: "" }, deltas);
		}
		const id = `call_${asked.length}`;
		const partial_json = JSON.stringify(input);
		const call = { type: "tool_use", id, name, input: {} };
		const delta = { type: "input_json_delta", partial_json };
		return stream(call, [delta], "tool_use");
	});
}
//% endif
