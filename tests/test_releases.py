"""Releases: made by a command, crossed by updates, and what their users are told."""

import re
import shutil
from pathlib import Path

import copier
import pytest
import yaml

from parts import FEATURE_SETS, FEATURES, LAYOUTS, MANAGERS, PRESETS, PROVIDERS
from projects import difference, replace, texts
from releases import (
    NEWER,
    OLDER,
    RELEASED,
    TREE,
    VERSIONS,
    features_of,
    languages_of,
    make_history,
)
from toolchain import commit, git, run, run_copier
from workbench import PYTHON, ROOT, copy_template

#: From which release to which: from each that was made to this tree, and simulated
#: ones before and after it; in which layout and language, JavaScript in one layout,
#: since its files are joined in the same way.
CROSSED = [
    (start, end, layout, language)
    for start, end in [
        *((version, TREE) for version in [OLDER, *RELEASED]),
        (TREE, NEWER[-1]),
    ]
    for language in languages_of(start)
    for layout in LAYOUTS[: 2 if language == "typescript" else 1]
]
#: The sets of features that cross releases.
SETS = [*FEATURE_SETS, *(preset["features"] for preset in PRESETS)]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository of releases: recorded, simulated, and this tree."""
    return make_history(tmp_path_factory.mktemp("history"))


def recorded(project: Path) -> dict:
    """Return the answers that Copier has recorded in a project."""
    return yaml.safe_load((project / ".copier-answers.yml").read_text())


@pytest.mark.full
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("start", "end", "layout", "language"), CROSSED)
def test_an_update_makes_what_a_fresh_copy_makes(
    start: str, end: str, layout: str, language: str, history: Path, tmp_path: Path
) -> None:
    if start not in VERSIONS:
        pytest.skip("This clone lacks the commit: fetch the whole history.")
    differences = {}
    for features in SETS:
        chosen = [one for one in features if one in features_of(start)]
        folders = tmp_path / "updated/my-worker", tmp_path / "fresh/my-worker"
        updated, fresh = folders
        quietly = {"defaults": True, "quiet": True}
        data = {"features": chosen, "layout": layout, "language": language}
        copier.run_copy(str(history), updated, data=data, vcs_ref=start, **quietly)
        commit(updated, "Start")
        copier.run_update(updated, vcs_ref=end, overwrite=True, **quietly)
        # With the record of classes, which remembers more than a fresh one.
        data = {k: v for k, v in recorded(updated).items() if not k.startswith("_")}
        copier.run_copy(str(history), fresh, data=data, vcs_ref=end, **quietly)
        found = difference(texts(updated), texts(fresh))
        if found or set(data["features"]) != set(chosen):
            differences[tuple(features)] = found
        for folder in folders:
            shutil.rmtree(folder)
    assert differences == {}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """This tree without a release, in a repository that can be tested in no time.

    In place of the tests is a program that fails where there is a file `red`.
    """
    repository = copy_template(tmp_path / "template")
    (repository / "releases.yml").write_text("# The commits.\n{}\n")
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\nIt is.\n")
    suite = "import pathlib, sys\nsys.exit(pathlib.Path('../red').exists())\n"
    (repository / "test.py").write_text(suite)
    for shared in (".venv", "node_modules"):
        (repository / shared).symlink_to(ROOT / shared)
    commit(repository, "Start")
    return repository


def make_release(repository: Path, *arguments: str) -> str:
    """Run the command that makes a release; return what it printed."""
    return run([PYTHON, "tools/release.py", *arguments], repository)


def test_a_release_is_recorded_tagged_and_what_its_users_are_told(
    repository: Path, tmp_path: Path
) -> None:
    make_release(repository, "0.1.0")
    made = git(repository, "rev-parse", "HEAD~1").strip()
    assert yaml.safe_load((repository / "releases.yml").read_text()) == {"0.1.0": made}
    assert git(repository, "rev-parse", "0.1.0").strip() == made
    project = tmp_path / "my-worker"
    run_copier("copy", "--defaults", repository, project)
    commit(project, "Start")
    started = git(repository, "show", "0.1.0:gallery/none/.copier-answers.yml")
    assert f"_commit: {recorded(project)['_commit']}\n" in started

    news = "## Unreleased\n\n- Errors have a colour.\n\n## 0.1.0 -"
    replace(repository / "CHANGELOG.md", "## 0.1.0 -", news)
    replace(
        repository / "base/base/worker.ts",
        "No such route.",
        "Not a route.",
    )
    commit(repository, "Colour errors")
    assert "up-to-date" in run_copier("check-update", project).stdout
    make_release(repository, "0.2.0")
    assert git(repository, "status", "--porcelain") == ""

    git(repository, "tag", "--delete", "0.1.0", "0.2.0")
    assert make_release(repository, "--tag") == "Tagged 0.1.0\nTagged 0.2.0\n"
    assert make_release(repository, "--tag") == ""
    git(repository, "reset", "--quiet", "--hard", "HEAD~2")
    with pytest.raises(AssertionError, match=r"Delete the tag 0\.2\.0"):
        make_release(repository, "0.2.0")
    git(repository, "reset", "--quiet", "--hard", "ORIG_HEAD")

    assert "0.2.0" in run_copier("check-update", project).stdout
    assert run_copier("check-update", "--quiet", project).returncode == 2
    result = run_copier("update", "--skip-answered", "--defaults", project)
    assert result.returncode == 0, result.stderr
    assert "- Errors have a colour." in result.stderr
    assert "It is." not in result.stderr
    assert recorded(project)["_commit"] == "0.2.0"


@pytest.mark.parametrize(
    ("version", "edits", "said"),
    [
        ("v1.0.0", {}, "Write a version like 0.2.0"),
        ("0.0.9", {"releases.yml": f"0.1.0: {'0' * 40}\n"}, "0.0.9 is not newer"),
        (
            "0.2.0",
            {"CHANGELOG.md": "## Unreleased\n\n## 0.1.0\n\nAll.\n"},
            "what is new",
        ),
        ("0.2.0", {"CHANGELOG.md": "## 0.1.0 - 2026-11-30\n\nAll.\n"}, "what is new"),
        ("0.2.0", {"../red": ""}, "Not released."),
    ],
)
def test_nothing_is_released_that_is_not_ready(
    version: str, edits: dict[str, str], said: str, repository: Path
) -> None:
    for path, text in edits.items():
        (repository / path).write_text(text)
    if git(repository, "status", "--porcelain"):
        with pytest.raises(AssertionError, match="Commit your changes first"):
            make_release(repository, "9.0.0")
        commit(repository, "Edit")
    before = git(repository, "rev-parse", "HEAD")
    with pytest.raises(AssertionError, match=said):
        make_release(repository, version)
    assert git(repository, "rev-parse", "HEAD") == before
    assert git(repository, "status", "--porcelain") == git(repository, "tag") == ""


def test_what_is_released_stays_told_and_no_id_comes_back() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert [one for one in RELEASED if f"\n## {one} - " not in changelog] == []
    # It is rendered by Jinja.
    assert not re.search(r"\{[{%#]|//%", changelog)
    retired = yaml.safe_load((ROOT / "extensions/retired.yml").read_text())
    providers = [provider["id"] for provider in PROVIDERS]
    choices = {"features": FEATURES, "ai_provider": providers}
    choices["package_manager"] = MANAGERS
    for gone in retired:
        known = choices[gone["question"]]
        assert gone["id"] not in known
        assert gone.get("now", known[0]) in known
