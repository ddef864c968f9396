"""Columns that a schema describes completely, so that nothing about them depends on the rows of the table.

``dataset.normalisation=range`` uses these columns. Private training needs them: kinds, ranges, categories and
shares that are read from the rows would reveal facts about the rows, without any noise.
"""

from __future__ import annotations

import dataclasses
import math

from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import LeftOut
from gan_cli.data.tables.files import Contents
from gan_cli.data.tables.inference import Inferred
from gan_cli.data.tables.schema import Schema
from gan_cli.errors import UserError, nearest

_DAY = 86_400.0


def described(contents: Contents, rules: Schema | None, roles: frozenset[str], where: str) -> Inferred:
    """The columns of a file as its schema describes them.

    Args:
        contents: the contents of the file. Only the names of its columns are read.
        rules: the schema.
        roles: names of columns that divide the rows and are not learned.
        where: the file, for messages.

    Raises:
        UserError: there is no schema, or it does not describe every column completely.
    """
    if rules is None:
        raise UserError(
            f"{where}: dataset.normalisation=range takes kinds, ranges and categories from a schema. Set "
            "dataset.schema=FILE, a YAML file with an entry for each column, written from public knowledge."
        )
    for name in rules.columns:
        if name not in contents.columns:
            near = nearest(name, contents.columns)
            raise UserError(f"{where}: the schema has the column {name!r}, and the file has no such column.{near}")
    columns, left_out = [], []
    for name in contents.columns:
        stated = "id" if name in roles else rules.columns.get(name)
        if stated is None:
            raise UserError(
                f"{where}: the schema does not describe the column {name!r}, and dataset.normalisation=range "
                f"infers nothing from the rows. Add the column to the schema, or leave it out with the entry "
                f"{name!r}: {{kind: id}}."
            )
        if isinstance(stated, str):
            left_out.append(LeftOut(name, "id"))
            continue
        if len(stated.categories) == 1 and not stated.missing:
            left_out.append(LeftOut(name, "constant", stated.categories[0]))
            continue
        columns.append(_complete(stated, where))
    return Inferred(tuple(columns), tuple(left_out), {one.name: f"declared as {one.kind}" for one in left_out}, {})


def _complete(column: Column, where: str) -> Column:
    """The column with its representation: numbers scaled by their range, and equal shares of all entries."""
    if not column.numeric:
        if not column.categories:
            raise UserError(f"{where}: the schema must list the categories of the column {column.name!r}.")
        return _with_shares(column)
    if column.low is None or column.high is None or column.low == column.high:
        raise UserError(
            f"{where}: the schema must state `low` and `high`, which differ, for the column {column.name!r}."
        )
    # The scalar of a value that is evenly distributed over the range has mean 0 and standard deviation 1.
    mean, std = (column.low + column.high) / 2, (column.high - column.low) / math.sqrt(12)
    has_time = any(code in column.format for code in ("%H", "%M", "%S"))
    unit = _DAY if column.kind == "date" and not has_time else 1.0
    form = column.format or ("%Y-%m-%d" if column.kind == "date" else "")
    return _with_shares(dataclasses.replace(column, modes=((mean, std),), unit=unit, format=form))


def _with_shares(column: Column) -> Column:
    shares = (1 / column.width,) * column.width if column.width else ()
    return dataclasses.replace(column, frequencies=shares)
