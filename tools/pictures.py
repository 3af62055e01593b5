"""Draws a session in a terminal as the README shows it, from the real command.

`python3 tools/write.py pictures` calls it, with the packages of `.venv`.
"""

import os
import re
import subprocess
import tempfile
import time
from html import escape
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from pyte.screens import Char

from tools import workbench

COMMAND = "copier copy gh:org/cf-templates myapp"
#: The first release, so that the picture stays as it is when there is another.
VERSION = "0.1.0"
COLUMNS, ROWS = 80, 60
DOWN, ENTER = "\x1b[B", "\r"
#: A cell of the terminal and the margin around all, in pixels.
WIDTH, HEIGHT, MARGIN = 8.4, 19, 16
GROUND, INK, DIM = "#0d1117", "#e6edf3", "#8b949e"

Row = list[Char]


def write_session(path: Path) -> None:
    """Writes an SVG of a first copy: the choice of features, and how it ends.

    Args:
        path: Where to.

    Raises:
        AssertionError: Copier did not ask for what is answered here; with its screen.
    """
    with tempfile.TemporaryDirectory() as name:
        chosen, ended = _record(Path(name))
    # Copier lists the files that it makes in the order of the disk.
    (start,) = (row for row, text in enumerate(ended) if "is ready" in _text(text))
    rows = [*chosen, [], [Char("⋮", fg=DIM[1:])], [], *ended[start:]]
    path.write_text(_svg(rows), "utf-8")


def _record(folder: Path) -> tuple[list[Row], list[Row]]:
    """Returns the rows of two screens: features being chosen, and the end."""
    environment = _environment(folder)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    stream.feed(f"$ uvx {COMMAND}\r\n")
    copier = pexpect.spawn(
        f"{workbench.VENV}/bin/{COMMAND}",
        cwd=str(folder),
        env=environment,
        dimensions=(ROWS, COLUMNS),
        encoding="utf-8",
    )

    def screen_with(pattern: str) -> list[Row]:
        """Reads until a pattern is on the screen and all has been drawn."""
        deadline = time.monotonic() + 60
        quiet = False
        while not (quiet and re.search(pattern, "\n".join(screen.display), re.DOTALL)):
            assert time.monotonic() < deadline, "\n".join(screen.display)
            try:
                stream.feed(copier.read_nonblocking(2**16, timeout=0.3))
                quiet = False
            except (pexpect.TIMEOUT, pexpect.EOF):
                quiet = True
        rows = [[screen.buffer[y][x] for x in range(COLUMNS)] for y in range(ROWS)]
        return rows[: max(y for y, row in enumerate(rows) if _text(row)) + 1]

    try:
        screen_with("What are you starting")
        copier.send(ENTER + ENTER)
        screen_with("What should it do")
        # Every sixth choice, beside the one that is chosen from the start.
        copier.send((DOWN * 6 + " ") * 2)
        chosen = screen_with("(●.*){3}")
        # This question, and those for layout, package manager, host and CI.
        copier.send(ENTER * 5)
        return chosen, screen_with("is ready.*dev")
    finally:
        copier.close(force=True)


def _environment(folder: Path) -> dict[str, str]:
    """Returns one in which the address of COMMAND is a release of this working tree."""
    template = workbench.copy_template(folder / "cf-templates")
    settings = folder / "settings.yml"
    settings.write_text("{}\n", "utf-8")
    environment = workbench.quiet_environment() | {
        "COPIER_SETTINGS_PATH": str(settings),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_KEY_0": f"url.{template}.insteadOf",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_VALUE_0": "https://github.com/org/cf-templates.git",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "TERM": "xterm-256color",
    }
    for role in ("AUTHOR", "COMMITTER"):
        environment[f"GIT_{role}_NAME"] = "Picture"
        environment[f"GIT_{role}_EMAIL"] = "picture@example.com"
    for command in ("init -q", "add -A", f"commit -qm {VERSION}", f"tag {VERSION}"):
        git = ["git", *command.split()]
        subprocess.run(git, cwd=template, env=environment, check=True)
    return environment


def _text(row: Row) -> str:
    return "".join(cell.data for cell in row).rstrip()


def _svg(rows: list[Row]) -> str:
    width = round(COLUMNS * WIDTH) + 2 * MARGIN
    height = len(rows) * HEIGHT + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        f"<title>{COMMAND}</title>",
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"
        "'DejaVu Sans Mono',monospace;white-space:pre}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>',
    ]
    for number, row in enumerate(rows):
        column, y = 0, MARGIN + number * HEIGHT + 14
        for (colour, bold), run in groupby(row, lambda cell: (cell.fg, cell.bold)):
            cells = list(run)
            text = "".join(cell.data for cell in cells)
            x = MARGIN + (column + len(text) - len(text.lstrip())) * WIDTH
            # The second cell of a wide character is empty.
            length = (len(cells) - len(text) + len(text.strip())) * WIDTH
            column += len(cells)
            fill = INK if colour == "default" else f"#{colour}"
            weight = ' font-weight="bold"' if bold else ""
            if text.strip():
                # With its length, text of any font stands in its columns.
                lines.append(
                    f'<text x="{x:.1f}" y="{y}" textLength="{length:.1f}"'
                    f' fill="{fill}"{weight}>{escape(text.strip(), quote=False)}</text>'
                )
    return "\n".join([*lines, "</svg>", ""])
