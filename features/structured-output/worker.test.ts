import { env, exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
	answerJson,
	busy,
	failToAnswer,
	failToConnect,
	failureFields,
	failWith,
	jsonAnswers,
	jsonFailures,
	jsonRequest,
	requests,
	SECRET_WORDS,
	SETTING,
	unconfigured,
} from "../../providers/workers-ai/test/provider";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };
const TEXT = "Alice and Bob are going to a science fair on Friday.";
const EVENT = {
	name: "science fair",
	date: "Friday",
	participants: ["Alice", "Bob"],
};

let log: MockInstance<typeof console.error>;

beforeEach(() => {
	log = vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
	vi.restoreAllMocks();
});

function post(
	body: unknown,
	headers: Record<string, string> = OPERATOR,
): Promise<Response> {
	return exports.default.fetch(
		new Request("https://example.com/extract", {
			method: "POST",
			headers: { ...JSON_TYPE, ...headers },
			body: JSON.stringify(body),
		}),
	);
}

/** Checks that an answer, and the one line in the logs, keep secrets. */
async function expectFailure(
	response: Response,
	status: number,
	code: string,
	fields: Record<string, unknown> = {},
) {
	expect(response.status).toBe(status);
	const body = await response.text();
	expect(JSON.parse(body)).toEqual({
		error: { code, message: expect.any(String) },
	});
	expect(log).toHaveBeenCalledTimes(1);
	const line = String(log.mock.calls[0]?.[0]);
	expect(JSON.parse(line)).toMatchObject({
		level: "error",
		message: "The model gave no answer",
		...fields,
	});
	for (const secret of [SECRET_WORDS, "Alice", "science fair"]) {
		expect(body).not.toContain(secret);
		expect(line).not.toContain(secret);
	}
}

describe("POST /extract", () => {
	it.each(Object.keys(jsonAnswers))(
		"answers with the event that the model gives %s",
		async (way) => {
			jsonAnswers[way]?.(JSON.stringify(EVENT));
			const response = await post({ text: TEXT });
			expect(response.status).toBe(200);
			expect(await response.json()).toEqual({ calendar_event: EVENT });
		},
	);

	it("asks as the provider documents it, with a strict schema", async () => {
		answerJson(JSON.stringify(EVENT));
		await post({ text: ` ${TEXT}\n` });
		expect(requests()).toEqual([
			jsonRequest({
				instructions: expect.any(String),
				text: TEXT,
				name: "calendar_event",
				schema: {
					type: "object",
					properties: {
						name: { type: "string" },
						date: { type: "string" },
						participants: { type: "array", items: { type: "string" } },
					},
					required: ["name", "date", "participants"],
					additionalProperties: false,
				},
			}),
		]);
	});

	it("leaves no timer behind", async () => {
		const set = vi.spyOn(globalThis, "setTimeout");
		const clear = vi.spyOn(globalThis, "clearTimeout");
		answerJson(JSON.stringify(EVENT));
		await post({ text: TEXT });
		const limits = set.mock.calls.flatMap(([, ms], index) =>
			ms === 120_000 ? [set.mock.results[index]?.value] : [],
		);
		expect(limits).not.toEqual([]);
		for (const limit of limits) {
			expect(clear).toHaveBeenCalledWith(limit);
		}
	});

	it("takes 10,000 characters and no more", async () => {
		answerJson(JSON.stringify(EVENT));
		expect((await post({ text: "x".repeat(10_000) })).status).toBe(200);
		expect((await post({ text: "x".repeat(10_001) })).status).toBe(400);
		expect(requests()).toHaveLength(1);
	});

	it.each([{}, { text: "" }, { text: " \n" }, { text: 1 }, { text: [TEXT] }])(
		"answers 400 to %j and asks nobody",
		async (body) => {
			answerJson(JSON.stringify(EVENT));
			expect((await post(body)).status).toBe(400);
			expect((await post({ ...body, text: TEXT, more: 1 })).status).toBe(400);
			expect(requests()).toEqual([]);
		},
	);

	it("answers 401 without the token and asks nobody", async () => {
		answerJson(JSON.stringify(EVENT));
		expect((await post({ text: TEXT }, {})).status).toBe(401);
		expect(requests()).toEqual([]);
	});
});

describe("an answer of no use is a 502 that tells nothing of it", () => {
	it.each(Object.keys(jsonFailures))("when it is %s", async (failure) => {
		jsonFailures[failure]?.(JSON.stringify(EVENT));
		await expectFailure(await post({ text: TEXT }), 502, "model_failed");
	});

	const shapes = [
		'Sure! {"name":"science fair"}',
		'"science fair"',
		"null",
		"[]",
		JSON.stringify([EVENT]),
		JSON.stringify({ ...EVENT, date: null }),
		JSON.stringify({ ...EVENT, participants: "Alice" }),
		JSON.stringify({ ...EVENT, participants: [1] }),
		JSON.stringify({ name: EVENT.name, date: EVENT.date }),
		JSON.stringify({ ...EVENT, more: 1 }),
	];

	it.each(shapes)("when it is %s", async (shape) => {
		answerJson(shape);
		await expectFailure(await post({ text: TEXT }), 502, "model_failed");
	});
});

describe("a provider that fails", () => {
	it.each([400, 401, 404, 413, 500, 503])(
		"with %i is a 502 without its words",
		async (status) => {
			failWith(status);
			const response = await post({ text: TEXT });
			const fields = failureFields(status);
			await expectFailure(response, 502, "model_failed", fields);
			expect(requests()).toHaveLength(1);
		},
	);

	it.each(busy)(
		"with 429 is a 503 that says to come back in %s seconds",
		async (seconds, fail) => {
			fail();
			const response = await post({ text: TEXT });
			expect(response.headers.get("Retry-After")).toBe(seconds);
			await expectFailure(response, 503, "model_busy");
			expect(requests()).toHaveLength(1);
		},
	);

	it("by being out of reach is a 502", async () => {
		failToConnect();
		await expectFailure(await post({ text: TEXT }), 502, "model_failed");
	});

	it("by taking too long is a 502", async () => {
		failToAnswer();
		await expectFailure(await post({ text: TEXT }), 502, "model_failed");
	});

	it("by not being configured is a 503 that says what to set", async () => {
		const response = await unconfigured(() => post({ text: TEXT }));
		expect(response.status).toBe(503);
		expect(await response.json()).toEqual({
			error: {
				code: "model_not_configured",
				message: expect.stringContaining(SETTING),
			},
		});
	});
});
