"""The engine, with features made for tests that use each of its joints."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import oracle
from parts import FEATURES
from projects import config, package
from toolchain import assert_clean, assert_tests_pass, link_toolchain, node_environment
from workbench import NODE, ROOT, copy_template

Render = Callable[..., Path]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with the features of `tests/features` among its own."""
    template = copy_template(tmp_path_factory.mktemp("probed"))
    shutil.copytree(ROOT / "tests/features", template / "features", dirs_exist_ok=True)
    return template


@pytest.fixture(scope="module")
def make(probed: Path, render: Render) -> Render:
    """Return a function that renders a project of that template, with packages."""

    def make(features: list[str], **answers: object) -> Path:
        return link_toolchain(render(features, source=probed, **answers))

    return make


def test_features_that_use_every_joint_are_clean_under_the_tools(make: Render) -> None:
    alone, echo, everything = (
        make(features, project_name=f"joints-{number}")
        for number, features in enumerate(
            (["probe"], ["echo"], ["echo", "probe", *FEATURES])
        )
    )
    assert_works(
        (alone, "probe"), (echo, "echo"), (everything, "probe"), (everything, "echo")
    )


def assert_works(*fixtures: tuple[Path, str]) -> None:
    """Check that the tools find nothing, and that the fixtures' tests pass.

    Args:
        fixtures: Projects, each with the fixture whose tests are run there; those of
            other features run without the fixtures elsewhere.
    """
    assert_clean(*dict.fromkeys(project for project, _ in fixtures))
    assert_tests_pass(*(project / f"test/{name}.test.ts" for project, name in fixtures))


def test_dev_runs_its_steps_before_and_beside_wrangler(make: Render) -> None:
    manifest = package(make(["probe"]))
    assert manifest["scripts"]["dev"] == (
        "node scripts/probe-step.mjs before"
        " && node scripts/probe-step.mjs beside wrangler dev"
    )


def test_deploy_runs_its_step_first_and_stops_when_it_fails(make: Render) -> None:
    project = make(["probe"])
    deploy = [NODE, "--run", "deploy", "--", "--dry-run"]
    options = {
        "cwd": project,
        "env": node_environment(),
        "capture_output": True,
        "text": True,
    }
    output = subprocess.run(deploy, check=True, **options).stdout
    assert output.index("probe step: deploy") < output.index("exiting now")

    (project / "scripts/probe-step.mjs").write_text("process.exit(3);")
    failed = subprocess.run(deploy, check=False, **options)
    assert failed.returncode != 0
    assert "exiting now" not in failed.stdout


def test_fragments_merge_and_names_are_filled_in(make: Render) -> None:
    with_objects = next(id for id in FEATURES if oracle.classes([id]))
    project = make(["probe", with_objects])
    wrangler = config(project)
    assert wrangler["queues"] == {
        "producers": [{"binding": "PROBE_QUEUE", "queue": "my-worker-probe"}],
        "consumers": [{"queue": "my-worker-probe", "max_batch_size": 1}],
    }
    assert wrangler["triggers"] == {"crons": ["*/5 * * * *"]}
    assert wrangler["secrets"]["required"] == ["API_TOKEN", "PROBE_KEY"]
    classes = [*oracle.classes([with_objects]).values(), "Probe"]
    assert wrangler["migrations"] == [{"tag": "v1", "new_sqlite_classes": classes}]
    assert "// One at a time\n" in (project / "wrangler.jsonc").read_text()


def test_a_nested_file_arrives_where_it_belongs(make: Render) -> None:
    project = make(["probe"])
    nested = project / "migrations/nested/0001_probe.sql"
    assert nested.read_text() == "SELECT 1;\n"


def test_a_condition_joins_two_features_only_when_both_are_there(
    make: Render,
) -> None:
    alone = (make(["probe"]) / "src/index.ts").read_text()
    together = (make(["probe", "echo"]) / "src/index.ts").read_text()
    assert "echo" not in alone
    assert "\t\techo: true,\n" in together
    assert "//%" not in together


def test_the_example_of_secrets_names_each_and_holds_none(make: Render) -> None:
    lines = (make(["probe"]) / ".dev.vars.example").read_text().splitlines()
    values = [line for line in lines if line and not line.startswith("#")]
    assert values == ["API_TOKEN=", "PROBE_KEY="]
