"""The budgets of the generated code, which tools/weigh.py prints."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import weigh
from parts import FEATURE_SETS, FEATURES, set_id

Render = Callable[..., Path]


@pytest.fixture(scope="module")
def make(render: Render) -> weigh.Make:
    """Return a function that makes each project once."""

    @cache
    def make(features: tuple[str, ...], provider: str) -> Path:
        answers = {"layout": "single-file", "ai_provider": provider}
        return render(list(features), project_name="my-worker", **answers)

    return make


def test_every_feature_has_a_budget() -> None:
    assert set(weigh.FEATURES) == set(FEATURES)


@pytest.mark.parametrize("part", weigh.BUDGETS)
def test_a_part_keeps_its_budget(make: weigh.Make, part: str) -> None:
    weight = weigh.weigh_part(make, part)
    most = [budget * weigh.TOLERANCE for budget in weigh.BUDGETS[part]]
    found = (weight.src, weight.test, weight.readme)
    assert [n for n, budget in zip(found, most, strict=True) if n > budget] == []


@pytest.mark.parametrize("provider", weigh.PROVIDERS)
def test_what_its_one_feature_does_not_ask_of_a_model_is_left_out(
    make: weigh.Make, provider: str
) -> None:
    projects = [make((feature,), provider) for feature in weigh.MODEL]
    regions = [weigh.region(code / "src/index.ts", "provider") for code in projects]
    assert 0 < min(regions) <= 70 * weigh.TOLERANCE


def test_a_project_without_features_keeps_its_budgets(make: weigh.Make) -> None:
    found = weigh.files_of(make((), "workers-ai"))
    code = [n for path, n in found.items() if not path.startswith(".github/")]
    found["together"] = sum(code)
    over = {
        path: found[path] for path, most in weigh.NONE.items() if found[path] > most
    }
    assert over == {}
    assert not [path for path in found if path.startswith("scripts/")]


@pytest.mark.parametrize("features", FEATURE_SETS, ids=set_id)
def test_the_index_of_modules_and_agents_md_keep_their_budgets(
    render: Render, features: list[str]
) -> None:
    project = render(features, layout="modules")
    assert weigh.lines(project / "src/index.ts") <= 50 + 3 * len(features)
    most = weigh.NONE["AGENTS.md"] + 3 * len(features)
    assert weigh.lines(project / "AGENTS.md") <= most


def test_a_project_with_all_features_keeps_its_budgets(make: weigh.Make) -> None:
    found = weigh.files_of(make(weigh.FEATURES, "workers-ai"))
    tests = sum(n for path, n in found.items() if path.startswith("test/"))
    assert found["src/index.ts"] <= weigh.ALL["src/index.ts"]
    assert tests <= weigh.ALL["tests"]
