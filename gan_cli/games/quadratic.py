"""A game of two numbers, for which the updates of the strategies are known in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gan_cli.types import Batch, ByPlayer, Game, LossTerms, Metrics, Term


class Quadratic(Game):
    """Quadratic game: min over x, max over y of a/2 x^2 + b x y - c/2 y^2, with equilibrium at the origin.

    With a = c = 0, the game is bilinear, and the trajectories of gradient flow circle the equilibrium without
    converging. With positive a and c, the trajectories converge to the equilibrium.

    Args:
        a: curvature of the value function in x.
        b: coefficient of the interaction term x y.
        c: curvature of the value function in y, multiplied by -1.
        x: initial value of x.
        y: initial value of y.
    """

    players = ("x", "y")
    has_equilibrium = True

    def __init__(self, *, a: float = 0.0, b: float = 1.0, c: float = 0.0, x: float = 1.0, y: float = 1.0):
        self._a, self._b, self._c, self._start = a, b, c, {"x": x, "y": y}

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: the initial coordinates, and an empty network state for each player.

        The key is ignored.
        """
        return {name: jnp.float32(value) for name, value in self._start.items()}, {"x": (), "y": ()}

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: jax.Array | None = None,
    ) -> LossTerms:
        """The player's loss as a single term, the unchanged network state, and no metrics.

        The loss of player x is the value function. The loss of player y is the negative value function. The batch,
        the key and the step are ignored.
        """
        x, y = params["x"], params["y"]
        value = self._a / 2 * x**2 + self._b * x * y - self._c / 2 * y**2
        return LossTerms({"value": Term(value if player == "x" else -value)}, net_state, {})

    def distance(self, params: ByPlayer) -> Metrics:
        """A dictionary with the coordinates ``x`` and ``y`` and the ``distance``.

        The distance is the Euclidean distance of the point (x, y) to the equilibrium.
        """
        return standing(params["x"], params["y"])


def standing(x: jax.Array, y: jax.Array) -> Metrics:
    """A dictionary with the coordinates of the point (x, y), and with its Euclidean distance to the origin."""
    return {"x": x, "y": y, "distance": jnp.hypot(x, y)}
