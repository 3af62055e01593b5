"""The rules that this repository keeps, enumerated from its folders."""

import json
import re
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml

from parts import CATALOG, FEATURES
from workbench import ROOT, tracked_files

PROVIDERS = sorted(ROOT.glob("providers/*"))
PARTS = sorted([*ROOT.glob("base/*"), *PROVIDERS, *ROOT.glob("features/*")])
PROBES = sorted(ROOT.glob("tests/features/*"))
#: The files that describe a part.
KINDS = ("feature.yml", "base.yml", "provider.yml")
#: A panel of the demo: its text, its script, and how the tests use it.
PANEL = {"demo.html", "demo.js", "demo.yml"}
IMPORT = re.compile(
    r'^import (type )?(\{[^}]*\}|\* as (\w+)|(\w+)) from "([^"]+)";$', re.MULTILINE
)
#: Where people are told of features, which they may be by name.
TELLS = {
    *("docs", "gallery", "javascript", ".md"),
    *("extensions/presets.yml", "tests/test_repository.py"),
}
#: Which features are named outside of their folders, by folder of a part or by file.
SAID = {
    # Joints, providers for three kinds of questions, and tests of two features at once.
    "base/access": "auth",
    "base/base": "assets",
    "features/agents": "assets rate-limit workflows",
    "features/ai": "agents assets rate-limit",
    "features/assets": "analytics websockets",
    "features/auth": "assets r2 rate-limit",
    "features/browser": "rate-limit",
    "features/d1": "cron hyperdrive",
    "features/hyperdrive": "agents workflows",
    "features/rate-limit": "auth websockets",
    "features/structured-output": "rate-limit",
    "features/vectorize": "agents ai rate-limit structured-output",
    "features/websockets": "assets rate-limit",
    "providers/anthropic": "agents ai structured-output",
    "providers/openai": "agents ai structured-output",
    "providers/workers-ai": "agents ai structured-output",
    # Keys of Wrangler, packages and conditions that are called like a feature.
    "package.json": "agents",
    "tests/cloudflare.py": "assets cron d1 hyperdrive queues vectorize",
    "tests/test_deploy.py": "assets queues workflows",
    "tests/test_engine.py": "queues",
    "tests/toolchain.py": "browser",
    # The page and its demo, a question for one feature alone, and Wrangler's keys.
    "biome.json": "assets",
    "copier.yml": "assets hyperdrive",
    "extensions/project.jinja": "assets queues",
    "hooks/exclude.jinja": "assets",
    "template/AGENTS.md.jinja": "assets",
    "template/README.md.jinja": "assets rate-limit",
    "template/src/index{{ suffix }}.jinja": "assets",
    "template/wrangler.jsonc.jinja": "assets",
    "tests/demo.py": "assets",
    "tests/oracle.py": "assets queues workflows",
    "tests/test_dev.py": "assets",
    "tests/test_render.py": "assets",
    "tests/test_updates.py": "assets",
    # Tests and tools for what these features alone have.
    "tests/lives.py": (
        "agents ai alarms analytics assets auth browser cron d1 hyperdrive queues r2 "
        "rate-limit structured-output vectorize websockets workflows"
    ),
    "tests/test_gallery.py": "queues",
    "tests/test_managers.py": "agents assets websockets",
    "tests/test_products.py": (
        "agents alarms analytics assets auth cron hyperdrive queues "
        "structured-output websockets workflows"
    ),
    "tests/test_providers.py": "structured-output",
    "tests/test_questions.py": (
        "agents ai analytics assets auth cron d1 hyperdrive queues r2 rate-limit "
        "vectorize websockets workflows"
    ),
    "tests/releases.py": "queues websockets",
    "tools/benchmark_worker.py": "agents",
    "tools/write.py": "analytics",
}


def name(part: Path) -> str:
    """Name a part in a test's id."""
    return part.name


def code(part: Path) -> str:
    """Return the TypeScript that a part brings to `src/index.ts`."""
    return (part / "worker.ts").read_text()


def description(part: Path) -> dict:
    """Return the description of a part."""
    (path,) = (part / kind for kind in KINDS if (part / kind).exists())
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("part", PARTS + PROBES, ids=name)
def test_a_part_is_named_after_its_folder(part: Path) -> None:
    assert description(part)["id"] == part.name


