"""The Workflow under `wrangler dev`, whose instances really sleep, wait and end."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from dev_server import DevServer, serve
from toolchain import link_toolchain

REQUEST = {"email": "ada@example.com", "metadata": {"plan": "pro"}}


@pytest.fixture(scope="module")
def server(project: Callable[..., Path]) -> Iterator[DevServer]:
    """A server of a project as it is generated."""
    with serve(project(["workflows"])) as server:
        yield server


@pytest.fixture(scope="module")
def hasty_server(render: Callable[..., Path]) -> Iterator[DevServer]:
    """A server that waits for a decision and for the next try for a second.

    Its last step fails twice after its work is done.
    """
    project = link_toolchain(render(["workflows"]))
    code = (project / "src/index.ts").read_text()
    for old, new in (
        ('timeout: "7 days"', 'timeout: "1 second"'),
        ('delay: "5 seconds"', 'delay: "1 second"'),
        (
            "() => this.carryOut(event, decision),",
            """async ({ attempt }) => {
				await this.carryOut(event, decision);
				if (attempt < 3) throw new Error();
			},""",
        ),
    ):
        assert code.count(old) == 1
        code = code.replace(old, new)
    (project / "src/index.ts").write_text(code)
    with serve(project) as server:
        yield server


def ask(server: DevServer, method: str, path: str, **options: object) -> httpx.Response:
    """Send a request as the operator."""
    url = f"{server.url}/workflows{path}"
    return httpx.request(method, url, headers=server.operator, **options)


def start(server: DevServer) -> str:
    """Start an instance and return its id."""
    response = ask(server, "POST", "", json=REQUEST)
    assert response.status_code == 202
    return response.json()["id"]


def approve(server: DevServer, instance: str, approved: bool) -> int:
    """Send a decision and return the status of the answer."""
    path = f"/{instance}/approval"
    return ask(server, "POST", path, json={"approved": approved}).status_code


def wait_for_output(server: DevServer, instance: str) -> dict:
    """Wait until an instance is complete and return its output.

    Raises:
        AssertionError: When that takes more than half a minute, or when it has
            an output before.
    """
    deadline = time.monotonic() + 30
    while True:
        shown = ask(server, "GET", f"/{instance}").json()
        if shown["status"] == "complete":
            return shown["output"]
        assert shown == {
            "id": instance,
            "status": "running",
            "output": None,
            "error": None,
        }
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)


def wait_for_line(server: DevServer, instance: str, message: str) -> None:
    """Wait until the log tells something of an instance.

    Raises:
        AssertionError: When that takes more than half a minute.
    """
    server.wait_until(lambda: told(server, instance, message))


def told(server: DevServer, instance: str, message: str) -> list[str]:
    """Return the lines of the log that tell something of an instance."""
    lines = (line.strip() for line in server.log.read_text().splitlines())
    about = f'"instanceId":"{instance}"'
    return [
        line for line in lines if f'"message":"{message}"' in line and about in line
    ]


@pytest.mark.parametrize("approved", [True, False])
def test_an_instance_waits_for_a_decision_and_carries_it_out(
    server: DevServer, approved: bool
) -> None:
    instance = start(server)
    wait_for_line(server, instance, "Approval wanted")
    assert ask(server, "GET", f"/{instance}").json()["output"] is None

    assert approve(server, instance, approved) == 202

    output = wait_for_output(server, instance)
    assert output == {**REQUEST, "approved": approved, "decidedAt": output["decidedAt"]}
    (line,) = told(server, instance, "Decision made")
    assert json.loads(line)["approved"] == approved


def test_the_first_of_two_decisions_wins_and_none_comes_after_the_end(
    server: DevServer,
) -> None:
    instance = start(server)
    assert approve(server, instance, False) == 202
    # It may have ended by then.
    assert approve(server, instance, True) in (202, 409)
    output = wait_for_output(server, instance)
    assert output["approved"] is False
    assert approve(server, instance, True) == 409
    assert wait_for_output(server, instance) == output


@pytest.mark.parametrize(
    "instance", ["00000000-0000-4000-8000-000000000000", "a%20b", "a" * 200]
)
def test_an_unknown_id_is_not_found(server: DevServer, instance: str) -> None:
    assert ask(server, "GET", f"/{instance}").status_code == 404
    assert approve(server, instance, True) == 404


def test_one_key_starts_one_instance_even_at_once(server: DevServer) -> None:
    headers = {**server.operator, "Idempotency-Key": "order 7"}

    def send(_: int) -> httpx.Response:
        url = f"{server.url}/workflows"
        return httpx.post(url, headers=headers, json=REQUEST, timeout=30)

    first = send(0)
    with ThreadPoolExecutor(8) as pool:
        answers = [first, *pool.map(send, range(8))]
    assert {answer.status_code for answer in answers} == {202}
    (instance,) = {answer.json()["id"] for answer in answers}
    wait_for_line(server, instance, "Approval wanted")
    assert len(told(server, instance, "Approval wanted")) == 1


def test_no_decision_in_time_is_a_no(hasty_server: DevServer) -> None:
    output = wait_for_output(hasty_server, start(hasty_server))
    assert output == {**REQUEST, "approved": False, "decidedAt": None}


def test_a_decision_stays_while_the_step_that_carries_it_out_fails_twice(
    hasty_server: DevServer,
) -> None:
    instance = start(hasty_server)
    assert approve(hasty_server, instance, True) == 202
    wait_for_line(hasty_server, instance, "Decision made")

    assert approve(hasty_server, instance, False) == 202

    assert wait_for_output(hasty_server, instance)["approved"] is True
    lines = told(hasty_server, instance, "Decision made")
    assert len(lines) == 3
    assert len(set(lines)) == 1
