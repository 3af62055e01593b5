import { createMiddleware } from "hono/factory";
import { timingSafeEqual } from "hono/utils/buffer";
import { ApiError } from "./base";

/** Returns the token of `Authorization: Bearer <token>`, or "". */
export function bearerToken(c) {
	const header = c.req.header("Authorization") ?? "";
	return /^Bearer +(\S+)$/i.exec(header)?.[1] ?? "";
}

/** Tells whether a request has the API token. An unset or empty one locks. */
export async function hasApiToken(c) {
	const { API_TOKEN } = c.env;
	return !!API_TOKEN && timingSafeEqual(bearerToken(c), API_TOKEN);
}

/** The answer to a request that does not show who sends it. */
export function unauthorized(
	message = "Send `Authorization: Bearer <API_TOKEN>`.",
) {
	const headers = { "WWW-Authenticate": "Bearer" };
	return new ApiError(401, "unauthorized", message, headers);
}

/** Middleware for the operator's routes: lets nobody else pass. */
export const operatorOnly = createMiddleware(async (c, next) => {
	if (c.var.session?.operator) {
		return next();
	}
	if (c.var.session) {
		const message = "This needs the API token or an operator's session.";
		throw new ApiError(403, "operator_only", message);
	}

	if (!(await hasApiToken(c))) {
		throw unauthorized();
	}
	await next();
});
