import { env, exports } from "cloudflare:workers";
import { beforeEach, describe, expect, it } from "vitest";
import type { Note } from "./worker";
import { createNote, deleteNote, listNotes, readNote } from "./worker";

const NOTE = { title: "Milk", body: "Two bottles" };

beforeEach(async () => {
	await env.DB.prepare("DELETE FROM notes").run();
});

function request(
	method: string,
	path: string,
	body?: unknown,
): Promise<Response> {
	return exports.default.fetch(
		new Request(`https://example.com${path}`, {
			method,
			headers: {
				Authorization: `Bearer ${env.API_TOKEN}`,
				"Content-Type": "application/json",
			},
			...(body !== undefined && { body: JSON.stringify(body) }),
		}),
	);
}

/** Lists notes as anybody: reading is open. */
async function list(query = "") {
	const response = await exports.default.fetch(
		`https://example.com/notes${query}`,
	);
	expect(response.status).toBe(200);
	return response.json<{ notes: Note[]; nextCursor: string | null }>();
}

/** Adds notes past the Worker, named by their numbers. */
async function fill(count: number): Promise<void> {
	await env.DB.prepare(
		`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO notes (title, body) SELECT i, '-' FROM n`,
	)
		.bind(count)
		.run();
}

describe("POST /notes", () => {
	it("dates a note and says where it is", async () => {
		const before = Date.now();
		const response = await request("POST", "/notes", NOTE);
		const note = await response.json<Note>();
		expect(response.headers.get("Location")).toBe(`/notes/${note.id}`);
		expect(Date.parse(note.createdAt)).toBeGreaterThanOrEqual(before - 1000);
		expect(Date.parse(note.createdAt)).toBeLessThanOrEqual(Date.now() + 1000);
		expect(new Date(note.createdAt).toISOString()).toBe(note.createdAt);
	});

	it.each([
		['"; DELETE FROM notes WHERE "1" = "1'],
		["?1 $1 :title \\ % _"],
		["Grüße, 你好, 👩‍👩‍👧"],
		["a\0b"],
		["é".repeat(200)],
	])("takes %j as text and nothing else", async (title) => {
		const body = title.repeat(5);
		const kept = await createNote(env, NOTE);
		const created = await request("POST", "/notes", { title, body });
		const note = await created.json<Note>();
		expect(note).toMatchObject({ title, body });
		expect((await list()).notes).toEqual([note, kept]);
	});

	it("takes the longest body, of several lines", async () => {
		const body = "é\n".repeat(5000);
		const created = await request("POST", "/notes", { ...NOTE, body });
		expect(await created.json()).toMatchObject({ body });
	});

	it.each([
		["null", null],
		["a list", [NOTE]],
		["no body", { title: "x" }],
		["no title", { body: "x" }],
		["an empty title", { ...NOTE, title: "" }],
		["a title that is no text", { ...NOTE, title: 1 }],
		["an empty body", { ...NOTE, body: "" }],
		["a body that is null", { ...NOTE, body: null }],
	])("answers 400 to %s and keeps nothing", async (_, body) => {
		const response = await request("POST", "/notes", body);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_body" },
		});
		expect((await list()).notes).toEqual([]);
	});

	it("gives no note the id of a deleted one", async () => {
		const first = await createNote(env, NOTE);
		await deleteNote(env, first.id);
		const second = await createNote(env, NOTE);
		expect(second.id).toBeGreaterThan(first.id);
	});
});

describe.each(["GET", "DELETE"])("%s /notes/:id", (method) => {
	it.each([
		...["0", "-1", "1.5", "abc", "%00", "%20", "null", "NaN", "Infinity"],
		...["9".repeat(15), "9".repeat(40), "9".repeat(400), "1%20OR%201=1"],
	])("answers 404 to %s", async (id) => {
		const kept = await createNote(env, NOTE);
		const response = await request(method, `/notes/${id}`);
		expect(response.status).toBe(404);
		expect(await response.json()).toEqual({
			error: { code: "no_note", message: "There is no such note." },
		});
		expect((await list()).notes).toEqual([kept]);
	});
});

it("deletes one note and no other", async () => {
	const kept = await createNote(env, NOTE);
	const { id } = await createNote(env, NOTE);
	const response = await request("DELETE", `/notes/${id}`);
	expect(response.status).toBe(204);
	expect(await response.text()).toBe("");
	expect((await list()).notes).toEqual([kept]);
});

describe("GET /notes", () => {
	it("lists nothing while there is nothing", async () => {
		expect(await list()).toEqual({ notes: [], nextCursor: null });
	});

	it.each([
		["", 20],
		["?limit=1", 1],
		["?limit=100", 100],
	])("has with %j a page of %i", async (query, count) => {
		await fill(101);
		const page = await list(query);
		expect(page.notes).toHaveLength(count);
		expect(page.nextCursor).toBe(String(page.notes.at(-1)?.id));
	});

	it("has no next page behind a last one that is full", async () => {
		await fill(4);
		expect((await list("?limit=4")).nextCursor).toBeNull();
		const { nextCursor } = await list("?limit=2");
		const last = await list(`?limit=2&cursor=${nextCursor}`);
		expect(last.notes.map(({ title }) => title)).toEqual(["2", "1"]);
		expect(last.nextCursor).toBeNull();
	});

	it("goes on from a cursor when all behind it are gone", async () => {
		await fill(3);
		const { nextCursor } = await list("?limit=1");
		await env.DB.prepare("DELETE FROM notes").run();
		const rest = await list(`?cursor=${nextCursor}`);
		expect(rest).toEqual({ notes: [], nextCursor: null });
	});

	it.each([
		...["limit=-1", "limit=1.5", "limit=", "limit=1000"],
		...["cursor=", "cursor=-1", "cursor=1.5", "cursor=%00", "cursor=1%20OR"],
		`cursor=${"9".repeat(400)}`,
	])("answers 400 to %s", async (query) => {
		const response = await request("GET", `/notes?${query}`);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: {
				code: "invalid_query",
				issues: [{ path: query.split("=")[0] }],
			},
		});
	});
});

it("does for any code what the routes do", async () => {
	const note = await createNote(env, NOTE);
	expect(await readNote(env, note.id)).toEqual(note);
	const page = await listNotes(env, { cursor: note.id + 1, limit: 1 });
	expect(page).toEqual({ notes: [note], nextCursor: null });
	expect(await deleteNote(env, note.id)).toBe(true);
	expect(await deleteNote(env, note.id)).toBe(false);
	expect(await readNote(env, note.id)).toBeNull();
});
