"""The compiled program, which advances the training state by many steps per call.

Every random number and every batch is a function of the seed and the step. A run therefore computes bit-identical
results for any number of steps per call, and for any step at which the run is stopped and resumed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from gan_cli.data.feed import Feed
from gan_cli.engine import devices, moving_average
from gan_cli.engine.randomness import batch_keys, batch_numbers, step_key, stream
from gan_cli.engine.state import TrainSetup, TrainState
from gan_cli.types import Batch, ByPlayer, Metrics, Tree

Options = dict[str, bool | int | str]  # options of XLA by name
# The type of the function that ``scan_steps`` returns.
Advance = Callable[[TrainState, Any, Tree, int], tuple[TrainState, Any, Metrics, Metrics]]


class Chunk(Protocol):
    """A jitted program ``(state, arrays, length, *noise_key) -> (state, metrics, finite)`` (see ``compile_chunk``).

    The state is a ``TrainState``, or an ``EnsembleState`` in the program of an ensemble.
    """

    def __call__(
        self, state: Any, arrays: Tree, length: int, *noise_key: jax.Array
    ) -> tuple[Any, Metrics, Metrics]: ...

    def lower(self, state: Any, arrays: Tree, length: int, *noise_key: jax.Array) -> jax.stages.Lowered:
        """The program for arguments of the given shapes, lowered but not compiled."""
        ...


def compile_chunk(
    setup: TrainSetup, feed: Feed | None, batch_size: int, ema: float, options: Options | None = None
) -> Chunk:
    """The program that advances the state by ``length`` steps in one call.

    Args:
        setup: the game, strategy and optimisers.
        feed: selects the batches. None for a game without data.
        batch_size: number of examples in a batch.
        ema: decay of the moving average.
        options: options of the compiler by name. None for the default options.

    Returns:
        ``chunk(state, arrays, length, *noise_key) -> (state, metrics, finite)``. The buffers of ``state`` are
        donated. ``arrays`` is the data set on the device, or the streamed batches of the ``length`` steps. With a
        ``noise_key``, the batches and the random numbers of all steps derive from this key instead of the seed. It
        is an argument, so that no compiled program in a cache contains it. ``metrics`` maps
        the name of each metric to an array ``[length]`` with a value for each step. ``finite`` maps the name of
        each player to a boolean: whether all parameters of the player are finite after the last step.
    """

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0, compiler_options=options)
    def chunk(
        state: TrainState, arrays: Tree, length: int, *noise_key: jax.Array
    ) -> tuple[TrainState, Metrics, Metrics]:
        parts = setup._replace(seed=noise_key[0]) if noise_key else setup
        advance = scan_steps(parts, feed, batch_size, ema, freeze=False)
        state, _, metrics, finite = advance(state, True, arrays, length)
        return state, metrics, finite

    return chunk


def scan_steps(setup: TrainSetup, feed: Feed | None, batch_size: int, ema: float, freeze: bool) -> Advance:
    """The function that ``compile_chunk`` compiles: a scan over ``length`` steps.

    Args:
        setup: the game, strategy and optimisers.
        feed: selects the batches. None for a game without data.
        batch_size: number of examples in a batch.
        ema: decay of the moving average.
        freeze: whether ``alive`` becomes False at the first loss or gradient that is not finite. While ``alive`` is
            False, only the step count of the state changes.

    Returns:
        ``advance(state, alive, arrays, length) -> (state, alive, metrics, finite)``. ``alive`` is a boolean scalar.
        The other arguments and results are documented in ``compile_chunk``.
    """
    game, strategy, _, seed = setup

    def advance(
        state: TrainState, alive: Any, arrays: Tree, length: int
    ) -> tuple[TrainState, Any, Metrics, Metrics]:
        def body(
            carry: tuple[TrainState, Any], per_step: tuple[Tree, jax.Array]
        ) -> tuple[tuple[TrainState, Any], Metrics]:
            (before, alive), (drawn, last) = carry, per_step
            key = step_key(seed, before.step)
            # A game without data has empty batches.
            batches: list[Batch] = [{}] * strategy.batches
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
    """Mapping from ``<player>/update_ratio`` to the norm of the player's update, relative to the parameters.

    The norm of the update is divided by the norm of the player's parameters before the step. The ratios are
    computed only for the last step of each call of the program, because computing them at every step is slow.
    """
    change = jax.tree.map(lambda a, b: a - b, after, before)
    return {
        f"{player}/update_ratio": optax.tree.norm(change[player]) / (optax.tree.norm(params) + 1e-12)
        for player, params in before.items()
    }


def _no_ratios(before: ByPlayer, after: ByPlayer) -> Metrics:
    return {f"{player}/update_ratio": jnp.zeros(()) for player in before}


def _all_finite(tree: Tree) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
