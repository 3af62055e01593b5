import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";

/** The headers of every request. */
const HEADERS = { "Content-Type": "application/json" };
// Here the binding writes nowhere: what reaches it is all there is to see.
const write = vi.spyOn(env.USER_EVENTS, "writeDataPoint");

afterEach(() => {
	write.mockReset();
});

function post(body: string, headers = HEADERS): Promise<Response> {
	const init = { method: "POST", headers, body };
	return exports.default.fetch(new Request("https://example.com/events", init));
}

function record(event: Record<string, unknown>): Promise<Response> {
	return post(JSON.stringify(event));
}

describe("an event", () => {
	it("is one data point: the user its index, the event a blob, the value a double", async () => {
		const response = await record({
			userId: "ada",
			event: "purchase",
			value: 12.5,
		});
		expect(response.status).toBe(204);
		expect(await response.text()).toBe("");
		expect(write).toHaveBeenCalledTimes(1);
		expect(write).toHaveBeenCalledWith({
			indexes: ["ada"],
			blobs: ["purchase"],
			doubles: [12.5],
		});
	});

	it("counts as 1 when it has no value", async () => {
		const response = await record({ userId: "ada", event: "signup" });
		expect(response.status).toBe(204);
		expect(write).toHaveBeenCalledWith({
			indexes: ["ada"],
			blobs: ["signup"],
			doubles: [1],
		});
	});

	it.each([0, -1.5, Number.MAX_VALUE])("may be worth %d", async (value) => {
		const response = await record({ userId: "ada", event: "refund", value });
		expect(response.status).toBe(204);
		expect(write.mock.calls[0]?.[0]?.doubles).toEqual([value]);
	});

	const longest = {
		"96 letters": "a".repeat(96),
		"48 umlauts": "ü".repeat(48),
	};

	it.each(Object.entries(longest))(
		"takes a user id of %s",
		async (_, userId) => {
			const response = await record({ userId, event: "signup" });
			expect(response.status).toBe(204);
			expect(write.mock.calls[0]?.[0]?.indexes).toEqual([userId]);
		},
	);

	it.each(["a".repeat(1024), "购买 👩‍💻 ".repeat(40)])(
		"may be called %j",
		async (event) => {
			const response = await record({ userId: "Зоя", event });
			expect(response.status).toBe(204);
			expect(write.mock.calls[0]?.[0]?.blobs).toEqual([event]);
		},
	);

	it("is answered without waiting for the write", async () => {
		write.mockImplementation(() => new Promise(() => {}));
		const response = await record({ userId: "ada", event: "signup" });
		expect(response.status).toBe(204);
	});
});

describe("a bad event writes nothing", () => {
	const good = { userId: "ada", event: "signup" };
	const refused: [string, string, unknown][] = [
		["no user id", "userId", { event: "signup" }],
		["a user id that is null", "userId", { ...good, userId: null }],
		["a user id that is a number", "userId", { ...good, userId: 7 }],
		["an empty user id", "userId", { ...good, userId: "" }],
		["a user id of 97 letters", "userId", { ...good, userId: "a".repeat(97) }],
		["a user id of 49 umlauts", "userId", { ...good, userId: "ü".repeat(49) }],
		["a control character", "userId", { ...good, userId: "ada\u001b[2J" }],
		["text that turns round", "userId", { ...good, userId: "\u202eada" }],
		["half a character", "event", { ...good, event: "\ud83d" }],
		["no event", "event", { userId: "ada" }],
		["an empty event", "event", { ...good, event: "" }],
		[
			"an event of 1,025 letters",
			"event",
			{ ...good, event: "a".repeat(1025) },
		],
		["an event of two lines", "event", { ...good, event: "sign\nup" }],
		["a value that is null", "value", { ...good, value: null }],
		["a value that is text", "value", { ...good, value: "1" }],
		["an unknown field", "", { ...good, more: 1 }],
		["a list", "", [good]],
	];

	it.each(refused)("with %s", async (_, path, body) => {
		const response = await post(JSON.stringify(body));
		expect(response.status).toBe(400);
		expect(await response.json()).toEqual({
			error: {
				code: "invalid_body",
				message: expect.any(String),
				issues: [{ path, message: expect.any(String) }],
			},
		});
		expect(write).not.toHaveBeenCalled();
	});

	it("with a value over what a double holds", async () => {
		const response = await post('{"userId":"ada","event":"buy","value":1e309}');
		expect(response.status).toBe(400);
		expect(write).not.toHaveBeenCalled();
	});

	it.each(["", "{", "userId=ada"])("that is not JSON: %j", async (body) => {
		expect((await post(body)).status).toBe(400);
		expect(write).not.toHaveBeenCalled();
	});

	it("that is not JSON by its type", async () => {
		const response = await post(JSON.stringify(good), {
			...HEADERS,
			"Content-Type": "text/plain",
		});
		expect(response.status).toBe(415);
		expect(write).not.toHaveBeenCalled();
	});

	it("over 64 KiB", async () => {
		const response = await record({ ...good, event: "a".repeat(65_536) });
		expect(response.status).toBe(413);
		expect(write).not.toHaveBeenCalled();
	});
});

it("answers 500 when the binding refuses, and keeps the cause to itself", async () => {
	const log = vi.spyOn(console, "error").mockImplementation(() => {});
	write.mockImplementation(() => {
		throw new TypeError("the dataset is full");
	});
	const response = await record({ userId: "ada", event: "signup" });
	expect(response.status).toBe(500);
	expect(await response.text()).not.toContain("dataset");
	expect(log).toHaveBeenCalledTimes(1);
	expect(log.mock.calls[0]?.[0]).toContain("the dataset is full");
	log.mockRestore();
});
