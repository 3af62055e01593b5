import { env, exports } from "cloudflare:workers";
import { AsyncLocalStorage } from "node:async_hooks";
import type { Context, Hono } from "hono";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import * as z from "zod";
import type { AppEnv } from "./worker";

// A fresh Worker, since no route can be added once one has answered. The one file
// does not export its `app`, so a library that gets it tells. Vitest calls `disable`,
// which workerd has not.
AsyncLocalStorage.prototype.disable = () => {};
vi.doMock("hono/method-not-allowed", { spy: true });
vi.resetModules();
const { ApiError, isAllowedOrigin, logError, logInfo, parseInput, readJson } =
	await import("./worker");
await import("../src/index");
const { basicAuth } = await import("hono/basic-auth");
const { HTTPException } = await import("hono/http-exception");
const { methodNotAllowed } = await import("hono/method-not-allowed");
const [options] = vi.mocked(methodNotAllowed).mock.lastCall ?? [];
const app = options?.app as unknown as Hono<AppEnv>;

/** The routes that take JSON, each with a path that it matches. */
const JSON_ROUTES: Record<string, string> = {
	//% set wanted = "json"
	//% include "extensions/routes_with.jinja"
	"POST /probe/json": "/probe/json",
};

const SITE = "https://example.com";
const OTHER = "https://other.example";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

afterEach(() => {
	vi.restoreAllMocks();
});

afterAll(() => {
	vi.doUnmock("hono/method-not-allowed");
	vi.resetModules();
});

/** Sends a request from an address that no limit has counted. */
function request(path: string, init: RequestInit = {}): Promise<Response> {
	const headers = new Headers(init.headers);
	headers.set("CF-Connecting-IP", crypto.randomUUID());
	const all: RequestInit = { redirect: "manual", ...init, headers };
	return exports.default.fetch(new Request(SITE + path, all));
}

async function bodyOf(response: Response) {
	return response.json<{ error: Record<string, unknown> }>();
}

function allow(origins: string): void {
	vi.spyOn(env, "ALLOWED_ORIGINS", "get").mockReturnValue(origins);
}

function fail(error: Error): never {
	throw error;
}

function openSocket(): Response {
	const { 0: client, 1: server } = new WebSocketPair();
	server.accept();
	server.send("hi");
	return new Response(null, { status: 101, webSocket: client });
}

const denyBasic = basicAuth({ username: "ada", password: "test" });

/** Every kind of response, with its status. */
const kinds: Record<
	string,
	[number, (c: Context<AppEnv>) => Response | Promise<Response>]
> = {
	text: [200, (c) => c.text("hi")],
	nothing: [204, (c) => c.body(null, 204)],
	raw: [200, () => new Response("hi")],
	redirect: [302, () => Response.redirect(`${OTHER}/`)],
	// The headers of these, as of what a Durable Object answers, are immutable.
	fetched: [200, () => fetch("data:text/plain,hi")],
	forwarded: [200, () => request("/probe/raw")],
	socket: [101, openSocket],
	"forwarded-socket": [
		101,
		() => request("/probe/socket", { headers: { Upgrade: "websocket" } }),
	],
	"own-404": [404, () => new Response("No such thing", { status: 404 })],
	refused: [409, () => fail(new ApiError(409, "taken", "It is taken."))],
	denied: [
		401,
		async (c) => (await denyBasic(c, async () => {})) ?? c.text(""),
	],
	broken: [500, () => fail(new Error("the secret"))],
};

for (const [kind, [, answer]] of Object.entries(kinds)) {
	app.get(`/probe/${kind}`, answer);
}
const paths = Object.entries(kinds).map(
	([kind, [status]]) => [`/probe/${kind}`, status] as const,
);

