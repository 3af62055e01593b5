"""Checks and tests this repository: `python3 test.py [pytest arguments]`.

Formatting, linting and the tests, in this order, up to the first failure, whose
exit status it takes.
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress

from tools import workbench

CHECKS: list[list[str | os.PathLike[str]]] = [
    [workbench.PYTHON, "-m", "ruff", "format", "--check", "--quiet"],
    [workbench.PYTHON, "-m", "ruff", "check", "--quiet"],
    [workbench.ROOT / "node_modules" / ".bin" / "biome", "check"],
]


#: What a run of all tests writes, and some more, in bytes.
WRITTEN = 4 * 1024**3


def memory() -> dict[str, str]:
    """Returns the setting for temporary files in memory, where there is room.

    Databases, repositories and projects that live for seconds are else written to
    a disk, which each of their transactions waits for.
    """
    folder = "/dev/shm"
    with suppress(OSError):
        if shutil.disk_usage(folder).free > WRITTEN:
            return {"TMPDIR": folder}
    return {}


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
    environment = workbench.quiet_environment() | memory()
    for check in CHECKS:
        status = subprocess.run(check, env=environment, check=False).returncode
        if status != 0:
            sys.exit(status)
    # In place of this process, so that Ctrl-C reaches the tests and no other.
    # One more at once than there are processors, since servers are waited for.
    parallel = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "worksteal"]
    pytest = [workbench.PYTHON, "-m", "pytest", *parallel, *sys.argv[1:]]
    sys.stdout.flush()
    os.execve(workbench.PYTHON, pytest, environment)


if __name__ == "__main__":
    main()
