import { env, exports } from "cloudflare:workers";
import type { MiddlewareHandler } from "hono";
import { Hono } from "hono";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { AppEnv } from "./worker";
import { isRouted } from "./worker";

const SITE = "https://example.com";
const OTHER = "https://other.example";

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`${SITE}${path}`, init));
}

afterEach(() => {
	env.ALLOWED_ORIGINS = "";
	vi.restoreAllMocks();
});

describe("errors", () => {
	it("answers an unknown path with 404", async () => {
		const response = await request("/no/such/path");
		expect(response.status).toBe(404);
		expect(await response.json()).toEqual({
			error: { code: "not_found", message: "No such route." },
		});
	});

	it("answers a method that a path does not take with 405 and Allow", async () => {
		const response = await request("/health", { method: "POST" });
		expect(response.status).toBe(405);
		expect(response.headers.get("Allow")).toBe("GET, HEAD");
		expect(await response.json()).toEqual({
			error: {
				code: "method_not_allowed",
				message: "This route takes GET, HEAD.",
			},
		});
	});

	it("answers HEAD without a body", async () => {
		const response = await request("/health", { method: "HEAD" });
		expect(response.status).toBe(200);
		expect(await response.text()).toBe("");
	});

	/** What `GET /health` answers when its handler throws, and what is logged. */
	async function failWith(thrown: unknown) {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		vi.spyOn(JSON, "stringify").mockImplementationOnce(() => {
			throw thrown;
		});
		const response = await request("/health?token=in-the-query");
		const lines = log.mock.calls.map(([line]) => line);
		return { response, body: await response.text(), lines };
	}

	it("logs what was unexpected as one line, and keeps it to itself", async () => {
		const cause = new TypeError("the inner cause");
		const { response, body, lines } = await failWith(
			new Error("the secret cause", { cause }),
		);
		const requestId = response.headers.get("X-Request-Id");
		expect(response.status).toBe(500);
		expect(JSON.parse(body)).toEqual({
			error: {
				code: "internal_error",
				message: "Something went wrong. The logs know this requestId.",
				requestId,
			},
		});
		expect(lines).toHaveLength(1);
		expect(lines[0]).not.toContain("in-the-query");
		expect(JSON.parse(lines[0])).toEqual({
			level: "error",
			message: "Unexpected error",
			version: env.CF_VERSION_METADATA.id,
			requestId,
			method: "GET",
			path: "/health",
			error: {
				name: "Error",
				message: "the secret cause",
				stack: expect.stringMatching(/^Error: the secret cause\n +at /),
				cause: {
					name: "TypeError",
					message: "the inner cause",
					stack: expect.any(String),
				},
			},
		});
	});

	it("answers anything thrown with a 500", async () => {
		const { response, lines } = await failWith("only text");
		expect(response.status).toBe(500);
		expect(JSON.parse(lines[0])).toMatchObject({
			error: { name: "Error", message: "only text" },
		});
	});

	it("logs a cause that is no error by its type", async () => {
		const { lines } = await failWith(new Error("why", { cause: "only text" }));
		expect(JSON.parse(lines[0]).error.cause).toEqual({
			name: "string",
			message: "only text",
		});
	});

	it("logs what was wrong with an input", async () => {
		const issues = [{ path: "a", message: "Must be text" }];
		const refused = new Error("Correct what `issues` lists");
		const { lines } = await failWith(Object.assign(refused, { issues }));
		expect(JSON.parse(lines[0]).error.issues).toEqual(issues);
	});

	it("logs no cause that an error says is private", async () => {
		const error = new Error("why", { cause: new Error("Ada's address") });
		const { lines } = await failWith(
			Object.assign(error, { isCausePrivate: true }),
		);
		expect(lines[0]).toContain("why");
		expect(lines[0]).not.toContain("Ada");
	});

	it("logs the name of a class of errors, and at most three causes", async () => {
		class BadDayError extends Error {}
		let cause: Error | undefined;
		for (const message of ["5", "4", "3", "2", "1"]) {
			cause = new BadDayError(message, { cause });
		}
		const { lines } = await failWith(cause);
		const { error } = JSON.parse(lines[0]);
		expect(error.name).toBe("BadDayError");
		expect(error.cause.cause.cause.message).toBe("4");
		expect(error.cause.cause.cause.cause).toBeUndefined();
	});
});

describe("headers", () => {
	it("carry an id that the client cannot choose", async () => {
		const headers = { "X-Request-Id": "chosen-by-the-client" };
		const ids = new Set<string | null>();
		for (const _ of [1, 2]) {
			const response = await request("/health", { headers });
			ids.add(response.headers.get("X-Request-Id"));
		}
		expect(ids.size).toBe(2);
		for (const id of ids) {
			expect(id).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
		}
	});

	it.each([
		["/health", "GET"],
		["/no/such/path", "GET"],
		["/health", "POST"],
	])("are the safe ones on %s by %s", async (path, method) => {
		const response = await request(path, { method });
		expect(Object.fromEntries(response.headers)).toMatchObject({
			"cache-control": "no-store",
			"content-security-policy": "default-src 'none'; frame-ancestors 'none'",
			"cross-origin-opener-policy": "same-origin",
			"cross-origin-resource-policy": "same-origin",
			"origin-agent-cluster": "?1",
			"referrer-policy": "no-referrer",
			"strict-transport-security": "max-age=31536000",
			vary: "Origin",
			"x-content-type-options": "nosniff",
			"x-dns-prefetch-control": "off",
			"x-download-options": "noopen",
			"x-frame-options": "SAMEORIGIN",
			"x-permitted-cross-domain-policies": "none",
			"x-request-id": expect.any(String),
			"x-xss-protection": "0",
		});
	});
});

