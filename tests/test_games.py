"""The Dirac-GAN: which methods converge, and how fast (Mescheder et al. 2018, section 3 and appendix D)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_cli.config.build import experiment
from gan_cli.engine.state import init_state
from gan_cli.engine.steps import compile_chunk

LR, STEPS = 0.1, 600


def distances(*overrides, steps=STEPS):
    """The distance to the equilibrium after each step; at the start, data and generator are 1 apart."""
    e = experiment(["experiment=dirac_gan", f"optim.lr={LR}", "train.ema=0", *overrides])
    program = compile_chunk(e.setup, e.dataset.feed, e.train.batch_size, e.train.ema)
    _, metrics, _ = program(init_state(e.setup), jax.device_put(e.dataset.examples), steps)
    return np.asarray(metrics["distance"])


SIMULTANEOUS, ALTERNATING = "strategy=simultaneous", "strategy=alternating"


def rate(found):
    """The factor by which a step changes the distance, over the last third of the steps."""
    return (found[-1] / found[-STEPS // 3]) ** (3 / STEPS)


def test_r1_converges_at_the_eigenvalue_of_its_jacobian():
    """The eigenvalues are gamma/2 +- sqrt(gamma^2/4 - f'(0)^2), with f'(0) = 1/2.

    (The paper's lemma for gradient penalties on the Dirac-GAN.)
    """
    for gamma in (0.5, 2.0):
        eigenvalues = np.array([gamma / 2 + s * np.sqrt(complex(gamma**2 / 4 - 0.25)) for s in (1, -1)])
        expected = np.abs(1 - LR * eigenvalues).max()
        found = distances("loss=minimax", "penalty=[r1]", f"penalty.r1.gamma={gamma}", SIMULTANEOUS)
        np.testing.assert_allclose(rate(found), expected, rtol=2e-3)


def test_consensus_converges_at_its_eigenvalue():
    """Consensus adds gamma J^T J, so a linearised step has the eigenvalue 1 - lr (i/2 + gamma/4)."""
    found = distances("loss=minimax", "strategy=consensus", "strategy.gamma=1.0")
    np.testing.assert_allclose(rate(found), abs(1 - LR * (0.5j + 0.25)), rtol=1e-3)


def test_unpenalised_minimax_diverges_with_simultaneous_and_circles_with_alternating_updates():
    grown = distances("loss=minimax", SIMULTANEOUS)
    assert (np.diff(grown) > 0).all() and grown[-1] > 1.5 * grown[0]
    circling = distances("loss=minimax", ALTERNATING, steps=3000)
    assert 0.8 < circling[-1000:].max() / circling[:1000].max() < 1.25


def test_nonsaturating_converges_slowly():
    """Without a penalty, convergence is sublinear: the factor between successive peaks approaches 1."""
    found = distances("loss=nonsaturating", ALTERNATING, steps=6000)
    peaks = [found[i : i + 500].max() for i in range(0, 6000, 500)]
    assert (np.diff(peaks) < 0).all() and peaks[-1] > 0.05
    factors = np.array(peaks[1:]) / np.array(peaks[:-1])
    assert factors[-1] > factors[0]


def test_wgan_circles_and_wgan_gp_does_not_converge():
    """With f(t) = t, alternating updates circle.

    WGAN-GP is not differentiable at the equilibrium, so it stays at a distance from the equilibrium.
    """
    plain = distances("loss=wgan", ALTERNATING, steps=2000)
    np.testing.assert_allclose(plain[-500:].max(), plain[:500].max(), rtol=0.01)
    penalised = distances("loss=wgan", "penalty=[wgan_gp]", "penalty.wgan_gp.weight=1.0", ALTERNATING, steps=6000)
    tail = penalised[-1000:]
    assert tail.min() > 0.02, tail.min()


def test_instance_noise_converges_up_to_sampling_noise():
    """Near the equilibrium, instance noise equals R1 with gamma = 2 std^2 in expectation.

    Random sampling keeps the distance within a small ball instead of at zero.
    """
    noisy = distances(
        "loss=minimax", "augment=[noise]", "augment.noise.std=0.7", SIMULTANEOUS, "train.batch_size=512", steps=1500
    )
    silent = distances("loss=minimax", SIMULTANEOUS, steps=1500)
    assert noisy[-200:].max() < 0.25 < 1.0 < silent[-1]


def test_model_dirac_needs_points():
    from gan_cli.errors import UserError

    with pytest.raises(UserError, match="dataset=point"):
        experiment(["experiment=dirac_gan", "dataset=ring"])
    assert jnp.isfinite(distances("loss=hinge", steps=5)).all()
