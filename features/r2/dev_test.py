"""Files in `wrangler dev`: streamed both ways, and never half of one."""

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dev_server import DevServer, serve
from toolchain import link_toolchain

Render = Callable[..., Path]

MEGABYTE = 1024 * 1024
#: One of the equal pieces of each transfer.
PIECE = secrets.token_bytes(MEGABYTE)
PIECES = 20
#: How many transfers there are at once.
TRANSFERS = 8


@pytest.fixture(scope="module")
def server(render: Render) -> Iterator[DevServer]:
    """A server of a project with the feature."""
    with serve(link_toolchain(render(["r2"]))) as server:
        yield server


def memory(server: DevServer) -> int:
    """Return how many bytes of memory the runtime of a server has."""
    processes = server.processes()
    return sum(p.memory_info().rss for p in processes if "workerd" in p.name())


@contextmanager
def growing_less_than(server: DevServer, size: int) -> Iterator[None]:
    """Check that the runtime's memory stays below what it is now and `size` more."""
    start = top = memory(server)
    is_over = threading.Event()

    def watch() -> None:
        nonlocal top
        while not is_over.wait(0.02):
            top = max(top, memory(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
    assert top - start < size


def upload(server: DevServer, number: int) -> None:
    """Send a file in pieces, slowly."""

    def pieces() -> Iterator[bytes]:
        for _ in range(PIECES):
            yield PIECE
            time.sleep(0.05)

    length = {"Content-Length": str(PIECES * MEGABYTE)}
    response = httpx.put(
        f"{server.url}/files/big/{number}",
        headers={**server.operator, **length},
        content=pieces(),
        timeout=60,
    )
    assert response.status_code == 201
    assert response.json()["size"] == PIECES * MEGABYTE


def download(server: DevServer, number: int) -> None:
    """Read a file in pieces, slowly."""
    url = f"{server.url}/files/big/{number}"
    with httpx.stream("GET", url, timeout=60) as response:
        assert response.headers["Content-Length"] == str(PIECES * MEGABYTE)
        count = 0
        for piece in response.iter_bytes(MEGABYTE):
            assert piece == PIECE
            count += 1
            time.sleep(0.05)
    assert count == PIECES


def test_memory_stays_flat_while_files_come_and_go(server: DevServer) -> None:
    upload(server, 0)
    download(server, 0)
    # 160 MB are under way each time.
    with ThreadPoolExecutor(TRANSFERS) as threads:
        for transfer in (upload, download):
            with growing_less_than(server, 100 * MEGABYTE):
                list(threads.map(transfer, [server] * TRANSFERS, range(TRANSFERS)))


@contextmanager
def uploading(server: DevServer, length: int) -> Iterator[socket.socket]:
    """Open a connection on which an upload of `length` bytes begins."""
    head = (
        "PUT /files/cut HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: Bearer {server.token}",
        f"Content-Length: {length}",
        "\r\n",
    )
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall("\r\n".join(head).encode())
        yield connection


def test_an_upload_that_breaks_off_leaves_the_old_file(server: DevServer) -> None:
    server.http.put("/files/cut", content=b"before", headers=server.operator)
    with uploading(server, 100) as connection:
        connection.sendall(b"half of it")
    # Wrangler's proxy logs it once it is over.
    server.wait_until(lambda: "PUT http" in server.log.read_text())
    assert server.http.get("/files/cut").text == "before"


def test_what_comes_after_the_length_is_not_stored(server: DevServer) -> None:
    with uploading(server, 3) as connection:
        connection.sendall(b"new and more")
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert server.http.get("/files/cut").text == "new"
