"""Adversarial losses: functions of the logits, one function for each player.

A player's function maps ``(real_logits [batch], fake_logits [batch])`` to a loss ``[batch]``, and the player
minimises the mean of this loss over the batch. In the formulas, d is the discriminator's logit, sigma is the
logistic function, and D(x) = sigma(d(x)) is the predicted probability that x is real. The code computes log
sigma(d) as -softplus(-d) and log(1 - sigma(d)) as -softplus(d), because softplus does not overflow for any finite
logit.
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
    """An adversarial loss: one function of (real_logits, fake_logits) for each player.

    Attributes:
        discriminator: ``(real_logits [batch], fake_logits [batch]) -> [batch]``, the discriminator's loss.
        generator: ``(real_logits [batch], fake_logits [batch]) -> [batch]``, the generator's loss.
        boundary: the optimal discriminator's logit at a point where the real and the generated density are equal.
            The discriminator classifies an example as real if the logit is above the boundary. None for a loss that
            depends only on differences between logits, because such a loss does not define a boundary.
        couples_batch: whether the loss of one example depends on the logits of other examples.
        pairs: whether the losses compare real with generated logits. If false, the discriminator's loss is the sum
            of a function of the real logit and a function of the fake logit, and the derivative of the generator's
            loss does not depend on the real logit.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array], Array]
    boundary: float | Array | None = 0.0
    couples_batch: bool = False
    pairs: bool = False

    def of_heads(self) -> Loss:
        """The loss for logits ``[batch]`` or ``[batch, heads]``: the sum of the losses of the heads."""

        def summed(loss: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
            of_each = jax.vmap(loss, 1, 1)
            return lambda real, fake: loss(real, fake) if real.ndim == 1 else of_each(real, fake).sum(1)

        return self._replace(discriminator=summed(self.discriminator), generator=summed(self.generator))

    def above_boundary(self, real: Array, fake: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """Real and fake logits minus the boundary: an example is classified as real if the result is positive.

        If ``boundary`` is None, the boundary is the midpoint between the mean real logit and the mean fake logit.
        The means leave out the rows that are zero in ``mask`` ``[batch]``.
        """
        boundary = self.boundary
        if boundary is None:
            boundary = (masked_mean(real, mask) + masked_mean(fake, mask)) / 2
        return real - boundary, fake - boundary


def masked_mean(values: Array, mask: Array | None = None) -> Array:
    """The mean of ``values`` ``[batch]`` over the rows in ``mask`` ``[batch]``, or over all rows without a mask.

    The mean over no rows is 0. A scalar is returned unchanged.
    """
    if values.ndim == 0:
        return values
    if mask is None:
        return values.mean()
    return jnp.where(mask, values, 0).sum() / jnp.maximum(mask.sum(), 1)


def _cross_entropy(smoothing: float) -> Callable[[Array, Array], Array]:
    """The discriminator's cross-entropy with target 1 - s for real and target 0 for generated examples.

        -(1 - s) log D(x) - s log(1 - D(x)) - log(1 - D(G(z)))

    s is the one-sided label smoothing (Salimans et al. 2016, section 3.4).
    """
    return lambda real, fake: (1 - smoothing) * softplus(-real) + smoothing * softplus(real) + softplus(fake)


def _smoothed_boundary(smoothing: float) -> float | Array:
    # The optimal D is (1 - s) / 2 where the real and the generated density are equal.
    if isinstance(smoothing, float) and smoothing == 0:
        return 0.0  # JAX would compile a program for the logarithms
    return jnp.log1p(-smoothing) - jnp.log1p(smoothing)


def minimax(*, smoothing: Smoothing = 0.0) -> Loss:
    """Minimax loss, a zero-sum game: min_G max_D E log D(x) + E log(1 - D(G(z))).

    Goodfellow et al. 2014, eq. 1. The generator's loss is the negative of the discriminator's loss, including the
    term of the real examples, so that the two losses sum to exactly zero. This term does not depend on the
    generator's parameters.

    Args:
        smoothing: amount of one-sided label smoothing. The discriminator's target for real examples is
            1 - smoothing.
    """
    value = _cross_entropy(smoothing)
    return Loss(value, lambda real, fake: -value(real, fake), _smoothed_boundary(smoothing))


def nonsaturating(*, smoothing: Smoothing = 0.0) -> Loss:
    """Non-saturating loss: G maximises E log D(G(z)), and D has the same loss as in minimax.

    Goodfellow et al. 2014, section 3.

    Args:
        smoothing: amount of one-sided label smoothing. The discriminator's target for real examples is
            1 - smoothing.
    """
    return Loss(_cross_entropy(smoothing), lambda real, fake: softplus(-fake), _smoothed_boundary(smoothing))


def lsgan() -> Loss:
    """Least-squares loss: D minimises ((d(x) - 1)^2 + d(G(z))^2) / 2, and G minimises (d(G(z)) - 1)^2 / 2.

    The discriminator's target is 1 for real examples and 0 for generated examples. The generator's target for
    generated examples is 1 (Mao et al. 2017, eq. 9 with a = 0, b = c = 1).
    """
    return Loss(
        lambda real, fake: 0.5 * (real - 1) ** 2 + 0.5 * fake**2,
        lambda real, fake: 0.5 * (fake - 1) ** 2,
        0.5,
    )


def wgan() -> Loss:
    """Wasserstein loss: the critic maximises E d(x) - E d(G(z)), and G minimises this difference.

    The objective is the dual form of the Wasserstein-1 distance (Arjovsky et al. 2017, eq. 3), which requires a
    Lipschitz critic. To constrain the critic, add a gradient penalty, set ``optim.weight_clip``, or use spectral
    normalisation.
    """
    return Loss(lambda real, fake: fake - real, lambda real, fake: -fake, None)


def hinge() -> Loss:
    """Hinge loss: D minimises max(0, 1 - d(x)) + max(0, 1 + d(G(z))), and G minimises -d(G(z)).

    Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17.
    """
    return Loss(lambda real, fake: relu(1 - real) + relu(1 + fake), lambda real, fake: -fake)


def relativistic() -> Loss:
    """Relativistic loss: D minimises softplus(d(G(z)) - d(x)), and G minimises softplus(d(x) - d(G(z))).

    The loss compares each real example with one generated example (Jolicoeur-Martineau 2019, eq. 7 and 8).
    Combined with the penalties R1 and R2, it is the loss of R3GAN (Huang et al. 2024, eq. 2).
    """
    return Loss(
        lambda real, fake: softplus(fake - real), lambda real, fake: softplus(real - fake), None, pairs=True
    )


def relativistic_average() -> Loss:
    """Relativistic average loss: compares real logits with the mean generated logit, and vice versa.

        D minimises softplus(E d(G(z)) - d(x)) + softplus(d(G(z)) - E d(x)),

        G minimises softplus(E d(x) - d(G(z))) + softplus(d(x) - E d(G(z))).

    RaSGAN (Jolicoeur-Martineau 2019, eq. 13 and 14). The author's code halves the losses of both players. In the
    author's code, a penalty of the same weight therefore has twice the effect relative to the loss.
    """
    return Loss(
        lambda real, fake: softplus(fake.mean() - real) + softplus(fake - real.mean()),
        lambda real, fake: softplus(real.mean() - fake) + softplus(real - fake.mean()),
        None,
        couples_batch=True,
        pairs=True,
    )


def fgan(*, divergence: Divergence = "jensen_shannon", saturating: bool = False) -> Loss:
    """f-GAN loss: D maximises E T(x) - E f*(T(G(z))) with T = g(d), a lower bound of an f-divergence.

    The function f* is the convex conjugate of f. The output activation g maps the logit d to the domain of f*
    (Nowozin et al. 2016, eq. 6, tables 2 and 6).

    Args:
        divergence: f-divergence from the data distribution to the generator's distribution. The choices are ``kl``,
            ``reverse_kl``, ``pearson`` (chi-squared), ``squared_hellinger`` and ``jensen_shannon``.
        saturating: whether the generator minimises the bound. If false, the generator maximises E T(G(z))
            (Nowozin et al. 2016, section 3.2).
    """
    activation, conjugate, boundary = _DIVERGENCES[divergence]

    def discriminator(real: Array, fake: Array) -> Array:
        return conjugate(activation(fake)) - activation(real)

    if saturating:
        return Loss(discriminator, lambda real, fake: -discriminator(real, fake), boundary)
    return Loss(discriminator, lambda real, fake: -activation(fake), boundary)


# For each divergence: the output activation g, the conjugate f*, and the logit d for which g(d) = f'(1).
_DIVERGENCES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], float]] = {
    "kl": (lambda d: d, lambda t: jnp.exp(t - 1), 1.0),
    "reverse_kl": (lambda d: -jnp.exp(-d), lambda t: -1 - jnp.log(-t), 0.0),
    "pearson": (lambda d: d, lambda t: t**2 / 4 + t, 0.0),
    "squared_hellinger": (lambda d: -jnp.expm1(-d), lambda t: t / (1 - t), 0.0),
    "jensen_shannon": (lambda d: jnp.log(2.0) - softplus(-d), lambda t: -jnp.log(2 - jnp.exp(t)), 0.0),
}
