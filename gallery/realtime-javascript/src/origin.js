import { ApiError, isAllowedOrigin } from "./base";

/** Refuses the pages of sites that are neither this one nor allowed: 403. */
export function requireTrustedOrigin(c) {
	const { origin: own } = new URL(c.req.url);
	// Without the header, no browser has sent it across sites.
	const origin = c.req.header("Origin") ?? own;
	if (origin !== own && !isAllowedOrigin(c.env, origin)) {
		const message = "Send this from this site or an allowed origin.";
		throw new ApiError(403, "foreign_origin", message);
	}
}
