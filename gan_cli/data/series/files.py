"""Reads series from a file: one row for each time step, and optionally a column that names the series of a row."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from gan_cli.errors import UserError, nearest

_UNNAMED = ("", "Unnamed: 0", "__index_level_0__")  # names that pandas gives to the index of rows
_SHOWN = 8  # largest number of columns that a message names


class Sequences(NamedTuple):
    """The series of a file.

    Attributes:
        columns: names of the columns with values.
        values: float64 levels ``[steps, columns]`` of each series, in the order of time.
        times: the times of the steps of each series, ``[steps]``, or None if the file has no column of times.
        ids: names of the series, or one empty text.
        rows: the rows of the steps of each series in the file, ``[steps]``, counted from 1.
        source: the option that names the file and its value.
        notes: what a user should know about the file.
    """

    columns: tuple[str, ...]
    values: list[np.ndarray]
    times: list[np.ndarray] | None
    ids: list[str]
    rows: list[np.ndarray]
    source: str
    notes: tuple[str, ...] = ()


def read_sequences(
    path: Path, columns: Sequence[str] | None, id_column: str | None, time: str | None, source: str | None = None
) -> Sequences:
    """The series of a CSV or Parquet file, which may be compressed.

    Args:
        path: the file. Its first row names the columns.
        columns: names of the columns with values. With None, all columns except the two below, and except a column
            without a name that counts the rows.
        id_column: name of the column that names the series of each row. With None, the file contains one series.
        time: name of the column of times or step numbers. With None, the column of dates, if the file has exactly
            one. Without such a column, the rows are in the order of time.
        source: the option that names the file and its value, for error messages. With None, ``dataset.path``.

    Raises:
        UserError: the file cannot be read, a column is missing, is named twice, is not numeric, or has empty or
            infinite values, or the times of a series do not increase from row to row.
    """
    fixed, source = source is not None, source or f"dataset.path={path}"
    table, notes = _table(path, source), tuple[str, ...]()
    if columns and len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise UserError(f"dataset.columns={list(columns)}: names the column {twice} twice. Name it once.")
    for name in [*(columns or ()), *filter(None, (id_column, time))]:
        if name not in table.column_names:
            raise UserError(
                f"{source}: has no column {name}.{nearest(name, table.column_names)} Its columns are: "
                f"{_listed(table.column_names)}."
            )
    if time is None:
        dated = [f.name for f in table.schema if _is_moment(f.type) and f.name != id_column]
        time = dated[0] if len(dated) == 1 and dated[0] not in (columns or ()) else None
    if columns is None:
        index = [name for name in _UNNAMED if name in table.column_names and _counts(table.column(name))]
        notes = tuple(f"the column {name or 'without a name'} counts the rows and is left out" for name in index)
        columns = [name for name in table.column_names if name not in (id_column, time, *index)]
    if not columns or not len(table):
        raise UserError(f"{source}: has no {'rows' if columns else 'columns'} with values. Choose another file.")
    values = np.stack([_numbers(source, name, table.column(name), fixed) for name in columns], axis=1)
    ids = np.zeros(len(table), int) if id_column is None else _ids(source, id_column, table.column(id_column))
    names = [""] if id_column is None else pc.unique(table.column(id_column).cast(pa.string())).to_pylist()
    rows = [np.flatnonzero(ids == number) for number in range(len(names))]
    times = None
    if time is not None:
        moments = _times(source, time, table.column(time))
        times = [moments[of] for of in rows]
        for of, own in zip(rows, times, strict=True):
            _check_order(source, time, of, own, table.column(time), id_column)
    numbered = [of + 1 for of in rows]
    return Sequences(tuple(columns), [values[of] for of in rows], times, names, numbered, source, notes)


def column_names(path: Path, source: str) -> list[str]:
    """The names of the columns of a file. ``source`` is the option that names it, for error messages."""
    names: list[str] = _table(path, source).column_names
    return names


def _table(path: Path, source: str) -> Any:
    """The Arrow table of a file."""
    if not path.is_file():
        raise UserError(f"{source}: there is no such file. Check the path.")
    try:
        table = pa.parquet.read_table(path) if ".parquet" in path.suffixes else pa.csv.read_csv(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: cannot be read as a table ({reason}). Choose a CSV or Parquet file.") from error
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source}: has two columns with the name {twice}. Rename one of them.")
    for i, name in enumerate(names):
        table = table.set_column(i, name, _dates(table.column(name)))
    return table


def _dates(column: Any) -> Any:
    """A column of texts, all of which are dates such as 2024-12-31, as dates. Other columns as they are."""
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or column.null_count == len(column):
        return column
    for zone in (None, "UTC"):
        with contextlib.suppress(pa.ArrowException):
            return column.cast(pa.timestamp("ns", zone))
    return column


def _is_moment(kind: Any) -> bool:
    """Whether the values of an Arrow type are dates, with or without a time of day."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _counts(column: Any) -> bool:
    """Whether the values of a column are consecutive integers, as the index of a data frame."""
    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    return bool((np.diff(column.to_numpy()) == 1).all())


