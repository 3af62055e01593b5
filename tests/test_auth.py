"""Code of a user's own behind `sessionOnly` and `operatorOnly`, as the guide has it."""

from collections.abc import Callable
from pathlib import Path

from conftest import assert_tests_pass, link_toolchain, node, run_tests, write_types
from projects import edit, readme, replace
from test_readme import blocks_of

Render = Callable[..., Path]

#: Looks the session up before some routes, as own middleware may.
MIDDLEWARE = """
for (const path of ["/api/session", "/reminders/*"]) {
	app.use(path, async (c, next) => {
		await authReadSession(c);
		await next();
	});
}
"""
#: What the recipes of the guide leave to the user, and more routes.
CODE = """
async function yourOwnCheck(code: string | undefined): Promise<string> {
	return code === "good" ? "ada" : (code ?? "");
}

app.get("/api/session", sessionOnly, async (c) => {
	const { userId } = c.var.session;
	return c.json({ userId, again: await authReadSession(c) });
});

app.get("/api/operator", operatorOnly, (c) =>
	c.json({ session: c.var.session }),
);

app.post("/api/lost-phone", sessionOnly, async (c) => {
	await authEndSessions(c.env, c.var.session.userId);
	return c.body(null, 204);
});
"""
PROBE = """
import { env, exports } from "cloudflare:workers";
import { afterEach, expect, it, vi } from "vitest";

const OPERATOR = { Authorization: `Bearer ${env.API_TOKEN}` };

afterEach(() => {
	vi.restoreAllMocks();
});

function request(path: string, init: RequestInit = {}): Promise<Response> {
	return exports.default.fetch(new Request(`https://example.com${path}`, init));
}

async function signIn(operator = false): Promise<Record<string, string>> {
	const response = await request("/auth/sessions", {
		method: "POST",
		headers: { "Content-Type": "application/json", ...OPERATOR },
		body: JSON.stringify({ userId: "ada", data: { a: 1 }, operator }),
	});
	const { token } = await response.json<{ token: string }>();
	return { Authorization: `Bearer ${token}` };
}

it.each([true, false])("lets a user pass (operator: %s)", async (operator) => {
	const response = await request("/api/me", { headers: await signIn(operator) });
	expect(response.status).toBe(200);
	expect(await response.json()).toEqual({ userId: "ada" });
});

it.each([{}, OPERATOR, { Authorization: "Bearer wrong" }])(
	"asks %j to sign in",
	async (headers) => {
		const response = await request("/api/me", { headers });
		expect(response.status).toBe(401);
		expect(response.headers.get("WWW-Authenticate")).toBe("Bearer");
		expect(await response.json()).toEqual({
			error: {
				code: "unauthorized",
				message: expect.stringContaining("Sign in first"),
			},
		});
	},
);

it.each([
	"GET /api/session",
	"GET /api/operator",
	"GET /auth/session",
	"DELETE /reminders/ada",
])("looks the session up once for %s", async (route) => {
	const [method = "", path = ""] = route.split(" ");
	const headers = await signIn(true);
	const get = vi.spyOn(env.AUTH_TOKENS, "get");
	await request(path, { method, headers });
	expect(get).toHaveBeenCalledTimes(1);
});

it("looks a token that is not a session's up once", async () => {
	const get = vi.spyOn(env.AUTH_TOKENS, "get");
	await request("/api/session", { headers: { Authorization: "Bearer wrong" } });
	expect(get).toHaveBeenCalledTimes(1);
});

it("looks nothing up for whoever shows no token", async () => {
	const get = vi.spyOn(env.AUTH_TOKENS, "get");
	await request("/api/session");
	await request("/api/operator");
	expect(get).not.toHaveBeenCalled();
});

it("hands the session to a route", async () => {
	const session = {
		userId: "ada",
		data: { a: 1 },
		operator: true,
		expiresAt: expect.any(String),
	};
	const headers = await signIn(true);
	const operator = await request("/api/operator", { headers });
	expect(await operator.json()).toEqual({ session });
	const user = await request("/api/session", { headers });
	expect(await user.json()).toEqual({ userId: "ada", again: session });
});

it("hands null to a route that the API token opens, and looks nothing up", async () => {
	const get = vi.spyOn(env.AUTH_TOKENS, "get");
	const response = await request("/api/operator", { headers: OPERATOR });
	expect(await response.json()).toEqual({ session: null });
	expect(get).not.toHaveBeenCalled();
});

it("signs a user in by a route of one's own", async () => {
	const init = { redirect: "manual" } as const;
	const response = await request("/api/signed-in?code=good", init);
	expect(response.status).toBe(302);
	const [cookie = ""] = response.headers.getSetCookie();
	const headers = { Cookie: cookie.split(";")[0] ?? "" };
	expect(await (await request("/api/me", { headers })).json()).toEqual({
		userId: "ada",
	});
	const operator = await request("/api/operator", { headers });
	expect(operator.status).toBe(403);
});

it("starts no session for what is not a user id", async () => {
	const response = await request("/api/signed-in?code=");
	expect(response.status).toBe(400);
	expect(await response.json()).toMatchObject({
		error: { issues: [{ path: "userId" }] },
	});
});

it("signs a user out everywhere", async () => {
	const [phone, laptop] = [await signIn(), await signIn()];
	const init = { method: "POST", headers: laptop };
	expect((await request("/api/lost-phone", init)).status).toBe(204);
	const response = await request("/api/me", { headers: phone });
	expect(response.status).toBe(401);
});
"""


