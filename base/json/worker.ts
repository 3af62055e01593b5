import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import * as z from "zod";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

const JSON_BODY_BYTES = 64 * 1024;

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

/**
 * Reads and checks a JSON body.
 *
 * @param c The request.
 * @param schema What the body must be.
 * @returns The body, as the schema returns it.
 * @throws ApiError 415 without a JSON content type, 413 over 64 KiB, 400 when
 * it cannot be parsed or is not what the schema asks for.
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
	const result = schema.safeParse(body);
	if (!result.success) {
		const message = z.prettifyError(result.error);
		throw new ApiError(400, "invalid_body", message);
	}
	return result.data;
}
