"""Answers of a model in `wrangler dev`, piece by piece, and clients that go away."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from werkzeug import Request, Response

import workbench
from dev_server import DevServer, serve
from internet import Model
from parts import NEWEST, OLDEST
from toolchain import link_toolchain

ASKED = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """A model that runs."""
    with Model() as model:
        yield model


@pytest.fixture(scope="module", params=[OLDEST, NEWEST])
def server(
    request: pytest.FixtureRequest, render: Callable[..., Path], model: Model
) -> Iterator[DevServer]:
    """A server of a chat, at both ends of the range of compatibility dates."""
    answers = {"ai_provider": "openai", "compatibility_date": request.param}
    with serve(model.connect(link_toolchain(render(["ai"], **answers)))) as server:
        yield server


def ask(server: DevServer, **options: object) -> httpx.Response:
    """Ask for an answer; return it once all of it is there."""
    headers = server.operator
    return server.http.post("/ai/chat", json=ASKED, headers=headers, **options)


def stream(server: DevServer) -> AbstractContextManager[httpx.Response]:
    """Ask for an answer; the block gets it as soon as it begins."""
    headers = server.operator
    return server.http.stream("POST", "/ai/chat", json=ASKED, headers=headers)


def wait_until_closed(model: Model) -> None:
    """Let the model go on until nobody listens, and forget what it still says."""
    deadline = time.monotonic() + 20
    while not model.closed.wait(0.2):
        assert time.monotonic() < deadline
        model.pieces.put("lo")
    while not model.pieces.empty():
        model.pieces.get()


def test_an_answer_arrives_piece_by_piece(server: DevServer, model: Model) -> None:
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


def test_a_client_that_goes_away_ends_the_work_of_the_model(
    server: DevServer, model: Model
) -> None:
    model.closed.clear()
    model.pieces.put("Hel")
    with stream(server) as response:
        next(response.iter_lines())
    wait_until_closed(model)


class Talker(Model):
    """A model each of whose answers goes on until its client goes away.

    Attributes:
        gone: How many clients went away.
        talks: Whether answers go on.
        says: What they consist of; with nothing, an answer does not begin.
        pauses: Whether it is silent for now.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        super().__init__()
        self.gone = 0
        self.talks = True
        self.says = "lo"
        self.pauses = False

    def answer(self, request: Request) -> Response:
        """Answer with pieces without end, unless told otherwise."""
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


@pytest.mark.parametrize("date", [OLDEST, NEWEST])
def test_a_client_that_goes_away_while_the_model_is_silent_ends_its_work(
    render: Callable[..., Path], date: str
) -> None:
    answers = {"ai_provider": "openai", "compatibility_date": date}
    project = link_toolchain(render(["ai"], **answers))
    with Talker() as model, serve(model.connect(project)) as server:
        model.pauses = True
        with stream(server) as response:
            next(response.iter_lines())
        # Long before the two minutes that an answer may take are over.
        server.wait_until(lambda: model.gone == 1, 30)


def test_a_client_that_goes_away_early_ends_the_work_when_the_answer_begins(
    render: Callable[..., Path],
) -> None:
    project = link_toolchain(render(["ai"], ai_provider="openai"))
    with Talker() as model, serve(model.connect(project)) as server:
        model.says = ""
        with pytest.raises(httpx.ReadTimeout):
            ask(server, timeout=1)
        model.says = "lo"
        server.wait_until(lambda: model.gone == 1, 10)


def test_the_panel_shows_an_answer_as_it_comes_and_stops_it(
    render: Callable[..., Path],
) -> None:
    project = link_toolchain(render(["ai", "assets"], ai_provider="openai"))
    program = workbench.chromium_program()
    assert program is not None, "`python3 test.py` installs it"
    with (
        Talker() as model,
        serve(model.connect(project)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(f"{server.url}/demo/")
        page.get_by_label("API token").fill(server.token)
        panel = page.locator("section#ai")
        panel.get_by_role("button", name="Ask").click()
        expect(panel.get_by_role("status")).to_contain_text("Model: lololo")
        panel.get_by_role("button", name="Stop").press("Enter")
        server.wait_until(lambda: model.gone == 1, 10)

        # What was said before goes along.
        model.talks = False
        panel.get_by_role("button", name="Ask").click()
        expect(panel.get_by_role("status")).to_contain_text("Model: !")
        assert [one["role"] for one in model.requests[-1]["messages"]] == [
            "user",
            "assistant",
            "user",
        ]
        browser.close()
