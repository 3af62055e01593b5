import { env, exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const TEXT = "Bees sleep at night.";
/** Words that no client may learn. */
const SAID = "words of the service";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const VECTOR = Array.from({ length: 1024 }, () => 0.5);

const embed = vi.spyOn(env.AI, "run") as unknown as MockInstance<
	(model: string, inputs: { text: string[] }) => Promise<unknown>
>;
const upsert = vi.spyOn(env.VECTORIZE, "upsert");
const query = vi.spyOn(env.VECTORIZE, "query");
const remove = vi.spyOn(env.VECTORIZE, "deleteByIds");
const log = vi.spyOn(console, "error");

beforeEach(() => {
	embed.mockResolvedValue({ shape: [1, 1024], data: [VECTOR] });
	upsert.mockResolvedValue({ ids: [], count: 0 });
	query.mockResolvedValue({ matches: [], count: 0 });
	remove.mockResolvedValue({ ids: [], count: 0 });
	log.mockImplementation(() => {});
});

afterEach(() => {
	vi.resetAllMocks();
});

function request(method: string, path: string, body?: object) {
	return exports.default.fetch(
		new Request(`https://example.com${path}`, {
			method,
			headers: {
				Authorization: `Bearer ${env.API_TOKEN}`,
				"Content-Type": "application/json",
			},
			...(body && { body: JSON.stringify(body) }),
		}),
	);
}

function post(text: unknown = TEXT) {
	return request("POST", "/documents", { text });
}

function search(parameters = "?q=bees") {
	return request("GET", `/search${parameters}`);
}

async function codeOf(response: Response): Promise<string> {
	const { error } = await response.json<{ error: { code: string } }>();
	return error.code;
}

describe("a text", () => {
	it("is stored under another id each time, once the index has it", async () => {
		let isStored = false;
		upsert.mockImplementation(async () => {
			await scheduler.wait(20);
			isStored = true;
			return { ids: [], count: 0 };
		});
		const first = await (await post()).json<{ id: string }>();
		expect(isStored).toBe(true);
		expect(first).toEqual({ id: expect.stringMatching(UUID) });
		expect(await (await post()).json()).not.toEqual(first);
		expect(embed.mock.calls[0]).toEqual(["@cf/baai/bge-m3", { text: [TEXT] }]);
	});

	const most = "ü".padEnd(8000 - '""'.length - 1, "x");

	it.each([
		[201, "of 8,000 bytes as JSON", most],
		[400, "of 8,001 bytes", `${most}x`],
		[400, "of quotes, which JSON doubles", '"'.repeat(4000)],
		[400, "that is a number", 1],
		[400, "that is a list", [TEXT]],
	])("is a %i: one %s", async (status, _, text) => {
		expect((await post(text)).status).toBe(status);
		expect(embed).toHaveBeenCalledTimes(status === 201 ? 1 : 0);
	});

	it("has an id that a path may hold", async () => {
		const response = await request("DELETE", "/documents/a%3A1");
		expect([response.status, await response.text()]).toEqual([204, ""]);
		expect(remove.mock.calls).toEqual([[["a:1"]]]);
		expect(embed).not.toHaveBeenCalled();
	});
});

describe("a search", () => {
	it("finds up to 5 texts, in the index's order", async () => {
		query.mockResolvedValue({
			count: 2,
			matches: [
				{ id: "a", score: 0.9, metadata: { text: TEXT } },
				// Other programs may have stored vectors without a text.
				{ id: "b", score: 0.5 },
			],
		});
		const response = await search("?q=%20Do+bees+sleep%3F");
		expect(response.headers.get("Cache-Control")).toBe("no-store");
		expect(await response.json()).toEqual({
			matches: [
				{ id: "a", text: TEXT, score: 0.9 },
				{ id: "b", text: "", score: 0.5 },
			],
		});
		expect(embed.mock.calls[0]?.[1]).toEqual({ text: ["Do bees sleep?"] });
		const options = { topK: 5, returnMetadata: "all" };
		expect(query.mock.calls).toEqual([[VECTOR, options]]);
	});

	it("may find nothing", async () => {
		expect(await (await search()).json()).toEqual({ matches: [] });
	});

	it("is for 1,000 characters at most", async () => {
		expect((await search(`?q=${"x".repeat(1000)}`)).status).toBe(200);
		expect((await search(`?q=${"x".repeat(1001)}`)).status).toBe(400);
	});

	it.each([
		[200, "?q=bees&limit=1"],
		[200, "?q=bees&limit=20"],
		[400, ""],
		[400, "?q=%20"],
		[400, "?q=bees&limit=0"],
		[400, "?q=bees&limit=21"],
		[400, "?q=bees&limit=1.5"],
		[400, "?q=bees&limit=many"],
	])("is a %i: %j", async (status, parameters) => {
		const response = await search(parameters);
		expect(response.status).toBe(status);
		if (status === 400) {
			expect(await codeOf(response)).toBe("invalid_query");
			expect(embed).not.toHaveBeenCalled();
		}
	});
});

describe("a service that fails", () => {
	const uses: [string, () => Promise<Response>][] = [
		["to store", post],
		["to find", search],
		["to delete", () => request("DELETE", "/documents/a")],
	];

	it.each([
		[502, "search_failed", `3043: ${SAID}`],
		[503, "search_busy", `3036: ${SAID}`],
		[503, "search_busy", `InferenceUpstreamError: 3040: ${SAID}`],
	])("is a %i %s when it is the model: %s", async (status, code, said) => {
		embed.mockRejectedValue(new Error(said));
		for (const [, use] of uses.slice(0, 2)) {
			const response = await use();
			expect(response.status).toBe(status);
			expect(response.headers.has("Retry-After")).toBe(status === 503);
			expect(await codeOf(response.clone())).toBe(code);
			expect(await response.text()).not.toContain(SAID);
		}
		expect(log).toHaveBeenCalledTimes(2);
		expect(upsert).not.toHaveBeenCalled();
		expect(query).not.toHaveBeenCalled();
	});

	it.each(uses)("%s is a 502, or a 503 while it is busy", async (_, use) => {
		for (const [said, status] of [
			[`VECTOR_UPSERT_ERROR (code = 40023): ${SAID}`, 502],
			["VECTOR_QUERY_ERROR (code = 40041): Too Many Requests", 503],
		] as const) {
			for (const operation of [upsert, query, remove]) {
				operation.mockRejectedValue(new Error(said));
			}
			const response = await use();
			expect(response.status).toBe(status);
			expect(await response.text()).not.toContain(SAID);
			expect(String(log.mock.lastCall)).toContain(said);
		}
	});

	it.each(uses)("%s for want of an account says what to do", async (_, use) => {
		// Bindings say this wherever they are not on Cloudflare.
		const absence = new Error("Binding X needs to be run remotely");
		for (const service of [embed, upsert, query, remove]) {
			service.mockRejectedValue(absence);
		}
		const response = await use();
		expect(response.status).toBe(503);
		const { error } = await response.json<{
			error: { code: string; message: string };
		}>();
		expect(error.code).toBe("vectorize_not_configured");
		expect(error.message).toContain("dev:online");
		expect(log).not.toHaveBeenCalled();
	});

	it.each([
		["nothing", {}],
		["no list", { data: null }],
		["no vector", { data: [] }],
		["a short vector", { data: [VECTOR.slice(1)] }],
	])("by answering with %s is a 502", async (_, answer) => {
		embed.mockResolvedValue(answer);
		expect((await post()).status).toBe(502);
		expect(log).toHaveBeenCalledTimes(1);
		expect(upsert).not.toHaveBeenCalled();
	});
});
