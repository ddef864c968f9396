"""Stop signals: the run saves a checkpoint before the earlier handlers act on the signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# The types of handler that signal.signal returns. Python ignores the result of a handler function.
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class StopSignal:
    """A context manager that records stop signals, so that the run can end in order.

    The first signal of ``CAUGHT`` sets ``received``. A second SIGINT raises ``KeyboardInterrupt`` at once. Python
    installs handlers in the main thread of a process only; in other threads, this context manager does nothing.
    """

    def __init__(self) -> None:
        self._all: list[signal.Signals] = []
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in CAUGHT:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @property
    def received(self) -> signal.Signals | None:
        """The first stop signal that the process received, or None."""
        return self._all[0] if self._all else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._all.append(signal.Signals(number))
        if self._all.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    def pass_on(self) -> None:
        """Call the earlier handler of each received signal, because an earlier handler may requeue the job.

        Python's default SIGINT handler and the default actions of the operating system are not called: they would
        end the process, and the run has already stopped.
        """
        for number in dict.fromkeys(self._all):
            handler = self._before.get(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)

    @property
    def exit_status(self) -> int:
        """The exit status of a stopped run: 130 after SIGINT, 143 after any other signal."""
        return 130 if self.received == signal.SIGINT else 143
