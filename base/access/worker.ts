import type { Context } from "hono";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

/** Returns the token of `Authorization: Bearer <token>`, if there is one. */
export function bearerToken<E extends AppEnv>(c: Context<E>) {
	return /^Bearer +(\S+)$/i.exec(c.req.header("Authorization") ?? "")?.[1];
}

/** Tells whether a request carries the `API_TOKEN` secret as its bearer token. */
export function hasApiToken<E extends AppEnv>(c: Context<E>): Promise<boolean> {
	return isSecret(bearerToken(c), c.env.API_TOKEN);
}

/**
 * Compares what a client has sent with a secret, in a time that tells nothing.
 *
 * @returns Whether they are the same. Nothing is the same as an unset or empty
 * secret: that locks.
 */
export async function isSecret(
	sent: string | undefined,
	secret: string | undefined,
): Promise<boolean> {
	if (!secret) {
		return false;
	}
	// Digests have one length, and the time it takes to compare them tells nothing
	// about the secret.
	const encoder = new TextEncoder();
	return crypto.subtle.timingSafeEqual(
		await crypto.subtle.digest("SHA-256", encoder.encode(sent ?? "")),
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
