"""The catalog: features, providers, starting points, as their folders have them."""

import json

import yaml

from workbench import ROOT

#: Every feature as its `feature.yml` has it, in the order of the sections.
CATALOG = sorted(
    (yaml.safe_load(path.read_text()) for path in ROOT.glob("features/*/feature.yml")),
    key=lambda feature: feature["order"],
)
#: The ids of all features.
FEATURES = [feature["id"] for feature in CATALOG]
#: Every provider of a model as its `provider.yml` has it, the default first.
PROVIDERS = sorted(
    (
        yaml.safe_load(path.read_text())
        for path in ROOT.glob("providers/*/provider.yml")
    ),
    key=lambda provider: provider["order"],
)
#: The features that ask a model.
MODEL_FEATURES = [feature["id"] for feature in CATALOG if "model" in feature]
#: The ids of the package managers.
MANAGERS = [
    manager["id"]
    for manager in yaml.safe_load(
        (ROOT / "extensions/package-managers.yml").read_text()
    )
]
#: The starting points that choose features.
PRESETS = [
    preset
    for preset in yaml.safe_load((ROOT / "extensions/presets.yml").read_text())
    if preset["id"] != "custom"
]
#: The languages of projects, the default first.
LANGUAGES = ["typescript", "javascript"]
#: The layouts of projects.
LAYOUTS = ["single-file", "modules"]
#: The sets of features that the slow tests go through: none, each alone, all.
FEATURE_SETS = [[], *([feature] for feature in FEATURES), FEATURES]
#: The range of compatibility dates.
OLDEST, NEWEST = json.loads((ROOT / "package.json").read_text())["config"][
    "compatibilityDates"
]
#: The sets for each provider beside the default one: the features
#: that ask a model, each alone, and all features; and the provider.
PROVIDER_SETS = [
    (features, provider["id"])
    for provider in PROVIDERS[1:]
    for features in [*([feature] for feature in MODEL_FEATURES), FEATURES]
]


def set_id(features: list[str] | str) -> str:
    """Name a set of features in a test's id and in a project's name.

    Anything that is not a list is its own name, as providers and dates are.
    """
    if features == FEATURES:
        return "all"
    return features if isinstance(features, str) else "-".join(features) or "none"
