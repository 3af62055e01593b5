"""Checks and tests this repository: `python3 test.py [pytest arguments]`.

Formatting, linting and the tests, in this order, up to the first failure, whose
exit status it takes.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from tools import workbench

CHECKS: list[list[str | os.PathLike[str]]] = [
    [workbench.PYTHON, "-m", "ruff", "format", "--check", "--quiet"],
    [workbench.PYTHON, "-m", "ruff", "check", "--quiet"],
    [workbench.ROOT / "node_modules" / ".bin" / "biome", "check"],
]


#: The room that all tests need beside its programs' own memory, in bytes.
WRITTEN = 6 * 1024**3


def temporary_files() -> dict[str, str]:
    """Returns the environment that puts temporary files into memory, if that has room.

    Databases, repositories and projects that live for seconds are else written to
    a disk, for which each of their transactions waits. pytest deletes them when all
    tests pass, and else with the next run.
    """
    folder = "/dev/shm"
    try:
        memory = Path("/proc/meminfo").read_text("ascii")
        status = os.statvfs(folder)
    except OSError:
        return {}
    available = int(re.findall(r"MemAvailable: +(\d+) kB", memory)[0]) * 1024
    room = min(available, status.f_bavail * status.f_frsize)
    can_hold_programs = not status.f_flag & os.ST_NOEXEC
    return {"TMPDIR": folder} if room > WRITTEN and can_hold_programs else {}


def main() -> None:
    """Runs the checks, then becomes pytest.

    Raises:
        SystemExit: The set-up or a check failed; with its exit status.
    """
    try:
        workbench.set_up_python()
        workbench.set_up_npm("Setting up npm packages in node_modules")
        workbench.set_up_programs()
    except KeyboardInterrupt:
        sys.exit(130)
    os.chdir(workbench.ROOT)
    environment = workbench.quiet_environment() | temporary_files()
    for check in CHECKS:
        status = subprocess.run(check, env=environment, check=False).returncode
        if status != 0:
            sys.exit(status)
    # In place of this process, so that Ctrl-C reaches the tests and no other.
    # More at once than there are processors, since much of the time goes into waiting.
    # Tests that stand next to each other share servers, so they stay together;
    # conftest.py reckons with that.
    parallel = ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"]
    pytest = [workbench.PYTHON, "-m", "pytest", *parallel, *sys.argv[1:]]
    sys.stdout.flush()
    os.execve(workbench.PYTHON, pytest, environment)


if __name__ == "__main__":
    main()
