"""The tables of `tools/mutants.py` speak of code that is there."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mutants
import mutations
from conftest import run
from workbench import ROOT

TABLES = [path for path in mutants.TABLES.glob("*.yml") if path.stem != mutants.ENGINE]
ENGINE = mutants.load_yaml(mutants.TABLES / f"{mutants.ENGINE}.yml")["aimed"]


def name(table: Path) -> str:
    """Name a table in a test's id."""
    return table.stem


@pytest.mark.parametrize("table", sorted(TABLES), ids=name)
def test_a_table_is_about_code_that_is_there(
    render: Callable[..., Path], table: Path, tmp_path: Path
) -> None:
    part = mutants.find_part(table.stem, "")
    answers = {"ai_provider": part.provider} if part.provider else {}
    if (template := mutants.template_of(part, tmp_path)) != ROOT:
        answers["source"] = template
    code = (render(part.features, **answers) / "src/index.ts").read_text()

    changes = {
        (mutant.line, mutant.becomes)
        for mutant in mutations.enumerate_all(code, part.region)
    }

    assert mutants.aimed_mutants(part, code) or mutants.ignored_changes(part)
    assert mutants.ignored_changes(part) - changes == set()
    for kind, reason in (("aimed", "why"), ("ignore", "because")):
        assert all(entry[reason] for entry in part.table.get(kind, []))


def test_the_table_of_the_engine_is_about_text_and_tests_that_are_there() -> None:
    for entry in ENGINE:
        assert entry["why"]
        assert mutants.engine_mutant(entry).text == entry["replace"]
    tests = {test for entry in ENGINE for test in entry["tests"].split()}
    # Fails for a name that is not there, with its parameters.
    run([sys.executable, "-m", "pytest", "--collect-only", "-q", *sorted(tests)], ROOT)


def test_the_table_of_the_engine_is_about_each_of_its_files() -> None:
    named = {entry["path"] for entry in ENGINE}
    files = [ROOT / "copier.yml"]
    for folder in ("extensions", "hooks", "template"):
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert {path.relative_to(ROOT).as_posix() for path in files} == {
        path for path in named if not path.startswith("base/")
    }


def test_a_change_of_a_line_is_listed_with_what_becomes_of_it() -> None:
    lines = ["if (size > 10 && !isOpen) {", '\tawait close("now");', "}"]
    code = "\n".join(["// #region a", *lines, "// #endregion a", ""])

    listed = {mutant.becomes for mutant in mutations.enumerate_all(code, "a")}

    assert listed == {
        "if (true) {",
        "if (false) {",
        "if (size >= 10 && !isOpen) {",
        "if (size > 11 && !isOpen) {",
        "if (size > 10 || !isOpen) {",
        "if (size > 10 && isOpen) {",
        'close("now");',
        'await close("");',
        "",
    }


def test_types_comments_and_sentences_stay() -> None:
    code = (
        "// #region a\n// 1 && 2\ntype A = {\n\tb: 1 | true;\n};\n\n"
        'say("A sentence.");\n// #endregion a\n'
    )
    assert mutations.enumerate_all(code, "a") == []
