"""The feature `hyperdrive` with its embedded database and with a real PostgreSQL."""

import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import workbench
from dev_server import DevServer, free_ports, left_over, serve, start
from test_products import MIGRATIONS, build
from toolchain import link_toolchain, node, node_environment, run_tests
from workbench import NODE, dev_command

full = pytest.mark.full

#: The one environment variable that chooses a real database.
VARIABLE = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE"
USER = "hyperdrive_user"
#: The lines that `tests/products/library` needs beside its code, for `build`: an
#: object, an agent and a Workflow that ask the database.
LIBRARY = [
    (
        "src/index.ts",
        "// Your imports",
        'import { DurableObject } from "cloudflare:workers";\n'
        'import { Agent as BaseAgent, getAgentByName as findAgent } from "agents";',
    ),
    (
        "wrangler.jsonc",
        "\t\t\t// Your durable_objects",
        '\t\t\t{ "name": "SHELF", "class_name": "Shelf" },\n'
        '\t\t\t{ "name": "Librarian", "class_name": "Librarian" },',
    ),
    (
        "wrangler.jsonc",
        MIGRATIONS,
        '\t\t{ "tag": "user-1", "new_sqlite_classes": ["Shelf", "Librarian"] },',
    ),
    (
        "wrangler.jsonc",
        "\t\t// Your workflows",
        '\t\t{ "name": "stocktaking", "binding": "STOCKTAKING",'
        ' "class_name": "Stocktaking" },',
    ),
]
#: The tables of a new project's database.
TABLES = ["books", "hyperdrive_migrations"]
#: Sends SQL to a database: `node sql.mjs URL SQL`.
SQL_SCRIPT = """\
import postgres from "postgres";
const sql = postgres(process.argv[2], { max: 1, onnotice() {} });
console.log(JSON.stringify(await sql.unsafe(process.argv[3])));
await sql.end();
"""
#: Asks an embedded database from many connections at once, wrong SQL among it,
#: and prints how many of the answers are not those that were asked for.
CROWD_SCRIPT = """\
import postgres from "postgres";
import { setup } from "./scripts/hyperdrive.mjs";
const stop = await setup();
const url = process.env.CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE;
async function ask(number) {
	const sql = postgres(url, { max: 2, prepare: number % 2 === 0 });
	try {
		const asked = sql`SELECT ${number}::int AS number`;
		const wrong = sql`SELECT * FROM nowhere WHERE id = ${number}`;
		const [right, failed] = await Promise.allSettled([asked, wrong]);
		return right.value?.[0].number === number && failed.reason?.code === "42P01";
	} finally {
		await sql.end();
	}
}
const numbers = Array.from({ length: 30 }, (_, index) => index);
const answers = await Promise.all(numbers.map(ask));
console.log(answers.filter((isRight) => !isRight).length);
await stop();
"""


