"""The questions: answers, refusals and their words, and limits of an update.

Copier in this process is the quickest way to answer, so it alone goes through all
answers. The other ways (`--data`, `--data-file`, `--defaults` and a terminal) have a
case each, by the command that people type.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import copier
import pexpect
import pytest
import yaml
from copier.errors import UserMessageError

from parts import (
    CATALOG,
    FEATURES,
    LANGUAGES,
    LAYOUTS,
    MANAGERS,
    MODEL_FEATURES,
    NEWEST,
    OLDEST,
    PROVIDERS,
)
from projects import config, difference, replace, texts
from quick_copier import run_quick_copier
from toolchain import commit, git, release, run_copier
from workbench import copy_template

#: The features in the order of the questionnaire, group by group.
MENU = [f["id"] for f in sorted(CATALOG, key=lambda f: (f["group"], f["order"]))]
#: Two features that have a class of Durable Objects, and the classes.
(KEPT, STAYS), (DROPPED, GOES), *_ = (
    (feature["id"], feature["durable_objects"][0]["class"])
    for feature in CATALOG
    if "durable_objects" in feature
)
#: The feature that has a question of its own.
ASKING = "hyperdrive"
#: The starting points, and what each has chosen.
PRESETS = {
    "custom": {"auth"},
    "d1-api": {"auth", "d1", "rate-limit"},
    "realtime": {"websockets", "auth", "assets", "rate-limit"},
    "ai-assistant": {"agents", "assets", "rate-limit"},
    "document-search": {"ai", "vectorize", "r2", "rate-limit"},
    "event-pipeline": {"queues", "workflows", "analytics", "cron"},
    "full-stack": {"assets", "auth", "d1", "r2", "rate-limit"},
}
#: An answer to each recorded question that is not its default, and as long as may be.
#: With all features, since some questions belong to one.
ANSWERS = {
    "project_name": "a" * 54,
    "resource_name": "first-name",
    "features": MENU,
    "ai_provider": "anthropic",
    "layout": "single-file",
    "language": "javascript",
    "package_manager": "bun",
    "hyperdrive_id": "0123456789abcDEF" * 2,
    "custom_domain": f"{'a' * 63}.{'a.' * 93}aaa",
    "github_actions": False,
    "compatibility_date": OLDEST,
}
#: Copier's own words; all else must be a message of the template.
NOTICES = ("Copying from template version", "Updating to template version")
#: The command that updates to the newest of `releases`. It is named, since only a
#: named release is read once.
UPDATE = ["update", "--defaults", "--vcs-ref=1.1.0"]
#: Keys of a terminal.
DOWN, SPACE, ENTER, CLEAR, CTRL_C = "\x1b[B", " ", "\r", "\x01\x0b", "\x03"

Terminal = Callable[..., pexpect.spawn]
Start = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("quick")


def add_part(template: Path, kind: str, known: dict, part: str, **keys: object) -> None:
    """Add a part to a template that is like a known one but for its id and `keys`."""
    for home in (template / "javascript", template):
        folder = home / f"{kind}s/{part}"
        shutil.copytree(folder.with_name(known["id"]), folder)
    description = {**known, "id": part, "order": 1000, **keys}
    (folder / f"{kind}.yml").write_text(yaml.safe_dump(description))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the template as 1.1.0, and as 1.0.0 with more to choose.

    1.1.0 no longer has the feature `retired`, and calls the feature `before`, whose
    class was `Before`, and the provider `before` like others.
    """
    repository = copy_template(tmp_path_factory.mktemp("releases"))
    plain = next(one for one in CATALOG if "durable_objects" not in one)
    renamed = next(one for one in CATALOG if one["id"] == KEPT)
    (known,) = renamed["durable_objects"]
    add_part(repository, "feature", plain, "retired")
    objects = [{**known, "class": "Before"}]
    add_part(repository, "feature", renamed, "before", durable_objects=objects)
    for code in repository.glob("**/features/before/worker.[jt]s"):
        code.write_text(re.sub(rf"\b{STAYS}\b", "Before", code.read_text()))
    add_part(repository, "provider", PROVIDERS[0], "before")
    release(repository, "1.0.0")
    for gone in ("features/retired", "features/before", "providers/before"):
        shutil.rmtree(repository / gone)
    after = {**renamed, "durable_objects": [{**known, "was": ["First", "Before"]}]}
    (repository / f"features/{KEPT}/feature.yml").write_text(yaml.safe_dump(after))
    retired = [
        {"question": "features", "id": "retired", "say": "Nobody used it."},
        {"question": "features", "id": "before", "now": KEPT},
        {"question": "ai_provider", "id": "before", "now": PROVIDERS[1]["id"]},
    ]
    (repository / "extensions/retired.yml").write_text(yaml.safe_dump(retired))
    release(repository, "1.1.0")
    return repository


