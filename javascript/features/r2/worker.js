import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import { ApiError, parseInput } from "../../base/base/worker";

const MAX_FILE_BYTES = 25 * 1024 * 1024;

/** `*`, or ETags in quotes. R2 throws for others, which anybody may send. */
const ETAGS = /^(\*|(W\/)?"[^"]*"( *, *(W\/)?"[^"]*")*)$/;

const fileKey = z
	.string()
	.regex(/^\P{Cc}+$/u, "Must be text without control characters")
	.regex(/^(?!(.*\/)?\.\.?(\/|$))/, "Must not have `.` or `..` as a part")
	.refine(
		(key) => new TextEncoder().encode(key).length <= 1024,
		"Must have at most 1024 bytes of UTF-8",
	);

const filesQuery = z.object({
	prefix: z.string().default(""),
	cursor: z.string().default(""),
	limit: z.coerce.number().int().min(1).max(1000).default(100),
});

/** @type {Hono<{ Bindings: Env }>} */
export const files = new Hono();

files.get("/files", operatorOnly, async (c) => {
	const query = parseInput(filesQuery, c.req.query(), "invalid_query");
	const { objects, truncated } = await c.env.BUCKET.list({
		prefix: query.prefix,
		startAfter: query.cursor,
		limit: query.limit,
		include: ["httpMetadata"],
	});
	const list = objects.map((file) => ({
		key: file.key,
		size: file.size,
		etag: file.httpEtag,
		type: file.httpMetadata?.contentType ?? "",
		uploaded: file.uploaded,
	}));
	const nextCursor = truncated ? objects.at(-1)?.key : null;
	return c.json({ files: list, nextCursor });
});

files.get("/files/:key{.+}", (c) => sendFile(c, keyInPath(c)));

files.put("/files/:key{.+}", operatorOnly, async (c) => {
	const { key, size, httpEtag } = await storeFile(c, keyInPath(c));
	return c.json({ key, size, etag: httpEtag }, 201, { ETag: httpEtag });
});

files.delete("/files/:key{.+}", operatorOnly, async (c) => {
	await c.env.BUCKET.delete(keyInPath(c));
	return c.body(null, 204);
});

/** Returns the key in the path of a request: all below `/files/`, decoded. */
function keyInPath(c) {
	// Hono's parameter keeps as it is what cannot be decoded.
	const [, , ...parts] = new URL(c.req.url).pathname.split("/");
	let key;
	try {
		key = decodeURIComponent(parts.join("/"));
	} catch {
		throw new ApiError(400, "invalid_key", "Encode the key as UTF-8.");
	}
	return parseInput(fileKey, key, "invalid_key");
}

/** Streams the body of a request into R2, if its `If-…` headers allow it. */
export async function storeFile(c, key) {
	const { headers, body } = c.req.raw;
	const length = headers.get("Content-Length") ?? "";
	if (!/^\d+$/.test(length)) {
		const message = "Say with Content-Length how many bytes the file has.";
		throw new ApiError(411, "length_required", message);
	}
	if (Number(length) > MAX_FILE_BYTES) {
		const message = `A file may have at most ${MAX_FILE_BYTES} bytes.`;
		throw new ApiError(413, "file_too_large", message);
	}
	const contentType = headers.get("Content-Type");
	const file = await c.env.BUCKET.put(key, body, {
		onlyIf: conditionsIn(headers),
		...(contentType && { httpMetadata: { contentType } }),
	});
	if (file === null) {
		throw conditionFailed();
	}
	return file;
}

/**
 * Answers with a file: all of it, the range that the request asks for, or 304.
 * Browsers save it and run nothing of it.
 */
export async function sendFile(c, key) {
	const { BUCKET } = c.env;
	const { method, headers: asked } = c.req.raw;
	const isHead = method === "HEAD";
	const info = isHead || asked.has("Range") ? await BUCKET.head(key) : null;
	const range = isHead || !info ? null : rangeIn(asked, info.size);
	const onlyIf = new Headers(conditionsIn(asked));
	if (range && info && !onlyIf.has("If-Match")) {
		onlyIf.set("If-Match", info.httpEtag);
	}
	const options = { onlyIf, ...(range && { range }) };
	const file = isHead ? info : await BUCKET.get(key, options);
	if (file === null) {
		throw new ApiError(404, "no_file", "There is no such file.");
	}
	if (range && file.etag !== info?.etag) {
		return sendFile(c, key); // It was replaced meanwhile.
	}
	const headers = headersOf(file);
	const { body = null } = file;
	if (!body && !isHead) {
		// R2 does not say which condition was not met.
		if (asked.has("If-Match") || asked.has("If-Unmodified-Since")) {
			throw conditionFailed();
		}
		return new Response(null, { status: 304, headers });
	}
	const { offset, length } = range ?? { offset: 0, length: file.size };
	headers.set("Content-Length", String(length));
	if (range) {
		const place = `${offset}-${offset + length - 1}`;
		headers.set("Content-Range", `bytes ${place}/${file.size}`);
	}
	return new Response(body, { status: range ? 206 : 200, headers });
}

function headersOf({ key, httpMetadata, httpEtag, uploaded }) {
	const type = httpMetadata?.contentType ?? "";
	// A page of this site must not be able to load an upload as its own script.
	const isHarmless = type !== "" && !/script|css|wasm/i.test(type);
	const name = encodeURIComponent(key.split("/").at(-1) || "file");
	return new Headers({
		"Accept-Ranges": "bytes",
		// Keep a copy, but ask each time whether it is still the same.
		"Cache-Control": "no-cache",
		"Content-Disposition": `attachment; filename*=UTF-8''${name}`,
		"Content-Security-Policy":
			"sandbox; default-src 'none'; frame-ancestors 'none'",
		"Content-Type": isHarmless ? type : "application/octet-stream",
		ETag: httpEtag,
		"Last-Modified": uploaded.toUTCString(),
	});
}

/** Returns the one range that a request asks for, or `null` for the whole file. */
function rangeIn(headers, size) {
	const asked = headers.get("Range") ?? "";
	const range = /^bytes=(?:(\d+)-(\d*)|-(\d+))$/i.exec(asked);
	// R2 does not know `If-Range`, with which the whole file is always right.
	if (range === null || headers.has("If-Range")) {
		return null;
	}
	const [, first, last, suffix] = range;
	const offset = first ? Number(first) : Math.max(0, size - Number(suffix));
	const end = last ? Math.min(Number(last) + 1, size) : size;
	if (offset >= size) {
		const message = `The file has ${size} bytes.`;
		const about = { "Content-Range": `bytes */${size}` };
		throw new ApiError(416, "range_not_satisfiable", message, about);
	}
	return end > offset ? { offset, length: end - offset } : null;
}

/** Returns the headers of a request for R2, once they hold no malformed ETag. */
function conditionsIn(headers) {
	for (const name of ["If-Match", "If-None-Match"]) {
		if (!ETAGS.test(headers.get(name) ?? "*")) {
			const message = `Write ${name} as ETags in quotes, or as *.`;
			throw new ApiError(400, "invalid_etag", message);
		}
	}
	return headers;
}

function conditionFailed() {
	const message = "The file is not as the conditions of the request want it.";
	return new ApiError(412, "precondition_failed", message);
}