describe("isRouted", () => {
	const answer = () => new Response("yes");

	/** Whether a POST has a route in an app, which has middleware for all paths. */
	async function routes(path: string, add: (app: Hono<AppEnv>) => unknown) {
		let found: boolean | undefined;
		const app = new Hono<AppEnv>();
		for (const all of ["*", "/*"]) {
			app.use(all, async (c, next) => {
				found = isRouted(c);
				await next();
			});
		}
		add(app);
		await app.request(path, { method: "POST" }, env);
		return found;
	}

	it.each<[string, (app: Hono<AppEnv>) => unknown]>([
		["a route", (app) => app.post("/x/y", answer)],
		["a route for all methods", (app) => app.all("/x/y", answer)],
		[
			"a route for all methods that may pass",
			(app) => app.all("/x/*", (_, next) => next()),
		],
		["a route for all paths", (app) => app.post("*", answer)],
		["a route for all methods and paths", (app) => app.all("*", answer)],
		[
			"middleware for some paths",
			(app) => app.use("/x/*", async () => answer()),
		],
		["a mounted app", (app) => app.mount("/x", answer)],
		[
			"an app with errors of its own",
			(app) =>
				app.route("/x", new Hono<AppEnv>().all("/y", answer).onError(answer)),
		],
	])("sees %s", async (_, add) => {
		expect(await routes("/x/y", add)).toBe(true);
	});

	it("sees neither routes of other methods nor those of other paths", async () => {
		const other = (app: Hono<AppEnv>) =>
			app.get("/x/y", answer).post("/x", answer);
		expect(await routes("/x/y", other)).toBe(false);
	});

	it("sees nothing in middleware for all paths", async () => {
		const pass: MiddlewareHandler = (_, next) => next();
		const part = new Hono<AppEnv>().use(pass);
		const found = routes("/x/y", (app) => app.use(pass).route("/", part));
		expect(await found).toBe(false);
	});
});

describe("pages of other sites", () => {
	const preflight = { Origin: OTHER, "Access-Control-Request-Method": "POST" };

	/** The CORS headers of a response. */
	function cors(response: Response): Record<string, string> {
		const names = [...response.headers].filter(([name]) =>
			name.startsWith("access-"),
		);
		return Object.fromEntries(names);
	}

	it.each([
		["", OTHER],
		["https://one.example", OTHER],
		// Neither a part of an allowed origin nor more than one is allowed.
		["https://other.example.org", OTHER],
		["https://other.exampl", OTHER],
		["https://other.example:8443", OTHER],
		["http://other.example", OTHER],
		["null", "null"],
		["*", OTHER],
		["*", "*"],
	])(
		"get no CORS header with ALLOWED_ORIGINS=%s from %s",
		async (allowed, Origin) => {
			env.ALLOWED_ORIGINS = allowed;
			for (const method of ["GET", "OPTIONS"]) {
				const headers = { ...preflight, Origin };
				const response = await request("/health", { method, headers });
				expect(response.status).toBe(method === "GET" ? 200 : 204);
				expect(cors(response)).toEqual({});
				expect(response.headers.get("Vary")).toContain("Origin");
				expect(response.headers.get("X-Request-Id")).not.toBeNull();
			}
		},
	);

	it.each([
		"https://one.example, https://other.example",
		"https://other.example/",
		"HTTPS://Other.Example",
		"https://other.example:443/app",
	])("may read answers with ALLOWED_ORIGINS=%s", async (allowed) => {
		env.ALLOWED_ORIGINS = allowed;
		const read = await request("/health", { headers: { Origin: OTHER } });
		expect(read.status).toBe(200);
		expect(read.headers.get("Vary")).toContain("Origin");
		expect(cors(read)).toEqual({
			"access-control-allow-credentials": "true",
			"access-control-allow-origin": OTHER,
			"access-control-expose-headers":
				"Content-Disposition,Content-Range,ETag,Location,Retry-After,X-Request-Id",
		});
		const asked = await request("/health", {
			method: "OPTIONS",
			headers: { ...preflight, "Access-Control-Request-Headers": "X-Mine" },
		});
		expect(asked.status).toBe(204);
		expect(asked.headers.get("Vary")).toContain("Origin");
		expect(cors(asked)).toMatchObject({
			"access-control-allow-credentials": "true",
			"access-control-allow-headers": "X-Mine",
			"access-control-allow-methods": expect.stringContaining("DELETE"),
			"access-control-allow-origin": OTHER,
			"access-control-max-age": "600",
		});
	});

	it("are not taken for a preflight when they only ask for OPTIONS", async () => {
		const response = await request("/health", {
			method: "OPTIONS",
			headers: { Origin: OTHER },
		});
		expect(response.status).toBe(405);
	});
});

describe("a cookie that another site's page spends", () => {
	const stolen = { Cookie: "any=1", Origin: OTHER };

	it.each([
		["GET", { Upgrade: "websocket" }],
		["HEAD", { Upgrade: "websocket" }],
	])("buys no upgrade by %s", async (method, more) => {
		const headers = { ...stolen, ...more };
		const response = await request("/health", { method, headers });
		expect(response.status).toBe(403);
	});

	it("reads what is public, and finds no unknown route", async () => {
		const read = await request("/health", { headers: stolen });
		expect(read.status).toBe(200);
		for (const [path, status] of [
			["/no/such/path", 404],
			["/health", 405],
		] as const) {
			const sent = { method: "POST", headers: stolen };
			expect((await request(path, sent)).status).toBe(status);
		}
	});

	it.each([SITE, undefined])("is welcome from %s", async (origin) => {
		const headers = new Headers({ Cookie: "any=1", Upgrade: "websocket" });
		if (origin !== undefined) {
			headers.set("Origin", origin);
		}
		expect((await request("/health", { headers })).status).toBe(200);
	});
});
