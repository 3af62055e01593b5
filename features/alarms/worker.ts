import { DurableObject } from "cloudflare:workers";
import * as z from "zod";
import { ApiError, app } from "../../base/http/worker";
import { readJson } from "../../base/json/worker";
import { logError, logInfo, logWarning } from "../../base/log/worker";
import { operatorOnly } from "../../base/operator/worker";

const reminderBody = z.strictObject({
	everySeconds: z.int().min(1).max(86_400),
});

/** How often a firing that fails is tried again, after 2, 4, 8, … seconds. */
const REMINDER_RETRIES = 6;

/** What a `Reminder` stores under the key `reminder`; times in ms since 1970. */
type ReminderRecord = {
	userId: string;
	everySeconds: number;
	/** How often it has fired. */
	fired: number;
	/** The time of the alarm that was counted last. */
	counted: number | null;
	/** When it fires next. */
	due: number;
	/** How often the last firing has failed, while it waits to be tried again. */
	failures: number;
};

function reminderUserId(userId: string): string {
	if (!/^[A-Za-z0-9_.@-]{1,128}$/.test(userId)) {
		throw new ApiError(
			400,
			"invalid_user_id",
			"A user id has 1 to 128 letters, digits, `_`, `.`, `@` or `-`.",
		);
	}
	return userId;
}

/** Returns when to fire after `due`; times that were missed count as one. */
function nextDue(due: number, everySeconds: number): number {
	const interval = everySeconds * 1000;
	const missed = Math.max(0, Date.now() - due);
	return due + (Math.floor(missed / interval) + 1) * interval;
}

app.put("/reminders/:userId", operatorOnly, async (c) => {
	const { everySeconds } = await readJson(c, reminderBody);
	const userId = reminderUserId(c.req.param("userId"));
	const reminder = c.env.REMINDER.getByName(userId);
	const next = await reminder.start(userId, everySeconds);
	return c.json({ userId, everySeconds, next });
});

app.get("/reminders/:userId", async (c) => {
	const userId = reminderUserId(c.req.param("userId"));
	const reminder = await c.env.REMINDER.getByName(userId).read();
	if (reminder === null) {
		throw new ApiError(404, "no_reminder", "This user has no reminder.");
	}
	return c.json({ userId, ...reminder });
});

app.delete("/reminders/:userId", operatorOnly, async (c) => {
	const userId = reminderUserId(c.req.param("userId"));
	await c.env.REMINDER.getByName(userId).cancel();
	return c.body(null, 204);
});

/** The reminder of one user. */
export class Reminder extends DurableObject<Env> {
	/**
	 * Does what the reminder is for. Yours to write: it may take minutes, fail or
	 * run twice, and the reminder may be changed or cancelled meanwhile.
	 *
	 * @throws Anything, to be called again soon.
	 */
	async fire(userId: string): Promise<void> {
		logInfo("Reminder fired", { userId });
		// Your reminder
	}

	/**
	 * Starts the reminder, or changes its interval from the next firing on.
	 *
	 * @returns When it fires next, in ISO 8601. A pending time stays.
	 */
	async start(userId: string, everySeconds: number): Promise<string> {
		const { storage } = this.ctx;
		const record = await storage.get<ReminderRecord>("reminder");
		const fresh = {
			fired: 0,
			counted: null,
			due: Date.now() + everySeconds * 1000,
			failures: 0,
		};
		const changed = { ...fresh, ...record, userId, everySeconds };
		const pending = await storage.getAlarm();
		// No other await between the two, so that both are stored or neither.
		await Promise.all([
			storage.put<ReminderRecord>("reminder", changed),
			pending ?? storage.setAlarm(changed.due),
		]);
		return new Date(changed.due).toISOString();
	}

	/**
	 * Reads the reminder.
	 *
	 * @returns Its interval, the time of its next firing in ISO 8601 and how
	 * often it has fired; `null` when there is none.
	 */
	async read() {
		const record = await this.ctx.storage.get<ReminderRecord>("reminder");
		if (record === undefined) {
			return null;
		}
		const { everySeconds, due, fired } = record;
		return { everySeconds, next: new Date(due).toISOString(), fired };
	}

	/** Cancels the pending alarm and forgets the reminder. */
	async cancel(): Promise<void> {
		await Promise.all([
			this.ctx.storage.deleteAlarm(),
			this.ctx.storage.deleteAll(),
		]);
	}

	/**
	 * Counts the firing and sets the next alarm, and only then fires: nothing after
	 * that can undo either. The runtime calls it at least once for
	 * each alarm.
	 */
	override async alarm(info?: AlarmInvocationInfo): Promise<void> {
		const { storage } = this.ctx;
		const record = await storage.get<ReminderRecord>("reminder");
		if (record === undefined) {
			return;
		}
		const { userId, everySeconds, failures } = record;
		if (info?.isRetry) {
			const { retryCount } = info;
			logWarning("Alarm retry", { userId, retryCount });
		}
		const counted = info?.scheduledTime ?? Date.now();
		const isRepeat = failures > 0 || counted === record.counted;
		const claimed: ReminderRecord = isRepeat
			? { ...record, failures: 0 }
			: {
					...record,
					fired: record.fired + 1,
					counted,
					due: nextDue(record.due, everySeconds),
				};
		await Promise.all([
			storage.put("reminder", claimed),
			storage.setAlarm(claimed.due),
		]);
		try {
			await this.fire(userId);
		} catch (error) {
			const failed = failures + 1;
			logError("Reminder failed", error, { userId, failures: failed });
			await this.#tryAgain(claimed, failed);
			throw error;
		}
	}

	// The runtime does not retry an alarm whose handler has set the next one.
	async #tryAgain(claimed: ReminderRecord, failures: number): Promise<void> {
		const { storage } = this.ctx;
		const record = await storage.get<ReminderRecord>("reminder");
		const time = Date.now() + 2 ** failures * 1000;
		if (
			// It was cancelled meanwhile, and perhaps started anew.
			record?.counted !== claimed.counted ||
			failures > REMINDER_RETRIES ||
			time >= record.due
		) {
			return;
		}
		await Promise.all([
			storage.put<ReminderRecord>("reminder", { ...record, failures }),
			storage.setAlarm(time),
		]);
	}
}
