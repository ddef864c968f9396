"""Monitors of a run: diversity and collapse, eigenvalues of the Jacobian, and the logged figures of each step."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from conftest import TINY, command, environment

import gan_cli
from gan_cli.config.build import experiment
from gan_cli.data.mnist5k import mnist5k
from gan_cli.metrics import eigenvalues
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.diversity import Diversity, vendi
from gan_cli.metrics.fid import distance, moments
from gan_cli.metrics.modes import coverage
from gan_cli.storage.run_directory import facts as facts_of
from gan_cli.training.monitors import ModeCollapseMonitor, PosteriorCollapseMonitor


def test_vendi_counts_different_points():
    """k groups of equal points, far apart, count as k points (Friedman and Dieng 2023, section 3)."""
    for k in (1, 3, 8):
        points = np.repeat(100.0 * np.arange(k)[:, None], 24 // k, axis=0)
        np.testing.assert_allclose(vendi(points, 1.0), k, rtol=1e-6)
    uneven = np.array([[0.0]] * 3 + [[100.0]])
    np.testing.assert_allclose(vendi(uneven, 1.0), np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)), rtol=1e-6)


def test_diversity_of_digits():
    data = mnist5k()
    real = data.spread(128)
    measure = Diversity(real)
    other = data.spread(1000)[5::7][:128]
    assert 0.9 < measure(other) < 1.1
    assert measure(np.repeat(other[:1], 128, 0)) < 0.02
    assert (
        measure(other[data.examples["label"][np.linspace(0, data.size - 1, 1000).astype(int)[5::7][:128]] == 1])
        < 0.5
    )
    assert measure(np.full_like(other, np.nan)) == 0


def test_collapse_is_suspected_after_low_diversity_twice_in_a_row_or_at_the_end():
    def told(*values):
        watch = ModeCollapseMonitor()
        for at, value in enumerate(values):
            watch.observe(at, {"diversity": value})
        watch.observe_end(len(values), {"diversity": values[-1]})
        return watch.suspected_at

    assert told(0.2, 0.7, 0.9) is None  # low diversity is normal at the start
    assert told(0.8, 0.3, 0.9) is None
    assert told(0.8, 0.3, 0.2, 0.2) == 2
    assert told(0.8, 0.9, 0.1) == 3
    assert told(0.1, 0.1, 0.8) is None  # recovered


def test_posterior_collapse_is_suspected_while_the_kl_term_is_near_0():
    def told(*values):
        watch = PosteriorCollapseMonitor()
        for at, value in enumerate(values):
            watch.observe(at, {"vae/kl": value})
        watch.observe_end(len(values), {"vae/kl": values[-1]})
        return watch.suspected_at

    assert told(0.001, 3.0, 12.0) is None  # the KL term begins near 0
    assert told(20.0, 0.02, 0.01, 0.01) == 2
    assert told(20.0, 0.05) == 2
    watch = PosteriorCollapseMonitor()
    watch.observe_end(7, {"discriminator/loss": 0.0, "diversity": 0.0})  # a GAN has no KL term
    assert watch.suspected_at is None


def test_advice_omits_options_that_are_already_set():
    def advice(*overrides):
        watch = ModeCollapseMonitor()
        watch.observe_end(1, {"diversity": 0.1})
        e = experiment([*TINY, *overrides])
        return watch.advice({"diversity": 0.1}, e.config, e.game.players)[1]

    assert advice("model.discriminator.dropout=0") == (
        "Try one of: penalty=[r1], augment=[packing], model.discriminator.dropout=0.3, "
        "model.discriminator.minibatch=std, a smaller optim.generator.lr."
    )
    assert advice("penalty=[r1]", "augment=[packing]", "model.discriminator.minibatch=std") == (
        "Try one of: a smaller optim.generator.lr."
    )
    assert advice("game=vae") == "Try one of: a smaller game.beta."
    assert advice("game=vae_gan", "penalty=[r1]", "model.discriminator.minibatch=std") == (
        "Try one of: a smaller optim.decoder.lr, a smaller game.beta."
    )


@pytest.mark.slow
@pytest.mark.parametrize("collapses", [True, False])
def test_runs_that_do_and_do_not_collapse(collapses, tmp_path):
    """A generator that learns much faster than its discriminator collapses; the default run does not."""
    outrun = ["optim.discriminator.lr=1e-5", "optim.generator.lr=1e-3", "model.discriminator.dropout=0"]
    common = ["train.steps=3000", "train.sample_every=0", "train.checkpoint_every=0", "logger=none", "name=a"]
    done = subprocess.run(
        command(*common, *(outrun if collapses else ["train.ema=0.99"])),
        cwd=tmp_path, capture_output=True, text=True, env=environment(XLA_FLAGS=""),
    )  # fmt: skip
    facts = json.loads((tmp_path / "outputs/a/run.json").read_text())
    assert ("collapse_suspected_at" in facts) == collapses == ("collapse suspected" in done.stderr)
    assert (facts["final"]["diversity"] < 0.3) == collapses
    assert facts["final"]["diversity"] > 0.6 or collapses


def test_logged_figures_of_a_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = gan_cli.train([*TINY, "name=a", "logger=none", "train.sample_every=4"], quiet=True)
    last = json.loads((run.directory / "metrics.jsonl").read_text().splitlines()[-1])
    for player in ("discriminator", "generator"):
        assert last[f"{player}/grad_norm"] > 0
        # Adam updates each weight by about the learning rate, 2e-4, and the weights are about 0.1.
        assert 1e-5 < last[f"{player}/update_ratio"] < 0.1
    for side in ("real", "fake"):
        assert 0 <= last[f"discriminator/{side}_accuracy"] <= 1
        assert (last[f"discriminator/{side}_accuracy"] * 8) % 1 == 0
    assert 0 < last["diversity"] < 1.5


def test_arnoldi_finds_the_leading_eigenvalues():
    matrix = np.random.default_rng(0).standard_normal((60, 60))
    exact = np.linalg.eigvals(matrix)
    exact = exact[np.argsort(-np.abs(exact))]
    full = eigenvalues.leading(lambda v: matrix @ v, 60, 60)
    np.testing.assert_allclose(np.abs(full), np.abs(exact), rtol=1e-6)
    apart = np.diag([9.0, -7.0, 5.0] + [0.1] * 57) + 0.001 * matrix
    np.testing.assert_allclose(eigenvalues.leading(lambda v: apart @ v, 60, 3).real, [9, -7, 5], rtol=1e-2)


# The eigenvalues at the equilibrium with R1 and gamma = 2 are gamma/2 +- sqrt(gamma^2/4 - 1/4).
DIRAC = [
    "experiment=dirac_gan",
    "penalty=[r1]",
    "penalty.r1.gamma=2",
    "model.generator.start=0",
    "model.discriminator.start=0",
]


@pytest.mark.parametrize(
    ("overrides", "expected", "verdict"),
    [
        (["experiment=bilinear"], [1j, -1j], "rotating"),
        (["experiment=quadratic", "game.a=0.5", "game.c=0.5"], [0.5 + 1j, 0.5 - 1j], "converging"),
        (["experiment=quadratic", "game.a=-0.5", "game.c=-0.5"], [-0.5 + 1j, -0.5 - 1j], "diverging"),
        (["experiment=quadratic", "game.a=0", "game.b=0", "game.c=0"], [0], "flat"),
        (DIRAC, [1 + 0.75**0.5, 1 - 0.75**0.5], "converging"),
        # A lazy penalty contributes with its weight, whether or not the last step applied it.
        ([*DIRAC, "penalty.r1.interval=4"], [1 + 0.75**0.5, 1 - 0.75**0.5], "converging"),
    ],
)
def test_eigenvalues_of_known_games(overrides, expected, verdict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = gan_cli.train(
        [*overrides, "train.steps=1", "train.eigenvalues=2", "logger=none", "name=a", "optim.lr=1e-9"], quiet=True
    )
    facts = json.loads((run.directory / "run.json").read_text())
    found = sorted((complex(*pair) for pair in facts["eigenvalues"]), key=lambda e: (-e.real, -e.imag))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert facts["verdict"] == verdict


def test_mode_coverage_of_all_one_and_no_modes():
    from gan_cli.data.gaussians import ring

    data = ring()
    found = coverage(np.asarray(data.examples["x"][:2500]), data.modes)
    assert found["modes"] == found["modes_hit"] == 8 and found["divergence"] < 1e-3
    # All samples at one of eight modes: the Jensen-Shannon divergence of one mode from uniform modes, by hand.
    one = coverage(np.repeat(data.modes.centres[:1], 100, 0), data.modes)
    p, q, m = 1.0, 1 / 8, (1 + 1 / 8) / 2
    assert one["modes"] == 1 and one["quality"] == 1
    np.testing.assert_allclose(
        one["divergence"], (p * np.log(p / m) + q * np.log(q / m) + 7 * q * np.log(2)) / 2, rtol=1e-6
    )
    assert coverage(np.full((10, 2), 50.0), data.modes)["divergence"] == 1


@pytest.mark.slow
def test_classifier_recognises_held_out_digits():
    data = mnist5k()
    classifier = Classifier(data)
    assert classifier.accuracy > 0.95
    features, probabilities = classifier(data.spread(20))
    assert features.shape == (20, 64)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_frechet_distance():
    """For Gaussians with diagonal covariances, the distance is |m - n|^2 + sum (s - t)^2."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((200_000, 2)) * [1, 2], rng.standard_normal((200_000, 2)) * [3, 2] + [0, 5]
    np.testing.assert_allclose(distance(moments(a), moments(b)), 25 + 4, rtol=0.01)
    assert abs(distance(moments(a), moments(a))) < 1e-6


