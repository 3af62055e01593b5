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

#: The most lines of code, tests and README that each part may bring.
BUDGETS: dict[str, tuple[int, int, int]] = {
    "base": (200, 110, 80),
    "access": (40, 30, 0),
    "websockets": (100, 110, 35),
    "alarms": (120, 120, 35),
    "auth": (140, 130, 45),
    "queues": (125, 120, 40),
    "hyperdrive": (85, 90, 45),
    "workflows": (125, 120, 40),
    "analytics": (40, 50, 40),
    "browser": (120, 110, 30),
    "assets": (5, 40, 35),
    "workers-ai": (235, 100, 20),
    "openai": (200, 100, 20),
    "anthropic": (200, 100, 20),
    "structured-output": (35, 70, 25),
    "ai": (55, 90, 30),
    "agents": (350, 200, 60),
    "d1": (110, 120, 40),
    "r2": (180, 150, 40),
    "vectorize": (115, 110, 40),
    "cron": (40, 45, 25),
    "rate-limit": (55, 60, 25),
}
#: How much more than its budget a part may bring, where there is a reason.
TOLERANCE = 1.1
#: The most lines of whole projects: of files, and of all together.
NONE = {"wrangler.jsonc": 30, "AGENTS.md": 35, "together": 550}
ALL = {"src/index.ts": 2300, "tests": 2200}
#: What asks a model, and who answers.
MODEL = ("agents", "structured-output", "ai")
PROVIDERS = ("workers-ai", "openai", "anthropic")

#: Makes a project as one file, of features and a provider.
Make = Callable[[tuple[str, ...], str], Path]


@dataclass(frozen=True)
class Weight:
    """What a part brings to a project, in lines.

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
    """Returns how many lines a part's region has, with an empty one; 0 without one."""
    text = path.read_text("utf-8")
    found = re.search(rf"#region {part}\b.*\n(?:.*\n)*?.*#endregion {part}\b", text)
    return len(found[0].splitlines()) + 1 if found else 0


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
        is_provider = part in PROVIDERS
        project = make(MODEL, part) if is_provider else make(("alarms",), "workers-ai")
        name = "provider" if is_provider else part
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


def features() -> tuple[str, ...]:
    """Returns the ids of all features."""
    folder = workbench.ROOT / "features"
    return tuple(part for part in BUDGETS if (folder / part).exists())


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
        sets = {"none": (), "websockets": ("websockets",), "all": features()}
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
