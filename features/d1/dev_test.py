"""The feature `d1`: its migrations in `dev`, at a deploy, and with a user's own."""

import json
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pexpect
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from dev_server import DevServer, serve, start
from internet import answering
from test_products import build
from toolchain import (
    WRANGLER,
    assert_clean,
    link_toolchain,
    node,
    node_environment,
    run_tests,
)
from workbench import NODE, dev_command

Render = Callable[..., Path]

full = pytest.mark.full

#: The sample of the template, and a migration of a user's.
SAMPLE = "0000_notes.sql"
OWN = "0001_authors.sql"
AUTHORS = "CREATE TABLE authors (name TEXT PRIMARY KEY) STRICT;\n"
NOTE = {"title": "Milk", "body": "Two bottles"}
ACCOUNT = "0123456789abcdef0123456789abcdef"
DATABASE = "11111111-2222-4333-8444-555555555555"
#: The lines that `tests/products/journal` needs beside its code, for `build`.
JOURNAL = [
    (
        "src/index.ts",
        "\t\t\t// Your crons",
        '\t\t\t"5 * * * *": countPages,\n\t\t\t"30 0 * * *": dropDrafts,',
    ),
    (
        "wrangler.jsonc",
        "\t\t\t// Your crons",
        '\t\t\t"5 * * * *",\n\t\t\t"30 0 * * *",',
    ),
]


@pytest.fixture
def project(render: Render) -> Path:
    """A project with `d1` alone, of the test's own."""
    return link_toolchain(render(["d1"], project_name="test-d1"))


def migrate(project: Path, name: str, sql: str) -> None:
    """Write a migration into a project."""
    (project / "migrations" / name).write_text(sql)


def applied(server: DevServer) -> list[str]:
    """Return which migrations Wrangler says that it has applied."""
    rows = re.findall(r"│ (\S+\.sql) +│ ✅ *│", server.log.read_text())
    return list(dict.fromkeys(rows))


def apply(project: Path) -> list[str]:
    """Apply the migrations to the database of `dev`; return which were pending."""
    command = ["d1", "migrations", "apply", "DB", "--local"]
    printed = node(project, WRANGLER, *command)
    return re.findall(r"│ (\S+\.sql) +│\n", printed)


def tables(project: Path) -> set[str]:
    """Return the tables of the database that `dev` keeps."""
    select = "SELECT name FROM sqlite_master WHERE type = 'table'"
    options = ["--local", "--json", "--command", select]
    (result,) = json.loads(node(project, WRANGLER, "d1", "execute", "DB", *options))
    return {row["name"] for row in result["results"]}


def add(server: DevServer) -> None:
    """Add a note."""
    answer = server.http.post("/notes", json=NOTE, headers=server.operator)
    assert answer.status_code == 201, answer.text


def titles(server: DevServer) -> list[str]:
    """Return the titles of the notes."""
    answer = server.http.get("/notes")
    assert answer.status_code == 200, answer.text
    return [note["title"] for note in answer.json()["notes"]]


# --- Development --------------------------------------------------------------


def test_dev_applies_the_migrations_and_keeps_the_data(project: Path) -> None:
    with serve(project) as server:
        assert applied(server) == [SAMPLE]
        add(server)
        server.stop()
    migrate(project, OWN, AUTHORS)
    with serve(project) as server:
        assert applied(server) == [OWN]
        assert titles(server) == ["Milk"]


def test_dev_stops_at_a_migration_that_fails_and_names_it(project: Path) -> None:
    migrate(project, OWN, AUTHORS)
    migrate(project, "0002_wrong.sql", "INSERT INTO nowhere VALUES (1);\n")
    with start(project) as server:
        assert server.process.wait(timeout=60) != 0
        log = server.log.read_text()
        assert applied(server) == [SAMPLE, OWN]
    assert "0002_wrong.sql" in log
    assert "no such table: nowhere" in log
    assert "Ready on" not in log


@full
def test_dev_in_a_terminal_migrates_without_asking(project: Path) -> None:
    command, *arguments = map(str, dev_command(project, "--ip=127.0.0.1", "--port=0"))
    process = pexpect.spawn(
        command,
        [*arguments, "--inspector-port=0", "--show-interactive-dev-session=false"],
        cwd=str(project),
        env={**node_environment(), "CI": ""},
        timeout=120,
    )
    try:
        process.expect("Ready on")
    finally:
        process.close(force=True)
    assert "notes" in tables(project)


@full
def test_migrations_of_another_database_are_none_of_its_own(render: Render) -> None:
    # Those of `hyperdrive` are PostgreSQL's, which SQLite would refuse.
    project = link_toolchain(render(["d1", "hyperdrive"]))
    assert SAMPLE in apply(project)
    assert "notes" in tables(project)
    assert "books" not in tables(project)


