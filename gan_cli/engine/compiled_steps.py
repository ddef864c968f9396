"""The compiled steps of a run, with the data that they are fed and the devices that they run on.

``gan_cli.engine.steps`` defines what is compiled. This module calls it: it knows how many steps a call makes,
whether the data are on the devices or streamed to them, and how a state is placed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.loader import Loader
from gan_cli.engine import randomness
from gan_cli.engine.devices import Devices
from gan_cli.engine.state import TrainSetup, TrainState, init_state
from gan_cli.engine.steps import Chunk, compile_chunk
from gan_cli.types import Tree


class Length(NamedTuple):
    """How many steps a run makes, and how many examples each sees.

    Attributes:
        steps: of the whole run.
        per_call: steps that one call of the compiled program makes, where streamed batches fit in memory.
        batch_size: examples in a batch, over all devices.
        ema: decay of the moving average.
    """

    steps: int
    per_call: int
    batch_size: int
    ema: float


class CompiledSteps:
    """The steps of one run. Nothing is compiled before the first call.

    Attributes:
        members: how many runs make the steps together: one, or those of an ensemble.
    """

    members = 1
    stacked = False  # whether arrays have a leading axis of members

    def __init__(self, setup: TrainSetup, data: Dataset | None, devices: Devices, length: Length):
        self._setup, self._data, self._devices, self._length = setup, data, devices, length
        self._chunk = self._compile()
        self.loader: Loader | None = None
        self.steps_per_call = length.per_call
        self._arrays: Tree = None
        if data is not None and data.feed.streams:
            place = functools.partial(devices.place_rows, axis=2)
            self.loader = Loader(data, self._order, stack=self.stacked, place=place)
            self.steps_per_call = self.loader.longest(length.per_call)
        elif data is not None:
            self._arrays = devices.place(data.arrays)

    def _compile(self) -> Chunk:
        feed = self._data.feed if self._data else None
        return compile_chunk(self._setup, feed, self._length.batch_size, self._length.ema)

    @functools.cached_property
    def abstract(self) -> TrainState:
        """The shapes and dtypes of one run's state."""
        return jax.eval_shape(functools.partial(init_state, self._setup))

    def init(self) -> Any:
        """The state before the first step."""
        return jax.jit(functools.partial(init_state, self._setup), out_shardings=self._devices.everywhere)()

    def assemble(self, states: Sequence[TrainState], alive: Sequence[bool]) -> Any:
        """The state that a call takes, from each member's state at one step and whether it still trains."""
        return self._devices.place(states[0])

    def member(self, state: Any, i: int) -> TrainState:
        """The state of member ``i``, on one device."""
        return self._devices.here(state)

    def of_member(self, tree: Tree, i: int) -> Tree:
        """The metrics of member ``i``, from those that a call returns."""
        return tree

    def next_length(self, step: int) -> int:
        """How many steps the call that starts at ``step`` makes."""
        return min(self.steps_per_call - step % self.steps_per_call, self._length.steps - step)

    def run(self, state: Any, step: int) -> tuple[Any, Tree, Tree]:
        """One call from ``step`` on, which donates ``state``: as ``compile_chunk`` returns it."""
        length = self.next_length(step)
        with self._devices.mesh():
            return self._chunk(state, self._fed(step, length), length)

    def lower(self, state: Any, length: int) -> Any:
        """The program that makes ``length`` steps, lowered and not compiled: for inspection."""
        with self._devices.mesh():
            return self._chunk.lower(state, self._fed(0, length), length)

    def _fed(self, step: int, length: int) -> Tree:
        if self.loader is None:
            return self._arrays
        return self.loader.get(step, length, self.next_length(step + length))

    def _seeds(self) -> Sequence[int]:
        return [self._setup.seed]

    def _order(self, step: int, length: int) -> list[np.ndarray]:
        """The examples of these steps that this process reads, for each member."""
        assert self._data is not None
        batches, size = self._setup.strategy.batches, self._length.batch_size
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            orders = [
                _order(self._data.feed, np.uint32(seed), np.int32(step), length, batches, size)
                for seed in self._seeds()
            ]
        own = self._devices.own_rows(size)
        return [np.asarray(order)[..., own] for order in orders]

    def close(self) -> None:
        if self.loader is not None:
            self.loader.close()


_order = jax.jit(randomness.order, static_argnums=(0, 3, 4, 5))
