"""Monitors of a run in training: divergence, mode collapse, throughput, and a profiler."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli.types import Tree

# JAX does not annotate these functions.
_block_until_ready: Callable[[Tree], Tree] = jax.block_until_ready
_stop_trace: Callable[[], None] = jax.profiler.stop_trace

_METRIC = {"loss": "loss", "gradient": "grad_norm"}
# Mode collapse is suspected below this ratio of the samples' diversity to the data's diversity. Well-trained
# generators reach 0.7 or more.
_COLLAPSED = 0.5


class DivergenceMonitor:
    """Finds the first step at which a loss, a gradient or a player's parameters are not finite.

    The gradient norm is checked because clipping hides its overflow: clipping scales a gradient of infinite norm to
    zero. The player's parameters then stay constant for the rest of the run, while the losses look normal.

    Args:
        players: the names of the players.
        stops: whether the run stops when it diverges (``train.on_nan=stop``).

    Attributes:
        finite: whether all parameters were finite at the end of the last call.
        facts: the entries of ``run.json``: ``diverged_at``, ``diverged_player`` and ``diverged_in``. Empty as long
            as the run has not diverged.
    """

    def __init__(self, players: tuple[str, ...], stops: bool):
        self._players, self._stops = players, stops
        self.finite = True
        self.facts: dict[str, Any] = {}

    def observe(self, at: int, metrics: dict[str, np.ndarray], finite: dict[str, np.ndarray]) -> None:
        """Check the results of one call.

        Args:
            at: the last step of the call.
            metrics: the metrics of each step of the call, arrays ``[length]``.
            finite: by player, whether all parameters are finite at the end of the call.
        """
        self.finite = all(bool(ok) for ok in finite.values())
        if self.facts:
            return
        length = len(next(iter(metrics.values())))
        found: list[tuple[int, str, str]] = []
        for player in self._players:
            for what in ("loss", "gradient"):
                wrong = np.flatnonzero(~np.isfinite(metrics[f"{player}/{_METRIC[what]}"]))
                if len(wrong):
                    found.append((at - length + int(wrong[0]) + 1, player, what))
            if not finite[player]:
                found.append((at, player, "parameters"))
        if found:
            step, player, what = min(found, key=lambda place: place[0])
            self.facts = {"diverged_at": step, "diverged_player": player, "diverged_in": what}

    def restore(self, facts: dict[str, Any]) -> None:
        """Restore the divergence that an earlier start of the run wrote to ``run.json``."""
        self.facts = {name: value for name, value in facts.items() if name.startswith("diverged_")}

    @property
    def stopped(self) -> bool:
        """Whether the run stops because it has diverged."""
        return self._stops and bool(self.facts)


class CollapseMonitor:
    """Suspects mode collapse when the samples are much less diverse than the data.

    During training, two consecutive low values of the diversity are needed, because the samples of every generator
    have a low diversity at first. At the end of a run, a single low value is enough.

    Attributes:
        suspected_at: the step since which a mode collapse is suspected, or None.
    """

    def __init__(self) -> None:
        self.suspected_at: int | None = None
        self._was_low = False

    def observe(self, at: int, figures: dict[str, float]) -> None:
        """Update the suspicion from the metrics of step ``at``, of which only ``diversity`` is used."""
        low = figures.get("diversity", 1.0) < _COLLAPSED
        if not low:
            self.suspected_at = None
        elif self._was_low and self.suspected_at is None:
            self.suspected_at = at
        self._was_low = low

    def observe_end(self, at: int, figures: dict[str, float]) -> None:
        """Update the suspicion from the metrics of the last samples of a run."""
        if figures.get("diversity", 1.0) < _COLLAPSED and self.suspected_at is None:
            self.suspected_at = at

    def state(self) -> dict[str, Any]:
        """The monitor's state for a checkpoint, so that a resumed run behaves like an uninterrupted run."""
        return {"suspected_at": self.suspected_at, "was_low": self._was_low}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that ``state`` returned; an empty dictionary resets the monitor."""
        self.suspected_at, self._was_low = state.get("suspected_at"), bool(state.get("was_low"))

    @property
    def facts(self) -> dict[str, Any]:
        """The entries of ``run.json``; empty if no collapse is suspected."""
        return {} if self.suspected_at is None else {"collapse_suspected_at": self.suspected_at}

    def advice(self, figures: dict[str, float], config: dict[str, Any]) -> list[str]:
        """A line with a warning, and a line with unused options to try; empty if no collapse is suspected."""
        if self.suspected_at is None:
            return []
        ratio = figures.get("diversity", 0.0)
        return [
            f"step {self.suspected_at}: mode collapse suspected. "
            f"The diversity of the last samples is {ratio:.0%} of the data's diversity.",
            f"Try one of: {', '.join([*_untried(config), 'a smaller optim.generator.lr'])}.",
        ]


def _untried(config: dict[str, Any]) -> list[str]:
    """Options against mode collapse that the configuration supports and does not use."""
    lists = [
        f"{group}=[{','.join([*config[group], name])}]"
        for group, name in (("penalty", "r1"), ("augment", "packing"))
        if name not in config[group]
    ]
    options = (config["model"] or {}).get("discriminator", {})
    values = {"dropout": (0.0, 0.3), "minibatch": ("none", "std")}
    return lists + [
        f"model.discriminator.{name}={value}" for name, (off, value) in values.items() if options.get(name) == off
    ]


class Throughput:
    """Measures the time until the end of the first call, which compiles, and then the steps per second.

    Args:
        step: the step at which the run starts.

    Attributes:
        first: seconds from the creation of this object to the end of the first call, or None before it.
    """

    def __init__(self, step: int):
        self._began = time.monotonic()
        self.first: float | None = None
        self._step = self._first_step = step

    def tick(self, step: int) -> None:
        """Record that all calls up to ``step`` have finished."""
        self._now = time.monotonic()
        if self.first is None:
            self.first = self._now - self._began
            self._since, self._first_step = self._now, step
        self._step = step

    @property
    def rate(self) -> float | None:
        """Steps per second since the end of the first call, or None as long as no further call has finished."""
        made = self._step - self._first_step
        return made / (self._now - self._since) if made else None

    def left(self, steps: int) -> float | None:
        """The expected seconds until step ``steps``, or None as long as the rate is not known."""
        return (steps - self._step) / self.rate if self.rate else None


class Profiler:
    """Records a profile of two calls with JAX's profiler.

    The first call compiles, so the profile skips it if the run has several calls. TensorBoard (with its profile
    plug-in) opens the directory, and Perfetto opens the file ``perfetto_trace.json.gz`` in it.

    Args:
        directory: the directory of the run. The profile is written to ``profile/`` in it.
        wanted: whether to record a profile.
        several: whether the run has more than one call.

    Attributes:
        path: the directory of the profile once it is written, else None.
    """

    _CALLS = 2

    def __init__(self, directory: Path, wanted: bool, several: bool):
        self._directory = directory / "profile"
        self._wait = int(several) if wanted else None
        self._running = 0
        self.path: Path | None = None

    def before_call(self, state: Tree) -> None:
        """Start the profile before the first profiled call, and write it after the last profiled call."""
        if self._running:
            self._running += 1
            if self._running > self._CALLS:
                self.close(state)
        elif self._wait == 0:
            _block_until_ready(state)
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._running = 1
        if self._wait is not None:
            self._wait -= 1

    def close(self, state: Tree) -> None:
        """Wait until ``state`` is computed, and write the profile if one is being recorded."""
        if self._running:
            _block_until_ready(state)
            _stop_trace()
            self.path, self._running, self._wait = self._directory, 0, None
