"""``gan-report``: a run, or several beside each other, as one HTML file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gan_cli.cli.shell import check_target, exit_code
from gan_cli.errors import UserError
from gan_cli.storage import run_directory
from gan_cli.views import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return exit_code("gan-report", lambda: _main(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gan-report",
        description="Write a run, or the runs of a sweep or an ensemble beside each other, as one HTML file with "
        "curves, pictures and configuration, that opens without a network.",
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="a run, a sweep or an ensemble")
    parser.add_argument("--out", type=Path, metavar="FILE", help="without, report.html in the directory")
    return parser


def _main(options: argparse.Namespace) -> int:
    directories = options.directories
    for one in directories:
        run_directory.runs(one)
    if len(directories) > 1 and not options.out:
        raise UserError("--out FILE: say where the report of several directories is to be.")
    out = options.out or directories[0] / "report.html"
    check_target(out)
    print(report.compare(directories, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
