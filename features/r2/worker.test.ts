import { env, exports } from "cloudflare:workers";
import type { Context } from "hono";
import { Hono } from "hono";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
	filesDelete,
	filesGet,
	filesInfo,
	filesList,
	filesPut,
	filesReceive,
	filesSend,
} from "./worker";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
/** For files that are not for everybody: `OPERATOR`, and `"no-store"`. */
const READER = {};
const KEPT = "no-cache";
const TEXT = "Hello, world!";
/** Its MD5, as R2 has it. */
const ETAG = '"6cd3556deb0da54bca060b4c39479839"';
const LONG_AGO = "Sat, 01 Jan 2022 00:00:00 GMT";
const FAR_OFF = "Fri, 01 Jan 2100 00:00:00 GMT";

let log: MockInstance<typeof console.error>;

beforeEach(() => {
	log = vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(async () => {
	vi.restoreAllMocks();
	const { objects } = await env.BUCKET.list();
	await env.BUCKET.delete(objects.map(({ key }) => key));
});

function request(
	method: string,
	path: string,
	headers: Record<string, string> = {},
	body: BodyInit | null = null,
): Promise<Response> {
	return exports.default.fetch(
		new Request(`https://example.com${path}`, { method, headers, body }),
	);
}

function get(path: string, headers: Record<string, string> = {}) {
	return request("GET", path, { ...READER, ...headers });
}

function head(path: string, headers: Record<string, string> = {}) {
	return request("HEAD", path, { ...READER, ...headers });
}

function put(
	path: string,
	body: BodyInit = TEXT,
	headers: Record<string, string> = {},
): Promise<Response> {
	const length = typeof body === "string" ? body.length : 0;
	return request(
		"PUT",
		path,
		{
			...OPERATOR,
			"Content-Length": String(length),
			"Content-Type": "text/plain",
			...headers,
		},
		body,
	);
}

function remove(path: string, headers: Record<string, string> = {}) {
	return request("DELETE", path, { ...OPERATOR, ...headers });
}

/** Makes a body of `TEXT` of which the runtime knows no length. */
function ofUnknownLength(): ReadableStream {
	return new ReadableStream({
		start(controller) {
			controller.enqueue(new TextEncoder().encode(TEXT));
			controller.close();
		},
	});
}

async function codeOf(response: Response): Promise<string> {
	const { error } = await response.json<{ error: { code: string } }>();
	return error.code;
}

async function textOf(key: string): Promise<string | undefined> {
	return (await env.BUCKET.get(key))?.text();
}

describe("a file", () => {
	it("is stored, read, replaced and deleted", async () => {
		const stored = await put("/files/notes/a.txt", TEXT, {
			"Content-Type": "text/plain; charset=utf-8",
		});
		expect(stored.status).toBe(201);
		expect(stored.headers.get("ETag")).toBe(ETAG);
		expect(await stored.json()).toEqual({
			key: "notes/a.txt",
			size: TEXT.length,
			etag: ETAG,
		});

		const read = await get("/files/notes/a.txt");
		expect(read.status).toBe(200);
		expect(await read.text()).toBe(TEXT);

		expect((await put("/files/notes/a.txt", "new")).status).toBe(201);
		expect(await (await get("/files/notes/a.txt")).text()).toBe("new");

		const deleted = await remove("/files/notes/a.txt");
		expect(deleted.status).toBe(204);
		expect(await deleted.text()).toBe("");
		const gone = await get("/files/notes/a.txt");
		expect(gone.status).toBe(404);
		expect(await codeOf(gone)).toBe("no_file");
		expect((await remove("/files/notes/a.txt")).status).toBe(204);
	});

	it("is sent with headers that let nobody run it", async () => {
		await put("/files/notes/a.txt", TEXT, { "Content-Type": "text/html" });
		const response = await get("/files/notes/a.txt");
		expect(Object.fromEntries(response.headers)).toMatchObject({
			"accept-ranges": "bytes",
			"cache-control": KEPT,
			"content-disposition":
				"attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt",
			"content-security-policy":
				"sandbox; default-src 'none'; frame-ancestors 'none'",
			"content-type": "text/html",
			etag: ETAG,
			"last-modified": expect.stringMatching(/^\w{3}, \d\d \w{3} .* GMT$/),
			"x-content-type-options": "nosniff",
		});
	});

	it("tells about itself without its content", async () => {
		await put("/files/a", TEXT, { "Content-Type": "text/plain" });
		const whole = await get("/files/a");
		await whole.text();
		const response = await head("/files/a");
		expect(response.status).toBe(200);
		expect(await response.text()).toBe("");
		for (const [name, value] of whole.headers) {
			if (name !== "x-request-id") {
				expect(response.headers.get(name)).toBe(value);
			}
		}
		expect(response.headers.get("Content-Length")).toBe("13");
		expect((await head("/files/b")).status).toBe(404);
	});

	it("may be empty", async () => {
		expect((await put("/files/empty", "")).status).toBe(201);
		const response = await get("/files/empty");
		expect(response.status).toBe(200);
		expect(await response.text()).toBe("");
	});

	it.each([
		["image/png", "image/png"],
		["Text/HTML;charset=utf-8", "Text/HTML;charset=utf-8"],
		["image/svg+xml", "image/svg+xml"],
		["text/javascript", "application/octet-stream"],
		["application/X-JavaScript; a=b", "application/octet-stream"],
		["text/ecmascript", "application/octet-stream"],
		["text/css", "application/octet-stream"],
		["application/wasm", "application/octet-stream"],
		["text", "application/octet-stream"],
		["text/plain, text/html", "application/octet-stream"],
		[`text/plain; a=${"b".repeat(97)}`, "application/octet-stream"],
		["", "application/octet-stream"],
	])("of the type %j is sent as %j", async (type, sent) => {
		await put("/files/a", TEXT, { "Content-Type": type });
		const response = await get("/files/a");
		expect(response.headers.get("Content-Type")).toBe(sent);
	});

	it("of a type that others have stored is sent as bytes", async () => {
		await env.BUCKET.put("a", TEXT, {
			httpMetadata: {
				contentType: "text/html, x",
				contentDisposition: "inline",
			},
		});
		const { headers } = await get("/files/a");
		expect(headers.get("Content-Type")).toBe("application/octet-stream");
		expect(headers.get("Content-Disposition")).toMatch(/^attachment;/);
	});

	it("keeps only its type of what a request says", async () => {
		await put("/files/a", TEXT, {
			"Content-Type": "text/plain",
			"Content-Disposition": "inline",
			"Cache-Control": "max-age=9",
		});
		const file = await env.BUCKET.head("a");
		expect(file?.httpMetadata).toEqual({ contentType: "text/plain" });
	});
});

describe("a key", () => {
	const LONGEST = "ü".repeat(512);

	it.each([
		["/files/a", "a", "a"],
		["/files/a/b/c.tar.gz", "a/b/c.tar.gz", "c.tar.gz"],
		["/files/a%2Fb", "a/b", "b"],
		["/files/%2Fa%2F%2Fb", "/a//b", "b"],
		["/files/a/", "a/", "file"],
		["/files/%C3%BC%20%F0%9F%98%80", "ü 😀", "_ _"],
		["/files/two words", "two words", "two words"],
		["/files/100%25", "100%", "100_"],
		["/files/%252e%252e", "%2e%2e", "_2e_2e"],
		["/files/.htaccess", ".htaccess", ".htaccess"],
		["/files/a..b...", "a..b...", "a..b..."],
		["/files/.../b", ".../b", "b"],
		["/files/a%5Cb", "a\\b", "b"],
		["/files/a%22%27(b)*", "a\"'(b)*", "a_'(b)*"],
		["/files/a?b=c", "a", "a"],
		["/files/files/a", "files/a", "a"],
		["/%66iles/a", "a", "a"],
		[`/files/${encodeURIComponent(LONGEST)}`, LONGEST, "_".repeat(512)],
	])("of the path %j is %j", async (path, key, name) => {
		const response = await put(path);
		expect(await response.json()).toMatchObject({ key });
		expect(await textOf(key)).toBe(TEXT);
		const read = await get(path);
		expect(await read.text()).toBe(TEXT);
		const disposition = read.headers.get("Content-Disposition") ?? "";
		const [, plain, encoded = ""] =
			/^attachment; filename="([^"]*)"; filename\*=UTF-8''([\w.%!~-]+)$/.exec(
				disposition,
			) ?? [];
		expect(plain).toBe(name);
		expect(decodeURIComponent(encoded)).toBe(
			key.split(/[/\\]/).at(-1) || "file",
		);
		expect((await remove(path)).status).toBe(204);
		expect(await textOf(key)).toBeUndefined();
	});

	it.each([
		"/files//",
		"/files//a",
		"/files/a//b",
		"/files/a//",
		"/files/a/\\b",
		"/files/%zz",
		"/files/%",
		"/files/%ff",
		"/files/%ed%a0%80",
		"/files/a%00b",
		"/files/a%7f",
		"/files/a%e2%80%ae",
		"/files/..%2f",
		"/files/..%2fhealth",
		"/files/a%2F..%2Fb",
		"/files/a%2f%2e",
		"/files/..%5Ca",
		"/files/a%5c..",
		`/files/${encodeURIComponent(LONGEST)}a`,
		`/files/${"a".repeat(1025)}`,
	])("cannot be that of the path %j", async (path) => {
		for (const send of [get, put, remove]) {
			const response = await send(path);
			expect(response.status).toBe(400);
			expect(await codeOf(response)).toBe("invalid_key");
		}
		expect((await env.BUCKET.list()).objects).toEqual([]);
	});

	it("is not in a path that leads elsewhere", async () => {
		for (const path of ["/files/../health", "/files/a/%2e%2e/../health"]) {
			expect(await (await get(path)).json()).toEqual({ status: "ok" });
		}
		for (const path of ["/files/", "/files%2Fa", "/files/a%0d%0ab"]) {
			expect((await get(path)).status).toBe(404);
		}
	});
});

