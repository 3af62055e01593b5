import {
	createExecutionContext,
	createScheduledController,
} from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, it, vi } from "vitest";
import worker from "../src/index";
import { forPeriods } from "./worker";

/** Runs a job as the platform does, for the time at which it was due. */
async function run(cron, due) {
	const scheduledTime = new Date(due);
	const controller = createScheduledController({ cron, scheduledTime });
	await worker.scheduled(controller, env, createExecutionContext());
}

it.each([
	["0 3 * * *", "2026-11-22T03:00Z", "2026-11-21T00:00", "2026-11-22T00:00"],
	["*/15 * * * *", "2026-11-22T10:15Z", "2026-11-22T10:00", "2026-11-22T10:15"],
])("the job of %s works for the time before", async (cron, due, from, to) => {
	const log = vi.spyOn(console, "log").mockImplementation(() => {});
	await run(cron, due);
	expect(log).toHaveBeenCalledTimes(1);
	expect(JSON.parse(log.mock.calls[0]?.[0])).toMatchObject({
		from: `${from}:00.000Z`,
		to: `${to}:00.000Z`,
	});
	log.mockRestore();
});

it("a job that fails fails the run", async () => {
	const job = forPeriods(60, () => Promise.reject(new Error("Not now")));
	const controller = createScheduledController({ cron: "0 * * * *" });
	const ran = job(controller, env, createExecutionContext());
	await expect(ran).rejects.toThrow("Not now");
});

it("a job that nobody has written fails by its name", async () => {
	const ran = run("1 2 3 4 5", "2026-11-22T03:00Z");
	await expect(ran).rejects.toThrow("1 2 3 4 5");
});
