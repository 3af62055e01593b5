import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { hyperdriveQuery } from "./worker";

let log;

beforeEach(() => {
	log = vi.spyOn(console, "error").mockReturnValue();
});

afterEach(() => {
	vi.restoreAllMocks();
});

function get(query, token = env.API_TOKEN) {
	const headers = { Authorization: `Bearer ${token}` };
	const url = `https://example.com/db/tables${query}`;
	return exports.default.fetch(new Request(url, { headers }));
}

it("lists the tables of a schema", async () => {
	const response = await get("?schema=pg_catalog");
	expect(response.status).toBe(200);
	const { tables } = await response.json();
	expect(tables).toContainEqual({ schema: "pg_catalog", name: "pg_class" });
});

it("lists those of the schema public unless told otherwise", async () => {
	const create = "CREATE TABLE IF NOT EXISTS test_tables (id integer)";
	await hyperdriveQuery(env, (sql) => sql.unsafe(create));
	expect(await (await get("")).json()).toMatchObject({
		tables: expect.arrayContaining([{ schema: "public", name: "test_tables" }]),
	});
});

it.each(["", "two words", "1st", "public'; DROP SCHEMA public CASCADE; --"])(
	"refuses the schema %j",
	async (schema) => {
		const response = await get(`?schema=${encodeURIComponent(schema)}`);
		expect(response.status).toBe(400);
		expect((await get("")).status).toBe(200);
	},
);

it("needs the operator's token", async () => {
	expect((await get("", "wrong")).status).toBe(401);
});

it("answers 502 when the database is down, and tells no credentials", async () => {
	vi.spyOn(env, "HYPERDRIVE", "get").mockReturnValue({
		...env.HYPERDRIVE,
		connectionString: "postgres://some-user:some-password@127.0.0.1:1/any",
		host: "127.0.0.1",
		port: 1, // Nothing listens there.
	});
	const response = await get("");
	expect(response.status).toBe(502);
	expect(await response.text()).not.toMatch(/some-|127/);
	expect(log).toHaveBeenCalledOnce();
	expect(log.mock.calls[0]?.[0]).not.toMatch(/some-user|some-password/);
});

it("tells callers the SQLSTATE, and the logs no value", async () => {
	const query = hyperdriveQuery(env, (sql) => sql`SELECT ${"secret"}::integer`);
	await expect(query).rejects.toMatchObject({ status: 502, sqlState: "22P02" });
	expect(log).toHaveBeenCalledOnce();
	expect(log.mock.calls[0]?.[0]).toContain("22P02");
	expect(log.mock.calls[0]?.[0]).not.toContain("secret");
});

it("passes on what the callback throws", async () => {
	const mine = new RangeError("mine");
	const query = hyperdriveQuery(env, () => Promise.reject(mine));
	await expect(query).rejects.toBe(mine);
	expect(log).not.toHaveBeenCalled();
});
