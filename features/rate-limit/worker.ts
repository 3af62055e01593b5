import { isIPv6 } from "node:net";
import type { Context } from "hono";
import { createMiddleware } from "hono/factory";
import {
	convertIPv4BinaryToString,
	convertIPv4MappedIPv6ToIPv4,
	convertIPv6BinaryToString,
	convertIPv6ToBinary,
	isIPv4MappedIPv6,
} from "hono/utils/ipaddr";
import type { AppEnv } from "../../base/http/worker";
import { ApiError, isChange, isRouted } from "../../base/http/worker";
import { logError } from "../../base/log/worker";
import type { AuthSession } from "../auth/worker";

/** Must equal `period` in wrangler.jsonc: the limiter does not tell. */
const RATE_LIMIT_SECONDS = 60;

/**
 * Limits how often something happens, in a route, a Durable Object, an agent or
 * a step of a Workflow.
 *
 * @param key What to count, such as `sign-in ada`. It has counters of its own,
 * apart from those of addresses and users.
 * @param limiter Another limiter of yours, with other numbers.
 * @param seconds Its `period`, which is when the client may come back.
 * @throws ApiError 429 when it has happened too often.
 */
export async function rateLimit(
	env: Env,
	key: string,
	limiter = env.RATE_LIMITER,
	seconds: 10 | 60 = RATE_LIMIT_SECONDS,
): Promise<void> {
	await rateLimitCount(limiter, `own ${key}`, seconds);
}

/** Middleware: limits an open route that reads, by the client's address. */
export const rateLimited = createMiddleware<AppEnv>(async (c, next) => {
	await rateLimitAddress(c);
	await next();
});

/** Limits a request that changes something or upgrades, where a route takes it. */
export async function rateLimitChange(c: Context<AppEnv>): Promise<void> {
	if (isChange(c) && isRouted(c)) {
		await rateLimitAddress(c);
	}
}

/**
 * Limits a request by the address that it comes from.
 *
 * @throws ApiError 429 when that has sent too many.
 */
export async function rateLimitAddress<E extends AppEnv>(
	c: Context<E>,
): Promise<void> {
	await rateLimitRequest(c, rateLimitKey(c));
}

//% if "auth" in features
/**
 * Limits a request by its user, whose sessions count together.
 *
 * @throws ApiError 429 when the user has sent too many.
 */
export async function rateLimitUser<E extends AppEnv>(
	c: Context<E>,
	session: AuthSession | null,
): Promise<void> {
	if (session !== null) {
		await rateLimitRequest(c, `user ${session.userId}`);
	}
}

//% endif
/** Returns what the address that a request comes from is counted under. */
export function rateLimitKey<E extends AppEnv>(c: Context<E>): string {
	// Cloudflare sets it, whatever the client sends.
	return `address ${rateLimitNetwork(c.req.header("CF-Connecting-IP") ?? "unknown")}`;
}

/** Counts a request under a key, once however often it is asked for. */
async function rateLimitRequest<E extends AppEnv>(
	c: Context<E>,
	key: string,
): Promise<void> {
	// Not set yet, whatever its type says.
	const counted: string[] = c.get("rateLimitKeys") ?? [];
	if (!counted.includes(key)) {
		const keys = [...counted, key];
		c.set("rateLimitKeys", keys as E["Variables"]["rateLimitKeys"]);
		await rateLimitCount(c.env.RATE_LIMITER, key);
	}
}

/**
 * Counts one more under a key as it is, such as that of an address.
 *
 * @throws ApiError 429 when that is one too many.
 */
export async function rateLimitCount(
	limiter: RateLimit,
	key: string,
	seconds: number = RATE_LIMIT_SECONDS,
): Promise<void> {
	if (await rateLimitIsOver(limiter, key)) {
		throw new ApiError(
			429,
			"rate_limited",
			`Wait up to ${seconds} seconds: this is more than the limit allows.`,
			{ "Retry-After": String(seconds) },
		);
	}
}

async function rateLimitIsOver(
	limiter: RateLimit,
	key: string,
): Promise<boolean> {
	try {
		return !(await limiter.limit({ key })).success;
	} catch (error) {
		// Without a limiter, the Worker works on without limits.
		logError("Rate limiter failed", error);
		return false;
	}
}

/**
 * Returns what stands for a client's address: the address itself, or the first 64
 * bits of one of IPv6, since a client has all the addresses that begin with them.
 */
function rateLimitNetwork(address: string): string {
	if (!isIPv6(address)) {
		return address;
	}
	const bits = convertIPv6ToBinary(address);
	return isIPv4MappedIPv6(bits)
		? convertIPv4BinaryToString(convertIPv4MappedIPv6ToIPv4(bits))
		: `${convertIPv6BinaryToString((bits >> 64n) << 64n)}/64`;
}
