"""What people may answer, what they are told, and what an update may not do.

The `copier` command is what people type, so its command line is what is run: in a
terminal where it asks, and else mostly in this process, which is quicker.
"""

import os
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import copier
import pexpect
import pytest
import yaml
from copier.errors import UserMessageError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parts import CATALOG, FEATURES, MANAGERS, MODEL_FEATURES, PROVIDERS
from quick_copier import run_quick_copier
from toolchain import commit, git, release, run_copier
from workbench import ROOT, copy_template

#: The features in the order of the questionnaire, group by group.
MENU = [f["id"] for f in sorted(CATALOG, key=lambda f: (f["group"], f["order"]))]
#: An answer to each recorded question that is not its default: as a value, and
#: as the text that follows `--data question=`. With all features, since some
#: questions belong to one.
ANSWERS = {
    "project_name": ("chosen-name", "chosen-name"),
    "features": (MENU, f"[{', '.join(MENU[::-1])}]"),
    "ai_provider": ("anthropic", "anthropic"),
    "layout": ("modules", "modules"),
    "package_manager": ("bun", "bun"),
    "hyperdrive_id": ("0123456789abcdef" * 2, "0123456789abcdef" * 2),
    "custom_domain": ("app.example.com", "app.example.com"),
    "github_actions": (False, "false"),
    "compatibility_date": ("2025-03-07", "2025-03-07"),
}
#: The starting points, and which features each has chosen.
PRESETS = {
    "custom": {"auth"},
    "d1-api": {"auth", "d1", "rate-limit"},
    "realtime": {"websockets", "auth", "assets", "rate-limit"},
    "ai-assistant": {"agents", "assets", "rate-limit"},
    "document-search": {"ai", "vectorize", "r2", "rate-limit"},
    "event-pipeline": {"queues", "workflows", "analytics", "cron"},
    "full-stack": {"assets", "auth", "d1", "r2", "rate-limit"},
}
#: What Copier prints by itself; all else must be a message of the template.
NOTICES = ("Copying from template version", "Updating to template version")
#: The command that updates to the newest of `releases`. It is named, since only a
#: named release is read once.
UPDATE = ["update", "--defaults", "--vcs-ref=1.1.0"]
#: Keys of a terminal.
DOWN, SPACE, ENTER, CLEAR, CTRL_C = "\x1b[B", " ", "\r", "\x01\x0b", "\x03"


def toggles(*features: str) -> str:
    """Return the keys that choose features, or drop chosen ones, and go on."""
    keys, line = "", 0
    for place in sorted(MENU.index(feature) for feature in features):
        keys += DOWN * (place - line) + SPACE
        line = place
    return keys + ENTER


pytestmark = pytest.mark.usefixtures("quick")
QUICK = settings(deadline=None, database=None)


