"""Measures what this template costs: `copy` its copies, `worker` its Workers."""

import argparse
import sys

import benchmark_copy
import benchmark_worker


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    copy = commands.add_parser("copy", help=benchmark_copy.__doc__)
    copy.add_argument("--rounds", type=int, default=15, help="copies of each")
    worker = commands.add_parser("worker", help=benchmark_worker.__doc__)
    worker.add_argument(
        "projects",
        nargs="*",
        metavar="FEATURE,…",
        help="the features of a project; also none and all "
        "(default: none, each feature, all)",
    )
    worker.add_argument("--rounds", type=int, default=5, help="runs of each")
    worker.add_argument("--seconds", type=int, default=2, help="length of a run")
    options = parser.parse_args()
    try:
        if options.command == "copy":
            benchmark_copy.measure(options.rounds)
        else:
            benchmark_worker.measure(options.projects, options.rounds, options.seconds)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
