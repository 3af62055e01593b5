// Stands in for Workers AI; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { vi } from "vitest";

/** The questions to the model since a test last said what it answers. */
export const asked = [];

function standIn(respond) {
	asked.length = 0;
	const run = async (_, inputs, options) => {
		const signal = options?.signal ?? new AbortController().signal;
		signal.throwIfAborted();
		asked.push({ body: JSON.stringify(inputs), signal });
		return respond();
	};
	vi.spyOn(env.AI, "run").mockImplementation(run);
}

//% if "ai" in features or "agents" in features

function stream(pieces) {
	const body = new ReadableStream({
		async start(controller) {
			const { signal } = asked.at(-1) ?? {};
			signal?.addEventListener("abort", () => controller.error(signal.reason));
			for (const piece of pieces) {
				controller.enqueue(`data: ${JSON.stringify(await piece)}\n\n`);
			}
			controller.enqueue("data: [DONE]\n\n");
			controller.close();
		},
	});
	return body.pipeThrough(new TextEncoderStream());
}

//% endif
/** Lets the model answer with these pieces, streamed where that is asked for. */
export function answer(...pieces) {
	standIn(() => {
		//% if "ai" in features or "agents" in features
		if (asked.at(-1)?.body.includes('"stream":true')) {
			const said = pieces.map(async (piece) => ({ response: await piece }));
			return stream(said);
		}

		//% endif
		return { response: pieces.join("") };
	});
}

/** Lets Workers AI fail with its code for an HTTP status. */
export function failWith(status, _ = {}) {
	const code = status === 429 ? 3040 : 3043;
	standIn(() => {
		throw new Error(`${code}: words of the provider`);
	});
}

//% if "agents" in features
/** Lets the model call a tool, and then answer; without pieces, always call. */
export function answerTool(name, input, ...pieces) {
	standIn(() => {
		const said = pieces.map((response) => ({ response }));
		const call = { response: "", tool_calls: [{ name, arguments: input }] };
		const isAnswer = asked.length > 1 && pieces.length > 0;
		return stream(isAnswer ? said : [call]);
	});
}
//% endif
