"""Extragradient."""

from __future__ import annotations

import functools

import jax

from gan_cli.engine.state import TrainState
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, check_evaluation_params, field, update_all
from gan_cli.types import Batch, Game, Metrics, Strategy


def extragradient(game: Game, estimator: Estimator) -> Strategy:
    """Extragradient: x~ = x - lr F(x), x' = x - lr F(x~), with gradients at the extrapolated point x~.

    Korpelevich 1976. With Adam, the method is ExtraAdam (Gidel et al. 2019, algorithm 4), and both gradients update
    the moments. Each of the two gradient evaluations uses a separate batch and separate random numbers.

    Cost: two gradient evaluations per player.

    Raises:
        UserError: an optimiser averages its iterates.
    """

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        metrics: Metrics = {}
        extrapolated = state
        for turn, batch in enumerate(batches):
            evaluate = field(game, estimator, extrapolated, batch, jax.random.fold_in(key, turn))
            slopes, (net_state, found) = evaluate(extrapolated.params)
            # Both updates start from x. The second update uses the optimiser state after the first update.
            extrapolated, more = update_all(
                extrapolated._replace(params=state.params), optimisers, slopes, net_state
            )
            metrics |= found | more
        return extrapolated, metrics

    return Strategy(
        2,
        dict.fromkeys(game.players, 2),
        lambda params: (),
        step,
        functools.partial(check_evaluation_params, "extragradient"),
    )
