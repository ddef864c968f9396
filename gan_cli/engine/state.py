"""The training state, and the setup from which it is initialised and advanced."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from gan_cli.engine.randomness import stream
from gan_cli.optim import Optimiser
from gan_cli.types import Batch, ByPlayer, Game, Metrics, Strategy, Tree


class TrainState(NamedTuple):
    """The training state: all values that a step changes.

    Attributes:
        step: number of completed steps, an int32 scalar; None for the state of an ensemble member inside the
            program, which stores the step once for all members (see ``EnsembleState``).
        params: parameters by player.
        net_state: batch statistics and spectral vectors by player.
        opt_state: optimiser state by player.
        strategy: state of the strategy.
        average: exponential moving average of the parameters, for the players in ``Game.averaged``.
        average_state: exponential moving average of the network state of these players.
    """

    step: Any
    params: ByPlayer
    net_state: ByPlayer
    opt_state: ByPlayer
    strategy: Tree
    average: ByPlayer
    average_state: ByPlayer


class TrainSetup(NamedTuple):
    """The parts from which the training program is compiled.

    Attributes:
        game: the game.
        strategy: the strategy.
        optimisers: optimisers by player.
        seed: the seed, an int; a traced scalar inside the program of an ensemble.
    """

    game: Game
    strategy: Strategy
    optimisers: dict[str, Optimiser]
    seed: Any

    def step(self, state: TrainState, batches: list[Batch | None], key: jax.Array) -> tuple[TrainState, Metrics]:
        """One step of the strategy; the step count and the moving average are not updated."""
        # A game without data ignores its batches, which are None.
        return self.strategy.step(self.optimisers, state, cast(list[Batch], batches), key)


def init_state(parts: TrainSetup) -> TrainState:
    """The state before the first step; call it under ``jax.jit`` or ``jax.eval_shape``."""
    game, strategy, optimisers, seed = parts
    params, net_state = game.init(stream(seed, "init"))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        net_state=net_state,
        opt_state={player: optimisers[player].init(params[player]) for player in game.players},
        strategy=strategy.init(params),
        # The averages are copies, because a donated state must not contain the same buffer twice.
        average={player: jax.tree.map(jnp.copy, params[player]) for player in game.averaged},
        average_state={player: jax.tree.map(jnp.copy, net_state[player]) for player in game.averaged},
    )
