"""The script `deploy`: what it refuses before Wrangler starts."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from projects import edit
from toolchain import commit, git, link_toolchain, node_environment
from workbench import NODE

Render = Callable[..., Path]

#: The markers that a conflict leaves in a file.
CONFLICT = f"{'<' * 7} before updating\nmine\n=======\n{'>' * 7} after updating"


def read(project: Path, path: str) -> str:
    """Return the text of a file of a project."""
    return (project / path).read_text()


def deploy(project: Path) -> tuple[str, str]:
    """Run the script `deploy`, with a stand-in for `wrangler deploy`.

    Returns:
        What the script printed, and the arguments that Wrangler got last.
    """
    programs = project.parent / "programs"
    programs.mkdir(exist_ok=True)
    witness = project.parent / "wrangler-ran"
    real = project / "node_modules/.bin/wrangler"
    (programs / "wrangler").write_text(
        f'#!/bin/sh\nif [ "$1" = types ]; then exec {real} "$@"; fi\n'
        f'echo "$@" > "{witness}"\n'
    )
    (programs / "wrangler").chmod(0o755)
    manifest = re.search(r"(?m)^ +\"deploy\": (.*),$", read(project, "package.json"))
    script = json.loads(manifest[1])
    path = [programs, project / "node_modules/.bin", NODE.parent, os.environ["PATH"]]
    result = subprocess.run(
        ["sh", "-c", f"{script} --secrets-file .secrets.production"],
        cwd=project,
        env={**node_environment(), "PATH": ":".join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    ran = witness.read_text().strip() if witness.exists() else ""
    assert (result.returncode == 0) == ran.startswith("deploy ")
    return result.stdout + result.stderr, ran


def test_a_settled_project_is_deployed(render: Render) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    assert deploy(project)[1] == "deploy --secrets-file .secrets.production"


@pytest.mark.parametrize(
    "path", ["src/index.ts", "wrangler.jsonc", "package.json", "README.md"]
)
def test_a_conflict_that_is_not_settled_stops_a_deploy(
    render: Render, path: str
) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    (project / path).write_text(f"{CONFLICT}\n{read(project, path)}")
    assert deploy(project)[1] == ""


def test_lines_that_an_update_could_not_place_stop_a_deploy(render: Render) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    git(project, "config", "status.showUntrackedFiles", "no")
    (project / "src/index.ts.rej").touch()
    printed, ran = deploy(project)
    assert (ran, "Not merged yet:\nsrc/index.ts.rej" in printed) == ("", True)
    git(project, "add", "--all")
    assert deploy(project)[1] == ""


@pytest.mark.parametrize(
    ("line", "insert", "key"),
    [
        ("\t// Your bindings", '\t"vars": {},', "vars"),
        ("\t\t// Your vars", '\t\t"ALLOWED_ORIGINS": "*",', "ALLOWED_ORIGINS"),
    ],
)
def test_two_keys_of_one_name_stop_a_deploy_with_the_line(
    render: Render, line: str, insert: str, key: str
) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    edit(project, "wrangler.jsonc", line, insert)
    printed, ran = deploy(project)
    assert ran == ""
    place = re.search(r"wrangler\.jsonc:(\d+):", printed)
    assert place is not None, printed
    lines = read(project, "wrangler.jsonc").split("\n")
    assert f'"{key}":' in lines[int(place[1]) - 1]
    assert f"The key {key} was already declared." in printed


def test_a_wrong_type_stops_a_deploy(render: Render) -> None:
    project = link_toolchain(render([]))
    commit(project, "Start")
    edit(project, "src/index.ts", "// Your code", "\nenv.NOTHING;\n")
    assert deploy(project)[1] == ""
