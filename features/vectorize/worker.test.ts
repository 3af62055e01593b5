import { env, exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { standInForVectorize } from "../vectorize/test/vectorize";
import {
	vectorizeDelete,
	vectorizeInsert,
	vectorizePassages,
	vectorizeSearch,
} from "./worker";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };
const TEXT = "Bees sleep at night.";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** What only the services say, and no client and no log may repeat. */
const SECRET_WORDS = "words of the service";

/** Stands in for Workers AI: the vector of a text is its length, again and again. */
const embed = vi.spyOn(env.AI, "run") as unknown as MockInstance<
	(model: string, inputs: { text: string[] }) => Promise<unknown>
>;
const upsert = vi.spyOn(env.VECTORIZE, "upsert");
const query = vi.spyOn(env.VECTORIZE, "query");
const remove = vi.spyOn(env.VECTORIZE, "deleteByIds");
const log = vi.spyOn(console, "error");

function vectorOf(text: string, dimensions = 1024): number[] {
	return Array.from({ length: dimensions }, () => text.length);
}

beforeEach(() => {
	embed.mockImplementation(async (_, { text }) => ({
		shape: [text.length, 1024],
		data: text.map((one) => vectorOf(one)),
		pooling: "cls",
	}));
	upsert.mockResolvedValue({ ids: [], count: 0 });
	query.mockResolvedValue({ matches: [], count: 0 });
	remove.mockResolvedValue({ ids: [], count: 0 });
	log.mockImplementation(() => {});
});

afterEach(() => {
	vi.resetAllMocks();
});

function request(
	method: string,
	path: string,
	headers: Record<string, string> = OPERATOR,
	body?: unknown,
): Promise<Response> {
	return exports.default.fetch(
		new Request(`https://example.com${path}`, {
			method,
			headers,
			...(body !== undefined && { body: JSON.stringify(body) }),
		}),
	);
}

function post(
	body: unknown,
	headers: Record<string, string> = {},
): Promise<Response> {
	const all = { ...OPERATOR, ...JSON_TYPE, ...headers };
	return request("POST", "/documents", all, body);
}

function search(parameters: string): Promise<Response> {
	return request("GET", `/search${parameters}`);
}

async function errorOf(response: Response) {
	const { error } = await response.json<{
		error: { code: string; message: string; issues?: { path: string }[] };
	}>();
	return error;
}

