"""Feeding a data set that stays on the host: its batches are read one call ahead of the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.types import Tree

# One call's batches may take this many bytes; two calls' worth are held, the one that is trained on and the next.
_BYTES = 64 * 2**20

Order = Callable[[int, int], Sequence[np.ndarray]]


class Loader:
    """What each call of the compiled program is fed.

    Which examples a step sees is a function of the seed and the step, so that streamed and resident data train the
    same bits, and a resumed run goes on where it was.

    Args:
        dataset: its examples are an array or a source.
        order: ``(step, length)`` -> for each member of an ensemble, or for the one run, the examples of these
            steps' batches, ``[length, batches, batch]``.
        stack: whether there is an axis of members.
        place: puts the batches of a call onto the devices.
    """

    def __init__(self, dataset: Dataset, order: Order, stack: bool, place: Callable[[Tree], Tree]):
        self._dataset, self._order, self._stack, self._place = dataset, order, stack, place
        self._readers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="reader")
        self._prefetcher = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._next: tuple[int, int, Future[Tree]] | None = None

    def longest(self, steps: int) -> int:
        """The longest call, a divisor of ``steps``, whose batches fit in the memory that is set aside for them."""
        size = sum(array.size for array in self._order(0, 1)) * self._dataset.spec.size
        return max(n for n in range(1, steps + 1) if steps % n == 0 and (n == 1 or n * size <= _BYTES))

    def get(self, step: int, length: int, following: int) -> Tree:
        """The batches of ``length`` steps from ``step`` on; the ``following`` ones are then read ahead."""
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
        members = [self._dataset.take(indices, self._readers) for indices in self._order(step, length)]
        together: Any = members[0] if not self._stack else jax.tree.map(lambda *leaves: np.stack(leaves), *members)
        return self._place(together)

    def close(self) -> None:
        self._prefetcher.shutdown(wait=True, cancel_futures=True)
        self._readers.shutdown(wait=True)
