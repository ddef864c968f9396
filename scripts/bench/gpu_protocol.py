"""What the processes of ``python scripts/bench --gpu`` share: lines of JSON, and the loop of measurements."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

DRY = bool(os.environ.get("GPU_BENCH_DRY"))  # a CPU stands in for the GPU, with tiny sizes


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
