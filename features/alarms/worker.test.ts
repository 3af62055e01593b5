import {
	reset,
	runDurableObjectAlarm,
	runInDurableObject,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

afterEach(async () => {
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
		const second = await start("ada", 3600);
		expect(await second.json()).toEqual({
			userId: "ada",
			everySeconds: 3600,
			next: first.next,
		});
	});

	it("keeps users apart", async () => {
		await start("ada", 60);
		expect((await request("GET", "bob")).status).toBe(404);
	});

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
	it("counts, and sets the next one before it ends", async () => {
		await start("ada", 60);
		const stub = env.REMINDER.getByName("ada");
		await runDurableObjectAlarm(stub);
		await runDurableObjectAlarm(stub);
		const reminder = await (await request("GET", "ada")).json();
		expect(reminder).toMatchObject({ fired: 2, next: expect.any(String) });
	});

	it("fires by itself, again and again", async () => {
		await start("ada", 1);
		await vi.waitFor(
			async () => {
				const response = await request("GET", "ada");
				const { fired } = await response.json<{ fired: number }>();
				expect(fired).toBeGreaterThanOrEqual(2);
			},
			{ timeout: 10_000, interval: 200 },
		);
	});

	it("counts once when the runtime runs it twice, and logs the retry", async () => {
		const log = vi.spyOn(console, "warn").mockImplementation(() => {});
		await start("ada", 60);
		const stub = env.REMINDER.getByName("ada");
		const scheduledTime = Date.now();
		await runInDurableObject(stub, async (reminder) => {
			await reminder.alarm({ scheduledTime, isRetry: false, retryCount: 0 });
			await reminder.alarm({ scheduledTime, isRetry: true, retryCount: 1 });
		});
		const reminder = await (await request("GET", "ada")).json();
		expect(reminder).toMatchObject({ fired: 1 });
		expect(log).toHaveBeenCalledTimes(1);
		expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({ retryCount: 1 });
		log.mockRestore();
	});

	it("does nothing for a reminder that was cancelled meanwhile", async () => {
		await start("ada", 60);
		const stub = env.REMINDER.getByName("ada");
		await request("DELETE", "ada", { headers: OPERATOR });
		await runInDurableObject(stub, async (reminder, { storage }) => {
			await reminder.alarm();
			expect(await storage.getAlarm()).toBeNull();
		});
	});
});

describe("DELETE", () => {
	it("cancels and forgets", async () => {
		await start("ada", 60);
		const response = await request("DELETE", "ada", { headers: OPERATOR });
		expect(response.status).toBe(204);
		expect((await request("GET", "ada")).status).toBe(404);
		const stub = env.REMINDER.getByName("ada");
		await runInDurableObject(stub, async (_, { storage }) => {
			expect(await storage.getAlarm()).toBeNull();
			expect((await storage.list()).size).toBe(0);
		});
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
