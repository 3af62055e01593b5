"""Copier without what it does again each time though nothing has changed.

An update renders a template three times, and for each it clones the template,
reads its folders and compiles its Jinja anew. Here it does so once per release.
What an update makes of a project stays Copier's own work.
"""

import functools
import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

import copier._main
import copier._subproject
import jinja2
import pytest
from copier._main import Worker, _operation
from copier._template import Template

#: How many rendered projects are kept: an update renders two that it asked for
#: before, or will ask for again.
KEPT = 8


@contextmanager
def quick_copier() -> Iterator[None]:
    """Keep what Copier reads from releases while the block runs.

    Templates are named by a tag, and no tag may move meanwhile.
    """

    class Release(Template):
        """A template whose clone stays, for the next one who asks for it."""

        def _cleanup(self) -> None:
            pass

    releases: list[Release] = []

    @functools.cache
    def release(url: str, ref: str, use_prereleases: bool = False) -> Release:
        releases.append(Release(url, ref, use_prereleases))
        return releases[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copier._main, "Template", release)
        patch.setattr(copier._subproject, "Template", release)
        plain = jinja2.Environment.compile
        code: dict[tuple[object, ...], CodeType] = {}

        def compile(
            self: jinja2.Environment, source: str, *arguments: object, **more: object
        ) -> CodeType:
            # Where Copier's `yield` begins anew.
            self.preprocess(source)
            # All environments here have the settings of one copier.yml.
            key = (source, *arguments, *more.items())
            if key not in code:
                code[key] = plain(self, source, *arguments, **more)
            return code[key]

        patch.setattr(jinja2.Environment, "compile", compile)
        plain_render = Worker._render_template
        rendered: OrderedDict[str, dict[Path, tuple[bytes, int]]] = OrderedDict()

        def render(self: Worker) -> None:
            folder = self.subproject.local_abspath
            if folder.exists() and any(folder.iterdir()):
                return plain_render(self)
            # What is recorded makes a project, and whether an update asks for it.
            answers = dict(self._answers_to_remember())
            key = json.dumps([_operation.get(), answers], sort_keys=True)
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

        patch.setattr(Worker, "_render_template", render)
        # Two processes per file, for a setting of Git that only Windows has.
        patch.setattr(Worker, "_sync_git_index_executable_bit", lambda *_: None)
        yield
    for used in releases:
        Template._cleanup(used)
