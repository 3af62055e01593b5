"""The feature `hyperdrive` with its embedded database and with a real PostgreSQL."""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

import workbench
from conftest import link_toolchain, node, node_environment
from dev_server import DevServer, free_ports, left_over, serve
from workbench import NODE, ROOT

Project = Callable[..., Path]

#: The one environment variable that chooses a real database.
VARIABLE = "CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE"
USER = "hyperdrive_user"
#: What `tests/products/library` needs beside its code, as `build` takes it: an
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
        '\t\t// Your migrations after v1 (tags that start with "user-")',
        '\t\t{ "tag": "user-1", "new_sqlite_classes": ["Shelf", "Librarian"] },',
    ),
    (
        "wrangler.jsonc",
        "\t\t// Your workflows",
        '\t\t{ "name": "stocktaking", "binding": "STOCKTAKING",'
        ' "class_name": "Stocktaking" },',
    ),
]
#: Values of `schema` that must do nothing.
HOSTILE = [
    "",
    "two words",
    "public.books",
    "' OR '1'='1",
    "public'; DROP SCHEMA public CASCADE; --",
    'public"; DROP TABLE books; --',
    "public\0",
    "$1",
    "x" * 64,
]
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
import { start } from "./scripts/hyperdrive.mjs";
const { env, stop } = await start();
const [url] = Object.values(env);
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


def tables(server: DevServer, schema: str | None = None) -> httpx.Response:
    """Ask a server for the tables of a schema, as the operator."""
    params = {} if schema is None else {"schema": schema}
    return httpx.get(
        f"{server.url}/db/tables", params=params, headers=server.operator, timeout=30
    )


def names(response: httpx.Response) -> list[str]:
    """Return the names of the tables of a successful response."""
    assert response.status_code == 200, response.text
    return [table["name"] for table in response.json()["tables"]]


def errors_logged(server: DevServer) -> list[dict]:
    """Return the Worker's log lines of errors."""
    lines = server.log.read_text().splitlines()
    found = [line[line.index('{"level"') :] for line in lines if '{"level"' in line]
    decoder = json.JSONDecoder()
    return [decoder.raw_decode(line)[0] for line in found]


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


# --- The embedded database ----------------------------------------------------


def test_dev_brings_a_database_answers_many_at_once_and_leaves_nothing(
    directory: Path,
) -> None:
    with serve(directory) as server:
        sample = tables(server).json()
        schemas = ["public", "information_schema", "nowhere", "pg_catalog"] * 5
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda schema: tables(server, schema), schemas))
        processes = server.processes()
        status = server.stop()

    assert sample == {"tables": [{"schema": "public", "name": "books"}]}
    for schema, answer in zip(schemas, answers, strict=True):
        rows = answer.json()["tables"]
        assert {row["schema"] for row in rows} <= {schema}
        assert (rows == []) == (schema == "nowhere")
    assert status == 0
    assert left_over(processes) == []


