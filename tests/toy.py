"""A game of two numbers, without networks or data: what the engine and the strategies need of a game."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


class Bilinear:
    """min over x, max over y of x*y. Its only equilibrium is the origin."""

    players = ("x", "y")
    averaged = ()

    def __init__(self, *, x: float = 1.0, y: float = 0.0):
        self.start = {"x": x, "y": y}

    def init(self, key: Any) -> Any:
        return {name: jnp.float32(value) for name, value in self.start.items()}, {"x": (), "y": ()}

    def loss(self, player: str, params: Any, net_state: Any, batch: Any, key: Any, step: Any) -> Any:
        value = params["x"] * params["y"]
        return (value if player == "x" else -value), (net_state, {"distance": params["x"] ** 2 + params["y"] ** 2})
