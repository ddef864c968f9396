"""Strategies on a game whose course is known, and shared work against the plain form of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from conftest import TINY, Program

from gan_cli import engine, optim, strategies
from gan_cli.cli.train import experiment

LR = 0.1


def play(strategy, steps=30, lr=LR, **options):
    """The points (x, y) that a strategy visits on the bilinear game."""
    game = toy.Bilinear()
    optimisers = {player: optim.sgd(lr=lr) for player in game.players}
    s = strategy(game, optimisers, **options)
    state, points = engine.init(engine.Parts(game, s, optimisers, 0)), []
    for i in range(steps + 1):
        points.append((float(state.params["x"]), float(state.params["y"])))
        state, metrics = s.step(state, [None] * s.batches, jax.random.key(i))
    assert set(metrics) >= {"x/loss", "y/loss", "x/grad_norm", "y/grad_norm"}
    return np.array(points)


def test_simultaneous_multiplies_the_squared_distance():
    """By exactly 1 + lr^2 a step (Mescheder et al. 2018, lemma 2.3, for the bilinear game)."""
    distance = (play(strategies.simultaneous) ** 2).sum(1)
    np.testing.assert_allclose(distance, (1 + LR**2) ** np.arange(31), rtol=1e-5)


def test_alternating_conserves_its_invariant():
    """x^2 + y^2 - lr x y stays what it was, so the game circles for ever (Bailey et al. 2020)."""
    x, y = play(strategies.alternating, steps=200).T
    np.testing.assert_allclose(x**2 + y**2 - LR * x * y, 1, rtol=1e-4)
    assert np.ptp(np.arctan2(y, x)) > 6


@pytest.mark.parametrize("n_critic", [1, 3])
def test_n_critic_by_hand(n_critic):
    x, y = 1.0, 0.0
    for found in play(strategies.alternating, steps=5, n_critic=n_critic)[1:]:
        for _ in range(n_critic):
            x -= LR * y
        y += LR * x
        np.testing.assert_allclose(found, (x, y), rtol=1e-5)


STATEFUL = [
    *TINY,
    "model.generator.norm=batch",
    "model.discriminator.norm=spectral",
    "model.discriminator.dropout=0.2",
]


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
@pytest.mark.parametrize("n_critic", [1, 2])
def test_shared_pass_equals_the_plain_form(loss, n_critic, monkeypatch):
    """One generator pass for both moves gives what two passes with the same latents give."""
    overrides = [*STATEFUL, f"loss={loss}", f"strategy.n_critic={n_critic}", "optim=sgd"]
    shared = Program(experiment(overrides))
    shared.run(4)
    with monkeypatch.context() as patch:
        # Without `fake` in sight the strategy recomputes the pass, from the same key, for each move.
        game = type(shared.experiment.game)
        fake = game.fake
        patch.setattr(strategies, "hasattr", lambda *_: False, raising=False)
        plain = Program(experiment(overrides))
        plain.run(4)
        assert game.fake is fake
    for a, b in zip(jax.tree.leaves(shared.state), jax.tree.leaves(plain.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_one_discriminator_pass_equals_two():
    """Real and fake go through the discriminator as one batch where no layer couples its examples."""
    e = experiment([*TINY, "model.discriminator.dropout=0.0", "penalty=[r1]"])
    game = e.game
    params, net_state = game.init(jax.random.key(0))
    batch = e.dataset.feed.batch(jax.device_put(e.dataset.arrays), jnp.arange(8), jax.random.key(1))

    def gradient():
        return jax.grad(
            lambda p: game.loss(
                "discriminator", params | {"discriminator": p}, net_state, batch, jax.random.key(2), 0
            )[0]
        )(params["discriminator"])

    assert not game._couples_batch
    together = gradient()
    game._couples_batch = True
    apart = gradient()
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_each_move_commits_its_own_network_state():
    """After the discriminator's move alone the generator's batch statistics are what they were."""
    p = Program(experiment([*TINY, "model.generator.norm=batch", "model.discriminator.norm=batch"]))
    game, state = p.experiment.game, p.state
    batch = p.experiment.dataset.feed.batch(p.arrays, jnp.arange(8), jax.random.key(1))
    _, net_state, _ = strategies._gradient(game, "discriminator", state, batch, jax.random.key(0))
    moved, _ = strategies._move(
        state, "discriminator", p.experiment.optimisers["discriminator"], state.params["discriminator"], net_state
    )
    same = jax.tree.map(lambda a, b: bool((a == b).all()), moved.net_state, state.net_state)
    assert all(jax.tree.leaves(same["generator"]))
    assert not any(jax.tree.leaves(same["discriminator"]))


def test_lazy_penalty_is_due_every_interval_with_its_weight():
    """With SGD and a constant gradient of the penalty, k lazy steps add up to k eager ones."""
    eager, lazy = (
        experiment(
            [*TINY, "optim=sgd", "penalty=[r1]", f"penalty.r1.interval={k}", "model.discriminator.dropout=0.0"]
        )
        for k in (1, 4)
    )
    batch = eager.dataset.feed.batch(jax.device_put(eager.dataset.arrays), jnp.arange(8), jax.random.key(1))
    params, net_state = eager.game.init(jax.random.key(0))

    def losses(game):
        return [
            float(game.loss("discriminator", params, net_state, batch, jax.random.key(2), jnp.int32(step))[0])
            for step in range(8)
        ]

    free = experiment([*TINY, "model.discriminator.dropout=0.0"]).game
    base = np.array(losses(free))
    penalty = np.array(losses(eager.game)) - base
    np.testing.assert_allclose(
        np.array(losses(lazy.game)) - base, 4 * penalty * ([0, 0, 0, 1] * 2), rtol=1e-4, atol=1e-6
    )
