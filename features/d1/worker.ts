import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import {
	ApiError,
	logError,
	logInfo,
	parseInput,
	readJson,
} from "../../base/base/worker";
import { plainLines, plainText, queryNumber } from "../../base/text/worker";

/** A note as clients send it. */
const newNote = z.strictObject({
	title: plainText(200),
	body: plainLines(10_000),
});

/** A note as the database has it and clients get it. */
export type Note = z.infer<typeof newNote> & {
	id: number;
	/** In ISO 8601. */
	createdAt: string;
};

/** What a log line is about, such as a `requestId`. */
type D1LogFields = Record<string, unknown>;

/** Some of the notes, and where the next ones begin. */
export type NotesPage = { notes: Note[]; nextCursor: string | null };

const notesPage = z.object({
	limit: z.int().min(1).max(100).default(20),
	cursor: z.string().optional(),
});

/** The same in a query. */
const notesQuery = z.object({
	limit: queryNumber(1, 100).optional(),
	cursor: z.string().optional(),
});

/**
 * An error of D1 that nobody has turned into an answer of its own.
 *
 * The client gets a 502, or a 503 from a database that is overloaded, and neither
 * says anything of it. Its cause is D1's error.
 */
export class D1QueryError extends ApiError {
	/** SQLite's code, such as `SQLITE_CONSTRAINT`; `undefined` without one. */
	sqliteCode: string | undefined;
	/** Its longer form, such as `SQLITE_CONSTRAINT_UNIQUE`, where D1 tells it. */
	extendedCode: string | undefined;
	/** D1's message may quote a value; what does not is logged where it fails. */
	isCausePrivate = true;

	constructor(cause: Error) {
		const options = { cause };
		// Nothing has happened in the database, so that a repeat does no harm.
		if (/D1 DB is overloaded/.test(cause.message)) {
			const message = "Try again soon: the database is busy.";
			super(503, "database_busy", message, { "Retry-After": "5" }, options);
		} else {
			const message = "The database failed. The logs say why.";
			super(502, "database_failed", message, {}, options);
		}
		// The last one: what stands before may quote anything.
		const [, code, extended] =
			/.*(?<!extended): (SQLITE_[A-Z]+)(?: \(extended: (SQLITE_\w+)\))?/s.exec(
				cause.message,
			) ?? [];
		this.sqliteCode = code;
		this.extendedCode = extended;
	}
}

/**
 * Asks the database: in a route, a job, a Durable Object or a step of a Workflow.
 *
 * @param query Gets the database. Values belong in `bind`, never in the SQL.
 * @param about What the log line of a failure tells.
 * @returns What `query` returned.
 * @throws What `query` threw; D1QueryError instead of an error of D1.
 */
export async function d1Query<T>(
	env: Env,
	query: (db: D1Database) => Promise<T>,
	about: D1LogFields = {},
): Promise<T> {
	try {
		return await query(env.DB);
	} catch (error) {
		if (!(error instanceof Error) || !isD1Failure(error)) {
			throw error;
		}
		const failure = new D1QueryError(error);
		logD1Failure(failure, error, about);
		throw failure;
	}
}

function isD1Failure({ message }: Error): boolean {
	return /^(D1_[A-Z_]+: |D1 DB |Network connection lost)/.test(message);
}

/**
 * Tells whether a message is about D1 or about the text of a query. Others quote
 * a value: a path in JSON, what a full-text search looks for.
 */
function isD1Plain({ message }: Error): boolean {
	return (
		/ at offset \d+: SQLITE_ERROR$/.test(message) ||
		/^(D1_ERROR: )?(D1 DB |Internal error in D1|Network connection lost|no such table|Wrong number)/.test(
			message,
		)
	);
}

/** Logs why the database failed, and nothing of what rows or queries hold. */
function logD1Failure(
	{ sqliteCode, extendedCode }: D1QueryError,
	error: Error,
	about: D1LogFields,
): void {
	const fields = { ...about, sqliteCode, extendedCode };
	if (sqliteCode === "SQLITE_CONSTRAINT") {
		// The database works, and most callers have an answer to this.
		const isOwnText = extendedCode === "SQLITE_CONSTRAINT_TRIGGER";
		const reason = isOwnText
			? undefined
			: error.message.replace(/^D1_ERROR: /, "");
		logInfo("Database constraint violated", { ...fields, reason });
		return;
	}
	const [kind] = error.message.split(":");
	const reason = isD1Plain(error) ? error : `${kind}: the message is left out`;
	logError("Database query failed", reason, fields);
}

/**
 * Adds a note.
 *
 * @param note A title of 1 to 200 bytes on one line, and a body of 1 to 10,000
 * characters.
 * @returns The note, with its id.
 * @throws ApiError 400 for another; D1QueryError.
 */
