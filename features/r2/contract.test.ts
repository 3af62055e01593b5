import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const TEXT = "Hello, world!";
/** Its MD5, as R2 has it. */
const ETAG = '"6cd3556deb0da54bca060b4c39479839"';
const LONG_AGO = "Sat, 01 Jan 2022 00:00:00 GMT";
const FAR_OFF = "Fri, 01 Jan 2100 00:00:00 GMT";

type Sent = Record<string, string>;

const log = vi.spyOn(console, "error");

afterEach(async () => {
	// Nothing that clients send may fill the log.
	expect(log).not.toHaveBeenCalled();
	const { objects } = await env.BUCKET.list();
	await env.BUCKET.delete(objects.map(({ key }) => key));
});

/** Sends a request as anybody may. */
function request(
	method: string,
	path: string,
	headers: Sent = {},
	body: BodyInit | null = null,
): Promise<Response> {
	const init = { method, headers, body };
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

function get(path: string, headers: Sent = {}) {
	return request("GET", path, headers);
}

function put(path: string, body = TEXT, headers: Sent = {}) {
	const length = { "Content-Length": String(body.length) };
	return request("PUT", path, { ...OPERATOR, ...length, ...headers }, body);
}

async function codeOf(response: Response): Promise<string> {
	const { error } = await response.json<{ error: { code: string } }>();
	return error.code;
}

async function textOf(key: string): Promise<string | undefined> {
	return (await env.BUCKET.get(key))?.text();
}

describe("a file", () => {
	it("replaces another, and need not be there to be deleted", async () => {
		await put("/files/a");
		expect((await put("/files/a", "new")).status).toBe(201);
		expect(await (await get("/files/a")).text()).toBe("new");
		for (const _ of [1, 2]) {
			const deleted = await request("DELETE", "/files/a", OPERATOR);
			expect(deleted.status).toBe(204);
		}
		expect(await codeOf(await get("/files/a"))).toBe("no_file");
	});

	it("is sent to anybody, and HEAD gets its headers", async () => {
		await put("/files/n/a.txt", TEXT, { "Content-Type": "text/html" });
		const whole = await get("/files/n/a.txt");
		expect(await whole.text()).toBe(TEXT);
		const headers = Object.fromEntries(whole.headers);
		expect(headers).toMatchObject({
			"accept-ranges": "bytes",
			"cache-control": "no-cache",
			"content-disposition": "attachment; filename*=UTF-8''a.txt",
			"content-length": "13",
			"content-security-policy":
				"sandbox; default-src 'none'; frame-ancestors 'none'",
			"content-type": "text/html",
			etag: ETAG,
			"last-modified": expect.stringMatching(/^\w{3}, \d\d \w{3} .* GMT$/),
			"x-content-type-options": "nosniff",
		});
		const range = { Range: "bytes=0-1" };
		const head = await request("HEAD", "/files/n/a.txt", range);
		expect([head.status, await head.text()]).toEqual([200, ""]);
		const id = { "x-request-id": expect.any(String) };
		expect(Object.fromEntries(head.headers)).toEqual({ ...headers, ...id });
		expect((await request("HEAD", "/files/none")).status).toBe(404);
	});

	it("may be empty", async () => {
		expect((await put("/files/empty", "")).status).toBe(201);
		const empty = await get("/files/empty");
		expect([empty.status, await empty.text()]).toEqual([200, ""]);
	});

	it.each([
		["Text/HTML;charset=utf-8", "Text/HTML;charset=utf-8"],
		["image/svg+xml", "image/svg+xml"],
		["text/javascript", "application/octet-stream"],
		["application/X-JavaScript; a=b", "application/octet-stream"],
		["text/ecmascript", "application/octet-stream"],
		["text/css", "application/octet-stream"],
		["application/wasm", "application/octet-stream"],
		["", "application/octet-stream"],
	])("of the type %j is sent as %j", async (type, sent) => {
		await put("/files/a", TEXT, { "Content-Type": type });
		const { headers } = await get("/files/a");
		expect(headers.get("Content-Type")).toBe(sent);
	});

	it("keeps only its type, and is sent with nothing else", async () => {
		const more = { "Content-Disposition": "inline", "Cache-Control": "public" };
		await put("/files/a", TEXT, { "Content-Type": "text/plain", ...more });
		const file = await env.BUCKET.head("a");
		expect(file?.httpMetadata).toEqual({ contentType: "text/plain" });
		const httpMetadata = new Headers(more);
		await env.BUCKET.put("b", TEXT, { httpMetadata });
		const { headers } = await get("/files/b");
		expect(headers.get("Content-Disposition")).toMatch(/^attachment;/);
		expect(headers.get("Cache-Control")).toBe("no-cache");
	});
});

describe("a key", () => {
	it.each([
		["a/b/c.tar.gz", "a/b/c.tar.gz", "c.tar.gz"],
		["a%2Fb", "a/b", "b"],
		["/a//b", "/a//b", "b"],
		["a/", "a/", "file"],
		["%C3%BC%20%F0%9F%98%80", "ü 😀", "ü 😀"],
		["two words", "two words", "two words"],
		["100%25", "100%", "100%"],
		["%252e%252e", "%2e%2e", "%2e%2e"],
		[".../a..b...", ".../a..b...", "a..b..."],
		["a%22%3B%27(b)*", "a\";'(b)*", "a\";'(b)*"],
		["a?b=c", "a", "a"],
		["files/a", "files/a", "a"],
	])("of the path %j is %j", async (path, key, name) => {
		expect(await (await put(`/files/${path}`)).json()).toMatchObject({ key });
		expect(await textOf(key)).toBe(TEXT);
		const read = await get(`/files/${path}`);
		expect(await read.text()).toBe(TEXT);
		const disposition = read.headers.get("Content-Disposition") ?? "";
		expect(decodeURIComponent(disposition)).toBe(
			`attachment; filename*=UTF-8''${name}`,
		);
		await request("DELETE", `/files/${path}`, OPERATOR);
		expect(await textOf(key)).toBeUndefined();
	});

	it.each([
		"%zz",
		"%",
		"%ff",
		"%ed%a0%80",
		"a%00b",
		"a%7f",
		"..%2f",
		"..%2fhealth",
		"a%2F..%2Fb",
		"a%2f%2e",
	])("cannot be that of the path %j", async (path) => {
		for (const response of [
			await get(`/files/${path}`),
			await put(`/files/${path}`),
			await request("DELETE", `/files/${path}`, OPERATOR),
		]) {
			expect(response.status).toBe(400);
			expect(await codeOf(response)).toBe("invalid_key");
		}
		expect((await env.BUCKET.list()).objects).toEqual([]);
	});

	it("has 1,024 bytes at most", async () => {
		const longest = `/files/${"%C3%BC".repeat(512)}`;
		expect((await put(longest)).status).toBe(201);
		expect(await (await get(longest)).text()).toBe(TEXT);
		expect((await put(`${longest}a`)).status).toBe(400);
	});

	it.each([
		["/files/../health", 200],
		["/files/a/%2e%2e/../health", 200],
		["/files/", 404],
		["/files/a%0d%0ab", 404],
		["/files/%e2%80%a8%2f..", 404],
		["/files%2Fa", 404],
	])("is not in the path %s", async (path, status) => {
		expect((await get(path)).status).toBe(status);
	});
});

describe("an upload", () => {
	it.each(["", "x", "-1", "1.5"])("of the length %j is a 411", async (text) => {
		const headers = { ...OPERATOR, ...(text && { "Content-Length": text }) };
		const chunks = new TransformStream();
		const response = await request("PUT", "/files/a", headers, chunks.readable);
		expect(response.status).toBe(411);
		expect(await codeOf(response)).toBe("length_required");
		expect(await textOf("a")).toBeUndefined();
	});

	it.each([
		[201, "may have 25 MiB", new Blob([new Uint8Array(26_214_400)])],
		[413, "over 25 MiB is not even read", new TransformStream().readable],
	])("is a %i: %s", async (status, _, body) => {
		const size = body instanceof Blob ? body.size : 26_214_401;
		const headers = { ...OPERATOR, "Content-Length": String(size) };
		const response = await request("PUT", "/files/a", headers, body);
		expect(response.status).toBe(status);
		expect((await env.BUCKET.head("a"))?.size).toBe(
			status === 201 ? size : undefined,
		);
	});

	it("needs the token, whatever else is wrong", async () => {
		const wrong = { Authorization: "Bearer wrong" };
		expect((await put("/files/%zz", TEXT, wrong)).status).toBe(401);
	});

	it("creates a file once, when two do so at once", async () => {
		const headers = { "If-None-Match": "*" };
		const answers = await Promise.all([
			put("/files/b", "one", headers),
			put("/files/b", "two", headers),
		]);
		expect(answers.map(({ status }) => status).sort()).toEqual([201, 412]);
	});
});

describe("a condition", () => {
	beforeEach(async () => {
		await put("/files/a");
	});

	it.each<[number, Sent]>([
		[304, { "If-None-Match": ETAG }],
		[304, { "If-None-Match": `W/${ETAG}` }],
		[304, { "If-None-Match": `"other", ${ETAG}` }],
		[304, { "If-None-Match": "*" }],
		[304, { "If-Modified-Since": FAR_OFF }],
		[304, { "If-None-Match": ETAG, "If-Modified-Since": LONG_AGO }],
		[304, { "If-None-Match": ETAG, Range: "bytes=0-1" }],
		[412, { "If-Match": '"other"' }],
		[412, { "If-Match": `W/${ETAG}` }],
		[412, { "If-Unmodified-Since": LONG_AGO }],
		[412, { "If-Match": '"other"', "If-None-Match": ETAG }],
		[200, { "If-None-Match": '"other"' }],
		[200, { "If-Modified-Since": LONG_AGO }],
		[200, { "If-Unmodified-Since": FAR_OFF }],
		[200, { "If-Match": `"other" , ${ETAG}` }],
		[200, { "If-Match": "*" }],
		[200, { "If-None-Match": '"other"', "If-Modified-Since": FAR_OFF }],
	])("of a reader is a %i: %j", async (status, headers) => {
		const response = await get("/files/a", headers);
		expect(response.status).toBe(status);
		const text = { 200: TEXT, 304: "" }[status];
		if (text !== undefined) {
			expect(await response.text()).toBe(text);
			expect(response.headers.get("ETag")).toBe(ETAG);
			expect(response.headers.get("Cache-Control")).toBe("no-cache");
		}
	});

	it.each<[number, Sent]>([
		[201, { "If-Match": ETAG }],
		[201, { "If-Match": "*" }],
		[201, { "If-None-Match": '"other", W/"more"' }],
		[201, { "If-Unmodified-Since": FAR_OFF }],
		[412, { "If-Match": '"other"' }],
		[412, { "If-Match": `W/${ETAG}` }],
		[412, { "If-None-Match": "*" }],
		[412, { "If-Unmodified-Since": LONG_AGO }],
	])("of a writer is a %i: %j", async (status, headers) => {
		expect((await put("/files/a", "new", headers)).status).toBe(status);
		expect(await textOf("a")).toBe(status === 201 ? "new" : TEXT);
	});

	it.each<Sent>([
		{ "If-Match": "other" },
		{ "If-None-Match": '"a" b' },
		{ "If-Match": '"a" "b"' },
		{ "If-Match": '"a",' },
		{ "If-None-Match": 'a "b"' },
		{ "If-None-Match": '"other' },
		{ "If-None-Match": 'W"a"' },
		{ "If-None-Match": '"a", *' },
	])("with a malformed ETag is a 400: %j", async (headers) => {
		for (const response of [
			await get("/files/a", headers),
			await put("/files/a", "new", headers),
		]) {
			expect(response.status).toBe(400);
			expect(await codeOf(response)).toBe("invalid_etag");
		}
		expect(await textOf("a")).toBe(TEXT);
	});

	it.each(["If-Modified-Since", "If-Unmodified-Since"])(
		"may have a date that is none: %s",
		async (name) => {
			const response = await get("/files/a", { [name]: "yesterday" });
			expect(response.status).toBeLessThan(500);
		},
	);
});

describe("a range", () => {
	beforeEach(async () => {
		await put("/files/a");
		await put("/files/empty", "");
	});

	it.each([
		["bytes=0-4", "Hello", "0-4"],
		["bytes=7-", "world!", "7-12"],
		["bytes=-6", "world!", "7-12"],
		["bytes=12-12", "!", "12-12"],
		[`bytes=7-${"9".repeat(30)}`, "world!", "7-12"],
		["bytes=-99999", TEXT, "0-12"],
		["bytes=0-", TEXT, "0-12"],
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
		["a", "bytes=13-", 13],
		["a", "bytes=13-13", 13],
		["a", "bytes=99-100", 13],
		["a", "bytes=-0", 13],
		["a", `bytes=${"9".repeat(30)}-`, 13],
		["empty", "bytes=0-", 0],
		["empty", "bytes=-1", 0],
	])("that %s does not have is a 416: %s", async (key, Range, size) => {
		const response = await get(`/files/${key}`, { Range });
		expect(response.status).toBe(416);
		expect(response.headers.get("Content-Range")).toBe(`bytes */${size}`);
		expect(await codeOf(response)).toBe("range_not_satisfiable");
	});

	it.each([
		["bytes=-3", 206, "New", "0-2/3"],
		["bytes=1-", 206, "ew", "1-2/3"],
		["bytes=7-", 416, null, "*/3"],
	])("%s is that of a file which replaces it", async (Range, ...expected) => {
		const head = env.BUCKET.head.bind(env.BUCKET);
		const spy = vi.spyOn(env.BUCKET, "head");
		spy.mockImplementationOnce(async (key) => {
			const before = await head(key);
			await env.BUCKET.put(key, "New");
			return before;
		});
		const response = await get("/files/a", { Range });
		spy.mockRestore();
		const [status, text, place] = expected;
		expect(response.status).toBe(status);
		expect(response.headers.get("Content-Range")).toBe(`bytes ${place}`);
		const sent = new TextDecoder().decode(await response.arrayBuffer());
		expect(text ?? sent).toBe(sent);
	});

	it("of no file is a 404", async () => {
		expect((await get("/files/none", { Range: "bytes=9-" })).status).toBe(404);
	});

	it.each<Sent>([
		{ Range: "bytes=0-1,5-6" },
		{ Range: "bytes=5-2" },
		{ Range: "bytes=-" },
		{ Range: "bytes=a-b" },
		{ Range: "lines=0-1" },
		{ Range: "bytes=7-", "If-Range": ETAG },
		{ Range: "bytes=99-", "If-Range": '"other"' },
	])("that is none gets the whole file: %j", async (headers) => {
		const response = await get("/files/a", headers);
		expect(response.status).toBe(200);
		expect(await response.text()).toBe(TEXT);
		expect(response.headers.get("Content-Range")).toBeNull();
	});
});

describe("the list", () => {
	async function list(query: string) {
		const response = await get(`/files${query}`, OPERATOR);
		const { files, nextCursor } = await response.json<{
			files: { key: string }[];
			nextCursor: string | null;
		}>();
		return { keys: files.map(({ key }) => key), nextCursor };
	}

	it("goes on where it stopped, through all with a prefix", async () => {
		for (const key of ["a", "b/1", "b/2", "b/ü 3", "c"]) {
			await env.BUCKET.put(key, TEXT);
		}
		expect((await list("")).keys).toHaveLength(5);
		const first = await list("?prefix=b/&limit=2");
		expect(first.keys).toEqual(["b/1", "b/2"]);
		const cursor = encodeURIComponent(first.nextCursor ?? "");
		const rest = await list(`?prefix=b/&limit=2&cursor=${cursor}`);
		expect(rest).toEqual({ keys: ["b/ü 3"], nextCursor: null });
		const none = await list("?prefix=none&cursor=");
		expect(none).toEqual({ keys: [], nextCursor: null });
	});

	it.each(["0", "1001", "x", "1.5"])("has no limit of %s", async (limit) => {
		const response = await get(`/files?limit=${limit}`, OPERATOR);
		expect(response.status).toBe(400);
		expect(await codeOf(response)).toBe("invalid_query");
	});
});
