"""The small changes of TypeScript that `mutants.py` makes.

They go by the text, not by a syntax tree: the formatter's style makes it regular
enough, and a mutant that does not compile is noticed like any other.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One change of a file.

    Attributes:
        path: The file.
        number: The line where it begins, counted from 1.
        start: The first character that goes.
        end: The first character that stays.
        text: What comes instead.
        line: That line, or the statement of several lines, in one line.
        becomes: What becomes of it.
    """

    path: str
    number: int
    start: int
    end: int
    text: str
    line: str
    becomes: str

    def apply(self, code: str) -> str:
        """Returns the changed file."""
        return code[: self.start] + self.text + code[self.end :]

    def __str__(self) -> str:
        """Prints it as an entry of `ignore` in a table."""
        quoted = {name: quote(getattr(self, name)) for name in ("line", "becomes")}
        return (
            f"  # {self.path}:{self.number}\n"
            f"  - line: {quoted['line']}\n    becomes: {quoted['becomes']}"
        )


def quote(text: str) -> str:
    """Writes a string of YAML."""
    return "'" + text.replace("'", "''") + "'"


def aimed(
    code: str, find: str, replace: str, path: str, region: str | None = None
) -> Mutant:
    """Makes a mutant that a table describes.

    Args:
        code: The file.
        find: What to replace; it is there once.
        replace: What by.
        path: The file's path.
        region: The region of it that is changed, if not anything of it.

    Raises:
        SystemExit: It is not there, or more than once.
    """
    first, last = bounds(code, region) if region else (0, len(code))
    if code.count(find, first, last) != 1:
        place = region or path
        raise SystemExit(f"{place}: not there once, as its table says: {find}")
    start = code.index(find, first)
    return make(code, start, start + len(find), replace, path)


def enumerate_all(code: str, region: str) -> list[Mutant]:
    """Returns all mutants of a region of a file, in the order of their places."""
    first, last = bounds(code, region)
    kinds = classify(code)
    found = {
        (start, end, text): make(code, start, end, text)
        for change in CHANGES
        for start, end, text in change(code, kinds)
        if first <= start and end <= last and code[start:end] != text
    }
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.text))


def bounds(code: str, region: str) -> tuple[int, int]:
    """Returns where a region begins and ends."""
    start = code.index(f"// #region {region}\n")
    return code.index("\n", start) + 1, code.index(f"// #endregion {region}\n")


def make(
    code: str, start: int, end: int, text: str, path: str = "src/index.ts"
) -> Mutant:
    """Makes a mutant from what goes and what comes."""
    line_start = code.rfind("\n", 0, start) + 1
    line_end = code.find("\n", start)
    changed = code[:start] + text + code[end:]
    becomes = changed[line_start : changed.find("\n", line_start)]
    line = code[line_start:line_end]
    if end > line_end:  # a statement of several lines
        line, becomes = code[line_start:end], code[line_start:start] + text
    return Mutant(
        path=path,
        number=code.count("\n", 0, start) + 1,
        start=start,
        end=end,
        text=text,
        line=" ".join(line.split()),
        becomes=" ".join(becomes.split()),
    )


