"""Frechet distance between single frames of clips, which says nothing about their order."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.metrics.fid import distance, moments


def frame_fid() -> Metric:
    """Frechet distance between the features of single frames (FID of frames).

    The frames are those whose features ``features=frames`` computes. Their order has no effect, so read ``fid``
    beside it, the distance between clips in the features of all these frames together.

    Values:
    - frame_fid: the distance; lower is better.
    """

    def figures(fake_frames: np.ndarray, real_frames: np.ndarray) -> dict[str, float]:
        return {"frame_fid": distance(moments(real_frames), moments(fake_frames))}

    return Metric(figures, {"frame_fid": LOWER})
