import { connect } from "node:net";
import { Hono } from "hono";
import postgres from "postgres";
import * as z from "zod";
import { operatorOnly } from "../../base/access/worker";
import { ApiError, logError, parseInput } from "../../base/base/worker";

/** An error of the database. The client gets a 502 that says nothing of it. */
export class DatabaseError extends ApiError {
	/** PostgreSQL's code, such as `23505`; `undefined` when it did not answer. */
	sqlState;

	constructor(sqlState) {
		super(502, "database_failed", "The database failed. The logs say why.");
		this.sqlState = sqlState;
	}
}

/**
 * Asks the database: in a route, a Durable Object, an agent or a Workflow's step.
 *
 * @param query Gets a client, which is closed afterwards. Values belong in the
 * tagged template, which sends them apart from the SQL.
 * @throws What `query` throws; DatabaseError for an error of the database, and
 * after ten seconds.
 */
export async function hyperdriveQuery(env, query) {
	const { connectionString, host, port } = env.HYPERDRIVE;
	// A Durable Object would keep the sockets. `sql.end()` closes them too, but
	// then throws in Workers where nobody can catch it.
	const end = new AbortController();
	const broken = new Set();
	const options = {
		max: 5, // The runtime opens at most six connections per request.
		fetch_types: false, // Saves a round trip; array columns would need it.
		socket: () =>
			connect({ host, port, signal: end.signal }).on("error", (error) =>
				broken.add(error),
			),
	};
	const sql = postgres(connectionString, options);
	try {
		return await Promise.race([query(sql), noAnswer(end.signal)]);
	} catch (error) {
		const { code } = Object(error);
		const isAnswer = error instanceof postgres.PostgresError;
		if (!isAnswer && !broken.has(error) && !/^CONNECT/.test(code)) {
			throw error;
		}
		// Data errors, broken constraints and `RAISE` may quote values.
		const isQuoting = isAnswer && /^(22|23|P0)/.test(code);
		logError("Database query failed", isQuoting ? code : error, { code });
		throw new DatabaseError(isAnswer ? code : undefined);
	} finally {
		end.abort();
	}
}

// Postgres.js itself goes on trying for as long as connections break early.
async function noAnswer(signal) {
	await scheduler.wait(10_000, { signal });
	throw Object.assign(new Error("No answer"), { code: "CONNECT_TIMEOUT" });
}

const tablesQuery = z.object({
	schema: z
		.stringFormat("identifier", /^[A-Za-z_][\w$]{0,62}$/)
		.default("public"),
});

/** @type {Hono<{ Bindings: Env }>} */
export const database = new Hono();

database.get("/db/tables", operatorOnly, async (c) => {
	const { schema } = parseInput(tablesQuery, c.req.query(), "invalid_query");
	const tables = await hyperdriveQuery(
		c.env,
		(sql) => sql`
			SELECT schemaname AS schema, tablename AS name
			FROM pg_tables WHERE schemaname = ${schema} ORDER BY tablename`,
	);
	return c.json({ tables });
});
