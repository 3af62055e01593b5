"""Pages in a real browser: Debian's Chromium, through `wrangler dev`.

The Worker refuses this machine, so the browser and the resolver are told that
public names stand for it. Nothing of the Worker changes for that.
"""

import subprocess
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

from conftest import link_toolchain
from dev_server import DevServer, serve
from internet import answering, chromium_with, environment_with, serve_with

Render = Callable[..., Path]

#: What names resolve to, for the Worker. The browser asks for the public ones
#: at one server of this machine, and for the private ones at another.
PUBLIC = {"site.example": "93.184.215.14", "other.example": "93.184.215.15"}
PRIVATE = {"inside.example": "169.254.169.254", "10.0.0.1": "10.0.0.1"}

#: What a page can do to reach a private address; each at a path of its own.
REACHES = """
<title>Reaches</title>
<link rel="stylesheet" href="http://10.0.0.1/stylesheet">
<link rel="prefetch" href="http://10.0.0.1/prefetch">
<link rel="modulepreload" href="http://10.0.0.1/modulepreload">
<link rel="icon" href="http://10.0.0.1/icon">
<body>Read me
<img src="http://10.0.0.1/image"><video src="http://10.0.0.1/video"></video>
<script src="http://10.0.0.1/script"></script>
<iframe src="http://10.0.0.1/frame"></iframe>
<iframe src="http://inside.example/frame-by-name"></iframe>
<iframe src="/nowhere"></iframe>
<object data="http://10.0.0.1/object"></object>
<a href="http://10.0.0.1/new-tab" target="_blank"></a>
<form action="http://10.0.0.1/form" target="_blank"></form>
<script>
const post = { method: "POST", mode: "no-cors", body: "x" };
const attempts = [
	() => fetch("http://10.0.0.1/fetch", post),
	() => fetch("http://inside.example/name", post),
	() => fetch("/redirect?http://10.0.0.1/redirected", { mode: "no-cors" }),
	() => fetch("http://10.0.0.1/keepalive", { ...post, keepalive: true }),
	() => navigator.sendBeacon("http://10.0.0.1/beacon", "x"),
	() => new EventSource("http://10.0.0.1/events"),
	() => new WebSocket("ws://10.0.0.1/socket"),
	() => new Worker("/worker.js"),
	() => new Worker(URL.createObjectURL(new Blob([
		'new WebSocket("ws://10.0.0.1/socket-of-blob")']))),
	() => new SharedWorker("/shared.js"),
	() => navigator.serviceWorker.register("/service.js"),
	() => window.open("http://10.0.0.1/window"),
	() => window.open("/redirect?http://10.0.0.1/window-redirected"),
	() => document.querySelector("a").click(),
	() => document.querySelector("form").submit(),
	() => {
		const frame = document.createElement("iframe");
		frame.srcdoc = '<script>new WebSocket("ws://10.0.0.1/socket-of-frame")<\\/script>';
		document.body.append(frame);
	},
];
document.body.append(`WebTransport: ${typeof WebTransport}`);
for (const attempt of attempts) {
	try { Promise.resolve(attempt()).catch(() => {}); } catch {}
}
</script>
"""

#: The paths of the public server.
PAGES = {
    "/": "<title>Hi</title><body>Hello <script>document.body.append('world')</script>",
    "/late": "<body><script>fetch('/data').then(async (response) =>"
    " document.body.append(await response.text()))</script>",
    "/data": "came later",
    "/alert": "<body>Before<script>alert(1); document.body.append(' after')</script>",
    "/reaches": REACHES,
    "/worker.js": "fetch('http://10.0.0.1/fetch-of-worker', { mode: 'no-cors' })",
    "/shared.js": "new WebSocket('ws://10.0.0.1/socket-of-shared-worker')",
    "/service.js": "fetch('http://10.0.0.1/fetch-of-service', { mode: 'no-cors' })",
    "/nowhere": "<script>new WebSocket('ws://10.0.0.1/socket-of-nowhere')</script>",
    "/script": "<body><script>location = 'http://10.0.0.1/script'</script>",
    "/later": "<body><script>setTimeout(() => { location ="
    " 'http://10.0.0.1/later' }, 100)</script>",
    "/refresh": "<meta http-equiv=refresh content='0;url=http://10.0.0.1/refresh'>",
    "/busy": "<body><script>while (true);</script>",
}


def answer(request: Request) -> Response:
    """Serve `PAGES`; `/hang` never, and `/redirect?URL` as a redirect.

    `/nowhere` has the status of a redirect, but no place to go to.
    """
    if request.path == "/hang":
        time.sleep(60)
    if request.path == "/redirect":
        return Response(status=302, headers={"Location": request.query_string.decode()})
    mimetype = "text/javascript" if request.path.endswith(".js") else "text/html"
    page = PAGES.get(request.path)
    status = 302 if request.path == "/nowhere" else 200 if page else 404
    return Response(page or "no", status, mimetype=mimetype)


