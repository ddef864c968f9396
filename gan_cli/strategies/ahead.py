"""Strategies that look ahead, or back: a first-order remedy for games that rotate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gan_cli.engine import TrainState
from gan_cli.errors import UserError
from gan_cli.strategies.moves import Optimisers, check_own_points, field, gradient, move, move_all
from gan_cli.types import Batch, Game, Metrics, PositiveInt, Strategy, Tree, UnitFloat


def extragradient(game: Game, optimisers: Optimisers) -> Strategy:
    """x~ = x - lr F(x), x' = x - lr F(x~): move from x with the gradients of a point ahead (Korpelevich 1976).

    With Adam it is ExtraAdam (Gidel et al. 2019, algorithm 4): both evaluations enter the moments. Each evaluation
    has a batch and draws of its own. Cost: two gradient evaluations a player.
    """
    check_own_points("extragradient", optimisers)

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        metrics: Metrics = {}
        ahead = state
        for turn, batch in enumerate(batches):
            evaluate = field(game, ahead, batch, jax.random.fold_in(key, turn))
            slopes, (net_state, found) = evaluate(ahead.params)
            # Every move starts from x, with the moments that the one before has left.
            ahead, more = move_all(ahead._replace(params=state.params), optimisers, slopes, net_state)
            metrics |= found | more
        return ahead, metrics

    return Strategy(2, dict.fromkeys(game.players, 2), lambda params: (), step)


def optimistic(game: Game, optimisers: Optimisers) -> Strategy:
    """x' = x + 2 u(x) - u(x_before) where u is the optimiser's move: extragradient with the past's gradient for the
    look ahead (Popov 1980; Daskalakis et al. 2018, algorithm 1, for gradient descent and for Adam).

    The first step is a plain one, as if the past were equal to it. Cost: one gradient evaluation a player.

    Raises:
        UserError: an optimiser projects (``weight_clip``): what it has projected is moved on here.
    """
    check_own_points("optimistic", optimisers)
    for player, optimiser in optimisers.items():
        far = jnp.float32(1e6)
        update, _ = optimiser.update(0 * far, optimiser.init(far), far)
        if not isinstance(update, jax.core.Tracer) and update < -far / 2:
            raise UserError(
                f"strategy=optimistic: would move the {player} out of the box of optim.weight_clip: "
                "strategy=extragradient, or a penalty."
            )

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        slopes, (net_state, metrics) = field(game, state, batch, key)(state.params)
        moved, more = move_all(state, optimisers, slopes, net_state)
        now = jax.tree.map(lambda a, b: a - b, moved.params, state.params)
        past = jax.tree.map(lambda u, past: jnp.where(state.step == 0, u, past), now, state.strategy)
        new = jax.tree.map(lambda p, u, past: p + u - past, moved.params, now, past)
        return moved._replace(params=new, strategy=now), metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: jax.tree.map(jnp.zeros_like, params), step)


def lookahead(
    game: Game,
    optimisers: Optimisers,
    *,
    inner: Callable[..., Strategy],
    interval: PositiveInt = 5,
    alpha: UnitFloat = 0.5,
) -> Strategy:
    """Every ``interval`` steps, step back from where the players came to towards where they stood:
    x = slow + alpha (x - slow), slow = x, over all players at once (Chavdarova et al. 2021, algorithm 1).

    Args:
        inner: the strategy of the steps between.

    Cost: that of ``inner``.
    """
    check_own_points("lookahead", optimisers)
    base = inner(game, optimisers)

    def init(params: Tree) -> Tree:
        # A copy: a donated state must not hold one buffer twice.
        return {"inner": base.init(params), "slow": jax.tree.map(jnp.copy, params)}

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        slow = state.strategy["slow"]
        moved, metrics = base.step(state._replace(strategy=state.strategy["inner"]), batches, key)
        back = (state.step + 1) % interval == 0
        params = jax.tree.map(lambda x, s: jnp.where(back, s + alpha * (x - s), x), moved.params, slow)
        slow = jax.tree.map(lambda x, s: jnp.where(back, x, s), params, slow)
        return moved._replace(params=params, strategy={"inner": moved.strategy, "slow": slow}), metrics

    return Strategy(base.batches, base.moves, init, step)


def unrolled(game: Game, optimisers: Optimisers, *, depth: PositiveInt = 5) -> Strategy:
    """The last player (of a GAN, the generator) foresees ``depth`` moves of the others, and differentiates through
    them: it descends L_last(x_last, U^depth(x)), where U is one move of the others (Metz et al. 2017, eq. 7 to 10).

    The others themselves make one move, from x. All of it on one batch. Cost: ``depth`` + 1 gradient evaluations of
    each other player and one of the last, and about as many again to differentiate through the foreseen moves.
    """
    *first, last = game.players

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        (batch,) = batches

        def foresee(ahead: TrainState, nothing: None) -> tuple[TrainState, None]:
            for player in first:
                slope, net_state, _ = gradient(game, player, ahead, batch, key)
                ahead, _ = move(ahead, player, optimisers[player], slope, net_state)
            return ahead, None

        def loss(own: Tree) -> Any:
            ahead = state._replace(params=state.params | {last: own})
            ahead, _ = jax.lax.scan(foresee, ahead, None, length=depth)
            return game.loss(last, ahead.params, ahead.net_state, batch, key, state.step)

        (value, (left, found)), slope = jax.value_and_grad(loss, has_aux=True)(state.params[last])
        metrics: Metrics = {f"{last}/loss": value} | found
        moved = state
        for player in first:
            own, net_state, found = gradient(game, player, state, batch, key)
            moved, more = move(moved, player, optimisers[player], own, net_state)
            metrics |= found | more
        moved, more = move(moved, last, optimisers[last], slope, left)
        return moved, metrics | more

    return Strategy(1, dict.fromkeys(game.players, 1), lambda params: (), step)
