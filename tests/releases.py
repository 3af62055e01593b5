"""The template as a repository with its releases, as `copier update` sees it."""

import functools
import io
import subprocess
import tarfile
from pathlib import Path

import yaml

from parts import FEATURES, LANGUAGES
from toolchain import git, release
from workbench import ROOT, copy_template

#: The commits of the releases, by version.
RELEASED = yaml.safe_load((ROOT / "releases.yml").read_text())


def _is_here(commit: str) -> bool:
    command = ["git", "cat-file", "-e", commit]
    return not subprocess.run(command, cwd=ROOT, capture_output=True).returncode


#: The same without those that this clone does not have, as a shallow one.
RECORDED = {version: sha for version, sha in RELEASED.items() if _is_here(sha)}
#: Changes of simulated releases: a line in files of many kinds.
CHANGES = [
    [
        ("base/base/worker.ts", "No such route.", "Not a route."),
        ("template/README.md.jinja", "checks lint and types,", "checks all,"),
    ],
    [
        ("template/wrangler.jsonc.jinja", "A query may hold", "Queries may hold"),
        ("template/AGENTS.md.jinja", "## Rules", "## What to keep to"),
        ("base/base/worker.test.ts", "import", "// Of the Worker.\nimport"),
    ],
    [
        ("features/websockets/worker.ts", "/** ", "/** By the way: "),
        ("features/queues/feature.yml", "retry_delay: 300", "retry_delay: 301"),
        ("package.json", '"vitest": "', '"vitest": "0'),
        (
            "template/vitest.config{{ suffix }}.jinja",
            "testTimeout: 20_000",
            "testTimeout: 9_999",
        ),
    ],
]
#: Simulated releases: one before all others, which has all changes; this tree; and
#: one after the other with changes of its own.
OLDER, TREE = "0.0.1", "1000.0.0"
NEWER = [f"1000.{number}.0" for number in range(1, len(CHANGES) + 1)]
#: All versions, from the oldest.
VERSIONS = [OLDER, *RECORDED, TREE, *NEWER]


@functools.cache
def features_of(version: str) -> list[str]:
    """Return the ids of the features that a version has, in their order."""
    if version not in RECORDED:
        return FEATURES
    folders = git(ROOT, "ls-tree", "--name-only", f"{RECORDED[version]}:features")
    return [feature for feature in FEATURES if feature in folders.split()]


@functools.cache
def languages_of(version: str) -> list[str]:
    """Return the languages in which a project of a version can go through all later."""
    every = [OLDER, *RELEASED, TREE, *NEWER]
    later = [one for one in every[every.index(version) :] if one in RECORDED]
    texts = [git(ROOT, "show", f"{RECORDED[one]}:copier.yml") for one in later]
    asked = all("\nlanguage:" in text for text in texts)
    return LANGUAGES if asked else LANGUAGES[:1]


def make_history(folder: Path) -> Path:
    """Make a repository in which each of `VERSIONS` is a tag; return its folder."""
    changes = [change for some in CHANGES for change in some]
    copy_template(folder)
    _change(folder, changes)
    release(folder, OLDER)
    for version, recorded in RECORDED.items():
        git(folder, "rm", "-r", "--quiet", ".")
        archive = subprocess.check_output(["git", "archive", recorded], cwd=ROOT)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        release(folder, version)
    git(folder, "rm", "-r", "--quiet", ".")
    copy_template(folder)
    release(folder, TREE)
    for version, some in zip(NEWER, CHANGES, strict=True):
        _change(folder, some)
        release(folder, version)
    return folder


def _change(folder: Path, changes: list[tuple[str, str, str]]) -> None:
    for path, old, new in changes:
        derived = folder / "javascript" / path.replace(".ts", ".js")
        for file in [folder / path, *([derived] if derived.exists() else [])]:
            text = file.read_text()
            assert old in text
            file.write_text(text.replace(old, new, 1))
