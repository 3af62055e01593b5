"""The contents of generated projects, against the oracle."""

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
from playwright.sync_api import Page, sync_playwright

import oracle
import workbench
from parts import CATALOG, FEATURE_SETS, FEATURES, LANGUAGES, PROVIDER_SETS, set_id
from projects import config, package, readme, texts
from toolchain import run
from workbench import NODE, ROOT

Render = Callable[..., Path]
Rendered = Callable[..., Path]

#: None, each alone and all with the default provider; what others are tried with.
PROJECTS = [*((subset, oracle.DEFAULT) for subset in FEATURE_SETS), *PROVIDER_SETS]

#: Grouped, so that a project is rendered once wherever its tests run.
each_project = pytest.mark.parametrize(
    ("features", "provider"), PROJECTS, ids=set_id, scope="module"
)
each_language = pytest.mark.parametrize("language", LANGUAGES, scope="module")


@pytest.fixture(scope="module")
def rendered(render: Render) -> Rendered:
    """Return a function that gives a project to read.

    It takes the features, the provider and, unless it is the default, the language.
    """

    @functools.cache
    def made(features: tuple[str, ...], provider: str, language: str) -> Path:
        answers = {"ai_provider": provider, "language": language}
        return render(list(features), project_name="my-app", **answers)

    def rendered(
        features: list[str], provider: str, language: str = LANGUAGES[0]
    ) -> Path:
        return made(tuple(features), provider, language)

    return rendered


@functools.cache
def schema() -> jsonschema.protocols.Validator:
    """Return a validator of configs by Wrangler's own schema."""
    path = ROOT / "node_modules/wrangler/config-schema.json"
    known = json.loads(path.read_text())
    validator = jsonschema.validators.validator_for(known)
    validator.check_schema(known)
    return validator(known)


@each_language
@each_project
def test_a_project_holds_what_its_features_need(
    rendered: Rendered, features: list[str], provider: str, language: str
) -> None:
    project = rendered(features, provider, language)
    oracle.assert_foretold(project, features, provider, language)


@each_language
@each_project
def test_a_project_holds_nothing_of_other_features_and_providers(
    rendered: Rendered, features: list[str], provider: str, language: str
) -> None:
    everything = "\n".join(texts(rendered(features, provider, language)).values())
    parts = [*oracle.FEATURES.values(), *oracle.PROVIDERS.values()]
    parts += [joint for part in parts for joint in part.joints.values()]
    chosen = oracle.parts(features, provider)
    others = [part for part in parts if part not in chosen]
    own = {word for part in chosen for word in part.names}
    foreign = {word for other in others for word in other.names} - own
    # Word by word, since `session` may stand in `--show-interactive-dev-session`.
    found = [
        word
        for word in foreign
        # `in` is much faster, and enough for nearly all.
        if word in everything and re.search(rf"(?<![-\w]){word}\b", everything)
    ]
    assert found == []


@each_project
def test_no_file_of_javascript_speaks_of_typescript(
    rendered: Rendered, features: list[str], provider: str
) -> None:
    files = texts(rendered(features, provider, "javascript"))
    # Editors read the types of the bindings.
    foreign = re.compile(
        r"(?<!\.d)\.tsx?\b|typescript|typecheck|\btsc\b|tsconfig", re.I
    )
    found = {path: foreign.findall(text) for path, text in files.items()}
    assert {path: words for path, words in found.items() if words} == {}


@each_language
@each_project
def test_no_file_holds_what_the_template_should_have_filled_in(
    rendered: Rendered, features: list[str], provider: str, language: str
) -> None:
    # GitHub has braces of its own.
    leftover = re.compile(
        r"(?<!\$)\{\{|\{%|\{#|//%|jinja"
        r"|\{(?:(?:project|resource)_name\w*|\w+_(?:id|namespace)|routes)\}"
    )
    files = texts(rendered(features, provider, language))
    assert [path for path, text in files.items() if leftover.search(text)] == []


