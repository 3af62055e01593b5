import { env } from "cloudflare:workers";
import { vi } from "vitest";

type Run = (model: unknown, inputs: unknown, options: unknown) => unknown;

const real = env.AI.run.bind(env.AI) as Run;

/** Counts the characters of a text, so that like texts have like vectors. */
function vectorOf(text: string): number[] {
	const counts = new Array<number>(1024).fill(0);
	for (const character of text.toLowerCase()) {
		const place = character.charCodeAt(0) % counts.length;
		counts[place] = (counts[place] ?? 0) + 1;
	}
	const length = Math.hypot(...counts);
	return counts.map((count) => count / length);
}

/**
 * Stands in for Vectorize, and for the model that makes its vectors, until
 * `vi.restoreAllMocks()`. Texts are alike that have the same characters; a filter
 * compares values and nothing else. Other models are asked as before.
 *
 * @returns What is in the index, by ids.
 */
export function standInForVectorize(): Map<string, VectorizeVector> {
	const index = new Map<string, VectorizeVector>();
	const run = vi.spyOn(env.AI, "run");
	const before = (run.getMockImplementation() ?? real) as Run;
	run.mockImplementation((async (
		model: unknown,
		inputs: object,
		options: unknown,
	) =>
		"text" in inputs && Array.isArray(inputs.text)
			? { data: inputs.text.map(vectorOf) }
			: before(model, inputs, options)) as typeof env.AI.run);
	vi.spyOn(env.VECTORIZE, "upsert").mockImplementation(async (vectors) => {
		for (const vector of vectors) {
			index.set(vector.id, vector);
		}
		return { ids: vectors.map(({ id }) => id), count: vectors.length };
	});
	vi.spyOn(env.VECTORIZE, "deleteByIds").mockImplementation(async (ids) => {
		for (const id of ids) {
			index.delete(id);
		}
		return { ids, count: ids.length };
	});
	vi.spyOn(env.VECTORIZE, "query").mockImplementation(
		async (query, { topK = 5, filter = {} } = {}) => {
			const wanted = Object.entries(filter);
			const matches = [...index.values()]
				.filter(({ metadata = {} }) =>
					wanted.every(([key, value]) => metadata[key] === value),
				)
				.map(({ id, values, metadata }) => {
					const products = [...values].map((one, i) => one * (query[i] ?? 0));
					const score = products.reduce((sum, product) => sum + product, 0);
					return { id, score, ...(metadata && { metadata }) };
				})
				.sort((a, b) => b.score - a.score)
				.slice(0, topK);
			return { matches, count: matches.length };
		},
	);
	return index;
}
