import type { Context } from "hono";
import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import { ApiError, logError, parseInput } from "../../base/base/worker";
import { plainText, queryNumber } from "../../base/text/worker";

/** How large a file may be that a request brings. */
const FILE_BYTES = 25 * 1024 * 1024;

/** Anything, and nothing that a browser would run or show. */
const FILE_OF_BYTES = "application/octet-stream";

/** R2's codes for too many requests, and for being down. */
const FILE_BUSY_CODES = ["10058", "10043"];

/** How many files R2 deletes at once. */
const FILES_DELETED = 1000;

/** A list of ETags, or any. */
const FILE_ETAGS = /^(\*|(W\/)?"[^"]*"( *, *(W\/)?"[^"]*")*)$/;

/** What a request for a file may ask of it before it is read. */
const FILE_CONDITIONS = [
	"If-Match",
	"If-Unmodified-Since",
	"If-None-Match",
	"If-Modified-Since",
	"If-Range",
];

/** The client went away in the middle of an upload. */
class FileCutError extends Error {
	override name = "FileCutError";
}

/** A key that R2 takes, and that stays in its place where it becomes a path. */
const filesKey = plainText(1024).refine(
	(key) => !/(^|[/\\])\.{1,2}([/\\]|$)/.test(key),
	"Must not have `.` or `..` as a part",
);

/** The beginning of any key; other programs may write what `filesKey` refuses. */
const filesKeyStart = z
	.string()
	.refine(
		(text) => new TextEncoder().encode(text).byteLength <= 1024,
		"Must have at most 1024 bytes of UTF-8",
	);

const filesAnyKey = filesKeyStart.refine(
	(key) => key !== "",
	"Must not be empty",
);

const filesQuery = z.object({
	prefix: filesKeyStart.default(""),
	cursor: filesKeyStart.default(""),
	limit: queryNumber(1, 1000).default(100),
});

export const files = new Hono<AppEnv>();

files.get("/files", operatorOnly, async (c) => {
	const query = parseInput(filesQuery, c.req.query(), "invalid_query");
	return c.json(await filesList(c.env, query));
});

files.get("/files/:key{.+}", (c) =>
	// A copy is good for as long as this says so: a file may change or go.
	filesSend(c, filesKeyInPath(c), "no-cache"),
);

files.put("/files/:key{.+}", operatorOnly, async (c) => {
	const { key, size, httpEtag } = await filesReceive(c, filesKeyInPath(c));
	return c.json({ key, size, etag: httpEtag }, 201, { ETag: httpEtag });
});

files.delete("/files/:key{.+}", operatorOnly, async (c) => {
	const key = filesKeyInPath(c);
	const { headers } = c.req.raw;
	if (headers.has("If-Match") || headers.has("If-Unmodified-Since")) {
		// R2 has no such condition: what is stored right after this goes too.
		const file = await filesInfo(c.env, key);
		if (file) {
			filesRequireMatch(headers, file);
		} else if (headers.has("If-Match")) {
			throw filesConditionFailed();
		}
	}
	await filesDelete(c.env, key);
	return c.body(null, 204);
});

/**
 * Returns the key in the path of a request, which is all below `/files/`.
 *
 * @throws ApiError 400 for a key or a path that is not valid, or that Cloudflare may
 * change.
 */
function filesKeyInPath<E extends AppEnv>(c: Context<E>): string {
	// Not Hono's parameter, which leaves as it is what cannot be decoded.
	const { pathname } = new URL(c.req.url);
	const path = pathname.slice(pathname.indexOf("/", 1) + 1);
	if (`/${path}`.includes("//")) {
		// Most domains make one slash of two before the Worker sees them.
		throw new ApiError(
			400,
			"invalid_key",
			"Write two slashes in a row as %2F%2F, or only one.",
		);
	}
	try {
		return filesRequireKey(filesKey, decodeURIComponent(path));
	} catch (error) {
		if (error instanceof ApiError) {
			throw error;
		}
		throw new ApiError(
			400,
			"invalid_key",
			"Encode the key in the path as UTF-8, with valid percent signs.",
		);
	}
}

