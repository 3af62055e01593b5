import { env, exports } from "cloudflare:workers";
import type { MockInstance } from "vitest";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DatabaseError, hyperdriveQuery } from "./worker";

let log: MockInstance<typeof console.error>;

beforeEach(async () => {
	log = vi.spyOn(console, "error").mockReturnValue();
	await hyperdriveQuery(env, (sql) =>
		sql.unsafe(`
			SET client_min_messages = error;
			DROP SCHEMA IF EXISTS contract CASCADE;
			CREATE SCHEMA contract;
			CREATE TABLE contract.visits (id integer PRIMARY KEY, name text);
			CREATE TABLE contract.authors (id integer);
			CREATE VIEW contract.latest AS SELECT * FROM contract.visits`),
	);
});

afterEach(() => {
	vi.restoreAllMocks();
});

const TABLES = [
	{ schema: "contract", name: "authors" },
	{ schema: "contract", name: "visits" },
];

function get(schema: string): Promise<Response> {
	const headers = { Authorization: `Bearer ${env.API_TOKEN}` };
	const url = `https://example.com/db/tables?schema=${encodeURIComponent(schema)}`;
	return exports.default.fetch(new Request(url, { headers }));
}

describe("GET /db/tables", () => {
	it.each([
		["contract", TABLES],
		["Contract", []],
		["contract_", []],
		[`_aZ0$${"z".repeat(58)}`, []],
	])("lists the tables of %s by name, and no views", async (schema, tables) => {
		const response = await get(schema);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({ tables });
	});

	it("answers 20 requests at once, each with its own schema", async () => {
		const responses = await Promise.all(
			Array.from({ length: 20 }, (_, i) => get(i % 2 ? "contract" : "none")),
		);
		const answers = await Promise.all(responses.map((one) => one.json()));
		expect(answers).toEqual(
			answers.map((_, i) => ({ tables: i % 2 ? TABLES : [] })),
		);
	});

	it.each([
		...["a-b", "größe", "a".repeat(64), "public\n", "public\0", "*", "$1"],
		...['"public"', "public.visits", "' OR '1'='1"],
		"contract'; DROP TABLE contract.visits; --",
		"pg_catalog') UNION SELECT usename, passwd FROM pg_shadow --",
	])("answers 400 to %j and does nothing", async (schema) => {
		const response = await get(schema);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_query", issues: [{ path: "schema" }] },
		});
		expect(await (await get("contract")).json()).toEqual({ tables: TABLES });
	});
});

describe("hyperdriveQuery", () => {
	it("takes several queries at once", async () => {
		const numbers = Array.from({ length: 20 }, (_, i) => i);
		const rows = await hyperdriveQuery(env, (sql) =>
			Promise.all(numbers.map((i) => sql`SELECT ${i}::integer AS number`)),
		);
		expect(rows.map(([row]) => row?.number)).toEqual(numbers);
	});

	it("undoes a transaction that the callback breaks off", async () => {
		const mine = new RangeError("mine");
		const query = hyperdriveQuery(env, (sql) =>
			sql.begin(async (sql) => {
				await sql`INSERT INTO contract.visits VALUES (1)`;
				throw mine;
			}),
		);
		await expect(query).rejects.toBe(mine);
		const rows = await hyperdriveQuery(
			env,
			(sql) => sql`SELECT * FROM contract.visits`,
		);
		expect(rows).toHaveLength(0);
		expect(log).not.toHaveBeenCalled();
	});

	it.each([
		["22P02", "SELECT 'secret'::integer"],
		["22012", "SELECT 1 / 0"],
		[
			"23505",
			"INSERT INTO contract.visits VALUES (1, 'secret'), (1, 'secret')",
		],
		["P0001", "DO $$ BEGIN RAISE EXCEPTION 'secret'; END $$"],
		["42P01", "SELECT 'secret' FROM contract.nowhere"],
		["42601", "SELEKT 'secret'"],
	])(
		"turns %s into a 502 whose log line has no value",
		async (code, statement) => {
			const query = hyperdriveQuery(env, (sql) => sql.unsafe(statement));
			const error = await query.catch((error) => error);
			expect(error).toBeInstanceOf(DatabaseError);
			expect(error).toMatchObject({ status: 502, sqlState: code });
			expect(JSON.stringify([error, error.cause])).not.toContain("secret");
			expect(log).toHaveBeenCalledOnce();
			const line = String(log.mock.calls[0]?.[0]);
			expect(JSON.parse(line)).toMatchObject({ level: "error", code });
			expect(line).not.toContain("secret");
		},
	);

	it("logs the message of an error that quotes no value", async () => {
		const query = hyperdriveQuery(env, (sql) => sql`SELECT * FROM nowhere`);
		await expect(query).rejects.toThrow(DatabaseError);
		expect(log.mock.calls[0]?.[0]).toContain("nowhere");
	});

	it("says in a 502 nothing but that the database failed", async () => {
		vi.spyOn(env, "HYPERDRIVE", "get").mockReturnValue({
			...env.HYPERDRIVE,
			host: "127.0.0.1",
			port: 1, // Nothing listens there.
		});
		const response = await get("public");
		expect(response.status).toBe(502);
		expect(await response.json()).toEqual({
			error: {
				code: "database_failed",
				message: "The database failed. The logs say why.",
			},
		});
		const line = JSON.parse(String(log.mock.calls[0]?.[0]));
		expect(line).toMatchObject({ code: "ECONNREFUSED" });
	});

	it("tells an error of the callback's own by no code", async () => {
		const mine = Object.assign(new Error("mine"), { code: "ECONNREFUSED" });
		const query = hyperdriveQuery(env, () => Promise.reject(mine));
		await expect(query).rejects.toBe(mine);
		expect(log).not.toHaveBeenCalled();
	});
});
