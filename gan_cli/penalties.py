"""Gradient penalties: what a discriminator pays for being steep.

A penalty's function is ``(critic, params, real, fake, key) -> scalar`` where ``critic(params, x)`` gives logits
``[batch]`` for examples ``[batch, ...]``. Its weight and its lazy interval go with it: with an interval k it is
evaluated every k-th step with k times its weight (Karras et al. 2020, StyleGAN2, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_cli.types import NonNegativeFloat, PositiveInt

Critic = Callable[[Any, jax.Array], jax.Array]


class Penalty(NamedTuple):
    """``weight * function`` is added to the discriminator's loss every ``interval`` steps."""

    function: Callable[[Critic, Any, jax.Array, jax.Array, jax.Array], jax.Array]
    weight: float
    interval: int


def _squared_gradient_norm(critic: Critic, params: Any, x: jax.Array) -> jax.Array:
    """||d critic(x) / dx||^2 for each example, ``[batch]``.

    The gradient of the sum is each example's own gradient where the critic treats examples apart; under batch
    normalisation the examples' gradients mix, as they do in every implementation of these penalties.
    """
    gradient = jax.grad(lambda x: critic(params, x).sum())(x)
    return jnp.sum(gradient.reshape(len(x), -1) ** 2, axis=1)


def r1(*, gamma: NonNegativeFloat = 1.0, interval: PositiveInt = 1) -> Penalty:
    """R1 = gamma/2 E ||grad D(x)||^2 on real examples (Mescheder et al. 2018, eq. 9)."""
    return Penalty(
        lambda critic, params, real, fake, key: 0.5 * _squared_gradient_norm(critic, params, real).mean(),
        gamma,
        interval,
    )


def r2(*, gamma: NonNegativeFloat = 1.0, interval: PositiveInt = 1) -> Penalty:
    """R2 = gamma/2 E ||grad D(G(z))||^2 on generated examples (Mescheder et al. 2018, eq. 10)."""
    return Penalty(
        lambda critic, params, real, fake, key: 0.5 * _squared_gradient_norm(critic, params, fake).mean(),
        gamma,
        interval,
    )


def wgan_gp(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """weight * E (||grad D(x)|| - 1)^2 between a real and a generated example (Gulrajani et al. 2017, eq. 3).

    x = e x_real + (1 - e) x_fake, with e uniform in [0, 1] for each pair.
    """

    def function(critic: Critic, params: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        e = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
        squared = _squared_gradient_norm(critic, params, e * real + (1 - e) * fake)
        # The root's own derivative at zero is infinite: a critic that starts flat would turn to NaN.
        return jnp.mean((jnp.sqrt(squared + 1e-12) - 1) ** 2)

    return Penalty(function, weight, interval)
