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
from gan_cli.engine.devices import MemberDevices
from gan_cli.engine.state import TrainSetup, TrainState, init_state
from gan_cli.engine.steps import Chunk, Options, scan_steps
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
    devices: MemberDevices,
    options: Options | None = None,
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
        devices: the devices that share the members.
        options: options of the compiler by name. None for the default options.

    Returns:
        ``chunk(state, arrays, length) -> (state, metrics, finite)``, as documented in ``compile_chunk``. The state
        is an ``EnsembleState``. All returned arrays except the step count have a leading axis of members. The
        streamed batches also have this axis.
    """

    streams = feed is not None and feed.streams

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0, compiler_options=options)
    def chunk(ensemble: EnsembleState, arrays: Tree, length: int) -> tuple[EnsembleState, Metrics, Metrics]:
        def advance_one(own: Tree, step: jax.Array, data: Tree) -> Any:
            values, state, alive, streamed = own
            advance = scan_steps(make(values), feed, batch_size, ema, freeze)
            fed = streamed if streams else data
            state, alive, metrics, finite = advance(state._replace(step=step), alive, fed, length)
            return state._replace(step=None), alive, metrics, finite

        def advance_some(own: Tree, step: jax.Array, data: Tree) -> Any:
            if vectorise:
                return jax.vmap(advance_one, in_axes=(0, None, None))(own, step, data)
            return jax.lax.map(lambda one: advance_one(one, step, data), own)

        step, states = ensemble.state.step, ensemble.state._replace(step=None)
        streamed, data = (arrays, None) if streams else (None, arrays)
        compute = devices.on_each(advance_some, shared=(False, True, True))
        states, alive, metrics, finite = compute((varied, states, ensemble.alive, streamed), step, data)
        return EnsembleState(states._replace(step=step + length), alive), metrics, finite

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


def assemble(states: Sequence[TrainState], alive: Sequence[bool]) -> EnsembleState:
    """The state of an ensemble, assembled from the host states of its members at the same step."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(state._replace(step=None) for state in states))
    return EnsembleState(stacked._replace(step=states[0].step), np.array(alive))


class EnsembleSteps(CompiledSteps):
    """The compiled training program of all members of an ensemble.

    The devices compute equal numbers of members. If the members do not fill the last device, copies of the last
    member do, and their results are ignored.

    Args:
        setup: setup of one member. The states of all members have equal shapes.
        data: the training data, or None for a game without data.
        length: numerical settings of the training loop.
        make: function that builds the setup of a member. The argument is a mapping from the key of each varied
            option to the member's value, which may be a tracer.
        varied: mapping from the key of each varied option to an array ``[members]`` of the values.
        seeds: seeds of the members.
        freeze: whether a member stops changing at its first loss or gradient that is not finite.
    """

    stacked = True
    _devices: MemberDevices

    def __init__(
        self,
        setup: TrainSetup,
        data: Dataset | None,
        length: Length,
        *,
        make: Callable[[dict[str, Any]], TrainSetup],
        varied: dict[str, Any],
        seeds: Sequence[int],
        freeze: bool,
    ):
        self.members = len(seeds)
        self._make, self._freeze = make, freeze
        devices = MemberDevices(self.members)
        filled = np.minimum(np.arange(devices.rows), self.members - 1)
        self._varied = {key: values[filled] for key, values in varied.items()}
        self._all_seeds = [seeds[i] for i in filled]
        super().__init__(setup, data, devices, length)

    def _compile(self, options: Options | None = None) -> Chunk:
        feed, size, ema = self._feed, self._length.batch_size, self._length.ema
        # Under vmap, the convolutions of the members become a grouped convolution, which is slow. Devices that are
        # single cores of a CPU compute one member after another faster than several at once.
        convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(self.abstract.params))
        vectorise = not convolves and len(self._devices) == 1
        return compile_ensemble(
            self._make, self._varied, feed, size, ema, self._freeze, vectorise, self._devices, options
        )

    def init(self) -> EnsembleState:
        return self._placed(jax.jit(functools.partial(init_ensemble, self._make, self._varied))())

    def assemble(self, states: Sequence[TrainState], alive: Sequence[bool]) -> EnsembleState:
        copies = self._devices.rows - self.members
        return self._placed(assemble([*states, *[states[-1]] * copies], [*alive, *[alive[-1]] * copies]))

    def _placed(self, ensemble: EnsembleState) -> EnsembleState:
        rows = ensemble.state._replace(step=None), ensemble.alive
        state, alive = jax.device_put(rows, self._devices.by_member)
        return EnsembleState(state._replace(step=self._devices.place(np.asarray(ensemble.state.step))), alive)

    def member(self, state: EnsembleState, i: int) -> TrainState:
        alone: TrainState = self._devices.row(state.state._replace(step=None), i)
        return alone._replace(step=self._devices.here(state.state.step))

    def of_member(self, tree: Tree, i: int) -> Tree:
        return jax.tree.map(lambda leaf: leaf[i], tree)

    def _seeds(self) -> Sequence[Any]:
        return [np.uint32(seed) for seed in self._all_seeds]
