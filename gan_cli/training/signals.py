"""Stop signals: the run is told, saves, and only then do the handlers that were there before act."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopSignal:
    """Within it, the first of ``CAUGHT`` sets ``received``; a second SIGINT interrupts at once.

    A batch system may send several: each one's earlier handler is called in the end.

    Handlers can only be installed in the main thread of a process; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._all: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}

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
        return self._all[0] if self._all else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._all.append(signal.Signals(number))
        if self._all.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    def pass_on(self) -> None:
        """Call the handlers that were installed before, as a batch system's may want to requeue the job.

        Python's own answer to SIGINT and the system's default actions are left out: the run has stopped.
        """
        for number in dict.fromkeys(self._all):
            handler = self._before.get(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)

    @property
    def exit_status(self) -> int:
        """130 after SIGINT, 143 after any other."""
        return 130 if self.received == signal.SIGINT else 143