@pytest.fixture(scope="module")
def site() -> Iterator[HTTPServer]:
    """The server behind the public names."""
    with answering(answer) as site:
        yield site


@pytest.fixture(scope="module")
def inside() -> Iterator[HTTPServer]:
    """The server behind the private names. Nothing may ever reach it."""
    with answering(lambda request: Response("no", 404)) as inside:
        yield inside


@pytest.fixture(scope="module")
def chromium(
    site: HTTPServer, inside: HTTPServer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A Chromium that finds the two servers under their names."""
    names = {**dict.fromkeys(PUBLIC, site), **dict.fromkeys(PRIVATE, inside)}
    return chromium_with(names, tmp_path_factory.mktemp("chromium"))


@pytest.fixture(scope="module")
def server(chromium: Path, render: Render) -> Iterator[DevServer]:
    """A server of the Worker, with this Chromium for a browser."""
    project = link_toolchain(render(["browser"], project_name="test-browser"))
    with serve_with(chromium, {**PUBLIC, **PRIVATE}, project) as server:
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
        ("/alert", "Before after"),
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


def test_requests_at_once_get_a_browser_each(server: DevServer) -> None:
    with ThreadPoolExecutor(3) as pool:
        urls = [f"http://site.example/?{number}" for number in range(3)]
        answers = list(pool.map(lambda url: read(server, url), urls))
    assert [answer.json().get("url") for answer in answers] == urls
    wait_until_closed(server)


# --- Private addresses --------------------------------------------------------


def test_without_the_worker_the_browser_reaches_private_addresses(
    chromium: Path, inside: HTTPServer, tmp_path: Path
) -> None:
    # Else the tests below would prove nothing.
    inside.clear_log()
    options = ["--headless", "--no-sandbox", "--disable-popup-blocking"]
    options += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000"]
    dom = subprocess.run(
        [chromium, *options, "--dump-dom", "http://site.example/reaches"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout
    assert "WebTransport: function" in dom
    reached = {request.path for request, _ in inside.log}
    assert {
        "/script",
        "/image",
        "/frame",
        "/frame-by-name",
        "/object",
        "/fetch",
        "/name",
        "/redirected",
        "/socket",
        "/socket-of-blob",
        "/socket-of-frame",
        "/socket-of-nowhere",
        "/fetch-of-worker",
        "/window",
    } <= reached
    inside.clear_log()


def test_a_page_reaches_no_private_address(
    server: DevServer, inside: HTTPServer
) -> None:
    response = read(server, "http://site.example/reaches")
    assert response.status_code == 200, response.text
    assert response.json()["text"].startswith("Read me")
    assert "WebTransport: undefined" in response.json()["text"]
    wait_until_closed(server)
    assert inside.log == []


@pytest.mark.parametrize(
    "path",
    [
        "/redirect?http://10.0.0.1/",
        "/redirect?http://0x0a.1/",
        "/redirect?http://inside.example/",
        "/redirect?http://site.example:8080/",
        "/redirect?http://user@site.example/",
        "/redirect?/redirect?http://10.0.0.1/",
        "/script",
        "/later",
        "/refresh",
    ],
)
def test_a_page_that_leads_to_a_private_address_is_refused(
    server: DevServer, inside: HTTPServer, path: str
) -> None:
    response = read(server, f"http://site.example{path}")
    assert code(response) == (400, "blocked_url")
    assert inside.log == []


def test_a_name_with_a_private_address_is_refused(
    server: DevServer, inside: HTTPServer
) -> None:
    response = read(server, "http://inside.example/")
    assert code(response) == (400, "blocked_url")
    assert inside.log == []


@pytest.mark.parametrize("name", ["inside.example", "nowhere.example"])
def test_a_name_without_a_public_address_starts_no_browser(
    server: DevServer, name: str
) -> None:
    wait_until_closed(server)
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(read, server, f"http://{name}/")
        while not response.done():
            assert browsers(server) == []


# --- What fails ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://site.example/missing", "status 404"),
        ("http://nowhere.example/", "ERR_NAME_NOT_RESOLVED"),
        ("https://site.example/", "ERR_SSL_PROTOCOL_ERROR"),
    ],
)
def test_a_target_that_fails_is_a_502_that_says_how(
    server: DevServer, url: str, reason: str
) -> None:
    response = read(server, url)
    assert code(response) == (502, "target_failed")
    assert reason in response.json()["error"]["message"]
    wait_until_closed(server)


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
