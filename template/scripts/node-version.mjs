// Stops an install on a Node.js that is too old for the tools.
import { readFileSync } from "node:fs";

const { engines } = JSON.parse(
	readFileSync(new URL("../package.json", import.meta.url), "utf8"),
);
const needed = engines.node.replace(">=", "");
const [major, minor] = process.versions.node.split(".").map(Number);
const [neededMajor, neededMinor] = needed.split(".").map(Number);
if (major < neededMajor || (major === neededMajor && minor < neededMinor)) {
	console.error(
		`This project needs Node.js ${needed} or newer, this is ${process.versions.node}: get it from https://nodejs.org, or with "nvm install" or "fnm use", which read .node-version.`,
	);
	process.exit(1);
}
