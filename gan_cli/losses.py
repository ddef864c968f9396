"""Adversarial losses: functions of logits, one for each player.

Each is ``(real_logits [batch], fake_logits [batch]) -> [batch]``, to be minimised; the game takes the mean.
Write d for the discriminator's logit, sigma for the logistic function: D(x) = sigma(d(x)) is the probability
of "real". log sigma(d) = -softplus(-d) and log(1 - sigma(d)) = -softplus(d) are exact for any finite logit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

from gan_cli.types import Divergence, Smoothing

Array = jax.Array


class Loss(NamedTuple):
    """One function of (real_logits, fake_logits) for each player.

    ``boundary`` is the logit that is best where an example is as likely real as generated: the discriminator takes
    for real what lies above it. None says that only differences of logits count, so that there is none.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array], Array]
    boundary: float | Array | None = 0.0

    def above_boundary(self, real: Array, fake: Array) -> tuple[Array, Array]:
        """Both less the boundary; where there is none, less the middle of their means."""
        boundary = (real.mean() + fake.mean()) / 2 if self.boundary is None else self.boundary
        return real - boundary, fake - boundary


def _cross_entropy(smoothing: float) -> Callable[[Array, Array], Array]:
    """-(1 - s) log D(x) - s log(1 - D(x)) - log(1 - D(G(z))): s is the target's distance from 1 on real examples
    (one-sided label smoothing, Salimans et al. 2016, section 3.4).
    """
    return lambda real, fake: (1 - smoothing) * softplus(-real) + smoothing * softplus(real) + softplus(fake)


def _smoothed_boundary(smoothing: float) -> Array:
    # Where the densities are equal the best D is (1 - s) / 2.
    return jnp.log1p(-smoothing) - jnp.log1p(smoothing)


def minimax(*, smoothing: Smoothing = 0.0) -> Loss:
    """The zero-sum game min_G max_D E log D(x) + E log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1).

    The generator minimises the discriminator's value, real term included, so that the two losses sum to zero
    exactly; the real term has no gradient in the generator's parameters.
    """
    value = _cross_entropy(smoothing)
    return Loss(value, lambda real, fake: -value(real, fake), _smoothed_boundary(smoothing))


def nonsaturating(*, smoothing: Smoothing = 0.0) -> Loss:
    """The generator maximises log D(G(z)) instead (Goodfellow et al. 2014, section 3)."""
    return Loss(_cross_entropy(smoothing), lambda real, fake: softplus(-fake), _smoothed_boundary(smoothing))


def lsgan() -> Loss:
    """Least squares with targets 1 for real and 0 for fake (Mao et al. 2017, eq. 9: a = 0, b = c = 1)."""
    return Loss(
        lambda real, fake: 0.5 * (real - 1) ** 2 + 0.5 * fake**2,
        lambda real, fake: 0.5 * (fake - 1) ** 2,
        0.5,
    )


def wgan() -> Loss:
    """The Wasserstein distance's dual (Arjovsky et al. 2017, eq. 3); the critic must be kept Lipschitz."""
    return Loss(lambda real, fake: fake - real, lambda real, fake: -fake, None)


def hinge() -> Loss:
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17)."""
    return Loss(lambda real, fake: relu(1 - real) + relu(1 + fake), lambda real, fake: -fake)


def relativistic() -> Loss:
    """Relativistic paired loss: real against fake, example by example (Jolicoeur-Martineau 2019, eq. 7 and 8).

    With R1 and R2 it is the loss of R3GAN (Huang et al. 2024, eq. 2).
    """
    return Loss(lambda real, fake: softplus(fake - real), lambda real, fake: softplus(real - fake), None)


def relativistic_average() -> Loss:
    """Each side against the other's mean logit (Jolicoeur-Martineau 2019, RaSGAN, eq. 13 and 14).

    Her code halves both players' losses, so that a penalty weighs twice as much there.
    """
    return Loss(
        lambda real, fake: softplus(fake.mean() - real) + softplus(fake - real.mean()),
        lambda real, fake: softplus(real.mean() - fake) + softplus(real - fake.mean()),
        None,
    )


def fgan(*, divergence: Divergence = "jensen_shannon", saturating: bool = False) -> Loss:
    """An f-divergence's variational bound: the discriminator maximises E T(x) - E f*(T(G(z))), with T = g(d), the
    logit put into the domain of f's conjugate f* (Nowozin et al. 2016, eq. 6, tables 2 and 6).

    Args:
        divergence: which f: of the data to the generator's distribution.
        saturating: whether the generator minimises the bound itself; else it maximises E T(G(z)) (section 3.2).
    """
    activation, conjugate, boundary = _DIVERGENCES[divergence]

    def discriminator(real: Array, fake: Array) -> Array:
        return conjugate(activation(fake)) - activation(real)

    if saturating:
        return Loss(discriminator, lambda real, fake: -discriminator(real, fake), boundary)
    return Loss(discriminator, lambda real, fake: -activation(fake), boundary)


# The output activation g, the conjugate f*, and where g is f'(1), by divergence.
_DIVERGENCES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], float]] = {
    "kl": (lambda d: d, lambda t: jnp.exp(t - 1), 1.0),
    "reverse_kl": (lambda d: -jnp.exp(-d), lambda t: -1 - jnp.log(-t), 0.0),
    "pearson": (lambda d: d, lambda t: t**2 / 4 + t, 0.0),
    "squared_hellinger": (lambda d: -jnp.expm1(-d), lambda t: t / (1 - t), 0.0),
    "jensen_shannon": (lambda d: jnp.log(2.0) - softplus(-d), lambda t: -jnp.log(2 - jnp.exp(t)), 0.0),
}
