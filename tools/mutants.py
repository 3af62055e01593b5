"""Changes the code of a part one line at a time, and counts what its tests notice.

A part is a feature, a base part or a provider. Each mutant is one small change of
its code in a generated project, which the project's own tests should notice. The
type checker and the linter are asked about those that get through.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mutations
import workbench
from mutations import Mutant

VITEST = workbench.ROOT / "node_modules/vitest/vitest.mjs"
WRANGLER = workbench.ROOT / "node_modules/wrangler/wrangler-dist/cli.js"
#: For each part a file with mutants that matter (`aimed`, each with a `why`, what to
#: `find` and what to `replace` it by) and those that make no difference (`ignore`,
#: each with its `line`, what that `becomes` and `because` of what).
TABLES = workbench.ROOT / "tests/mutants"
#: How long the tests may take, in seconds: a mutant may loop.
TIMEOUT = 90


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


def main() -> None:
    """Does what the command line says."""
    options = parse_arguments()
    workbench.set_up_python()
    workbench.set_up_npm("Setting up npm packages in node_modules")
    # The tables are YAML, which only the Python of `.venv` reads.
    if Path(sys.prefix) != workbench.VENV:
        os.execv(workbench.PYTHON, [workbench.PYTHON, *sys.argv])
    try:
        for part in options.parts or all_parts():
            measure(find_part(part, options.features), options)
    except KeyboardInterrupt:
        sys.exit(130)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line.

    Raises:
        SystemExit: It asks for help, or makes no sense.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="the name of its folder (default: all)"
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
    chosen = features.split(",") if features else []
    if kind == "features":
        return Part(folder, chosen or [id, *joints(folder)])
    users = [
        path.parent.name
        for path in sorted((workbench.ROOT / "features").glob("*/worker.ts"))
        if imports(path, "providers" if kind == "providers" else f"base/{id}")
    ]
    # More features would only make it slow: these use most of the base.
    few = [user for user in ("auth", "alarms", "websockets") if user in users]
    provider = id if kind == "providers" else ""
    return Part(folder, chosen or few or users[:3], provider)


def joints(folder: Path) -> list[str]:
    """Returns the features beside which the code of a part does more."""
    code = (folder / "worker.ts").read_text()
    found = re.findall(r'^\s*//% if "([\w-]+)" in features', code, re.MULTILINE)
    return list(dict.fromkeys(found))


def imports(code: Path, folder: str) -> bool:
    """Tells whether a file imports from a folder of this repository."""
    return bool(re.search(rf'from "\.\./\.\./{folder}/', code.read_text()))


def load_yaml(path: Path) -> dict:
    """Reads a file of YAML."""
    import yaml

    return yaml.safe_load(path.read_text()) or {}


def measure(part: Part, options: argparse.Namespace) -> None:
    """Runs the mutants of a part, and prints what survived and the score."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        project = Path(name, "0", "my-worker")
        answers = [f"features={json.dumps(part.features)}"]
        if part.provider:
            answers.append(f"ai_provider={part.provider}")
        project.parent.mkdir()
        workbench.copy_project(project, *answers)
        (project / "node_modules").symlink_to(workbench.ROOT / "node_modules")
        mutants, ignored = choose(part, project, options)
        if options.list:
            print("\n".join(map(str, mutants)))
            return
        types = ["types", "--strict-vars=false"]
        workbench.run("Types", [workbench.NODE, WRANGLER, *types], cwd=project)
        print(f"{part.id}: {len(mutants)} mutants ...", flush=True)
        tests = tests_of(part, project)
        if found := what_tests_find(project, tests):
            sys.exit(f"{found}\n{part.id}: its tests fail without a mutant.")
        projects = queue.Queue[Path]()
        projects.put(project)
        for number in range(1, options.jobs):
            shutil.copytree(project.parent, Path(name, str(number)), symlinks=True)
            projects.put(Path(name, str(number), project.name))
        survivors = run_all(mutants, projects, tests, options.jobs)
        report(part, mutants, survivors, ignored)


