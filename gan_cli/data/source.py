"""What every data set becomes: arrays on the host, and a recipe for batches on the device."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.errors import UserError
from gan_cli.types import Batch, Spec, Tree


class Modes(NamedTuple):
    """Where a synthetic distribution's modes are: ``centres [modes, features]`` and their standard deviation."""

    centres: np.ndarray
    std: float


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in the host's memory.

    Attributes:
        name: what to call it in print.
        spec: what one example is, as the networks see it.
        examples: ``[n, *spec.shape]``, uint8 for images (0..255), float32 otherwise.
        labels: ``[n]`` int32, or None.
        held_out: examples that training never sees, like ``examples``, or None.
        held_out_labels: their labels, or None.
        flip: whether each example is mirrored left to right with probability one half, anew in every batch.
        modes: the modes of a synthetic distribution, or None.
    """

    name: str
    spec: Spec
    examples: np.ndarray
    labels: np.ndarray | None = None
    held_out: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None
    flip: bool = False
    modes: Modes | None = None

    @property
    def size(self) -> int:
        return len(self.examples)

    @property
    def arrays(self) -> Tree:
        """What goes onto the device."""
        return {"examples": self.examples} | ({} if self.labels is None else {"labels": self.labels})

    @property
    def resident(self) -> Resident:
        return Resident(self.size, self.flip)

    def fingerprint(self) -> str:
        """A SHA-256 of the training examples and labels: whether two runs saw the same data."""
        digest = hashlib.sha256()
        for array in (self.examples, self.labels):
            if array is not None:
                digest.update(str((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Resident:
    """How batches are drawn from arrays that lie on the device."""

    size: int
    flip: bool = False

    def indices(self, key: jax.Array, numbers: jax.Array, batch_size: int) -> jax.Array:
        """The examples of the batches of these ``numbers``, ``[*numbers.shape, batch_size]``.

        An epoch is ``size // batch_size`` whole batches, drawn without replacement in an order of its own.
        """
        per_epoch = self.size // batch_size
        epochs, positions = numbers // per_epoch, numbers % per_epoch
        keys = jax.vmap(lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (2,)))(epochs.reshape(-1))
        keys = keys.reshape(*numbers.shape, 1, 2)
        places = positions[..., None] * batch_size + jnp.arange(batch_size)
        return shuffled(places, self.size, keys)

    def batch(self, arrays: Tree, indices: jax.Array, key: jax.Array) -> Batch:
        """The examples of these indices, images scaled from 0..255 to [-1, 1]."""
        examples = normalise(arrays["examples"][indices])
        if self.flip:
            mirrored = jax.random.bernoulli(key, 0.5, (len(indices), 1, 1, 1))
            examples = jnp.where(mirrored, examples[:, :, ::-1], examples)
        return Batch(examples, arrays["labels"][indices] if "labels" in arrays else None)


def check_memory(size: int, option: str) -> None:
    """Refuse a data set of ``size`` bytes that the host's memory cannot hold.

    Raises:
        UserError: it needs more than half of the memory; the message names the ``option`` that makes it smaller.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise UserError(
            f"{option}: the data set takes {size / 2**30:.1f} GiB and must lie in memory, of which this machine "
            f"has {memory / 2**30:.1f} GiB: choose a smaller one."
        )


def normalise(examples: Any) -> jax.Array:
    """uint8 images as float32 in [-1, 1]; anything else as it is."""
    return examples.astype(jnp.float32) / 127.5 - 1 if examples.dtype == jnp.uint8 else examples


def shuffled(places: jax.Array, size: int, keys: jax.Array) -> jax.Array:
    """Where each place of ``0..size-1`` goes under a random permutation, without ever holding the permutation.

    The swap-or-not shuffle (Hoang, Morris and Rogaway 2012): in each round a random reflection pairs the
    places, and a random bit of each pair says whether its two places are swapped. It costs a few integer
    operations a round for the places asked for, where a sort would cost the whole data set.

    Args:
        places: integers in ``[0, size)``, any shape.
        size: length of the permutation, below 2**31.
        keys: uint32 ``[..., 2]``, its leading axes broadcasting against ``places``: which permutation.
    """
    # 6 log2(size) rounds make it indistinguishable from a uniform permutation (their theorem 2, roughly).
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

    return jax.lax.fori_loop(0, rounds, swap_or_not, places).astype(jnp.int32)


def _hash(x: jax.Array) -> jax.Array:
    """A 32-bit integer hash: the finaliser of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
