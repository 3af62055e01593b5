import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "./access";
import type { AppEnv } from "./base";
import { ApiError, parseInput, readJson } from "./base";

const newNote = z.strictObject({
	title: z.string().trim().min(1).max(200),
	body: z.string().min(1).max(10_000),
});

/** A note as the database has it and clients get it. */
export type Note = z.infer<typeof newNote> & {
	id: number;
	/** In ISO 8601. */
	createdAt: string;
};

const notesQuery = z.object({
	/** The `nextCursor` of the page before. */
	cursor: z.coerce.number().int().positive().default(Number.MAX_SAFE_INTEGER),
	limit: z.coerce.number().int().min(1).max(100).default(20),
});

export const notes = new Hono<AppEnv>();

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

function noNote(): ApiError {
	return new ApiError(404, "no_note", "There is no such note.");
}

/**
 * Lists notes, the newest first. From page to page, a note that stays comes
 * exactly once, whatever is added or deleted meanwhile.
 */
export async function listNotes(
	env: Env,
	{ cursor, limit }: z.infer<typeof notesQuery>,
): Promise<{ notes: Note[]; nextCursor: string | null }> {
	// One more than asked for says whether there is a next page.
	const { results } = await env.DB.prepare(
		`SELECT id, title, body, created_at AS createdAt
		FROM notes WHERE id < ? ORDER BY id DESC LIMIT ?`,
	)
		.bind(cursor, limit + 1)
		.all<Note>();
	const page = results.slice(0, limit);
	const isLast = results.length <= limit;
	return { notes: page, nextCursor: isLast ? null : `${page.at(-1)?.id}` };
}

/** Reads a note; `null` when there is none of this id. */
export function readNote(env: Env, id: number): Promise<Note | null> {
	return env.DB.prepare(
		`SELECT id, title, body, created_at AS createdAt
		FROM notes WHERE id = ?`,
	)
		.bind(id)
		.first<Note>();
}

/** Adds a note; returns it with its id. */
export async function createNote(
	env: Env,
	{ title, body }: z.infer<typeof newNote>,
): Promise<Note> {
	const createdAt = new Date().toISOString();
	const { meta } = await env.DB.prepare(
		"INSERT INTO notes (title, body, created_at) VALUES (?, ?, ?)",
	)
		.bind(title, body, createdAt)
		.run();
	return { id: meta.last_row_id, title, body, createdAt };
}

/** Deletes a note; returns whether there was one. */
export async function deleteNote(env: Env, id: number): Promise<boolean> {
	const statement = env.DB.prepare("DELETE FROM notes WHERE id = ?");
	const { meta } = await statement.bind(id).run();
	return meta.changes > 0;
}
