"""Rooms under `wrangler dev`, over real connections and on two pages."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from demo import Use, opened, panel_of, use
from dev_server import DevServer, serve
from toolchain import link_toolchain


@pytest.fixture(scope="module")
def server(render: Callable[..., Path]) -> Iterator[DevServer]:
    """A server of rooms and of the page that shows them."""
    with serve(link_toolchain(render(["websockets", "assets"]))) as server:
        yield server


def join(server: DevServer, room: str, **options: object) -> ClientConnection:
    """Open a WebSocket to a room; `options` are those of `connect`."""
    return connect(f"ws://127.0.0.1:{server.port}/ws/{room}", proxy=None, **options)


def test_the_sender_gets_a_confirmation_and_the_room_gets_the_message(
    server: DevServer,
) -> None:
    own = server.url
    with join(server, "lobby") as ada, join(server, "lobby", origin=own) as bob:
        assert re.fullmatch(r"[\w-]{36}", ada.response.headers["X-Request-Id"])
        ada.send("hi")
        assert ada.recv(5) == "[Durable Object] message: hi, connections: 2"
        assert bob.recv(5) == "hi"


@pytest.mark.parametrize(
    ("code", "answer"), [(4001, 4001), (1000, 1000), (999, 1000), (5000, 1000)]
)
def test_a_closing_client_gets_its_close_frame_and_leaves_the_room(
    server: DevServer, code: int, answer: int
) -> None:
    with join(server, "close") as ada, join(server, "close") as bob:
        # A frame by hand: the library sends no code that is not valid.
        bob.socket.sendall(b"\x88\x82\0\0\0\0" + code.to_bytes(2))
        with pytest.raises(ConnectionClosed) as closed:
            bob.recv(5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == answer
        ada.send("hi")
        assert ada.recv(5) == "[Durable Object] message: hi, connections: 1"


@pytest.mark.parametrize(
    ("path", "status"), [("/ws", 404), ("/ws/a/b", 404), ("/ws/lobby", 426)]
)
def test_no_page_answers_below_the_route(
    server: DevServer, path: str, status: int
) -> None:
    response = server.http.get(path)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"


def test_what_one_page_says_in_a_room_the_other_shows(
    server: DevServer, chromium: Browser
) -> None:
    with opened(chromium, server) as ada, opened(chromium, server) as bob:
        for page in (ada, bob):
            use(page, server, "websockets", Use("Join", "You are in lobby"))
        hello = {"Message": "hello, bob"}
        use(ada, server, "websockets", Use("Send", "Sent", hello))
        expect(bob.get_by_role("log")).to_have_text("hello, bob")
        expect(ada.get_by_role("log")).to_contain_text("connections: 2")
        panel = panel_of(ada, "websockets")
        panel.get_by_label("Message").fill("x" * 65_537)
        panel.get_by_role("button", name="Send").click()
        output = panel.get_by_role("status")
        expect(output).to_have_text("Disconnected. At most 65536 bytes")
