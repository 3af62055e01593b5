"""Reminders under `wrangler dev`, with work that takes long and that fails."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev_server import DevServer, serve
from projects import replace
from toolchain import link_toolchain

#: Work of two seconds, which fails for the user `unlucky` at the first try.
WORK = """\
\t\tlogInfo("Reminder fires", { userId });
\t\tawait scheduler.wait(2000);
\t\tif (userId === "unlucky" && !(await this.ctx.storage.get("tried"))) {
\t\t\tawait this.ctx.storage.put("tried", true);
\t\t\tthrow new Error("Not now");
\t\t}
\t\tlogInfo("Reminder done", { userId });
"""


@pytest.fixture(scope="module")
def server(render: Callable[..., Path]) -> Iterator[DevServer]:
    """A server of a project with work of its own."""
    project = link_toolchain(render(["alarms"], project_name="test-alarms"))
    sample = '\t\tlogInfo("Reminder fired", { userId });\n'
    replace(project / "src/index.ts", sample, WORK)
    with serve(project) as server:
        yield server


def put(server: DevServer, user: str, seconds: int) -> dict:
    """Start a reminder, or change its interval, and return the answer."""
    body = {"everySeconds": seconds}
    path = f"/reminders/{user}"
    answer = server.http.put(path, headers=server.operator, json=body)
    assert answer.status_code == 200
    return answer.json()


def lines(server: DevServer, message: str, user: str) -> list[dict]:
    """Return the log lines with a message about a user."""
    log = server.log.read_text()
    # Two of them may share a line.
    starts = [match.start() for match in re.finditer(r'\{"level":', log)]
    found = [json.JSONDecoder().raw_decode(log[start:])[0] for start in starts]
    return [
        line
        for line in found
        if line["message"] == message and line.get("userId") == user
    ]


def start_and_wait(server: DevServer, user: str) -> None:
    """Start a reminder, and wait until it is at work for the first time."""
    put(server, user, 1)
    server.wait_until(lambda: lines(server, "Reminder fires", user))


def test_a_reminder_that_is_cancelled_at_work_stays_cancelled(
    server: DevServer,
) -> None:
    start_and_wait(server, "ada")
    deleted = server.http.delete("/reminders/ada", headers=server.operator)
    assert deleted.status_code == 204
    server.wait_until(lambda: lines(server, "Reminder done", "ada"))
    time.sleep(3)
    assert server.http.get("/reminders/ada").status_code == 404
    assert len(lines(server, "Reminder fires", "ada")) == 1


def test_an_interval_that_is_changed_at_work_stays_changed(server: DevServer) -> None:
    start_and_wait(server, "bob")
    changed = put(server, "bob", 3600)
    server.wait_until(lambda: len(lines(server, "Reminder done", "bob")) == 2)
    shown = server.http.get("/reminders/bob").json()
    assert shown["everySeconds"] == 3600
    assert shown["fired"] == 2
    assert shown["next"] > changed["next"]


def test_a_firing_that_fails_is_tried_again_and_counted_once(
    server: DevServer,
) -> None:
    put(server, "unlucky", 10)
    server.wait_until(lambda: lines(server, "Reminder done", "unlucky"))
    assert server.http.get("/reminders/unlucky").json()["fired"] == 1
    (line,) = lines(server, "Reminder failed", "unlucky")
    assert line["error"]["message"] == "Not now"
