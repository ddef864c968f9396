"""The Dirac-GAN: data at one point, one slope as the discriminator."""

from __future__ import annotations

import jax

from gan_cli.augment import Augment
from gan_cli.errors import UserError
from gan_cli.games.gan import GAN
from gan_cli.games.quadratic import standing
from gan_cli.losses import Loss
from gan_cli.models import Model
from gan_cli.penalties import Penalty
from gan_cli.types import ByPlayer, Metrics, Spec


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
    averaged: tuple[str, ...] = ()
    samples = False  # what it generates is known: the players' way is drawn instead
    has_equilibrium = True

    def _check(self) -> None:
        super()._check()
        params, _ = jax.eval_shape(self.init, jax.random.key(0))
        if any("value" not in own for own in params.values()):
            raise UserError("game=dirac_gan: its players are a number each: model=dirac dataset=point.")

    def distance(self, params: ByPlayer) -> Metrics:
        """Where the players stand, and how far that is from the equilibrium."""
        place, slope = (params[player]["value"][...] for player in ("generator", "discriminator"))
        return standing(place, slope)
