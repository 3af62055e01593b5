// Stops the deploy of a project that an update or a merge left unsettled: with
// conflict markers in a file that Git does not ignore, or with two keys of one
// name in wrangler.jsonc, of which Wrangler takes the last without a word.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const unsettled = conflicts();
for (const problem of unsettled.length > 0 ? unsettled : doubledKeys()) {
	console.error(`Not deployed: ${problem}`);
	process.exitCode = 1;
}

/** Finds the first conflict marker of each file. */
function conflicts() {
	const grep = (...where) =>
		run(
			"git",
			...["-c", "core.quotePath=off", "grep", "--no-color"],
			...[...where, "-nIE", "^(<{7}|>{7}) "],
		);
	const inRepository = grep("--untracked");
	const { status, stdout, stderr, error } =
		inRepository.status > 1
			? grep("--no-index", "--exclude-standard")
			: inRepository;
	if (error || status > 1) {
		console.warn(`No search for conflicts: ${error?.message ?? stderr.trim()}`);
		return [];
	}
	const places = stdout.matchAll(/^(.+?):(\d+):/gm);
	const files = Map.groupBy(places, ([, file]) => file);
	return [...files].map(
		([file, [[, , line]]]) => `settle the conflict in ${file}, line ${line}.`,
	);
}

/** Finds the keys of wrangler.jsonc that repeat one beside them. */
function doubledKeys() {
	const { resolve } = createRequire(import.meta.url);
	const biome = join(
		dirname(resolve("@biomejs/biome/package.json")),
		"bin/biome",
	);
	const rule = "--only=suspicious/noDuplicateObjectKeys";
	const options = [rule, "--reporter=rdjson", "wrangler.jsonc"];
	const { stdout } = run(process.execPath, biome, "lint", ...options);
	return JSON.parse(stdout).diagnostics.map(
		({ location: { path, range }, message }) =>
			`merge two keys in ${path}, line ${range.start.line}. ${message}`,
	);
}

function run(command, ...args) {
	const maxBuffer = Number.POSITIVE_INFINITY;
	return spawnSync(command, args, { encoding: "utf8", maxBuffer });
}
