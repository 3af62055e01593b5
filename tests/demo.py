"""The page and the demo in Chromium: servers to look at, and what people do there.

A plugin of pytest, so its fixtures are everywhere.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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

import projects
import workbench
from dev_server import DevServer, serve
from internet import Model, answering, chromium_with, serve_with
from parts import FEATURES
from toolchain import link_toolchain
from workbench import ROOT

Render = Callable[..., Path]

#: The features that bring a panel.
PANELS = [
    feature for feature in FEATURES if (ROOT / f"features/{feature}/demo.html").exists()
]
#: Chromium's own words when an answer is an error, or none comes.
REFUSED = "Failed to load resource: "
#: The widths of a phone and of a desktop, in both schemes of colours.
WIDTHS = {"phone": 390, "desktop": 1280}


@dataclass
class Use:
    """One use of a panel's control.

    Attributes:
        button: The name of the button.
        shows: A pattern of the text that the panel then shows.
        fields: The text for the fields, by label.
        is_error: Whether that is an error.
        has_token: Whether the page knows the API token.
        is_offline: Whether the browser has no network.
        model: The model's answer when it is asked.
    """

    button: str
    shows: str
    fields: dict[str, str] = field(default_factory=dict)
    is_error: bool = False
    has_token: bool = True
    is_offline: bool = False
    model: str = ""


#: The uses of each panel: every button with success, and an error.
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


@pytest.fixture(scope="session")
def model() -> Iterator[Model]:
    """The model of a project of all features."""
    with Model() as model:
        yield model


@pytest.fixture(scope="session")
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
    projects.replace(config, '"UPSTREAM_API_URL": ""', upstream)
    # The tests send more requests per minute than a client may.
    projects.replace(config, '"limit": 100,', '"limit": 1000000,')
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
    with started_chromium() as browser:
        yield browser


@contextmanager
def started_chromium() -> Iterator[Browser]:
    """Start the system's Chromium, without a window."""
    with sync_playwright() as playwright:
        program = workbench.chromium_program()
        assert program is not None, "`python3 test.py` installs it"
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


def take_picture(file: Path, chromium: Browser, server: DevServer) -> None:
    """Save a picture of a demo with something in every panel, which asks no model."""
    with opened(chromium, server, **look("desktop", "light")) as page:
        for feature in [one for one in PANELS if one in server.features]:
            fruitful = [step for step in USES[feature] if not step.is_error]
            for step in fruitful[:2]:
                use(page, server, feature, step)
        page.evaluate("scrollTo(0, 0)")
        image = Image.open(BytesIO(page.screenshot(full_page=True)))
    image.convert("RGB").quantize(64).save(file, optimize=True)
