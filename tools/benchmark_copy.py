"""The time that this template adds to Copier's own."""

import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import workbench

GIT = ["git", "-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.com"]


def measure(rounds: int) -> None:
    """Copies three templates in turn, and prints the medians and their ratios.

    The three are one file, the very files of a project with all features as they
    are, and this checkout with all features.

    Args:
        rounds: How many copies to make of each.
    """
    workbench.set_up_python()
    with tempfile.TemporaryDirectory() as folder:
        one_file, verbatim, ours = (
            Path(folder, name) for name in ("one-file", "verbatim", "ours")
        )
        make_one_file(one_file)
        make_ours(ours)
        features = sorted(path.name for path in (ours / "features").iterdir())
        data = f"features=[{','.join(features)}]"
        copy(ours, verbatim / "template", data)
        make_verbatim(verbatim)
        seconds: dict[Path, list[float]] = {one_file: [], verbatim: [], ours: []}
        for _ in range(rounds):
            for template, times in seconds.items():
                project = Path(folder, "project")
                times.append(copy(template, project, data))
                shutil.rmtree(project)
    medians = [statistics.median(times) for times in seconds.values()]
    labels = ["one file", "the same files as they are", f"{len(features)} features"]
    for label, median in zip(labels, medians, strict=True):
        print(f"{median:.3f} s  {median / medians[0]:.2f} x one file  {label}")
    print(f"{medians[2] / medians[1]:.2f} x the same files as they are")


def make_one_file(template: Path) -> None:
    """Makes a template of one file, which asks nothing."""
    template.mkdir()
    (template / "copier.yml").write_text("_subdirectory: template\n")
    (template / "template").mkdir()
    (template / "template" / "file.txt").write_text("One file.\n")
    release(template)


def make_verbatim(template: Path) -> None:
    """Makes a template of the generated files in its folder `template`."""
    (template / "template" / ".copier-answers.yml").unlink()
    (template / "copier.yml").write_text("_subdirectory: template\n")
    release(template)


def make_ours(template: Path) -> None:
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
        ["add", "--all", "--force"],
        ["commit", "--quiet", "--message", "Release"],
        ["tag", "1.0.0"],
        ["gc", "--quiet"],  # as a clone of a served repository is
    ):
        subprocess.run([*GIT, *command], cwd=template, check=True)


def copy(template: Path, project: Path, data: str) -> float:
    """Copies a template once.

    Args:
        template: A repository with a tag.
        project: Where to.
        data: The answer that chooses the features.

    Returns:
        The seconds that the command took.
    """
    copier = [workbench.PYTHON, "-m", "copier", "copy", "--quiet", "--defaults"]
    start = time.perf_counter()
    subprocess.run([*copier, "--data", data, template, project], check=True)
    return time.perf_counter() - start
