// The migrations of the database DB, which `dev` and the tests apply.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs, stripVTControlCharacters } from "node:util";
import { offline, wrangler } from "../wrangler.mjs";

const FOLDER = fileURLToPath(new URL("../../migrations", import.meta.url));

/** Applies the migrations to the database of `dev`, which keeps its data. */
export function start() {
	const command = ["d1", "migrations", "apply", "DB", "--local"];
	const { status, stdout, stderr } = spawnSync(
		process.execPath,
		[...wrangler, ...command, ...chosenDatabase()],
		{
			encoding: "utf8",
			env: { ...process.env, ...offline },
			stdio: ["ignore", "pipe", "pipe"],
		},
	);
	// Wrangler lists what it is to apply, and after each file what it has applied.
	const printed = stripVTControlCharacters(stdout);
	const pending = new Set(printed.match(/(?<=│ )\S+\.sql(?= +│\n)/g));
	const applied = new Set(printed.match(/(?<=│ )\S+\.sql(?= +│ ✅)/g));
	for (const name of applied) {
		console.log(`Applied migrations/${name}`);
	}
	if (status !== 0) {
		const [failed = ""] = [...pending].filter((name) => !applied.has(name));
		const [reason] = stripVTControlCharacters(stderr).split("🪵");
		throw new Error(`migrations/${failed}: ${reason.trim() || printed}`);
	}
}

/** Returns the arguments of `dev` that say which database it uses. */
function chosenDatabase() {
	const { values } = parseArgs({
		strict: false,
		options: {
			env: { type: "string", short: "e" },
			"persist-to": { type: "string" },
		},
	});
	return ["env", "persist-to"]
		.filter((name) => name in values)
		.map((name) => `--${name}=${values[name]}`);
}

/** Hands the migrations to `test/migrate.ts`, before the Workers start. */
export async function setup(project) {
	const { readD1Migrations } = await import("@cloudflare/vitest-plugin");
	project.provide("d1Migrations", await readD1Migrations(FOLDER));
}
