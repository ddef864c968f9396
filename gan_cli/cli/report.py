"""``gan-report``: a run, or a sweep, as one HTML file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gan_cli.cli.shell import answer, check_target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return answer("gan-report", lambda: _main(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gan-report",
        description="Write one HTML file that needs no network, of a run, or of the runs of a sweep or ensemble.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN|SWEEP", help="directories; several are compared")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: report.html in the directory)")
    return parser


def _main(options: argparse.Namespace) -> int:
    from gan_cli.views import report

    check_target(options.out or options.runs[0] / "report.html")
    print(report.write(options.runs, options.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
