"""Alternating updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from gan_cli.engine.state import TrainState
from gan_cli.strategies.updates import Optimisers, gradient, update_player
from gan_cli.types import Batch, ByPlayer, Game, Metrics, PositiveInt, Strategy, Tree

PullBack = Callable[[jax.Array], tuple[Tree]]


def alternating(game: Game, *, n_critic: PositiveInt = 1, fresh_latents: bool = False) -> Strategy:
    """Alternating updates: n_critic discriminator updates, then one generator update, at each step.

    Goodfellow et al. 2014, algorithm 1, where ``n_critic`` is k. Each update uses the current parameters of the
    opponent. The discriminator receives a new batch for each of its updates, and the generator uses the last of
    these batches. In a general game, the last player has the role of the generator, and all other players have the
    role of the discriminator.

    Cost: ``n_critic`` gradient evaluations for the discriminator and one gradient evaluation for the generator.
    ``fresh_latents=false`` saves one forward pass of the generator.

    Args:
        n_critic: number of discriminator updates for each generator update.
        fresh_latents: whether the generator's update draws new latents. If false, the generator's update reuses the
            generated batch of the last discriminator update, as in most published code. Reuse saves one forward
            pass of the generator. The two settings give different training results.
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
                # The loop does not update the last player, so the generated batch of the last iteration comes from
                # the current parameters of this player.
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


def _fake(
    game: Game, player: str, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[jax.Array, PullBack, ByPlayer]:
    """A triple: a generated batch, the vector-Jacobian product of the forward pass, and the new network state."""

    def fake(own: Tree) -> tuple[jax.Array, ByPlayer]:
        return game.fake(state.params | {player: own}, state.net_state, batch, key)

    return jax.vjp(fake, state.params[player], has_aux=True)


def _gradient_through(
    game: Game, player: str, state: TrainState, batch: Batch, key: jax.Array, fake: jax.Array, pull_back: PullBack
) -> tuple[Tree, Metrics]:
    """A pair: the gradient of the player's loss, and metrics.

    By the chain rule, the gradient is the sum of two terms: the gradient at a constant ``fake``, and the gradient
    with respect to ``fake``, which ``pull_back`` maps to the player's parameters.
    """

    # A game with ``shares_fakes`` accepts the keyword argument ``fake``.
    game_loss: Callable[..., tuple[jax.Array, tuple[ByPlayer, Metrics]]] = game.loss

    def loss(own: Tree, fake: jax.Array) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
        params = state.params | {player: own}
        return game_loss(player, params, state.net_state, batch, key, state.step, fake=fake)

    (value, (_, metrics)), (direct, in_fake) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        state.params[player], fake
    )
    slope = jax.tree.map(lambda a, b: a + b, direct, *pull_back(in_fake))
    return slope, {f"{player}/loss": value} | metrics
