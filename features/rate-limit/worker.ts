import { isIPv6 } from "node:net";
import type { Context, Next } from "hono";
import { createMiddleware } from "hono/factory";
import { convertIPv6ToBinary } from "hono/utils/ipaddr";
import type { AppEnv } from "../../base/base/worker";
import { ApiError, logError } from "../../base/base/worker";

/** Must equal `period` in wrangler.jsonc: the limiter does not tell. */
const PERIOD_SECONDS = 60;

/** Middleware for all routes: limits changes and upgrades, by address. */
export async function limitChanges<E extends AppEnv>(
	c: Context<E>,
	next: Next,
): Promise<void> {
	const isRead = /^(GET|HEAD|OPTIONS)$/.test(c.req.method);
	if (!isRead || c.req.header("Upgrade")) {
		await rateLimit(c.env, addressOf(c));
	}
	await next();
}

/** Middleware for a route that reads and is dear: limits it, by address. */
export const rateLimited = createMiddleware<AppEnv>(async (c, next) => {
	await rateLimit(c.env, addressOf(c));
	await next();
});

/** Counts one more under a key, such as `sign-in ada`. Throws a 429 over the limit. */
export async function rateLimit(env: Env, key: string): Promise<void> {
	const { success } = await env.RATE_LIMITER.limit({ key }).catch((error) => {
		// Without a limiter, the Worker works on without limits.
		logError("Rate limiter failed", error);
		return { success: true };
	});
	if (!success) {
		const message = `Wait ${PERIOD_SECONDS} seconds, then try again.`;
		const headers = { "Retry-After": String(PERIOD_SECONDS) };
		throw new ApiError(429, "rate_limited", message, headers);
	}
}

/** Returns a client's address; of IPv6 the first 64 bits, since it has all of them. */
function addressOf<E extends AppEnv>(c: Context<E>): string {
	// Cloudflare sets it, whatever the client sends.
	const address = c.req.header("CF-Connecting-IP") ?? "unknown";
	return isIPv6(address)
		? `${(convertIPv6ToBinary(address) >> 64n).toString(16)}/64`
		: address;
}
