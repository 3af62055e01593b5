"""Makes a project from this checkout and serves it until Ctrl-C.

Features that ask a model get their answers from a stand-in on this machine.
"""

import argparse
import json
import re
import shutil
import signal
import sys
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from tools import model_stand_in, workbench
from tools.workbench import ROOT

DEFAULT = "realtime"
# Says, in a folder, that it was made here and may be made anew.
MARK = ".made-by-try"
KEPT = (MARK, "node_modules", "package-lock.json")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Does what the command line says.

    Raises:
        SystemExit: With 0 when stopped, else with what failed.
    """
    options = parse_arguments()
    features = features_of(options.ids or [DEFAULT])
    for number in SIGNALS:
        signal.signal(number, interrupt)
    # A wrong port is better known now than at the end.
    workbench.free_ports(options.port)
    try:
        workbench.set_up_python()
        make_project(options.dir.resolve(), features, options.provider)
        serve(options.dir.resolve(), options)
    except KeyboardInterrupt:
        sys.exit(0)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line.

    Returns:
        `ids` (list), `provider` (id), `dir` (path), `port` (0: any free one) and
        `open` (bool).

    Raises:
        SystemExit: It asks for help, or makes no sense.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: python3 try.py full-stack --open"
    )
    parser.add_argument(
        "ids",
        nargs="*",
        metavar="ID",
        help="features (the folders in features/) and starting points (in "
        f"extensions/presets.yml) of the project; without any: {DEFAULT}",
    )
    parser.add_argument(
        "--provider",
        choices=sorted(path.name for path in (ROOT / "providers").iterdir()),
        default="openai",
        help="whose model features ask (default: openai). A stand-in answers for "
        "openai and anthropic; workers-ai answers on Cloudflare only",
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
    parser.add_argument(
        "--open", action="store_true", help="open it in a browser, once it is served"
    )
    return parser.parse_args()


def features_of(ids: list[str]) -> list[str]:
    """Returns the features that are meant.

    Args:
        ids: Ids of features and of starting points.

    Raises:
        SystemExit: There is no such id.
    """
    folders = [path.parent.name for path in ROOT.glob("features/*/feature.yml")]
    known = {folder: [folder] for folder in folders}
    # Without a parser of YAML, which a bare Python lacks.
    presets = (ROOT / "extensions" / "presets.yml").read_text("utf-8")
    pattern = r"^- id: (\S+)\n  help: .*\n  features: \[(.*)\]$"
    for name, features in re.findall(pattern, presets, re.MULTILINE):
        known[name] = features.split(", ")
    for unknown in [name for name in ids if name not in known]:
        sys.exit(f"There is no {unknown!r}; choose from {', '.join(sorted(known))}.")
    return list(dict.fromkeys(one for name in ids for one in known[name]))


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Handles the first signal to stop; from then on all are ignored.

    Raises:
        KeyboardInterrupt: Always.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def make_project(folder: Path, features: list[str], provider: str) -> None:
    """Copies the template and installs the packages of the project.

    Args:
        folder: Where to. Only an earlier project of this command is replaced.
        features: The ids of the chosen features.
        provider: The id of the provider of a model, if one of them asks one.

    Raises:
        SystemExit: The folder is in use, Copier refused or npm failed.
    """
    clear(folder)
    workbench.copy_project(
        folder, f"features={json.dumps(features)}", f"ai_provider={provider}"
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


def serve(folder: Path, options: argparse.Namespace) -> None:
    """Runs what `npm run dev` runs, until it ends or this process is stopped.

    Args:
        folder: The project.
        options: The command line.

    Raises:
        SystemExit: The port is taken, or the Worker did not start or ended.
        KeyboardInterrupt: A signal stopped it.
    """
    port, inspector_port = workbench.free_ports(options.port, 0)
    script = workbench.dev_command(folder, "--ip", "127.0.0.1", "--port", str(port))
    script += ["--inspector-port", str(inspector_port)]
    environment = workbench.quiet_environment()
    lines = [f"Project: {folder}"]
    with ExitStack() as stack:
        config = (folder / "wrangler.jsonc").read_text("utf-8")
        if "AI_GATEWAY_BASE_URL" in config:
            address = stack.enter_context(model_stand_in.served())
            script += ["--var", f"AI_GATEWAY_BASE_URL:{address}"]
            # The secrets without a value, the key of the model among them.
            secrets = (folder / ".dev.vars").read_text("utf-8")
            for key in re.findall(r"^(\w+)=$", secrets, re.MULTILINE):
                script += ["--var", f"{key}:stand-in"]
            lines.append(f"Model: a stand-in on {address}, which only repeats")
        server = stack.enter_context(
            workbench.started(script, cwd=folder, env=environment)
        )
        workbench.wait_for_health(server, port)
        if (folder / ".dev.vars").exists():
            lines.append(f"API token: in {folder / '.dev.vars'}")
        if (folder / "public" / "demo").exists():
            lines.append(f"Demo: http://127.0.0.1:{port}/demo/")
        lines.append(f"Serving on http://127.0.0.1:{port} - Ctrl-C stops it\n")
        # In one piece, since the server prints too.
        print("\n".join(lines), end="", flush=True)
        if options.open:
            webbrowser.open(f"http://127.0.0.1:{port}/")
        sys.exit(server.wait())


if __name__ == "__main__":
    main()
