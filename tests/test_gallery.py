"""The projects of the gallery, and what README.md says of the features.

`python3 tools/write.py` writes both, so that nobody keeps a list in step by hand.
"""

import shutil
from pathlib import Path

import pytest

from projects import config, edit, package, readme, replace, texts
from toolchain import git, release, run_copier
from tools import pictures, write
from workbench import copy_template


@pytest.mark.usefixtures("quick")
def test_the_gallery_is_what_the_template_writes(tmp_path: Path) -> None:
    write.write_gallery(tmp_path)
    assert texts(write.GALLERY) == texts(tmp_path)


def test_the_readme_says_what_the_features_say() -> None:
    assert write.README.read_text() == write.readme()


@pytest.mark.full
def test_the_update_that_is_shown_happens_like_that() -> None:
    written = write.with_update()
    assert {path: path.read_text() for path in written} == written


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        # With a resource that is deployed, and with none.
        ("d1-api", ["project_name"]),
        pytest.param(
            "realtime", ["project_name", "resource_name"], marks=pytest.mark.full
        ),
    ],
)
def test_a_project_that_was_started_from_the_gallery_is_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, renamed: list[str]
) -> None:
    template = copy_template(tmp_path / "template")
    release(template, write.version())
    # Instead of GitHub.
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{template}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"{write.SOURCE}.git")
    # Where Copier keeps what it has read from there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = tmp_path / "project"
    shutil.copytree(write.GALLERY / name, project)
    for file in ("wrangler.jsonc", "package.json"):
        replace(project / file, f'"name": "{name}"', '"name": "mine"')
    database = f'\t\t\t"database_name": "{name}-db",'
    if name == "d1-api":
        edit(project, "wrangler.jsonc", database, '\t\t\t"database_id": "0123",')
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "Start")

    features = write.gallery_projects()[name]["features"]
    added = f"--data=features={[*features, 'queues']}"
    named = [f"--data={key}=mine" for key in renamed]
    resources = "mine" if "resource_name" in renamed else name
    for data, resource in ([added], name), (named, resources):
        result = run_copier("update", "--defaults", *data, project)
        assert result.returncode == 0, result.stderr
        assert git(project, "ls-files", "--unmerged") == ""
        assert config(project)["name"] == package(project)["name"] == "mine"
        assert f'"{resource}-requests"' in (project / "src/index.ts").read_text()
        if name == "d1-api":
            assert config(project)["d1_databases"][0]["database_id"] == "0123"
        git(project, "add", "--all")
        git(project, "commit", "--quiet", "--message", "Update")
    assert readme(project).startswith("# mine\n")

    result = run_copier("update", "--defaults", "--data=project_name=other", project)
    assert result.returncode != 0
    assert "Keep 'mine', the name of this project" in result.stderr


@pytest.mark.full
def test_the_picture_shows_the_questions_of_today(tmp_path: Path) -> None:
    pictures.write_session(tmp_path / "session.svg")
    shown = write.ROOT / "docs/pictures/session.svg"
    assert shown.read_text() == (tmp_path / "session.svg").read_text()
