// Writes the types of the bindings and of the runtime: `wrangler types`, of which
// only errors and warnings are shown. Arguments go on to it, such as `--check`.
import { spawnSync } from "node:child_process";
import { wrangler } from "./wrangler.mjs";

const args = ["types", "--strict-vars=false", ...process.argv.slice(2)];
const { status, stdout } = spawnSync(process.execPath, [...wrangler, ...args], {
	stdio: ["ignore", "pipe", "inherit"],
	maxBuffer: Number.POSITIVE_INFINITY,
});
if (status !== 0) {
	process.stdout.write(stdout);
	process.exit(status ?? 1);
}
