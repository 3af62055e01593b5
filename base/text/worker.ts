import * as z from "zod";

/**
 * Returns a schema for text of 1 to `maxBytes` bytes of UTF-8 on one line:
 * without control characters, which a terminal obeys, and without those that
 * change the writing direction, which can make it read as another text.
 */
export function plainText(maxBytes: number) {
	return z
		.string()
		.regex(
			/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]+$/u,
			"Must be text, not empty, without control characters",
		)
		.refine(
			(text) => new TextEncoder().encode(text).byteLength <= maxBytes,
			`Must have at most ${maxBytes} bytes of UTF-8`,
		);
}

/**
 * Returns a schema for text of 1 to `maxCharacters`, of any lines: without a NUL, at
 * which a database may end it, and halves of a character, which it would replace.
 */
export function plainLines(maxCharacters: number) {
	return z
		.string()
		.min(1)
		.max(maxCharacters)
		.regex(/^[^\0\p{Cs}]*$/u, "Must be text without NUL");
}

/** Returns a schema for a whole number in a query, such as `limit`. */
export function queryNumber(min: number, max: number) {
	return z
		.string()
		.regex(/^\d+$/, "Must be a whole number")
		.transform(Number)
		.pipe(z.int().min(min).max(max));
}
