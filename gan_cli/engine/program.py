"""What a run trains: one GAN, or an ensemble of them, as one compiled program.

The story of a run is the same for both; here is what differs: how the state starts, where a member's part of it
lies, and what one call of the program is fed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gan_cli.config.build import Experiment
from gan_cli.data.loader import Loader
from gan_cli.engine import randomness, steps
from gan_cli.engine.devices import Devices
from gan_cli.engine.ensemble import assemble, compile_ensemble, init_ensemble, member
from gan_cli.engine.state import TrainState, init_state
from gan_cli.types import Tree


class Program:
    """An experiment's compiled steps and what they are fed. Nothing is compiled before the first call."""

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        ensemble, data, options = experiment.ensemble, experiment.dataset, experiment.train
        self.members = ensemble.members if ensemble else (experiment,)
        self.devices = Devices(options.devices)
        feed = data.feed if data else None
        if ensemble:
            self._chunk = compile_ensemble(
                ensemble.make,
                ensemble.varied,
                feed,
                options.batch_size,
                options.ema,
                freeze=options.on_nan == "stop",
                vectorise=not self._convolves(),
            )
            self._pick = jax.jit(member)
        else:
            self._chunk = steps.compile_chunk(experiment.parts, feed, options.batch_size, options.ema)
        self.loader: Loader | None = None
        self.steps_per_call = options.steps_per_call
        if feed is not None and feed.streams:
            assert data is not None
            place = functools.partial(self.devices.place_rows, axis=2)
            self.loader = Loader(data, self._order, stack=ensemble is not None, place=place)
            self.steps_per_call = self.loader.longest(options.steps_per_call)
        self._arrays = self.devices.place(data.arrays) if data and self.loader is None else None

    @functools.cached_property
    def abstract(self) -> TrainState:
        """The shapes of one member's state."""
        return jax.eval_shape(functools.partial(init_state, self._experiment.parts))

    def _convolves(self) -> bool:
        """Whether a network has convolutions: those of many members together are grouped ones, which are slow."""
        return any(leaf.ndim > 2 for leaf in jax.tree.leaves(self.abstract.params))

    def init(self) -> Any:
        """The state before the first step."""
        ensemble = self._experiment.ensemble
        if ensemble is None:
            init = functools.partial(init_state, self._experiment.parts)
            return jax.jit(init, out_shardings=self.devices.everywhere)()
        return jax.jit(functools.partial(init_ensemble, ensemble.make, ensemble.varied))()

    def assemble(self, states: Sequence[TrainState], alive: Sequence[bool]) -> Any:
        """The state whose members are in these states of one step."""
        return self.devices.place(states[0] if self._experiment.ensemble is None else assemble(states, alive))

    def member(self, state: Any, i: int) -> TrainState:
        """The part of the state that belongs to member ``i``, on one device."""
        return self.devices.here(state) if self._experiment.ensemble is None else self._pick(state, i)

    def of_member(self, tree: Tree, i: int) -> Tree:
        """The part of a call's metrics that belongs to member ``i``."""
        return tree if self._experiment.ensemble is None else jax.tree.map(lambda leaf: leaf[i], tree)

    def call(self, step: int) -> int:
        """How many steps the call that starts at ``step`` makes."""
        options = self._experiment.train
        return min(self.steps_per_call - step % self.steps_per_call, options.steps - step)

    def run(self, state: Any, step: int) -> tuple[Any, Tree, Tree]:
        """One call from ``step`` on; the state is donated."""
        length = self.call(step)
        with self.devices.mesh():
            return self._chunk(state, self._given(step, length), length)

    def lower(self, state: Any, length: int) -> Any:
        """The program that makes ``length`` steps, before it is compiled: to look at what it does."""
        with self.devices.mesh():
            return self._chunk.lower(state, self._given(0, length), length)

    def _given(self, step: int, length: int) -> Tree:
        if self.loader is None:
            return self._arrays
        return self.loader.get(step, length, self.call(step + length))

    def _order(self, step: int, length: int) -> list[np.ndarray]:
        data, options = self._experiment.dataset, self._experiment.train
        assert data is not None
        batches = self._experiment.strategy.batches
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            orders = [
                _order(data.feed, np.uint32(member.seed), np.int32(step), length, batches, options.batch_size)
                for member in self.members
            ]
        own = self.devices.own_rows(options.batch_size)
        return [np.asarray(order)[..., own] for order in orders]

    def close(self) -> None:
        if self.loader is not None:
            self.loader.close()


_order = jax.jit(randomness.order, static_argnums=(0, 3, 4, 5))
