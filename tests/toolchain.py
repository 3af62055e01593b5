"""The real tools, run on generated projects: types, linter, tests, bundler, Git."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import json5

import workbench
from workbench import NODE, ROOT

VITEST = ROOT / "node_modules/vitest/vitest.mjs"


WRANGLER = ROOT / "node_modules/wrangler/wrangler-dist/cli.js"


#: The types of the runtime that `write_types` has made, by compatibility date.
RUNTIME_TYPES: dict[str, str] = {}


def node_environment() -> dict[str, str]:
    """Return an environment in which the Workers tools run quietly and offline."""
    # Programs in Go, the type checker most of all, spend half of their time
    # collecting garbage, unless they may use a few times more memory.
    own = {"CI": "1", "NO_COLOR": "1", "GOGC": "400"}
    # Vitest's cache in our packages would serve one folder only.
    own["VITEST_FS_MODULE_CACHE"] = "false"
    quiet = workbench.quiet_environment()
    # Programs that Wrangler starts by name, as below a package manager's script.
    own["PATH"] = f"{ROOT}/node_modules/.bin:{quiet['PATH']}"
    return {**quiet, **own}


def run(
    command: list[str | Path],
    directory: Path,
    environment: dict[str, str] | None = None,
) -> str:
    """Run a command of the toolchain.

    Args:
        command: The program and its arguments.
        directory: Where it runs.
        environment: Its environment; by default `node_environment`.

    Returns:
        What it printed, both streams.

    Raises:
        AssertionError: With the output, when its exit status is not 0.
    """
    result = subprocess.run(
        command,
        cwd=directory,
        env=environment or node_environment(),
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
    tests = [test.as_posix() for test in directory.glob("test/**/*.test.[jt]s")]
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
        configs = [str(*one.glob("vitest.config.[jt]s")) for one in directories]
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
	entryPoints: process.argv.slice(1).map((folder) => `${folder}/src/index`),
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
        directories: Projects, with their packages. JavaScript is not type-checked.
    """
    typed = [one for one in directories if (one / "tsconfig.json").exists()]
    write_types(*typed)
    configs = []
    for directory in typed:
        manifest = json.loads((directory / "package.json").read_text())
        commands = manifest["scripts"]["typecheck"].split(" && ")
        for command in commands:
            program, *options = command.split()
            assert program in ("node", "tsc", "vite")
            if program == "tsc":
                configs.append(directory / (options or ["tsconfig.json"])[-1])
    # One thread: the other processors have tests of their own.
    threads = ["--builders", "1", "--checkers", "1"]
    if configs:
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
