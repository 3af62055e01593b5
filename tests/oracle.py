"""The contents of a project, predicted from the specification alone.

Each feature and provider has its part of the prediction in `expected.yml`, written by
hand. Only tests read that, and from the catalog come no more than the ids, in their
order: a mistake in the template cannot hide itself here.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

import parts as catalog
from projects import config, package, readme, texts
from workbench import ROOT


@dataclass(frozen=True)
class Part:
    """All that one feature or provider brings, as the specification has it.

    Attributes:
        bindings: The names of its bindings.
        classes: Its Durable Object classes, by binding, but for agents.
        agents: Its Durable Object classes that are agents, by binding.
        workflows: Its Workflow classes, by binding.
        packages: The npm packages that its code needs beside Hono and zod.
        dev_packages: The npm packages that only development and tests need.
        files: Its files beside its test.
        permissions: What the API token of a deploy must be allowed to edit for it.
        routes: Its routes; those that only the operator may use with a lock.
        secrets: The names of its secrets beside the API token.
        variables: Its vars, with their default values.
        model: Whether it asks a model.
        tables: The tables of handlers that the Worker has because of it.
        names: Words that stand in a project only when the feature is chosen.
        lines: The most lines of code, tests and README, which tools/weigh.py reads.
        joints: What it brings beside another feature, by that one's id; `with` in
            the file.
    """

    bindings: list[str] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    workflows: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    dev_packages: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    permissions: list[str] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    model: bool = False
    tables: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    joints: dict[str, "Part"] = field(default_factory=dict)


def read(folder: str) -> Part:
    """Return what the `expected.yml` of a folder says."""
    known = yaml.safe_load((ROOT / folder / "expected.yml").read_text())
    joints = {other: Part(**more) for other, more in known.pop("with", {}).items()}
    return Part(**known, joints=joints)


FEATURES = {feature: read(f"features/{feature}") for feature in catalog.FEATURES}
PROVIDERS = {
    provider["id"]: read(f"providers/{provider['id']}")
    for provider in catalog.PROVIDERS
}
#: The provider of a model that people get who do not choose.
DEFAULT = "workers-ai"

BASE_ROUTES = ("GET /", "GET /health")
#: Where `assets` serves its page instead of a route.
PAGE = "GET /"
BASE_FILES = {
    ".copier-answers.yml",
    ".gitattributes",
    ".github/workflows/ci.yml",
    ".github/workflows/update.yml",
    ".gitignore",
    ".node-version",
    "AGENTS.md",
    "README.md",
    "biome.json",
    "package.json",
    "src/index.ts",
    "test/base.test.ts",
    "tsconfig.json",
    "vitest.config.ts",
    "wrangler.jsonc",
}
TOOLS = {
    "@biomejs/biome",
    "@cloudflare/vitest-plugin",
    "@types/node",
    "typescript",
    "vitest",
    "wrangler",
}


def parts(chosen: list[str], provider: str) -> list[Part]:
    """Return what a project is made of beside the base, in its order."""
    features = [FEATURES[feature] for feature in chosen]
    joints = [
        joint
        for feature in features
        for other, joint in feature.joints.items()
        if other in chosen
    ]
    models = [PROVIDERS[provider]] if any(part.model for part in features) else []
    return models + features + joints


def bindings(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the names of all bindings of a project."""
    return {name for part in parts(chosen, provider) for name in part.bindings}


def classes(chosen: list[str]) -> dict[str, str]:
    """Return the Durable Object classes of a project, by binding."""
    pairs = (FEATURES[feature].classes.items() for feature in chosen)
    return {**dict(pair for items in pairs for pair in items), **agents(chosen)}


def agents(chosen: list[str]) -> dict[str, str]:
    """Return those Durable Object classes that are agents, by binding."""
    pairs = (FEATURES[feature].agents.items() for feature in chosen)
    return dict(pair for items in pairs for pair in items)


def workflows(chosen: list[str]) -> dict[str, str]:
    """Return the Workflow classes of a project, by binding."""
    pairs = (FEATURES[feature].workflows.items() for feature in chosen)
    return dict(pair for items in pairs for pair in items)


def tables(chosen: list[str]) -> list[str]:
    """Return the tables of handlers that a Worker has, in their order."""
    own = {table for feature in chosen for table in FEATURES[feature].tables}
    return [table for table in ("queues", "crons") if table in own]


