"""The workflows for GitHub: what a reader of workflows finds, and a deploy by them."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from werkzeug import Request, Response

import oracle
from cloudflare import ACCOUNT, TOKEN, Cloudflare, Script
from internet import answering
from parts import CATALOG, FEATURES, MANAGERS
from projects import readme, replace
from toolchain import commit, link_toolchain
from workbench import NPM, ROOT

Render = Callable[..., Path]

#: The secrets of a repository that deploys.
SECRETS = {"CLOUDFLARE_ACCOUNT_ID": ACCOUNT, "CLOUDFLARE_API_TOKEN": TOKEN}
#: A feature with a secret and a permission, whose first deploy needs nothing else.
SMALL = next(
    feature["id"]
    for feature in CATALOG
    if "permissions" in feature
    and "provision" not in feature
    and oracle.secrets([feature["id"]])
)
#: The beginning of a path below an account's, by the permission that it needs.
PATHS = {
    permission: f"/{path}"
    for part in (*CATALOG, yaml.safe_load((ROOT / "base/base/base.yml").read_text()))
    for permission, path in part.get("permissions", {}).items()
}


def test_zizmor_finds_nothing_in_any_workflow(render: Render) -> None:
    folders = [ROOT / ".github"]
    folders += [
        render(FEATURES, package_manager=manager) / ".github" for manager in MANAGERS
    ]
    files = [path for folder in folders for path in folder.rglob("*.yml")]
    result = subprocess.run(
        [ROOT / ".venv/bin/zizmor", "--offline", *files], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
    # One that it can't read goes missing.
    assert result.stderr.count("completed") == len(files), result.stderr


# --- The job `deploy` -----------------------------------------------------------


def value(text: str, known: dict[str, str]) -> str:
    """Return the value of an expression of GitHub's, as text.

    Args:
        text: The expression, with no operators but `&&`, `==` and `!=`.
        known: The values of its names; others are empty.
    """
    names = r"\b(?:github|needs|secrets)\.[\w.-]+"
    python = re.sub(
        names, lambda name: repr(known.get(name[0], "")), text.strip("${ }")
    )
    result = eval(python.replace("&&", "and"))
    return result if isinstance(result, str) else str(result).lower()


def push(
    project: Path,
    api: Cloudflare,
    secrets: dict[str, str],
    ref: str = "refs/heads/main",
    port: int = 80,
    patience: int = 600,
) -> tuple[bool, str]:
    """Run the job `deploy` of a project's workflow, as if its job `test` had passed.

    Args:
        project: The project, with its packages.
        api: Stands in for Cloudflare's API.
        secrets: The values of the repository's secrets.
        ref: The ref that was pushed.
        port: Where on this machine the deployed Worker answers, under any name.
        patience: For how many seconds curl tries again at most.

    Returns:
        Whether no step failed, and what they printed; nothing when the job is skipped.
    """
    jobs = yaml.safe_load((project / ".github/workflows/ci.yml").read_text())["jobs"]
    known = {f"secrets.{name}": secret for name, secret in secrets.items()}
    known["github.ref"] = ref
    for name, text in jobs["test"]["outputs"].items():
        known[f"needs.test.outputs.{name}"] = value(text, known)
    job = jobs["deploy"]
    if value(job["if"], known) != "true":
        return True, ""
    folder = project.parent / "runner"
    folder.mkdir(exist_ok=True)
    # The packages are there.
    (folder / "npm").write_text(f'#!/bin/sh\n[ $1 = install ] || exec {NPM} "$@"\n')
    (folder / "npm").chmod(0o755)
    settings = f'connect-to = ":80:127.0.0.1:{port}"\nretry-max-time = {patience}\n'
    (folder / ".curlrc").write_text(settings)
    environment = {
        **api.environment,
        **{name: value(text, known) for name, text in job["env"].items()},
        "CURL_HOME": str(folder),
        "RUNNER_TEMP": str(folder),
    }
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    printed = ""
    for step in job["steps"]:
        script = step.get("run", "").replace("https://$host/", "http://$host/")
        script = script.replace(
            "https://api.cloudflare.com/client/v4", api.url_for("/client/v4")
        )
        result = subprocess.run(
            ["bash", "-ec", script],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        printed += result.stdout
        if result.returncode != 0:
            return False, printed
    return True, printed


def problems(pushed: tuple[bool, str]) -> list[str]:
    """Return what a push that must fail says is missing, and nothing else."""
    passed, printed = pushed
    lines = printed.splitlines()
    hint = ' See "Deploy it" in README.md.'
    assert not passed
    assert [x for x in lines if not x.startswith("::error::") or hint not in x] == []
    return [line.removeprefix("::error::").removesuffix(hint) for line in lines]


def lacks(permission: str) -> str:
    """Return the line about a permission that the token lacks."""
    return (
        f"CLOUDFLARE_API_TOKEN lacks the permission {permission}: Edit "
        "(Authentication error)."
    )


def has_no(secret: str) -> str:
    """Return the line about a secret that the deployed Worker lacks."""
    return f"The Worker has no secret {secret}."


@pytest.fixture(scope="module")
def everything(render: Render) -> Path:
    """A project with all features; only what stands before a deploy is tried in it."""
    return render(FEATURES, project_name="my-worker")


@pytest.fixture
def deployed(cloudflare: Cloudflare) -> Script:
    """The Worker of that project, as if it had been deployed with all secrets."""
    secrets = {
        name: {"name": name, "type": "secret_text", "text": "given"}
        for name in oracle.secrets(FEATURES)
    }
    script = cloudflare.scripts["my-worker"] = Script(bindings=secrets)
    return script


@pytest.mark.parametrize(
    ("secrets", "ref"),
    [
        ({}, "refs/heads/main"),
        ({"CLOUDFLARE_ACCOUNT_ID": ACCOUNT}, "refs/heads/main"),
        (SECRETS, "refs/heads/other"),
        (SECRETS, "refs/pull/1/merge"),
    ],
)
def test_without_a_token_or_off_the_main_branch_nothing_is_deployed(
    everything: Path, cloudflare: Cloudflare, secrets: dict[str, str], ref: str
) -> None:
    assert push(everything, cloudflare, secrets, ref) == (True, "")
    assert cloudflare.log == []


def test_a_missing_account_is_named(everything: Path, cloudflare: Cloudflare) -> None:
    pushed = push(everything, cloudflare, {"CLOUDFLARE_API_TOKEN": TOKEN})
    assert problems(pushed) == ["The repository has no secret CLOUDFLARE_ACCOUNT_ID."]


def test_a_token_that_is_not_valid_has_no_permission(
    everything: Path, cloudflare: Cloudflare
) -> None:
    pushed = push(everything, cloudflare, {**SECRETS, "CLOUDFLARE_API_TOKEN": "old"})
    assert {*map(lacks, PATHS)} <= {*problems(pushed)}


@pytest.mark.full
@pytest.mark.parametrize("permission", PATHS)
def test_a_missing_permission_is_named(
    everything: Path, cloudflare: Cloudflare, deployed: Script, permission: str
) -> None:
    cloudflare.forbidden.add(PATHS[permission])
    named, *more = problems(push(everything, cloudflare, SECRETS))
    assert named == lacks(permission)
    # With the Worker, its secrets cannot be seen.
    unseen = oracle.secrets(FEATURES) if permission == "Workers Scripts" else []
    assert more == [has_no(secret) for secret in unseen]


def test_a_missing_secret_of_the_worker_is_named(
    everything: Path, cloudflare: Cloudflare, deployed: Script
) -> None:
    *_, secret = deployed.secrets
    del deployed.bindings[secret]
    assert problems(push(everything, cloudflare, SECRETS)) == [has_no(secret)]


def test_a_secret_of_the_users_own_is_named(
    render: Render, cloudflare: Cloudflare
) -> None:
    project = render([SMALL])
    own = '"required": [\n\t\t\t// Pays\n\t\t\t"MY_KEY",'
    replace(project / "wrangler.jsonc", '"required": [', own)
    assert has_no("MY_KEY") in problems(push(project, cloudflare, SECRETS))


def test_all_that_is_missing_is_named_at_once(
    everything: Path, cloudflare: Cloudflare
) -> None:
    names = oracle.permissions(FEATURES)[1:]
    cloudflare.forbidden = {PATHS[name] for name in names}
    found = problems(push(everything, cloudflare, SECRETS))
    assert sorted(found) == sorted(
        [*map(lacks, names), *map(has_no, oracle.secrets(FEATURES))]
    )


def test_the_readme_names_the_permissions_of_a_token(
    everything: Path, render: Render
) -> None:
    deploying = readme(everything).split("*Edit* for:\n")[1]
    names = re.findall(r"^- (.*)$", deploying, re.MULTILINE)
    assert sorted(names) == sorted(oracle.permissions(FEATURES))
    assert set(PATHS) == set(names)
    zone = "- Workers Routes, in the zone of app.example.com\n"
    assert zone in readme(render([], custom_domain="app.example.com"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("domain", "answers", "patience"),
    [("", [503, 200], 600), ("app.example.com", [503], 1)],
)
def test_a_push_is_deployed_and_passes_when_the_worker_is_healthy(
    render: Render,
    cloudflare: Cloudflare,
    deployed: Script,
    domain: str,
    answers: list[int],
    patience: int,
) -> None:
    project = link_toolchain(render([SMALL], custom_domain=domain))
    commit(project, "Start")
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.url)
        return Response("{}", answers[min(len(asked), len(answers)) - 1])

    with answering(answer) as worker:
        pushed = push(
            project, cloudflare, SECRETS, "refs/heads/main", worker.port, patience
        )

    passed, printed = pushed
    assert passed == (answers[-1] == 200), printed
    assert oracle.bindings([SMALL]) <= {*deployed.bindings}
    host = domain or "my-worker.tester.workers.dev"
    assert set(asked) == {f"http://{host}/health"}
    assert len(asked) >= len(answers)
