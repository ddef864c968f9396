"""The players in turn."""

from __future__ import annotations

from typing import Any

import jax

from gan_cli.engine.state import TrainState
from gan_cli.strategies.updates import Optimisers, gradient, update_player
from gan_cli.types import Batch, Game, Metrics, PositiveInt, Strategy, Tree


def alternating(game: Game, *, n_critic: PositiveInt = 1, fresh_latents: bool = False) -> Strategy:
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

    def step(
        optimisers: Optimisers, state: TrainState, batches: list[Batch], key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        metrics: Metrics = {}
        share = not fresh_latents and game.shares_fakes
        pull_back: Any = None
        for turn, batch in enumerate(batches):
            turn_key = jax.random.fold_in(key, turn)
            shared = {}
            if share:
                # The last player does not move before its turn, so that its pass of the last round is its own.
                fake, pull_back, fake_state = _fake(game, last, state, batch, turn_key)
                shared = {"fake": jax.lax.stop_gradient(fake)}
            for player in first:
                slope, net_state, found = gradient(game, player, state, batch, turn_key, **shared)
                state, more = update_player(state, player, optimisers[player], slope, net_state)
                metrics |= found | more
        if share:
            slope, found = _gradient_through(game, last, state, batch, turn_key, fake, pull_back)
            net_state = fake_state
        else:
            last_key = jax.random.fold_in(key, len(batches) if fresh_latents else len(batches) - 1)
            slope, net_state, found = gradient(game, last, state, batch, last_key)
        state, more = update_player(state, last, optimisers[last], slope, net_state)
        return state, metrics | found | more

    updates = dict.fromkeys(first, n_critic) | {last: 1}
    return Strategy(n_critic, updates, lambda params: (), step)


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
    slope = jax.tree.map(lambda a, b: a + b, direct, *pull_back(in_fake))
    return slope, {f"{player}/loss": value} | metrics
