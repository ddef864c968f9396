"""A game with two scalar parameters and no networks or data, and games and loggers that fail on purpose."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import jax.numpy as jnp

from gan_cli.types import Game, LossTerms, Term


class Bilinear(Game):
    """min over x, max over y of x*y, whose only equilibrium is the origin."""

    players = ("x", "y")

    def __init__(self, *, x: float = 1.0, y: float = 0.0):
        self.start = {"x": x, "y": y}

    def init(self, key: Any) -> Any:
        return {name: jnp.float32(value) for name, value in self.start.items()}, {"x": (), "y": ()}

    def loss(
        self, player: str, params: Any, net_state: Any, batch: Any, key: Any, step: Any, fake: Any = None
    ) -> LossTerms:
        value = params["x"] * params["y"]
        metrics = {"distance": params["x"] ** 2 + params["y"] ** 2}
        return LossTerms({"value": Term(value if player == "x" else -value)}, net_state, metrics)


class Saboteur(Bilinear):
    """The bilinear game whose ``init`` fails or diverges; ``how`` is raise, exit, kill, diverge or none."""

    def __init__(self, *, how: str = "none"):
        super().__init__()
        self.how = how

    def init(self, key: Any) -> Any:
        if self.how == "raise":
            raise RuntimeError("sabotage")
        if self.how == "exit":
            raise SystemExit(7)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "diverge":
            self.start["x"] = float("inf")
        return super().init(key)


class Interrupting:
    """A logger that sends signal ``number`` to this process when ``step`` is logged."""

    def __init__(self, directory: Any, records: Any, *, step: int, number: int):
        self.step, self.number = step, number

    def log(self, record: Any) -> None:
        if record["step"] == self.step:
            os.kill(os.getpid(), self.number)

    def picture(self, step: int, path: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Slow:
    """A logger that takes ``seconds`` to write a record."""

    def __init__(self, directory: Any, records: Any, *, seconds: float):
        self.seconds = seconds

    def log(self, record: Any) -> None:
        time.sleep(self.seconds)

    def picture(self, step: int, path: Any) -> None:
        pass

    def close(self) -> None:
        pass
