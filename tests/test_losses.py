"""Losses against closed forms: the value and the gradients of each player's loss."""

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


# For each loss and player, by hand: value, derivative in the real logit, derivative in the fake logit.
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


@pytest.mark.parametrize("name", ["minimax", "nonsaturating", "relativistic", "relativistic_average"])
def test_large_logits_stay_finite(name):
    loss = getattr(losses, name)()
    logits = jnp.array([-1e4, 1e4])
    for function in (loss.discriminator, loss.generator):
        assert np.isfinite(function(logits, -logits)).all()
        assert np.isfinite(jax.grad(lambda f, function=function: function(logits, f).sum())(logits)).all()


def test_minimax_sums_to_zero():
    loss = losses.minimax()
    np.testing.assert_array_equal(loss.discriminator(REAL, FAKE) + loss.generator(REAL, FAKE), 0 * REAL)


def test_relativistic_average():
    """Equations 13 and 14 of the paper, with D~ = sigma(logit - mean logit of the opposite kind)."""
    loss = losses.relativistic_average()
    d_real, d_fake = sigma(REAL - FAKE.mean()), sigma(FAKE - REAL.mean())
    np.testing.assert_allclose(loss.discriminator(REAL, FAKE), -log(d_real) - log(1 - d_fake), rtol=1e-5)
    np.testing.assert_allclose(loss.generator(REAL, FAKE), -log(d_fake) - log(1 - d_real), rtol=1e-5)


@pytest.mark.parametrize("name", ["minimax", "nonsaturating"])
def test_label_smoothing_is_cross_entropy_with_soft_targets(name):
    import optax

    loss = getattr(losses, name)(smoothing=0.1)
    real, fake = jnp.float32(REAL), jnp.float32(FAKE)
    expected = optax.sigmoid_binary_cross_entropy(real, 0.9) + optax.sigmoid_binary_cross_entropy(fake, 0.0)
    np.testing.assert_allclose(loss.discriminator(real, fake), expected, rtol=1e-5)


P, Q = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.1, 0.25, 0.25])
U = P / Q
M = (P + Q) / 2
# For each divergence of P from Q: its value, and the logits at which T = f'(p / q), where the bound is tight.
DIVERGENCES = {
    "kl": ((P * log(U)).sum(), 1 + log(U)),
    "reverse_kl": ((Q * log(1 / U)).sum(), log(U)),
    "pearson": (((P - Q) ** 2 / Q).sum(), 2 * (U - 1)),
    "squared_hellinger": (((P**0.5 - Q**0.5) ** 2).sum(), log(U) / 2),
    "jensen_shannon": ((P * log(P / M)).sum() + (Q * log(Q / M)).sum(), log(U)),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_fgan_bound_is_the_divergence_at_the_best_discriminator(name):
    value, logits = DIVERGENCES[name]
    loss = losses.fgan(divergence=name, saturating=True)

    def bound(logits):
        # Each pair of a real and a fake outcome is weighted with its probability.
        real, fake = jnp.repeat(logits, 4), jnp.tile(logits, 4)
        return -(jnp.repeat(P, 4) * jnp.tile(Q, 4) * loss.discriminator(real, fake)).sum()

    np.testing.assert_allclose(bound(jnp.float32(logits)), value, rtol=1e-4, atol=1e-5)
    slope = jax.grad(bound)(jnp.float32(logits))
    np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_fgan_of_jensen_shannon_is_minimax():
    """The two losses differ by the constant 2 log 2 (Nowozin et al. 2016, section 2.4)."""
    fgan, minimax = losses.fgan(saturating=True), losses.minimax()
    real, fake = jnp.float32(REAL), jnp.float32(FAKE)
    for ours, theirs, sign in zip(fgan[:2], minimax[:2], (1, -1), strict=True):
        np.testing.assert_allclose(ours(real, fake) - theirs(real, fake), -sign * 2 * log(2), rtol=1e-5)


ALL = [
    *(losses.minimax(smoothing=s) for s in (0.0, 0.2)),
    *(losses.nonsaturating(smoothing=s) for s in (0.0, 0.2)),
    *(losses.fgan(divergence=divergence) for divergence in DIVERGENCES),
    *(losses.lsgan(), losses.hinge(), losses.wgan(), losses.relativistic(), losses.relativistic_average()),
]


@pytest.mark.parametrize("loss", ALL)
def test_boundary_is_the_best_logit_where_real_and_generated_are_equally_likely(loss):
    """The discriminator's loss with one logit for both kinds is smallest at the boundary.

    A loss without a boundary does not change when all logits are shifted.
    """
    real, fake, boundary = jnp.asarray(REAL), jnp.asarray(FAKE), loss.boundary
    if boundary is None:
        np.testing.assert_allclose(
            loss.discriminator(real + 5, fake + 5), loss.discriminator(real, fake), rtol=1e-5
        )
        real, fake, boundary = real + 5, fake + 5, 5 + (REAL.mean() + FAKE.mean()) / 2
    slope = jax.grad(lambda d: loss.discriminator(d, d).mean())(jnp.float32(boundary))
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    for found, logits in zip(loss.above_boundary(real, fake), (real, fake), strict=True):
        np.testing.assert_allclose(found, logits - boundary, rtol=1e-5, atol=1e-6)
