"""Reads and writes files of tables: text files with separated values (CSV), also compressed, and Parquet.

A CSV file is UTF-8 or, if it is not valid UTF-8, Windows-1252. Its separator is a comma, a semicolon, a tab or a
vertical bar, whichever divides the first lines evenly. All values are read as texts, and ``inference`` decides
which of them are numbers.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import itertools
import lzma
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from gan_cli.data.dataset import Dataset
from gan_cli.data.tables import formats
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError
from gan_cli.storage import files, marks
from gan_cli.storage.marks import Origin

_SEPARATORS = ",;\t|"
_PROBED = 50  # lines that decide about the separator
_TYPES = "a CSV file (also .gz, .bz2, .xz, .zst or .zip) or a Parquet file"
_ADVICE = f"Choose {_TYPES} whose first line holds the names of the columns."


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    Attributes:
        columns: mapping from the names of the columns to their values: texts, or the types of a Parquet file.
        rows: number of rows.
        separator: the character between two values.
        notes: sentences about the reading of the file.
    """

    columns: dict[str, pa.ChunkedArray]
    rows: int
    separator: str = ","
    notes: tuple[str, ...] = ()

    def values(self, columns: Sequence[Column], where: str, infers: bool = True) -> dict[str, np.ndarray]:
        """Mapping from the names of columns to their values ``[n]``, as ``Table.store`` expects them.

        Args:
            columns: the columns, which the file must have.
            where: the file, for messages.
            infers: whether decimal commas are found in the values, if a column does not state them.

        Raises:
            UserError: a column is missing, or a value is no number or no date.
        """
        for column in columns:
            if column.name not in self.columns:
                raise UserError(f"{where}: there is no column {column.name!r}. Columns: {', '.join(self.columns)}.")
        arrays = {column.name: formats.without_missing(self.columns[column.name]) for column in columns}
        return {column.name: formats.values_of(arrays[column.name], column, where, infers) for column in columns}


def read(path: str, option: str = "dataset.path") -> Contents:
    """The contents of a CSV or Parquet file.

    Args:
        path: the file. Its content determines the format and the compression, not its suffix.
        option: the option that names the file, for messages.

    Raises:
        UserError: the file does not exist, is empty, is not a table, has two columns of the same name, or has rows
            of different lengths.
    """
    where, file = f"{option}={path}", files.expanded(path)
    if not file.is_file():
        problem = "is a folder" if file.is_dir() else "there is no such file"
        raise UserError(f"{where}: {problem}. Choose {_TYPES}.")
    try:
        with file.open("rb") as opened:
            start = opened.read(4)
        if start == b"PAR1":
            return _checked(*_parquet(file, where))
        return _checked(*_csv(_decompressed(file, start), where))
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile) as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{where}: cannot be read ({text}). Choose {_TYPES}.") from error


def _checked(table: pa.Table, where: str, separator: str = ",", notes: tuple[str, ...] = ()) -> Contents:
    names = [name.strip() for name in table.column_names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{where}: two columns have the name {twice[0]!r}. Rename one of them in the file.")
    if not table.num_rows or not names:
        raise UserError(f"{where}: the file has no rows. {_ADVICE}")
    return Contents(dict(zip(names, table.columns, strict=True)), table.num_rows, separator, notes)


def _decompressed(file: Path, start: bytes) -> bytes:
    if start[:2] == b"\x1f\x8b":
        return gzip.decompress(file.read_bytes())
    if start[:3] == b"BZh":
        return bz2.decompress(file.read_bytes())
    if start == b"\xfd7zX":
        return lzma.decompress(file.read_bytes())
    if start == b"(\xb5/\xfd":
        with pa.input_stream(str(file), compression="zstd") as stream:
            return bytes(stream.read())
    if start == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise OSError(f"the zip file holds {len(members)} files instead of one table")
            return archive.read(members[0])
    return file.read_bytes()


def _csv(content: bytes, where: str) -> tuple[pa.Table, str, str, tuple[str, ...]]:
    """The table, ``where``, the separator and the notes of the contents of a CSV file."""
    text, notes = _decoded(content, where)
    if not text.strip():
        raise UserError(f"{where}: the file is empty. {_ADVICE}")
    separator = _separator(text)
    try:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        table = pa.csv.read_csv(
            pa.py_buffer(text.encode()),
            parse_options=pa.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, ignore_empty_lines=len(header) > 1
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowException, csv.Error, StopIteration) as error:
        reason = (str(error) or "no rows").splitlines()[0].removeprefix("CSV parse error: ")[:120]
        raise UserError(f"{where}: the rows do not form a table ({reason}). {_ADVICE}") from error
    return table, where, separator, notes


def _decoded(content: bytes, where: str) -> tuple[str, tuple[str, ...]]:
    """A pair: the text of a file without its byte-order mark, and notes about its encoding."""
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig")):
        if content.startswith(mark) and (encoding == "utf-16" or b"\0" not in content):
            try:
                return content.decode(encoding), ()
            except UnicodeDecodeError:
                break
    letters = content[:65536].translate(None, bytes(range(32, 256)) + b"\t\n\r")
    if not letters:
        try:
            return content.decode("cp1252"), ("read as Windows-1252, because the file is not valid UTF-8",)
        except UnicodeDecodeError:
            pass
    raise UserError(f"{where}: the file is not text, so it is no table. {_ADVICE}")


def _separator(text: str) -> str:
    """The separator that divides the first lines into the same number of fields, at least two."""
    lines = list(itertools.islice(io.StringIO(text, newline=""), _PROBED + 1))[:_PROBED]
    best = (0.0, 0)
    found = ","
    for separator in _SEPARATORS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            continue
        fields = len(rows[0]) if rows else 0
        # The last of the lines may be the first part of a value with line breaks.
        alike = sum(len(row) == fields for row in rows) / max(len(rows), 1)
        if fields > 1 and (alike, fields) > best:
            best, found = (alike, fields), separator
    return found


def _parquet(file: Path, where: str) -> tuple[pa.Table, str]:
    try:
        table = pa.parquet.read_table(file)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"{where}: the Parquet file is damaged ({reason}). {_ADVICE}") from error
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        kinds = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
        more = (pa.types.is_decimal, pa.types.is_timestamp, pa.types.is_date, pa.types.is_null)
        if not any(kind(column.type) for kind in (*kinds, *more)):
            raise UserError(
                f"{where}: the column {name} holds values of the type {column.type}, which are no texts, numbers "
                "or dates. Leave the column out of the file."
            )
        if pa.types.is_decimal(column.type) and not pa.types.is_decimal128(column.type):
            column = column.cast(pa.float64())
        columns.append(column)
    return pa.table(columns, names=table.column_names), where


