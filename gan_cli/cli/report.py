"""The command ``gan-report``, which writes an HTML file about a run, or about a comparison of several runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gan_cli.cli import sweep
from gan_cli.cli.shell import add_version, check_target, exit_code
from gan_cli.errors import UserError
from gan_cli.storage import run_directory
from gan_cli.views import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gan-report`` with the arguments of a command line, and return the exit status."""
    return exit_code("gan-report", lambda: _main(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gan-report",
        description="Write one HTML file with the curves, pictures and configuration of a run, or with a "
        "comparison of the runs of a sweep, an ensemble or several directories. A browser opens the file without a "
        "network.",
    )
    parser.add_argument(
        "directories",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="the directory of a run, a sweep or an ensemble; several directories are compared in one report",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write the report; required for several directories (default: report.html in DIR)",
    )
    add_version(parser)
    return parser


def _main(options: argparse.Namespace) -> int:
    directories = options.directories
    for directory in directories:
        run_directory.runs(directory)  # raises if the directory contains no run
        sweep.settle(directory)
    if len(directories) > 1 and not options.out:
        raise UserError("--out: a report of several directories needs a path. Name a file, e.g. --out report.html.")
    out = options.out or directories[0] / "report.html"
    check_target(out)
    print(report.compare(directories, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
