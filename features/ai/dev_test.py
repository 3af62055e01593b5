"""Answers of a model in `wrangler dev`, piece by piece, and clients that go away."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect
from werkzeug import Request, Response

from demo import opened, panel_of
from dev_server import DevServer, serve
from internet import Model
from parts import NEWEST, OLDEST
from toolchain import link_toolchain

full = pytest.mark.full

ASKED = {"messages": [{"role": "user", "content": "Hi"}]}


class Talker(Model):
    """A model whose answers may go on until the client goes away.

    Attributes:
        gone: How many clients have left such an answer.
        talks: Whether answers go on.
        says: The words of these; with nothing, an answer does not begin.
        pauses: Whether it is silent for now.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        super().__init__()
        self.gone = 0
        self.talks = False
        self.says = "lo"
        self.pauses = False

    def answer(self, request: Request) -> Response:
        """Answer as any model, or with pieces without end."""
        if not self.talks:
            return super().answer(request)
        words = self.words(request.environ["werkzeug.socket"])
        return Response(self.events(words), mimetype="text/event-stream")

    def words(self, client: socket.socket) -> Iterator[str]:
        """Say one word after the other."""
        try:
            while self.talks:
                yield self.says
                time.sleep(0.05)
                while self.pauses and not has_left(client):
                    time.sleep(0.05)
            yield "!"
        except GeneratorExit:
            self.gone += 1
            raise


def has_left(client: socket.socket) -> bool:
    """Tell whether a client has closed its connection, without a write."""
    try:
        return not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


@pytest.fixture(scope="module")
def running() -> Iterator[Talker]:
    """A model that runs."""
    with Talker() as model:
        yield model


@pytest.fixture
def model(running: Talker) -> Iterator[Talker]:
    """That model, which knows nothing of other tests."""
    running.gone, running.says = 0, "lo"
    yield running
    running.talks = running.pauses = False


@pytest.fixture(scope="module", params=[NEWEST, pytest.param(OLDEST, marks=full)])
def server(
    request: pytest.FixtureRequest, render: Callable[..., Path], running: Talker
) -> Iterator[DevServer]:
    """A server of a chat with a page, at both ends of the compatibility dates."""
    answers = {"ai_provider": "openai", "compatibility_date": request.param}
    project = link_toolchain(render(["ai", "assets"], **answers))
    with serve(running.connect(project)) as server:
        yield server


def ask(server: DevServer, **options: object) -> httpx.Response:
    """Ask for an answer; return it once all of it is there."""
    headers = server.operator
    return server.http.post("/ai/chat", json=ASKED, headers=headers, **options)


def stream(server: DevServer) -> AbstractContextManager[httpx.Response]:
    """Ask for an answer; the block gets it as soon as it begins."""
    headers = server.operator
    return server.http.stream("POST", "/ai/chat", json=ASKED, headers=headers)


def test_an_answer_arrives_piece_by_piece(server: DevServer, model: Talker) -> None:
    # The model says a piece only after the one before has arrived.
    model.pieces.put("Hel")
    with stream(server) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        events = (line for line in response.iter_lines() if line)
        assert next(events) == 'data: {"text":"Hel"}'
        model.pieces.put("lo!")
        assert next(events) == 'data: {"text":"lo!"}'
        model.pieces.put(None)
        assert list(events) == ["data: [DONE]"]


@full
def test_a_client_that_goes_away_while_the_model_is_silent_ends_its_work(
    server: DevServer, model: Talker
) -> None:
    model.talks = model.pauses = True
    with stream(server) as response:
        next(response.iter_lines())
    # Long before the two minutes that an answer may take are over.
    server.wait_until(lambda: model.gone == 1, 30)


def test_a_client_that_goes_away_early_ends_the_work_when_the_answer_begins(
    server: DevServer, model: Talker
) -> None:
    model.talks, model.says = True, ""
    with pytest.raises(httpx.ReadTimeout):
        ask(server, timeout=1)
    model.says = "lo"
    server.wait_until(lambda: model.gone == 1, 10)


def test_the_panel_shows_an_answer_as_it_comes_and_stops_it(
    server: DevServer, model: Talker, chromium: Browser
) -> None:
    model.talks = True
    with opened(chromium, server) as page:
        page.get_by_label("API token").fill(server.token)
        panel = panel_of(page, "ai")
        panel.get_by_role("button", name="Ask").click()
        expect(panel.get_by_role("status")).to_contain_text("Model: lololo")
        panel.get_by_role("button", name="Stop").press("Enter")
        server.wait_until(lambda: model.gone == 1, 10)

        # The conversation so far goes along.
        model.talks = False
        model.say("!")
        panel.get_by_role("button", name="Ask").click()
        expect(panel.get_by_role("status")).to_contain_text("Model: !")
        assert [one["role"] for one in model.requests[-1]["messages"]] == [
            "user",
            "assistant",
            "user",
        ]