def test_a_resumed_run_decides_like_an_uninterrupted_run(tmp_path, monkeypatch):
    """Consecutive low diversities, and evaluations without improvement, are counted across a stop."""
    monkeypatch.chdir(tmp_path)
    low = [*TINY, "train.sample_every=4", "train.steps=12"]
    gan_cli.train([*low, "name=whole"], quiet=True)
    gan_cli.train([*low, "train.steps=4", "name=part"], quiet=True)
    gan_cli.train(["resume=outputs/part", "train.steps=12"], quiet=True)
    # With a learning rate near zero, no evaluation is better than the first.
    still = [*TINY, "metric=[sliced_wasserstein]", "features=random", "train.eval_every=4", "train.eval_samples=50",
             "train.patience=3", "optim.lr=1e-30", "train.steps=40"]  # fmt: skip
    gan_cli.train([*still, "name=patient"], quiet=True)
    gan_cli.train([*still, "train.steps=12", "name=cut"], quiet=True)
    (tmp_path / "outputs/cut/metrics.jsonl").unlink()  # the checkpoint stores the count
    gan_cli.train(["resume=outputs/cut", "train.steps=40"], quiet=True)
    facts = {name: facts_of(tmp_path / "outputs" / name) for name in ("whole", "part", "patient", "cut")}
    assert facts["whole"]["collapse_suspected_at"] == facts["part"]["collapse_suspected_at"] == 8
    assert facts["patient"]["stopped_early_at"] == facts["cut"]["stopped_early_at"] == 16
    assert facts["patient"]["objective"] == facts["cut"]["objective"]