/**
 * Stores a file, in place of the one that has the key.
 *
 * @param key 1 to 1,024 bytes of UTF-8, without control characters.
 * @param value Its content; a stream must know its length, as the body of a
 * request or a `FixedLengthStream` does.
 * @param options Its media type, and conditions as R2 takes them.
 * @throws ApiError 400 for another key, 412 when the conditions are not met, 502
 * or 503 when R2 fails.
 */
export async function filesPut(
	env: Env,
	key: string,
	value: ReadableStream | ArrayBuffer | ArrayBufferView | Blob | string,
	options: { type?: string; onlyIf?: R2Conditional | Headers } = {},
): Promise<R2Object> {
	const { type, onlyIf = {} } = options;
	const file = await filesFromBucket(
		"put",
		env.BUCKET.put(filesRequireKey(filesKey, key), value, {
			httpMetadata: { contentType: filesType(type) },
			onlyIf,
		}),
	);
	if (file === null) {
		throw filesConditionFailed();
	}
	return file;
}

/**
 * Reads a file.
 *
 * @returns The file, whose `body` is a stream; `null` when there is none.
 * @throws ApiError 400 for a key that no file can have, 502 or 503 when R2 fails.
 */
export async function filesGet(
	env: Env,
	key: string,
): Promise<R2ObjectBody | null> {
	filesRequireKey(filesAnyKey, key);
	return filesFromBucket("get", env.BUCKET.get(key));
}

/** Reads what is known of a file: its size, its type, its ETag; otherwise as `filesGet`. */
export async function filesInfo(
	env: Env,
	key: string,
): Promise<R2Object | null> {
	filesRequireKey(filesAnyKey, key);
	return filesFromBucket("head", env.BUCKET.head(key));
}

/**
 * Deletes a file, or many at once; none of them need be there.
 *
 * @throws ApiError 400 for a key that no file can have, 502 or 503 when R2 fails,
 * which may leave some of many.
 */
export async function filesDelete(
	env: Env,
	keys: string | string[],
): Promise<void> {
	const all = [keys].flat();
	for (const key of all) {
		filesRequireKey(filesAnyKey, key);
	}
	for (let start = 0; start < all.length; start += FILES_DELETED) {
		const some = all.slice(start, start + FILES_DELETED);
		await filesFromBucket("delete", env.BUCKET.delete(some));
	}
}

/**
 * Lists files by their keys.
 *
 * @param page What the keys begin with, how many, and from where: the
 * `nextCursor` of the page before.
 * @returns The files, and where the next page begins; `null` after the last.
 * @throws ApiError 502 or 503 when R2 fails.
 */
export async function filesList(
	env: Env,
	page: { prefix?: string; cursor?: string; limit?: number } = {},
) {
	const { prefix = "", cursor = "", limit = 100 } = page;
	const { objects, truncated } = await filesFromBucket(
		"list",
		env.BUCKET.list({
			limit,
			include: ["httpMetadata"],
			...(prefix && { prefix }),
			...(cursor && { startAfter: cursor }),
		}),
	);
	const files = objects.map(
		({ key, size, httpEtag, httpMetadata, uploaded }) => ({
			key,
			size,
			etag: httpEtag,
			type: filesType(httpMetadata?.contentType),
			uploaded: uploaded.toISOString(),
		}),
	);
	return { files, nextCursor: truncated ? (files.at(-1)?.key ?? null) : null };
}

/**
 * Stores the body of a request, as it comes in.
 *
 * @param maxBytes How large it may be.
 * @returns The file.
 * @throws Error when something has read the body. ApiError 415 for one that is
 * compressed, 411 without a length, 413 over `maxBytes`, 400 when it is shorter or
 * only a part; what `filesPut` throws, with the conditions of the request.
 */
