import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import { ApiError, parseInput, readJson } from "../../base/base/worker";

const newNote = z.strictObject({
	title: z.string().trim().min(1).max(200),
	body: z.string().min(1).max(10_000),
});

const notesQuery = z.object({
	/** The `nextCursor` of the page before. */
	cursor: z.coerce.number().int().positive().default(Number.MAX_SAFE_INTEGER),
	limit: z.coerce.number().int().min(1).max(100).default(20),
});

/** @type {Hono<{ Bindings: Env }>} */
export const notes = new Hono();

notes.get("/notes", async (c) => {
	const query = parseInput(notesQuery, c.req.query(), "invalid_query");
	return c.json(await listNotes(c.env, query));
});

notes.get("/notes/:id", async (c) => {
	const note = await readNote(c.env, Number(c.req.param("id")));
	if (note === null) {
		throw noNote();
	}
	return c.json(note);
});

notes.post("/notes", operatorOnly, async (c) => {
	const note = await createNote(c.env, await readJson(c, newNote));
	return c.json(note, 201, { Location: `/notes/${note.id}` });
});

notes.delete("/notes/:id", operatorOnly, async (c) => {
	if (!(await deleteNote(c.env, Number(c.req.param("id"))))) {
		throw noNote();
	}
	return c.body(null, 204);
});

function noNote() {
	return new ApiError(404, "no_note", "There is no such note.");
}

/**
 * Lists notes, the newest first. From page to page, a note that stays comes
 * exactly once, whatever is added or deleted meanwhile.
 */
export async function listNotes(env, { cursor, limit }) {
	// One more than asked for says whether there is a next page.
	const { results } = await env.DB.prepare(
		`SELECT id, title, body, created_at AS createdAt
		FROM notes WHERE id < ? ORDER BY id DESC LIMIT ?`,
	)
		.bind(cursor, limit + 1)
		.all();
	const page = results.slice(0, limit);
	const isLast = results.length <= limit;
	return { notes: page, nextCursor: isLast ? null : `${page.at(-1)?.id}` };
}

/** Reads a note; `null` when there is none of this id. */
export function readNote(env, id) {
	return env.DB.prepare(
		`SELECT id, title, body, created_at AS createdAt
		FROM notes WHERE id = ?`,
	)
		.bind(id)
		.first();
}

/** Adds a note; returns it with its id. */
export async function createNote(env, { title, body }) {
	const createdAt = new Date().toISOString();
	const { meta } = await env.DB.prepare(
		"INSERT INTO notes (title, body, created_at) VALUES (?, ?, ?)",
	)
		.bind(title, body, createdAt)
		.run();
	return { id: meta.last_row_id, title, body, createdAt };
}

/** Deletes a note; returns whether there was one. */
export async function deleteNote(env, id) {
	const statement = env.DB.prepare("DELETE FROM notes WHERE id = ?");
	const { meta } = await statement.bind(id).run();
	return meta.changes > 0;
}
