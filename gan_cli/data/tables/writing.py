"""Writes rows of a table in parts, as CSV (also compressed) or Parquet, with the kinds and formats of the columns."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from gan_cli.data.tables import suffix_of
from gan_cli.data.tables.columns import Column
from gan_cli.storage import files

Part = Mapping[str, np.ndarray]  # mapping from the names of the columns to values [n]


def write(path: Path, columns: Sequence[Column], parts: Iterable[Part]) -> None:
    """Write a file atomically. Only one part of the rows is in memory at a time.

    Args:
        path: the file, whose name ends in .csv, .csv.gz or .parquet.
        columns: the columns, in the order of the file.
        parts: the rows, in parts.
    """
    tables = (arrow(columns, part) for part in parts)
    kind = suffix_of(path)

    def fill(file: BinaryIO) -> None:
        if kind == ".parquet":
            _write_parquet(file, tables)
        elif kind == ".csv":
            file.writelines(_csv(columns, tables))
        else:
            # Without a time stamp, equal tables are equal files. Level 1 takes a fifth of the time of level 9.
            with gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
                packed.writelines(_csv(columns, tables))

    files.write(path, fill)


def arrow(columns: Sequence[Column], part: Part) -> pa.Table:
    """Rows as an Arrow table with typed columns, in which missing values are null."""
    return pa.table({column.name: _array(column, part[column.name]) for column in columns})


def npz_arrays(columns: Sequence[Column], part: Part) -> dict[str, np.ndarray]:
    """The columns as arrays of an ``.npz`` file: texts, integers, float64, or dates as ``datetime64[s]``.

    A missing value is an empty text, NaN or NaT. Integers with missing values are float64.
    """
    found = {}
    for column in columns:
        values = part[column.name]
        if column.kind == "date":
            found[column.name] = _dates(values)
        elif column.kind == "integer" and not np.isnan(values).any():
            found[column.name] = values.astype(np.int64)
        elif column.numeric:
            found[column.name] = values
        else:
            found[column.name] = np.where(np.equal(values, None), "", values).astype(str)
    return found


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays with any names to an ``.npz`` file. ``numpy.savez`` rejects some names, such as ``file``."""

    def fill(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)

    files.write(path, fill)


def _array(column: Column, values: np.ndarray) -> pa.Array:
    if not column.numeric:
        return pa.array(values, pa.string())
    if column.kind == "date":
        return pa.array(_dates(values), pa.timestamp("s"))
    missing = np.isnan(values)
    if column.kind == "integer":
        return pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)
    return pa.array(values, mask=missing)


def _dates(values: np.ndarray) -> np.ndarray:
    missing = np.isnan(values)
    dates = np.where(missing, 0, values).astype("datetime64[s]")
    return np.where(missing, np.datetime64("NaT", "s"), dates)


def _write_parquet(file: BinaryIO, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with parquet.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _csv(columns: Sequence[Column], tables: Iterator[pa.Table]) -> Iterator[bytes | memoryview]:
    """Yields the header and the rows of a CSV file. Arrow's own writer encloses every text in quotes."""
    yield (",".join(_quoted(column.name) for column in columns) + "\n").encode()
    for table in tables:
        texts = [_texts(column, table[column.name].combine_chunks()) for column in columns]
        if len(texts) == 1:  # a row of one missing value would be an empty line, which readers skip
            texts[0] = texts[0].fill_null('""')
        joined = pc.binary_join_element_wise(*texts, ",", null_handling="replace", null_replacement="")
        lines = pc.binary_join_element_wise(joined, "", "\n")
        yield _content(lines)


def _content(lines: pa.StringArray) -> memoryview:
    """The bytes of all texts of an array, which lie one after the other in memory."""
    ends = np.frombuffer(lines.buffers()[1], np.int32, len(lines) + 1, lines.offset * 4)
    return memoryview(lines.buffers()[2])[ends[0] : ends[-1]]


def _texts(column: Column, array: pa.Array) -> pa.Array:
    if column.kind == "date":
        return pc.strftime(array, column.format or "%Y-%m-%d")
    if column.numeric:
        return array.cast(pa.string())
    codes = array.dictionary_encode()
    quoted = pa.array([_quoted(text) for text in codes.dictionary.to_pylist()], pa.string())
    return quoted.take(codes.indices)


def _quoted(text: str) -> str:
    """A field of a CSV file (RFC 4180). An empty text is quoted, because an empty field is a missing value."""
    special = not text or text != text.strip() or any(sign in text for sign in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if special else text
