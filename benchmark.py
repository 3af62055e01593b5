"""Measures what this template adds to the time that Copier itself takes.

Copies this checkout with all features and a template of one file, in turn, with
the Copier command line, and prints the ratio of the medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import workbench

GIT = ["git", "-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.com"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="copies of each")
    rounds = parser.parse_args().rounds
    workbench.set_up_python()
    with tempfile.TemporaryDirectory() as folder:
        one_file, everything = Path(folder, "one-file"), Path(folder, "everything")
        make_one_file(one_file)
        make_everything(everything)
        features = sorted(path.name for path in (everything / "features").iterdir())
        data = f"features=[{','.join(features)}]"
        seconds: dict[Path, list[float]] = {one_file: [], everything: []}
        for _ in range(rounds):
            for template, times in seconds.items():
                times.append(copy(template, Path(folder, "out"), data))
    floor, ours = (statistics.median(times) for times in seconds.values())
    print(f"one file: {floor:.3f} s, {len(features)} features: {ours:.3f} s")
    print(f"ratio: {ours / floor:.2f}")


def make_one_file(template: Path) -> None:
    """Makes a template of one file, which asks nothing."""
    template.mkdir()
    (template / "copier.yml").write_text("_subdirectory: template\n")
    (template / "template").mkdir()
    (template / "template" / "file.txt").write_text("One file.\n")
    release(template)


def make_everything(template: Path) -> None:
    """Makes a template of what a commit of this checkout would hold."""
    listed = ["ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.check_output([*GIT, *listed], cwd=workbench.ROOT, text=True)
    for name in output.splitlines():
        if not (workbench.ROOT / name).exists():
            continue
        target = template / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(workbench.ROOT / name, target)
    release(template)


def release(template: Path) -> None:
    """Makes a folder a repository with one tagged commit."""
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "Release"],
        ["tag", "1.0.0"],
    ):
        subprocess.run([*GIT, *command], cwd=template, check=True)


def copy(template: Path, project: Path, data: str) -> float:
    """Copies a template once.

    Args:
        template: A repository with a tag.
        project: Where to; removed afterwards.
        data: The answer that chooses the features.

    Returns:
        The seconds that the command took.
    """
    copier = [workbench.PYTHON, "-m", "copier", "copy", "--quiet", "--defaults"]
    start = time.perf_counter()
    subprocess.run(
        [*copier, "--data", data, template, project], check=True, env=os.environ
    )
    seconds = time.perf_counter() - start
    shutil.rmtree(project)
    return seconds


if __name__ == "__main__":
    main()
