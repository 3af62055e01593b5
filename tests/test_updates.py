"""Updates: what they say and keep that no random life asks for."""

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import json5
import pytest
from copier.__main__ import CopierApp

from parts import CATALOG, FEATURES
from projects import config, edit, replace, texts
from test_render import patch_config
from toolchain import (
    commit,
    git,
    link_toolchain,
    node_environment,
    release,
    run,
    run_copier,
)
from workbench import NODE, ROOT, copy_template

#: Two features that have a class of Durable Objects, and the classes.
(FIRST, FIRST_CLASS), (SECOND, SECOND_CLASS), *_ = (
    (feature["id"], feature["durable_objects"][0]["class"])
    for feature in CATALOG
    if "durable_objects" in feature
)
#: The feature that brings the one list `kv_namespaces`, and its binding.
KV, BINDING = next(
    (feature["id"], feature["wrangler"]["kv_namespaces"][0]["binding"])
    for feature in CATALOG
    if "kv_namespaces" in feature.get("wrangler", {})
)
#: The feature that brings the page and its demo, and others with a panel there.
PAGE = "assets"
PANELS = [one for one in FEATURES if (ROOT / f"features/{one}/demo.html").exists()]
OTHER, *_ = (one for one in PANELS if one not in (PAGE, KV, FIRST, SECOND))
#: A conflict: what the user has, and what the update brings.
HUNK = re.compile(r"<{7} .*\n((?:.*\n)*?)={7}\n((?:.*\n)*?)>{7} .*\n")
MINE = '\t\t{ "binding": "MINE" },'

Start = Callable[..., Path]
#: Copier itself does the same, as a test of lives shows.
pytestmark = pytest.mark.usefixtures("quick")


def copier(*arguments: str | Path) -> None:
    """Run the Copier command line, in this process.

    Raises:
        AssertionError: When its exit status is not 0.
    """
    _, status = CopierApp.run(["copier", *map(str, arguments)], exit=False)
    assert status == 0


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository: this tree as 1.0.0, and 1.1.0 after it.

    The later release changes a line of the README.
    """
    template = copy_template(tmp_path_factory.mktemp("releases"))
    release(template, "1.0.0")
    replace(
        template / "template/README.md.jinja", "checks lint and types,", "checks all,"
    )
    release(template, "1.1.0")
    return template


@pytest.fixture(scope="module")
def started(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Return a function that makes a committed project, each one once."""

    @cache
    def started(*features: str) -> Path:
        project = tmp_path_factory.mktemp("started") / "my-worker"
        options = ("--vcs-ref=1.0.0", f"--data=features=[{','.join(features)}]")
        copier("copy", "--quiet", "--defaults", *options, releases, project)
        commit(project, "Start")
        return project

    return started


@pytest.fixture
def start(started: Start, tmp_path: Path) -> Start:
    """Return a function that starts a committed project of 1.0.0 with features."""

    def start(*features: str) -> Path:
        project = tmp_path / "my-worker"
        return shutil.copytree(started(*features), project, symlinks=True)

    return start


def try_update(project: Path, *features: str) -> list[str]:
    """Update to 1.1.0 with other features; return the files that have conflicts."""
    options = ("--vcs-ref=1.1.0", f"--data=features=[{','.join(features)}]")
    agreed = "--data=delete_data=true"
    copier("update", "--quiet", "--defaults", *options, agreed, project)
    return [path for path, text in texts(project).items() if "<<<<<<<" in text]


def update(project: Path, *features: str) -> None:
    """Update to 1.1.0 with other features, without a conflict, and commit."""
    assert try_update(project, *features) == []
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "Update")


def panels(project: Path) -> set[str]:
    """Return the features whose panels the demo of a project has."""
    return {path.stem for path in project.glob("public/demo/*.html")} - {"index"}


# --- The page and the demo ----------------------------------------------------


def test_the_users_page_stays_even_when_its_feature_goes_and_comes_back(
    start: Start,
) -> None:
    project = start(PAGE)
    (project / "public/index.html").write_text("<h1>Mine</h1>\n")
    commit(project, "Edit")
    for features in ([PAGE, OTHER], [OTHER], [OTHER, PAGE]):
        update(project, *features)
        assert (project / "public/index.html").read_text() == "<h1>Mine</h1>\n"
    assert panels(project) == {OTHER, PAGE}

    git(project, "rm", "--quiet", "public/index.html")
    commit(project, "Build the page elsewhere")
    update(project, PAGE, KV)
    assert not (project / "public/index.html").exists()


