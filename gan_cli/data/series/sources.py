"""Data sets of series: a file of the user, embedded stock prices, and sines."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.series.feature import Series
from gan_cli.data.series.files import read_sequences
from gan_cli.data.series.windows import dataset_of
from gan_cli.types import PositiveInt, SeriesScaling, SeriesSplit, SeriesValues, Share, SineLaw


def series(
    *,
    path: str,
    length: PositiveInt = 24,
    columns: list[str] | None = None,
    id: str | None = None,
    time: str | None = None,
    values: SeriesValues = "levels",
    split: SeriesSplit = "time",
    hold_out: Share = 0.2,
    scaling: SeriesScaling | None = None,
) -> Dataset:
    """Windows of the time series in a CSV or Parquet file, with one row for each time step.

    Every window of ``length`` consecutive steps is an example. Samples have the unit of the data: that of the file,
    or log-returns.

    Args:
        path: the file, which may be compressed. Its first row names the columns.
        length: number of steps in a window.
        columns: names of the columns with values. If null, all columns except ``id`` and ``time``.
        id: name of the column that names the series of each row, for a file with several series. If null, the file
            contains one series.
        time: name of the column of dates or of step numbers, which increase from row to row of a series. If null,
            the only column of dates. A file without dates has its rows in the order of time.
        values: ``levels`` are the values of the file. ``returns`` are the differences of the natural logarithms of
            consecutive values, which must be positive.
        split: ``time`` holds out the last part of the time, so that no training window overlaps a held-out window.
            ``timegan`` is the protocol of Yoon et al. 2019: windows are shuffled, so that held-out windows overlap
            training windows, and the scaling is fitted to all of them.
        hold_out: share of the time that is held out. 0 holds out nothing. With ``split=timegan``, the share of the
            windows.
        scaling: values that networks see. With ``standard``, the columns have mean 0 and standard deviation 1 in
            the training part, and samples are unbounded. With ``minmax``, the range of the training part is
            [-1, 1], and samples stay inside it. If null, ``standard``, or ``minmax`` with ``split=timegan``.
    """
    sequences = read_sequences(Path(path), columns, id, time)
    return dataset_of(
        Path(path).name.partition(".")[0],
        sequences,
        length=length,
        values=values,
        split=split,
        hold_out=hold_out,
        scaling=scaling,
    )


def stocks(
    *,
    length: PositiveInt = 24,
    values: SeriesValues = "returns",
    split: SeriesSplit = "time",
    hold_out: Share = 0.2,
    scaling: SeriesScaling | None = None,
) -> Dataset:
    """Daily prices of four shares (AAPL, GOOG, IBM and MSFT) from 2004-08-19 to 2013-03-01.

    The days are those on which all four were traded. The values are closing prices, adjusted for splits and
    dividends, and by default their log-returns. The data are in the public domain.

    Args:
        length: number of days in a window.
        values: ``returns`` are the differences of the natural logarithms of consecutive prices. ``levels`` are the
            prices.
        split: ``time`` holds out the last days, so that no training window overlaps a held-out window. ``timegan``
            is the protocol of Yoon et al. 2019: windows are shuffled, so that held-out windows overlap training
            windows, and the scaling is fitted to all of them.
        hold_out: share of the days that is held out. 0 holds out nothing. With ``split=timegan``, the share of the
            windows.
        scaling: values that networks see. With ``standard``, the columns have mean 0 and standard deviation 1 in
            the training part, and samples are unbounded. With ``minmax``, the range of the training part is
            [-1, 1], and samples stay inside it. If null, ``standard``, or ``minmax`` with ``split=timegan``.
    """
    with as_file(files("gan_cli.data.series") / "stocks.csv.gz") as path:
        sequences = read_sequences(path, None, None, "date")
    return dataset_of(
        "stocks", sequences, length=length, values=values, split=split, hold_out=hold_out, scaling=scaling
    )


def sines(
    *,
    length: PositiveInt = 24,
    columns: PositiveInt = 5,
    law: SineLaw = "code",
    size: PositiveInt = 10_000,
    held_out: PositiveInt = 10_000,
) -> Dataset:
    """Sines with random frequencies and phases, the synthetic data of TimeGAN, with values in [0, 1].

    Yoon et al. 2019, section 5.1. All columns of all sequences are independent. The sequences are identical in
    every run.

    Args:
        length: number of steps in a sequence.
        columns: number of columns.
        law: the distribution of frequency f and phase p. With ``code``, as in the authors' code, the values are
            sin(f t + p) with both f and p uniform in [0, 0.1]. With ``paper``, they are sin(2 pi f t + p) with f
            uniform in [0, 1] and p uniform in [-pi, pi].
        size: number of training sequences.
        held_out: number of held-out sequences.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    shape = size + held_out, 1, columns
    frequency, phase = rng.uniform(0, 1, (2, *shape))
    steps = np.arange(length)[:, None]
    if law == "code":
        angles = 0.1 * frequency * steps + 0.1 * phase
    else:
        angles = 2 * np.pi * frequency * steps + np.pi * (2 * phase - 1)
    x = ((np.sin(angles) + 1) / 2).astype(np.float32)
    names = tuple(f"sine{i}" for i in range(1, columns + 1))
    feature = Series(length, names, (0.5,) * columns, (0.5,) * columns, bounded=True)
    return Dataset("sines", {"x": feature}, {"x": x[:size]}, {"x": x[size:]})