describe("an upload", () => {
	it("reaches R2 as a stream", async () => {
		const store = vi.spyOn(env.BUCKET, "put");
		await put("/files/a");
		expect(store.mock.calls[0]?.[1]).toBeInstanceOf(ReadableStream);
	});

	it.each([undefined, "x", "-1", "1.5"])(
		"with the length %j gets 411",
		async (length) => {
			const response = await request(
				"PUT",
				"/files/a",
				{
					...OPERATOR,
					...(length !== undefined && { "Content-Length": length }),
				},
				ofUnknownLength(),
			);
			expect(response.status).toBe(411);
			expect(await codeOf(response)).toBe("length_required");
			expect(await textOf("a")).toBeUndefined();
		},
	);

	it("of more than 25 MiB gets 413 before its body is read", async () => {
		const store = vi.spyOn(env.BUCKET, "put");
		const endless = () =>
			new ReadableStream({ pull: () => new Promise<void>(() => {}) });
		const response = await put("/files/a", endless(), {
			"Content-Length": "26214401",
		});
		expect(response.status).toBe(413);
		expect(await codeOf(response)).toBe("file_too_large");
		expect(store).not.toHaveBeenCalled();
	});

	it("may have 25 MiB", async () => {
		const bytes = 26_214_400;
		const response = await put("/files/a", new Blob([new Uint8Array(bytes)]), {
			"Content-Length": String(bytes),
		});
		expect(response.status).toBe(201);
		expect(await response.json()).toMatchObject({ size: bytes });
	});

	it.each(["5", "20"])(
		"that is said to have %s bytes and has 13 is not stored",
		async (length) => {
			await put("/files/a", "before");
			const response = await put("/files/a", ofUnknownLength(), {
				"Content-Length": length,
			});
			expect(response.status).toBe(400);
			expect(await codeOf(response)).toBe("wrong_length");
			expect(await textOf("a")).toBe("before");
			expect(log).not.toHaveBeenCalled();
		},
	);

	it.each([
		[415, "unsupported_encoding", { "Content-Encoding": "gzip" }],
		[400, "partial_file", { "Content-Range": "bytes 0-12/26" }],
	])("gets %i %s for %j", async (status, code, headers) => {
		const response = await put("/files/a", TEXT, headers);
		expect(response.status).toBe(status);
		expect(await codeOf(response)).toBe(code);
		expect(await textOf("a")).toBeUndefined();
	});

	it("needs the operator's token, whatever else is wrong", async () => {
		for (const headers of [{}, { Authorization: "Bearer wrong" }]) {
			const response = await request("PUT", "/files/%zz", headers, TEXT);
			expect(response.status).toBe(401);
		}
	});
});

