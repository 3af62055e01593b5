import { connect } from "node:net";
import { Hono } from "hono";
import postgres from "postgres";
import { operatorOnly } from "../../base/access/worker";
import type { AppEnv } from "../../base/base/worker";
import { ApiError, logError, logInfo } from "../../base/base/worker";

const DATABASE_TIMEOUT_MS = 10_000;

/**
 * An error of the database that no caller has turned into an answer of its own.
 *
 * The client gets a 502 that says nothing of it. Its cause is Postgres.js's error.
 */
export class DatabaseError extends ApiError {
	/** PostgreSQL's code, such as `23505`; `undefined` when it did not answer. */
	sqlState: string | undefined;
	/** A message may quote a value; what does not is logged where it fails. */
	isCausePrivate = true;

	constructor(cause: unknown) {
		const message = "The database failed. The logs say why.";
		super(502, "database_failed", message, {}, { cause });
		this.sqlState =
			cause instanceof postgres.PostgresError ? cause.code : undefined;
	}
}

/**
 * Asks the database through Hyperdrive: in a route, a Durable Object, an agent
 * or a step of a Workflow.
 *
 * @param query Gets a client, which is closed afterwards. Values belong in the
 * tagged template, which sends them apart from the SQL.
 * @param about What the log line of a failure tells, such as a `requestId`.
 * @returns What `query` returned.
 * @throws What `query` threw; DatabaseError instead of an error of the database,
 * and when it takes too long.
 */
export async function hyperdriveQuery<T>(
	env: Env,
	query: (sql: postgres.Sql) => Promise<T>,
	about: Record<string, unknown> = {},
): Promise<T> {
	const { connectionString, host, port } = env.HYPERDRIVE;
	// What lasts is Hyperdrive's own pool. A request would close its sockets when
	// it ends, but a Durable Object keeps them. `sql.end()` closes them too, but
	// the sockets of Postgres.js for Workers then throw where nobody can catch it.
	const end = new AbortController();
	const broken = new Set<unknown>();
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
		return await Promise.race([query(sql), databaseTimeout(end.signal)]);
	} catch (error) {
		if (isDatabaseFailure(error) || broken.has(error)) {
			logDatabaseFailure(error, about);
			throw new DatabaseError(error);
		}
		throw error;
	} finally {
		end.abort();
	}
}

// Postgres.js itself goes on trying for as long as connections break early.
async function databaseTimeout(signal: AbortSignal): Promise<never> {
	await scheduler.wait(DATABASE_TIMEOUT_MS, { signal });
	throw Object.assign(new Error(`No answer in ${DATABASE_TIMEOUT_MS} ms`), {
		code: "CONNECTION_TIMEOUT",
	});
}

function isDatabaseFailure(error: unknown): boolean {
	return (
		error instanceof postgres.PostgresError ||
		// Postgres.js's own: CONNECTION_CLOSED and the like.
		/^(CONNECTION_(CLOSED|ENDED|DESTROYED|TIMEOUT)|CONNECT_TIMEOUT)$/.test(
			Object(error).code,
		)
	);
}

/** Logs why the database failed, and nothing of what rows or queries hold. */
function logDatabaseFailure(
	error: unknown,
	about: Record<string, unknown>,
): void {
	if (!(error instanceof postgres.PostgresError)) {
		logError("Database query failed", error, about);
		return;
	}
	const { code: sqlState, constraint_name: constraint } = error;
	if (sqlState.startsWith("23")) {
		// The database works, and most callers have an answer to this.
		logInfo("Database constraint violated", {
			...about,
			sqlState,
			constraint,
		});
		return;
	}
	// The messages of data exceptions quote the value; `RAISE` says anything.
	const isQuoting = /^(22|P0)/.test(sqlState);
	const reason = isQuoting ? "The message is left out" : error;
	logError("Database query failed", reason, { ...about, sqlState });
}

function schemaName(schema: string): string {
	if (!/^[A-Za-z_][A-Za-z0-9_$]{0,62}$/.test(schema)) {
		throw new ApiError(
			400,
			"invalid_schema",
			"A schema has 1 to 63 letters, digits, `_` or `$`, and begins with a letter or `_`.",
		);
	}
	return schema;
}

export const database = new Hono<AppEnv>();

database.get("/db/tables", operatorOnly, async (c) => {
	const schema = schemaName(c.req.query("schema") ?? "public");
	const tables = await hyperdriveQuery(
		c.env,
		(sql) => sql`
			SELECT schemaname AS schema, tablename AS name
			FROM pg_tables
			WHERE schemaname = ${schema}
			ORDER BY tablename`,
		{ requestId: c.var.requestId },
	);
	return c.json({ tables });
});
