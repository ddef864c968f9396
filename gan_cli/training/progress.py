"""Prints the progress of a run, as a progress bar on a terminal or as lines of text, and writes its log."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger("gan_cli")


class Reporter:
    """Prints lines and the progress of a run.

    Args:
        quiet: whether to print warnings only. Warnings go to stderr through ``logging``.
    """

    def __init__(self, quiet: bool = False):
        self._console = Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._progress: tuple[Progress, TaskID] | None = None

    def say(self, line: str) -> None:
        """Print a line, and write it to the run's log."""
        self._console.print(line, markup=False)
        log.info(line)

    def warn(self, line: str) -> None:
        """Log a warning."""
        log.warning(line)

    def start(self, step: int, steps: int) -> None:
        """Show a progress bar at ``step`` of ``steps``, if the output is a terminal and ``quiet`` is off."""
        if self._console.is_terminal and not self._console.quiet:
            progress = Progress(
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
            self._progress = progress, progress.add_task("", total=steps, completed=step, text="compiling")
            progress.start()

    def update(self, step: int, text: str) -> None:
        """Advance the progress bar to ``step``, and show ``text`` in it, if there is a progress bar."""
        if self._progress is not None:
            progress, task = self._progress
            progress.update(task, completed=step, text=text)

    def logged(self, step: int, steps: int, text: str, left: float | None) -> None:
        """Print a line about ``step``, unless there is a progress bar.

        Args:
            step: the step to which the line refers.
            steps: the number of steps of the whole run.
            text: the losses and the speed.
            left: the expected seconds until the end of the run, or None if this time is not known.
        """
        if self._progress is None:
            remaining = f"  {left:.0f} s left" if left is not None else ""
            self._console.print(f"step {step}/{steps}  {text}{remaining}", markup=False)

    def stop(self) -> None:
        """Remove the progress bar, if there is one."""
        if self._progress is not None:
            self._progress[0].stop()
            self._progress = None