describe("a condition", () => {
	beforeEach(async () => {
		await put("/files/a");
	});

	it.each([
		{ "If-None-Match": ETAG },
		{ "If-None-Match": `W/${ETAG}` },
		{ "If-None-Match": `"other", ${ETAG}` },
		{ "If-None-Match": "*" },
		{ "If-Modified-Since": FAR_OFF },
		{ "If-Match": ETAG, "If-None-Match": ETAG },
		{ "If-Unmodified-Since": FAR_OFF, "If-Modified-Since": FAR_OFF },
		{ "If-None-Match": ETAG, "If-Modified-Since": LONG_AGO },
		{ "If-None-Match": ETAG, Range: "bytes=0-1" },
	])("%j gets 304", async (headers) => {
		const read = vi.spyOn(env.BUCKET, "get");
		for (const send of [get, head]) {
			const response = await send("/files/a", headers);
			expect(response.status).toBe(304);
			expect(await response.text()).toBe("");
			expect(response.headers.get("ETag")).toBe(ETAG);
			expect(response.headers.get("Cache-Control")).toBe(KEPT);
			expect(response.headers.get("Content-Length")).toBeNull();
		}
		expect(read).not.toHaveBeenCalled();
	});

	it("of the second in which the file was stored gets 304", async () => {
		const { headers } = await head("/files/a");
		const stored = headers.get("Last-Modified") ?? "";
		const before = new Date(Date.parse(stored) - 1000).toUTCString();
		for (const [name, date, status] of [
			["If-Modified-Since", stored, 304],
			["If-Modified-Since", before, 200],
			["If-Unmodified-Since", stored, 200],
			["If-Unmodified-Since", before, 412],
		] as const) {
			const response = await get("/files/a", { [name]: date });
			await response.text();
			expect(response.status).toBe(status);
		}
	});

	it.each([
		{ "If-Match": '"other"' },
		{ "If-Match": `W/${ETAG}` },
		{ "If-Unmodified-Since": LONG_AGO },
		{ "If-Match": '"other"', "If-None-Match": ETAG },
		{ "If-Match": '"other"', "If-Unmodified-Since": FAR_OFF },
	])("%j gets 412", async (headers) => {
		for (const response of [
			await get("/files/a", headers),
			await put("/files/a", "new", headers),
			await remove("/files/a", headers),
		]) {
			expect(response.status).toBe(412);
			expect(await codeOf(response)).toBe("precondition_failed");
		}
		expect((await head("/files/a", headers)).status).toBe(412);
		expect(await textOf("a")).toBe(TEXT);
	});

	it.each([
		{ "If-None-Match": '"other"' },
		{ "If-None-Match": "other" },
		{ "If-Modified-Since": LONG_AGO },
		{ "If-Modified-Since": "yesterday" },
		{ "If-Unmodified-Since": "yesterday" },
		{ "If-Unmodified-Since": FAR_OFF },
		{ "If-Match": ETAG },
		{ "If-Match": `"other" , ${ETAG}` },
		{ "If-Match": "*" },
		{ "If-Match": ETAG, "If-Unmodified-Since": LONG_AGO },
		{ "If-None-Match": '"other"', "If-Modified-Since": FAR_OFF },
	])("%j gets the file", async (headers) => {
		const response = await get("/files/a", headers);
		expect(response.status).toBe(200);
		expect(await response.text()).toBe(TEXT);
	});

	it("lets one of two create a file", async () => {
		const headers = { "If-None-Match": "*" };
		expect((await put("/files/a", "new", headers)).status).toBe(412);
		const answers = await Promise.all([
			put("/files/b", "one", headers),
			put("/files/b", "two", headers),
		]);
		expect(answers.map(({ status }) => status).sort()).toEqual([201, 412]);
	});

	it.each([
		{ "If-Match": ETAG },
		{ "If-Match": "*" },
		{ "If-None-Match": '"other", W/"more"' },
		{ "If-Unmodified-Since": FAR_OFF },
		{ "If-Unmodified-Since": "yesterday" },
		{ "If-Modified-Since": FAR_OFF },
	])("%j lets the file be replaced and deleted", async (headers) => {
		expect((await put("/files/a", "new", headers)).status).toBe(201);
		await put("/files/a");
		expect((await remove("/files/a", headers)).status).toBe(204);
	});

	it.each([
		{ "If-Match": "other" },
		{ "If-None-Match": '"a" b' },
		{ "If-Match": '"a" "b"' },
		{ "If-Match": '"a",' },
		{ "If-None-Match": 'a "b"' },
		{ "If-None-Match": '"other' },
	])("%j is no condition for storing", async (headers) => {
		const response = await put("/files/a", "new", headers);
		expect(response.status).toBe(400);
		expect(await codeOf(response)).toBe("invalid_condition");
		expect(await textOf("a")).toBe(TEXT);
	});

	it("finds no file to delete", async () => {
		for (const [headers, status] of [
			[{ "If-Match": "*" }, 412],
			[{ "If-Match": ETAG }, 412],
			[{ "If-Unmodified-Since": LONG_AGO }, 204],
		] as const) {
			const response = await remove("/files/none", headers);
			expect(response.status).toBe(status);
		}
	});
});

