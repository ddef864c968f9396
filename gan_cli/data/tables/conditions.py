"""Conditions on the rows of a table, e.g. ``age>=65``, as ``gan-sample --where`` takes them."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from gan_cli.data.tables.columns import Column
from gan_cli.errors import UserError, nearest

_OPERATORS = {  # an operator that starts with another one precedes it
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_SHOWN = 12  # largest number of names in a message


@dataclass(frozen=True)
class Condition:
    """A condition on the value of one column.

    Attributes:
        text: the condition as the user wrote it.
        column: the column.
        sign: the operator, ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        value: a category, a number (for a date, in seconds since 1970-01-01), or None for a missing value.
    """

    text: str
    column: Column
    sign: str
    value: str | float | None

    @property
    def code(self) -> int:
        """The entry of the choice of a category, or of a missing category."""
        return len(self.column.categories) if self.value is None else self.column.categories.index(str(self.value))

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Whether each of the values ``[n]`` of the column meets the condition.

        A missing value meets only ``COLUMN=`` and ``COLUMN!=VALUE``.
        """
        missing = self.column.absent(values)
        if self.value is None:
            found = missing if self.sign == "=" else ~missing
        else:
            found = _OPERATORS[self.sign](values, self.value)
            found = found | missing if self.sign == "!=" else found & ~missing
        return np.asarray(found, bool)


def parse(text: str, columns: Sequence[Column]) -> Condition:
    """The condition that a user wrote as ``COLUMN=VALUE``, or with ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

    Args:
        text: the condition. An empty value means a missing value. Dates have the format of the file, or ISO 8601.
        columns: the columns that the model has learnt.

    Raises:
        UserError: the column or the category is unknown, the value does not fit the column, or no value of the
            column meets the condition.
    """
    column, rest = _column(text, columns)
    sign = next(sign for sign in _OPERATORS if rest.startswith(sign))
    value = _value(text, column, sign, rest.removeprefix(sign))
    condition = Condition(text, column, sign, value)
    _check_range(condition)
    return condition


def find(name: str, columns: Sequence[Column], option: str) -> Column:
    """The column with a name.

    Raises:
        UserError: no column has this name. The message starts with ``option``.
    """
    found = next((column for column in columns if column.name == name), None)
    if found is None:
        names = [column.name for column in columns]
        raise UserError(
            f"{option}: this run has learnt no column {name!r}.{nearest(name, names)} Its columns are: "
            f"{listed(names)}."
        )
    return found


def with_categories(name: str, columns: Sequence[Column]) -> Column:
    """The column whose categories ``gan-sample --balance`` balances.

    Raises:
        UserError: no column has this name, or its values are numbers.
    """
    column = find(name, columns, f"--balance {name}")
    if column.numeric:
        others = [one.name for one in columns if not one.numeric]
        remedy = f"Choose a column with categories: {listed(others)}." if others else "Use --where with a range."
        raise UserError(f"--balance {name}: the values of this column are numbers. {remedy}")
    return column


def listed(names: Sequence[str]) -> str:
    """The names in one line, separated by commas; of many names, the first ones."""
    return ", ".join([*map(_in_line, names[:_SHOWN]), *(["..."] if len(names) > _SHOWN else [])])


def _in_line(text: str) -> str:
    return " ".join(text.split())


def _column(text: str, columns: Sequence[Column]) -> tuple[Column, str]:
    """The column whose name starts the text, and the text from the sign on. The longest name has precedence."""
    for column in sorted(columns, key=lambda column: -len(column.name)):
        rest = text.removeprefix(column.name).lstrip()
        if text.startswith(column.name) and rest.startswith(tuple(_OPERATORS)):
            return column, rest
    places = [at for sign in _OPERATORS if (at := text.find(sign)) > 0]
    if not places:
        raise UserError(
            f"--where {text}: is no condition. Write COLUMN=VALUE, or use one of the signs != < <= > >=, e.g. "
            f"--where '{columns[0].name}=VALUE'."
        )
    name = text[: min(places)].strip()
    return find(name, columns, f"--where {text}"), text[min(places) :]


