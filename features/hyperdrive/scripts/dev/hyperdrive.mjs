// The database beside `dev` and the tests: an embedded Postgres, unless the
// shell, `.env` or wrangler.jsonc says that there is another.
import { randomBytes } from "node:crypto";
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
import {
	connect,
	migrate,
	UnreachableError,
} from "../hyperdrive-migrations.mjs";

const VARIABLE = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE";
const SAVED = ".wrangler/state/hyperdrive.tar";
/** Where the embedded Postgres of `dev` listens unless something else does. */
const PORT = 15_432;

/** Starts the database for `dev`, with the data that the last one left. */
export async function start() {
	const configured = configuredUrl();
	if (configured) {
		await migrateForDev(configured);
		return { env: {}, stop() {} };
	}
	const saved = existsSync(SAVED) ? readFileSync(SAVED) : undefined;
	const { db, url, stop } = await serve(saved, PORT);
	await migrateForDev(url);
	console.log(`The database is at: psql ${url}`);
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
	const configured = configuredUrl();
	globalThis.hyperdriveUrls ??= new Set();
	if (globalThis.hyperdriveUrls.has(configured)) {
		// Of another project that Vitest runs in the same process.
		await migrate(configured);
		return undefined;
	}
	const { url, stop } = await (configured ? create(configured) : serve());
	try {
		await migrate(url);
	} catch (error) {
		await stop();
		throw error;
	}
	globalThis.hyperdriveUrls.add(url);
	process.env[VARIABLE] = url;
	return async () => {
		if (configured) {
			process.env[VARIABLE] = configured;
		} else {
			delete process.env[VARIABLE];
		}
		await stop();
	};
}

async function migrateForDev(url) {
	try {
		for (const name of await migrate(url)) {
			console.log(`Applied migrations/hyperdrive/${name}`);
		}
	} catch (error) {
		if (!(error instanceof UnreachableError)) {
			throw error;
		}
		console.warn(`${error.message}. Start it, then run this again.`);
	}
}

function configuredUrl() {
	if (existsSync(".env")) {
		process.loadEnvFile();
	}
	const config = readFileSync(new URL("../../wrangler.jsonc", import.meta.url));
	const setting = /^\s*"localConnectionString": *"(.*?)"/m;
	return process.env[VARIABLE] || setting.exec(config.toString())?.[1];
}

/** Makes a database of the tests' own beside a configured one. */
async function create(configured) {
	const name = `test_${randomBytes(8).toString("hex")}`;
	const url = new URL(configured);
	url.pathname = name;
	await run(configured, `CREATE DATABASE ${name}`);
	return {
		url: url.href,
		stop: () => run(configured, `DROP DATABASE ${name} WITH (FORCE)`),
	};
}

async function run(url, statement) {
	const sql = await connect(url);
	try {
		await sql.unsafe(statement);
	} finally {
		await sql.end({ timeout: 1 });
	}
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

async function serve(saved, port = 0) {
	const db = new SharedPostgres(
		saved ? { loadDataDir: new Blob([saved]) } : {},
	);
	const server = await listen(db, port);
	return {
		db,
		url: `postgres://postgres:postgres@${server.getServerConn()}/postgres`,
		async stop() {
			await server.stop();
			await db.close();
		},
	};
}

/** Listens on a port, or on any when that one is taken. */
async function listen(db, port) {
	const server = new PGLiteSocketServer({ db, port, maxConnections: 100 });
	try {
		await server.start();
		return server;
	} catch (error) {
		if (error.code !== "EADDRINUSE") {
			throw error;
		}
		return listen(db, 0);
	}
}

// In two steps, so that there is a whole file whatever happens.
async function save(db) {
	const data = await db.dumpDataDir("none");
	mkdirSync(dirname(SAVED), { recursive: true });
	writeFileSync(`${SAVED}.new`, await data.bytes());
	renameSync(`${SAVED}.new`, SAVED);
}
