// The database beside `dev` and the tests: an embedded Postgres, unless the
// shell, `.env` or wrangler.jsonc says that there is another.
import {
	existsSync,
	mkdirSync,
	readFileSync,
	renameSync,
	writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";

const VARIABLE = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE";
const SAVED = ".wrangler/state/hyperdrive.tar";

/** Starts the database for `dev`, with the data that the last one left. */
export async function start() {
	if (isConfigured()) {
		return { env: {}, stop() {} };
	}
	const saved = existsSync(SAVED) ? readFileSync(SAVED) : undefined;
	const { db, url, stop } = await serve(saved);
	return {
		env: { [VARIABLE]: url },
		async stop() {
			await save(db);
			await stop();
		},
	};
}

/** Starts a new database for Vitest, before the Workers of the tests start. */
export async function setup() {
	if (isConfigured()) {
		return undefined;
	}
	const { url, stop } = await serve();
	process.env[VARIABLE] = url;
	return async () => {
		delete process.env[VARIABLE];
		await stop();
	};
}

function isConfigured() {
	if (existsSync(".env")) {
		process.loadEnvFile();
	}
	const config = readFileSync(new URL("../wrangler.jsonc", import.meta.url));
	return (
		Boolean(process.env[VARIABLE]) ||
		/^\s*"localConnectionString"/m.test(config.toString())
	);
}

/**
 * Postgres for many connections at once.
 *
 * All share one backend, and the socket server lets another connection in after
 * each message unless a transaction is open. But a query is several messages, up
 * to a Sync, and would get mixed up with another's: so it counts as open too.
 */
class SharedPostgres extends PGlite {
	#isInQuery = false;

	async execProtocolRawStream(message, options) {
		await super.execProtocolRawStream(message, options);
		// Parse, Bind, Describe, Execute, Close and Flush.
		this.#isInQuery = "PBDECH".includes(String.fromCharCode(message[0]));
	}

	isInTransaction() {
		return this.#isInQuery || super.isInTransaction();
	}
}

async function serve(saved) {
	const db = new SharedPostgres(
		saved ? { loadDataDir: new Blob([saved]) } : {},
	);
	if (!saved) {
		const sample = new URL("hyperdrive.sql", import.meta.url);
		await db.exec(readFileSync(sample, "utf8"));
	}
	const server = new PGLiteSocketServer({ db, port: 0, maxConnections: 100 });
	await server.start();
	return {
		db,
		url: `postgres://postgres:postgres@${server.getServerConn()}/postgres`,
		async stop() {
			await server.stop();
			await db.close();
		},
	};
}

// In two steps, so that there is a whole file whatever happens.
async function save(db) {
	const data = await db.dumpDataDir("none");
	mkdirSync(dirname(SAVED), { recursive: true });
	writeFileSync(`${SAVED}.new`, await data.bytes());
	renameSync(`${SAVED}.new`, SAVED);
}
