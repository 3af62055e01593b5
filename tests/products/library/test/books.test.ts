import { env, exports } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

function get(path: string): Promise<Response> {
	const url = `https://example.com${path}`;
	return exports.default.fetch(new Request(url, { headers: OPERATOR }));
}

function add(isbn: string, title: string): Promise<Response> {
	return exports.default.fetch(
		new Request("https://example.com/books", {
			method: "POST",
			headers: { ...OPERATOR, "Content-Type": "application/json" },
			body: JSON.stringify({ isbn, title }),
		}),
	);
}

describe("a book", () => {
	it("is found, and added once", async () => {
		expect((await add("1", "Emma")).status).toBe(201);
		expect(await (await get("/books/1")).json()).toEqual({ title: "Emma" });
		vi.spyOn(console, "error").mockReturnValue();
		expect((await add("1", "Emma")).status).toBe(409);
		vi.restoreAllMocks();
	});

	it("that is not there is the 404 of the callback", async () => {
		const response = await get("/books/2");
		expect(response.status).toBe(404);
		expect(await response.json()).toMatchObject({ error: { code: "no_book" } });
	});
});

describe("books are counted", () => {
	it.each(["route", "object", "agent"])("in the %s", async (where) => {
		for (let time = 0; time < 5; time++) {
			const response = await get(`/books/count/${where}`);
			expect(await response.json()).toEqual({ count: expect.any(Number) });
		}
	});

	it("in a step", async () => {
		const { id } = await (await get("/books/count/new")).json<{ id: string }>();
		await vi.waitFor(async () => {
			const shown = await (await get(`/books/count/step/${id}`)).json();
			expect(shown).toMatchObject({ status: "complete" });
		}, 8000);
	});
});