export async function filesReceive<E extends AppEnv>(
	c: Context<E>,
	key: string,
	maxBytes = FILE_BYTES,
): Promise<R2Object> {
	const { headers, body, bodyUsed } = c.req.raw;
	if (bodyUsed) {
		throw new Error("The body has been read: store that with `filesPut`");
	}
	if (headers.has("Content-Encoding")) {
		throw new ApiError(
			415,
			"unsupported_encoding",
			"Send the file as it is, without Content-Encoding.",
		);
	}
	const length = headers.get("Content-Length");
	if (length === null || !/^\d+$/.test(length)) {
		throw new ApiError(
			411,
			"length_required",
			"Say with Content-Length how many bytes the file has.",
		);
	}
	if (Number(length) > maxBytes) {
		throw new ApiError(
			413,
			"file_too_large",
			`A file may have at most ${maxBytes} bytes.`,
		);
	}
	if (headers.has("Content-Range")) {
		throw new ApiError(
			400,
			"partial_file",
			"Send the whole file, without Content-Range.",
		);
	}
	const onlyIf = filesPutConditions(headers);
	const type = headers.get("Content-Type");
	// The length may be wrong: where another Worker sends the request, nothing
	// else compares.
	const { readable, writable } = new FixedLengthStream(Number(length));
	const content = body ?? new Blob().stream();
	content.pipeTo(writable, { preventAbort: true }).catch(() =>
		// The client broke off, unless the stream has failed already.
		writable.abort(new FileCutError()).catch(() => {}),
	);
	// Awaited here, or older runtimes report an error that nobody handles yet.
	return await filesPut(c.env, key, readable, {
		...(type && { type }),
		onlyIf,
	});
}

/**
 * Answers a request with a file, as far as it asks for it: a range, the headers
 * alone, or nothing that it has already. The browser saves it and runs nothing
 * of it.
 *
 * @param cacheControl Who may keep it; nobody, unless told.
 * @throws ApiError 404 without the file, 412 when it is not the one that the
 * request wants, 416 for a range that it does not have; what `filesGet` throws.
 */
export async function filesSend<E extends AppEnv>(
	c: Context<E>,
	key: string,
	cacheControl = "no-store",
): Promise<Response> {
	const { method, headers: asked } = c.req.raw;
	const isConditional = FILE_CONDITIONS.some((name) => asked.has(name));
	// Where the answer may have no body, R2 need not send one.
	const info =
		method === "HEAD" || isConditional
			? filesRequire(await filesInfo(c.env, key))
			: undefined;
	if (info) {
		filesRequireMatch(asked, info);
		const headers = filesHeaders(info, cacheControl);
		if (filesUnchanged(asked, info)) {
			headers.delete("Content-Length");
			return new Response(null, { status: 304, headers });
		}
		if (method === "HEAD") {
			return new Response(null, { headers });
		}
	}
	const range = filesRangeOf(asked, info);
	const file = filesRequire(await filesRead(c.env, key, range, info));
	if (!("body" in file)) {
		// It was replaced meanwhile.
		return filesSend(c, key, cacheControl);
	}
	const headers = filesHeaders(file, cacheControl);
	if (range === undefined) {
		return new Response(file.body, { headers });
	}
	const { offset, length } = filesPlaceOf(range, file.size);
	headers.set(
		"Content-Range",
		`bytes ${offset}-${offset + length - 1}/${file.size}`,
	);
	headers.set("Content-Length", String(length));
	return new Response(file.body, { status: 206, headers });
}

function filesRequireKey(schema: z.ZodType<string>, key: string): string {
	return parseInput(schema, key, "invalid_key");
}

function filesRequire<T>(file: T | null): T {
	if (file === null) {
		throw new ApiError(404, "no_file", "There is no such file.");
	}
	return file;
}

