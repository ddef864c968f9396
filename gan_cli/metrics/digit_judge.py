"""A judge of moving digits: a classifier of the digit in a frame, wherever it stands."""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, spec_of
from gan_cli.data.scaling import normalise
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.clip_inputs import digit_side
from gan_cli.metrics.clip_statistics import masses_and_centroids

log = logging.getLogger(__name__)
CLASSES = 10
_CLIPS, _FRAMES = 9000, 5  # training clips of the judge, and frames of each
_LEAST = 0.97  # smallest accuracy with which figures of different judges are comparable
_BLOCK = 256  # clips that are judged at a time


class Judged(NamedTuple):
    """The class ``[n, frames]`` of each frame of clips, and its probability ``[n, frames]``."""

    classes: np.ndarray
    confidence: np.ndarray


class DigitJudge:
    """A classifier of the frames of real training clips, in windows around the centroid of each frame.

    The windows take the place of the digit away, which the judge would otherwise have to learn to ignore. The cache
    stores the classifier.

    Args:
        data: clips of one moving digit, with labels.

    Attributes:
        accuracy: share of the frames of held-out clips whose digit is recognised.
        real: the judgement of the held-out clips.
    """

    def __init__(self, data: Dataset):
        side, held_out = digit_side(data), data.held_out
        assert side is not None and held_out is not None
        self._side = side // 2 * 2 + 1  # MNIST digits have their centroid in the middle (LeCun et al. 1998)
        rng = np.random.default_rng(0)
        taken = data.take(rng.permutation(data.size)[:_CLIPS])
        windows = centred(taken[data.main], self._side)
        shown = rng.permuted(np.tile(np.arange(windows.shape[1]), (len(windows), 1)), axis=1)[:, :_FRAMES]
        frames = windows[np.arange(len(windows))[:, None], shown]
        tested = centred(held_out[data.main][:], self._side)
        self._classifier = Classifier(
            Dataset(
                f"frames of {data.name}",
                spec_of(Image(*windows.shape[2:]), CLASSES),
                _labelled(frames, taken["label"]),
                _labelled(tested, held_out["label"]),
            )
        )
        self.accuracy, self._held_out = self._classifier.accuracy, held_out[data.main]
        if self.accuracy < _LEAST:
            log.warning(
                "the judge of %s recognises only %.1f %% of the digits in held-out frames, so its figures are "
                "uncertain. Increase dataset.digit_size or dataset.clips.",
                data.name, 100 * self.accuracy,
            )  # fmt: skip

    @functools.cached_property
    def real(self) -> Judged:
        return self(self._held_out[:])

    def __call__(self, clips: np.ndarray) -> Judged:
        """The digits in stored clips ``[n, frames, height, width, channels]``."""
        n, frames = clips.shape[:2]
        found = []
        for start in range(0, n, _BLOCK):
            windows = centred(clips[start : start + _BLOCK], self._side)
            found.append(self._classifier(normalise(windows.reshape(-1, *windows.shape[2:])))[1])
        probabilities = np.concatenate(found).reshape(n, frames, -1)
        return Judged(probabilities.argmax(2), probabilities.max(2))


@functools.lru_cache(maxsize=1)
def judge_of(data: Dataset) -> DigitJudge:
    """The judge of a data set, which is trained once for all evaluations of a run."""
    return DigitJudge(data)


def centred(clips: np.ndarray, side: int) -> np.ndarray:
    """Windows ``[n, frames, side, side, channels]`` of clips, around the pixel at the centroid of each frame.

    Pixels outside of the frame are black.

    Args:
        clips: stored clips ``[n, frames, height, width, channels]``.
        side: height and width of the windows, an odd number.
    """
    n, frames, height, width, channels = clips.shape
    places = np.rint(masses_and_centroids(clips)[1]).astype(int)[..., None] + np.arange(side) - side // 2
    found = np.empty((n, frames, side, side, channels), clips.dtype)
    for i, clip in enumerate(clips):
        rows, columns = places[i, :, 0], places[i, :, 1]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        values = clip[np.arange(frames)[:, None, None], rows[:, :, None], columns[:, None, :]]
        found[i] = values * inside[..., None]
    return found


def _labelled(frames: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Frames of clips ``[n, frames, ...]`` as images, each with the label of its clip."""
    return {"x": frames.reshape(-1, *frames.shape[2:]), "label": np.repeat(labels, frames.shape[1])}