describe("POST /documents", () => {
	it("stores a text with its vector", async () => {
		const response = await post({ text: ` ${TEXT}\n` });
		expect(response.status).toBe(201);
		expect(await response.json()).toEqual({ id: expect.stringMatching(UUID) });
		expect(embed.mock.calls).toEqual([["@cf/baai/bge-m3", { text: [TEXT] }]]);
		expect(upsert.mock.calls).toEqual([
			[
				[
					{
						id: expect.stringMatching(UUID),
						values: vectorOf(TEXT),
						metadata: { text: TEXT },
					},
				],
			],
		]);
	});

	it("answers with the id under which it is stored, each time another", async () => {
		const { id } = await (await post({ text: TEXT })).json<{ id: string }>();
		expect(upsert.mock.calls[0]?.[0]).toMatchObject([{ id }]);
		expect(await (await post({ text: TEXT })).json()).not.toEqual({ id });
	});

	it("stores once what is sent twice with one key", async () => {
		const ids: string[] = [];
		for (const key of ["first", "first", "second"]) {
			const response = await post({ text: TEXT }, { "Idempotency-Key": key });
			ids.push((await response.json<{ id: string }>()).id);
		}
		const [first, again, other] = ids;
		expect(first).toMatch(UUID);
		expect(first).toBe(again);
		expect(first).not.toBe(other);
		const stored = upsert.mock.calls.map(([vectors]) => vectors[0]?.id);
		expect(stored).toEqual(ids);
	});

	it("refuses a key that is not one, and stores nothing", async () => {
		const headers = { "Idempotency-Key": "k".repeat(129) };
		expect((await post({ text: TEXT }, headers)).status).toBe(400);
		expect(upsert).not.toHaveBeenCalled();
	});

	it("keeps what else is known of the text", async () => {
		const metadata = { lang: "en", page: 7, is_draft: false };
		expect((await post({ text: TEXT, metadata })).status).toBe(201);
		expect(upsert.mock.calls[0]?.[0]).toMatchObject([
			{ metadata: { ...metadata, text: TEXT } },
		]);
	});

	it("takes 8,000 bytes of JSON and no more", async () => {
		const empty = JSON.stringify({ text: "" }).length;
		const most = "ü".padEnd(8000 - empty - 1, "x");
		expect((await post({ text: most })).status).toBe(201);
		for (const body of [
			{ text: `${most}a` },
			{ text: '"'.repeat(4000) },
			{ text: most, metadata: { a: "b" } },
		]) {
			const response = await post(body);
			expect(response.status).toBe(400);
			expect((await errorOf(response)).issues).toEqual([
				{ path: "", message: "Must have at most 8000 bytes as JSON" },
			]);
		}
		expect(embed).toHaveBeenCalledTimes(1);
	});

	it.each([
		{},
		{ text: "" },
		{ text: " \n" },
		{ text: 1 },
		{ text: [TEXT] },
		{ text: TEXT, id: "mine" },
		{ text: TEXT, metadata: null },
		{ text: TEXT, metadata: { text: "another" } },
		{ text: TEXT, metadata: { "a.b": 1 } },
		{ text: TEXT, metadata: { $a: 1 } },
		{ text: TEXT, metadata: { "": 1 } },
		{ text: TEXT, metadata: { ["a".repeat(65)]: 1 } },
		{ text: TEXT, metadata: { a: null } },
		{ text: TEXT, metadata: { a: ["b"] } },
		{ text: TEXT, metadata: { a: { b: 1 } } },
	])("answers 400 to %j and asks nobody", async (body) => {
		const response = await post(body);
		expect(response.status).toBe(400);
		expect((await errorOf(response)).code).toBe("invalid_body");
		expect(embed).not.toHaveBeenCalled();
		expect(upsert).not.toHaveBeenCalled();
	});

	it("answers only once the index has the text", async () => {
		let isStored = false;
		upsert.mockImplementation(async () => {
			await scheduler.wait(20);
			isStored = true;
			return { ids: [], count: 0 };
		});
		await post({ text: TEXT });
		expect(isStored).toBe(true);
	});
});

describe("GET /search", () => {
	it("finds the closest texts", async () => {
		query.mockResolvedValue({
			count: 2,
			matches: [
				{ id: "a", score: 0.9, metadata: { text: TEXT } },
				{ id: "b", score: 0.5, metadata: { text: "Bats do not.", page: 7 } },
			],
		});
		const response = await search("?q=%20Do+bees+sleep%3F");
		expect(response.status).toBe(200);
		expect(response.headers.get("Cache-Control")).toBe("no-store");
		expect(await response.json()).toEqual({
			matches: [
				{ id: "a", text: TEXT, score: 0.9 },
				{ id: "b", text: "Bats do not.", score: 0.5, metadata: { page: 7 } },
			],
		});
		expect(embed.mock.calls).toEqual([
			["@cf/baai/bge-m3", { text: ["Do bees sleep?"] }],
		]);
		expect(query.mock.calls).toEqual([
			[vectorOf("Do bees sleep?"), { topK: 5, returnMetadata: "all" }],
		]);
	});

	it("may find nothing", async () => {
		expect(await (await search("?q=bees")).json()).toEqual({ matches: [] });
	});

	it("shows vectors that others have stored without a text", async () => {
		query.mockResolvedValue({
			count: 3,
			matches: [
				{ id: "a", score: 1 },
				{ id: "b", score: 0, metadata: { text: 5 } },
				// What its types leave out.
				{ id: "c", score: 0, metadata: null as never },
			],
		});
		expect(await (await search("?q=bees")).json()).toEqual({
			matches: [
				{ id: "a", text: "", score: 1 },
				{ id: "b", text: "", score: 0 },
				{ id: "c", text: "", score: 0 },
			],
		});
	});

	it.each([1, 20])("finds up to %i when asked for as many", async (limit) => {
		await search(`?q=bees&limit=${limit}`);
		expect(query.mock.calls[0]?.[1]).toMatchObject({ topK: limit });
	});

	it.each([
		"",
		"?q=",
		"?q=%20",
		`?q=${"x".repeat(1001)}`,
		"?q=bees&limit=0",
		"?q=bees&limit=21",
		"?q=bees&limit=1.5",
		"?q=bees&limit=1e1",
		"?q=bees&limit=many",
	])("answers 400 to %j and asks nobody", async (parameters) => {
		const response = await search(parameters);
		expect(response.status).toBe(400);
		expect((await errorOf(response)).code).toBe("invalid_query");
		expect(embed).not.toHaveBeenCalled();
	});

	it("takes a question of 1,000 characters", async () => {
		expect((await search(`?q=${"x".repeat(1000)}`)).status).toBe(200);
	});
});

