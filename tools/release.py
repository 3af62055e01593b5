"""Makes a release: `python3 tools/release.py 0.2.0`.

The tree is clean, all tests pass, and CHANGELOG.md says under *Unreleased* what is new.
The release is a commit, and the next one records it in releases.yml; its tag is made
from there, as `python3 tools/release.py --tag` does in a clone that came without tags.
"""

import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "releases.yml"
UNRELEASED = "## Unreleased\n"


def recorded() -> dict[str, str]:
    """Returns the commit of each release, by version, from the oldest."""
    return dict(re.findall(r"(?m)^(\S+): (\w{40})$", RECORD.read_text("utf-8")))


def run(*command: str | Path) -> str:
    """Runs a command in this repository, and returns what it printed.

    Raises:
        SystemExit: It failed; with its exit status.
    """
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(result.returncode)
    return result.stdout.strip()


def numbers(version: str) -> list[int]:
    """Returns the numbers of a version: `0.2.0` -> [0, 2, 0]."""
    return [int(number) for number in version.split(".")]


def problem(version: str) -> str:
    """Returns why there cannot be a release of this version now, or nothing."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        return f"Write a version like 0.2.0: not {version!r}."
    newest = list(recorded())[-1:]
    if any(numbers(version) <= numbers(old) for old in newest):
        return f"{newest[0]} is released: {version} is not newer."
    if version in run("git", "tag").split():
        return f"Delete the tag {version} of a release that was taken back first."
    if run("git", "rev-parse", "--is-shallow-repository") == "true":
        return "Fetch the whole history first, since updates from all of it are tested."
    if run("git", "status", "--porcelain"):
        return "Commit your changes first."
    changes = changelog().partition(UNRELEASED)[2].partition("\n## ")[0]
    if not changes.strip():
        return "Write into CHANGELOG.md, below '## Unreleased', what is new."
    return ""


def changelog() -> str:
    """Returns the text of CHANGELOG.md."""
    return (ROOT / "CHANGELOG.md").read_text("utf-8")


def release(version: str) -> None:
    """Commits and records a release.

    Raises:
        SystemExit: A test failed.
    """
    tests = subprocess.run([sys.executable, ROOT / "test.py", "--full"])
    if tests.returncode != 0:
        sys.exit("Not released.")
    heading = f"## {version} - {datetime.date.today()}\n"
    text = changelog().replace(UNRELEASED, heading)
    (ROOT / "CHANGELOG.md").write_text(text, "utf-8")
    project = ROOT / "pyproject.toml"
    text = re.sub(
        r"(?m)^version = .*$", f'version = "{version}"', project.read_text("utf-8")
    )
    project.write_text(text, "utf-8")
    run(sys.executable, ROOT / "tools/write.py", "gallery")
    run("git", "commit", "--all", "--message", f"Release {version}")
    record = RECORD.read_text("utf-8").replace("{}\n", "")
    RECORD.write_text(
        f"{record}{version}: {run('git', 'rev-parse', 'HEAD')}\n", "utf-8"
    )
    run("git", "commit", "--all", "--message", f"Record {version}")


def make_tags() -> None:
    """Makes the tags of recorded releases that are missing."""
    present = run("git", "tag").split()
    for version, commit in recorded().items():
        if version not in present:
            run("git", "tag", version, commit)
            print(f"Tagged {version}")


def main() -> None:
    """Makes a release, or tags.

    Raises:
        SystemExit: It cannot be made.
    """
    match sys.argv[1:]:
        case ["--tag"]:
            pass
        case [version]:
            message = problem(version)
            if message:
                sys.exit(message)
            release(version)
        case _:
            sys.exit(__doc__)
    make_tags()


if __name__ == "__main__":
    main()
