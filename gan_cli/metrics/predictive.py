"""Whether a network that learns from generated series predicts real ones: TimeGAN's predictive score."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics import series_judges as judges
from gan_cli.metrics.series_inputs import at_least
from gan_cli.types import PositiveInt


def predictive(*, runs: PositiveInt = 3, steps: PositiveInt = 5000) -> Metric:
    """Predictive score: error on real windows of a network that learns from samples (Yoon et al. 2019).

    A gated recurrent unit (GRU) with half as many hidden units as there are columns reads all columns but the last,
    and predicts the last column one time step ahead. It learns from generated windows only. The columns are scaled
    to [0, 1], as networks see them or by the training windows. No generator is expected to have a better score than
    the training windows themselves, and theirs is not 0.

    Args:
        runs: number of trainings. TimeGAN's protocol has 10.
        steps: training steps, each on 128 windows.

    Values:
    - predictive: mean absolute error on the training windows, mean over the runs; lower is better.
    - predictive_low, predictive_high: 95 % interval of the mean over the runs, from two runs on; neither higher nor
      lower is better.
    - predictive_samples: number of generated windows; neither higher nor lower is better.
    """

    def figures(
        fake_series: np.ndarray, real_series: np.ndarray, series_range: np.ndarray, seed: int
    ) -> dict[str, float]:
        fake, real = (judges.scaled(windows, series_range) for windows in (fake_series, real_series))
        scores = judges.predictive_scores(fake, real, steps=steps, runs=runs, seed=seed)
        return judges.with_interval("predictive", scores) | {"predictive_samples": float(len(fake_series))}

    stated = dict.fromkeys((f"predictive_{ending}" for ending in ("low", "high", "samples")), NEITHER)
    return Metric(figures, {"predictive": LOWER, **stated}, cannot=at_least(2))
