"""Calls the compiled training program of a run.

``gan_cli.engine.steps`` defines the program. This module decides how many steps each call of the program makes,
passes the data (arrays on the devices or streamed batches) to the program, and places the state on the devices.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.feed import Selection
from gan_cli.data.loader import Loader
from gan_cli.engine import randomness
from gan_cli.engine.devices import Devices
from gan_cli.engine.state import TrainSetup, TrainState, init_state
from gan_cli.engine.steps import Chunk, Options, compile_chunk
from gan_cli.types import Metrics, Tree

State = Any  # a TrainState in CompiledSteps, an EnsembleState in EnsembleSteps


class Length(NamedTuple):
    """Numerical settings of the training loop.

    Attributes:
        steps: number of steps of the whole run.
        per_call: number of steps in one call of the compiled program. A call makes fewer steps if the streamed
            batches of ``per_call`` steps would exceed the memory limit.
        batch_size: number of examples in a batch, over all devices.
        ema: decay of the exponential moving average of the parameters.
    """

    steps: int
    per_call: int
    batch_size: int
    ema: float


class CompiledSteps:
    """The compiled training program of a run. The first call of the program includes compilation.

    Args:
        setup: the game, strategy and optimisers.
        data: the training data, or None for a game without data.
        devices: the devices to compute on.
        length: numerical settings of the training loop.
        noise_key: the random key of private training, from which the batches and the random numbers of all steps
            derive. With None, they derive from the seed.

    Attributes:
        members: number of ensemble members. A single run has one member.
        stacked: whether all arrays have a leading axis of ensemble members.
        loader: the loader of streamed batches, or None if no data are streamed.
        steps_per_call: number of steps in one call of the compiled program, which is less than ``length.per_call``
            if the streamed batches would exceed the memory limit.
    """

    members = 1
    stacked = False

    def __init__(
        self,
        setup: TrainSetup,
        data: Dataset | None,
        devices: Devices,
        length: Length,
        noise_key: jax.Array | None = None,
    ):
        self._setup, self._data, self._devices, self._length = setup, data, devices, length
        self._noise_key = [] if noise_key is None else [devices.place_key(noise_key)]
        self._feed = data.feed if data is not None else None
        self._programs: dict[tuple[Any, ...], Chunk] = {}
        self.use({})
        self.loader: Loader | None = None
        self.steps_per_call = length.per_call
        self._arrays: Tree = None
        if data is not None and self._feed is not None and self._feed.streams:
            self._select = jax.jit(functools.partial(randomness.order, self._feed), static_argnums=(2, 3, 4))
            place = functools.partial(devices.place_rows, axis=2)
            self.loader = Loader(data, self._order, stack=self.stacked, place=place)
            self.steps_per_call = self.loader.longest(length.per_call)
        elif data is not None:
            self._arrays = devices.place(data.arrays)

    def _compile(self, options: Options | None = None) -> Chunk:
        return compile_chunk(self._setup, self._feed, self._length.batch_size, self._length.ema, options)

    def use(self, options: Options) -> None:
        """Compile the program of the following calls with options of XLA (see ``gan_cli.engine.tuning``)."""
        self._chunk = self._program(options)
        self._programs.clear()

    def _program(self, options: Options) -> Chunk:
        key = tuple(sorted(options.items()))
        if key not in self._programs:
            self._programs[key] = self._compile(options or None)
        return self._programs[key]

    @functools.cached_property
    def abstract(self) -> TrainState:
        """The shapes and dtypes of the state of one run."""
        state: TrainState = jax.eval_shape(functools.partial(init_state, self._setup))
        return state

    def init(self) -> State:
        """The state before the first step, on the devices."""
        return jax.jit(functools.partial(init_state, self._setup), out_shardings=self._devices.everywhere)()

    def assemble(self, states: Sequence[TrainState], alive: Sequence[bool]) -> State:
        """The state on the devices, assembled from the host states of the members.

        Args:
            states: the states of the members, all at the same step.
            alive: list of booleans, whether each member is still training (see ``EnsembleState``).
        """
        return self._devices.place(states[0])

    def member(self, state: State, i: int) -> TrainState:
        """The state of member ``i``, on one device."""
        alone: TrainState = self._devices.here(state)
        return alone

    def of_member(self, tree: Tree, i: int) -> Tree:
        """The metrics of member ``i``, selected from the metrics of all members."""
        return tree

    def next_length(self, step: int) -> int:
        """Number of steps in the call of the compiled program that starts at ``step``."""
        return min(self.steps_per_call - step % self.steps_per_call, self._length.steps - step)

    def run(self, state: State, step: int) -> tuple[State, Metrics, Metrics]:
        """Call the compiled program for the next steps, starting at ``step``.

        The returned ``(state, metrics, finite)`` is documented in ``compile_chunk``. The buffers of ``state`` are
        donated, so ``state`` must not be used after the call.
        """
        length = self.next_length(step)
        with self._devices.mesh():
            return self._chunk(state, self._fed(step, length), length, *self._noise_key)

    def trial(self, step: int, options: Options) -> Callable[[State], tuple[State, float]]:
        """A function that makes the next call, starting at ``step``, with a program compiled with options of XLA.

        The function returns the new state and the seconds that the call has taken. Its first call also compiles. As
        in ``run``, the buffers of its argument are donated.
        """
        length = self.next_length(step)
        chunk, fed = self._program(options), self._fed(step, length)

        def call(state: State) -> tuple[State, float]:
            began = time.perf_counter()
            with self._devices.mesh():
                state, _, _ = jax.block_until_ready(chunk(state, fed, length, *self._noise_key))
            return state, time.perf_counter() - began

        return call

    def lower(self, state: State, length: int) -> jax.stages.Lowered:
        """The program for ``length`` steps, lowered but not compiled, for inspection."""
        with self._devices.mesh():
            return self._chunk.lower(state, self._fed(0, length), length, *self._noise_key)

    def _fed(self, step: int, length: int) -> Tree:
        """The argument ``arrays`` of the compiled program: the data set, or the streamed batches."""
        if self.loader is None:
            return self._arrays
        return self.loader.get(step, length, self.next_length(step + length))

    def _seeds(self) -> Sequence[Any]:
        """List of the seeds of the members, or of the noise key."""
        return self._noise_key or [np.uint32(self._setup.seed)]

    def _order(self, step: int, length: int) -> list[Selection]:
        """List with an item per member: the examples that this process reads in ``length`` steps."""
        batches, size = self._setup.strategy.batches, self._length.batch_size
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            selected = [self._select(seed, np.int32(step), length, batches, size) for seed in self._seeds()]
        own = self._devices.own_rows
        mine: list[Selection] = jax.tree.map(lambda a: np.asarray(a)[..., own(a.shape[-1])], selected)
        return mine

    def close(self) -> None:
        """Stop the loader, if there is one."""
        if self.loader is not None:
            self.loader.close()
