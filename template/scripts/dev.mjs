// Runs the Worker on this machine, offline: `wrangler dev` and what it needs.
// Arguments go on to `wrangler dev`; `--online` uses the account's services.
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { parseEnv } from "node:util";
import { offline, wrangler } from "./wrangler.mjs";

const args = process.argv.slice(2).filter((arg) => arg !== "--online");
const isOnline = process.argv.includes("--online");
const env = { ...(isOnline ? {} : offline), ...process.env };

/** What runs beside the Worker, as it was started. */
const companions = [];
let child;
let isStopping = false;
function stop() {
	isStopping = true;
	child?.kill("SIGTERM");
}
process.on("SIGINT", stop);
process.on("SIGTERM", stop);
process.on("SIGHUP", stop);
// A killed package manager takes only its shell along: stop when that is gone.
const shell = process.ppid;
if (process.env.npm_lifecycle_event) {
	setInterval(() => process.ppid !== shell && stop(), 200).unref();
}

let code = 1;
try {
	completeDevVars();
	await startCompanions();
	code = isStopping ? 0 : await runWorker();
} catch (error) {
	console.error(error.message);
} finally {
	for (const companion of companions) {
		await companion.stop?.();
	}
}
process.exit(isStopping ? 0 : code);

/**
 * Starts what the Worker needs beside it: each module in `scripts/dev/`, in the
 * order of their names. Its `start()` returns `env`, environment variables for
 * `wrangler dev`, and `stop()`; both may be left out.
 */
async function startCompanions() {
	const folder = new URL("dev/", import.meta.url);
	const files = existsSync(folder) ? readdirSync(folder) : [];
	for (const file of files.filter((name) => name.endsWith(".mjs")).sort()) {
		const { start } = await import(new URL(file, folder).href);
		const companion = (await start()) ?? {};
		Object.assign(env, companion.env);
		companions.push(companion);
	}
}

/** Runs the Worker until it ends, and returns its exit status. */
async function runWorker() {
	child = spawn(
		process.execPath,
		[
			...wrangler,
			"dev",
			...(isOnline ? [] : ["--local"]),
			// This machine alone, unless told otherwise.
			...(args.some((arg) => /^--ip(=|$)/.test(arg)) ? [] : ["--ip=127.0.0.1"]),
			"--show-interactive-dev-session=false",
			...args,
		],
		{ env, stdio: ["ignore", "inherit", "inherit"] },
	);
	const status = await new Promise((resolve) => child.on("exit", resolve));
	return status ?? 1;
}

/**
 * Gives `.dev.vars` the secrets of `.dev.vars.example` that it lacks, below what
 * it has.
 */
function completeDevVars() {
	const example = readFileSync(".dev.vars.example", "utf8");
	const isThere = existsSync(".dev.vars");
	const before = isThere ? readFileSync(".dev.vars", "utf8") : "";
	const known = parseEnv(before);
	const isMissing = (line) => {
		const [name] = Object.keys(parseEnv(line));
		return name !== undefined && !(name in known);
	};
	// A comment comes along with what it stands above.
	const added = example
		.split("\n\n")
		.map((block) => block.split("\n"))
		.filter((lines) => lines.some(isMissing))
		.map((lines) => lines.filter((l) => l.startsWith("#") || isMissing(l)))
		.map((lines) => `\n${lines.join("\n")}\n`);
	const end = before === "" || before.endsWith("\n") ? "" : "\n";
	const after = added.length === 0 ? before : before + end + added.join("");
	if (after !== before) {
		writeFileSync(".dev.vars", after.trimStart(), { mode: 0o600 });
	}
}
