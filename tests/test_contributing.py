"""What CONTRIBUTING.md shows, done as it stands there."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from toolchain import assert_clean, commit, link_toolchain, run_tests
from workbench import ROOT, copy_template

#: The files of the worked example, in the order of its blocks.
FILES = ["feature.yml", "worker.ts", "worker.test.ts", "guide.md.jinja"]


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

    for features in (["dice"], ["auth", "dice", "websockets"]):
        project = link_toolchain(render(features, source=template))
        assert_clean(project)
        run_tests(project, "dice")

    # What the repository asks of every feature.
    for name in (".venv", "node_modules"):
        (template / name).symlink_to(ROOT / name)
    commit(template, "Add dice")
    rules = ["tests/test_repository.py", "-k", "dice", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *rules]
    result = subprocess.run(command, cwd=template, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
