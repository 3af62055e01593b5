import { createMiddleware } from "hono/factory";
import type { AuthSession } from "../../features/auth/worker";
import { authReadSession } from "../../features/auth/worker";
import {
	rateLimitAddress,
	rateLimitUser,
} from "../../features/rate-limit/worker";
import { hasApiToken, unauthorized } from "../access/worker";
import type { AppEnv } from "../http/worker";
import { ApiError } from "../http/worker";

/** Middleware: lets the operator pass, and nobody else. */
export const operatorOnly = createMiddleware<AppEnv>(async (c, next) => {
	//% if "rate-limit" in features
	await rateLimitAddress(c);
	//% endif
	if (await hasApiToken(c)) {
		//% if "auth" in features
		c.set("session", null);
		//% endif
		return next();
	}
	//% if "auth" in features
	const session = await authReadSession(c);
	//% if "rate-limit" in features
	await rateLimitUser(c, session);
	//% endif
	if (session?.operator) {
		return next();
	}
	if (session !== null) {
		throw new ApiError(
			403,
			"operator_only",
			"Use the API token or an operator's session: this is not for users.",
		);
	}
	//% endif
	throw unauthorized();
});

//% if "auth" in features
/** Middleware: lets only users with a session pass, as `c.var.session`. */
export const sessionOnly = createMiddleware<
	AppEnv & { Variables: { session: AuthSession } }
>(async (c, next) => {
	//% if "rate-limit" in features
	await rateLimitAddress(c);
	//% endif
	if ((await authReadSession(c)) === null) {
		throw unauthorized(
			"Sign in first, or send the token of a session; the API token is not one.",
		);
	}
	//% if "rate-limit" in features
	await rateLimitUser(c, c.var.session);
	//% endif
	await next();
});

//% endif
