"""What is watched while a run is under way: whether it diverges, how fast it goes, and where the time goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

_METRIC = {"loss": "loss", "gradient": "grad_norm"}
# Of the data's effective number of different examples. Generators that work here have 0.7 and more.
_COLLAPSED = 0.5


class Watch:
    """Looks for the first step at which a loss, a gradient or a player's parameters stopped being finite.

    The gradient's norm counts because clipping hides it: a norm that overflows scales its gradient to zero, and the
    player stands still for the rest of a run whose losses look sound.
    """

    def __init__(self, players: tuple[str, ...], stops: bool):
        self._players, self._stops = players, stops
        self.story: dict[str, Any] = {}
        self.finite = True
        self.suspicion: dict[str, Any] = {}
        self._was_low = False

    def look(self, at: int, metrics: dict[str, np.ndarray], finite: dict[str, np.ndarray]) -> None:
        self.finite = all(bool(ok) for ok in finite.values())
        if self.story:
            return
        length = len(next(iter(metrics.values())))
        bad: list[tuple[int, str, str]] = []
        for player in self._players:
            for what in ("loss", "gradient"):
                wrong = np.flatnonzero(~np.isfinite(metrics[f"{player}/{_METRIC[what]}"]))
                if len(wrong):
                    bad.append((at - length + int(wrong[0]) + 1, player, what))
            if not finite[player]:
                bad.append((at, player, "parameters"))
        if bad:
            step, player, what = min(bad, key=lambda b: b[0])
            self.story = {"diverged_at": step, "diverged_player": player, "diverged_in": what}

    def look_at_samples(self, at: int, figures: dict[str, float]) -> None:
        """Suspect a collapse where samples are much less varied than the data, twice in a row.

        Once is not enough: every generator starts by making one thing only.
        """
        low = figures.get("diversity", 1.0) < _COLLAPSED
        if not low:
            self.suspicion = {}
        elif self._was_low and not self.suspicion:
            self.suspicion = {"collapse_suspected_at": at}
        self._was_low = low

    def end(self, at: int, figures: dict[str, float]) -> None:
        """At the end once is enough."""
        if figures.get("diversity", 1.0) < _COLLAPSED and not self.story:
            self.suspicion = self.suspicion or {"collapse_suspected_at": at}

    def collapse(self, figures: dict[str, float], config: dict[str, Any]) -> list[str]:
        """What to say of a suspected collapse, and what to try that the run has not."""
        if not self.suspicion:
            return []
        at, share = self.suspicion["collapse_suspected_at"], figures.get("diversity", 0.0)
        return [
            f"step {at}: collapse suspected. At the end the samples are {share:.0%} as varied as the data.",
            f"Try one of: {', '.join([*_untried(config), 'a smaller optim.generator.lr'])}.",
        ]

    def recall(self, facts: dict[str, Any]) -> None:
        """Take over from ``run.json`` that it had diverged before."""
        self.story = {name: value for name, value in facts.items() if name.startswith("diverged_")}

    @property
    def stopped(self) -> bool:
        return self._stops and bool(self.story)


def _untried(config: dict[str, Any]) -> list[str]:
    """What helps against a collapse and can be had with this configuration, but is not in it."""
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


class Clock:
    """Time to the end of the first call, compilation included, and the rate of steps after it."""

    def __init__(self, step: int):
        self._began = time.monotonic()
        self.first: float | None = None
        self._step = self._first_step = step

    def tick(self, step: int) -> None:
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


class Trace:
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
