import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
	answer,
	asked,
	failWith,
} from "../../providers/workers-ai/test/provider";

const QUESTION = { role: "user", content: "What is a Worker?" };

beforeEach(() => {
	vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
	vi.restoreAllMocks();
});

function chat(messages, token = env.API_TOKEN) {
	return exports.default.fetch("https://example.com/ai/chat", {
		method: "POST",
		headers: {
			Authorization: `Bearer ${token}`,
			"Content-Type": "application/json",
		},
		body: JSON.stringify({ messages }),
	});
}

it("streams the answer to a conversation", async () => {
	answer("Hel", "lo");
	const rules = { role: "system", content: "Be kind." };
	const response = await chat([rules, QUESTION]);
	expect(response.status).toBe(200);
	expect(response.headers.get("Content-Type")).toBe("text/event-stream");
	expect(await response.text()).toBe(
		'data: {"text":"Hel"}\n\ndata: {"text":"lo"}\n\ndata: [DONE]\n\n',
	);
	expect(asked[0]?.body).toContain("Be kind.");
	expect(asked[0]?.body).toContain("What is a Worker?");
});

it.each([
	["no message", []],
	["a blank message", [{ role: "user", content: " " }]],
	["no question at the end", [{ role: "assistant", content: "Hi" }]],
	["instructions in the middle", [QUESTION, { role: "system" }, QUESTION]],
])("answers 400 to %s, and asks nobody", async (_, messages) => {
	answer("Hello");
	expect((await chat(messages)).status).toBe(400);
	expect(asked).toEqual([]);
});

it("answers 401 without the token", async () => {
	expect((await chat([QUESTION], "guess")).status).toBe(401);
});

it.each([
	[429, 503],
	[500, 502],
])("answers the model's %i, before a piece, with %i", async (from, to) => {
	failWith(from);
	const response = await chat([QUESTION]);
	expect(response.status).toBe(to);
	expect(await response.text()).not.toContain("words of the provider");
});

it("says in the stream that the answer broke off", async () => {
	const { promise, reject } = Promise.withResolvers();
	answer("Hel", promise);
	const response = await chat([QUESTION]);
	reject(new Error("words of the provider"));
	const events = (await response.text()).split("\n\n");
	expect(events).toHaveLength(3);
	expect(events[1]).toMatch(/^data: {"error":{"code":"model_failed",/);
});

it("stops the model when the client leaves", async () => {
	answer("Hel", new Promise(() => {}));
	const response = await chat([QUESTION]);
	await response.body?.cancel();
	await vi.waitFor(() => expect(asked[0]?.signal.aborted).toBe(true));
});
