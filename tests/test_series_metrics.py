"""Metrics of series against closed forms, against SciPy, and on series for which the result is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats

from gan_cli.errors import UserError
from gan_cli.metrics import series_baselines as baselines
from gan_cli.metrics import series_judges as judges
from gan_cli.metrics import series_statistics as statistics
from gan_cli.metrics.autocorrelation import autocorrelation
from gan_cli.metrics.discriminative import discriminative
from gan_cli.metrics.predictive import predictive
from gan_cli.metrics.returns import by_column, returns
from gan_cli.metrics.risk import drawdown, measures, risk
from gan_cli.metrics.window_ratio import window_ratio
from gan_cli.views import series_charts


def rolled(series: np.ndarray, length: int) -> np.ndarray:
    """All windows of a series ``[time, columns]``, in the order of time."""
    return np.lib.stride_tricks.sliding_window_view(series, length, axis=0).swapaxes(1, 2).copy()


def garch(n: int, length: int, columns: int, seed: int, alpha: float = 0.1, beta: float = 0.85) -> np.ndarray:
    """Independent windows ``[n, length, columns]`` of a GARCH(1,1) with variance 1e-4, after 200 steps."""
    rng = np.random.default_rng(seed)
    variance, shock = np.ones((n, columns)), np.ones((n, columns))
    found = []
    for _ in range(200 + length):
        variance = 1 - alpha - beta + alpha * shock**2 + beta * variance
        shock = np.sqrt(variance) * rng.standard_normal((n, columns))
        found.append(0.01 * shock)
    return np.stack(found[-length:], axis=1)


def sines(n: int, seed: int, length: int = 24, columns: int = 5) -> np.ndarray:
    frequency, phase = np.random.default_rng(seed).uniform(0, 0.1, (2, n, 1, columns))
    return (np.sin(frequency * np.arange(length)[:, None] + phase) + 1) / 2


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# --------------------------------------------------------------------------------------------- statistics


def test_autocorrelations_of_an_autoregressive_process():
    # corr(x_t, x_{t+k}) = phi^k. Means of single windows would lower every value by about 2 / 12.
    phi = np.array([0.8, -0.5])
    x = [normal(20_000, 2)]
    for t in range(1, 12):
        x.append(phi * x[-1] + np.sqrt(1 - phi**2) * normal(20_000, 2, seed=t))
    found = statistics.autocorrelations(np.stack(x, axis=1), 8)
    np.testing.assert_allclose(found, phi ** np.arange(1, 9)[:, None], atol=0.01)


def test_autocorrelation_of_squares_and_kurtosis_of_garch():
    # Bollerslev 1986: the autocorrelation of squares at lag 1 and the kurtosis of a normal GARCH(1,1).
    alpha, beta = 0.1, 0.8
    x = garch(40_000, 20, 1, seed=0, alpha=alpha, beta=beta)
    rest = 1 - (alpha + beta) ** 2 - 2 * alpha**2
    expected = alpha * (1 - alpha * beta - beta**2) / (1 - 2 * alpha * beta - beta**2)
    assert statistics.autocorrelations(x**2, 1)[0, 0] == pytest.approx(expected, abs=0.02)
    excess = 6 * alpha**2 / rest
    found = by_column(x, normal(50_000, 20, 1, seed=1))["kurtosis"][0]
    assert found == pytest.approx(excess, abs=0.05)


def test_leverage_has_the_sign_of_the_asymmetry():
    # After a loss, the next return is twice as large.
    shocks = normal(50_000, 2, 1)
    r = np.stack([shocks[:, 0], shocks[:, 1] * np.where(shocks[:, 0] < 0, 2, 1)], axis=1)
    assert statistics.leverage(r, 1)[0, 0] < -0.1
    assert abs(statistics.leverage(shocks, 1)[0, 0]) < 0.02
    assert statistics.leverage(np.ones((3, 4, 1)), 2).tolist() == [[0.0], [0.0]]


def test_returns_follow_from_prices_and_inverse_rounds():
    prices = 100 * np.exp(normal(50, 10, 1).cumsum(1) * 0.02)
    counts, oscillation = np.abs(normal(50, 10, 1)).round(), normal(50, 10, 1)
    real = np.concatenate([prices, counts, oscillation], axis=2)
    assert statistics.steps_of(real) == ("log", "difference", "none")
    found = statistics.returns(real, real)
    np.testing.assert_allclose(found[..., 0], np.diff(np.log(prices[..., 0])), rtol=1e-12)
    np.testing.assert_allclose(found[..., 1], np.diff(counts[..., 0]))
    np.testing.assert_allclose(found[..., 2], oscillation[:, 1:, 0])
    assert statistics.returns(oscillation, oscillation).shape == (50, 10, 1)  # no time step is lost
    negative = np.where(prices < 100, -1, prices)
    assert np.isfinite(statistics.returns(negative, prices)).all()


def test_wasserstein_of_shifted_normals_and_of_samples_of_different_sizes():
    real = normal(4000, 5, 1)
    assert by_column(real + 0.7, real)["wasserstein"][0] == pytest.approx(0.7 / real.std(), rel=1e-9)
    fake = normal(301, 3, 1, seed=1) * 2 + 1
    expected = scipy.stats.wasserstein_distance(fake.ravel(), real.ravel()) / real.std()
    assert by_column(fake, real)["wasserstein"][0] == pytest.approx(expected, rel=1e-9)
    same = returns().function(real, real)
    assert same.pop("returns_samples") == 20_000
    assert same == dict.fromkeys(same, 0.0)


# --------------------------------------------------------------------------------------------- risk


@pytest.mark.parametrize(("law", "shortfall"), [(scipy.stats.norm(), 2.6652), (scipy.stats.t(4), 5.2205)])
def test_value_at_risk_and_expected_shortfall_of_known_laws(law, shortfall):
    # McNeil, Frey and Embrechts 2015, examples 2.14 and 2.15. The table's values of the shortfall at 99 %.
    x = law.ppf((np.arange(400_000) + 0.5) / 400_000).reshape(-1, 8, 1)
    var_1, es_1, var_5, es_5 = measures(x, None)[:, 0]
    assert [var_1, var_5] == pytest.approx([-law.ppf(0.01), -law.ppf(0.05)], rel=1e-3)
    assert es_1 == pytest.approx(shortfall, rel=0.005)
    assert es_5 == pytest.approx(-law.expect(lambda v: v, ub=law.ppf(0.05)) / 0.05, rel=0.005)


def test_drawdown_of_a_known_path():
    path = np.array([100.0, 120, 90, 95, 130, 117])
    assert drawdown(np.diff(np.log(path))[None, :, None], np.array([True]))[0, 0] == pytest.approx(0.25)
    assert drawdown(np.diff(path)[None, :, None], np.array([False]))[0, 0] == 30


def test_intervals_contain_the_truth_as_often_as_they_say():
    # The interval of overlapping windows must not be narrower because every day occurs in many windows.
    inside = []
    for seed in range(20):
        windows = rolled(normal(400, 1, seed=seed), 10)
        low, high = statistics.block_bootstrap(lambda x: np.quantile(x, 0.05, axis=(0, 1)), windows, seed)
        inside.append((low[0] <= -1.6449) & (high[0] >= -1.6449))
    assert np.mean(inside) >= 0.8


def test_a_short_held_out_part_has_no_interval(caplog):
    windows = rolled(garch(1, 300, 2, seed=1)[0], 24)
    found = risk().function(windows, windows, windows[:50], 0, True)
    assert not [name for name in found if name.endswith(("_low", "_high", "_inside"))]
    assert found["var_1_real"] > 0
    assert "50 held-out windows are fewer than 5 blocks of 24" in caplog.text


def test_values_that_are_no_returns_have_no_relative_drawdown():
    signed, counts = normal(200, 24, 1), np.abs(normal(200, 24, 1) * 3).round()
    assert "drawdown" not in risk().function(signed, signed, signed, 0)
    assert 0 < risk().function(signed, signed, signed, 0, True)["drawdown"] < 1
    assert risk().function(counts, counts, counts, 0)["drawdown"] > 1
    # Returns that are all positive are returns nevertheless.
    assert risk().function(counts + 1, counts + 1, counts + 1, 0, True)["var_1"] == -1


@pytest.mark.slow
def test_risk_and_clusters_of_volatility_lie_inside_for_the_same_process():
    alpha, beta = 0.2, 0.4  # clusters that are short beside the 700 days
    held_out = rolled(garch(1, 700, 2, seed=1, alpha=alpha, beta=beta)[0], 12)
    fake = garch(1000, 12, 2, seed=2, alpha=alpha, beta=beta)
    found = risk().function(fake, held_out, held_out, 0, True) | autocorrelation().function(
        fake, held_out, held_out, 0
    )
    # Each interval misses the truth now and then, and the five measures miss it together.
    assert found["risk_inside"] >= 0.5
    assert found["volatility_clustering_inside"] >= 0.5
    assert found["var_1_low"] <= found["var_1_real"] <= found["var_1_high"]
    calm = risk().function(fake / 3, held_out, held_out, 0, True)
    assert calm["var_1_inside"] == calm["risk_inside"] == 0
    assert set(found) == set(risk().figures) | set(autocorrelation().figures)


def test_shuffled_time_steps_lose_their_autocorrelation():
    real = garch(2000, 24, 1, seed=0, alpha=0.3, beta=0.6)
    mixed = np.random.default_rng(0).permutation(real.ravel()).reshape(real.shape)
    found = autocorrelation().function(mixed, real, real, 0)
    assert found["acf_absolute"] > 0.05 > found["acf_returns"]
    assert returns().function(mixed, real)["returns_wasserstein"] == 0


# --------------------------------------------------------------------------------------------- overlaps


def test_overlapping_windows_are_joined_and_put_into_the_order_of_time():
    series = normal(60, 2).astype(np.float32)
    windows = rolled(series, 8)
    assert statistics.stride_of(windows) == 1
    assert statistics.stride_of(windows[::3]) == 3
    assert statistics.stride_of(normal(50, 8, 2)) == 8
    np.testing.assert_array_equal(statistics.joined(windows)[0], series)
    two = np.concatenate([windows, rolled(normal(30, 2, seed=1).astype(np.float32), 8)])
    assert [len(one) for one in statistics.joined(two)] == [60, 30]
    kept = np.sort(np.random.default_rng(0).permutation(len(windows))[:40])
    shuffled = np.random.default_rng(1).permutation(windows[kept])
    np.testing.assert_array_equal(statistics.in_time_order(shuffled), windows[kept])
    apart = normal(50, 8, 2)
    np.testing.assert_array_equal(statistics.in_time_order(apart), apart)


def test_window_ratio_finds_copies():
    series = garch(1, 1500, 3, seed=0)[0]
    real, held_out = rolled(series[:1200], 24), rolled(series[1200:], 24)
    honest = window_ratio().function(garch(800, 24, 3, seed=1), real, held_out)
    assert honest["window_ratio"] == pytest.approx(1, abs=0.06)
    assert honest["window_copies"] < 0.05
    calm = window_ratio().function(0.3 * garch(800, 24, 3, seed=1), real, held_out)
    assert calm["window_copies"] < 0.1
    rows = np.random.default_rng(0).permutation(len(real))[:800]
    copied = window_ratio().function(real[rows] + 1e-4 * normal(800, 24, 3), real, held_out)
    assert copied["window_ratio"] < 0.9
    assert copied["window_copies"] == 1


# --------------------------------------------------------------------------------------------- baselines


def test_baselines_keep_what_they_promise():
    rng = np.random.default_rng(0)
    shared = garch(1, 2500, 1, seed=3)[0]
    series = np.concatenate([shared, 0.6 * shared + 0.8 * garch(1, 2500, 1, seed=4)[0]], axis=1)
    prices = rolled(100 * np.exp(series.cumsum(0)), 24)
    truth = statistics.returns(prices, prices)
    for made in (baselines.block_bootstrap(prices, 3000, 0), baselines.garch(prices, 3000, 0)):
        assert made.shape == (3000, 24, 2)
        assert made.min() > 0
        r = statistics.returns(made, prices)
        assert r.std((0, 1)) == pytest.approx(truth.std((0, 1)), rel=0.1)
        correlation = np.corrcoef(r.reshape(-1, 2).T)[0, 1]
        assert correlation == pytest.approx(np.corrcoef(series.T)[0, 1], abs=0.08)
        clusters = statistics.autocorrelations(np.abs(r), 5).mean()
        assert clusters > 0.5 * statistics.autocorrelations(np.abs(truth), 5).mean() > 0.03
    a, b = baselines.real_halves(prices, 0)
    assert set(a[..., 0].ravel()).isdisjoint(b[..., 0].ravel())  # no time step is shared
    assert min(len(a), len(b)) > 800
    with pytest.raises(UserError, match="at least 100 returns"):
        baselines.garch(rng.normal(size=(50, 24, 2)), 10, 0)


# --------------------------------------------------------------------------------------------- judges


def scores(fake: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    weak = judges.discriminative_scores(fake, real, steps=2000, runs=1, seed=0)
    return float(weak[0]), judges.strong_score(fake, real, 0)


@pytest.mark.slow
def test_judges_tell_noise_from_sines_and_cannot_tell_sines_apart():
    real = sines(500, 0)
    assert scores(normal(500, 24, 5) / 4 + 0.5, real) == pytest.approx((0.5, 0.5), abs=0.02)
    assert max(scores(sines(500, 1), real)) < 0.1
    weak, strong = scores(sines(500, 1) + 0.01 * normal(500, 24, 5), real)
    assert weak < 0.1
    assert strong > 0.4


def test_the_stronger_judge_finds_what_the_weak_one_misses():
    assert judges.strong_score(sines(300, 1) + 0.01 * normal(300, 24, 5), sines(300, 0), 0) > 0.4
    clusters = garch(1000, 24, 2, seed=0, alpha=0.3, beta=0.6)
    mixed = np.random.default_rng(0).permutation(clusters.reshape(-1, 2)).reshape(clusters.shape)
    assert judges.strong_score(mixed, clusters, 0) > 0.1


@pytest.mark.slow
def test_the_stronger_judge_does_not_recognise_overlapping_windows():
    # Samples of the true process are not told from the windows of one path, although these repeat every day.
    path = rolled(garch(1, 900, 3, seed=0)[0], 24)
    assert judges.strong_score(garch(877, 24, 3, seed=1), path, 0) < 0.1


@pytest.mark.slow
def test_predictive_score_of_sines_is_that_of_timegan():
    # TimeGAN reports 0.093 for its sines, and so does a network that learns from the sines themselves.
    real, ends = sines(1000, 0), np.array([[0.0] * 5, [1.0] * 5])
    found = predictive(runs=2, steps=1000).function(sines(1000, 1), real, ends, 0)
    assert found["predictive"] == pytest.approx(0.093, abs=0.004)
    assert found["predictive_low"] <= found["predictive"] <= found["predictive_high"]
    worse = predictive(runs=1, steps=300).function(0.3 * sines(1000, 1), real, ends, 0)
    assert worse["predictive"] > 0.2
    assert set(worse) == {"predictive", "predictive_samples"}


@pytest.mark.slow
def test_discriminative_values_have_their_names():
    metric, ends = discriminative(runs=2, steps=5), np.array([[0.0], [1.0]])
    found = metric.function(sines(60, 0, 6, 1), sines(50, 1, 6, 1), ends, 0)
    assert set(found) == set(metric.figures)
    assert found["discriminative_samples"] == 50


# --------------------------------------------------------------------------------------------- files and charts


def test_gan_eval_compares_series_of_other_programs(tmp_path, capsys):
    from gan_cli.cli.eval import main

    real = garch(1, 700, 2, seed=0)[0]
    np.savez(tmp_path / "real.npz", samples=rolled(real[:500], 12), held_out=rolled(real[500:], 12))
    np.savez(tmp_path / "fake.npz", samples=garch(300, 12, 2, seed=1))
    named = "returns,autocorrelation,risk,window_ratio"
    arguments = [str(tmp_path / "fake.npz"), "--reference", str(tmp_path / "real.npz"), "--metrics", named]
    out = tmp_path / "found.json"
    assert main([*arguments, "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text())
    assert found["metrics"]["risk_held_out"] == (200 - 11) * 12
    assert found["metrics"]["window_ratio"] == pytest.approx(1, abs=0.1)
    np.savez(tmp_path / "other.npz", samples=garch(300, 11, 2, seed=1))
    assert main([str(tmp_path / "other.npz"), *arguments[1:]]) == 2
    assert "have the shape (11, 2)" in capsys.readouterr().err
    assert main([arguments[0], "--reference", "ring", "--metrics", "risk"]) == 2


def test_charts_show_every_column_and_survive_odd_values():
    real = garch(60, 8, 6, seed=0)
    broken = real.copy()
    broken[0, 0, 0], broken[1, :, 1] = np.nan, np.inf
    for samples, shown in ((broken, real), (real, real), (real, None), (np.zeros_like(real), real)):
        picture = series_charts.charts(samples, shown, [f"c{i}" for i in range(6)], True)
        assert picture.size == (4 * 330, 4 * 210 + 30)
    two = series_charts.charts(real[:, :2, :1], real[:, :2, :1] * 2, ["a"], False)
    assert two.size == (4 * 330, 210 + 30)
