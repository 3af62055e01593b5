import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import type * as z from "zod";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

const JSON_BODY_BYTES = 64 * 1024;
const JSON_BODY_LEVELS = 100;
/** How many issues of an input an error lists, and how long each may be. */
const ISSUES = { shown: 20, characters: 200 };

function bodyTooLarge(): never {
	throw new ApiError(
		413,
		"body_too_large",
		`JSON bodies may have at most ${JSON_BODY_BYTES} bytes.`,
	);
}

const limitJsonBody = bodyLimit({
	maxSize: JSON_BODY_BYTES,
	onError: bodyTooLarge,
});

// `JSON.parse` accepts deeper nesting than `JSON.stringify` can write.
function isTooDeep(value: unknown, levels: number): boolean {
	return (
		typeof value === "object" &&
		value !== null &&
		(levels === 0 ||
			Object.values(value).some((inner) => isTooDeep(inner, levels - 1)))
	);
}

/**
 * Checks an input, wherever it comes from.
 *
 * @param schema What it must be.
 * @param code The code of the error.
 * @returns The input, as the schema returns it.
 * @throws ApiError 400 with the issues: what is wrong, and where.
 */
export function parseInput<Schema extends z.ZodType>(
	schema: Schema,
	input: unknown,
	code = "invalid_body",
): z.infer<Schema> {
	const result = schema.safeParse(input);
	if (result.success) {
		return result.data;
	}
	// Names of keys may be the client's, and long.
	const cut = (text: string) => text.slice(0, ISSUES.characters);
	const issues = result.error.issues
		.slice(0, ISSUES.shown)
		.map(({ path, message }) => ({
			path: cut(path.join(".")),
			message: cut(message),
		}));
	const message = "Correct what `issues` lists, and send it again.";
	throw new ApiError(400, code, message, {}, { issues });
}

/**
 * Reads and checks a JSON body.
 *
 * @param c The request.
 * @param schema What the body must be.
 * @returns The body, as the schema returns it.
 * @throws ApiError 415 without a JSON content type, 413 over 64 KiB, 400 when
 * it cannot be parsed, is nested too deep or is not what the schema asks for.
 */
export async function readJson<E extends AppEnv, Schema extends z.ZodType>(
	c: Context<E>,
	schema: Schema,
): Promise<z.infer<Schema>> {
	const type = c.req.header("Content-Type")?.split(";")[0]?.trim() ?? "";
	if (!/^application\/([\w.-]+\+)?json$/i.test(type)) {
		throw new ApiError(
			415,
			"unsupported_media_type",
			"Send the body as application/json.",
		);
	}
	if (!c.req.raw.bodyUsed) {
		await limitJsonBody(c, async () => {});
	}
	const text = await c.req.text();
	// Middleware may have read it before.
	if (new TextEncoder().encode(text).byteLength > JSON_BODY_BYTES) {
		bodyTooLarge();
	}
	let body: unknown;
	try {
		body = JSON.parse(text);
	} catch {
		throw new ApiError(400, "invalid_json", "The body is not valid JSON.");
	}
	if (isTooDeep(body, JSON_BODY_LEVELS)) {
		const message = `May be nested ${JSON_BODY_LEVELS} deep`;
		throw new ApiError(
			400,
			"invalid_body",
			"Nest lists and objects less deeply.",
			{},
			{ issues: [{ path: "", message }] },
		);
	}
	return parseInput(schema, body);
}