def _value(text: str, column: Column, sign: str, value: str) -> str | float | None:
    if not value.strip() and value not in column.categories:
        if sign not in ("=", "!="):
            raise UserError(f"--where {text}: has no value. Write a value after {sign}.")
        if not column.missing:
            raise UserError(
                f"--where {text}: no value of the column {column.name} is missing in the training rows."
            )
        return None
    if not column.numeric:
        return _category(text, column, sign, value)
    if column.kind == "date":
        return _seconds(text, column, value.strip())
    comma = column.decimal == "," and re.fullmatch(r"[+-]?\d+,\d+", value.strip(), re.ASCII)
    try:
        number = float(value.replace(",", ".") if comma else value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise UserError(
            f"--where {text}: {value.strip()} is no number, but {column.name} has numbers. Write a number."
        )
    return number


def _category(text: str, column: Column, sign: str, value: str) -> str:
    if sign not in ("=", "!="):
        raise UserError(
            f"--where {text}: the values of {column.name} are categories, which have no order. Use = or !=, e.g. "
            f"--where '{column.name}={_in_line(column.categories[0])}'."
        )
    for name in (value, value.strip()):
        if name in column.categories:
            return name
    near = nearest(value.strip(), column.categories).replace("\n", " ")
    raise UserError(
        f"--where {text}: the model never saw the category {value.strip()!r} of {column.name}."
        f"{near} The categories are: {listed(column.categories)}."
    )


def _seconds(text: str, column: Column, value: str) -> float:
    try:
        date = datetime.strptime(value, column.format) if column.format else datetime.fromisoformat(value)
    except ValueError:
        try:
            date = datetime.fromisoformat(value)
        except ValueError as error:
            raise UserError(
                f"--where {text}: {value} is no date. Write the date as in the file, or as YYYY-MM-DD."
            ) from error
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _check_range(condition: Condition) -> None:
    """Raise a UserError if no number in the range and with the decimals of the column meets the condition."""
    column, value = condition.column, condition.value
    if column.low is None or column.high is None or not isinstance(value, float):
        return
    if condition.sign == "=" and column.decimals is not None and round(value, column.decimals) != value:
        raise UserError(
            f"--where {condition.text}: no row meets the condition, because the values of {column.name} have "
            f"{column.decimals} decimals. Use a range, e.g. two conditions with >= and <."
        )
    sides = np.array([column.low, column.high, *column.spikes])
    inside = condition.sign == "=" and sides.min() <= value <= sides.max()
    if not inside and not condition.holds(sides).any() and condition.sign != "!=":
        low, high = (_shown(column, side) for side in (sides.min(), sides.max()))
        raise UserError(
            f"--where {condition.text}: no row meets the condition, because the values of {column.name} are from "
            f"{low} to {high}."
        )


def _shown(column: Column, value: float) -> str:
    if column.kind != "date":
        return f"{value:g}"
    return datetime.fromtimestamp(value, UTC).strftime(column.format or "%Y-%m-%d")


def check_together(conditions: Sequence[Condition], balance: Column | None = None) -> None:
    """Raise a UserError if no value meets all conditions on its column, or if they exclude a balanced category."""
    by_column: dict[str, list[Condition]] = {}
    for one in conditions:
        by_column.setdefault(one.column.name, []).append(one)
    for together in by_column.values():
        column, texts = together[0].column, " and ".join(one.text for one in together)
        values = _values_for(together)
        met = meets(together, {column.name: values})
        if not met.any():
            raise UserError(f"--where {texts}: no value of {column.name} meets both. Leave out one of them.")
        if column == balance and (excluded := set(column.categories) - set(values[met])):
            raise UserError(
                f"--balance {column.name}: {texts} excludes the category {_in_line(min(excluded))}. Leave out "
                "--balance or the condition."
            )


def _values_for(conditions: Sequence[Condition]) -> np.ndarray:
    """Values of a column that decide whether conditions contradict each other: one of each interval."""
    column = conditions[0].column
    if not column.numeric:
        return np.array([*column.categories, None], object)
    ends = np.unique([float(one.value) for one in conditions if one.value is not None])
    between = [] if not len(ends) else [ends[0] - 1, *((ends[1:] + ends[:-1]) / 2), ends[-1] + 1]
    return np.array([*ends, *between, np.nan, *([] if len(ends) else [0.0])])


def meets(conditions: Sequence[Condition], columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether each row meets all conditions: booleans ``[n]``, for columns as ``Table.restore`` returns them."""
    parts = [condition.holds(columns[condition.column.name]) for condition in conditions]
    n = len(next(iter(columns.values())))
    return np.logical_and.reduce(parts) if parts else np.ones(n, bool)