@pytest.fixture
def start(releases: Path, tmp_path: Path) -> Start:
    """Return a function that commits a project of 1.0.0, called `living`.

    It takes the features and, as keywords, further answers.
    """

    def start(features: list[str], **answers: object) -> Path:
        data = {"project_name": "living", "features": features, **answers}
        project = copy(releases, tmp_path / "living", vcs_ref="1.0.0", **data)
        commit(project, "Start")
        return project

    return start


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Return a function that starts `copier` in a terminal.

    It takes the command's arguments and returns the running command, which
    ends with the test at the latest.
    """
    running: list[pexpect.spawn] = []

    def terminal(*arguments: str | Path) -> pexpect.spawn:
        running.append(
            pexpect.spawn(
                sys.executable,
                ["-m", "copier", *map(str, arguments)],
                env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
                dimensions=(60, 300),  # wide, so that no message is broken
                encoding="utf-8",
                timeout=60,
            )
        )
        return running[-1]

    yield terminal
    for process in running:
        process.close(force=True)


def toggles(*features: str) -> str:
    """Return the keys that choose features, or drop chosen ones, and go on."""
    keys, line = "", 0
    for place in sorted(MENU.index(feature) for feature in features):
        keys += DOWN * (place - line) + SPACE
        line = place
    return keys + ENTER


def talk(process: pexpect.spawn, *turns: tuple[str, str]) -> str:
    """Wait for texts in a terminal, answer each with keys, and return what it said."""
    said = ""
    for text, keys in turns:
        process.expect_exact(text)
        said += process.before
        process.send(keys)
    return said


def ended(process: pexpect.spawn) -> int:
    """Wait for the end of a command in a terminal and return its exit status."""
    process.expect(pexpect.EOF)
    process.close()
    assert "Traceback" not in process.before
    return process.exitstatus


def copy(
    template: Path, folder: Path, vcs_ref: str | None = None, **data: object
) -> Path:
    """Make a project in this process and return its folder."""
    how = {"vcs_ref": vcs_ref, "defaults": True, "quiet": True}
    copier.run_copy(str(template), folder, data=data, **how)
    return folder


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Check that a command failed with one readable line, and return the line."""
    output = result.stdout + result.stderr
    assert result.returncode != 0, output
    lines = [line for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(NOTICES)]
    assert len(lines) == 1, output
    return lines[0]


def recorded(project: Path) -> dict[str, object]:
    """Return the answers that a project has recorded."""
    return yaml.safe_load((project / ".copier-answers.yml").read_text())


def is_unchanged(project: Path) -> bool:
    """Tell whether a project is as it was committed."""
    return git(project, "status", "--porcelain") == ""


# --- Good answers -------------------------------------------------------------


@pytest.mark.parametrize("is_file", [False, True], ids=["data", "data-file"])
def test_every_answer_can_be_given(
    is_file: bool, template: Path, tmp_path: Path
) -> None:
    data_file, project = tmp_path / "data.yml", tmp_path / "project"
    data_file.write_text(yaml.safe_dump(ANSWERS))
    written = ANSWERS | {"features": f"[{', '.join(MENU[::-1])}]"}
    data = [f"--data={name}={answer}" for name, answer in written.items()]
    options = [f"--data-file={data_file}"] if is_file else data
    result = run_copier("copy", "--defaults", *options, template, project)
    assert result.returncode == 0, result.stderr
    answers = recorded(project)
    # No question is left out here.
    del answers["_src_path"], answers["migrations"]
    assert answers == ANSWERS


def test_defaults_alone_make_a_project(template: Path, tmp_path: Path) -> None:
    project = tmp_path / "My App"
    assert run_copier("copy", "--defaults", template, project).returncode == 0
    assert recorded(project) == {
        "_src_path": str(template),
        "project_name": "my-app",
        "resource_name": "my-app",
        "features": [*PRESETS["custom"]],
        "layout": "single-file",
        "language": "typescript",
        "package_manager": "npm",
        "custom_domain": "",
        "github_actions": True,
        "compatibility_date": NEWEST,
        "migrations": [],
    }


