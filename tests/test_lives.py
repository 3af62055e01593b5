"""Random lives of projects: whatever features come and go, a user's things stay.

After each update, a project must be exactly what the template alone makes of the
same answers, with what the user has done on top of it: nothing lost, nothing
doubled, no conflict. What cannot be so is in `tests/lives.py`, beside `needs`.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import copier
import json5
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import oracle
from lives import (
    DEMOS,
    FULL_LIFE,
    KINDS,
    SHORT_LIFE,
    TRIALS,
    VALUES,
    Add,
    Answers,
    Chapter,
    Drop,
    Edits,
    Life,
    Page,
    Set,
    Take,
    Tree,
    Update,
)
from parts import (
    FEATURES,
    LANGUAGES,
    LAYOUTS,
    MANAGERS,
    NEWEST,
    OLDEST,
    PROVIDERS,
)
from projects import difference, texts
from quick_copier import quick_copier
from releases import TREE, VERSIONS, make_history
from toolchain import git, link_toolchain, node, run_tests, write_types

#: How many random lives are played where `--lives` does not say so, the same each
#: time; and how many with `--full`.
LIVES, FULL_LIVES = 24, 300
#: Into how many tests they are divided, for as many processes side by side.
SHARES = 4
#: The answers that are drawn for a start, and that an update may change.
OPTIONS = {
    "ai_provider": [provider["id"] for provider in PROVIDERS],
    "package_manager": MANAGERS,
    "custom_domain": ["", "app.example.com"],
    "compatibility_date": [OLDEST, "2026-01-01", NEWEST],
}

some_features = st.lists(st.sampled_from(FEATURES), unique=True).map(tuple)
an_edit = st.one_of(
    st.builds(Add, st.sampled_from(list(KINDS)), st.booleans()),
    st.builds(Add, st.sampled_from(list(KINDS)), st.booleans()),
    st.builds(Set, st.sampled_from(list(VALUES))),
    st.builds(Take, st.integers(0, 9)),
    st.builds(Drop, st.sampled_from(DEMOS)),
    st.builds(Page, st.sampled_from(["Mine.\n", None])),
)
options = {name: st.sampled_from(values) for name, values in OPTIONS.items()}
start = st.builds(
    Answers,
    version=st.integers(0, VERSIONS.index(TREE)),
    features=some_features,
    layout=st.sampled_from(LAYOUTS),
    language=st.sampled_from(LANGUAGES),
    **options,
).map(Answers.settled)
#: A few features at once: where most of a Worker is exchanged, a user's things may
#: conflict, since Git takes a line of what comes for its like in what goes.
an_update = st.builds(
    Update,
    st.lists(st.sampled_from(FEATURES), unique=True, max_size=4).map(tuple),
    st.integers(0, len(VERSIONS) - 1),
    st.fixed_dictionaries({}, optional=options),
)
a_chapter = st.builds(Chapter, st.lists(an_edit, max_size=12).map(tuple), an_update)
a_life = st.builds(Life, start, st.lists(a_chapter, min_size=1, max_size=4).map(tuple))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository of releases: recorded, simulated, and this tree."""
    return make_history(tmp_path_factory.mktemp("template"))


