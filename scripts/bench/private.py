"""Measures a private update of the discriminator against a plain one, in turn.

The time of an update is the difference between steps of many and of one discriminator update, divided by the number
of additional updates. It contains the selection of the batch, the generated examples, the gradient and the
optimiser. Private batches have random sizes (Poisson sampling), so a private update also computes padded rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from gan_cli.config.build import experiment
from gan_cli.engine import steps
from gan_cli.engine.state import init_state

CASES = {
    "mlp-64": (["model=mlp", "model.discriminator.dropout=0"], 50),
    "dcgan-64": (["model=dcgan", "model.discriminator.norm=none"], 2),
}
_MANY = 9  # discriminator updates of the longer step
_PRIVATE = ["estimator=private", "estimator.target_epsilon=null", "sampler=poisson"]
_SIDES = {
    "plain": [],
    "private": [*_PRIVATE, "estimator.noise_multiplier=1"],
    "private without noise": [*_PRIVATE, "estimator.noise_multiplier=0"],
}


def measure(repeats: int) -> list[dict[str, Any]]:
    """Measure each case ``repeats`` times. The rows have milliseconds per update, and the ratio to a plain one."""
    rows = []
    for case, (overrides, length) in CASES.items():
        programs = {
            (side, updates): _program([*overrides, *more, f"strategy.n_critic={updates}"], length)
            for side, more in _SIDES.items()
            for updates in (1, _MANY)
        }
        for run in programs.values():
            run()  # compiles and warms up
        times: dict[str, list[float]] = {side: [] for side in _SIDES}
        for _ in range(repeats):
            seconds = {key: _seconds(run) for key, run in programs.items()}
            for side, found in times.items():
                found.append((seconds[side, _MANY] - seconds[side, 1]) / length / (_MANY - 1))
        for side, found in times.items():
            ratios = [own / plain for own, plain in zip(found, times["plain"], strict=True)]
            rows.append(
                {
                    "case": case,
                    "update": side,
                    "milliseconds": round(1000 * statistics.median(found), 4),
                    "ratio": round(statistics.median(ratios), 3),
                }
            )
    return rows


def _program(overrides: list[str], length: int) -> Callable[[], None]:
    """A function that makes ``length`` steps with the compiled program of the overrides."""
    e = experiment([*overrides, "metric=none", "strategy=alternating"])
    assert e.dataset is not None
    chunk = steps.compile_chunk(e.setup, e.dataset.feed, e.train.batch_size, e.train.ema)
    state, arrays = jax.jit(lambda: init_state(e.setup))(), jax.device_put(e.dataset.examples)

    def run() -> None:
        nonlocal state
        state, _, _ = chunk(state, arrays, length)
        jax.block_until_ready(state)

    return run


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table()
    for column in ("case", "update", "ms", "of a plain update"):
        table.add_column(column, justify="left" if column in ("case", "update") else "right")
    for row in rows:
        table.add_row(row["case"], row["update"], f"{row['milliseconds']:.4g}", f"{row['ratio']:.2f}x")
    Console(width=100).print(table)
