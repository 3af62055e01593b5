import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import * as z from "zod";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

const JSON_BODY_BYTES = 64 * 1024;
const JSON_BODY_LEVELS = 100;

const limitJsonBody = bodyLimit({
	maxSize: JSON_BODY_BYTES,
	onError: () => {
		throw new ApiError(
			413,
			"body_too_large",
			`JSON bodies may have at most ${JSON_BODY_BYTES} bytes.`,
		);
	},
});

// What is nested too deep can be read, but not be written again.
function isTooDeep(value: unknown, levels: number): boolean {
	return (
		typeof value === "object" &&
		value !== null &&
		(levels === 0 ||
			Object.values(value).some((inner) => isTooDeep(inner, levels - 1)))
	);
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
export async function readJson<T>(
	c: Context<AppEnv>,
	schema: z.ZodType<T>,
): Promise<T> {
	const type = c.req.header("Content-Type")?.split(";")[0]?.trim() ?? "";
	if (!/^application\/([\w.-]+\+)?json$/i.test(type)) {
		throw new ApiError(
			415,
			"unsupported_media_type",
			"Send the body as application/json.",
		);
	}
	await limitJsonBody(c, async () => {});
	let body: unknown;
	try {
		body = await c.req.json();
	} catch {
		throw new ApiError(400, "invalid_json", "The body is not valid JSON.");
	}
	if (isTooDeep(body, JSON_BODY_LEVELS)) {
		throw new ApiError(
			400,
			"invalid_body",
			`Lists and objects may be nested ${JSON_BODY_LEVELS} deep.`,
		);
	}
	const result = schema.safeParse(body);
	if (!result.success) {
		const message = z.prettifyError(result.error);
		throw new ApiError(400, "invalid_body", message);
	}
	return result.data;
}
