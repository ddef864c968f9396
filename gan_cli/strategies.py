"""Strategies: how the players' moves are combined into a step.

A strategy is ``(game, optimisers, options) -> Strategy``: pure, over any game. Each move of a player commits
that player's own network state (its batch statistics, its spectral vectors) and nobody else's. The cost of a
step is said in gradient evaluations, one being the gradient of one player's loss.
"""

from __future__ import annotations

from typing import Any

import jax
import optax

from gan_cli.engine import TrainState
from gan_cli.types import Batch, Game, Metrics, PositiveInt, Strategy, Tree

Optimisers = dict[str, optax.GradientTransformation]


def simultaneous(game: Game, optimisers: Optimisers) -> Strategy:
    """Every player moves at once: x_i' = x_i - lr grad_i L_i(x) for all i, at the same point x.

    The article's listing trains this way. Cost: one gradient evaluation a player, all on one batch.
    """

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        (batch,) = batches
        moved, metrics = state, Metrics()
        for player in game.players:
            gradient, net_state, found = _gradient(game, player, state, batch, key)
            moved, more = _move(moved, player, optimisers[player], gradient, net_state)
            metrics |= found | more
        return moved, metrics

    return Strategy(1, lambda params: (), step)


def alternating(
    game: Game, optimisers: Optimisers, *, n_critic: PositiveInt = 1, fresh_latents: bool = False
) -> Strategy:
    """The players move in turn, each against what the others have just become (Goodfellow et al. 2014).

    All but the last player make ``n_critic`` moves, each on a batch of its own, before the last player (of a
    GAN, the generator) makes one, on the last of those batches (algorithm 1, where ``n_critic`` is k).

    Args:
        n_critic: moves of the other players for each move of the last one.
        fresh_latents: whether the last player's move draws new latents. False, the default, reuses the fake
            batch that the discriminator has just been trained on, as most published code does: another
            stochastic algorithm, and a cheaper one, since one pass of the generator then serves both moves.

    Cost: ``n_critic`` gradient evaluations for each other player and one for the last; with
    ``fresh_latents=false`` one forward pass of the generator fewer.
    """
    *first, last = game.players

    def step(state: TrainState, batches: list[Batch], key: jax.Array) -> tuple[TrainState, Metrics]:
        metrics: Metrics = {}
        share = not fresh_latents and hasattr(game, "fake")
        pull_back: Any = None
        for turn, batch in enumerate(batches):
            turn_key = jax.random.fold_in(key, turn)
            given = {}
            if share:
                # The last player does not move before its turn, so that its pass of the last round is its own.
                fake, pull_back, fake_state = _fake(game, last, state, batch, turn_key)
                given = {"fake": jax.lax.stop_gradient(fake)}
            for player in first:
                gradient, net_state, found = _gradient(game, player, state, batch, turn_key, **given)
                state, more = _move(state, player, optimisers[player], gradient, net_state)
                metrics |= found | more
        if share:
            gradient, found = _gradient_through(game, last, state, batch, turn_key, fake, pull_back)
            net_state = fake_state
        else:
            last_key = jax.random.fold_in(key, len(batches) if fresh_latents else len(batches) - 1)
            gradient, net_state, found = _gradient(game, last, state, batch, last_key)
        state, more = _move(state, last, optimisers[last], gradient, net_state)
        return state, metrics | found | more

    return Strategy(n_critic, lambda params: (), step)


def _gradient(
    game: Game, player: str, state: TrainState, batch: Batch, key: jax.Array, **given: Any
) -> tuple[Tree, dict, Metrics]:
    """The gradient of one player's loss in its own parameters, its evaluation's network state and metrics."""

    def loss(own: Tree) -> Any:
        params = state.params | {player: own}
        return game.loss(player, params, state.net_state, batch, key, state.step, **given)

    (value, (net_state, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params[player])
    return gradient, net_state, {f"{player}/loss": value} | metrics


def _fake(game: Any, player: str, state: TrainState, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any, dict]:
    """One generator pass, how to pull a gradient back through it, and the network state that it leaves."""

    def fake(own: Tree) -> Any:
        return game.fake(state.params | {player: own}, state.net_state, batch, key)

    return jax.vjp(fake, state.params[player], has_aux=True)


def _gradient_through(
    game: Any, player: str, state: TrainState, batch: Batch, key: jax.Array, fake: jax.Array, pull_back: Any
) -> tuple[Tree, Metrics]:
    """The gradient of the player's loss where its dependence on ``fake`` is pulled back through a shared pass."""

    def loss(own: Tree, fake: jax.Array) -> Any:
        params = state.params | {player: own}
        return game.loss(player, params, state.net_state, batch, key, state.step, fake=fake)

    (value, (_, metrics)), (direct, in_fake) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        state.params[player], fake
    )
    gradient = jax.tree.map(lambda a, b: a + b, direct, *pull_back(in_fake))
    return gradient, {f"{player}/loss": value} | metrics


def _move(
    state: TrainState, player: str, optimiser: optax.GradientTransformation, gradient: Tree, net_state: dict
) -> tuple[TrainState, Metrics]:
    """Apply one player's gradient and commit the network state of its evaluation."""
    params = state.params[player]
    updates, opt_state = optimiser.update(gradient, state.opt_state[player], params)
    moved = state._replace(
        params=state.params | {player: optax.apply_updates(params, updates)},
        opt_state=state.opt_state | {player: opt_state},
        net_state=state.net_state | {player: net_state[player]},
    )
    return moved, {f"{player}/grad_norm": optax.global_norm(gradient)}
