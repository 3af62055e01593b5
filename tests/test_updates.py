"""The life of a project: updates, features that come and go, the user's edits."""

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import json5
import pytest
from copier.__main__ import CopierApp

from parts import FEATURES, PROVIDERS
from projects import config, edit, package, replace, texts
from test_render import patch_config
from toolchain import (
    assert_clean,
    commit,
    git,
    link_toolchain,
    release,
    run,
    run_copier,
)
from workbench import NODE, ROOT, copy_template

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

    The later release changes a line of the Worker and of its README.
    """
    template = copy_template(tmp_path_factory.mktemp("releases"))
    release(template, "1.0.0")
    for path, old, new in (
        ("base/base/worker.ts", "No such route.", "Not a route."),
        ("template/README.md.jinja", "checks everything,", "checks all,"),
    ):
        text = (template / path).read_text()
        assert old in text
        (template / path).write_text(text.replace(old, new))
    release(template, "1.1.0")
    return template


@pytest.fixture(scope="module")
def started(
    releases: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that makes a committed project, each one once."""

    @cache
    def started(version: str, *options: str) -> Path:
        project = tmp_path_factory.mktemp("started") / "my-worker"
        ref = f"--vcs-ref={version}"
        copier("copy", "--quiet", "--defaults", ref, *options, releases, project)
        commit(project, "Start")
        return project

    return started


