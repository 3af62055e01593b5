"""Makes a project from this checkout and serves it until Ctrl-C."""

import argparse
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import workbench

# Says, in a folder, that it was made here and may be made anew.
MARK = ".made-by-try"
KEPT = (MARK, "node_modules", "package-lock.json")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
START_SECONDS = 60


def main() -> None:
    """Does what the command line says.

    Raises:
        SystemExit: With 0 when stopped, else with what failed.
    """
    options = parse_arguments()
    for number in SIGNALS:
        signal.signal(number, interrupt)
    free_ports(options.port)  # A wrong port is better known now than at the end.
    try:
        workbench.set_up_python()
        make_project(options.dir.resolve(), options.features)
        serve(options.dir.resolve(), options.port)
    except KeyboardInterrupt:
        sys.exit(0)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line.

    Returns:
        `features` (list of ids), `dir` (path) and `port` (0: any free one).

    Raises:
        SystemExit: It asks for help, or makes no sense.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: python3 try.py websockets auth"
    )
    parser.add_argument(
        "features",
        nargs="*",
        metavar="FEATURE",
        help="what the Worker does: the name of a folder in features/",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=workbench.BUILD / "try" / "my-worker",
        help="where to make the project, in place of what an earlier run made "
        "there (default: .build/try/my-worker)",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="where to serve (default: a free port)"
    )
    return parser.parse_args()


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Handles the first signal to stop; from then on all are ignored.

    Raises:
        KeyboardInterrupt: Always.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def make_project(folder: Path, features: list[str]) -> None:
    """Copies the template and installs the packages of the project.

    Args:
        folder: Where to. Only an earlier project of this command is replaced.
        features: The ids of the chosen features.

    Raises:
        SystemExit: The folder is in use, Copier refused or npm failed.
    """
    clear(folder)
    copier = [workbench.PYTHON, "-m", "copier", "copy", "--quiet", "--defaults"]
    # Not the newest release but what is here, changes included.
    copier += ["--vcs-ref", "HEAD", "--data", f"features={json.dumps(features)}"]
    workbench.run(
        f"Making a project in {folder}",
        [*copier, workbench.ROOT, folder],
        env=workbench.quiet_environment()
        | {"PYTHONWARNINGS": "ignore:Dirty template changes"},
    )
    (folder / MARK).touch()
    workbench.set_up_npm("Installing its packages", folder)


def clear(folder: Path) -> None:
    """Removes an earlier project, except for its installed packages.

    Args:
        folder: The project. It may be missing or empty.

    Raises:
        SystemExit: There is something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists()):
        sys.exit(f"{folder} is not empty, and not made by this command: left alone.")
    for path in folder.iterdir():
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def serve(folder: Path, port: int) -> None:
    """Runs what `npm run dev` runs, until it ends or this process is stopped.

    Args:
        folder: The project.
        port: Where to serve; 0 for any free port.

    Raises:
        SystemExit: The port is taken, or the Worker did not start or ended.
        KeyboardInterrupt: A signal stopped it.
    """
    port, inspector_port = free_ports(port, 0)
    script = [workbench.NODE, "scripts/dev.mjs", "--port", str(port)]
    environment = workbench.quiet_environment()
    # As under npm, the script stops by itself when this process is killed.
    environment["npm_lifecycle_event"] = "dev"
    with workbench.started(
        [*script, "--inspector-port", str(inspector_port)], cwd=folder, env=environment
    ) as server:
        wait_for_health(server, port)
        # The line break in one piece with the line, as the server prints too.
        ready = f"Serving on http://127.0.0.1:{port} - Ctrl-C stops it\n"
        print(ready, end="", flush=True)
        sys.exit(server.wait())


def free_ports(*ports: int) -> list[int]:
    """Finds ports that nobody listens on.

    Args:
        ports: For each the wanted number, or 0 for any.

    Returns:
        As many different port numbers.

    Raises:
        SystemExit: A wanted port is taken.
    """
    sockets = [socket.socket() for _ in ports]
    try:
        for free, port in zip(sockets, ports, strict=True):
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
        return [free.getsockname()[1] for free in sockets]
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {port} cannot be used: {error}")
    finally:
        for free in sockets:
            free.close()


def wait_for_health(server: subprocess.Popen[bytes], port: int) -> None:
    """Waits until `GET /health` answers 200.

    Args:
        server: What will answer.
        port: Where.

    Raises:
        SystemExit: It ended first, or `START_SECONDS` went by.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"The Worker did not start (exit status {server.returncode}).")
        if is_healthy(port):
            return
        time.sleep(0.1)
    sys.exit(f"The Worker did not answer within {START_SECONDS} seconds.")


def is_healthy(port: int) -> bool:
    """Tells whether `GET /health` on a port of this machine answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
