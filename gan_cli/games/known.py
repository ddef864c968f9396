"""Games whose course under each strategy is known, to try a way of optimising on before it meets a network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gan_cli.augment import Augment
from gan_cli.errors import UserError
from gan_cli.games.gan import GAN
from gan_cli.losses import Loss
from gan_cli.models import Model
from gan_cli.penalties import Penalty
from gan_cli.types import ByPlayer, Metrics, Spec


class Quadratic:
    """min over x, max over y of ``a/2 x^2 + b x y - c/2 y^2``: its equilibrium is the origin.

    With a = c = 0 it is the bilinear game, where x and y circle the equilibrium for ever; a and c draw them in.

    Args:
        x: where x starts.
        y: where y starts.
    """

    players = ("x", "y")
    averaged = ()

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

    def measure(self, params: ByPlayer) -> Metrics:
        """Where the players stand, and how far that is from the equilibrium."""
        return _standing(params["x"], params["y"])


def dirac_gan(
    spec: Spec,
    model: Model,
    loss: Loss,
    penalties: dict[str, Penalty],
    augments: dict[str, Augment],
    precision: str,
) -> GAN:
    """Data at 0, a generator that puts all it makes at x, and a discriminator y * input (Mescheder et al. 2018,
    definition 2.1): the simplest GAN, on which it shows which methods converge to the equilibrium at the origin.

    Any loss, penalty, augmentation and strategy plays it. It takes ``model=dirac`` and ``dataset=point``.
    """
    return _DiracGAN(spec, model, loss, penalties, augments, precision)


class _DiracGAN(GAN):
    averaged = ()
    decode = None  # type: ignore[assignment]  # what it makes is known: it is the players' way that is drawn

    def _check(self) -> None:
        super()._check()
        params, _ = jax.eval_shape(self.init, jax.random.key(0))
        if any("value" not in own for own in params.values()):
            raise UserError("game=dirac_gan: its players are a number each: model=dirac dataset=point.")

    def measure(self, params: ByPlayer) -> Metrics:
        """Where the players stand, and how far that is from the equilibrium."""
        place, slope = (params[player]["value"][...] for player in ("generator", "discriminator"))
        return _standing(place, slope)


def _standing(x: jax.Array, y: jax.Array) -> Metrics:
    return {"x": x, "y": y, "distance": jnp.hypot(x, y)}
