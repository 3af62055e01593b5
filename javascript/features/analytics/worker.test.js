import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";

// Here the binding writes nowhere: what reaches it is all there is to see.
const write = vi.spyOn(env.USER_EVENTS, "writeDataPoint");

afterEach(() => {
	vi.resetAllMocks();
});

function record(event) {
	return exports.default.fetch(
		new Request("https://example.com/events", {
			method: "POST",
			headers: { "Content-Type": "application/json" },
			body: JSON.stringify(event),
		}),
	);
}

it.each([
	[{ value: 12.5 }, 12.5],
	[{}, 1],
])("writes an event with %j as one data point", async (more, value) => {
	const event = { userId: "ada", event: "purchase", ...more };
	expect((await record(event)).status).toBe(204);
	expect(write).toHaveBeenCalledExactlyOnceWith({
		indexes: ["ada"],
		blobs: ["purchase"],
		doubles: [value],
	});
});

it("writes no event without a user", async () => {
	expect((await record({ event: "purchase" })).status).toBe(400);
	expect(write).not.toHaveBeenCalled();
});

it("answers 500 when the binding refuses", async () => {
	const log = vi.spyOn(console, "error").mockImplementation(() => {});
	write.mockThrow(new TypeError("the dataset is full"));
	expect((await record({ userId: "ada", event: "signup" })).status).toBe(500);
	expect(log).toHaveBeenCalledTimes(1);
});
