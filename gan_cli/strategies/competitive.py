"""Competitive gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.scipy.sparse import linalg

from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.estimators import Estimator
from gan_cli.strategies.updates import Optimisers, apply_updates, check_differentiable, field, jacobian_product
from gan_cli.types import Batch, Game, Metrics, PositiveInt, Strategy, Tree

gmres: Callable[..., tuple[Tree, Any]] = linalg.gmres  # an explicit type, because JAX does not annotate gmres


def competitive(game: Game, estimator: Estimator, *, iterations: PositiveInt = 10) -> Strategy:
    """Competitive gradient descent: a step to the Nash equilibrium of a local bilinear game.

    The bilinear game approximates the game at the current parameters (Schaefer and Anandkumar 2019, eq. 4). With
    loss f and learning rate a for player x, and loss g and learning rate b for player y, the updates are

        (1 - a b D2xy f D2yx g) dx = -a (Dx f - b D2xy f Dy g),   dy = -b (Dy g + D2yx g dx)

    Dx is the gradient with respect to x, and D2xy is the block of second derivatives with respect to x and y. GMRES
    solves the linear system, because the matrix of the system is not symmetric for a general-sum game. The method
    requires a game of two players, and optim=sgd without clipping, schedule or warm-up.

    Cost: one gradient evaluation per player, and two products with blocks of the Jacobian per iteration of GMRES.
    The products of one iteration cost about eight gradient evaluations.

    Args:
        iterations: number of iterations of GMRES in each step.

    Raises:
        UserError: the game does not have two players, the estimator is not differentiable, or an optimiser is not
            ``sgd`` without clipping, schedule or warm-up.
    """
    check_differentiable("competitive", estimator)
    if len(game.players) != 2:
        raise UserError(
            f"strategy=competitive: needs a game of two players, but the game has {len(game.players)}. "
            "Choose another strategy, e.g. strategy=extragradient."
        )
    first, second = game.players

    def check(optimisers: Optimisers) -> None:
        for player in game.players:
            if optimisers[player].constant_lr is None:
                raise UserError(
                    f"strategy=competitive: needs plain gradient descent for player {player}, i.e. optim=sgd "
                    "without clipping, schedule or warm-up. Use optim=sgd optim.clip_norm=null, or choose another "
                    "strategy, e.g. strategy=extragradient."
                )

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        a, b = (optimisers[player].constant_lr for player in game.players)
        assert a is not None and b is not None  # ``check`` rejects all other optimisers
        evaluate, params = field(game, estimator, state, batch, key), state.params
        slopes, (net_state, metrics) = evaluate(params)

        def block(of: str, by: str) -> Callable[[Tree], Tree]:
            """The function v -> B v for the block B = d F_of / d x_by of the Jacobian."""
            return jacobian_product(lambda own: evaluate(params | {by: own})[0][of], params[by])

        across, back = block(first, second), block(second, first)

        def plus(u: Tree, v: Tree, factor: float | jax.Array) -> Tree:
            return jax.tree.map(lambda u, v: u + factor * v, u, v)

        start = jax.tree.map(lambda u: -a * u, plus(slopes[first], across(slopes[second]), -b))
        dx, _ = gmres(
            lambda v: plus(v, across(back(v)), -a * b), start, x0=start, restart=iterations, maxiter=1, tol=1e-7
        )
        dy = jax.tree.map(lambda u: -b * u, plus(slopes[second], back(dx), 1.0))
        moved = state
        for player, updates in ((first, dx), (second, dy)):
            moved = apply_updates(moved, player, updates, net_state)
            metrics[f"{player}/grad_norm"] = optax.tree.norm(slopes[player])
        return moved, metrics

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step, check)
