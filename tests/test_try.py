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
    assert "/auth/session" in {route["path"] for route in routes}
    started = psutil.Process(trying.pid)
    processes = [started, *started.children(recursive=True)]

    trying.send_signal(signal.SIGINT)

    assert trying.wait(timeout=30) == 0
    assert left_over(processes) == []


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
