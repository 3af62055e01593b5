// Stands in for Workers AI; vi.restoreAllMocks() removes it.
import { env } from "cloudflare:workers";
import { vi } from "vitest";

/** The questions to the model since a test last said what it answers. */
export const asked: { body: string; signal: AbortSignal }[] = [];

function standIn(respond: () => unknown): void {
	asked.length = 0;
	const run = async (_: string, inputs: object, options?: AiOptions) => {
		const signal = options?.signal ?? new AbortController().signal;
		signal.throwIfAborted();
		asked.push({ body: JSON.stringify(inputs), signal });
		return respond();
	};
	vi.spyOn(env.AI, "run").mockImplementation(run as typeof env.AI.run);
}

/** Lets the model answer with these pieces, streamed where that is asked for. */
export function answer(...pieces: (string | Promise<string>)[]): void {
	standIn(() => {
		return { response: pieces.join("") };
	});
}

/** Lets Workers AI fail with its code for an HTTP status. */
export function failWith(status: number, _: HeadersInit = {}): void {
	const code = status === 429 ? 3040 : 3043;
	standIn(() => {
		throw new Error(`${code}: words of the provider`);
	});
}
