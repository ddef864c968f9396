"""Figures of merit, held against closed forms, plain NumPy, and an independent implementation."""

from __future__ import annotations

import fidelity
import numpy as np
import pytest

from gan_cli.data.source import Modes
from gan_cli.metrics import frechet, kernel, manifold, memory, modes, score, wasserstein


def features(n: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features that are not negative, as those behind a ReLU."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((dim, dim)) / np.sqrt(dim)
    return np.maximum(rng.standard_normal((n, dim)) @ mix + 0.3 + shift, 0).astype(np.float32)


@pytest.mark.parametrize(("n", "dim"), [(3000, 64), (300, 256)])
def test_agrees_with_torch_fidelity(n, dim):
    """FID, Inception score, precision and recall to 1e-3, KID on the same subsets to 1e-5; also of few samples."""
    fidelity.package()
    import torch
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    fake, real = features(n, dim, 1, 0.1), features(n, dim, 2)
    theirs, of_real = (torch.from_numpy(x.copy()) for x in (fake, real))
    statistics = [metric_fid.fid_features_to_statistics(x.double()) for x in (theirs, of_real)]
    expected = metric_fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    np.testing.assert_allclose(frechet.fid(fake, real)["fid"], expected, rtol=1e-3)

    logits = 3 * fake[:, :10]
    expected = metric_isc.isc_features_to_metric(torch.from_numpy(logits.copy()), 10, False, 0)
    ours = [score._score(part) for part in np.split(logits, 10)]
    np.testing.assert_allclose(np.mean(ours), expected["inception_score_mean"], rtol=1e-3)
    np.testing.assert_allclose(np.std(ours), expected["inception_score_std"], rtol=1e-3)

    options = {"kid_subsets": 20, "kid_subset_size": 100, "rng_seed": 3, "verbose": False}
    expected = metric_kid.kid_features_to_metric(theirs, of_real, **options)
    rng = np.random.RandomState(3)  # theirs
    rows = [[rng.choice(n, 100, replace=False) for _ in range(2)] for _ in range(20)]
    found = kernel.of_subsets(fake, real, np.array(rows))
    np.testing.assert_allclose(found.mean(), expected["kernel_inception_distance_mean"], atol=1e-5)
    np.testing.assert_allclose(found.std(), expected["kernel_inception_distance_std"], atol=1e-5)

    expected = metric_prc.prc_features_to_metric(
        theirs, of_real, prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=False, verbose=False
    )
    ours = manifold.precision_recall(fake, real)
    np.testing.assert_allclose(ours["precision"], expected["precision"], rtol=1e-3)
    np.testing.assert_allclose(ours["recall"], expected["recall"], rtol=1e-3)


def test_matrix_root_of_singular_covariances():
    """Closed forms, where C1 C2 has no real root by the usual way: fewer samples than features, repeated ones."""
    few = features(20, 100, 0)
    of_few = frechet.moments(few)
    np.testing.assert_allclose(frechet.distance(of_few, of_few), 0, atol=1e-5)
    scaled = frechet.moments(3 * few)  # C and 9 C: tr(C + 9 C - 2 * 3 C) = 4 tr C
    expected = 4 * ((of_few.mean) ** 2).sum() + 4 * np.trace(of_few.covariance)
    np.testing.assert_allclose(frechet.distance(of_few, scaled), expected, rtol=1e-6)
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    a, b = 10.0 ** rng.uniform(-14, 2, (2, 30))
    a[:5] = 0
    first, second = (frechet.Moments(np.zeros(30), (basis * s) @ basis.T) for s in (a, b))
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    np.testing.assert_allclose(frechet.distance(first, second), expected, rtol=1e-6)


def test_moments_are_those_of_numpy():
    x = features(9000, 20, 0) + 1000  # over two blocks, far from zero
    found = frechet.moments(x)
    np.testing.assert_allclose(found.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-6)


def test_fid_infinity_has_less_bias():
    """Of equal distributions the distance is all bias, and the extrapolated one has a fraction of it."""
    fake, real = features(1000, 64, 1), features(50_000, 64, 2)
    biased = frechet.fid(fake, real)["fid"]
    assert abs(frechet.fid_infinity(fake, real, 0)["fid_infinity"]) < 0.3 * biased


def test_kid_interval():
    """It covers zero for about 95 in 100 pairs of equal distributions, and not where they differ."""
    covered = 0
    for seed in range(40):
        found = kernel.kid(features(400, 8, 2 * seed), features(400, 8, 2 * seed + 1), seed, subsets=30)
        covered += found["kid_low"] <= 0 <= found["kid_high"]
    assert covered >= 34
    assert kernel.kid(features(400, 8, 0, 0.3), features(400, 8, 1), 0)["kid_low"] > 0


def test_manifolds_are_those_of_plain_loops():
    fake, real = features(150, 5, 1, 0.2), features(150, 5, 2)

    def distances(a, b):
        return np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1))

    def reach(x, k):
        return np.sort(distances(x, x), 1)[:, k]

    between = distances(fake, real)
    ours = manifold.precision_recall(fake, real)
    np.testing.assert_allclose(ours["precision"], (between <= reach(real, 3)).any(1).mean())
    np.testing.assert_allclose(ours["recall"], (reach(fake, 3) >= between.T).any(1).mean())
    ours = manifold.density_coverage(fake, real)
    np.testing.assert_allclose(ours["density"], (between <= reach(real, 5)).sum(1).mean() / 5)
    np.testing.assert_allclose(ours["coverage"], (between.min(0) <= reach(real, 5)).mean())
    apart = manifold.precision_recall(fake + 100, real) | manifold.density_coverage(fake + 100, real)
    assert not any(apart.values())
    with pytest.raises(ValueError, match="3 neighbours"):
        manifold.precision_recall(fake[:3], real)


