"""Changes code one line at a time, and counts what the tests notice.

A part is a feature, a base part or a provider. Each mutant is one small change of
its code in a generated project, which the project's own tests should notice. The
type checker and the linter are asked about those that get through. The mutants of
`engine` change what makes a project; this repository's tests should notice them.
"""

import argparse
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mutations
import workbench
from mutations import Mutant

VITEST = workbench.ROOT / "node_modules/vitest/vitest.mjs"
WRANGLER = workbench.ROOT / "node_modules/wrangler/wrangler-dist/cli.js"
#: The file of a project that mutants change.
SOURCE = "src/index.ts"
#: For each part a file with mutants that matter (`aimed`, each with a `why`, what to
#: `find` and what to `replace` it by) and those that make no difference (`ignore`,
#: each with its `line`, what that `becomes` and `because` of what); and `features`
#: where the part needs others than the code says.
TABLES = workbench.ROOT / "tests/mutants"
#: The same for the engine. Each entry has its `path`, and the `tests` that should
#: notice, as pytest calls them.
ENGINE = "engine"
#: Features made for tests, which a part's project may have as well.
FIXTURES = workbench.ROOT / "tests/features"
#: How long the tests may take, in seconds: a mutant may loop.
TIMEOUT = 90
ENGINE_TIMEOUT = 900


@dataclass
class Part:
    """A part, in the project in which its mutants live.

    Attributes:
        folder: Where it is in this repository.
        features: The features of the project.
        provider: The project's provider of a model, or an empty string.
    """

    folder: Path
    features: list[str]
    provider: str = ""

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def region(self) -> str:
        """What its lines in a project are called."""
        return "provider" if self.folder.parent.name == "providers" else self.id

    @property
    def table(self) -> dict:
        """What `tests/mutants/` says of it."""
        path = TABLES / f"{self.id}.yml"
        return load_yaml(path) if path.exists() else {}


@dataclass
class Score:
    """How many mutants were noticed. All pairs are of random and of aimed ones.

    Attributes:
        name: Of what.
        total: How many there are.
        by_tests: How many the tests noticed.
        by_all: How many they, the type checker or the linter noticed.
    """

    name: str
    total: tuple[int, int]
    by_tests: tuple[int, int]
    by_all: tuple[int, int]

    def __str__(self) -> str:
        """Prints it as a row of a table."""
        cells = [
            f"{noticed}/{total} {noticed / total:5.0%}" if total else "-"
            for counts in (self.by_tests, self.by_all)
            for noticed, total in zip(counts, self.total, strict=True)
        ]
        return f"{self.name:<18}" + "".join(f"{cell:>14}" for cell in cells)


