"""The schema of a table: a YAML file with kinds, ranges, categories and constraints, which a person can edit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import yaml

from gan_cli.data.tables.columns import NUMBERS, Column, Kind
from gan_cli.data.tables.feature import Table
from gan_cli.data.tables.formats import CODES, dates, text_of
from gan_cli.data.tables.inference import KINDS
from gan_cli.errors import UserError, nearest
from gan_cli.storage import files

_ENTRIES = ("kind", "low", "high", "decimals", "decimal", "format", "categories", "missing")
_HEAD = """\
# Schema of a table. Edit it, and use it with dataset.schema=FILE.
# kind: continuous, integer, categorical, boolean, date or id. A column of the kind id is not learned.
# low, high: range of generated numbers.     decimals: of continuous numbers.
# decimal: the sign "," or "." before the decimals in the file.
# format: of dates, with %Y %y %m %d %H %M %S, or of numbers with the same number of decimals, e.g. ".2f".
# missing: whether values may be missing; read with dataset.normalisation=range only.
# Constraints hold in every generated row, e.g. - start <= end, - a + b = 100, - unique customer, day
"""


@dataclass(frozen=True)
class Schema:
    """The contents of a schema.

    Attributes:
        columns: mapping from names of columns to their descriptions, or to the word ``id``.
        constraints: conditions that every row meets.
    """

    columns: Mapping[str, Column | str]
    constraints: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads all values without quotes as texts, so that the category ``no`` is not False."""

    yaml_implicit_resolvers = {
        letter: [rule for rule in rules if rule[0] == "tag:yaml.org,2002:null"]
        for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read(path: str) -> Schema:
    """The schema in a YAML file.

    Raises:
        UserError: the file does not exist or is no schema.
    """
    where, file = f"dataset.schema={path}", files.expanded(path)
    try:
        stated = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"{where}: the file cannot be read ({reason}). Check the path.") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        reason = getattr(error, "problem", None) or "it is damaged"
        raise UserError(
            f"{where}, line {line}: the file is not valid YAML ({reason}). Correct the line."
        ) from error
    stated = {} if stated is None else stated
    if not isinstance(stated, dict) or not set(stated) <= {"columns", "constraints"}:
        raise UserError(f"{where}: the file must have the entries `columns` and `constraints`, and no others.")
    columns, lines = stated.get("columns") or {}, stated.get("constraints") or []
    if not isinstance(columns, dict) or not isinstance(lines, list):
        raise UserError(f"{where}: `columns` must map names to descriptions, and `constraints` must be a list.")
    return Schema(
        {str(name): _described(str(name), one, f"{where}: column {name}") for name, one in columns.items()},
        tuple(str(line) for line in lines),
    )


def _described(name: str, stated: Any, where: str) -> Column | str:
    if isinstance(stated, str):
        stated = {"kind": stated}
    if not isinstance(stated, dict) or "kind" not in stated:
        raise UserError(f"{where}: needs a kind. Write e.g. {{kind: integer}}.")
    for entry in stated:
        if entry not in _ENTRIES:
            near = nearest(str(entry), _ENTRIES)
            raise UserError(f"{where}: there is no entry {entry!r}.{near} Entries: {', '.join(_ENTRIES)}.")
    kind, form = stated["kind"], str(stated.get("format") or "")
    if kind not in KINDS:
        near = nearest(str(kind), KINDS)
        raise UserError(f"{where}: the kind {kind!r} does not exist.{near} Kinds: {', '.join(KINDS)}.")
    if kind == "id":
        return "id"
    numeric = kind in NUMBERS
    for entry in ("low", "high", "decimals", "decimal") if not numeric else ("categories",):
        if entry in stated:
            raise UserError(f"{where}: a column of the kind {kind} has no {entry}. Remove the entry.")
    categories = stated.get("categories", [])
    if not isinstance(categories, list) or len(set(map(str, categories))) < len(categories):
        raise UserError(f"{where}: `categories` must be a list of different texts.")
    low, high = (_number(stated.get(entry), entry, kind, form, where) for entry in ("low", "high"))
    if low is not None and high is not None and low > high:
        raise UserError(f"{where}: low is larger than high. Exchange them.")
    if (missing := str(stated.get("missing", "false")).lower()) not in ("true", "false"):
        raise UserError(f"{where}: missing must be true or false.")
    decimals = None if stated.get("decimals") is None else str(stated["decimals"])
    if decimals is not None and not re.fullmatch(r"\d\d?", decimals, re.ASCII):
        raise UserError(f"{where}: decimals must be a whole number from 0 to 99.")
    if (decimal := str(stated.get("decimal", "."))) not in (".", ","):
        raise UserError(f"{where}: decimal must be '.' or ','.")
    if numeric:
        _check_format(form, kind, where)
    return Column(
        name,
        cast(Kind, kind),
        tuple(map(str, categories)),
        missing == "true",
        low=low,
        high=high,
        decimals=0 if kind == "integer" else None if decimals is None else int(decimals),
        format=form,
        decimal=decimal,
    )


