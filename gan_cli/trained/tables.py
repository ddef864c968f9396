"""Tables in files, as ``gan-eval`` reads them: rows to judge, and the reference with which they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import spec_of
from gan_cli.data.tables import files, formats, inference, schema
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError, nearest


@dataclass(frozen=True)
class TableReference:
    """Rows with which the rows of a file are compared.

    Attributes:
        columns: the columns that are compared.
        training: the training rows: mapping from the names of the columns to arrays ``[n]``.
        held_out: rows that the generator has not seen, or None.
        label: the column that is the class of a row, or None.
        described: description of the rows, for results.
    """

    columns: tuple[Column, ...]
    training: Mapping[str, np.ndarray]
    held_out: Mapping[str, np.ndarray] | None
    label: str | None
    described: str


def of_files(reference: Path, held_out: Path | None, label: str | None, described: Path | None) -> TableReference:
    """The reference in files. Kinds of columns are inferred from the reference, or read from a schema.

    Columns that identify rows or are constant are not compared.

    Args:
        reference: the file with the training rows.
        held_out: the file with the held-out rows, or None.
        label: the column that is the class of a row, or None.
        described: the schema file, or None.

    Raises:
        UserError: a file is no table, has other columns, or there is no column ``label``.
    """
    contents = files.read(str(reference), "--reference")
    chosen = dict(schema.read(str(described)).columns) if described else {}
    inferred = inference.infer(contents, f"--reference={reference}", chosen)
    columns = inferred.columns
    names = [column.name for column in columns]
    if label is not None and label not in names:
        raise UserError(f"--label {label}: {_no_label(label, names, contents.columns)}")
    training = _values(contents, columns, f"--reference={reference}")
    unseen = _read(held_out, columns, "--held-out") if held_out else None
    text = f"{reference.name}, {contents.rows:,} rows"
    if unseen is not None and held_out is not None:
        text += f", and {held_out.name}, {len(unseen[names[0]]):,} held-out rows"
    return TableReference(columns, training, unseen, label, text)


def of_data(data: Dataset, label: str | None = None) -> TableReference:
    """The reference in a data set of rows of a table.

    Raises:
        UserError: there is no column ``label``.
    """
    feature = data.feature
    assert isinstance(feature, Table)
    names = [column.name for column in feature.columns]
    if label is not None and label not in names:
        raise UserError(f"--label {label}: {_no_label(label, names, names)}")
    own = None if feature.label is None else names[feature.label]
    held_out = files.held_out_rows(data)
    training = files.training_rows(data, np.arange(data.size))
    text = f"{data.name}, {data.size:,} rows" + (f" and {data.held_out_size:,} held-out rows" if held_out else "")
    return TableReference(feature.columns, training, held_out, label or own, text)


def _no_label(label: str, names: Sequence[str], present: Mapping[str, object] | Sequence[str]) -> str:
    if label in present:
        return "the column identifies rows or is constant. Choose another column."
    return f"there is no such column.{nearest(label, names)} Choose from: {', '.join(names)}."


def rows(path: Path, reference: TableReference) -> dict[str, np.ndarray]:
    """The rows of a file: mapping from the names of the reference's columns to arrays ``[n]``.

    The order of the columns does not matter, and other columns are ignored.

    Raises:
        UserError: the file is no table, lacks a column, or a value does not fit the kind of its column.
    """
    return _read(path, reference.columns, "")


def dataset_of(reference: Path, held_out: Path | None, feature: Table) -> Dataset:
    """A data set of the rows of files, with the columns of the samples of a run.

    Raises:
        UserError: a file is no table, lacks a column, or has a value that the columns do not have.
    """
    parts, originals = {}, {}
    for option, path in (("--reference", reference), ("--held-out", held_out)):
        if path is not None:
            columns = originals[option] = _read(path, feature.columns, option)
            try:
                parts[option] = {"x": feature.store(columns)}
            except ValueError as error:
                raise UserError(f"{option}={path}: {error}. Leave the rows out.") from error
            if feature.label is not None:
                parts[option]["label"] = feature.labels(parts[option]["x"])
    classes = None if feature.label is None else feature.columns[feature.label].width
    names = {"--reference": "training", "--held-out": "held_out"}
    return Dataset(
        reference.name,
        spec_of(feature, classes),
        parts["--reference"],
        parts.get("--held-out"),
        columns={names[option]: columns for option, columns in originals.items()},
    )


def _read(path: Path, columns: Sequence[Column], option: str) -> dict[str, np.ndarray]:
    where = f"{option}={path}" if option else str(path)
    try:
        contents = files.read(str(path), option or "table")
    except UserError as error:
        raise UserError(str(error).removeprefix("table=")) from error
    return _values(contents, columns, where)


def _values(contents: files.Contents, columns: Sequence[Column], where: str) -> dict[str, np.ndarray]:
    absent = [column.name for column in columns if column.name not in contents.columns]
    if absent:
        more = f" and {len(absent) - 1} others" if len(absent) > 1 else ""
        raise UserError(
            f"{where}: there is no column {absent[0]!r}{more}, which the reference has. Columns: "
            f"{', '.join(contents.columns)}."
        )
    try:
        return {
            column.name: _same(
                formats.values_of(formats.without_missing(contents.columns[column.name]), column, where), column
            )
            for column in columns
        }
    except UserError as error:
        text = str(error).partition(", or ")[0].rstrip(".")
        raise UserError(f"{text}, or state the kind categorical in a --schema.") from error


def _same(values: np.ndarray, column: Column) -> np.ndarray:
    """The values, where a category such as 1.0 is written as in the reference, e.g. 1.

    Programs that store codes of categories as numbers with decimals write them in this way.
    """
    if not column.categories:
        return values
    known = set(column.categories)
    written = {
        text: text.removesuffix(".0") for text in set(values) - known - {None} if text.removesuffix(".0") in known
    }
    return np.array([written.get(value, value) for value in values], object) if written else values
