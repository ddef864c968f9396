"""Whether a network tells generated series from real ones: TimeGAN's discriminative score and a stronger one."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics import series_judges as judges
from gan_cli.metrics.series_inputs import at_least
from gan_cli.types import PositiveInt


def discriminative(*, runs: PositiveInt = 3, steps: PositiveInt = 2000) -> Metric:
    """Discriminative score |0.5 - accuracy| of TimeGAN's judge (Yoon et al. 2019), and a stronger one.

    TimeGAN's judge is a gated recurrent unit (GRU) with half as many hidden units as there are columns. It learns
    to tell generated from training windows, in equal numbers, and is tested on a fifth of them. The columns are
    scaled to [0, 1], as networks see them or by the training windows. The stronger judge is a ridge classifier of
    random convolutions (Dempster et al. 2020), which finds differences that the first one misses. 0 means that a
    judge guesses, and 0.5 that it is always right. The score of a perfect generator is above 0, because it is an
    absolute value.

    Args:
        runs: number of trainings of each judge. TimeGAN's protocol has 10.
        steps: training steps of TimeGAN's judge, each on 128 training windows and 128 generated windows.

    Values:
    - discriminative: the score of TimeGAN's judge, mean over the runs; lower is better.
    - discriminative_low, discriminative_high: 95 % interval of the mean over the runs, from two runs on; neither
      higher nor lower is better.
    - discriminative_strong: the score of the stronger judge, mean over the runs; lower is better.
    - discriminative_samples: number of generated windows, which is that of the training windows; neither higher nor
      lower is better.
    """

    def figures(
        fake_series: np.ndarray, real_series: np.ndarray, series_range: np.ndarray, seed: int
    ) -> dict[str, float]:
        n = min(len(fake_series), len(real_series))
        real = real_series[np.random.default_rng(seed).permutation(len(real_series))[:n]]
        fake, real = (judges.scaled(windows, series_range) for windows in (fake_series[:n], real))
        scores = judges.discriminative_scores(fake, real, steps=steps, runs=runs, seed=seed)
        strong = [judges.strong_score(fake_series, real_series, seed + run) for run in range(runs)]
        return {
            **judges.with_interval("discriminative", scores),
            "discriminative_strong": float(np.mean(strong)),
            "discriminative_samples": float(n),
        }

    stated = dict.fromkeys((f"discriminative_{ending}" for ending in ("low", "high", "samples")), NEITHER)
    return Metric(
        figures, {"discriminative": LOWER, "discriminative_strong": LOWER, **stated}, minimum=10, cannot=at_least(3)
    )
