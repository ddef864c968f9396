"""Strategies on games with known trajectories, and shared computations against their plain form."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import TINY, Program, loss_value

from gan_cli import estimators, optim
from gan_cli.config.build import experiment
from gan_cli.data.feed import Selection
from gan_cli.engine.state import TrainSetup, init_state
from gan_cli.errors import UserError
from gan_cli.games.gan import GAN
from gan_cli.games.quadratic import Quadratic
from gan_cli.strategies import (
    alternating,
    competitive,
    consensus,
    extragradient,
    lookahead,
    optimistic,
    simultaneous,
    symplectic,
    unrolled,
)
from gan_cli.strategies.updates import field, gradient, jacobian_product, update_player

LR = 0.1
BILINEAR = Quadratic(x=1.0, y=1.0)
QUADRATIC = {"a": 0.5, "b": 1.3, "c": 0.2}
# The Jacobian of F(x, y) = (a x + b y, c y - b x). F is linear, so the step of every strategy is a matrix.
J = np.array([[QUADRATIC["a"], QUADRATIC["b"]], [-QUADRATIC["b"], QUADRATIC["c"]]])
ONE = np.eye(2)


def play(strategy, game=BILINEAR, steps=30, optimiser=None):
    """The points (x, y) that a strategy visits if both players use ``optimiser``."""
    optimisers = dict.fromkeys(game.players, optimiser or optim.sgd(lr=LR))
    s = strategy(game, estimators.mean())
    s.check(optimisers)
    state, points = init_state(TrainSetup(game, s, optimisers, 0)), []
    step = jax.jit(lambda state, key: s.step(optimisers, state, [{}] * s.batches, key))
    for i in range(steps + 1):
        points.append((float(state.params["x"]), float(state.params["y"])))
        state, metrics = step(state, jax.random.key(i))
        state = state._replace(step=state.step + 1)
    wanted = {f"{player}/{what}" for player in game.players for what in ("loss", "grad_norm")}
    assert set(metrics) >= wanted
    return np.array(points)


# The factor by which a step changes the squared distance in the bilinear game (min over x, max over y of x y).
GROWTH = {
    "simultaneous": (simultaneous.simultaneous, 1 + LR**2),
    "extragradient": (extragradient.extragradient, 1 - LR**2 + LR**4),
    "consensus": (functools.partial(consensus.consensus, gamma=2.0), (1 - 2 * LR) ** 2 + LR**2),
    "symplectic": (functools.partial(symplectic.symplectic, strength=0.5), (1 - LR / 2) ** 2 + LR**2),
    "competitive": (competitive.competitive, 1 / (1 + LR**2)),
}


@pytest.mark.parametrize("name", GROWTH)
def test_growth_of_the_bilinear_game(name):
    strategy, growth = GROWTH[name]
    distance = (play(strategy) ** 2).sum(1)
    np.testing.assert_allclose(distance, 2 * growth ** np.arange(31), rtol=2e-5)


def test_alternating_conserves_its_invariant():
    """x^2 + y^2 - lr x y stays constant, so the game circles for ever (Bailey et al. 2020)."""
    x, y = play(alternating.alternating, steps=200).T
    np.testing.assert_allclose(x**2 + y**2 - LR * x * y, 2 - LR, rtol=1e-4)
    assert np.ptp(np.arctan2(y, x)) > 6


def test_optimistic_converges_at_the_rate_of_its_recurrence():
    """With w = x + i y: w'' = (1 + 2 i lr) w' - i lr w, whose larger root is the rate (Daskalakis et al. 2018)."""
    w = play(optimistic.optimistic, steps=400) @ [1, 1j]
    np.testing.assert_allclose(w[2:], (1 + 2j * LR) * w[1:-1] - 1j * LR * w[:-2], atol=2e-6)
    rate = np.abs(np.roots([1, -(1 + 2j * LR), 1j * LR])).max()
    assert rate < 1
    np.testing.assert_allclose((np.abs(w[400]) / np.abs(w[200])) ** (1 / 200), rate, rtol=1e-4)


def test_lookahead_of_simultaneous_updates():
    """Every k steps, w becomes ((1 - alpha) + alpha (1 + i lr)^k) w (Chavdarova et al. 2021, section 3)."""
    strategy = functools.partial(lookahead.lookahead, inner=simultaneous.simultaneous, interval=4, alpha=0.3)
    w = play(strategy, steps=40) @ [1, 1j]
    turn = 0.7 + 0.3 * (1 + 1j * LR) ** 4
    np.testing.assert_allclose(w[::4], w[0] * turn ** np.arange(11), rtol=1e-4)
    np.testing.assert_allclose(w[1], (1 + 1j * LR) * w[0], rtol=1e-6)