@full
def test_wrangler_numbers_a_users_migrations_from_one(project: Path) -> None:
    for name in ("authors", "pages"):
        node(project, WRANGLER, "d1", "migrations", "create", "DB", name)
    names = sorted(path.name for path in (project / "migrations").iterdir())
    assert names == [SAMPLE, OWN, "0002_pages.sql"]


@full
def test_a_later_migration_of_the_templates_comes_after_its_first(
    project: Path,
) -> None:
    # As CONTRIBUTING.md promises, for a new database and for one that has more.
    migrate(project, OWN, AUTHORS)
    assert apply(project) == [SAMPLE, OWN]
    later = "0000_notes_pinned.sql"
    column = "ALTER TABLE notes ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;\n"
    migrate(project, later, column)
    assert apply(project) == [later]
    (project / ".wrangler").rename(project.parent / "old")
    assert apply(project) == [SAMPLE, later, OWN]
    run_tests(project, "d1")


# --- Deploying ----------------------------------------------------------------


@dataclass
class Account:
    """A stand-in for Cloudflare's API, with D1 alone.

    Attributes:
        names: The names of the databases that are there.
        database: The database behind all of them.
        asked: The requests so far: `query` for SQL, else a method and a path.
    """

    names: list[str]
    database: sqlite3.Connection = field(
        default_factory=lambda: sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False
        )
    )
    asked: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        path = urlsplit(request.path).path.removeprefix("/client/v4")
        prefix = f"/accounts/{ACCOUNT}/d1/database/"
        if path == f"{prefix}{DATABASE}/query":
            self.asked.append("query")
            return self.query(request.get_json()["sql"])
        self.asked.append(f"{request.method} {path}")
        if path.removeprefix(prefix) in self.names:
            found = {"uuid": DATABASE, "name": path.removeprefix(prefix)}
            return respond(200, result=found)
        return respond(404, errors=[{"code": 7404, "message": "Not found"}])

    def query(self, sql: str) -> Response:
        """Run SQL as D1 does: all of it, or nothing."""
        try:
            if sql.lstrip().upper().startswith("SELECT"):
                cursor = self.database.execute(sql)
                names = [column[0] for column in cursor.description]
                rows = [dict(zip(names, row, strict=True)) for row in cursor]
            else:
                self.database.executescript(f"BEGIN;\n{sql}\nCOMMIT;")
                rows = []
        except sqlite3.Error as error:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            return respond(400, errors=[{"code": 7500, "message": str(error)}])
        result = {"results": rows, "success": True, "meta": {"duration": 1}}
        return respond(200, result=[result])

    def tables(self) -> set[str]:
        """Return the tables of the database."""
        rows = self.database.execute("SELECT name FROM sqlite_master")
        return {name for (name,) in rows}


def respond(
    status: int, result: object = None, errors: list[dict] | None = None
) -> Response:
    """Return a response in the form of Cloudflare's API."""
    body = {
        "success": not errors,
        "result": result,
        "errors": errors or [],
        "messages": [],
    }
    return Response(json.dumps(body), status, mimetype="application/json")


@contextmanager
def account(*names: str) -> Iterator[tuple[Account, HTTPServer]]:
    """Serve an account with databases of these names until the block ends."""
    stand_in = Account(list(names))
    with answering(stand_in.answer) as server:
        yield stand_in, server


def environment(server: HTTPServer) -> dict[str, str]:
    """Return an environment in which Wrangler talks to a stand-in for the API."""
    return {
        **node_environment(),
        "CLOUDFLARE_API_BASE_URL": server.url_for("/client/v4"),
        "CLOUDFLARE_API_TOKEN": "any",
        "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
    }


