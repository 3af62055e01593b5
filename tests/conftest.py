"""What all tests share: the catalog, rendered projects and the real toolchain."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import copier
import json5
import plumbum
import pytest
import yaml

import workbench
from quick_copier import quick_copier
from workbench import NODE, ROOT, copy_template

VITEST = ROOT / "node_modules/vitest/vitest.mjs"
WRANGLER = ROOT / "node_modules/wrangler/wrangler-dist/cli.js"
#: The types of the runtime that `write_types` has made, by compatibility date.
RUNTIME_TYPES: dict[str, str] = {}

#: Every feature as its `feature.yml` has it, in the order of the sections.
CATALOG = sorted(
    (yaml.safe_load(path.read_text()) for path in ROOT.glob("features/*/feature.yml")),
    key=lambda feature: feature["order"],
)
#: The ids of all features.
FEATURES = [feature["id"] for feature in CATALOG]
#: Every provider of a model as its `provider.yml` has it, the default first.
PROVIDERS = sorted(
    (
        yaml.safe_load(path.read_text())
        for path in ROOT.glob("providers/*/provider.yml")
    ),
    key=lambda provider: provider["order"],
)
#: The features that ask a model.
MODEL_FEATURES = [feature["id"] for feature in CATALOG if "model" in feature]
#: The ids of the package managers.
MANAGERS = [
    manager["id"]
    for manager in yaml.safe_load(
        (ROOT / "extensions/package-managers.yml").read_text()
    )
]
#: The starting points that choose features.
PRESETS = [
    preset
    for preset in yaml.safe_load((ROOT / "extensions/presets.yml").read_text())
    if preset["id"] != "custom"
]
#: The sets of features that the slow tests go through: none, each alone, all.
FEATURE_SETS = [[], *([feature] for feature in FEATURES), FEATURES]
#: The range of compatibility dates.
OLDEST, NEWEST = json.loads((ROOT / "package.json").read_text())["config"][
    "compatibilityDates"
]
#: What they go through with each provider beside the default one: the features
#: that ask a model, each alone, and all features; and the provider.
PROVIDER_SETS = [
    (features, provider["id"])
    for provider in PROVIDERS[1:]
    for features in [*([feature] for feature in MODEL_FEATURES), FEATURES]
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that write things anew, and that of the random lives."""
    parser.addoption("--write-examples", action="store_true")
    parser.addoption("--write-screenshots", action="store_true")
    parser.addoption("--lives", type=int, help="how many random lives to play")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process begin with slow tests, so that none ends alone with them.

    `--dist worksteal` gives each an equal share of what is next to each other.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if item not in slow]
    size = -(-len(others) // processes)
    items[:] = [
        item
        for process in range(processes)
        for item in (
            *slow[process::processes],
            *others[process * size : (process + 1) * size],
        )
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many random lives were played, and how to play them again."""
    played: Counter[str] = Counter()
    seeds = set()
    for report in terminalreporter.getreports("passed"):
        properties = dict(report.user_properties)
        played.update(properties.get("played", {}))
        seeds |= {properties["seed"]} if "seed" in properties else set()
    if played:
        counts = ", ".join(f"{count} {what}" for what, count in played.items())
        terminalreporter.write_line(f"Played {counts}; seed: {', '.join(seeds)}")


def set_id(features: list[str] | str) -> str:
    """Name a set of features in a test's id and in a project's name.

    What is no list names itself, as providers and dates do.
    """
    if features == FEATURES:
        return "all"
    return features if isinstance(features, str) else "-".join(features) or "none"


def node_environment() -> dict[str, str]:
    """Return an environment in which the Workers tools run quietly and offline."""
    # Programs in Go, the type checker most of all, spend half of their time
    # collecting garbage, unless they may use a few times more memory.
    own = {"CI": "1", "NO_COLOR": "1", "GOGC": "400"}
    # What Vitest keeps for its next run, in our packages, serves one folder alone.
    own["VITEST_FS_MODULE_CACHE"] = "false"
    quiet = workbench.quiet_environment()
    # What Wrangler starts by name, as it finds it below a package manager's script.
    own["PATH"] = f"{ROOT}/node_modules/.bin:{quiet['PATH']}"
    return {**quiet, **own}


def run(command: list[str | Path], directory: Path) -> str:
    """Run a command of the toolchain.

    Args:
        command: The program and its arguments.
        directory: Where it runs.

    Returns:
        What it printed, both streams.

    Raises:
        AssertionError: With the output, when its exit status is not 0.
    """
    result = subprocess.run(
        command,
        cwd=directory,
        env=node_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, f"{directory}:\n{result.stdout}"
    return result.stdout


def node(directory: Path, script: Path | str, *arguments: str) -> str:
    """Run a JavaScript program; like `run`.

    Args:
        directory: Where it runs.
        script: The program, or a name in `node_modules/.bin`.
        arguments: What it is given.
    """
    program = ROOT / "node_modules/.bin" / script if isinstance(script, str) else script
    return run([NODE, program, *arguments], directory)


def run_tests(directory: Path, *files: str) -> str:
    """Run a project's own tests in one runtime; like `run`.

    With a runtime for each file, as in `npm test`, it takes three times as long.

    Args:
        directory: The project, with its packages.
        files: Parts of the names of the test files; by default all of them.
    """
    options = ["--no-isolate", "--maxWorkers=1"]
    tests = [test.as_posix() for test in directory.glob("test/**/*.test.ts")]
    # Vitest would leave out what it does not find, as long as it finds one.
    assert all(any(file in test for test in tests) for file in files), files
    return node(directory, VITEST, "run", *options, *files)


def no_test_of(result: dict) -> dict:
    """Return what Vitest reports of a file as if it were a test of its own."""
    return {"fullName": "", "failureMessages": [result["message"]], **result}


def assert_tests_pass(*tests: Path) -> None:
    """Check that tests of many projects pass, in one run of Vitest.

    The files of a project share a runtime, as in `run_tests`.

    Args:
        tests: The test files, of projects with their packages, whose folders have
            different names.
    """
    with TemporaryDirectory() as folder:
        workspace = Path(folder)
        (workspace / "node_modules").symlink_to(ROOT / "node_modules")
        directories = dict.fromkeys(test.parent.parent for test in tests)
        configs = [str(directory / "vitest.config.ts") for directory in directories]
        config = json.dumps({"test": {"projects": configs}})
        (workspace / "vitest.config.mjs").write_text(f"export default {config};\n")
        report = workspace / "report.json"
        # One at once: the other processors have tests of their own.
        options = ["--no-isolate", "--maxWorkers=1", "--reporter=json"]
        options += [f"--outputFile={report}"]
        failed = ""
        try:
            node(workspace, VITEST, "run", *options, *map(str, tests))
        except AssertionError as error:
            failed = str(error)
        assert report.exists(), failed
        results = json.loads(report.read_text())["testResults"]
    failures = [
        f"{result['name']}: {test['fullName']}: {' '.join(test['failureMessages'])}"
        for result in results
        for test in result["assertionResults"] or [no_test_of(result)]
        if test["status"] != "passed"
    ]
    # An error outside of all tests is in no list.
    assert not failures and not failed, "\n".join(failures) or failed
    # A project whose config is broken goes missing instead of failing.
    assert {result["name"] for result in results} == set(map(str, tests))


#: Writes the types of the bindings of many projects, which it gets as arguments.
WRITE_TYPES = """
const { writeFileSync } = require("node:fs");
const { experimental_generateTypes } = require("wrangler");
const options = { includeRuntime: false, strictVars: false };
(async () => {
    for (const project of process.argv.slice(1)) {
        process.chdir(project);
        const config = `${project}/wrangler.jsonc`;
        const { content } = await experimental_generateTypes({ config, ...options });
        writeFileSync("worker-configuration.d.ts", content);
    }
})();
"""


def write_types(*directories: Path) -> None:
    """Write the types of projects, as `wrangler types` does, but all in one process.

    Those of the runtime take long and are the same for every project of a date,
    so they are only made once.
    """
    run([NODE, "--eval", WRITE_TYPES, "--", *directories], ROOT)
    for directory in directories:
        types = directory / "worker-configuration.d.ts"
        own = types.read_text()
        date = json5.loads((directory / "wrangler.jsonc").read_text())[
            "compatibility_date"
        ]
        if date not in RUNTIME_TYPES:
            node(directory, WRANGLER, "types", "--include-env=false")
            RUNTIME_TYPES[date] = types.read_text()
        types.write_text(own + RUNTIME_TYPES[date])


#: Bundles the Workers of many projects, which it gets as arguments, with Wrangler's
#: esbuild; Wrangler itself would take a process for each. Prints their sizes.
BUNDLE = """
const { builtinModules, createRequire } = require("node:module");
const { gzipSync } = require("node:zlib");
const ofWrangler = createRequire(require.resolve("wrangler/package.json"));
const { outputFiles } = ofWrangler("esbuild").buildSync({
	entryPoints: process.argv.slice(1).map((folder) => `${folder}/src/index.ts`),
	outdir: "/", // Where the files would go, if they were written.
	write: false,
	bundle: true,
	minify: true,
	format: "esm",
	conditions: ["workerd", "worker", "browser"],
	external: ["cloudflare:*", "node:*", ...builtinModules],
});
const sizes = outputFiles.map(({ contents }) => gzipSync(contents).length);
process.stdout.write(JSON.stringify(sizes));
"""


def bundle_sizes(*directories: Path) -> list[int]:
    """Bundle the Workers of projects, all in one process.

    Args:
        directories: Projects, with their packages.

    Returns:
        The size of each bundle, in bytes of gzip.

    Raises:
        AssertionError: One can't be bundled, or esbuild warns.
    """
    *warnings, sizes = run([NODE, "--eval", BUNDLE, "--", *directories], ROOT).split(
        "\n"
    )
    assert not warnings, warnings
    return json.loads(sizes)


def assert_deployable(directory: Path) -> None:
    """Check that Wrangler would deploy a project, and warns of nothing."""
    output = node(directory, WRANGLER, "deploy", "--dry-run")
    assert "WARNING" not in output, f"{directory}:\n{output}"


def assert_checked(*directories: Path) -> None:
    """Check that types, type checker, format and lint find nothing.

    Args:
        directories: Projects, with their packages.
    """
    write_types(*directories)
    configs = []
    for directory in directories:
        manifest = json.loads((directory / "package.json").read_text())
        _, *commands = manifest["scripts"]["typecheck"].split(" && ")
        for command in commands:
            program, *options = command.split()
            assert (program, options[:-1]) in [("tsc", []), ("tsc", ["-p"])]
            configs.append(directory / (options or ["tsconfig.json"])[-1])
    # One thread: the other processors have tests of their own.
    threads = ["--builders", "1", "--checkers", "1"]
    node(ROOT, "tsc", "--build", *threads, *map(str, configs))
    for directory in directories:
        node(directory, "biome", "check", "--error-on-warnings")
        for written in directory.glob("**/*.tsbuildinfo"):
            written.unlink()


def assert_clean(*directories: Path) -> None:
    """Check that types, type checker, format, lint and bundler find nothing.

    Args:
        directories: Projects, with their packages. Wrangler itself bundles the last,
            as a process for each takes long.
    """
    assert_checked(*directories)
    bundle_sizes(*directories)
    assert_deployable(directories[-1])


def git(directory: Path, *arguments: str) -> str:
    """Run Git in a directory and return what it printed."""
    return subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


def commit(directory: Path, message: str) -> None:
    """Commit everything in a directory, which becomes a repository if it is none."""
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", message)


def release(template: Path, version: str) -> None:
    """Commit everything in a template and tag it."""
    commit(template, f"Release {version}")
    git(template, "tag", version)


def run_copier(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `copier`, as installed, without a terminal; return how it went."""
    return subprocess.run(
        [sys.executable, "-I", "-m", "copier", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def link_toolchain(project: Path) -> Path:
    """Give a project the one installation of all packages; return the project."""
    (project / "node_modules").symlink_to(ROOT / "node_modules")
    return project


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep this machine's settings of Copier and of Git away from the tests."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "copier.yml").write_text("{}\n")
    # Repositories that live for seconds need no care for a longer life.
    care = "[core]\nfsync = none\ncompression = 0\n[maintenance]\nauto = false\n"
    (folder / "gitconfig").write_text(care)
    with pytest.MonkeyPatch.context() as patch:
        settings = {
            "COPIER_SETTINGS_PATH": str(folder / "copier.yml"),
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        for role in ("AUTHOR", "COMMITTER"):
            settings[f"GIT_{role}_NAME"] = "Tester"
            settings[f"GIT_{role}_EMAIL"] = "tester@example.com"
        for name, value in settings.items():
            patch.setenv(name, value)
            # With its own copy, Copier in this process runs Git.
            patch.setitem(plumbum.local.env, name, value)
        yield


@pytest.fixture
def quick() -> Iterator[None]:
    """Copier that reads and compiles each release once."""
    with quick_copier():
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a plain folder, without history."""
    return copy_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def render(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that renders a project in this process.

    It takes the features and, as keywords, further answers; `source` names
    another template than the working tree. The layout is `single-file` unless it
    says otherwise. It returns the project's folder.
    """

    def render(features: list[str], source: Path = template, **answers: object) -> Path:
        name = str(answers.get("project_name", "my-worker"))
        answers.setdefault("layout", "single-file")
        project = tmp_path_factory.mktemp("render") / name
        with quick_copier():
            copier.run_copy(
                str(source),
                project,
                data={"features": features, **answers},
                defaults=True,
                quiet=True,
            )
        return project

    return render


@pytest.fixture(scope="session")
def project(render: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function like `render` whose projects have packages and contract tests.

    A project that was asked for before comes back as it was left: what is edited
    needs a `project_name` of its own.
    """
    made: dict[str, Path] = {}

    def project(features: list[str], **answers: object) -> Path:
        key = repr((features, sorted(answers.items())))
        if key not in made:
            answers.setdefault("project_name", f"test-{set_id(features)}")
            made[key] = link_toolchain(render(features, contracts=True, **answers))
        return made[key]

    return project
