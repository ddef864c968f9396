"""Windows of series: log-returns, the split into training and held-out windows, and the scaling."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.series.feature import Series
from gan_cli.data.series.files import Sequences
from gan_cli.errors import UserError
from gan_cli.types import SeriesScaling, SeriesSplit, SeriesValues

_GAP = 10  # largest step in time, in median steps, that needs no note
_MODE = {"standard": "mean and standard deviation", "minmax": "smallest and largest value"}


def dataset_of(
    name: str,
    sequences: Sequences,
    *,
    length: int,
    values: SeriesValues,
    split: SeriesSplit,
    hold_out: float,
    scaling: SeriesScaling | None,
) -> Dataset:
    """The data set of all windows of ``length`` consecutive steps of several series.

    Args:
        name: name of the data set.
        sequences: the series.
        length: number of steps of a window.
        values: ``levels`` or ``returns``. Returns have one step fewer than levels.
        split: how windows are held out, see ``series``.
        hold_out: share of the time, or with ``split=timegan`` of the windows, that is held out.
        scaling: what networks see, see ``series``. With None, the default of the split.

    Raises:
        UserError: the series are too short, have levels that are not positive, or a constant column.
    """
    levels, times = sequences.values, sequences.times
    if values == "returns":
        _check_positive(sequences)
        levels = [log_returns(own) for own in levels]
        times = None if times is None else [own[1:] for own in times]
    parts = levels
    if split == "timegan":
        training, held_out = _shuffled(levels, length, hold_out)
        fitted = np.concatenate(levels)
    else:
        cuts = _cuts(levels, times, hold_out)
        parts = [own[:cut] for own, cut in zip(levels, cuts, strict=True)]
        training = _all_windows(parts, length)
        held_out = _all_windows([own[cut:] for own, cut in zip(levels, cuts, strict=True)], length)
        fitted = np.concatenate(parts)
    if not len(training):
        longest = max(map(len, levels))
        part = f", {hold_out:g} of which is held out" if hold_out and longest >= length else ""
        steps = "log-returns" if values == "returns" else "time steps"
        raise UserError(
            f"dataset.length={length}: a window is longer than the series of {name}, which have at most "
            f"{longest:,} {steps}{part}. Choose a smaller dataset.length{' or dataset.hold_out' if part else ''}."
        )
    scaling = scaling or ("minmax" if split == "timegan" else "standard")
    centre, scale = _scaling(name, fitted, sequences.columns, scaling)
    feature = Series(length, sequences.columns, centre, scale, values == "returns", scaling == "minmax")
    with np.errstate(over="ignore"):
        training, held_out = training.astype(np.float32), held_out.astype(np.float32)
    if not (np.isfinite(training).all() and np.isfinite(held_out).all()):
        raise UserError(f"{name}: has values that are too large for float32. Divide its columns by a constant.")
    notes = [_described(sequences, length, values, split), *sequences.notes, *_gaps(sequences.times)]
    if hold_out and not len(held_out):
        lost = max(len(own) - len(part) for own, part in zip(levels, parts, strict=True))
        notes.append(
            f"the held-out {lost:,} steps are fewer than dataset.length={length}; they are left out of training too"
            if lost
            else f"no window is held out, because dataset.hold_out={hold_out:g} is less than one"
        )
    short = sum(len(part) < length for part in parts)
    return Dataset(
        name,
        {"x": feature},
        {"x": training},
        {"x": held_out} if len(held_out) else None,
        notes=tuple(notes),
        passed_over={f"series with fewer than {length} training steps": short} if short else {},
    )


def log_returns(levels: np.ndarray) -> np.ndarray:
    """The differences of the logarithms of consecutive positive levels ``[steps, columns]``: one step fewer."""
    return np.diff(np.log(levels), axis=0)


def check_positive(
    source: str, columns: tuple[str, ...], levels: np.ndarray, rows: np.ndarray, remedy: str
) -> None:
    """Raise a UserError if a level ``[steps, columns]`` has no logarithm.

    Args:
        source: the option that names the file, and its value.
        columns: names of the columns.
        levels: the levels.
        rows: the row of each step in the file, counted from 1.
        remedy: the last sentence of the message.
    """
    steps, wrong = np.nonzero(~(levels > 0))
    if len(steps):
        raise UserError(
            f"{source}: the column {columns[wrong[0]]} has the value {levels[steps[0], wrong[0]]:g} in row "
            f"{rows[steps[0]]:,}, and log-returns need positive values. {remedy}"
        )


def _check_positive(sequences: Sequences) -> None:
    remedy = "Set dataset.values=levels, or choose other columns with dataset.columns=[...]."
    for levels, rows in zip(sequences.values, sequences.rows, strict=True):
        check_positive(sequences.source, sequences.columns, levels, rows, remedy)


def _cuts(levels: list[np.ndarray], times: list[np.ndarray] | None, hold_out: float) -> list[int]:
    """The number of training steps of each series.

    Series with times are cut at the same time, so that no held-out step is earlier than a training step of another
    series, which moves together with it.
    """
    if times is None or len(levels) == 1:
        return [len(own) - round(hold_out * len(own)) for own in levels]
    moments = np.unique(np.concatenate(times))
    kept = len(moments) - round(hold_out * len(moments))
    return [int(np.searchsorted(own, moments[kept - 1], side="right")) if kept else 0 for own in times]


def _all_windows(levels: list[np.ndarray], length: int) -> np.ndarray:
    """All windows ``[n, length, columns]`` of consecutive steps of several series ``[steps, columns]``."""
    found = [
        np.lib.stride_tricks.sliding_window_view(own, length, axis=0).swapaxes(1, 2)
        for own in levels
        if len(own) >= length
    ]
    return np.concatenate(found) if found else np.empty((0, length, levels[0].shape[1]))


def _shuffled(levels: list[np.ndarray], length: int, hold_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out windows in random order, which overlap each other, as in the code of TimeGAN."""
    windows = _all_windows(levels, length)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    kept = len(windows) - round(hold_out * len(windows))
    return windows[:kept], windows[kept:]


