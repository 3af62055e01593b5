/** Runs before the Workers start, in the process that starts them. */
export default function setup(): void {
	process.env.CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_PROBE_DB =
		"postgres://user:password@127.0.0.1:5432/from-the-global-set-up";
}