describe.each([...paths, ["/health", 200], ["/no/such/path", 404]] as const)(
	"%s",
	(path, status) => {
		const headers = {
			"X-Request-Id": "mine",
			Origin: OTHER,
			Upgrade: "websocket",
		};

		it("has safe headers, and an id of its own", async () => {
			vi.spyOn(console, "error").mockImplementation(() => {});
			allow(OTHER);
			const ids = new Set<string | null>();
			for (const _ of [1, 2]) {
				const response = await request(path, { headers });
				response.webSocket?.accept();
				response.webSocket?.close();
				expect(response.status).toBe(status);
				expect(Object.fromEntries(response.headers)).toMatchObject({
					"access-control-allow-origin": OTHER,
					"cache-control": "no-store",
					"content-security-policy":
						"default-src 'none'; frame-ancestors 'none'",
					"referrer-policy": "no-referrer",
					"strict-transport-security": "max-age=31536000",
					vary: expect.stringContaining("Origin"),
					"x-content-type-options": "nosniff",
					"x-request-id": expect.stringMatching(UUID),
				});
				ids.add(response.headers.get("X-Request-Id"));
			}
			expect(ids.size).toBe(2);
		});
	},
);

describe("a route", () => {
	const own = {
		"cache-control": "public, max-age=60",
		"content-security-policy": "sandbox",
		"referrer-policy": "origin",
		"strict-transport-security": "max-age=1",
		"x-content-type-options": "mine",
	};
	const all = { ...own, "X-Request-Id": "mine" };
	app.get("/probe/own/text", (c) => c.text("hi", 200, all));
	app.get("/probe/own/raw", () => new Response("hi", { headers: all }));
	app.get("/probe/own/forwarded", () => request("/probe/own/raw"));
	app.get("/probe/own/refused", () =>
		fail(new ApiError(403, "no", "No.", { ...all, "Retry-After": "7" })),
	);
	app.get("/probe/own/vary", (c) => c.text("hi", 200, { Vary: "Accept" }));
	app.get("/probe/own/cookies", () => {
		const headers = new Headers();
		headers.append("Set-Cookie", "a=1");
		headers.append("Set-Cookie", "b=2");
		return new Response("hi", { headers });
	});

	it.each(["text", "raw", "forwarded", "refused"])(
		"keeps the headers that it sets: %s",
		async (kind) => {
			const { headers } = await request(`/probe/own/${kind}`);
			expect(Object.fromEntries(headers)).toMatchObject(own);
			expect(headers.get("X-Request-Id")).toMatch(UUID);
		},
	);

	it("keeps its own Vary beside that of CORS, and all of its cookies", async () => {
		const varied = await request("/probe/own/vary");
		expect(varied.headers.get("Vary")).toBe("Accept, Origin");
		const baked = await request("/probe/own/cookies");
		expect(baked.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
	});

	it.each(["text", "raw", "fetched", "forwarded"])(
		"answers with its body: %s",
		async (kind) => {
			expect(await (await request(`/probe/${kind}`)).text()).toBe("hi");
		},
	);

	it.each(["socket", "forwarded-socket"])("opens a %s", async (kind) => {
		const headers = { Upgrade: "websocket" };
		const { webSocket } = await request(`/probe/${kind}`, { headers });
		const heard = new Promise((resolve) => {
			webSocket?.addEventListener("message", ({ data }) => resolve(data));
		});
		webSocket?.accept();
		expect(await heard).toBe("hi");
		webSocket?.close();
	});

	it("tells the client what an ApiError says", async () => {
		const response = await request("/probe/own/refused");
		expect(response.headers.get("Retry-After")).toBe("7");
		const error = { code: "no", message: "No." };
		expect(await bodyOf(response)).toEqual({ error });
	});

	it("may use middleware of Hono that refuses in its own words", async () => {
		const response = await request("/probe/denied");
		expect(response.headers.get("WWW-Authenticate")).toMatch(/^Basic /);
		expect(await response.text()).toBe("Unauthorized");
	});
});

describe("what fails unexpectedly", () => {
	class BadDayError extends Error {}
	const causes = new TypeError("the inner cause", { cause: "only text" });

	app.get("/probe/fails/:id", () =>
		fail(new BadDayError("the secret", { cause: causes })),
	);
	app.get("/probe/http", () => fail(new HTTPException(500)));
	app.use("/probe/guarded", () => fail(new Error("the secret")));
	app.get("/probe/guarded", (c) => c.text("hi"));

	it("is one line in the log, with its causes and without the query", async () => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		const response = await request("/probe/fails/7?token=in-the-query");
		const requestId = response.headers.get("X-Request-Id");
		expect(response.status).toBe(500);
		const message = "Something went wrong. The logs know this requestId.";
		expect(await bodyOf(response)).toEqual({
			error: { code: "internal_error", message, requestId },
		});
		expect(log).toHaveBeenCalledTimes(1);
		const line = String(log.mock.calls[0]);
		expect(line).not.toContain("in-the-query");
		const stack = expect.any(String);
		expect(JSON.parse(line)).toEqual({
			level: "error",
			message: "Unexpected error",
			requestId,
			method: "GET",
			path: "/probe/fails/7",
			error: {
				name: "BadDayError",
				message: "the secret",
				stack,
				cause: {
					name: "TypeError",
					message: "the inner cause",
					stack,
					cause: "only text",
				},
			},
		});
	});

	it.each(["http", "guarded"])("is a logged 500: %s", async (kind) => {
		const log = vi.spyOn(console, "error").mockImplementation(() => {});
		const response = await request(`/probe/${kind}`);
		expect(response.status).toBe(500);
		expect((await bodyOf(response)).error.code).toBe("internal_error");
		expect(log).toHaveBeenCalledTimes(1);
	});
});