export async function notesCreate(
	env: Env,
	note: z.input<typeof newNote>,
	about: D1LogFields = {},
): Promise<Note> {
	const { title, body } = parseInput(newNote, note);
	const insert = (db: D1Database) =>
		db
			.prepare(
				`INSERT INTO notes (title, body) VALUES (?, ?)
				RETURNING id, title, body, created_at AS createdAt`,
			)
			.bind(title, body)
			.first<Note>();
	const created = await d1Query(env, insert, about);
	if (created === null) {
		throw new Error("The database returned no note");
	}
	return created;
}

/** Reads a note; `null` when there is none of this id. */
export function notesRead(
	env: Env,
	id: number,
	about: D1LogFields = {},
): Promise<Note | null> {
	const select = (db: D1Database) =>
		db
			.prepare(
				`SELECT id, title, body, created_at AS createdAt
				FROM notes WHERE id = ?`,
			)
			.bind(id)
			.first<Note>();
	return d1Query(env, select, about);
}

/**
 * Lists notes, the newest first.
 *
 * @param page How many, 1 to 100, by default 20; and the `nextCursor` of the page
 * before. From page to page, a note that stays comes exactly once, whatever is
 * added or deleted meanwhile.
 * @throws ApiError 400 for another limit or no such cursor; D1QueryError.
 */
export async function notesList(
	env: Env,
	page: z.input<typeof notesPage> = {},
	about: D1LogFields = {},
): Promise<NotesPage> {
	const { limit, cursor } = parseInput(notesPage, page, "invalid_query");
	const before = cursor ? d1ReadCursor(cursor) : Number.MAX_SAFE_INTEGER;
	// One more than asked for says whether there is a next page.
	const select = (db: D1Database) =>
		db
			.prepare(
				`SELECT id, title, body, created_at AS createdAt
				FROM notes WHERE id < ? ORDER BY id DESC LIMIT ?`,
			)
			.bind(before, limit + 1)
			.all<Note>();
	const { results } = await d1Query(env, select, about);
	const notes = results.slice(0, limit);
	const last = notes.at(-1);
	const isEnd = results.length <= limit || last === undefined;
	return { notes, nextCursor: isEnd ? null : d1Cursor(last.id) };
}

/** Deletes a note; returns whether there was one. */
export async function notesDelete(
	env: Env,
	id: number,
	about: D1LogFields = {},
): Promise<boolean> {
	const remove = (db: D1Database) =>
		db.prepare("DELETE FROM notes WHERE id = ?").bind(id).run();
	const { meta } = await d1Query(env, remove, about);
	return meta.changes > 0;
}

/**
 * Returns the cursor of a list that goes on after a row, by the row's id. It is
 * encoded so that nobody builds one: what is in it may change.
 */
export function d1Cursor(id: number): string {
	return btoa(`${id}`).replaceAll("=", "");
}

/**
 * Returns the id in a cursor that `d1Cursor` has made.
 *
 * @throws ApiError 400 for any other text.
 */
export function d1ReadCursor(cursor: string): number {
	// Of another length, it would not be base64.
	const isEncoded = /^(\w{4}){0,5}\w{2,4}$/.test(cursor);
	const id = isEncoded ? notesId(atob(cursor)) : null;
	if (id === null || d1Cursor(id) !== cursor) {
		throw new ApiError(
			400,
			"invalid_cursor",
			"Send the nextCursor of the page before, or none for the first page.",
		);
	}
	return id;
}

/** Reads an id; `null` when no note can have it. */
function notesId(text: string): number | null {
	return /^[1-9]\d{0,14}$/.test(text) ? Number(text) : null;
}

function noNote(): ApiError {
	return new ApiError(404, "no_note", "There is no such note.");
}

export const notes = new Hono<AppEnv>();

notes.get("/notes", async (c) => {
	const { requestId } = c.var;
	const page = parseInput(notesQuery, c.req.query(), "invalid_query");
	return c.json(await notesList(c.env, page, { requestId }));
});

notes.get("/notes/:id", async (c) => {
	const { requestId } = c.var;
	const id = notesId(c.req.param("id"));
	const note = id === null ? null : await notesRead(c.env, id, { requestId });
	if (note === null) {
		throw noNote();
	}
	return c.json(note);
});

notes.post("/notes", operatorOnly, async (c) => {
	const { requestId } = c.var;
	const body = await readJson(c, newNote);
	const note = await notesCreate(c.env, body, { requestId });
	return c.json(note, 201, { Location: `/notes/${note.id}` });
});

notes.delete("/notes/:id", operatorOnly, async (c) => {
	const { requestId } = c.var;
	const id = notesId(c.req.param("id"));
	if (id === null || !(await notesDelete(c.env, id, { requestId }))) {
		throw noNote();
	}
	return c.body(null, 204);
});
