// Applies the files of `migrations/hyperdrive` to a database, once each.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

// An import would get Vitest the one for Workers.
const postgres = createRequire(import.meta.url)("postgres");
const FOLDER = new URL("../migrations/hyperdrive/", import.meta.url);
const LOCK = 4_726_283; // Any number that nothing else locks.
const CONNECT_MS = 5000;

/** The database cannot be reached. */
export class UnreachableError extends Error {}

/**
 * Applies the files that a database does not have, in the order of their names.
 * Each is a transaction, and two that migrate at once take turns.
 *
 * @param {string} url The database's connection string.
 * @returns {Promise<string[]>} The names of the files that it applied.
 * @throws An error that names the file, never the connection string.
 */
export async function migrate(url) {
	const sql = await connect(url);
	const applied = [];
	try {
		const names = readdirSync(FOLDER).filter((name) => name.endsWith(".sql"));
		for (const name of names.sort()) {
			if (await applyOnce(sql, name)) {
				applied.push(name);
			}
		}
	} finally {
		await sql.end({ timeout: 1 });
	}
	return applied;
}

/**
 * Connects to a database.
 *
 * @param {string} url The database's connection string.
 * @returns A client with one connection; end it.
 * @throws UnreachableError when the database does not answer.
 */
export async function connect(url) {
	if (!URL.canParse(url)) {
		throw new Error("Use postgres://USER:PASSWORD@HOST:PORT/DATABASE.");
	}
	const sql = postgres(url, { max: 1, onnotice() {} });
	let timer;
	// Postgres.js itself goes on trying while a server closes its connections.
	const timeout = new Promise((_, reject) => {
		const error = new Error(`no answer within ${CONNECT_MS / 1000} seconds`);
		timer = setTimeout(reject, CONNECT_MS, error);
	});
	try {
		await Promise.race([sql`SELECT`, timeout]);
		return sql;
	} catch (error) {
		await sql.end({ timeout: 0 });
		throw error instanceof postgres.PostgresError
			? error
			: new UnreachableError(`The database is unreachable: ${error.message}`);
	} finally {
		clearTimeout(timer);
	}
}

async function applyOnce(sql, name) {
	try {
		return await sql.begin(async (sql) => {
			await sql`SELECT pg_advisory_xact_lock(${LOCK})`;
			await sql`
				CREATE TABLE IF NOT EXISTS hyperdrive_migrations (
					name text PRIMARY KEY,
					applied_at timestamptz NOT NULL DEFAULT now()
				)`;
			const { count } = await sql`
				INSERT INTO hyperdrive_migrations (name) VALUES (${name})
				ON CONFLICT DO NOTHING`;
			if (count === 1) {
				await sql.unsafe(readFileSync(new URL(name, FOLDER), "utf8"));
			}
			return count === 1;
		});
	} catch (error) {
		throw new Error(`migrations/hyperdrive/${name}: ${error.message}`);
	}
}
