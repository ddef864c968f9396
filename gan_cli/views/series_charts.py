"""Charts of series: paths, the distribution of values, and autocorrelations, of samples beside real windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_cli.metrics import series_statistics as statistics

COUNT = 2500  # number of windows of each kind that a chart describes
_COLUMNS = 4  # the most columns of which charts are drawn
_PATHS = 8  # number of paths of each kind
_BINS = 40
_WIDTH, _HEIGHT = 330, 210  # of a panel with its labels, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 26, 24  # space around the axes of a panel
_LEGEND = 30  # height of the legend
_SCALE = 3  # pictures are drawn larger and reduced, which smooths the lines
_REAL, _FAKE = "#555555", "#d64524"
_TEXT, _AXIS, _GRID = "#333333", "#999999", "#e6e6e6"


@dataclass(frozen=True)
class _Line:
    x: np.ndarray
    y: np.ndarray
    colour: str
    bold: bool = True


@dataclass(frozen=True)
class _Panel:
    """A chart of lines.

    Attributes:
        title: text above the axes.
        lines: the lines, from back to front.
        low: smallest value of the vertical axis, or None for that of the lines.
        high: largest value of the vertical axis, or None for that of the lines.
        log: whether the values are decimal logarithms, which tick labels show as powers of 10.
    """

    title: str
    lines: Sequence[_Line]
    low: float | None = None
    high: float | None = None
    log: bool = False


def charts(samples: np.ndarray, real: np.ndarray | None, names: Sequence[str], returns: bool) -> Image.Image:
    """A picture with a row of four charts for each of the first four columns.

    The charts show paths, the density of the returns on a logarithmic scale, and the autocorrelations of the
    returns and of the absolute returns. They describe the values themselves where these are no prices.

    Args:
        samples: generated windows ``[n, length, columns]`` in the units of the data, with ``length`` > 1.
        real: real windows of the same form. None for samples alone, and ``samples`` itself for real windows alone.
        names: names of the columns.
        returns: whether the values are log-returns, whose paths are drawn as sums from 0.
    """
    kinds = [("real", real, _REAL)] if real is not None else []
    kinds += [("generated", samples, _FAKE)] if real is not samples else []
    reference = np.nan_to_num(samples if real is None else real).astype(np.float64)
    shown = [(label, _limited(x, reference), colour) for label, x, colour in kinds if x is not None]
    moved = [statistics.returns(x, reference, returns) for _, x, _ in shown]
    units = statistics.steps_of(reference, returns)
    rows = []
    for j, name in enumerate(names[:_COLUMNS]):
        colours = [colour for _, _, colour in shown]
        values = [x[..., j] for _, x, _ in shown]
        of = {"log": "log-returns", "difference": "differences", "none": "log-returns" if returns else "values"}
        rows.append(
            [
                _paths(f"{name}: {'sums of log-returns' if returns else 'paths'}", values, colours, returns),
                _density(f"{name}: density of {of[units[j]]}", [x[..., j] for x in moved], colours),
                _lags(f"{name}: autocorrelation by lag", [x[..., [j]] for x in moved], colours),
                _lags(f"{name}: autocorrelation of |x| by lag", [np.abs(x[..., [j]]) for x in moved], colours),
            ]
        )
    return _drawn(rows, [(label, len(x), colour) for label, x, colour in shown], len(names))


def _limited(windows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Windows in float64 without NaN, and without values ten times the range of the reference beyond its ends."""
    low, high = reference.min((0, 1)), reference.max((0, 1))
    reach = 10 * (high - low)
    limited: np.ndarray = np.clip(np.nan_to_num(np.asarray(windows, np.float64)), low - reach, high + reach)
    return limited


def _paths(title: str, values: Sequence[np.ndarray], colours: Sequence[str], returns: bool) -> _Panel:
    lines = []
    for windows, colour in zip(values, colours, strict=True):
        chosen = windows[np.linspace(0, len(windows) - 1, min(_PATHS, len(windows))).astype(int)]
        if returns:
            chosen = np.pad(chosen.cumsum(1), ((0, 0), (1, 0)))
        lines += [_Line(np.arange(len(path)), path, colour, bold=False) for path in chosen]
    return _Panel(title, lines)


def _density(title: str, values: Sequence[np.ndarray], colours: Sequence[str]) -> _Panel:
    first = values[0]
    margin = 0.25 * float(np.ptp(first)) or 1.0
    edges = np.linspace(first.min() - margin, first.max() + margin, _BINS + 1)
    lines = []
    for x, colour in zip(values, colours, strict=True):
        density = np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0] / x.size / (edges[1] - edges[0])
        heights = np.log10(np.where(density > 0, density, np.nan))
        lines.append(_Line(np.repeat(edges, 2)[1:-1], np.repeat(heights, 2), colour))
    return _Panel(title, lines, log=True)


