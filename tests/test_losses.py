"""Losses against closed forms: value, and the gradient of each player."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_cli import losses

REAL = np.array([-1.5, 0.2, 0.7, 3.0])
FAKE = np.array([0.4, -2.0, 1.3, 0.9])


def sigma(x):
    return 1 / (1 + np.exp(-x))


# For each loss and player: value, derivative in the real logit, derivative in the fake logit, by hand.
log = np.log
CLOSED_FORMS = {
    ("minimax", "discriminator"): (
        -log(sigma(REAL)) - log(1 - sigma(FAKE)),
        -(1 - sigma(REAL)),
        sigma(FAKE),
    ),
    ("minimax", "generator"): (log(sigma(REAL)) + log(1 - sigma(FAKE)), 1 - sigma(REAL), -sigma(FAKE)),
    ("nonsaturating", "discriminator"): (
        -log(sigma(REAL)) - log(1 - sigma(FAKE)),
        -(1 - sigma(REAL)),
        sigma(FAKE),
    ),
    ("nonsaturating", "generator"): (-log(sigma(FAKE)), 0 * REAL, -(1 - sigma(FAKE))),
    ("lsgan", "discriminator"): (((REAL - 1) ** 2 + FAKE**2) / 2, REAL - 1, FAKE),
    ("lsgan", "generator"): ((FAKE - 1) ** 2 / 2, 0 * REAL, FAKE - 1),
    ("wgan", "discriminator"): (FAKE - REAL, 0 * REAL - 1, 0 * FAKE + 1),
    ("wgan", "generator"): (-FAKE, 0 * REAL, 0 * FAKE - 1),
    ("hinge", "discriminator"): (
        np.maximum(0, 1 - REAL) + np.maximum(0, 1 + FAKE),
        -1.0 * (REAL < 1),
        1.0 * (FAKE > -1),
    ),
    ("hinge", "generator"): (-FAKE, 0 * REAL, 0 * FAKE - 1),
    ("relativistic", "discriminator"): (
        -log(sigma(REAL - FAKE)),
        -(1 - sigma(REAL - FAKE)),
        1 - sigma(REAL - FAKE),
    ),
    ("relativistic", "generator"): (
        -log(sigma(FAKE - REAL)),
        1 - sigma(FAKE - REAL),
        -(1 - sigma(FAKE - REAL)),
    ),
}


@pytest.mark.parametrize(("name", "player"), CLOSED_FORMS)
def test_value_and_gradients(name, player):
    function = getattr(getattr(losses, name)(), player)
    value, in_real, in_fake = CLOSED_FORMS[name, player]
    real, fake = jnp.float32(REAL), jnp.float32(FAKE)
    assert function(real, fake).shape == (4,)
    np.testing.assert_allclose(function(real, fake), value, rtol=1e-5, atol=1e-6)
    gradients = jax.grad(lambda r, f: function(r, f).sum(), (0, 1))(real, fake)
    np.testing.assert_allclose(gradients[0], in_real, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients[1], in_fake, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["minimax", "nonsaturating", "relativistic"])
def test_large_logits_stay_finite(name):
    loss = getattr(losses, name)()
    logits = jnp.array([-1e4, 1e4])
    for function in loss:
        assert np.isfinite(function(logits, -logits)).all()
        assert np.isfinite(jax.grad(lambda f, function=function: function(logits, f).sum())(logits)).all()


def test_minimax_sums_to_zero():
    loss = losses.minimax()
    np.testing.assert_array_equal(loss.discriminator(REAL, FAKE) + loss.generator(REAL, FAKE), 0 * REAL)
