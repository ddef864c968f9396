"""Processes that are measured from outside: a parent sends requests, and a child answers, in lines of JSON.

``Process`` is the side of the parent. ``serve``, ``requests`` and ``answer`` are the side of the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DRY = bool(os.environ.get("GPU_BENCH_DRY"))  # a CPU stands in for the GPU, with tiny sizes


class Failed(Exception):
    """A process has failed. The message is one line."""


class Process:
    """A child process that answers requests, each a line of JSON, with a line of JSON.

    Args:
        command: the arguments after the interpreter.
        environment: the environment of the process.
        log: the file for what the process writes to stderr.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path):
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment, text=True,
            )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print other lines
                self._lines.put(line)
        self._lines.put(None)

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next answer.

        Raises:
            Failed: the process has ended, or has not answered within ``seconds``.
        """
        try:
            line = self._lines.get(timeout=max(seconds, 0))
        except queue.Empty:
            self.close()
            raise Failed(f"no answer within {seconds:.0f} s") from None
        if line is None:
            reason = self._reason()
            self.close()
            raise Failed(reason)
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request, and return the answer.

        Raises:
            Failed: the process has ended, or has not answered within ``seconds``.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Failed(self._reason()) from None
        return self.answer(seconds)

    def _reason(self) -> str:
        status = self._process.wait()
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return (lines[-1] if lines else f"the process ended with status {status}")[:200]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # a request that the process has not read
                pipe.close()  # type: ignore[union-attr]  # both are pipes


def answer(content: Mapping[str, Any]) -> None:
    """Print one line of JSON to the parent process."""
    print(json.dumps(content), flush=True)


def requests() -> Iterator[dict[str, Any]]:
    """The requests of the parent process, until it closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)


def first_line(error: BaseException) -> str:
    """The first line of the message of an error, with the name of its class."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"[:200]


def serve(
    makers: Mapping[str, Callable[[], Callable[[int], None]]],
    device: Mapping[str, Any],
    peak_mebibytes: Callable[[], float | None],
    steps: int,
) -> None:
    """Prepare all sides, say which are ready, and then measure a side for each request.

    A request names the side and the seconds that the measurement should take. The answer is the rate in steps per
    second.

    Args:
        makers: for each side, a function that returns the function to time. This function takes a number of steps,
            and returns when they are computed.
        device: facts about the device.
        peak_mebibytes: returns the peak memory of the device.
        steps: the number of steps of one call. Other numbers of steps would be compiled again.
    """
    running: dict[str, Callable[[int], None]] = {}
    seconds_per_call: dict[str, float] = {}
    sides: dict[str, str | None] = {}
    for side, make in makers.items():
        try:
            running[side] = run = make()
            for _ in range(1 if DRY else 3):  # the first call compiles
                began = time.perf_counter()
                run(steps)
            seconds_per_call[side] = time.perf_counter() - began
            sides[side] = None
        except Exception as error:
            sides[side] = first_line(error)
    answer({"device": device, "sides": sides})
    for request in requests():
        side = request["side"]
        calls = max(1, min(10_000, round(request["seconds"] / seconds_per_call[side])))
        try:
            began = time.perf_counter()
            for _ in range(calls):
                running[side](steps)
            rate = calls * steps / (time.perf_counter() - began)
        except Exception as error:
            answer({"failed": first_line(error)})
            continue
        answer({"rate": rate, "peak_mebibytes": peak_mebibytes()})
