"""Rules that every project keeps when its own `dev` script serves it."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev_server import DevServer, left_over, serve
from parts import CATALOG, FEATURES, set_id
from toolchain import link_toolchain
from workbench import NPM

#: None, each policy, and all. That each feature alone keeps the rules is what its
#: project's own tests say (`access.test.ts`), and what its README shows is tried
#: under `dev` too.
POLICIES = [[feature["id"]] for feature in CATALOG if "middleware" in feature]
SETS = {set_id(features): features for features in ([], *POLICIES, FEATURES)}
#: All but the policies, which let nobody in, or too few, for these tests.
OTHERS = [one for one in FEATURES if [one] not in POLICIES]
#: The route of every Worker, and that of Workers without a page.
HEALTH = {"method": "GET", "path": "/health", "summary": "Whether the Worker runs"}
HOME = {"method": "GET", "path": "/", "summary": "The routes of this Worker"}

each_set = pytest.mark.parametrize(
    "server",
    [*SETS, pytest.param("javascript", marks=pytest.mark.full)],
    indirect=True,
)
all_features = pytest.mark.parametrize("server", ["all"], indirect=True)
#: With nothing beside the server, and with all that features start there.
each_end = pytest.mark.parametrize(
    "features", [[], pytest.param(FEATURES, marks=pytest.mark.full)], ids=set_id
)


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, render: Callable[..., Path]
) -> Iterator[DevServer]:
    """A server of the set of features that the parameter names, or of JavaScript."""
    if request.param == "all":
        yield request.getfixturevalue("everything")
        return
    made = (
        render(OTHERS, language="javascript", layout="modules")
        if request.param == "javascript"
        else render(SETS[request.param])
    )
    with serve(link_toolchain(made)) as server:
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


# --- Start and stop ------------------------------------------------------------


@each_end
def test_signal_stops_the_server_and_leaves_no_process(
    render: Callable[..., Path], features: list[str]
) -> None:
    with serve(link_toolchain(render(features))) as server:
        processes = server.processes()
        assert len(processes) > 1
        server.stop(signal.SIGTERM)
        assert left_over(processes) == []
        with socket.create_server(("127.0.0.1", server.port)):
            pass


@each_end
def test_ctrl_c_in_a_terminal_leaves_no_process(
    render: Callable[..., Path], features: list[str]
) -> None:
    project = link_toolchain(render(features))
    with serve(project, [NPM, "run", "dev", "--"]) as server:
        processes = server.processes()
        # A terminal signals everybody in front of it.
        os.killpg(server.process.pid, signal.SIGINT)
        assert left_over(processes) == []