describe("a range", () => {
	beforeEach(async () => {
		await put("/files/a");
	});

	it.each([
		["bytes=0-4", "Hello", "0-4"],
		["bytes=7-", "world!", "7-12"],
		["bytes=-6", "world!", "7-12"],
		["bytes=12-12", "!", "12-12"],
		["bytes=7-99999", "world!", "7-12"],
		["bytes=-99999", TEXT, "0-12"],
		["bytes=0-0", "H", "0-0"],
		["Bytes=0-0", "H", "0-0"],
	])("%s is %j", async (Range, text, place) => {
		const response = await get("/files/a", { Range });
		expect(response.status).toBe(206);
		expect(await response.text()).toBe(text);
		expect(response.headers.get("Content-Range")).toBe(`bytes ${place}/13`);
		expect(response.headers.get("Content-Length")).toBe(String(text.length));
		expect(response.headers.get("ETag")).toBe(ETAG);
	});

	it.each([
		"bytes=13-",
		"bytes=99-100",
		"bytes=-0",
		`bytes=${"9".repeat(30)}-`,
	])("%s gets 416 with the size", async (Range) => {
		const response = await get("/files/a", { Range });
		expect(response.status).toBe(416);
		expect(response.headers.get("Content-Range")).toBe("bytes */13");
		expect(await codeOf(response)).toBe("range_not_satisfiable");
		expect(log).not.toHaveBeenCalled();
	});

	it("of an empty file gets 416", async () => {
		await put("/files/empty", "");
		for (const Range of ["bytes=0-", "bytes=-1"]) {
			const response = await get("/files/empty", { Range });
			expect(response.status).toBe(416);
			expect(response.headers.get("Content-Range")).toBe("bytes */0");
		}
	});

	it.each([
		["a", "bytes=13-13"],
		["a", "bytes=13-99"],
		["empty", "bytes=0-0"],
	])("that begins at the end of %s gets 416: %s", async (key, Range) => {
		await put("/files/empty", "");
		// The local form of R2 fails there, without a code that says why.
		vi.spyOn(env.BUCKET, "get").mockRejectedValue(new Error("get: (10001)"));
		const response = await get(`/files/${key}`, { Range });
		expect(response.status).toBe(416);
		expect(log).not.toHaveBeenCalled();
	});

	it("that R2 fails to read is a 502 and a log line", async () => {
		const failure = new Error("get: Internal error (10001)");
		vi.spyOn(env.BUCKET, "get").mockRejectedValue(failure);
		const response = await get("/files/a", { Range: "bytes=0-1" });
		expect(response.status).toBe(502);
		expect(log).toHaveBeenCalledTimes(1);
	});

	it("of no file gets 404", async () => {
		const response = await get("/files/none", { Range: "bytes=99-" });
		expect(response.status).toBe(404);
	});

	it.each([
		"bytes=0-1,5-6",
		"bytes=5-2",
		"bytes=-",
		"bytes=a-b",
		"bytes",
		"lines=0-1",
		"bytes=0-1-2",
	])("%s gets the whole file", async (Range) => {
		const response = await get("/files/a", { Range });
		expect(response.status).toBe(200);
		expect(await response.text()).toBe(TEXT);
		expect(response.headers.get("Content-Range")).toBeNull();
	});

	it("is what is left of a file that is still the same", async () => {
		const { headers } = await head("/files/a");
		const date = headers.get("Last-Modified") ?? "";
		for (const [same, status] of [
			[ETAG, 206],
			[date, 206],
			['"other"', 200],
			[`W/${ETAG}`, 200],
			[LONG_AGO, 200],
		] as const) {
			const asked = { Range: "bytes=7-", "If-Range": same };
			const response = await get("/files/a", asked);
			expect(response.status).toBe(status);
			expect(await response.text()).toBe(status === 206 ? "world!" : TEXT);
		}
	});

	it("says nothing to HEAD", async () => {
		const response = await head("/files/a", { Range: "bytes=0-1" });
		expect(response.status).toBe(200);
		expect(response.headers.get("Content-Length")).toBe("13");
	});

	it("is never made of two files", async () => {
		const look = env.BUCKET.head.bind(env.BUCKET);
		vi.spyOn(env.BUCKET, "head").mockImplementationOnce(async (key) => {
			const before = await look(key);
			await env.BUCKET.put("a", "another one");
			return before;
		});
		const headers = { Range: "bytes=7-", "If-Range": ETAG };
		const response = await get("/files/a", headers);
		expect(response.status).toBe(200);
		expect(await response.text()).toBe("another one");
	});
});