A = (J - J.T) / 2
ACROSS = J - np.diag(np.diag(J))
STEPS = {
    "simultaneous": (simultaneous.simultaneous, ONE - LR * J),
    "extragradient": (extragradient.extragradient, ONE - LR * J @ (ONE - LR * J)),
    "consensus": (functools.partial(consensus.consensus, gamma=0.7), ONE - LR * (J + 0.7 * J.T @ J)),
    "symplectic": (functools.partial(symplectic.symplectic, strength=0.7), ONE - LR * (J + 0.7 * A.T @ J)),
    "competitive": (competitive.competitive, ONE - LR * np.linalg.solve(ONE + LR * ACROSS, J)),
}


@pytest.mark.parametrize("name", STEPS)
def test_step_of_a_quadratic_game(name):
    strategy, matrix = STEPS[name]
    points = play(strategy, Quadratic(**QUADRATIC, x=1.0, y=-2.0), steps=10)
    np.testing.assert_allclose(points[1:], points[:-1] @ matrix.T, rtol=1e-4, atol=1e-6)


def test_unrolled_differentiates_through_the_unrolled_updates():
    """The loss of y is -L(U^k(x), y), which the test differentiates by finite differences."""
    depth, eps = 3, 1e-6
    a, b, c = QUADRATIC.values()

    def foreseen(x, y):
        for _ in range(depth):
            x -= LR * (a * x + b * y)
        return -(a / 2 * x**2 + b * x * y - c / 2 * y**2)

    strategy = functools.partial(unrolled.unrolled, depth=depth)
    points = play(strategy, Quadratic(**QUADRATIC, x=1.0, y=-2.0), steps=10)
    for (x, y), after in itertools.pairwise(points):
        slope = (foreseen(x, y + eps) - foreseen(x, y - eps)) / (2 * eps)
        np.testing.assert_allclose(after, [x - LR * (a * x + b * y), y - LR * slope], rtol=1e-4, atol=1e-5)


def test_competitive_requires_plain_sgd():
    for optimiser in (optim.adam(lr=LR), optim.sgd(lr=LR, clip_norm=1.0), optim.sgd(lr=LR, weight_clip=1.0)):
        with pytest.raises(UserError, match="plain gradient descent"):
            play(competitive.competitive, optimiser=optimiser)


def test_optimistic_strategy_is_the_optimistic_optimiser():
    """Twice the current update minus the previous one is the same method as a strategy and inside Adam."""
    options = {"lr": 0.05, "b1": 0.5, "b2": 0.9}
    strategy = play(optimistic.optimistic, optimiser=optim.adam(**options))
    optimiser = play(simultaneous.simultaneous, optimiser=optim.optimistic_adam(**options))
    np.testing.assert_allclose(strategy, optimiser, rtol=1e-4)


@pytest.mark.parametrize("n_critic", [1, 3])
def test_n_critic_by_hand(n_critic):
    x, y = 1.0, 1.0
    for found in play(functools.partial(alternating.alternating, n_critic=n_critic), steps=5)[1:]:
        for _ in range(n_critic):
            x -= LR * y
        y += LR * x
        np.testing.assert_allclose(found, (x, y), rtol=1e-5)


ALL = ["alternating", "simultaneous", "extragradient", "optimistic", "lookahead", "unrolled", "consensus"]
ALL += ["symplectic", "competitive"]


SLOW = ("symplectic", "competitive", "unrolled", "consensus", "lookahead", "simultaneous")


@pytest.mark.parametrize("strategy", [pytest.param(s, marks=pytest.mark.slow) if s in SLOW else s for s in ALL])
def test_two_short_calls_equal_one_long_call(strategy):
    """The state holds everything that a strategy stores, so 2 + 2 steps and 4 steps give the same bits."""
    optimiser = ["optim=sgd", "optim.clip_norm=null"] if strategy == "competitive" else []
    e = experiment([*TINY, "model.generator.norm=batch", f"strategy={strategy}", *optimiser])
    program = Program(e)
    start, ends = jax.device_get(program.state), []
    for lengths in ((2, 2), (4,)):
        program.state = jax.device_put(start)
        for length in lengths:
            program.run(length)
        ends.append(jax.device_get(program.state))
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_jacobian_products_of_a_convolutional_game():
    """J v, computed by reverse over reverse mode, equals a difference quotient of F; and <w, J v> = <J^T w, v>."""
    smooth = [
        f"model.{p}.{o}"
        for p in ("generator", "discriminator")
        for o in ("width=4", "norm=none", "activation=tanh")
    ]
    e = experiment(["model=dcgan", *smooth, "train.batch_size=4"])
    state = init_state(e.setup)
    batch = e.dataset.feed.batch(
        jax.device_put(e.dataset.examples), Selection({"": jnp.arange(4)}), jax.random.key(1)
    )
    evaluate, params = field(e.game, estimators.mean(), state, batch, jax.random.key(2)), state.params
    keys = iter(jax.random.split(jax.random.key(3), 99))
    v, w = (jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), params) for _ in range(2))
    function = jax.jit(lambda p: evaluate(p)[0])
    pushed = jacobian_product(function, params)(v)
    pulled = jax.vjp(function, params)[1](w)[0]
    np.testing.assert_allclose(optax.tree.vdot(w, pushed), optax.tree.vdot(pulled, v), rtol=1e-3)
    eps = 1e-2
    ahead_, back = (function(jax.tree.map(lambda p, d, s=s: p + s * eps * d, params, v)) for s in (1, -1))
    quotient = jax.tree.map(lambda a, b: (a - b) / (2 * eps), ahead_, back)
    error = optax.tree.norm(jax.tree.map(lambda a, b: a - b, quotient, pushed)) / optax.tree.norm(pushed)
    assert error < 0.02


