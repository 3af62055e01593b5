import {
	evictDurableObject,
	reset,
	runDurableObjectAlarm,
	runInDurableObject,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

type Shown = { everySeconds: number; next: string; fired: number };

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

const info = vi.spyOn(console, "log");
const error = vi.spyOn(console, "error");

beforeEach(() => {
	info.mockImplementation(() => {});
	error.mockImplementation(() => {});
});

afterEach(async () => {
	vi.useRealTimers();
	vi.resetAllMocks();
	await reset();
});

function request(method: string, userId: string, body?: object) {
	const url = `https://example.com/reminders/${encodeURIComponent(userId)}`;
	const headers = {
		...OPERATOR,
		"CF-Connecting-IP": crypto.randomUUID(),
		"Content-Type": "application/json",
	};
	const init = { method, headers, body: body && JSON.stringify(body) };
	return exports.default.fetch(new Request(url, init as RequestInit));
}

/** Starts a reminder, and returns when it is due, in ms since 1970. */
async function start(userId: string, everySeconds: number): Promise<number> {
	const response = await request("PUT", userId, { everySeconds });
	expect(response.status).toBe(200);
	return Date.parse((await response.json<Shown>()).next);
}

async function show(userId: string): Promise<Shown> {
	return (await request("GET", userId)).json<Shown>();
}

/** Returns the time of the pending alarm, which storage keeps. */
function alarmOf(userId: string): Promise<number | null> {
	const stub = env.REMINDER.getByName(userId);
	return runInDurableObject(stub, (_, { storage }) => storage.getAlarm());
}

/** Runs an alarm as the runtime does; `fire` is what the reminder does. */
function runAlarm(
	userId: string,
	scheduledTime: number,
	fire: () => unknown = () => {},
	retryCount = 0,
): Promise<void> {
	const stub = env.REMINDER.getByName(userId);
	return runInDurableObject(stub, async (reminder, { storage }) => {
		reminder.fire = async () => void (await fire());
		await storage.deleteAlarm();
		const isRetry = retryCount > 0;
		await reminder.alarm({ scheduledTime, isRetry, retryCount });
	});
}

function fail(): never {
	throw new Error("Not now");
}

function iso(time: number): string {
	return new Date(time).toISOString();
}

describe("PUT", () => {
	it.each([1, 86_400])("takes %i seconds", async (everySeconds) => {
		const before = Date.now();
		const due = await start("ada", everySeconds);
		expect(due).toBeGreaterThanOrEqual(before + everySeconds * 1000);
		expect(due).toBeLessThanOrEqual(Date.now() + everySeconds * 1000);
		expect(await alarmOf("ada")).toBe(due);
	});

	it.each([
		{ everySeconds: 0 },
		{ everySeconds: -1 },
		{ everySeconds: 86_401 },
		{ everySeconds: 1.5 },
		{ everySeconds: "60" },
		{ everySeconds: null },
		{ everySeconds: 60, more: 1 },
		{},
	])("refuses %j", async (body) => {
		const response = await request("PUT", "ada", body);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_body", issues: expect.any(Array) },
		});
		expect(await alarmOf("ada")).toBeNull();
	});

	it("changes the interval from the next firing on", async () => {
		const due = await start("ada", 60);
		expect(await start("ada", 3600)).toBe(due);
		expect(await alarmOf("ada")).toBe(due);
		await runAlarm("ada", due);
		const next = due + 3_600_000;
		expect(await show("ada")).toMatchObject({ fired: 1, next: iso(next) });
		expect(await start("ada", 1)).toBe(next);
		expect(await alarmOf("ada")).toBe(next);
	});

	it("starts anew after DELETE", async () => {
		await runAlarm("ada", await start("ada", 60));
		await request("DELETE", "ada");
		const due = await start("ada", 3600);
		expect(await show("ada")).toMatchObject({ fired: 0, next: iso(due) });
		expect(await alarmOf("ada")).toBe(due);
	});
});

describe("users", () => {
	it.each(["Ada_9.b-c@example.com", "a/b?c#d", "ü %", "😀".repeat(24)])(
		"may have the id %j",
		async (userId) => {
			await start(userId, 60);
			expect(await show(userId)).toMatchObject({ userId, fired: 0 });
			expect((await request("DELETE", userId)).status).toBe(204);
		},
	);

	it.each(["a\n", "a".repeat(97), "😀".repeat(25)])(
		"may not have the id %j",
		async (userId) => {
			const body = { everySeconds: 60 };
			for (const method of ["PUT", "GET", "DELETE"]) {
				const sent = method === "PUT" ? body : undefined;
				const response = await request(method, userId, sent);
				expect(response.status).toBe(400);
				expect(await response.json()).toMatchObject({
					error: { code: "invalid_user_id" },
				});
			}
		},
	);

	it("have reminders of their own", async () => {
		await start("ada", 60);
		const response = await request("GET", "bob");
		expect(response.status).toBe(404);
		const message = "This user has no reminder.";
		expect(await response.json()).toEqual({
			error: { code: "no_reminder", message },
		});
	});
});

