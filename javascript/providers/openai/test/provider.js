// Stands in for OpenAI's API; vi.restoreAllMocks() removes it.
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

//% if "ai" in features or "agents" in features

function stream(deltas, end = "stop") {
	const body = new ReadableStream({
		async start(controller) {
			const { signal } = asked.at(-1) ?? {};
			signal?.addEventListener("abort", () => controller.error(signal.reason));
			const send = (delta, finish_reason) => {
				const choices = [{ index: 0, delta, finish_reason }];
				const chunk = { id: "1", created: 1, model: "stand-in", choices };
				controller.enqueue(`data: ${JSON.stringify(chunk)}\n\n`);
			};
			for (const delta of deltas) {
				send(await delta, null);
			}
			send({}, end);
			controller.enqueue("data: [DONE]\n\n");
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
				return { role: "assistant", content: await piece };
			});
			return stream(deltas);
		}

		//% endif
		const message = { role: "assistant", content: pieces.join("") };
		const choices = [{ index: 0, message, finish_reason: "stop" }];
		return Response.json({ choices });
	});
}

/** Lets the API answer with an error. */
export function failWith(status, headers = {}) {
	const error = { message: "words of the provider" };
	standIn(() => Response.json({ error }, { status, headers }));
}

//% if "agents" in features
/** Lets the model call a tool, and then answer; without pieces, always call. */
export function answerTool(name, input, ...pieces) {
	standIn(() => {
		if (asked.length > 1 && pieces.length > 0) {
			const deltas = pieces.map((content) => ({ role: "assistant", content }));
			return stream(deltas);
		}
		const called = { name, arguments: JSON.stringify(input) };
		const id = `call_${asked.length}`;
		const call = { index: 0, id, type: "function", function: called };
		const delta = { role: "assistant", tool_calls: [call] };
		return stream([delta], "tool_calls");
	});
}
//% endif
