"""Metrics against closed forms, against brute force, and on samples for which the result is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from gan_cli.metrics import (
    classes,
    density_coverage,
    fid,
    inception_score,
    kid,
    nearest_training,
    neighbours,
    precision_recall,
    sliced_wasserstein,
)


def normal(n: int, f: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, f)) + shift).astype(np.float32)


# --------------------------------------------------------------------------------------------- Frechet distance


def gaussian(covariance: np.ndarray, mean: float = 0.0) -> fid.Moments:
    return fid.Moments(np.full(len(covariance), mean), covariance)


def test_moments_equal_numpys():
    x = normal(5000, 7, shift=3)
    found = fid.moments(x)
    np.testing.assert_allclose(found.mean, x.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="two examples"):
        fid.moments(x[:1])


def test_frechet_distance_of_diagonal_covariances():
    # Dowson and Landau 1982: for commuting covariances, the distance is |m1 - m2|^2 + sum (sqrt a - sqrt b)^2.
    # Both covariances are singular or nearly so.
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 4, (2, 50))
    a[:10], b[5:20] = 0, 1e-14
    expected = 50 * 0.5**2 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = fid.distance(gaussian(np.diag(a)), gaussian(np.diag(b), 0.5))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [2, 20, 400])
def test_frechet_distance_of_a_set_to_itself_and_to_its_shift(n):
    x = normal(n, 64)  # the covariances of 2 and 20 examples are singular
    first = fid.moments(x)
    assert fid.distance(first, first) == pytest.approx(0, abs=1e-5)
    assert fid.distance(first, fid.moments(x + 1)) == pytest.approx(64, rel=1e-5)


def test_frechet_distance_of_full_covariances():
    first, second = (fid.moments(normal(500, 20, seed) @ normal(20, 20, seed + 2)) for seed in (0, 1))
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance).real
    expected = np.trace(first.covariance + second.covariance - 2 * root)
    expected += ((first.mean - second.mean) ** 2).sum()
    assert fid.distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert fid.distance(second, first) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_few_samples_equals_the_distance_within_their_subspace():
    # Both sets lie in the same subspace of 3 of the 60 dimensions, where their covariances are regular.
    plane = np.linalg.qr(np.random.default_rng(5).standard_normal((60, 3)))[0]
    flat = [normal(10, 3, seed).astype(np.float64) for seed in (0, 1)]
    inside, outside = ([fid.moments(x @ p) for x in flat] for p in (np.eye(3), plane.T))
    assert fid.distance(*outside) == pytest.approx(fid.distance(*inside), rel=1e-6)


def test_fid_infinity_removes_most_of_the_bias():
    fake, real = normal(1000, 32, 0), normal(20_000, 32, 1)
    biased = fid.fid()(fake, real)["fid"]
    assert abs(fid.fid_infinity()(fake, real, 0)["fid_infinity"]) < biased / 3
    assert set(fid.fid_infinity()(fake[:2], real, 0)) == {"fid_infinity"}


# ----------------------------------------------------------------------------------------------- kernel distance


def test_kid_is_zero_within_its_interval_for_equal_distributions():
    found = kid.kid()(normal(600, 16, 0), normal(500, 16, 1), 0)
    assert found["kid_low"] < 0 < found["kid_high"]
    apart = kid.kid()(normal(600, 16, 0, 0.5), normal(500, 16, 1), 0)
    assert 0 < apart["kid_low"] < apart["kid"] < apart["kid_high"]


def test_kid_interval_covers_the_closed_form():
    # In one dimension the kernel (xy + 1)^3 compares moments: 3 (m1 - m1')^2 + 3 (m2 - m2')^2 + (m3 - m3')^2.
    d, std = 0.7, np.float32(0.3)
    truth = 3 * d**2 + 3 * d**4 + (d**3 + 3 * d * std**2) ** 2
    fake, real = (std * normal(20_000, 1, seed).reshape(100, 200, 1) for seed in (0, 1))
    found = [kid.kid(subsets=30)(fake[i] + d, real[i], i) for i in range(100)]
    assert np.mean([one["kid"] for one in found]) == pytest.approx(truth, rel=0.05)
    assert 90 <= sum(one["kid_low"] < truth < one["kid_high"] for one in found) <= 100


# ------------------------------------------------------------------------------------------------------ manifolds


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=-1)


def brute_force(fake: np.ndarray, real: np.ndarray, k: int) -> dict[str, float]:
    between = distances(fake, real)
    of_real, of_fake = (np.sort(distances(x, x), axis=1)[:, k] for x in (real, fake))
    return {
        "precision": (between <= of_real).any(1).mean(),
        "recall": (of_fake >= between.T).any(1).mean(),
        "density": (between <= of_real).sum() / (k * len(fake)),
        "coverage": (between.min(0) <= of_real).mean(),
    }


@pytest.mark.parametrize("cells", [2**24, 5000])
def test_manifold_figures_equal_brute_force(cells, monkeypatch):
    monkeypatch.setattr(neighbours, "_CELLS", cells)  # with 5000, several blocks, of which the last is padded
    fake, real = normal(210, 5, 0, 0.8) + 10, normal(210, 5, 1) + 10
    found = precision_recall.precision_recall(k=4)(fake, real) | density_coverage.density_coverage(k=4)(fake, real)
    assert found == pytest.approx(brute_force(fake, real, 4), abs=1e-9)


def test_manifold_figures_of_known_sets():
    real = normal(100, 3)
    near, far = real + 1e-4, real + 100
    assert precision_recall.precision_recall()(near, real) == {"precision": 1, "recall": 1}
    assert precision_recall.precision_recall()(far, real) == {"precision": 0, "recall": 0}
    assert density_coverage.density_coverage()(far, real) == {"density": 0, "coverage": 0}
    assert density_coverage.density_coverage()(near, real)["coverage"] == 1
    collapsed = precision_recall.precision_recall()(real[:1] + 1e-4 * normal(100, 3, 1), real)
    assert collapsed["precision"] == 1 and collapsed["recall"] < 0.1
    with pytest.raises(ValueError, match="no 3 neighbours"):
        precision_recall.precision_recall()(real[:3], real)


def test_nearest_training_separates_memorised_from_new_samples():
    training, held_out, fresh = (normal(400, 8, seed) for seed in range(3))
    copied = nearest_training.nearest_training()(training + 1e-3 * normal(400, 8, 3), training, held_out)
    sound = nearest_training.nearest_training()(fresh, training, held_out)
    assert copied["memorised"] == 1 and copied["copying"] > 0.99 and copied["copying_z"] < -20
    assert copied["nearest_training"] < 0.01 < copied["nearest_training_held_out"]
    assert sound["memorised"] == 0 and sound["copying"] == pytest.approx(0.5, abs=0.06)
    # With the held-out data as samples, each comparison of distances is a tie or has a mirror image.
    even = nearest_training.nearest_training()(held_out, training, held_out)
    assert (even["copying"], even["copying_z"]) == (0.5, 0)


# --------------------------------------------------------------------------------------------------------- others


def test_sliced_wasserstein_of_a_shift():
    x, shift = normal(300, 12), np.linspace(-1, 1, 12, dtype=np.float32)
    found = sliced_wasserstein.sliced_wasserstein(projections=500)(x + shift, x, 0)["sliced_wasserstein"]
    assert found == pytest.approx(np.linalg.norm(shift) / np.sqrt(12), rel=0.1)
    assert sliced_wasserstein.sliced_wasserstein()(x[::-1], x, 0)["sliced_wasserstein"] == pytest.approx(
        0, abs=1e-5
    )


def test_inception_score_of_known_answers():
    unsure = inception_score.inception_score()(np.ones((100, 7), np.float32), 0)
    assert unsure == pytest.approx({"inception_score": 1, "inception_score_std": 0})
    # Ten equally frequent classes, predicted with certainty, score 10; the eleventh class never occurs. With logits
    # of 2000, the other probabilities underflow to zero.
    for certain in (50, 2000):
        sure = certain * np.eye(11, dtype=np.float32)[np.arange(1000) % 10]
        assert inception_score.inception_score(splits=1)(sure, 0)["inception_score"] == pytest.approx(10, rel=1e-6)
    assert inception_score.inception_score()(sure[::10], 0)["inception_score"] == pytest.approx(1, rel=1e-6)


def test_classes():
    real, fake = np.arange(100) % 10, np.arange(100) % 5
    found = classes.classes()(fake, real)
    # Jensen-Shannon divergence: a class has the share 1/10 in the data, and 1/5 or 0 in the samples.
    expected = (5 * 0.1 * np.log(0.1 / 0.15) + 5 * 0.1 * np.log(2) + 5 * 0.2 * np.log(0.2 / 0.15)) / 2
    assert found == pytest.approx({"classes": 5, "classes_total": 10, "class_divergence": expected})
    assert classes.classes()(real, real) == {"classes": 10, "classes_total": 10, "class_divergence": 0}
