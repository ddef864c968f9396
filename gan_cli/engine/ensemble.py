"""Ensembles: several runs that differ only in numerical options, trained by one compiled program."""

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
        state: the states of all members. Each array except the step count has a leading axis of members. The step
            count is a scalar, so that a ``lax.cond`` on the step count stays a branch under ``vmap``.
        alive: booleans ``[members]``. With ``freeze`` (see ``compile_ensemble``), the entry of a member becomes
            False at the member's first loss or gradient that is not finite.
    """

    state: TrainState
    alive: jax.Array | np.ndarray


def compile_ensemble(
    make: Callable[[dict[str, Any]], TrainSetup],
    varied: dict[str, Any],
    feed: Feed | None,
    batch_size: int,
    ema: float,
    freeze: bool,
    vectorise: bool,
) -> Chunk:
    """The program that advances each member of an ensemble by ``length`` steps in one call.

    Args:
        make: function that builds the setup of a member. The argument is a mapping from the key of each varied
            option to the member's value, which may be a tracer.
        varied: mapping from the key of each varied option to an array ``[members]`` of the values.
        feed: selects the batches. None for a game without data.
        batch_size: number of examples in a batch.
        ema: decay of the moving average.
        freeze: whether a member stops changing at its first loss or gradient that is not finite.
        vectorise: whether each step is computed for all members at once (``vmap``). If false, all steps of a member
            are computed before the steps of the next member. ``vmap`` is faster if the time to launch an operation
            exceeds the time to compute it.

    Returns:
        ``chunk(state, arrays, length) -> (state, metrics, finite)``, as documented in ``compile_chunk``. The state
        is an ``EnsembleState``. All returned arrays except the step count have a leading axis of members. The
        streamed batches also have this axis.
    """

    streams = feed is not None and feed.streams

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(ensemble: EnsembleState, arrays: Tree, length: int) -> tuple[EnsembleState, Metrics, Metrics]:
        def member(
            values: dict[str, Any], state: TrainState, alive: jax.Array | np.ndarray, streamed: Tree
        ) -> tuple[TrainState, jax.Array | np.ndarray, Metrics, Metrics]:
            advance = scan_steps(make(values), feed, batch_size, ema, freeze)
            state = state._replace(step=ensemble.state.step)
            state, alive, metrics, finite = advance(state, alive, streamed if streams else arrays, length)
            return state._replace(step=None), alive, metrics, finite

        arguments = (varied, ensemble.state._replace(step=None), ensemble.alive, arrays if streams else None)
        if vectorise:
            state, alive, metrics, finite = jax.vmap(member)(*arguments)
        else:
            state, alive, metrics, finite = jax.lax.map(lambda a: member(*a), arguments)
        return EnsembleState(state._replace(step=ensemble.state.step + length), alive), metrics, finite

    return chunk


def init_ensemble(make: Callable[[dict[str, Any]], TrainSetup], varied: dict[str, Any]) -> EnsembleState:
    """The state of all members before the first step.

    Call this function under ``jax.jit`` or ``jax.eval_shape``.

    Args:
        make: function that builds the setup of a member, as documented in ``compile_ensemble``.
        varied: mapping from the key of each varied option to an array ``[members]`` of the values.
    """
    state = jax.lax.map(lambda values: init_state(make(values))._replace(step=None), varied)
    members = len(next(iter(varied.values())))
    return EnsembleState(state._replace(step=jnp.zeros((), jnp.int32)), jnp.ones(members, bool))


def member(ensemble: EnsembleState, i: int | jax.Array) -> TrainState:
    """The state of member ``i``, with the structure of the state of a single run."""
    alone: TrainState = jax.tree.map(lambda leaf: leaf[i], ensemble.state._replace(step=None))
    return alone._replace(step=ensemble.state.step)


def assemble(states: Sequence[TrainState], alive: Sequence[bool]) -> EnsembleState:
    """The state of an ensemble, assembled from the host states of its members at the same step."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(state._replace(step=None) for state in states))
    return EnsembleState(stacked._replace(step=states[0].step), np.array(alive))


class EnsembleSteps(CompiledSteps):
    """The compiled training program of all members of an ensemble, on one device.

    Args:
        setup: setup of one member. The states of all members have equal shapes.
        data: the training data, or None for a game without data.
        devices: the device to compute on.
        length: numerical settings of the training loop.
        make: function that builds the setup of a member. The argument is a mapping from the key of each varied
            option to the member's value, which may be a tracer.
        varied: mapping from the key of each varied option to an array ``[members]`` of the values.
        seeds: seeds of the members.
        freeze: whether a member stops changing at its first loss or gradient that is not finite.
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
        feed, size, ema = self._feed, self._length.batch_size, self._length.ema
        # Under vmap, the convolutions of the members become a grouped convolution, which is slow.
        convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(self.abstract.params))
        return compile_ensemble(self._make, self._varied, feed, size, ema, self._freeze, vectorise=not convolves)

    def init(self) -> EnsembleState:
        state: EnsembleState = jax.jit(functools.partial(init_ensemble, self._make, self._varied))()
        return state

    def assemble(self, states: Sequence[TrainState], alive: Sequence[bool]) -> EnsembleState:
        placed: EnsembleState = self._devices.place(assemble(states, alive))
        return placed

    def member(self, state: EnsembleState, i: int) -> TrainState:
        alone: TrainState = self._pick(state, i)
        return alone

    def of_member(self, tree: Tree, i: int) -> Tree:
        return jax.tree.map(lambda leaf: leaf[i], tree)

    def _seeds(self) -> Sequence[Any]:
        return [np.uint32(seed) for seed in self._all_seeds]
