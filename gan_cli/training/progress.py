"""What a run says: a progress bar on a terminal, plain lines elsewhere, the same lines in the run's log."""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger("gan_cli")


class Reporter:
    """Prints lines and progress; ``quiet`` leaves only warnings, which go through ``logging`` to stderr."""

    def __init__(self, quiet: bool = False):
        self._console = Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._progress: Progress | None = None
        self._task: Any = None

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)
        log.info(line)

    def warn(self, line: str) -> None:
        log.warning(line)

    def start(self, step: int, steps: int) -> None:
        """Show progress from here on."""
        if self._console.is_terminal and not self._console.quiet:
            self._progress = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("", total=steps, completed=step, text="compiling")
            self._progress.start()

    def update(self, step: int, text: str) -> None:
        """Move the bar, where there is one."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step, text=text)

    def logged(self, step: int, steps: int, text: str, left: float | None) -> None:
        """One logged step: a line, where there is no bar."""
        if self._progress is None:
            remaining = f"  {left:.0f} s left" if left is not None else ""
            self._console.print(f"step {step}/{steps}  {text}{remaining}", markup=False)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
