import { DurableObject } from "cloudflare:workers";
import { Hono } from "hono";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
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

/** @type {Hono<{ Bindings: Env }>} */
export const reminders = new Hono();

reminders.put("/reminders/:userId", operatorOnly, async (c) => {
	const { everySeconds } = await readJson(c, reminderBody);
	const userId = c.req.param("userId");
	const next = await reminderOf(c.env, userId).start(userId, everySeconds);
	return c.json({ userId, everySeconds, next });
});

reminders.get("/reminders/:userId", async (c) => {
	const shown = await reminderOf(c.env, c.req.param("userId")).read();
	if (shown === null) {
		throw new ApiError(404, "no_reminder", "This user has no reminder.");
	}
	return c.json(shown);
});

reminders.delete("/reminders/:userId", operatorOnly, async (c) => {
	await reminderOf(c.env, c.req.param("userId")).cancel();
	return c.body(null, 204);
});

function reminderOf(env, userId) {
	const id = parseInput(userIdSchema, userId, "invalid_user_id");
	return env.REMINDER.getByName(id);
}

/** The reminder of one user. */
export class Reminder extends DurableObject {
	/**
	 * Does what the reminder is for. It may take minutes, fail or run twice, and
	 * the reminder may be changed or cancelled meanwhile.
	 */
	async fire(userId) {
		logInfo("Reminder fired", { userId });
	}

	/** Starts the reminder, or changes its interval after the next firing. */
	async start(userId, everySeconds) {
		const { storage } = this.ctx;
		const pending = await storage.getAlarm();
		const due = Date.now() + everySeconds * 1000;
		// `failures`: of the last firing; `ran`: the time of the alarm that ran last.
		const fresh = { due, fired: 0, failures: 0, ran: 0 };
		const record = { ...fresh, ...this.#record(), userId, everySeconds };
		storage.kv.put("reminder", record);
		await storage.setAlarm(pending ?? record.due);
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

	async cancel() {
		await this.ctx.storage.deleteAlarm();
		await this.ctx.storage.deleteAll();
	}

	/** Stores the count and the next alarm first: `fire` can undo neither. */
	async alarm(info) {
		const { storage } = this.ctx;
		const record = this.#record();
		if (record === undefined) {
			return;
		}
		const { userId, everySeconds, due, failures, ran } = record;
		if (info?.retryCount) {
			logInfo("Alarm retry", { userId, retryCount: info.retryCount });
		}
		// Else the last firing comes again: it failed, or the runtime repeats it.
		if (failures === 0 && info?.scheduledTime !== ran) {
			const interval = everySeconds * 1000;
			const late = Date.now() - due;
			// Times that were missed count as one.
			record.due += Math.max(1, Math.ceil(late / interval)) * interval;
			record.fired += 1;
		}
		record.failures = 0;
		record.ran = info?.scheduledTime ?? 0;
		storage.kv.put("reminder", record);
		await storage.setAlarm(record.due);
		try {
			await this.fire(userId);
		} catch (error) {
			logError("Reminder failed", error, { userId });
			const seconds = Math.min(2 ** (failures + 1), everySeconds / 4);
			const again = Date.now() + seconds * 1000;
			const now = this.#record();
			// Not where it was cancelled or started anew, or the next time is near.
			if (now?.due === record.due && failures < 6 && again < now.due) {
				storage.kv.put("reminder", { ...now, failures: failures + 1 });
				await storage.setAlarm(again);
			}
		}
	}

	#record() {
		return this.ctx.storage.kv.get("reminder");
	}
}
