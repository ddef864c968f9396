"""Penalties: terms of the discriminator's loss, most of which bound the discriminator's gradient.

A penalty is a function ``(critic, params, real, fake, key) -> [batch]``, where ``critic(params, x)`` returns logits
``[batch]`` for examples ``[batch, ...]``. The loss contains the mean of the penalty over the batch. A penalty that
depends on the parameters only is a scalar. A lazy penalty with interval k is evaluated at every k-th step and
multiplied by k (Karras et al. 2020, StyleGAN2, section 3.1). In this package, the penalty and the loss share one
update. StyleGAN2 applies the penalty in a separate update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gan_cli import transforms
from gan_cli.schedules import cosine
from gan_cli.types import NonNegativeFloat, PositiveInt, Term, Tree

Critic = Callable[[Tree, jax.Array], jax.Array]


class Penalty(NamedTuple):
    """A term of the discriminator's loss: ``interval * weight * function`` at every interval-th step.

    Attributes:
        function: ``(critic, params, real [batch, ...], fake [batch, ...], key) -> [batch]``, returns the penalty of
            each example without the weight, or a scalar that depends on no example.
        weight: factor of the penalty, a number or a function that maps the step to a number.
        interval: number of steps from one evaluation of the penalty to the next.
        per_example: whether the penalty requires a critic that computes the logit of an example independently of
            the other examples of the batch. Critics with batch normalisation or a minibatch layer are excluded.
        couples_batch: whether the penalty of one example depends on the other examples of the batch.
        reads_data: whether the penalty depends on the real examples.
    """

    function: Callable[[Critic, Tree, jax.Array, jax.Array, jax.Array], jax.Array]
    weight: float | optax.Schedule
    interval: int
    per_example: bool = False
    couples_batch: bool = False
    reads_data: bool = True


def penalty_terms(
    penalties: Mapping[str, Penalty],
    critic: Callable[[Tree, jax.Array, jax.Array], jax.Array],
    params: Tree,
    real: jax.Array,
    fake: jax.Array,
    *,
    key: jax.Array,
    step: jax.Array,
    critic_of_fakes: Callable[[Tree, jax.Array, jax.Array], jax.Array] | None = None,
) -> dict[str, Term]:
    """The terms of the penalties in the discriminator's loss at a step, by name.

    Args:
        penalties: mapping from names to penalties.
        critic: ``(params, x, key) -> logits [batch]``.
        params: parameters of the critic.
        real: real examples ``[batch, ...]``.
        fake: generated examples ``[batch, ...]``.
        key: random key, from which each penalty receives its own key.
        step: the step.
        critic_of_fakes: the critic for penalties of generated examples alone. If None, ``critic``.
    """
    terms = {}
    for i, (name, penalty) in enumerate(penalties.items()):
        own_key = jax.random.fold_in(key, i)
        judge = critic if penalty.reads_data or critic_of_fakes is None else critic_of_fakes

        def value(
            params: Tree, penalty: Penalty = penalty, key: jax.Array = own_key, judge: Any = judge
        ) -> jax.Array:
            return penalty.function(lambda own, x: judge(own, x, key), params, real, fake, key)

        if penalty.interval == 1:
            amount = value(params)
        else:  # evaluated at the last step of each interval
            due = step % penalty.interval == penalty.interval - 1
            shape = jax.eval_shape(value, params).shape
            amount = jax.lax.cond(due, value, lambda params, shape=shape: jnp.zeros(shape), params)
        weight = penalty.weight(step) if callable(penalty.weight) else penalty.weight
        terms[name] = Term(amount, weight * penalty.interval, penalty.reads_data)
    return terms


def _squared_gradient_norm(critic: Critic, params: Tree, x: jax.Array) -> jax.Array:
    """Squared norm of the critic's gradient at each example, ||d critic(x) / dx||^2, ``[batch]``.

    The function differentiates the sum of the logits. If the critic processes each example independently, the
    gradient at an example is the gradient of the logit of this example. With batch normalisation, the gradient at
    an example also contains the derivatives of the logits of other examples.
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
    """R1 gradient penalty on real examples: gamma/2 E ||grad D(x)||^2.

    Mescheder et al. 2018, eq. 9.

    Args:
        gamma: factor of the penalty. If gamma_end is set, gamma is the initial value of the factor.
        gamma_end: final value of the factor, which changes from gamma to gamma_end along half a cosine (Huang et
            al. 2024, R3GAN's code). If null, the factor stays at gamma.
        decay_steps: number of steps in which the factor changes from gamma to gamma_end. If null, the number is the
            value of train.steps at the first start of the run.
        interval: number of steps from one evaluation of the penalty to the next (lazy regularisation). The
            evaluated penalty is multiplied by interval to compensate for the steps without a penalty.
    """
    return _zero_centred(lambda real, fake: real, gamma, gamma_end, decay_steps, interval)


