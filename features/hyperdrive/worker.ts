import type { Context } from "hono";
import postgres from "postgres";
import type { AppEnv } from "../../base/http/worker";
import { ApiError, app, logError } from "../../base/http/worker";
import { operatorOnly } from "../../base/operator/worker";

const HYPERDRIVE_TIMEOUT_MS = 10_000;

/**
 * Asks the database through Hyperdrive.
 *
 * @param c The request.
 * @param query Gets a client and returns what it finds with it. Values belong
 * into the tagged template, which sends them apart from the SQL.
 * @returns What `query` returned.
 * @throws ApiError 502 when the database fails or takes too long. Only the logs
 * say why.
 */
async function hyperdriveQuery<T>(
	c: Context<AppEnv>,
	query: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
	// Its sockets belong to this request and close with it. What lasts is
	// Hyperdrive's own pool, so there is nothing to end or to share.
	const sql = postgres(c.env.HYPERDRIVE.connectionString, {
		max: 5, // The runtime opens six connections a request at most.
		fetch_types: false, // Saves a round trip; array columns would need it.
	});
	try {
		return await Promise.race([query(sql), hyperdriveTimeout()]);
	} catch (error) {
		logError("Database query failed", error, { requestId: c.var.requestId });
		throw new ApiError(502, "database_failed", "The database did not answer.");
	}
}

// Postgres.js itself goes on trying for as long as connections break early.
async function hyperdriveTimeout(): Promise<never> {
	await scheduler.wait(HYPERDRIVE_TIMEOUT_MS);
	throw new Error(`No answer within ${HYPERDRIVE_TIMEOUT_MS} ms`);
}

function hyperdriveSchema(schema: string): string {
	if (!/^[A-Za-z_][A-Za-z0-9_$]{0,62}$/.test(schema)) {
		throw new ApiError(
			400,
			"invalid_schema",
			"A schema has 1 to 63 letters, digits, `_` or `$`, and begins with a letter or `_`.",
		);
	}
	return schema;
}

app.get("/db/tables", operatorOnly, async (c) => {
	const schema = hyperdriveSchema(c.req.query("schema") ?? "public");
	const tables = await hyperdriveQuery(
		c,
		(sql) => sql`
			SELECT schemaname AS schema, tablename AS name
			FROM pg_tables
			WHERE schemaname = ${schema}
			ORDER BY tablename`,
	);
	return c.json({ tables });
});
