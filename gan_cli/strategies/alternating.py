"""Alternating updates."""

from __future__ import annotations

from collections.abc import Callable

import jax

from gan_cli.engine.state import TrainState
from gan_cli.estimators import Estimate, Estimator
from gan_cli.strategies.updates import Optimisers, estimator_of, gradient, update_player
from gan_cli.types import Batch, ByPlayer, Game, LossTerms, Metrics, PositiveInt, Strategy, Tree

PullBack = Callable[[Tree], tuple[Tree]]


def alternating(
    game: Game, estimator: Estimator, *, n_critic: PositiveInt = 1, fresh_latents: bool = False
) -> Strategy:
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
        # An estimator that divides the batch generates the examples of each part itself, from the same latents.
        share = not fresh_latents and game.shares_fakes and not estimator.divides_batch
        fake = pull_back = None
        for turn, batch in enumerate(batches):
            turn_key = jax.random.fold_in(key, turn)
            batch = game.noise(batch, turn_key)
            if share:
                # The loop does not update the last player, so the generated batch of the last iteration comes from
                # the current parameters of this player.
                seen = estimator.without_data(batch)
                fake, pull_back, fake_state = _fake(game, last, state, seen, turn_key)
            for player in first:
                constant = None if fake is None else jax.lax.stop_gradient(fake)
                found = gradient(game, estimator, player, state, batch, turn_key, constant)
                state, more = update_player(state, player, optimisers[player], found.gradient, found.net_state)
                metrics |= found.metrics | more
        if fake is not None and pull_back is not None:
            found = _gradient_through(game, estimator, last, state, batch, turn_key, fake, pull_back)
            found = found._replace(net_state=fake_state)
        else:
            if fresh_latents:
                turn_key = jax.random.fold_in(key, len(batches))
                batch = game.noise(batch, turn_key)
            found = gradient(game, estimator, last, state, batch, turn_key)
        state, more = update_player(state, last, optimisers[last], found.gradient, found.net_state)
        return state, metrics | found.metrics | more

    updates = dict.fromkeys(first, n_critic) | {last: 1}
    return Strategy(n_critic, updates, lambda params: (), step)


def _fake(
    game: Game, player: str, state: TrainState, batch: Batch, key: jax.Array
) -> tuple[Tree, PullBack, ByPlayer]:
    """A triple: a generated batch, the vector-Jacobian product of the forward pass, and the new network state."""

    def fake(own: Tree) -> tuple[Tree, ByPlayer]:
        return game.fake(state.params | {player: own}, state.net_state, batch, key, state.step)

    return jax.vjp(fake, state.params[player], has_aux=True)


def _gradient_through(
    game: Game,
    estimator: Estimator,
    player: str,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    fake: Tree,
    pull_back: PullBack,
) -> Estimate:
    """The gradient of the player's loss at a generated batch whose forward pass is known.

    By the chain rule, the gradient is the sum of two terms: the gradient at a constant ``fake``, and the gradient
    with respect to ``fake``, which ``pull_back`` maps to the player's parameters.
    """

    def loss(at: tuple[Tree, Tree], batch: Batch, key: jax.Array) -> LossTerms:
        own, fake = at
        return game.loss(player, state.params | {player: own}, state.net_state, batch, key, state.step, fake)

    found = estimator_of(game, estimator, player).gradient(loss, (state.params[player], fake), batch, key)
    direct, in_fake = found.gradient
    slope = jax.tree.map(lambda a, b: a + b, direct, *pull_back(in_fake))
    return found._replace(gradient=slope, metrics={f"{player}/loss": found.loss} | found.metrics)
