// Makes up the API token of `.dev.vars`, once.
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { parseEnv } from "node:util";

/** Puts a random token where `API_TOKEN` is empty. */
export function start() {
	const vars = readFileSync(".dev.vars", "utf8");
	if (parseEnv(vars).API_TOKEN === "") {
		const token = randomBytes(32).toString("base64url");
		const line = `API_TOKEN=${token}`;
		const empty = /^[ \t]*(export[ \t]+)?API_TOKEN[ \t]*=.*$/gm;
		writeFileSync(".dev.vars", vars.replace(empty, line));
	}
}
