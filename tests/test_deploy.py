"""Deploys by the real Wrangler, to an emulation of Cloudflare's API."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from werkzeug.test import EnvironBuilder

import oracle
from cloudflare import ACCOUNT, TOKEN, Cloudflare
from parts import CATALOG, FEATURE_SETS, FEATURES, set_id
from projects import config, edit, package, readme
from quick_copier import run_quick_copier
from toolchain import commit, git, link_toolchain, release
from workbench import copy_template

Render = Callable[..., Path]
Start = Callable[[list[str]], Path]

#: The markers that a conflict leaves in a file.
CONFLICT = f"{'<' * 7} before updating\nmine\n=======\n{'>' * 7} after updating"
#: A conflict, whose group is what the update brings.
HUNK = re.compile(r"<{7} .*\n(?:.*\n)*?={7}\n((?:.*\n)*?)>{7} .*\n")
#: The part of a command of the README that is the user's, and a user's.
PLACE, DATABASE = (
    "USER:PASSWORD@HOST:PORT/DATABASE",
    "me:word@db.example.com:5432/books",
)
#: The beginning of the script `deploy`, which takes seconds.
CHECKS = "node --run check && node --run typecheck && "
WITH_SECRETS = " --secrets-file .secrets.production"
#: The features for which the README has a command.
PROVISIONED = [feature["id"] for feature in CATALOG if "provision" in feature]
#: A feature with a class of Durable Objects and a secret, the class, and its history.
WITH_CLASS, CLASS = next(
    ([feature["id"]], feature["durable_objects"][0]["class"])
    for feature in CATALOG
    if "durable_objects" in feature and oracle.secrets([feature["id"]])
)
HISTORY = [{"tag": "v1", "new_sqlite_classes": [CLASS]}]


def read(project: Path, path: str) -> str:
    """Return the text of a file of a project."""
    return (project / path).read_text()


def reconfigure(project: Path, **changes: object) -> None:
    """Replace keys of a project's wrangler.jsonc."""
    changed = {**config(project), **changes}
    (project / "wrangler.jsonc").write_text(json.dumps(changed))


