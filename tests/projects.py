"""Reads and edits generated projects, as their users do."""

import copy
import difflib
import functools
import json
from pathlib import Path

import json5


def config(project: Path) -> dict:
    """Return a project's wrangler.jsonc."""
    return copy.deepcopy(_parsed((project / "wrangler.jsonc").read_text()))


@functools.cache
def _parsed(text: str) -> dict:
    # Each once, since that takes longer than to render it.
    return json5.loads(text)


def package(project: Path) -> dict:
    """Return a project's package.json."""
    return json.loads((project / "package.json").read_text())


def readme(project: Path) -> str:
    """Return the text of a project's README."""
    return (project / "README.md").read_text()


def texts(project: Path) -> dict[str, str]:
    """Return the text of every file of a project, by path.

    Its `.git` is left out, and the secrets, of which one is random.
    """
    return {
        path.relative_to(project).as_posix(): path.read_text()
        for path in sorted(project.rglob("*"))
        if path.is_file() and ".git" not in path.parts and path.name != ".dev.vars"
    }


def edit(project: Path, path: str, after: str, insert: str) -> None:
    """Insert lines after the one line of a file that is `after`."""
    lines = (project / path).read_text().split("\n")
    assert lines.count(after) == 1
    position = lines.index(after) + 1
    lines[position:position] = insert.split("\n")
    (project / path).write_text("\n".join(lines))


def replace(path: Path, old: str, new: str) -> None:
    """Replace the one place of a file in which `old` stands."""
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def difference(tree: dict[str, str], expected: dict[str, str]) -> str:
    """Return the lines in which a project differs from what it should be."""
    return "\n".join(
        line
        for path in sorted(tree.keys() | expected.keys())
        if tree.get(path) != expected.get(path)
        for line in difflib.unified_diff(
            expected.get(path, "").splitlines(),
            tree.get(path, "").splitlines(),
            f"expected {path}",
            f"found {path}",
            lineterm="",
        )
    )
