"""Projects in the hands of each package manager: installed, checked, tested, served."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dev_server import left_over, serve
from parts import set_id
from projects import readme
from toolchain import node_environment, run
from workbench import BUILD, NODE, ROOT

PACKAGES = ROOT / "node_modules"
#: The clients, and the package manager that each is; npm is in every other test.
CLIENTS = {
    "pnpm-10": ("pnpm", f'"{NODE}" "{PACKAGES}/pnpm-10/bin/pnpm.cjs"'),
    "pnpm-12": ("pnpm", f'"{PACKAGES}/pnpm/pnpm"'),
    "yarn": ("yarn", f'"{NODE}" "{PACKAGES}/@yarnpkg/cli-dist/bin/yarn.js"'),
    "bun": ("bun", f'"{PACKAGES}/bun/bin/bun.exe"'),
}
#: pnpm leaves install scripts out that nobody has answered. Bun and Yarn say that they
#: run none.
UNANSWERED = re.compile("(?i)ignored build scripts|approve-builds")


@pytest.mark.full
@pytest.mark.parametrize(
    "features", [[], ["websockets"], ["agents", "assets"]], ids=set_id
)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_project_works_with_its_package_manager(
    client: str, features: list[str], render: Callable[..., Path], tmp_path: Path
) -> None:
    manager, program = CLIENTS[client]
    project = render(features, package_manager=manager)
    for name, call in {manager: program, "bunx": f"{program} x"}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        (tmp_path / name).chmod(0o755)
    home = BUILD / "cache" / client
    home.mkdir(parents=True, exist_ok=True)
    known = node_environment()
    # In place of the packages of this repository.
    path = known["PATH"].replace(str(PACKAGES / ".bin"), str(tmp_path))
    user = {**known, "PATH": path, "HOME": str(home), "CI": ""}

    workflow = yaml.safe_load((project / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    install, *checks = (
        step["run"] for step in steps if "run" in step and "corepack" not in step["run"]
    )
    (first,) = re.findall(r"## Run it\n\n```sh\n(.*)\n", readme(project))
    printed = run(["bash", "-ec", first], project, user)
    assert UNANSWERED.search(printed) is None, printed
    shutil.rmtree(project / "node_modules")
    # From here on as the workflow does, by the lock file.
    (lock,) = re.findall(r"-f (\S+)", install)
    locked = (project / lock).read_bytes()
    for command in [install, *checks]:
        run(["bash", "-ec", command], project, {**user, "CI": "true"})
    assert (project / lock).read_bytes() == locked

    with serve(project, [manager, "run", "dev"], user) as server:
        processes = server.processes()
        # A terminal signals everybody in front of it.
        os.killpg(server.process.pid, signal.SIGINT)
        assert left_over(processes) == []
    shutil.rmtree(project)
