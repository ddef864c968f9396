"""Penalties against closed forms, on critics with known gradients."""

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
    """A linear critic has the gradient w everywhere, so its penalty is (|w| - 1)^2 at every point."""
    penalty, w = penalties.wgan_gp(weight=7.0), np.array([0.5, -1.0, 2.0], np.float32)
    assert (penalty.weight, penalty.interval) == (7.0, 1)

    def value(params, real=REAL, fake=FAKE, seed=0):
        return penalty.function(critic, params, real, fake, jax.random.key(seed)).mean()

    norm = np.linalg.norm(w)
    found, gradient = jax.value_and_grad(value)({"w": jnp.array(w), "a": jnp.float32(0)})
    np.testing.assert_allclose(found, (norm - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(gradient["w"], 2 * (norm - 1) * w / norm, rtol=1e-4)
    # The critic |x|^2/2 has the gradient x. If real and fake examples are equal, the penalty is computed at the
    # examples; otherwise it is computed at points on the lines between them.
    curved = {"w": jnp.zeros(3), "a": jnp.float32(1)}
    np.testing.assert_allclose(
        value(curved, REAL, REAL), np.mean((np.linalg.norm(REAL, axis=1) - 1) ** 2), rtol=1e-4
    )
    axis = np.zeros((2000, 3), np.float32)
    axis[:, 0] = 1  # points from 0 to (1, 0, 0): E (e - 1)^2 = 1/3 for e uniform in [0, 1]
    np.testing.assert_allclose(value(curved, axis, 0 * axis), 1 / 3, atol=0.03)
    flat = jax.grad(value)({"w": jnp.zeros(3), "a": jnp.float32(0)})
    assert np.isfinite(flat["w"]).all()


@pytest.mark.parametrize(("name", "points"), [("r1", REAL), ("r2", FAKE)])
def test_value_and_gradient(name, points):
    w, a = np.array([0.5, -1.0, 2.0], np.float32), np.float32(0.3)
    penalty = getattr(penalties, name)(gamma=2.5, interval=4)
    assert (penalty.weight, penalty.interval) == (2.5, 4)

    def value(params):
        return penalty.function(critic, params, REAL, FAKE, jax.random.key(0)).mean()

    slope = w + a * points
    found, gradient = jax.value_and_grad(value)({"w": jnp.array(w), "a": jnp.array(a)})
    np.testing.assert_allclose(found, 0.5 * (slope**2).sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient["w"], slope.mean(0), rtol=1e-4)
    np.testing.assert_allclose(gradient["a"], (slope * points).sum(1).mean(), rtol=1e-4)


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_gamma_follows_half_a_cosine(name):
    weight = getattr(penalties, name)(gamma=2.0, gamma_end=0.2, decay_steps=8).weight
    expected = [2.0, 0.2 + 1.8 * (1 + np.cos(np.pi / 4)) / 2, 1.1, 0.2, 0.2]
    np.testing.assert_allclose([weight(step) for step in (0, 2, 4, 8, 100)], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["one_sided_gp", "dragan", "wgan_gp"])
@pytest.mark.parametrize("length", [0.5, 3.0])
def test_gradient_norm_penalties_of_a_linear_critic(name, length):
    params = {"w": jnp.array([0.6, 0.0, -0.8]) * length, "a": jnp.float32(0)}
    found = getattr(penalties, name)().function(critic, params, REAL, FAKE, jax.random.key(0)).mean()
    expected = max(0, length - 1) ** 2 if name == "one_sided_gp" else (length - 1) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_dragan_is_computed_near_the_data():
    """The critic |x|^2/2 has the gradient x, so the penalty depends on the points at which it is computed.

    Constant data have standard deviation zero and are not perturbed. Other data are perturbed by half their
    standard deviation, times two factors that are uniform in [0, 1).
    """
    curved, point = {"w": jnp.zeros(3), "a": jnp.float32(1)}, np.full((4, 3), 2.0, np.float32)
    found = penalties.dragan().function(critic, curved, point, FAKE, jax.random.key(0)).mean()
    np.testing.assert_allclose(found, (np.sqrt(12) - 1) ** 2, rtol=1e-5)
    # The data are 100 and -100, so the gradient norm is 100 plus or minus the perturbation.
    wide = np.zeros((20_000, 1), np.float32)
    wide[::2], wide[1::2] = 100, -100
    curved = {"w": jnp.zeros(1), "a": jnp.float32(1)}
    found = penalties.dragan().function(critic, curved, wide, FAKE, jax.random.key(0)).mean()
    moved = 50 * np.multiply(*np.random.default_rng(0).uniform(size=(2, 1_000_000)))
    expected = ((100 + moved - 1) ** 2).mean() / 2 + ((100 - moved - 1) ** 2).mean() / 2
    np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_orthogonal():
    """Orthogonal columns of any length have no penalty; a pair of other columns adds twice its squared cosine."""
    function = penalties.orthogonal().function
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 3)))[0].astype(np.float32) * [1, 5, 0.1]
    params = {"kernel": jnp.float32(turn).reshape(2, 2, 3, 3), "bias": jnp.ones(3)}
    np.testing.assert_allclose(function(None, params, REAL, FAKE, None), 0, atol=1e-10)
    angle = {"kernel": jnp.array([[1.0, 0.6], [0.0, 0.8]])}
    np.testing.assert_allclose(function(None, angle, REAL, FAKE, None), 2 * 0.6**2, rtol=1e-5)


def test_consistency():
    """On flat images, the pixel sum does not change under augmentation, so its penalty is zero.

    On points, a linear critic has the variance of the noise in its logit as its penalty.
    """
    function = penalties.consistency().function
    flat = jnp.ones((4, 8, 8, 1)) * jnp.arange(4.0)[:, None, None, None]
    assert function(lambda p, x: x.sum((1, 2, 3)), None, flat, flat, jax.random.key(0)).mean() == 0
    left = jnp.concatenate([jnp.ones((64, 8, 4, 1)), -jnp.ones((64, 8, 4, 1))], axis=2)
    assert function(lambda p, x: x[:, :, 0].mean((1, 2)), None, left, left, jax.random.key(0)).mean() > 1
    points = np.random.default_rng(0).normal(size=(20000, 3)).astype(np.float32)
    w = {"w": jnp.array([1.0, -2.0, 2.0]), "a": jnp.float32(0)}
    found = function(critic, w, points, points, jax.random.key(0)).mean()
    np.testing.assert_allclose(found, (0.05 * points.std() * 3) ** 2, rtol=0.05)
