"""Limits in `wrangler dev`, on each kind of route, and in code of a user's own."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from dev_server import DevServer, serve
from parts import CATALOG, FEATURES, set_id
from projects import config, edit, replace
from toolchain import link_toolchain, node, run_tests, write_types

Render = Callable[..., Path]

#: How much a client may send in a minute here, so that tests need not send 100.
LIMIT = 5
#: Addresses for routes that would reach for the network.
TARGET = {"/browser": "/browser?url=http://127.0.0.1/"}
#: How the routes begin that upgrade.
SOCKETS = "GET /ws/"
#: Features whose routes read, change and upgrade.
FEW = ["auth", "websockets", "rate-limit"]
IMPORTS = 'import { Hono } from "hono";'
#: Routes of a user's own, of each kind that Hono knows.
CODE = """
app.get("/api/report", rateLimited, (c) => c.json("report"));

app.get("/api/reading", (c) => c.json("reading"));

app.post("/api/open", (c) => c.json("open"));

app.all("/api/any", (c) => c.json("any"));

app.mount("/api/mounted", () => new Response("mounted"));

app.route("/api/part", new Hono().all("/", (c) => c.json("part")));

app.get("/api/invite", async (c) => {
	const { success } = await c.env.RATE_LIMITER.limit({ key: "invite ada" });
	return c.json({ success });
});
"""
PROBE = """
import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";

afterEach(() => {
	vi.restoreAllMocks();
});

async function status(method: string, path: string): Promise<number> {
	const request = new Request(`https://example.com${path}`, { method });
	return (await exports.default.fetch(request)).status;
}

function limit(...full: string[]) {
	return vi
		.spyOn(env.RATE_LIMITER, "limit")
		.mockImplementation(async ({ key = "" }) => ({ success: !full.includes(key) }));
}

it.each(["/api/open", "/api/any", "/api/mounted/x", "/api/part"])(
	"limits a change at %s",
	async (path) => {
		const counted = limit();
		expect(await status("POST", path)).toBe(200);
		expect(counted).toHaveBeenCalledTimes(1);
		limit("unknown");
		expect(await status("POST", path)).toBe(429);
	},
);

it("limits a route that reads only where it says so", async () => {
	expect(await status("GET", "/api/report")).toBe(200);
	limit("unknown");
	expect(await status("GET", "/api/report")).toBe(429);
	expect(await status("GET", "/api/reading")).toBe(200);
});

it("counts by another key", async () => {
	limit("invite ada");
	const response = await exports.default.fetch("https://example.com/api/invite");
	expect(await response.json()).toEqual({ success: false });
});
"""


@pytest.mark.parametrize(
    "layout", ["single-file", pytest.param("modules", marks=pytest.mark.full)]
)
def test_code_of_a_users_own_is_limited_as_the_guide_says(
    render: Render, layout: str
) -> None:
    project = link_toolchain(render(["rate-limit"], layout=layout))
    if layout == "modules":
        own = f'{IMPORTS}\nimport {{ rateLimited }} from "./rate-limit";'
        edit(project, "src/index.ts", "// Your imports", own)
    edit(project, "src/index.ts", "// Your code", CODE)
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
    (seconds,) = re.findall(r"PERIOD_SECONDS = (\d+);", code)
    assert int(seconds) == limiter_of(project)["simple"]["period"]


def routes_of(features: list[str]) -> tuple[list[str], list[str]]:
    """Return the routes of features, as `GET /path`: those limited, and the others."""
    routes = [
        f"{route['method']} {route['path']}"
        for feature in CATALOG
        if feature["id"] in features
        for route in feature.get("routes", [])
    ]
    reading = [r for r in routes if r.startswith("GET") and not r.startswith(SOCKETS)]
    return [route for route in routes if route not in reading], reading


def ask(server: DevServer, route: str, address: str, **more: str) -> httpx.Response:
    """Send a request for a route from an address, without a body or a token."""
    method, path = route.split()
    headers = {"CF-Connecting-IP": address, **more}
    if route.startswith(SOCKETS):
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Origin": "null"}
    path = re.sub(r":\w+(\{[^/]*\})?|\*", "x", path)
    return server.http.request(method, TARGET.get(path, path), headers=headers)


@pytest.mark.parametrize(
    "features", [FEW, pytest.param(FEATURES, marks=pytest.mark.full)], ids=set_id
)
def test_a_flood_is_stopped_wherever_it_changes_something(
    render: Render, features: list[str]
) -> None:
    project = link_toolchain(render(features))
    replace(project / "wrangler.jsonc", '"limit": 100,', f'"limit": {LIMIT},')
    limited, reading = routes_of(features)
    flooding = "203.0.113.7"
    forged = {"X-Forwarded-For": "203.0.113.8"}

    with serve(project) as server:
        # The counters begin anew with each minute of the clock.
        if (second := time.time() % 60) > 50:
            time.sleep(61 - second)
        first = [ask(server, "PUT /health", flooding) for _ in range(LIMIT + 1)]
        refused = [
            *(ask(server, route, flooding) for route in [*limited, "POST /api/none"]),
            ask(server, limited[0], flooding, **server.operator, **forged),
        ]
        served = [
            *(ask(server, route, flooding) for route in reading),
            *(
                ask(server, route, f"198.51.100.{number}")
                for number, route in enumerate(limited)
            ),
        ]

    assert [response.status_code for response in first] == [*([405] * LIMIT), 429]
    assert {response.status_code for response in refused} == {429}
    assert {response.headers["Retry-After"] for response in refused} == {"60"}
    assert 429 not in {response.status_code for response in served}
