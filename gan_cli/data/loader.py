"""Streams a data set from the host, and reads the batches one call of the compiled program ahead."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.feed import Selection
from gan_cli.types import Tree

# Maximum size in bytes of the batches of one call of the compiled program. The batches of two calls, the current
# and the next, are in memory at a time.
_BYTES = 64 * 2**20

Order = Callable[[int, int], Sequence[Selection]]


class Loader:
    """Reads the batches of the next call of the compiled program while the devices compute the current call.

    The examples of a step are a function of the seed and the step. Training on streamed data is therefore
    bit-identical to training on data in memory, and a resumed run sees the same batches as an uninterrupted run.

    Args:
        dataset: the data set to read from.
        order: function ``(step, length)`` that selects the examples of ``length`` steps, starting with ``step``.
            The result is a list with a ``Selection`` of arrays ``[length, batches, rows]`` for each member of an
            ensemble, or with one for a single run.
        stack: whether the batches have a leading axis of ensemble members.
        place: function that copies the batches of a call to the devices.
    """

    def __init__(self, dataset: Dataset, order: Order, stack: bool, place: Callable[[Tree], Tree]):
        self._dataset, self._order, self._stack, self._place = dataset, order, stack, place
        self._readers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="reader")
        self._prefetcher = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._next: tuple[int, int, Future[Tree]] | None = None

    def longest(self, steps: int) -> int:
        """The largest divisor n of ``steps`` for which the batches of n steps fit into the memory limit.

        The result is 1 if the batches of a single step exceed the limit.
        """
        examples = sum(array.size for selected in self._order(0, 1) for array in selected.indices.values())
        size = examples * self._dataset.bytes_per_example
        return max(n for n in range(1, steps + 1) if steps % n == 0 and (n == 1 or n * size <= _BYTES))

    def get(self, step: int, length: int, following: int) -> Tree:
        """The batches of one call of the compiled program, copied to the devices.

        Args:
            step: the first step of the call.
            length: number of steps of the call.
            following: number of steps of the next call. The batches of the next call are read in the background.
                With 0, there is no next call.
        """
        if self._next is None or self._next[:2] != (step, length):
            self._start(step, length)
        assert self._next is not None
        batches = self._next[2].result()
        self._next = None
        if following:
            self._start(step + length, following)
        return batches

    def _start(self, step: int, length: int) -> None:
        self._next = (step, length, self._prefetcher.submit(self._read, step, length))

    def _read(self, step: int, length: int) -> Tree:
        members = [
            self._dataset.take(indices, self._readers) | ({} if mask is None else {"mask": mask})
            for indices, mask in self._order(step, length)
        ]
        together: Any = members[0] if not self._stack else jax.tree.map(lambda *leaves: np.stack(leaves), *members)
        return self._place(together)

    def close(self) -> None:
        """Stop reading ahead, and wait for the threads to end."""
        self._prefetcher.shutdown(wait=True, cancel_futures=True)
        self._readers.shutdown(wait=True)