class Writer:
    """Writes rows of a table to a file with the columns and formats of the original, as a context manager.

    The suffix of the path determines the format: ``.parquet``, or CSV, with ``.gz``, ``.bz2``, ``.xz``, ``.zst`` or
    ``.zip`` compressed. Columns that the model does not learn are written, too: ids are numbered anew, a constant
    column has its value, and a column of too many different texts is empty.

    Args:
        path: the file, which is replaced if it exists.
        table: the feature of the rows.
        origin: the origin that the provenance mark states: inside a Parquet file, or beside another file. None for
            rows that are not generated.
    """

    def __init__(self, path: Path, table: Table, origin: Origin | None = None):
        self.path, self.table, self.rows, self._origin = path, table, 0, origin
        self._temporary = path.with_name(f".{path.name}.partial")
        self._parquet: pa.parquet.ParquetWriter | None = None

    def __enter__(self) -> Writer:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix == ".parquet":
            self._parquet = pa.parquet.ParquetWriter(self._temporary, formats.arrow_schema(self.table))
            self._digest = marks.RowDigest()
            return self
        self._stream, self._hash = _compressed(self._temporary, self.path.suffix), hashlib.sha256()
        names = self._quoted(pa.array(self.table.names, pa.string())).to_pylist()
        self._put(f"{self.table.separator.join(names)}\n")
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if self._parquet is not None and self._origin is not None and kind is None:
            self._parquet.add_key_value_metadata(marks.parquet_metadata(self._digest, self._origin))
        (self._parquet or self._stream).close()
        if kind is None:
            self._temporary.replace(self.path)
            if self._parquet is None:
                marks.write_beside(self.path, self._hash.hexdigest(), self._origin)
        else:
            self._temporary.unlink(missing_ok=True)

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows.

        Args:
            columns: mapping from the names of the columns to values ``[n]``, as ``Table.restore`` returns them.
        """
        if self._parquet is not None:
            part = formats.typed(self.table, columns, self.rows)
            self._parquet.write_table(part)
            if self._origin is not None:
                self._digest.update(part)
        else:
            fields = [self._quoted(array) for array in formats.texts(self.table, columns, self.rows)]
            lines = pc.binary_join_element_wise(*fields, self.table.separator)
            self._put("\n".join(lines.to_pylist()) + "\n")
        self.rows += len(next(iter(columns.values())))

    def _put(self, text: str) -> None:
        content = text.encode()
        self._stream.write(content)
        self._hash.update(content)

    def _quoted(self, texts: pa.Array) -> pa.Array:
        """The texts, between quotes where a text contains the separator, a quote or a line break."""
        special = pc.match_substring_regex(texts, f'[{re.escape(self.table.separator)}"\r\n]')
        if len(self.table.names) == 1:  # a line without any character would be skipped
            special = pc.or_(special, pc.equal(texts, ""))
        if not pc.any(special).as_py():
            return texts
        quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
        return pc.if_else(special, quoted, texts)


def write(path: Path, table: Table, columns: Mapping[str, np.ndarray], origin: Origin | None = None) -> None:
    """Write rows to a file, as ``Writer`` does."""
    with Writer(path, table, origin) as writer:
        writer.write(columns)


def training_rows(data: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of the training rows ``rows`` of a data set, as they are in its file."""
    if "training" in data.columns:
        return {name: values[rows] for name, values in data.columns["training"].items()}
    assert isinstance(data.feature, Table)
    return data.feature.restore(data.take(rows)[data.main])


def held_out_rows(data: Dataset) -> dict[str, np.ndarray] | None:
    """The columns of the held-out rows of a data set, as they are in its file. None if no rows are held out."""
    if data.held_out is None or "held_out" in data.columns:
        return None if data.held_out is None else dict(data.columns["held_out"])
    assert isinstance(data.feature, Table)
    return data.feature.restore(data.held_out[data.main])


def _compressed(file: Path, suffix: str) -> BinaryIO:
    """A stream that writes to ``file`` with the compression of a suffix."""
    if suffix == ".zip":
        return cast(BinaryIO, _Zipped(file))
    if suffix == ".zst":
        return cast(BinaryIO, pa.output_stream(str(file), compression="zstd"))
    openers: dict[str, Callable[[Path, str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast(BinaryIO, openers[suffix](file, "wb") if suffix in openers else file.open("wb"))


class _Zipped:
    """A stream that writes the only member of a zip file."""

    def __init__(self, file: Path):
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._member = self._archive.open("table.csv", "w")

    def write(self, content: bytes) -> None:
        self._member.write(content)

    def close(self) -> None:
        self._member.close()
        self._archive.close()