@pytest.fixture(scope="module")
def mermaid() -> Iterator[Page]:
    """A page with the Mermaid that draws the diagrams of READMEs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(workbench.chromium_program()), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.add_script_tag(path=ROOT / "node_modules/mermaid/dist/mermaid.min.js")
        yield page
        browser.close()


@each_project
def test_the_readme_has_a_picture_of_the_worker_and_all_that_it_uses(
    rendered: Rendered, mermaid: Page, features: list[str], provider: str
) -> None:
    project = rendered(features, provider)
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", readme(project), re.DOTALL)
    parsed = mermaid.evaluate("text => mermaid.parse(text)", diagram)
    assert parsed["diagramType"].startswith("flowchart")
    draw = "text => mermaid.render('picture', text).then(({ svg }) => svg)"
    shown = re.sub("<[^>]*>", " ", mermaid.evaluate(draw, diagram))
    # The platform serves files by itself.
    used = oracle.bindings(features, provider) - {"ASSETS"}
    assert used - set(re.findall(r"\w+", shown)) == set()


@each_project
def test_the_config_holds_what_the_specification_asks_of_every_one(
    rendered: Rendered, features: list[str], provider: str
) -> None:
    wrangler = config(rendered(features, provider))
    assert wrangler["name"] == "my-app"
    assert wrangler["main"] == "src/index.ts"
    assert wrangler["compatibility_flags"] == ["nodejs_compat"]
    assert wrangler["observability"] == {
        "enabled": True,
        "head_sampling_rate": 1,
        "traces": {"enabled": True, "head_sampling_rate": 0.1},
        "redact_query_string": True,
    }
    if "assets" in features:
        first = wrangler["assets"]["run_worker_first"]
        assert first == oracle.worker_first(features)
    assert "routes" not in wrangler

    schema().validate(wrangler)
    known = schema().schema["definitions"]["RawConfig"]["properties"]
    assert set(wrangler) - set(known) == set()


def test_a_custom_domain_becomes_a_route(render: Render) -> None:
    wrangler = config(render([], custom_domain="app.example.com"))
    assert wrangler["routes"] == [{"pattern": "app.example.com", "custom_domain": True}]


def test_wrangler_reprints_each_config_as_it_is(rendered: Rendered) -> None:
    projects = [rendered(features, oracle.DEFAULT) for features in FEATURE_SETS]
    before = [(project / "wrangler.jsonc").read_text() for project in projects]
    patch_config(projects, {})
    after = [(project / "wrangler.jsonc").read_text() for project in projects]
    assert after == before


def test_wrangler_writes_an_id_back_as_one_new_line(render: Render) -> None:
    stores = (part for part in CATALOG if "kv_namespaces" in part.get("wrangler", {}))
    project = render([next(stores)["id"]])
    before = (project / "wrangler.jsonc").read_text()
    patch_config([project], {"kv_namespaces": [{"id": "0" * 32}]})
    after = (project / "wrangler.jsonc").read_text()
    changes = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line[0] in "+-"
    ]
    assert changes == ['+ \t\t\t"id": "00000000000000000000000000000000",']


def patch_config(projects: list[Path], patch: dict) -> None:
    """Let Wrangler write into configs of projects what a deploy writes back."""
    script = (
        f"const wrangler = require({str(ROOT / 'node_modules/wrangler')!r});"
        f"for (const config of {[str(path / 'wrangler.jsonc') for path in projects]})"
        f"  wrangler.experimental_patchConfig(config, {json.dumps(patch)}, false);"
    )
    run([NODE, "--eval", script], ROOT)


def test_the_order_of_choosing_changes_nothing(render: Render) -> None:
    expected = texts(render(FEATURES))
    assert texts(render(FEATURES[::-1])) == expected
    assert texts(render([*FEATURES[1:], FEATURES[0]])) == expected


#: Lines of a project without `assets`: the list of routes, words on it, and a
#: script in place of the client of agents.
INDEX = re.compile(
    r"^app\.get\(\"/\", (?:.*\n)+?\}\);\n\n|^\| `GET /` \|.*\n|^- Your own routes .*\n"
    r"|^A script does it with `AgentClient`:\n\n```sh\n(?:.*\n)+?```\n\n"
    r"```text\n.*\n```\n\n",
    re.MULTILINE,
)


@each_language
@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_changes_only_lines_of_its_own(
    rendered: Rendered, feature: str, language: str
) -> None:
    others = [other for other in FEATURES if other != feature]
    without, with_it = (
        texts(rendered(features, oracle.DEFAULT, language))
        for features in (others, FEATURES)
    )
    if feature == "assets":
        without = {path: INDEX.sub("", text) for path, text in without.items()}
    removed = {
        path: [
            line
            for line in difflib.ndiff(
                text.splitlines(), with_it.get(path, "").splitlines()
            )
            if line.startswith("- ")
        ]
        for path, text in without.items()
    }
    # Lines that go when a feature comes: import lines and commands that grow, the
    # record of classes, the example of the answers, and a demo without a token.
    joints = re.compile(
        r"- (import |\t\w+,$|\} from|copier update|\t+\"\w+\",$"
        r"| +\"(deploy|dev|dev:online|typecheck)\": |\t\tyield\* piecesOf\()"
    )
    unexpected = {
        path: [line for line in lines if not joints.match(line)]
        for path, lines in removed.items()
        if path != ".copier-answers.yml"
    }
    assert {path: lines for path, lines in unexpected.items() if lines} == {}


@each_project
def test_the_worker_has_the_anchors_for_the_users_own_code(
    rendered: Rendered, features: list[str], provider: str
) -> None:
    code = (rendered(features, provider) / "src/index.ts").read_text()
    anchors = re.findall(r"^\t*// Your (\w+)$", code, re.MULTILINE)
    tables = oracle.tables(features)
    assert anchors == ["imports", "middleware", "code", *tables, "handlers"]
    for feature in features:
        assert f"// #region {feature}\n" in code
        assert f"// #endregion {feature}\n" in code


def test_the_longest_name_still_makes_names_that_cloudflare_takes(
    render: Render,
) -> None:
    text = json.dumps(config(render(FEATURES, project_name="n" * 54)))
    names = re.findall(r'"(\w+)": "(n{50,}[\w-]*)"', text)
    assert len(names) > 1
    # An index of Vectorize may have one letter more.
    most = {"index_name": 64}
    assert [name for key, name in names if len(name) > most.get(key, 63)] == []


def test_without_github_actions_there_is_no_workflow(render: Render) -> None:
    found = set(texts(render([], github_actions=False)))
    workflows = {path for path in oracle.files([]) if path.startswith(".github/")}
    assert found == oracle.files([]) - workflows


def test_direct_dependencies_are_pinned_exactly(render: Render) -> None:
    manifest = package(render(FEATURES))
    versions = {**manifest["dependencies"], **manifest["devDependencies"]}
    assert [v for v in versions.values() if not re.fullmatch(r"\d+\.\d+\.\d+", v)] == []
