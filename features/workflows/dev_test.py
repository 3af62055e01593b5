"""The Workflow under `wrangler dev`, whose instances really wait and end."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from dev_server import DevServer, serve
from toolchain import link_toolchain

REQUEST = {"email": "ada@example.com", "metadata": {"plan": "pro"}}


@pytest.fixture(scope="module")
def server(render: Callable[..., Path]) -> Iterator[DevServer]:
    """A server of a project as it is generated."""
    with serve(link_toolchain(render(["workflows"]))) as server:
        yield server


def start(server: DevServer, **headers: str) -> str:
    """Start an instance and return its id."""
    url, sent = f"{server.url}/workflows", {**server.operator, **headers}
    response = httpx.post(url, headers=sent, json=REQUEST, timeout=30)
    assert response.status_code == 202
    return response.json()["id"]


def told(server: DevServer, instance: str, message: str) -> list[str]:
    """Return the lines of the log that tell something of an instance."""
    lines = (line.strip() for line in server.log.read_text().splitlines())
    about = f'"instanceId":"{instance}"'
    return [
        line for line in lines if f'"message":"{message}"' in line and about in line
    ]


def test_an_instance_waits_for_a_decision_and_carries_it_out(
    server: DevServer,
) -> None:
    instance = start(server)

    def shown() -> dict:
        path = f"/workflows/{instance}"
        return server.http.get(path, headers=server.operator).json()

    server.wait_until(lambda: told(server, instance, "Approval wanted"))
    running = {"id": instance, "status": "running", "output": None, "error": None}
    assert shown() == running

    decision = {"approved": True}
    path = f"/workflows/{instance}/approval"
    sent = server.http.post(path, json=decision, headers=server.operator)
    assert sent.status_code == 202

    server.wait_until(lambda: shown() != running)
    output = shown()["output"]
    assert output == {**REQUEST, **decision, "decidedAt": output["decidedAt"]}
    (line,) = told(server, instance, "Decision made")
    assert json.loads(line)["approved"] is True


def test_one_key_starts_one_instance_even_at_once(server: DevServer) -> None:
    key = {"Idempotency-Key": "order 7"}
    with ThreadPoolExecutor(8) as pool:
        (instance,) = set(pool.map(lambda _: start(server, **key), range(8)))
    assert start(server, **key) == instance
    server.wait_until(lambda: told(server, instance, "Approval wanted"))
    assert len(told(server, instance, "Approval wanted")) == 1
