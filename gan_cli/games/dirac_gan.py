"""The Dirac-GAN: the data are a single point, and each network has one parameter."""

from __future__ import annotations

import jax

from gan_cli.augment import Augment
from gan_cli.errors import UserError
from gan_cli.games.gan import GAN
from gan_cli.games.quadratic import standing
from gan_cli.losses import Loss
from gan_cli.models import Model
from gan_cli.penalties import Penalty
from gan_cli.types import ByPlayer, Metrics, Spec, Task


def dirac_gan(
    spec: Spec,
    model: Model,
    loss: Loss,
    penalties: dict[str, Penalty],
    augments: dict[str, Augment],
    precision: str,
) -> GAN:
    """Dirac-GAN, the simplest GAN: data at 0, generator output x, discriminator d(u) = y u.

    Mescheder et al. 2018, definition 2.1. Many methods do not converge to the equilibrium x = y = 0. The game
    accepts any loss, penalty, augmentation and strategy. It requires ``model=dirac`` and ``dataset=point``.
    """
    return _DiracGAN(spec, model, loss, penalties, augments, precision)


class _DiracGAN(GAN):
    averaged: tuple[str, ...] = ()
    has_equilibrium = True

    def _tasks(self) -> dict[str, Task]:
        return {}  # all samples are equal, so pictures show the players' trajectory instead of samples

    def _check(self) -> None:
        super()._check()
        params, _ = jax.eval_shape(self.init, jax.random.key(0))
        if any("value" not in own for own in params.values()):
            raise UserError(
                "game=dirac_gan: needs two networks with one parameter each. Use model=dirac dataset=point."
            )

    def distance(self, params: ByPlayer) -> Metrics:
        """A dictionary with the coordinates ``x`` and ``y`` and the ``distance``.

        The distance is the Euclidean distance of the point (x, y) to the equilibrium.
        """
        place, slope = (params[player]["value"][...] for player in ("generator", "discriminator"))
        return standing(place, slope)
