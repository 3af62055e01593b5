"""Every pair of features: types, type checker, format, lint and a bundle.

Where two features meet is where composing can go wrong; more than two meet in
the project of all, which has tests of its own.
"""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from conftest import FEATURES, WRANGLER, node

Project = Callable[..., Path]

TYPES = "worker-configuration.d.ts"


@pytest.fixture(scope="module")
def runtime_types(project: Project) -> str:
    """The types of the runtime: the long part, and the same for every pair."""
    directory = project([], project_name="runtime-types")
    node(directory, WRANGLER, "types", "--include-env=false")
    return (directory / TYPES).read_text()


@pytest.mark.parametrize("pair", list(combinations(FEATURES, 2)), ids="-and-".join)
def test_a_pair_is_clean_under_the_tools(
    project: Project, runtime_types: str, pair: tuple[str, str]
) -> None:
    directory = project(list(pair))
    options = ("--strict-vars=false", "--include-runtime=false")
    node(directory, WRANGLER, "types", *options)
    with (directory / TYPES).open("a") as types:
        types.write(runtime_types)

    node(directory, "tsc")
    node(directory, "biome", "check", "--error-on-warnings")
    output = node(directory, WRANGLER, "deploy", "--dry-run")
    assert "WARNING" not in output
