// Runs a command, such as `wrangler dev`, with a database beside it.
import { spawn } from "node:child_process";
import { start } from "./dev/hyperdrive.mjs";

const { env, stop } = await start();
const child = spawn(process.argv.slice(2).join(" "), {
	env: { ...process.env, ...env },
	shell: true,
	stdio: "inherit",
});
// Ctrl-C reaches the command by itself; the data is saved once it has ended.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => child.kill("SIGTERM"));
const code = await new Promise((resolve) => child.on("exit", resolve));
await stop();
process.exit(code ?? 1);
