import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import {
	ApiError,
	logError,
	parseInput,
	readJson,
} from "../../base/base/worker";
import { idempotencyKey, idempotentId } from "../../base/idempotency/worker";
import { plainText, queryNumber } from "../../base/text/worker";

/** The model that makes vectors of texts, in more than a hundred languages. */
const EMBEDDING_MODEL = "@cf/baai/bge-m3";

/** How many numbers such a vector has; the index takes no others. */
const EMBEDDING_DIMENSIONS = 1024;

/**
 * The most that a document has as JSON. The index keeps 10 KiB beside a vector,
 * and the model reads 8,192 tokens, none of which is shorter than a byte.
 */
const VECTORIZE_TEXT_BYTES = 8000;

const VECTORIZE_TEXT_LIMIT = `Must have at most ${VECTORIZE_TEXT_BYTES} bytes as JSON`;

/**
 * The most that all texts of one call have in UTF-8: the model reads 60,000
 * tokens at once.
 */
const VECTORIZE_TEXTS_BYTES = 60_000;

/** How much of a text the index keeps for filters. */
const VECTORIZE_FILTER_BYTES = 64;

/** How long the model or the index may take. */
const VECTORIZE_TIMEOUT_MS = 30_000;

/** Codes for too many requests: two of Workers AI and one of Vectorize. */
const VECTORIZE_BUSY_CODES = ["3036", "3040", "40041"];

/** What may fail, by the first word of the code of its error. */
const VECTORIZE_SERVICES = { embedding: "Workers AI", vectorize: "Vectorize" };

const vectorizeFields = {
	text: z.string().trim().min(1),
	metadata: z
		.record(
			z.string().regex(/^(?!text$)[A-Za-z]\w{0,63}$/),
			z.union([z.string(), z.number(), z.boolean()]),
		)
		.optional(),
};

const vectorizeId = plainText(64);

const vectorizeBody = z
	.strictObject(vectorizeFields)
	.refine(vectorizeFits, VECTORIZE_TEXT_LIMIT);

const vectorizeList = z
	.array(
		z
			.strictObject({ ...vectorizeFields, id: vectorizeId.optional() })
			.refine(vectorizeFits, VECTORIZE_TEXT_LIMIT),
	)
	.min(1)
	.max(20)
	.refine(
		(list) =>
			vectorizeBytes(list.map(({ text }) => text).join("")) <=
			VECTORIZE_TEXTS_BYTES,
		`Must have texts of at most ${VECTORIZE_TEXTS_BYTES} bytes in all`,
	);

const vectorizeQuery = z.object({
	q: z.string().trim().min(1).max(1000),
	limit: z.int().min(1).max(20).default(5),
});

/** A text for the search, what else is known of it, and an id of one's own. */
export type VectorizeDocument = z.input<typeof vectorizeList>[number];

/** A text that a search has found. The closer its meaning, the nearer to 1. */
export type VectorizeMatchedText = {
	id: string;
	text: string;
	score: number;
	metadata?: Record<string, VectorizeVectorMetadata>;
};

export const documents = new Hono<AppEnv>();

documents.post("/documents", operatorOnly, async (c) => {
	const document = await readJson(c, vectorizeBody);
	const key = idempotencyKey(c);
	const id =
		key === undefined
			? crypto.randomUUID()
			: // A repeat stores the same again, under the same id.
				await idempotentId("POST /documents", key);
	await vectorizeInsert(c.env, [{ ...document, id }]);
	return c.json({ id }, 201);
});

documents.delete("/documents/:id", operatorOnly, async (c) => {
	await vectorizeDelete(c.env, [c.req.param("id")]);
	return c.body(null, 204);
});

documents.get("/search", operatorOnly, async (c) => {
	const inQuery = vectorizeQuery.extend({
		limit: queryNumber(1, 20).default(5),
	});
	const { q, limit } = parseInput(inQuery, c.req.query(), "invalid_query");
	return c.json({ matches: await vectorizeSearch(c.env, q, { limit }) });
});

