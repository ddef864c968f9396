"""The engine: the training state, and the compiled program that advances it many steps at a time.

Every random number and every batch is a function of (seed, step): a run that is cut anywhere, into chunks of
any length, computes the same bits. The engine sees games and strategies, and no file.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gan_cli import devices
from gan_cli.data.source import Dataset, Feed
from gan_cli.types import ByPlayer, Game, Metrics, Strategy, Tree


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        step: number of steps made, an int32 scalar (None where it stands apart, see ``Many``).
        params: parameters by player.
        net_state: batch statistics and spectral vectors by player.
        opt_state: optimiser state by player.
        strategy: what the strategy must remember.
        average: exponential moving average of the parameters, for the players that the game averages.
        average_state: the same of their network state: the statistics of other weights would not fit averaged ones.
    """

    step: Any
    params: ByPlayer
    net_state: ByPlayer
    opt_state: ByPlayer
    strategy: Tree
    average: ByPlayer
    average_state: ByPlayer


class Parts(NamedTuple):
    """What a program is made of. The seed may be traced."""

    game: Game
    strategy: Strategy
    optimisers: dict[str, optax.GradientTransformation]
    seed: Any


class Many(NamedTuple):
    """The state of an ensemble.

    Attributes:
        state: that of all members, each array with a leading axis of members but for the step count: an unbatched
            count keeps a ``lax.cond`` on it a branch under ``vmap``.
        alive: ``[members]``, False from a member's first step with a loss or gradient that was not finite.
    """

    state: TrainState
    alive: Any


def init(parts: Parts) -> TrainState:
    """The state before the first step, a function of the seed. Run it under ``jax.jit`` or ``jax.eval_shape``."""
    game, strategy, optimisers, seed = parts
    params, net_state = game.init(_stream(seed, "init"))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        net_state=net_state,
        opt_state={player: optimisers[player].init(params[player]) for player in game.players},
        strategy=strategy.init(params),
        # A copy: a donated state must not hold one buffer twice.
        average={player: jax.tree.map(jnp.copy, params[player]) for player in game.averaged},
        average_state={player: jax.tree.map(jnp.copy, net_state[player]) for player in game.averaged},
    )


Chunk = Any  # a jitted (state, arrays, length) -> (state, metrics, finite)


def compile_chunk(parts: Parts, feed: Feed | None, batch_size: int, ema: float) -> Chunk:
    """The program that makes ``length`` steps in one call.

    Returns:
        ``chunk(state, arrays, length) -> (state, metrics, finite)``. ``state`` is donated. ``arrays`` are what
        ``feed`` draws batches from. ``metrics`` holds arrays ``[length]``, a value for each step; ``finite`` says
        of each player whether all its parameters are finite at the end.
    """
    advance = _advance(parts, feed, batch_size, ema, freeze=False)

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(state: TrainState, arrays: Tree, length: int) -> tuple[TrainState, Metrics, Metrics]:
        state, _, metrics, finite = advance(state, True, arrays, length)
        return state, metrics, finite

    return chunk


