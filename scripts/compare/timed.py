"""A process of ``speed.py``: makes calls of the compiled program of a configuration, with the package on its path.

Each line of the standard input is a request in JSON: ``{"overrides": [...], "steps": n}`` for the following
configuration, or ``{}`` for a call. The answers have the seconds of the call, or the reason why a configuration
failed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from gan_cli.config.build import experiment

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import children
from stepper import endless, stepper


def prepare(overrides: list[str], steps: int) -> Callable[[], float]:
    """A function that makes a call of ``steps`` steps, compiled before, and returns its seconds."""
    run = stepper(experiment([*overrides, *endless(steps), "train.eval_every=0", "metric=none"]))

    def call() -> float:
        began = time.perf_counter()
        run(steps)
        return time.perf_counter() - began

    call()
    call()
    return call


def main() -> None:
    call: Callable[[], float] | None = None
    for request in children.requests():
        answer: dict[str, Any] = {}
        try:
            if "overrides" in request:
                call = None  # frees the arrays of the configuration before
                jax.clear_caches()
                call = prepare(**request)
            elif call is not None:
                answer = {"seconds": call()}
        except Exception as error:
            answer = {"failed": children.first_line(error)}
        children.answer(answer)


if __name__ == "__main__":
    main()