/**
 * Stores texts for the search, which finds them some seconds later.
 *
 * @param documents 1 to 20 of them, each at most 8,000 bytes as JSON, with texts of
 * at most 60,000 bytes in all. One with the id of another replaces it.
 * @returns Their ids.
 * @throws ApiError 400 for other documents, 503 when something is not set up or
 * gets too many requests, 502 when it fails.
 */
export async function vectorizeInsert(
	env: Env,
	documents: VectorizeDocument[],
): Promise<string[]> {
	const list = parseInput(vectorizeList, documents);
	const texts = list.map(({ text }) => text);
	const embeddings = await vectorizeEmbed(env, texts);
	const vectors = list.map(
		({ id = crypto.randomUUID(), text, metadata }, index) => ({
			id,
			values: embeddings[index] ?? [],
			metadata: { ...metadata, text },
		}),
	);
	await fromVectorize("vectorize", env.VECTORIZE.upsert(vectors));
	return vectors.map(({ id }) => id);
}

/**
 * Finds the texts that are closest in meaning to a question or any other text.
 *
 * @param query 1 to 1,000 characters.
 * @param options How many to find, 5 unless told and at most 20, and which
 * metadata they must have, as Vectorize takes it; `{}` is no filter. The index
 * compares the first 64 bytes of a text, so a longer one in a filter gets 400.
 * @returns The texts, the closest first. They may come from anybody.
 * @throws ApiError as `vectorizeInsert` does.
 */
export async function vectorizeSearch(
	env: Env,
	query: string,
	options: { limit?: number; filter?: VectorizeVectorMetadataFilter } = {},
): Promise<VectorizeMatchedText[]> {
	const filter = vectorizeFilter(options.filter ?? {});
	const { q, limit } = parseInput(
		vectorizeQuery,
		{ q: query, limit: options.limit },
		"invalid_query",
	);
	const [embedding = []] = await vectorizeEmbed(env, [q]);
	const { matches } = await fromVectorize(
		"vectorize",
		env.VECTORIZE.query(embedding, {
			topK: limit,
			returnMetadata: "all",
			...(filter && { filter }),
		}),
	);
	return matches.map(({ id, score, metadata }) => {
		// Other programs may store vectors without a text, or without any metadata.
		const { text, ...more } = metadata ?? {};
		const isMore = Object.keys(more).length > 0;
		return {
			id,
			text: typeof text === "string" ? text : "",
			score,
			...(isMore && { metadata: more }),
		};
	});
}

/**
 * Deletes texts, which the search goes on finding for some seconds.
 *
 * @param ids 1 to 100 of them; there need not be such texts.
 * @throws ApiError as `vectorizeInsert` does.
 */
export async function vectorizeDelete(env: Env, ids: string[]): Promise<void> {
	const idList = z.array(vectorizeId).min(1).max(100);
	const list = parseInput(idList, ids, "invalid_id");
	await fromVectorize("vectorize", env.VECTORIZE.deleteByIds(list));
}

/**
 * Cuts a text into passages for `vectorizeInsert`, between sentences wherever they
 * are short enough. One vector stands for a few paragraphs at most.
 *
 * @param maxBytes The most that a passage has in UTF-8.
 * @returns The passages, none of them empty, in their order.
 */
export function vectorizePassages(text: string, maxBytes = 2000): string[] {
	const sentences = new Intl.Segmenter("en", { granularity: "sentence" });
	const characters = new Intl.Segmenter("en", { granularity: "grapheme" });
	const pieces = [...sentences.segment(text)].flatMap(({ segment }) =>
		vectorizeBytes(segment) <= maxBytes
			? [segment]
			: [...characters.segment(segment)].map((one) => one.segment),
	);
	const passages: string[] = [];
	let [passage, bytes] = ["", 0];
	for (const piece of pieces) {
		const more = vectorizeBytes(piece);
		if (bytes + more > maxBytes) {
			passages.push(passage);
			[passage, bytes] = ["", 0];
		}
		passage += piece;
		bytes += more;
	}
	return [...passages, passage]
		.map((one) => one.trim())
		.filter((one) => one !== "");
}

