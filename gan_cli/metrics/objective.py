"""The best value of the objective in a run, and early stopping."""

from __future__ import annotations

import math
from typing import Any

from gan_cli.metrics import NEITHER, Direction, better


class ObjectiveTracker:
    """Tracks the best value of the objective, and detects when the objective stops improving.

    Args:
        objective: pair of the name and the direction (``lower`` or ``higher``) of the metric value that ranks
            checkpoints. None if no metric value can rank checkpoints.
        patience: number of evaluations without improvement after which training stops early. 0 disables early
            stopping.

    Attributes:
        value: the best value so far, or None before the first finite value.
        step: training step of the evaluation with the best value. 0 before the first finite value.
    """

    def __init__(self, objective: tuple[str, Direction] | None, patience: int):
        self._name, self._direction = objective or ("", NEITHER)
        self._patience, self._since = patience, 0
        self.value: float | None = None
        self.step = self._last = 0

    def observe(self, step: int, figures: dict[str, Any]) -> bool:
        """Record the metric values of an evaluation, and return whether the objective improved.

        Args:
            step: the training step of the evaluation.
            figures: mapping from the names in the log, ``eval/<name>``, to metric values.
        """
        value = figures.get(f"eval/{self._name}")
        if value is None or not math.isfinite(value):  # the log stores None for values that are not finite
            return False
        self._last = step
        if self.value is not None and not better(value, self.value, self._direction):
            self._since += 1
            return False
        self.value, self.step, self._since = float(value), step, 0
        return True

    @property
    def stale(self) -> bool:
        """Whether the objective has not improved for ``patience`` evaluations. False if ``patience`` is 0."""
        return 0 < self._patience <= self._since

    def state(self) -> dict[str, Any]:
        """The tracker's state for a checkpoint, as a dictionary, so that a resumed run continues early stopping."""
        return {"value": self.value, "step": self.step, "since": self._since, "last": self._last}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that the method ``state`` returned."""
        self.value, self.step, self._since, self._last = (state[key] for key in ("value", "step", "since", "last"))

    @property
    def facts(self) -> dict[str, Any]:
        """Entries for ``run.json``: the best value of the objective and, after an early stop, the last step.

        The dictionary is empty if the objective has no finite value yet.
        """
        if self.value is None:
            return {}
        facts: dict[str, Any] = {"objective": {"name": self._name, "value": self.value, "step": self.step}}
        return facts | ({"stopped_early_at": self._last} if self.stale else {})

    def summary(self) -> list[str]:
        """A list with one line for the terminal. The list is empty if the objective has no finite value yet."""
        if self.value is None:
            return []
        early = f"; stopped early after {self._since} evaluations without improvement" if self.stale else ""
        return [f"best      {self._name} {self.value:.4g} at step {self.step}{early}"]
