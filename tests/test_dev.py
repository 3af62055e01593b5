"""What a project does when its own `dev` script serves it."""

import hashlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dev_server import DevServer, left_over, serve
from parts import CATALOG, FEATURES, set_id
from toolchain import link_toolchain
from workbench import NPM

Project = Callable[[list[str]], Path]

#: None, all, and those that change what every project does. That each feature alone
#: keeps the rules is what its project's own tests say (`access.test.ts`), and what
#: its README shows is tried under `dev` too.
SETS = {
    set_id(features): features
    for features in ([], ["auth"], ["assets"], ["rate-limit"], FEATURES)
}
#: What every Worker answers, and what only those without a page do.
HEALTH = {"method": "GET", "path": "/health", "summary": "Whether the Worker runs"}
HOME = {"method": "GET", "path": "/", "summary": "The routes of this Worker"}
#: How a locked route's summary says that a session does not open it.
API_TOKEN_ONLY = "(API token only)"

each_set = pytest.mark.parametrize("server", SETS, indirect=True)
all_features = pytest.mark.parametrize("server", ["all"], indirect=True)


@pytest.fixture(scope="module")
def new_project(render: Callable[..., Path]) -> Project:
    """Return a function that makes a project of some features, with its packages."""

    def new_project(features: list[str]) -> Path:
        name = f"test-{set_id(features)}"
        project = render(features, project_name=name)
        config = project / "wrangler.jsonc"
        # The tests send more requests per minute than a client may.
        limit = config.read_text().replace('"limit": 100,', '"limit": 1000000,')
        config.write_text(limit)
        return link_toolchain(project)

    return new_project


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, new_project: Project) -> Iterator[DevServer]:
    """A server of the set of features that the parameter names."""
    with serve(new_project(SETS[request.param])) as server:
        yield server


def routes_of(features: list[str]) -> list[dict]:
    """Return the routes of the base and of some features, as their files have them.

    Args:
        features: The ids of the features.

    Returns:
        Dicts with `method`, `path`, `summary`, whether it is `locked`, and a
        `url`: the path with a harmless value for each of its parameters.
    """
    base = [HEALTH] if "assets" in features else [HEALTH, HOME]
    chosen = [feature for feature in CATALOG if feature["id"] in features]
    return [
        {
            "locked": False,
            "url": re.sub(r":\w+(\{[^/]*\})?|<\w+>|\*", "harmless", route["path"]),
            **route,
        }
        for part in [{"routes": base}, *chosen]
        for route in part.get("routes", [])
    ]


def locked_routes(features: list[str]) -> list[dict]:
    """Return those of `routes_of` that are marked as locked."""
    return [route for route in routes_of(features) if route["locked"]]


def start_session(server: DevServer, operator: bool = True) -> str:
    """Start a session for the user ada and return its token."""
    body = {"userId": "ada", "data": {"role": "admin"}, "operator": operator}
    response = server.http.post("/auth/sessions", json=body, headers=server.operator)
    assert response.status_code == 201
    return response.json()["token"]


def join(server: DevServer, room: str, **options: object) -> ClientConnection:
    """Open a WebSocket to a room; `options` are those of `connect`."""
    url = f"ws://127.0.0.1:{server.port}/ws/{room}"
    return connect(url, proxy=None, max_size=None, **options)


def wait_until_fired(server: DevServer, user: str, times: int) -> int:
    """Wait until a reminder has fired so many times.

    Returns:
        How many times it has fired by then.

    Raises:
        AssertionError: When that takes more than 15 seconds.
    """
    deadline = time.monotonic() + 15
    while True:
        reminder = server.http.get(f"/reminders/{user}").json()
        if reminder["fired"] >= times:
            return reminder["fired"]
        assert time.monotonic() < deadline, reminder
        time.sleep(0.1)


# --- Routes and headers, of every set of features ------------------------------


@pytest.mark.parametrize(
    "server", [name for name in SETS if "assets" not in SETS[name]], indirect=True
)
def test_index_lists_the_routes_of_the_base_and_of_the_chosen_features(
    server: DevServer,
) -> None:
    response = server.http.get("/")
    assert response.status_code == 200
    routes = {
        f"{route['method']} {route['path']}" for route in routes_of(server.features)
    }
    assert set(response.json()["routes"]) == routes


@each_set
def test_unknown_path_is_404_whatever_the_method(server: DevServer) -> None:
    for method in ("GET", "POST", "DELETE"):
        response = server.http.request(method, "/api/no/such/path")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


