"""Penalties against closed forms on critics whose gradients are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_cli import penalties

REAL = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
FAKE = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def critic(params, x):
    """w.x + a/2 |x|^2, whose gradient in x is w + a x."""
    return x @ params["w"] + params["a"] / 2 * (x**2).sum(1)


def test_wgan_gp():
    """On a linear critic the gradient is w everywhere, so the penalty is (|w| - 1)^2 wherever it is taken."""
    penalty, w = penalties.wgan_gp(weight=7.0), np.array([0.5, -1.0, 2.0], np.float32)
    assert (penalty.weight, penalty.interval) == (7.0, 1)

    def value(params, real=REAL, fake=FAKE, seed=0):
        return penalty.function(critic, params, real, fake, jax.random.key(seed))

    norm = np.linalg.norm(w)
    found, gradient = jax.value_and_grad(value)({"w": jnp.array(w), "a": jnp.float32(0)})
    np.testing.assert_allclose(found, (norm - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(gradient["w"], 2 * (norm - 1) * w / norm, rtol=1e-4)
    # |x|^2/2 has the gradient x: between two equal points it is that point, between others on the line of them.
    curved = {"w": jnp.zeros(3), "a": jnp.float32(1)}
    np.testing.assert_allclose(
        value(curved, REAL, REAL), np.mean((np.linalg.norm(REAL, axis=1) - 1) ** 2), rtol=1e-4
    )
    axis = np.zeros((2000, 3), np.float32)
    axis[:, 0] = 1  # from 0 to (1, 0, 0): E (e - 1)^2 with e uniform is 1/3
    np.testing.assert_allclose(value(curved, axis, 0 * axis), 1 / 3, atol=0.03)
    flat = jax.grad(value)({"w": jnp.zeros(3), "a": jnp.float32(0)})
    assert np.isfinite(flat["w"]).all()


@pytest.mark.parametrize(("name", "points"), [("r1", REAL), ("r2", FAKE)])
def test_value_and_gradient(name, points):
    w, a = np.array([0.5, -1.0, 2.0], np.float32), np.float32(0.3)
    penalty = getattr(penalties, name)(gamma=2.5, interval=4)
    assert (penalty.weight, penalty.interval) == (2.5, 4)

    def value(params):
        return penalty.function(critic, params, REAL, FAKE, jax.random.key(0))

    slope = w + a * points
    found, gradient = jax.value_and_grad(value)({"w": jnp.array(w), "a": jnp.array(a)})
    np.testing.assert_allclose(found, 0.5 * (slope**2).sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient["w"], slope.mean(0), rtol=1e-4)
    np.testing.assert_allclose(gradient["a"], (slope * points).sum(1).mean(), rtol=1e-4)
