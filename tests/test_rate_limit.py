"""Limits in `wrangler dev`, on each kind of route, and in code of a user's own."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import oracle
from conftest import FEATURES, link_toolchain, node, run_tests, write_types
from dev_server import DevServer, serve
from projects import config, edit, readme, replace
from test_readme import blocks_of

Render = Callable[..., Path]

#: What a client may send in a minute here, so that tests need not send 100.
LIMIT = 5
#: What no test here can do without the network or a database.
TARGET = {"/browser": "/browser?url=http://127.0.0.1/"}
#: Code of a user's own: behind `sessionOnly`, under a global middleware, and with
#: another limiter.
MIDDLEWARE = """
app.use(async (c, next) => {
	await next();
	c.res.headers.set("X-Mine", "yes");
});
"""
CODE = """
app.get("/api/me", sessionOnly, (c) => c.json(c.var.session.userId));

app.post("/api/open", (c) => c.json("open"));

app.all("/api/any", (c) => c.json("any"));

app.all("/api/next", (c, next) => (c.req.query("pass") ? next() : c.json("any")));

app.mount("/api/mounted", () => new Response("mounted"));

app.use("/api/rpc/*", async (c) => c.json("rpc"));

app.route("/api/part", new Hono().all("/", (c) => c.json("part")).onError((error) => {
	throw error;
}));

app.get("/api/invite", async (c) => {
	await rateLimit(c.env, "invite ada", c.env.INVITE_LIMITER);
	return c.json("invited");
});
"""
LIMITER = """\
		{
			"name": "INVITE_LIMITER",
			"namespace_id": "7",
			"simple": { "limit": 2, "period": 60 },
		},\
"""
PROBE = """
import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };
const FOREIGN = { Cookie: "any=1", Origin: "https://other.example" };

afterEach(() => {
	vi.restoreAllMocks();
});

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

function limit(...full: string[]) {
	return vi
		.spyOn(env.RATE_LIMITER, "limit")
		.mockImplementation(async ({ key = "" }) => ({ success: !full.includes(key) }));
}

async function signIn(): Promise<Record<string, string>> {
	const response = await request("/auth/sessions", {
		method: "POST",
		headers: { "Content-Type": "application/json", ...OPERATOR },
		body: JSON.stringify({ userId: "ada" }),
	});
	const { token } = await response.json<{ token: string }>();
	return { Authorization: `Bearer ${token}` };
}

it("limits who is signed in by the user, after the address", async () => {
	const headers = await signIn();
	const counted = limit();
	expect((await request("/api/me", { headers })).status).toBe(200);
	expect(counted.mock.calls).toEqual([
		[{ key: "address unknown" }],
		[{ key: "user ada" }],
	]);
	limit("user ada");
	expect((await request("/api/me", { headers })).status).toBe(429);
	expect((await request("/api/me")).status).toBe(401);
});

it("limits the guesses of who is not", async () => {
	limit("address unknown");
	const get = vi.spyOn(env.AUTH_TOKENS, "get");
	const headers = { Authorization: "Bearer guessed" };
	expect((await request("/api/me", { headers })).status).toBe(429);
	expect(get).not.toHaveBeenCalled();
});

it.each([
	"/api/open",
	"/api/any",
	"/api/next",
	"/api/mounted/x",
	"/api/rpc/x",
	"/api/part",
])("limits a change at %s", async (path) => {
	const init = { method: "POST" };
	expect((await request(path, init)).status).toBe(200);
	const foreign = { ...init, headers: FOREIGN };
	expect((await request(path, foreign)).status).toBe(403);
	limit("address unknown");
	expect((await request(path, foreign)).status).toBe(429);
});

it("tells unknown paths from known ones behind middleware for all", async () => {
	const counted = limit("address unknown");
	for (const path of ["/no/such/path", "/health"]) {
		const response = await request(path, { method: "POST", headers: FOREIGN });
		expect(response.headers.get("X-Mine")).toBe("yes");
		expect(response.status).toBe(path === "/health" ? 405 : 404);
	}
	expect(counted).not.toHaveBeenCalled();
});

it("limits an open route that says so", async () => {
	expect((await request("/api/report")).status).toBe(200);
	limit("address unknown");
	expect((await request("/api/report")).status).toBe(429);
	expect((await request("/api/any")).status).toBe(200);
});

