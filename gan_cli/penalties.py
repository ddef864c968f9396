"""Penalties: what a discriminator pays beside its loss, most of them for being steep.

A penalty's function is ``(critic, params, real, fake, key) -> scalar`` where ``critic(params, x)`` gives logits
``[batch]`` for examples ``[batch, ...]``. Its weight and its lazy interval go with it: with an interval k it is
evaluated every k-th step with k times its weight (Karras et al. 2020, StyleGAN2, section 3.1), in the same move as
the loss, where theirs makes a move of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gan_cli import transforms
from gan_cli.schedules import cosine
from gan_cli.types import NonNegativeFloat, PositiveInt

Critic = Callable[[Any, jax.Array], jax.Array]


class Penalty(NamedTuple):
    """``weight * function`` is added to the discriminator's loss every ``interval`` steps.

    ``weight`` may be a function of the step. ``per_example`` says that it is defined by each example's own gradient
    only, which a critic that normalises over its batch does not have.
    """

    function: Callable[[Critic, Any, jax.Array, jax.Array, jax.Array], jax.Array]
    weight: float | optax.Schedule
    interval: int
    per_example: bool = False


def _squared_gradient_norm(critic: Critic, params: Any, x: jax.Array) -> jax.Array:
    """||d critic(x) / dx||^2 for each example, ``[batch]``.

    The gradient of the sum is each example's own gradient where the critic treats examples apart; under batch
    normalisation the examples' gradients mix, as they do in every implementation of these penalties.
    """
    gradient = jax.grad(lambda x: critic(params, x).sum())(x)
    return jnp.sum(gradient.reshape(len(x), -1) ** 2, axis=1)


def r1(
    *,
    gamma: NonNegativeFloat = 1.0,
    gamma_end: NonNegativeFloat | None = None,
    decay_steps: PositiveInt | None = None,
    interval: PositiveInt = 1,
) -> Penalty:
    """R1 = gamma/2 E ||grad D(x)||^2 on real examples (Mescheder et al. 2018, eq. 9).

    ``gamma_end`` is what gamma changes to over ``decay_steps``, by half a cosine (Huang et al. 2024, R3GAN's code).
    """
    return _zero_centred(lambda real, fake: real, gamma, gamma_end, decay_steps, interval)


def r2(
    *,
    gamma: NonNegativeFloat = 1.0,
    gamma_end: NonNegativeFloat | None = None,
    decay_steps: PositiveInt | None = None,
    interval: PositiveInt = 1,
) -> Penalty:
    """R2 = gamma/2 E ||grad D(G(z))||^2 on generated examples (Mescheder et al. 2018, eq. 10).

    ``gamma_end`` is what gamma changes to over ``decay_steps``, by half a cosine (Huang et al. 2024, R3GAN's code).
    """
    return _zero_centred(lambda real, fake: fake, gamma, gamma_end, decay_steps, interval)


def _zero_centred(
    side: Callable[[jax.Array, jax.Array], jax.Array],
    gamma: float,
    gamma_end: float | None,
    decay_steps: int | None,
    interval: int,
) -> Penalty:
    def function(critic: Critic, params: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        return 0.5 * _squared_gradient_norm(critic, params, side(real, fake)).mean()

    return Penalty(function, gamma if gamma_end is None else cosine(gamma, gamma_end, decay_steps), interval)


def wgan_gp(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """weight * E (||grad D(x)|| - 1)^2 between a real and a generated example (Gulrajani et al. 2017, eq. 3).

    x = e x_real + (1 - e) x_fake, with e uniform in [0, 1] for each pair.
    """

    def function(critic: Critic, params: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.mean((_gradient_norm(critic, params, _between(real, fake, key)) - 1) ** 2)

    return Penalty(function, weight, interval, per_example=True)


def one_sided_gp(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """weight * E max(0, ||grad D(x)|| - 1)^2 where ``wgan_gp`` looks: a flat critic pays nothing (Petzka et al.
    2018, WGAN-LP, eq. 8).
    """

    def function(critic: Critic, params: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        norm = _gradient_norm(critic, params, _between(real, fake, key))
        return jnp.mean(jax.nn.relu(norm - 1) ** 2)

    return Penalty(function, weight, interval, per_example=True)


def dragan(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """weight * E (||grad D(x + e noise)|| - 1)^2 about real examples (Kodali et al. 2017, section 2.3).

    The noise is that of their code: half a standard deviation of all the batch's values, times uniform in [0, 1);
    and e, one for each example, is uniform too.
    """

    def function(critic: Critic, params: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        noise_key, key = jax.random.split(key)
        noise = 0.5 * real.std() * jax.random.uniform(noise_key, real.shape)
        near = _between(real + noise, real, key)
        return jnp.mean((_gradient_norm(critic, params, near) - 1) ** 2)

    return Penalty(function, weight, interval, per_example=True)


def orthogonal(*, weight: NonNegativeFloat = 1e-4, interval: PositiveInt = 1) -> Penalty:
    """weight * sum ||W^T W (1 - I)||_F^2 over the discriminator's kernels W, as matrices with a column for each
    output: columns are kept at right angles, of whatever length (Brock et al. 2019, BigGAN, eq. 3).

    BigGAN asks it of the generator. Their code adds half of this function's gradient.
    """

    def function(critic: Critic, params: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for kernel in jax.tree.leaves(params):
            if kernel.ndim > 1:
                matrix = kernel.reshape(-1, kernel.shape[-1])
                products = matrix.T @ matrix
                total += jnp.sum((products - jnp.diag(jnp.diag(products))) ** 2)
        return total

    return Penalty(function, weight, interval)


def consistency(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """weight * E (D(x) - D(T(x)))^2 on real examples (Zhang et al. 2020, CR-GAN, eq. 5).

    T is theirs for images: a flip with probability one half, and a shift by up to 4 pixels of 32. For points it is
    Gaussian noise of a twentieth of the batch's standard deviation.
    """

    def function(critic: Critic, params: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        if real.ndim == 4:
            flip_key, shift_key = jax.random.split(key)
            other = transforms.shift(transforms.flip(real, flip_key), shift_key, 1 / 8, "reflect")
        else:
            other = real + 0.05 * real.std() * jax.random.normal(key, real.shape)
        return jnp.mean((critic(params, real) - critic(params, other)) ** 2)

    return Penalty(function, weight, interval)


def _between(a: jax.Array, b: jax.Array, key: jax.Array) -> jax.Array:
    """A uniformly random point between each example of ``a`` and its partner in ``b``."""
    e = jax.random.uniform(key, (len(a),) + (1,) * (a.ndim - 1))
    return e * a + (1 - e) * b


def _gradient_norm(critic: Critic, params: Any, x: jax.Array) -> jax.Array:
    # The root's own derivative at zero is infinite: a critic that starts flat would turn to NaN.
    return jnp.sqrt(_squared_gradient_norm(critic, params, x) + 1e-12)
