import { env, exports } from "cloudflare:workers";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { createNote } from "./worker";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const NOTE = { title: "Milk", body: "Two\nbottles" };

beforeEach(async () => {
	vi.restoreAllMocks();
	await env.DB.prepare("DELETE FROM notes").run();
});

function request(method, path, body, headers = OPERATOR) {
	return exports.default.fetch(
		new Request(`https://example.com${path}`, {
			method,
			headers: { "Content-Type": "application/json", ...headers },
			...(body && { body: JSON.stringify(body) }),
		}),
	);
}

async function list(query) {
	const response = await request("GET", `/notes${query}`);
	return response.json();
}

it("keeps a note, shows it and deletes it", async () => {
	const created = await request("POST", "/notes", NOTE);
	expect(created.status).toBe(201);
	const path = created.headers.get("Location") ?? "";
	const note = await created.json();
	expect(note).toEqual({
		...NOTE,
		id: expect.any(Number),
		createdAt: expect.stringMatching(/^\d{4}-.*T.*Z$/),
	});
	expect(await (await request("GET", path)).json()).toEqual(note);
	expect((await request("DELETE", path)).status).toBe(204);
	expect((await request("GET", path)).status).toBe(404);
	expect((await request("DELETE", path)).status).toBe(404);
});

it("takes SQL in a note as text", async () => {
	const title = "'); DROP TABLE notes; --";
	const { id } = await createNote(env, { title, body: title });
	expect((await list("")).notes).toMatchObject([{ id, title, body: title }]);
});

it("lets nobody write without the token", async () => {
	expect((await request("POST", "/notes", NOTE, {})).status).toBe(401);
	const { id } = await createNote(env, NOTE);
	const path = `/notes/${id}`;
	expect((await request("DELETE", path, undefined, {})).status).toBe(401);
	expect((await request("GET", path)).status).toBe(200);
});

it.each([
	[{}],
	[{ ...NOTE, title: " " }],
	[{ ...NOTE, title: "x".repeat(201) }],
	[{ ...NOTE, body: "x".repeat(10_001) }],
	[{ ...NOTE, id: 1 }],
])("refuses the note %j", async (body) => {
	expect((await request("POST", "/notes", body)).status).toBe(400);
	expect((await list("")).notes).toEqual([]);
});

describe("the list", () => {
	it("neither skips nor repeats a note while others come and go", async () => {
		for (const title of ["1", "2", "3", "4", "5"]) {
			await createNote(env, { title, body: "-" });
		}
		const first = await list("?limit=2");
		expect(first.notes.map(({ title }) => title)).toEqual(["5", "4"]);
		await createNote(env, { title: "6", body: "-" });
		await env.DB.prepare("DELETE FROM notes WHERE title IN ('4', '3')").run();
		const last = await list(`?limit=2&cursor=${first.nextCursor}`);
		expect(last.notes.map(({ title }) => title)).toEqual(["2", "1"]);
		expect(last.nextCursor).toBeNull();
	});

	it.each(["?limit=0", "?limit=101", "?limit=ten", "?cursor=0", "?cursor=x"])(
		"refuses %s",
		async (query) => {
			expect((await request("GET", `/notes${query}`)).status).toBe(400);
		},
	);
});

it("says nothing of a database that fails", async () => {
	const log = vi.spyOn(console, "error").mockReturnValue();
	vi.spyOn(env.DB, "prepare").mockImplementation(() => {
		throw new Error("D1_ERROR: Network connection lost.");
	});
	const response = await request("GET", "/notes");
	expect(response.status).toBe(500);
	expect(await response.text()).not.toContain("D1_ERROR");
	expect(log).toHaveBeenCalledOnce();
});