# What a character belongs to.
CODE, COMMENT, STRING, REGEX, TYPE = "c#sr:"
KINDS = {"comment": COMMENT, "string": STRING, "template": STRING, "regex": REGEX}
# As formatted, a division has spaces around it, so a regular expression is what has
# none behind its slash.
TOKENS = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:\\.|[^"\\\n])*")
    |(?P<template>`(?:\\.|[^`\\])*`)
    |(?P<regex>(?<=[(\[!\t\ ])
        /(?![*/\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/[a-z]*)
    """,
    re.VERBOSE | re.DOTALL,
)
TYPE_DECLARATION = re.compile(
    r"^(?:export )?(?:type|declare)\b.*?;\n(?=\S|\n|\Z)", re.MULTILINE | re.DOTALL
)


def classify(code: str) -> str:
    """Returns, for each character of a file, what it belongs to."""
    kinds = [CODE] * len(code)
    for token in TOKENS.finditer(code):
        name = token.lastgroup
        start, end = token.span()
        kinds[start:end] = [KINDS[name]] * (end - start)
        if name == "template":  # the code in its braces stays code
            for hole in re.finditer(r"\$\{([^{}]*)\}", token[0]):
                first, last = (start + index for index in hole.span(1))
                kinds[first:last] = [CODE] * (last - first)
    for declaration in TYPE_DECLARATION.finditer(code):
        start, end = declaration.span()
        kinds[start:end] = [TYPE] * (end - start)
    return "".join(kinds)


Change = Callable[[str, str], Iterator[tuple[int, int, str]]]


def replacing(pattern: str, *texts: str, kind: str = CODE) -> Change:
    """Returns a change that replaces a pattern, in code unless told otherwise.

    Each of the texts is a replacement of its own, as `re.Match.expand` takes it.
    """
    compiled = re.compile(pattern, re.MULTILINE)

    def change(code: str, kinds: str) -> Iterator[tuple[int, int, str]]:
        for match in compiled.finditer(code):
            if kinds[match.start()] == kind and kinds[match.end() - 1] == kind:
                for text in texts:
                    yield (*match.span(), match.expand(text))

    return change


def change_numbers(code: str, kinds: str) -> Iterator[tuple[int, int, str]]:
    """Adds one to a number, in code and in a regular expression's counts."""
    for match in re.finditer(r"(?<![\w.#$])\d[\d_]*(?![\w.])", code):
        counts = kinds[match.start()] == REGEX and code[match.start() - 1] in "{,"
        if kinds[match.start()] == CODE or counts:
            yield (*match.span(), str(int(match[0].replace("_", "")) + 1))


def empty_strings(code: str, kinds: str) -> Iterator[tuple[int, int, str]]:
    """Empties a string, unless it is an entry of a list, a key or a sentence."""
    for match in re.finditer(r'"(?:\\.|[^"\\\n ])+"', code):
        before, after = code[match.start() - 1], code[match.end()]
        if kinds[match.start()] == STRING and after != ":" and before not in "\t|":
            yield (*match.span(), '""')


def force_conditions(code: str, kinds: str) -> Iterator[tuple[int, int, str]]:
    """Makes the condition of an `if` always true, or never."""
    for match in re.finditer(r"\bif \(", code):
        if kinds[match.start()] == CODE:
            end = closing(code, kinds, match.end() - 1)
            for text in ("true", "false"):
                yield match.end(), end, text


def remove_statements(code: str, kinds: str) -> Iterator[tuple[int, int, str]]:
    """Removes a statement inside a function that is a call, a throw or a write."""
    start = re.compile(
        r"^\t+(?=(?:await |throw |void )?[\w$.?]+(?:\(| =| \+=|\+\+))", re.M
    )
    for match in start.finditer(code):
        first = match.end()
        word = re.match(r"\w+", code[first:])
        if kinds[first] != CODE or (
            word
            and word[0] in ("if", "for", "while", "switch", "return", "catch", "super")
        ):
            continue
        end = statement_end(code, kinds, first)
        if end and code[end - 1] == ";":
            yield first, end, ""


def remove_entries(code: str, kinds: str) -> Iterator[tuple[int, int, str]]:
    """Removes a line that is an entry of an object or a list, or a decorator."""
    entry = r'^\t+((?:"[^"\n ]*"|[A-Za-z][\w-]*|/[^\n]*/[a-z]*)(?:: [^\n]*)?,|@[^\n]*)$'
    for match in re.finditer(entry, code, re.MULTILINE):
        if kinds[match.start(1)] in (CODE, STRING, REGEX):
            text = match[1]
            if all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}")):
                yield (*match.span(1), "")


def statement_end(code: str, kinds: str, start: int) -> int | None:
    """Returns where the statement at a place ends, if it ends with a semicolon."""
    index = start
    while index < len(code):
        if kinds[index] == CODE:
            if code[index] in "([{":
                index = closing(code, kinds, index)
            elif code[index] == ";":
                return index + 1
            elif code[index] in ")]},":
                return None
        index += 1
    return None


def closing(code: str, kinds: str, start: int) -> int:
    """Returns the place of the bracket that closes the one at a place."""
    depth = 0
    for index in range(start, len(code)):
        if kinds[index] == CODE:
            depth += (code[index] in "([{") - (code[index] in ")]}")
            if depth == 0:
                return index
    raise ValueError(f"nothing closes {code[start : start + 40]!r}")


CHANGES: list[Change] = [
    replacing(r"\bawait (?=[\w(])", ""),
    replacing(r"(?<= )===(?= )", "!=="),
    replacing(r"(?<= )!==(?= )", "==="),
    replacing(r"(?<= )<(?= )", "<="),
    replacing(r"(?<= )<=(?= )", "<"),
    replacing(r"(?<= )>(?= )", ">="),
    replacing(r"(?<= )>=(?= )", ">"),
    replacing(r"&&", "||"),
    replacing(r"\|\|", "&&"),
    replacing(r"\?\?(?!=)", "&&"),
    replacing(r"(?<![\w)\]!])!(?=[\w(])", ""),
    replacing(r"\btrue\b", "false"),
    replacing(r"\bfalse\b", "true"),
    replacing(r"(?<= )\+(?= )", "-"),
    replacing(r"(?<= )-(?= )", "+"),
    replacing(r"(?<= )\*(?= [\w(])", "/"),
    replacing(r"(?<= )/(?= )", "*"),
    replacing(r"\bMath\.min\b", "Math.max"),
    replacing(r"\bMath\.max\b", "Math.min"),
    # Anchors and flags of a regular expression.
    replacing(r"(?<=/)\^", "", kind=REGEX),
    replacing(r"\$(?=/[a-z]*)", "", kind=REGEX),
    replacing(r"(?<=/)[gimsu]+(?=[,;).\n])", "", kind=REGEX),
    change_numbers,
    empty_strings,
    force_conditions,
    remove_statements,
    remove_entries,
]