def compile_ensemble(
    make: Callable[[dict[str, Any]], Parts],
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
            advance = _advance(make(values), feed, batch_size, ema, freeze)
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


def init_ensemble(make: Callable[[dict[str, Any]], Parts], varied: dict[str, Any]) -> Many:
    """The state of all members before the first step. Run it under ``jax.jit`` or ``jax.eval_shape``."""
    state = jax.lax.map(lambda values: init(make(values))._replace(step=None), varied)
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


def _advance(parts: Parts, feed: Feed | None, batch_size: int, ema: float, freeze: bool) -> Any:
    """The scan over steps; with ``freeze``, a state that is no longer ``alive`` does not change."""
    game, strategy, _, seed = parts

    def advance(state: TrainState, alive: Any, arrays: Tree, length: int) -> Any:
        def body(carry: tuple[TrainState, Any], given: Any) -> tuple[tuple[TrainState, Any], Metrics]:
            (before, alive), (drawn, last) = carry, given
            key = step_key(seed, before.step)
            batches: list[Any] = [None] * strategy.batches
            if feed is not None:
                keys = _batch_keys(seed, before.step, strategy.batches)
                rows = [jax.tree.map(lambda leaf, i=i: leaf[i], drawn) for i in range(strategy.batches)]
                batches = [devices.split(feed.batch(arrays, row, keys[i])) for i, row in enumerate(rows)]
            state, metrics = strategy.step(before, batches, key)
            if hasattr(game, "measure"):
                metrics |= game.measure(state.params)
            metrics |= jax.lax.cond(last, _update_ratios, _no_ratios, before.params, state.params)
            state = state._replace(
                average={p: _mean(ema, mean, _sampled(parts, state, p)) for p, mean in before.average.items()},
                average_state={p: _mean(ema, m, state.net_state[p]) for p, m in before.average_state.items()},
            )
            if freeze:
                watched = [metrics[f"{player}/{what}"] for player in game.players for what in ("loss", "grad_norm")]
                alive &= jnp.all(jnp.isfinite(jnp.stack(watched)))
                state = jax.tree.map(lambda new, old: jnp.where(alive, new, old), state, before)
            return (devices.same(state._replace(step=before.step + 1)), alive), devices.same(metrics)

        drawn = None
        if feed is not None:
            drawn = feed.draw(
                arrays, _stream(seed, "order"), _numbers(state.step, length, strategy.batches), batch_size
            )
            drawn = devices.split(drawn, axis=2)
        given = drawn, jnp.arange(length) == length - 1
        (state, alive), metrics = jax.lax.scan(body, (state, alive), given, length=length)
        finite = {player: _all_finite(state.params[player]) for player in game.players}
        return state, alive, metrics, devices.same(finite)

    return advance


def _mean(ema: float, mean: Tree, new: Tree) -> Tree:
    return jax.tree.map(lambda m, n: ema * m + (1 - ema) * n, mean, new)


def _update_ratios(before: ByPlayer, after: ByPlayer) -> Metrics:
    """How large a player's change is beside what was changed: of the last step of a call only, since it costs."""
    change = jax.tree.map(lambda a, b: a - b, after, before)
    return {
        f"{player}/update_ratio": optax.global_norm(change[player]) / (optax.global_norm(own) + 1e-12)
        for player, own in before.items()
    }


def _no_ratios(before: ByPlayer, after: ByPlayer) -> Metrics:
    return {f"{player}/update_ratio": jnp.zeros(()) for player in before}


def _sampled(parts: Parts, state: TrainState, player: str) -> Tree:
    """The parameters to sample a player with: its own, unless its optimiser says otherwise."""
    optimiser, params = parts.optimisers[player], state.params[player]
    if not hasattr(optimiser, "evaluate"):
        return params
    return optimiser.evaluate(state.opt_state[player], params)


def order(feed: Feed, seed: int, step: int, length: int, batches: int, batch_size: int) -> jax.Array:
    """Which examples these steps see, ``[length, batches, batch_size]``: what the program itself would draw."""
    return feed.indices(_stream(seed, "order"), _numbers(jnp.int32(step), length, batches), batch_size)


def first_examples(data: Dataset, seed: int, batch_size: int, n: int) -> jax.Array:
    """The first ``n`` examples that a run of one batch a step would see (fewer where the data set is smaller)."""
    number = min(-(-n // batch_size), max(data.size // batch_size, 1))
    indices = np.asarray(order(data.feed, seed, 0, number, 1, batch_size))[:, 0]
    keys = [_batch_keys(seed, i, 1)[0] for i in range(number)]
    streamed = dataclasses.replace(data.feed, streams=True)
    batches = [streamed.batch(None, data.take(row), key) for row, key in zip(indices, keys, strict=True)]
    return jnp.concatenate([batch.examples for batch in batches])[:n]


def _numbers(step: jax.Array, length: int, batches: int) -> jax.Array:
    """The batches' numbers, ``[length, batches]``."""
    return (step + jnp.arange(length))[:, None] * batches + jnp.arange(batches)


def step_key(seed: Any, step: jax.Array) -> jax.Array:
    """The key that a step hands to its strategy."""
    return jax.random.fold_in(_stream(seed, "step"), step)


def _batch_keys(seed: int, step: jax.Array | int, batches: int) -> jax.Array:
    return jax.random.split(jax.random.fold_in(_stream(seed, "batch"), step), batches)


def _stream(seed: int, purpose: str) -> jax.Array:
    """The root key of one use of random numbers: two uses never share a key."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "batch", "step").index(purpose))


def _all_finite(tree: Tree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