/**
 * Reads a file or a range of it.
 *
 * @param info What is known of it. Of another file there is no `body`.
 * @throws ApiError 416 when it does not have the range.
 */
async function filesRead(
	env: Env,
	key: string,
	range: R2Range | undefined,
	info: R2Object | undefined,
): Promise<R2ObjectBody | R2Object | null> {
	filesRequireKey(filesAnyKey, key);
	const onlyIf = info ? { etagMatches: info.etag } : {};
	if (range === undefined) {
		return filesFromBucket("get", env.BUCKET.get(key, { onlyIf }));
	}
	try {
		return await env.BUCKET.get(key, { range, onlyIf });
	} catch (error) {
		// R2 says so with a code, its local form not always.
		const { size } = filesRequire(await filesInfo(env, key));
		if (filesHasRange(range, size)) {
			throw filesFailure("get", error);
		}
		throw new ApiError(
			416,
			"range_not_satisfiable",
			`The file has ${size} bytes.`,
			{ "Content-Range": `bytes */${size}` },
		);
	}
}

/** Waits for R2; throws what `filesFailure` returns. */
async function filesFromBucket<T>(
	operation: string,
	work: Promise<T>,
): Promise<T> {
	try {
		return await work;
	} catch (error) {
		throw filesFailure(operation, error);
	}
}

/**
 * Logs a failure of R2, and returns what the client may know: a 503 when R2 gets
 * too many requests, a 502 when it fails; a 400, which is no failure, when the
 * client has sent too little or too much.
 *
 * @param operation What R2 did, for the logs.
 */
function filesFailure(operation: string, error: unknown): ApiError {
	if (/FixedLengthStream|FileCutError/.test(String(error))) {
		return new ApiError(
			400,
			"wrong_length",
			"Send as many bytes as Content-Length says.",
		);
	}
	logError("R2 failed", error, { operation });
	// It ends what R2 says: `get: … (10058)`.
	const [, code = ""] = /\((\d+)\)$/.exec(String(error)) ?? [];
	return FILE_BUSY_CODES.includes(code)
		? new ApiError(
				503,
				"files_busy",
				"Try again later: R2 takes one write per second and key.",
				{ "Retry-After": "2" },
			)
		: new ApiError(502, "files_failed", "R2 failed. The logs say why.");
}

function filesConditionFailed(): ApiError {
	return new ApiError(
		412,
		"precondition_failed",
		"The file is not as the conditions of the request want it.",
	);
}

/** Returns the time in a header, or NaN, with which nothing compares. */
function filesDateIn(asked: Headers, name: string): number {
	return Date.parse(asked.get(name) ?? "");
}

/** Returns when a file was stored, without milliseconds, as headers have it. */
function filesStoredAt({ uploaded }: R2Object): number {
	return Math.floor(uploaded.getTime() / 1000) * 1000;
}

/** Throws the 412 when a request is about another state of a file. */
function filesRequireMatch(asked: Headers, file: R2Object): void {
	const match = asked.get("If-Match");
	const isOther =
		match === null
			? filesStoredAt(file) > filesDateIn(asked, "If-Unmodified-Since")
			: !filesHasEtag(match, file.httpEtag);
	if (isOther) {
		throw filesConditionFailed();
	}
}

/** Tells whether a client has this very file already. */
function filesUnchanged(asked: Headers, file: R2Object): boolean {
	const noneMatch = asked.get("If-None-Match");
	return noneMatch === null
		? filesStoredAt(file) <= filesDateIn(asked, "If-Modified-Since")
		: // Cloudflare makes an ETag weak where it compresses an answer.
			filesHasEtag(noneMatch.replaceAll("W/", ""), file.httpEtag);
}

/** Tells whether a list of ETags, none of which has a comma, has one, or any. */
function filesHasEtag(list: string, etag: string): boolean {
	return list.split(",").some((entry) => ["*", etag].includes(entry.trim()));
}