@pytest.fixture(scope="module")
def worker(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Copier's state after a copy that wrote nothing."""
    return copier.run_copy(
        str(template),
        tmp_path_factory.mktemp("pretended") / "my-worker",
        defaults=True,
        pretend=True,
        quiet=True,
    )


@pytest.fixture(scope="module")
def macros(worker: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The macros of `extensions/answers.jinja`, in Copier's own environment."""
    folder = tmp_path_factory.mktemp("empty")
    answers, managers, presets = (
        yaml.safe_load((ROOT / f"extensions/{name}.yml").read_text())
        for name in ("answers", "package-managers", "presets")
    )
    context = {
        "catalog": {
            "features": CATALOG,
            "providers": PROVIDERS,
            "package_managers": managers,
            "presets": presets,
            "answers": [answers],
        },
        "_copier_conf": {"dst_path": folder, "answers_file": ".copier-answers.yml"},
        "_external_data": {"recorded": {}},
    }
    template = worker.jinja_env.get_template("extensions/answers.jinja")
    return template.make_module(context)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the template as 1.1.0, and as 1.0.0 with more to choose.

    The feature and the provider that 1.1.0 no longer has are called `retired`.
    """
    repository = copy_template(tmp_path_factory.mktemp("releases"))
    retired = {
        "feature.yml": "id: retired\ntitle: Retired\ngroup: Web\norder: 1000\n"
        "help: What nobody needs\n",
        "worker.ts": "const retired = true;\n",
        "worker.test.ts": "",
        "guide.md.jinja": "",
    }
    (repository / "features/retired").mkdir()
    for name, text in retired.items():
        (repository / "features/retired" / name).write_text(text)
    provider = repository / "providers/retired"
    shutil.copytree(repository / "providers" / PROVIDERS[0]["id"], provider)
    text = (provider / "provider.yml").read_text()
    renamed = text.replace(f"id: {PROVIDERS[0]['id']}\n", "id: retired\n")
    (provider / "provider.yml").write_text(renamed)
    release(repository, "1.0.0")
    shutil.rmtree(repository / "features/retired")
    shutil.rmtree(provider)
    release(repository, "1.1.0")
    return repository


@pytest.fixture
def committed(releases: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a project of 1.0.0 and commits it.

    It takes the features and, as keywords, further answers, and returns the
    project's folder. The project's name is `living`.
    """

    def committed(features: list[str], **answers: object) -> Path:
        project = tmp_path / "living"
        copier.run_copy(
            str(releases),
            project,
            data={"project_name": "living", "features": features, **answers},
            vcs_ref="1.0.0",
            defaults=True,
            quiet=True,
        )
        commit(project, "Start")
        return project

    return committed


@pytest.fixture
def terminal() -> Iterator[Callable[..., pexpect.spawn]]:
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
                timeout=30,
            )
        )
        return running[-1]

    yield terminal
    for process in running:
        process.close(force=True)


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Check that a command failed with one readable line, and return the line."""
    output = result.stdout + result.stderr
    assert result.returncode != 0, output
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(NOTICES)]
    assert len(lines) == 1, output
    return lines[0]


def ended(process: pexpect.spawn) -> int:
    """Wait for the end of a command in a terminal and return its exit status."""
    process.expect(pexpect.EOF)
    process.close()
    return process.exitstatus


def recorded(project: Path) -> dict[str, object]:
    """Return what a project's answers file holds."""
    return yaml.safe_load((project / ".copier-answers.yml").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Return each file below a folder, by its path there, without random secrets."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    found.pop(".dev.vars", None)
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.mark.parametrize(("count", "layout"), [(3, "single-file"), (4, "modules")])
def test_more_than_three_features_are_modules(
    template: Path, tmp_path: Path, count: int, layout: str
) -> None:
    data = f"--data=features=[{', '.join(FEATURES[:count])}]"
    assert run_copier("copy", "--defaults", data, template, tmp_path).returncode == 0
    recorded = yaml.safe_load((tmp_path / ".copier-answers.yml").read_text())
    assert recorded["layout"] == layout


# --- Without prompts ----------------------------------------------------------


def test_these_tests_answer_every_question_that_is_recorded(
    worker: Any,
) -> None:
    questions = worker.template.questions_data.items()
    asked = {
        name
        for name, question in questions
        if question.get("when") is not False and not question.get("secret")
    }
    computed = {"migrations"}
    assert set(ANSWERS) == asked - computed


def test_every_answer_can_be_given_by_data(template: Path, tmp_path: Path) -> None:
    project = tmp_path / "folder"
    data = [f"--data={name}={text}" for name, (_, text) in ANSWERS.items()]
    result = run_copier("copy", "--defaults", *data, template, project)
    assert result.returncode == 0, result.stderr
    answers = recorded(project)
    assert {name: answers[name] for name in ANSWERS} == {
        name: value for name, (value, _) in ANSWERS.items()
    }


def test_every_answer_can_be_given_by_a_data_file(
    template: Path, tmp_path: Path
) -> None:
    project = tmp_path / "folder"
    expected = {name: value for name, (value, _) in ANSWERS.items()}
    data_file = tmp_path / "data.yml"
    data_file.write_text(yaml.safe_dump(expected, default_flow_style=False))
    result = run_copier(
        "copy", "--defaults", "--data-file", data_file, template, project
    )
    assert result.returncode == 0, result.stderr
    answers = recorded(project)
    assert {name: answers[name] for name in ANSWERS} == expected


@pytest.mark.parametrize(
    ("spelling", "chosen"),
    [
        ("[]", []),
        ("[{0}]", MENU[:1]),
        ("[{0}, {1}]", MENU[:2]),
        ("[{0},{1}]", MENU[:2]),
        (" [ {1} , {0} ] ", MENU[:2]),
        ("['{0}', \"{1}\"]", MENU[:2]),
        ("[{0}, {1},]", MENU[:2]),
        ("[{0}, {0}]", MENU[:1]),
        ("[\n  {0},\n  {1}\n]\n", MENU[:2]),
        ("- {0}", MENU[:1]),
        ("- {0}\n- {1}", MENU[:2]),
        ("- {1}\n- {0}\n", MENU[:2]),
    ],
)
def test_features_can_be_written_as_any_plain_yaml_list(
    spelling: str, chosen: list[str], template: Path, tmp_path: Path
) -> None:
    copier.run_copy(
        str(template),
        tmp_path / "my-worker",
        data={"features": spelling.format(*MENU)},
        defaults=True,
        quiet=True,
    )
    assert recorded(tmp_path / "my-worker")["features"] == chosen


def test_the_answer_to_the_question_of_a_feature_goes_with_it(
    render: Callable[..., Path],
) -> None:
    digits = "0123456789abcdef" * 2
    assert recorded(render(["hyperdrive"], hyperdrive_id=digits)) == {
        **recorded(render(["hyperdrive"])),
        "hyperdrive_id": digits,
    }
    assert "hyperdrive_id" not in recorded(render(["auth"], hyperdrive_id=digits))

    for feature in MODEL_FEATURES:
        assert recorded(render([feature]))["ai_provider"] == "workers-ai"
        openai = recorded(render([feature], ai_provider="openai"))
        assert openai["ai_provider"] == "openai"
    assert "ai_provider" not in recorded(render(["auth"], ai_provider="openai"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("plain", "plain"),
        ("My App", "my-app"),
        ("shop.example.com", "shop-example-com"),
        ("snake_case", "snake-case"),
        ("--edges--", "edges"),
        ("Größe 2", "gr-e-2"),
        ("日本", "my-worker"),
        ("[brackets]*", "brackets"),
        ("x" * 200, "x" * 54),
        ("x" * 53 + "-y", "x" * 53),
    ],
)
def test_the_folder_gives_the_worker_its_name(
    folder: str, name: str, template: Path, tmp_path: Path
) -> None:
    copier.run_copy(str(template), tmp_path / folder, defaults=True, quiet=True)
    assert recorded(tmp_path / folder)["project_name"] == name


# --- The rules, compared with Python's own ------------------------------------


def is_worker_name(text: str) -> bool:
    """Tell whether a text is 1 to 54 lower-case letters, digits, inner dashes."""
    allowed = set(string.ascii_lowercase + string.digits + "-")
    return 1 <= len(text) <= 54 and set(text) <= allowed and text == text.strip("-")


def is_date_between(text: str, oldest: str, newest: str) -> bool:
    """Tell whether a text is a day from `oldest` to `newest`, as YYYY-MM-DD."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return False
    return day.isoformat() == text and date.fromisoformat(
        oldest
    ) <= day <= date.fromisoformat(newest)


def is_host_name(text: str) -> bool:
    """Tell whether a text is the lower-case name of a host below a domain."""
    allowed = set(string.ascii_lowercase + string.digits + "-")
    labels = text.split(".")
    return (
        len(text) <= 253
        and len(labels) > 1
        and all(1 <= len(label) <= 63 for label in labels)
        and all(set(label) <= allowed for label in labels)
        and all(label == label.strip("-") for label in labels)
        and len(labels[-1]) > 1
        and labels[-1][0] in string.ascii_lowercase
    )


@QUICK
@given(folder=st.text() | st.text(alphabet="aZ9-_. é", max_size=80))
@example(folder="a" * 53 + "--b")
@example(folder="İ" * 54)
def test_any_folder_gives_a_valid_name(folder: str, worker: Any) -> None:
    default = worker.template.questions_data["project_name"]["default"]
    name = worker.jinja_env.from_string(default).render(_folder_name=folder)
    assert is_worker_name(name)


@QUICK
@given(name=st.text(max_size=5) | st.text(alphabet="az09-", max_size=60))
@example(name="my-worker\n")
@example(name="a" * 54)
@example(name="a" * 55)
@example(name="٣")
def test_a_project_name_is_accepted_exactly_when_it_is_valid(
    name: str, macros: Any
) -> None:
    accepted = not macros.problem("project_name", name)
    assert accepted == is_worker_name(name)


@QUICK
@given(
    text=st.dates().map(date.isoformat)
    | st.dates(date(2024, 1, 1), date(2028, 1, 1)).map(date.isoformat)
    | st.builds(
        "{:04}-{:02}-{:02}".format,
        st.integers(2024, 2028),
        st.integers(0, 14),
        st.integers(0, 33),
    )
    | st.from_regex(r"\A202\d-[01]\d-[0-3]\d\Z")
    | st.text(alphabet="0123456789-", max_size=12)
)
@example(text="2025-03-06")
@example(text="2025-03-07")
@example(text="2026-02-29")
@example(text="2025-0٤-01")  # an Arabic digit, which `\d` matches
@example(text="2025-03-07\n")
@example(text="20250401")
def test_a_compatibility_date_is_accepted_exactly_when_python_finds_it_in_range(
    text: str, macros: Any
) -> None:
    accepted = not macros.problem("compatibility_date", text)
    assert accepted == is_date_between(text, "2025-03-07", macros.newest_date)


LABELS = st.text(alphabet="az09-", min_size=1, max_size=4)


@QUICK
@given(
    host=st.text(max_size=10)
    | st.lists(LABELS, min_size=1, max_size=4).map(".".join)
    | st.lists(st.text(alphabet="aA1-_é.", max_size=4), max_size=4).map(".".join)
)
@example(host="app.example.com\n")
@example(host="app.example.com.")
@example(host="https://example.com")
@example(host="127.0.0.1")
@example(host=f"{'a' * 63}.com")
@example(host=f"{'a' * 64}.com")
@example(host="a." * 126 + "a")
@example(host="a." * 125 + "aaa")
@example(host="a." * 125 + "aaaa")
def test_a_custom_domain_is_accepted_exactly_when_it_is_empty_or_a_host_name(
    host: str, macros: Any
) -> None:
    accepted = not macros.problem("custom_domain", host)
    assert accepted == (not host or is_host_name(host))


@QUICK
@given(
    text=st.text(max_size=33)
    | st.text(alphabet=string.hexdigits + "g-", min_size=31, max_size=33)
)
@example(text="0" * 32)
@example(text="0" * 32 + "\n")
@example(text="٣" * 32)
def test_a_hyperdrive_id_is_accepted_exactly_when_it_is_32_hexadecimal_digits(
    text: str, macros: Any
) -> None:
    accepted = not macros.problem("hyperdrive_id", text)
    assert accepted == (len(text) == 32 and set(text) <= set(string.hexdigits))


PIECES = st.lists(
    st.sampled_from(
        [*FEATURES[:2], "nope", ", ", ",", " ", "\t", "\n", "- ", "-", "'", '"']
    )
).map("".join)


@settings(QUICK, max_examples=300)
@given(text=PIECES | PIECES.map("[{}]".format) | PIECES.map("- {}".format))
@example(text=f"[{FEATURES[0]} {FEATURES[1]}]")
@example(text=f"[{FEATURES[0]},,{FEATURES[1]}]")
@example(text=f"[-{FEATURES[0]}]")
@example(text=f'["{FEATURES[0]}]')
@example(text=f"- {FEATURES[0]} - {FEATURES[1]}")
@example(text="[\n- ]")
def test_a_text_that_passes_for_a_list_of_features_is_one_for_yaml(
    text: str, macros: Any
) -> None:
    if macros.problem("features", text):
        return
    chosen = yaml.load(text, yaml.BaseLoader)
    assert isinstance(chosen, list)
    assert set(chosen) <= set(FEATURES)


# --- Bad input ----------------------------------------------------------------

LIST_RULE = ["[websockets, auth]", *FEATURES]
NAME_RULE = ["1 to 54 of a-z, 0-9 and dashes", "no dash at either end"]
DATE_RULE = ["2025-03-07 to 20"]
ID_RULE = ["32 hexadecimal digits", "32 zeros"]
HOST_RULE = ["app.example.com", "empty for workers.dev"]
PROVIDER_IDS = [provider["id"] for provider in PROVIDERS]
LAYOUTS = ["single-file", "modules"]

#: A question, a bad answer, how the message names it, and what it says of what
#: is allowed. An answer that is no text comes from a data file.
BAD_ANSWERS = [
    ("features", "[nope]", "nope", LIST_RULE),
    ("features", f"[{FEATURES[0]}, nope]", "nope", LIST_RULE),
    ("features", f"- {FEATURES[0]}\n- nope", "nope", LIST_RULE),
    ("features", f"[{FEATURES[0].upper()}]", FEATURES[0].upper(), LIST_RULE),
    ("features", f"[-{FEATURES[0]}]", f"-{FEATURES[0]}", LIST_RULE),
    ("features", f"[{FEATURES[0]} {FEATURES[1]}]", f"'[{FEATURES[0]} ", LIST_RULE),
    ("features", f"[{FEATURES[0]},,{FEATURES[1]}]", f"'[{FEATURES[0]},,", LIST_RULE),
    ("features", f"[{FEATURES[0]},\t{FEATURES[1]}]", f"'[{FEATURES[0]},\\t", LIST_RULE),
    ("features", f'["{FEATURES[0]}]', f"""'["{FEATURES[0]}]'""", LIST_RULE),
    ("features", f"[{FEATURES[0]}", f"'[{FEATURES[0]}'", LIST_RULE),
    ("features", FEATURES[0], f"'{FEATURES[0]}'", LIST_RULE),
    ("features", "", "''", LIST_RULE),
    ("features", "{a: b}", "'{a: b}'", LIST_RULE),
    ("features", {FEATURES[0]: True}, FEATURES[0], LIST_RULE),
    ("features", [[FEATURES[0]]], f"['{FEATURES[0]}']", LIST_RULE),
    ("features", [1], "[1]", LIST_RULE),
    ("features", 5, "'5'", LIST_RULE),
    ("features", True, "'True'", LIST_RULE),
    ("features", None, "'None'", LIST_RULE),
    ("project_name", "MyWorker", "'MyWorker'", NAME_RULE),
    ("project_name", "", "''", NAME_RULE),
    ("project_name", "my worker", "'my worker'", NAME_RULE),
    ("project_name", "my_worker", "'my_worker'", NAME_RULE),
    ("project_name", "-edge", "'-edge'", NAME_RULE),
    ("project_name", "edge-", "'edge-'", NAME_RULE),
    ("project_name", "a" * 55, "a" * 55, NAME_RULE),
    ("project_name", "my-worker\n", "'my-worker\\n'", NAME_RULE),
    ("project_name", ["my-worker"], "['my-worker']", NAME_RULE),
    ("project_name", {"my": "worker"}, "{'my': 'worker'}", NAME_RULE),
    ("project_name", True, "'True'", NAME_RULE),
    ("project_name", 1.5, "'1.5'", NAME_RULE),
    ("project_name", date(2026, 1, 1), "'2026-01-01'", NAME_RULE),
    ("compatibility_date", "2026-02-30", "'2026-02-30'", DATE_RULE),
    ("compatibility_date", "yesterday", "'yesterday'", DATE_RULE),
    ("compatibility_date", "2025-03-06", "'2025-03-06'", DATE_RULE),
    ("compatibility_date", "2999-01-01", "'2999-01-01'", DATE_RULE),
    ("compatibility_date", date(2026, 1, 1), "'2026-01-01'", ["quotes"]),
    ("compatibility_date", date(2024, 1, 1), "'2024-01-01'", DATE_RULE),
    ("compatibility_date", 20260101, "'20260101'", DATE_RULE),
    ("compatibility_date", ["2026-01-01"], "['2026-01-01']", DATE_RULE),
    ("hyperdrive_id", "0" * 31, f"'{'0' * 31}'", ID_RULE),
    ("hyperdrive_id", "g" * 32, f"'{'g' * 32}'", ID_RULE),
    ("hyperdrive_id", "", "''", ID_RULE),
    ("hyperdrive_id", 0, "'0'", ID_RULE),  # what YAML makes of unquoted zeros
    ("hyperdrive_id", ["0" * 32], f"['{'0' * 32}']", ID_RULE),
    ("hyperdrive_id", None, "'None'", ID_RULE),
    ("custom_domain", "https://example.com/", "'https://example.com/'", HOST_RULE),
    ("custom_domain", "localhost", "'localhost'", HOST_RULE),
    ("custom_domain", ["app.example.org"], "['app.example.org']", HOST_RULE),
    ("custom_domain", False, "'False'", HOST_RULE),
    ("custom_domain", None, "'None'", HOST_RULE),
    ("ai_provider", "nobody", "'nobody'", PROVIDER_IDS),
    ("ai_provider", "workers-ai\n", "'workers-ai\\n'", PROVIDER_IDS),
    ("ai_provider", ["openai"], "['openai']", PROVIDER_IDS),
    ("ai_provider", None, "'None'", PROVIDER_IDS),
    ("layout", "folders", "'folders'", LAYOUTS),
    ("layout", ["modules"], "['modules']", LAYOUTS),
    ("package_manager", "cargo", "'cargo'", MANAGERS),
    ("package_manager", ["npm"], "['npm']", MANAGERS),
    ("package_manager", {"npm": True}, "{'npm': True}", MANAGERS),
    ("github_actions", "maybe", "'maybe'", ["true or false"]),
    ("github_actions", [True], "'[True]'", ["true or false"]),
    ("github_actions", None, "'None'", ["true or false"]),
    ("github_actions", 2, "'2'", ["true or false"]),
    ("delete_data", "maybe", "'maybe'", ["true or false"]),
    ("delete_data", [True], "'[True]'", ["true or false"]),
]
#: Of each question, the first that is text and the first that is not.
BAD_TEXTS = {bad[0]: bad for bad in BAD_ANSWERS[::-1] if isinstance(bad[1], str)}
BAD_VALUES = {bad[0]: bad for bad in BAD_ANSWERS[::-1] if not isinstance(bad[1], str)}


@pytest.mark.parametrize(("question", "answer", "named", "allowed"), BAD_ANSWERS)
def test_a_bad_answer_is_refused_with_one_line_and_no_file(
    question: str,
    answer: object,
    named: str,
    allowed: list[str],
    template: Path,
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    # Any other error ends the command with a traceback.
    with pytest.raises(UserMessageError) as error:
        copier.run_copy(
            str(template), project, data={question: answer}, defaults=True, quiet=True
        )
    message = error.value.message.replace("\\'", "'")
    assert "\n" not in message
    assert f"{question}: " in message
    assert named in message
    assert all(rule in message for rule in allowed)
    assert not project.exists()


@pytest.mark.parametrize(("question", "answer", "named", "allowed"), BAD_TEXTS.values())
def test_the_command_refuses_bad_data_with_one_line_and_no_file(
    question: str,
    answer: str,
    named: str,
    allowed: list[str],
    template: Path,
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    data = f"--data={question}={answer}"
    line = refusal(run_quick_copier("copy", "--defaults", data, template, project))
    assert f"{question}: " in line
    assert named in line
    assert all(rule in line for rule in allowed)
    assert not project.exists()


@pytest.mark.parametrize(
    ("question", "answer", "named", "allowed"), BAD_VALUES.values()
)
def test_the_command_refuses_a_bad_data_file_with_one_line_and_no_file(
    question: str,
    answer: object,
    named: str,
    allowed: list[str],
    template: Path,
    tmp_path: Path,
) -> None:
    project = tmp_path / "project"
    data_file = tmp_path / "data.yml"
    data_file.write_text(yaml.safe_dump({question: answer}))
    line = refusal(
        run_quick_copier(
            "copy", "--defaults", "--data-file", data_file, template, project
        )
    )
    assert f"{question}: " in line
    assert named in line
    assert all(rule in line for rule in allowed)
    assert not project.exists()


@pytest.mark.parametrize("question", [*ANSWERS, "delete_data"])
def test_a_message_says_first_what_to_write(question: str, macros: Any) -> None:
    # A terminal of 80 columns shows little more.
    _, bad, *_ = BAD_TEXTS[question]
    message = macros.problem(question, bad).strip()
    assert re.match(r"(Use|Write|Choose) .*[a-z0-9]", message[:40]), message
    assert message.endswith(f"not '{bad}'.")


def test_prompt_and_data_offer_the_same_layouts(worker: Any, macros: Any) -> None:
    choices = worker.template.questions_data["layout"]["choices"]
    assert list(choices.values()) == macros.choices["layout"]


def test_every_question_has_a_bad_answer_of_each_kind() -> None:
    assert set(BAD_TEXTS) >= set(ANSWERS)
    assert set(BAD_VALUES) >= set(ANSWERS)


def test_a_folder_that_exists_is_left_alone_when_an_answer_is_bad(
    template: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine\n")
    # The command itself, where a warning would be one more line.
    result = run_copier(
        "copy", "--defaults", "--data=features=[nope]", template, project
    )
    assert "nope" in refusal(result)
    assert contents(project) == {"README.md": b"mine\n"}


def test_a_history_of_classes_that_does_not_fit_is_refused_with_one_line(
    template: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    other_answers = tmp_path / "answers.yml"
    history = [{"tag": "v1", "new_sqlite_classes": ["ChatRoom"]}]
    other_answers.write_text(
        yaml.safe_dump({"features": ["websockets"], "migrations": history})
    )
    data = ["--data-file", other_answers, "--data=features=[auth]"]
    line = refusal(run_quick_copier("copy", "--defaults", *data, template, project))
    assert "migrations" in line
    assert not project.exists()


# --- Presets -------------------------------------------------------------------


def test_these_tests_know_every_preset() -> None:
    presets = yaml.safe_load((ROOT / "extensions/presets.yml").read_text())
    assert list(PRESETS) == [preset["id"] for preset in presets]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_alone_is_enough_and_is_not_recorded(
    template: Path, tmp_path: Path, preset: str
) -> None:
    project = tmp_path / "my-worker"
    data = f"--data=preset={preset}"
    result = run_quick_copier("copy", "--defaults", data, template, project)
    assert result.returncode == 0, result.stderr
    answers = recorded(project)
    assert set(answers["features"]) == PRESETS[preset]
    assert "preset" not in answers


def test_the_features_count_before_the_preset(render: Callable[..., Path]) -> None:
    project = render(["alarms"], preset="realtime")
    assert recorded(project)["features"] == ["alarms"]


def test_an_update_takes_no_preset(committed: Callable[..., Path]) -> None:
    project = committed(["alarms"])
    line = refusal(run_quick_copier(*UPDATE, "--data=preset=d1-api", project))
    assert "Leave it out" in line
    assert git(project, "status", "--porcelain") == ""


def test_an_update_leaves_the_features_as_they_are(
    committed: Callable[..., Path], terminal: Callable[..., pexpect.spawn]
) -> None:
    project = committed([])
    updating = terminal("update", project)
    updating.expect_exact("Name of the Worker")
    assert "What are you starting" not in updating.before
    updating.send(ENTER * 5)
    assert ended(updating) == 0
    assert recorded(project)["features"] == []


# --- In a terminal ------------------------------------------------------------


def test_the_prompts_reach_every_answer_but_the_two_that_are_not_asked(
    template: Path, tmp_path: Path, terminal: Callable[..., pexpect.spawn]
) -> None:
    project = tmp_path / "folder"
    chosen = ["hyperdrive", MODEL_FEATURES[0], "websockets"]
    copying = terminal("copy", template, project)
    transcript = ""
    for prompt, keys in [
        ("What are you starting", ENTER),
        ("Name of the Worker", CLEAR + "typed-name" + ENTER),
        # `auth` is chosen already.
        ("What should it do", toggles("auth", *chosen)),
        ("Whose model should answer", DOWN + ENTER),
        ("Where should the code be", DOWN + ENTER),
        ("Package manager", DOWN + DOWN + ENTER),
        ("Host name to serve on", "app.example.com" + ENTER),
        ("Test it in GitHub Actions", "n"),
    ]:
        copying.expect_exact(prompt)
        transcript += copying.before
        copying.send(keys)
    assert ended(copying) == 0
    transcript += copying.before
    assert "compatibility" not in transcript.lower()
    assert "hyperdrive configuration" not in transcript.lower()
    answers = recorded(project)
    assert answers["project_name"] == "typed-name"
    assert answers["features"] == sorted(chosen, key=MENU.index)
    assert answers["ai_provider"] == "openai"
    assert answers["layout"] == "modules"
    assert answers["package_manager"] == "yarn"
    assert answers["custom_domain"] == "app.example.com"
    assert answers["github_actions"] is False


def test_a_preset_chooses_features_that_can_be_changed(
    template: Path, tmp_path: Path, terminal: Callable[..., pexpect.spawn]
) -> None:
    project = tmp_path / "my-worker"
    copying = terminal("copy", template, project)
    copying.expect_exact("What are you starting")
    copying.send(DOWN * list(PRESETS).index("full-stack") + ENTER)
    copying.expect_exact("Name of the Worker")
    copying.send(ENTER)
    copying.expect_exact("What should it do")
    copying.send(toggles("r2", "cron") + ENTER * 4)
    assert ended(copying) == 0
    changed = PRESETS["full-stack"] - {"r2"} | {"cron"}
    assert set(recorded(project)["features"]) == changed


def test_enter_alone_takes_every_default(
    template: Path,
    tmp_path: Path,
    render: Callable[..., Path],
    terminal: Callable[..., pexpect.spawn],
) -> None:
    copying = terminal("copy", template, tmp_path / "my-worker")
    copying.expect_exact("What are you starting")
    # With the preset; without the date, the id and the provider.
    copying.send(ENTER * (len(ANSWERS) - 2))
    assert ended(copying) == 0
    assert contents(tmp_path / "my-worker") == contents(render(["auth"]))


@pytest.mark.parametrize(
    ("question", "prompt", "wrong", "message", "right"),
    [
        (
            "project_name",
            "Name of the Worker",
            "My_Worker",
            "Use 1 to 54 of a-z, 0-9 and dashes, with no",
            "my-worker",
        ),
        (
            "custom_domain",
            "Host name to serve on",
            "nohost",
            "Write a host like app.example.com",
            "app.example.com",
        ),
    ],
)
def test_a_wrong_answer_is_explained_while_it_is_typed_and_can_be_corrected(
    question: str,
    prompt: str,
    wrong: str,
    message: str,
    right: str,
    template: Path,
    tmp_path: Path,
    terminal: Callable[..., pexpect.spawn],
) -> None:
    project = tmp_path / "project"
    others = [
        f"--data={name}={text}"
        for name, (_, text) in ANSWERS.items()
        if name != question
    ]
    others.append("--data=preset=custom")
    copying = terminal("copy", *others, template, project)
    copying.expect_exact(prompt)
    copying.send(CLEAR + wrong)
    copying.expect_exact(message)
    copying.send(ENTER + CLEAR + right + ENTER)
    assert ended(copying) == 0
    assert recorded(project)[question] == right


@pytest.mark.parametrize(
    ("keys", "prompt"),
    [("", "What are you starting"), (ENTER + ENTER, "What should it do")],
)
def test_ctrl_c_ends_without_a_file(
    keys: str,
    prompt: str,
    template: Path,
    tmp_path: Path,
    terminal: Callable[..., pexpect.spawn],
) -> None:
    project = tmp_path / "project"
    copying = terminal("copy", template, project)
    copying.send(keys)
    copying.expect_exact(prompt)
    copying.send(CTRL_C)
    assert ended(copying) != 0
    assert "Traceback" not in copying.before
    assert not project.exists()


# --- The name of a living Worker ----------------------------------------------


def test_an_update_refuses_another_project_name(committed: Callable[..., Path]) -> None:
    project = committed(FEATURES[:1])
    line = refusal(run_quick_copier(*UPDATE, "--data=project_name=other", project))
    assert "'other'" in line
    assert "'living'" in line
    assert "deployed" in line
    assert git(project, "status", "--porcelain") == ""


def test_an_update_in_a_terminal_refuses_another_project_name(
    committed: Callable[..., Path], terminal: Callable[..., pexpect.spawn]
) -> None:
    project = committed(FEATURES[:1])
    updating = terminal("update", project)
    updating.expect_exact("Name of the Worker")
    updating.send(CLEAR + "other")
    updating.expect_exact("Keep 'living', the name of this project")
    updating.send(ENTER)
    asked_on = updating.expect_exact(["What should it do", pexpect.TIMEOUT], timeout=1)
    updating.send(CTRL_C)
    assert asked_on == 1
    assert ended(updating) != 0
    assert git(project, "status", "--porcelain") == ""


def test_an_update_accepts_the_same_project_name(
    committed: Callable[..., Path],
) -> None:
    project = committed(FEATURES[:1])
    result = run_quick_copier(*UPDATE, "--data=project_name=living", project)
    assert result.returncode == 0, result.stderr
    assert recorded(project)["_commit"] == "1.1.0"
    assert recorded(project)["project_name"] == "living"


# --- Files of the user's own that a feature would bring -------------------------


@pytest.mark.parametrize(
    ("layout", "feature", "path"),
    [
        ("modules", "queues", "src/queues.ts"),
        ("modules", "alarms", "test/alarms.test.ts"),
        ("single-file", "d1", "migrations/0000_notes.sql"),
    ],
)
def test_an_update_refuses_a_feature_whose_file_is_the_users(
    committed: Callable[..., Path], layout: str, feature: str, path: str
) -> None:
    project = committed(["auth"], layout=layout)
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text("// Mine\n")
    commit(project, "Add a file")
    update = [*UPDATE, f"--data=features=[auth, {feature}]", project]
    line = refusal(run_quick_copier(*update))
    assert f"Rename your {path} first, since '{feature}' brings a file" in line
    assert git(project, "status", "--porcelain") == ""

    (project / path).rename((project / path).with_stem("mine"))
    commit(project, "Rename it")
    assert run_quick_copier(*update).returncode == 0
    assert set(recorded(project)["features"]) == {"auth", feature}
    # What the feature has brought is no obstacle to the next one.
    commit(project, "Update")
    more = f"--data=features=[auth, {feature}, cron]"
    assert run_quick_copier(*UPDATE, more, project).returncode == 0


def test_an_update_in_a_terminal_refuses_a_feature_whose_file_is_the_users(
    committed: Callable[..., Path], terminal: Callable[..., pexpect.spawn]
) -> None:
    project = committed(["auth"], layout="modules")
    (project / "src/queues.ts").write_text("// Mine\n")
    commit(project, "Add a file")
    updating = terminal("update", project)
    updating.expect_exact("Name of the Worker")
    updating.send(ENTER)
    updating.expect_exact("What should it do")
    # Where the cursor is, as terminals say: only then there is room for a message.
    updating.send("\x1b[1;1R" + toggles("queues"))
    updating.expect_exact("Rename your src/queues.ts first")
    updating.send(CTRL_C)
    assert ended(updating) != 0
    assert git(project, "status", "--porcelain") == ""


# --- Durable Object classes that an update would remove -----------------------


def test_removing_a_class_without_consent_is_refused(
    committed: Callable[..., Path],
) -> None:
    project = committed(["websockets", "alarms", "auth"])
    data = "--data=features=[websockets]"
    line = refusal(run_quick_copier(*UPDATE, data, project))
    assert "Reminder" in line
    assert "ChatRoom" not in line
    assert "--data delete_data=true" in line
    assert git(project, "status", "--porcelain") == ""


def test_classes_go_with_consent_which_is_not_recorded(
    committed: Callable[..., Path],
) -> None:
    project = committed(["websockets", "alarms", "auth"])
    data = ["--data=features=[alarms, auth]", "--data=delete_data=true"]
    result = run_quick_copier(*UPDATE, *data, project)
    assert result.returncode == 0, result.stderr
    answers = recorded(project)
    assert answers["features"] == ["alarms", "auth"]
    assert answers["migrations"] == [
        {"tag": "v1", "new_sqlite_classes": ["ChatRoom", "Reminder"]},
        {"tag": "v2", "deleted_classes": ["ChatRoom"]},
    ]
    assert "delete_data" not in answers


def test_a_terminal_asks_before_classes_go_and_no_keeps_everything(
    committed: Callable[..., Path], terminal: Callable[..., pexpect.spawn]
) -> None:
    project = committed(["websockets", "alarms", "auth"])
    updating = terminal("update", "--skip-answered", "--data=features=[auth]", project)
    updating.expect_exact("deletes every ChatRoom and every Reminder object")
    updating.send("n")
    assert ended(updating) != 0
    assert "Traceback" not in updating.before
    assert git(project, "status", "--porcelain") == ""


def test_a_feature_that_is_dropped_at_the_prompt_goes_after_a_yes(
    committed: Callable[..., Path], terminal: Callable[..., pexpect.spawn]
) -> None:
    project = committed(["websockets", "alarms"])
    updating = terminal("update", project)
    updating.expect_exact("Name of the Worker")
    updating.send(ENTER)
    updating.expect_exact("What should it do")
    updating.send(toggles("websockets"))
    updating.expect_exact("Package manager")
    # The package manager, the domain and GitHub Actions stay as they are.
    updating.send(ENTER * 3)
    updating.expect_exact("deletes every ChatRoom object")
    updating.send("y")
    assert ended(updating) == 0
    assert recorded(project)["features"] == ["alarms"]
    assert "delete_data" not in recorded(project)


def test_nothing_is_asked_when_no_class_goes(
    committed: Callable[..., Path], terminal: Callable[..., pexpect.spawn]
) -> None:
    project = committed(["websockets"])
    data = "--data=features=[websockets, alarms]"
    updating = terminal("update", "--skip-answered", data, project)
    assert ended(updating) == 0
    assert "deletes" not in updating.before
    assert recorded(project)["features"] == ["alarms", "websockets"]


# --- Choices that the template no longer has ----------------------------------


@pytest.mark.parametrize("kept", [["alarms", "websockets"], []])
def test_a_retired_feature_takes_no_other_answer_with_it(
    kept: list[str], committed: Callable[..., Path]
) -> None:
    others = {name: value for name, (value, _) in ANSWERS.items()}
    # Which of them is asked depends on the features.
    del others["project_name"], others["features"]
    project = committed([*kept, "retired"], **others)
    before = recorded(project)
    copier.run_update(
        project, vcs_ref="1.1.0", defaults=True, overwrite=True, quiet=True
    )
    after = recorded(project)
    assert after == {**before, "_commit": "1.1.0", "features": kept}


def test_a_retired_provider_gives_way_to_the_default_and_takes_nothing_with_it(
    committed: Callable[..., Path],
) -> None:
    features = [MODEL_FEATURES[0], "websockets"]
    project = committed(features, ai_provider="retired", package_manager="bun")
    before = recorded(project)
    assert before["ai_provider"] == "retired"
    copier.run_update(
        project, vcs_ref="1.1.0", defaults=True, overwrite=True, quiet=True
    )
    after = {**before, "_commit": "1.1.0", "ai_provider": PROVIDERS[0]["id"]}
    assert recorded(project) == after