MORE = [ASKING, MODEL_FEATURES[0], KEPT, DROPPED]
#: Answers, and what is recorded of them.
GOOD: list[tuple[dict[str, object], dict[str, object]]] = [
    # More than three features are modules; and some have questions of their own.
    ({"features": MORE[:3]}, {"layout": "single-file", "ai_provider": "workers-ai"}),
    ({"features": MORE}, {"layout": "modules", "hyperdrive_id": "0" * 32}),
    # A list of features is any plain list of YAML.
    ({"features": f" [ {MENU[1]} , {MENU[0]} ] "}, {"features": MENU[:2]}),
    ({"features": f"['{MENU[0]}', \"{MENU[1]}\",]"}, {"features": MENU[:2]}),
    ({"features": f"[{MENU[0]}, {MENU[0]},{MENU[1]}]"}, {"features": MENU[:2]}),
    ({"features": f"[\n  {MENU[0]},\n  {MENU[1]}\n]\n"}, {"features": MENU[:2]}),
    ({"features": f"- {MENU[1]}\n- {MENU[0]}\n"}, {"features": MENU[:2]}),
    # A preset alone is enough, and features count before it.
    *(
        ({"preset": preset}, {"features": sorted(chosen, key=MENU.index)})
        for preset, chosen in PRESETS.items()
    ),
    ({"preset": [*PRESETS][-1], "features": []}, {"features": []}),
]


@pytest.mark.parametrize(("given", "expected"), GOOD)
def test_a_good_answer_is_recorded_and_a_preset_is_not(
    given: dict, expected: dict, template: Path, tmp_path: Path
) -> None:
    answers = recorded(copy(template, tmp_path, **given))
    assert answers.items() >= expected.items()
    assert "preset" not in answers


def test_the_answer_to_the_question_of_a_feature_goes_with_it(
    template: Path, tmp_path: Path
) -> None:
    answers = recorded(copy(template, tmp_path, **ANSWERS | {"features": [KEPT]}))
    assert ANSWERS.keys() - answers.keys() == {"ai_provider", "hyperdrive_id"}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("shop.example.com", "shop-example-com"),
        ("--edges--", "edges"),
        ("Größe 2", "gr-e-2"),
        ("日本", "my-worker"),
        ("x" * 200, "x" * 54),
        ("x" * 53 + "-y", "x" * 53),
    ],
)
def test_the_folder_gives_the_worker_its_name(
    folder: str, name: str, template: Path, tmp_path: Path
) -> None:
    assert recorded(copy(template, tmp_path / folder))["project_name"] == name


# --- The rules of answers -----------------------------------------------------

ONE, TWO = FEATURES[:2]
DAY = date(2026, 1, 1)
#: Of each question, what its message says of what is allowed, and bad answers. What
#: is no text comes from a data file.
BAD = {
    "project_name": (
        ["1 to 54 of a-z, 0-9 and dashes", "no dash at either end"],
        ["MyWorker", "", "my worker", "my_worker", "-edge", "edge-", "a" * 55, "٣"],
        ["my-worker\n", ["my-worker"], {"my": "worker"}, True, 1.5, DAY],
    ),
    "resource_name": ([], ["My-Worker", "", None]),
    "preset": (PRESETS, ["nope", ["custom"]]),
    "features": (
        ["Write a list like [", *FEATURES],
        ["[nope]", f"[{ONE}, nope]", f"- {ONE}\n- nope", f"[{ONE.upper()}]"],
        [f"[-{ONE}]", f"[{ONE} {TWO}]", f"[{ONE},,{TWO}]", f"[{ONE},\t{TWO}]"],
        [f'["{ONE}]', f"[{ONE}", ONE, "", "{a: b}", f"- {ONE} - {TWO}", "[\n- ]"],
        [{ONE: True}, [[ONE]], [1], 5, True, None],
    ),
    "ai_provider": (
        [provider["id"] for provider in PROVIDERS],
        ["nobody", "workers-ai\n", ["openai"], None],
    ),
    "layout": (LAYOUTS, ["folders", ["modules"]]),
    "language": (LANGUAGES, ["TypeScript", "python", ["javascript"], None]),
    "package_manager": (MANAGERS, ["cargo", ["npm"], {"npm": True}]),
    "hyperdrive_id": (
        ["32 hexadecimal digits", "32 zeros"],
        # The number is what YAML makes of unquoted zeros.
        ["0" * 31, "g" * 32, "٣" * 32, "0" * 32 + "\n", "", 0, ["0" * 32], None],
    ),
    "custom_domain": (
        ["app.example.com", "empty for workers.dev"],
        ["https://example.com/", "localhost", "127.0.0.1", "App.example.com"],
        ["app.example.com\n", "app.example.com.", "a..com", "-a.com", "a-.com"],
        ["a" * 64 + ".com", "a." * 125 + "aaaa", ["app.example.org"], False, None],
    ),
    "github_actions": (["true or false"], ["maybe", [True], None, 2]),
    "compatibility_date": (
        [f"{OLDEST} to {NEWEST}", "in quotes in a data file"],
        ["2026-02-30", "2026-02-29", "2025-04-31", "2025-13-01", "2025-0٤-01", "no"],
        ["2025-03-06", "2999-01-01", f"{OLDEST}\n", DAY, 20260101, [OLDEST]],
    ),
    "delete_data": (["true or false"], ["maybe", [True]]),
}