describe("a path", () => {
	app.get("/probe/things/:id", (c) => c.text("hi"));
	app.put("/probe/things/:id", (c) => c.text("hi"));
	app.on("DELETE", "/probe/things/:id", (c) => c.text("hi"));
	app.get(
		"/probe/listed",
		(_, next) => next(),
		(c) => c.text("hi"),
	);
	app.post("/probe/inbox", (c) => c.text("hi"));
	app.all("/probe/all", (c) => c.text("hi"));

	it.each([
		["POST", "/health", "GET, HEAD"],
		["PATCH", "/probe/things/7", "GET, HEAD, PUT, DELETE"],
		["GET", "/probe/inbox", "POST"],
		["HEAD", "/probe/inbox", "POST"],
	])("refuses %s %s with 405 and Allow", async (method, path, methods) => {
		const response = await request(path, { method });
		expect(response.status).toBe(405);
		expect(response.headers.get("Allow")).toBe(methods);
		expect(response.headers.get("X-Request-Id")).toMatch(UUID);
		const message = `This route takes ${methods}.`;
		const body = { error: { code: "method_not_allowed", message } };
		expect(method === "HEAD" || (await bodyOf(response))).toEqual(
			method === "HEAD" || body,
		);
	});

	it.each([
		["POST", "/no/such/path", 404],
		["POST", "/probe/own-404", 405],
		["POST", "/probe/all", 200],
		["PATCH", "/probe/all", 200],
		["HEAD", "/health", 200],
	])("answers %s %s with %i", async (method, path, status) => {
		const response = await request(path, { method });
		expect(response.status).toBe(status);
	});
	//% if "assets" not in features

	it("is in the list of routes once per method", async () => {
		const { routes } = await (await request("/")).json<{ routes: string[] }>();
		expect(routes).toEqual(expect.arrayContaining(["GET /", "GET /health"]));
		expect(routes.filter((route) => route.endsWith("/listed"))).toEqual([
			"GET /probe/listed",
		]);
	});
	//% endif
});

