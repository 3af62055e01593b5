"""A generated project, served by its own `dev` script."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from conftest import node_environment
from workbench import NODE


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@dataclass
class DevServer:
    """A running `dev` script.

    Attributes:
        project: The project's folder.
        port: Where it listens on 127.0.0.1.
        process: The script's process.
        log: The file that its output goes to.
    """

    project: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The API token that the script made up."""
        lines = (self.project / ".dev.vars").read_text().splitlines()
        secrets = dict(line.split("=", 1) for line in lines if "=" in line)
        return secrets["API_TOKEN"]

    @property
    def operator(self) -> dict[str, str]:
        """The header that opens what only the operator may use."""
        return {"Authorization": f"Bearer {self.token}"}

    def processes(self) -> list[psutil.Process]:
        """Return the script's process and all below it."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=30)


@contextmanager
def serve(project: Path, command: list[str] | None = None) -> Iterator[DevServer]:
    """Serve a project until the block ends.

    Args:
        project: A project with its packages.
        command: How to start `dev`, with room for more arguments at its end;
            by default the script itself.

    Yields:
        The server, once `GET /health` answers.

    Raises:
        AssertionError: With the output, when it does not within a minute.
    """
    port, inspector_port = free_port(), free_port()
    log = project.parent / f"{project.name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(command or [str(NODE), "scripts/dev.mjs"]),
                f"--port={port}",
                f"--inspector-port={inspector_port}",
            ],
            cwd=project,
            env={**node_environment(), "CI": ""},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = DevServer(project, port, process, log)
    everything: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 60
        while not is_healthy(server):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        everything = server.processes()
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        for left in psutil.wait_procs(everything, timeout=10)[1]:
            os.kill(left.pid, 9)


def is_healthy(server: DevServer) -> bool:
    """Tell whether the server answers `GET /health`."""
    try:
        return httpx.get(f"{server.url}/health").status_code == 200
    except httpx.TransportError:
        return False
