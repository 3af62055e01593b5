import { createMiddleware } from "hono/factory";
import { authReadSession } from "../../features/auth/worker";
import { hasApiToken, unauthorized } from "../access/worker";
import type { AppEnv } from "../http/worker";

/** Middleware: lets the operator pass, and answers 401 to everybody else. */
export const operatorOnly = createMiddleware<AppEnv>(async (c, next) => {
	if (await hasApiToken(c)) {
		return next();
	}
	//% if "auth" in features
	if ((await authReadSession(c)) !== null) {
		return next();
	}
	//% endif
	throw unauthorized();
});
