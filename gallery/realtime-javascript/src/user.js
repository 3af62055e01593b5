import * as z from "zod";

/** The id of a user: 1 to 96 bytes of UTF-8 without control characters. */
export const userIdSchema = z
	.string()
	.regex(/^[^\p{Cc}\p{Cs}]+$/u, "Must be text without control characters")
	.refine(
		(id) => new TextEncoder().encode(id).length <= 96,
		"Must have at most 96 bytes of UTF-8",
	);
