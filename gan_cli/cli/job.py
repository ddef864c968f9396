"""The process of one job of a sweep: ``gan-train``, which stops and saves if the process of the sweep is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from gan_cli.cli import sweep, train


def main(pipe: int, directory: Path, arguments: list[str]) -> int:
    """Train a run, and return the exit status of ``gan-train``.

    Args:
        pipe: the file descriptor of the reading end of a pipe. The launcher holds the writing end until it ends.
        directory: the directory of the sweep.
        arguments: the arguments of ``gan-train``.
    """
    alone = threading.Event()

    def stop_with_the_launcher() -> None:
        os.read(pipe, 1)  # nothing is ever written, so this returns at the end of the launcher
        alone.set()
        sweep.settle(directory)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_with_the_launcher, daemon=True).start()
    status = train.main(arguments)
    if alone.is_set():
        sweep.settle(directory)
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
