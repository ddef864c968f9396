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
