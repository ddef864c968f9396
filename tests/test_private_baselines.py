"""Baselines under differential privacy: the noise, the sensitivity of what is released, and the samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from gan_cli.data.tables.columns import Column
from gan_cli.metrics import private_baselines as baselines

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0, 50.0])
def test_the_noise_spends_delta_exactly(epsilon):
    # P(X > t) - e^epsilon P(Y > t) for outputs X = N(1, s^2) and Y = N(0, s^2) of neighbours, where t is the
    # place at which their densities differ by the factor e^epsilon (Balle and Wang 2018).
    s = baselines.noise_multiplier(epsilon, 1e-5)
    t = s**2 * epsilon + 0.5
    spent = norm.sf(t, 1, s) - np.exp(epsilon + norm.logsf(t, 0, s))
    assert spent == pytest.approx(1e-5, rel=1e-6)


def test_the_noise_equals_a_known_value():
    assert baselines.noise_multiplier(1.0, 1e-5) == pytest.approx(3.7306, abs=1e-4)


@pytest.mark.parametrize("squares", [False, True])
def test_an_example_changes_the_sums_by_at_most_the_sensitivity(squares):
    x, labels = 5 * RNG.standard_normal((40, 6)), np.arange(40) % 3
    vectors = baselines._clipped(x, 2.0)

    def released(rows):
        return np.concatenate([one.ravel() for one in baselines._sums(vectors[rows], labels[rows], 2.0, squares)])

    whole = released(np.arange(40))
    changes = [np.linalg.norm(whole - released(np.delete(np.arange(40), i))) for i in range(40)]
    limit = baselines._sensitivity(squares)
    assert max(changes) <= limit + 1e-9
    # Only the diagonal of v v' has its whole norm on and above the diagonal.
    assert max(changes) > 0.8 * limit


@pytest.mark.parametrize("make", [baselines.class_means, baselines.class_gaussians])
def test_samples_have_the_means_of_their_classes_if_epsilon_is_large(make):
    labels = np.arange(3000) % 2
    ramp = np.linspace(0.4, 0.6, 8)[None, :, None, None] * np.ones((1, 8, 8, 1))
    x = np.where(labels[:, None, None, None] == 0, ramp, 1 - ramp) + 0.02 * RNG.standard_normal((3000, 8, 8, 1))
    samples, classes = make(x, labels, 2000, epsilon=1e4, delta=1e-5, clip=8.0, seed=0)
    assert samples.shape == (2000, 8, 8, 1) and classes[:4].tolist() == [0, 1, 0, 1]
    for label in range(2):
        error = samples[classes == label].mean(0) - x[labels == label].mean(0)
        assert np.abs(error).max() < 0.05


def test_rows_have_the_histograms_within_the_label_if_epsilon_is_large():
    n = 20_000
    label = RNG.choice(["no", "yes"], n, p=[0.8, 0.2]).astype(object)
    age = np.where(label == "yes", RNG.integers(18, 30, n), RNG.integers(40, 60, n)).astype(float)
    age[:1000] = np.nan
    children = RNG.integers(0, 4, n).astype(float)
    columns = [
        Column("label", "categorical", ("no", "yes")),
        Column("age", "integer", missing=True, low=18.0, high=60.0, decimals=0),
        Column("children", "integer", low=0.0, high=3.0, decimals=0),
    ]
    training = {"label": label, "age": age, "children": children}
    made = baselines.within_label(training, columns, "label", n, epsilon=1e5, delta=1e-5, seed=0)
    assert np.mean(made["label"] == "yes") == pytest.approx(0.2, abs=0.01)
    assert np.isnan(made["age"]).mean() == pytest.approx(0.05, abs=0.01)
    assert np.nanmax(made["age"][made["label"] == "yes"]) < 33 and set(made["children"]) == {0, 1, 2, 3}
    assert np.nanmean(made["age"][made["label"] == "no"]) == pytest.approx(49.5, abs=0.5)


def test_rows_of_a_small_epsilon_are_noise():
    labels = np.array(["a"] * 50 + ["b"] * 50, object)
    columns = [Column("label", "categorical", ("a", "b", "c"))]
    shares = [
        np.mean(
            baselines.within_label({"label": labels}, columns, "label", 500, epsilon=1e-3, delta=1e-6, seed=seed)[
                "label"
            ]
            == "c"
        )
        for seed in range(200)
    ]
    assert np.mean(shares) == pytest.approx(1 / 3, abs=0.1)
