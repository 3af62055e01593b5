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

// One of its own, since the database may be a real one.
const SCHEMA = `test_${crypto.randomUUID().replaceAll("-", "")}`;

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
		const named = await (await get("?schema=public")).json();
		const response = await get("");
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual(named);
	});

	it("finds nothing in a schema that is not there", async () => {
		const response = await get(`?schema=${SCHEMA}_`);
		expect(response.status).toBe(200);
		expect(await response.json()).toEqual({ tables: [] });
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

describe("a schema that is no identifier", () => {
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
	it("is a 502 and one log line without credentials", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(env, "HYPERDRIVE", "get").mockReturnValue({
			...env.HYPERDRIVE,
			// No host has such a name. A socket to one that does not answer would
			// fail once more later, which Vitest takes for an error of the tests.
			connectionString: "postgres://some-user:some-password@%20/any",
		});
		const response = await get("");
		const body = await response.text();
		expect(response.status).toBe(502);
		expect(JSON.parse(body)).toEqual({
			error: { code: "database_failed", message: expect.any(String) },
		});
		expect(log).toHaveBeenCalledTimes(1);
		const line: string = log.mock.calls[0]?.[0];
		expect(JSON.parse(line)).toMatchObject({
			level: "error",
			requestId: response.headers.get("X-Request-Id"),
		});
		expect(line + body).not.toMatch(/some-user|some-password|postgres:/);
	});

	it("is a 502 when it takes too long", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		const wait = vi.spyOn(scheduler, "wait").mockResolvedValue();
		expect((await get("")).status).toBe(502);
		expect(wait).toHaveBeenCalledWith(10_000);
		expect(log).toHaveBeenCalledTimes(1);
	});
});
