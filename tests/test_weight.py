"""The budgets of the generated code, which tools/weigh.py prints."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import weigh
from parts import FEATURES

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
    assert set(weigh.features()) == set(FEATURES)


@pytest.mark.parametrize("part", weigh.BUDGETS)
def test_a_part_keeps_its_budget(make: weigh.Make, part: str) -> None:
    weight = weigh.weigh_part(make, part)
    most = [budget * weigh.TOLERANCE for budget in weigh.BUDGETS[part]]
    found = (weight.src, weight.test, weight.readme)
    assert [n for n, budget in zip(found, most, strict=True) if n > budget] == []


def test_a_model_that_only_structured_output_asks_is_a_third(make: weigh.Make) -> None:
    for provider in weigh.PROVIDERS:
        code = make(("structured-output",), provider) / "src/index.ts"
        assert 0 < weigh.region(code, "provider") <= 70 * weigh.TOLERANCE


def test_a_project_without_features_keeps_its_budgets(make: weigh.Make) -> None:
    found = weigh.files_of(make((), "workers-ai"))
    found["together"] = sum(found.values())
    over = {
        path: found[path] for path, most in weigh.NONE.items() if found[path] > most
    }
    assert over == {}
    assert not [path for path in found if path.startswith("scripts/")]


def test_the_index_of_modules_keeps_its_budget(render: Render) -> None:
    for features in ([], *([feature] for feature in FEATURES), FEATURES):
        project = render(features, layout="modules")
        assert weigh.lines(project / "src/index.ts") <= 50 + 3 * len(features)


def test_agents_md_has_three_lines_per_feature_at_most(render: Render) -> None:
    for features in ([], *([feature] for feature in FEATURES), FEATURES):
        most = weigh.NONE["AGENTS.md"] + 3 * len(features)
        assert weigh.lines(render(features) / "AGENTS.md") <= most


def test_a_project_with_all_features_keeps_its_budgets(make: weigh.Make) -> None:
    found = weigh.files_of(make(weigh.features(), "workers-ai"))
    tests = sum(n for path, n in found.items() if path.startswith("test/"))
    assert found["src/index.ts"] <= weigh.ALL["src/index.ts"]
    assert tests <= weigh.ALL["tests"]
