import { createServer } from "node:http";

/** Starts the companion: a server, whose port goes to the Worker. */
export async function start() {
	const server = createServer((_, response) => response.end("companion"));
	await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
	const { port } = server.address();
	console.log(`companion on ${port}`);
	const url = `postgres://user:password@127.0.0.1:${port}/companion`;
	return {
		env: { CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_PROBE_DB: url },
		async stop() {
			await new Promise((resolve) => server.close(resolve));
			console.log("companion has stopped");
		},
	};
}
