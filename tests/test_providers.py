"""The SDKs of model providers in `wrangler dev`, against a stand-in for their API."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import json5
import pytest

import conftest
from conftest import link_toolchain
from dev_server import DevServer, free_ports, serve

EVENT = {"name": "science fair", "date": "Friday", "participants": ["Alice", "Bob"]}
TEXT = "Alice and Bob are going to a science fair on Friday."
KEY = "the-key-of-the-provider"


@dataclass
class Provider:
    """A provider with an SDK.

    Attributes:
        secret: The name of the secret that is its key.
        path: Where below the base URL its SDK posts to.
        answer: What its API answers with, given a text of the model.
    """

    secret: str
    path: str
    answer: Callable[[str], dict]


PROVIDERS = {
    "openai": Provider(
        secret="OPENAI_API_KEY",
        path="/chat/completions",
        answer=lambda text: {
            "choices": [{"message": {"content": text}, "finish_reason": "stop"}]
        },
    ),
    "anthropic": Provider(
        secret="ANTHROPIC_API_KEY",
        path="/v1/messages",
        answer=lambda text: {
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
        },
    ),
}


@dataclass
class Api:
    """A stand-in for a provider's API.

    Attributes:
        port: Where it listens on 127.0.0.1.
        status: The status of its answers.
        headers: Their headers, beside the type.
        body: Their body, as JSON.
        seen: The path and the authorization of each request.
    """

    port: int
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: dict = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def listening(api: Api) -> Iterator[None]:
    """Let a stand-in listen until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            api.seen.append((self.path, self.headers["Authorization"]))
            body = json.dumps(api.body).encode()
            self.send_response(api.status)
            for name, value in api.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", api.port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_every_provider_with_a_gateway_is_tested() -> None:
    with_gateway = {
        provider["id"]
        for provider in conftest.PROVIDERS
        if "AI_GATEWAY_BASE_URL" in provider["wrangler"]["vars"]
    }
    assert set(PROVIDERS) == with_gateway


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_sdk_goes_through_the_gateway_and_its_failures_stay_here(
    name: str, render: Callable[..., Path]
) -> None:
    provider = PROVIDERS[name]
    api = Api(*free_ports(1))
    project = link_toolchain(render(["structured-output"], ai_provider=name))
    config = json5.loads((project / "wrangler.jsonc").read_text())
    config["vars"]["AI_GATEWAY_BASE_URL"] = f"http://127.0.0.1:{api.port}/gateway"
    (project / "wrangler.jsonc").write_text(json.dumps(config))
    (project / ".dev.vars").write_text(f"{provider.secret}={KEY}\nAPI_TOKEN=token\n")

    with serve(project) as server:
        with listening(api):
            api.body = provider.answer(json.dumps(EVENT))
            assert extract(server) == (200, None, {"calendar_event": EVENT})
            assert api.seen == [(f"/gateway{provider.path}", f"Bearer {KEY}")]

            api.body = {"error": {"message": f"No quota left for {KEY}"}}
            api.status, api.headers = 429, {"Retry-After": "7"}
            status, retry_after, body = extract(server)
            assert (status, retry_after) == (503, "7")
            assert body["error"]["code"] == "model_busy"

            api.status, api.headers = 500, {}
            status, retry_after, body = extract(server)
            assert (status, retry_after) == (502, None)
            assert body["error"]["code"] == "model_failed"
            assert len(api.seen) == 3
        status, _, body = extract(server)
        assert status == 502
        assert body["error"]["code"] == "model_failed"
        log = server.log.read_text()

    assert log.count("The model gave no answer") == 3
    assert KEY not in log
    assert "Alice" not in log


def extract(server: DevServer) -> tuple[int, str | None, dict]:
    """Ask for an event; return the status, `Retry-After` and the body."""
    response = server.http.post(
        "/extract", json={"text": TEXT}, headers=server.operator
    )
    return response.status_code, response.headers.get("Retry-After"), response.json()
