"""Every pair of features: types, type checker, format, lint and a bundle.

Where two features meet is where composing can go wrong; more than two meet in
the project of all, which has tests of its own.
"""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from conftest import FEATURES, assert_clean

Project = Callable[..., Path]


@pytest.mark.parametrize("pair", list(combinations(FEATURES, 2)), ids="-and-".join)
def test_a_pair_is_clean_under_the_tools(project: Project, pair: tuple[str]) -> None:
    assert_clean(project(list(pair)))
