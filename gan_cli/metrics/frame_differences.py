"""Temporal differences: how much the frames of clips change over one, two and four frames."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.metrics.clip_inputs import at_least

_LAGS = (1, 2, 4)
_BLOCK = 256  # clips that are converted to float32 at a time


def frame_differences() -> Metric:
    """Temporal differences: mean absolute difference between frames of a clip, against real clips.

    A static clip has no differences, and noise has equal ones at all lags. At most 5,000 real clips are compared.

    Values:
    - frame_difference_1, frame_difference_2, frame_difference_4: mean absolute difference between the values of
      frames at the lag of one, two and four frames, from 0 to 255, as far as the clips are long enough; neither
      higher nor lower is better.
    - frame_difference_1_real, frame_difference_2_real, frame_difference_4_real: the same of the real clips; neither
      higher nor lower is better.
    - frame_difference_error: mean over the lags of the absolute difference between both; lower is better.
    """

    def figures(fake_clips: np.ndarray, real_clips: np.ndarray) -> dict[str, float]:
        made, real = differences(fake_clips), differences(real_clips)
        found = {f"frame_difference_{lag}": value for lag, value in made.items()}
        found |= {f"frame_difference_{lag}_real": value for lag, value in real.items()}
        return found | {"frame_difference_error": float(np.mean([abs(made[lag] - real[lag]) for lag in made]))}

    stated = [f"frame_difference_{lag}{end}" for lag in _LAGS for end in ("", "_real")]
    return Metric(
        figures,
        dict.fromkeys(stated, NEITHER) | {"frame_difference_error": LOWER},
        minimum=1,
        cannot=at_least(2),
    )


def differences(clips: np.ndarray) -> dict[int, float]:
    """The mean absolute difference of frames by lag, from stored clips ``[n, frames, height, width, channels]``."""
    lags = [lag for lag in _LAGS if lag < clips.shape[1]]
    sums = dict.fromkeys(lags, 0.0)
    for start in range(0, len(clips), _BLOCK):
        part = clips[start : start + _BLOCK].astype(np.float32)
        for lag in lags:
            sums[lag] += float(np.abs(part[:, lag:] - part[:, :-lag]).mean((1, 2, 3, 4)).sum(dtype=np.float64))
    return {lag: total / len(clips) for lag, total in sums.items()}
