import {
	createExecutionContext,
	createScheduledController,
} from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import worker from "../src/index";
import { forPeriods, nightly, quarterHourly } from "./worker";

const log = vi.spyOn(console, "log");

beforeEach(() => {
	log.mockImplementation(() => {});
});

afterEach(() => {
	vi.useRealTimers();
	vi.resetAllMocks();
});

function controllerFor(due: number, cron = "any") {
	return createScheduledController({ cron, scheduledTime: new Date(due) });
}

describe.each([
	["quarter-hourly", quarterHourly, 15, "2026-11-22T10:15Z"],
	["nightly", nightly, 24 * 60, "2026-11-22T03:00Z"],
])("the %s job", (_, job, minutes, time) => {
	const due = Date.parse(time);
	const length = minutes * 60_000;
	const end = Math.floor(due / length) * length;

	/** Returns the period that a run works for, according to its line in the log. */
	async function periodOf(scheduledTime: number): Promise<[string, string]> {
		log.mockClear();
		const controller = controllerFor(scheduledTime);
		await job(controller, env, createExecutionContext());
		expect(log).toHaveBeenCalledTimes(1);
		const line = JSON.parse(log.mock.lastCall?.[0]);
		expect(line).toMatchObject({ level: "info" });
		return [line.from, line.to];
	}

	function period(to: number): [string, string] {
		return [new Date(to - length).toISOString(), new Date(to).toISOString()];
	}

	it("works for the same period when it comes late, and again", async () => {
		for (const now of [due + 90_400, due + 7_200_000]) {
			vi.setSystemTime(now);
			expect(await periodOf(due)).toEqual(period(end));
		}
	});

	it("leaves no time out and none twice, some seconds past its minute", async () => {
		expect(await periodOf(due + 1234)).toEqual(period(end));
		expect(await periodOf(due + length + 999)).toEqual(period(end + length));
	});
});

describe("a job of one's own", () => {
	const due = Date.parse("2026-11-22T10:05Z");

	it("works for its period", async () => {
		const work = vi.fn(async () => {});
		const context = createExecutionContext();
		await forPeriods(60, work)(controllerFor(due), env, context);
		const from = new Date("2026-11-22T09:00Z");
		const to = new Date("2026-11-22T10:00Z");
		expect(work.mock.calls).toEqual([[env, { from, to }]]);
	});

	it("fails the run when it throws before it waits", async () => {
		const job = forPeriods(60, () => {
			throw new Error("Not now");
		});
		const ran = job(controllerFor(due), env, createExecutionContext());
		await expect(ran).rejects.toThrow("Not now");
	});

	it("fails by its expression while it is not in the table", async () => {
		const controller = controllerFor(due, "5 * * * *");
		const ran = worker.scheduled(controller, env, createExecutionContext());
		await expect(ran).rejects.toThrow('"5 * * * *"');
		expect(log).not.toHaveBeenCalled();
	});
});