@pytest.mark.parametrize("part", PARTS + PROBES, ids=name)
def test_a_part_is_complete(part: Path) -> None:
    known = description(part)
    needed = {"worker.ts"}
    if part in PROVIDERS:
        needed |= {"guide.md.jinja", "test/provider.ts"}
    elif part.parent.name == "features":
        needed |= {"worker.test.ts", "guide.md.jinja"}
    if part not in PROBES and part.parent.name != "base":
        needed |= {"expected.yml"}
    tests = {"worker.test.ts", "contract.test.ts", "dev_test.py"}
    named = {*needed, *KINDS, *PANEL, *tests, "guide.md.jinja"}
    for described in (known, *known.get("with", {}).values()):
        named.update(described.get("files", []))
    present = {
        path.relative_to(part).as_posix()
        for path in part.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    if present & PANEL:
        needed |= PANEL
    assert needed - present == set()
    assert present - named == set(), "files that no project gets"


def test_a_feature_is_all_in_its_folder() -> None:
    # In quotes, in a list of YAML or in a path: elsewhere, `assets` may be a word.
    said = r"""["'`]ID["'`]|\[([\w-]+, ?)*ID[],]|^ *- ID$|features/ID\b"""
    patterns = {one: re.compile(said.replace("ID", one), re.M) for one in FEATURES}
    found = defaultdict(set)
    for path in tracked_files():
        place = path.relative_to(ROOT)
        if TELLS & {place.parts[0], place.suffix, place.as_posix()}:
            continue
        is_part = place.parts[0] in ("base", "features", "providers")
        where = "/".join(place.parts[: 2 if is_part else None])
        text = path.read_text()
        for one, pattern in patterns.items():
            if where != f"features/{one}" and one in text and pattern.search(text):
                found[where].add(one)
    expected = {where: {*ids.split()} & {*FEATURES} for where, ids in SAID.items()}
    assert found == {where: ids for where, ids in expected.items() if ids}


def test_no_two_parts_have_one_name() -> None:
    # They would share a region, a module and a test; the two more are files, too.
    names = Counter([*map(name, PARTS + PROBES), "index", "provider"])
    assert [one for one, count in names.items() if count > 1] == []


def test_no_two_parts_have_one_order() -> None:
    for kind in ("base", "providers", "features"):
        parts = [part for part in PARTS + PROBES if part.parent.name == kind]
        orders = Counter(description(part)["order"] for part in parts)
        assert [order for order, count in orders.items() if count > 1] == []


@pytest.mark.parametrize("part", [*PROVIDERS, *ROOT.glob("features/*")], ids=name)
def test_a_choice_fits_a_terminal_of_80_columns(part: Path) -> None:
    known = description(part)
    group = f"{known['group']}: " if "group" in known else ""
    # Five columns go to the pointer and the mark.
    assert len(f"{group}{known['id']} - {known['help']}") <= 75


@pytest.mark.parametrize("kind", ["queues", "crons"])
def test_no_two_features_handle_one_thing(kind: str) -> None:
    # Of two entries with one key, the first would go unnoticed.
    names = Counter(name for feature in CATALOG for name in feature.get(kind, {}))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("part", PARTS + PROBES, ids=name)
def test_what_is_said_to_people_is_text(part: Path) -> None:
    # A colon in an unquoted line of YAML would make a mapping of it.
    known = description(part)
    for described in (known, *known.get("with", {}).values()):
        said = [*described.get("rules", []), known.get("help", "")]
        assert [text for text in said if not isinstance(text, str)] == []


@pytest.mark.parametrize("part", PARTS + PROBES, ids=name)
def test_imports_come_in_forms_that_can_be_joined(part: Path) -> None:
    text = code(part)
    statements = re.findall(r"^import\b", text, re.MULTILINE)
    assert len(IMPORT.findall(text)) == len(statements)
    assert "import(" not in text or "await import(" in text
    inline_types = [m for m in IMPORT.findall(text) if re.search(r"\btype ", m[1])]
    assert inline_types == []


def test_a_module_has_one_default_or_namespace_name_everywhere() -> None:
    names: dict[str, set[str]] = {}
    forms: dict[str, set[str]] = {}
    for part in PARTS + PROBES:
        for kind, _, namespace, default, module in IMPORT.findall(code(part)):
            if not module.startswith("."):
                whole = namespace or default
                names.setdefault(module, set()).update({whole} - {""})
                forms.setdefault(kind + module, set()).add("whole" if whole else "{}")
    assert {m: n for m, n in names.items() if len(n) > 1} == {}
    assert {m: f for m, f in forms.items() if len(f) > 1} == {}


def top_level_names(part: Path) -> list[str]:
    """Return the names that the code of a part declares at its top level."""
    declaration = r"(?:async )?(?:const|let|function|class|type) (\w+)"
    return re.findall(f"^(?:export )?{declaration}", code(part), re.MULTILINE)


def test_no_two_parts_declare_one_name() -> None:
    for provider in PROVIDERS:
        others = [other for other in PROVIDERS if other != provider]
        parts = [part for part in PARTS + PROBES if part not in others]
        names = Counter(name for part in parts for name in top_level_names(part))
        assert [declared for declared, count in names.items() if count > 1] == []


@pytest.mark.parametrize("part", PARTS + PROBES, ids=name)
def test_typescript_holds_nothing_that_jinja_or_a_merge_would_trip_over(
    part: Path,
) -> None:
    for path in part.rglob("*.ts"):
        text = path.read_text()
        assert re.findall(r"\{\{|\{%|\{#", text) == []
        assert re.findall(r"^(?:export )?interface ", text, re.MULTILINE) == []


def test_the_description_and_the_code_of_a_part_agree_on_its_routes() -> None:
    # Routes that a function makes are tested in their part.
    for part in [part for part in PARTS + PROBES if ".route(" not in code(part)]:
        call = r'^\w+\.(get|post|put|delete)\(\s*"([^"]+)"'
        called = re.findall(call, code(part), re.MULTILINE)
        described = [
            (route["method"].lower(), route["path"])
            for route in description(part).get("routes", [])
        ]
        assert called == described


def signatures(path: Path) -> dict[str, str]:
    """Return what a module exports: the type of each function and value, by name.

    The names of parameters are left out, since they are no part of a type.
    """
    text = path.read_text()
    exported = r"^export (?:async )?(?:const|function\*?) (\w+)([^;]*?)(?: \{\n| =)"
    found = {
        name: re.sub(r"\{[^}]*\}: |\b\w+: |[\s,]", "", signature)
        for name, signature in re.findall(exported, text, re.MULTILINE)
    }
    for names, module in re.findall(r'^export \{([^}]*)\} from "([^"]*)"', text, re.M):
        others = signatures(path.parent / f"{module}.ts")
        found |= {name: others[name] for name in re.findall(r"\w+", names)}
    return found


@pytest.mark.parametrize("file", ["worker.ts", "test/provider.ts"])
def test_all_providers_have_one_interface(file: str) -> None:
    first, *others = (signatures(provider / file) for provider in PROVIDERS)
    assert first
    for other in others:
        assert other == first


def test_every_npm_version_stands_in_one_file() -> None:
    versions = re.compile(r'"\d+\.\d+\.\d+"|@\d+\.\d+\.\d+(?![.\d])')
    found = [
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.is_relative_to(ROOT / "template")
        or path.is_relative_to(ROOT / "features")
        or path.is_relative_to(ROOT / "base")
        or path.is_relative_to(ROOT / "providers")
        if versions.search(path.read_text())
    ]
    assert found == []


def test_wrangler_is_the_one_of_the_vitest_plugin() -> None:
    # Else every project has two of workerd, of 150 MB each.
    plugin = ROOT / "node_modules/@cloudflare/vitest-plugin/package.json"
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    wanted = json.loads(plugin.read_text())["dependencies"]
    assert pinned["wrangler"] == wanted["wrangler"]


def test_the_workflows_of_projects_pin_the_actions_as_those_here_do() -> None:
    # Dependabot reads these only.
    def pins(folder: Path) -> set[str]:
        texts = [path.read_text() for path in folder.glob(".github/workflows/*")]
        return set(re.findall(r"uses: (.+)", "\n".join(texts)))

    assert pins(ROOT / "template")
    assert pins(ROOT / "template") - pins(ROOT) == set()


def test_no_file_holds_the_address_of_a_package_registry() -> None:
    address = re.compile("registry" + r"\.|index-url|pythonhosted" + r"|\"resolved\"")
    texts = [path for path in tracked_files() if path.suffix != ".png"]
    found = [path for path in texts if address.search(path.read_text())]
    assert found == [Path(__file__)] or found == []


def test_no_path_breaks_windows() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in tracked_files()]
    assert [n for n in names if re.search(r'[<>|?*:"\\]', n)] == []


def test_the_changelog_names_every_feature() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert [feature for feature in FEATURES if f"`{feature}`" not in text] == []


def test_no_comment_begins_with_what_or_who() -> None:
    comment = r"""^\s*(?:#:?|//|/\*\*|\*|\{#-?)\s+|\"{3}|\{#-?\n"""
    begins = re.compile(f"(?:{comment})(?:What|Who)\\b.*", re.MULTILINE)
    texts = [path for path in tracked_files() if path.suffix not in (".png", ".md")]
    assert [found for path in texts for found in begins.findall(path.read_text())] == []


def test_git_ignores_what_set_up_and_tests_leave_behind() -> None:
    paths = [".venv/x", ".build/x", "node_modules/x", "tests/__pycache__/x"]
    ignored = subprocess.run(
        ["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True
    )
    assert ignored.stdout.split() == paths
