"""Infers the kinds of the columns of a table from their values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gan_cli.data.tables import formats
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import LeftOut
from gan_cli.data.tables.files import Contents
from gan_cli.errors import UserError, nearest

KINDS = ("continuous", "integer", "categorical", "boolean", "date", "id")  # the kinds that a user may choose
MOST_CATEGORIES = 1_000  # a column with more different texts is left out
_MOST_CHOSEN = 10_000  # the same for a column that the user declares as categorical
_UNIQUE = 0.9  # share of different texts from which on a column identifies rows
_COUNTER = 10  # smallest number of rows in which consecutive numbers count as an id
_MOST_DECIMALS = 9
_DIGITS = 18  # largest number of digits that an id keeps
_DATES = (
    "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M",
    "%Y/%m/%d", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d-%m-%Y", "%d.%m.%y",
    "%Y%m%d",  # read as whole numbers, unless the user declares a date
)  # fmt: skip
_LIKE = (  # texts that look like values of a kind, and the advice for their column
    (r"[+-]?\d{1,3}([.,' ]\d{3})*([.,]\d+)?", "numbers with marks between the thousands. Remove the marks"),
    (r"\d{4}-\d\d?-\d\d?[T ][\d:]+[.,]\d+.*", "dates with fractions of a second. Remove the fractions"),
    (r"(\d{4}[-./]\d\d?[-./]\d\d?|\d\d?[-./ ](\d\d?|[A-Za-z]{3,9})[-./ ](\d\d|\d{4}))([ T].*)?",
     "dates. Write them as YYYY-MM-DD"),
)  # fmt: skip
_BOOLEANS = ({"false", "true"}, {"no", "yes"}, {"n", "y"}, {"f", "t"}, {"nein", "ja"}, {"0", "1"})
_ID_NAME = re.compile(r"^$|^unnamed: \d+$|(^|[^a-z])(id|uuid|guid|key|index|idx|nr|number)$|[a-z](Id|ID)$")


@dataclass(frozen=True)
class Inferred:
    """The columns of a file.

    Attributes:
        columns: the columns to learn, without ranges and categories: names, kinds and formats.
        left_out: the other columns.
        reasons: mapping from the names of the columns that are left out to the reasons.
        missing: mapping from the names of columns with missing values to their shares of the rows.
        notes: sentences about columns whose texts look like numbers or dates.
    """

    columns: tuple[Column, ...]
    left_out: tuple[LeftOut, ...]
    reasons: Mapping[str, str]
    missing: Mapping[str, float]
    notes: tuple[str, ...] = ()


def infer(contents: Contents, where: str, chosen: Mapping[str, Column | str] | None = None) -> Inferred:
    """The kinds of the columns of a file.

    Numbers, dates and two texts such as ``yes`` and ``no`` are recognised. Other texts are categories. A column is
    left out if all its values are equal, if they identify rows (consecutive numbers, or nearly as many different
    texts as rows), or if it has more than 1,000 different texts.

    Args:
        contents: the contents of the file.
        where: the file, for messages.
        chosen: kinds or descriptions of columns by name, which replace the inferred kinds.

    Raises:
        UserError: a column of ``chosen`` or its kind does not exist or does not fit the values, or a column has
            infinite values.
    """
    chosen = dict(chosen or {})
    for name in chosen:
        if name not in contents.columns:
            near = nearest(name, contents.columns)
            raise UserError(f"{where}: there is no column {name!r}.{near} Columns: {', '.join(contents.columns)}.")
    columns, left_out, reasons, missing = [], [], dict[str, str](), dict[str, float]()
    notes = []
    for name, values in contents.columns.items():
        array = formats.without_missing(values)
        found, reason = _column(name, array, chosen.get(name), where, contents.separator)
        if name not in chosen:
            notes += _looks_like(found, array)
        if isinstance(found, LeftOut):
            left_out.append(found)
            reasons[name] = reason
            continue
        columns.append(found)
        if array.null_count:
            missing[name] = array.null_count / len(array)
    if not columns:
        raise UserError(f"{where}: all columns are ids, constant or texts, so there is nothing to learn.")
    return Inferred(tuple(columns), tuple(left_out), reasons, missing, tuple(notes))


def _looks_like(column: Column | LeftOut, array: pa.Array) -> list[str]:
    """A note about a column whose values look like numbers or dates of a form that is not recognised, or none."""
    distinct = pc.unique(array.drop_null())
    if column.kind == "integer" and pa.types.is_string(array.type) and len(distinct) > 2:
        found = formats.dates(distinct, "%Y%m%d")
        if pc.all(pc.match_substring_regex(distinct, "^(19|20)")).as_py() and not found.null_count:
            advice = formats.advice(column.name, "date")
            return [f"{column.name} looks like dates, e.g. {distinct[0].as_py()}. To learn dates, {advice}"]
    if column.kind not in ("categorical", "text", "id") or not pa.types.is_string(array.type) or not len(distinct):
        return []
    if formats.decimal_of(distinct, ";") == "," and formats.decimal_of(distinct) == ".":
        return [f"{column.name} looks like {_LIKE[0][1]}, e.g. {distinct[0].as_py()}"]
    for pattern, advice in _LIKE:
        alike = pc.all(pc.match_substring_regex(distinct, f"^({pattern})$")).as_py()
        # Whole numbers without any mark are an id, or categories that the user has chosen.
        if alike and not pc.all(pc.match_substring_regex(distinct, r"^\d*$")).as_py():
            return [f"{column.name} looks like {advice}, e.g. of {distinct[0].as_py()}"]
    return []


def _column(
    name: str, array: pa.Array, chosen: Column | str | None, where: str, separator: str
) -> tuple[Column | LeftOut, str]:
    """A pair: the description of a column, and the reason if it is left out."""
    if isinstance(chosen, Column):
        return _described(chosen, array, where, separator)
    return _inferred(name, array, chosen, where, separator)


def _described(stated: Column, array: pa.Array, where: str, separator: str) -> tuple[Column | LeftOut, str]:
    """The description of a column of a schema: what the schema states, and the rest as for its kind alone."""
    if stated.categories:  # rows with other texts are left out
        if len(stated.categories) > _MOST_CHOSEN or (stated.kind == "boolean" and len(stated.categories) > 2):
            raise UserError(
                f"{where}: the schema gives the column {stated.name} {len(stated.categories):,} categories. A "
                f"column of the kind boolean has two, and of the kind categorical at most {_MOST_CHOSEN:,}."
            )
        return dataclasses.replace(stated, stored_type=_stored_type(array)), ""
    form = stated.format if stated.kind == "date" else ""
    found, reason = _inferred(stated.name, array, stated.kind, where, separator, form)
    if isinstance(found, LeftOut):
        return found, reason
    decimals = found.decimals if stated.decimals is None else stated.decimals
    form = stated.format or found.format
    if not stated.format and stated.kind == "continuous" and form and decimals != found.decimals:
        form = f".{decimals}f" if decimals else ""
    decimal = "," if stated.decimal == "," else found.decimal
    return dataclasses.replace(
        found, low=stated.low, high=stated.high, decimals=decimals, format=form, decimal=decimal
    ), ""


def _stored_type(array: pa.Array) -> str:
    return "" if pa.types.is_string(array.type) else str(array.type)


def _inferred(
    name: str, array: pa.Array, chosen: str | None, where: str, separator: str, form: str = ""
) -> tuple[Column | LeftOut, str]:
    """The description of a column from its values, and its kind and the format of dates where these are chosen."""
    stored_type = _stored_type(array)
    distinct = pc.unique(array.drop_null())
    if chosen is not None and chosen not in KINDS:
        raise UserError(
            f"{where}: the kind {chosen!r} of the column {name} does not exist.{nearest(chosen, KINDS)} Kinds: "
            f"{', '.join(KINDS)}."
        )
    if chosen == "id":
        return _id(name, distinct, stored_type), "declared as id"
    if len(distinct) < 2 and not (len(distinct) and array.null_count):
        value = str(distinct[0].cast(pa.string()).as_py()) if len(distinct) else ""
        return LeftOut(name, "constant", value, stored_type=stored_type), "constant" if value else "empty"
    kinds: dict[str, Callable[[], Column | None]] = {
        "boolean": lambda: boolean(name, distinct),
        "integer": lambda: _number(name, distinct, where, separator),
        "continuous": lambda: _number(name, distinct, where, separator),
        "date": lambda: _date(name, distinct, form),
        "categorical": lambda: Column(name, "categorical"),
    }
    if chosen is not None:
        found = kinds[chosen]()
        if found is None or (chosen == "integer" and found.kind != "integer"):
            raise UserError(
                f"{where}: the values of the column {name} are not of the kind {chosen}, e.g. "
                f"{distinct[0].as_py()!r}. Choose another kind, e.g. {formats.advice(name, 'categorical')}."
            )
        if chosen == "continuous":
            decimals = int(found.format[1:-1]) if found.format else found.decimals or None
            found = dataclasses.replace(found, kind="continuous", decimals=decimals)
        if chosen == "categorical" and len(distinct) > _MOST_CHOSEN:
            raise UserError(
                f"{where}: the column {name} has {len(distinct):,} different values. A column of categories has at "
                f"most {_MOST_CHOSEN:,}. To leave it out, {formats.advice(name, 'id')}."
            )
        return dataclasses.replace(found, stored_type=stored_type), ""
    if _is_counter(name, array, distinct):
        return _id(name, distinct, stored_type), "id, a different number in each row"
    found = kinds["boolean"]() or kinds["integer"]() or kinds["date"]()
    if found is not None:
        return dataclasses.replace(found, stored_type=stored_type), ""
    count = len(array) - array.null_count
    if len(distinct) > _UNIQUE * count:
        return _id(name, distinct, stored_type), f"id, {len(distinct):,} different texts in {count:,} rows"
    if len(distinct) > MOST_CATEGORIES:
        reason = f"{len(distinct):,} different texts, more than {MOST_CATEGORIES:,}"
        return LeftOut(name, "text", stored_type=stored_type), reason
    return Column(name, "categorical", stored_type=stored_type), ""


def boolean(name: str, distinct: pa.Array) -> Column | None:
    """The description of a column with the given different values, or None if they are no pair of truth values."""
    if len(distinct) > 2:
        return None
    if pa.types.is_boolean(distinct.type):
        return Column(name, "boolean")
    texts = {text.lower() for text in distinct.cast(pa.string()).to_pylist()}
    if not pa.types.is_string(distinct.type) and not pa.types.is_integer(distinct.type):
        return None
    return Column(name, "boolean") if len(distinct) == 2 and texts in _BOOLEANS else None


def _number(name: str, distinct: pa.Array, where: str, separator: str) -> Column | None:
    """The description of a column of numbers, or None if a value is no number."""
    if pa.types.is_boolean(distinct.type) or pa.types.is_temporal(distinct.type):
        return None
    decimal = formats.decimal_of(distinct, separator)
    found = formats.numbers(distinct, decimal)
    if found.null_count or not len(found):
        return None
    values = found.to_numpy(zero_copy_only=False)
    if not np.isfinite(values).any():  # the word "inf" may be a text
        return None
    if np.isinf(values).any():
        raise UserError(
            f"{where}: the column {name} has an infinite value. Replace it with a number, or leave the field empty "
            "for a missing value."
        )
    whole = bool((values == np.round(values)).all())
    if not pa.types.is_string(distinct.type):
        decimals = next((d for d in range(7) if np.allclose(np.round(values, d), values, rtol=1e-7, atol=0)), None)
        return Column(name, "integer", decimals=0) if whole else Column(name, "continuous", decimals=decimals)
    distinct = formats.trimmed(distinct)
    if pc.any(pc.match_substring_regex(distinct, r"^[+-]?0\d")).as_py():
        return None  # a code such as 00123, whose zeros a number would lose
    if np.abs(values).max() > 2**53 and whole:
        return None  # an account number, which float64 cannot represent
    decimals, form = _decimals(pc.replace_substring(distinct, decimal, "."))
    if whole:
        return Column(name, "integer", decimals=0, format=form if decimals else "", decimal=decimal)
    return Column(name, "continuous", decimals=decimals, format=form, decimal=decimal)


def _decimals(texts: pa.Array) -> tuple[int | None, str]:
    """A pair: the largest number of decimals of numbers, and the format if all have the same number of decimals."""
    if pc.any(pc.match_substring_regex(texts, "[eE]")).as_py():
        return None, ""
    lengths = pc.utf8_length(pc.replace_substring_regex(texts, r"^[^.]*\.?", "")).to_numpy(zero_copy_only=False)
    most = int(lengths.max())
    if most > _MOST_DECIMALS:
        return None, ""
    return most, f".{most}f" if most and lengths.min() == most else ""


def _date(name: str, distinct: pa.Array, stated: str) -> Column | None:
    """The description of a column of dates, or None if a value is no date. ``stated`` is the format, if known."""
    if pa.types.is_date(distinct.type) or pa.types.is_timestamp(distinct.type):
        form = "%Y-%m-%d" if pa.types.is_date(distinct.type) else "%Y-%m-%d %H:%M:%S"
        return Column(name, "date", format=form)
    if not pa.types.is_string(distinct.type) or not len(distinct):
        return None
    for form in (stated,) if stated else _DATES:
        if not formats.dates(distinct[:100], form).null_count and not formats.dates(distinct, form).null_count:
            return Column(name, "date", format=form)
    return None


def _is_counter(name: str, array: pa.Array, distinct: pa.Array) -> bool:
    """Whether a column has a different whole number in each row, consecutive or under the name of an id."""
    if len(distinct) != len(array) or len(array) < _COUNTER:
        return False
    if pa.types.is_string(array.type):
        if not pc.all(pc.match_substring_regex(array, r"^\d{1,18}$")).as_py():
            return False
        array = array.cast(pa.int64())
    if not pa.types.is_integer(array.type):
        return False
    ends = pc.min_max(array)
    consecutive = ends["max"].as_py() - ends["min"].as_py() + 1 == len(array)
    return bool(consecutive or _ID_NAME.search(name) or _ID_NAME.search(name.lower()))


def _id(name: str, distinct: pa.Array, stored_type: str) -> LeftOut:
    """The description of an id: the common text before the number, and the digits and the start of the numbers."""
    texts = distinct[:10_000].cast(pa.string()).to_pylist()
    parts = [re.fullmatch(r"(\D*)(\d+)", text) for text in texts]
    matches = [part for part in parts if part is not None]
    if len(matches) < len(texts) or not matches or len({part[1] for part in matches}) > 1:
        return LeftOut(name, "id", stored_type=stored_type)
    padded = any(part[2].startswith("0") and len(part[2]) > 1 for part in matches)
    lengths = {len(part[2]) for part in matches}
    digits = max(lengths) if padded else 0
    first = min(int(part[2]) for part in matches)
    if first not in (0, 1):  # numbers that all have n digits begin with the second number of n digits, as 10001
        same = not padded and len(lengths) == 1 and 1 < max(lengths) <= _DIGITS
        first = 10 ** (max(lengths) - 1) + 1 if same else 1
    return LeftOut(name, "id", matches[0][1], digits, first, stored_type)
