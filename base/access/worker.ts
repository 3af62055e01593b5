import type { Context } from "hono";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

/** Returns the token of `Authorization: Bearer <token>`, if there is one. */
export function bearerToken<E extends AppEnv>(
	c: Context<E>,
): string | undefined {
	return /^Bearer +(\S+)$/i.exec(c.req.header("Authorization") ?? "")?.[1];
}

/**
 * Tells whether a request carries the `API_TOKEN` secret.
 *
 * @returns Whether its bearer token is that secret. An unset or empty secret
 * equals nothing, so that it locks instead of opening.
 */
export async function hasApiToken<E extends AppEnv>(
	c: Context<E>,
): Promise<boolean> {
	const token = bearerToken(c);
	if (token === undefined || !c.env.API_TOKEN) {
		return false;
	}
	// Digests have one length and tell nothing about the secret, so that the
	// time of comparing them does not either.
	const encoder = new TextEncoder();
	return crypto.subtle.timingSafeEqual(
		await crypto.subtle.digest("SHA-256", encoder.encode(token)),
		await crypto.subtle.digest("SHA-256", encoder.encode(c.env.API_TOKEN)),
	);
}

/** The answer to a request that shows no right to what it asks for. */
export function unauthorized(): ApiError {
	return new ApiError(
		401,
		"unauthorized",
		"Send `Authorization: Bearer <API_TOKEN>`.",
		{ "WWW-Authenticate": "Bearer" },
	);
}
