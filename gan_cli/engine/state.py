"""The training state, and the setup from which it is initialised and advanced."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_cli.engine.randomness import stream
from gan_cli.optim import Optimiser
from gan_cli.types import Batch, ByPlayer, Game, Metrics, Strategy, Tree


class TrainState(NamedTuple):
    """The training state: all values that a step changes.

    The phrase "by player" describes a mapping from the name of each player to the player's value.

    Attributes:
        step: number of completed steps, an int32 scalar. In the program of an ensemble, the step of a member's
            state is None, because ``EnsembleState`` stores the step once for all members.
        params: parameters by player.
        net_state: network state by player: batch statistics and the vectors of spectral normalisation.
        opt_state: optimiser state by player.
        strategy: state of the strategy.
        average: exponential moving average of the parameters by player, for the players in ``Game.averaged``.
        average_state: exponential moving average of the network state by player, for the players in
            ``Game.averaged``.
    """

    step: Any
    params: ByPlayer
    net_state: ByPlayer
    opt_state: ByPlayer
    strategy: Tree
    average: ByPlayer
    average_state: ByPlayer


class TrainSetup(NamedTuple):
    """The game, the strategy, the optimisers and the seed from which the training program is compiled.

    Attributes:
        game: the game.
        strategy: the strategy.
        optimisers: mapping from the name of each player to the player's optimiser.
        seed: the seed of the run, an int. In the program of an ensemble, the seed is a tracer. In the program of
            private training, the seed is the noise key, a random key.
    """

    game: Game
    strategy: Strategy
    optimisers: dict[str, Optimiser]
    seed: Any

    def step(self, state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        """A pair: the state after one step of the strategy, and the metrics of the step.

        The step count and the moving averages are not updated.
        """
        return self.strategy.step(self.optimisers, state, batches, key)


def init_state(parts: TrainSetup) -> TrainState:
    """The state before the first step.

    Call this function under ``jax.jit`` or ``jax.eval_shape``.
    """
    return state_of_weights(parts, *parts.game.init(stream(parts.seed, "init")))


def state_of_weights(parts: TrainSetup, params: ByPlayer, net_state: ByPlayer) -> TrainState:
    """The state before the first step of a run that starts with the given parameters.

    Call this function under ``jax.jit`` or ``jax.eval_shape``.

    Args:
        parts: the setup of the run.
        params: parameters by player.
        net_state: network state by player.
    """
    game, strategy, optimisers, _ = parts
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
