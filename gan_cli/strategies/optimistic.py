"""The optimistic method."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, check_evaluation_params, field, update_all
from gan_cli.types import Batch, Game, Metrics, Strategy


def optimistic(game: Game, estimator: Estimator) -> Strategy:
    """Optimistic method: x' = x + 2 u(x) - u(x_before), where u is the optimiser's update.

    x_before is the vector of parameters before the previous step. The method is extragradient with the previous
    gradient in the extrapolation (Popov 1980; Daskalakis et al. 2018, algorithm 1, for gradient descent and for
    Adam). The first step has no previous update and is a plain update of the optimiser.

    Cost: one gradient evaluation per player.

    Raises:
        UserError: an optimiser averages its iterates, or an optimiser projects the parameters (``weight_clip``).
            The strategy changes the parameters after the projection, so that they could exceed the bound.
    """

    def check(optimisers: Optimisers) -> None:
        check_evaluation_params("optimistic", optimisers)
        for player, optimiser in optimisers.items():
            if optimiser.projects:
                raise UserError(
                    f"strategy=optimistic: would change the parameters of player {player} after optim.weight_clip, "
                    "so that they could exceed the bound. Use strategy=extragradient, or set "
                    "optim.weight_clip=null and add a gradient penalty, e.g. penalty=[r1]."
                )

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        slopes, (net_state, metrics) = field(game, estimator, state, batch, key)(state.params)
        moved, more = update_all(state, optimisers, slopes, net_state)
        now = jax.tree.map(lambda a, b: a - b, moved.params, state.params)
        past = jax.tree.map(lambda u, past: jnp.where(state.step == 0, u, past), now, state.strategy)
        new = jax.tree.map(lambda p, u, past: p + u - past, moved.params, now, past)
        return moved._replace(params=new, strategy=now), metrics | more

    return Strategy(
        1, dict.fromkeys(game.players, 1), lambda params: jax.tree.map(jnp.zeros_like, params), step, check
    )
