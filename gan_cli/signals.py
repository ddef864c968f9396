"""Stop signals: the run is told, saves, and only then do the handlers that were there before act."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopSignal:
    """Within it, the first of ``CAUGHT`` sets ``received``; a second SIGINT interrupts at once.

    Handlers can only be installed in the main thread of a process; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in CAUGHT:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def pass_on(self) -> None:
        """Call the handler that was installed before, as a batch system's may want to requeue the job.

        Python's own answer to SIGINT and the system's default actions are left out: the run has stopped.
        """
        if self.received is None:
            return
        handler = self._before.get(self.received)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(self.received, None)

    @property
    def exit_status(self) -> int:
        """130 after SIGINT, 143 after any other."""
        return 130 if self.received == signal.SIGINT else 143