def _check_format(form: str, kind: str, where: str) -> None:
    """Raise a UserError if the program could not read values of a format."""
    if kind == "date":
        unknown = [code for code in re.findall("%.?", form) if code not in CODES]
        if unknown or (form and "%" not in form):
            raise UserError(
                f"{where}: {form!r} is no format of dates that the program reads. Its codes are {' '.join(CODES)}."
            )
    elif form and not re.fullmatch(r"\.\d\d?f", form, re.ASCII):
        raise UserError(f"{where}: {form!r} is no format of numbers. Write e.g. '.2f', or remove it.")


def _number(value: Any, entry: str, kind: str, form: str, where: str) -> float | None:
    if value is None:
        return None
    if kind == "date":
        found = dates(pa.array([str(value)]), form or "%Y-%m-%d")[0].as_py()
        if found is None:
            raise UserError(f"{where}: {entry} must be a date of the format {form or '%Y-%m-%d'}.")
        return float(found)
    try:  # YAML reads 1e-7 as a text
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {entry} must be a number.")
    return number


def text(table: Table) -> str:
    """The schema of a table as the text of a YAML file, which ``read`` accepts."""
    ids = {one.name for one in table.left_out if one.kind == "id"}
    lines = [_HEAD + "columns:"]
    described = {column.name: column for column in table.columns}
    for name in table.names:
        if name in described:
            lines.append(f"  {_quoted(name)}: {_entry(described[name])}")
        elif name in ids:
            lines.append(f"  {_quoted(name)}: {{kind: id}}")
    lines.append("constraints:" if table.constraints else "constraints: []")
    lines += [f"  - {_quoted(one)}" for one in table.constraints]
    return "\n".join(lines) + "\n"


def _entry(column: Column) -> str:
    parts = [f"kind: {column.kind}"]
    if column.numeric:
        for entry, value in (("low", column.low), ("high", column.high)):
            if value is not None:
                parts.append(f"{entry}: {_bound(column, value)}")
    if column.kind == "continuous" and column.decimals is not None:
        parts.append(f"decimals: {column.decimals}")
    if column.decimal != ".":
        parts.append(f"decimal: {_quoted(column.decimal)}")
    if column.format:
        parts.append(f"format: {_quoted(column.format)}")
    if column.missing:
        parts.append("missing: true")
    if column.categories:
        parts.append(f"categories: [{', '.join(map(_quoted, column.categories))}]")
    return f"{{{', '.join(parts)}}}"


def _bound(column: Column, value: float) -> str:
    if column.kind == "date":
        return _quoted(str(text_of(column, np.array([value]))[0]))
    return f"{int(value)}" if value == int(value) and abs(value) < 1e15 else repr(value)


def _quoted(name: str) -> str:
    """A text between quotes, which YAML reads as this text."""
    return str(yaml.safe_dump(name, default_style='"', allow_unicode=True, width=float("inf"))).strip()
