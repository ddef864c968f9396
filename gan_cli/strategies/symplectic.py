"""Symplectic gradient adjustment."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from gan_cli.engine.state import TrainState
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, check_differentiable, field, jacobian_product, update_all
from gan_cli.types import Batch, Game, Metrics, NonNegativeFloat, Strategy


def symplectic(
    game: Game, estimator: Estimator, *, strength: NonNegativeFloat = 1.0, align: bool = True
) -> Strategy:
    """Symplectic gradient adjustment: x' = x - lr (F + lambda A^T F) with A = (J - J^T) / 2.

    Balduzzi et al. 2018, algorithm 1.

    Cost: one gradient evaluation per player, one product with the Jacobian and one product with the transpose of
    the Jacobian. The products cost about five further gradient evaluations per player.

    Args:
        strength: absolute value of lambda.
        align: whether lambda has the sign of <F, J^T F> <A^T F, J^T F> / d + 1/10, where d is the number of
            parameters. This sign attracts the players to stable fixed points and repels the players from unstable
            fixed points (eq. 21 of the paper). If false, lambda is positive.

    Raises:
        UserError: the estimator is not differentiable.
    """
    check_differentiable("symplectic", estimator)

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        evaluate, params = field(game, estimator, state, batch, key), state.params
        slopes, pull_back, (net_state, metrics) = jax.vjp(evaluate, params, has_aux=True)
        (pulled,) = pull_back(slopes)
        pushed = jacobian_product(lambda p: evaluate(p)[0], params)(slopes)
        adjustment = jax.tree.map(lambda a, b: (a - b) / 2, pulled, pushed)
        factor: float | jax.Array = strength
        if align:
            size = sum(leaf.size for leaf in jax.tree.leaves(params))
            # The paper defines d as the number of parameters. The authors' notebook divides by the number of
            # tensors, so that the sign is negative more often.
            inward = optax.tree.vdot(slopes, pulled) * optax.tree.vdot(adjustment, pulled) / size
            factor = strength * jnp.where(inward + 0.1 >= 0, 1.0, -1.0)
        adjusted = jax.tree.map(lambda f, a: f + factor * a, slopes, adjustment)
        moved, more = update_all(state, optimisers, adjusted, net_state)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)