describe("a download", () => {
	it("costs one read of R2", async () => {
		await put("/files/a");
		const look = vi.spyOn(env.BUCKET, "head");
		const read = vi.spyOn(env.BUCKET, "get");
		await (await get("/files/a", { Range: "bytes=0-1" })).text();
		expect(look).not.toHaveBeenCalled();
		expect(read).toHaveBeenCalledTimes(1);
	});
});

describe("the list", () => {
	type List = { files: { key: string }[]; nextCursor: string | null };

	async function list(query: string): Promise<List> {
		const response = await get(`/files${query}`, OPERATOR);
		expect(response.status).toBe(200);
		expect(response.headers.get("Cache-Control")).toBe("no-store");
		return response.json();
	}

	function keysOf({ files }: List): string[] {
		return files.map(({ key }) => key);
	}

	it("has what is known of each file", async () => {
		await put("/files/a", TEXT, { "Content-Type": "text/plain" });
		expect(await list("")).toEqual({
			files: [
				{
					key: "a",
					size: 13,
					etag: ETAG,
					type: "text/plain",
					uploaded: expect.stringMatching(/^\d{4}-.*T.*Z$/),
				},
			],
			nextCursor: null,
		});
	});

	it("goes on where it stopped, through all with a prefix", async () => {
		for (const key of ["a", "b/1", "b/2", "b/ü 3", "c"]) {
			await env.BUCKET.put(key, TEXT);
		}
		expect(keysOf(await list(""))).toHaveLength(5);
		const first = await list("?prefix=b/&limit=2");
		expect(keysOf(first)).toEqual(["b/1", "b/2"]);
		const cursor = encodeURIComponent(first.nextCursor ?? "");
		const rest = await list(`?prefix=b/&limit=2&cursor=${cursor}`);
		expect(keysOf(rest)).toEqual(["b/ü 3"]);
		expect(rest.nextCursor).toBeNull();
		expect(await list("?prefix=none")).toEqual({ files: [], nextCursor: null });
	});

	it("asks R2 for 100 files unless told otherwise", async () => {
		const asked = vi.spyOn(env.BUCKET, "list");
		await list("");
		await list("?limit=1000");
		await filesList(env);
		expect(asked.mock.calls.map(([options]) => options?.limit)).toEqual([
			100, 1000, 100,
		]);
	});

	it("takes any beginning of a key, and an empty one for none", async () => {
		for (const key of ["\u200fa", "b\u0001", "ü".repeat(512)]) {
			await env.BUCKET.put(key, TEXT);
			const start = encodeURIComponent(key);
			expect(keysOf(await list(`?prefix=${start}`))).toEqual([key]);
			expect(keysOf(await list(`?cursor=${start}`))).not.toContain(key);
		}
		expect(keysOf(await list("?prefix=&cursor="))).toHaveLength(3);
	});

	it.each([
		"?limit=0",
		"?limit=1001",
		"?limit=x",
		"?limit=1e2",
		`?prefix=${"ü".repeat(512)}x`,
		`?cursor=${"ü".repeat(512)}x`,
	])("refuses %s", async (query) => {
		const response = await get(`/files${query}`, OPERATOR);
		expect(response.status).toBe(400);
		expect(await codeOf(response)).toBe("invalid_query");
	});
});

