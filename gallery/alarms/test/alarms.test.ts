import {
	reset,
	runDurableObjectAlarm,
	runInDurableObject,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

type Shown = { next: string; fired: number };

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

const info = vi.spyOn(console, "log");
const error = vi.spyOn(console, "error");

beforeEach(() => {
	info.mockImplementation(() => {});
	error.mockImplementation(() => {});
});

afterEach(async () => {
	vi.resetAllMocks();
	await reset();
});

function request(method: string, headers = {}, body?: object) {
	const json = { "Content-Type": "application/json" };
	return exports.default.fetch(
		new Request("https://example.com/reminders/ada", {
			method,
			headers: { ...json, ...headers },
			...(body && { body: JSON.stringify(body) }),
		}),
	);
}

async function start(everySeconds: number): Promise<Shown> {
	return (await request("PUT", OPERATOR, { everySeconds })).json<Shown>();
}

async function show(): Promise<Shown> {
	return (await request("GET", OPERATOR)).json<Shown>();
}

/** Runs the pending alarm now; `fire` is what the reminder does. */
async function run(fire: () => Promise<unknown>): Promise<boolean> {
	const stub = env.REMINDER.getByName("ada");
	await runInDurableObject(stub, (reminder) => {
		reminder.fire = fire as () => Promise<void>;
	});
	return runDurableObjectAlarm(stub);
}

function after(time: string, seconds: number): string {
	return new Date(Date.parse(time) + seconds * 1000).toISOString();
}

it("starts, shows, changes and cancels a reminder", async () => {
	const { next } = await start(60);
	const shown = { userId: "ada", everySeconds: 60, next, fired: 0 };
	expect(await show()).toEqual(shown);
	// The pending time stays.
	expect(await start(3600)).toMatchObject({ everySeconds: 3600, next });
	expect((await request("DELETE", OPERATOR)).status).toBe(204);
	expect((await request("GET", OPERATOR)).status).toBe(404);
	expect(await run(async () => {})).toBe(false);
});

it("lets nobody change it without the token", async () => {
	expect((await request("PUT", {}, { everySeconds: 1 })).status).toBe(401);
	expect((await request("DELETE")).status).toBe(401);
});

it.each([0, 86_401, 1.5, "60"])("refuses %j seconds", async (everySeconds) => {
	const response = await request("PUT", OPERATOR, { everySeconds });
	expect(response.status).toBe(400);
	expect((await request("GET", OPERATOR)).status).toBe(404);
});

it("fires again and again", async () => {
	const { next } = await start(60);
	const fire = vi.fn(async () => {});
	await run(fire);
	await run(fire);
	expect(fire).toHaveBeenCalledTimes(2);
	expect(await show()).toMatchObject({ fired: 2, next: after(next, 120) });
});

describe("while it fires,", () => {
	it("a reminder that is cancelled stays cancelled", async () => {
		await start(60);
		await run(() => request("DELETE", OPERATOR));
		expect((await request("GET", OPERATOR)).status).toBe(404);
		expect(await run(async () => {})).toBe(false);
	});

	it("an interval that is changed stays changed", async () => {
		const { next } = await start(60);
		await run(() => start(3600));
		const changed = { everySeconds: 3600, next: after(next, 60), fired: 1 };
		expect(await show()).toMatchObject(changed);
	});
});

it("is tried again when it fails, and counted once", async () => {
	const { next } = await start(60);
	await run(() => Promise.reject(new Error("Not now")));
	expect(error).toHaveBeenCalledTimes(1);
	await run(async () => {});
	expect(await show()).toMatchObject({ fired: 1, next: after(next, 60) });
});