@each_set
def test_other_method_is_405_with_the_methods_that_the_path_takes(
    server: DevServer,
) -> None:
    methods: dict[str, set[str]] = {}
    for route in routes_of(server.features):
        methods.setdefault(route["url"], set()).add(route["method"])
    for url, allowed in methods.items():
        response = server.http.request("PATCH", url)
        assert response.status_code == 405, url
        assert response.json()["error"]["code"] == "method_not_allowed"
        head = {"HEAD"} if "GET" in allowed else set()
        assert set(response.headers["Allow"].split(", ")) == allowed | head, url


@each_set
def test_marked_route_stays_shut_without_the_token(server: DevServer) -> None:
    token = server.token if locked_routes(server.features) else ""
    wrong = ["Bearer wrong", "Bearer", "Basic dTpw"]
    wrong += [token, f"Basic {token}", f"Bearer {token}x", f"Bearer {token[:-1]}"]
    values: list[str | None] = [None, *wrong]
    for route in locked_routes(server.features):
        for value in values:
            headers = {} if value is None else {"Authorization": value}
            response = server.http.request(
                route["method"], route["url"], headers=headers
            )
            assert response.status_code == 401, (route, value)
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "unauthorized"


@each_set
def test_marked_route_opens_with_the_token(server: DevServer) -> None:
    for route in locked_routes(server.features):
        response = server.http.request(
            route["method"], route["url"], headers=server.operator
        )
        assert response.status_code not in (401, 403, 405), route


@each_set
def test_route_without_a_mark_asks_nobody_for_a_token(server: DevServer) -> None:
    for route in routes_of(server.features):
        if not route["locked"]:
            response = server.http.request(route["method"], route["url"])
            assert response.status_code not in (401, 405), route


@each_set
def test_every_answer_has_the_safe_headers_and_an_id_of_its_own(
    server: DevServer,
) -> None:
    requests = [(route["method"], route["url"]) for route in routes_of(server.features)]
    requests += [("GET", "/api/no"), ("POST", "/health"), ("HEAD", "/health")]
    ids = []
    for method, url in requests:
        response = server.http.request(method, url)
        headers = response.headers
        assert headers["X-Content-Type-Options"] == "nosniff", url
        assert headers["Referrer-Policy"] == "no-referrer", url
        assert re.match(r"max-age=\d{8}", headers["Strict-Transport-Security"]), url
        assert "Origin" in headers["Vary"], url
        if headers.get("Content-Type", "").startswith("application/json"):
            csp = "default-src 'none'; frame-ancestors 'none'"
            assert headers["Content-Security-Policy"] == csp, url
            assert headers["Cache-Control"] == "no-store", url
        ids.append(headers["X-Request-Id"])
    assert len(set(ids)) == len(ids)


# --- All features together -----------------------------------------------------


@all_features
@pytest.mark.parametrize(
    ("method", "url"),
    [
        (route["method"], route["url"])
        for route in locked_routes(FEATURES)
        if route.get("json")
    ],
)
def test_locked_json_route_checks_token_then_type_then_size_then_body(
    server: DevServer, method: str, url: str
) -> None:
    def status(token: str, content_type: str, body: bytes | Iterator[bytes]) -> int:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        return server.http.request(
            method, url, headers=headers, content=body
        ).status_code

    large = b"{" * (64 * 1024 + 1)
    assert status("wrong", "text/plain", large) == 401
    assert status(server.token, "text/plain", large) == 415
    assert status(server.token, "application/json", large) == 413
    # Without a length, as a stream.
    assert status(server.token, "application/json", iter([large])) == 413
    assert status(server.token, "application/json", large[:-1]) == 400


@all_features
def test_change_with_a_cookie_from_another_site_is_refused(server: DevServer) -> None:
    cookie = {"Cookie": f"auth_token={start_session(server)}"}
    foreign = {**cookie, "Origin": "https://other.example"}
    own = {**cookie, "Origin": server.url}
    for route in locked_routes(FEATURES):
        if route["method"] != "GET":
            method, url = route["method"], route["url"]
            response = server.http.request(method, url, headers=foreign)
            assert response.status_code == 403, route
            response = server.http.request(method, url, headers=own)
            assert response.status_code != 403, route


