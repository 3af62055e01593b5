import { env, exports } from "cloudflare:workers";
import postgres from "postgres";
import {
	afterAll,
	afterEach,
	beforeAll,
	describe,
	expect,
	it,
	vi,
} from "vitest";
import { hyperdriveQuery } from "./worker";

// The tests have a database of their own; tests of yours may use other schemas.
const SCHEMA = "test_hyperdrive";

/** Sends SQL to the database past the Worker. */
async function run(statements: string): Promise<void> {
	const { connectionString } = env.HYPERDRIVE;
	await postgres(connectionString, { max: 1, onnotice() {} }).unsafe(
		statements,
	);
}

function get(query: string, token = env.API_TOKEN): Promise<Response> {
	return exports.default.fetch(
		new Request(`https://example.com/db/tables${query}`, {
			headers: { Authorization: `Bearer ${token}` },
		}),
	);
}

beforeAll(async () => {
	await run(`
		DROP SCHEMA IF EXISTS ${SCHEMA} CASCADE;
		CREATE SCHEMA ${SCHEMA};
		CREATE TABLE ${SCHEMA}.visits (id integer);
		CREATE TABLE ${SCHEMA}.authors (id integer);
		CREATE VIEW ${SCHEMA}.latest AS SELECT * FROM ${SCHEMA}.visits`);
});

afterAll(async () => {
	await run(`DROP SCHEMA ${SCHEMA} CASCADE`);
});

afterEach(() => {
	vi.restoreAllMocks();
});

const TABLES = [
	{ schema: SCHEMA, name: "authors" },
	{ schema: SCHEMA, name: "visits" },
];

describe("GET /db/tables", () => {
	it("lists the tables of a schema by name", async () => {
		const response = await get(`?schema=${SCHEMA}`);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({ tables: TABLES });
	});

	it("lists those of the schema public unless told otherwise", async () => {
		const response = await get("");
		expect(response.status).toBe(200);
		const { tables } = await response.json<{ tables: unknown[] }>();
		expect(tables).toContainEqual({
			schema: "public",
			name: "hyperdrive_migrations",
		});
		expect(await (await get("?schema=public")).json()).toEqual({ tables });
	});

	it("finds nothing in a schema that is not there", async () => {
		const response = await get(`?schema=${SCHEMA}_`);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({ tables: [] });
	});

	it("takes a name of 63 characters with each kind of them", async () => {
		const response = await get(`?schema=_aZ0$${"z".repeat(58)}`);
		expect(response.status).toBe(200);
	});

	it("answers 20 requests at once, each with its own schema", async () => {
		const responses = await Promise.all(
			Array.from({ length: 20 }, (_, number) =>
				get(`?schema=${number % 2 ? SCHEMA : "none"}`),
			),
		);
		const answers = await Promise.all(responses.map((r) => r.json()));
		expect(answers).toEqual(
			answers.map((_, number) => ({ tables: number % 2 ? TABLES : [] })),
		);
	});

	it("needs the operator's token", async () => {
		const response = await get(`?schema=${SCHEMA}`, "wrong");
		expect(response.status).toBe(401);
		expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
	});
});

describe("a schema that is not a valid name", () => {
	const hostile = [
		"",
		"1st",
		"two words",
		"a-b",
		"größe",
		"a".repeat(64),
		"public\n",
		"public\0",
		"*",
		'"public"',
		"public.visits",
		"' OR '1'='1",
		"public'; DROP SCHEMA public CASCADE; --",
		`${SCHEMA}'; DROP TABLE ${SCHEMA}.visits; --`,
		"$1",
		"pg_catalog') UNION SELECT usename, passwd FROM pg_shadow --",
	];

	it.each(hostile)("is refused and does nothing: %j", async (schema) => {
		const response = await get(`?schema=${encodeURIComponent(schema)}`);
		expect(response.status).toBe(400);
		expect(await response.json()).toMatchObject({
			error: { code: "invalid_schema" },
		});
		const after = await get(`?schema=${SCHEMA}`);
		expect(await after.json()).toEqual({ tables: TABLES });
	});
});

describe("a database that fails", () => {
	it("is a 502 and one log line, both without credentials", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env, "HYPERDRIVE", "get").mockReturnValue({
			...env.HYPERDRIVE,
			connectionString: "postgres://some-user:some-password@127.0.0.1:1/any",
			host: "127.0.0.1",
			port: 1, // Nothing listens there.
		});
		const response = await get("");
		expect(response.status).toBe(502);
		expect(await response.json()).toEqual({
			error: {
				code: "database_failed",
				message: "The database failed. The logs say why.",
			},
		});
		expect(log).toHaveBeenCalledTimes(1);
		const line: string = log.mock.calls[0]?.[0];
		expect(JSON.parse(line)).toMatchObject({
			level: "error",
			requestId: response.headers.get("X-Request-Id"),
		});
		expect(line).not.toMatch(/some-user|some-password|postgres:/);
	});

	it("is a 502 when it takes more than ten seconds", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		const wait = vi.spyOn(scheduler, "wait").mockResolvedValue();
		expect((await get("")).status).toBe(502);
		expect(wait).toHaveBeenCalledWith(10_000, expect.anything());
		expect(log).toHaveBeenCalledTimes(1);
	});
});

describe("hyperdriveQuery", () => {
	it("logs no value that an error quotes, nor lets others log it", async () => {
		const log = vi.spyOn(console, "error").mockReturnValue();
		const query = hyperdriveQuery(
			env,
			(sql) => sql`SELECT ${"secret"}::integer`,
		);
		await expect(query).rejects.toMatchObject({
			sqlState: "22P02",
			cause: { message: expect.stringContaining("secret") },
			isCausePrivate: true,
		});
		expect(log).toHaveBeenCalledOnce();
		expect(String(log.mock.calls[0])).not.toContain("secret");
	});
});
