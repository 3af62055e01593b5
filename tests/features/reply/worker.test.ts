import { exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
	answerForever,
	answerText,
	failToAnswer,
	failToConnect,
	failWith,
	requests,
	SECRET_WORDS,
	SETTING,
	textFailures,
	textRequest,
	unconfigured,
} from "../../../providers/workers-ai/test/provider";

let log: MockInstance<typeof console.error>;

beforeEach(() => {
	log = vi.spyOn(console, "error").mockImplementation(() => {});
});

afterEach(() => {
	vi.restoreAllMocks();
});

function ask(query = ""): Promise<Response> {
	return exports.default.fetch(`https://example.com/reply${query}`);
}

function logged(): string {
	return JSON.stringify(log.mock.calls);
}

it("streams what the model says", async () => {
	answerText("Fine, ", "", "1", "00 %.", " Grüße");
	expect(await (await ask()).text()).toBe("Fine, 100 %. Grüße");
	expect(requests()).toEqual([
		textRequest([
			{ role: "system", content: "Be brief." },
			{ role: "user", content: "Hello?" },
			{ role: "assistant", content: "Yes?" },
			{ role: "user", content: "How are you?" },
		]),
	]);
});

it("ends the work when its signal says so", async () => {
	const isStopped = answerForever("Well,");
	expect(await (await ask("?ms=300")).text()).toBe("Well,");
	await vi.waitFor(() => expect(isStopped()).toBe(true));
	expect(log).not.toHaveBeenCalled();
});

it("ends the work when nobody reads on", async () => {
	const isStopped = answerForever("Well,");
	const reader = (await ask()).body?.getReader();
	await reader?.read();
	await reader?.cancel();
	await vi.waitFor(() => expect(isStopped()).toBe(true));
});

it.each(Object.keys(textFailures))(
	"does not end well when %s",
	async (failure) => {
		textFailures[failure]?.("Well,");
		expect(await (await ask()).text()).toBe("Well, (failed)");
		expect(logged()).toContain("The model gave no answer");
		expect(logged()).not.toContain(SECRET_WORDS);
	},
);

const statuses: [number, number][] = [
	[400, 502],
	[401, 502],
	[429, 503],
	[500, 502],
];

it.each(statuses)("turns the provider's %i into %i", async (theirs, ours) => {
	failWith(theirs);
	const response = await ask();
	expect(response.status).toBe(ours);
	expect(await response.text()).not.toContain(SECRET_WORDS);
	expect(logged()).not.toContain(SECRET_WORDS);
});

const silences = { failToConnect, failToAnswer, answerText };

it.each(Object.entries(silences))("answers 502 upon %s", async (_, fail) => {
	fail();
	expect((await ask()).status).toBe(502);
});

it("answers 503 that says what to set", async () => {
	const response = await unconfigured(ask);
	expect(response.status).toBe(503);
	expect(await response.text()).toContain(SETTING);
});
