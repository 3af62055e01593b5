"""The tables of `tools/mutants.py` speak of code that is there."""

from collections.abc import Callable
from pathlib import Path

import pytest

import mutants
import mutations


@pytest.mark.parametrize("table", sorted(mutants.TABLES.glob("*.yml")), ids=str)
def test_a_table_is_about_code_that_is_there(
    render: Callable[..., Path], table: Path
) -> None:
    part = mutants.find_part(table.stem, "")
    provider = {"ai_provider": part.provider} if part.provider else {}
    code = (render(part.features, **provider) / "src/index.ts").read_text()

    changes = {
        (mutant.line, mutant.becomes)
        for mutant in mutations.enumerate_all(code, part.region)
    }

    assert mutants.aimed_mutants(part, code) or mutants.ignored_changes(part)
    assert mutants.ignored_changes(part) - changes == set()
    for kind, reason in (("aimed", "why"), ("ignore", "because")):
        assert all(entry[reason] for entry in part.table.get(kind, []))


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