def _numbers(source: str, name: str, column: Any, fixed: bool) -> np.ndarray:
    """A column as float64 numbers, all finite. ``fixed`` tells that the user cannot choose other columns."""
    kind = column.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not numeric and fixed:
        raise UserError(f"{source}: the column {name} is not numeric ({kind}). Write its values as numbers.")
    if not numeric and (pa.types.is_time(kind) or pa.types.is_duration(kind)):
        raise UserError(
            f"{source}: the column {name} has times without a date ({kind}). Leave it out with "
            "dataset.columns=[...], or write times with their dates, as 2024-12-31 09:30:00."
        )
    if not numeric:
        raise UserError(
            f"{source}: the column {name} is not numeric ({kind}). Leave it out with dataset.columns=[...], or "
            f"name its role, e.g. dataset.id={name} or dataset.time={name}."
        )
    numbers = column.cast(pa.float64()).to_numpy()
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        what = "an infinite value" if np.isinf(numbers[wrong[0]]) else "no value"
        raise UserError(
            f"{source}: the column {name} has {what} in row {wrong[0] + 1:,}, and {len(wrong):,} such rows in all. "
            "Fill the values in or remove the rows."
        )
    return np.asarray(numbers, np.float64)


def _ids(source: str, name: str, column: Any) -> np.ndarray:
    """The number of the series of each row, in the order of their first rows."""
    if column.null_count:
        raise UserError(f"{source}: the column {name} is empty in {column.null_count:,} rows. Name their series.")
    column = column.cast(pa.string())
    return np.asarray(pc.index_in(column, pc.unique(column)).to_numpy())


def _times(source: str, name: str, column: Any) -> np.ndarray:
    """The times of the rows, as integers for dates and as float64 for numbers."""
    if column.null_count:
        raise UserError(f"{source}: the column {name} is empty in {column.null_count:,} rows. Remove these rows.")
    if _is_moment(column.type):
        return np.asarray(column.to_numpy()).astype("datetime64[ns]").astype(np.int64)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy())
    raise UserError(
        f"{source}: the column {name} has neither dates nor numbers ({column.type}). Write dates as 2024-12-31, "
        "or with a time of day as 2024-12-31 09:30:00."
    )


def _check_order(
    source: str, name: str, rows: np.ndarray, times: np.ndarray, column: Any, id_column: str | None
) -> None:
    """Raise a UserError if the times of the rows of one series do not increase."""
    late = np.flatnonzero(~(np.diff(times) > 0))
    if not len(late):
        return
    before, row = int(rows[late[0]]), int(rows[late[0] + 1])
    several = "" if id_column else " If the file has several series, set dataset.id=NAME."
    if times[late[0]] == times[late[0] + 1]:
        raise UserError(
            f"{source}: rows {before + 1:,} and {row + 1:,} have the same {name}, {column[row]}. Remove one of "
            f"them.{several}"
        )
    raise UserError(
        f"{source}: {name} is out of order: {column[row]} in row {row + 1:,} comes after {column[before]}. Sort "
        f"the file by time, with the earliest row first.{several}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
