"""What every data set becomes: examples on the host, and a recipe for batches on the device."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.types import Batch, Spec, Tree


class Modes(NamedTuple):
    """Where a synthetic distribution's modes are: ``centres [modes, features]`` and their standard deviation."""

    centres: np.ndarray
    std: float


class Source(Protocol):
    """Examples that are read each time they are asked for, by any number of threads at once."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def labelled(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """One uint8 example of ``shape``, and its label (-1 where there are none)."""
        ...

    def fingerprint(self) -> str:
        """A digest of what the examples are, without reading them all."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes:
        name: what to call it in print.
        spec: what one example is, as the networks see it.
        examples: ``[n, *spec.shape]``, uint8 for images (0..255), float32 otherwise; or a source that is streamed.
        labels: ``[n]`` int32, or None (of a source, which has its own).
        held_out: examples that training never sees, like ``examples``, or None.
        held_out_labels: their labels, or None.
        flip: whether each example is mirrored left to right with probability one half, anew in every batch.
        modes: the modes of a synthetic distribution, or None.
    """

    name: str
    spec: Spec
    examples: np.ndarray | Source
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
        """What goes onto the device, where the data lie there."""
        return {"examples": self.examples} | ({} if self.labels is None else {"labels": self.labels})

    @property
    def feed(self) -> Feed:
        return Feed(self.size, self.flip, streams=not isinstance(self.examples, np.ndarray))

    def take(self, indices: np.ndarray, pool: Executor | None = None) -> Tree:
        """The examples and labels of these indices, of any shape; a ``pool`` of threads reads a source faster."""
        if isinstance(self.examples, np.ndarray):
            return {name: array[indices] for name, array in self.arrays.items()}
        source, flat = self.examples, np.ravel(indices)
        examples, labels = np.empty((len(flat), *source.shape), np.uint8), np.empty(len(flat), np.int32)

        def read(part: range) -> None:
            for i in part:
                examples[i], labels[i] = source[int(flat[i])]

        parts = [range(start, min(start + 16, len(flat))) for start in range(0, len(flat), 16)]
        list((pool.map if pool else map)(read, parts))
        taken = {"examples": examples.reshape(*indices.shape, *source.shape)}
        return taken | ({"labels": labels.reshape(indices.shape)} if source.labelled else {})

    def fingerprint(self) -> str:
        """A SHA-256 of the training examples and labels: whether two runs saw the same data."""
        if not isinstance(self.examples, np.ndarray):
            return self.examples.fingerprint()
        digest = hashlib.sha256()
        for array in (self.examples, self.labels):
            if array is not None:
                digest.update(str((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Feed:
    """How a compiled program draws its batches: from arrays on the device, or from what is streamed to it.

    Both see the same batches: which examples they are is a function of the seed and the step.
    """

    size: int
    flip: bool = False
    streams: bool = False

    def draw(self, arrays: Tree, key: jax.Array, numbers: jax.Array, batch_size: int) -> Tree:
        """What to make the batches of these ``numbers`` of: a pytree with the leading axes ``numbers.shape``."""
        return arrays if self.streams else self.indices(key, numbers, batch_size)

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

    def batch(self, arrays: Tree, drawn: Tree, key: jax.Array) -> Batch:
        """One batch of what was drawn for it, images scaled from 0..255 to [-1, 1]."""
        taken = drawn if self.streams else {name: array[drawn] for name, array in arrays.items()}
        examples = normalise(jnp.asarray(taken["examples"]))
        if self.flip:
            mirrored = jax.random.bernoulli(key, 0.5, (len(examples), 1, 1, 1))
            examples = jnp.where(mirrored, examples[:, :, ::-1], examples)
        return Batch(examples, taken.get("labels"))


def must_stream(size: int, asked: bool | None) -> bool:
    """Whether a data set of ``size`` bytes is streamed: as ``asked``, else where it would take too much memory.

    That is more than a quarter of the host's memory, or of the accelerator's.
    """
    return size > memory() // 4 if asked is None else asked


def memory() -> int:
    """Bytes of the host's memory, or of the accelerator's where that has less."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(host, (jax.devices()[0].memory_stats() or {}).get("bytes_limit", host))


def normalise(examples: Any) -> jax.Array:
    """uint8 images as float32 in [-1, 1]; anything else as it is."""
    return examples.astype(jnp.float32) / 127.5 - 1 if examples.dtype == jnp.uint8 else examples


def denormalise(examples: Any) -> jax.Array:
    """Images in [-1, 1] as uint8, what lies outside cut off, and what is no number grey."""
    finite = jnp.nan_to_num(examples, posinf=1.0, neginf=-1.0)
    return jnp.clip(jnp.rint((finite + 1) * 127.5), 0, 255).astype(jnp.uint8)


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
