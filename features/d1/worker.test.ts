import { reset } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { migrate } from "../d1/test/migrate";
import type { Note, NotesPage } from "./worker";
import {
	D1QueryError,
	d1Query,
	notesCreate,
	notesDelete,
	notesList,
	notesRead,
} from "./worker";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
/** For notes that only the operator may read: `OPERATOR`. */
const READER = {};
const JSON_TYPE = { "Content-Type": "application/json" };
const NOTE = { title: "Milk", body: "Two bottles" };

beforeEach(async () => {
	await env.DB.prepare("DELETE FROM notes").run();
});

afterEach(() => {
	vi.restoreAllMocks();
});

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(
		new Request(`https://example.com${path}`, { headers: READER, ...init }),
	);
}

function post(
	body: unknown,
	headers: Record<string, string> = OPERATOR,
): Promise<Response> {
	return request("/notes", {
		method: "POST",
		headers: { ...JSON_TYPE, ...headers },
		body: JSON.stringify(body),
	});
}

async function add(title: string): Promise<Note> {
	return (await post({ title, body: "-" })).json<Note>();
}

function remove(id: number | string, headers: HeadersInit = OPERATOR) {
	return request(`/notes/${id}`, { method: "DELETE", headers });
}

async function list(query = ""): Promise<NotesPage> {
	const response = await request(`/notes${query}`);
	expect(response.status).toBe(200);
	return response.json<NotesPage>();
}

function titles({ notes }: NotesPage): string[] {
	return notes.map(({ title }) => title);
}

async function countNotes(): Promise<number | null> {
	return env.DB.prepare("SELECT count(*) AS count FROM notes").first("count");
}

describe("POST /notes", () => {
	it("keeps a note, and says where it is", async () => {
		const before = Date.now();
		const response = await post(NOTE);
		expect(response.status).toBe(201);
		const note = await response.json<Note>();
		expect(note).toEqual({
			...NOTE,
			id: expect.any(Number),
			createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z$/),
		});
		expect(Date.parse(note.createdAt)).toBeGreaterThanOrEqual(before - 1000);
		expect(Date.parse(note.createdAt)).toBeLessThanOrEqual(Date.now() + 1000);
		const place = response.headers.get("Location");
		expect(place).toBe(`/notes/${note.id}`);
		expect(await (await request(`${place}`)).json()).toEqual(note);
	});

	it.each([
		"'); DROP TABLE notes; --",
		'"; DELETE FROM notes WHERE "1" = "1',
		"?1 $1 :title \\ % _",
		"Grüße, 你好, 👩‍👩‍👧",
	])("takes %j as text and nothing else", async (text) => {
		const kept = await add("kept");
		const { id } = await (await post({ title: text, body: text })).json<Note>();
		expect(await (await request(`/notes/${id}`)).json()).toMatchObject({
			title: text,
			body: text,
		});
		expect((await list()).notes).toContainEqual(kept);
	});

	it("takes the longest title and body, and several lines", async () => {
		const long = { title: "ü".repeat(100), body: "é\n".repeat(5000) };
		const response = await post(long);
		expect(response.status).toBe(201);
		expect(await response.json()).toMatchObject(long);
	});

	const bad: [string, unknown][] = [
		["null", null],
		["a list", [NOTE]],
		["nothing", {}],
		["no body", { title: "x" }],
		["no title", { body: "x" }],
		["an empty title", { ...NOTE, title: "" }],
		["a title over 200 bytes", { ...NOTE, title: `${"ü".repeat(100)}x` }],
		["a title of two lines", { ...NOTE, title: "two\nlines" }],
		["a title that is no text", { ...NOTE, title: 1 }],
		["an empty body", { ...NOTE, body: "" }],
		["a body over 10,000", { ...NOTE, body: "x".repeat(10_001) }],
		["a body with a NUL", { ...NOTE, body: "before\0after" }],
		["a body with half a character", { ...NOTE, body: "half \ud83d" }],
		["a body that is null", { ...NOTE, body: null }],
		["an id of the client's", { ...NOTE, id: 1 }],
	];

	it.each(bad)("answers 400 to %s and keeps nothing", async (_, body) => {
		const response = await post(body);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_body" },
		});
		expect(await countNotes()).toBe(0);
	});

	it("answers 401 without the token and keeps nothing", async () => {
		expect((await post(NOTE, {})).status).toBe(401);
		expect(await countNotes()).toBe(0);
	});

	it("gives no note the id of a deleted one", async () => {
		const first = await add("first");
		await remove(first.id);
		expect((await add("second")).id).toBeGreaterThan(first.id);
	});
});

const UNKNOWN = ["0", "01", "-1", "1.5", "1e3", "abc", "9".repeat(15), "%00"];