describe("DELETE /documents/:id", () => {
	it("deletes a text, if there is one", async () => {
		const response = await request("DELETE", "/documents/a%3A1");
		expect(response.status).toBe(204);
		expect(await response.text()).toBe("");
		expect(remove.mock.calls).toEqual([[["a:1"]]]);
		expect(embed).not.toHaveBeenCalled();
	});

	it("takes an id of 64 bytes and no more", async () => {
		const longest = "ü".repeat(32);
		expect((await request("DELETE", `/documents/${longest}`)).status).toBe(204);
		for (const id of [`${longest}a`, "a%00"]) {
			const response = await request("DELETE", `/documents/${id}`);
			expect(response.status).toBe(400);
			expect((await errorOf(response)).code).toBe("invalid_id");
		}
		expect(remove).toHaveBeenCalledTimes(1);
	});
});

describe("code of one's own", () => {
	it("finds what it has stored, the closest first, until it is deleted", async () => {
		const index = standInForVectorize();
		const [bees = "", bats = ""] = await vectorizeInsert(env, [
			{ text: "Bees sleep", metadata: { page: 1 } },
			{ text: "Bats fly", metadata: { page: 2 } },
		]);
		const found = async (filter = {}) =>
			(await vectorizeSearch(env, "bees", { filter })).map(({ id }) => id);
		expect(await found()).toEqual([bees, bats]);
		expect(await found({ page: 2 })).toEqual([bats]);
		await vectorizeDelete(env, [bees]);
		expect(await found()).toEqual([bats]);
		expect([...index.keys()]).toEqual([bats]);
	});

	it("cannot filter by what has no value, which would find everything", async () => {
		const filter = { user: undefined as never };
		await expect(
			vectorizeSearch(env, "bees", { filter }),
		).rejects.toMatchObject({ status: 400, code: "invalid_query" });
		expect(embed).not.toHaveBeenCalled();
	});

	it("stores many texts at once, some under ids of its own", async () => {
		const ids = await vectorizeInsert(env, [
			{ text: "One", id: "one" },
			{ text: "Three", metadata: { page: 3 } },
		]);
		expect(ids).toEqual(["one", expect.stringMatching(UUID)]);
		expect(embed).toHaveBeenCalledTimes(1);
		expect(upsert.mock.calls).toEqual([
			[
				[
					{ id: "one", values: vectorOf("One"), metadata: { text: "One" } },
					{
						id: ids[1],
						values: vectorOf("Three"),
						metadata: { text: "Three", page: 3 },
					},
				],
			],
		]);
	});

	it("cuts long texts between sentences, and where one is too long anywhere", () => {
		const sentence = "Bees sleep at night.";
		expect(vectorizePassages(sentence)).toEqual([sentence]);
		expect(
			vectorizePassages(` ${sentence} ${sentence}\n\nBats do not. `, 44),
		).toEqual([`${sentence} ${sentence}`, "Bats do not."]);
		expect(vectorizePassages("蜂在夜里睡觉。蝙蝠不睡。", 21)).toEqual([
			"蜂在夜里睡觉。",
			"蝙蝠不睡。",
		]);
		const family = "👩‍👩‍👧";
		expect(vectorizePassages(family.repeat(3), 40)).toEqual([
			family.repeat(2),
			family,
		]);
		const long = `${"ü".repeat(3000)} ${sentence}`;
		const passages = vectorizePassages(long);
		expect(passages.join("").replaceAll(" ", "")).toBe(
			long.replaceAll(" ", ""),
		);
		expect(Math.max(...passages.map((one) => one.length))).toBeLessThanOrEqual(
			1000,
		);
		expect(vectorizePassages(" \n ")).toEqual([]);
	});

	it("searches among texts with some metadata", async () => {
		const filter = { lang: "en" };
		await vectorizeSearch(env, "bees", { filter, limit: 3 });
		expect(query.mock.calls[0]?.[1]).toEqual({
			topK: 3,
			returnMetadata: "all",
			filter,
		});
	});

	it("searches among all texts with a filter that asks for nothing", async () => {
		await vectorizeSearch(env, "bees", { filter: {} });
		expect(query.mock.calls[0]?.[1]).toEqual({
			topK: 5,
			returnMetadata: "all",
		});
	});

	it("cannot filter by a text of which the index compares a part", async () => {
		const most = "ü".repeat(32);
		await vectorizeSearch(env, "bees", { filter: { user: most } });
		embed.mockClear();
		for (const filter of [
			{ user: `${most}x` },
			{ page: 7, user: { $eq: `${most}x` } },
			{ user: { $in: ["a", `${most}x`] } },
		]) {
			await expect(
				vectorizeSearch(env, "bees", { filter }),
			).rejects.toMatchObject({ status: 400, code: "invalid_query" });
		}
		expect(embed).not.toHaveBeenCalled();
	});

	it("stores at once no more than the model reads at once", async () => {
		const long = Array.from({ length: 8 }, () => ({ text: "ü".repeat(3750) }));
		await vectorizeInsert(env, long);
		const more = vectorizeInsert(env, [...long, { text: "x" }]);
		await expect(more).rejects.toMatchObject({
			status: 400,
			code: "invalid_body",
			issues: [
				{ path: "", message: "Must have texts of at most 60000 bytes in all" },
			],
		});
		expect(embed).toHaveBeenCalledTimes(1);
	});

	it("is held to the same limits", async () => {
		const text = TEXT;
		const many = (count: number) =>
			Array.from({ length: count }, () => ({ text }));
		const ids = (count: number) => Array.from({ length: count }, () => "a");
		await vectorizeInsert(env, many(20));
		await vectorizeDelete(env, ids(100));
		for (const use of [
			() => vectorizeInsert(env, []),
			() => vectorizeInsert(env, many(21)),
			() => vectorizeInsert(env, [{ text, id: "x".repeat(65) }]),
			() => vectorizeInsert(env, [{ text: "x".repeat(8000) }]),
			() => vectorizeSearch(env, "x".repeat(1001)),
			() => vectorizeDelete(env, []),
			() => vectorizeDelete(env, ids(101)),
		]) {
			await expect(use()).rejects.toMatchObject({ status: 400 });
		}
		await expect(
			vectorizeSearch(env, "bees", { limit: 21 }),
		).rejects.toMatchObject({ status: 400, code: "invalid_query" });
	});
});

