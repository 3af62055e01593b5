"""The command that a newcomer runs first."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import model_stand_in
from dev_server import left_over
from workbench import ROOT


@pytest.fixture
def trying(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`try.py auth`, started with the Python that everybody has."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "try.py", "auth", "--dir", tmp_path / "my-worker"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=30)


def wait_for_address(process: subprocess.Popen[str]) -> str:
    """Read the output up to the line that says where, and return the address."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(r"Serving on (http://127\.0\.0\.1:\d+)", line):
            return found[1]
    raise AssertionError("".join(seen))


def test_it_serves_a_new_project_until_ctrl_c(trying: subprocess.Popen[str]) -> None:
    address = wait_for_address(trying)
    routes = httpx.get(address).json()["routes"]
    assert "GET /auth/session" in routes
    started = psutil.Process(trying.pid)
    processes = [started, *started.children(recursive=True)]

    trying.send_signal(signal.SIGINT)

    assert trying.wait(timeout=30) == 0
    assert left_over(processes) == []


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


def test_an_unknown_feature_gets_one_line_and_no_project(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "try.py", "websokets", "--dir", tmp_path / "project"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert "websokets" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "project").exists()
