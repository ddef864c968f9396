"""Adversarial losses: functions of logits, one for each player.

Each is ``(real_logits [batch], fake_logits [batch]) -> [batch]``, to be minimised; the game takes the mean.
Write d for the discriminator's logit, sigma for the logistic function: D(x) = sigma(d(x)) is the probability
of "real". log sigma(d) = -softplus(-d) and log(1 - sigma(d)) = -softplus(d) are exact for any finite logit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.nn import relu, softplus

Array = jax.Array


class Loss(NamedTuple):
    """One function of (real_logits, fake_logits) for each player."""

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array], Array]


def _cross_entropy(real: Array, fake: Array) -> Array:
    """-log D(x) - log(1 - D(G(z)))."""
    return softplus(-real) + softplus(fake)


def minimax() -> Loss:
    """The zero-sum game min_G max_D E log D(x) + E log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1).

    The generator minimises the discriminator's value, real term included, so that the two losses sum to zero
    exactly; the real term has no gradient in the generator's parameters.
    """
    return Loss(_cross_entropy, lambda real, fake: -_cross_entropy(real, fake))


def nonsaturating() -> Loss:
    """The generator maximises log D(G(z)) instead (Goodfellow et al. 2014, section 3)."""
    return Loss(_cross_entropy, lambda real, fake: softplus(-fake))


def lsgan() -> Loss:
    """Least squares with targets 1 for real and 0 for fake (Mao et al. 2017, eq. 9: a = 0, b = c = 1)."""
    return Loss(
        lambda real, fake: 0.5 * (real - 1) ** 2 + 0.5 * fake**2,
        lambda real, fake: 0.5 * (fake - 1) ** 2,
    )


def wgan() -> Loss:
    """The Wasserstein distance's dual (Arjovsky et al. 2017, eq. 3); the critic must be kept Lipschitz."""
    return Loss(lambda real, fake: fake - real, lambda real, fake: -fake)


def hinge() -> Loss:
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17)."""
    return Loss(lambda real, fake: relu(1 - real) + relu(1 + fake), lambda real, fake: -fake)


def relativistic() -> Loss:
    """Relativistic paired loss: real against fake, example by example (Jolicoeur-Martineau 2019, eq. 7 and 8).

    With R1 and R2 it is the loss of R3GAN (Huang et al. 2024, eq. 2).
    """
    return Loss(lambda real, fake: softplus(fake - real), lambda real, fake: softplus(real - fake))
