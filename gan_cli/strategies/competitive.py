"""Competitive gradient descent."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax.scipy.sparse.linalg import gmres

from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.strategies.updates import Optimisers, apply_updates, field, jacobian_product
from gan_cli.types import Batch, Game, Metrics, PositiveInt, Strategy, Tree


def competitive(game: Game, *, iterations: PositiveInt = 10) -> Strategy:
    """Competitive gradient descent: both players move to the Nash equilibrium of the game's local bilinear
    approximation (Schaefer and Anandkumar 2019, eq. 4). For x with loss f and rate a, y with loss g and rate b:

        (1 - a b D2xy f D2yx g) dx = -a (Dx f - b D2xy f Dy g),   dy = -b (Dy g + D2yx g dx)

    Solved by ``iterations`` of GMRES, which also fits games that are not zero-sum. Defined for a plain rate only.
    Cost: one gradient evaluation a player, and two products with blocks of the Jacobian an iteration, about eight
    gradient evaluations.

    Raises:
        UserError: the game has not two players, or an optimiser is not ``sgd`` without clipping or schedule.
    """
    if len(game.players) != 2:
        raise UserError(f"strategy=competitive: is of two players; this game has {len(game.players)}.")
    first, second = game.players

    def check(optimisers: Optimisers) -> None:
        for player in game.players:
            if optimisers[player].constant_lr is None:
                raise UserError(
                    f"strategy=competitive: is defined for a plain rate only, and optim of the {player} is more: "
                    "optim=sgd optim.clip_norm=null, without clipping or schedule."
                )

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        a, b = (optimisers[player].constant_lr for player in game.players)
        evaluate, params = field(game, state, batch, key), state.params
        slopes, (net_state, metrics) = evaluate(params)

        def block(of: str, by: str) -> Any:
            """v -> the derivative of the gradient of ``of`` by the parameters of ``by``, times v."""
            return jacobian_product(lambda own: evaluate(params | {by: own})[0][of], params[by])

        across, back = block(first, second), block(second, first)

        def plus(u: Tree, v: Tree, factor: Any) -> Tree:
            return jax.tree.map(lambda u, v: u + factor * v, u, v)

        start = jax.tree.map(lambda u: -a * u, plus(slopes[first], across(slopes[second]), -b))
        dx, _ = gmres(
            lambda v: plus(v, across(back(v)), -a * b), start, x0=start, restart=iterations, maxiter=1, tol=1e-7
        )
        dy = jax.tree.map(lambda u: -b * u, plus(slopes[second], back(dx), 1.0))
        moved = state
        for player, updates in ((first, dx), (second, dy)):
            moved = apply_updates(moved, player, updates, net_state)
            metrics[f"{player}/grad_norm"] = optax.global_norm(slopes[player])
        return moved, metrics

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step, check)