class Project:
    """A project whose user lives a life.

    Attributes:
        folder: Where it is, as a repository.
        answers: What it is made from.
        edits: What its user has done.
        history: The template's entries in its record of classes, as the oracle
            has them.
        fresh: What the template alone makes of the answers.
        crossed: How many updates led to another release.
    """

    def __init__(self, template: Path, folder: Path, answers: Answers) -> None:
        """Make a project."""
        self.template = template
        self.folder = folder
        self.answers = answers
        self.edits = Edits()
        self.history = next_history([], answers)
        self.crossed = 0
        copy(template, folder, answers)
        git(folder, "init", "--quiet")
        self.fresh = texts(folder)
        self.edits.follow({}, self.fresh)

    def live(self, chapter: Chapter) -> None:
        """Edit and update, and check what has become of everything.

        Raises:
            AssertionError: The project is not what it should be.
        """
        after = chapter.update.next(self.answers)
        for edit in chapter.edits:
            self.edits.do(edit, self.answers, self.fresh)
        self.edits.prepare(after, self.fresh)
        write(self.folder, self.edits.on(self.fresh))
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", "Edit")
        recorded = parse(self.folder).get("migrations", [])
        before = self.fresh

        self._update(after)

        self.edits.follow(before, self.fresh)
        assert difference(texts(self.folder), self.edits.on(self.fresh)) == ""
        assert git(self.folder, "ls-files", "--unmerged") == ""
        config = parse(self.folder)
        assert config.get("migrations", [])[: len(recorded)] == recorded
        # The oracle tells of this tree.
        if after.version >= VERSIONS.index(TREE):
            check_config(config, self.answers, self.edits)

    def _update(self, after: Answers) -> None:
        """Update to new answers, and render what the template makes of them."""
        before = data(self.answers)
        changed = {k: value for k, value in data(after).items() if value != before[k]}
        copier.run_update(
            self.folder,
            data={**changed, "delete_data": True},
            vcs_ref=VERSIONS[after.version],
            defaults=True,
            overwrite=True,
            quiet=True,
        )
        self.crossed += after.version != self.answers.version
        self.answers = after
        self.history = next_history(self.history, after)
        fresh = self.folder.with_name("fresh") / self.folder.name
        copy(self.template, fresh, after, migrations=self.history)
        self.fresh = texts(fresh)
        shutil.rmtree(fresh)


def live(life: Life, template: Path, folder: Path) -> Project:
    """Live a life in a new project.

    Returns:
        The project at its end.

    Raises:
        AssertionError: The project was not what it should be, after some update.
    """
    project = Project(template, folder, life.start)
    for chapter in life.chapters:
        project.live(chapter)
    return project


def copy(template: Path, folder: Path, answers: Answers, **more: object) -> None:
    """Make a project from answers, and from `more` of them, without a repository."""
    copier.run_copy(
        str(template),
        folder,
        data={**data(answers), **more},
        vcs_ref=VERSIONS[answers.version],
        defaults=True,
        quiet=True,
    )


def data(answers: Answers) -> dict[str, object]:
    """Return answers as Copier takes them."""
    given = {**vars(answers), "features": list(answers.features)}
    del given["version"]
    return given


def write(folder: Path, tree: Tree) -> None:
    """Make a folder hold the files of a tree, and no others beside its `.git`."""
    before = texts(folder)
    for path in before.keys() - tree.keys():
        (folder / path).unlink()
    for path, text in tree.items():
        if before.get(path) != text:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)


def parse(folder: Path) -> dict:
    """Return the config of a project.

    Raises:
        ValueError: A key stands in it twice.
    """
    text = (folder / "wrangler.jsonc").read_text()
    return json5.loads(text, allow_duplicate_keys=False)


def check_config(config: dict, answers: Answers, edits: Edits) -> None:
    """Compare a config with what the oracle says of the features, and the user's.

    Raises:
        AssertionError: Something is missing, doubled, or too much.
    """
    features, provider = list(answers.features), answers.ai_provider
    entries = [piece for piece in edits.pieces() if piece.path]
    for entry in entries:
        place = config
        for key in entry.path:
            place = place[key]
        if isinstance(place, list):
            assert place.count(entry.value) == 1
        else:
            assert place.items() >= entry.value.items()

    def mine(*path: str) -> list:
        return [entry.value for entry in entries if entry.path == path]

    def bound(value: object) -> Counter[str]:
        return Counter(re.findall(r'"binding": "(\w+)"', json.dumps(value)))

    bindings = config.get("durable_objects", {}).get("bindings", [])
    objects = {o["name"]: o["class_name"] for o in bindings}
    own = {o["name"]: o["class_name"] for o in mine("durable_objects", "bindings")}
    classes = oracle.classes(features)
    others = oracle.bindings(features, provider) - set(classes)
    assert objects == classes | own
    assert len(bindings) == len(objects)
    assert set(live_classes(config.get("migrations", []))) == set(objects.values())
    # A rate limiter has a name in place of a binding.
    limiters = Counter(limiter["name"] for limiter in config.get("ratelimits", []))
    my_limiters = Counter(limiter["name"] for limiter in mine("ratelimits"))
    expected = Counter(others) + bound([entry.value for entry in entries]) + my_limiters
    assert bound(config) + limiters == expected
    assert sorted(config.get("secrets", {}).get("required", [])) == sorted(
        oracle.secrets(features, provider) + mine("secrets", "required")
    )
    names = set(oracle.variables(features, provider))
    assert set(config["vars"]) == names.union(*mine("vars"))


