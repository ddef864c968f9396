"""Several runs that differ in a few numbers, as one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.feed import Feed
from gan_cli.engine.state import TrainSetup, TrainState, init_state
from gan_cli.engine.steps import Chunk, scan_steps
from gan_cli.types import Metrics, Tree


class Many(NamedTuple):
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
        As ``compile_chunk``, with a ``Many`` for the state and a leading axis of members in all that is returned
        (and in ``arrays`` where the feed streams).
    """

    streams = feed is not None and feed.streams

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(many: Many, arrays: Tree, length: int) -> tuple[Many, Metrics, Metrics]:
        def member(values: Any, state: TrainState, alive: Any, own: Tree) -> Any:
            advance = scan_steps(make(values), feed, batch_size, ema, freeze)
            state = state._replace(step=many.state.step)
            state, alive, metrics, finite = advance(state, alive, own if streams else arrays, length)
            return state._replace(step=None), alive, metrics, finite

        arguments = (varied, many.state._replace(step=None), many.alive, arrays if streams else None)
        if vectorise:
            state, alive, metrics, finite = jax.vmap(member)(*arguments)
        else:
            state, alive, metrics, finite = jax.lax.map(lambda a: member(*a), arguments)
        return Many(state._replace(step=many.state.step + length), alive), metrics, finite

    return chunk


def init_ensemble(make: Callable[[dict[str, Any]], TrainSetup], varied: dict[str, Any]) -> Many:
    """The state of all members before the first step. Run it under ``jax.jit`` or ``jax.eval_shape``."""
    state = jax.lax.map(lambda values: init_state(make(values))._replace(step=None), varied)
    members = len(next(iter(varied.values())))
    return Many(state._replace(step=jnp.zeros((), jnp.int32)), jnp.ones(members, bool))


def member(many: Many, i: int | jax.Array) -> TrainState:
    """The state of the ``i``-th member, as that of a run of its own."""
    own = jax.tree.map(lambda leaf: leaf[i], many.state._replace(step=None))
    return own._replace(step=many.state.step)


def assemble(states: Sequence[TrainState], alive: Sequence[bool]) -> Many:
    """The ensemble whose members have these states, which are all of one step."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(state._replace(step=None) for state in states))
    return Many(stacked._replace(step=states[0].step), np.array(alive))
