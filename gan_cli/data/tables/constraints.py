"""Constraints: conditions that every row of a table meets.

A constraint is a line of text. The names of columns and numbers in it are separated by spaces:

    start <= end            a column is at most (<=), less than (<), or equal to (=) another
    a + b + c = 100         a fixed sum
    net + tax = gross       a sum that is another column
    unique customer, day    no two rows have equal values in these columns

A row with a missing value in one of the columns meets the constraint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError, nearest

_EXAMPLES = "Write e.g. `start <= end`, `a + b = 100` or `unique customer, day`, with spaces around the signs."


@dataclass(frozen=True)
class Constraint:
    """A condition that every row meets.

    Attributes:
        text: the constraint as text.
        sign: ``<=``, ``<``, ``=``, or ``unique``.
        left: names of columns and numbers, whose sum is compared. For ``unique``, the columns of the key.
        right: names of columns and numbers, whose sum is compared.
    """

    text: str
    sign: str
    left: tuple[str | float, ...]
    right: tuple[str | float, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [one for one in (*self.left, *self.right) if isinstance(one, str)]


def parse(text: str, columns: Sequence[str], where: str) -> Constraint:
    """The constraint that a text describes.

    Args:
        text: the constraint.
        columns: the names of the columns of the table.
        where: the file or option with the constraint, for messages.

    Raises:
        UserError: the text is no constraint, or names a column that does not exist.
    """
    if text.startswith("unique "):
        names = [name.strip() for name in text.removeprefix("unique ").split(",")]
        return Constraint(text, "unique", tuple(_column(name, columns, text, where) for name in names))
    parts = re.split(r"\s+(<=|<|>=|>|=)\s+", text.strip())
    if len(parts) != 3:
        raise UserError(f"{where}: {text!r} is no constraint. {_EXAMPLES}")
    left, sign, right = parts
    sides = [tuple(_term(one, columns, text, where) for one in re.split(r"\s\+\s", side)) for side in (left, right)]
    if sign.startswith(">"):
        sides, sign = sides[::-1], sign.replace(">", "<")
    found = Constraint(text, sign, *sides)
    if not found.names:
        raise UserError(f"{where}: the constraint {text!r} names no column. {_EXAMPLES}")
    if sign == "=" and found.names.count(_dependent(found)) > 1:
        raise UserError(f"{where}: the constraint {text!r} names {_dependent(found)} twice. Name each column once.")
    return found


def _term(text: str, columns: Sequence[str], whole: str, where: str) -> str | float:
    text = text.strip()
    if text not in columns:
        try:
            if math.isfinite(value := float(text)):
                return value
        except ValueError:
            pass
    return _column(text, columns, whole, where)


def _column(name: str, columns: Sequence[str], whole: str, where: str) -> str:
    if name in columns:
        return name
    raise UserError(
        f"{where}: the constraint {whole!r} names {name!r}, which is no column.{nearest(name, columns)} {_EXAMPLES}"
    )


def check_numbers(constraint: Constraint, columns: Mapping[str, Column], where: str) -> None:
    """Raise a UserError if a constraint compares columns that the model does not learn or that are no numbers."""
    for name in constraint.names if constraint.sign != "unique" else ():
        if name not in columns or not columns[name].numeric:
            kind = columns[name].kind if name in columns else "left out"
            raise UserError(
                f"{where}: the constraint {constraint.text!r} compares numbers or dates, but the column {name} is "
                f"{kind}. Change the kind of the column, or remove the constraint."
            )


def in_order(constraints: Sequence[Constraint], where: str) -> list[Constraint]:
    """The constraints, in which a sum that determines a column precedes the sums that read this column.

    Raises:
        UserError: two sums determine the same column, or each of several sums reads what another one determines.
    """
    waiting: dict[str, Constraint] = {}
    for one in constraints:
        if one.sign == "=" and (other := waiting.setdefault(_dependent(one), one)) is not one:
            raise UserError(
                f"{where}: the constraints {other.text!r} and {one.text!r} both determine {_dependent(one)}. "
                "Remove one of them, or write the other column of one last."
            )
    found = []
    while waiting:
        ready = [name for name, one in waiting.items() if not (set(one.names) - {name}) & set(waiting)]
        if not ready:
            texts = " and ".join(repr(one.text) for one in waiting.values())
            raise UserError(f"{where}: the constraints {texts} determine each other. Remove one of them.")
        found += [waiting.pop(name) for name in ready]
    others = [one for one in constraints if one.sign != "="]
    return [*found, *sorted(others, key=lambda one: one.sign == "unique")]


def met(constraint: Constraint, columns: Mapping[str, np.ndarray], decimals: int | None = None) -> np.ndarray:
    """Whether each row meets a constraint, ``[n]``. Of rows with the same key, the first meets it.

    Args:
        constraint: the constraint.
        columns: mapping from names of columns to values ``[n]``.
        decimals: number of decimals to which sums are compared. With None, up to rounding errors of float64.
    """
    if constraint.sign == "unique":
        seen = set[object]()
        return np.array([_new(key, seen) for key in _keys(constraint, columns)], bool)
    left, right = _sum(constraint.left, columns), _sum(constraint.right, columns)
    absent = np.isnan(left) | np.isnan(right)
    slack = 1e-9 * (1 + np.abs(right)) if decimals is None else 0.5 * 10.0**-decimals
    if constraint.sign == "=":
        return np.asarray(absent | (np.abs(left - right) <= slack))
    return np.asarray(absent | (left <= right if constraint.sign == "<=" else left < right))


def _sum(side: tuple[str | float, ...], columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(sum((columns[one] if isinstance(one, str) else one for one in side), 0.0), float)


def _keys(constraint: Constraint, columns: Mapping[str, np.ndarray]) -> Sequence[object]:
    rows = zip(*(columns[name].tolist() for name in constraint.names), strict=True)
    # A missing number is NaN, which does not equal itself.
    return [None if any(value is None or value != value for value in row) else row for row in rows]


def _new(key: object, seen: set[object]) -> bool:
    if key is None:
        return True
    fresh = key not in seen
    seen.add(key)
    return fresh


class Checker:
    """Repairs generated rows, and says which of them meet the constraints of a table.

    A fixed sum is repaired: the column on the side without other columns, or else the last column of the sum,
    becomes the difference of the others, in rows without missing values in the sum, so that the shares of missing
    values stay. All other violations are for the caller to reject. Keys that earlier calls accepted are taken, so
    that rows may come in batches.

    Args:
        table: the feature of the rows.
    """

    def __init__(self, table: Table):
        self.columns = {column.name: column for column in table.columns}
        found = [parse(text, table.names, "the constraints of the run") for text in table.constraints]
        # A column that is left out is numbered anew, so that its values are unique.
        learned = [one for one in found if all(name in self.columns for name in one.names)]
        self.constraints = in_order(learned, "the constraints of the run")
        self._taken: dict[str, set[object]] = {one.text: set() for one in found}

    def repaired(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The rows with repaired sums.

        Args:
            columns: mapping from the names of the columns to values ``[n]``, as ``Table.restore`` returns them.
        """
        made = dict(columns)
        for one in self.constraints:
            if one.sign == "=":
                name = _dependent(one)
                others = (tuple(other for other in side if other != name) for side in (one.left, one.right))
                left, right = (_sum(side, made) for side in others)
                value = right - left if name in one.left else left - right
                decimals = self.columns[name].decimals
                value = value if decimals is None else np.round(value, decimals)
                made[name] = np.where(np.isnan(value) | np.isnan(made[name]), made[name], value)
        return made

    def accepted(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether each row ``[n]`` meets all constraints and the ranges of the columns that were repaired."""
        n = len(next(iter(columns.values())))
        kept = np.ones(n, bool)
        for one in self.constraints:
            if one.sign == "unique":
                seen = self._taken[one.text]
                for row, key in enumerate(_keys(one, columns)):
                    if kept[row]:
                        kept[row] = _new(key, seen)
                continue
            kept &= met(one, columns, decimals_of(one, self.columns))
            if one.sign == "=":
                column = self.columns[_dependent(one)]
                values = columns[column.name]
                assert column.low is not None and column.high is not None
                kept &= np.isnan(values) | ((values >= column.low) & (values <= column.high))
        return kept


def valid(table: Table, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The generated rows that meet the constraints of a table, with repaired sums."""
    checker = Checker(table)
    rows = checker.repaired(columns)
    kept = checker.accepted(rows)
    return {name: values[kept] for name, values in rows.items()}


def _dependent(constraint: Constraint) -> str:
    """The column that is computed from the others in a sum."""
    sides = [[one for one in side if isinstance(one, str)] for side in (constraint.right, constraint.left)]
    return next((side[0] for side in sides if len(side) == 1), (sides[1] or sides[0])[-1])


def decimals_of(constraint: Constraint, columns: Mapping[str, Column]) -> int | None:
    """The decimals to which a sum of columns holds: those of the column with the most."""
    if constraint.sign == "unique":
        return None
    found = [columns[name].decimals for name in constraint.names]
    known = [decimals for decimals in found if decimals is not None]
    return max(known) if len(known) == len(found) else None