def main() -> None:
    """Does what the command line says."""
    options = parse_arguments()
    workbench.set_up_python()
    workbench.set_up_npm("Setting up npm packages in node_modules")
    # The tables are YAML, which only the Python of `.venv` reads.
    if Path(sys.prefix) != workbench.VENV:
        os.execv(workbench.PYTHON, [workbench.PYTHON, *sys.argv])
    try:
        scores = [
            measure_engine(options)
            if part == ENGINE
            else measure(find_part(part, options.features), options)
            for part in options.parts or [*all_parts(), ENGINE]
        ]
    except KeyboardInterrupt:
        sys.exit(130)
    if not options.list:
        print_table(scores)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line.

    Raises:
        SystemExit: It asks for help, or makes no sense.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="the name of its folder, or engine (default: all)",
    )
    parser.add_argument(
        "--sample", type=int, default=40, help="random mutants of each part (0: all)"
    )
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument(
        "--aimed",
        action="store_true",
        help="only those that tests/mutants/PART.yml names",
    )
    parser.add_argument(
        "--match", default="", help="only those whose line holds this text"
    )
    parser.add_argument(
        "--features", default="", help="what the project has, with commas"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--list", action="store_true", help="list them, run none")
    return parser.parse_args()


def all_parts() -> list[str]:
    """Returns the ids of all parts that have code."""
    folders = ("base", "providers", "features")
    paths = [
        path
        for folder in folders
        for path in sorted((workbench.ROOT / folder).glob("*/worker.ts"))
    ]
    return [path.parent.name for path in paths]


def find_part(id: str, features: str) -> Part:
    """Finds a part, and the smallest project that tests it.

    Args:
        id: The name of its folder.
        features: What the project shall have, with commas; empty for what the
            code of the part, or of those that import it, says.

    Raises:
        SystemExit: There is no such part.
    """
    for kind in ("features", "base", "providers"):
        folder = workbench.ROOT / kind / id
        if (folder / "worker.ts").exists():
            break
    else:
        sys.exit(f"{id} is no part: {', '.join(all_parts())}")
    table = Part(folder, []).table
    chosen = features.split(",") if features else table.get("features", [])
    if kind == "features":
        return Part(folder, chosen or [id, *joints(folder)])
    # Some base parts serve providers: one with an SDK asks most of them.
    provider = (
        id if kind == "providers" else min(importers("providers", id), default="")
    )
    users = importers("features", "providers" if provider else id)
    # More features would only make it slow: these use most of the base.
    few = [user for user in ("auth", "alarms", "websockets") if user in users]
    smallest = [*(few or users[:3]), *joints(folder)]
    return Part(folder, chosen or list(dict.fromkeys(smallest)), provider)


def importers(kind: str, imported: str) -> list[str]:
    """Returns the parts of a kind that import a base part, or from `providers`."""
    module = imported if imported == "providers" else f"base/{imported}"
    statement = re.compile(rf'from "\.\./\.\./{module}/')
    paths = sorted((workbench.ROOT / kind).glob("*/worker.ts"))
    return [path.parent.name for path in paths if statement.search(path.read_text())]


def joints(folder: Path) -> list[str]:
    """Returns the features beside which the code of a part does more."""
    code = (folder / "worker.ts").read_text()
    found = re.findall(r'^\s*//% if "([\w-]+)" in features', code, re.MULTILINE)
    return list(dict.fromkeys(found))


def load_yaml(path: Path) -> dict:
    """Reads a file of YAML."""
    import yaml

    return yaml.safe_load(path.read_text()) or {}


def measure(part: Part, options: argparse.Namespace) -> Score:
    """Runs the mutants of a part, and prints what survived and the score."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        project = Path(name, "0", "my-worker")
        answers = [f"features={json.dumps(part.features)}"]
        if part.provider:
            answers.append(f"ai_provider={part.provider}")
        project.parent.mkdir()
        workbench.copy_project(
            project, *answers, template=template_of(part, Path(name, "template"))
        )
        (project / "node_modules").symlink_to(workbench.ROOT / "node_modules")
        aimed, drawn, ignored = choose(part, project, options)
        mutants = [*aimed, *drawn]
        if options.list:
            print("\n".join(map(str, mutants)))
            return count(part.id, aimed, drawn, {})
        types = ["types", "--strict-vars=false"]
        workbench.run("Types", [workbench.NODE, WRANGLER, *types], cwd=project)
        print(f"{part.id}: {len(mutants)} mutants ...", flush=True)
        tests = tests_of(part, project)
        if found := what_tests_find(project, tests):
            sys.exit(f"{found}\n{part.id}: its tests fail without a mutant.")
        survivors = run_all(
            mutants,
            copies(project, options.jobs),
            lambda project, _: what_tests_find(project, tests),
            what_tools_find,
        )
        print(f"{part.id}: {ignored} make no difference", flush=True)
        return count(part.id, aimed, drawn, survivors)


def template_of(part: Part, folder: Path) -> Path:
    """Returns the template of a part's project: this checkout.

    Where the project has features made for tests, it is a copy in a folder, with
    those among its own.
    """
    made = {path.name for path in FIXTURES.iterdir()}
    if made.isdisjoint(part.features):
        return workbench.ROOT
    workbench.copy_template(folder)
    shutil.copytree(FIXTURES, folder / "features", dirs_exist_ok=True)
    return folder


def measure_engine(options: argparse.Namespace) -> Score:
    """Runs the mutants of the engine, and prints what survived and the score."""
    entries = load_yaml(TABLES / f"{ENGINE}.yml")["aimed"]
    tests = {
        engine_mutant(entry): entry["tests"].split()
        for entry in entries
        if options.match in entry["path"] + entry["find"]
    }
    if options.list:
        print("\n".join(map(str, tests)))
        return count(ENGINE, list(tests), [], {})
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        repository = workbench.copy_template(Path(name, "0", "repository"))
        # Some tests ask Git which files there are.
        workbench.run("Git", ["git", "init", "--quiet"], cwd=repository)
        for folder in ("node_modules", ".venv"):
            (repository / folder).symlink_to(workbench.ROOT / folder)
        print(f"{ENGINE}: {len(tests)} mutants ...", flush=True)
        every = list(dict.fromkeys(test for some in tests.values() for test in some))
        if found := what_suite_finds(repository, every):
            sys.exit(f"{found}\n{ENGINE}: its tests fail without a mutant.")
        survivors = run_all(
            list(tests),
            copies(repository, options.jobs),
            lambda repository, mutant: what_suite_finds(repository, tests[mutant]),
        )
        return count(ENGINE, list(tests), [], survivors)


def engine_mutant(entry: dict[str, str]) -> Mutant:
    """Makes a mutant from an entry of the engine's table.

    Raises:
        SystemExit: It is about text that is not there, or more than once.
    """
    code = (workbench.ROOT / entry["path"]).read_text()
    return mutations.aimed(code, entry["find"], entry["replace"], entry["path"])


def copies(folder: Path, jobs: int) -> "queue.Queue[Path]":
    """Returns a folder, and copies beside its parent: one for each job."""
    folders = queue.Queue[Path]()
    folders.put(folder)
    for number in range(1, jobs):
        parent = folder.parents[1] / str(number)
        shutil.copytree(folder.parent, parent, symlinks=True)
        folders.put(parent / folder.name)
    return folders


def choose(
    part: Part, project: Path, options: argparse.Namespace
) -> tuple[list[Mutant], list[Mutant], int]:
    """Chooses the mutants of a part.

    Returns:
        The aimed ones, the random ones, and how many were left out since the
        table argues that they make no difference.

    Raises:
        SystemExit: The table names code that is not there.
    """
    code = (project / SOURCE).read_text()
    aimed = aimed_mutants(part, code)
    known = {mutant.apply(code) for mutant in aimed}
    drawn = [
        mutant
        for mutant in mutations.enumerate_all(code, part.region)
        if not options.aimed and mutant.apply(code) not in known
    ]
    ignore = ignored_changes(part)
    kept = [mutant for mutant in drawn if (mutant.line, mutant.becomes) not in ignore]
    ignored = len(drawn) - len(kept)
    if options.sample and len(kept) > options.sample:
        kept = random.Random(options.seed).sample(kept, options.sample)
    kept.sort(key=lambda mutant: mutant.start)
    aimed, kept = (
        [mutant for mutant in mutants if options.match in mutant.line]
        for mutants in (aimed, kept)
    )
    return aimed, kept, ignored


def aimed_mutants(part: Part, code: str) -> list[Mutant]:
    """Returns the mutants that the table of a part describes.

    Args:
        part: The part.
        code: The `src/index.ts` of its project.

    Raises:
        SystemExit: One is about code that is not there, or more than once.
    """
    return [
        mutations.aimed(code, entry["find"], entry["replace"], SOURCE, part.region)
        for entry in part.table.get("aimed", [])
    ]


def ignored_changes(part: Part) -> set[tuple[str, str]]:
    """Returns lines, and what becomes of them, that make no difference."""
    return {(entry["line"], entry["becomes"]) for entry in part.table.get("ignore", [])}


def tests_of(part: Part, project: Path) -> list[str]:
    """Returns the test files that should notice.

    Returns:
        A feature's own; of what serves a model, those of the features that ask
        it; of other base parts, none, which stands for all.
    """
    features = part.features if part.provider else []
    if part.folder.parent.name == "features":
        features = [part.id]
    paths = [f"test/{feature}.test.ts" for feature in features]
    return [path for path in paths if (project / path).exists()]


def run_all(
    mutants: list[Mutant],
    folders: "queue.Queue[Path]",
    find: Callable[[Path, Mutant], str],
    find_otherwise: Callable[[Path], str] = lambda _: "",
) -> dict[Mutant, bool]:
    """Runs mutants, and returns those that the tests did not notice.

    With each comes whether `find_otherwise` found it.

    Args:
        mutants: The mutants.
        folders: Where they are made, one at once in each.
        find: Runs the tests in a folder; like `what_fails`.
        find_otherwise: Says what else finds those that `find` does not.
    """
    lock = threading.Lock()
    survivors: dict[Mutant, bool] = {}

    def run(mutant: Mutant) -> None:
        folder = folders.get()
        try:
            source = folder / mutant.path
            original = source.read_text()
            source.write_text(mutant.apply(original))
            noticed = bool(find(folder, mutant))
            otherwise = not noticed and bool(find_otherwise(folder))
            source.write_text(original)
        finally:
            folders.put(folder)
        if not noticed:
            with lock:
                survivors[mutant] = otherwise
                by = " (but by the type checker or the linter)" * otherwise
                print(f"not noticed{by}:\n{mutant}", flush=True)

    with ThreadPoolExecutor(folders.qsize()) as pool:
        list(pool.map(run, mutants))
    return survivors


def count(
    name: str,
    aimed: list[Mutant],
    drawn: list[Mutant],
    survivors: dict[Mutant, bool],
) -> Score:
    """Counts which of the drawn and of the aimed mutants were noticed."""
    kinds = (drawn, aimed)
    return Score(
        name,
        tuple(len(kind) for kind in kinds),
        tuple(sum(mutant not in survivors for mutant in kind) for kind in kinds),
        # Of those that the tests have not noticed, some have been otherwise.
        tuple(sum(survivors.get(mutant, True) for mutant in kind) for kind in kinds),
    )


def print_table(scores: list[Score]) -> None:
    """Prints scores, and the sum of those of the parts."""
    print(f"\n{'noticed':<18}{'by tests':>28}{'with types and lint':>28}")
    print(" " * 18 + f"{'random':>14}{'aimed':>14}" * 2)
    for score in scores:
        print(score)
    parts = [score for score in scores if score.name != ENGINE]
    if len(parts) > 1:
        sums = (
            tuple(map(sum, zip(*(getattr(part, kind) for part in parts), strict=True)))
            for kind in ("total", "by_tests", "by_all")
        )
        print(Score("all parts", *sums))


def what_tests_find(project: Path, tests: list[str]) -> str:
    """Runs tests of a project, all when none are named; like `what_fails`."""
    vitest = [workbench.NODE, VITEST, "run", "--bail=1", "--no-isolate"]
    return what_fails(project, [*vitest, "--maxWorkers=1", *tests])


def what_tools_find(project: Path) -> str:
    """Runs the type checker and the linter on a project; like `what_fails`."""
    programs = workbench.ROOT / "node_modules/.bin"
    return what_fails(project, [workbench.NODE, programs / "tsc"]) or what_fails(
        project, [workbench.NODE, programs / "biome", "lint", "--error-on-warnings"]
    )


def what_suite_finds(repository: Path, tests: list[str]) -> str:
    """Runs tests of a copy of this repository; like `what_fails`."""
    pytest = [workbench.PYTHON, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    base = f"--basetemp={repository.parent / 'tests'}"
    # Those tests need no plugin, and plugins take longer to load than most tests.
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return what_fails(repository, [*pytest, base, *tests], ENGINE_TIMEOUT, alone)


def what_fails(
    project: Path,
    command: list[str | Path],
    timeout: int = TIMEOUT,
    more: dict[str, str] | None = None,
) -> str:
    """Runs a command in a project.

    Args:
        project: Where.
        command: The command.
        timeout: How many seconds it may take.
        more: More of its environment.

    Returns:
        What it printed when it failed or took too long; else nothing.
    """
    quiet = workbench.quiet_environment()
    environment = {**quiet, "CI": "1", "NO_COLOR": "1", **(more or {})}
    with workbench.started(
        command, cwd=project, env=environment, capture=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"It took longer than {timeout} seconds."
    return "" if process.returncode == 0 else output.decode() or "It failed."


if __name__ == "__main__":
    main()
