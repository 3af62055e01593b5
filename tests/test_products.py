"""Products built on the template as users do it, with no edit inside a region."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from werkzeug import Request, Response

from dev_server import DevServer, serve
from internet import answering
from projects import edit, replace
from toolchain import assert_clean, link_toolchain, run_tests
from workbench import ROOT, dev_command

Project = Callable[..., Path]

#: The user's own code and tests, per product.
PRODUCTS = ROOT / "tests/products"
#: The lines of `src/index.ts` below which code of the user's goes, by its file.
PLACES = {"middleware.ts": "// Your middleware", "code.ts": "// Your code"}
#: How the line begins above which migrations of the user's go.
MIGRATIONS = "\t\t// Your migrations after v1"


def build(project: Path, product: str, entries: list[tuple[str, str, str]]) -> Path:
    """Write a product into a project, at the lines that are the user's.

    Args:
        project: The project, with its packages.
        product: The folder in `PRODUCTS`: the files of `PLACES` go below their
            lines, all others into the project under the same path.
        entries: What else goes where: a file, the line, what goes below it, or
            above it where the line is `MIGRATIONS`.

    Returns:
        The project.
    """
    folder = PRODUCTS / product
    for path in folder.rglob("*.*"):
        if path.name in PLACES:
            code = path.read_text().rstrip()
            edit(project, "src/index.ts", PLACES[path.name], f"\n{code}")
        else:
            target = project / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    for name, line, insert in entries:
        if line == MIGRATIONS:
            replace(project / name, line, f"{insert}\n{line}")
        else:
            edit(project, name, line, insert)
    return project


# --- A URL shortener for teams --------------------------------------------------

SHORTENER = [
    ("src/index.ts", "\t\t\t// Your queues", '\t\t\t"all-mail": sendMails,'),
    (
        "src/index.ts",
        "\t\t\t// Your crons",
        '\t\t\t"5 * * * *": forPeriods(60, report),',
    ),
    (
        "wrangler.jsonc",
        "\t\t\t// Your durable_objects",
        '\t\t\t{ "name": "LINK", "class_name": "Link" },',
    ),
    (
        "wrangler.jsonc",
        MIGRATIONS,
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
    ("wrangler.jsonc", "\t\t\t// Your crons", '\t\t\t"5 * * * *",'),
    ("wrangler.jsonc", "\t\t\t// Your secrets", '\t\t\t"PAGER_KEY",'),
    (
        "vitest.config.ts",
        "\t\t\t\tbindings: {",
        '\t\t\t\t\tPAGER_KEY: "test-PAGER_KEY",',
    ),
]


@pytest.fixture(scope="module")
def shortener(render: Project) -> Path:
    """A shortener with sessions, events, mails, a job, rooms and static files."""
    features = ["auth", "analytics", "queues", "cron", "websockets", "assets"]
    project = link_toolchain(render(features, project_name="teamlinks"))
    return build(project, "shortener", SHORTENER)


@pytest.fixture(scope="module")
def shortener_server(shortener: Path) -> Iterator[DevServer]:
    """The shortener, served."""
    with serve(shortener) as server:
        yield server


def test_the_shortener_is_clean_and_passes_all_tests(shortener: Path) -> None:
    assert_clean(shortener)
    run_tests(shortener)


def test_own_middleware_runs_for_every_route(shortener_server: DevServer) -> None:
    for path in ("/health", "/api/links/none", "/api/none"):
        assert shortener_server.http.get(path).headers["X-Mine"] == "yes"


def test_own_route_answers_in_place_of_the_templates_or_passes_on(
    shortener_server: DevServer,
) -> None:
    # In pieces, so that no length is known before it has been read once.
    event = iter([b'{"userId":"ada",', b'"event":"read"}'])
    headers = {"Content-Type": "application/json"}
    answers = [
        shortener_server.http.post("/events", content=body, headers=headers)
        for body in (b'"ping"', event)
    ]
    assert [(one.status_code, one.text) for one in answers] == [
        (200, "pong"),
        (204, ""),
    ]


def sign_in(server: DevServer) -> dict[str, str]:
    """Start a session of Ada's and return the header that shows it."""
    ada = {"userId": "ada"}
    answer = server.http.post("/auth/sessions", headers=server.operator, json=ada)
    server.http.cookies.clear()
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def test_own_routes_know_the_user_of_a_session(shortener_server: DevServer) -> None:
    http = shortener_server.http
    link = {"slug": "docs", "url": "https://docs.example/"}
    ada = sign_in(shortener_server)
    made = http.post("/api/links", headers=ada, json=link)
    assert (made.status_code, made.json()["userId"]) == (201, "ada")
    token = http.post("/api/links", headers=shortener_server.operator, json=link)
    assert token.status_code == 401
    assert http.get("/api/team/name").status_code == 401
    assert http.get("/api/team/name", headers=ada).json() == {"of": "ada"}
    # The consumer of another queue than the template's has had its message.
    note = "/api/notes/docs"
    assert http.get(note, headers=ada).json()["error"]["code"] == "operator_only"
    shortener_server.wait_until(
        lambda: http.get(note, headers=shortener_server.operator).json() == "ada"
    )


