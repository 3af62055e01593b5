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
from markdown_it import MarkdownIt

from conftest import (
    FEATURES,
    PROVIDERS,
    assert_clean,
    commit,
    copy_template,
    git,
    link_toolchain,
    release,
    run_copier,
    run_tests,
)
from projects import config, edit, package, readme, texts
from test_render import patch_config
from workbench import ROOT

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

    The later release changes a line of the Worker, of its README and of the
    tests of a feature.
    """
    template = copy_template(tmp_path_factory.mktemp("releases"))
    release(template, "1.0.0")
    for path, old, new in (
        ("base/http/worker.ts", "No such route.", "Not a route."),
        ("template/README.md.jinja", "deploys to Cloudflare,", "deploys it,"),
        ("features/auth/worker.test.ts", "KV is down", "KV is away"),
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
    ("src/index.ts", "\t// Your variables", "\tmine: string;"),
    ("src/index.ts", "// Your middleware", '\napp.use("/mine/*", etag());'),
    (
        "src/index.ts",
        "// Your code",
        '\napp.get("/mine", (c) => c.text("mine"));\n\n'
        "export class Mine extends workers.DurableObject<Env> {}\n\n"
        "export class MyFlow extends workers.WorkflowEntrypoint<Env> {\n"
        "\toverride async run() {}\n}",
    ),
    ("src/index.ts", "\t// Your queues", '\t"my-queue": async () => {},'),
    ("src/index.ts", "\t// Your crons", '\t"0 6 * * 1": async () => {},'),
    (
        "src/index.ts",
        "\t// Your handlers",
        "\tasync email() {\n\t\tawait Promise.resolve();\n\t},",
    ),
    *(
        ("wrangler.jsonc", line, insert)
        for line, insert in (
            ("\t// Your settings", '\t"logpush": false,'),
            ("\t\t// Your vars", '\t\t"MY_VAR": "mine",'),
            ("\t\t\t// Your secrets", '\t\t\t"MY_KEY",'),
            (
                "\t\t\t// Your durable_objects",
                entry(3, name="MINE", class_name="Mine"),
            ),
            ("\t\t// Your kv_namespaces", entry(2, binding="MY_KV")),
            (
                "\t\t// Your d1_databases",
                entry(2, binding="MY_DB", database_name="mine"),
            ),
            (
                "\t\t// Your r2_buckets",
                entry(2, binding="MY_FILES", bucket_name="mine"),
            ),
            (
                "\t\t// Your vectorize",
                entry(2, binding="MY_INDEX", index_name="mine"),
            ),
            (
                "\t\t// Your analytics_engine_datasets",
                entry(2, binding="MY_EVENTS", dataset="mine"),
            ),
            (
                "\t\t\t// Your producers",
                entry(3, binding="MY_QUEUE", queue="my-queue"),
            ),
            ("\t\t\t// Your consumers", entry(3, queue="my-queue")),
            ("\t\t\t// Your crons", '\t\t\t"0 6 * * 1",'),
            (
                "\t\t// Your workflows",
                entry(2, name="mine", binding="MY_FLOW", class_name="MyFlow"),
            ),
            ("\t\t// Your services", entry(2, binding="MY_SERVICE", service="mine")),
            (
                "\t\t// Your routes",
                entry(2, pattern="mine.example/*", zone_name="mine.example"),
            ),
        )
    ),
    (
        "vitest.config.ts",
        "\t\t\t\t\t// Your bindings",
        '\t\t\t\t\tMY_VAR: "test",',
    ),
    (
        "vitest.config.ts",
        "\t\t\t// Your set-up files",
        '\t\t\t"./test/mine.ts",',
    ),
    (
        ".dev.vars.example",
        "# Your secrets, with an empty line before each",
        "\n# Mine\nMY_KEY=",
    ),
    ("README.md", "<!-- Your introduction -->", "\nMine."),
    ("README.md", "<!-- Your sections -->", "\n## My part\n"),
    (
        "README.md",
        "| `GET /health` | Whether the Worker runs <!-- Your routes --> |",
        "| `GET /mine` | Mine |",
    ),
    (
        "README.md",
        "| `ALLOWED_ORIGINS` | `vars` in `wrangler.jsonc` | Other sites whose pages may"
        " call this Worker, comma-separated, like https://app.example.com"
        " <!-- Your variables --> |",
        "| `MY_VAR` | `vars` in `wrangler.jsonc` | Mine |",
    ),
    ("AGENTS.md", "<!-- Your rules -->", "\n- Mine."),
    (".gitignore", "# Yours", "mine/"),
]

#: What users change where files say nothing of lines of theirs: file, what stands
#: there, what they write in its place.
CHANGES = [
    ("README.md", "# my-worker\n", "# Mine\n"),
    (
        "README.md",
        "A Cloudflare Worker. Its code is in `src/index.ts`, its configuration in"
        " `wrangler.jsonc`.\n",
        "Does what is mine.\n",
    ),
    (
        "package.json",
        '\t\t"types": "node scripts/types.mjs"\n',
        '\t\t"types": "node scripts/types.mjs",\n\t\t"mine": "echo mine"\n',
    ),
    ("tsconfig.json", '"include": ["src", ', '"include": ["mine", "src", '),
    (
        "biome.json",
        '\t\t\t\t"noExplicitAny": "error"\n',
        '\t\t\t\t"noConsole": "off",\n\t\t\t\t"noExplicitAny": "error"\n',
    ),
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


def test_all_rows_of_the_readme_with_those_of_the_user_are_rows_of_tables(
    start: Callable[..., Path],
) -> None:
    project = start(FEATURES)
    edit_everywhere(project)
    tokens = MarkdownIt("commonmark").enable("table").parse(readme(project))
    fences = [token.map for token in tokens if token.type == "fence"]
    lines = {
        number
        for number, line in enumerate(readme(project).splitlines())
        if line.startswith("|") and not any(a <= number < b for a, b in fences)
    }
    tables = [token.map for token in tokens if token.type == "table_open"]
    assert lines == {number for a, b in tables for number in range(a, b)}
    cells = [token.children for token in tokens if token.type == "inline"]
    shown = ["".join(t.content for t in c if t.type != "html_inline") for c in cells]
    assert {"GET /health", "GET /mine", "Whether the Worker runs "} <= set(shown)


@pytest.mark.parametrize("feature", FEATURES)
def test_adding_a_feature_keeps_the_users_edits(
    start: Callable[..., Path], feature: str
) -> None:
    project = start([other for other in FEATURES if other != feature])
    edit_everywhere(project)
    update(project, FEATURES)
    assert_edits_are_kept(project)
    assert f"// #region {feature}\n" in (project / "src/index.ts").read_text()
    assert "Not a route." in (project / "src/index.ts").read_text()


@pytest.mark.parametrize("feature", FEATURES)
def test_removing_a_feature_keeps_the_users_edits(
    start: Callable[..., Path], feature: str
) -> None:
    project = start(FEATURES)
    edit_everywhere(project)
    others = [other for other in FEATURES if other != feature]
    update(project, others, "--data=delete_data=true")
    assert_edits_are_kept(project)
    assert f"#region {feature}" not in (project / "src/index.ts").read_text()
    assert not (project / f"test/{feature}.test.ts").exists()


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
        assert (project / "public/app.js").exists()

    update(project, ["queues"])
    update(project, ["queues", "assets"])
    assert panels(project) == {"queues", "assets"}


def test_a_project_from_before_there_was_a_demo_gets_it(
    start: Callable[..., Path],
) -> None:
    project = start(["assets"])
    (project / "public/demo").rename(project / "public/panels")
    commit(project, "Have panels in another folder")
    update(project, ["assets", "queues"])
    assert (project / "public/demo/queues.js").exists()


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


def test_vars_that_come_and_go_leave_the_users_values_alone(
    start: Callable[..., Path],
) -> None:
    project = start(["queues"])
    for name in ("ALLOWED_ORIGINS", "UPSTREAM_API_URL"):
        set_var(project, name)
    commit(project, "Set vars")
    for features in (["queues", "structured-output"], ["queues"]):
        update(project, features)
        values = config(project)["vars"]
        assert ("AI_MODEL" in values) == ("structured-output" in features)
        assert values["ALLOWED_ORIGINS"] == values["UPSTREAM_API_URL"] == MINE


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
    line = '\t\t// Your migrations after v2 (tags that start with "user-")'
    edit(project, "wrangler.jsonc", line, mine)
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


#: Features whose demos are dropped, and the first line of what each of them deletes
#: of its code; what follows it, up to an empty line or the end of the region, goes
#: as well.
DEMOS = {
    "queues": 'app.post("/requests"',
    "analytics": 'app.post("/events"',
    "structured-output": "const EVENT_INSTRUCTIONS",
}


def delete(project: Path, path: str, pattern: str) -> None:
    """Delete what a pattern matches in a file of a project, once or more."""
    text, count = re.subn(pattern, "", (project / path).read_text(), flags=re.MULTILINE)
    assert count > 0, (path, pattern)
    (project / path).write_text(text)


def drop_demo(project: Path, feature: str) -> None:
    """Drop the demo of one of `DEMOS` as the README of a project says."""
    route, rest = {
        "queues": ("POST /requests", r"(?:.+\n)+\n"),
        "analytics": ("POST /events", r"(?:.+\n)+\n"),
        "structured-output": ("POST /extract", r"(?:.*\n)+?(?=// #endregion)"),
    }[feature]
    delete(project, "src/index.ts", rf"^{re.escape(DEMOS[feature])}{rest}")
    path = re.escape(route.split()[1])
    delete(project, "src/index.ts", rf'^\t{{\n.*\n\t\tpath: "{path}",\n.*\n\t}},\n')
    for test in ("test/access.test.ts", "test/json.test.ts"):
        if f'"{route}"' in (project / test).read_text():
            delete(project, test, rf'^\t"{route}": .*\n')
    region = rf"(?<=<!-- #region {feature} -->\n\n)(?:.*\n)+?(?=<!-- #endregion)"
    delete(project, "README.md", region)
    (project / f"test/{feature}.test.ts").unlink()


def test_a_dropped_demo_stays_away_when_features_come_and_go(
    start: Callable[..., Path],
) -> None:
    kept = [feature for feature in FEATURES if feature in DEMOS]
    # The first page comes with all panels.
    others = [f for f in FEATURES if f not in DEMOS and f != "assets"]
    project = start([*kept, "auth"])
    for feature in DEMOS:
        drop_demo(project, feature)
    commit(project, "Drop the demos")
    # A few at once: where nearly all of a file is new, Git no longer finds what
    # belongs together, and asks.
    steps = [others[:count] for count in range(2, len(others) + 2, 2)]
    for more in (*steps, others[1::2], ["auth"]):
        update(project, [*kept, *more], "--data=delete_data=true")
        code, readme, locks, json = (
            (project / path).read_text() if (project / path).exists() else ""
            for path in (
                "src/index.ts",
                "README.md",
                "test/access.test.ts",
                "test/json.test.ts",
            )
        )
        for path in ("/requests", "/events", "/extract"):
            assert f'app.post("{path}"' not in code
            assert f'path: "{path}",\n\t\tsummary' not in code
            assert f'POST {path}"' not in locks + json
            assert f"| `POST {path}`" not in readme
        for title in ("Queues", "Analytics", "Structured output"):
            assert f"## {title}\n" not in readme
        assert not [f for f in DEMOS if (project / f"test/{f}.test.ts").exists()]
        assert "function queuesSend(" in code
        assert "function analyticsWrite(" in code
        assert "function modelObject" in code

    assert_clean(link_toolchain(project))
    tests = ("test/access.test.ts", "test/json.test.ts", "test/home.test.ts")
    run_tests(project, *tests)


@pytest.mark.parametrize("is_conflict", [True, False])
def test_the_message_after_an_update_shows_conflicts_before_anything_else(
    start: Callable[..., Path], is_conflict: bool
) -> None:
    project = start(["auth"])
    if is_conflict:
        text = (project / "README.md").read_text()
        mine = text.replace("deploys to Cloudflare,", "is for the operators,")
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
        assert [entry["binding"] for entry in settled["kv_namespaces"]] == bindings
