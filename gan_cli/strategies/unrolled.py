"""Unrolled GANs."""

from __future__ import annotations

import jax

from gan_cli.engine.state import TrainState
from gan_cli.strategies.updates import Optimisers, gradient, update_player
from gan_cli.types import Batch, ByPlayer, Game, Metrics, PositiveInt, Strategy, Tree


def unrolled(game: Game, *, depth: PositiveInt = 5) -> Strategy:
    """Unrolled GAN: G minimises its loss against a discriminator after ``depth`` simulated updates.

    The generator's loss is L_G(x_G, U^depth(x)), where U is one update of the discriminator. The gradient of this
    loss is computed by differentiation through the simulated updates. The step then applies only one actual update
    of the discriminator, computed at x. All evaluations use the same batch (Metz et al. 2017, eq. 7 to 10). In a
    general game, the last player has the role of the generator.

    Cost: ``depth`` + 1 gradient evaluations for the discriminator and one gradient evaluation for the generator.
    The differentiation through the simulated updates approximately doubles this cost.

    Args:
        depth: number of simulated discriminator updates.
    """
    *first, last = game.players

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (batch,) = batches

        def foresee(foreseen: TrainState, nothing: None) -> tuple[TrainState, None]:
            for player in first:
                slope, net_state, _ = gradient(game, player, foreseen, batch, key)
                foreseen, _ = update_player(foreseen, player, optimisers[player], slope, net_state)
            return foreseen, None

        def loss(own: Tree) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
            foreseen = state._replace(params=state.params | {last: own})
            foreseen, _ = jax.lax.scan(foresee, foreseen, None, length=depth)
            return game.loss(last, foreseen.params, foreseen.net_state, batch, key, state.step)

        (value, (left, found)), slope = jax.value_and_grad(loss, has_aux=True)(state.params[last])
        metrics: Metrics = {f"{last}/loss": value} | found
        moved = state
        for player in first:
            own, net_state, found = gradient(game, player, state, batch, key)
            moved, more = update_player(moved, player, optimisers[player], own, net_state)
            metrics |= found | more
        moved, more = update_player(moved, last, optimisers[last], slope, left)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)
