"""Every pair of features: types, type checker, format, lint and a bundle.

Where two features meet is where composing can go wrong; more than two meet in
the project of all, which has tests of its own.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import FEATURES, assert_checked, run
from workbench import NODE, ROOT

Project = Callable[..., Path]

#: Bundles the Workers of many projects, which it gets as arguments, with Wrangler's
#: esbuild; Wrangler itself would take a process for each.
BUNDLE = """
const { builtinModules, createRequire } = require("node:module");
const ofWrangler = createRequire(require.resolve("wrangler/package.json"));
ofWrangler("esbuild").buildSync({
	entryPoints: process.argv.slice(1).map((folder) => `${folder}/src/index.ts`),
	outdir: "/", // Where the files would go, if they were written.
	write: false,
	bundle: true,
	format: "esm",
	conditions: ["workerd", "worker", "browser"],
	external: ["cloudflare:*", "node:*", ...builtinModules],
});
"""


@pytest.mark.parametrize("first", FEATURES[:-1])
def test_pairs_are_clean_under_the_tools(project: Project, first: str) -> None:
    others = FEATURES[FEATURES.index(first) + 1 :]
    # Many at once: a process of the tools takes longer to start than to check one.
    pairs = [project([first, other]) for other in others]
    assert_checked(*pairs)
    assert run([NODE, "--eval", BUNDLE, "--", *pairs], ROOT) == ""
