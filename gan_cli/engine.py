"""The engine: the training state, and the compiled program that advances it many steps at a time.

Every random number and every batch is a function of (seed, step): a run that is cut anywhere, into chunks of
any length, computes the same bits. The engine sees games and strategies, and no file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gan_cli.data.source import Resident
from gan_cli.types import ByPlayer, Game, Metrics, Strategy, Tree


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        step: number of steps made, an int32 scalar.
        params: parameters by player.
        net_state: batch statistics and spectral vectors by player.
        opt_state: optimiser state by player.
        strategy: what the strategy must remember.
        average: exponential moving average of the parameters, for the players that the game averages.
    """

    step: jax.Array
    params: ByPlayer
    net_state: ByPlayer
    opt_state: ByPlayer
    strategy: Tree
    average: ByPlayer


def init(
    game: Game, strategy: Strategy, optimisers: dict[str, optax.GradientTransformation], seed: int
) -> TrainState:
    """The state before the first step, a function of the seed. Run it under ``jax.jit`` or ``jax.eval_shape``."""
    params, net_state = game.init(_stream(seed, "init"))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        net_state=net_state,
        opt_state={player: optimisers[player].init(params[player]) for player in game.players},
        strategy=strategy.init(params),
        # A copy: a donated state must not hold one buffer twice.
        average={player: jax.tree.map(jnp.copy, params[player]) for player in game.averaged},
    )


Chunk = Callable[[TrainState, Tree, int], tuple[TrainState, Metrics, Metrics]]


def compile_chunk(
    game: Game, strategy: Strategy, data: Resident | None, seed: int, batch_size: int, ema: float
) -> Chunk:
    """The program that makes ``length`` steps in one call.

    Returns:
        ``chunk(state, arrays, length) -> (state, metrics, finite)``. ``state`` is donated. ``arrays`` are those
        of ``data`` on the device. ``metrics`` holds arrays ``[length]``, a value for each step; ``finite`` says
        of each player whether all its parameters are finite at the end.
    """

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(state: TrainState, arrays: Tree, length: int) -> tuple[TrainState, Metrics, Metrics]:
        steps = state.step + jnp.arange(length)
        indices = None
        if data is not None:
            numbers = steps[:, None] * strategy.batches + jnp.arange(strategy.batches)
            indices = data.indices(_stream(seed, "order"), numbers, batch_size)  # [length, batches, batch]

        def body(state: TrainState, indices: jax.Array | None) -> tuple[TrainState, Metrics]:
            key = jax.random.fold_in(_stream(seed, "step"), state.step)
            batches: list[Any] = [None] * strategy.batches
            if data is not None and indices is not None:
                batch_keys = _batch_keys(seed, state.step, strategy.batches)
                batches = [data.batch(arrays, indices[i], batch_keys[i]) for i in range(strategy.batches)]
            state, metrics = strategy.step(state, batches, key)
            average = {
                player: jax.tree.map(lambda a, p: ema * a + (1 - ema) * p, mean, state.params[player])
                for player, mean in state.average.items()
            }
            return state._replace(step=state.step + 1, average=average), metrics

        state, metrics = jax.lax.scan(body, state, indices, length=length)
        return state, metrics, {player: _all_finite(state.params[player]) for player in game.players}

    return chunk


def first_examples(data: Resident, arrays: Tree, seed: int, batch_size: int, n: int) -> jax.Array:
    """The first ``n`` examples that a run of one batch a step would see (fewer where the data set is smaller)."""
    number = min(-(-n // batch_size), max(data.size // batch_size, 1))
    indices = data.indices(_stream(seed, "order"), jnp.arange(number)[:, None], batch_size)[:, 0]
    arrays = jax.device_put(arrays)
    batches = [data.batch(arrays, row, _batch_keys(seed, i, 1)[0]).examples for i, row in enumerate(indices)]
    return jnp.concatenate(batches)[:n]


def _batch_keys(seed: int, step: jax.Array | int, batches: int) -> jax.Array:
    return jax.random.split(jax.random.fold_in(_stream(seed, "batch"), step), batches)


def _stream(seed: int, purpose: str) -> jax.Array:
    """The root key of one use of random numbers: two uses never share a key."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "batch", "step").index(purpose))


def _all_finite(tree: Tree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
