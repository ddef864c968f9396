"""Optimisers: first moves by hand, clipping, projection, schedules, and PyTorch's own where it is installed."""

from __future__ import annotations

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_cli import optim


def trajectory(optimiser, start, gradient, steps):
    """Points visited by an optimiser under ``gradient(x)``."""
    x, points = jnp.array(start), []
    state = optimiser.init(x)
    for _ in range(steps):
        updates, state = optimiser.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
        points.append(np.asarray(x))
    return np.array(points)


def constant(*gradient):
    return lambda x: jnp.array(gradient)


def test_first_moves_by_hand():
    start, g = [1.0, -2.0], np.array([0.5, -3.0])
    move = trajectory(optim.sgd(lr=0.1), start, constant(*g), 2)
    np.testing.assert_allclose(move, [start - 0.1 * g, start - 0.2 * g], rtol=1e-6)
    move = trajectory(optim.momentum(lr=0.1, momentum=0.5), start, constant(*g), 2)
    np.testing.assert_allclose(move, [start - 0.1 * g, start - 0.1 * g - 0.15 * g], rtol=1e-6)
    # Adam's and RMSprop's first move is lr * sign(g), up to bias correction.
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
        ({"schedule": "constant", "warmup_steps": 2}, [0, 0.5, 1, 1, 1]),
        ({"schedule": "linear", "decay_steps": 4, "warmup_steps": 2}, [0, 0.5, 1, 0.5, 0]),
    ],
)
def test_schedules(options, rates):
    points = trajectory(optim.sgd(lr=1.0, **options), [0.0], constant(1.0), 5)
    np.testing.assert_allclose(-np.diff(np.concatenate([[[0.0]], points]), axis=0)[:, 0], rates, atol=1e-6)


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
def test_as_in_pytorch(ours, theirs):
    torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
    name, options = theirs
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimiser = getattr(torch.optim, name)([x], **options)
    for _ in range(10):
        optimiser.zero_grad()
        (torch.sin(x) + x**2).sum().backward()
        optimiser.step()
    points = trajectory(ours, [1.0, -2.0], lambda x: jnp.cos(x) + 2 * x, 10)
    np.testing.assert_allclose(points[-1], x.detach().numpy(), rtol=1e-4)


def test_options_are_those_of_the_chain():
    """What the YAML may set is what the chain takes: neither list can grow without the other."""
    chain = [name for name, p in inspect.signature(optim._chain).parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert sorted(chain) == sorted(optim.Options.__annotations__)
