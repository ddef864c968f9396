"""What is monitored while a run trains: divergence, mode collapse, speed, and where the time goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

_METRIC = {"loss": "loss", "gradient": "grad_norm"}
# A share of the data's effective number of different examples. Generators that work here have 0.7 and more.
_COLLAPSED = 0.5


class DivergenceMonitor:
    """Finds the first step at which a loss, a gradient or a player's parameters are not finite.

    The gradient's norm counts because clipping hides it: a norm that overflows scales its gradient to zero, and the
    player stands still for the rest of a run whose losses look sound.

    Attributes:
        finite: whether all parameters were finite at the end of the last call.
        facts: what ``run.json`` states: ``diverged_at``, ``diverged_player``, ``diverged_in``; empty until then.
    """

    def __init__(self, players: tuple[str, ...], stops: bool):
        self._players, self._stops = players, stops
        self.finite = True
        self.facts: dict[str, Any] = {}

    def observe(self, at: int, metrics: dict[str, np.ndarray], finite: dict[str, np.ndarray]) -> None:
        """The metrics ``[length]`` of a call that ended at step ``at``, and which parameters are finite."""
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
            step, player, what = min(found, key=lambda one: one[0])
            self.facts = {"diverged_at": step, "diverged_player": player, "diverged_in": what}

    def restore(self, facts: dict[str, Any]) -> None:
        """Take the divergence from an earlier start's ``run.json``."""
        self.facts = {name: value for name, value in facts.items() if name.startswith("diverged_")}

    @property
    def stopped(self) -> bool:
        """Whether the run stops because it has diverged."""
        return self._stops and bool(self.facts)


class CollapseMonitor:
    """Suspects mode collapse where the samples are much less varied than the data twice in a row.

    Once is not enough: every generator starts by making one thing only. At the end of a run, once is enough.

    Attributes:
        suspected_at: the step since which it is suspected, or None.
    """

    def __init__(self) -> None:
        self.suspected_at: int | None = None
        self._was_low = False

    def observe(self, at: int, figures: dict[str, float]) -> None:
        """The figures of the samples at step ``at``."""
        low = figures.get("diversity", 1.0) < _COLLAPSED
        if not low:
            self.suspected_at = None
        elif self._was_low and self.suspected_at is None:
            self.suspected_at = at
        self._was_low = low

    def observe_end(self, at: int, figures: dict[str, float]) -> None:
        """The figures of the last samples of a run."""
        if figures.get("diversity", 1.0) < _COLLAPSED and self.suspected_at is None:
            self.suspected_at = at

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run decides as one that never stopped."""
        return {"suspected_at": self.suspected_at, "was_low": self._was_low}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``; of a checkpoint without one, nothing."""
        self.suspected_at, self._was_low = state.get("suspected_at"), bool(state.get("was_low"))

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` states."""
        return {} if self.suspected_at is None else {"collapse_suspected_at": self.suspected_at}

    def advice(self, figures: dict[str, float], config: dict[str, Any]) -> list[str]:
        """The warning, and options to try that the run has not; nothing where no collapse is suspected."""
        if self.suspected_at is None:
            return []
        share = figures.get("diversity", 0.0)
        return [
            f"step {self.suspected_at}: collapse suspected. "
            f"At the end the samples are {share:.0%} as varied as the data.",
            f"Try one of: {', '.join([*_untried(config), 'a smaller optim.generator.lr'])}.",
        ]


def _untried(config: dict[str, Any]) -> list[str]:
    """Options against collapse that this configuration may take and has not."""
    lists = [
        f"{group}=[{name}]"
        for group, name in (("penalty", "r1"), ("augment", "packing"))
        if name not in config[group]
    ]
    own = (config["model"] or {}).get("discriminator", {})
    values = {"dropout": (0.0, 0.3), "minibatch": ("none", "std")}
    return lists + [
        f"model.discriminator.{name}={value}" for name, (unset, value) in values.items() if own.get(name) == unset
    ]


class Throughput:
    """Time to the end of the first call, compilation included, and the rate of steps after it."""

    def __init__(self, step: int):
        self._began = time.monotonic()
        self.first: float | None = None
        self._step = self._first_step = step

    def tick(self, step: int) -> None:
        """Note that the calls up to ``step`` have finished."""
        self._now = time.monotonic()
        if self.first is None:
            self.first = self._now - self._began
            self._since, self._first_step = self._now, step
        self._step = step

    @property
    def rate(self) -> float | None:
        """Steps a second since the first call, or None before there are any."""
        made = self._step - self._first_step
        return made / (self._now - self._since) if made else None

    def left(self, steps: int) -> float | None:
        return (steps - self._step) / self.rate if self.rate else None


class Profiler:
    """A profile of two calls, the first, which compiles, left out where there are others.

    TensorBoard opens the directory (with its profile plug-in), Perfetto the ``perfetto_trace.json.gz`` in it.
    """

    _CALLS = 2

    def __init__(self, directory: Path, wanted: bool, several: bool):
        self._directory = directory / "profile"
        self._wait = int(several) if wanted else None
        self._running = 0
        self.path: Path | None = None

    def before_call(self, state: Any) -> None:
        if self._running:
            self._running += 1
            if self._running > self._CALLS:
                self.close(state)
        elif self._wait == 0:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._running = 1
        if self._wait is not None:
            self._wait -= 1

    def close(self, state: Any) -> None:
        """Wait for what is being traced, and write it."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self.path, self._running, self._wait = self._directory, 0, None
