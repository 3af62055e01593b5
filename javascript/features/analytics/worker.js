import { Hono } from "hono";
import * as z from "zod";
import { readJson } from "../../base/base/worker";
import { userIdSchema } from "../../base/user/worker";

const eventSchema = z.strictObject({
	userId: userIdSchema,
	event: z.string().min(1).max(1024),
	value: z.number().default(1),
});

/**
 * Writes an event. SQL finds its columns by their places: `index1` is `userId`,
 * `blob1` is `event`, `double1` is `value`. Append new ones: what is stored keeps
 * its place.
 */
export function writeEvent(env, event) {
	// Nothing to await: the runtime sends it in the background.
	env.USER_EVENTS.writeDataPoint({
		indexes: [event.userId],
		blobs: [event.event],
		doubles: [event.value],
	});
}

/** @type {Hono<{ Bindings: Env }>} */
export const events = new Hono();

events.post("/events", async (c) => {
	writeEvent(c.env, await readJson(c, eventSchema));
	return c.body(null, 204);
});