/**
 * Returns the conditions under which a request stores a file, as R2 takes them.
 *
 * @throws ApiError 400 for what are no ETags.
 */
function filesPutConditions(asked: Headers): Headers {
	const conditions = new Headers();
	for (const name of ["If-Match", "If-None-Match"]) {
		const value = asked.get(name);
		if (value !== null && !FILE_ETAGS.test(value)) {
			throw new ApiError(
				400,
				"invalid_condition",
				`Write ${name} as a list of ETags in quotes, or *.`,
			);
		}
		if (value !== null) {
			conditions.set(name, value);
		}
	}
	const date = asked.get("If-Unmodified-Since");
	if (date !== null && !Number.isNaN(Date.parse(date))) {
		conditions.set("If-Unmodified-Since", date);
	}
	return conditions;
}

/**
 * Returns the range that a request asks for. With several, with none that can be
 * read, and with an `If-Range` of another file, the whole file is the answer.
 */
function filesRangeOf(asked: Headers, info?: R2Object): R2Range | undefined {
	const wanted = asked.get("If-Range");
	if (
		wanted !== null &&
		wanted !== info?.httpEtag &&
		wanted !== info?.uploaded.toUTCString()
	) {
		return undefined;
	}
	const [, first, last] =
		/^bytes=(?=.*\d)(\d*)-(\d*)$/i.exec(asked.get("Range") ?? "") ?? [];
	if (first === undefined || last === undefined) {
		return undefined;
	}
	if (first === "") {
		return { suffix: Number(last) };
	}
	const offset = Number(first);
	if (last === "") {
		return { offset };
	}
	const length = Number(last) - offset + 1;
	return length > 0 ? { offset, length } : undefined;
}

/** Tells whether a file of this size has any byte of a range. */
function filesHasRange(range: R2Range, size: number): boolean {
	return "suffix" in range
		? range.suffix > 0 && size > 0
		: (range.offset ?? 0) < size;
}

/** Returns where a range is in a file of this size. */
function filesPlaceOf(range: R2Range, size: number) {
	if ("suffix" in range) {
		const length = Math.min(range.suffix, size);
		return { offset: size - length, length };
	}
	const { offset = 0, length = size } = range;
	return { offset, length: Math.min(length, size - offset) };
}

/** Returns a media type that may stand in a header. */
function filesType(type: string | undefined): string {
	return /^[\w.+-]+\/[\w.+-]+ *(;[\x20-\x7e]{0,99})?$/.test(type ?? "")
		? String(type)
		: FILE_OF_BYTES;
}

/** Returns the headers with which a file is sent. */
function filesHeaders(file: R2Object, cacheControl: string): Headers {
	const { key, size, httpEtag, httpMetadata, uploaded } = file;
	const type = filesType(httpMetadata?.contentType);
	return new Headers({
		"Accept-Ranges": "bytes",
		"Cache-Control": cacheControl,
		"Content-Disposition": filesAttachment(key),
		"Content-Length": String(size),
		"Content-Security-Policy":
			"sandbox; default-src 'none'; frame-ancestors 'none'",
		// A page of this site must not be able to load it as its own.
		"Content-Type": /script|css|wasm/i.test(type) ? FILE_OF_BYTES : type,
		ETag: httpEtag,
		"Last-Modified": uploaded.toUTCString(),
		"X-Content-Type-Options": "nosniff",
	});
}

/** Returns the header that lets a browser save a file under the end of its key. */
function filesAttachment(key: string): string {
	const name = key.split(/[/\\]/).at(-1) || "file";
	const plain = name.replace(/[^\x20-\x7e]|["%]/gu, "_");
	const encoded = encodeURIComponent(name).replace(
		/['()*]/g,
		(character) => `%${character.charCodeAt(0).toString(16)}`,
	);
	return `attachment; filename="${plain}"; filename*=UTF-8''${encoded}`;
}
