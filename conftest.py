"""Shared by all tests: the options of pytest, and rendered projects."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import copier
import plumbum
import pytest

from parts import set_id
from quick_copier import quick_copier
from toolchain import link_toolchain
from workbench import copy_template

pytest_plugins = ["cloudflare", "demo"]

#: How many cases of which tests are left to `--full`.
LEFT_OUT = Counter[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this repository."""
    parser.addoption("--full", action="store_true", help="run every test")
    parser.addoption("--lives", type=int, help="how many random lives to play")


@pytest.hookimpl(trylast=True)  # after -k
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what only `--full` runs, and let each process begin with long tests.

    Else one process would end alone with them: `--dist worksteal` gives each an equal
    share of what is next to each other.
    """
    long = [item for item in items if item.get_closest_marker("full")]
    if not config.getoption("full"):
        left_out, long = long, []
        items[:] = [item for item in items if item not in left_out]
        names = [item.nodeid.split("[")[0].replace("::", " ") for item in left_out]
        getattr(config, "workeroutput", {})["left_out"] = names
        LEFT_OUT.update(names)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    others = [item for item in items if item not in long]
    size = -(-len(others) // processes)
    items[:] = [
        item
        for process in range(processes)
        for item in (
            *long[process::processes],
            *others[process * size : (process + 1) * size],
        )
    ]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take over from a process of pytest-xdist what it has left out, as all have."""
    LEFT_OUT.clear()
    LEFT_OUT.update(getattr(node, "workeroutput", {}).get("left_out", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, how many lives were played, and how to play them again."""
    if LEFT_OUT:
        terminalreporter.section("Left out, until you run python3 test.py --full")
        for name, count in LEFT_OUT.items():
            terminalreporter.write_line(f"{count:4} {name}")
    played: Counter[str] = Counter()
    seeds = set()
    for report in terminalreporter.getreports("passed"):
        properties = dict(report.user_properties)
        played.update(properties.get("played", {}))
        seeds |= {properties["seed"]} if "seed" in properties else set()
    if played:
        counts = ", ".join(f"{count} {what}" for what, count in played.items())
        terminalreporter.write_line(f"Played {counts}; seed: {', '.join(seeds)}")


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep this machine's settings of Copier, Git and signals away from the tests."""
    # A shell lets what it starts in the background ignore Ctrl-C, and all below it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
