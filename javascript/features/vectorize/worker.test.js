import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const TEXT = "Bees sleep at night.";

// Neither service has a local form: these stand in for the model and the index.
const embed = vi.spyOn(env.AI, "run");
const upsert = vi.spyOn(env.VECTORIZE, "upsert");
const query = vi.spyOn(env.VECTORIZE, "query");
const remove = vi.spyOn(env.VECTORIZE, "deleteByIds");
const log = vi.spyOn(console, "error");

/** The vector of a text here: its length, again and again. */
function vectorOf(text) {
	return Array.from({ length: 1024 }, () => text.length);
}

beforeEach(() => {
	embed.mockImplementation(async (_, { text }) => ({
		data: text.map(vectorOf),
	}));
	upsert.mockResolvedValue({ ids: [], count: 0 });
	remove.mockResolvedValue({ ids: [], count: 0 });
	query.mockResolvedValue({
		count: 1,
		matches: [{ id: "a", score: 0.9, metadata: { text: TEXT } }],
	});
	log.mockImplementation(() => {});
});

afterEach(() => {
	vi.resetAllMocks();
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

it("stores a text with its vector", async () => {
	const response = await request("POST", "/documents", { text: ` ${TEXT}\n` });
	expect(response.status).toBe(201);
	const { id } = await response.json();
	const vector = { id, values: vectorOf(TEXT), metadata: { text: TEXT } };
	expect(upsert.mock.calls).toEqual([[[vector]]]);
});

it.each([
	["no text", {}],
	["an empty text", { text: " " }],
	["a long text", { text: "x".repeat(8000) }],
	["an id", { text: TEXT, id: "mine" }],
])("refuses %s and asks nobody", async (_, body) => {
	expect((await request("POST", "/documents", body)).status).toBe(400);
	expect(embed).not.toHaveBeenCalled();
});

it("finds the closest texts", async () => {
	const response = await request("GET", "/search?q=Do+bees+sleep?&limit=3");
	expect(await response.json()).toEqual({
		matches: [{ id: "a", text: TEXT, score: 0.9 }],
	});
	const options = { topK: 3, returnMetadata: "all" };
	expect(query.mock.calls).toEqual([[vectorOf("Do bees sleep?"), options]]);
});

it("deletes a text", async () => {
	expect((await request("DELETE", "/documents/a")).status).toBe(204);
	expect(remove.mock.calls).toEqual([[["a"]]]);
});

it.each([
	[502, null, "3043: words of the service"],
	[503, "60", "3040: words of the service"],
])("is a %i when the model fails: %s, %s", async (status, wait, said) => {
	embed.mockRejectedValue(new Error(said));
	const response = await request("POST", "/documents", { text: TEXT });
	expect(response.status).toBe(status);
	expect(response.headers.get("Retry-After")).toBe(wait);
	expect(await response.text()).not.toContain("words of the service");
	expect(upsert).not.toHaveBeenCalled();
});

it.each([
	["POST", "/documents"],
	["DELETE", "/documents/a"],
	["GET", "/search?q=bees"],
])("is locked: %s %s", async (method, path) => {
	const guessed = { Authorization: "Bearer guessed" };
	expect((await request(method, path, undefined, guessed)).status).toBe(401);
});