it("does nothing without the operator's token", async () => {
	for (const response of [
		await request("POST", "/documents", JSON_TYPE, { text: TEXT }),
		await request("GET", "/search?q=bees", {}),
		await request("DELETE", "/documents/a", {}),
	]) {
		expect(response.status).toBe(401);
	}
	for (const operation of [embed, upsert, query, remove]) {
		expect(operation).not.toHaveBeenCalled();
	}
});

/** Checks that an answer, and the one line in the logs, keep secrets. */
async function expectFailure(
	response: Response,
	status: number,
	code: string,
	line: Record<string, unknown>,
): Promise<void> {
	expect(response.status).toBe(status);
	expect(response.headers.get("Retry-After")).toBe(
		status === 503 ? "60" : null,
	);
	const body = await response.text();
	expect(JSON.parse(body)).toEqual({
		error: { code, message: expect.any(String) },
	});
	expect(log).toHaveBeenCalledTimes(1);
	const logged = String(log.mock.calls[0]?.[0]);
	expect(JSON.parse(logged)).toMatchObject({ level: "error", ...line });
	for (const secret of [SECRET_WORDS, TEXT]) {
		expect(body + logged).not.toContain(secret);
	}
}

describe("a model that fails", () => {
	const failures: [number, string, string, string][] = [
		[502, "embedding_failed", "3043", `3043: ${SECRET_WORDS}`],
		[502, "embedding_failed", "", SECRET_WORDS],
		[503, "embedding_busy", "3036", `3036: ${SECRET_WORDS}`],
		[503, "embedding_busy", "3040", `InferenceUpstreamError: 3040: ${TEXT}`],
	];

	it.each(failures)("is a %i %s (%s): %s", async (status, code, own, said) => {
		embed.mockRejectedValue(new Error(said));
		const line = { message: "Workers AI failed", code: own };
		await expectFailure(await post({ text: TEXT }), status, code, line);
		log.mockClear();
		await expectFailure(await search("?q=bees"), status, code, line);
		expect(upsert).not.toHaveBeenCalled();
		expect(query).not.toHaveBeenCalled();
	});

	it.each([
		null,
		{},
		{ data: null },
		{ data: [] },
		{ data: [vectorOf(TEXT, 768)] },
		{ data: [vectorOf(TEXT, 1025)] },
		{ data: [vectorOf(TEXT), vectorOf(TEXT)] },
		{ data: [vectorOf(TEXT).map(String)] },
		{ data: [vectorOf(TEXT).map(() => Number.NaN)] },
	])("by answering with something else is a 502", async (answer) => {
		embed.mockResolvedValue(answer);
		await expectFailure(await post({ text: TEXT }), 502, "embedding_failed", {
			message: "Workers AI failed",
			error: { message: "The answer is not one vector per text" },
		});
		expect(upsert).not.toHaveBeenCalled();
	});
});

