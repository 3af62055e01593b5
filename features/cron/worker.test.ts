import {
	createExecutionContext,
	createScheduledController,
} from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import worker from "../src/index";
import { cronRun } from "./worker";

const QUARTER_HOURLY = "*/15 * * * *";
const NIGHTLY = "0 3 * * *";

const info = vi.spyOn(console, "log");
const error = vi.spyOn(console, "error");

beforeEach(() => {
	info.mockImplementation(() => {});
	error.mockImplementation(() => {});
});

afterEach(() => {
	vi.useRealTimers();
	vi.resetAllMocks();
});

/** Runs a job as the platform does, for a time at which it was due. */
async function run(cron: string, due: string): Promise<void> {
	const scheduledTime = new Date(due);
	const controller = createScheduledController({ cron, scheduledTime });
	await worker.scheduled(controller, env, createExecutionContext());
}

/** Returns the lines of runs that are done, and forgets all. */
function logged(): Record<string, unknown>[] {
	const lines = info.mock.calls.map(([line]) => JSON.parse(line));
	info.mockClear();
	return lines.filter(({ message }) => message === "Cron job done");
}

describe.each([
	[
		NIGHTLY,
		"2026-11-22T03:00:00.000Z",
		"2026-11-21T00:00:00.000Z",
		"2026-11-22T00:00:00.000Z",
	],
	[
		QUARTER_HOURLY,
		"2026-11-22T10:15:00.000Z",
		"2026-11-22T10:00:00.000Z",
		"2026-11-22T10:15:00.000Z",
	],
])("the job of %s", (cron, due, from, to) => {
	it("logs one line, for the period before it was due", async () => {
		vi.setSystemTime(due);
		await run(cron, due);
		expect(logged()).toEqual([
			expect.objectContaining({
				level: "info",
				message: "Cron job done",
				version: env.CF_VERSION_METADATA.id,
				cron,
				from,
				to,
				lateSeconds: 0,
			}),
		]);
		expect(error).not.toHaveBeenCalled();
	});

	it("is for the same period when it comes late, and again", async () => {
		vi.setSystemTime(Date.parse(due) + 90_400);
		await run(cron, due);
		vi.setSystemTime(Date.parse(due) + 7_200_000);
		await run(cron, due);
		expect(logged()).toMatchObject([
			{ from, to, lateSeconds: 90 },
			{ from, to, lateSeconds: 7200 },
		]);
	});

	it("leaves no time out and none twice, some seconds past its minute", async () => {
		const next = Date.parse(due) + (Date.parse(to) - Date.parse(from));
		await run(cron, new Date(Date.parse(due) + 1234).toISOString());
		await run(cron, new Date(next + 999).toISOString());
		expect(logged()).toMatchObject([{ from, to }, { from: to }]);
	});

	it("that fails is logged and fails", async () => {
		info.mockImplementation(() => {
			throw new Error("no log");
		});
		await expect(run(cron, due)).rejects.toThrow("no log");
		expect(error).toHaveBeenCalledTimes(1);
		expect(JSON.parse(String(error.mock.calls[0]?.[0]))).toMatchObject({
			level: "error",
			message: "Cron job failed",
			cron,
			scheduled: due,
			error: { message: "no log" },
		});
	});
});

describe("the job of each quarter of an hour", () => {
	it("says when the version that runs was deployed", async () => {
		await run(QUARTER_HOURLY, "2026-11-22T10:15:00.000Z");
		expect(logged()).toMatchObject([
			{ deployed: env.CF_VERSION_METADATA.timestamp },
		]);
	});
});

describe("the nightly job", () => {
	it("names the settings that are empty, and no value", async () => {
		const settings = { FULL: "secret", EMPTY: "", ZERO: 0, NOTHING: null };
		const controller = createScheduledController({ cron: NIGHTLY });
		await worker.scheduled(
			controller,
			{ ...env, ...settings, ALLOWED_ORIGINS: "https://app.example.com" },
			createExecutionContext(),
		);
		const [line] = logged();
		expect(line?.empty).toContain("EMPTY");
		for (const name of ["FULL", "ZERO", "NOTHING", "ALLOWED_ORIGINS"]) {
			expect(line?.empty).not.toContain(name);
		}
		expect(JSON.stringify(line)).not.toContain("secret");
	});
});

describe("a job of one's own", () => {
	const controller = createScheduledController({
		cron: "5 * * * *",
		scheduledTime: new Date("2026-11-22T10:05:00.000Z"),
	});

	it("works for its period, and says in the log what came of it", async () => {
		const work = vi.fn(async () => ({ orders: 3 }));
		await cronRun(controller, env, 60, work);
		expect(work.mock.calls).toEqual([
			[
				{
					env,
					from: new Date("2026-11-22T09:00:00.000Z"),
					to: new Date("2026-11-22T10:00:00.000Z"),
				},
			],
		]);
		expect(logged()).toMatchObject([{ cron: "5 * * * *", orders: 3 }]);
	});

	it("cannot replace what the log line says of its run", async () => {
		const own = {
			level: "mine",
			message: "mine",
			version: "mine",
			cron: "mine",
			from: "mine",
			to: "mine",
			lateSeconds: "mine",
		};
		vi.setSystemTime("2026-11-22T10:05:00.000Z");
		await cronRun(controller, env, 60, () => ({ ...own, orders: 3 }));
		expect(logged()).toEqual([
			{
				level: "info",
				message: "Cron job done",
				version: env.CF_VERSION_METADATA.id,
				cron: "5 * * * *",
				from: "2026-11-22T09:00:00.000Z",
				to: "2026-11-22T10:00:00.000Z",
				lateSeconds: 0,
				orders: 3,
			},
		]);
	});

	it("may report a BigInt", async () => {
		await cronRun(controller, env, 60, () => ({ bytes: 2n ** 64n }));
		expect(logged()).toMatchObject([{ bytes: "18446744073709551616" }]);
	});

	it("does not fail when JSON cannot hold what it reports", async () => {
		const circle: Record<string, unknown> = {};
		circle.self = circle;
		await cronRun(controller, env, 60, () => circle);
		expect(logged()).toMatchObject([
			{
				message: "Cron job done",
				fields: expect.stringContaining("circular"),
			},
		]);
	});

	it("logs nothing when its work fails", async () => {
		const ran = cronRun(controller, env, 60, () =>
			Promise.reject(new Error("no orders")),
		);
		await expect(ran).rejects.toThrow("no orders");
		expect(info).not.toHaveBeenCalled();
	});

	it.each([7, 0, 10_080, 0.7])(
		"may not have periods of %d minutes, which no day is made of",
		async (minutes) => {
			const work = vi.fn(() => ({}));
			const ran = cronRun(controller, env, minutes, work);
			await expect(ran).rejects.toThrow(RangeError);
			expect(work).not.toHaveBeenCalled();
		},
	);
});
