"""Gradient estimators: how the gradient of a loss is computed from the terms of the loss on a batch.

Strategies take every gradient with the estimator of the run. A loss returns its terms before any mean over the
batch (``LossTerms``), so that an estimator can divide a batch into slices or into single examples. The game draws
the random inputs of the examples beforehand (``Game.noise``), and they are rows of the batch. A batch with the
entry ``mask`` has padded rows, which an estimator leaves out. ``gan_cli.estimators.private`` defines the estimator
of private training.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gan_cli.engine import devices
from gan_cli.errors import UserError
from gan_cli.losses import masked_mean
from gan_cli.types import Batch, ByPlayer, Game, LossTerms, Metrics, PositiveInt, Term, Tree

LossFunction = Callable[[Tree, Batch, jax.Array], LossTerms]


class Estimate(NamedTuple):
    """The result of an estimator.

    Attributes:
        gradient: gradient of the loss with respect to the parameters.
        loss: the loss, a scalar. In private training, the sum of the terms that read no data.
        net_state: network state by player after the evaluation of the loss.
        metrics: mapping from names of metrics to scalars.
    """

    gradient: Tree
    loss: jax.Array
    net_state: ByPlayer
    metrics: Metrics


class Private(NamedTuple):
    """The options of private training, for the accountant of the privacy that a run spends.

    Attributes:
        max_grad_norm: largest norm of the gradient of one example.
        noise_multiplier: standard deviation of the noise, relative to ``max_grad_norm``. None if it is unknown.
        target_epsilon: largest epsilon that a run may spend. None for a run without this limit.
        target_delta: delta of the guarantee.
        reproducible: whether the noise derives from the seed.
    """

    max_grad_norm: float
    noise_multiplier: float | None
    target_epsilon: float | None
    target_delta: float
    reproducible: bool


class Estimator(NamedTuple):
    """A gradient estimator.

    Attributes:
        gradient: ``(loss, params, batch, key) -> Estimate``, the gradient of ``loss`` with respect to ``params``,
            any pytree of arrays. ``loss`` maps ``(params, batch, key)`` to ``LossTerms``, and also accepts a part
            of the batch.
        differentiable: whether a strategy may differentiate the estimate, as ``consensus`` and ``unrolled`` do.
        divides_batch: whether the estimator evaluates the loss on parts of the batch. The players of the game must
            then not be coupled (``Game.coupled``), and the losses cannot share a generated batch.
        multiple: ``train.batch_size`` must be a multiple of this number, and this number a multiple of the number
            of devices. None for an estimator without this restriction.
        private: the options of private training. None for an estimator that gives no guarantee.
        without_data: the batch that losses receive which must not read the data. In private training, it has zeros
            in place of the examples, and as many rows as ``train.batch_size``. Otherwise, it is the batch.
    """

    gradient: Callable[[LossFunction, Tree, Batch, jax.Array], Estimate]
    differentiable: bool = True
    divides_batch: bool = False
    multiple: int | None = None
    private: Private | None = None
    without_data: Callable[[Batch], Batch] = lambda batch: batch


def total(terms: Mapping[str, Term], mask: jax.Array | None = None) -> jax.Array:
    """The loss: the sum over the terms of ``weight`` times the mean of ``values`` over the rows in ``mask``."""
    return functools.reduce(operator.add, (t.weight * masked_mean(t.values, mask) for t in terms.values()))


def mean() -> Estimator:
    """The gradient of the mean loss over the batch, computed on the whole batch at once."""

    def gradient(loss: LossFunction, params: Tree, batch: Batch, key: jax.Array) -> Estimate:
        def value(params: Tree) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
            found = loss(params, batch, key)
            return total(found.terms, batch.get("mask")), (found.net_state, found.metrics)

        (amount, (net_state, metrics)), slope = jax.value_and_grad(value, has_aux=True)(params)
        return Estimate(slope, amount, net_state, metrics)

    return Estimator(gradient)


def microbatched(*, size: PositiveInt = 16) -> Estimator:
    """The gradient of the mean loss over the batch, accumulated over one slice of the batch after another.

    The gradient equals the gradient of ``mean``, and the memory for activations is that of a slice instead of a
    batch (Huang et al. 2019, GPipe, section 2). Dropout and penalties draw other random numbers than with ``mean``.
    Metrics are means over the slices. The estimator excludes strategies that differentiate the gradient, because
    the derivatives of all slices would be stored. It excludes losses in which examples depend on each other, e.g.
    through batch normalisation. The losses of the players do not share a generated batch.

    Args:
        size: number of examples in a slice, summed over all devices. ``train.batch_size`` must be a multiple of
            size.
    """

    def gradient(loss: LossFunction, params: Tree, batch: Batch, key: jax.Array) -> Estimate:
        # A game without data has an empty batch, which is a single slice.
        count = next((len(rows) // size for rows in batch.values()), 1)
        # Slice i has the rows i, i + count, ..., so that each device holds an equal part of every slice.
        slices = {
            name: devices.split(rows.reshape(size, count, *rows.shape[1:]).swapaxes(0, 1), axis=1)
            for name, rows in batch.items()
        }
        mask = batch.get("mask")

        def of_slice(slope: Tree, xs: tuple[Batch, jax.Array]) -> tuple[Tree, tuple[jax.Array, ByPlayer, Metrics]]:
            part, key = xs
            # The part of all real examples that this slice contains.
            share = 1 / count if mask is None else part["mask"].sum() / jnp.maximum(mask.sum(), 1)

            def value(params: Tree) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
                found = loss(params, part, key)
                terms = {
                    name: term._replace(weight=term.weight * (share if jnp.ndim(term.values) else 1 / count))
                    for name, term in found.terms.items()
                }
                metrics = {name: share * metric for name, metric in found.metrics.items()}
                return total(terms, part.get("mask")), (found.net_state, metrics)

            (amount, (net_state, metrics)), more = jax.value_and_grad(value, has_aux=True)(params)
            return jax.tree.map(jnp.add, slope, more), (amount, net_state, metrics)

        start = jax.tree.map(jnp.zeros_like, params)
        per_slice = slices, jax.random.split(key, count)
        slope, (amounts, net_states, metrics) = jax.lax.scan(of_slice, start, per_slice)
        # The new network state is the same for every slice, because the players are not coupled.
        net_state = jax.tree.map(lambda leaf: leaf[-1], net_states)
        return Estimate(slope, amounts.sum(), net_state, jax.tree.map(lambda x: x.sum(0), metrics))

    return Estimator(gradient, differentiable=False, divides_batch=True, multiple=size)


def check(name: str, estimator: Estimator, game: Game, pads: bool) -> None:
    """Raise a UserError if the examples of a batch depend on each other in a game that must not couple them.

    Args:
        name: name of the estimator in error messages.
        estimator: the estimator.
        game: the game.
        pads: whether the sampler pads batches, and the batches have a mask.
    """
    if not game.coupled:
        return
    players = " and the ".join(player for player in game.players if player in game.coupled)
    reason = (
        f"and the examples of a batch depend on each other in the loss of the {players}. Remove batch "
        "normalisation (norm=layer), minibatch layers (minibatch=none), augment=[packing] and [adaptive], "
        "loss=relativistic_average, penalty=[dragan] and [consistency], image pools (game.pool=0), and networks "
        "that do not declare couples_batch=False, or "
    )
    if estimator.divides_batch:
        raise UserError(f"estimator={name}: divides the batch, {reason}set estimator=mean.")
    if estimator.private:
        raise UserError(f"estimator={name}: clips the gradients of single examples, {reason}set estimator=mean.")
    if pads:
        raise UserError(f"sampler: pads the batch with rows that do not count, {reason}set sampler=shuffled.")
