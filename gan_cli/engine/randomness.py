"""The random keys and the examples of each step, as functions of the seed and the step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.feed import Feed, Selection
from gan_cli.types import Batch


def order(feed: Feed, seed: int, step: int, length: int, batches: int, batch_size: int) -> Selection:
    """The examples that the program selects for ``length`` steps, in arrays ``[length, batches, rows]``.

    Args:
        feed: selects the batches.
        seed: seed of the run.
        step: the first step.
        length: number of steps.
        batches: number of batches per step.
        batch_size: number of examples in a batch.
    """
    return feed.select(stream(seed, "order"), batch_numbers(jnp.int32(step), length, batches), batch_size)


def first_examples(data: Dataset, seed: int, batch_size: int, n: int) -> Batch:
    """A batch of the first ``n`` training examples that a run uses, or fewer if the data set has fewer examples.

    The run is assumed to use one batch per step.
    """
    number = min(-(-n // batch_size), max(data.size // batch_size, 1))
    batches = [batch_of(data, seed, batch_size, i) for i in range(number)]
    real = [{n: x[batch["mask"] > 0] if "mask" in batch else x for n, x in batch.items()} for batch in batches]
    return {name: jnp.concatenate([batch[name] for batch in real])[:n] for name in data.spec}


def batch_of(data: Dataset, seed: int, batch_size: int, number: int = 0) -> Batch:
    """The batch with the given number of a run, which is assumed to use one batch per step."""
    selected = order(data.feed, seed, number, 1, 1, batch_size)
    indices, mask = jax.tree.map(lambda array: np.asarray(array)[0, 0], selected)
    drawn = data.take(indices) | ({} if mask is None else {"mask": mask})
    return dataclasses.replace(data.feed, streams=True).batch(None, drawn, batch_keys(seed, number, 1)[0])


def batch_numbers(step: jax.Array, length: int, batches: int) -> jax.Array:
    """Numbers ``[length, batches]`` of the batches of ``length`` steps, counted from the start of the run."""
    return (step + jnp.arange(length))[:, None] * batches + jnp.arange(batches)


def step_key(seed: Any, step: jax.Array) -> jax.Array:
    """The random key that the strategy receives at ``step``."""
    return jax.random.fold_in(stream(seed, "step"), step)


def batch_keys(seed: int, step: jax.Array | int, batches: int) -> jax.Array:
    """Random keys ``[batches]`` that select the mirrored images in the batches of ``step``."""
    return jax.random.split(jax.random.fold_in(stream(seed, "batch"), step), batches)


def stream(seed: Any, purpose: str) -> jax.Array:
    """The root key of the random numbers for a purpose: ``init``, ``order``, ``batch`` or ``step``.

    Different purposes have different keys, so that their random numbers are independent. ``seed`` is an integer, or
    a random key.
    """
    secret = isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
    key = seed if secret else jax.random.key(seed)
    return jax.random.fold_in(key, ("init", "order", "batch", "step").index(purpose))
