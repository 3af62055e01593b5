// Applies the migrations that the real database lacks. Without a terminal, since
// Wrangler would ask there first, and a deploy would go on after a "no".
// Arguments of `deploy` do not reach this, while CLOUDFLARE_ENV reaches all of it.
import { spawnSync } from "node:child_process";
import { wrangler } from "./wrangler.mjs";

const command = ["d1", "migrations", "apply", "DB", "--remote"];
const { status } = spawnSync(process.execPath, [...wrangler, ...command], {
	stdio: ["ignore", "inherit", "inherit"],
});
process.exit(status ?? 1);
