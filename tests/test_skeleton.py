"""The files of a project, as the tools that read them see them."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import copier
import pytest
import yaml

import oracle
from parts import CATALOG, FEATURES, LANGUAGES, LAYOUTS, MANAGERS
from projects import config, package, texts
from toolchain import (
    commit,
    git,
    link_toolchain,
    node,
    release,
    run,
    run_copier,
    write_types,
)
from workbench import NODE, ROOT, copy_template

Render = Callable[..., Path]

#: How each runs a script and a program of a package.
RUN = {manager: f"{manager} run" for manager in MANAGERS}
EXECUTE = {"npm": "npx", "pnpm": "pnpm exec", "yarn": "yarn", "bun": "bunx"}


# --- Git ----------------------------------------------------------------------


def test_git_ignores_secrets_and_what_the_tools_write(render: Render) -> None:
    project = render([])
    git(project, "init", "--quiet")
    ignored = [
        *(".dev.vars", ".dev.vars.staging", ".secrets.production"),
        *(".env", ".env.local", ".wrangler/state", "dist/index.js"),
        *("node_modules/x", "client/node_modules/x", "worker-configuration.d.ts"),
    ]
    kept = [".dev.vars.example", ".copier-answers.yml", "src/index.ts"]
    found = subprocess.run(
        ["git", "check-ignore", "--no-index", *ignored, *kept],
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ignored


def test_git_keeps_the_line_breaks_of_the_formatter(render: Render) -> None:
    project = render([])
    git(project, "init", "--quiet")
    said = git(project, "check-attr", "text", "eol", "--", "src/a.ts").splitlines()
    assert [line.rsplit(": ", 1)[1] for line in said] == ["auto", "lf"]


# --- Node.js and packages -----------------------------------------------------


def needed_node() -> tuple[int, int]:
    """Return the major and the minor version that the tools need."""
    engines = json.loads((ROOT / "package.json").read_text())["engines"]
    major, minor, _ = engines["node"].removeprefix(">=").split(".")
    return int(major), int(minor)


MAJOR, MINOR = needed_node()


def test_all_that_name_a_version_of_node_agree(render: Render) -> None:
    project = render([])
    runtime = package(project)["devEngines"]["runtime"]
    needed = f">={MAJOR}.{MINOR}.0"
    assert runtime == {"name": "node", "version": needed, "onFail": "error"}
    assert int((project / ".node-version").read_text()) >= MAJOR


@pytest.mark.parametrize("manager", MANAGERS)
def test_no_package_manager_runs_the_install_scripts_of_packages(
    render: Render, manager: str
) -> None:
    project = render([], package_manager=manager)
    settings = {
        path: yaml.safe_load(text)
        for path, text in texts(project).items()
        if path not in oracle.files([])
    }
    refused = {"esbuild": False, "workerd": False}
    # With Yarn, since the tools look into node_modules.
    yarn = {"enableScripts": False, "nodeLinker": "node-modules"}
    expected = {
        "pnpm": {"pnpm-workspace.yaml": {"allowBuilds": refused}},
        "yarn": {".yarnrc.yml": yarn},
    }
    assert settings == expected.get(manager, {})
    allowed = refused if manager == "npm" else None
    assert package(project).get("allowScripts") == allowed


# --- CI -----------------------------------------------------------------------


def workflow(project: Path) -> dict:
    """Return the CI workflow of a project; YAML reads its key `on` as true."""
    return yaml.safe_load((project / ".github/workflows/ci.yml").read_text())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("manager", MANAGERS)
def test_ci_checks_what_a_person_checks(
    render: Render, manager: str, language: str
) -> None:
    ci = workflow(render([], package_manager=manager, language=language))
    assert ci["permissions"] == {"contents": "read"}
    assert ci[True] == {"push": {"branches": ["main"]}, "pull_request": None}
    job = ci["jobs"]["test"]
    assert job["timeout-minutes"] <= 30
    first, *_ = job["steps"]
    assert first["uses"].startswith("actions/checkout@")
    (setup,) = (s for s in job["steps"] if "actions/setup-node" in s.get("uses", ""))
    assert setup["with"] == {"node-version-file": ".node-version"}
    types = [f"{RUN[manager]} typecheck"] if language == "typescript" else []
    expected = [
        f"{RUN[manager]} check",
        *types,
        f"{RUN[manager]} test",
        f"{EXECUTE[manager]} wrangler deploy --dry-run",
    ]
    commands = [step.get("run") for step in job["steps"]]
    assert commands[-len(expected) :] == expected


@pytest.mark.parametrize(
    ("manager", "lock", "exactly", "freely"),
    [
        ("npm", "package-lock.json", "ci", "install"),
        ("pnpm", "pnpm-lock.yaml", "install --frozen-lockfile", "install"),
        ("yarn", "yarn.lock", "install --immutable", "install --no-immutable"),
        ("bun", "bun.lock", "install --frozen-lockfile", "install"),
    ],
)
def test_ci_installs_what_the_lock_file_says_where_there_is_one(
    render: Render,
    tmp_path: Path,
    manager: str,
    lock: str,
    exactly: str,
    freely: str,
) -> None:
    project = render([], package_manager=manager)
    (step,) = (
        step["run"]
        for step in workflow(project)["jobs"]["test"]["steps"]
        if " install" in step.get("run", "")
    )
    # Says what it was asked to do.
    program = tmp_path / manager
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def install() -> str:
        command = ["sh", "-c", step]
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True
        ).stdout.strip()

    assert install() == freely
    (project / lock).touch()
    assert install() == exactly


def test_ci_gets_the_package_manager_first(render: Render) -> None:
    def uses(manager: str) -> list[str]:
        steps = workflow(render([], package_manager=manager))["jobs"]["test"]["steps"]
        return [step.get("uses", step.get("run", "")).split("@")[0] for step in steps]

    assert "pnpm/action-setup" in uses("pnpm")
    assert "oven-sh/setup-bun" in uses("bun")
    assert uses("yarn").index("corepack enable") < uses("yarn").index(
        "actions/setup-node"
    )


# --- Rules of the code --------------------------------------------------------

#: Code that the strict settings of tsconfig.json refuse, and the error.
MISTAKES = {
    "TS7006": "export function implicit(a) { return a; }",
    "TS2322": "export const number: number = [1][0];",
    "TS2375": "export const exact: { a?: number } = { a: undefined };",
    "TS4114": "class A { m() {} }\nexport class B extends A { m() {} }",
    "TS7030": "export function some(a: boolean) { if (a) { return 1; } }",
    "TS6133": "export function unused(a: number) { return 1; }",
    "TS1484": 'import { Next } from "hono";\nexport type N = Next;',
    "TS1294": "export enum Direction { Up }",
}


def test_the_type_checker_is_strict(render: Render) -> None:
    project = link_toolchain(render([]))
    write_types(project)
    for error, code in MISTAKES.items():
        (project / f"src/{error}.ts").write_text(f"{code}\n")
    tsc = [NODE, ROOT / "node_modules/.bin/tsc"]
    result = subprocess.run(tsc, cwd=project, capture_output=True, text=True)
    found = re.findall(r"^src/(TS\d+)\.ts\S* error (TS\d+):", result.stdout, re.M)
    assert set(found) == {(error, error) for error in MISTAKES}


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (
            "noFloatingPromises",
            "async function f() {}\nexport const g = () => {\n\tf();\n};",
        ),
        ("noExplicitAny", "export const anything: any = 1;"),
        ("noUnusedVariables", "const unused = 1;"),
        (
            "noFallthroughSwitchClause",
            "export function f(a: number) {\n\tswitch (a) {\n\t\tcase 1:\n\t\t\ta++;\n"
            "\t\tcase 2:\n\t\t\ta--;\n\t}\n\treturn a;\n}",
        ),
        ("useThrowOnlyError", 'export const f = () => {\n\tthrow "text";\n};'),
        ("format", "export const a   = 1;"),
        ("organizeImports", 'import { b } from "b";\nimport { a } from "a";\na(b);'),
    ],
)
def test_the_linter_refuses(render: Render, rule: str, code: str) -> None:
    project = link_toolchain(render([]))
    git(project, "init", "--quiet")
    (project / "src/other.ts").write_text(f"{code}\n")
    with pytest.raises(AssertionError, match=rule):
        node(project, "biome", "check", "--error-on-warnings")


def test_the_linter_leaves_alone_what_others_write(render: Render) -> None:
    project = link_toolchain(render([]))
    git(project, "init", "--quiet")
    (project / "dist").mkdir()
    (project / "dist/index.js").write_text("var a   = 1")
    node(project, "biome", "check", "--error-on-warnings")


# --- What people and their tools read -----------------------------------------


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_copy_ends_with_the_commands_that_come_next(
    template: Path, tmp_path: Path, manager: str
) -> None:
    project = tmp_path / "my-worker"
    data = f"--data=package_manager={manager}"
    result = run_copier("copy", "--defaults", data, template, project)
    assert result.returncode == 0
    assert "my-worker is ready" in result.stderr
    change, start, *others = commands_of(result.stderr)
    assert change == f"cd {project}"
    assert others == [f"{manager} install", f"{RUN[manager]} dev"]
    subprocess.run(["sh", "-ce", f"{change}\n{start}"], check=True, capture_output=True)
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "branch", "--show-current") == "main\n"


def start_life(
    template: Path, folder: Path, language: str = LANGUAGES[0]
) -> tuple[Path, Path, str]:
    """Return the template with a release, a project made from it, and what was said."""
    repository, project = folder / "template", folder / "my-worker"
    shutil.copytree(template, repository)
    release(repository, "1.0.0")
    data = f"--data=language={language}"
    copy = run_copier("copy", "--defaults", data, repository, project)
    assert copy.returncode == 0
    commit(project, "Start")
    return repository, project, copy.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_update_ends_with_the_commands_that_find_what_went_wrong(
    template: Path, tmp_path: Path, language: str
) -> None:
    repository, project, _ = start_life(template, tmp_path, language)
    types = " && npm run typecheck" if language == "typescript" else ""
    (repository / "template/NEWS.md").write_text("News\n")
    release(repository, "1.1.0")

    result = run_copier("update", "--defaults", project)

    assert result.returncode == 0
    assert commands_of(result.stderr) == [
        "git status -u",
        "npm run check:merge",
        "npm install",
        f"npm run check{types} && npm run test",
    ]
    for command in commands_of(result.stderr)[:2]:
        run(shlex.split(command), project)


def test_the_update_that_brings_a_feature_says_what_to_look_at(
    template: Path, tmp_path: Path
) -> None:
    _, project, first = start_life(template, tmp_path)
    arriving = next(feature for feature in CATALOG if "arrival" in feature)
    other = next(feature for feature in CATALOG if "arrival" not in feature)
    said = [first]
    for features in ([arriving["id"]], [arriving["id"], other["id"]]):
        data = f"features={json.dumps(features)}"
        said.append(run_copier("update", "--defaults", "--data", data, project).stderr)
        commit(project, "Update")
    assert [arriving["arrival"] in text for text in said] == [False, True, False]


@pytest.mark.full
def test_the_commands_after_a_copy_and_after_an_update_work(
    template: Path, tmp_path: Path
) -> None:
    repository, project = tmp_path / "template", tmp_path / "my-worker"
    shutil.copytree(template, repository)
    release(repository, "1.0.0")
    copied = run_copier("copy", "--defaults", repository, project)
    enter, start, *others = commands_of(copied.stderr)
    assert others == ["npm install", "npm run dev"]
    run(["bash", "-ec", f"{enter}\n{start}"], tmp_path)
    assert git(project, "log", "--format=%s") == "Start from cf-templates\n"
    updated = run_copier("update", "--defaults", link_toolchain(project))
    commands = [one for one in commands_of(updated.stderr) if one != "npm install"]
    run(["bash", "-ec", "\n".join(commands)], project)


def commands_of(message: str) -> list[str]:
    """Return the commands that a message tells people to type."""
    return re.findall(r"^ {4}(\S.*)$", message, re.MULTILINE)


# --- The Worker ---------------------------------------------------------------

IMPORT = re.compile(r'^import (type )?([^"]*) from "([^"]+)";$', re.MULTILINE)


def in_order(name: str) -> list[tuple[str, bool]]:
    """Return what sorts names like the formatter does: A, a, B, b."""
    return [(letter.lower(), letter.islower()) for letter in name]


def test_imports_stand_as_the_formatter_wants_them(render: Render) -> None:
    code = (render(FEATURES) / "src/index.ts").read_text()
    found = [
        (module, bool(kind), re.findall(r"\w+(?: as \w+)?", names))
        for kind, names, module in IMPORT.findall(code)
    ]
    places = [
        (":" not in module, module.startswith("."), module, not kind)
        for module, kind, _ in found
    ]
    assert places == sorted(set(places))
    lists = [names for _, _, names in found if len(names) > 1]
    assert lists
    # A, a, B, b, …
    assert [names for names in lists if names != sorted(names, key=in_order)] == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_imports_stand_on_several_lines(render: Render, layout: str) -> None:
    found = texts(render(FEATURES, layout=layout))
    for path in [path for path in found if path.startswith("src/")]:
        lines = re.findall(r"^import .*;$", found[path], re.MULTILINE)
        assert [line for line in lines if len(line) > 80] == []


def test_keys_of_features_stand_in_one_order(render: Render) -> None:
    first = list(config(render([])))
    keys = list(config(render(FEATURES)))
    assert keys[: len(first)] == first
    brought = keys[len(first) :]
    assert len(brought) > 1
    assert brought == sorted(brought)


def test_every_file_ends_with_one_line_break(render: Render) -> None:
    found = texts(render(FEATURES))
    del found["wrangler.jsonc"]  # which Wrangler ends without one
    assert [
        path for path, text in found.items() if not re.search(r"\S\n\Z", text)
    ] == []


# --- The history of classes ---------------------------------------------------


def test_a_class_that_goes_and_comes_back_adds_entries_alone(
    template: Path, tmp_path: Path
) -> None:
    first, second, *_ = [id for id in FEATURES if oracle.classes([id])]
    project = tmp_path / "my-worker"
    for features in ([first], [first, second], [second], FEATURES):
        copier.run_copy(
            str(template),
            project,
            data={"features": features, "delete_data": True},
            defaults=True,
            overwrite=True,
            quiet=True,
        )
    before, after, classes = (
        list(oracle.classes(features).values())
        for features in ([first], [second], FEATURES)
    )
    assert config(project)["migrations"] == [
        {"tag": "v1", "new_sqlite_classes": before},
        {"tag": "v2", "new_sqlite_classes": after},
        {"tag": "v3", "deleted_classes": before},
        {"tag": "v4", "new_sqlite_classes": [c for c in classes if c not in after]},
    ]
    # The record sorts their keys.
    assert {next(iter(entry)) for entry in config(project)["migrations"]} == {"tag"}
    lines = (project / "wrangler.jsonc").read_text().splitlines()
    for tag in ("v1", "v2", "v3", "v4"):
        assert (
            f"\t\t// Your migrations after {tag} go above this line"
            " (tags that start with user-)"
        ) in lines


def test_own_middleware_comes_after_the_base_and_before_every_route(
    render: Render,
) -> None:
    code = (render(FEATURES) / "src/index.ts").read_text()
    before, after = code.split("// Your middleware\n")
    brought = [item for part in CATALOG for item in part.get("middleware", {}).items()]
    functions = [function for _, function in sorted(brought)]
    assert re.findall(r"^app\.use\((\w*)", before, re.MULTILINE) == ["", *functions]
    assert "app.route(" not in before
    assert re.search(r"^app\.get\(", before, re.MULTILINE) is None
    regions = re.findall(r"^// #region (\S+)$", after, re.MULTILINE)
    assert [region for region in regions if region != "provider"] == FEATURES


# --- Secrets ------------------------------------------------------------------

#: A feature that needs the operator's token alone, and one with a secret beside it.
LOCKED, WITH_SECRET = (
    next(id for id in FEATURES if len(oracle.secrets([id])) == count)
    for count in (1, 2)
)


def secrets_of(project: Path) -> dict[str, str]:
    """Return what `.dev.vars` of a project says."""
    lines = (project / ".dev.vars").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_copy_makes_a_token_of_its_own(render: Render) -> None:
    projects = [render([WITH_SECRET]) for _ in range(2)]
    (first, *others), (second, *_) = (secrets_of(one).values() for one in projects)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert first != second
    assert set(others) == {""}
    assert "TOKEN" not in (projects[0] / ".copier-answers.yml").read_text()


def test_without_secrets_there_is_no_file_for_them(render: Render) -> None:
    assert not list(render([]).glob(".dev.vars*"))


def test_updates_write_the_first_secrets_and_leave_them_alone(
    template: Path, tmp_path: Path
) -> None:
    project = tmp_path / "my-worker"
    copy_template(tmp_path / "template")
    release(tmp_path / "template", "1.0.0")
    data = "--data=features=[]"
    assert run_copier("copy", "--defaults", data, tmp_path / "template", project)
    commit(project, "Start")
    assert not (project / ".dev.vars").exists()

    def update(features: list[str]) -> str:
        data = f"--data=features={json.dumps(features)}"
        result = run_copier("update", "--defaults", data, project)
        assert result.returncode == 0
        commit(project, "Update")
        return result.stderr

    update([LOCKED])
    (token,) = secrets_of(project).values()
    assert re.fullmatch("[0-9a-f]{64}", token)
    (project / ".dev.vars").write_text("API_TOKEN=mine\n")

    assert ".dev.vars.example" in update([LOCKED, WITH_SECRET])
    assert (project / ".dev.vars").read_text() == "API_TOKEN=mine\n"
    example = (project / ".dev.vars.example").read_text()
    names = oracle.secrets([LOCKED, WITH_SECRET])
    assert [name for name in names if f"{name}=" not in example] == []
    assert ".dev.vars" not in git(project, "ls-files").split()


# --- The name of a living Worker ----------------------------------------------


@pytest.mark.parametrize("folder", ["plain", "[brackets]", "a [b", "*"])
def test_a_living_worker_keeps_its_name_in_any_folder(
    template: Path, tmp_path: Path, folder: str
) -> None:
    project = tmp_path / folder / "living"
    data = ["--defaults", "--quiet", "--overwrite", "--data=features=[]"]
    assert run_copier("copy", *data, template, project).returncode == 0

    again = run_copier("copy", *data, "--data=project_name=other", template, project)

    assert again.returncode != 0
    assert "Keep 'living'" in again.stdout + again.stderr
    assert package(project)["name"] == "living"