@all_features
def test_session_is_started_shown_and_ended(server: DevServer) -> None:
    created = server.http.post(
        "/auth/sessions",
        json={"userId": "ada", "data": {"role": "admin"}},
        headers=server.operator,
    )
    assert created.status_code == 201
    token = created.json()["token"]
    value, *attributes = created.headers["Set-Cookie"].split("; ")
    assert value == f"auth_token={token}"
    assert {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"} <= set(attributes)

    ways = [
        {"Authorization": f"Bearer {token}"},
        {"Cookie": f"auth_token={token}"},
    ]
    for headers in ways:
        shown = server.http.get("/auth/session", headers=headers)
        assert shown.status_code == 200
        assert shown.json()["authenticated"] is True
        assert shown.json()["userId"] == "ada"
        assert shown.json()["data"] == {"role": "admin"}

    assert server.http.delete("/auth/session", headers=ways[1]).status_code == 204
    for headers in [*ways, {}]:
        shown = server.http.get("/auth/session", headers=headers)
        assert shown.status_code == 403
        assert shown.json()["authenticated"] is False
        assert server.http.delete("/auth/session", headers=headers).status_code == 204


@all_features
def test_operators_session_opens_every_marked_route_but_those_for_the_api_token(
    server: DevServer,
) -> None:
    token = start_session(server)
    ways = [
        {"Authorization": f"Bearer {token}"},
        {"Cookie": f"auth_token={token}"},
    ]
    for headers in ways:
        for route in locked_routes(FEATURES):
            response = server.http.request(
                route["method"], route["url"], headers=headers
            )
            is_shut = API_TOKEN_ONLY in route["summary"]
            assert (response.status_code == 401) == is_shut, route

    server.http.delete("/auth/session", headers=ways[0])
    for route in locked_routes(FEATURES):
        response = server.http.request(route["method"], route["url"], headers=ways[0])
        assert response.status_code == 401, route


@all_features
def test_users_session_opens_no_marked_route(server: DevServer) -> None:
    headers = {"Authorization": f"Bearer {start_session(server, operator=False)}"}
    for route in locked_routes(FEATURES):
        response = server.http.request(route["method"], route["url"], headers=headers)
        is_for_token = API_TOKEN_ONLY in route["summary"]
        assert response.status_code == (401 if is_for_token else 403), route


@all_features
def test_token_of_a_session_is_nowhere_in_the_local_state(server: DevServer) -> None:
    token = start_session(server)
    server.http.get("/auth/session", headers={"Authorization": f"Bearer {token}"})
    digest = hashlib.sha256(token.encode()).hexdigest()
    state = server.project / ".wrangler" / "state"
    contents = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    assert any(digest.encode() in content for content in contents)
    assert not any(token.encode() in content for content in contents)


# --- WebSockets ----------------------------------------------------------------


@all_features
def test_sender_gets_a_confirmation_and_the_room_gets_the_message(
    server: DevServer,
) -> None:
    own = server.url
    with join(server, "lobby") as ada, join(server, "lobby", origin=own) as bob:
        assert re.fullmatch(r"[\w-]{36}", ada.response.headers["X-Request-Id"])
        ada.send("hi")
        assert ada.recv(5) == "[Durable Object] message: hi, connections: 2"
        assert bob.recv(5) == "hi"


@all_features
@pytest.mark.parametrize(
    ("code", "answer"), [(4001, 4001), (1000, 1000), (999, 1000), (5000, 1000)]
)
def test_closing_client_gets_its_close_frame_and_leaves_the_room(
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


# --- Reminders -----------------------------------------------------------------


@all_features
def test_reminder_fires_again_and_again_by_itself(server: DevServer) -> None:
    reminder = {"everySeconds": 1}
    server.http.put("/reminders/ada", json=reminder, headers=server.operator)
    wait_until_fired(server, "ada", 2)
    server.http.delete("/reminders/ada", headers=server.operator)
    assert server.http.get("/reminders/ada").status_code == 404


def test_reminder_and_token_survive_a_restart(new_project: Project) -> None:
    project = new_project(["alarms"])
    with serve(project) as first:
        token = first.token
        reminder = {"everySeconds": 1}
        first.http.put("/reminders/ada", json=reminder, headers=first.operator)
        before = wait_until_fired(first, "ada", 1)
        first.stop()
    with serve(project) as second:
        after = second.http.get("/reminders/ada").json()
        assert after["everySeconds"] == 1
        assert after["fired"] >= before
        assert wait_until_fired(second, "ada", after["fired"] + 1) > before
        assert second.token == token


# --- Start and stop ------------------------------------------------------------


def test_signal_stops_the_server_and_leaves_no_process(new_project: Project) -> None:
    with serve(new_project(FEATURES)) as server:
        processes = server.processes()
        assert len(processes) > 1
        server.stop(signal.SIGTERM)
        assert left_over(processes) == []
        with socket.create_server(("127.0.0.1", server.port)):
            pass


def test_ctrl_c_in_a_terminal_leaves_no_process(new_project: Project) -> None:
    with serve(new_project(FEATURES), [NPM, "run", "dev", "--"]) as server:
        processes = server.processes()
        # A terminal signals everybody in front of it.
        os.killpg(server.process.pid, signal.SIGINT)
        assert left_over(processes) == []


# --- .dev.vars -----------------------------------------------------------------
# `--help` goes on to Wrangler, which then serves nothing.