def test_the_recipes_of_the_guide_keep_users_apart_from_operators(
    render: Render,
) -> None:
    project = link_toolchain(render(["auth", "alarms"]))
    recipes = [
        block.code
        for block in blocks_of(readme(project))
        if block.kind == "ts" and block.section == "Auth"
    ]
    code = "\n".join([CODE, *recipes])
    edit(project, "src/index.ts", "// Your code", code)
    edit(project, "src/index.ts", "// Your middleware", MIDDLEWARE)
    (project / "test/probe.test.ts").write_text(PROBE)

    write_types(project)
    assert len(recipes) == 2
    node(project, "tsc")
    run_tests(project, "test/probe.test.ts")


#: For each feature with an open route that a product may lock: the route's line, and
#: the one line of its tests that then brings the key.
LOCKS = {
    "websockets": (
        'app.get("/ws/:room", (c)',
        "const HEADERS: Record<string, string> = {};",
        "const HEADERS = { Authorization: `Bearer ${env.API_TOKEN}` };",
    ),
    "alarms": (
        'app.get("/reminders/:userId", async (c)',
        "new Request(url, { method, ...init })",
        "new Request(url, { method, headers: OPERATOR, ...init })",
    ),
    "analytics": (
        'app.post("/events", async (c)',
        'const HEADERS = { "Content-Type": "application/json" };',
        'const HEADERS = { "Content-Type": "application/json",'
        " Authorization: `Bearer ${env.API_TOKEN}` };",
    ),
    "d1": (
        'app.get("/notes", async (c)',
        "const READER = {};",
        "const READER = OPERATOR;",
    ),
    "r2": (
        'app.get("/files/:key{.+}", (c)',
        "const READER = {};",
        "const READER = OPERATOR;",
    ),
}


LOCKED_PROBE = """
import { exports } from "cloudflare:workers";
import { expect, it } from "vitest";

it.each([
	["GET", "/ws/lobby"],
	["GET", "/reminders/ada"],
	["POST", "/events"],
	["GET", "/notes"],
	["GET", "/files/a"],
])("%s %s is locked", async (method, path) => {
	const request = new Request(`https://example.com${path}`, { method });
	expect((await exports.default.fetch(request)).status).toBe(401);
});
"""


def test_the_lock_of_an_open_route_costs_its_tests_one_line(render: Render) -> None:
    project = link_toolchain(render(["auth", *LOCKS]))
    own = {feature: project / f"test/{feature}.test.ts" for feature in LOCKS}
    for feature, (route, line, with_key) in LOCKS.items():
        locked = route.replace(", ", ", operatorOnly, ", 1)
        replace(project / "src/index.ts", route, locked)
        replace(own[feature], line, with_key)
    # What nobody else may read is kept by no cache.
    kept = 'filesSend(c, filesKeyInPath(c), "no-cache")'
    replace(project / "src/index.ts", kept, "filesSend(c, filesKeyInPath(c))")
    replace(own["r2"], 'const KEPT = "no-cache"', 'const KEPT = "no-store"')
    probe = project / "test/probe.test.ts"
    probe.write_text(LOCKED_PROBE)
    general = (project / f"test/{name}.test.ts" for name in ("json", "access"))
    assert_tests_pass(probe, *own.values(), *general)
