"""Detectability: a classifier cannot tell equal distributions apart, and tells noise from data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from gan_cli.cli.eval import _composed
from gan_cli.config.build import evaluation_of
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image
from gan_cli.data.gaussians import ring
from gan_cli.data.series.sources import sines
from gan_cli.errors import UserError
from gan_cli.metrics import detectable
from gan_cli.metrics.evaluator import check_metrics
from gan_cli.metrics.targets import targets_of

METRIC = detectable.detectable()


def images(n: int, seed: int) -> np.ndarray:
    """Images of a horizontal bar at a random height, uint8 ``[n, 8, 8, 1]``."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 60, (n, 8, 8, 1), np.uint8)
    made[np.arange(n), rng.integers(0, 8, n)] += 180
    return made


def test_values_and_intervals_against_normal_scores():
    """Scores N(0.5, 1) of samples and N(-0.5, 1) of real examples have the area Phi(1 / sqrt(2)) and the accuracy
    Phi(0.5). Over 40 sets of scores, the 95 % intervals contain these values in about 38.
    """
    expected = {"detectable_auc": norm.cdf(1 / np.sqrt(2)), "detectable_accuracy": norm.cdf(0.5)}
    inside = dict.fromkeys(expected, 0)
    for seed in range(40):
        rng = np.random.default_rng(seed)

        def score(of_fake: np.ndarray, test: np.ndarray, fold: int, rng=rng) -> np.ndarray:
            return rng.standard_normal(test.sum()) + of_fake[test] - 0.5

        found = detectable._cross_validated(200, score)
        for name, value in expected.items():
            assert abs(found[name] - value) < 0.1
            inside[name] += found[f"{name}_low"] <= value <= found[f"{name}_high"]
    assert all(33 <= count <= 40 for count in inside.values()), inside


@pytest.mark.slow
def test_images():
    data = Dataset("bars", {"x": Image(8, 8, 1)}, {"x": images(150, 0)})
    same = METRIC(images(400, 1), data, 0)
    assert same.keys() == METRIC.figures.keys()
    assert 0.4 < same["detectable_auc"] < 0.6 and same["detectable_auc_low"] < 0.5 < same["detectable_auc_high"]
    noise = np.random.default_rng(2).integers(0, 256, (150, 8, 8, 1), np.uint8)
    assert METRIC(noise, data, 0)["detectable_auc"] > 0.99


def test_points_and_rows():
    x = ring(size=2000).examples["x"]
    data = Dataset("ring", {"x": ring().feature}, {"x": x[:500]})
    same, noise = (
        METRIC(fake, data, 0) for fake in (x[500:1000], 2 * np.random.default_rng(0).standard_normal((500, 2)))
    )
    assert 0.43 < same["detectable_auc"] < 0.57 and noise["detectable_auc"] > 0.95
    rng = np.random.default_rng(0)

    def rows(n: int, linked: bool = True) -> dict[str, np.ndarray]:
        age = rng.normal(40, 9, n)
        young = age < 40 if linked else rng.random(n) < 0.5
        return {"age": age, "group": np.where(young, "young", "old").astype(object)}

    same, unlinked = (METRIC.of_tables(rows(600, linked), rows(600), 0) for linked in (True, False))
    assert 0.43 < same["detectable_auc"] < 0.57 and unlinked["detectable_auc"] > 0.7
    assert unlinked.keys() == METRIC.figures.keys()


def test_windows_of_series_are_refused():
    assert "Use metric=discriminative" in METRIC.cannot(sines(size=50).feature, None)
    assert METRIC.cannot(Image(8, 8, 1), None) is None


def test_few_held_out_examples_are_refused_before_training():
    data = Dataset("bars", {"x": Image(8, 8, 1)}, {"x": images(150, 0)}, {"x": images(30, 1)})
    targets = targets_of(data, {}, evaluation_of(_composed(["features=pixels"]))[1])
    with pytest.raises(UserError, match="needs at least 40 held-out images, but bars has only 30"):
        check_metrics({"detectable": METRIC}, targets, 100)
