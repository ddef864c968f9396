"""Strategies that use the game's Jacobian, by products with it only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import gmres

from gan_cli.engine import TrainState
from gan_cli.errors import UserError
from gan_cli.strategies.moves import Optimisers, apply, field, jacobian_product, move_all
from gan_cli.types import Batch, Game, Metrics, NonNegativeFloat, PositiveInt, Strategy, Tree


def consensus(game: Game, optimisers: Optimisers, *, gamma: NonNegativeFloat = 10.0) -> Strategy:
    """F(x) + gamma J^T F(x) takes the gradient's place: all players also want ||F||^2 / 2 low (Mescheder et al.
    2017, algorithm 2, whose gamma this is).

    Cost: one gradient evaluation a player and one product with the Jacobian's transpose, about two more each.
    """

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        slopes, pull_back, (net_state, metrics) = jax.vjp(
            field(game, state, batch, key), state.params, has_aux=True
        )
        (pull,) = pull_back(slopes)
        adjusted = jax.tree.map(lambda f, p: f + gamma * p, slopes, pull)
        moved, more = move_all(state, optimisers, adjusted, net_state)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)


def symplectic(
    game: Game, optimisers: Optimisers, *, strength: NonNegativeFloat = 1.0, align: bool = True
) -> Strategy:
    """Symplectic gradient adjustment: F + strength A^T F, A = (J - J^T) / 2 (Balduzzi et al. 2018, algorithm 1).

    Args:
        strength: lambda.
        align: whether lambda takes the sign of <F, J^T F> <A^T F, J^T F> / dimensions + 1/10, which draws towards
            stable fixed points and repels from unstable ones (their eq. 21).

    Cost: one gradient evaluation a player and two products with the Jacobian, about five more each.
    """

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        evaluate, params = field(game, state, batch, key), state.params
        slopes, pull_back, (net_state, metrics) = jax.vjp(evaluate, params, has_aux=True)
        (pulled,) = pull_back(slopes)
        pushed = jacobian_product(lambda p: evaluate(p)[0], params)(slopes)
        adjustment = jax.tree.map(lambda a, b: (a - b) / 2, pulled, pushed)
        factor: Any = strength
        if align:
            size = sum(leaf.size for leaf in jax.tree.leaves(params))
            # The paper's d is the number of parameters; its notebook counts tensors, and turns the sign sooner.
            inward = optax.tree.vdot(slopes, pulled) * optax.tree.vdot(adjustment, pulled) / size
            factor = strength * jnp.where(inward + 0.1 >= 0, 1.0, -1.0)
        adjusted = jax.tree.map(lambda f, a: f + factor * a, slopes, adjustment)
        moved, more = move_all(state, optimisers, adjusted, net_state)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)


def competitive(game: Game, optimisers: Optimisers, *, iterations: PositiveInt = 10) -> Strategy:
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
    a, b = (_plain_rate(player, optimisers[player]) for player in game.players)

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        (batch,) = batches
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
            moved = apply(moved, player, updates, net_state)
            metrics[f"{player}/grad_norm"] = optax.global_norm(slopes[player])
        return moved, metrics

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)


def _plain_rate(player: str, optimiser: optax.GradientTransformation) -> jax.Array:
    """The rate of an optimiser that is nothing else: told by what it makes of a small and of a huge gradient."""
    state = optimiser.init(jnp.zeros(()))

    def rate(slope: float) -> jax.Array:
        return -optimiser.update(jnp.float32(slope), state, jnp.zeros(()))[0] / slope

    if jax.tree.leaves(state) or not jnp.isclose(rate(1e-3), rate(1e15), rtol=1e-4):
        raise UserError(
            f"strategy=competitive: is defined for a plain rate only, and optim of the {player} is more: "
            "optim=sgd optim.clip_norm=null, without clipping or schedule."
        )
    return rate(1e-3)