def r2(
    *,
    gamma: NonNegativeFloat = 1.0,
    gamma_end: NonNegativeFloat | None = None,
    decay_steps: PositiveInt | None = None,
    interval: PositiveInt = 1,
) -> Penalty:
    """R2 gradient penalty on generated examples: gamma/2 E ||grad D(G(z))||^2.

    Mescheder et al. 2018, eq. 10.

    Args:
        gamma: factor of the penalty. If gamma_end is set, gamma is the initial value of the factor.
        gamma_end: final value of the factor, which changes from gamma to gamma_end along half a cosine (Huang et
            al. 2024, R3GAN's code). If null, the factor stays at gamma.
        decay_steps: number of steps in which the factor changes from gamma to gamma_end. If null, the number is the
            value of train.steps at the first start of the run.
        interval: number of steps from one evaluation of the penalty to the next (lazy regularisation). The
            evaluated penalty is multiplied by interval to compensate for the steps without a penalty.
    """
    penalty = _zero_centred(lambda real, fake: fake, gamma, gamma_end, decay_steps, interval)
    return penalty._replace(reads_data=False)


def _zero_centred(
    side: Callable[[jax.Array, jax.Array], jax.Array],
    gamma: float,
    gamma_end: float | None,
    decay_steps: int | None,
    interval: int,
) -> Penalty:
    def function(critic: Critic, params: Tree, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        return 0.5 * _squared_gradient_norm(critic, params, side(real, fake))

    weight = gamma if gamma_end is None else cosine(gamma, gamma_end, decay_steps, "gamma_end")
    return Penalty(function, weight, interval)


def wgan_gp(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """WGAN-GP gradient penalty between real and generated examples: weight * E (||grad D(x)|| - 1)^2.

    The point x is e x_real + (1 - e) x_fake, where e is drawn uniformly from [0, 1] for each pair of a real and a
    generated example (Gulrajani et al. 2017, eq. 3).

    Args:
        weight: factor of the penalty.
        interval: number of steps from one evaluation of the penalty to the next (lazy regularisation). The
            evaluated penalty is multiplied by interval to compensate for the steps without a penalty.
    """

    def function(critic: Critic, params: Tree, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        return (_gradient_norm(critic, params, _between(real, fake, key)) - 1) ** 2

    return Penalty(function, weight, interval, per_example=True)


def one_sided_gp(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """One-sided WGAN-GP penalty on gradient norms above 1: weight * E max(0, ||grad D(x)|| - 1)^2.

    The points x are drawn as in ``wgan_gp``. Gradient norms below 1 are not penalised (Petzka et al. 2018, WGAN-LP,
    eq. 8).

    Args:
        weight: factor of the penalty.
        interval: number of steps from one evaluation of the penalty to the next (lazy regularisation). The
            evaluated penalty is multiplied by interval to compensate for the steps without a penalty.
    """

    def function(critic: Critic, params: Tree, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        norm = _gradient_norm(critic, params, _between(real, fake, key))
        return jax.nn.relu(norm - 1) ** 2

    return Penalty(function, weight, interval, per_example=True)


def dragan(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """DRAGAN gradient penalty near real examples: weight * E (||grad D(x + e noise)|| - 1)^2.

    Kodali et al. 2017, section 2.3. As in the authors' code, the noise is uniform in [0, 1) and scaled by half
    the standard deviation of all values in the batch. The factor e is drawn uniformly from [0, 1] for each example.

    Args:
        weight: factor of the penalty.
        interval: number of steps from one evaluation of the penalty to the next (lazy regularisation). The
            evaluated penalty is multiplied by interval to compensate for the steps without a penalty.
    """

    def function(critic: Critic, params: Tree, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        noise_key, key = jax.random.split(key)
        noise = 0.5 * real.std() * jax.random.uniform(noise_key, real.shape)
        near = _between(real + noise, real, key)
        return (_gradient_norm(critic, params, near) - 1) ** 2

    return Penalty(function, weight, interval, per_example=True, couples_batch=True)


def orthogonal(*, weight: NonNegativeFloat = 1e-4, interval: PositiveInt = 1) -> Penalty:
    """Orthogonal regularisation of the discriminator's kernels W: weight * sum ||W^T W (1 - I)||_F^2.

    Each kernel is reshaped to a matrix with one column per output. The product with 1 - I is elementwise, where 1
    is the matrix of ones. The penalty therefore drives the columns towards orthogonality but does not constrain
    their norms (Brock et al. 2019, BigGAN, eq. 3). BigGAN applies the penalty to the generator. At equal weight,
    the gradient in BigGAN's code is half of the gradient of this penalty.

    Args:
        weight: factor of the penalty.
        interval: number of steps from one evaluation of the penalty to the next (lazy regularisation). The
            evaluated penalty is multiplied by interval to compensate for the steps without a penalty.
    """

    def function(critic: Critic, params: Tree, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for kernel in jax.tree.leaves(params):
            if kernel.ndim > 1:
                matrix = kernel.reshape(-1, kernel.shape[-1])
                products = matrix.T @ matrix
                total += jnp.sum((products - jnp.diag(jnp.diag(products))) ** 2)
        return total

    return Penalty(function, weight, interval, reads_data=False)


def consistency(*, weight: NonNegativeFloat = 10.0, interval: PositiveInt = 1) -> Penalty:
    """Consistency regularisation under a random transformation T: weight * E (D(x) - D(T(x)))^2.

    The examples x are real (Zhang et al. 2020, CR-GAN, eq. 5). For images, T is the paper's transformation: a
    horizontal flip with probability 1/2, then a shift by up to one eighth of the height and width (4 pixels of 32).
    For points, T adds Gaussian noise. The standard deviation of the noise is one twentieth of the standard
    deviation of all values in the batch.

    Args:
        weight: factor of the penalty.
        interval: number of steps from one evaluation of the penalty to the next (lazy regularisation). The
            evaluated penalty is multiplied by interval to compensate for the steps without a penalty.
    """

    def function(critic: Critic, params: Tree, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
        if real.ndim in (4, 5):
            flip_key, shift_key = jax.random.split(key)
            other = transforms.each_frame(
                lambda x: transforms.shift(transforms.flip(x, flip_key), shift_key, 1 / 8, "reflect"), real
            )
        else:
            other = real + 0.05 * real.std() * jax.random.normal(key, real.shape)
        return (critic(params, real) - critic(params, other)) ** 2

    # The noise of points is relative to the standard deviation of the batch.
    return Penalty(function, weight, interval, couples_batch=True)


def _between(a: jax.Array, b: jax.Array, key: jax.Array) -> jax.Array:
    """For each row, a uniformly random point on the segment from the row of ``a`` to the row of ``b``."""
    e = jax.random.uniform(key, (len(a),) + (1,) * (a.ndim - 1))
    return e * a + (1 - e) * b


def _gradient_norm(critic: Critic, params: Tree, x: jax.Array) -> jax.Array:
    # The derivative of the square root is infinite at zero. Without the constant, a zero gradient of the critic
    # would turn the critic's parameters into NaN.
    return jnp.sqrt(_squared_gradient_norm(critic, params, x) + 1e-12)