@pytest.mark.parametrize(
    ("question", "answer"),
    [(one, answer) for one in BAD for some in BAD[one][1:] for answer in some],
)
def test_a_bad_answer_is_refused_with_one_line_and_no_file(
    question: str, answer: object, template: Path, tmp_path: Path
) -> None:
    # Any other error ends the command with a traceback.
    with pytest.raises(UserMessageError) as error:
        copy(template, tmp_path / "project", **{question: answer})
    message = error.value.message.partition(f"{question}: ")[2].replace("\\'", "'")
    assert "\n" not in error.value.message
    # A terminal of 80 columns shows little more.
    assert re.match(r"(Use|Write|Choose|Leave) .*[a-z0-9]", message[:40])
    assert all(rule in message for rule in BAD[question][0])
    named = repr(str(answer)).replace("\\'", "'")[1:-1]
    assert f": not '{named}'." in message
    assert not (tmp_path / "project").exists()


def test_every_question_has_a_bad_answer() -> None:
    assert BAD.keys() == {*ANSWERS, "preset", "delete_data"}


def test_the_command_refuses_with_one_line_and_leaves_a_folder_alone(
    template: Path, tmp_path: Path
) -> None:
    data_file, project = tmp_path / "data.yml", tmp_path / "project"
    history = [{"tag": "v1", "new_sqlite_classes": [STAYS]}]
    data_file.write_text(yaml.safe_dump({"migrations": history}))
    project.mkdir()
    (project / "README.md").write_text("mine\n")
    for option, said in (
        ("--data=features=[nope]", "features: Write a list like"),
        (f"--data-file={data_file}", "migrations: this is not the history"),
    ):
        result = run_copier("copy", "--defaults", option, template, project)
        assert said in refusal(result)
        assert texts(project) == {"README.md": "mine\n"}


# --- In a terminal ------------------------------------------------------------


def test_the_prompts_reach_every_answer_that_is_asked(
    template: Path, tmp_path: Path, terminal: Terminal
) -> None:
    *_, preset = PRESETS
    chosen = {ASKING, MODEL_FEATURES[0], KEPT}
    copying = terminal("copy", template, tmp_path / "folder")
    said = talk(
        copying,
        ("What are you starting", DOWN * [*PRESETS].index(preset) + ENTER),
        ("Name of the Worker", CLEAR + "My_Worker"),
        ("Use 1 to 54 of a-z, 0-9 and dashes", ENTER + CLEAR + "typed" + ENTER),
        ("What should it do", toggles(*chosen ^ PRESETS[preset])),
        ("Whose model should answer", DOWN + ENTER),
        ("Where should the code be", DOWN + ENTER),
        ("Package manager", DOWN + DOWN + ENTER),
        ("Host name to serve on", "app.example.com" + ENTER),
        ("Test and deploy it in GitHub Actions", "n"),
    )
    assert ended(copying) == 0
    assert not re.search("_id|_date|resource", said + copying.before)
    expected = {
        "project_name": "typed",
        "features": sorted(chosen, key=MENU.index),
        "ai_provider": "openai",
        "layout": "modules",
        "package_manager": "yarn",
        "custom_domain": "app.example.com",
        "github_actions": False,
    }
    assert recorded(tmp_path / "folder").items() >= expected.items()


def test_enter_takes_every_default_in_eight_questions_at_most(
    template: Path, tmp_path: Path, terminal: Terminal
) -> None:
    copying = terminal("copy", template, tmp_path / "asked")
    talk(copying, ("What are you starting", ENTER * 8))
    assert ended(copying) == 0
    given = copy(template, tmp_path / "given", project_name="asked")
    assert texts(tmp_path / "asked") == texts(given)


