"""Metrics equal torch-fidelity's on the same features, so that they are comparable with published figures."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import import_reference

from gan_cli.metrics import fid, inception_score, kid, precision_recall

pytestmark = pytest.mark.comparison


@pytest.fixture(scope="module")
def fidelity():
    return import_reference("fidelity")


def sets(n: int, m: int, features: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Random samples and data that resemble pooled features: non-negative, correlated, of unequal spread."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((features, features)) / np.sqrt(features)
    fake = np.maximum(rng.standard_normal((n, features)) @ mix + 0.3, 0)
    real = np.maximum(rng.standard_normal((m, features)) @ (mix * np.linspace(0.5, 1.5, features)), 0)
    return fake.astype(np.float32), real.astype(np.float32)


@pytest.mark.parametrize("n", [2000, 60])
def test_fid(fidelity, n):
    fake, real = sets(n, 1500)
    theirs = fidelity.metric_fid
    first, second = (theirs.fid_features_to_statistics(fidelity.torch.from_numpy(x)) for x in (fake, real))
    expected = theirs.fid_statistics_to_metric(first, second, False)[theirs.KEY_METRIC_FID]
    assert fid.fid()(fake, real)["fid"] == pytest.approx(expected, rel=1e-3)


def test_kid_of_the_same_subsets(fidelity):
    fake, real = sets(500, 400)
    rng = np.random.default_rng(1)
    rows = np.array([[rng.choice(len(x), 100, replace=False) for x in (fake, real)] for _ in range(5)])
    expected = [fidelity.metric_kid.kernel_mmd(fake[a], real[b]) for a, b in rows]
    np.testing.assert_allclose(kid.of_subsets(fake, real, rows), expected, atol=1e-5, rtol=0)


def test_inception_score(fidelity):
    logits = (4 * np.random.default_rng(0).standard_normal((1000, 30))).astype(np.float32)
    shuffled = fidelity.torch.from_numpy(logits[np.random.default_rng(7).permutation(1000)])
    expected = fidelity.metric_isc.isc_features_to_metric(shuffled, splits=10, shuffle=False)
    assert inception_score.inception_score()(logits, 7) == pytest.approx(
        {
            "inception_score": expected[fidelity.metric_isc.KEY_METRIC_ISC_MEAN],
            "inception_score_std": expected[fidelity.metric_isc.KEY_METRIC_ISC_STD],
        },
        rel=1e-3,
    )


@pytest.mark.parametrize("features", [96, 4])
def test_precision_and_recall(fidelity, features):
    fake, real = sets(700, 700, features)
    precision, recall = fidelity.metric_prc.calculate_precision_recall_full(
        *(fidelity.torch.from_numpy(x) for x in (fake, real)), neighborhood=3
    )
    found = precision_recall.precision_recall(k=3)(fake, real)
    assert found == pytest.approx({"precision": precision, "recall": recall}, rel=1e-3)
    assert 0.05 < precision < 1
