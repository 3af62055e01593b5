import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, it } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const TEXT = "Hello, world!";

/** Sends a request as the operator, whoever else may send it. */
function request(method, path, headers = {}, body = null) {
	const all = { ...OPERATOR, ...headers };
	return exports.default.fetch(
		new Request(`https://example.com${path}`, { method, headers: all, body }),
	);
}

function put(path, headers = {}) {
	const length = { "Content-Length": String(TEXT.length) };
	return request("PUT", path, { ...length, ...headers }, TEXT);
}

let etag = "";

beforeEach(async () => {
	const stored = await put("/files/notes/a.txt", {
		"Content-Type": "text/plain",
	});
	etag = stored.headers.get("ETag") ?? "";
});

afterEach(async () => {
	const { objects } = await env.BUCKET.list();
	await env.BUCKET.delete(objects.map(({ key }) => key));
});

it("stores, sends and deletes a file", async () => {
	const stored = await put("/files/%C3%BC/b");
	expect(stored.status).toBe(201);
	expect(await stored.json()).toEqual({ key: "ü/b", size: 13, etag });
	const read = await request("GET", "/files/%C3%BC/b");
	expect(read.status).toBe(200);
	expect(await read.text()).toBe(TEXT);
	const deleted = await request("DELETE", "/files/%C3%BC/b");
	expect(deleted.status).toBe(204);
	expect((await request("GET", "/files/%C3%BC/b")).status).toBe(404);
});

it.each([
	["PUT", "/files/notes/a.txt"],
	["DELETE", "/files/notes/a.txt"],
	["GET", "/files"],
])("is locked: %s %s", async (method, path) => {
	const guessed = { Authorization: "Bearer guessed" };
	expect((await request(method, path, guessed)).status).toBe(401);
});

it("sends headers with which no browser runs a file", async () => {
	await put("/files/ü.js", { "Content-Type": "text/javascript" });
	const response = await request("HEAD", "/files/%C3%BC.js");
	expect(response.status).toBe(200);
	expect(Object.fromEntries(response.headers)).toMatchObject({
		"content-disposition": "attachment; filename*=UTF-8''%C3%BC.js",
		"content-length": "13",
		"content-security-policy": expect.stringMatching(/^sandbox;/),
		"content-type": "application/octet-stream",
		"x-content-type-options": "nosniff",
	});
});

it.each([
	[411, "no length", "a", {}],
	[413, "more than 25 MiB", "a", { "Content-Length": "26214401" }],
	[400, "a key that leads elsewhere", "a%2F..%2Fb", { "Content-Length": "0" }],
	[400, "a key of 1025 bytes", "a".repeat(1025), { "Content-Length": "0" }],
])("answers %i to an upload with %s", async (status, _, key, headers) => {
	const response = await request("PUT", `/files/${key}`, headers);
	expect(response.status).toBe(status);
});

it("replaces only what the client has seen", async () => {
	const path = "/files/notes/a.txt";
	expect((await put(path, { "If-None-Match": "*" })).status).toBe(412);
	expect((await put(path, { "If-Match": '"other"' })).status).toBe(412);
	expect((await put(path, { "If-Match": etag })).status).toBe(201);
});

it.each([
	["If-None-Match", () => etag, 304],
	["If-None-Match", () => '"other"', 200],
	["If-None-Match", () => "no quotes", 400],
	["If-Match", () => '"other"', 412],
])("reads on the condition %s: %s", async (name, value, status) => {
	const headers = { [name]: value() };
	const response = await request("GET", "/files/notes/a.txt", headers);
	expect(response.status).toBe(status);
});

it.each([
	["bytes=0-4", 206, "Hello", "bytes 0-4/13"],
	["bytes=-6", 206, "world!", "bytes 7-12/13"],
	["bytes=13-", 416, expect.stringContaining("13 bytes"), "bytes */13"],
])("sends the range %s: %i", async (Range, status, text, place) => {
	const response = await request("GET", "/files/notes/a.txt", { Range });
	expect(response.status).toBe(status);
	expect(await response.text()).toEqual(text);
	expect(response.headers.get("Content-Range")).toBe(place);
});

it("lists files, page by page", async () => {
	await put("/files/notes/b.txt");
	const first = await request("GET", "/files?prefix=notes/&limit=1");
	const page = await first.json();
	expect(page.files).toEqual([
		{
			key: "notes/a.txt",
			size: 13,
			etag,
			type: "text/plain",
			uploaded: expect.any(String),
		},
	]);
	const rest = await request("GET", `/files?cursor=${page.nextCursor}`);
	expect(await rest.json()).toMatchObject({
		files: [{ key: "notes/b.txt" }],
		nextCursor: null,
	});
	expect((await request("GET", "/files?limit=0")).status).toBe(400);
});
