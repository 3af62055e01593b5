import type { Context } from "hono";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

/** Returns the token of `Authorization: Bearer <token>`, if there is one. */
export function bearerToken<E extends AppEnv>(c: Context<E>) {
	return /^Bearer +(\S+)$/i.exec(c.req.header("Authorization") ?? "")?.[1];
}

/**
 * Tells whether a request carries the `API_TOKEN` secret.
 *
 * @returns Whether its bearer token is that secret. An unset or empty secret
 * locks: no request carries it.
 */
export async function hasApiToken<E extends AppEnv>(c: Context<E>) {
	const secret = c.env.API_TOKEN;
	if (!secret) {
		return false;
	}
	// Digests have one length, and the time it takes to compare them tells nothing
	// about the secret.
	const encoder = new TextEncoder();
	const token = bearerToken(c) ?? "";
	return crypto.subtle.timingSafeEqual(
		await crypto.subtle.digest("SHA-256", encoder.encode(token)),
		await crypto.subtle.digest("SHA-256", encoder.encode(secret)),
	);
}

/** The answer to a request that does not show who sends it. */
export function unauthorized(
	message = "Send `Authorization: Bearer <API_TOKEN>`.",
): ApiError {
	return new ApiError(401, "unauthorized", message, {
		"WWW-Authenticate": "Bearer",
	});
}
