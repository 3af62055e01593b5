import * as z from "zod";
import { app } from "../../base/http/worker";
import { parseInput, readJson } from "../../base/json/worker";
import { plainText, userIdSchema } from "../../base/text/worker";

const analyticsEvent = z.strictObject({
	userId: userIdSchema,
	// Far below the 16 KB that all blobs of a data point may have together.
	event: plainText(1024),
	value: z.number().default(1),
});

/**
 * Writes an event. SQL finds its columns by their places in the lists:
 *
 * - `index1`: `userId`, by which Analytics Engine samples
 * - `blob1`: `event`, what happened
 * - `double1`: `value`, how much of it; 1 if left out
 *
 * Append a new column to its list: what is stored keeps its place.
 *
 * @throws ApiError 400 for what a column cannot hold.
 */
export function analyticsWrite(
	env: Env,
	written: z.input<typeof analyticsEvent>,
): void {
	const { userId, event, value } = parseInput(analyticsEvent, written);
	// Nothing to await: the runtime sends it in the background.
	env.USER_EVENTS.writeDataPoint({
		indexes: [userId],
		blobs: [event],
		doubles: [value],
	});
}

app.post("/events", async (c) => {
	analyticsWrite(c.env, await readJson(c, analyticsEvent));
	return c.body(null, 204);
});