def test_a_demo_or_a_panel_that_the_user_has_deleted_stays_away(start: Start) -> None:
    project = start(PAGE, KV)
    for kind in ("html", "js"):
        (project / f"public/demo/{KV}.{kind}").unlink()
    commit(project, "Delete a panel")
    update(project, PAGE, KV, OTHER)
    assert panels(project) == {PAGE, OTHER}

    shutil.rmtree(project / "public/demo")
    commit(project, "Delete the demo")
    for features in (FEATURES, [PAGE, OTHER]):
        update(project, *features)
        assert not (project / "public/demo").exists()
        assert (project / "public/style.css").exists()

    update(project, OTHER)
    update(project, OTHER, PAGE)
    assert panels(project) == {OTHER, PAGE}


# --- The history of classes ---------------------------------------------------


def test_the_history_of_classes_is_only_appended_to(start: Start) -> None:
    v1 = {"tag": "v1", "new_sqlite_classes": [FIRST_CLASS]}
    v2 = {"tag": "v2", "new_sqlite_classes": [SECOND_CLASS]}
    user = {"tag": "user-1", "new_sqlite_classes": ["Mine"]}
    v3 = {"tag": "v3", "deleted_classes": [SECOND_CLASS]}
    v4 = {
        "tag": "v4",
        "new_sqlite_classes": [SECOND_CLASS],
        "deleted_classes": [FIRST_CLASS],
    }
    project = start(FIRST)
    assert config(project)["migrations"] == [v1]
    update(project, FIRST, SECOND)
    assert config(project)["migrations"] == [v1, v2]

    line = next(
        line
        for line in (project / "wrangler.jsonc").read_text().split("\n")
        if line.startswith("\t\t// Your migrations after v2")
    )
    mine = '\t\t{ "tag": "user-1", "new_sqlite_classes": ["Mine"] },'
    replace(project / "wrangler.jsonc", line, f"{mine}\n{line}")
    commit(project, "Add a class of my own")
    update(project, FIRST)
    assert config(project)["migrations"] == [v1, v2, user, v3]
    update(project, SECOND)
    assert config(project)["migrations"] == [v1, v2, user, v3, v4]

    # Neither the same update nor a second copy adds to it.
    before = texts(project)
    update(project, SECOND)
    assert texts(project) == before
    copier("recopy", "--quiet", "--defaults", "--overwrite", project)
    assert config(project)["migrations"] == [v1, v2, v3, v4]


def test_the_recorded_answers_render_the_same_project(
    start: Start, tmp_path: Path, releases: Path
) -> None:
    # Else each update would find changes that nobody made.
    project = start(*FEATURES)
    options = ("--vcs-ref=1.0.0", f"--data-file={project / '.copier-answers.yml'}")
    again = tmp_path / "again" / "my-worker"
    copier("copy", "--quiet", "--defaults", *options, releases, again)
    assert texts(again) == texts(project)


# --- What an update cannot merge, it shows ------------------------------------


def test_the_commands_after_an_update_show_conflicts(start: Start) -> None:
    project = start()
    replace(project / "README.md", "checks lint and types,", "is for the operators,")
    commit(project, "Edit")
    result = run_copier("update", "--defaults", project)
    assert result.returncode == 0
    commands = re.findall(r"^ {4}(.+)", result.stderr, re.MULTILINE)
    status, check = (
        subprocess.run(
            command.split(),
            cwd=project,
            env=node_environment(),
            capture_output=True,
            text=True,
        )
        for command in commands[:2]
    )
    assert "both modified:   README.md" in status.stdout
    assert "README.md" in check.stdout + check.stderr
    assert check.returncode != 0


def test_an_entry_with_an_id_conflicts_in_its_own_place_when_its_feature_goes(
    start: Start,
) -> None:
    project = start(KV, FIRST)
    patch_config([project], {"kv_namespaces": [{"id": "0" * 32}]})
    commit(project, "Deploy")
    assert try_update(project) == ["wrangler.jsonc"]
    # Either side is a config that is right.
    text = (project / "wrangler.jsonc").read_text()
    for side, bindings in ((r"\1", [BINDING]), (r"\2", [])):
        settled = json5.loads(HUNK.sub(side, text))
        assert [entry["tag"] for entry in settled["migrations"]] == ["v1", "v2"]
        namespaces = settled.get("kv_namespaces", [])
        assert [entry["binding"] for entry in namespaces] == bindings


