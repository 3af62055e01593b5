"""The command that a newcomer runs first."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import httpx
import psutil
import pytest

import model_stand_in
from dev_server import left_over
from parts import FEATURES, PRESETS
from workbench import ROOT


@pytest.fixture
def trying(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`try.py --open`, started with the Python that everybody has."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "try.py", "--open", "--dir", tmp_path / "my-worker"],
        env={**os.environ, "BROWSER": "echo Opened %s"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=30)


def wait_for(process: subprocess.Popen[str], pattern: str) -> str:
    """Read the output up to a line, and return the group of the pattern in it."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError("".join(seen))


def test_it_opens_the_page_of_a_starting_point_and_serves_it_until_ctrl_c(
    trying: subprocess.Popen[str],
) -> None:
    address = wait_for(trying, r"Serving on (http://127\.0\.0\.1:\d+)")
    assert wait_for(trying, "Opened (.*)") == f"{address}/"
    assert httpx.get(address).headers["Content-Type"].startswith("text/html")
    started = psutil.Process(trying.pid)
    processes = [started, *started.children(recursive=True)]

    trying.send_signal(signal.SIGINT)

    assert trying.wait(timeout=30) == 0
    assert left_over(processes) == []


def test_ids_of_starting_points_and_features_can_be_mixed() -> None:
    features_of = import_module("try").features_of
    for preset in PRESETS:
        others = [one for one in FEATURES if one not in preset["features"]]
        ids = [preset["id"], *preset["features"], *others]
        assert features_of(ids) == [*preset["features"], *others]


def test_a_stand_in_answers_for_both_apis_in_text_and_in_json() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "ends": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "people": {"type": "array", "items": {"type": "string"}},
        },
    }
    asked = {"messages": [{"role": "user", "content": "Hello"}]}
    openai_json = {"response_format": {"json_schema": {"schema": schema}}}
    anthropic_json = {"output_config": {"format": {"schema": schema}}}
    with model_stand_in.served() as address, httpx.Client(base_url=address) as http:
        for path, as_json in (
            ("/chat/completions", openai_json),
            ("/v1/messages", anthropic_json),
        ):
            text = http.post(path, json={**asked, "stream": True}).text
            assert "stand-in" in text
            assert "Hello" in text
            answer = http.post(path, json={**asked, **as_json}).text
            assert "people from a stand-in for a model" in answer
        assert http.post("/v1/other", json=asked).status_code == 404


def test_an_unknown_id_gets_one_line_and_no_project(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "try.py", "websokets", "--dir", tmp_path / "project"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("There is no 'websokets'; choose from ")
    assert not (tmp_path / "project").exists()
