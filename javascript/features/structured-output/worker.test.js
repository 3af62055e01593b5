import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
	answer,
	asked,
	failWith,
} from "../../providers/workers-ai/test/provider";

const EVENT = { name: "fair", date: "Friday", participants: ["Alice", "Bob"] };

beforeEach(() => {
	vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
	vi.restoreAllMocks();
});

function extract(text, token = env.API_TOKEN) {
	return exports.default.fetch("https://example.com/extract", {
		method: "POST",
		headers: {
			Authorization: `Bearer ${token}`,
			"Content-Type": "application/json",
		},
		body: JSON.stringify({ text }),
	});
}

it("extracts the event that the model finds", async () => {
	answer(JSON.stringify(EVENT));
	const response = await extract("Alice and Bob go to the fair on Friday.");
	expect(response.status).toBe(200);
	expect(await response.json()).toEqual({ calendar_event: EVENT });
	expect(asked[0]?.body).toContain("Alice and Bob go to the fair on Friday.");
});

it.each([undefined, "", " \n", 1, "x".repeat(10_001)])(
	"answers 400 to the text %j, and asks nobody",
	async (text) => {
		answer(JSON.stringify(EVENT));
		expect((await extract(text)).status).toBe(400);
		expect(asked).toEqual([]);
	},
);

it("answers 401 without the token", async () => {
	expect((await extract("The fair is on Friday.", "guess")).status).toBe(401);
});

it.each(["Sure! It is a fair.", JSON.stringify({ ...EVENT, date: 5 })])(
	"answers 502 where the model answers %s, and passes nothing on",
	async (text) => {
		answer(text);
		const response = await extract("The fair is on Friday.");
		expect(response.status).toBe(502);
		expect(await response.text()).not.toContain("fair");
	},
);

it("answers 503 and when to come back while the model is busy", async () => {
	failWith(429);
	const response = await extract("The fair is on Friday.");
	expect(response.status).toBe(503);
	expect(response.headers.get("Retry-After")).toBe("60");
});
