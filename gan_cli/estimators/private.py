"""Private training: the sum of clipped gradients of the examples, plus Gaussian noise (DP-SGD)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p

from gan_cli.engine import devices
from gan_cli.errors import UserError
from gan_cli.estimators import Estimate, Estimator, LossFunction, Private, total
from gan_cli.estimators.per_example import clipped_sum, origins
from gan_cli.types import Batch, ByPlayer, Game, NonNegativeFloat, OpenUnitFloat, PositiveFloat, Spec, Tree

_NOISE = 2**31  # the key of the noise; games derive their keys from smaller numbers


def private(
    *,
    max_grad_norm: PositiveFloat = 1.0,
    target_delta: OpenUnitFloat = 1e-5,
    target_epsilon: PositiveFloat | None = None,
    noise_multiplier: NonNegativeFloat | None = None,
    reproducible: bool = False,
) -> Estimator:
    """Differentially private gradients: clipped for each example, summed, and noised (DP-SGD).

    The gradient is (sum_i min(1, C / |g_i|) g_i + sigma C N(0, I)) / B for a batch of Poisson sampling (Abadi et
    al. 2016, algorithm 1). g_i is the gradient of the terms of the loss that read example i, C is
    ``max_grad_norm``, sigma is ``noise_multiplier``, and B is the constant ``train.batch_size``. The gradient of
    terms that read no data, e.g. those of generated examples, is added without clipping and noise. Only the player
    whose loss reads the data has such gradients. The other players, e.g. the generator, see the data only through
    this player's parameters, so that their updates cost no privacy. A run logs no metric that reads the data.

    Cost: dense layers have no gradient of single examples in memory, and other layers have that of a slice of the
    batch.

    Args:
        max_grad_norm: largest norm C of the gradient of one example. Longer gradients are scaled to this norm.
        target_delta: probability delta with which the guarantee may fail, at most 1 divided by the number of
            examples.
        target_epsilon: epsilon that the run may spend. Training stops before a step would exceed it. If
            noise_multiplier is null, the noise is the smallest with which train.steps steps spend no more.
        noise_multiplier: standard deviation sigma of the noise, relative to max_grad_norm. If null, it follows from
            target_epsilon.
        reproducible: whether the noise derives from the seed, so that a run can be repeated. The guarantee then
            assumes that nobody else knows the seed. If false, the key of the noise is random and secret.
    """

    def gradient(loss: LossFunction, params: Tree, batch: Batch, key: jax.Array) -> Estimate:
        raise RuntimeError("estimator=private: the size of the batches is unknown")

    options = Private(max_grad_norm, noise_multiplier, target_epsilon, target_delta, reproducible)
    return Estimator(gradient, differentiable=False, private=options)


def bound(estimator: Estimator, batch_size: int, spec: Spec | None) -> Estimator:
    """The private estimator for batches of ``batch_size`` examples on average, with the features ``spec``."""
    options = estimator.private
    assert options is not None

    def without_data(batch: Batch) -> Batch:
        kept = {
            name: rows if name == "fake" else rows[:batch_size] for name, rows in batch.items() if name != "mask"
        }
        return kept | {name: jnp.zeros_like(kept[name]) for name in spec or ()}

    def gradient(loss: LossFunction, params: Tree, batch: Batch, key: jax.Array) -> Estimate:
        noise_key, row_key = jax.random.split(jax.random.fold_in(key, _NOISE))
        mask = batch["mask"]
        count = len(mask)
        rows = {name: x for name, x in batch.items() if name != "mask"}
        if "fake" in rows:  # a padded batch has more rows than there are generated examples
            rows["fake"] = jax.tree.map(lambda x: x[jnp.arange(count) % batch_size], rows["fake"])
        keys = devices.split(jax.random.split(row_key, count))

        def of_row(params: Tree, row: tuple[Batch, jax.Array]) -> jax.Array:
            example, key = row
            terms = loss(params, jax.tree.map(lambda x: x[None], example), key).terms.values()
            read = [term.weight * term.values for term in terms if term.reads_data and jnp.ndim(term.values)]
            return sum((values.reshape(()) for values in read), jnp.zeros(()))

        summed = clipped_sum(of_row, params, (rows, keys), mask, options.max_grad_norm)
        assert options.noise_multiplier is not None, "gan_cli.config fills in the noise multiplier"
        noised = _noised(summed, noise_key, options.noise_multiplier * options.max_grad_norm)

        def value(params: Tree) -> tuple[jax.Array, ByPlayer]:
            found = loss(params, without_data(batch), key)
            terms = {n: t for n, t in found.terms.items() if not (t.reads_data and jnp.ndim(t.values))}
            return total(terms) if terms else jnp.zeros(()), found.net_state

        (amount, net_state), slope = jax.value_and_grad(value, has_aux=True)(params)
        slope = jax.tree.map(lambda own, more: own + more / batch_size, slope, noised)
        return Estimate(slope, amount, net_state, {})

    return estimator._replace(gradient=gradient, without_data=without_data)


def with_noise(estimator: Estimator, noise_multiplier: float) -> Estimator:
    """The private estimator with the noise multiplier that follows from ``target_epsilon``."""
    assert estimator.private is not None
    return estimator._replace(private=estimator.private._replace(noise_multiplier=noise_multiplier))


def _noised(tree: Tree, key: jax.Array, std: float) -> Tree:
    """``tree`` plus independent Gaussian noise of standard deviation ``std``, the same on all devices."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.tree.unflatten(structure, list(jax.random.split(key, len(leaves))))
    noised = jax.tree.map(lambda x, key: x + devices.same(std * _normal(key, x.shape)), tree, keys)
    # Without the barrier, XLA draws the noise again for every moment of the optimiser.
    return jax.lax.optimization_barrier(noised)


