"""The workflow that looks for a newer version of the template: its scripts, really run.

Copier, Git and the package managers are real, and a bare repository is the origin;
only GitHub itself is a stand-in.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import copier
import pytest
import yaml

from projects import package, readme, replace
from toolchain import commit, git, node_environment, release, run, run_copier
from workbench import NODE, ROOT, copy_template

ANSWERS = ".copier-answers.yml"
WORKFLOW = ".github/workflows/update.yml"
MANAGERS = yaml.safe_load((ROOT / "extensions/package-managers.yml").read_text())
#: How GitHub runs a script, by the `shell` of its step.
SHELLS = {None: ["bash", "-e"], "bash": ["bash", "-eo", "pipefail"]}
#: Runs `pipx run copier …`.
PIPX = f'#!/bin/sh\nshift\nexec {sys.executable} -I -m "$@"\n'
#: GitHub, as far as the workflow asks it. Pull requests are numbered from 0.
GH = f"""#!{sys.executable}
import json
import sys
from pathlib import Path

store = Path(__file__).parent / "pulls.json"
pulls = json.loads(store.read_text())
command, options = sys.argv[1:3], sys.argv[3:]
named = dict(zip(options, options[1:]))
if command == ["pr", "list"]:
    for number, pull in enumerate(pulls):
        if pull["head"] == named["--head"]:
            print(number)
elif command == ["pr", "create"]:
    body = Path(named["--body-file"]).read_text()
    pulls.append({{"head": named["--head"], "title": named["--title"], "body": body}})
