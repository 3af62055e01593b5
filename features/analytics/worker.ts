import * as z from "zod";
import { app } from "../../base/http/worker";
import { readJson } from "../../base/json/worker";

// Anybody may send this text, and an operator may read it in a terminal, which
// would obey control characters.
function analyticsText(maxBytes: number) {
	return z
		.string()
		.regex(/^\P{Cc}+$/u, "Must be text, not empty, without control characters")
		.refine(
			(text) => new TextEncoder().encode(text).byteLength <= maxBytes,
			`Must have at most ${maxBytes} bytes of UTF-8`,
		);
}

const analyticsBody = z.strictObject({
	// The limit of an index; beyond it, `writeDataPoint` throws.
	userId: analyticsText(96),
	// Far below the 16 KB that all blobs of a data point may have together.
	event: analyticsText(1024),
	value: z.number().default(1),
});

/**
 * Writes an event. SQL finds its columns by their places in the lists:
 *
 * - `index1`: `userId`, by which Analytics Engine samples
 * - `blob1`: `event`, what happened
 * - `double1`: `value`, how much of it
 *
 * Append a new column to its list: what is stored keeps its place.
 */
function analyticsWrite(
	env: Env,
	{ userId, event, value }: z.infer<typeof analyticsBody>,
): void {
	// Nothing to await: the runtime sends it in the background.
	env.USER_EVENTS.writeDataPoint({
		indexes: [userId],
		blobs: [event],
		doubles: [value],
	});
}

app.post("/events", async (c) => {
	analyticsWrite(c.env, await readJson(c, analyticsBody));
	return c.body(null, 204);
});
