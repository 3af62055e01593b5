"""The example of CONTRIBUTING.md, done as it stands there, and the diagrams."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from parts import FEATURES
from toolchain import assert_clean, commit, link_toolchain, run, run_tests
from workbench import PYTHON, ROOT, copy_template

#: The files of the worked example, in the order of its blocks.
FILES = [
    "feature.yml",
    "worker.ts",
    "worker.test.ts",
    "guide.md.jinja",
    "expected.yml",
]


@pytest.mark.full
def test_the_feature_that_it_describes_works(
    render: Callable[..., Path], tmp_path: Path
) -> None:
    template = copy_template(tmp_path / "template")
    text = (template / "CONTRIBUTING.md").read_text()
    _, _, section = text.partition("## Add a feature\n")
    blocks = re.findall(r"^(`{3,})\w+\n((?:.*\n)*?)\1$", section, re.MULTILINE)
    folder = template / "features/dice"
    folder.mkdir()
    for name, (_, block) in zip(FILES, blocks, strict=False):
        (folder / name).write_text(block)

    for name in (".venv", "node_modules"):
        (template / name).symlink_to(ROOT / name)
    run([PYTHON, "tools/write.py", "javascript"], template)

    for features in (["dice"], ["dice", *FEATURES[:2]]):
        project = link_toolchain(render(features, source=template))
        assert_clean(project)
        run_tests(project, "dice")

    # The rules for every feature.
    commit(template, "Add dice")
    files = [f"tests/test_{name}.py" for name in ("repository", "render", "weight")]
    options = ["-q", "-k", "dice", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *files, *options]
    result = subprocess.run(command, cwd=template, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_its_diagrams_and_those_of_the_readme_can_be_drawn(chromium: Browser) -> None:
    page = chromium.new_page()
    page.add_script_tag(path=ROOT / "node_modules/mermaid/dist/mermaid.min.js")
    text = "".join(
        (ROOT / f"{name}.md").read_text() for name in ("CONTRIBUTING", "README")
    )
    for diagram in re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL):
        assert page.evaluate("text => mermaid.parse(text)", diagram)
