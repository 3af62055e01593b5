"""Generated projects under the real tools, offline, right after install.

Every project goes through types, the type checker, the linter and a bundle, and
the tests of every feature through the Workers runtime at both ends of the range
of compatibility dates.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from parts import (
    FEATURE_SETS,
    MODEL_FEATURES,
    NEWEST,
    OLDEST,
    PRESETS,
    PROVIDER_SETS,
    PROVIDERS,
    set_id,
)
from toolchain import (
    assert_checked,
    assert_deployable,
    assert_tests_pass,
    bundle_sizes,
    node,
    run,
    run_tests,
)
from tools import write
from workbench import NPM, ROOT

Project = Callable[..., Path]

DEFAULT_PROVIDER = PROVIDERS[0]["id"]
#: The sets of features, the provider of a model, and the layout.
PROJECTS = [(features, DEFAULT_PROVIDER, "single-file") for features in FEATURE_SETS]
NONE, *_, ALL = PROJECTS
#: The same with the other providers, where they make a difference.
PROVIDER_PROJECTS = [(*provider_set, "single-file") for provider_set in PROVIDER_SETS]
#: All features with each provider but the default one.
EVERYTHING = [one for one in PROVIDER_PROJECTS if one[0] == ALL[0]]
#: All that ask a model, with the same providers.
ASKING = [(MODEL_FEATURES, one["id"], "single-file") for one in PROVIDERS[1:]]
#: The starting points, for which more is at stake than for any other few.
PRESET_PROJECTS = [
    (preset["features"], DEFAULT_PROVIDER, "single-file") for preset in PRESETS
]

#: A project at a time, so that `-k` finds all that tests one feature; grouped, so that
#: it is made once.
each_set = pytest.mark.parametrize("features", FEATURE_SETS, ids=set_id, scope="module")


def as_modules(projects: list[tuple]) -> list[tuple]:
    """Return the same projects as modules; the code of one is that of its section."""
    return [(features, provider, "modules") for features, provider, _ in projects]


def make(
    project: Project,
    features: list[str],
    provider: str = DEFAULT_PROVIDER,
    layout: str = "single-file",
    date: str = NEWEST,
) -> Path:
    """Make a project of one of `PROJECTS` or their like, with a name of its own."""
    return project(
        features,
        ai_provider=provider,
        layout=layout,
        compatibility_date=date,
        project_name=f"{set_id(features)}-{provider}-{date}-{layout}"[:54].strip("-"),
    )


@each_set
def test_a_project_is_clean_under_the_tools(
    project: Project, features: list[str]
) -> None:
    made = make(project, features)
    assert_checked(made)
    bundle_sizes(made)
    assert_deployable(made)


@each_set
def test_the_own_tests_of_a_project_pass(project: Project, features: list[str]) -> None:
    run_tests(make(project, features))


def test_all_features_as_modules_are_clean(project: Project) -> None:
    made = make(project, *as_modules([ALL])[0])
    assert_checked(made)
    bundle_sizes(made)


@pytest.mark.full
@pytest.mark.parametrize(
    ("projects", "date"),
    [
        ([ALL], OLDEST),
        (PROVIDER_PROJECTS, NEWEST),
        (PRESET_PROJECTS, NEWEST),
        (as_modules(PROJECTS[:-1]), NEWEST),
        (as_modules(PROVIDER_PROJECTS), NEWEST),
    ],
    ids=["oldest", "providers", "presets", "modules", "providers-as-modules"],
)
def test_the_same_with_other_answers_is_clean(
    project: Project, projects: list[tuple], date: str
) -> None:
    # Many at once: a process of the tools takes longer to start than to check one.
    made = [make(project, *answers, date) for answers in projects]
    assert_checked(*made)
    bundle_sizes(*made)
    assert_deployable(made[-1])


@pytest.mark.full
def test_the_bundle_of_all_features_is_no_larger_than_the_sum_of_its_parts(
    project: Project,
) -> None:
    none, *alone, everything = bundle_sizes(*(make(project, *one) for one in PROJECTS))
    assert everything <= none + sum(size - none for size in alone)


@pytest.mark.parametrize("features", [[], FEATURE_SETS[-1]], ids=set_id)
def test_a_project_with_the_longest_name_is_formatted(
    project: Project, features: list[str]
) -> None:
    directory = project(features, project_name="n" * 54)
    node(directory, "biome", "check", "--error-on-warnings")


@pytest.mark.full
@pytest.mark.parametrize(
    ("projects", "date"),
    [
        # The date changes the runtime and not how features join, so the project
        # of all, which has the tests of each, stands for the others; as modules,
        # since the layout does not change the runtime either.
        ([NONE, *as_modules([ALL]), *ASKING], OLDEST),
        (EVERYTHING, NEWEST),
        # The last has a test of its own, below.
        (PRESET_PROJECTS[:-1], NEWEST),
        (as_modules([NONE, *EVERYTHING]), NEWEST),
    ],
    ids=["oldest", "providers", "presets", "modules"],
)
def test_the_own_tests_pass_with_other_answers(
    project: Project, projects: list[tuple], date: str
) -> None:
    tests = [
        test
        for features, provider, layout in projects
        for test in make(project, features, provider, layout, date).glob(
            "test/*.test.ts"
        )
        # The others are the same with every provider.
        if provider == DEFAULT_PROVIDER
        or test.name.split(".")[0] in [*MODEL_FEATURES, "provider"]
    ]
    assert_tests_pass(*tests)


def test_the_sources_type_check_where_they_stand() -> None:
    write.write_types()
    node(ROOT, "tsc", "--project", "tsconfig.json")


@pytest.mark.full
def test_the_tests_of_a_preset_pass_each_in_a_runtime_of_its_own(
    project: Project,
) -> None:
    # As users run them. Elsewhere those of a project share one, which is much faster.
    features, _, _ = PRESET_PROJECTS[-1]
    run([NPM, "run", "test"], project(features, project_name="isolated"))


@pytest.mark.parametrize("script", ["test", "typecheck", "check", "postinstall"])
def test_the_scripts_do_all_of_their_own_work(project: Project, script: str) -> None:
    directory = project([], project_name="scripts")
    (directory / "worker-configuration.d.ts").unlink(missing_ok=True)
    run([NPM, "run", script], directory)
    makes_types = script in ("typecheck", "postinstall")
    assert (directory / "worker-configuration.d.ts").exists() == makes_types


def test_a_floating_promise_is_an_error(project: Project) -> None:
    directory = project([], project_name="floating")
    code = directory / "src/index.ts"
    code.write_text(
        code.read_text().replace(
            "// Your code\n",
            "// Your code\n\n"
            "async function work(): Promise<void> {}\n\n"
            'app.get("/work", (c) => {\n\twork();\n\treturn c.body(null, 204);\n});\n',
        )
    )
    with pytest.raises(AssertionError, match="noFloatingPromises"):
        node(directory, "biome", "check")
