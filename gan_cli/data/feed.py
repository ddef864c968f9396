"""Selection of the examples of each batch inside a compiled program."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gan_cli.data.features import Image
from gan_cli.types import Batch, Feature, Tree


@dataclass(frozen=True)
class Feed:
    """Selects batches inside a compiled program, from arrays on the device or from streamed batches.

    A streamed batch has the same examples as a batch from arrays on the device, because the indices of a batch are
    a function of the seed and the step.

    Attributes:
        size: number of training examples.
        features: the features of an example, as pairs (name, feature).
        flip: whether each image is mirrored left to right with probability 1/2, independently in every batch.
        streams: whether the host streams batches to the device.
    """

    size: int
    features: tuple[tuple[str, Feature], ...]
    flip: bool = False
    streams: bool = False

    def draw(self, arrays: Tree, key: jax.Array, numbers: jax.Array, batch_size: int) -> Tree:
        """The streamed data or the indices from which ``batch`` builds the batches with the given numbers.

        If the host streams batches, ``arrays`` already contains the batches, and the method returns ``arrays``.
        Otherwise, the method returns the indices of the examples of each batch. The leading axes of the result are
        ``numbers.shape``.
        """
        return arrays if self.streams else self.indices(key, numbers, batch_size)

    def indices(self, key: jax.Array, numbers: jax.Array, batch_size: int) -> jax.Array:
        """Indices ``[*numbers.shape, batch_size]`` of the examples in the batches with the given numbers.

        An epoch consists of ``size // batch_size`` batches, which are drawn without replacement. Each epoch has a
        new random order.
        """
        per_epoch = self.size // batch_size
        epochs, positions = numbers // per_epoch, numbers % per_epoch
        keys = jax.vmap(lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (2,)))(epochs.reshape(-1))
        keys = keys.reshape(*numbers.shape, 1, 2)
        places = positions[..., None] * batch_size + jnp.arange(batch_size)
        return shuffled(places, self.size, keys)

    def batch(self, arrays: Tree, drawn: Tree, key: jax.Array) -> Batch:
        """One batch: the features of its examples by name, as networks see them.

        Args:
            arrays: the data set on the device. This argument is not used if the host streams batches.
            drawn: the entry for this batch in the result of ``draw``.
            key: random key that selects the mirrored images.
        """
        taken = drawn if self.streams else {name: array[drawn] for name, array in arrays.items()}
        batch = {name: feature.encode(jnp.asarray(taken[name])) for name, feature in self.features}
        for name, feature in self.features:
            if self.flip and isinstance(feature, Image):  # all images of an example are mirrored alike
                mirrored = jax.random.bernoulli(key, 0.5, (len(batch[name]), 1, 1, 1))
                batch[name] = jnp.where(mirrored, batch[name][:, :, ::-1], batch[name])
        return batch


def shuffled(places: jax.Array, size: int, keys: jax.Array) -> jax.Array:
    """Maps ``places`` through a random permutation of ``0..size-1`` without storing the permutation.

    The method is the swap-or-not shuffle (Hoang, Morris and Rogaway 2012). In each round, a random reflection pairs
    the places, and a random bit for each pair determines whether the two places are swapped. The cost is a few
    integer operations per round and place. In contrast, sorting random keys would process the whole data set.

    Args:
        places: array of any shape with integers in ``[0, size)``.
        size: length of the permutation, below 2**31.
        keys: seed of the permutation, uint32 ``[..., 2]``. The leading axes broadcast against ``places``.
    """
    # After about 6 log2(size) rounds the shuffle is indistinguishable from a uniform permutation (theorem 2).
    rounds = 6 * max(int(size - 1).bit_length(), 1)
    n = jnp.uint32(size)
    first, second = keys[..., 0], keys[..., 1]
    places = jnp.broadcast_to(places, jnp.broadcast_shapes(places.shape, first.shape)).astype(jnp.uint32)

    def swap_or_not(round_: jax.Array, i: jax.Array) -> jax.Array:
        offset = _hash(first + round_.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)) % n
        partner = jnp.where(offset >= i, offset - i, offset + (n - i))
        pair = jnp.maximum(i, partner)
        bit = _hash(_hash(pair ^ second) + round_.astype(jnp.uint32)) >> 31
        return jnp.where(bit == 1, partner, i)

    mapped: jax.Array = jax.lax.fori_loop(0, rounds, swap_or_not, places)
    return mapped.astype(jnp.int32)


def _hash(x: jax.Array) -> jax.Array:
    """A 32-bit integer hash: the finaliser of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