describe("code of one's own", () => {
	it("stores, reads, lists and deletes", async () => {
		await filesPut(env, "reports/1.csv", "a,b", { type: "text/csv" });
		const file = await filesGet(env, "reports/1.csv");
		expect(await file?.text()).toBe("a,b");
		expect((await filesList(env)).files).toMatchObject([
			{ key: "reports/1.csv", type: "text/csv" },
		]);
		await filesDelete(env, "reports/1.csv");
		expect(await filesGet(env, "reports/1.csv")).toBeNull();
	});

	it.each(["", "../a", "a\u0000"])("stores nothing as %j", async (key) => {
		await expect(filesPut(env, key, TEXT)).rejects.toMatchObject({
			status: 400,
			code: "invalid_key",
		});
	});

	it.each(["", "a".repeat(1025)])(
		"finds no file of the key %j",
		async (key) => {
			const lookups: (() => Promise<unknown>)[] = [
				() => filesGet(env, key),
				() => filesInfo(env, key),
				() => filesDelete(env, ["a", key]),
			];
			for (const look of lookups) {
				const code = "invalid_key";
				await expect(look()).rejects.toMatchObject({ status: 400, code });
			}
			expect(log).not.toHaveBeenCalled();
		},
	);

	it("reads and deletes whatever others have stored", async () => {
		for (const key of ["../a", "a\u0001"]) {
			await env.BUCKET.put(key, TEXT);
			const keys = (await filesList(env)).files.map((file) => file.key);
			expect(keys).toEqual([key]);
			expect(await (await filesGet(env, key))?.text()).toBe(TEXT);
			await filesDelete(env, key);
			expect(await filesGet(env, key)).toBeNull();
		}
	});

	it("deletes many at once", async () => {
		await env.BUCKET.put("0", TEXT);
		await env.BUCKET.put("1999", TEXT);
		const remove = vi.spyOn(env.BUCKET, "delete");
		await filesDelete(
			env,
			Array.from({ length: 2000 }, (_, i) => `${i}`),
		);
		expect(remove).toHaveBeenCalledTimes(2);
		expect((await filesList(env)).files).toEqual([]);
		await filesDelete(env, []);
		expect(remove).toHaveBeenCalledTimes(2);
	});
});

