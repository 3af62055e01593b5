// How the scripts run Wrangler.
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const { resolve } = createRequire(import.meta.url);

/** What Node.js is given to run Wrangler itself, before the arguments. */
export const wrangler = [
	"--no-warnings",
	join(dirname(resolve("wrangler/package.json")), "wrangler-dist/cli.js"),
];

/** Keeps Wrangler offline: no update check, no sample `request.cf`, no telemetry. */
export const offline = {
	CLOUDFLARE_CF_FETCH_ENABLED: "false",
	WRANGLER_HIDE_BANNER: "true",
	WRANGLER_SEND_METRICS: "false",
};
