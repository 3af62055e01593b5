import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import {
	ApiError,
	logError,
	parseInput,
	readJson,
} from "../../base/base/worker";

/** Makes vectors of texts in more than a hundred languages. */
const EMBEDDING_MODEL = "@cf/baai/bge-m3";

/** How many numbers such a vector has; the index takes no others. */
const EMBEDDING_DIMENSIONS = 1024;

const documentBody = z.strictObject({
	text: z
		.string()
		.trim()
		.min(1)
		.refine(
			// The index keeps 10 KiB beside a vector; the model reads 8,192 tokens.
			(text) => new TextEncoder().encode(JSON.stringify(text)).length <= 8000,
			"Must have at most 8000 bytes as JSON",
		),
});

const searchQuery = z.object({
	q: z.string().trim().min(1).max(1000),
	limit: z.coerce.number().int().min(1).max(20).default(5),
});

/** @type {Hono<{ Bindings: Env }>} */
export const documents = new Hono();

documents.post("/documents", operatorOnly, async (c) => {
	const { text } = await readJson(c, documentBody);
	const id = crypto.randomUUID();
	await storeDocument(c.env, id, text);
	return c.json({ id }, 201);
});

documents.delete("/documents/:id", operatorOnly, async (c) => {
	await fromService(c.env.VECTORIZE.deleteByIds([c.req.param("id")]));
	return c.body(null, 204);
});

documents.get("/search", operatorOnly, async (c) => {
	const query = parseInput(searchQuery, c.req.query(), "invalid_query");
	const matches = await searchDocuments(c.env, query.q, query.limit);
	return c.json({ matches });
});

/**
 * Stores a text for the search, which finds it some seconds later. It replaces
 * the one that has the same id, of at most 64 bytes.
 */
export async function storeDocument(env, id, text) {
	const values = await embed(env, text);
	await fromService(env.VECTORIZE.upsert([{ id, values, metadata: { text } }]));
}

/** Finds the texts that are closest in meaning to another, the closest first. */
export async function searchDocuments(env, query, limit) {
	const vector = await embed(env, query);
	const options = { topK: limit, returnMetadata: "all" };
	const found = await fromService(env.VECTORIZE.query(vector, options));
	return found.matches.map(({ id, score, metadata }) => ({
		id,
		text: metadata?.text ?? "",
		score,
	}));
}

async function embed(env, text) {
	const work = env.AI.run(EMBEDDING_MODEL, { text: [text] });
	const answer = await fromService(work);
	const [vector] = "data" in answer ? (answer.data ?? []) : [];
	if (vector?.length !== EMBEDDING_DIMENSIONS) {
		throw searchFailed(new Error("The answer holds no such vector"));
	}
	return vector;
}

/** Waits for the model or the index; a failure becomes a 503 or a 502. */
async function fromService(work) {
	try {
		return await work;
	} catch (error) {
		if (String(error).includes("needs to be run remotely")) {
			const message =
				"This has no local form. Use dev:online, as README.md says.";
			throw new ApiError(503, "vectorize_not_configured", message);
		}
		throw searchFailed(error);
	}
}

/** Logs why a search failed, which its client need not know. */
function searchFailed(error) {
	logError("Workers AI or Vectorize failed", error);
	// Their codes for too many requests, which stand in the message alone.
	if (/\b(3036|3040|40041)\b/.test(String(error))) {
		const message = "Workers AI or Vectorize is busy. Try again later.";
		const headers = { "Retry-After": "60" };
		return new ApiError(503, "search_busy", message, headers);
	}
	return new ApiError(502, "search_failed", "The search failed. See the logs.");
}
