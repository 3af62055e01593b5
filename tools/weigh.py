"""Prints what projects weigh, in lines: `python3 tools/weigh.py`.

The lines that each part brings to a project as one file, to its tests and to its
README, with their budgets; and the lines of each file of some projects. A line over
its budget is marked. tests/test_weight.py holds the budgets.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tools import workbench


def expected(kind: str, line: str) -> dict[str, re.Match[str]]:
    """Returns what matches a line of the `expected.yml` of parts, by part.

    Without a reader of YAML, which this Python may not have.
    """
    paths = sorted(workbench.ROOT.glob(f"{kind}/*/expected.yml"))
    found = {
        path.parent.name: re.search(line, path.read_text("utf-8")) for path in paths
    }
    return {part: match for part, match in found.items() if match}


LINES = r"(?m)^lines: \[(\d+), (\d+), (\d+)\]$"
FEATURES = tuple(expected("features", LINES))
PROVIDERS = tuple(expected("providers", LINES))
#: The features that ask a model.
MODEL = tuple(expected("features", "(?m)^model: true$"))
#: The most lines of code, tests and README that each part may bring.
BUDGETS: dict[str, tuple[int, ...]] = {
    "base": (200, 110, 80),
    "access": (40, 30, 0),
    **{
        part: tuple(map(int, match.groups()))
        for kind in ("features", "providers")
        for part, match in expected(kind, LINES).items()
    },
}
#: How much more than its budget a part may bring, where there is a reason.
TOLERANCE = 1.1
#: The most lines of whole projects: of files, and of all together but the workflows.
NONE = {
    "wrangler.jsonc": 30,
    "AGENTS.md": 35,
    ".github/workflows/ci.yml": 65,
    ".github/workflows/update.yml": 65,
    "together": 550,
}
ALL = {"src/index.ts": 2300, "tests": 2200}

#: Makes a project as one file, of features and a provider.
Make = Callable[[tuple[str, ...], str], Path]


@dataclass(frozen=True)
class Weight:
    """The lines that a part brings to a project.

    Attributes:
        src: The lines that come to `src/index.ts`.
        test: Those of its files in `test/`.
        readme: Those of its section of the README, or of all of it for the base.
    """

    src: int
    test: int
    readme: int


def lines(path: Path) -> int:
    """Returns how many lines a file has."""
    return len(path.read_text("utf-8").splitlines())


def code_lines(project: Path) -> int:
    """Returns how many lines `src/index.ts` has above its handlers.

    A table of handlers is not counted: it is what the base has for who needs it.
    """
    text = (project / "src/index.ts").read_text("utf-8")
    return len(text.split("export default {")[0].splitlines())


def region(path: Path, part: str) -> int:
    """Returns how many lines a part's region has; 0 without one.

    With an empty line, which stands in the region of code, and below that of a README.
    """
    text = path.read_text("utf-8")
    found = re.search(rf"#region {part}\b.*\n(?:.*\n)*?.*#endregion {part}\b", text)
    return len(found[0].splitlines()) + (path.suffix == ".md") if found else 0


def tests_of(project: Path, part: str) -> int:
    """Returns how many lines the files of a part in `test/` have."""
    known = [*project.glob(f"test/{part}.ts"), *project.glob(f"test/{part}.test.ts")]
    return sum(lines(path) for path in known)


def weigh_part(make: Make, part: str) -> Weight:
    """Weighs a part in the smallest project that has it.

    Args:
        make: Makes a project as one file, of features and a provider.
        part: A feature, a provider, `access` or `base`.
    """
    none = make((), "workers-ai")
    if part == "base":
        readme = lines(none / "README.md")
        return Weight(lines(none / "src/index.ts"), tests_of(none, "base"), readme)
    if part == "access" or part in PROVIDERS:
        name, provider = (
            ("provider", part) if part in PROVIDERS else (part, "workers-ai")
        )
        project = make(FEATURES, provider)
        src = region(project / "src/index.ts", name)
        readme = region(project / "README.md", name)
        return Weight(src, tests_of(project, name), readme)
    project = make((part,), "workers-ai")
    code = project / "src/index.ts"
    shared = sum(region(code, one) for one in ("access", "origin", "user", "provider"))
    src = code_lines(project) - code_lines(none) - shared
    others = ("base", "access", "provider")
    test = sum(
        lines(path)
        for path in project.glob("test/*.ts")
        if path.stem.removesuffix(".test") not in others
    )
    return Weight(src, test, region(project / "README.md", part))


def files_of(project: Path) -> dict[str, int]:
    """Returns how many lines each file of a project has, but for the secrets."""
    return {
        path.relative_to(project).as_posix(): lines(path)
        for path in sorted(project.rglob("*"))
        if path.is_file() and path.name != ".dev.vars"
    }


def cell(weight: int, budget: int) -> str:
    """Prints a weight and its budget; a star marks one that is over it."""
    return f"{weight:>5} /{budget:>4}{'*' if weight > budget else ' '}"


def main() -> None:
    """Prints the tables."""
    workbench.set_up_python()
    with tempfile.TemporaryDirectory() as name:

        @cache
        def make(chosen: tuple[str, ...], provider: str) -> Path:
            project = Path(name) / f"{'-'.join(chosen)}-{provider}" / "my-worker"
            answers = [f"features=[{', '.join(chosen)}]", "layout=single-file"]
            workbench.copy_project(project, *answers, f"ai_provider={provider}")
            return project

        weights = {part: weigh_part(make, part) for part in BUDGETS}
        sets = {"none": (), "all": FEATURES}
        projects = {title: make(chosen, "workers-ai") for title, chosen in sets.items()}
        print(f"\n{'part':18} {'src':>12} {'test':>12} {'README':>12}")
        for part, weight in weights.items():
            pairs = zip(
                (weight.src, weight.test, weight.readme), BUDGETS[part], strict=True
            )
            print(f"{part:18}", *(f"{cell(*pair):>12}" for pair in pairs))
        for title, project in projects.items():
            found = files_of(project)
            tests = sum(n for path, n in found.items() if path.startswith("test/"))
            print(f"\n{title}: {sum(found.values())} lines, of tests {tests}")
            for path, count in found.items():
                print(f"{count:6} {path}")


if __name__ == "__main__":
    main()
