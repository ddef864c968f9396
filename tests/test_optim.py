"""Optimisers: first updates by hand, clipping, projection, schedules, and PyTorch's optimisers if installed."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import import_reference

from gan_cli import optim


def trajectory(optimiser, start, gradient, steps):
    """The points that an optimiser visits if the gradient at x is ``gradient(x)``."""
    x, points = jnp.array(start), []
    state = optimiser.init(x)
    for _ in range(steps):
        updates, state = optimiser.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
        points.append(np.asarray(x))
    return np.array(points)


def constant(*gradient):
    return lambda x: jnp.array(gradient)


def test_first_updates_by_hand():
    start, g = [1.0, -2.0], np.array([0.5, -3.0])
    move = trajectory(optim.sgd(lr=0.1), start, constant(*g), 2)
    np.testing.assert_allclose(move, [start - 0.1 * g, start - 0.2 * g], rtol=1e-6)
    move = trajectory(optim.momentum(lr=0.1, momentum=0.5), start, constant(*g), 2)
    np.testing.assert_allclose(move, [start - 0.1 * g, start - 0.1 * g - 0.15 * g], rtol=1e-6)
    # The first update of Adam and RMSprop is lr * sign(g), up to bias correction.
    np.testing.assert_allclose(
        trajectory(optim.adam(lr=0.1), start, constant(*g), 1)[0], start - 0.1 * np.sign(g), rtol=1e-5
    )
    np.testing.assert_allclose(
        trajectory(optim.rmsprop(lr=0.1, decay=0.75), start, constant(*g), 1)[0],
        start - 0.1 / 0.5 * np.sign(g),
        rtol=1e-5,
    )
    decayed = trajectory(optim.adamw(lr=0.1, weight_decay=0.2), start, constant(*g), 1)[0]
    np.testing.assert_allclose(decayed, start - 0.1 * (np.sign(g) + 0.2 * np.array(start)), rtol=1e-5)


def test_clipping_and_projection():
    g = np.array([3.0, -4.0])
    clipped = trajectory(optim.sgd(lr=1.0, clip_norm=1.0), [0.0, 0.0], constant(*g), 1)[0]
    np.testing.assert_allclose(clipped, -g / 5, rtol=1e-6)
    clipped = trajectory(optim.sgd(lr=1.0, clip_value=3.5), [0.0, 0.0], constant(*g), 1)[0]
    np.testing.assert_allclose(clipped, [-3.0, 3.5], rtol=1e-6)
    boxed = trajectory(optim.sgd(lr=1.0, weight_clip=0.5), [0.4, -0.3], constant(*g), 1)[0]
    np.testing.assert_allclose(boxed, [-0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"schedule": "linear", "decay_steps": 4}, [1, 0.75, 0.5, 0.25, 0]),
        ({"schedule": "cosine", "decay_steps": 4}, [(1 + np.cos(np.pi * t / 4)) / 2 for t in range(5)]),
        ({"schedule": "constant_linear", "decay_steps": 6}, [1, 1, 1, 1, 2 / 3, 1 / 3, 0, 0]),
        ({"schedule": "constant_linear", "decay_steps": 6, "warmup_steps": 2}, [0, 0.5, 1, 1, 2 / 3, 1 / 3, 0]),
        ({"schedule": "constant", "warmup_steps": 2}, [0, 0.5, 1, 1, 1]),
        ({"schedule": "linear", "decay_steps": 4, "warmup_steps": 2}, [0, 0.5, 1, 0.5, 0]),
        ({"schedule": "linear", "decay_steps": 4, "lr_end": 0.2}, [1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        (
            {"schedule": "cosine", "decay_steps": 4, "lr_end": 0.2},
            [*(0.2 + 0.8 * (1 + np.cos(np.pi * t / 4)) / 2 for t in range(5)), 0.2],
        ),
    ],
)
def test_schedules(options, rates):
    points = trajectory(optim.sgd(lr=1.0, **options), [0.0], constant(1.0), len(rates))
    np.testing.assert_allclose(-np.diff(np.concatenate([[[0.0]], points]), axis=0)[:, 0], rates, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.adam(lr=0.05, b1=0.5), optax.adam(0.05, b1=0.5)),
        (optim.adamw(lr=0.05, weight_decay=0.1), optax.adamw(0.05, weight_decay=0.1)),
        (optim.amsgrad(lr=0.05, b2=0.9), optax.amsgrad(0.05, b2=0.9)),
        (optim.adabelief(lr=0.05, eps_root=1e-12), optax.adabelief(0.05, eps=1e-16, eps_root=1e-12)),
        (
            optim.optimistic_adam(lr=0.05),
            optax.chain(
                optax.scale_by_adam(), optax.scale_by_optimistic_gradient(), optax.scale_by_learning_rate(0.05)
            ),
        ),
        (optim.schedule_free(lr=0.05), optax.contrib.schedule_free_adamw(0.05)),
    ],
)
def test_optimisers_equal_optaxs(ours, theirs):
    """The updates of a hundred steps in one program, in which XLA fuses the operations of an optimiser."""
    slopes = np.random.default_rng(0).normal(size=(100, 3, 40)) * np.logspace(-6, 2, 40)

    @jax.jit
    def points(slopes):
        def step(carry, slope):
            x, mine, yours = carry
            moves, mine = ours.update(slope, mine, x[0])
            others, yours = theirs.update(slope, yours, x[1])
            x = optax.apply_updates(x, (moves, others))
            return (x, mine, yours), x

        start = jnp.ones((3, 40)), jnp.ones((3, 40))
        return jax.lax.scan(step, (start, ours.init(start[0]), theirs.init(start[1])), slopes)[1]

    found, expected = points(slopes.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.comparison
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.adam(lr=0.05, b1=0.5, b2=0.9), ("Adam", {"lr": 0.05, "betas": (0.5, 0.9)})),
        (optim.adamw(lr=0.05, weight_decay=0.1), ("AdamW", {"lr": 0.05, "weight_decay": 0.1})),
        (optim.momentum(lr=0.05, momentum=0.8), ("SGD", {"lr": 0.05, "momentum": 0.8})),
        (
            optim.momentum(lr=0.05, momentum=0.8, nesterov=True),
            ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
        ),
    ],
)
def test_optimisers_equal_pytorchs(ours, theirs):
    torch = import_reference("torch")
    name, options = theirs
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimiser = getattr(torch.optim, name)([x], **options)
    for _ in range(10):
        optimiser.zero_grad()
        (torch.sin(x) + x**2).sum().backward()
        optimiser.step()
    points = trajectory(ours, [1.0, -2.0], lambda x: jnp.cos(x) + 2 * x, 10)
    np.testing.assert_allclose(points[-1], x.detach().numpy(), rtol=1e-4)


@pytest.mark.comparison
def test_scheduled_b2_equals_pytorchs():
    """R3GAN's trainer sets a new b2 in PyTorch's Adam before each update."""
    torch = import_reference("torch")
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=0.05, betas=(0.5, 0.999))
    for t in range(10):
        decay = 0.99 + (0.9 - 0.99) * (1 + np.cos(np.pi * min(t / 6, 1))) / 2
        optimiser.param_groups[0]["betas"] = (0.5, decay)
        optimiser.zero_grad()
        (torch.sin(3 * x) + x**2).sum().backward()
        optimiser.step()
    ours = optim.adam(lr=0.05, b1=0.5, b2=0.99, b2_start=0.9, decay_steps=6)
    points = trajectory(ours, [1.0, -2.0], lambda x: 3 * jnp.cos(3 * x) + 2 * x, 10)
    np.testing.assert_allclose(points[-1], x.detach().numpy(), rtol=1e-4)


def test_lion_updates_by_the_sign():
    """b1 mixes the gradient into the momentum for the update, b2 into the stored momentum (algorithm 2)."""
    x, m, g = np.array([1.0, -2.0]), np.zeros(2), None
    points = trajectory(optim.lion(lr=0.1, b1=0.9, b2=0.5), x, lambda x: jnp.cos(3 * x), 6)
    for found in points:
        g = np.cos(3 * x)
        x, m = x - 0.1 * np.sign(0.9 * m + 0.1 * g), 0.5 * m + 0.5 * g
        np.testing.assert_allclose(found, x, rtol=1e-5)


def test_amsgrad_never_forgets_a_large_gradient():
    """The update is divided by the largest second moment (algorithm 2, with Adam's bias correction of both)."""
    x, m, v, top = 0.0, 0.0, 0.0, 0.0
    slopes = [4.0, 0.1, 0.1, 0.1]
    feed = iter(slopes)
    points = trajectory(optim.amsgrad(lr=0.1, b1=0.5, b2=0.5), [0.0], lambda x: jnp.array([next(feed)]), 4)
    for t, (g, found) in enumerate(zip(slopes, points, strict=True), start=1):
        m, v = 0.5 * m + 0.5 * g, 0.5 * v + 0.5 * g**2
        top = max(top, v / (1 - 0.5**t))
        x -= 0.1 * m / (1 - 0.5**t) / top**0.5
        np.testing.assert_allclose(found[0], x, rtol=1e-5)


def test_adabelief_first_update():
    """The first second moment is s = (1 - b2) (g - m)^2 with m = (1 - b1) g."""
    g = np.array([0.5, -3.0])
    move = trajectory(optim.adabelief(lr=0.1, b1=0.5, b2=0.9), [1.0, -2.0], constant(*g), 1)[0]
    np.testing.assert_allclose(move, [1.0, -2.0] - 0.1 * g / np.abs(g - 0.5 * g), rtol=1e-5)


def test_muon_orthogonalises_updates_of_matrices():
    """A kernel's update has nearly equal singular values and root mean square 0.2 lr; a bias has Adam's update."""
    params = {"kernel": jnp.zeros((3, 3, 4, 8)), "bias": jnp.zeros(5)}
    keys = jax.random.split(jax.random.key(0))
    slope = {"kernel": jax.random.normal(keys[0], (3, 3, 4, 8)), "bias": jax.random.normal(keys[1], 5)}
    optimiser = optim.muon(lr=0.1, beta=0.0)
    updates, _ = optimiser.update(slope, optimiser.init(params), params)
    matrix = np.asarray(updates["kernel"]).reshape(36, 8)
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), 0.1 * 0.2 * 6, rtol=0.35)
    assert (matrix * np.asarray(slope["kernel"]).reshape(36, 8)).sum() < 0
    sizes = -updates["bias"] * np.sign(slope["bias"])
    assert (sizes > 0).all() and np.ptp(sizes) < 1e-6


