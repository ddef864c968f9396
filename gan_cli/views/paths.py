"""Pictures of windows of series: one panel for each window, and one line for each column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_WIDTH, _HEIGHT, _GAP = 160, 100, 6  # of a panel, and between panels, in pixels
_ACROSS = 8  # number of panels in a row
_SCALE = 3  # pictures are drawn larger and reduced, which smooths the lines
_COLOURS = ("#2166ac", "#d6604d", "#1b7837", "#762a83", "#e08214", "#018571", "#a6611a", "#4d4d4d")
_FRAME = "#bbbbbb"
COUNT = 2 * _ACROSS  # number of windows that a picture shows of each kind


def paths(parts: Sequence[np.ndarray]) -> Image.Image:
    """A picture of several arrays of windows ``[n, length, columns]``, from top to bottom, on one scale.

    Lines of the same colour belong to the same column. The vertical axis has the same range in all panels, that of
    the first array, extended by a tenth. Values outside of it lie on the frame.
    """
    rows = [part[start : start + _ACROSS] for part in parts for start in range(0, len(part), _ACROSS)]
    return _drawn(rows, parts[0])


def pairs(parts: Sequence[np.ndarray]) -> Image.Image:
    """A picture of several arrays of as many windows each: window i of each array is below that of the last."""
    starts = range(0, len(parts[0]), _ACROSS)
    return _drawn([part[start : start + _ACROSS] for start in starts for part in parts], parts[0])


def _drawn(rows: Sequence[np.ndarray], first: np.ndarray) -> Image.Image:
    low, high = float(first.min()), float(first.max())
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    across = max(map(len, rows))
    size = across * (_WIDTH + _GAP) + _GAP, len(rows) * (_HEIGHT + _GAP) + _GAP
    picture = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), "white")
    draw = ImageDraw.Draw(picture)
    for i, row in enumerate(rows):
        for j, window in enumerate(row):
            left, top = j * (_WIDTH + _GAP) + _GAP, i * (_HEIGHT + _GAP) + _GAP
            box = [edge * _SCALE for edge in (left, top, left + _WIDTH, top + _HEIGHT)]
            draw.rectangle(box, outline=_FRAME, width=_SCALE)
            shares = np.clip((np.nan_to_num(window, nan=low) - low) / (high - low), 0, 1)
            x = np.linspace(box[0], box[2], len(window))
            for column, values in enumerate(shares.T):
                y = box[3] - values * (box[3] - box[1])
                colour = _COLOURS[column % len(_COLOURS)]
                draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=_SCALE, joint="curve")
    return picture.resize(size, Image.Resampling.LANCZOS)
