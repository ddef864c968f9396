"""The best value of a figure, and whether it is long ago."""

from __future__ import annotations

import math
from typing import Any

from gan_cli.metrics import NEITHER, Direction, better


class ObjectiveTracker:
    """The best value so far of one figure, and whether it is long ago.

    Args:
        objective: the figure and which way is better; None where nothing is evaluated.
        patience: evaluations without a better value after which it is; 0 is never.

    Attributes:
        value: the best so far, or None.
        step: whose it is.
    """

    def __init__(self, objective: tuple[str, Direction] | None, patience: int):
        self._name, self._direction = objective or ("", NEITHER)
        self._patience, self._since = patience, 0
        self.value: float | None = None
        self.step = self._last = 0

    def observe(self, step: int, figures: dict[str, Any]) -> bool:
        """The figures of an evaluation, under their names in the log: whether they are the best so far."""
        value = figures.get(f"eval/{self._name}")
        if value is None or not math.isfinite(value):  # the log holds None for what is not finite
            return False
        self._last = step
        if self.value is not None and not better(value, self.value, self._direction):
            self._since += 1
            return False
        self.value, self.step, self._since = float(value), step, 0
        return True

    @property
    def stale(self) -> bool:
        return 0 < self._patience <= self._since

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run decides as one that never stopped."""
        return {"value": self.value, "step": self.step, "since": self._since, "last": self._last}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        self.value, self.step, self._since, self._last = (state[key] for key in ("value", "step", "since", "last"))

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` states."""
        if self.value is None:
            return {}
        told: dict[str, Any] = {"objective": {"name": self._name, "value": self.value, "step": self.step}}
        return told | ({"stopped_early_at": self._last} if self.stale else {})

    def summary(self) -> list[str]:
        """A line for the terminal, where anything was evaluated."""
        if self.value is None:
            return []
        early = f"; no better in {self._since} evaluations: stopped early" if self.stale else ""
        return [f"best      {self._name} {self.value:.4g} at step {self.step}{early}"]