def test_sliced_wasserstein_of_a_shift():
    real = features(2000, 16, 0)
    assert wasserstein.sliced_wasserstein(real, real, 0)["sliced_wasserstein"] == 0
    found = wasserstein.sliced_wasserstein(real + 0.5, real, 0, projections=2000)["sliced_wasserstein"]
    np.testing.assert_allclose(found, 0.5, rtol=0.03)  # |d| / sqrt(f) of d = (0.5, ...) in 16 dimensions


def test_inception_score_of_known_logits():
    """One class always: 1. Each of ten surely: 10. Nothing known: 1."""
    sure = 100.0 * np.eye(10, dtype=np.float32)
    for logits, expected in ((sure[[3] * 1000], 1), (np.tile(sure, (100, 1)), 10), (np.zeros((1000, 10)), 1)):
        found = score.inception_score(logits.astype(np.float32), 0, splits=2)
        np.testing.assert_allclose(found["inception_score"], expected, rtol=1e-2)


def test_memorisation():
    """Training data with a little noise are suspected; new draws of the same distribution are not."""
    real, held_out, new = features(2000, 6, 0), features(500, 6, 1), features(500, 6, 2)
    copies = real[:500] + 0.01 * np.random.default_rng(0).standard_normal((500, 6)).astype(np.float32)
    found = memory.nearest_training(copies, real, held_out)
    assert found["memorised"] == 1 and found["copying"] > 0.9
    found = memory.nearest_training(new, real, held_out)
    assert found["memorised"] == 0 and abs(found["copying"] - 0.5) < 0.06
    # scipy.stats.mannwhitneyu([1, 2], [2, 3, 4]) is 0.5 of 6 pairs, a tie counting one half.
    ranks = memory._ranks(np.array([1.0, 2, 2, 3, 4]))
    np.testing.assert_allclose(ranks, [1, 2.5, 2.5, 4, 5])


def test_classes_found():
    real = np.repeat(np.arange(4), 100)
    found = modes.classes(np.repeat([0, 1, 2], [190, 190, 20]), real)
    assert found["classes"] == 2 and found["classes_total"] == 4
    assert modes.classes(real, real) == {"classes": 4, "classes_total": 4, "class_divergence": 0}
    one = modes.coverage(np.zeros((10, 2)), Modes(np.array([[0.0, 0], [9, 9]]), 1.0))
    assert one["modes"] == 1 and one["quality"] == 1