def deploy(project: Path, server: HTTPServer, **more: str) -> str:
    """Run the script `deploy` without a terminal; return what it printed.

    `more` are environment variables.

    It never ends well: the account takes no Worker.
    """
    result = subprocess.run(
        [NODE, "--run", "deploy"],
        cwd=project,
        env={**environment(server), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode != 0
    return result.stdout + result.stderr


def uploads(account: Account) -> list[str]:
    """Return what was asked about Workers, as an upload begins."""
    return [asked for asked in account.asked if "/workers/" in asked]


def test_deploy_migrates_a_database_by_its_name_and_then_uploads(
    project: Path,
) -> None:
    migrate(project, OWN, AUTHORS)
    with account("test-d1-db") as (cloudflare, server):
        deploy(project, server)
        assert {"notes", "authors"} <= cloudflare.tables()
        first_upload = cloudflare.asked.index(uploads(cloudflare)[0])
        assert "query" not in cloudflare.asked[first_upload:]
    rows = cloudflare.database.execute("SELECT name FROM d1_migrations ORDER BY id")
    assert [name for (name,) in rows] == [SAMPLE, OWN]


@full
def test_deploy_in_a_terminal_migrates_without_asking(project: Path) -> None:
    with account("test-d1-db") as (cloudflare, server):
        process = pexpect.spawn(
            str(NODE),
            ["--run", "deploy"],
            cwd=str(project),
            env={**environment(server), "CI": ""},
            timeout=120,
        )
        process.expect(pexpect.EOF)
        assert "notes" in cloudflare.tables()
        assert uploads(cloudflare) != []


@full
def test_deploy_migrates_the_database_of_the_environment_in_a_variable(
    project: Path,
) -> None:
    config = project / "wrangler.jsonc"
    staging = {
        "vars": {"ALLOWED_ORIGINS": ""},
        "secrets": {"required": ["API_TOKEN"]},
        "d1_databases": [{"binding": "DB", "database_name": "test-d1-staging-db"}],
    }
    text = config.read_text().rstrip().removesuffix("}").rstrip().rstrip(",")
    config.write_text(f'{text},\n"env": {{"staging": {json.dumps(staging)}}}\n}}\n')
    with account("test-d1-db", "test-d1-staging-db") as (cloudflare, server):
        deploy(project, server, CLOUDFLARE_ENV="staging")
    assert "notes" in cloudflare.tables()
    databases = {asked for asked in cloudflare.asked if "/d1/database/" in asked}
    assert {asked.rsplit("/", 1)[1] for asked in databases} == {"test-d1-staging-db"}
    assert any("test-d1-staging" in asked for asked in uploads(cloudflare))


def test_a_migration_that_fails_stops_the_deploy(project: Path) -> None:
    migrate(project, OWN, f"{AUTHORS}INSERT INTO nowhere VALUES (1);\n")
    with account("test-d1-db") as (cloudflare, server):
        output = deploy(project, server)
    assert "no such table: nowhere" in output
    assert uploads(cloudflare) == []
    assert "notes" in cloudflare.tables()
    assert "authors" not in cloudflare.tables()


@full
def test_deploy_without_a_database_names_the_command_that_creates_it(
    project: Path,
) -> None:
    with account("another") as (cloudflare, server):
        output = deploy(project, server)
    assert "wrangler d1 create test-d1-db" in output
    assert uploads(cloudflare) == []


@full
def test_the_readme_creates_the_database_and_leaves_the_config_as_it_is(
    project: Path,
) -> None:
    readme = (project / "README.md").read_text()
    (command,) = re.findall(r"^npx wrangler (d1 create .+)$", readme, re.M)
    assert command.split()[2] == "test-d1-db"
    config = (project / "wrangler.jsonc").read_text()
    made: list[dict] = []

    def create(request: Request) -> Response:
        made.append(request.get_json())
        return respond(200, result={"uuid": DATABASE, **made[-1]})

    with answering(create) as server:
        # In a terminal, where Wrangler could ask for something.
        process = pexpect.spawn(
            str(NODE),
            ["--no-warnings", str(WRANGLER), *command.split()],
            cwd=str(project),
            env={**environment(server), "CI": ""},
            timeout=60,
        )
        process.expect(pexpect.EOF)
    assert process.wait() == 0
    assert made == [{"name": "test-d1-db"}]
    assert (project / "wrangler.jsonc").read_text() == config


# --- A journal, with tables and a job of a user's own -------------------------


@full
def test_own_tables_and_own_jobs_work_beside_those_of_the_template(
    render: Render,
) -> None:
    project = link_toolchain(render(["d1", "cron"], project_name="journal"))
    journal = build(project, "journal", JOURNAL)
    assert_clean(journal)
    run_tests(journal)
    with serve(journal) as server:
        assert applied(server) == [SAMPLE, "0001_pages.sql"]
        page = {"path": "/about", "isDraft": False}
        for status in (201, 409):
            answer = server.http.post("/pages", json=page, headers=server.operator)
            assert answer.status_code == status
        assert titles(server) == ["/about"]
        for cron in ("5+*+*+*+*", "5+*+*+*+*", "30+0+*+*+*", "0+3+*+*+*"):
            ran = server.http.get(f"/cdn-cgi/handler/scheduled?cron={cron}")
            assert (ran.status_code, ran.text) == (200, "ok")
        reports = server.http.get("/reports").json()["reports"]
        assert [report["pages"] for report in reports] == [1]
        server.wait_until(lambda: '"drafts":0' in server.log.read_text())