def live_classes(migrations: list[dict]) -> list[str]:
    """Return the classes that a record of migrations leaves alive, in its order."""
    live: list[str] = []
    for entry in migrations:
        gone = entry.get("deleted_classes", [])
        live = [name for name in live if name not in gone]
        live += entry.get("new_sqlite_classes", [])
    return live


def next_history(history: list[dict], answers: Answers) -> list[dict]:
    """Return a record of migrations with what the features of answers append."""
    live = live_classes(history)
    wanted = list(oracle.classes(list(answers.features)).values())
    came = [name for name in wanted if name not in live]
    went = [name for name in live if name not in wanted]
    entry = {"tag": f"v{len(history) + 1}"}
    entry |= {"new_sqlite_classes": came} if came else {}
    entry |= {"deleted_classes": went} if went else {}
    return [*history, entry] if came or went else history


def assert_sound(project: Path) -> None:
    """Check code, the user's too: TypeScript by its types, JavaScript by the linter."""
    if (project / "tsconfig.json").exists():
        write_types(project)
        node(project, "tsc")
    else:
        node(project, "biome", "lint", "--error-on-warnings")


@pytest.mark.parametrize("share", range(SHARES))
def test_what_users_do_survives_updates(
    share: int,
    quick: None,
    template: Path,
    tmp_path: Path,
    testrun_uid: str,
    record_property: Callable[[str, object], None],
    request: pytest.FixtureRequest,
) -> None:
    option = request.config.getoption
    count = option("--lives") or (FULL_LIVES if option("--full") else LIVES)
    seed_here = testrun_uid if option("--lives") else "the same each time"
    drawn_from = option("--hypothesis-seed") or seed_here
    record_property("seed", drawn_from)
    played = Counter({"lives": 0, "updates": 0, "between releases": 0, "entries": 0})
    fullest = tmp_path / "fullest"
    most = 0

    @seed(f"{drawn_from}, {share}")
    @settings(
        max_examples=-(-count // SHARES),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(a_life)
    def play(life: Life) -> None:
        nonlocal most
        folder = tmp_path / "life" / "my-worker"
        try:
            project = live(life, template, folder)
            edits = project.edits
            played["lives"] += 1
            played["updates"] += len(life.chapters)
            played["between releases"] += project.crossed
            played["entries"] += edits.added
            if len(edits.entries) >= most:
                most = len(edits.entries)
                shutil.rmtree(fullest, ignore_errors=True)
                folder.rename(fullest)
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)

    play()
    record_property("played", dict(played))
    assert_sound(link_toolchain(fullest))


def test_copier_itself_agrees(template: Path, tmp_path: Path) -> None:
    # The lives above are lived in a Copier that remembers what it has rendered.
    plainly = live(SHORT_LIFE, template, tmp_path / "plain" / "my-worker")
    with quick_copier():
        quickly = live(SHORT_LIFE, template, tmp_path / "quick" / "my-worker")
    assert texts(quickly.folder) == texts(plainly.folder)


@pytest.mark.full
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_project_of_entries_of_every_kind_passes_its_tests(
    language: str, quick: None, template: Path, tmp_path: Path
) -> None:
    life = replace(FULL_LIFE, start=replace(FULL_LIFE.start, language=language))
    project = link_toolchain(live(life, template, tmp_path / "my-worker").folder)
    assert_sound(project)
    run_tests(project)


@pytest.mark.parametrize("trial", TRIALS)
def test_what_broke_for_those_who_tried_it_stays_whole(
    trial: str, quick: None, template: Path, tmp_path: Path
) -> None:
    live(TRIALS[trial], template, tmp_path / "my-worker")
