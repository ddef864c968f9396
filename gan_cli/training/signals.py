"""Records stop signals, so that a run can save a checkpoint before other signal handlers are called."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# SIGINTs within this time, in seconds, count as one. If a terminal sends SIGINT to a group of processes, wrappers
# such as `uv run` send it to the run a second time.
_ONE_INTERRUPT = 1.0
# The types of handler that signal.signal returns. Python ignores the result of a handler function.
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class StopSignal:
    """A context manager that records the signals in ``CAUGHT``, so that the run can stop and save a checkpoint.

    A first signal does not interrupt the run: the property ``received`` returns the signal from then on. A SIGINT
    that arrives a second or more after the first SIGINT raises ``KeyboardInterrupt`` at once. SIGHUP stays ignored
    if the process was started with SIGHUP ignored, as by ``nohup``. Python allows signal handlers in the main
    thread only. In other threads, this context manager has no effect.
    """

    def __init__(self) -> None:
        self._all: list[signal.Signals] = []
        self._before: dict[signal.Signals, _Handler] = {}
        self._interrupted: float | None = None  # the time of the last SIGINT that counted

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in CAUGHT:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @property
    def received(self) -> signal.Signals | None:
        """The first signal that the process has received, or None before a signal."""
        return self._all[0] if self._all else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._all.append(signal.Signals(number))
        if number == signal.SIGINT:
            now, last = time.monotonic(), self._interrupted
            if last is None or now - last >= _ONE_INTERRUPT:
                self._interrupted = now
                if last is not None:
                    raise KeyboardInterrupt

    def pass_on(self) -> None:
        """Call the signal handlers that were installed before training, once for each kind of received signal.

        For example, a handler of a cluster's job scheduler may requeue the job. Default handlers are not called,
        because they would end the process before it returns its exit status.
        """
        for number in dict.fromkeys(self._all):
            handler = self._before.get(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)

    @property
    def exit_status(self) -> int:
        """The exit status of a stopped run: 130 if the first signal was SIGINT, else 143."""
        return 130 if self.received == signal.SIGINT else 143
