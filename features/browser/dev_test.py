"""Pages in a real browser: Debian's Chromium, through `wrangler dev`.

The Worker refuses this machine, so the browser is told that public names stand for
it. Nothing of the Worker changes for that.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from dev_server import DevServer, serve
from internet import answering, chromium_with, environment_with, serve_with
from toolchain import link_toolchain

Render = Callable[..., Path]

full = pytest.mark.full

#: The names for which the browser asks the server of this machine. The last is what
#: a page leads to and must not.
NAMES = ("site.example", "other.example", "10.0.0.1")

#: The pages of the server, by path.
PAGES = {
    "/": "<title>Hi</title><body>Hello <script>document.body.append('world')</script>",
    "/late": "<body><script>fetch('/data').then(async (response) =>"
    " document.body.append(await response.text()))</script>",
    "/data": "came later",
    "/long": "<body><script>document.body.append('x'.repeat(200_000))</script>",
    "/image": "<svg xmlns='http://www.w3.org/2000/svg'><text>Hi</text></svg>",
    "/script": "<body><script>location = 'http://10.0.0.1/'</script>",
    "/refresh": "<meta http-equiv=refresh content='0;url=http://10.0.0.1/'>",
    "/busy": "<body><script>while (true);</script>",
}


def answer(request: Request) -> Response:
    """Serve `PAGES`; `/hang` never, and `/redirect?URL` as a redirect."""
    if request.path == "/hang":
        time.sleep(60)
    if request.path == "/redirect":
        return Response(status=302, headers={"Location": request.query_string.decode()})
    page = PAGES.get(request.path)
    mimetype = "image/svg+xml" if request.path == "/image" else "text/html"
    return Response(page or "no", 200 if page else 404, mimetype=mimetype)


@pytest.fixture(scope="module")
def server(
    render: Render, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevServer]:
    """A server of the Worker, with a Chromium that finds the pages by their names."""
    project = link_toolchain(render(["browser"], project_name="test-browser"))
    with answering(answer) as site:
        names: dict[str, HTTPServer] = dict.fromkeys(NAMES, site)
        chromium = chromium_with(names, tmp_path_factory.mktemp("chromium"))
        with serve_with(chromium, project) as server:
            yield server


def read(server: DevServer, url: str) -> httpx.Response:
    """Ask a server to open a page, as the operator."""
    return httpx.get(
        f"{server.url}/browser",
        params={"url": url},
        headers=server.operator,
        timeout=60,
        trust_env=False,
    )


def code(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of an error."""
    return response.status_code, response.json()["error"]["code"]


def browsers(server: DevServer) -> list[psutil.Process]:
    """Return the processes of a server's browsers."""
    found = []
    for process in server.processes():
        with suppress(psutil.NoSuchProcess):
            if "chrom" in process.name():
                found.append(process)
    return found


def wait_until_closed(server: DevServer) -> None:
    """Wait until a server has no browser.

    Raises:
        AssertionError: When it still has one half a minute later.
    """
    server.wait_until(lambda: not browsers(server))


def test_a_page_is_rendered(server: DevServer) -> None:
    response = read(server, "http://site.example/")
    assert response.status_code == 200, response.text
    assert response.json() == {
        "url": "http://site.example/",
        "title": "Hi",
        "text": "Hello world",
    }
    wait_until_closed(server)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/late", "came later"),
        pytest.param("/long", "x" * 100_000, marks=full),
        pytest.param("/image", "", marks=full),
    ],
)
def test_scripts_of_a_page_run_to_their_end(
    server: DevServer, path: str, text: str
) -> None:
    response = read(server, f"http://site.example{path}")
    assert response.json().get("text") == text


def test_redirects_are_followed(server: DevServer) -> None:
    url = "http://other.example/?moved"
    response = read(server, f"http://site.example/redirect?{url}")
    assert response.status_code == 200, response.text
    assert response.json()["url"] == url


@full
def test_requests_at_once_get_a_browser_each(server: DevServer) -> None:
    with ThreadPoolExecutor(3) as pool:
        urls = [f"http://site.example/?{number}" for number in range(3)]
        answers = list(pool.map(lambda url: read(server, url), urls))
    assert [answer.json().get("url") for answer in answers] == urls
    wait_until_closed(server)


@pytest.mark.parametrize(
    "path",
    [
        "/redirect?http://10.0.0.1/",
        pytest.param("/redirect?http://0x0a.1/", marks=full),
        pytest.param("/redirect?/redirect?http://10.0.0.1/", marks=full),
        "/script",
        pytest.param("/refresh", marks=full),
    ],
)
def test_a_page_that_leads_to_a_private_address_is_not_read(
    server: DevServer, path: str
) -> None:
    response = read(server, f"http://site.example{path}")
    assert code(response) == (400, "blocked_url")
    wait_until_closed(server)


# --- What fails ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://site.example/missing", "status 404"),
        pytest.param("http://nowhere.example/", "ERR_NAME_NOT_RESOLVED", marks=full),
        pytest.param("https://site.example/", "ERR_SSL_PROTOCOL_ERROR", marks=full),
    ],
)
def test_a_target_that_fails_is_a_502_that_says_how(
    server: DevServer, url: str, reason: str
) -> None:
    response = read(server, url)
    assert code(response) == (502, "target_failed")
    assert reason in response.json()["error"]["message"]
    wait_until_closed(server)


@full
def test_what_takes_too_long_is_a_504_and_leaves_no_browser(server: DevServer) -> None:
    def leave() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(
                f"{server.url}/browser?url=http://site.example/hang",
                headers=server.operator,
                timeout=5,
                trust_env=False,
            )
        assert browsers(server) != []

    with ThreadPoolExecutor(3) as pool:
        gone = pool.submit(leave)
        urls = ["http://site.example/hang", "http://site.example/busy"]
        answers = list(pool.map(lambda url: read(server, url), urls))
        gone.result()

    assert [code(answer) for answer in answers] == [(504, "target_timeout")] * 2
    wait_until_closed(server)


@full
def test_without_a_browser_the_route_is_a_503_and_the_rest_works(
    render: Render, tmp_path: Path
) -> None:
    # A file where the browser would be put, so that none is downloaded either.
    (tmp_path / ".wrangler").mkdir()
    (tmp_path / ".wrangler/chrome").touch()
    project = link_toolchain(render(["browser"], project_name="test-no-browser"))
    with serve(project, environment=environment_with(tmp_path)) as server:
        started = time.monotonic()
        response = read(server, "https://93.184.215.14/")
        seconds = time.monotonic() - started
        refused = read(server, "http://localhost/")
        health = server.http.get("/health")

    assert code(response) == (503, "browser_unavailable")
    assert seconds < 5
    assert code(refused) == (400, "blocked_url")
    assert health.status_code == 200
