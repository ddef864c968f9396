"""Prints the progress of a run, as a progress bar on a terminal or as lines of text, and writes its log."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

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


class _OptionalStream:
    """A text stream that drops text that cannot be written.

    For example, the reader of a pipe may have ended, a disk may be full, or a terminal may be closed. All other
    attributes are the attributes of ``stream``.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with _unwritable(self._stream):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with _unwritable(self._stream):
            self._stream.flush()

    def close(self) -> None:
        """Does nothing, because absl, which JAX's libraries log with, closes each stream that it has logged to."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _unwritable(stream: TextIO) -> Iterator[None]:
    """A context manager that suppresses the errors of a stream whose file cannot be written or is closed."""
    try:
        yield
    except OSError:
        pass
    except ValueError:
        if not stream.closed:
            raise


def _optional(stream: TextIO | None) -> TextIO | None:
    """A stream that drops text that cannot be written to ``stream``. The result is None if ``stream`` is None."""
    return None if stream is None else cast(TextIO, _OptionalStream(stream))


@contextlib.contextmanager
def optional_output() -> Iterator[None]:
    """A context manager in which printing and logging raise no errors, because training does not depend on them."""
    before = sys.stdout, sys.stderr, logging.raiseExceptions
    sys.stdout, sys.stderr = cast(TextIO, _optional(sys.stdout)), cast(TextIO, _optional(sys.stderr))
    logging.raiseExceptions = False  # logging would print a traceback for each line that it cannot write
    try:
        yield
    finally:
        sys.stdout, sys.stderr, logging.raiseExceptions = before
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                with contextlib.suppress(ValueError):  # the stream is closed
                    stream.flush()
            except OSError:  # Python would write the pending text at its end, and exit with status 120
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Reporter:
    """Prints lines and the progress of a run.

    Args:
        quiet: whether to print warnings only. Warnings go to stderr through ``logging``.
    """

    def __init__(self, quiet: bool = False):
        self._console = Console(file=_optional(sys.stdout), highlight=False, soft_wrap=True, quiet=quiet)
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
