"""The inputs of metrics of clips, and the data sets that provide them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.moving_digits import Motion
from gan_cli.data.rendered import Rendered
from gan_cli.data.video.feature import Video
from gan_cli.metrics.clip_statistics import masses_and_centroids
from gan_cli.types import Feature

CLIPS = ("fake_clips", "real_clips", "real_centroids", "moving_digits")
_DIGITS = (
    "clips of one moving digit, but {name} has none. Use dataset=moving_digits dataset.digits=1, or another metric"
)
LACKING = {
    **dict.fromkeys(CLIPS[:2], "clips, but {name} has none. Use dataset=moving_digits, or another metric"),
    **dict.fromkeys(CLIPS[2:], _DIGITS),
}
_MOST = 5000  # largest number of real clips


def available(data: Dataset) -> dict[str, bool]:
    """Whether a data set provides each input of metrics of clips."""
    clips, digit = isinstance(data.feature, Video), digit_side(data) is not None
    # The order is that of the messages: the narrower need comes first.
    return dict.fromkeys(CLIPS[2:], digit) | dict.fromkeys(CLIPS[:2], clips)


def digit_side(data: Dataset) -> int | None:
    """The height and width of the digit in clips of one moving digit. None for all other data."""
    clips = data.arrays.get(data.main)
    motion = clips.options if isinstance(clips, Rendered) else None
    return motion.digit_size if isinstance(motion, Motion) and motion.digits == 1 else None


def of_data(data: Dataset) -> dict[str, Any]:
    """The inputs that do not depend on samples. Empty if the data are no clips."""
    if not isinstance(data.feature, Video):
        return {}
    rows = np.random.default_rng(0).permutation(data.size)[:_MOST]
    clips = data.take(rows)[data.main]
    if digit_side(data) is None:
        return {"real_clips": clips}
    return {"real_clips": clips, "real_centroids": masses_and_centroids(clips)[1], "moving_digits": data}


def at_least(frames: int) -> Callable[[Feature, int | None], str | None]:
    """The function ``Metric.cannot`` of a metric that needs clips of so many frames."""

    def cannot(feature: Feature, features: int | None) -> str | None:
        if isinstance(feature, Video) and feature.frames < frames:
            return f"clips of at least {frames} frames. Increase dataset.frames"
        return None

    return cannot
