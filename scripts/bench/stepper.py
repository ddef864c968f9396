"""Calls of the compiled program of an experiment, for processes that measure them."""

from __future__ import annotations

from collections.abc import Callable

import jax

from gan_cli.config.build import Experiment


def endless(per_call: int) -> list[str]:
    """Overrides of a run that never ends, with ``per_call`` steps in a call of the compiled program."""
    every = ("steps_per_call", "log_every", "sample_every", "checkpoint_every")
    return [*(f"train.{what}={per_call}" for what in every), "train.steps=1000000000", "logger=none"]


def stepper(e: Experiment) -> Callable[[int], None]:
    """A function that makes the steps of one call of the compiled program, and waits for them."""
    program = e.compile()
    state = program.init()

    def run(steps: int) -> None:
        nonlocal state
        state, _, _ = program.run(state, 0)
        jax.block_until_ready(state)

    return run