describe("an index that fails", () => {
	function failWith(said: string): void {
		for (const operation of [upsert, query, remove]) {
			operation.mockRejectedValue(new Error(said));
		}
	}

	const uses: Record<string, () => Promise<Response>> = {
		"to store": () => post({ text: TEXT }),
		"to find": () => search("?q=bees"),
		"to delete": () => request("DELETE", "/documents/a"),
	};

	it.each(Object.keys(uses))("%s is a 502 with its code", async (use) => {
		failWith(`VECTOR_UPSERT_ERROR (code = 40023): ${SECRET_WORDS}`);
		const response = await uses[use]?.();
		await expectFailure(response as Response, 502, "vectorize_failed", {
			message: "Vectorize failed",
			code: "40023",
			error: { message: "It failed" },
		});
	});

	it.each(Object.keys(uses))("%s for now is a 503", async (use) => {
		failWith("VECTOR_QUERY_ERROR (code = 40041): Too Many Requests");
		const response = await uses[use]?.();
		await expectFailure(response as Response, 503, "vectorize_busy", {
			code: "40041",
		});
	});

	it("since it has other dimensions says so in the logs", async () => {
		failWith(
			`VECTOR_QUERY_ERROR (code = 40006): ${TEXT}, expected 768 dimensions, and got 1024 dimensions`,
		);
		await expectFailure(await search("?q=bees"), 502, "vectorize_failed", {
			code: "40006",
			error: { message: "expected 768 dimensions" },
		});
	});
});

describe("a service that takes too long", () => {
	it.each([
		["embedding_failed", "Workers AI failed", () => embed],
		["vectorize_failed", "Vectorize failed", () => query],
	])("is a 502 %s", async (code, message, slow) => {
		const wait = vi.spyOn(scheduler, "wait");
		const { wait: original } = Object.getPrototypeOf(scheduler);
		wait.mockImplementation((ms, options) =>
			original.call(scheduler, ms === 30_000 ? 10 : ms, options),
		);
		slow().mockImplementation(() => new Promise<never>(() => {}));
		await expectFailure(await search("?q=bees"), 502, code, {
			message,
			error: { message: "No answer in 30000 ms" },
		});
		wait.mockRestore();
	});
});

describe("without the services", () => {
	// What bindings say wherever they are not on Cloudflare.
	function leaveOut(binding: string): Error {
		return new Error(`Binding ${binding} needs to be run remotely`);
	}

	it("says what to do", async () => {
		embed.mockRejectedValue(leaveOut("AI"));
		remove.mockRejectedValue(leaveOut("VECTORIZE"));
		for (const response of [
			await post({ text: TEXT }),
			await search("?q=bees"),
			await request("DELETE", "/documents/a"),
		]) {
			expect(response.status).toBe(503);
			const { code, message } = await errorOf(response);
			expect(code).toBe("vectorize_not_configured");
			expect(message).toContain(
				"wrangler vectorize create {project_name}-documents --dimensions=1024 --metric=cosine",
			);
			expect(message).toContain("dev:online");
		}
		expect(log).not.toHaveBeenCalled();
	});
});
