import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
	answer,
	asked,
	failWith,
} from "../../providers/workers-ai/test/provider";

const TEXT = "Alice and Bob go to a science fair on Friday.";
const EVENT = { name: "fair", date: "Friday", participants: ["Alice", "Bob"] };
const log = vi.fn<(line: string) => void>();

beforeEach(() => {
	log.mockReset();
	vi.spyOn(console, "error").mockImplementation(log);
});

afterEach(() => {
	vi.restoreAllMocks();
});

function post(body: object): Promise<Response> {
	return exports.default.fetch("https://example.com/extract", {
		method: "POST",
		headers: {
			Authorization: `Bearer ${env.API_TOKEN}`,
			"Content-Type": "application/json",
		},
		body: JSON.stringify(body),
	});
}

/** Checks an error, and that neither it nor the one log line repeats anything. */
async function expectError(response: Response, status: number, code: string) {
	expect(response.status).toBe(status);
	const body = await response.text();
	expect(JSON.parse(body)).toEqual({
		error: { code, message: expect.any(String) },
	});
	expect(log).toHaveBeenCalledTimes(1);
	const [[line = ""] = []] = log.mock.calls;
	expect(JSON.parse(line)).toMatchObject({
		level: "error",
		message: "The model gave no answer",
	});
	expect(body + line).not.toMatch(/words of the provider|Alice|fair/);
}

it("asks once, for a strict object, about the trimmed text", async () => {
	answer(JSON.stringify(EVENT));
	expect((await post({ text: ` ${TEXT}\n` })).status).toBe(200);
	expect(asked).toHaveLength(1);
	const body = asked[0]?.body;
	expect(body).toContain(`"${TEXT}"`);
	expect(body).toContain('"required":["name","date","participants"]');
	expect(body).toContain('"additionalProperties":false');
});

it("takes 10,000 characters, and nothing beside the text", async () => {
	answer(JSON.stringify(EVENT));
	expect((await post({ text: "x".repeat(10_000) })).status).toBe(200);
	expect((await post({ text: TEXT, more: 1 })).status).toBe(400);
	expect(asked).toHaveLength(1);
});

it.each([
	"",
	"null",
	"[]",
	'"science fair"',
	JSON.stringify([EVENT]),
	JSON.stringify(EVENT).slice(0, -1),
	JSON.stringify({ ...EVENT, date: null }),
	JSON.stringify({ ...EVENT, participants: "Alice" }),
	JSON.stringify({ ...EVENT, participants: [1] }),
	JSON.stringify({ name: EVENT.name, date: EVENT.date }),
	JSON.stringify({ ...EVENT, more: 1 }),
])("answers 502 where the model answers %s", async (text) => {
	answer(text);
	await expectError(await post({ text: TEXT }), 502, "model_failed");
});

it.each([400, 401, 404, 413, 422, 500, 503])(
	"answers 502 to the provider's %i, without another try",
	async (status) => {
		failWith(status, { "Retry-After": "1" });
		await expectError(await post({ text: TEXT }), 502, "model_failed");
		expect(asked).toHaveLength(1);
	},
);

it("answers 503 to the provider's 429, without another try", async () => {
	failWith(429);
	await expectError(await post({ text: TEXT }), 503, "model_busy");
	expect(asked).toHaveLength(1);
});
