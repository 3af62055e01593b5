"""Sessions under `wrangler dev`, and code of a user's own, as the guide has it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from demo import Use, opened, use
from dev_server import DevServer, serve
from projects import edit, readme
from test_readme import blocks_of
from toolchain import link_toolchain, node, run_tests, write_types

Render = Callable[..., Path]


# --- Sessions ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(render: Render) -> Iterator[DevServer]:
    """A server of sessions, of what they open, and of a page."""
    with serve(link_toolchain(render(["auth", "r2", "assets"]))) as server:
        yield server


def start_session(server: DevServer, operator: bool = True) -> httpx.Response:
    """Start a session for the user ada."""
    body = {"userId": "ada", "data": {"role": "admin"}, "operator": operator}
    started = server.http.post("/auth/sessions", json=body, headers=server.operator)
    assert started.status_code == 201
    return started


def ways(session: httpx.Response) -> list[dict[str, str]]:
    """Return the headers by which a client shows a session."""
    token = session.json()["token"]
    return [{"Authorization": f"Bearer {token}"}, {"Cookie": f"auth_token={token}"}]


def test_a_session_is_started_shown_and_ended(server: DevServer) -> None:
    started = start_session(server)
    value, *attributes = started.headers["Set-Cookie"].split("; ")
    assert value == f"auth_token={started.json()['token']}"
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(attributes)
    for headers in ways(started):
        shown = server.http.get("/auth/session", headers=headers)
        assert shown.status_code == 200
        assert shown.json()["authenticated"] is True
        assert shown.json()["userId"] == "ada"
        assert shown.json()["data"] == {"role": "admin"}
        assert server.http.get("/files", headers=headers).status_code == 200

    _, cookie = ways(started)
    assert server.http.delete("/auth/session", headers=cookie).status_code == 204
    for headers in [*ways(started), {}]:
        shown = server.http.get("/auth/session", headers=headers)
        assert shown.status_code == 403
        assert shown.json()["authenticated"] is False
        assert server.http.delete("/auth/session", headers=headers).status_code == 204
        assert server.http.get("/files", headers=headers).status_code == 401


def test_a_users_session_opens_nothing_that_is_locked(server: DevServer) -> None:
    for headers in ways(start_session(server, operator=False)):
        assert server.http.get("/files", headers=headers).status_code == 403


def test_a_change_with_a_cookie_from_another_site_is_refused(
    server: DevServer,
) -> None:
    _, cookie = ways(start_session(server))
    for origin, status in (("https://other.example", 403), (server.url, 201)):
        headers = {**cookie, "Origin": origin}
        answer = server.http.put("/files/a", content=b"a", headers=headers)
        assert answer.status_code == status


def test_a_session_opens_the_other_panels_without_the_token(
    server: DevServer, chromium: Browser
) -> None:
    files = Use("List", ".", has_token=False)
    with opened(chromium, server) as page:
        use(page, server, "auth", Use("Sign in", "Signed in as ada"))
        expect(page.get_by_label("API token")).to_have_value("")
        page.reload(wait_until="networkidle")
        use(page, server, "r2", files)
        use(page, server, "auth", Use("Sign out", "Signed out"))
    with opened(chromium, server, refusals=True) as page:
        use(page, server, "r2", replace(files, shows="API_TOKEN", is_error=True))


def test_a_browser_that_drops_the_cookie_is_not_signed_in(
    server: DevServer, chromium: Browser
) -> None:
    dropped = "dropped the cookie.*--local-protocol=https"
    with opened(chromium, server, refusals=True) as page:
        # Safari does so with `Secure` cookies on http://localhost.
        page.route(
            "**/auth/sessions",
            lambda route: route.fulfill(status=201, json={"expiresAt": "2027-01-01"}),
        )
        use(page, server, "auth", Use("Sign in", dropped, is_error=True))
        expect(page.get_by_label("API token")).to_have_value(server.token)


# --- Code of a user's own -----------------------------------------------------------

IMPORTS = """
import { operatorOnly } from "./access";
import { sessionOnly, startSession } from "./auth";
"""
#: Routes that use what the guide names.
CODE = """
app.get("/api/me", sessionOnly, (c) =>
	c.json({ userId: c.var.session.userId }),
);

