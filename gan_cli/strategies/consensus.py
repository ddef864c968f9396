"""Consensus optimisation."""

from __future__ import annotations

import jax

from gan_cli.engine.state import TrainState
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, check_differentiable, field, update_all
from gan_cli.types import Batch, Game, Metrics, NonNegativeFloat, Strategy


def consensus(game: Game, estimator: Estimator, *, gamma: NonNegativeFloat = 10.0) -> Strategy:
    """Consensus optimisation: x' = x - lr (F(x) + gamma J^T F(x)).

    J^T F is the gradient of ||F||^2 / 2, so all players also minimise gamma ||F||^2 / 2 (Mescheder et al. 2017,
    algorithm 2).

    Cost: one gradient evaluation per player, and one product with the transpose of the Jacobian. The product
    costs about two further gradient evaluations per player.

    Args:
        gamma: factor of the consensus term J^T F(x).

    Raises:
        UserError: the estimator is not differentiable.
    """
    check_differentiable("consensus", estimator)

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        slopes, pull_back, (net_state, metrics) = jax.vjp(
            field(game, estimator, state, batch, key), state.params, has_aux=True
        )
        (pull,) = pull_back(slopes)
        adjusted = jax.tree.map(lambda f, p: f + gamma * p, slopes, pull)
        moved, more = update_all(state, optimisers, adjusted, net_state)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)
