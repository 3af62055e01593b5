"""Every pair of features: the oracle, types, type checker, format, lint and a bundle.

Where two features meet is where composing can go wrong; more than two meet in
the project of all, which has tests of its own.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import oracle
from parts import FEATURES, LANGUAGES
from toolchain import assert_checked, bundle_sizes

Project = Callable[..., Path]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("first", FEATURES[:-1])
@pytest.mark.full
def test_pairs_are_clean_under_the_tools(
    project: Project, first: str, language: str
) -> None:
    others = FEATURES[FEATURES.index(first) + 1 :]
    # Many at once: a process of the tools takes longer to start than to check one.
    pairs = [project([first, other], language=language) for other in others]
    for other, pair in zip(others, pairs, strict=True):
        oracle.assert_foretold(pair, [first, other], language=language)
    assert_checked(*pairs)
    bundle_sizes(*pairs)
