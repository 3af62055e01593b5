import { logInfo } from "../../base/base/worker";

const MINUTE_MS = 60_000;

/** The job of every quarter of an hour, for the one that has just ended. */
export async function quarterHourly(
	controller: ScheduledController,
	_env: Env,
): Promise<void> {
	const { from, to } = lastPeriod(controller, 15);
	// Your quarter-hourly work
	logInfo("Cron job done", { cron: controller.cron, from, to });
}

/** The job of every night, for the day before, from midnight to midnight UTC. */
export async function nightly(
	controller: ScheduledController,
	_env: Env,
): Promise<void> {
	const { from, to } = lastPeriod(controller, 24 * 60);
	// Your nightly work
	logInfo("Cron job done", { cron: controller.cron, from, to });
}

/**
 * Returns the last period that was over when a run was due: the same however
 * late the run comes, and each time it comes.
 *
 * @param minutes How long periods are, from midnight UTC on.
 */
export function lastPeriod(
	{ scheduledTime }: ScheduledController,
	minutes: number,
): { from: Date; to: Date } {
	const length = minutes * MINUTE_MS;
	const end = Math.floor(scheduledTime / length) * length;
	return { from: new Date(end - length), to: new Date(end) };
}
