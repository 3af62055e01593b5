import { DurableObject } from "cloudflare:workers";
import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import {
	ApiError,
	logError,
	logInfo,
	parseInput,
	readJson,
} from "../../base/base/worker";
import { userIdSchema } from "../../base/user/worker";

const reminderBody = z.strictObject({
	everySeconds: z.int().min(1).max(86_400),
});

/** What a `Reminder` stores; `due` is in ms since 1970. */
type ReminderRecord = {
	userId: string;
	everySeconds: number;
	fired: number;
	due: number;
};

export const reminders = new Hono<AppEnv>();

reminders.put("/reminders/:userId", operatorOnly, async (c) => {
	const { everySeconds } = await readJson(c, reminderBody);
	const userId = parseInput(
		userIdSchema,
		c.req.param("userId"),
		"invalid_user_id",
	);
	const next = await c.env.REMINDER.getByName(userId).start(
		userId,
		everySeconds,
	);
	return c.json({ userId, everySeconds, next });
});

reminders.get("/reminders/:userId", async (c) => {
	const userId = parseInput(
		userIdSchema,
		c.req.param("userId"),
		"invalid_user_id",
	);
	const shown = await c.env.REMINDER.getByName(userId).read();
	if (shown === null) {
		throw new ApiError(404, "no_reminder", "This user has no reminder.");
	}
	return c.json(shown);
});

reminders.delete("/reminders/:userId", operatorOnly, async (c) => {
	const userId = parseInput(
		userIdSchema,
		c.req.param("userId"),
		"invalid_user_id",
	);
	await c.env.REMINDER.getByName(userId).cancel();
	return c.body(null, 204);
});

/** The reminder of one user. */
export class Reminder extends DurableObject<Env> {
	/**
	 * Does what the reminder is for. It may take minutes, fail or run twice, and
	 * the reminder may be changed or cancelled meanwhile.
	 */
	async fire(userId: string): Promise<void> {
		logInfo("Reminder fired", { userId });
	}

	/** Starts the reminder, or changes its interval after the next firing. */
	async start(userId: string, everySeconds: number): Promise<string> {
		const pending = await this.ctx.storage.getAlarm();
		const due = Date.now() + everySeconds * 1000;
		const record = { fired: 0, due, ...this.#record(), userId, everySeconds };
		this.ctx.storage.kv.put("reminder", record);
		await this.ctx.storage.setAlarm(pending ?? record.due);
		return new Date(record.due).toISOString();
	}

	/** Returns the reminder, its next time in ISO 8601; `null` without one. */
	async read() {
		const record = this.#record();
		if (record === undefined) {
			return null;
		}
		const { userId, everySeconds, due, fired } = record;
		return { userId, everySeconds, next: new Date(due).toISOString(), fired };
	}

	async cancel(): Promise<void> {
		await this.ctx.storage.deleteAlarm();
		await this.ctx.storage.deleteAll();
	}

	/** Stores the count and the next alarm first: `fire` can undo neither. */
	override async alarm(info?: AlarmInvocationInfo): Promise<void> {
		const record = this.#record();
		if (record === undefined) {
			return;
		}
		const { userId, everySeconds } = record;
		if (info?.isRetry) {
			logInfo("Alarm retry", { userId, retryCount: info.retryCount });
		}
		const interval = everySeconds * 1000;
		const late = Date.now() - record.due;
		// Before its time, it is the last firing again: that failed, or ran twice.
		if (late > -500) {
			record.fired += 1;
			// Times that were missed count as one.
			record.due += (Math.max(0, Math.floor(late / interval)) + 1) * interval;
		}
		this.ctx.storage.kv.put("reminder", record);
		await this.ctx.storage.setAlarm(record.due);
		try {
			await this.fire(userId);
		} catch (error) {
			logError("Reminder failed", error, { userId });
			const again = Date.now() + interval / 10;
			// Tries a few more times, unless it was cancelled or started anew.
			const isSame = this.#record()?.due === record.due;
			if (isSame && again < record.due - interval / 2) {
				await this.ctx.storage.setAlarm(again);
			}
		}
	}

	#record(): ReminderRecord | undefined {
		return this.ctx.storage.kv.get("reminder");
	}
}