@dataclass
class Postgres:
    """A real PostgreSQL server.

    Attributes:
        programs: Where its programs are.
        directory: Where its data is.
        port: Where it listens on 127.0.0.1.
        password: That of `USER`, who may do everything.
        process: The server while it runs.
    """

    programs: Path
    directory: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The connection string."""
        return f"postgres://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Make its data directory."""
        owner = unprivileged_user()
        password_file = self.directory / "password"
        password_file.write_text(self.password)
        if owner is not None:
            shutil.chown(self.directory, owner)
            shutil.chown(password_file, owner)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        options += ["--no-sync", f"--username={USER}", f"--pwfile={password_file}"]
        command = [self.programs / "initdb", *options, self.directory / "data"]
        subprocess.run(
            command, cwd=self.directory, user=owner, check=True, capture_output=True
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}"]
        options += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data", *options],
                cwd=self.directory,
                user=unprivileged_user(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ready = [self.programs / "pg_isready", "--quiet", "--host=127.0.0.1"]
        deadline = time.monotonic() + 30
        while subprocess.run([*ready, f"--port={self.port}"]).returncode != 0:
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it at once, unless it does not run."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=30)

    def run(self, project: Path, statements: str) -> list[dict]:
        """Run SQL and return the rows of its result, with a project's packages."""
        return run_sql(project, self.url, statements)


def unprivileged_user() -> str | None:
    """Return as whom PostgreSQL runs, which refuses root; None: as who we are."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def run_sql(project: Path, url: str, statements: str) -> list[dict]:
    """Run SQL in a database.

    Args:
        project: A project, for its packages.
        url: The database's connection string.
        statements: The SQL.

    Returns:
        The rows of the result.
    """
    script = project / "sql.mjs"
    script.write_text(SQL_SCRIPT)
    rows = json.loads(node(project, script, url, statements))
    script.unlink()
    return rows


def tables(server: DevServer) -> httpx.Response:
    """Ask a server for the tables of its database, as the operator."""
    return ask(server, "/db/tables")


def embedded_url(server: DevServer) -> str:
    """Return the connection string that `dev` has printed."""
    return re.search(r"psql (postgres://\S+)", server.log.read_text())[1]


def names(response: httpx.Response) -> list[str]:
    """Return the names of the tables of a successful response."""
    assert response.status_code == 200, response.text
    return [table["name"] for table in response.json()["tables"]]


def errors_logged(server: DevServer) -> list[dict]:
    """Return what the Worker has logged as errors or warnings."""
    log = server.log.read_text()
    # Two of them may share a line.
    starts = [match.start() for match in re.finditer(r'\{"level":', log)]
    return [json.JSONDecoder().raw_decode(log[start:])[0] for start in starts]


@pytest.fixture
def database() -> Iterator[Postgres]:
    """A real PostgreSQL that runs, with one table `books`."""
    programs = workbench.postgresql_programs()
    assert programs is not None, "`python3 test.py` installs it"
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    postgres = Postgres(programs, directory, *free_ports(1), secrets.token_hex(16))
    try:
        postgres.create()
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(directory)


@pytest.fixture
def directory(render: Callable[..., Path]) -> Path:
    """A project with `hyperdrive` alone, of the test's own."""
    return link_toolchain(render(["hyperdrive"], project_name="test-hyperdrive"))


@pytest.fixture
def library(render: Callable[..., Path]) -> Path:
    """A library, whose object, agent and Workflow ask the database."""
    features = ["hyperdrive", "workflows", "agents"]
    project = link_toolchain(render(features, project_name="test-library"))
    return build(project, "library", LIBRARY)


def ask(server: DevServer, path: str) -> httpx.Response:
    """Send a GET request as the operator."""
    return server.http.get(path, headers=server.operator)


def migrations(directory: Path) -> Path:
    """Return the folder of a project's migrations."""
    return directory / "migrations/hyperdrive"


def migrate(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a project's script `db:migrate`."""
    return subprocess.run(
        [NODE, "--run", "db:migrate"],
        cwd=directory,
        env={**node_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- The embedded database ----------------------------------------------------


def test_dev_brings_a_database_keeps_its_data_and_leaves_nothing(
    directory: Path,
) -> None:
    with serve(directory) as server:
        assert names(tables(server)) == TABLES
        insert = "INSERT INTO books (title) VALUES ('Emma')"
        run_sql(directory, embedded_url(server), insert)
        processes = server.processes()
        server.stop()
        assert left_over(processes) == []

    (migrations(directory) / "0001_pages.sql").write_text(
        "ALTER TABLE books ADD COLUMN pages integer;\nUPDATE books SET pages = 300;\n"
    )
    with serve(directory) as server:
        select = "SELECT title, pages FROM books"
        rows = run_sql(directory, embedded_url(server), select)
        log = server.log.read_text()
    assert rows == [{"title": "Emma", "pages": 300}]
    assert re.findall(r"Applied (\S+)", log) == ["migrations/hyperdrive/0001_pages.sql"]


@full
@pytest.mark.parametrize("end", ["Ctrl-C", "a killed shell"])
def test_dev_leaves_nothing_after(end: str, directory: Path) -> None:
    *_, script = dev_command(directory)[:3]
    # As that of npm, which no command replaces.
    shell = ["sh", "-c", str(script).replace("exec ", "") + "; true", "dev"]
    with serve(directory, shell) as server:
        processes = server.processes()
        assert len(processes) > 2
        if end == "Ctrl-C":
            os.killpg(server.process.pid, signal.SIGINT)
        else:
            server.process.kill()
        assert left_over(processes, seconds=30) == []
    assert (directory / ".wrangler/state/hyperdrive.tar").exists()


def test_dev_stops_at_a_migration_that_fails_and_names_it(directory: Path) -> None:
    (migrations(directory) / "0001_wrong.sql").write_text("ALTER TABLE nothing;\n")
    with start(directory) as server:
        assert server.process.wait(timeout=60) != 0
        assert "migrations/hyperdrive/0001_wrong.sql: " in server.log.read_text()


def test_connections_to_the_embedded_database_are_not_mixed_up(
    directory: Path,
) -> None:
    (directory / "crowd.mjs").write_text(CROWD_SCRIPT)
    assert node(directory, directory / "crowd.mjs") == "0\n"


# --- A real PostgreSQL --------------------------------------------------------


def connections(directory: Path, database: Postgres) -> int:
    """Count the connections to a database, without the one that asks.

    One that ends is still there until its process has noticed, so this waits for
    ten seconds at most until there is none.
    """
    statement = (
        "SELECT count(*)::int FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + 10
    while True:
        (row,) = database.run(directory, statement)
        if row["count"] == 0 or time.monotonic() > deadline:
            return row["count"]


@full
def test_a_real_database_takes_the_place_of_the_embedded_one(
    library: Path, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library / ".env").write_text(f"{VARIABLE}={database.url}\n")
    left = {}
    with serve(library) as server:
        assert server.processes()[0].net_connections() == []
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: tables(server), range(20)))
        assert [names(answer) for answer in answers] == [TABLES] * 20

        for where in ("route", "object", "agent", "step"):
            for _ in range(20):
                answer = ask(server, f"/books/count/{where}")
                assert answer.json() == {"count": 0} or answer.status_code == 202
            if where == "step":
                path = f"/books/count/step/{answer.json()['id']}"
                server.wait_until(
                    lambda path=path: ask(server, path).json()["status"] == "complete"
                )
            left[where] = connections(library, database)
        failed = [
            ask(server, f"/broken/{how}").status_code
            for how in ("division", "mine", "time")
        ]
        left["failures"] = connections(library, database)

        logged = len(errors_logged(server))
        database.stop()
        down = tables(server)
        database.start()
        assert names(tables(server)) == TABLES
        server.stop()

    assert left == dict.fromkeys(("route", "object", "agent", "step", "failures"), 0)
    assert failed == [502, 500, 502]
    assert down.status_code == 502
    assert down.json()["error"]["code"] == "database_failed"
    (line,) = errors_logged(server)[logged:]
    assert line["message"] == "Database query failed"
    for text in (json.dumps(line), down.text):
        assert USER not in text
        assert "postgres:" not in text
    assert database.password not in server.log.read_text()

    monkeypatch.setenv(VARIABLE, database.url)
    (library / ".env").unlink()
    run_tests(library, "books", "hyperdrive")
    titles = database.run(library, "SELECT title FROM books")
    assert titles == [{"title": "Emma"}]


@full
def test_a_database_that_accepts_connections_but_does_not_answer_is_a_502(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(migrations(directory))
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        listener.settimeout(1)
        port = listener.getsockname()[1]
        monkeypatch.setenv(VARIABLE, f"postgres://user:word@127.0.0.1:{port}/any")
        with serve(directory) as server, ThreadPoolExecutor(1) as pool:
            for behaviour in ("closes", "resets", "is silent"):
                answer = pool.submit(tables, server)
                while behaviour != "is silent" and not answer.done():
                    with suppress(TimeoutError), listener.accept()[0] as connection:
                        if behaviour == "resets":
                            linger = struct.pack("ii", 1, 0)
                            option = socket.SOL_SOCKET, socket.SO_LINGER
                            connection.setsockopt(*option, linger)
                assert answer.result().status_code == 502, behaviour
            server.stop()

    assert len(errors_logged(server)) == 3


# --- Migrations ---------------------------------------------------------------


@full
def test_migrations_are_applied_once_each_in_order_by_many_at_once(
    directory: Path, database: Postgres
) -> None:
    folder = migrations(directory)
    (folder / "0002_insert.sql").write_text("INSERT INTO books (title) VALUES ('x');\n")
    (folder / "0001_check.sql").write_text(
        "ALTER TABLE books ADD CHECK (title <> '');\n-- Several statements: \n"
        "INSERT INTO books (title) VALUES ('first');\n"
    )
    (folder / "notes.md").write_text("Not SQL")
    with ThreadPoolExecutor(4) as pool:
        runs = list(
            pool.map(lambda _: migrate(directory, DATABASE_URL=database.url), range(4))
        )
    assert [run.returncode for run in runs] == [0] * 4, runs
    printed = "".join(run.stdout for run in runs)
    assert sorted(re.findall(r"Applied migrations/hyperdrive/(\S+)", printed)) == [
        "0000_books.sql",
        "0001_check.sql",
        "0002_insert.sql",
    ]
    titles = database.run(directory, "SELECT title FROM books ORDER BY id")
    assert titles == [{"title": "first"}, {"title": "x"}]
    assert all(database.password not in run.stdout + run.stderr for run in runs)


@full
def test_a_migration_that_fails_is_named_and_undone_and_stops_the_rest(
    directory: Path, database: Postgres
) -> None:
    folder = migrations(directory)
    (folder / "0001_wrong.sql").write_text(
        "INSERT INTO books (title) VALUES ('x');\nSELECT * FROM nowhere;\n"
    )
    (folder / "0002_later.sql").write_text("CREATE TABLE later ();\n")
    result = migrate(directory, DATABASE_URL=database.url)
    assert result.returncode == 1
    message = 'migrations/hyperdrive/0001_wrong.sql: relation "nowhere" does not exist'
    assert message in result.stderr
    assert database.run(directory, "SELECT * FROM books") == []
    named = "SELECT name FROM hyperdrive_migrations"
    assert database.run(directory, named) == [{"name": "0000_books.sql"}]

    (folder / "0001_wrong.sql").write_text("CREATE TABLE right_now ();\n")
    assert migrate(directory, DATABASE_URL=database.url).returncode == 0
    assert len(database.run(directory, named)) == 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "Set DATABASE_URL to postgres://USER:PASSWORD@HOST/NAME."),
        ("word", "Invalid URL"),
        ("postgres://u:word@localhost:1/a", "ECONNREFUSED"),
    ],
)
def test_migrating_says_what_is_wrong_with_the_connection_string(
    url: str, message: str, directory: Path
) -> None:
    result = migrate(directory, DATABASE_URL=url)
    assert result.returncode == 1
    assert message in result.stderr
    assert "word" not in result.stderr
