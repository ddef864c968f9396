"""Motion of one digit: its speed, its straight track, its directions and its brightness."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics import clip_statistics as statistics
from gan_cli.metrics.clip_inputs import at_least


def motion() -> Metric:
    """Motion of one digit: speed, distance from a bouncing straight line, directions and brightness.

    Real digits move at one speed along straight lines, and bounce off the border. The digit stands where the
    centroid of the frame is. The speed of a clip is the mean distance between successive centroids. Real clips
    differ in it, because a bounce shortens the distance.

    Values:
    - speed_median: median speed of the clips in pixels a frame; neither higher nor lower is better.
    - speed_median_real: median speed of the real clips; neither higher nor lower is better.
    - speed_ratio: speed_median divided by speed_median_real; neither higher nor lower is better.
    - speed_ks: Kolmogorov-Smirnov distance between the speeds of generated and real clips; lower is better.
    - line_residual: median distance in pixels of the middle of three successive centroids from a straight line at
      constant speed, which may bounce where real digits bounce; lower is better.
    - line_residual_real: the same of real clips; neither higher nor lower is better.
    - direction_resultant: length of the mean unit vector of the steps of all clips, 0 for uniform directions and 1
      for equal ones; lower is better.
    - direction_resultant_doubled: the same for doubled angles, 1 for directions along one axis; lower is better.
    - mass_variation: standard deviation of the sum of the pixels within a clip, divided by its mean; mean over the
      clips; lower is better.
    """

    def figures(fake_clips: np.ndarray, real_centroids: np.ndarray) -> dict[str, float]:
        from scipy.stats import ks_2samp

        masses, centroids = statistics.masses_and_centroids(fake_clips)
        made, real = statistics.speeds(centroids), statistics.speeds(real_centroids)
        walls = statistics.walls_of(real_centroids)
        residual, usual = (
            float(np.median(statistics.line_residuals(one, walls))) for one in (centroids, real_centroids)
        )
        return {
            "speed_median": float(np.median(made)),
            "speed_median_real": float(np.median(real)),
            "speed_ratio": float(np.median(made) / np.median(real)),
            "speed_ks": float(ks_2samp(made, real).statistic),
            "line_residual": residual,
            "line_residual_real": usual,
            "direction_resultant": statistics.resultant(centroids),
            "direction_resultant_doubled": statistics.resultant(centroids, 2),
            "mass_variation": float(statistics.mass_variations(masses).mean()),
        }

    stated = ("speed_median", "speed_median_real", "speed_ratio", "line_residual_real")
    ranked = ("speed_ks", "line_residual", "direction_resultant", "direction_resultant_doubled", "mass_variation")
    return Metric(
        figures, dict.fromkeys(stated, NEITHER) | dict.fromkeys(ranked, LOWER), minimum=2, cannot=at_least(3)
    )