def _scaling(
    name: str, fitted: np.ndarray, columns: tuple[str, ...], scaling: SeriesScaling
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A pair: the centre and the scale of each column, from all levels ``[steps, columns]`` of training."""
    if scaling == "standard":
        centre, scale = fitted.mean(0), fitted.std(0)
    else:
        low, high = fitted.min(0), fitted.max(0)
        centre, scale = (low + high) / 2, (high - low) / 2
    for column, width, middle in zip(columns, scale, centre, strict=True):
        if not width > 1e-6 * abs(middle):
            raise UserError(
                f"{name}: the column {column} is constant in the training part, or nearly so ({_MODE[scaling]}). "
                "Leave it out with dataset.columns=[...]."
            )
    return tuple(map(float, centre)), tuple(map(float, scale))


def _gaps(times: list[np.ndarray] | None) -> list[str]:
    """A note about the largest gap in the times of the series, if it is long."""
    moves = [np.diff(own) for own in times or [] if len(own) > 1]
    ratio = max((float(own.max() / np.median(own)) for own in moves), default=0.0)
    if ratio <= _GAP:
        return []
    return [f"the largest step in time is {ratio:,.0f} times the median step; windows ignore such gaps"]


def _described(sequences: Sequences, length: int, values: SeriesValues, split: SeriesSplit) -> str:
    count, steps = len(sequences.values), sum(map(len, sequences.values))
    kind = "log-returns" if values == "returns" else "levels"
    how = "windows held out at random, which overlap training windows" if split == "timegan" else "split by time"
    return (
        f"{count:,} series of {steps:,} steps in all, windows of {length} {kind} of {len(sequences.columns)} "
        f"columns ({', '.join(sequences.columns[:6])}{', ...' if len(sequences.columns) > 6 else ''}), {how}"
    )
