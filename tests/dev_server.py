"""A generated project, served by its own `dev` script."""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from toolchain import node_environment
from workbench import dev_command

# Linux and macOS never give these to a program that asks for any port. The port
# that a test chooses is taken seconds later, and must still be free by then.
CHOSEN_PORTS = range(10_000, 32_768)


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that nothing listens on."""
    ports = set[int]()
    while len(ports) < count:
        port = secrets.choice(CHOSEN_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


@dataclass
class DevServer:
    """A running `dev` script.

    Attributes:
        project: The project's folder.
        port: Where it listens on 127.0.0.1.
        process: The script's process.
        log: The file that its output goes to.
        http: A client for its address, to be given paths.
    """

    project: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    http: httpx.Client

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def features(self) -> list[str]:
        """The features that the project was made with."""
        answers = (self.project / ".copier-answers.yml").read_text()
        return yaml.safe_load(answers)["features"]

    @property
    def token(self) -> str:
        """The API token that the copy has made up."""
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

    def wait_until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: With the server's output, when time is up.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the script alone; wait and return its exit status.

        Raises:
            subprocess.TimeoutExpired: When it still runs half a minute later.
        """
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextmanager
def start(
    project: Path,
    command: list[str | Path] | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[DevServer]:
    """Start a project's `dev` script; when the block ends, it is gone.

    Args:
        project: A project with its packages.
        command: How to start `dev`, with room for more arguments at its end;
            by default the script itself.
        environment: Its environment; by default a quiet one.

    Yields:
        The server, which answers nothing yet.
    """
    port, inspector_port = free_ports(2)
    log = project.parent / f"{project.name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(command or dev_command(project)),
                "--ip=127.0.0.1",
                f"--port={port}",
                f"--inspector-port={inspector_port}",
            ],
            cwd=project,
            env=environment or {**node_environment(), "CI": ""},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            yield DevServer(project, port, process, log, http)
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
        # Those that did not follow.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serve(
    project: Path,
    command: list[str | Path] | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[DevServer]:
    """Serve a project until the block ends; with the arguments of `start`.

    Yields:
        The server, once `GET /health` answers.

    Raises:
        AssertionError: With the output, when it does not within a minute.
    """
    with start(project, command, environment) as server:
        deadline = time.monotonic() + 60
        while not is_healthy(server):
            assert server.process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.1)
        yield server


def left_over(
    processes: list[psutil.Process], seconds: float = 10
) -> list[psutil.Process]:
    """Wait until processes have ended.

    Args:
        processes: The processes. One that has ended and waits for its parent to
            notice counts as ended: an orphan's new parent may be slow.
        seconds: How long to wait.

    Returns:
        Those that still run.
    """
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_healthy(server: DevServer) -> bool:
    """Tell whether the server answers `GET /health`."""
    try:
        return server.http.get("/health").status_code == 200
    except httpx.TransportError:
        return False
