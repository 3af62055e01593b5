"""Copier without what it does again each time though nothing has changed.

A copy compiles all Jinja anew, and an update does so three times, for which it also
clones the template and reads its folders. Here a process does each of these once.
What an update makes of a project stays Copier's own work, as a test of lives shows.

It patches private names of Copier, and may be deleted at any time, at the price of
minutes: with nothing in place of `quick_copier`, and `run_copier` in place of
`run_quick_copier`, the tests say the same.
"""

import atexit
import functools
import io
import json
import subprocess
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import CodeType

import copier._main
import copier._subproject
import jinja2
import pytest
import yaml
from copier._cli import CopierApp
from copier._main import Worker, _operation
from copier._template import Template

#: How many rendered projects are kept: an update renders two that it asked for
#: before, or will ask for again.
KEPT = 16

plain_compile = jinja2.Environment.compile
plain_render = Worker._render_template


class Release(Template):
    """A template whose clone stays, for the next one who asks for it."""

    def _cleanup(self) -> None:
        pass


@functools.cache
def release(url: str, ref: str, use_prereleases: bool) -> Release:
    """Return a template at a tag, which may not move while the process runs."""
    cloned = Release(url, ref, use_prereleases)
    atexit.register(Template._cleanup, cloned)
    return cloned


def template(url: str, ref: str | None, use_prereleases: bool = False) -> Template:
    """Return a template, the same one for the same tag."""
    if ref in (None, "HEAD"):
        return Template(url, ref, use_prereleases)
    return release(url, ref, use_prereleases)


code: dict[tuple[object, ...], CodeType] = {}


def compile(
    self: jinja2.Environment, source: str, *arguments: object, **more: object
) -> CodeType:
    """Compile a template, each once for the same settings of Jinja."""
    # Where Copier's `yield` begins anew.
    self.preprocess(source)
    key = (self.lexer, source, *arguments, *more.items())
    if key not in code:
        code[key] = plain_compile(self, source, *arguments, **more)
    return code[key]


rendered: OrderedDict[str, dict[Path, tuple[bytes, int]]] = OrderedDict()


def render(self: Worker) -> None:
    """Render a release into an empty folder, each once for the same answers."""
    folder = self.subproject.local_abspath
    is_empty = not folder.exists() or not any(folder.iterdir())
    if not is_empty or not isinstance(self.template, Release):
        return plain_render(self)
    # Recorded answers make a project, and say whether an update asks for it.
    key = json.dumps([_operation.get(), dict(self._answers_to_remember())])
    if key not in rendered:
        plain_render(self)
        rendered[key] = {
            path.relative_to(folder): (path.read_bytes(), path.stat().st_mode)
            for path in folder.rglob("*")
            if path.is_file()
        }
        if len(rendered) > KEPT:
            rendered.popitem(last=False)
        return None
    for path, (content, mode) in rendered[key].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        (folder / path).chmod(mode)
    return None


@contextmanager
def quick_copier() -> Iterator[None]:
    """Keep what Copier reads and compiles, while the block runs and after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copier._main, "Template", template)
        patch.setattr(copier._subproject, "Template", template)
        patch.setattr(jinja2.Environment, "compile", compile)
        patch.setattr(Worker, "_render_template", render)
        # The same language, read by a parser in C.
        patch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)
        # Two processes per file, for a setting of Git that only Windows has.
        patch.setattr(Worker, "_sync_git_index_executable_bit", lambda *_: None)
        yield


def run_quick_copier(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line of Copier in this process; return how it went."""
    stdout, stderr = io.StringIO(), io.StringIO()
    command = ["copier", *map(str, arguments)]
    with quick_copier(), redirect_stdout(stdout), redirect_stderr(stderr):
        _, status = CopierApp.run(command, exit=False)
    output = (stdout.getvalue(), stderr.getvalue())
    return subprocess.CompletedProcess(command, status, *output)
