"""A game of two numbers whose course under each strategy is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gan_cli.types import ByPlayer, Game, Metrics


class Quadratic(Game):
    """min over x, max over y of ``a/2 x^2 + b x y - c/2 y^2``: its equilibrium is the origin.

    With a = c = 0 it is the bilinear game, where x and y circle the equilibrium for ever; a and c draw them in.

    Args:
        x: where x starts.
        y: where y starts.
    """

    players = ("x", "y")
    has_equilibrium = True

    def __init__(self, *, a: float = 0.0, b: float = 1.0, c: float = 0.0, x: float = 1.0, y: float = 1.0):
        self._a, self._b, self._c, self._start = a, b, c, {"x": x, "y": y}

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        return {name: jnp.float32(value) for name, value in self._start.items()}, {"x": (), "y": ()}

    def loss(
        self, player: str, params: ByPlayer, net_state: ByPlayer, batch: Any, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
        x, y = params["x"], params["y"]
        value = self._a / 2 * x**2 + self._b * x * y - self._c / 2 * y**2
        return (value if player == "x" else -value), (net_state, {})

    def distance(self, params: ByPlayer) -> Metrics:
        """Where the players stand, and how far that is from the equilibrium."""
        return standing(params["x"], params["y"])


def standing(x: jax.Array, y: jax.Array) -> Metrics:
    return {"x": x, "y": y, "distance": jnp.hypot(x, y)}
