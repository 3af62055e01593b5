import { logInfo } from "../../base/log/worker";

const CRON_DAY_MINUTES = 24 * 60;

/** The time that a run is for: from `from` up to, but without, `to`. */
export type CronPeriod = { from: Date; to: Date };

/**
 * The work of a job. It may take minutes, fail, come late or run twice for the
 * same period.
 *
 * @returns What the log line tells, such as how many rows are gone.
 * @throws Anything, so that the run counts as failed.
 */
export type CronWork = (
	env: Env,
	period: CronPeriod,
) => Record<string, unknown> | Promise<Record<string, unknown>>;

/**
 * Does what is due every quarter of an hour, for the one that has just ended.
 * Yours to write, as `async (env, { from, to }) => {`.
 */
export const cronQuarterHourlyWork: CronWork = async () => {
	// Your quarter-hourly work
	return {};
};

/**
 * Does what is due every night, for the day before, from midnight to midnight
 * UTC. Yours to write, as `async (env, { from, to }) => {`.
 */
export const cronNightlyWork: CronWork = async (env) => {
	// Your nightly work
	return { empty: cronEmptySettings(env) };
};

/**
 * Returns the names of the vars and secrets that are empty. What uses one may be
 * out of order without anybody noticing.
 */
function cronEmptySettings(env: Env): string[] {
	const isEmpty = ([, value]: [string, unknown]) => value === "";
	return Object.entries(env)
		.filter(isEmpty)
		.map(([name]) => name);
}

/** The job of every quarter of an hour. */
export function cronQuarterHourly(
	controller: ScheduledController,
	env: Env,
): Promise<void> {
	return cronRun(controller, env, 15, cronQuarterHourlyWork);
}

/** The job of every night. */
export function cronNightly(
	controller: ScheduledController,
	env: Env,
): Promise<void> {
	return cronRun(controller, env, CRON_DAY_MINUTES, cronNightlyWork);
}

/**
 * Does the work of one run, and logs what came of it as one line.
 *
 * @param minutes How long the periods are that follow each other from midnight
 * UTC on; a divisor of a day, so 1440 are whole days.
 * @param work Gets the last period that was over when the run was due: the same
 * however late the run comes, and each time it comes.
 * @throws What `work` throws; RangeError for another number of minutes.
 */
export async function cronRun(
	{ cron, scheduledTime }: ScheduledController,
	env: Env,
	minutes: number,
	work: CronWork,
): Promise<void> {
	if (CRON_DAY_MINUTES % minutes !== 0) {
		throw new RangeError(`A day is not a whole number of ${minutes} minutes`);
	}
	const length = minutes * 60_000;
	const end = Math.floor(scheduledTime / length) * length;
	const period = { from: new Date(end - length), to: new Date(end) };
	const lateSeconds = Math.round((Date.now() - scheduledTime) / 1000);
	const done = await work(env, period);
	logInfo("Cron job done", { cron, ...period, lateSeconds, ...done });
}
