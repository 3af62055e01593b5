import { isIPv6 } from "node:net";
import { convertIPv6ToBinary } from "hono/utils/ipaddr";
import { ApiError, logError } from "./base";

/** Must equal `period` in wrangler.jsonc: the limiter does not tell. */
const PERIOD_SECONDS = 60;

/** Middleware for all requests: limits those that change something or upgrade. */
export async function limitChanges(c, next) {
	const isRead = c.req.method === "GET" || c.req.method === "HEAD";
	return isRead && !c.req.header("Upgrade") ? next() : rateLimited(c, next);
}

/** Middleware for a route that reads: limits it too, by the client's address. */
export async function rateLimited(c, next) {
	const limit = c.env.RATE_LIMITER.limit({ key: addressOf(c) });
	const { success } = await limit.catch((error) => {
		// Without a limiter, the Worker works on without limits.
		logError("Rate limiter failed", error);
		return { success: true };
	});
	if (!success) {
		const message = `Wait ${PERIOD_SECONDS} seconds, then try again.`;
		const headers = { "Retry-After": String(PERIOD_SECONDS) };
		throw new ApiError(429, "rate_limited", message, headers);
	}
	await next();
}

/** Returns a client's address; for IPv6 the /64, which belongs to one client. */
function addressOf(c) {
	// Cloudflare sets it, whatever the client sends.
	const address = c.req.header("CF-Connecting-IP") ?? "unknown";
	return isIPv6(address) ? `${convertIPv6ToBinary(address) >> 64n}` : address;
}