describe("DELETE", () => {
	it("cancels and forgets all, also what `fire` has stored", async () => {
		await start("ada", 60);
		const stub = env.REMINDER.getByName("ada");
		await runInDurableObject(stub, (_, { storage }) => storage.put("own", 1));
		expect((await request("DELETE", "ada")).status).toBe(204);
		expect(await alarmOf("ada")).toBeNull();
		await runInDurableObject(stub, async (_, { storage }) => {
			expect((await storage.list()).size).toBe(0);
		});
		expect((await request("DELETE", "ada")).status).toBe(204);
	});

	it("leaves nothing to an alarm that was about to run", async () => {
		const due = await start("ada", 60);
		await request("DELETE", "ada");
		const fire = vi.fn();
		await runAlarm("ada", due, fire);
		expect(fire).not.toHaveBeenCalled();
		expect(await alarmOf("ada")).toBeNull();
	});
});

describe("the alarm", () => {
	it("fires by itself, again and again, for its user", async () => {
		await start("ada", 1);
		await vi.waitFor(
			async () => expect((await show("ada")).fired).toBeGreaterThan(1),
			{ timeout: 10_000, interval: 200 },
		);
		const line = '{"level":"info","message":"Reminder fired","userId":"ada"}';
		expect(info).toHaveBeenCalledWith(line);
	});

	it("counts once when the runtime runs it twice, and says so", async () => {
		const due = await start("ada", 60);
		await runAlarm("ada", due);
		const once = await show("ada");
		expect(once).toMatchObject({ fired: 1, next: iso(due + 60_000) });
		const fire = vi.fn();
		await runAlarm("ada", due, fire, 2);
		expect(fire).toHaveBeenCalledTimes(1);
		expect(await show("ada")).toEqual(once);
		expect(await alarmOf("ada")).toBe(due + 60_000);
		const retry = { level: "info", message: "Alarm retry", userId: "ada" };
		const line = JSON.stringify({ ...retry, retryCount: 2 });
		expect(info).toHaveBeenCalledWith(line);
	});

	it.each([
		[0, 60],
		[59_999, 60],
		[60_001, 120],
		[200_000, 240],
	])(
		"that is %i ms late counts as one, and keeps the beat",
		async (late, then) => {
			const due = await start("ada", 60);
			vi.setSystemTime(due + late);
			await runAlarm("ada", due);
			vi.useRealTimers();
			const next = due + then * 1000;
			expect(await show("ada")).toMatchObject({ fired: 1, next: iso(next) });
			expect(await alarmOf("ada")).toBe(next);
		},
	);

	it("goes on where an eviction has interrupted it", async () => {
		const due = await start("ada", 60);
		await runAlarm("ada", due);
		await evictDurableObject(env.REMINDER.getByName("ada"));
		expect(await show("ada")).toMatchObject({ fired: 1 });
		expect(await alarmOf("ada")).toBe(due + 60_000);
		await runDurableObjectAlarm(env.REMINDER.getByName("ada"));
		expect(await show("ada")).toMatchObject({ fired: 2 });
	});
});

describe("a firing that takes long", () => {
	/** Lets a reminder of a minute fire, and does something meanwhile. */
	async function during(act: () => Promise<unknown>): Promise<number> {
		const due = await start("ada", 60);
		await runAlarm("ada", due, async () => {
			await scheduler.wait(20);
			await act();
			await scheduler.wait(20);
		});
		return due + 60_000;
	}

	it("has been counted, and the next alarm set, before it begins", async () => {
		let shown: Shown | undefined;
		let alarm: number | null = null;
		const next = await during(async () => {
			shown = await show("ada");
			alarm = await alarmOf("ada");
		});
		expect(shown).toMatchObject({ fired: 1, next: iso(next) });
		expect(await show("ada")).toEqual(shown);
		expect([alarm, await alarmOf("ada")]).toEqual([next, next]);
	});

	it("leaves cancelled what DELETE cancels", async () => {
		await during(() => request("DELETE", "ada"));
		expect((await request("GET", "ada")).status).toBe(404);
		expect(await alarmOf("ada")).toBeNull();
	});

	it("leaves the interval that PUT sets, and the time that it answers", async () => {
		let answered = 0;
		const next = await during(async () => {
			answered = await start("ada", 3600);
		});
		expect(answered).toBe(next);
		const changed = { everySeconds: 3600, fired: 1, next: iso(next) };
		expect(await show("ada")).toMatchObject(changed);
		expect(await alarmOf("ada")).toBe(next);
	});

	it("leaves a reminder that was started anew", async () => {
		let answered = 0;
		await during(async () => {
			await request("DELETE", "ada");
			answered = await start("ada", 120);
		});
		const anew = { everySeconds: 120, fired: 0, next: iso(answered) };
		expect(await show("ada")).toMatchObject(anew);
		expect(await alarmOf("ada")).toBe(answered);
	});
});

