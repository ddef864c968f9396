"""Unrolled GANs: the last player foresees the others' moves."""

from __future__ import annotations

from typing import Any

import jax

from gan_cli.engine.state import TrainState
from gan_cli.strategies.updates import Optimisers, gradient, update_player
from gan_cli.types import Batch, Game, Metrics, PositiveInt, Strategy, Tree


def unrolled(game: Game, *, depth: PositiveInt = 5) -> Strategy:
    """The last player (of a GAN, the generator) foresees ``depth`` moves of the others, and differentiates through
    them: it descends L_last(x_last, U^depth(x)), where U is one move of the others (Metz et al. 2017, eq. 7 to 10).

    The others themselves make one move, from x. All of it on one batch. Cost: ``depth`` + 1 gradient evaluations of
    each other player and one of the last, and about as many again to differentiate through the foreseen moves.
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

        def loss(own: Tree) -> Any:
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