def test_what_dev_changed_is_there_the_next_time(directory: Path) -> None:
    with serve(directory) as server:
        (listener,) = {
            connection.laddr.port
            for connection in psutil.Process(server.process.pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        url = f"postgres://postgres:postgres@127.0.0.1:{listener}/postgres"
        run_sql(directory, url, "CREATE TABLE authors (id integer)")
        server.stop()
    with serve(directory) as server:
        assert names(tables(server)) == ["authors", "books"]


def test_connections_to_the_embedded_database_are_not_mixed_up(
    directory: Path,
) -> None:
    (directory / "crowd.mjs").write_text(CROWD_SCRIPT)
    assert node(directory, directory / "crowd.mjs") == "0\n"


@pytest.mark.parametrize("place", ["shell", ".env", "wrangler.jsonc"])
def test_a_configured_database_takes_the_place_of_the_embedded_one(
    place: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgres://user:password@127.0.0.1:5432/mine"
    if place == "shell":
        monkeypatch.setenv(VARIABLE, url)
    elif place == ".env":
        (directory / ".env").write_text(f"{VARIABLE}={url}\n")
    else:
        config = directory / "wrangler.jsonc"
        binding = '"binding": "HYPERDRIVE",\n'
        setting = f'\t\t\t"localConnectionString": "{url}",\n'
        config.write_text(config.read_text().replace(binding, binding + setting))
    script = directory / "start.mjs"
    script.write_text(
        'import { setup, start } from "./scripts/hyperdrive.mjs";\n'
        "console.log((await start()).env, await setup());\n"
    )
    assert node(directory, script) == "{} undefined\n"


# --- A real PostgreSQL --------------------------------------------------------


def test_dev_uses_a_real_database_that_hostile_parameters_do_not_touch(
    directory: Path, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, database.url)
    database.run(directory, "CREATE TABLE books (id integer)")
    with serve(directory) as server:
        listeners = server.processes()[0].net_connections()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: tables(server), range(20)))
        refused = [tables(server, schema) for schema in HOSTILE]
        after = tables(server)

    assert listeners == []
    assert [names(answer) for answer in answers] == [["books"]] * 20
    assert [answer.status_code for answer in refused] == [400] * len(HOSTILE)
    assert names(after) == ["books"]
    assert database.password not in server.log.read_text()


def test_a_database_that_goes_away_is_a_502_and_one_line_until_it_is_back(
    directory: Path, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, database.url)
    with serve(directory) as server:
        before = tables(server)
        database.stop()
        down = tables(server)
        database.start()
        after = tables(server)
        server.stop()

    assert [before.status_code, down.status_code, after.status_code] == [200, 502, 200]
    assert down.json()["error"]["code"] == "database_failed"
    (line,) = errors_logged(server)
    assert line["message"] == "Database query failed"
    assert line["requestId"] == down.headers["X-Request-Id"]
    for text in (json.dumps(line), down.text):
        assert USER not in text
        assert "postgres:" not in text
    assert database.password not in server.log.read_text()


def test_the_projects_own_tests_pass_with_a_real_database_and_leave_nothing_there(
    directory: Path, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, database.url)
    node(directory, ROOT / "node_modules/vitest/vitest.mjs", "run")
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'"
    left = [row["nspname"] for row in database.run(directory, schemas)]
    assert sorted(left) == ["information_schema", "public"]


@pytest.mark.parametrize("behaviour", ["closes", "is silent"])
def test_a_database_that_accepts_connections_but_does_not_answer_is_a_502(
    behaviour: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setenv(VARIABLE, f"postgres://user:word@127.0.0.1:{port}/any")
        with serve(directory) as server, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(tables, server)
            while behaviour == "closes" and not answer.done():
                listener.settimeout(1)
                try:
                    listener.accept()[0].close()
                except TimeoutError:
                    continue
            response = answer.result()

    assert response.status_code == 502
    assert len(errors_logged(server)) == 1


# --- Deploying ----------------------------------------------------------------


def deploy(project: Path) -> subprocess.CompletedProcess[str]:
    """Run a project's `deploy` without uploading anything."""
    return subprocess.run(
        [NODE, "--run", "deploy", "--", "--dry-run"],
        cwd=project,
        env=node_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_deploy_stops_without_an_id_and_names_the_command_that_makes_one(
    directory: Path,
) -> None:
    result = deploy(directory)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    command = "npx wrangler hyperdrive create test-hyperdrive-postgres"
    assert command in line
    assert "exiting now" not in result.stdout


def test_deploy_goes_on_with_an_id(render: Callable[..., Path]) -> None:
    project = link_toolchain(
        render(["hyperdrive"], hyperdrive_id="0123456789abcdef" * 2)
    )
    result = deploy(project)
    assert result.returncode == 0, result.stderr
    assert "0123456789abcdef" * 2 in result.stdout
