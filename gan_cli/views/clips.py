"""Pictures of clips: film strips, in which each clip is a row of frames, and animations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from gan_cli.views import SIDE, pictures

COUNT = 16  # clips of an animation; a film strip shows the first half
_FRAMES = 16  # largest number of frames in a row of a film strip, so that long clips stay readable
_MILLISECONDS = 100  # duration of a frame of an animation


def strip(clips: np.ndarray) -> Image.Image:
    """A film strip: a row for each clip, with its frames or, of more than 16 frames, evenly spaced ones.

    Args:
        clips: an array ``[n, frames, h, w, c]`` in uint8, or in float with values in [-1, 1].
    """
    chosen = np.linspace(0, clips.shape[1] - 1, min(clips.shape[1], _FRAMES)).round().astype(int)
    frames = clips[:, chosen]
    return pictures.grid(frames.reshape(-1, *frames.shape[2:]), len(chosen))


def rows(parts: Sequence[np.ndarray], kinds: Sequence[str]) -> tuple[Image.Image, list[str]]:
    """A film strip with the clips of index i of all ``parts`` below each other, and the label of each row."""
    together = np.stack(parts, axis=1)
    return strip(together.reshape(-1, *together.shape[2:])), list(kinds) * len(parts[0])


def in_rows(parts: int) -> int:
    """The number of clips of each array that a picture of ``rows`` with ``parts`` arrays should show."""
    return max(SIDE // parts, 1)


def animation(clips: np.ndarray, columns: int | None = None) -> bytes:
    """A GIF file that repeats a grid of clips endlessly, at 10 frames per second.

    Args:
        clips: an array ``[n, frames, h, w, c]``, as for ``strip``.
        columns: number of clips in a row. With None, the grid is nearly square.
    """
    return pictures.animate(grid_frames(clips, columns), _MILLISECONDS)


def grid_frames(clips: np.ndarray, columns: int | None = None) -> list[Image.Image]:
    """The frames of a grid of clips ``[n, frames, h, w, c]``. A single clip keeps its size, without a border."""
    shown = pictures.shown(clips)
    if len(shown) == 1:
        return [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in shown[0]]
    return [pictures.grid(shown[:, i], columns) for i in range(shown.shape[1])]
