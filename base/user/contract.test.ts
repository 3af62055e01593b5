import { expect, it } from "vitest";
import { userIdSchema } from "./worker";

it.each([
	"a",
	"ada@example.com",
	"auth0|5f7c8ec7c33c6c004bbafe82",
	"a b/c?d#e%20",
	"😀".repeat(24),
	"ü".repeat(48),
	"a".repeat(96),
])("takes the user id %j", (id) => {
	expect(userIdSchema.parse(id)).toBe(id);
});

it.each([
	"",
	"a\n",
	"\0",
	"\u007f",
	"\u0085",
	"\ud83d",
	"a".repeat(97),
	"ü".repeat(49),
	`${"😀".repeat(24)}a`,
	7,
	null,
	undefined,
])("refuses the user id %j", (id) => {
	expect(userIdSchema.safeParse(id).success).toBe(false);
});
