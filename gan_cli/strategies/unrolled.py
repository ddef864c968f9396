"""Unrolled GANs."""

from __future__ import annotations

import jax

from gan_cli.engine.state import TrainState
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, check_differentiable, gradient, update_player
from gan_cli.types import Batch, Game, LossTerms, Metrics, PositiveInt, Strategy, Tree


def unrolled(game: Game, estimator: Estimator, *, depth: PositiveInt = 5) -> Strategy:
    """Unrolled GAN: G minimises its loss against a discriminator after ``depth`` simulated updates.

    The generator's loss is L_G(x_G, U^depth(x)), where U is one update of the discriminator. The gradient of this
    loss is computed by differentiation through the simulated updates. The step then applies only one actual update
    of the discriminator, computed at x. All evaluations use the same batch (Metz et al. 2017, eq. 7 to 10). In a
    general game, the last player has the role of the generator.

    Cost: ``depth`` + 1 gradient evaluations for the discriminator and one gradient evaluation for the generator.
    The differentiation through the simulated updates approximately doubles this cost.

    Args:
        depth: number of simulated discriminator updates.

    Raises:
        UserError: the estimator is not differentiable.
    """
    check_differentiable("unrolled", estimator)
    *first, last = game.players

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        batch = game.noise(batches[0], key)

        def foresee(foreseen: TrainState, nothing: None) -> tuple[TrainState, None]:
            for player in first:
                found = gradient(game, estimator, player, foreseen, batch, key)
                foreseen, _ = update_player(foreseen, player, optimisers[player], found.gradient, found.net_state)
            return foreseen, None

        def loss(own: Tree, batch: Batch, key: jax.Array) -> LossTerms:
            foreseen = state._replace(params=state.params | {last: own})
            foreseen, _ = jax.lax.scan(foresee, foreseen, None, length=depth)
            return game.loss(last, foreseen.params, foreseen.net_state, batch, key, state.step)

        of_last = estimator.gradient(loss, state.params[last], batch, key)
        metrics: Metrics = {f"{last}/loss": of_last.loss} | of_last.metrics
        moved = state
        for player in first:
            found = gradient(game, estimator, player, state, batch, key)
            moved, more = update_player(moved, player, optimisers[player], found.gradient, found.net_state)
            metrics |= found.metrics | more
        moved, more = update_player(moved, last, optimisers[last], of_last.gradient, of_last.net_state)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)
