"""The compiled program that advances the state many steps at a time.

Every random number and every batch is a function of (seed, step): a run that is cut anywhere, into chunks of
any length, computes the same bits. The engine sees games and strategies, and no file.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gan_cli.data.feed import Feed
from gan_cli.engine import devices, moving_average
from gan_cli.engine.randomness import batch_keys, batch_numbers, step_key, stream
from gan_cli.engine.state import TrainSetup, TrainState
from gan_cli.types import ByPlayer, Metrics, Tree

Chunk = Any  # a jitted (state, arrays, length) -> (state, metrics, finite)


def compile_chunk(setup: TrainSetup, feed: Feed | None, batch_size: int, ema: float) -> Chunk:
    """The program that makes ``length`` steps in one call.

    Returns:
        ``chunk(state, arrays, length) -> (state, metrics, finite)``. ``state`` is donated. ``arrays`` are what
        ``feed`` draws batches from. ``metrics`` holds arrays ``[length]``, a value for each step; ``finite`` says
        of each player whether all its parameters are finite at the end.
    """
    advance = scan_steps(setup, feed, batch_size, ema, freeze=False)

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def chunk(state: TrainState, arrays: Tree, length: int) -> tuple[TrainState, Metrics, Metrics]:
        state, _, metrics, finite = advance(state, True, arrays, length)
        return state, metrics, finite

    return chunk


def scan_steps(setup: TrainSetup, feed: Feed | None, batch_size: int, ema: float, freeze: bool) -> Any:
    """The scan over steps; with ``freeze``, a state that is no longer ``alive`` does not change."""
    game, strategy, _, seed = setup

    def advance(state: TrainState, alive: Any, arrays: Tree, length: int) -> Any:
        def body(carry: tuple[TrainState, Any], per_step: Any) -> tuple[tuple[TrainState, Any], Metrics]:
            (before, alive), (drawn, last) = carry, per_step
            key = step_key(seed, before.step)
            batches: list[Any] = [None] * strategy.batches
            if feed is not None:
                keys = batch_keys(seed, before.step, strategy.batches)
                rows = [jax.tree.map(lambda leaf, i=i: leaf[i], drawn) for i in range(strategy.batches)]
                batches = [devices.split(feed.batch(arrays, row, keys[i])) for i, row in enumerate(rows)]
            state, metrics = setup.step(before, batches, key)
            if game.has_equilibrium:
                metrics |= game.distance(state.params)
            metrics |= jax.lax.cond(last, _update_ratios, _no_ratios, before.params, state.params)
            state = moving_average.advance(setup, before, state, ema)
            if freeze:
                watched = [metrics[f"{player}/{what}"] for player in game.players for what in ("loss", "grad_norm")]
                alive &= jnp.all(jnp.isfinite(jnp.stack(watched)))
                state = jax.tree.map(lambda new, old: jnp.where(alive, new, old), state, before)
            return (devices.same(state._replace(step=before.step + 1)), alive), devices.same(metrics)

        drawn = None
        if feed is not None:
            drawn = feed.draw(
                arrays, stream(seed, "order"), batch_numbers(state.step, length, strategy.batches), batch_size
            )
            drawn = devices.split(drawn, axis=2)
        per_step = drawn, jnp.arange(length) == length - 1
        (state, alive), metrics = jax.lax.scan(body, (state, alive), per_step, length=length)
        finite = {player: _all_finite(state.params[player]) for player in game.players}
        return state, alive, metrics, devices.same(finite)

    return advance


def _update_ratios(before: ByPlayer, after: ByPlayer) -> Metrics:
    """How large a player's change is beside what was changed: of the last step of a call only, since it costs."""
    change = jax.tree.map(lambda a, b: a - b, after, before)
    return {
        f"{player}/update_ratio": optax.global_norm(change[player]) / (optax.global_norm(own) + 1e-12)
        for player, own in before.items()
    }


def _no_ratios(before: ByPlayer, after: ByPlayer) -> Metrics:
    return {f"{player}/update_ratio": jnp.zeros(()) for player in before}


def _all_finite(tree: Tree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