def test_a_feature_that_brings_a_list_of_the_users_is_refused_until_it_is_settled(
    start: Start,
) -> None:
    project = start(FIRST)
    own = f'\t"kv_namespaces": [\n{MINE}\n\t],'
    edit(project, "wrangler.jsonc", "\t// Your bindings", own)
    commit(project, "Add a namespace of my own")
    update(project, FIRST, KV)
    check = [NODE, ROOT / "node_modules/.bin/biome", "check"]
    twice = r"wrangler\.jsonc:\d+:(?s:.*)kv_namespaces"
    with pytest.raises(AssertionError, match=twice):
        run(check, link_toolchain(project))

    # One entry moves.
    replace(project / "wrangler.jsonc", f"{own}\n", "")
    edit(project, "wrangler.jsonc", "\t\t// Your kv_namespaces", MINE)
    run(check, project)
    bindings = [entry["binding"] for entry in config(project)["kv_namespaces"]]
    assert bindings == [BINDING, "MINE"]


def test_a_list_that_goes_conflicts_where_the_user_has_an_entry_and_nowhere_else(
    start: Start,
) -> None:
    project = start(KV, FIRST, OTHER)
    edit(project, "wrangler.jsonc", "\t\t// Your kv_namespaces", MINE)
    edit(project, "wrangler.jsonc", "\t// Your bindings", '\t"logpush": false,')
    commit(project, "Edit")
    assert try_update(project, FIRST, OTHER) == ["wrangler.jsonc"]
    text = (project / "wrangler.jsonc").read_text()
    (sides,) = HUNK.findall(text)
    assert "MINE" in "".join(sides)
    assert [FIRST_CLASS in side for side in sides] == [False, False]
    assert "logpush" in json5.loads(HUNK.sub("", text))


#: Settings of Git, and of Copier, under which people update.
SETTINGS = {
    "quoted": "[core]\nquotePath = true",
    "no prefix": "[diff]\nnoprefix = true",
    "zdiff3": "[merge]\nconflictStyle = zdiff3",
    "signed": "[commit]\ngpgSign = true\n[gpg]\nprogram = false",
    "crlf": "[core]\nautocrlf = true\nsafecrlf = true",
    "watched": "[core]\nfsmonitor = true",
    "hooks": "[core]\nhooksPath = HOOKS",
    "no home": "",
}


@pytest.mark.parametrize(
    "name",
    ["hidden", "rej", *(pytest.param(one, marks=pytest.mark.full) for one in SETTINGS)],
)
def test_nothing_is_lost_unseen_whatever_the_settings(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    project = start(KV)
    mine = 'app.get("/api/mine", (c) => c.text("mine"));'
    edit(project, "src/index.ts", "// Your code", f"\n{mine}")
    edited = f'\t\t\t"binding": "{BINDING}",\n\t\t\t"id": "0123",'
    replace(project / "wrangler.jsonc", f'\t\t\t"binding": "{BINDING}",', edited)
    commit(project, "Mine")
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks/pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "hooks/pre-commit").chmod(0o755)
    setting = {"hidden": "[status]\nshowUntrackedFiles = no", **SETTINGS}.get(name, "")
    setting = setting.replace("HOOKS", str(tmp_path / "hooks"))
    (tmp_path / "gitconfig").write_text(f"{setting}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    if name == "no home":
        monkeypatch.delenv("HOME")
    options = ["--conflict=rej"] if name == "rej" else []

    for features in ([KV, FIRST], [FIRST]):
        data = f"--data=features={features}"
        result = run_copier("update", "--defaults", *options, data, project)
        assert result.returncode == 0, result.stderr
        merged = subprocess.run(
            [NODE, "--run", "check:merge"], cwd=project, capture_output=True, text=True
        )
        found = {line.split(":")[0] for line in merged.stderr.splitlines()[1:]}
        left = {path for path, text in texts(project).items() if "<<<<<<<" in text}
        left |= {path for path in texts(project) if path.endswith(".rej")}
        assert found - {""} == left
        assert (merged.returncode == 0) == (left == set())
        everything = "".join(texts(project).values())
        assert mine in everything
        assert "0123" in everything
        git(project, "add", "--all")
        git(project, "-c", "commit.gpgSign=false", "commit", "--no-verify", "-qm", "Up")