describe("a firing that fails", () => {
	/** Runs the pending alarm, which fails; returns how many ms later it is tried again. */
	async function failAgain(): Promise<number> {
		await runAlarm("ada", Number(await alarmOf("ada")), fail);
		return Number(await alarmOf("ada")) - Date.now();
	}

	it("is tried again six times, and counted once", async () => {
		const next = (await start("ada", 3600)) + 3_600_000;
		for (const seconds of [2, 4, 8, 16, 32, 64]) {
			const left = await failAgain();
			expect(left).toBeLessThanOrEqual(seconds * 1000);
			expect(left).toBeGreaterThan(seconds * 1000 - 1000);
			expect(await show("ada")).toMatchObject({ fired: 1, next: iso(next) });
		}
		expect(error).toHaveBeenCalledTimes(6);
		const [line] = error.mock.lastCall ?? [];
		expect(JSON.parse(line)).toMatchObject({
			level: "error",
			message: "Reminder failed",
			userId: "ada",
			error: { message: "Not now" },
		});
		await failAgain();
		expect(await alarmOf("ada")).toBe(next);
	});

	it("does not keep the next one from being counted, and tried again", async () => {
		const due = await start("ada", 3600);
		for (let tries = 0; tries < 7; tries++) {
			await failAgain();
		}
		expect(await failAgain()).toBeLessThanOrEqual(2000);
		const next = iso(due + 2 * 3_600_000);
		expect(await show("ada")).toMatchObject({ fired: 2, next });
	});

	it("goes back to its beat once it succeeds, also across an eviction", async () => {
		const due = await start("ada", 60);
		await failAgain();
		await evictDurableObject(env.REMINDER.getByName("ada"));
		const again = Number(await alarmOf("ada"));
		await runAlarm("ada", again);
		await runAlarm("ada", again, undefined, 1);
		const once = { fired: 1, next: iso(due + 60_000) };
		expect(await show("ada")).toMatchObject(once);
		expect(await alarmOf("ada")).toBe(due + 60_000);
		await runAlarm("ada", due + 60_000);
		expect(await show("ada")).toMatchObject({ fired: 2 });
	});

	it("is tried again within a second where it fires each second", async () => {
		const due = await start("ada", 1);
		vi.setSystemTime(due);
		await runAlarm("ada", due, fail);
		expect(await alarmOf("ada")).toBe(due + 250);
		vi.setSystemTime(due + 900);
		await runAlarm("ada", due + 250, fail);
		expect(await alarmOf("ada")).toBe(due + 1000);
	});

	it("is not tried again where it was cancelled meanwhile", async () => {
		const due = await start("ada", 3600);
		await runAlarm("ada", due, async () => {
			await request("DELETE", "ada");
			fail();
		});
		expect(await alarmOf("ada")).toBeNull();
		expect((await request("GET", "ada")).status).toBe(404);
	});

	it("is not tried again where it was started anew meanwhile", async () => {
		const due = await start("ada", 3600);
		let answered = 0;
		await runAlarm("ada", due, async () => {
			await request("DELETE", "ada");
			answered = await start("ada", 120);
			fail();
		});
		expect(await alarmOf("ada")).toBe(answered);
		expect(await show("ada")).toMatchObject({ fired: 0, everySeconds: 120 });
	});

	it("is tried again in the interval that PUT has set meanwhile", async () => {
		const due = await start("ada", 3600);
		await runAlarm("ada", due, async () => {
			await start("ada", 60);
			fail();
		});
		const changed = { fired: 1, everySeconds: 60, next: iso(due + 3_600_000) };
		expect(await show("ada")).toMatchObject(changed);
		const again = Number(await alarmOf("ada"));
		expect(again).toBeLessThanOrEqual(Date.now() + 2000);
		expect(await start("ada", 1)).toBe(due + 3_600_000);
		expect(await alarmOf("ada")).toBe(again);
	});
});
