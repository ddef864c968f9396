"""What every data set becomes: examples on the host, with the Spec that says what one example is."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from gan_cli.data.feed import Feed
from gan_cli.data.scaling import normalise
from gan_cli.types import Spec, Tree

BATCH = 500  # examples that are read, generated or evaluated at a time


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

    def spread(self, n: int) -> np.ndarray:
        """``n`` examples from all over the data set, as the networks see them; all of a smaller one."""
        chosen = np.linspace(0, self.size - 1, min(n, self.size)).astype(int)
        return np.asarray(normalise(self.take(chosen)["examples"]))

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