describe("a route of one's own", () => {
	type Given = Parameters<typeof filesSend>[0];
	const own = new Hono<Given extends Context<infer E> ? E : never>();
	own.put("/avatar", async (c) => {
		const { key } = await filesReceive(c, "avatars/ada", 13);
		return c.text(key);
	});
	own.get("/avatar", (c) => filesSend(c, "avatars/ada"));
	own.get("/logo", (c) => filesSend(c, "avatars/ada", "max-age=60"));

	it("is told where it has read the body itself", async () => {
		const read = new Hono<Given extends Context<infer E> ? E : never>()
			.onError((error, c) => c.text(error.message, 500))
			.put("/", async (c) => {
				await c.req.arrayBuffer();
				return c.text((await filesReceive(c, "a")).key);
			});
		const headers = { "Content-Length": "13" };
		const init = { method: "PUT", headers, body: TEXT };
		const response = await read.request("/", init, env);
		expect(response.status).toBe(500);
		expect(await response.text()).toContain("has been read");
	});

	it("stores and sends a file that no cache keeps unless told", async () => {
		const stored = await own.request(
			"/avatar",
			{
				method: "PUT",
				headers: { "Content-Length": "13", "Content-Type": "text/plain" },
				body: TEXT,
			},
			env,
		);
		expect(await stored.text()).toBe("avatars/ada");
		const larger = await own.request(
			"/avatar",
			{
				method: "PUT",
				headers: { "Content-Length": "14" },
				body: `${TEXT}!`,
			},
			env,
		);
		expect(larger.status).toBe(413);
		const sent = await own.request("/avatar", {}, env);
		expect(await sent.text()).toBe(TEXT);
		expect(sent.headers.get("Cache-Control")).toBe("no-store");
		expect(sent.headers.get("X-Content-Type-Options")).toBe("nosniff");
		const logo = await own.request("/logo", {}, env);
		expect(await logo.text()).toBe(TEXT);
		expect(logo.headers.get("Cache-Control")).toBe("max-age=60");
	});
});

