// Applies the migrations that the real database lacks. Without a terminal, since
// Wrangler would ask there first, and a deploy would go on after a "no".
// Arguments of `deploy` do not reach this, while CLOUDFLARE_ENV reaches all of it.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const wrangler = join(
	dirname(createRequire(import.meta.url).resolve("wrangler/package.json")),
	"wrangler-dist/cli.js",
);
const command = ["d1", "migrations", "apply", "DB", "--remote"];
const { status } = spawnSync(
	process.execPath,
	["--no-warnings", wrangler, ...command],
	{ stdio: ["ignore", "inherit", "inherit"] },
);
process.exit(status ?? 1);
