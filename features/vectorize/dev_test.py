"""The index of Vectorize and the binding of Workers AI, as projects describe them."""

import re
from collections.abc import Callable
from pathlib import Path

import json5
import pytest

from parts import PROVIDERS

Render = Callable[..., Path]


def test_the_recipe_creates_the_index_that_the_code_fills(render: Render) -> None:
    project = render(["vectorize"], project_name="shop")
    code = (project / "src/index.ts").read_text()
    (dimensions,) = re.findall(r"EMBEDDING_DIMENSIONS = (\d+);", code)
    command = "npx wrangler vectorize create shop-documents"
    options = f"--dimensions={dimensions} --metric=cosine"
    assert f"\n{command} {options} " in (project / "README.md").read_text()


@pytest.mark.parametrize("provider", [one["id"] for one in PROVIDERS])
@pytest.mark.parametrize("others", [[], ["structured-output"], ["agents"]])
def test_one_binding_of_workers_ai_serves_the_search_and_the_model(
    render: Render, others: list[str], provider: str
) -> None:
    project = render(["vectorize", *others], ai_provider=provider)
    text = (project / "wrangler.jsonc").read_text()
    assert text.count('"ai": {') == 1
    config = json5.loads(text)
    assert config["ai"] == {"binding": "AI", "remote": True}
    asks_openly = others != [] and provider == "workers-ai"
    assert ("AI_MODEL" in config["vars"]) == (others != [])
    assert asks_openly == config["vars"].get("AI_MODEL", "").startswith("@cf/")
