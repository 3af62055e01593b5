// The database of `dev` and the tests: an embedded Postgres, unless the shell or
// `.env` names another. `node scripts/hyperdrive.mjs wrangler dev` runs a command
// beside it; without a command, this migrates the database in DATABASE_URL.
import { spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { PGlite } from "@electric-sql/pglite";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";

// An import would get Vitest the one for Workers.
const postgres = createRequire(import.meta.url)("postgres");
const VARIABLE = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE";
const MIGRATIONS = "migrations/hyperdrive";

/** Applies the files that a database does not have, each in a transaction. */
async function migrate(url, log) {
	const folder = new URL(`../${MIGRATIONS}/`, import.meta.url);
	const files = fs.existsSync(folder) ? fs.readdirSync(folder).sort() : [];
	const sql = postgres(url, { max: 1, connect_timeout: 5, onnotice() {} });
	for (const name of files.filter((file) => file.endsWith(".sql"))) {
		const apply = async (sql) => {
			// Two that migrate at once take turns.
			await sql`SELECT pg_advisory_xact_lock(4726283)`;
			await sql`CREATE TABLE IF NOT EXISTS hyperdrive_migrations (
				name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`;
			const { count } = await sql`INSERT INTO hyperdrive_migrations (name)
				VALUES (${name}) ON CONFLICT DO NOTHING`;
			if (count === 1) {
				await sql.unsafe(fs.readFileSync(new URL(name, folder), "utf8"));
				log(`Applied ${MIGRATIONS}/${name}`);
			}
		};
		await sql.begin(apply).catch(async (error) => {
			await sql.end({ timeout: 1 });
			const reason = error.message || error.code;
			throw new Error(`${MIGRATIONS}/${name}: ${reason}`);
		});
	}
	await sql.end();
}

/**
 * Postgres for many connections, which share one backend. The socket server lets
 * another connection in after each message outside of a transaction. But a query
 * is several messages, up to a Sync, and must not get mixed up with another's.
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

/** Starts an embedded Postgres unless a database is configured; migrates it. */
async function start(log, file = "") {
	if (fs.existsSync(".env")) {
		process.loadEnvFile();
	}
	if (process.env[VARIABLE]) {
		await migrate(process.env[VARIABLE], log);
		return async () => {};
	}
	const saved = fs.existsSync(file) ? [fs.readFileSync(file)] : [];
	const db = new SharedPostgres(saved[0] && { loadDataDir: new Blob(saved) });
	const server = new PGLiteSocketServer({ db, port: 0, maxConnections: 100 });
	await server.start();
	const stop = async () => {
		await server.stop();
		if (file) {
			// In two steps, so that there is a whole file whatever happens.
			const data = await db.dumpDataDir("none");
			fs.writeFileSync(`${file}.new`, await data.bytes());
			fs.renameSync(`${file}.new`, file);
		}
		await db.close();
	};
	const url = `postgres://postgres:postgres@${server.getServerConn()}/postgres`;
	process.env[VARIABLE] = url;
	await migrate(url, log).catch(async (error) => {
		await stop();
		throw error;
	});
	log(`The database is at: psql ${url}`);
	return stop;
}

/** Prepares the database of the tests, before Vitest starts their Workers. */
export const setup = () => start(() => {});

/** Runs a command with the database beside it; resolves to its exit code. */
async function run(command, args) {
	fs.mkdirSync(".wrangler/state", { recursive: true });
	const stop = await start(console.log, ".wrangler/state/hyperdrive.tar");
	const shell = process.platform === "win32";
	const child = spawn(command, args, { stdio: "inherit", shell });
	process.on("SIGINT", () => {}); // Ctrl-C reaches the command by itself.
	process.on("SIGTERM", () => child.kill());
	// A shell that is killed takes nothing along.
	const { ppid } = process;
	setInterval(() => process.ppid === ppid || child.kill(), 500);
	const [code] = await once(child, "exit");
	await stop();
	return code ?? 1;
}

// Vitest imports this file, and only wants `setup`.
if (process.argv[1]?.endsWith("hyperdrive.mjs")) {
	const [command, ...args] = process.argv.slice(2);
	const { DATABASE_URL } = process.env;
	try {
		if (command) {
			process.exit(await run(command, args));
		}
		if (!DATABASE_URL) {
			throw new Error(
				"Set DATABASE_URL to postgres://USER:PASSWORD@HOST/NAME.",
			);
		}
		await migrate(DATABASE_URL, console.log);
	} catch (error) {
		console.error(error.message);
		process.exit(1);
	}
}