it("counts by another limiter", async () => {
	const statuses: number[] = [];
	for (const _ of [1, 2, 3]) {
		statuses.push((await request("/api/invite")).status);
	}
	expect(statuses).toEqual([200, 200, 429]);
});
"""


@pytest.mark.parametrize("layout", ["single-file", "modules"])
def test_code_of_a_users_own_is_limited_as_the_guide_says(
    render: Render, layout: str
) -> None:
    project = link_toolchain(render(["auth", "rate-limit"], layout=layout))
    recipes = [
        block.code
        for block in blocks_of(readme(project))
        if block.kind == "ts"
        and block.section == "Rate limiting"
        and block.code.startswith("app.")
    ]
    assert len(recipes) == 1
    code = "\n".join([CODE, *recipes])
    if layout == "modules":
        imports = {
            "./operator": "sessionOnly",
            "./rate-limit": "rateLimit, rateLimited",
            "hono": "Hono",
        }
        lines = [f'import {{ {names} }} from "{f}";' for f, names in imports.items()]
        edit(project, "src/index.ts", "// Your imports", "\n".join(lines))
    edit(project, "src/index.ts", "// Your code", code)
    edit(project, "src/index.ts", "// Your middleware", MIDDLEWARE)
    edit(project, "wrangler.jsonc", "\t\t// Your ratelimits", LIMITER)
    (project / "test/probe.test.ts").write_text(PROBE)

    write_types(project)
    node(project, "tsc")
    run_tests(project, "test/probe.test.ts", "test/rate-limit.test.ts")


@pytest.mark.parametrize("name", ["a", "n" * 54])
def test_the_counters_are_those_of_the_workers_name(render: Render, name: str) -> None:
    limiters = [limiter_of(render(["rate-limit"], project_name=name)) for _ in "12"]
    other = limiter_of(render(["rate-limit"], project_name=f"{name[:50]}-b"))
    first, second = limiters
    assert first == second
    assert first["simple"] == {"limit": 100, "period": 60}
    # Cloudflare wants a positive integer, as text.
    assert re.fullmatch(r"[1-9]\d{0,8}", first["namespace_id"])
    assert other["namespace_id"] != first["namespace_id"]


def limiter_of(project: Path) -> dict:
    """Return the limiter of a project's wrangler.jsonc."""
    (limiter,) = config(project)["ratelimits"]
    return limiter


def test_the_code_waits_as_long_as_the_config_counts(render: Render) -> None:
    project = render(["rate-limit"])
    code = (project / "src/index.ts").read_text()
    (seconds,) = re.findall(r"RATE_LIMIT_SECONDS = (\d+);", code)
    assert int(seconds) == limiter_of(project)["simple"]["period"]


@pytest.fixture(scope="module")
def server(render: Render) -> Iterator[DevServer]:
    """A server of a project with all features, and a low limit."""
    project = link_toolchain(render(FEATURES))
    replace(project / "wrangler.jsonc", '"limit": 100,', f'"limit": {LIMIT},')
    with serve(project) as server:
        yield server


def limited_routes() -> list[str]:
    """Return all routes that are locked, change something or upgrade."""
    routes = sorted(oracle.routes(FEATURES))
    return [
        r
        for r in routes
        if "🔒" in r or "/ws/" in r or not r.startswith(("GET", "HEAD"))
    ]


def open_routes() -> list[str]:
    """Return all others."""
    return sorted(oracle.routes(FEATURES) - set(limited_routes()))


def ask(server: DevServer, route: str, address: str, **more: str) -> httpx.Response:
    """Send a request for a route from an address, without a body or a token."""
    method, path, *_ = route.split()
    path = re.sub(r":\w+|\*", "x", path)
    headers = {"CF-Connecting-IP": address, **more}
    if "/ws/" in path:
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Origin": "null"}
    return server.http.request(method, TARGET.get(path, path), headers=headers)


def fill(server: DevServer, address: str) -> None:
    """Use up what an address may send, with the rest of a minute before it."""
    # The counters begin anew with each minute of the clock.
    if (second := time.time() % 60) > 40:
        time.sleep(61 - second)
    route = "DELETE /auth/session"
    statuses = [ask(server, route, address).status_code for _ in range(LIMIT + 1)]
    assert statuses == [*([403] * LIMIT), 429]


def test_a_flood_is_stopped_on_each_kind_of_route_and_nowhere_else(
    server: DevServer,
) -> None:
    flooding = "203.0.113.7"
    fill(server, flooding)

    refused = {route: ask(server, route, flooding) for route in limited_routes()}
    forged = {
        "X-Forwarded-For": "203.0.113.8",
        "Authorization": f"Bearer {server.token}",
    }
    with_forged = ask(server, "POST /requests", flooding, **forged)
    served = {route: ask(server, route, flooding) for route in open_routes()}
    unknown = ask(server, "POST /api/none", flooding)
    other_method = ask(server, "PUT /health", flooding)
    others = {
        route: ask(server, route, f"198.51.100.{number}")
        for number, route in enumerate(limited_routes())
    }

    assert {r.status_code for r in [*refused.values(), with_forged]} == {429}
    assert {r.headers["Retry-After"] for r in refused.values()} == {"60"}
    assert 429 not in {response.status_code for response in served.values()}
    assert (unknown.status_code, other_method.status_code) == (404, 405)
    assert 429 not in {response.status_code for response in others.values()}
    assert {others[route].status_code for route in others if "🔒" in route} == {401}


def test_addresses_of_one_network_share_a_limit(server: DevServer) -> None:
    fill(server, "2001:db8:0:1::1")
    route = "POST /events"
    assert ask(server, route, "2001:db8:0:1:ffff::2").status_code == 429
    assert ask(server, route, "2001:db8:0:2::1").status_code == 415