def choose(
    part: Part, project: Path, options: argparse.Namespace
) -> tuple[list[Mutant], int]:
    """Chooses the mutants of a part.

    Returns:
        Them, and how many were left out since the table argues that they make no
        difference.

    Raises:
        SystemExit: The table names code that is not there.
    """
    code = (project / "src/index.ts").read_text()
    aimed = aimed_mutants(part, code)
    drawn = [
        mutant
        for mutant in mutations.enumerate_all(code, part.region)
        if mutant not in aimed and not options.aimed
    ]
    ignore = ignored_changes(part)
    kept = [mutant for mutant in drawn if (mutant.line, mutant.becomes) not in ignore]
    ignored = len(drawn) - len(kept)
    if options.sample and len(kept) > options.sample:
        kept = random.Random(options.seed).sample(kept, options.sample)
    mutants = [*aimed, *sorted(kept, key=lambda mutant: mutant.start)]
    return [mutant for mutant in mutants if options.match in mutant.line], ignored


def aimed_mutants(part: Part, code: str) -> list[Mutant]:
    """Returns the mutants that the table of a part describes.

    Args:
        part: The part.
        code: The `src/index.ts` of its project.

    Raises:
        SystemExit: One is about code that is not there, or more than once.
    """
    return [
        mutations.aimed(code, part.region, entry["find"], entry["replace"])
        for entry in part.table.get("aimed", [])
    ]


def ignored_changes(part: Part) -> set[tuple[str, str]]:
    """Returns lines, and what becomes of them, that make no difference."""
    return {(entry["line"], entry["becomes"]) for entry in part.table.get("ignore", [])}


def tests_of(part: Part, project: Path) -> list[str]:
    """Returns the test files that should notice: a feature's own, else all."""
    own = project / "test" / f"{part.id}.test.ts"
    if part.folder.parent.name == "features" and own.exists():
        return [str(own.relative_to(project))]
    return []


def run_all(
    mutants: list[Mutant], projects: "queue.Queue[Path]", tests: list[str], jobs: int
) -> list[tuple[Mutant, bool]]:
    """Runs mutants, and returns those that the tests did not notice.

    With each comes whether the type checker or the linter noticed it.
    """
    lock = threading.Lock()
    survivors: list[tuple[Mutant, bool]] = []

    def run(mutant: Mutant) -> None:
        project = projects.get()
        try:
            source = project / "src/index.ts"
            original = source.read_text()
            source.write_text(mutant.apply(original))
            noticed = bool(what_tests_find(project, tests))
            noticed_by_tools = not noticed and bool(what_tools_find(project))
            source.write_text(original)
        finally:
            projects.put(project)
        if not noticed:
            with lock:
                survivors.append((mutant, noticed_by_tools))
                by = " (but the type checker or the linter)" * noticed_by_tools
                print(f"not noticed{by}:\n{mutant}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, mutants))
    return survivors


def report(
    part: Part,
    mutants: list[Mutant],
    survivors: list[tuple[Mutant, bool]],
    ignored: int,
) -> None:
    """Prints the score of a part."""
    total = max(len(mutants), 1)
    by_tests = total - len(survivors)
    by_tools = sum(noticed for _, noticed in survivors)
    print(
        f"{part.id}: tests noticed {by_tests} of {len(mutants)} "
        f"({by_tests / total:.0%}), with types and lint "
        f"{(by_tests + by_tools) / total:.0%}; {ignored} make no difference\n",
        flush=True,
    )


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


def what_fails(project: Path, command: list[str | Path]) -> str:
    """Runs a command in a project.

    Returns:
        What it printed when it failed or took longer than `TIMEOUT`; else nothing.
    """
    environment = workbench.quiet_environment() | {"CI": "1", "NO_COLOR": "1"}
    with workbench.started(
        command, cwd=project, env=environment, capture=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"It took longer than {TIMEOUT} seconds."
    return "" if process.returncode == 0 else output.decode() or "It failed."


if __name__ == "__main__":
    main()