describe("without the operator's token", () => {
	it("nobody stores, deletes or lists", async () => {
		await put("/files/a");
		const headers = { "Content-Length": "3" };
		for (const response of [
			await request("PUT", "/files/a", headers, "new"),
			await request("DELETE", "/files/a"),
			await request("GET", "/files"),
		]) {
			expect(response.status).toBe(401);
		}
		expect(await textOf("a")).toBe(TEXT);
	});
});

describe("R2 failing", () => {
	const cases = [
		[502, "files_failed", "We encountered an internal error. (10001)"],
		[502, "files_failed", "Network connection lost."],
		[503, "files_busy", "Reduce your rate of requests. (10058)"],
		[503, "files_busy", "Service Unavailable (10043)"],
	] as const;

	it.each(cases)(
		"is a %i %s and a log line: %s",
		async (status, code, said) => {
			for (const name of ["get", "head", "put", "delete", "list"] as const) {
				vi.spyOn(env.BUCKET, name).mockRejectedValue(new Error(said));
			}
			const operations = {
				get: await get("/files/a"),
				put: await put("/files/a"),
				delete: await remove("/files/a"),
				list: await get("/files", OPERATOR),
			};
			for (const response of Object.values(operations)) {
				expect(response.status).toBe(status);
				expect(response.headers.get("Retry-After")).toBe(
					status === 503 ? "2" : null,
				);
				expect(response.headers.get("Cache-Control")).toBe("no-store");
				const body = await response.text();
				expect(JSON.parse(body)).toMatchObject({ error: { code } });
				expect(body).not.toContain(said);
			}
			expect((await head("/files/a")).status).toBe(status);
			const lines = log.mock.calls.map(([line]) => JSON.parse(line));
			expect(lines).toMatchObject(
				[...Object.keys(operations), "head"].map((operation) => ({
					message: "R2 failed",
					operation,
					error: { message: said },
				})),
			);
		},
	);
});
