"""Providers of models: their SDKs in `wrangler dev`, and what people set."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

import parts
from dev_server import DevServer, free_ports, serve
from projects import config
from toolchain import link_toolchain, run_tests
from workbench import ROOT

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


def test_every_provider_with_a_gateway_is_tested() -> None:
    with_gateway = {
        provider["id"]
        for provider in parts.PROVIDERS
        if "AI_GATEWAY_BASE_URL" in provider["vars"]
    }
    assert set(PROVIDERS) == with_gateway


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_sdk_goes_through_the_gateway_and_its_failures_stay_here(
    name: str, render: Callable[..., Path]
) -> None:
    provider = PROVIDERS[name]
    api = HTTPServer("127.0.0.1", *free_ports(1))
    expect_request = partial(
        api.expect_oneshot_request,
        f"/gateway{provider.path}",
        method="POST",
        headers={"Authorization": f"Bearer {KEY}"},
    )
    project = link_toolchain(render(["structured-output"], ai_provider=name))
    wrangler = config(project)
    wrangler["vars"]["AI_GATEWAY_BASE_URL"] = api.url_for("/gateway")
    (project / "wrangler.jsonc").write_text(json.dumps(wrangler))
    (project / ".dev.vars").write_text(f"{provider.secret}={KEY}\nAPI_TOKEN=token\n")

    with serve(project) as server:
        with api:
            answer = provider.answer(json.dumps(EVENT))
            expect_request().respond_with_json(answer)
            assert extract(server) == (200, None, {"calendar_event": EVENT})

            error = {"error": {"message": f"No quota left for {KEY}"}}
            wait = {"Retry-After": "7"}
            expect_request().respond_with_json(error, 429, wait)
            status, retry_after, body = extract(server)
            assert (status, retry_after) == (503, "7")
            assert body["error"]["code"] == "model_busy"

            expect_request().respond_with_json(error, 500)
            status, retry_after, body = extract(server)
            assert (status, retry_after) == (502, None)
            assert body["error"]["code"] == "model_failed"
            assert len(api.log) == 3
        status, _, body = extract(server)
        assert status == 502
        assert body["error"]["code"] == "model_failed"
        line = "The model gave no answer"
        server.wait_until(lambda: server.log.read_text().count(line) >= 3)
    log = server.log.read_text()

    assert log.count(line) == 3
    assert KEY not in log
    assert "Alice" not in log


@pytest.mark.full
@pytest.mark.parametrize("name", [provider["id"] for provider in parts.PROVIDERS])
def test_what_people_set_breaks_no_test(name: str, render: Callable[..., Path]) -> None:
    project = link_toolchain(render(parts.MODEL_FEATURES[-1:], ai_provider=name))
    wrangler = config(project)
    names = [name for name in wrangler["vars"] if name.startswith("AI_")]
    wrangler["vars"] |= {name: "https://gateway.example/in-config" for name in names}
    (project / "wrangler.jsonc").write_text(json.dumps(wrangler))
    lines = [f"{name}=https://gateway.example/in-dev-vars\n" for name in names]
    (project / ".dev.vars").write_text("API_TOKEN=token\n" + "".join(lines))

    run_tests(project)


def test_all_providers_share_what_does_not_depend_on_them() -> None:
    # The three modules are whole, since each project gets one of them.
    codes = [
        (ROOT / "providers" / provider["id"] / "worker.ts").read_text()
        for provider in parts.PROVIDERS
    ]
    for start, end in (
        ("export type ModelMessage", "const { $schema"),
        (" * Asks the model to go on with", "\ttry {"),
        ("\t} catch (error) {\n\t\tif (!signal", "): Promise<Output>"),
    ):
        pattern = re.compile(rf"{re.escape(start)}(.*?){re.escape(end)}", re.DOTALL)
        shared = {pattern.search(code)[1].split("\tconst limit")[0] for code in codes}
        assert len(shared) == 1


def extract(server: DevServer) -> tuple[int, str | None, dict]:
    """Ask for an event; return the status, `Retry-After` and the body."""
    response = server.http.post(
        "/extract", json={"text": TEXT}, headers=server.operator
    )
    return response.status_code, response.headers.get("Retry-After"), response.json()