describe("pages of other sites", () => {
	const preflight = {
		"Access-Control-Request-Method": "PUT",
		"Access-Control-Request-Headers": "X-Mine",
	};

	it.each([
		["", OTHER],
		["https://one.example", OTHER],
		["https://other.example.org", OTHER],
		["https://other.exampl", OTHER],
		["https://other.example:8443", OTHER],
		["http://other.example", OTHER],
		["*", OTHER],
		["", "null"],
		["", ""],
	])("may read nothing with %j, from %j", async (allowed, Origin) => {
		allow(allowed);
		expect(isAllowedOrigin(env, Origin)).toBe(false);
		for (const method of ["GET", "OPTIONS"]) {
			const headers = { ...preflight, Origin };
			const response = await request("/health", { method, headers });
			expect(response.status).toBe(method === "GET" ? 200 : 204);
			expect(response.headers.has("Access-Control-Allow-Origin")).toBe(false);
			expect(response.headers.get("Vary")).toContain("Origin");
		}
	});

	it.each([
		OTHER,
		`https://one.example,${OTHER}`,
		` ${OTHER} , https://one.example`,
	])("may read everything with %j", async (allowed) => {
		allow(allowed);
		vi.spyOn(console, "error").mockImplementation(() => {});
		const headers = { ...preflight, Origin: OTHER };
		for (const path of ["/health", "/no/such/path", "/probe/broken"]) {
			const read = await request(path, { headers });
			expect(Object.fromEntries(read.headers)).toMatchObject({
				"access-control-allow-credentials": "true",
				"access-control-allow-origin": OTHER,
				"access-control-expose-headers": "ETag,Retry-After,X-Request-Id",
				vary: "Origin",
			});
			const asked = await request(path, { method: "OPTIONS", headers });
			expect(asked.status).toBe(204);
			expect(await asked.text()).toBe("");
			expect(Object.fromEntries(asked.headers)).toMatchObject({
				"access-control-allow-credentials": "true",
				"access-control-allow-headers": "X-Mine",
				"access-control-allow-methods": expect.stringContaining("DELETE"),
				"access-control-allow-origin": OTHER,
				"access-control-max-age": "600",
				vary: expect.stringContaining("Origin"),
				"x-content-type-options": "nosniff",
				"x-request-id": expect.stringMatching(UUID),
			});
		}
	});
});

describe.each(Object.entries(JSON_ROUTES))("%s", (route, path) => {
	it.each([
		["{}", "text/plain", 415],
		["{", "application/json", 400],
		["{}".padEnd(65_537), "application/json", 413],
	])("refuses %.9j as %s", async (body, type, status) => {
		const [method = ""] = route.split(" ");
		const headers = {
			"Content-Type": type,
			// Where no route is locked, there is no token, and nobody asks for it.
			Authorization: `Bearer ${Object(env).API_TOKEN}`,
		};
		const response = await request(path, { method, headers, body });
		expect(response.status).toBe(status);
	});
});