@pytest.fixture
def start(started: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that starts a committed project from 1.0.0."""

    def start(features: list[str], version: str = "1.0.0", *more: str) -> Path:
        project = tmp_path / f"from-{version}" / "my-worker"
        data = f"--data=features=[{','.join(features)}]"
        shutil.copytree(started(version, data, *more), project, symlinks=True)
        return project

    return start


def update(project: Path, features: list[str] | None = None, *more: str) -> None:
    """Update a project to the newest release and commit the result."""
    chosen = [] if features is None else [f"--data=features=[{','.join(features)}]"]
    ref = "--vcs-ref=1.1.0"
    copier("update", "--quiet", "--defaults", ref, *chosen, *more, project)
    assert conflicts(project) == []
    commit(project, "Update")


def conflicts(project: Path) -> list[str]:
    """Return the files that an update left with a conflict or a rejected change."""
    marked = [path for path, text in texts(project).items() if "<<<<<<<" in text]
    return marked + [str(path) for path in project.rglob("*.rej")]


def entry(depth: int, **fields: str) -> str:
    """Return an entry of a list in `wrangler.jsonc`, printed as Wrangler does."""
    tabs = "\t" * depth
    lines = "".join(f'{tabs}\t"{name}": "{value}",\n' for name, value in fields.items())
    return f"{tabs}{{\n{lines}{tabs}}},"


#: What users do at the lines that are theirs: file, line, insertion.
EDITS = [
    (
        "src/index.ts",
        "// Your imports",
        'import * as workers from "cloudflare:workers";\n'
        'import { etag } from "hono/etag";',
    ),
    ("src/index.ts", "// Your middleware", '\napp.use("/mine/*", etag());'),
    (
        "src/index.ts",
        "// Your code",
        '\napp.get("/mine", (c) => c.text("mine"));\n\n'
        "export class MyFlow extends workers.WorkflowEntrypoint<Env> {\n"
        "\toverride async run() {}\n}",
    ),
    (
        "src/index.ts",
        "\t// Your handlers",
        "\tasync email() {\n\t\tawait Promise.resolve();\n\t},",
    ),
    ("wrangler.jsonc", "\t\t// Your vars", '\t\t"MY_VAR": "mine",'),
    ("wrangler.jsonc", "\t// Your bindings", '\t"logpush": false,'),
]

#: What users change where files say nothing of lines of theirs: file, what stands
#: there, what they write in its place.
CHANGES = [
    ("README.md", "# my-worker\n", "# Mine\n"),
    (
        "package.json",
        '\t\t"test": "vitest run"\n',
        '\t\t"test": "vitest run",\n\t\t"mine": "echo mine"\n',
    ),
    ("tsconfig.json", '"include": ["src", ', '"include": ["mine", "src", '),
    (
        ".github/workflows/ci.yml",
        "      - run: npx wrangler deploy --dry-run\n",
        "      - run: npx wrangler deploy --dry-run\n      - run: npm run mine\n",
    ),
]


MINE = "https://mine.example.com"


def set_var(project: Path, name: str) -> None:
    """Set an empty var of a project to `MINE`."""
    path = project / "wrangler.jsonc"
    empty = f'"{name}": ""'
    assert empty in path.read_text()
    path.write_text(path.read_text().replace(empty, f'"{name}": "{MINE}"'))


def edit_everywhere(project: Path) -> None:
    """Make all of `EDITS` and `CHANGES` in a project, set a var, and commit."""
    for path, after, insert in EDITS:
        edit(project, path, after, insert)
    for path, old, new in CHANGES:
        text = (project / path).read_text()
        assert text.count(old) == 1, (path, old)
        (project / path).write_text(text.replace(old, new))
    set_var(project, "ALLOWED_ORIGINS")
    commit(project, "Edit")


def assert_edits_are_kept(project: Path) -> None:
    """Check that `EDITS`, each after its line, `CHANGES` and the var still stand."""
    for path, after, insert in EDITS:
        assert f"{after}\n{insert}\n" in (project / path).read_text() + "\n"
    for path, _, new in CHANGES:
        assert (project / path).read_text().count(new) == 1
    assert config(project)["vars"]["ALLOWED_ORIGINS"] == MINE


@pytest.mark.parametrize("features", [[], ["auth"], FEATURES], ids=len)
def test_an_update_gives_the_tree_of_a_fresh_copy(
    start: Callable[..., Path], features: list[str]
) -> None:
    project = start(features)
    update(project)
    fresh = start(features, "1.1.0")
    assert texts(project) == texts(fresh)


def test_the_recorded_answers_render_the_same_project(
    start: Callable[..., Path], tmp_path: Path, releases: Path
) -> None:
    # Else each update would find changes that nobody made.
    project = start(FEATURES)
    answers = f"--data-file={project / '.copier-answers.yml'}"
    again = tmp_path / "my-worker"
    ref = "--vcs-ref=1.0.0"
    copier("copy", "--quiet", "--defaults", ref, answers, releases, again)
    assert texts(again) == texts(project)


def test_the_users_page_and_route_stay_when_features_come_and_go(
    start: Callable[..., Path],
) -> None:
    project = start(["assets", "auth"])
    edit(project, "wrangler.jsonc", "\t\t\t// Your run_worker_first", '\t\t\t"/mine",')
    (project / "public/index.html").write_text("<h1>Mine</h1>\n")
    commit(project, "Edit")
    for features in (FEATURES, ["assets", "websockets"]):
        update(project, features, "--data=delete_data=true")
        assert (project / "public/index.html").read_text() == "<h1>Mine</h1>\n"
        assert "/mine" in config(project)["assets"]["run_worker_first"]
        assert panels(project) == {
            f for f in features if (ROOT / f"features/{f}/demo.html").exists()
        }


def test_the_users_page_stays_even_when_assets_go_and_come_back(
    start: Callable[..., Path],
) -> None:
    project = start(["assets", "auth"])
    (project / "public/index.html").write_text("<h1>Mine</h1>\n")
    commit(project, "Edit")
    for features in (["auth"], ["auth", "assets"]):
        update(project, features)
        assert (project / "public/index.html").read_text() == "<h1>Mine</h1>\n"
    assert panels(project) == {"auth", "assets"}


def test_assets_that_come_with_an_update_bring_the_page_and_the_demo(
    start: Callable[..., Path],
) -> None:
    project = start(["auth"])
    update(project, ["auth", "assets"])
    assert panels(project) == {"auth", "assets"}
    fresh = start(["auth", "assets"], "1.1.0")
    assert texts(project) == texts(fresh)


def panels(project: Path) -> set[str]:
    """Return the features whose panels the demo of a project has."""
    ids = {path.stem for path in project.glob("public/demo/*.html")} - {"index"}
    listed = (project / "public/demo/panels.js").read_text()
    assert {id for id in FEATURES if f'"{id}",' in listed} == ids
    return ids


def test_a_page_that_the_user_has_deleted_stays_away(
    start: Callable[..., Path],
) -> None:
    project = start(["assets"])
    git(project, "rm", "--quiet", "public/index.html")
    commit(project, "Build the page elsewhere")
    for features in (None, ["assets", "queues"]):
        update(project, features)
        assert not (project / "public/index.html").exists()


def test_a_demo_that_the_user_has_deleted_stays_away(
    start: Callable[..., Path],
) -> None:
    project = start(["assets", "auth"])
    shutil.rmtree(project / "public/demo")
    commit(project, "Delete the demo")
    for features in (None, FEATURES, ["assets", "queues"], ["assets"]):
        update(project, features, "--data=delete_data=true")
        assert not (project / "public/demo").exists()
        assert (project / "public/style.css").exists()

    update(project, ["queues"])
    update(project, ["queues", "assets"])
    assert panels(project) == {"queues", "assets"}


def test_a_panel_that_the_user_has_deleted_stays_away(
    start: Callable[..., Path],
) -> None:
    project = start(["assets", "auth", "queues"])
    for kind in ("html", "js"):
        (project / f"public/demo/auth.{kind}").unlink()
    commit(project, "Delete a panel")
    for features in (None, ["assets", "auth", "queues", "alarms"], ["assets", "auth"]):
        update(project, features, "--data=delete_data=true")
        assert not list(project.glob("public/demo/auth.*"))
        assert (project / "public/demo/assets.html").exists()


@pytest.mark.parametrize("provider", [p["id"] for p in PROVIDERS[1:]])
def test_another_provider_takes_the_place_of_the_first(
    start: Callable[..., Path], provider: str
) -> None:
    project = start(FEATURES)
    edit_everywhere(project)
    update(project, None, f"--data=ai_provider={provider}")
    assert_edits_are_kept(project)
    assert config(project)["vars"]["MY_VAR"] == "mine"
    fresh = start(FEATURES, "1.1.0", f"--data=ai_provider={provider}")
    assert package(project)["dependencies"] == package(fresh)["dependencies"]
    for path in ("test/provider.ts", "test/structured-output.test.ts"):
        assert texts(project)[path] == texts(fresh)[path]

    update(project, None, f"--data=ai_provider={PROVIDERS[0]['id']}")
    assert_edits_are_kept(project)
    assert_clean(link_toolchain(project))


def test_an_edited_project_that_gained_all_features_is_clean(
    start: Callable[..., Path],
) -> None:
    project = start([])
    edit_everywhere(project)
    update(project, FEATURES[1::2])
    update(project, FEATURES)
    assert_edits_are_kept(project)

    assert_clean(link_toolchain(project))


def test_the_history_of_classes_is_only_appended_to(
    start: Callable[..., Path],
) -> None:
    v1 = {"tag": "v1", "new_sqlite_classes": ["ChatRoom"]}
    v2 = {"tag": "v2", "new_sqlite_classes": ["Reminder"]}
    v3 = {"tag": "v3", "deleted_classes": ["Reminder"]}
    v4 = {"tag": "v4", "new_sqlite_classes": ["Reminder"]}
    user = {"tag": "user-1", "new_sqlite_classes": ["Mine"]}
    project = start(["websockets", "auth"])
    assert config(project)["migrations"] == [v1]

    edit_everywhere(project)
    patch_config([project], {"kv_namespaces": [{"id": "0" * 32}]})
    commit(project, "Deploy")
    update(project, ["websockets", "auth", "alarms"])
    assert config(project)["migrations"] == [v1, v2]

    mine = (
        '\t\t{\n\t\t\t"tag": "user-1",\n\t\t\t"new_sqlite_classes": [\n'
        '\t\t\t\t"Mine",\n\t\t\t],\n\t\t},'
    )
    line = "\t\t// Your migrations after v2"
    replace(project / "wrangler.jsonc", line, f"{mine}\n{line}")
    commit(project, "Add a class of my own")
    update(project, ["websockets", "auth"], "--data=delete_data=true")
    assert config(project)["migrations"] == [v1, v2, user, v3]

    update(project, ["websockets", "auth", "alarms"])
    assert config(project)["migrations"] == [v1, v2, user, v3, v4]
    assert config(project)["kv_namespaces"][0]["id"] == "0" * 32
    assert_edits_are_kept(project)

    before = git(project, "rev-parse", "HEAD^{tree}")
    copier("update", "--quiet", "--defaults", project)
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "rev-parse", "HEAD^{tree}") == before


def test_one_update_can_add_a_class_and_remove_another(
    start: Callable[..., Path],
) -> None:
    project = start(["websockets"])
    update(project, ["alarms"], "--data=delete_data=true")
    assert config(project)["migrations"] == [
        {"tag": "v1", "new_sqlite_classes": ["ChatRoom"]},
        {
            "tag": "v2",
            "new_sqlite_classes": ["Reminder"],
            "deleted_classes": ["ChatRoom"],
        },
    ]


def test_copying_again_over_a_project_keeps_its_history(
    start: Callable[..., Path], releases: Path
) -> None:
    project = start(["websockets"])
    answers = ["--defaults", "--overwrite", "--data=features=[websockets,alarms]"]
    copier("copy", "--quiet", *answers, releases, project)
    assert [entry["tag"] for entry in config(project)["migrations"]] == ["v1", "v2"]


def test_recopying_keeps_the_history(start: Callable[..., Path]) -> None:
    project = start(["websockets"])
    update(project, ["websockets", "alarms"])
    before = config(project)
    copier("recopy", "--quiet", "--defaults", "--overwrite", project)
    assert config(project) == before


@pytest.mark.parametrize("is_conflict", [True, False])
def test_the_message_after_an_update_shows_conflicts_before_anything_else(
    start: Callable[..., Path], is_conflict: bool
) -> None:
    project = start(["auth"])
    if is_conflict:
        text = (project / "README.md").read_text()
        mine = text.replace("checks everything,", "is for the operators,")
        (project / "README.md").write_text(mine)
        commit(project, "Edit")
    result = run_copier("update", "--defaults", project)
    assert result.returncode == 0
    assert conflicts(project) == (["README.md"] if is_conflict else [])

    _, _, message = result.stderr.partition("Copier has changed")
    commands = re.findall(r"^ {4}(.+)", message, re.MULTILINE)
    assert commands == [
        "git status",
        "git diff --check",
        "npm install",
        "npm run check && npm run typecheck && npm run test",
    ]
    status, check = (
        subprocess.run(command.split(), cwd=project, capture_output=True, text=True)
        for command in commands[:2]
    )
    assert ("both modified:   README.md" in status.stdout) == is_conflict
    assert ("README.md" in check.stdout) == is_conflict
    assert (check.returncode == 0) != is_conflict


def test_an_entry_with_an_id_conflicts_in_its_own_place_when_its_feature_goes(
    start: Callable[..., Path],
) -> None:
    project = start(["auth", "alarms"])
    patch_config([project], {"kv_namespaces": [{"id": "0" * 32}]})
    commit(project, "Deploy")
    options = ("--data=features=[]", "--data=delete_data=true")
    copier("update", "--quiet", "--defaults", *options, project)
    assert conflicts(project) == ["wrangler.jsonc"]
    # Either side is a config that is right.
    text = (project / "wrangler.jsonc").read_text()
    hunk = r"<{7} .*\n((?:.*\n)*?)={7}\n((?:.*\n)*?)>{7} .*\n"
    for side, bindings in ((r"\1", ["AUTH_TOKENS"]), (r"\2", [])):
        settled = json5.loads(re.sub(hunk, side, text))
        assert [entry["tag"] for entry in settled["migrations"]] == ["v1", "v2"]
        assert [
            entry["binding"] for entry in settled.get("kv_namespaces", [])
        ] == bindings


# --- What an update cannot merge, it shows ---------------------------------------

#: A list of the user's own, and the same without its entry.
OWN_LIST = '\t"kv_namespaces": [\n\t\t{ "binding": "MINE" },\n\t],'


def test_a_feature_that_brings_a_list_of_the_users_is_refused_until_it_is_settled(
    start: Callable[..., Path],
) -> None:
    project = start(["websockets"])
    edit(project, "wrangler.jsonc", "\t// Your bindings", OWN_LIST)
    commit(project, "Add a namespace of my own")
    update(project, ["websockets", "auth"])
    check = [ROOT / "node_modules/.bin/biome", "check"]
    with pytest.raises(
        AssertionError, match=r"wrangler\.jsonc:\d+:(?s:.*)kv_namespaces"
    ):
        run([NODE, *check], link_toolchain(project))

    # One entry moves.
    replace(project / "wrangler.jsonc", f"{OWN_LIST}\n", "")
    mine = '\t\t{ "binding": "MINE" },'
    edit(project, "wrangler.jsonc", "\t\t// Your kv_namespaces", mine)
    run([NODE, *check], project)
    bindings = [entry["binding"] for entry in config(project)["kv_namespaces"]]
    assert bindings == ["AUTH_TOKENS", "MINE"]


def test_a_list_that_goes_conflicts_where_the_user_has_an_entry_and_nowhere_else(
    start: Callable[..., Path],
) -> None:
    project = start(["auth", "queues", "d1"])
    mine = '\t\t{ "binding": "MINE" },'
    edit(project, "wrangler.jsonc", "\t\t// Your kv_namespaces", mine)
    edit(project, "wrangler.jsonc", "\t// Your bindings", '\t"logpush": false,')
    commit(project, "Edit")
    copier(
        *("update", "--quiet", "--defaults", "--vcs-ref=1.1.0"),
        *("--data=features=[queues,d1]", project),
    )
    assert conflicts(project) == ["wrangler.jsonc"]
    text = (project / "wrangler.jsonc").read_text()
    ((theirs, ours),) = re.findall(
        r"<{7} .*\n((?:.*\n)*?)={7}\n((?:.*\n)*?)>{7} .*\n", text
    )
    assert "MINE" in theirs + ours
    assert "queues" not in theirs + ours
    settled = re.sub(r"<{7} .*\n(?:.*\n)*?={7}\n(?:.*\n)*?>{7} .*\n", "", text)
    assert "logpush" in json5.loads(settled)
