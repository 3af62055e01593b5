"""A project in a monorepo: repository, packages and a formatter are above it."""

import json
import re
from pathlib import Path
from textwrap import dedent

import pytest

from dev_server import serve
from parts import FEATURES
from projects import edit, texts
from toolchain import git, release, run, run_copier
from workbench import NPM, ROOT, copy_template


@pytest.fixture
def monorepo(tmp_path: Path) -> Path:
    """The top of a repository with a workspace and a formatter."""
    top = tmp_path / "mono repo"
    top.mkdir()
    git(top, "init", "--quiet")
    (top / ".gitignore").write_text("node_modules\n")
    workspace = {"name": "top", "private": True, "workspaces": ["packages/*"]}
    (top / "package.json").write_text(json.dumps(workspace))
    vcs = {"enabled": True, "clientKind": "git", "useIgnoreFile": True}
    formatter = {"vcs": vcs, "formatter": {"indentStyle": "space"}}
    (top / "biome.json").write_text(json.dumps(formatter))
    return top


@pytest.mark.full
def test_a_project_with_hoisted_packages_passes_everything_and_is_updated(
    monorepo: Path, tmp_path: Path
) -> None:
    template = copy_template(tmp_path / "template")
    release(template, "1.0.0")
    project = monorepo / "packages/api"
    data = f"--data=features={[*FEATURES[1:]]}"
    copied = run_copier("copy", "--defaults", data, template, project)
    assert copied.returncode == 0, copied.stderr
    assert "git init" not in copied.stderr
    assert "docs/monorepo.md" in copied.stderr
    edit(project, "biome.json", "{", '\t"root": false,')
    own = '\napp.get("/api/mine", (c) => c.text("mine"));'
    edit(project, "src/index.ts", "// Your code", own)
    git(monorepo, "add", "--all")
    git(monorepo, "commit", "--quiet", "--message", "Start")

    data = f"--data=features={FEATURES}"
    updated = run_copier("update", "--defaults", data, project)
    assert updated.returncode == 0, updated.stderr
    assert git(monorepo, "ls-files", "--unmerged") == ""

    run([NPM, "install"], monorepo)
    assert not (project / "node_modules/wrangler").exists()
    commands = [
        "PATH=${PATH#*:} # without the packages of this repository",
        "npm run check",
        "npm run typecheck",
        "npm test -- test/base.test.ts",
        "npx wrangler deploy --dry-run",
        "cd ../..",
        "npx biome check packages",
    ]
    run(["bash", "-ec", "\n".join(commands)], project)
    with serve(project) as server:
        assert server.http.get("/api/mine").text == "mine"


def test_a_package_of_a_pnpm_workspace_does_not_split_it(
    monorepo: Path, template: Path
) -> None:
    (monorepo / "pnpm-workspace.yaml").write_text("packages: [packages/*]\n")
    for folder, brings in ((monorepo / "packages/api", False), (monorepo.parent, True)):
        project = folder / "project"
        answers = ["--data=features=[]", "--data=package_manager=pnpm"]
        result = run_copier("copy", "--defaults", *answers, template, project)
        assert result.returncode == 0, result.stderr
        assert ("pnpm-workspace.yaml" in texts(project)) == brings


@pytest.mark.full
def test_a_pnpm_workspace_installs_with_the_lines_of_the_guide(
    monorepo: Path, template: Path
) -> None:
    guide = (ROOT / "docs/monorepo.md").read_text()
    (lines,) = re.findall(r"```yaml\n(  allowBuilds:\n(?:    .*\n)*)", guide)
    settings = f"packages: [packages/*]\nstoreDir: ../store\n{dedent(lines)}"
    (monorepo / "pnpm-workspace.yaml").write_text(settings)
    project = monorepo / "packages/api"
    answers = [f"--data=features={FEATURES}", "--data=package_manager=pnpm"]
    assert run_copier("copy", "--defaults", *answers, template, project).returncode == 0
    pnpm = f'"{ROOT}/node_modules/pnpm/pnpm"'
    commands = [f"{pnpm} install", f"{pnpm} run check", f"{pnpm} run typecheck"]
    run(["bash", "-ec", "\n".join(commands)], project)
