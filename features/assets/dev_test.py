"""Static files, the page and the shell of the demo."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from demo import PANELS, USES, WIDTHS, Use, look, opened, panel_of, use
from dev_server import DevServer, serve
from internet import Model
from parts import CATALOG, NEWEST, OLDEST
from toolchain import link_toolchain
from workbench import ROOT

Render = Callable[..., Path]

full = pytest.mark.full
#: Phone and desktop, in both schemes of colours. Two have all four between them.
LOOKS = [
    ("phone", "light"),
    ("desktop", "dark"),
    pytest.param("phone", "dark", marks=full),
    pytest.param("desktop", "light", marks=full),
]
each_look = pytest.mark.parametrize(("device", "scheme"), LOOKS)
#: The pages that people see: the server and the path.
PAGES = {
    "page": ("alone", "/"),
    "alone": ("alone", "/demo/"),
    "everything": ("everything", "/demo/"),
}
each_page = pytest.mark.parametrize("name", PAGES)


# --- Files and routes, without a browser ----------------------------------------


@pytest.fixture(scope="module", params=[NEWEST, pytest.param(OLDEST, marks=full)])
def dated(request: pytest.FixtureRequest, render: Render) -> Iterator[DevServer]:
    """Servers at both ends of the range of compatibility dates."""
    if request.param == NEWEST:
        yield request.getfixturevalue("alone")
        return
    project = render(["assets"], compatibility_date=request.param)
    with serve(link_toolchain(project)) as server:
        yield server


@pytest.mark.parametrize(
    "path",
    ["/", "/any/path", "/healthy", "/API/hello", "/demo/none.js", "/_headers"],
)
def test_what_has_neither_file_nor_route_is_the_page(
    dated: DevServer, path: str
) -> None:
    for headers in ({}, {"Sec-Fetch-Mode": "navigate"}, {"Accept": "application/json"}):
        response = dated.http.get(path, headers=headers)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "<code>public/index.html</code>" in response.text
    assert dated.http.head(path).status_code == 200
    assert dated.http.post(path).status_code == 405


@pytest.mark.parametrize("path", ["/api", "/api/no", "/health/"])
def test_what_is_unknown_below_a_route_is_an_error_of_the_worker(
    dated: DevServer, path: str
) -> None:
    for method in ("GET", "POST"):
        response = dated.http.request(method, path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/health?a=1", "/api/hello?a=1"])
def test_routes_reach_the_worker(dated: DevServer, path: str) -> None:
    response = dated.http.get(path)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/any/path", "/style.css", "/demo/app.js"])
def test_files_have_the_security_headers(dated: DevServer, path: str) -> None:
    headers = dated.http.get(path).headers
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert re.match(r"max-age=\d{8}", headers["Strict-Transport-Security"])


# --- The page and the demo --------------------------------------------------------


def test_every_feature_with_a_route_has_a_panel() -> None:
    assert [one["id"] for one in CATALOG if "routes" in one] == PANELS


def test_the_page_leads_to_the_demo_which_asks_for_no_token_without_need(
    alone: DevServer, chromium: Browser
) -> None:
    with opened(chromium, alone, path="/") as page:
        expect(page).to_have_title("my-worker")
        expect(page.get_by_text("This page is yours")).to_be_visible()
        page.get_by_role("link").click()
        expect(page).to_have_title("Demo of my-worker")
        expect(page.locator("section")).to_have_count(1)
        expect(page.get_by_label("API token")).to_be_hidden()


@full
def test_a_panel_whose_files_are_gone_is_left_out(
    render: Render, chromium: Browser
) -> None:
    project = link_toolchain(render(["assets", "websockets", "analytics"]))
    for path in project.glob("public/demo/websockets.*"):
        path.unlink()
    with serve(project) as server, opened(chromium, server) as demo:
        titles = demo.get_by_role("heading", level=2)
        assert titles.all_inner_texts() == ["Hello", "Event"]
        use(demo, server, "analytics", Use("Record", "Recorded"))


@pytest.mark.parametrize("feature", PANELS)
def test_a_panel_shows_what_its_controls_do_and_what_goes_wrong(
    everything: DevServer, model: Model, chromium: Browser, feature: str
) -> None:
    with opened(chromium, everything, refusals=True) as page:
        buttons = panel_of(page, feature).get_by_role("button")
        expect(buttons.first).to_be_visible()
        fruitful = {step.button for step in USES[feature] if not step.is_error}
        assert set(buttons.all_inner_texts()) == fruitful
        assert any(step.is_error for step in USES[feature])
        for step in USES[feature]:
            use(page, everything, feature, step, model)


def test_the_token_stays_in_its_field(everything: DevServer, chromium: Browser) -> None:
    feature, step = next(
        (feature, step)
        for feature, steps in USES.items()
        for step in steps
        if step.is_error and not step.has_token
    )
    with opened(chromium, everything) as page:
        addresses = []
        page.on("request", lambda request: addresses.append(request.url))
        opened_by_token = replace(step, shows=".", is_error=False, has_token=True)
        use(page, everything, feature, opened_by_token)
        kept = page.evaluate(
            "JSON.stringify([localStorage, sessionStorage, history.state,"
            " location.href, document.cookie])"
        )
        assert everything.token not in kept
        assert not any(everything.token in address for address in addresses)
        page.reload()
        expect(page.get_by_label("API token")).to_have_value("")


def test_a_panel_is_used_by_keyboard_and_busy_until_the_answer_is_there(
    alone: DevServer, chromium: Browser
) -> None:
    with opened(chromium, alone) as page:
        button = page.get_by_role("button", name="Say hello")
        section = page.locator("section")
        waiting = []
        page.route("**/api/hello", lambda route: waiting.append(route))
        page.get_by_role("link").focus()
        page.keyboard.press("Tab")
        expect(button).to_be_focused()
        expect(button).to_have_css("outline-style", "solid")
        page.keyboard.press("Enter")
        expect(section).to_have_attribute("aria-busy", "true")
        page.keyboard.press("Enter")
        waiting[0].continue_()
        expect(section).to_have_attribute("aria-busy", "false")
        expect(page.get_by_role("status")).to_have_text("Hello from my-worker.")
        expect(button).to_be_focused()
        assert len(waiting) == 1


def test_an_answer_that_is_no_json_is_shown_by_its_status(
    alone: DevServer, chromium: Browser
) -> None:
    with opened(chromium, alone, refusals=True) as page:
        page.route(
            "**/api/hello",
            lambda route: route.fulfill(
                status=429, content_type="text/html", body="<h1>Too many requests</h1>"
            ),
        )
        refused = Use("Say hello", "The answer was 429.", is_error=True)
        use(page, alone, "assets", refused)


@each_look
@each_page
def test_everybody_can_use_the_page(
    request: pytest.FixtureRequest,
    chromium: Browser,
    name: str,
    device: str,
    scheme: str,
) -> None:
    fixture, path = PAGES[name]
    server = request.getfixturevalue(fixture)
    axe = (ROOT / "node_modules/axe-core/axe.min.js").read_text()
    failure = Use("Say hello", "Failed to fetch", is_offline=True, is_error=True)
    with opened(chromium, server, True, path, **look(device, scheme)) as page:
        if path != "/":
            use(page, server, "assets", failure)
        for control in page.locator("button, input, textarea, .button").all():
            if control.is_visible():
                assert control.bounding_box()["height"] >= 44
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= WIDTHS[device]
        # The page's policy does not bind what is evaluated.
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found] == []
