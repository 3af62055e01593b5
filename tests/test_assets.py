"""Static files, the page and the demo, under `wrangler dev` and in Chromium."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    expect,
    sync_playwright,
)
from werkzeug import Response

import oracle
import workbench
from dev_server import DevServer, serve
from internet import Model, answering, chromium_with, serve_with
from parts import FEATURES, NEWEST, OLDEST
from toolchain import link_toolchain
from workbench import ROOT

Render = Callable[..., Path]

PANELS = [
    feature for feature in FEATURES if (ROOT / f"features/{feature}/demo.html").exists()
]
#: What Chromium writes by itself when an answer is an error, or none comes.
REFUSED = "Failed to load resource: "
#: The widths of a phone and of a desktop, in both schemes of colours.
WIDTHS = {"phone": 390, "desktop": 1280}
LOOKS = [(device, scheme) for device in WIDTHS for scheme in ("light", "dark")]
each_look = pytest.mark.parametrize(("device", "scheme"), LOOKS)
#: What people see: the server and the path.
PAGES = {
    "page": ("alone", "/"),
    "alone": ("alone", "/demo/"),
    "everything": ("everything", "/demo/"),
}
each_page = pytest.mark.parametrize("name", PAGES)


@dataclass
class Use:
    """One use of a panel's control.

    Attributes:
        button: The name of the button.
        shows: What the panel then shows; a pattern.
        fields: What is written into the fields, by label.
        is_error: Whether that is an error.
        has_token: Whether the page knows the API token.
        is_offline: Whether the Worker Failed to fetch.
        model: What the model says when it is asked.
    """

    button: str
    shows: str
    fields: dict[str, str] = field(default_factory=dict)
    is_error: bool = False
    has_token: bool = True
    is_offline: bool = False
    model: str = ""


#: What is done with each panel: every button with success, and an error.
USES = {
    feature: [
        Use(**step)
        for step in yaml.safe_load((ROOT / f"features/{feature}/demo.yml").read_text())
    ]
    for feature in PANELS
}


@pytest.fixture(scope="module")
def alone(render: Render) -> Iterator[DevServer]:
    """A server of a project with no other feature."""
    with serve(link_toolchain(render(["assets"]))) as server:
        yield server


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """The model of a project of all features."""
    with Model() as model:
        yield model


@pytest.fixture(scope="module")
def everything(
    render: Render, model: Model, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevServer]:
    """A server of a project of all features, with a model and a web site."""
    project = link_toolchain(render(FEATURES, ai_provider="openai"))
    model.connect(project)
    with (project / ".dev.vars").open("a") as secrets:
        secrets.write("UPSTREAM_API_KEY=key\n")
    config = project / "wrangler.jsonc"
    # Nothing listens there; the queue only wants to know that it is set.
    upstream = '"UPSTREAM_API_URL": "http://127.0.0.1:9/"'
    config.write_text(config.read_text().replace('"UPSTREAM_API_URL": ""', upstream))
    page = "<title>Example Domain</title>For use in examples."
    html = Response(page, mimetype="text/html")
    with answering(lambda request: html) as site:
        folder = tmp_path_factory.mktemp("chromium")
        browser = chromium_with({"example.com": site}, folder)
        with serve_with(browser, project) as server:
            yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    with sync_playwright() as playwright:
        program = str(workbench.chromium_program())
        # Its sandbox does not start as root.
        arguments = ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


def look(device: str, scheme: str) -> dict[str, object]:
    """Return the options of a browser's context that looks at a page so."""
    size = {"width": WIDTHS[device], "height": 800}
    return {"viewport": size, "color_scheme": scheme}


@contextmanager
def opened(
    chromium: Browser,
    server: DevServer,
    refusals: bool = False,
    path: str = "/demo/",
    **options: object,
) -> Iterator[Page]:
    """Open a page as somebody new; its console must stay free of errors.

    Args:
        chromium: The browser.
        server: Where the page is.
        refusals: Whether the Worker may refuse requests, which Chromium reports.
        path: The page; the demo unless told.
        options: Those of `Browser.new_context`.
    """
    with chromium.new_context(**options) as context:
        page = context.new_page()
        complaints = watch(page, refusals)
        # All scripts have been loaded, as the shell of the demo does it.
        page.goto(server.url + path, wait_until="networkidle")
        yield page
        assert complaints == []


