"""Ensembles: several runs that differ in a few numbers, as one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.feed import Feed
from gan_cli.engine.compiled_steps import CompiledSteps, Length
from gan_cli.engine.devices import Devices
from gan_cli.engine.state import TrainSetup, TrainState, init_state
from gan_cli.engine.steps import Chunk, scan_steps
from gan_cli.types import Metrics, Tree


class EnsembleState(NamedTuple):
    """The state of an ensemble.

    Attributes:
        state: that of all members, each array with a leading axis of members but for the step count: an unbatched
            count keeps a ``lax.cond`` on it a branch under ``vmap``.
        alive: ``[members]``, False from a member's first step with a loss or gradient that was not finite.
    """

    state: TrainState
    alive: Any


def compile_ensemble(
    make: Callable[[dict[str, Any]], TrainSetup],
    varied: dict[str, Any],
    feed: Feed | None,
    batch_size: int,
    ema: float,
    freeze: bool,
    vectorise: bool,
) -> Chunk:
    """The program that makes ``length`` steps of each member of an ensemble in one call.

    Args:
        make: the parts of a member, from its values.
        varied: arrays ``[members]`` by key: the members' values.
        freeze: whether a member stays as it is from its first loss or gradient on that is not finite.
        vectorise: whether all members make a step together, as one operation each, or one member all of its
            steps after the other. The first pays where launching an operation costs more than computing it.

    Returns:
        As ``compile_chunk``, with an ``EnsembleState`` for the state and a leading axis of members in all that is
        returned (and in ``arrays`` where the feed streams).
    """

    streams = feed is not None and feed.streams

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(ensemble: EnsembleState, arrays: Tree, length: int) -> tuple[EnsembleState, Metrics, Metrics]:
        def member(values: Any, state: TrainState, alive: Any, own: Tree) -> Any:
            advance = scan_steps(make(values), feed, batch_size, ema, freeze)
            state = state._replace(step=ensemble.state.step)
            state, alive, metrics, finite = advance(state, alive, own if streams else arrays, length)
            return state._replace(step=None), alive, metrics, finite

        arguments = (varied, ensemble.state._replace(step=None), ensemble.alive, arrays if streams else None)
        if vectorise:
            state, alive, metrics, finite = jax.vmap(member)(*arguments)
        else:
            state, alive, metrics, finite = jax.lax.map(lambda a: member(*a), arguments)
        return EnsembleState(state._replace(step=ensemble.state.step + length), alive), metrics, finite

    return chunk


def init_ensemble(make: Callable[[dict[str, Any]], TrainSetup], varied: dict[str, Any]) -> EnsembleState:
    """The state of all members before the first step. Run it under ``jax.jit`` or ``jax.eval_shape``."""
    state = jax.lax.map(lambda values: init_state(make(values))._replace(step=None), varied)
    members = len(next(iter(varied.values())))
    return EnsembleState(state._replace(step=jnp.zeros((), jnp.int32)), jnp.ones(members, bool))


def member(ensemble: EnsembleState, i: int | jax.Array) -> TrainState:
    """The state of the ``i``-th member, as that of a run of its own."""
    own = jax.tree.map(lambda leaf: leaf[i], ensemble.state._replace(step=None))
    return own._replace(step=ensemble.state.step)


def assemble(states: Sequence[TrainState], alive: Sequence[bool]) -> EnsembleState:
    """The ensemble whose members have these states, which are all of one step."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(state._replace(step=None) for state in states))
    return EnsembleState(stacked._replace(step=states[0].step), np.array(alive))


class EnsembleSteps(CompiledSteps):
    """The steps of all members of an ensemble, on one device.

    Args:
        setup: of any member; its shapes are those of all.
        make: the setup of a member, from its values.
        varied: arrays ``[members]`` by key: the members' values.
        seeds: of the members.
        freeze: whether a member stays as it is from its first loss or gradient on that is not finite.
    """

    stacked = True

    def __init__(
        self,
        setup: TrainSetup,
        data: Dataset | None,
        devices: Devices,
        length: Length,
        *,
        make: Callable[[dict[str, Any]], TrainSetup],
        varied: dict[str, Any],
        seeds: Sequence[int],
        freeze: bool,
    ):
        self.members = len(seeds)
        self._make, self._varied, self._all_seeds, self._freeze = make, varied, seeds, freeze
        self._pick = jax.jit(member)
        super().__init__(setup, data, devices, length)

    def _compile(self) -> Chunk:
        feed, size, ema = self._data.feed if self._data else None, self._length.batch_size, self._length.ema
        # The convolutions of many members together are grouped ones, which are slow.
        convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(self.abstract.params))
        return compile_ensemble(self._make, self._varied, feed, size, ema, self._freeze, vectorise=not convolves)

    def init(self) -> EnsembleState:
        return jax.jit(functools.partial(init_ensemble, self._make, self._varied))()

    def assemble(self, states: Sequence[TrainState], alive: Sequence[bool]) -> EnsembleState:
        return self._devices.place(assemble(states, alive))

    def member(self, state: EnsembleState, i: int) -> TrainState:
        return self._pick(state, i)

    def of_member(self, tree: Tree, i: int) -> Tree:
        return jax.tree.map(lambda leaf: leaf[i], tree)

    def _seeds(self) -> Sequence[int]:
        return self._all_seeds