def _normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers in float32.

    ``jax.random.normal`` keeps one of the two words of each block of threefry. Here both give a number, so that
    the noise takes less of the time of an update.
    """
    size = math.prod(shape)
    count = jax.lax.iota(jnp.uint32, -(-size // 2))
    words = threefry2x32_p.bind(*jax.random.bits(key, (2,), jnp.uint32), jnp.zeros_like(count), count)
    # Without the barrier, XLA looks up the block and computes the number in one loop, which is slower.
    bits = jax.lax.optimization_barrier(jnp.concatenate(words)[:size].reshape(shape))
    uniform = jax.lax.bitcast_convert_type((bits >> 9) | jnp.uint32(0x3F800000), jnp.float32) - 1  # from 0 to 1
    low = np.nextafter(np.float32(-1), np.float32(0))
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(jnp.maximum(low, uniform * (1 - low) + low))


def check(game: Game) -> None:
    """Raise a UserError if the guarantee would not hold for a game, a result of ``Game.private``.

    The losses of a game cannot break it, because they read the data in clipped terms of single examples only
    (``bound``). ``Game.noise`` receives the whole batch, so its computation is traced: it may read the shapes of
    the examples, and not their values.
    """
    readers = game.players if game.reads_data is None else tuple(game.reads_data)
    if game.spec is None:
        raise UserError("estimator=private: this game has no data to protect. Set estimator=mean.")
    if len(readers) > 1:
        raise UserError(
            f"estimator=private: the losses of the players {', '.join(readers)} all read the data, and a step may "
            "have one private gradient of a batch. Choose a game in which one player reads the data, e.g. game=gan."
        )
    rows = 2 * game.pack
    batch = {"mask": jax.ShapeDtypeStruct((rows,), jnp.float32)}
    for name, feature in game.spec.items():
        seen = jax.eval_shape(feature.encode, jax.ShapeDtypeStruct((rows, *feature.stored_shape), feature.dtype))
        batch[name] = jax.ShapeDtypeStruct((rows, *feature.shape), seen.dtype)
    closed, made = jax.make_jaxpr(game.noise, return_shape=True)(batch, jax.eval_shape(lambda: jax.random.key(0)))
    # The inputs of the jaxpr are the entries of the batch by name, then the key.
    names, key = sorted(batch), len(batch)
    if leaks := [
        name
        for name, origin in zip(sorted(made), origins(closed), strict=True)
        if (origin != names.index(name) if name in names else origin not in (key, set(), {key}))
    ]:
        raise UserError(
            f"estimator=private: this game computes its random inputs ({', '.join(leaks)}) from the examples of "
            "the batch, which would reach the players without clipping and noise. Choose another game, e.g. "
            "game=gan."
        )
