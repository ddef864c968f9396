"""The training state, and what it is made from."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_cli.engine.randomness import stream
from gan_cli.optim import Optimiser
from gan_cli.types import ByPlayer, Game, Metrics, Strategy, Tree


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        step: number of steps made, an int32 scalar (None where it stands apart, see ``EnsembleState``).
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


class TrainSetup(NamedTuple):
    """What the compiled steps are made of. The seed may be traced."""

    game: Game
    strategy: Strategy
    optimisers: dict[str, Optimiser]
    seed: Any

    def step(self, state: TrainState, batches: list[Any], key: jax.Array) -> tuple[TrainState, Metrics]:
        """One step of the strategy, without the moving average."""
        return self.strategy.step(self.optimisers, state, batches, key)


def init_state(parts: TrainSetup) -> TrainState:
    """The state before the first step, a function of the seed. Run it under ``jax.jit`` or ``jax.eval_shape``."""
    game, strategy, optimisers, seed = parts
    params, net_state = game.init(stream(seed, "init"))
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