def run(
    cloudflare: Cloudflare, project: Path, command: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, in a shell without a terminal."""
    return subprocess.run(
        ["sh", "-c", command],
        cwd=project,
        env=cloudflare.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def run_well(cloudflare: Cloudflare, project: Path, command: str) -> None:
    """Run a command like `run`.

    Raises:
        AssertionError: It failed.
    """
    result = run(cloudflare, project, command)
    assert result.returncode == 0, f"{command}:\n{result.stdout}"


def run_in_terminal(cloudflare: Cloudflare, project: Path, command: str) -> None:
    """Run a command in a project, in a terminal into which nobody types.

    Raises:
        AssertionError: It failed.
        pexpect.TIMEOUT: It asked something.
    """
    # Else Wrangler behaves as on a server, terminal or not.
    env = {**cloudflare.environment, "CI": "false"}
    shell = pexpect.spawn("sh", ["-c", command], cwd=project, env=env, encoding="utf-8")
    shell.expect(pexpect.EOF, timeout=120)
    shell.close()
    assert shell.exitstatus == 0, f"{command}:\n{shell.before}"


def commands(project: Path) -> list[str]:
    """Return the commands by which the README deploys, except for the login."""
    (block,) = re.findall(r"(?s)## Deploy it\n.*?```sh\n(.*?)```", readme(project))
    login, *others = [line for line in block.splitlines() if line[0] != "#"]
    assert login == "npx wrangler login"
    return [command.replace(PLACE, DATABASE) for command in others]


def unchecked(project: Path) -> str:
    """Return the script `deploy` without its checks."""
    return package(project)["scripts"]["deploy"].removeprefix(CHECKS)


def fill_in_secrets(project: Path) -> None:
    """Give each secret of a project a value in `.secrets.production`."""
    example = project / ".dev.vars.example"
    if example.exists():
        filled = re.sub(r"(?m)^(\w+)=$", r"\1=secret \1", example.read_text())
        (project / ".secrets.production").write_text(filled)


def follow_readme(
    cloudflare: Cloudflare, project: Path, *done: str, checks: bool = False
) -> None:
    """Deploy a project as its README says.

    Args:
        cloudflare: Where to.
        project: The project, with its packages.
        done: Commands that were run before.
        checks: Whether the script runs its checks, too.
    """
    fill_in_secrets(project)
    *provision, deploy = commands(project)
    if not checks:
        deploy = re.sub("^npm run deploy( --)?", unchecked(project), deploy)
    for command in [one for one in provision if one not in done] + [deploy]:
        run_well(cloudflare, project, command)


def update(project: Path, features: list[str]) -> bool:
    """Change the features of a project by an update, and commit.

    Returns:
        Whether a conflict was to settle, about an id in the entry of a removed feature.
    """
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "Deploy")
    chosen = f"--data=features=[{','.join(features)}]"
    options = ["--defaults", chosen, "--data=delete_data=true"]
    updated = run_quick_copier("update", *options, project)
    assert updated.returncode == 0, updated.stderr
    text = read(project, "wrangler.jsonc")
    settled = HUNK.sub(r"\1", text)
    (project / "wrangler.jsonc").write_text(settled)
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "Update")
    return settled != text


def assert_deployed(cloudflare: Cloudflare, project: Path, features: list[str]) -> None:
    """Check that the account holds what a project says, and has refused nothing."""
    assert cloudflare.refused == []
    wrangler = config(project)
    script = cloudflare.scripts[wrangler["name"]]
    bindings = oracle.bindings(features) | oracle.variables(features).keys()
    # Wrangler deletes no secret, so those of removed features stay.
    assert script.bindings.keys() - script.secrets == bindings
    secrets = {name: f"secret {name}" for name in oracle.secrets(features)}
    assert script.secrets.items() >= secrets.items()
    assert script.classes.keys() == set(oracle.classes(features).values())
    history = wrangler.get("migrations", [])
    assert script.tag == (history[-1]["tag"] if history else None)
    for workflow in wrangler.get("workflows", []):
        known = cloudflare.workflows[workflow["name"]]
        expected = (wrangler["name"], workflow["class_name"])
        assert (known["script_name"], known["class_name"]) == expected
    for consumer in wrangler.get("queues", {}).get("consumers", []):
        (known,) = cloudflare.queues[consumer["queue"]]["consumers"]
        expected = (wrangler["name"], consumer["dead_letter_queue"])
        assert (known["script_name"], known["dead_letter_queue"]) == expected
    for database in wrangler.get("d1_databases", []):
        applied = "SELECT name FROM d1_migrations"
        rows = cloudflare.rows(database["database_name"], applied)
        files = [path.name for path in (project / "migrations").glob("*.sql")]
        assert [row["name"] for row in rows] == sorted(files)
    if "triggers" in wrangler:
        assert script.crons == wrangler["triggers"]["crons"]
    if "assets" in wrangler:
        public = project / "public"
        files = {f"/{path.relative_to(public)}" for path in public.rglob("*.*")}
        assert script.assets.keys() == files


def start_project(template: Path, folder: Path, features: list[str]) -> Path:
    """Make a committed project, with its packages, from the newest release."""
    project = folder / "my-worker"
    chosen = f"--data=features=[{','.join(features)}]"
    made = run_quick_copier("copy", "--defaults", chosen, template, project)
    assert made.returncode == 0, made.stderr
    commit(link_toolchain(project), "Start")
    return project


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository with a release."""
    template = copy_template(tmp_path_factory.mktemp("released"))
    release(template, "1.0.0")
    return template


@pytest.fixture
def start(released: Path, tmp_path: Path) -> Start:
    """Return a function that makes a committed project, with its packages."""
    return lambda features: start_project(released, tmp_path, features)


# --- Deploys that go well ---------------------------------------------------------


def test_the_readme_deploys_what_wrangler_does_not_make_itself(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(PROVISIONED)
    follow_readme(cloudflare, project, checks=True)
    assert_deployed(cloudflare, project, PROVISIONED)


@pytest.mark.full
@pytest.mark.parametrize("features", FEATURE_SETS, ids=set_id)
def test_deploys_go_on_when_updates_add_and_remove_a_feature(
    start: Start, cloudflare: Cloudflare, features: list[str]
) -> None:
    project = start(features)
    follow_readme(cloudflare, project, checks=features == FEATURES)
    assert_deployed(cloudflare, project, features)
    done = commands(project)

    run_well(cloudflare, project, unchecked(project))
    assert_deployed(cloudflare, project, features)

    others = [one for one in FEATURES if one not in features]
    for chosen in (features + others[:1], features[1:] + others[:1]):
        update(project, chosen)
        follow_readme(cloudflare, project, *done)
        assert_deployed(cloudflare, project, chosen)
        done += commands(project)


@pytest.mark.full
def test_an_update_merges_with_the_ids_that_a_deploy_has_written(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(FEATURES)
    fill_in_secrets(project)
    for command in commands(project):
        run_in_terminal(cloudflare, project, command)
    assert_deployed(cloudflare, project, FEATURES)
    written = config(project)
    ids = [written["kv_namespaces"][0]["id"], written["d1_databases"][0]["database_id"]]
    assert [*cloudflare.namespaces, *cloudflare.databases] == ids

    run_well(cloudflare, project, unchecked(project))
    has_conflict = update(project, FEATURES[1:])
    assert not has_conflict
    run_well(cloudflare, project, unchecked(project))
    assert_deployed(cloudflare, project, FEATURES[1:])
    assert [*cloudflare.namespaces, *cloudflare.databases] == ids


@pytest.mark.full
def test_a_secret_changes_as_the_readme_says_and_stays_in_later_deploys(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(WITH_CLASS)
    follow_readme(cloudflare, project)
    run_well(cloudflare, project, "echo new | npx wrangler secret put API_TOKEN")
    run_well(cloudflare, project, unchecked(project))
    assert cloudflare.scripts["my-worker"].secrets == {"API_TOKEN": "new"}


@pytest.mark.full
def test_consumers_and_cron_triggers_stay_until_the_user_removes_them(
    start: Start, cloudflare: Cloudflare
) -> None:
    handled = [one["id"] for one in CATALOG if {"crons", "queues"} & one.keys()]
    project = start(handled)
    follow_readme(cloudflare, project)
    (remove,) = re.findall("`(npx wrangler queues consumer .*?)`", readme(project))
    run_well(cloudflare, project, remove)
    update(project, [])
    run_well(cloudflare, project, unchecked(project))
    script = cloudflare.scripts["my-worker"]
    assert script.crons != []
    edit(
        project,
        "wrangler.jsonc",
        "\t// Your bindings",
        '\t"triggers": { "crons": [] },',
    )
    run_well(cloudflare, project, unchecked(project))
    consumers = [queue["consumers"] for queue in cloudflare.queues.values()]
    assert (script.crons, *consumers) == ([], [], [])


@pytest.mark.full
def test_a_feature_that_comes_back_finds_its_data(
    start: Start, cloudflare: Cloudflare
) -> None:
    kinds = {"d1_databases", "kv_namespaces", "queues", "r2_buckets"}
    stored = [one["id"] for one in CATALOG if kinds & one.get("wrangler", {}).keys()]
    project = start(stored)
    follow_readme(cloudflare, project)
    done = commands(project)
    update(project, [])
    run_well(cloudflare, project, unchecked(project))
    update(project, stored)

    # Namespaces are the only ones that Wrangler does not find by their names.
    refused = run(cloudflare, project, unchecked(project) + WITH_SECRETS)
    assert (refused.returncode, cloudflare.refused.pop()[-1]) == (1, 10014)
    listed = run(cloudflare, project, "npx --silent wrangler kv namespace list")
    (entry,) = config(project)["kv_namespaces"]
    (namespace,) = json.loads(listed.stdout)
    reconfigure(project, kv_namespaces=[{**entry, "id": namespace["id"]}])
    follow_readme(cloudflare, project, *done)
    assert_deployed(cloudflare, project, stored)
    counts = map(len, (cloudflare.databases, cloudflare.namespaces, cloudflare.buckets))
    assert [*counts] == [1, 1, 1]


@pytest.mark.full
def test_objects_come_along_when_their_class_gets_another_name(
    cloudflare: Cloudflare, tmp_path: Path
) -> None:
    template = copy_template(tmp_path / "template")
    release(template, "1.0.0")
    project = start_project(template, tmp_path, WITH_CLASS)
    follow_readme(cloudflare, project)
    script = cloudflare.scripts["my-worker"]
    namespace = script.classes[CLASS]

    (feature,) = WITH_CLASS
    for file in (template / f"features/{feature}").iterdir():
        text = re.sub(rf"\b{CLASS}\b", "Renamed", file.read_text())
        file.write_text(
            text.replace("class: Renamed", f"class: Renamed, was: [{CLASS}]")
        )
    release(template, "1.1.0")
    update(project, WITH_CLASS)
    run_well(cloudflare, project, unchecked(project))
    assert script.classes == {"Renamed": namespace}


# --- Refusals of Cloudflare ------------------------------------------------------


@pytest.mark.parametrize("feature", PROVISIONED)
def test_without_a_command_of_the_readme_a_deploy_fails_and_says_what_is_missing(
    start: Start, cloudflare: Cloudflare, feature: str
) -> None:
    project = start([feature])
    fill_in_secrets(project)
    (command, _) = commands(project)
    (name,) = re.findall(r" create (\S+)", command)
    result = run(cloudflare, project, unchecked(project) + WITH_SECRETS)
    assert result.returncode != 0
    # A Hyperdrive configuration has no name in wrangler.jsonc, but zeros as its id.
    assert name in result.stdout or "0" * 32 in result.stdout


@pytest.mark.full
def test_a_command_of_the_readme_makes_nothing_twice(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(PROVISIONED)
    *provision, _ = commands(project)
    for command in provision:
        run_well(cloudflare, project, command)
        assert run(cloudflare, project, command).returncode != 0
    assert len(cloudflare.refused) == len(PROVISIONED)


def test_a_first_deploy_without_its_secrets_fails_and_names_them(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(WITH_CLASS)
    result = run(cloudflare, project, unchecked(project))
    assert "required secrets have not been set: API_TOKEN" in result.stdout
    assert (result.returncode, cloudflare.scripts) == (1, {})


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "key", "code"),
    [("kv_namespaces", "id", 10041), ("d1_databases", "database_id", 10181)],
)
def test_a_deploy_with_an_id_that_is_not_there_fails(
    start: Start, cloudflare: Cloudflare, kind: str, key: str, code: int
) -> None:
    features = [one["id"] for one in CATALOG if kind in one.get("wrangler", {})]
    project = start(features)
    fill_in_secrets(project)
    (entry,) = config(project)[kind]
    reconfigure(project, **{kind: [{**entry, key: f"{7:032}"}]})
    result = run(cloudflare, project, f"wrangler deploy{WITH_SECRETS}")
    assert result.returncode == 1
    assert f"{7:032}' which was not found. [code: {code}]" in result.stdout


@pytest.mark.full
@pytest.mark.parametrize(
    ("before", "history", "code"),
    [
        ([], [], 10061),
        (HISTORY, [{"tag": "v2", "new_sqlite_classes": [CLASS]}], 10074),
        (HISTORY, [*HISTORY, {"tag": "v2", "deleted_classes": [CLASS]}], 10061),
    ],
    ids=["none", "another", "that-deletes-a-bound-class"],
)
def test_a_deploy_with_a_false_history_of_classes_fails(
    start: Start,
    cloudflare: Cloudflare,
    before: list[dict],
    history: list[dict],
    code: int,
) -> None:
    project = start(WITH_CLASS)
    fill_in_secrets(project)
    if before:
        run_well(cloudflare, project, unchecked(project) + WITH_SECRETS)
    reconfigure(project, migrations=history)
    result = run(cloudflare, project, unchecked(project) + WITH_SECRETS)
    assert result.returncode == 1
    assert f"[code: {code}]" in result.stdout


@pytest.mark.full
def test_a_deploy_without_the_entry_that_deletes_a_class_fails(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(WITH_CLASS)
    follow_readme(cloudflare, project)
    update(project, [])
    assert config(project)["migrations"][1:] != []
    reconfigure(project, migrations=HISTORY)
    result = run(cloudflare, project, unchecked(project))
    assert result.returncode == 1
    assert f"does not export class '{CLASS}'" in result.stdout


@pytest.mark.full
def test_a_class_that_goes_and_comes_back_takes_a_deploy_in_between(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(WITH_CLASS)
    follow_readme(cloudflare, project)
    update(project, [])
    git(project, "branch", "without")
    update(project, WITH_CLASS)
    refused = run(cloudflare, project, unchecked(project))
    assert (refused.returncode, cloudflare.refused.pop()[-1]) == (1, 10061)

    for version in ("without", "-"):
        git(project, "checkout", "--quiet", version)
        run_well(cloudflare, project, unchecked(project))
    assert_deployed(cloudflare, project, WITH_CLASS)
    assert cloudflare.scripts["my-worker"].tag == "v3"


@pytest.mark.full
def test_a_deploy_names_the_secrets_that_an_update_has_brought(
    start: Start, cloudflare: Cloudflare
) -> None:
    project = start(WITH_CLASS)
    follow_readme(cloudflare, project)
    feature = next(feature for feature in CATALOG if "secrets" in feature)
    update(project, [*WITH_CLASS, feature["id"]])
    result = run(cloudflare, project, unchecked(project))
    names = ", ".join(feature["secrets"])
    assert result.returncode == 1
    assert f"required secrets have not been set: {names}" in result.stdout


@pytest.mark.full
def test_a_deploy_fails_whose_token_lacks_a_permission(
    start: Start, cloudflare: Cloudflare
) -> None:
    cloudflare.forbidden.add("/workers/scripts")
    result = run(cloudflare, start([]), "wrangler deploy")
    assert (result.returncode, cloudflare.scripts) == (1, {})
    assert "Authentication error [code: 10000]" in result.stdout
    assert {code for *_, code in cloudflare.refused} == {10000, 9109}


def test_a_deploy_that_meets_another_one_is_refused(cloudflare: Cloudflare) -> None:
    migrations = {"old_tag": "v1", "new_tag": "v2", "steps": []}
    upload = EnvironBuilder(
        path=f"/client/v4/accounts/{ACCOUNT}/workers/scripts/my-worker",
        method="PUT",
        data={"metadata": json.dumps({"bindings": [], "migrations": migrations})},
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    answer = cloudflare.application(upload.get_request())
    assert (answer.status_code, cloudflare.refused.pop()[-1]) == (412, 10079)


# --- Refusals of the script, before Wrangler starts -------------------------------


def assert_stopped(cloudflare: Cloudflare, project: Path) -> str:
    """Check that the script `deploy` fails and asks nothing of the API.

    Returns:
        What it printed.
    """
    result = run(cloudflare, project, "npm run deploy")
    assert (result.returncode != 0, cloudflare.log) == (True, [])
    return result.stdout


@pytest.mark.parametrize(
    "path", ["src/index.ts", "wrangler.jsonc", "package.json", "README.md"]
)
def test_a_conflict_that_is_not_settled_stops_a_deploy(
    render: Render, cloudflare: Cloudflare, path: str
) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    (project / path).write_text(f"{CONFLICT}\n{read(project, path)}")
    assert_stopped(cloudflare, project)


def test_lines_that_an_update_could_not_place_stop_a_deploy(
    render: Render, cloudflare: Cloudflare
) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    git(project, "config", "status.showUntrackedFiles", "no")
    (project / "src/index.ts.rej").touch()
    printed = assert_stopped(cloudflare, project)
    assert "Not merged yet:\nsrc/index.ts.rej" in printed
    git(project, "add", "--all")
    assert_stopped(cloudflare, project)


@pytest.mark.parametrize(
    ("line", "insert", "key"),
    [
        ("\t// Your bindings", '\t"vars": {},', "vars"),
        ("\t\t// Your vars", '\t\t"ALLOWED_ORIGINS": "*",', "ALLOWED_ORIGINS"),
    ],
)
def test_two_keys_of_one_name_stop_a_deploy_with_the_line(
    render: Render, cloudflare: Cloudflare, line: str, insert: str, key: str
) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    edit(project, "wrangler.jsonc", line, insert)
    printed = assert_stopped(cloudflare, project)
    place = re.search(r"wrangler\.jsonc:(\d+):", printed)
    assert place is not None, printed
    lines = read(project, "wrangler.jsonc").split("\n")
    assert f'"{key}":' in lines[int(place[1]) - 1]
    assert f"The key {key} was already declared." in printed


def test_a_wrong_type_stops_a_deploy(render: Render, cloudflare: Cloudflare) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    edit(project, "src/index.ts", "// Your code", "\nexport const one: string = 1;")
    assert "error TS2322" in assert_stopped(cloudflare, project)


def test_a_name_that_nothing_declares_stops_a_deploy_of_javascript(
    render: Render, cloudflare: Cloudflare
) -> None:
    project = link_toolchain(render([], language="javascript"))
    commit(project, "Start")
    edit(project, "src/index.js", "// Your code", "\nnothing();")
    printed = assert_stopped(cloudflare, project)
    assert "The nothing variable is undeclared" in printed
