"""Converts the values of columns from and to the texts of a CSV file and the types of a Parquet file."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import LeftOut, Table
from gan_cli.errors import UserError

CODES = ("%Y", "%y", "%m", "%d", "%H", "%M", "%S")  # the codes that the format of a date may have
# Texts that stand for a missing value. "None" and "none" are categories in many tables.
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_COMMA = r"[+-]?\d+,\d+([eE][+-]?\d+)?"  # a number with a decimal comma
_THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"  # 1,234 is a number of thousands in many files with commas between fields
_ID_TYPES = ("", "null", "string", "int32", "int64", "uint32", "uint64", "float", "double")
_PLAIN = (1e-5, 1e15)  # Arrow writes the numbers between these without an exponent


def without_missing(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The values of a column of a file as one array, in which missing values are null."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(array, pa.ChunkedArray):  # combine_chunks keeps the chunks of very long texts
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if not pa.types.is_string(array.type):
        return array
    return pc.if_else(pc.is_in(trimmed(array), pa.array(MISSING)), pa.scalar(None, pa.string()), array)


def trimmed(array: pa.Array) -> pa.Array:
    """The texts of an array without the spaces around them."""
    spaces = pc.any(pc.match_substring_regex(array, r"^\s|\s$")).as_py()
    return pc.utf8_trim_whitespace(array) if spaces else array


def values_of(array: pa.Array, column: Column, where: str, infers: bool = True) -> np.ndarray:
    """The values ``[n]`` of a column: float64 with NaN, or strings with None for missing values.

    Args:
        array: the values in the file, as ``without_missing`` returns them.
        column: the column.
        where: the file, for messages.
        infers: whether a decimal comma is found in the values, if the column does not state it.

    Raises:
        UserError: a value is no number or no date, although the column holds numbers or dates.
    """
    if not column.numeric:
        return texts_of(array)
    # A file may have other decimal signs than the file that described the column.
    decimal = decimal_of(array) if infers and column.decimal == "." else column.decimal
    found = dates(array, column.format) if column.kind == "date" else numbers(array, decimal)
    wrong = pc.and_(pc.is_null(found), pc.is_valid(array))
    if pc.any(wrong).as_py():
        example = array.filter(wrong)[0].as_py()
        noun = f"date of the format {column.format}" if column.kind == "date" else "number"
        other = advice(column.name, "categorical") if infers else "change the entry of the column in the schema"
        comma = ", e.g. add `decimal: ','`" if not infers and decimal_of(array, ";") == "," else ""
        raise UserError(
            f"{where}: the column {column.name} has the value {str(example)!r}, which is no {noun}. Correct the "
            f"value, or {other}{comma}."
        )
    values = np.asarray(found.to_numpy(zero_copy_only=False), np.float64)
    if np.isinf(values).any():
        raise UserError(
            f"{where}: the column {column.name} has an infinite value. Replace it with a number, or leave the "
            "field empty for a missing value."
        )
    return values


def texts_of(array: pa.Array) -> np.ndarray:
    """The values of an array as texts ``[n]``, with None for missing values. Equal texts are one object."""
    if not pa.types.is_string(array.type):
        array = array.cast(pa.string())
    coded = array.dictionary_encode()
    known = np.array([*coded.dictionary.to_pylist(), None], object)
    codes = pc.fill_null(coded.indices, len(known) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(known[codes])


def advice(name: str, kind: str) -> str:
    """The advice to set the kind of a column, as it is typed in a shell."""
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        return f"set dataset.columns.{name}={kind}"
    if re.fullmatch(r"\w[\w .%/+-]*", name, re.ASCII) and name == name.strip():
        return f"set 'dataset.columns={{{name}: {kind}}}'"
    return f"describe the column as {kind} in a schema"


def decimal_of(texts: pa.Array, separator: str = ",") -> str:
    """The decimal sign of the numbers in an array: a comma if all texts are numbers and some have decimal commas.

    Args:
        texts: the values of a column, in which missing values are null.
        separator: the separator of the file. If it is a comma, numbers such as ``1,234`` may be thousands, so that
            the array needs a number with a decimal comma that is certain.
    """
    if not pa.types.is_string(texts.type) or not pc.any(pc.match_substring(texts, ",")).as_py():
        return "."
    texts = trimmed(texts)
    commas = pc.match_substring_regex(texts, f"^{_COMMA}$")
    if not pc.all(pc.or_(commas, pc.match_substring_regex(texts, r"^[+-]?\d+$"))).as_py():
        return "."
    thousands = pc.all(pc.match_substring_regex(texts.filter(commas), f"^{_THOUSANDS}$")).as_py()
    return "." if separator == "," and thousands else ","


def numbers(array: pa.Array, decimal: str = ".") -> pa.Array:
    """The values of an array as float64. Texts that are no numbers are null.

    Args:
        array: the values.
        decimal: the decimal sign of texts. With a comma, numbers with a decimal point are read as well.
    """
    if not pa.types.is_string(array.type):
        try:
            return array.cast(pa.float64(), safe=False)
        except pa.ArrowException:
            return pa.nulls(len(array), pa.float64())
    array = trimmed(array)
    if decimal == ",":
        commas = pc.match_substring_regex(array, f"^{_COMMA}$")
        array = pc.if_else(commas, pc.replace_substring(array, ",", "."), array)
    valid = pc.match_substring_regex(array, f"^{_NUMBER}$")
    infinite = pc.match_substring_regex(array, r"^[+-]?inf(inity)?$", ignore_case=True)
    return pc.if_else(pc.or_(valid, infinite), array, pa.scalar(None, pa.string())).cast(pa.float64())


def dates(array: pa.Array, form: str) -> pa.Array:
    """The values of an array as float64, in seconds since 1970-01-01. Texts of another format are null."""
    if pa.types.is_string(array.type):
        array = trimmed(array)
        fits = pc.match_substring_regex(array, pattern(form))
        array = pc.if_else(fits, array, pa.scalar(None, pa.string()))
        array = pc.strptime(array, format=form, unit="s", error_is_null=True)
    if pa.types.is_timestamp(array.type) and array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit))  # the times of the zone UTC
    if not pa.types.is_temporal(array.type):
        return pa.nulls(len(array), pa.float64())
    micros = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())  # without nanoseconds
    return pc.divide(micros.cast(pa.float64(), safe=False), 1e6)


def pattern(form: str) -> str:
    """A regular expression of the texts of a date in a ``strftime`` format."""
    digits = {"%Y": r"\d{4}", "%y": r"\d{2}"} | dict.fromkeys(CODES[2:], r"\d{1,2}")
    parts = re.split("(%.)", form)
    return f"^{''.join(digits.get(part, re.escape(part)) for part in parts)}$"


def texts(table: Table, columns: Mapping[str, np.ndarray], start: int = 0) -> list[pa.Array]:
    """The texts of rows in a CSV file, for each column of the file, without quotes.

    Args:
        table: the feature of the rows.
        columns: mapping from the names of the columns to values ``[n]``, as ``Table.restore`` returns them.
        start: number of the rows before these rows in the file.
    """
    learned = {column.name: column for column in table.columns}
    left_out = {column.name: column for column in table.left_out}
    n = len(next(iter(columns.values())))
    return [
        text_of(learned[name], columns[name]) if name in learned else _texts_left_out(left_out[name], n, start)
        for name in table.names
    ]


def text_of(column: Column, values: np.ndarray) -> pa.Array:
    """The texts of values ``[n]`` of a column in a CSV file. A missing value is an empty text.

    Args:
        column: the column.
        values: float64 with NaN, or strings with None, for missing values.
    """
    if not column.numeric:
        return pc.fill_null(pa.array(values, pa.string()), "")
    missing = np.isnan(values)
    known = np.where(missing, 0.0, values) + 0.0  # no negative zero
    if column.kind == "date":
        seconds = pa.array(np.round(known).astype(np.int64)).cast(pa.timestamp("s"))
        found = pc.strftime(seconds, format=column.format or "%Y-%m-%d")
    elif column.format:
        found = pa.array([format(value, column.format) for value in known.tolist()], pa.string())
    elif column.kind == "integer":
        found = pa.array(np.round(known).astype(np.int64)).cast(pa.string())
    else:
        sizes = np.abs(known)
        plain = ((sizes == 0) | ((sizes > _PLAIN[0]) & (sizes < _PLAIN[1]))).all()
        arrow = pa.array(known)
        found = arrow.cast(pa.string()) if plain else pa.array([repr(value) for value in known.tolist()])
    if column.kind != "date" and column.decimal != ".":
        found = pc.replace_substring(found, ".", column.decimal)
    return pc.if_else(pa.array(missing), "", found)


def _texts_left_out(column: LeftOut, n: int, start: int) -> pa.Array:
    if column.kind != "id":
        return pa.array([column.value if column.kind == "constant" else ""] * n, pa.string())
    numbers = pa.array(np.arange(n) + start + column.first).cast(pa.string())
    if column.digits:
        numbers = pc.utf8_lpad(numbers, column.digits, "0")
    return pc.binary_join_element_wise(column.value, numbers, "")


def typed(table: Table, columns: Mapping[str, np.ndarray], start: int = 0) -> pa.Table:
    """Rows for a Parquet file, with the types of the original. Missing values are null.

    Args:
        table: the feature of the rows.
        columns: mapping from the names of the columns to values ``[n]``, as ``Table.restore`` returns them.
        start: number of the rows before these rows in the file.
    """
    learned = {column.name: column for column in table.columns}
    left_out = {column.name: column for column in table.left_out}
    n, schema = len(next(iter(columns.values()))), arrow_schema(table)
    arrays = []
    for name in table.names:
        if name in learned:
            array = _natural(learned[name], columns[name])
        else:
            array = _texts_left_out(left_out[name], n, start)
            array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
        target = schema.field(name).type
        arrays.append(array if array.type == target else array.cast(target, safe=False))
    return pa.table(arrays, schema=schema)


def arrow_schema(table: Table) -> pa.Schema:
    """The names and types of the columns of a Parquet file with rows of a table."""
    described: dict[str, Column | LeftOut] = {column.name: column for column in table.columns}
    described |= {column.name: column for column in table.left_out}
    return pa.schema([(name, _type(described[name])) for name in table.names])


def _natural(column: Column, values: np.ndarray) -> pa.Array:
    """The values of a column with the type that a column of a text file has in Parquet."""
    if not column.numeric:
        return pa.array(values, pa.string())
    missing = np.isnan(values)
    if column.kind == "continuous":
        return pa.array(values, mask=missing)
    whole = pa.array(np.round(np.where(missing, 0, values)).astype(np.int64), mask=missing)
    return whole if column.kind == "integer" else whole.cast(pa.timestamp("s"))


def _type(column: Column | LeftOut) -> pa.DataType:
    if column.kind == "id" and column.stored_type not in _ID_TYPES:  # other types cannot hold numbers without end
        return pa.int64() if re.match("u?int", column.stored_type) else pa.string()
    if zone := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", column.stored_type):
        return pa.timestamp(zone[1], zone[2])
    if decimal := re.fullmatch(r"decimal128\((\d+), (-?\d+)\)", column.stored_type):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    if column.stored_type not in ("", "null"):
        return pa.type_for_alias(column.stored_type)
    kinds = {"continuous": pa.float64(), "integer": pa.int64(), "date": pa.timestamp("s")}
    return kinds.get(column.kind, pa.string())
