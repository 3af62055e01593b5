"""The README of generated projects: each of its commands, run as it stands there."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev_server import DevServer, serve
from parts import (
    CATALOG,
    FEATURE_SETS,
    FEATURES,
    MODEL_FEATURES,
    PRESETS,
    PROVIDERS,
    set_id,
)
from projects import readme
from toolchain import link_toolchain, node_environment

Project = Callable[..., Path]

#: The answers that make the projects whose READMEs are tested.
SETS: dict[str, dict] = {
    **{set_id(features): {"features": features} for features in FEATURE_SETS},
    **{
        provider["id"]: {"features": MODEL_FEATURES, "ai_provider": provider["id"]}
        for provider in PROVIDERS[1:]
    },
    **{preset["id"]: {"features": preset["features"]} for preset in PRESETS},
    "modules": {"features": FEATURES, "layout": "modules"},
}
#: The features that some starting point has.
PRESET_FEATURES = {feature for preset in PRESETS for feature in preset["features"]}
#: The projects whose commands are run; a starting point stands for its features alone.
SERVED = [name for name in SETS if name not in PRESET_FEATURES]
#: The words of each package manager.
PACKAGE_MANAGERS = {
    "npm": {"npm", "npx"},
    "pnpm": {"pnpm"},
    "yarn": {"yarn"},
    "bun": {"bun", "bunx"},
}
#: Text that differs from run to run, and the word that stands for it.
VOLATILE = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z": "TIME",
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "UUID",
    r"\beyJ[\w-]+\.[\w-]+\.[\w-]+": "TICKET",
    r"(?<![\w-])[\w-]{43}(?![\w-])": "TOKEN",
}
SECTION_OR_BLOCK = re.compile(
    r"^## (?P<section>.+)$|^```(?P<kind>.*)\n(?P<code>(?s:.*?))^```$", re.MULTILINE
)
#: `$(…)`, with parentheses in it as long as they come in pairs.
SUBSTITUTION = re.compile(r"\$\([^()]*(\([^()]*\)[^()]*)*\)")
END = "-- end of a block --"


@dataclass
class Block:
    """A fenced block.

    Attributes:
        section: The heading of the second level above it.
        kind: The word behind the fence.
        code: What stands in it.
        answer: The block that directly follows, if that shows a response.
    """

    section: str
    kind: str
    code: str
    answer: "Block | None" = None

    @property
    def is_run(self) -> bool:
        """Whether the tests run it: all that talks to the Worker."""
        starts = ("curl", "node", "source .dev.vars")
        talks = self.code.startswith(starts) and self.answer is not None
        return self.kind == "sh" and (talks or "curl" in self.code)


def blocks_of(readme: str) -> list[Block]:
    """Return the fenced blocks of a README, in their order."""
    blocks: list[Block] = []
    section, end = "", 0
    for match in SECTION_OR_BLOCK.finditer(readme):
        if match["section"]:
            section = match["section"]
            continue
        block = Block(section, match["kind"], match["code"])
        is_next = not readme[end : match.start()].strip()
        if blocks and is_next and block.kind in ("http", "text"):
            blocks[-1].answer = block
        blocks.append(block)
        end = match.end()
    return blocks


def steady(text: str) -> str:
    """Return a text with its volatile values replaced by fixed words."""
    for pattern, word in VOLATILE.items():
        text = re.sub(pattern, word, text)
    return text.strip()


def parse_response(text: str) -> tuple[int, list[str], object]:
    """Split what `curl -i` prints.

    Args:
        text: The response; `steady`.

    Returns:
        The status, the header lines with their names in lower case, and the
        body: parsed if it is JSON, else the text.

    Raises:
        AssertionError: When it is no HTTP response.
    """
    head, _, body = text.partition("\n\n")
    first, *lines = head.split("\n")
    assert re.match(r"HTTP/1\.1 \d{3}", first), text
    headers = [re.sub(r"^[\w-]+", lambda name: name[0].lower(), line) for line in lines]
    try:
        return int(first.split()[1]), headers, json.loads(body)
    except json.JSONDecodeError:
        return int(first.split()[1]), headers, body


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, render: Callable[..., Path]
) -> Iterator[DevServer]:
    """A server of the project that the parameter names."""
    name = f"test-{request.param}"
    project = link_toolchain(render(**SETS[request.param], project_name=name))
    with serve(project) as server:
        yield server


@pytest.mark.parametrize("server", SERVED, indirect=True)
def test_every_command_answers_what_the_readme_shows(server: DevServer) -> None:
    blocks = blocks_of(readme(server.project))
    for block in blocks:
        if "curl" in SUBSTITUTION.sub("", block.code):
            assert block.kind == "sh" and block.answer, block.code
    blocks = [block for block in blocks if block.is_run]
    with_curl = {block.section for block in blocks if "curl" in block.code}
    titles = [known["title"] for known in CATALOG if known["id"] in server.features]
    assert {"Routes", *titles} <= with_curl

    script = "".join(f"{block.code}\necho '{END}'\n" for block in blocks)
    result = subprocess.run(
        ["bash", "-c", script.replace("localhost:8787", f"127.0.0.1:{server.port}")],
        cwd=server.project,
        env=node_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    *outputs, rest = result.stdout.split(f"{END}\n")
    assert rest == "", result.stderr

    for block, output in zip(blocks, outputs, strict=True):
        shown = steady(block.answer.code) if block.answer else ""
        got = steady(output)
        if block.answer is None or block.answer.kind == "text":
            assert got == shown, block.code
            continue
        status, headers, body = parse_response(got)
        shown_status, shown_headers, shown_body = parse_response(shown)
        assert (status, body) == (shown_status, shown_body), block.code
        assert set(shown_headers) <= set(headers), block.code


def test_every_route_has_a_curl_command(project: Project) -> None:
    blocks = blocks_of(readme(project(FEATURES)))
    commands = [
        command
        for block in blocks
        if block.is_run and block.answer
        for command in re.findall(r"\bcurl(?:\\\n|.)*", block.code)
    ]
    requests = set()
    for command in commands:
        method = re.search(r" (?:-X|--request) (\w+)", command)
        path = re.search(r"http://localhost:8787(/[^\s'\"?]*)", command)
        assert path is not None, command
        sent = "POST" if re.search(" (--json|-d) ", command) else "GET"
        requests.add(f"{method[1] if method else sent} {path[1]}")

    for route in (route for part in CATALOG for route in part.get("routes", [])):
        path = re.sub(r":\w+(\{[^/]*\})?|<\w+>|\*", ".+", route["path"])
        pattern = re.compile(f"{route['method']} {path}")
        assert any(pattern.fullmatch(request) for request in requests), route


def test_each_command_that_creates_something_stands_in_one_place(
    project: Project,
) -> None:
    blocks = blocks_of(readme(project(FEATURES)))
    creating = r"^npx (wrangler \w+ create .*)$"
    places = {
        (block.section, command)
        for block in blocks
        for command in re.findall(creating, block.code, re.MULTILINE)
    }
    assert {section for section, _ in places} == {"Deploy it"}
    expected = [
        re.sub(r"\{resource_name(_short)?\}", "test-all", step["command"])
        for feature in CATALOG
        for step in feature.get("provision", [])
    ]
    assert expected
    assert [command for _, command in sorted(places)] == sorted(expected)


@pytest.mark.parametrize("package_manager", PACKAGE_MANAGERS)
def test_commands_are_those_of_the_package_manager(
    project: Project, package_manager: str
) -> None:
    directory = project(FEATURES, package_manager=package_manager)
    text = readme(directory)
    package = json.loads((directory / "package.json").read_text())

    shell = [block.code for block in blocks_of(text) if block.kind == "sh"]
    inline = re.findall(r"`([^`\n]+)`", SECTION_OR_BLOCK.sub("", text))
    code = "\n".join(shell + inline)
    names = "|".join(word for words in PACKAGE_MANAGERS.values() for word in words)
    said = set(re.findall(rf"(?<![\w./-])(?:{names})(?= )", code))
    scripts = set(re.findall(rf"{package_manager} run (\S+)", code))

    assert said <= PACKAGE_MANAGERS[package_manager]
    assert package_manager in said
    assert {"dev", "test", "deploy"} <= scripts <= set(package["scripts"])


@pytest.mark.parametrize("package_manager", PACKAGE_MANAGERS)
def test_options_reach_the_script(project: Project, package_manager: str) -> None:
    text = readme(project(FEATURES, package_manager=package_manager))
    options = re.findall(rf"{package_manager} run \S+( --)? --\w", text)
    assert options
    # npm keeps options to itself unless dashes stand before them.
    assert set(options) == {" --" if package_manager == "npm" else ""}
