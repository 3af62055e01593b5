import {
	reset,
	runDurableObjectAlarm,
	runInDurableObject,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

beforeEach(() => {
	vi.spyOn(console, "log").mockImplementation(() => {});
});

type Shown = { everySeconds: number; next: string; fired: number };

afterEach(async () => {
	vi.restoreAllMocks();
	await reset();
});

function request(
	method: string,
	userId: string,
	init: RequestInit = {},
): Promise<Response> {
	const url = `https://example.com/reminders/${encodeURIComponent(userId)}`;
	return exports.default.fetch(new Request(url, { method, ...init }));
}

function start(userId: string, everySeconds: unknown): Promise<Response> {
	return request("PUT", userId, {
		headers: { ...OPERATOR, "Content-Type": "application/json" },
		body: JSON.stringify({ everySeconds }),
	});
}

async function show(userId: string): Promise<Shown> {
	return (await request("GET", userId)).json<Shown>();
}

function cancel(userId: string): Promise<Response> {
	return request("DELETE", userId, { headers: OPERATOR });
}

/** Returns the time of the pending alarm, which storage keeps. */
function alarmOf(userId: string): Promise<number | null> {
	const stub = env.REMINDER.getByName(userId);
	return runInDurableObject(stub, (_, { storage }) => storage.getAlarm());
}

/** Runs the alarm as the runtime does at a time. */
function fireAt(userId: string, scheduledTime: number): Promise<void> {
	const stub = env.REMINDER.getByName(userId);
	return runInDurableObject(stub, (reminder) =>
		reminder.alarm({ scheduledTime, isRetry: false, retryCount: 0 }),
	);
}

/** Says what a reminder does when it fires. */
function onFire(userId: string, fire: () => Promise<void>): Promise<void> {
	const stub = env.REMINDER.getByName(userId);
	return runInDurableObject(stub, (reminder) => {
		reminder.fire = fire;
	});
}

describe("PUT", () => {
	it("starts a reminder that GET shows", async () => {
		const before = Date.now();
		const response = await start("ada", 60);
		expect(response.status).toBe(200);
		const started = await response.json<{ next: string }>();
		expect(started).toEqual({
			userId: "ada",
			everySeconds: 60,
			next: expect.any(String),
		});
		const next = Date.parse(started.next);
		expect(next).toBeGreaterThanOrEqual(before + 60_000);
		expect(next).toBeLessThanOrEqual(Date.now() + 60_000);

		const read = await request("GET", "ada");
		expect(read.status).toBe(200);
		expect(await read.json()).toEqual({ ...started, fired: 0 });
	});

	it("changes the interval and leaves the pending time", async () => {
		const first = await (await start("ada", 60)).json<{ next: string }>();
		await runDurableObjectAlarm(env.REMINDER.getByName("ada"));
		const next = new Date(Date.parse(first.next) + 60_000).toISOString();
		const second = await start("ada", 3600);
		const changed = { userId: "ada", everySeconds: 3600, next };
		expect(await second.json()).toEqual(changed);
		expect(await show("ada")).toEqual({ ...changed, fired: 1 });
		expect(await alarmOf("ada")).toBe(Date.parse(next));
	});

	it("keeps users apart", async () => {
		await start("ada", 60);
		expect((await request("GET", "bob")).status).toBe(404);
	});

	it.each([1, 86_400])("takes %i seconds", async (everySeconds) => {
		const before = Date.now();
		const response = await start("ada", everySeconds);
		const { next } = await response.json<{ next: string }>();
		expect(Date.parse(next)).toBeGreaterThanOrEqual(
			before + everySeconds * 1000,
		);
		expect(await alarmOf("ada")).toBe(Date.parse(next));
	});

	it.each(["a".repeat(128), "Ada_9.b-c@example.com"])(
		"takes the user id %j",
		async (userId) => {
			expect((await start(userId, 60)).status).toBe(200);
			expect(await show(userId)).toMatchObject({ userId });
		},
	);

	const badIntervals = [0, -1, 86_401, 1.5, "60", null];

	it.each(badIntervals)("refuses everySeconds %j", async (everySeconds) => {
		expect((await start("ada", everySeconds)).status).toBe(400);
		expect((await request("GET", "ada")).status).toBe(404);
	});

	const badUserIds = ["a b", "a/b", "ü", "a".repeat(129)];

	it.each(badUserIds)("refuses the user id %j", async (userId) => {
		expect((await start(userId, 60)).status).toBe(400);
		expect((await request("GET", userId)).status).toBe(400);
	});
});

describe("bodies", () => {
	const json = { ...OPERATOR, "Content-Type": "application/json" };

	it("must be JSON by their type", async () => {
		const headers = { ...OPERATOR, "Content-Type": "text/plain" };
		const body = '{"everySeconds":60}';
		const response = await request("PUT", "ada", { headers, body });
		expect(response.status).toBe(415);
	});

	it("must not be over 64 KiB", async () => {
		const body = JSON.stringify({ everySeconds: 60, pad: "x".repeat(65_536) });
		const response = await request("PUT", "ada", { headers: json, body });
		expect(response.status).toBe(413);
	});

	it.each(["", "{", "[]", '{"everySeconds":60,"more":1}'])(
		"must not be %j",
		async (body) => {
			const response = await request("PUT", "ada", { headers: json, body });
			expect(response.status).toBe(400);
		},
	);
});

describe("the alarm", () => {
	it("counts, and sets the next one an interval after the last", async () => {
		const { next } = await (await start("ada", 60)).json<{ next: string }>();
		const stub = env.REMINDER.getByName("ada");
		await runDurableObjectAlarm(stub);
		// Two in one millisecond would be one that the runtime has run twice.
		await scheduler.wait(2);
		await runDurableObjectAlarm(stub);
		const later = new Date(Date.parse(next) + 2 * 60_000).toISOString();
		expect(await show("ada")).toMatchObject({ fired: 2, next: later });
		expect(await alarmOf("ada")).toBe(Date.parse(later));
	});

	it("fires by itself, again and again", async () => {
		await start("ada", 1);
		await vi.waitFor(
			async () => {
				const { fired } = await show("ada");
				expect(fired).toBeGreaterThanOrEqual(2);
			},
			{ timeout: 10_000, interval: 200 },
		);
	});

	it("fires for its user", async () => {
		const log = vi.spyOn(console, "log").mockImplementation(() => {});
		await start("ada", 60);
		await runDurableObjectAlarm(env.REMINDER.getByName("ada"));
		expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({
			level: "info",
			message: "Reminder fired",
			userId: "ada",
		});
	});

	it("counts the times that it has missed as one, and keeps its beat", async () => {
		const { next } = await (await start("ada", 60)).json<{ next: string }>();
		const due = Date.parse(next);
		vi.setSystemTime(due + 200_000);
		await fireAt("ada", due);
		vi.useRealTimers();
		const later = new Date(due + 240_000).toISOString();
		expect(await show("ada")).toMatchObject({ fired: 1, next: later });
		expect(await alarmOf("ada")).toBe(due + 240_000);
	});

	it("counts once when the runtime runs it twice", async () => {
		await start("ada", 60);
		const scheduledTime = Date.now();
		await fireAt("ada", scheduledTime);
		const once = await show("ada");
		await fireAt("ada", scheduledTime);
		expect(await show("ada")).toEqual(once);
		expect(once.fired).toBe(1);
	});

	it("does nothing for a reminder that was cancelled meanwhile", async () => {
		await start("ada", 60);
		await cancel("ada");
		await fireAt("ada", Date.now());
		expect(await alarmOf("ada")).toBeNull();
		expect((await request("GET", "ada")).status).toBe(404);
	});
});

describe("a firing that takes long", () => {
	/** Fires, and does something when half of the work is done. */
	async function during(act: () => Promise<unknown>): Promise<void> {
		await onFire("ada", async () => {
			await scheduler.wait(50);
			await act();
			await scheduler.wait(50);
		});
		await fireAt("ada", Date.now());
	}

	it("has been counted, and the next alarm set, before it begins", async () => {
		const { next } = await (await start("ada", 60)).json<{ next: string }>();
		let shown: unknown;
		await during(async () => {
			shown = await show("ada");
		});
		const later = new Date(Date.parse(next) + 60_000).toISOString();
		expect(shown).toMatchObject({ fired: 1, next: later });
		expect(await show("ada")).toEqual(shown);
	});

	it("leaves a reminder cancelled that DELETE cancels", async () => {
		await start("ada", 60);
		await during(() => cancel("ada"));
		expect((await request("GET", "ada")).status).toBe(404);
		expect(await alarmOf("ada")).toBeNull();
	});

	it("leaves the interval that PUT sets", async () => {
		await start("ada", 60);
		let changed: unknown;
		await during(async () => {
			changed = await (await start("ada", 3600)).json();
		});
		expect(await show("ada")).toEqual({ ...Object(changed), fired: 1 });
	});

	it("leaves a reminder that was started anew", async () => {
		await start("ada", 60);
		let anew: unknown;
		await during(async () => {
			await cancel("ada");
			anew = await (await start("ada", 120)).json();
		});
		expect(await show("ada")).toEqual({ ...Object(anew), fired: 0 });
		expect(await alarmOf("ada")).toBe(Date.parse(Object(anew).next));
	});
});

describe("a firing that fails", () => {
	let log: MockInstance<typeof console.error>;

	beforeEach(() => {
		log = vi.spyOn(console, "error").mockImplementation(() => {});
	});

	function fail(): Promise<void> {
		return onFire("ada", async () => {
			throw new Error("Not now");
		});
	}

	/** Lets the reminder fire, which fails. */
	async function failAt(time: number): Promise<void> {
		await expect(fireAt("ada", time)).rejects.toThrow("Not now");
	}

	it("is logged with its user, tried again soon, and counted once", async () => {
		await start("ada", 3600);
		const { next } = await (await start("ada", 3600)).json<{ next: string }>();
		await fail();
		const later = new Date(Date.parse(next) + 3_600_000).toISOString();
		for (let failures = 1; failures <= 6; failures++) {
			const before = Date.now();
			await failAt(before);
			const alarm = Number(await alarmOf("ada"));
			expect(alarm - before).toBeGreaterThanOrEqual(2 ** failures * 1000);
			expect(alarm - Date.now()).toBeLessThanOrEqual(2 ** failures * 1000);
			expect(await show("ada")).toMatchObject({ fired: 1, next: later });
			expect(JSON.parse(log.mock.lastCall?.[0])).toMatchObject({
				message: "Reminder failed",
				userId: "ada",
				failures,
				error: { message: "Not now" },
			});
		}
		await failAt(Date.now());
		expect(await alarmOf("ada")).toBe(Date.parse(later));
		await failAt(Date.parse(later));
		expect(await show("ada")).toMatchObject({ fired: 2 });
	});

	it("goes back to its beat once it succeeds", async () => {
		const { next } = await (await start("ada", 60)).json<{ next: string }>();
		await fail();
		await failAt(Date.now());
		await onFire("ada", async () => {});
		await fireAt("ada", Date.now() + 2000);
		const due = Date.parse(next) + 60_000;
		expect(await alarmOf("ada")).toBe(due);
		await fireAt("ada", due);
		expect(await show("ada")).toMatchObject({ fired: 2 });
	});

	it("waits for the next time where that comes sooner", async () => {
		const { next } = await (await start("ada", 1)).json<{ next: string }>();
		await fail();
		await failAt(Date.parse(next));
		expect(await alarmOf("ada")).toBe(Date.parse(next) + 1000);
	});

	it("is not tried again for a reminder that is cancelled meanwhile", async () => {
		await start("ada", 3600);
		await onFire("ada", async () => {
			await cancel("ada");
			throw new Error("Not now");
		});
		await failAt(Date.now());
		expect(await alarmOf("ada")).toBeNull();
		expect((await request("GET", "ada")).status).toBe(404);
	});

	it("says how often the runtime has tried", async () => {
		const warned = vi.spyOn(console, "warn").mockImplementation(() => {});
		await start("ada", 3600);
		await runInDurableObject(env.REMINDER.getByName("ada"), (reminder) =>
			reminder.alarm({
				scheduledTime: Date.now(),
				isRetry: true,
				retryCount: 2,
			}),
		);
		expect(JSON.parse(warned.mock.lastCall?.[0])).toMatchObject({
			level: "warn",
			message: "Alarm retry",
			userId: "ada",
			retryCount: 2,
		});
		warned.mockRestore();
	});
});

describe("DELETE", () => {
	it("cancels and forgets", async () => {
		await start("ada", 60);
		expect((await cancel("ada")).status).toBe(204);
		expect((await request("GET", "ada")).status).toBe(404);
		expect(await alarmOf("ada")).toBeNull();
		const stub = env.REMINDER.getByName("ada");
		await runInDurableObject(stub, async (_, { storage }) => {
			expect((await storage.list()).size).toBe(0);
		});
	});
});

// What a method returns must be stored by then: the object may end at any time.
describe("the storage has finished", () => {
	/** Makes writes to storage late, and tells how many are not done. */
	async function slowDown(): Promise<() => number> {
		let pending = 0;
		const stub = env.REMINDER.getByName("ada");
		await runInDurableObject(stub, (_, { storage }) => {
			for (const name of [
				"put",
				"setAlarm",
				"deleteAlarm",
				"deleteAll",
			] as const) {
				const write = storage[name].bind(storage) as (
					...values: unknown[]
				) => Promise<void>;
				vi.spyOn(storage, name).mockImplementation(
					async (...values: unknown[]) => {
						pending++;
						await write(...values);
						await scheduler.wait(20);
						pending--;
					},
				);
			}
		});
		return () => pending;
	}

	it("when a reminder is started, fires and is cancelled", async () => {
		await start("ada", 60);
		await cancel("ada");
		const pending = await slowDown();
		await start("ada", 60);
		expect(pending()).toBe(0);
		await onFire("ada", async () => expect(pending()).toBe(0));
		await fireAt("ada", Date.now());
		expect(await show("ada")).toMatchObject({ fired: 1 });
		await cancel("ada");
		expect(pending()).toBe(0);
	});
});

describe("without the operator's token", () => {
	const tokens = [undefined, "Bearer wrong", "Bearer ", "Basic dTpw"];

	it.each(tokens)("Authorization %j changes nothing", async (token) => {
		await start("ada", 60);
		const headers = token === undefined ? {} : { Authorization: token };
		for (const method of ["PUT", "DELETE"]) {
			const response = await request(method, "ada", { headers });
			expect(response.status).toBe(401);
			expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
		}
		expect(await (await request("GET", "ada")).json()).toMatchObject({
			everySeconds: 60,
		});
	});

	it.each(["", undefined])(
		"a secret that is %j opens nothing",
		async (secret) => {
			const token = env.API_TOKEN;
			Object.assign(env, { API_TOKEN: secret });
			const headers = { Authorization: `Bearer ${secret}` };
			const response = await request("DELETE", "ada", { headers });
			env.API_TOKEN = token;
			expect(response.status).toBe(401);
		},
	);
});