describe("GET /notes/:id", () => {
	it.each([...UNKNOWN, "9".repeat(40)])("answers 404 to %s", async (id) => {
		await add("another");
		const response = await request(`/notes/${id}`);
		expect(response.status).toBe(404);
		expect(await response.json()).toEqual({
			error: { code: "no_note", message: expect.any(String) },
		});
	});
});

describe("DELETE /notes/:id", () => {
	it("deletes this note, once", async () => {
		const kept = await add("kept");
		const { id } = await add("deleted");
		const response = await remove(id);
		expect(response.status).toBe(204);
		expect(await response.text()).toBe("");
		expect((await request(`/notes/${id}`)).status).toBe(404);
		expect((await remove(id)).status).toBe(404);
		expect((await list()).notes).toEqual([kept]);
	});

	it.each(UNKNOWN)("answers 404 to %s", async (id) => {
		await add("another");
		const response = await remove(id);
		expect(response.status).toBe(404);
		expect(await response.json()).toMatchObject({ error: { code: "no_note" } });
		expect(await countNotes()).toBe(1);
	});

	it("answers 401 without the token and deletes nothing", async () => {
		const { id } = await add("kept");
		expect((await remove(id, {})).status).toBe(401);
		expect(await countNotes()).toBe(1);
	});
});

describe("GET /notes", () => {
	it("lists nothing while there is nothing", async () => {
		expect(await list()).toEqual({ notes: [], nextCursor: null });
	});

	it("lists whole notes, the newest first, for everybody", async () => {
		const notes = [await add("a"), await add("b"), await add("c")];
		expect(await list()).toEqual({ notes: notes.reverse(), nextCursor: null });
	});

	/** Adds notes past the Worker, named by their numbers. */
	async function fill(count: number): Promise<void> {
		await env.DB.prepare(
			`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			INSERT INTO notes (title, body) SELECT i, '-' FROM n`,
		)
			.bind(count)
			.run();
	}

	it.each([
		["", 20],
		["?limit=1", 1],
		["?limit=100", 100],
	])("has with %j a page of %i", async (query, count) => {
		await fill(101);
		const page = await list(query);
		expect(page.notes).toHaveLength(count);
		expect(page.nextCursor).toMatch(/^[\w-]+$/);
	});

	it("has no next page behind a last one that is full", async () => {
		await fill(4);
		const first = await list("?limit=2");
		const last = await list(`?limit=2&cursor=${first.nextCursor}`);
		expect([...titles(first), ...titles(last)]).toEqual(["4", "3", "2", "1"]);
		expect(last.nextCursor).toBeNull();
		expect((await list("?limit=4")).nextCursor).toBeNull();
	});

	it("neither skips nor repeats a note while others come and go", async () => {
		await fill(9);
		const seen: string[] = [];
		let cursor: string | null = "";
		for (let page = 0; cursor !== null; page++) {
			const answer = await list(`?limit=2${cursor && `&cursor=${cursor}`}`);
			seen.push(...titles(answer));
			cursor = answer.nextCursor;
			// One that was seen, the last one of the page, and one to come.
			for (const title of page === 0 ? ["9", "8", "5"] : []) {
				await env.DB.prepare("DELETE FROM notes WHERE title = ?")
					.bind(title)
					.run();
			}
			await add(`new ${page}`);
		}
		expect(seen).toEqual(["9", "8", "7", "6", "4", "3", "2", "1"]);
	});

	it("begins with the first page when the cursor is empty", async () => {
		await fill(2);
		expect(titles(await list("?limit=1&cursor="))).toEqual(["2"]);
	});

	it("goes on from a cursor when all behind it are gone", async () => {
		await fill(3);
		const { nextCursor } = await list("?limit=1");
		await env.DB.prepare("DELETE FROM notes").run();
		expect(await list(`?cursor=${nextCursor}`)).toEqual({
			notes: [],
			nextCursor: null,
		});
	});

	it.each(["0", "101", "1000", "-1", "1.5", "1e1", "0x10", "ten", "", "%201"])(
		"answers 400 to the limit %s",
		async (limit) => {
			const response = await request(`/notes?limit=${limit}`);
			expect(response.status).toBe(400);
			expect(await response.json()).toMatchObject({
				error: { code: "invalid_query", issues: [{ path: "limit" }] },
			});
		},
	);

	it.each([
		["no base64", "1"],
		["no base64 either", "MTAxM"],
		["base64 with its padding", "MQ=="],
		["other signs", "_-"],
		["no id", "YQ"],
		["the id zero", "MA"],
		["a negative id", "LTE"],
		["a part of an id", "MS41"],
		["an id written in another way", "MR"],
		["a NUL", "%00"],
		["too much", "MTEx".repeat(1000)],
	])("answers 400 to a cursor that is %s", async (_, cursor) => {
		const response = await request(`/notes?cursor=${cursor}`);
		expect(response.status).toBe(400);
		expect(await response.json()).toEqual({
			error: { code: "invalid_cursor", message: expect.any(String) },
		});
	});
});