STATEFUL = [
    *TINY,
    "model.generator.norm=batch",
    "model.discriminator.norm=spectral",
    "model.discriminator.dropout=0.2",
]


@pytest.mark.parametrize(("loss", "n_critic"), [("nonsaturating", 1), ("relativistic", 2)])
def test_shared_pass_equals_the_plain_form(loss, n_critic, monkeypatch):
    """One generator pass per batch equals one pass for each update with the same latents."""
    overrides = [*STATEFUL, f"loss={loss}", f"strategy.n_critic={n_critic}", "optim=sgd"]
    generate, passes = GAN.fake, []

    def counted(*arguments, **named):
        passes.append(arguments)
        return generate(*arguments, **named)

    monkeypatch.setattr(GAN, "fake", counted)

    def trained(shares):
        """The state after four steps, and the number of generator passes in the traced program."""
        # If the game does not share fakes, the strategy repeats the pass with the same key for each update.
        monkeypatch.setattr(GAN, "shares_fakes", shares)
        passes.clear()
        program = Program(experiment(overrides))
        program.run(4)
        return program.state, len(passes)

    (shared, few), (plain, many) = trained(True), trained(False)
    # One pass for each discriminator update; the plain form has another pass for the generator update.
    assert few and many * n_critic == few * (n_critic + 1)
    for a, b in zip(jax.tree.leaves(shared), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_one_discriminator_pass_equals_two():
    """Real and fake examples form one discriminator batch if no layer couples the examples of a batch."""
    e = experiment([*TINY, "model.discriminator.dropout=0.0", "penalty=[r1]"])
    game = e.game
    state = init_state(e.setup)
    batch = e.dataset.feed.batch(
        jax.device_put(e.dataset.examples), Selection({"": jnp.arange(8)}), jax.random.key(1)
    )
    batch = game.noise(batch, jax.random.key(2))

    def of_discriminator():
        found = gradient(game, estimators.mean(), "discriminator", state, batch, jax.random.key(2))
        return found.gradient

    assert not game._couples_batch
    together = of_discriminator()
    game._couples_batch = True
    apart = of_discriminator()
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_each_update_stores_the_network_state_of_its_player_only():
    """An update of the discriminator leaves the batch statistics of the generator unchanged."""
    p = Program(experiment([*TINY, "model.generator.norm=batch", "model.discriminator.norm=batch"]))
    game, state = p.experiment.game, p.state
    batch = p.experiment.dataset.feed.batch(p.arrays, Selection({"": jnp.arange(8)}), jax.random.key(1))
    batch = game.noise(batch, jax.random.key(0))
    net_state = gradient(game, estimators.mean(), "discriminator", state, batch, jax.random.key(0)).net_state
    moved, _ = update_player(
        state, "discriminator", p.experiment.optimisers["discriminator"], state.params["discriminator"], net_state
    )
    same = jax.tree.map(lambda a, b: bool((a == b).all()), moved.net_state, state.net_state)
    assert all(jax.tree.leaves(same["generator"]))
    assert not any(jax.tree.leaves(same["discriminator"]))


def test_lazy_penalty_is_due_every_interval_with_its_weight():
    """With SGD and a constant gradient of the penalty, k lazy steps add up to k eager steps."""
    eager, lazy = (
        experiment(
            [*TINY, "optim=sgd", "penalty=[r1]", f"penalty.r1.interval={k}", "model.discriminator.dropout=0.0"]
        )
        for k in (1, 4)
    )
    batch = eager.dataset.feed.batch(
        jax.device_put(eager.dataset.examples), Selection({"": jnp.arange(8)}), jax.random.key(1)
    )
    params, net_state = eager.game.init(jax.random.key(0))

    def losses(game):
        return [
            float(
                loss_value(game, "discriminator", params, net_state, batch, jax.random.key(2), jnp.int32(step))[0]
            )
            for step in range(8)
        ]

    free = experiment([*TINY, "model.discriminator.dropout=0.0"]).game
    base = np.array(losses(free))
    penalty = np.array(losses(eager.game)) - base
    np.testing.assert_allclose(
        np.array(losses(lazy.game)) - base, 4 * penalty * ([0, 0, 0, 1] * 2), rtol=1e-4, atol=1e-6
    )