store.write_text(json.dumps(pulls))
"""


class Repository:
    """A project on a stand-in for GitHub.

    Attributes:
        template: The template's repository; its newest release is 1.1.0, which changes
            a line of the README and the name of the other workflow.
        project: The clone in which its user works.
    """

    def __init__(self, folder: Path, **answers: str) -> None:
        """Make one from 1.0.0.

        Args:
            folder: Where everything of it goes.
            answers: Answers to questions of the template.
        """
        self.folder = folder
        self.template = copy_template(folder / "template")
        release(self.template, "1.0.0")
        self.project = folder / "my-worker"
        data = [f"--data={name}={answer}" for name, answer in answers.items()]
        options = ["--defaults", "--data=features=[]", *data]
        result = run_copier("copy", *options, self.template, self.project)
        assert result.returncode == 0, result.stderr
        workflows = self.template / "template/.github/workflows"
        replace(workflows / "ci.yml.jinja", "name: CI\n", "name: Checks\n")
        guide = self.template / "template/README.md.jinja"
        replace(guide, "checks lint and types,", "checks all,")
        release(self.template, "1.1.0")

        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "origin")
        git(self.project, "init", "--quiet", "--initial-branch=main")
        git(self.project, "remote", "add", "origin", str(folder / "origin"))
        self.push("Start")
        (folder / "bin").mkdir()
        for name, program in {"pipx": PIPX, "gh": GH}.items():
            (folder / "bin" / name).write_text(program)
            (folder / "bin" / name).chmod(0o755)
        (folder / "bin/pulls.json").write_text("[]")

    def push(self, message: str) -> None:
        """Commit everything that the user has changed, and push it."""
        commit(self.project, message)
        git(self.project, "push", "--quiet", "origin", "main")

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the workflow on the newest commit, as GitHub does.

        Args:
            environment: What else the scripts see.

        Returns:
            How the last of its scripts went that ran.
        """
        runner = self.folder / f"runner-{len(list(self.folder.glob('runner-*')))}"
        url = (self.folder / "origin").as_uri()
        git(self.folder, "clone", "--quiet", "--depth=1", url, str(runner / "work"))
        workflow = yaml.safe_load((self.project / WORKFLOW).read_text())
        known = {**node_environment(), "RUNNER_TEMP": str(runner), **environment}
        for step in workflow["jobs"]["update"]["steps"][1:]:
            result = subprocess.run(
                [*SHELLS[step.get("shell")], "-c", step["run"]],
                cwd=runner / "work",
                env={**known, "PATH": f"{self.folder / 'bin'}:{known['PATH']}"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if result.returncode != 0:
                break
        return result

    def pulls(self) -> list[dict]:
        """Return all pull requests, the oldest first."""
        return json.loads((self.folder / "bin/pulls.json").read_text())

    def branches(self) -> list[str]:
        """Return the names of all branches of the origin."""
        format = "--format=%(refname:short)"
        return git(self.folder / "origin", "branch", format).split()

    def file(self, branch: str, path: str) -> str:
        """Return the text of a file on a branch of the origin."""
        return git(self.folder / "origin", "show", f"{branch}:{path}")


def changed(pull: dict) -> set[str]:
    """Return the paths of the files that the text of a pull request lists."""
    return set(re.findall(r"^ (\S+) +\| ", pull["body"], re.MULTILINE))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A project of 1.0.0 on a stand-in for GitHub, while 1.1.0 is the newest."""
    return Repository(tmp_path)


def test_a_newer_version_becomes_a_pull_request(repository: Repository) -> None:
    result = repository.run()
    assert result.returncode == 0, result.stderr
    (pull,) = repository.pulls()
    branch = "copier-update-1.1.0"
    assert repository.branches() == [branch, "main"]
    assert pull["head"] == branch
    assert pull["title"] == "Update cf-templates to 1.1.0"
    assert "_commit: 1.1.0\n" in repository.file(branch, ".copier-answers.yml")
    assert "checks all," in repository.file(branch, "README.md")
    # The files, and the message of Copier.
    assert changed(pull) == {ANSWERS, "README.md"}
    assert "npm run check:merge\n" in pull["body"]
    # The token of a workflow may not push this.
    assert "name: CI\n" in repository.file(branch, ".github/workflows/ci.yml")
    assert "-name: CI\n+name: Checks\n" in pull["body"]

    git(repository.project, "pull", "--quiet", "origin", branch)
    git(repository.project, "push", "--quiet", "origin", "main")
    assert repository.run().returncode == 0
    assert repository.pulls() == [pull]


@pytest.mark.full
def test_each_version_has_one_pull_request(repository: Repository) -> None:
    assert repository.run().returncode == 0
    (repository.template / "template/NEWS.md").write_text("News\n")
    release(repository.template, "1.2.0")
    for _ in range(2):
        assert repository.run().returncode == 0
    _, second = repository.pulls()
    # From where the user is, not from the pull request that was left.
    assert changed(second) == {ANSWERS, "NEWS.md", "README.md"}


@pytest.mark.full
def test_conflicts_are_named_first(repository: Repository) -> None:
    readme = repository.project / "README.md"
    replace(readme, "checks lint and types,", "is for the operators,")
    repository.push("Edit")
    assert repository.run().returncode == 0
    (pull,) = repository.pulls()
    assert pull["title"] == "Update cf-templates to 1.1.0, with conflicts"
    assert "branch first:\n~~~\nREADME.md\n~~~\n" in pull["body"]
    assert "is for the operators," in repository.file("main", "README.md")
    # Its check fails, and the same commands as after every update show the place.
    git(repository.project, "pull", "--quiet", "origin", pull["head"])
    with pytest.raises(AssertionError, match=r"README\.md:\d+:<{7} before updating"):
        run([NODE, "--run", "check:merge"], repository.project)


@pytest.mark.full
def test_lines_that_could_not_be_placed_are_named_too(
    repository: Repository, tmp_path: Path
) -> None:
    # Under this setting, Copier writes no markers.
    settings = tmp_path / "gitconfig"
    settings.write_text("[status]\nshowUntrackedFiles = no\n")
    readme = repository.project / "README.md"
    replace(readme, "checks lint and types,", "is for the operators,")
    repository.push("Edit")
    assert repository.run(GIT_CONFIG_GLOBAL=str(settings)).returncode == 0
    (pull,) = repository.pulls()
    assert "branch first:\n~~~\nREADME.md.rej\n~~~\n" in pull["body"]


@pytest.mark.full
def test_an_update_that_copier_refuses_fails_with_its_message(
    repository: Repository,
) -> None:
    with (repository.template / "copier.yml").open("a") as configuration:
        configuration.write("\n_tasks: [exit 0]\n")
    release(repository.template, "1.2.0")
    result = repository.run()
    assert result.returncode != 0
    assert "trust" in result.stdout
    assert (repository.branches(), repository.pulls()) == (["main"], [])


@pytest.mark.full
@pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager["id"])
def test_the_lock_file_follows_the_update(tmp_path: Path, manager: dict) -> None:
    repository = Repository(tmp_path, package_manager=manager["id"])
    old = package(repository.project)["dependencies"]["zod"]
    manifest = repository.template / "package.json"
    replace(manifest, f'"zod": "{old}"', '"zod": "4.0.1"')
    release(repository.template, "1.2.0")
    run(["bash", "-c", manager["lock_only"]], repository.project)
    repository.push("Install")
    result = repository.run()
    assert result.returncode == 0, result.stderr
    (pull,) = repository.pulls()
    lock = repository.file(pull["head"], manager["lock"])
    assert "4.0.1" in lock
    assert old not in lock
    assert changed(pull) == {ANSWERS, "README.md", "package.json", manager["lock"]}


def test_a_deleted_workflow_stays_away(repository: Repository, quick: None) -> None:
    (repository.project / WORKFLOW).unlink()
    commit(repository.project, "Update by hand")
    copier.run_update(repository.project, defaults=True, overwrite=True, quiet=True)
    assert "checks all," in readme(repository.project)
    assert not (repository.project / WORKFLOW).exists()