def packages(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the npm packages that a project needs at run time."""
    own = (name for part in parts(chosen, provider) for name in part.packages)
    return {"hono", "zod", *own}


def dev_packages(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the npm packages that a project needs for development."""
    own = (name for part in parts(chosen, provider) for name in part.dev_packages)
    return {*TOOLS, *own}


def in_javascript(path: str) -> str:
    """Return the path of a file as it is in a project in JavaScript."""
    return re.sub(r"\.ts(x?)$", r".js\1", path)


def permissions(chosen: list[str]) -> list[str]:
    """Return what the API token of a deploy must be allowed to edit."""
    own = (name for feature in chosen for name in FEATURES[feature].permissions)
    return ["Workers Scripts", *own]


def secrets(chosen: list[str], provider: str = DEFAULT) -> list[str]:
    """Return the secrets that a project requires."""
    routes = [route for feature in chosen for route in FEATURES[feature].routes]
    guarded = any(route.endswith("🔒") for route in routes)
    own = [name for part in parts(chosen, provider) for name in part.secrets]
    return (["API_TOKEN"] if guarded else []) + own


def variables(chosen: list[str], provider: str = DEFAULT) -> dict[str, str]:
    """Return the vars of a project."""
    pairs = (part.variables.items() for part in parts(chosen, provider))
    return {"ALLOWED_ORIGINS": "", **dict(pair for items in pairs for pair in items)}


def routes(chosen: list[str]) -> set[str]:
    """Return the rows of the table of routes, as `METHOD /path`, with locks."""
    own = {route for feature in chosen for route in FEATURES[feature].routes}
    return {*BASE_ROUTES, *own} - ({PAGE} if "assets" in chosen else set())


def worker_first(chosen: list[str]) -> list[str]:
    """Return which paths the Worker answers although there are static files."""
    paths = {"/api/", *(route.split()[1] for route in routes(chosen))}
    segments = {path.split("/")[1] for path in paths}
    return sorted(f"/{segment}{rest}" for segment in segments for rest in ("", "/*"))


def files(chosen: list[str], provider: str = DEFAULT) -> set[str]:
    """Return the paths of all files of a project."""
    tests = {f"test/{feature}.test.ts" for feature in chosen}
    others = {path for part in parts(chosen, provider) for path in part.files}
    panels = {
        f"public/demo/{name}.{kind}"
        for name in chosen
        if FEATURES[name].routes
        for kind in ("html", "js")
    }
    return (
        BASE_FILES
        | tests
        | others
        | ({"test/access.test.ts"} if "API_TOKEN" in secrets(chosen) else set())
        | ({".dev.vars.example"} if secrets(chosen, provider) else set())
        | (panels if "assets" in chosen else set())
    )


def assert_foretold(
    project: Path,
    chosen: list[str],
    provider: str = DEFAULT,
    language: str = catalog.LANGUAGES[0],
) -> None:
    """Check that a project holds what is predicted, whether with contract tests or not.

    Args:
        project: The project.
        chosen: The features that it was made with.
        provider: The provider that it was made with.
        language: Its language.
    """
    paths, tools = files(chosen, provider), dev_packages(chosen, provider)
    if language == "javascript":
        types = {
            name for name in tools if re.match("@types/(?!node$)|typescript$", name)
        }
        paths = {in_javascript(one) for one in paths if "tsconfig" not in one}
        paths, tools = paths | {"jsconfig.json"}, tools - types
    wrangler = config(project)
    objects = wrangler.get("durable_objects", {}).get("bindings", [])
    started = wrangler.get("workflows", [])
    limiters = {limiter["name"] for limiter in wrangler.get("ratelimits", [])}
    others = re.findall(r'"binding": "(\w+)"', json.dumps(wrangler))
    rows = re.findall(r"^\| `([A-Z]+ /\S*)`( 🔒)? \|", readme(project), re.MULTILINE)

    assert {path for path in texts(project) if ".contract." not in path} == paths
    assert {b["name"]: b["class_name"] for b in objects} == classes(chosen)
    assert {w["binding"]: w["class_name"] for w in started} == workflows(chosen)
    assert {b["name"] for b in objects} | limiters | set(others) == bindings(
        chosen, provider
    )
    assert set(package(project)["dependencies"]) == packages(chosen, provider)
    assert set(package(project)["devDependencies"]) == tools
    assert wrangler.get("secrets", {}).get("required", []) == secrets(chosen, provider)
    assert wrangler["vars"] == variables(chosen, provider)
    assert {route + lock for route, lock in rows} == routes(chosen)