def watch(page: Page, refusals: bool = False) -> list[str]:
    """Return a list that grows with each error and warning of a page."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        is_expected = refusals and message.text.startswith(REFUSED)
        if message.type in ("error", "warning") and not is_expected:
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def panel_of(page: Page, feature: str) -> Locator:
    """Return the section of a feature."""
    return page.locator(f"section#{feature}")


def use(
    page: Page, server: DevServer, feature: str, step: Use, model: Model | None = None
) -> None:
    """Use a control as `step` says, and check what the panel shows."""
    panel = panel_of(page, feature)
    busy = page.locator(f"#{feature}[aria-busy=true]")
    expect(busy).to_have_count(0)
    if page.get_by_label("API token").is_visible():
        page.get_by_label("API token").fill(server.token if step.has_token else "")
    for label, value in step.fields.items():
        panel.get_by_label(label).fill(value)
    if step.is_offline:
        page.context.set_offline(True)
    if model and step.model:
        model.say(step.model)
    panel.get_by_role("button", name=step.button, exact=True).click()
    # A browser of the Worker's own takes its time to start.
    expect(busy).to_have_count(0, timeout=20_000)
    output = panel.get_by_role("status")
    expect(output).to_contain_text(re.compile(step.shows))
    classes = re.compile(r"\berror\b")
    if step.is_error:
        expect(output).to_have_class(classes)
    else:
        expect(output).not_to_have_class(classes)
    if step.is_offline:
        page.context.set_offline(False)


# --- Files and routes, without a browser ----------------------------------------


@pytest.fixture(scope="module", params=[OLDEST, NEWEST])
def dated(request: pytest.FixtureRequest, render: Render) -> Iterator[DevServer]:
    """Servers at both ends of the range of compatibility dates."""
    project = render(["assets", "websockets"], compatibility_date=request.param)
    with serve(link_toolchain(project)) as server:
        yield server


@pytest.mark.parametrize(
    "path",
    ["/", "/any/path", "/healthy", "/websocket", "/WS/a", "/demo/none.js", "/_headers"],
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


@pytest.mark.parametrize("path", ["/api", "/api/no", "/health/", "/ws", "/ws/a/b"])
def test_what_is_unknown_below_a_route_is_an_error_of_the_worker(
    dated: DevServer, path: str
) -> None:
    for method in ("GET", "POST"):
        response = dated.http.request(method, path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health?a=1", 200), ("/api/hello?a=1", 200), ("/ws/lobby", 426)],
)
def test_routes_reach_the_worker(dated: DevServer, path: str, status: int) -> None:
    response = dated.http.get(path)
    assert response.status_code == status
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
    with_route = [name for name in FEATURES if oracle.FEATURES[name].routes]
    assert with_route == PANELS


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


def test_what_one_page_says_in_a_room_the_other_shows(
    everything: DevServer, chromium: Browser
) -> None:
    with opened(chromium, everything) as ada, opened(chromium, everything) as bob:
        for page in (ada, bob):
            use(page, everything, "websockets", Use("Join", "You are in lobby"))
        hello = {"Message": "hello, bob"}
        use(ada, everything, "websockets", Use("Send", "Sent", hello))
        expect(bob.get_by_role("log")).to_have_text("hello, bob")
        expect(ada.get_by_role("log")).to_contain_text("connections: 2")
        panel_of(ada, "websockets").get_by_label("Message").fill("x" * 65_537)
        panel_of(ada, "websockets").get_by_role("button", name="Send").click()
        output = panel_of(ada, "websockets").get_by_role("status")
        expect(output).to_have_text("Disconnected. At most 65536 bytes")


def test_a_session_opens_the_other_panels_without_the_token(
    everything: DevServer, chromium: Browser
) -> None:
    tables = Use("List tables", "public", has_token=False)
    with opened(chromium, everything) as page:
        use(page, everything, "auth", Use("Sign in", "Signed in as ada"))
        expect(page.get_by_label("API token")).to_have_value("")
        page.reload(wait_until="networkidle")
        use(page, everything, "hyperdrive", tables)
        use(page, everything, "auth", Use("Sign out", "Signed out"))
    with opened(chromium, everything, refusals=True) as page:
        shut = Use("List tables", "API_TOKEN", has_token=False, is_error=True)
        use(page, everything, "hyperdrive", shut)


def test_the_token_stays_in_its_field(everything: DevServer, chromium: Browser) -> None:
    with opened(chromium, everything) as page:
        addresses = []
        page.on("request", lambda request: addresses.append(request.url))
        use(page, everything, "hyperdrive", Use("List tables", "books"))
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
        # What is evaluated is not bound by the page's policy.
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found] == []


@each_look
@pytest.mark.parametrize("name", ["page", "everything"])
def test_the_readme_shows_what_the_page_looks_like(
    request: pytest.FixtureRequest,
    chromium: Browser,
    model: Model,
    name: str,
    device: str,
    scheme: str,
) -> None:
    file = f"screenshots/{name}-{device}-{scheme}.png"
    if request.config.getoption("--write-screenshots"):
        fixture, path = PAGES[name]
        server = request.getfixturevalue(fixture)
        with opened(chromium, server, path=path, **look(device, scheme)) as page:
            for feature in PANELS if name == "everything" else []:
                fruitful = [step for step in USES[feature] if not step.is_error]
                for step in fruitful[:2]:
                    # What a picture before has left there may show as well.
                    use(page, server, feature, replace(step, shows="."), model)
            expect(page.get_by_text("Connecting")).to_have_count(0)
            page.evaluate("scrollTo(0, 0)")
            image = Image.open(BytesIO(page.screenshot(full_page=True)))
        (ROOT / file).parent.mkdir(exist_ok=True)
        image.convert("RGB").quantize(64).save(ROOT / file, optimize=True)
    assert (ROOT / file).stat().st_size < 150_000
    assert file in (ROOT / "README.md").read_text()