def test_ctrl_c_ends_without_a_file(
    template: Path, tmp_path: Path, terminal: Terminal
) -> None:
    copying = terminal("copy", template, tmp_path / "project")
    talk(copying, ("What are you starting", ENTER * 2), ("What should it do", CTRL_C))
    assert ended(copying) != 0
    assert not (tmp_path / "project").exists()


# --- What an update may not do ------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("project_name", "other", "Keep 'living', the name of this project"),
        ("layout", "modules", "Keep 'single-file', the layout of this project"),
        ("language", "javascript", "Keep 'typescript', the language of this project"),
        ("preset", "d1-api", "Leave it out, or write the list of features"),
    ],
)
def test_an_update_refuses_what_only_the_first_copy_may_say(
    question: str, answer: str, said: str, start: Start
) -> None:
    project = start([ONE])
    data = f"--data={question}={answer}"
    line = refusal(run_quick_copier(*UPDATE, data, project))
    assert said in line
    assert f"not '{answer}'." in line
    assert is_unchanged(project)
    same = recorded(project).get(question)
    data = [] if same is None else [f"--data={question}={same}"]
    assert run_quick_copier(*UPDATE, *data, project).returncode == 0
    assert recorded(project)["_commit"] == "1.1.0"


def test_a_project_that_is_older_than_the_language_stays_typescript(
    tmp_path: Path,
) -> None:
    repository = copy_template(tmp_path / "template")
    # A template that has no such question, and writes the same.
    code = [repository / "copier.yml"]
    for folder in ("extensions", "hooks", "template"):
        code += [path for path in repository.glob(f"{folder}/**/*") if path.is_file()]
    for path in code:
        path.write_text(re.sub(r"\blanguage\b", "hidden", path.read_text()))
    replace(repository / "copier.yml", "\nhidden:\n", "\nhidden:\n  when: false\n")
    release(repository, "1.0.0")
    copy_template(repository)
    release(repository, "1.1.0")
    project = copy(repository, tmp_path / "living", vcs_ref="1.0.0")
    commit(project, "Start")
    before = texts(project)

    line = refusal(run_quick_copier(*UPDATE, "--data=language=javascript", project))
    assert "Keep 'typescript', the language of this project" in line
    assert is_unchanged(project)
    assert run_quick_copier(*UPDATE, project).returncode == 0
    answers = before[".copier-answers.yml"].replace("_commit: 1.0.0", "_commit: 1.1.0")
    added = answers.replace("\nlayout:", "\nlanguage: typescript\nlayout:")
    assert difference(texts(project), {**before, ".copier-answers.yml": added}) == ""


def test_an_update_takes_the_name_that_a_project_has_been_given(start: Start) -> None:
    project = start([ONE])
    for path in ("package.json", "wrangler.jsonc"):
        replace(project / path, '"name": "living"', '"name": "renamed"')
    commit(project, "Rename it")
    data = "--data=project_name=renamed"
    assert run_quick_copier(*UPDATE, data, project).returncode == 0
    assert recorded(project)["project_name"] == "renamed"
    assert recorded(project)["resource_name"] == "living"


#: Files that features bring: a feature, answers, and the path.
BROUGHT = [
    (ONE, {"layout": "modules"}, f"src/{ONE}.ts"),
    (ONE, {"layout": "modules"}, f"test/{ONE}.test.ts"),
    (ONE, {"layout": "modules", "language": "javascript"}, f"src/{ONE}.js"),
    (ONE, {"layout": "modules", "language": "javascript"}, f"test/{ONE}.test.js"),
    *[
        (feature["id"], {}, path)
        for feature in CATALOG
        for path in feature.get("files", [])
        if path.startswith("migrations/")
    ],
]


@pytest.mark.parametrize(("feature", "answers", "path"), BROUGHT)
def test_an_update_refuses_a_feature_whose_file_is_the_users(
    feature: str, answers: dict, path: str, start: Start
) -> None:
    other = FEATURES[-1]
    project = start([other], **answers)
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text("// Mine\n")
    commit(project, "Edit")
    update = [*UPDATE, f"--data=features=[{other}, {feature}]", project]
    line = refusal(run_quick_copier(*update))
    assert f"Rename your {path} first, since '{feature}' brings a file" in line
    assert is_unchanged(project)

    (project / path).rename((project / path).with_stem("mine"))
    commit(project, "Edit")
    assert run_quick_copier(*update).returncode == 0
    assert set(recorded(project)["features"]) == {other, feature}