describe("the functions", () => {
	it("do for any code what the routes do", async () => {
		const note = await notesCreate(env, NOTE);
		expect(await notesRead(env, note.id)).toEqual(note);
		const other = await notesCreate(env, { ...NOTE, title: "Bread" });
		const { notes, nextCursor } = await notesList(env, { limit: 1 });
		expect(notes).toEqual([other]);
		expect(await notesList(env, { cursor: `${nextCursor}` })).toEqual({
			notes: [note],
			nextCursor: null,
		});
		expect(await notesDelete(env, note.id)).toBe(true);
		expect(await notesDelete(env, note.id)).toBe(false);
		expect(await notesRead(env, note.id)).toBeNull();
	});

	it("refuse what is not a note, and a page that is too long", async () => {
		await expect(notesCreate(env, { ...NOTE, title: "" })).rejects.toThrow(
			expect.objectContaining({ status: 400 }),
		);
		await expect(notesList(env, { limit: 101 })).rejects.toThrow(
			expect.objectContaining({ status: 400 }),
		);
	});
});

describe("a query", () => {
	let log: MockInstance<typeof console.error>;
	let warn: MockInstance<typeof console.warn>;

	beforeEach(() => {
		log = vi.spyOn(console, "error").mockImplementation(() => {});
		warn = vi.spyOn(console, "warn").mockImplementation(() => {});
	});

	/** Runs SQL as user code does; returns what that throws. */
	async function failWith(
		sql: string,
		...values: unknown[]
	): Promise<D1QueryError> {
		const about = { job: "mine" };
		const run = (db: D1Database) =>
			db
				.prepare(sql)
				.bind(...values)
				.run();
		const thrown = await d1Query(env, run, about).catch((error) => error);
		expect(thrown).toBeInstanceOf(D1QueryError);
		return thrown;
	}

	/** Lets D1 itself fail. */
	function fail(message: string): void {
		vi.spyOn(env.DB, "prepare").mockImplementation(() => {
			throw new Error(message);
		});
	}

	it("returns what its callback returns, and passes on what that throws", async () => {
		expect(await d1Query(env, async () => 7)).toBe(7);
		const mine = new RangeError("Mine, no D1_ERROR: of the database");
		const run = d1Query(env, () => Promise.reject(mine));
		await expect(run).rejects.toBe(mine);
		await expect(d1Query(env, () => Promise.reject("text"))).rejects.toBe(
			"text",
		);
		expect(log).not.toHaveBeenCalled();
		expect(warn).not.toHaveBeenCalled();
	});

	it("rolls back a batch of which one statement fails", async () => {
		const batch = (db: D1Database) => {
			const insert = db.prepare(
				"INSERT INTO notes (title, body) VALUES (?, ?)",
			);
			return db.batch([insert.bind("a", "b"), insert.bind("a", null)]);
		};
		await expect(d1Query(env, batch)).rejects.toThrow(D1QueryError);
		expect(await countNotes()).toBe(0);
	});

	it("that breaks a constraint is a warning without values", async () => {
		const { id } = await notesCreate(env, NOTE);
		const error = await failWith(
			"INSERT INTO notes (id, title, body) VALUES (?, 'secret', 'secret')",
			id,
		);
		expect(error).toMatchObject({
			sqliteCode: "SQLITE_CONSTRAINT",
			extendedCode: "SQLITE_CONSTRAINT_PRIMARYKEY",
		});
		expect(log).not.toHaveBeenCalled();
		expect(warn).toHaveBeenCalledTimes(1);
		const line = String(warn.mock.calls[0]?.[0]);
		expect(JSON.parse(line)).toEqual({
			level: "warn",
			message: "Database constraint violated",
			version: env.CF_VERSION_METADATA.id,
			job: "mine",
			sqliteCode: "SQLITE_CONSTRAINT",
			extendedCode: "SQLITE_CONSTRAINT_PRIMARYKEY",
			reason: expect.stringMatching(/^UNIQUE constraint failed: notes\.id/),
		});
		expect(line).not.toContain("secret");
	});

	it("that is wrong is a 502 and one log line", async () => {
		const error = await failWith("SELECT * FROM nowhere");
		expect(error).toMatchObject({
			status: 502,
			code: "database_failed",
			sqliteCode: "SQLITE_ERROR",
			cause: { message: expect.stringContaining("nowhere") },
		});
		expect(warn).not.toHaveBeenCalled();
		expect(log).toHaveBeenCalledTimes(1);
		expect(JSON.parse(String(log.mock.calls[0]?.[0]))).toMatchObject({
			level: "error",
			message: "Database query failed",
			job: "mine",
			sqliteCode: "SQLITE_ERROR",
			error: { message: expect.stringContaining("no such table: nowhere") },
		});
	});

	it("with a mistake in its SQL has D1's message in the log", async () => {
		await failWith("SELECT titel FROM notes");
		expect(String(log.mock.calls[0]?.[0])).toContain("no such column: titel");
	});

	it.each([
		["SELECT json_extract('{}', ?)", "secret"],
		["SELECT * FROM words WHERE words MATCH ?", "secret:x"],
		[
			"SELECT * FROM words WHERE words MATCH ?",
			'"a: SQLITE_CONSTRAINT":secret',
		],
	])("does not log what its message quotes: %s of %j", async (sql, value) => {
		await env.DB.prepare(
			"CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(word)",
		).run();
		const error = await failWith(sql, value);
		expect(error).toMatchObject({
			sqliteCode: "SQLITE_ERROR",
			extendedCode: undefined,
			cause: { message: expect.stringMatching(/secret|SQLITE_CONSTRAINT/) },
			isCausePrivate: true, // So a job that fails with it does not log it either.
		});
		expect(warn).not.toHaveBeenCalled();
		expect(log).toHaveBeenCalledTimes(1);
		const line = String(log.mock.calls[0]?.[0]);
		expect(JSON.parse(line)).toMatchObject({
			message: "Database query failed",
			sqliteCode: "SQLITE_ERROR",
			error: { message: "D1_ERROR: the message is left out" },
		});
		expect(line).not.toContain("secret");
	});

	it("that breaks a rule of a trigger does not log what that says", async () => {
		await env.DB.prepare(
			`CREATE TRIGGER IF NOT EXISTS refuse BEFORE INSERT ON notes
			WHEN new.title = 'refused' BEGIN SELECT RAISE(ABORT, 'secret'); END`,
		).run();
		const error = await failWith(
			"INSERT INTO notes (title, body) VALUES ('refused', 'secret')",
		);
		expect(error.extendedCode).toBe("SQLITE_CONSTRAINT_TRIGGER");
		expect(String(warn.mock.calls[0]?.[0])).not.toContain("secret");
	});

	it("with a value that cannot be bound does not log it", async () => {
		const value = { toString: () => "secret" };
		expect((await failWith("SELECT ?", value)).status).toBe(502);
		expect(log).toHaveBeenCalledTimes(1);
		const line = String(log.mock.calls[0]?.[0]);
		expect(line).toContain("D1_TYPE_ERROR: the message is left out");
		expect(line).not.toContain("secret");
	});

	const lost = [
		"D1_ERROR: Network connection lost.",
		"Network connection lost.",
		"D1 DB storage operation exceeded timeout which caused object to be reset.",
		"D1_ERROR: Internal error in D1 DB storage caused object to be reset.",
	];

	it.each(lost)(
		"that fails with %j is a 502 to the client",
		async (message) => {
			fail(message);
			const response = await request("/notes");
			expect(response.status).toBe(502);
			expect(response.headers.get("Retry-After")).toBeNull();
			expect(await response.json()).toEqual({
				error: {
					code: "database_failed",
					message: "The database failed. The logs say why.",
				},
			});
			expect(log).toHaveBeenCalledTimes(1);
			expect(String(log.mock.calls[0]?.[0])).toContain(message);
		},
	);

	it.each([
		["GET", "/notes"],
		["GET", "/notes/1"],
		["POST", "/notes"],
		["DELETE", "/notes/1"],
	])(
		"that fails is logged with the id of its request: %s %s",
		async (method, path) => {
			fail("D1_ERROR: Network connection lost.");
			const body = method === "POST" ? JSON.stringify(NOTE) : null;
			const headers = { ...OPERATOR, ...JSON_TYPE };
			const response = await request(path, { method, headers, body });
			expect(response.status).toBe(502);
			expect(JSON.parse(String(log.mock.calls[0]?.[0]))).toMatchObject({
				requestId: response.headers.get("X-Request-Id"),
			});
		},
	);

	it.each(["Requests queued for too long.", "Too many requests queued."])(
		"to a database that is overloaded is a 503 that says to come back: %s",
		async (reason) => {
			fail(`D1_ERROR: D1 DB is overloaded. ${reason}`);
			const response = await post(NOTE);
			expect(response.status).toBe(503);
			expect(response.headers.get("Retry-After")).toBe("5");
			expect(await response.json()).toEqual({
				error: { code: "database_busy", message: expect.any(String) },
			});
			expect(log).toHaveBeenCalledTimes(1);
		},
	);
});

describe("a test that resets the storage", () => {
	it("gets the schema again", async () => {
		await reset();
		await expect(countNotes()).rejects.toThrow("no such table");
		await migrate();
		expect(await countNotes()).toBe(0);
	});
});