def test_schedule_free_evaluates_the_average_of_all_points():
    """With a constant rate, x is the mean of all z (Defazio et al. 2024, eq. 1 to 3); samples come from x."""
    optimiser = optim.schedule_free(lr=0.1, b1=0.9)
    y, z, x = np.full(2, 3.0), np.full(2, 3.0), np.full(2, 3.0)
    params = jnp.array(y)
    state, v = optimiser.init(params), np.zeros(2)
    for t in range(1, 6):
        g = np.array([1.0, -0.5]) * y
        updates, state = optimiser.update(jnp.array([1.0, -0.5]) * params, state, params)
        params = optax.apply_updates(params, updates)
        v = 0.999 * v + 0.001 * g**2
        z = z - 0.1 * g / np.sqrt(v / (1 - 0.999**t))
        x = x + (z - x) / t
        y = 0.1 * z + 0.9 * x
        np.testing.assert_allclose(params, y, rtol=1e-4)
        np.testing.assert_allclose(optimiser.evaluation_params(state, params), x, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["adam", "amsgrad", "adabelief", "optimistic_adam", "rmsprop", "muon", "schedule_free"]
)
def test_updates_are_differentiable_at_zero_gradients(name):
    """Unrolling differentiates through updates, so a parameter with zero gradient must not give NaN."""
    optimiser = getattr(optim, name)(lr=0.1)

    def moved(slope):
        params = {"kernel": jnp.ones((2, 2))}
        state = optimiser.init(params)
        for _ in range(2):
            updates, state = optimiser.update({"kernel": slope}, state, params)
            params = optax.apply_updates(params, updates)
        return params["kernel"].sum()

    assert np.isfinite(jax.grad(moved)(jnp.array([[0.0, 1.0], [0.5, 0.0]]))).all()


def test_options_list_the_parameters_of_chain():
    """``Options`` annotates exactly the keyword-only parameters of ``chain``."""
    chain = [name for name, p in inspect.signature(optim.chain).parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert sorted(chain) == sorted(optim.Options.__annotations__)
