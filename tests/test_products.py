"""Products built on the template as users do it, with no edit inside a region."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT, assert_clean, node
from dev_server import DevServer, serve
from test_updates import edit

Project = Callable[..., Path]

#: The user's own code and tests, per product.
PRODUCTS = ROOT / "tests/products"


def build(project: Path, product: str, entries: list[tuple[str, str, str]]) -> Path:
    """Write a product into a project, at the lines that are the user's.

    Args:
        project: The project, with its packages.
        product: The folder in `PRODUCTS`: `code.ts` goes below `// Your code`,
            all other files into the project under the same path.
        entries: What else goes where: a file, the line, what goes below it.

    Returns:
        The project.
    """
    folder = PRODUCTS / product
    for path in folder.rglob("*.*"):
        if path.name != "code.ts":
            target = project / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    code = (folder / "code.ts").read_text()
    entries = [("src/index.ts", "// Your code", f"\n{code.rstrip()}"), *entries]
    for entry in entries:
        edit(project, *entry)
    return project


def test_a_product_keeps_to_the_lines_that_are_the_users() -> None:
    # What a product writes nowhere: a region. `edit` inserts below one line.
    for path in PRODUCTS.rglob("*.*"):
        assert "#region" not in path.read_text()


# --- A URL shortener for teams --------------------------------------------------

SHORTENER = [
    ("src/index.ts", "\t// Your variables", "\tstartedAt: number;"),
    (
        "src/index.ts",
        "// Your middleware",
        '\napp.use("*", async (c, next) => {\n'
        '\tc.set("startedAt", Date.now());\n'
        "\tawait next();\n"
        '\tc.header("X-Mine", "yes");\n'
        "});",
    ),
    ("src/index.ts", "\t// Your queues", '\t"all-mail": sendMails,'),
    ("src/index.ts", "\t// Your crons", '\t"0 6 * * 1": sendReport,'),
    (
        "wrangler.jsonc",
        "\t\t\t// Your durable_objects",
        '\t\t\t{ "name": "LINK", "class_name": "Link" },',
    ),
    (
        "wrangler.jsonc",
        '\t\t// Your migrations after v1 (tags that start with "user-")',
        '\t\t{ "tag": "user-link", "new_sqlite_classes": ["Link"] },',
    ),
    ("wrangler.jsonc", "\t\t// Your kv_namespaces", '\t\t{ "binding": "LINKS" },'),
    (
        "wrangler.jsonc",
        "\t\t\t// Your producers",
        '\t\t\t{ "binding": "MAIL", "queue": "all-mail" },',
    ),
    (
        "wrangler.jsonc",
        "\t\t\t// Your consumers",
        '\t\t\t{ "queue": "all-mail", "max_batch_timeout": 1 },',
    ),
    ("wrangler.jsonc", "\t\t\t// Your crons", '\t\t\t"0 6 * * 1",'),
    ("wrangler.jsonc", "\t\t\t// Your secrets", '\t\t\t"PAGER_KEY",'),
    (
        ".dev.vars.example",
        "# Your secrets, with an empty line before each",
        "\n# Wakes who is on call\nPAGER_KEY=",
    ),
]


@pytest.fixture(scope="module")
def shortener(project: Project) -> Path:
    """A shortener on auth, analytics, queues and websockets, with static files."""
    features = ["auth", "analytics", "queues", "websockets", "assets"]
    return build(project(features, project_name="teamlinks"), "shortener", SHORTENER)


@pytest.fixture(scope="module")
def shortener_server(shortener: Path) -> Iterator[DevServer]:
    """The shortener, served."""
    with serve(shortener) as server:
        yield server


def test_the_shortener_is_clean_and_passes_all_tests(shortener: Path) -> None:
    assert_clean(shortener)
    node(shortener, ROOT / "node_modules/vitest/vitest.mjs", "run")


def sign_in(server: DevServer, **session: object) -> dict[str, str]:
    """Start a session and return the header that shows it."""
    answer = server.http.post("/auth/sessions", headers=server.operator, json=session)
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def test_own_middleware_runs_for_every_route(shortener_server: DevServer) -> None:
    for path in ("/health", "/api/links/none", "/no-such-route"):
        answer = shortener_server.http.get(path)
        if path != "/no-such-route":
            assert answer.headers["X-Mine"] == "yes"


def test_own_route_knows_the_user_of_a_session(shortener_server: DevServer) -> None:
    post = shortener_server.http.post
    link = {"slug": "docs", "url": "https://docs.example/"}
    ada = sign_in(shortener_server, userId="ada")
    made = post("/api/links", headers=ada, json=link)
    assert (made.status_code, made.json()["userId"]) == (201, "ada")
    token = post("/api/links", headers=shortener_server.operator, json=link)
    assert token.status_code == 401
    refused = post("/api/links/docs/report", headers=ada)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "operator_only"


def test_own_queue_has_its_own_consumer(shortener_server: DevServer) -> None:
    server = shortener_server
    ada = sign_in(server, userId="ada")
    link = {"slug": "mailed", "url": "https://docs.example/"}
    server.http.post("/api/links", headers=ada, json=link)

    def mailed() -> str | None:
        answer = server.http.get("/api/mails/mailed", headers=server.operator)
        return answer.json()["to"]

    server.wait_until(lambda: mailed() == "ada")
    assert "Malformed" not in server.log.read_text()


def test_own_job_runs_at_its_url(shortener_server: DevServer) -> None:
    server = shortener_server
    answer = server.http.get("/cdn-cgi/handler/scheduled?cron=0+6+*+*+1")
    assert answer.status_code == 200
    report = server.http.get("/api/mails/report", headers=server.operator)
    assert report.json() == {"to": "0 6 * * 1"}


def test_the_function_that_queues_says_what_is_not_set(
    shortener_server: DevServer,
) -> None:
    server = shortener_server
    answer = server.http.post("/api/links/docs/report", headers=server.operator)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "upstream_not_configured"


def test_own_secret_is_in_dev_vars(shortener_server: DevServer) -> None:
    text = (shortener_server.project / ".dev.vars").read_text()
    assert re.search("^PAGER_KEY=$", text, re.MULTILINE)
