"""The record that every data set function returns: examples on the host, and the Spec of one example."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from gan_cli.data.feed import Feed
from gan_cli.data.scaling import normalise
from gan_cli.types import Spec

BATCH = 500  # number of examples that are read, generated or evaluated at a time


class Modes(NamedTuple):
    """The modes of a synthetic mixture of Gaussians.

    Attributes:
        centres: means of the modes, ``[modes, features]``.
        std: standard deviation that all modes share.
    """

    centres: np.ndarray
    std: float


class Source(Protocol):
    """Examples that are read from disk at each access. Several threads may read at the same time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """One uint8 example of ``shape`` and its label, which is -1 if the examples have no labels."""
        ...

    def fingerprint(self) -> str:
        """A digest that identifies the examples. Computing it does not read all of them."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: its training examples, their labels, and held-out examples if there are any.

    Attributes:
        name: name of the data set in messages and reports.
        spec: shape and range of one example as the networks receive it.
        examples: training examples ``[n, *spec.shape]``, uint8 in 0..255 for images and float32 otherwise; or a
            ``Source``, from which the examples are streamed.
        labels: labels ``[n]`` int32; None if the examples have no labels or are streamed (a ``Source`` returns
            each label with its example).
        held_out: examples that are excluded from training, in the format of the array ``examples``, or None.
        held_out_labels: labels of the held-out examples, or None.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        modes: the modes of a synthetic mixture, or None.
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
        """Number of training examples."""
        return len(self.examples)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are copied to the device when the data set is not streamed."""
        assert isinstance(self.examples, np.ndarray)
        return {"examples": self.examples} | ({} if self.labels is None else {"labels": self.labels})

    @property
    def feed(self) -> Feed:
        """The part of a compiled program that selects the batches of this data set."""
        return Feed(self.size, self.flip, streams=not isinstance(self.examples, np.ndarray))

    def take(self, indices: np.ndarray, pool: Executor | None = None) -> dict[str, np.ndarray]:
        """The training examples, and their labels if they have any, at the given indices.

        Args:
            indices: integers of any shape; the returned arrays have this shape as their leading axes.
            pool: threads that read from a ``Source`` in parallel; None reads one example after another.
        """
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

    def spread(self, n: int) -> np.ndarray:
        """At most ``n`` examples at evenly spaced indices, scaled as the networks receive them."""
        chosen = np.linspace(0, self.size - 1, min(n, self.size)).astype(int)
        return normalise(self.take(chosen)["examples"])

    def fingerprint(self) -> str:
        """A digest of the training examples and labels, equal for two runs that train on the same data.

        For arrays it is the SHA-256 of their contents; a ``Source`` computes a cheaper digest.
        """
        if not isinstance(self.examples, np.ndarray):
            return self.examples.fingerprint()
        digest = hashlib.sha256()
        for array in (self.examples, self.labels):
            if array is not None:
                digest.update(str((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