/** Tells whether the index can keep a document. */
function vectorizeFits(document: {
	text: string;
	metadata?: unknown;
}): boolean {
	const { text, metadata } = document;
	return (
		vectorizeBytes(JSON.stringify({ text, metadata })) <= VECTORIZE_TEXT_BYTES
	);
}

function vectorizeBytes(text: string): number {
	return new TextEncoder().encode(text).byteLength;
}

/**
 * Checks that a filter compares what it says.
 *
 * @returns The filter; `undefined` for one that asks for nothing.
 * @throws ApiError 400 for a text of which the index would compare the beginning,
 * and for a key without a value, which JSON would leave out.
 */
function vectorizeFilter(
	filter: VectorizeVectorMetadataFilter,
): VectorizeVectorMetadataFilter | undefined {
	JSON.stringify(filter, (key, value) => {
		if (value === undefined) {
			const message = `Give ${key} in the filter a value.`;
			throw new ApiError(400, "invalid_query", message);
		}
		if (
			typeof value === "string" &&
			vectorizeBytes(value) > VECTORIZE_FILTER_BYTES
		) {
			throw new ApiError(
				400,
				"invalid_query",
				`Filter by texts of at most ${VECTORIZE_FILTER_BYTES} bytes: the index knows no more of them.`,
			);
		}
		return value;
	});
	return Object.keys(filter).length > 0 ? filter : undefined;
}

/**
 * Makes a vector of each text.
 *
 * @throws ApiError 503 or 502, also when the answer is no such vectors.
 */
async function vectorizeEmbed(env: Env, texts: string[]): Promise<number[][]> {
	const vector = z.array(z.number()).length(EMBEDDING_DIMENSIONS);
	const answer = z.object({ data: z.array(vector).length(texts.length) });
	const embedding = env.AI.run(EMBEDDING_MODEL, { text: texts });
	const { data } = answer.safeParse(
		await fromVectorize("embedding", embedding),
	);
	if (data === undefined) {
		throw vectorizeFailed("embedding", "The answer is not one vector per text");
	}
	return data.data;
}

/**
 * Waits for the model or the index.
 *
 * @throws ApiError 503 when it is not set up or gets too many requests, 502 when
 * it fails or takes too long.
 */
async function fromVectorize<T>(
	service: keyof typeof VECTORIZE_SERVICES,
	work: Promise<T>,
): Promise<T> {
	const end = new AbortController();
	try {
		return await Promise.race([work, vectorizeTimeout(end.signal)]);
	} catch (error) {
		const said = String(error);
		if (said.includes("needs to be run remotely")) {
			throw new ApiError(
				503,
				"vectorize_not_configured",
				`Vectorize runs on Cloudflare only. Create the index: wrangler vectorize create {project_name}-documents --dimensions=${EMBEDDING_DIMENSIONS} --metric=cosine; then use the script dev:online.`,
			);
		}
		// The rest of what they say may repeat what users wrote.
		const [code] = /\b\d{4,5}(?=[:)])/.exec(said) ?? [];
		const [reason] =
			/expected \d+ dimensions|No answer in \d+ ms/.exec(said) ?? [];
		throw vectorizeFailed(service, reason ?? "It failed", code);
	} finally {
		end.abort();
	}
}

async function vectorizeTimeout(signal: AbortSignal): Promise<never> {
	await scheduler.wait(VECTORIZE_TIMEOUT_MS, { signal });
	throw new Error(`No answer in ${VECTORIZE_TIMEOUT_MS} ms`);
}

/** Logs why the model or the index failed; returns what the client may know. */
function vectorizeFailed(
	service: keyof typeof VECTORIZE_SERVICES,
	reason: string,
	code = "",
): ApiError {
	const name = VECTORIZE_SERVICES[service];
	logError(`${name} failed`, new Error(reason), { code });
	return VECTORIZE_BUSY_CODES.includes(code)
		? new ApiError(
				503,
				`${service}_busy`,
				`Try again later: ${name} gets too many requests.`,
				{ "Retry-After": "60" },
			)
		: new ApiError(
				502,
				`${service}_failed`,
				`${name} failed. The logs say why.`,
			);
}