def _lags(title: str, values: Sequence[np.ndarray], colours: Sequence[str]) -> _Panel:
    length = values[0].shape[1]
    if length < 2:
        return _Panel(title, [])
    lags = statistics.lags_of(length)
    lines = [_Line(np.array([1, lags]), np.zeros(2), _AXIS, bold=False)]
    lines += [
        _Line(np.arange(1, lags + 1), statistics.autocorrelations(x, lags)[:, 0], colour)
        for x, colour in zip(values, colours, strict=True)
    ]
    largest = max(0.1, *(float(np.abs(line.y).max()) for line in lines))
    return _Panel(title, lines, low=min(-0.05, *(float(line.y.min()) for line in lines)), high=largest)


def _drawn(rows: Sequence[Sequence[_Panel]], kinds: Sequence[tuple[str, int, str]], columns: int) -> Image.Image:
    size = max(map(len, rows)) * _WIDTH, len(rows) * _HEIGHT + _LEGEND
    picture = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12 * _SCALE)
    at = 12.0 * _SCALE
    middle = _LEGEND / 2 * _SCALE
    for label, count, colour in kinds:
        draw.line((at, middle, at + 24 * _SCALE, middle), fill=colour, width=3 * _SCALE)
        text = f"{label}, {count:,} windows"
        draw.text((at + 30 * _SCALE, middle), text, fill=_TEXT, font=font, anchor="lm")
        at += 48 * _SCALE + draw.textlength(text, font)
    if columns > len(rows):
        draw.text((at, middle), f"the first {len(rows)} of {columns} columns", _TEXT, font, anchor="lm")
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            _draw_panel(draw, panel, j * _WIDTH, _LEGEND + i * _HEIGHT)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _draw_panel(draw: ImageDraw.ImageDraw, panel: _Panel, left: int, top: int) -> None:
    title, font = ImageFont.load_default(13 * _SCALE), ImageFont.load_default(11 * _SCALE)
    x0, y0 = (left + _LEFT) * _SCALE, (top + _TOP) * _SCALE
    x1, y1 = (left + _WIDTH - _RIGHT) * _SCALE, (top + _HEIGHT - _BOTTOM) * _SCALE
    draw.text((x0, y0 - 6 * _SCALE), panel.title, fill=_TEXT, font=title, anchor="ls")
    if panel.lines:
        x_low, x_high = _range([line.x for line in panel.lines], None, None, 0)
        y_low, y_high = _range([line.y for line in panel.lines], panel.low, panel.high, 0.05)

        def place(x: float, y: float) -> tuple[float, float]:
            share = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
            return x0 + share[0] * (x1 - x0), y1 - min(max(share[1], 0), 1) * (y1 - y0)

        for y, label in _ticks(y_low, y_high, 4, panel.log):
            draw.line((x0, place(x_low, y)[1], x1, place(x_low, y)[1]), fill=_GRID, width=_SCALE)
            draw.text((x0 - 5 * _SCALE, place(x_low, y)[1]), label, fill=_TEXT, font=font, anchor="rm")
        for x, label in _ticks(x_low, x_high, 5, False):
            draw.line((place(x, y_low)[0], y1, place(x, y_low)[0], y1 + 3 * _SCALE), fill=_AXIS, width=_SCALE)
            draw.text((place(x, y_low)[0], y1 + 5 * _SCALE), label, fill=_TEXT, font=font, anchor="mt")
        for line in panel.lines:
            width = (2 if line.bold else 1) * _SCALE
            for part in _finite_parts(line):
                draw.line([place(x, y) for x, y in part], fill=line.colour, width=width, joint="curve")
    draw.line((x0, y0, x0, y1, x1, y1), fill=_AXIS, width=_SCALE)


def _finite_parts(line: _Line) -> list[list[tuple[float, float]]]:
    """The stretches of a line without NaN, each of at least two points."""
    finite = np.isfinite(line.y)
    rows = np.split(np.arange(len(line.y)), np.flatnonzero(np.diff(finite)) + 1)
    points = list(zip(line.x.tolist(), line.y.tolist(), strict=True))
    return [[points[i] for i in part] for part in rows if len(part) > 1 and finite[part[0]]]


def _range(
    values: Sequence[np.ndarray], low: float | None, high: float | None, margin: float
) -> tuple[float, float]:
    joined = np.concatenate(values).astype(np.float64)
    joined = joined[np.isfinite(joined)]
    low = float(joined.min(initial=np.inf)) if low is None else low
    high = float(joined.max(initial=-np.inf)) if high is None else high
    if not low < high:
        low, high = (low - 0.5, high + 0.5) if math.isfinite(low) else (0.0, 1.0)
    extra = margin * (high - low)
    return low - extra, high + extra


def _ticks(low: float, high: float, most: int, log: bool) -> list[tuple[float, str]]:
    """At most ``most`` round values between two bounds and their labels; for logarithms, powers of 10."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    step = max(1.0, round(step)) if log else step
    values = step * np.arange(math.ceil(low / step), math.floor(high / step) + 1)
    if log:
        return [(float(value), f"{10.0**value:g}") for value in values]
    return [(float(value), f"{0.0 if abs(value) < step / 2 else value:.6g}") for value in values]
