import { DurableObject } from "cloudflare:workers";
import * as z from "zod";
import { ApiError, app } from "../../base/http/worker";
import { readJson } from "../../base/json/worker";
import { operatorOnly } from "../../base/operator/worker";

const alarmsBody = z.strictObject({
	everySeconds: z.int().min(1).max(86_400),
});

/** What a `Reminder` stores under the key `reminder`. */
type AlarmsRecord = {
	everySeconds: number;
	/** How often the alarm has fired. */
	fired: number;
	/** The time of the alarm that was counted last, in ms since 1970. */
	counted: number | null;
};

function alarmsUserId(userId: string): string {
	if (!/^[A-Za-z0-9_.@-]{1,128}$/.test(userId)) {
		throw new ApiError(
			400,
			"invalid_user_id",
			"A user id has 1 to 128 letters, digits, `_`, `.`, `@` or `-`.",
		);
	}
	return userId;
}

app.put("/reminders/:userId", operatorOnly, async (c) => {
	const { everySeconds } = await readJson(c, alarmsBody);
	const userId = alarmsUserId(c.req.param("userId"));
	const next = await c.env.REMINDER.getByName(userId).start(everySeconds);
	return c.json({ userId, everySeconds, next });
});

app.get("/reminders/:userId", async (c) => {
	const userId = alarmsUserId(c.req.param("userId"));
	const reminder = await c.env.REMINDER.getByName(userId).read();
	if (reminder === null) {
		throw new ApiError(404, "no_reminder", "This user has no reminder.");
	}
	return c.json({ userId, ...reminder });
});

app.delete("/reminders/:userId", operatorOnly, async (c) => {
	const userId = alarmsUserId(c.req.param("userId"));
	await c.env.REMINDER.getByName(userId).cancel();
	return c.body(null, 204);
});

/** The reminder of one user. */
export class Reminder extends DurableObject<Env> {
	/**
	 * Starts the reminder, or changes its interval from the next firing on.
	 *
	 * @param everySeconds The interval.
	 * @returns When it fires next, in ISO 8601. A pending time stays.
	 */
	async start(everySeconds: number): Promise<string> {
		const { storage } = this.ctx;
		const record = await storage.get<AlarmsRecord>("reminder");
		const pending = await storage.getAlarm();
		const next = pending ?? Date.now() + everySeconds * 1000;
		const { fired = 0, counted = null } = record ?? {};
		// No other await between the two, so that both are stored or neither.
		await Promise.all([
			storage.put<AlarmsRecord>("reminder", { everySeconds, fired, counted }),
			pending ?? storage.setAlarm(next),
		]);
		return new Date(next).toISOString();
	}

	/**
	 * Reads the reminder.
	 *
	 * @returns Its interval, the time of its next firing in ISO 8601 and how
	 * often it has fired; `null` when there is none.
	 */
	async read() {
		const record = await this.ctx.storage.get<AlarmsRecord>("reminder");
		if (record === undefined) {
			return null;
		}
		const next = await this.ctx.storage.getAlarm();
		return {
			everySeconds: record.everySeconds,
			next: next === null ? null : new Date(next).toISOString(),
			fired: record.fired,
		};
	}

	/** Cancels the pending alarm and forgets the reminder. */
	async cancel(): Promise<void> {
		await Promise.all([
			this.ctx.storage.deleteAlarm(),
			this.ctx.storage.deleteAll(),
		]);
	}

	/**
	 * Fires the reminder and sets the next alarm. The runtime calls it at least
	 * once for each alarm, and again when it throws.
	 */
	override async alarm(info?: AlarmInvocationInfo): Promise<void> {
		if (info?.isRetry) {
			const { retryCount } = info;
			console.warn(
				JSON.stringify({ level: "warn", message: "Alarm retry", retryCount }),
			);
		}
		const { storage } = this.ctx;
		const record = await storage.get<AlarmsRecord>("reminder");
		if (record === undefined) {
			return;
		}
		// A repeat carries the time of the first try and counts once.
		const counted = info?.scheduledTime ?? null;
		const isRepeat = counted !== null && counted === record.counted;
		const fired = record.fired + (isRepeat ? 0 : 1);
		await Promise.all([
			storage.put<AlarmsRecord>("reminder", { ...record, fired, counted }),
			storage.setAlarm(Date.now() + record.everySeconds * 1000),
		]);
	}
}