app.get("/api/open", (c) => c.json({ userId: c.var.session?.userId ?? null }));

app.get("/api/operator", operatorOnly, (c) => c.json(c.var.session));

app.get("/api/signed-in", async (c) => {
	const userId = c.req.query("code") === "good" ? "ada" : "bob";
	await startSession(c, { userId, data: {}, operator: false });
	return c.redirect("/");
});

app.post("/api/lost-phone", sessionOnly, async (c) => {
	await endSessions(c.env, c.var.session.userId);
	return c.body(null, 204);
});
"""
PROBE = """
import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";
import { startSession } from "./session";

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

async function see(path: string, token?: string): Promise<unknown> {
	const headers = new Headers(token ? { Authorization: `Bearer ${token}` } : {});
	const response = await request(path, { headers });
	return response.ok ? response.json() : response.status;
}

it("tells users from operators, and from anybody else", async () => {
	const [user, operator] = [
		await startSession({ data: { a: 1 } }),
		await startSession({ operator: true }),
	];
	expect(await see("/api/me", user)).toEqual({ userId: "ada" });
	expect(await see("/api/me", operator)).toEqual({ userId: "ada" });
	expect(await see("/api/me", env.API_TOKEN)).toBe(401);
	expect(await see("/api/me")).toBe(401);
	expect(await see("/api/open", user)).toEqual({ userId: "ada" });
	expect(await see("/api/open")).toEqual({ userId: null });
	expect(await see("/api/operator", user)).toBe(403);
	expect(await see("/api/operator", operator)).toMatchObject({ userId: "ada" });
	expect(await see("/api/operator", env.API_TOKEN)).toBeNull();
});

it("signs a user in by a route of one's own", async () => {
	const init = { redirect: "manual" } as const;
	const response = await request("/api/signed-in?code=good", init);
	expect(response.status).toBe(302);
	const [cookie = ""] = response.headers.getSetCookie();
	const headers = { Cookie: cookie.split(";")[0] ?? "" };
	const me = await request("/api/me", { headers });
	expect(await me.json()).toEqual({ userId: "ada" });
	expect((await request("/api/operator", { headers })).status).toBe(403);
});

it("ends all sessions of a user, and nothing else", async () => {
	const [phone, laptop, other] = [
		await startSession(),
		await startSession({ operator: true }),
		await startSession({ userId: "bob" }),
	];
	const headers = { Authorization: `Bearer ${laptop}` };
	const init = { method: "POST", headers };
	expect((await request("/api/lost-phone", init)).status).toBe(204);
	expect(await see("/api/me", phone)).toBe(401);
	expect(await see("/api/operator", laptop)).toBe(401);
	expect(await see("/auth/session", phone)).toBe(403);
	expect(await see("/api/me", other)).toEqual({ userId: "bob" });
	expect(await see("/api/operator", env.API_TOKEN)).toBeNull();

	await new Promise((resolve) => setTimeout(resolve, 5));
	const again = await startSession();
	expect(await see("/api/me", again)).toEqual({ userId: "ada" });
});
"""


@pytest.mark.parametrize(
    "layout", ["single-file", pytest.param("modules", marks=pytest.mark.full)]
)
def test_the_code_of_the_guide_keeps_users_apart_and_ends_their_sessions(
    render: Render, layout: str
) -> None:
    project = link_toolchain(render(["auth"], layout=layout))
    blocks = blocks_of(readme(project))
    (ending,) = [block.code.rstrip() for block in blocks if block.kind == "ts"]
    edit(project, "src/index.ts", "// Your middleware", f"\n{ending}")
    edit(project, "src/index.ts", "// Your code", CODE.rstrip())
    if layout == "modules":
        edit(project, "src/index.ts", "// Your imports", IMPORTS.rstrip())
    (project / "test/probe.test.ts").write_text(PROBE.lstrip())

    write_types(project)
    node(project, "tsc")
    node(project, "biome", "check", "src")
    run_tests(project, "test/probe.test.ts", "test/auth.test.ts")