describe("a JSON body", () => {
	const schema = z.strictObject({ name: z.string().trim() });
	app.post("/probe/json", async (c) => c.json(await readJson(c, schema)));

	async function send(body: BodyInit | null, type = "application/json") {
		const headers = { "Content-Type": type };
		const init = { method: "POST", headers, body };
		const response = await request("/probe/json", init);
		return [response.status, await response.json()];
	}

	/** Sends so many KiB without their length. */
	function chunked(kibibytes: number): ReadableStream {
		let sent = 0;
		return new ReadableStream<Uint8Array>({
			pull(controller) {
				if (sent++ === kibibytes) {
					controller.close();
				} else {
					controller.enqueue(new TextEncoder().encode(" ".repeat(1024)));
				}
			},
		});
	}

	function refusal(status: number, code: string) {
		const error = expect.objectContaining({ code });
		return [status, { error }];
	}

	it.each([
		"application/json",
		"application/json; charset=utf-8",
		"Application/JSON ;charset=utf-8",
		"application/problem+json",
	])("may be of the type %j", async (type) => {
		expect(await send('{"name":" Ada "}', type)).toEqual([
			200,
			{ name: "Ada" },
		]);
	});

	it.each([
		"text/plain",
		"application/x-www-form-urlencoded",
		"multipart/form-data; boundary=json",
		"application/jsonp",
		"text/application/json",
		"",
	])("may not be of the type %j", async (type) => {
		expect(await send('{"name":"Ada"}', type)).toEqual(
			refusal(415, "unsupported_media_type"),
		);
	});

	it("may have 64 KiB", async () => {
		const most = '{"name":"Ada"}'.padEnd(65_536);
		expect(await send(most)).toEqual([200, { name: "Ada" }]);
		expect(await send(`${most} `)).toEqual(refusal(413, "body_too_large"));
	});

	it("may come without its length, but have 64 KiB all the same", async () => {
		const name = new Response('{"name":"Ada"}').body;
		expect(await send(name)).toEqual([200, { name: "Ada" }]);
		expect(await send(chunked(64))).toEqual(refusal(400, "invalid_json"));
		expect(await send(chunked(65))).toEqual(refusal(413, "body_too_large"));
	});

	it("that breaks off is not an error of the Worker", async () => {
		const broken = new ReadableStream({
			pull(controller) {
				controller.error(new Error("Network connection lost."));
			},
		});
		expect(await send(broken)).toEqual(refusal(400, "invalid_json"));
	});

	it("may not be endless", async () => {
		const headers = {
			"CF-Connecting-IP": crypto.randomUUID(),
			"Content-Type": "application/json",
		};
		const body = chunked(Number.POSITIVE_INFINITY);
		const init = { method: "POST", headers, body };
		const response = await app.request("/probe/json", init, env);
		expect(response.status).toBe(413);
	});

	it.each(["", "{", "undefined", "{'name':1}", null])(
		"may not be %j",
		async (body) => {
			expect(await send(body)).toEqual(refusal(400, "invalid_json"));
		},
	);

	it.each([
		["null", ""],
		["[]", ""],
		["{}", "name"],
		['{"name":7}', "name"],
		['{"name":"Ada","more":1}', ""],
	])("is told what is wrong with %s, and where", async (body, path) => {
		const issue = { path, message: expect.any(String) };
		expect(await send(body)).toEqual([
			400,
			{
				error: {
					code: "invalid_body",
					message: "Correct what `issues` lists, and send it again.",
					issues: [issue],
				},
			},
		]);
	});
});

describe("any other input", () => {
	it("comes back as the schema returns it", () => {
		const schema = z.object({ limit: z.coerce.number().default(20) });
		expect(parseInput(schema, {})).toEqual({ limit: 20 });
		expect(parseInput(schema, { limit: "7", more: 1 })).toEqual({ limit: 7 });
	});

	it("has a code of its own where it is no body", () => {
		const parse = () => parseInput(z.int(), "7", "invalid_query");
		const refused = { status: 400, code: "invalid_query" };
		expect(parse).toThrow(expect.objectContaining(refused));
	});

	it("is told of twenty issues at most, 200 characters each", () => {
		const names = Array.from({ length: 21 }, (_, i) => `${i}`.padEnd(201, "x"));
		const input = Object.fromEntries(names.map((name) => [name, name]));
		const schema = z.record(z.string(), z.literal("y".repeat(300)));
		const issues = names.slice(0, 20).map((name) => ({
			path: name.slice(0, 200),
			message: expect.stringMatching(/^.{200}$/),
		}));
		const refused = expect.objectContaining({ issues });
		expect(() => parseInput(schema, input)).toThrow(refused);
	});
});

it("logs one JSON line at a time", () => {
	const info = vi.spyOn(console, "log").mockImplementation(() => {});
	const error = vi.spyOn(console, "error").mockImplementation(() => {});
	logInfo("Done", { count: 7 });
	logError("Failed", "only text", { count: 7 });
	logError("Failed", undefined);
	expect(info.mock.calls).toEqual([
		['{"level":"info","message":"Done","count":7}'],
	]);
	expect(error.mock.calls).toEqual([
		['{"level":"error","message":"Failed","count":7,"error":"only text"}'],
		['{"level":"error","message":"Failed"}'],
	]);
});
