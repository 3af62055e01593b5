"""What is written from the features: projects as documents, and the README.

So a change shows what it does, and nobody keeps a list in step by hand.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from parts import CATALOG, FEATURES, NEWEST, OLDEST, PRESETS
from projects import readme, texts
from workbench import ROOT

EXAMPLES = {
    "none": {"features": [], "package_manager": "pnpm", "github_actions": False},
    "one": {"features": ["alarms"], "layout": "modules", "package_manager": "bun"},
    "all": {"features": FEATURES, "custom_domain": "app.example.com"},
}
LANGUAGES = {".ts": "ts", ".mjs": "js", ".json": "json", ".jsonc": "jsonc"}


def document(project: Path) -> str:
    """Write all files of a project, but its answers, one after the other."""
    parts = [f"# What `{project.name}` holds\n"]
    for path, text in texts(project).items():
        if path == ".copier-answers.yml":
            continue
        language = LANGUAGES.get(Path(path).suffix, "")
        parts.append(f"## {path}\n\n~~~~{language}\n{text.rstrip()}\n~~~~\n")
    return "\n".join(parts)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_the_template_generates(
    render: Callable[..., Path], name: str, request: pytest.FixtureRequest
) -> None:
    answers = {**EXAMPLES[name], "project_name": f"example-{name}"}
    expected = document(render(**answers))
    example = ROOT / f"examples/{name}.md"
    if request.config.getoption("--write-examples"):
        example.parent.mkdir(exist_ok=True)
        example.write_text(expected)
    assert example.read_text() == expected


def pictured(render: Callable[..., Path], preset: dict) -> str:
    """Show a preset: what it is for, what it chooses, and its project's picture."""
    project = render(preset["features"], project_name="myapp")
    diagram = re.search(r"```mermaid\n.*?```", readme(project), re.DOTALL)
    assert diagram is not None
    chosen = ", ".join(f"`{feature}`" for feature in preset["features"])
    return (
        f"<details>\n<summary><code>{preset['id']}</code> - {preset['help']}</summary>"
        f"\n\n{chosen}\n\n{diagram[0]}\n\n</details>\n"
    )


def test_the_readme_says_what_the_features_and_the_toolchain_say(
    render: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    readme = ROOT / "README.md"
    rows = "".join(f"| `{part['id']}` | {part['help']} |\n" for part in CATALOG)
    table = r"(\| feature \| .*\n\| --- \| --- \|\n)(?:\|.*\n)+"
    dates = r"(\| `compatibility_date` \| from )\S+ to [\d-]+(.*\| )[\d-]+( \|)"
    text, tables = re.subn(table, rf"\g<1>{rows}", readme.read_text())
    text, ranges = re.subn(dates, rf"\g<1>{OLDEST} to {NEWEST}\g<2>{NEWEST}\g<3>", text)
    shown = "\n".join(pictured(render, preset) for preset in PRESETS)
    between = r"(?<=<!-- presets -->\n)(?s:.*?)(?=<!-- /presets -->)"
    text, presets = re.subn(between, f"\n{shown}\n", text)
    assert (tables, ranges, presets) == (1, 1, 1)
    if request.config.getoption("--write-examples"):
        readme.write_text(text)
    assert readme.read_text() == text