def test_own_job_runs_at_its_url(shortener_server: DevServer) -> None:
    server = shortener_server
    due = "cron=5+*+*+*+*&time=1795316400000"
    assert server.http.get(f"/cdn-cgi/handler/scheduled?{due}").status_code == 200
    report = server.http.get("/api/notes/report", headers=server.operator)
    assert report.json() == "2026-11-22T02:00:00.000Z"


# --- A support desk -------------------------------------------------------------

DESK = [
    (
        "src/index.ts",
        '\t\tlogInfo("Reminder fired", { userId });',
        "\t\tawait scheduler.wait(2000);",
    ),
    (
        "wrangler.jsonc",
        "\t\t\t// Your durable_objects",
        '\t\t\t{ "name": "SupportAgent", "class_name": "SupportAgent" },',
    ),
    (
        "wrangler.jsonc",
        MIGRATIONS,
        '\t\t{ "tag": "user-desk", "new_sqlite_classes": ["SupportAgent"] },',
    ),
    (
        "wrangler.jsonc",
        "\t\t// Your workflows",
        '\t\t{ "name": "refund", "binding": "REFUND", "class_name": "Refund" },',
    ),
]


def answer(request: Request) -> Response:
    """Answer as a model that uses the first tool, then says what that returned."""
    asked = request.get_json()
    last = asked["messages"][-1]
    if not asked.get("stream"):
        body = completion("stop", message={"content": '{"urgency":"high"}'})
        return Response(json.dumps(body), mimetype="application/json")
    if last["role"] == "tool":
        delta, end = {"content": f"Found {last['content']}"}, "stop"
    else:
        function = {"name": "findTicket", "arguments": '{"id":"t1"}'}
        call = {"index": 0, "id": "1", "type": "function", "function": function}
        delta, end = {"tool_calls": [call]}, "tool_calls"
    event = json.dumps(completion(end, delta={"role": "assistant", **delta}))
    text = f"data: {event}\n\ndata: [DONE]\n\n"
    return Response(text, mimetype="text/event-stream")


def completion(end: str, **said: dict) -> dict:
    """Return a completion, or a piece of one, as OpenAI documents it."""
    return {"id": "1", "choices": [{"index": 0, "finish_reason": end, **said}]}


@pytest.fixture(scope="module")
def desk(render: Project) -> Path:
    """A desk on Postgres, workflows, reminders and agents."""
    features = ["hyperdrive", "workflows", "alarms", "agents", "structured-output"]
    project = render(features, ai_provider="openai", package_manager="pnpm")
    return build(link_toolchain(project), "desk", DESK)


@pytest.fixture(scope="module")
def desk_server(desk: Path) -> Iterator[DevServer]:
    """The desk, served to its operator, with a stand-in for the model."""
    with answering(answer) as model:
        settings = [f"AI_GATEWAY_BASE_URL:{model.url_for('')}", "OPENAI_API_KEY:key"]
        options = [f"--var={setting}" for setting in settings]
        with serve(desk, dev_command(desk, *options)) as server:
            server.http.headers.update(server.operator)
            yield server


@pytest.mark.full
def test_the_desk_is_clean_and_passes_all_tests(desk: Path) -> None:
    assert_clean(desk)
    run_tests(desk)


@pytest.mark.full
def test_own_schema_shapes_the_models_answer(desk_server: DevServer) -> None:
    urgency = desk_server.http.get("/tickets/t1/urgency")
    assert urgency.json() == {"urgency": "high"}


@pytest.mark.full
def test_own_agent_answers_with_its_tool(desk_server: DevServer) -> None:
    path = "/agents/support-agent/ada"
    said = desk_server.http.post(path, json={"message": "What of my lamp?"})
    assert "The lamp is broken" in said.text
    assert said.text.rstrip().endswith("data: [DONE]")
    kept = desk_server.http.get(path).json()["messages"]
    assert [one["role"] for one in kept] == ["user", "assistant"]
    other = desk_server.http.get("/agents/ai-agent/ada").json()["messages"]
    assert other == []


@pytest.mark.full
def test_own_workflow_waits_for_a_decision(desk_server: DevServer) -> None:
    http = desk_server.http
    assert http.post("/refunds/t1").status_code == 202
    decided = http.post("/refunds/t1/approval", json={"approved": True})
    assert decided.status_code == 204
    desk_server.wait_until(
        lambda: http.get("/refunds/t1").json()["status"] == "complete"
    )
    output = http.get("/refunds/t1").json()["output"]
    assert output == {"id": "t1", "subject": "The lamp is broken", "approved": True}


@pytest.mark.full
def test_a_reminder_that_is_cancelled_at_work_stays_cancelled(
    desk_server: DevServer,
) -> None:
    http = desk_server.http
    http.put("/reminders/ada", json={"everySeconds": 1})
    desk_server.wait_until(lambda: "Reminder fired" in desk_server.log.read_text())
    assert http.delete("/reminders/ada").status_code == 204
    fired = desk_server.log.read_text().count("Reminder fired")
    time.sleep(3.5)
    assert http.get("/reminders/ada").status_code == 404
    assert desk_server.log.read_text().count("Reminder fired") == fired
