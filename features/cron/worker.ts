import { logInfo } from "../../base/base/worker";

/** The last time of its length that was over when a run was due. */
export type Period = { from: Date; to: Date };

/** The work of every quarter of an hour. It may come late, twice or never. */
export async function workQuarterHourly(
	_env: Env,
	period: Period,
): Promise<void> {
	logInfo("Quarter-hourly work done", period);
}

/** The work of every night, for the day before. It may come late, twice or never. */
export async function workNightly(_env: Env, period: Period): Promise<void> {
	logInfo("Nightly work done", period);
}

export const quarterHourly = forPeriods(15, workQuarterHourly);
export const nightly = forPeriods(24 * 60, workNightly);

/**
 * Makes a cron job of work, which gets the same period however late a run comes,
 * and each time it comes.
 *
 * @param minutes How long periods are, from midnight UTC on: a divisor of a day.
 * @param work Gets `env` and a period: `from` and `to`, as dates.
 */
export function forPeriods(
	minutes: number,
	work: (env: Env, period: Period) => Promise<void>,
): ExportedHandlerScheduledHandler<Env> {
	return async ({ scheduledTime }, env) => {
		const length = minutes * 60_000;
		const end = Math.floor(scheduledTime / length) * length;
		await work(env, { from: new Date(end - length), to: new Date(end) });
	};
}
