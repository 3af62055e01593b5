// Stops a deploy that would bind a Hyperdrive configuration that is not there.
import { readFileSync } from "node:fs";

if (/"id":\s*"0{32}"/.test(readFileSync("wrangler.jsonc", "utf8"))) {
	console.error(
		"No database yet: make its Hyperdrive configuration, whose id goes into wrangler.jsonc, with `{{ project.exec }} wrangler hyperdrive create {{ project_name }}-postgres --binding HYPERDRIVE --connection-string=postgres://USER:PASSWORD@HOST:PORT/DATABASE`",
	);
	process.exit(1);
}
