import { logInfo } from "../../base/log/worker";

const CRON_DAY_MINUTES = 24 * 60;

/** What a run works with: the Worker's bindings, and the time that it is for. */
export type CronRun = {
	env: Env;
	from: Date;
	/** Itself left to the next run. */
	to: Date;
};

/**
 * The work of a job. It may take minutes, fail, come late or run twice for the
 * same period.
 *
 * @returns What the log line tells, such as how many rows are gone.
 * @throws Anything, so that the run counts as failed.
 */
export type CronWork = (
	run: CronRun,
) => Record<string, unknown> | Promise<Record<string, unknown>>;

/**
 * Does what is due every quarter of an hour, for the one that has just ended.
 * Yours to write; until then it reports when this version was deployed.
 */
export const cronQuarterHourlyWork: CronWork = async (run) => {
	const done: Record<string, unknown> = {
		deployed: run.env.CF_VERSION_METADATA.timestamp,
	};
	// Your quarter-hourly work
	return done;
};

/**
 * Does what is due every night, for the day before, from midnight to midnight
 * UTC. Yours to write; until then it reports which settings are empty.
 */
export const cronNightlyWork: CronWork = async (run) => {
	const done: Record<string, unknown> = { empty: cronEmptySettings(run.env) };
	// Your nightly work
	return done;
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
	const [from, to] = [new Date(end - length), new Date(end)];
	const lateSeconds = Math.round((Date.now() - scheduledTime) / 1000);
	const done = await work({ env, from, to });
	const run = { cron, from, to, lateSeconds };
	// The work may add to these, and not replace them.
	logInfo("Cron job done", { ...run, ...done, ...run });
}
