import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";

const write = vi.spyOn(env.USER_EVENTS, "writeDataPoint");

afterEach(() => {
	vi.resetAllMocks();
});

function post(body: string, type = "application/json"): Promise<Response> {
	const headers = { "Content-Type": type };
	const init = { method: "POST", headers, body };
	return exports.default.fetch(new Request("https://example.com/events", init));
}

function record(more: object): Promise<Response> {
	return post(JSON.stringify({ userId: "ada", event: "signup", ...more }));
}

describe("an event", () => {
	it.each([0, -1.5, Number.MAX_VALUE])("may be worth %d", async (value) => {
		expect((await record({ value })).status).toBe(204);
		expect(write.mock.calls[0]?.[0]?.doubles).toEqual([value]);
	});

	it.each(["a".repeat(96), "ü".repeat(48)])(
		"may be of user %s",
		async (userId) => {
			const response = await record({ userId });
			expect(response.status).toBe(204);
			expect(await response.text()).toBe("");
			expect(write.mock.calls[0]?.[0]?.indexes).toEqual([userId]);
		},
	);

	it.each(["a".repeat(1024), "购买 👩‍💻 ".repeat(40)])(
		"may be called %j",
		async (event) => {
			expect((await record({ event })).status).toBe(204);
			expect(write.mock.calls[0]?.[0]?.blobs).toEqual([event]);
		},
	);

	it("is answered without waiting for the write", async () => {
		write.mockImplementation(() => new Promise(() => {}));
		expect((await record({})).status).toBe(204);
	});
});

describe("a bad event writes nothing", () => {
	it.each([
		["no user id", "userId", { userId: undefined }],
		["a user id that is null", "userId", { userId: null }],
		["a user id that is a number", "userId", { userId: 7 }],
		["an empty user id", "userId", { userId: "" }],
		["a user id of 97 letters", "userId", { userId: "a".repeat(97) }],
		["a user id of 49 umlauts", "userId", { userId: "ü".repeat(49) }],
		["a control character", "userId", { userId: "ada\u001b[2J" }],
		["no event", "event", { event: undefined }],
		["an empty event", "event", { event: "" }],
		["an event of 1,025 letters", "event", { event: "a".repeat(1025) }],
		["a value that is null", "value", { value: null }],
		["a value that is text", "value", { value: "1" }],
		["an unknown field", "", { more: 1 }],
	])("with %s", async (_, path, more) => {
		const response = await record(more);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_body", issues: [{ path }] },
		});
		expect(write).not.toHaveBeenCalled();
	});

	it.each([
		["[]", 400],
		["{", 400],
		['{"userId":"ada","event":"buy","value":1e309}', 400],
		[`{"userId":"ada","event":"${"a".repeat(65_536)}"}`, 413],
	])("that is %.30s", async (body, status) => {
		expect((await post(body)).status).toBe(status);
		expect(write).not.toHaveBeenCalled();
	});

	it("that is not JSON by its type", async () => {
		const response = await post('{"userId":"ada","event":"a"}', "text/plain");
		expect(response.status).toBe(415);
		expect(write).not.toHaveBeenCalled();
	});
});
