"""The script `deploy`: what it refuses before Wrangler starts."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import commit, link_toolchain, node_environment
from projects import edit
from workbench import NODE

Render = Callable[..., Path]

#: The markers that a conflict leaves in a file.
CONFLICT = f"{'<' * 7} before updating\nmine\n=======\n{'>' * 7} after updating"


def deploy(project: Path) -> tuple[str, bool]:
    """Run the script `deploy`, with a stand-in for Wrangler.

    Returns:
        What the script printed, and whether it came as far as Wrangler. Its exit
        status is 0 exactly then.
    """
    programs = project.parent / "programs"
    programs.mkdir(exist_ok=True)
    witness = project.parent / "wrangler-ran"
    (programs / "wrangler").write_text(f'#!/bin/sh\necho "$@" > "{witness}"\n')
    (programs / "wrangler").chmod(0o755)
    path = f"{programs}:{NODE.parent}:{os.environ['PATH']}"
    script = json.loads((project / "package.json").read_text())["scripts"]["deploy"]
    result = subprocess.run(
        ["sh", "-c", f"{script} --secrets-file .secrets.production"],
        cwd=project,
        env={**node_environment(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode == 0) == witness.exists()
    if witness.exists():
        assert witness.read_text() == "deploy --secrets-file .secrets.production\n"
    return result.stdout + result.stderr, witness.exists()


def write(project: Path, path: str, text: str) -> None:
    """Write a file of a project, and the folders on the way to it."""
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text(text)


@pytest.mark.parametrize(
    ("manager", "is_repository"),
    [("npm", True), ("npm", False), ("pnpm", True), ("yarn", True), ("bun", True)],
)
def test_a_settled_project_is_deployed(
    render: Render, manager: str, is_repository: bool
) -> None:
    project = link_toolchain(render(["auth"], package_manager=manager))
    if is_repository:
        commit(project, "Start")
    write(project, "dist/ignored.txt", CONFLICT)
    assert deploy(project) == ("", True)


@pytest.mark.parametrize("is_repository", [True, False])
@pytest.mark.parametrize(
    "path", ["README.md", "src/index.ts", "wrangler.jsonc", "test/own/my tests.md"]
)
def test_a_conflict_that_is_not_settled_stops_a_deploy(
    render: Render, path: str, is_repository: bool
) -> None:
    project = link_toolchain(render(["auth"]))
    if is_repository:
        commit(project, "Start")
    old = (project / path).read_text() if (project / path).exists() else ""
    write(project, path, f"{CONFLICT}\n{old}")
    assert deploy(project) == (
        f"Not deployed: settle the conflict in {path}, line 1.\n",
        False,
    )


def test_a_committed_conflict_stops_a_deploy(render: Render) -> None:
    project = link_toolchain(render([]))
    edit(project, "README.md", "<!-- Your introduction -->", CONFLICT)
    commit(project, "Update")
    printed, is_deployed = deploy(project)
    assert not is_deployed
    assert printed.count("README.md") == 1


@pytest.mark.parametrize("is_repository", [True, False])
@pytest.mark.parametrize(
    ("line", "insert", "key"),
    [
        ("\t// Your settings", '\t"kv_namespaces": [],', "kv_namespaces"),
        ("\t\t// Your vars", '\t\t"ALLOWED_ORIGINS": "*",', "ALLOWED_ORIGINS"),
    ],
)
def test_two_keys_of_one_name_stop_a_deploy(
    render: Render, line: str, insert: str, key: str, is_repository: bool
) -> None:
    project = link_toolchain(render(["auth"]))
    if is_repository:
        commit(project, "Start")
    edit(project, "wrangler.jsonc", line, insert)
    printed, is_deployed = deploy(project)
    assert not is_deployed
    [message] = printed.splitlines()
    place = re.search(r" wrangler\.jsonc, line (\d+)\.", message)
    assert place is not None, message
    lines = (project / "wrangler.jsonc").read_text().split("\n")
    assert f'"{key}":' in lines[int(place[1]) - 1]
    assert f" {key} " in message


def test_what_a_feature_checks_comes_after(render: Render) -> None:
    # Its own message would hide that the tree is not settled.
    project = link_toolchain(render(["hyperdrive"]))
    assert "hyperdrive create" in deploy(project)[0]
    write(project, "notes.md", CONFLICT)
    assert "hyperdrive create" not in deploy(project)[0]
