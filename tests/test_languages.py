"""Projects in JavaScript, whose code is derived from the TypeScript.

Most of what holds for TypeScript holds for JavaScript by that, so less is tried here:
the tests of each feature alone in one layout, and those of all in both. What files
say in both languages is in `test_render.py`, and how they live in `test_lives.py`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import oracle
from dev_server import serve
from parts import (
    FEATURE_SETS,
    FEATURES,
    LAYOUTS,
    MODEL_FEATURES,
    PRESETS,
    PROVIDER_SETS,
    PROVIDERS,
    set_id,
)
from projects import edit, texts
from toolchain import (
    assert_checked,
    assert_deployable,
    assert_tests_pass,
    bundle_sizes,
    node,
    run,
    run_tests,
    write_types,
)
from tools import write
from workbench import NODE, ROOT

Project = Callable[..., Path]

#: None, each alone and all with the default provider; others with any.
ALONE = [(features, oracle.DEFAULT) for features in FEATURE_SETS]
OTHERS = [
    *PROVIDER_SETS,
    *((preset["features"], oracle.DEFAULT) for preset in PRESETS),
]
#: A route that tells the names of all that the runtime has.
GLOBALS = """
app.get("/globals", (c) => {
	const names = new Set();
	for (let at = globalThis; at; at = Object.getPrototypeOf(at)) {
		for (const name of Object.getOwnPropertyNames(at)) {
			names.add(name);
		}
	}
	return c.json([...names].filter((name) => /^[a-z]\\w*$/i.test(name)));
});
"""

#: Code in which an editor with types finds three mistakes.
OWN = """import { DurableObject, env } from "cloudflare:workers";

export class Mine extends DurableObject {
	read() {
		return this.env.notOfThis;
	}
}

/** @type {ExportedHandler<Env>} */
export default {
	async queue(batch) {
		batch.notOfBatch(env.notOfEnv);
	},
};
"""


def make(
    project: Project,
    features: list[str],
    provider: str = oracle.DEFAULT,
    layout: str = "single-file",
) -> Path:
    """Make a project in JavaScript with a name of its own."""
    return project(
        features,
        ai_provider=provider,
        layout=layout,
        language="javascript",
        project_name=f"js-{set_id(features)}-{provider}-{layout}"[:54].strip("-"),
    )


# --- The derivation -----------------------------------------------------------


def test_the_javascript_is_what_the_typescript_becomes(tmp_path: Path) -> None:
    write.write_javascript(tmp_path)
    assert texts(write.JAVASCRIPT) == texts(tmp_path)


def test_typescript_that_is_more_than_types_is_refused(tmp_path: Path) -> None:
    script = ROOT / "tools/javascript.mjs"
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    for path, text in {
        "tools/javascript.mjs": script.read_text(),
        "base/good/worker.ts": "export const one: number = 1;\n",
        "base/bad/worker.ts": "export enum Colour { Red }\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    derive = [NODE, tmp_path / "tools/javascript.mjs", tmp_path / "javascript"]
    refused = "base/bad/worker.ts: EnumDeclaration is not erasable."
    with pytest.raises(AssertionError, match=f"\n{refused}\n"):
        run(derive, tmp_path)


# --- Projects -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("projects", "layout"),
    [
        (ALONE, "single-file"),
        pytest.param(OTHERS, "single-file", marks=pytest.mark.full),
        pytest.param([*ALONE, *OTHERS], "modules", marks=pytest.mark.full),
    ],
)
def test_projects_are_clean_under_the_tools(
    project: Project, projects: list[tuple], layout: str
) -> None:
    made = [make(project, *answers, layout) for answers in projects]
    assert_checked(*made)
    bundle_sizes(*made)
    assert_deployable(make(project, FEATURES, layout=layout))


@pytest.mark.full
def test_the_linter_knows_all_that_the_runtime_has(project: Project) -> None:
    directory = project([], language="javascript", project_name="js-globals")
    edit(directory, "src/index.js", "// Your code", GLOBALS)
    with serve(directory) as server:
        names = server.http.get("/globals").json()
    assert "WebSocketPair" in names
    (directory / "src/own.js").write_text(f"export default [{', '.join(names)}];\n")
    with pytest.raises(AssertionError) as error:
        node(directory, "biome", "lint", "src/own.js")
    unknown = re.findall(r"The (\w+) variable is undeclared", str(error.value))
    # Events that handlers are given, and the base of `Request` and `Response`.
    assert unknown == ["TailEvent", "TraceEvent", "ScheduledEvent", "Body"]


@pytest.mark.full
def test_editors_know_the_types_of_the_runtime_and_of_the_bindings(
    project: Project,
) -> None:
    directory = make(project, FEATURES)
    write_types(directory)
    (directory / "src/own.js").write_text(OWN)
    with pytest.raises(AssertionError) as error:
        node(directory, "tsc", "--project", "jsconfig.json", "--checkJs", "--noEmit")
    (directory / "src/own.js").unlink()
    found = re.findall(r"^src/own\.js.* Property '(.*?)' does", str(error.value), re.M)
    assert found == ["notOfThis", "notOfBatch", "notOfEnv"]


@pytest.mark.full
def test_the_own_tests_of_each_feature_alone_pass(project: Project) -> None:
    made = [make(project, features) for features, _ in ALONE[:-1]]
    assert_tests_pass(*(test for one in made for test in one.glob("test/*.test.js")))


@pytest.mark.parametrize(
    "layout", [pytest.param("single-file", marks=pytest.mark.full), "modules"]
)
def test_all_tests_of_all_features_pass(project: Project, layout: str) -> None:
    run_tests(make(project, FEATURES, layout=layout))


@pytest.mark.full
def test_all_tests_of_other_providers_pass(project: Project) -> None:
    made = [
        make(project, MODEL_FEATURES, provider["id"], layout)
        for provider, layout in zip(PROVIDERS[1:], LAYOUTS, strict=True)
    ]
    assert_tests_pass(*(test for one in made for test in one.glob("test/*.test.[jt]s")))
