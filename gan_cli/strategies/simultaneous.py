"""Simultaneous updates."""

from __future__ import annotations

import jax

from gan_cli.engine.state import TrainState
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, field, update_all
from gan_cli.types import Batch, Game, Metrics, Strategy


def simultaneous(game: Game, estimator: Estimator) -> Strategy:
    """Simultaneous updates: x_i' = x_i - lr grad_i L_i(x) for all players i, at the same point x.

    Cost: one gradient evaluation per player, all on one batch.
    """

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        slopes, (net_state, metrics) = field(game, estimator, state, batch, key)(state.params)
        moved, more = update_all(state, optimisers, slopes, net_state)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)