def test_an_update_refuses_a_new_name_whose_file_is_the_users(start: Start) -> None:
    project = start(["before"], layout="modules")
    (project / f"src/{KEPT}.ts").write_text("// Mine\n")
    commit(project, "Edit")
    line = refusal(run_quick_copier(*UPDATE, project))
    assert f"Rename your src/{KEPT}.ts first, since '{KEPT}' brings a file" in line
    assert is_unchanged(project)


def test_an_update_in_a_terminal_refuses_the_same(
    start: Start, terminal: Terminal
) -> None:
    feature, answers, path = BROUGHT[0]
    project = start(FEATURES[-1:], **answers)
    (project / path).write_text("// Mine\n")
    commit(project, "Edit")
    updating = terminal("update", project)
    said = talk(
        updating,
        ("Name of the Worker", CLEAR + "other"),
        ("Keep 'living', the name of", ENTER + CLEAR + "living" + ENTER),
        # Where the cursor is, as terminals say: only then there is room for a message.
        ("What should it do", "\x1b[1;1R" + toggles(feature)),
        (f"Rename your {path} first", CTRL_C),
    )
    assert "What are you starting" not in said
    assert ended(updating) != 0
    assert is_unchanged(project)


def test_classes_go_with_consent_alone_which_is_not_recorded(start: Start) -> None:
    project = start([KEPT, DROPPED])
    update = [*UPDATE, f"--data=features=[{KEPT}]", project]
    line = refusal(run_quick_copier(*update))
    assert GOES in line
    assert STAYS not in line
    assert "--data delete_data=true" in line
    assert is_unchanged(project)

    assert run_quick_copier(*update, "--data=delete_data=true").returncode == 0
    assert recorded(project)["features"] == [KEPT]
    assert "delete_data" not in recorded(project)


def test_a_terminal_asks_before_classes_go_and_no_keeps_everything(
    start: Start, terminal: Terminal
) -> None:
    project = start([KEPT, DROPPED])
    for answer in "ny":
        assert is_unchanged(project)
        updating = terminal("update", project)
        talk(
            updating,
            ("Name of the Worker", ENTER),
            ("What should it do", toggles(DROPPED)),
            # The package manager, the domain and GitHub Actions stay as they are.
            ("Package manager", ENTER * 3),
            (f"deletes every {GOES} object", answer),
        )
        assert (ended(updating) == 0) == (answer == "y")
    assert recorded(project)["features"] == [KEPT]


@pytest.mark.parametrize("kept", [[MODEL_FEATURES[0], ASKING], []], ids=len)
def test_a_choice_that_is_gone_takes_no_other_answer_with_it(
    kept: list[str], start: Start, releases: Path, tmp_path: Path
) -> None:
    others = {**ANSWERS, "ai_provider": "before"}
    del others["project_name"], others["resource_name"], others["features"]
    project = start(["before", *kept, "retired"], **others)
    features = sorted([KEPT, *kept], key=MENU.index)
    expected = {**recorded(project), "_commit": "1.1.0", "features": features}
    if kept:
        assert expected["ai_provider"] == "before"
        expected["ai_provider"] = PROVIDERS[1]["id"]
    names = [{"from": "Before", "to": STAYS}]
    expected["migrations"] += [{"tag": "v2", "renamed_classes": names}]
    result = run_quick_copier(*UPDATE, project)
    assert result.returncode == 0, result.stderr
    assert recorded(project) == expected
    assert config(project)["migrations"] == expected["migrations"]
    told = [line for line in result.stderr.splitlines() if line.startswith("`")]
    news = ["`retired` is gone. Nobody used it.", f"`before` is `{KEPT}` now."]
    news += [f"`before` is `{PROVIDERS[1]['id']}` now."] if kept else []
    assert [line.strip() for line in told[: len(news)]] == news

    # Except for the record, as a fresh copy; and the class goes under its new name.
    data = {k: v for k, v in expected.items() if not k.startswith("_")}
    fresh = copy(releases, tmp_path / "fresh", vcs_ref="1.1.0", **data)
    assert difference(texts(project), texts(fresh)) == ""
    commit(project, "Update")
    gone = f"--data=features={kept}"
    assert run_quick_copier(*UPDATE, gone, project).returncode != 0
    result = run_quick_copier(*UPDATE, gone, "--data=delete_data=true", project)
    assert result.returncode == 0, result.stderr
    assert config(project)["migrations"][2] == {"tag": "v3", "deleted_classes": [STAYS]}
    assert "is gone" not in result.stderr
