"""Tables: rows of a CSV or Parquet file, two tables that come with the package, and mixtures of Gaussians."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from gan_cli.data.dataset import Dataset, Modes
from gan_cli.data.features import spec_of
from gan_cli.data.tables import constraints, files, fitting, formats, inference, public
from gan_cli.data.tables import schema as schemas
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import LeftOut, Table
from gan_cli.data.tables.files import Contents
from gan_cli.data.tables.inference import Inferred
from gan_cli.data.tables.schema import Schema
from gan_cli.errors import UserError, nearest
from gan_cli.storage.dotted import leaves
from gan_cli.types import NonNegativeInt, Normalisation, PositiveInt, Seed, Share, Simulated

_HOME = Path(__file__).parent
_TRAIN, _HELD_OUT = ("train", "training"), ("test", "testing", "val", "valid", "validation", "held_out")
_CLASSES = 1_000  # largest number of classes of a label
_STD = 0.05**0.5  # standard deviation of the Gaussians of simulated data
_SHOWN = 12  # largest number of names that a line shows


@dataclass(frozen=True)
class _Options:
    """The options of a table that do not depend on its source."""

    label: str | None
    normalisation: Normalisation
    hold_out: float = 0.0
    group: str | None = None
    time: str | None = None
    split: str | None = None
    seed: int = 0
    canaries: int = 0


def table(
    *,
    path: str,
    label: str | None = None,
    normalisation: Normalisation | None = None,
    columns: dict[str, Any] | None = None,
    schema: str | None = None,
    hold_out: Share = 0.2,
    group: str | None = None,
    time: str | None = None,
    split: str | None = None,
    seed: Seed = 0,
    canaries: NonNegativeInt = 0,
) -> Dataset:
    """Rows of a CSV or Parquet file, with columns of numbers, categories and dates.

    The kinds of the columns are inferred, and missing values are values that the model learns. Example:
    ``gan-train dataset=table dataset.path=customers.csv dataset.label=churn``.

    Args:
        path: CSV file, which may be compressed (gzip, bzip2, xz, zstd or zip), or Parquet file. The first line of a
            CSV file holds the names of the columns.
        label: the column with the class of each row, or null for rows without classes.
        normalisation: representation of numbers. ``quantile`` uses normal scores, beside entries of a choice for
            values that many rows share. ``modes`` uses the modes of a mixture of Gaussians (Xu et al. 2019), and
            needs scikit-learn. ``standard`` subtracts the mean and divides by the standard deviation.
        columns: kinds of columns in place of the inferred kinds, e.g. ``{zip:categorical}``: ``continuous``,
            ``integer``, ``categorical``, ``boolean``, ``date`` or ``id``. A column of the kind id is not learned.
        schema: YAML file with kinds, ranges, categories and constraints. Each run writes such a file.
        hold_out: share of the rows that training does not use. Without ``group`` and ``time``, they are drawn at
            random, from each class alike.
        group: column whose values are never divided between training and held-out rows, e.g. a patient. The column
            is not learned.
        time: column of dates or numbers, of which the held-out rows have the largest values.
        split: column that says of each row whether it is a training row (``train``) or a held-out row (``test``,
            ``val`` or ``valid``). The column is not learned.
        seed: seed of the random choice of the held-out rows.
        canaries: number of random rows that test a claim of privacy. Each is added to the training rows by a
            fair coin, and ``gan-eval --metrics privacy`` guesses the coins.

    Raises:
        UserError: the file is no table, or the options do not fit it.
    """
    options = _Options(label, normalisation or "quantile", hold_out, group, time, split, seed, canaries)
    kinds = {str(name): str(kind) for name, kind in leaves(columns or {})}
    rules = None if schema is None else schemas.read(schema)
    return _dataset(Path(path).name, files.read(path), f"dataset.path={path}", options, kinds, rules)


def german_credit(
    *,
    label: str | None = "credit",
    normalisation: Normalisation | None = None,
    hold_out: Share = 0.2,
    seed: Seed = 0,
    canaries: NonNegativeInt = 0,
) -> Dataset:
    """German credit: 1,000 applicants with 20 mixed columns, and whether their credit is good or bad.

    Hofmann 1994, UCI Statlog, CC BY 4.0. The table comes with the package.

    Args:
        label: the column with the class of each row, or null for rows without classes.
        normalisation: representation of numbers, as in ``dataset=table``. ``range`` uses a schema that comes
            with the package.
        hold_out: share of the rows that training does not use, drawn at random from each class alike.
        seed: seed of the random choice of the held-out rows.
        canaries: number of random rows that test a claim of privacy. Each is added to the training rows by a
            fair coin, and ``gan-eval --metrics privacy`` guesses the coins.
    """
    options = _Options(label, normalisation or "quantile", hold_out, seed=seed, canaries=canaries)
    return _embedded("german_credit", options)


def adult(
    *,
    label: str | None = "income",
    normalisation: Normalisation | None = None,
    canaries: NonNegativeInt = 0,
) -> Dataset:
    """Adult: 48,842 persons of the US census of 1994 with 14 mixed columns, and whether they earn over 50,000.

    Becker and Kohavi 1996, UCI, CC BY 4.0, with the split of UCI: 32,561 training and 16,281 held-out rows. The
    table comes with the package.

    Args:
        label: the column with the class of each row, or null for rows without classes.
        normalisation: representation of numbers, as in ``dataset=table``. ``range`` uses a schema that comes
            with the package.
        canaries: number of random rows that test a claim of privacy. Each is added to the training rows by a
            fair coin, and ``gan-eval --metrics privacy`` guesses the coins.
    """
    options = _Options(label, normalisation or "quantile", split="split", canaries=canaries)
    return _embedded("adult", options)


def simulated(
    *,
    kind: Simulated = "grid",
    size: PositiveInt = 10_000,
    normalisation: Normalisation = "standard",
    seed: Seed = 0,
) -> Dataset:
    """Mixtures of Gaussians as tables with two columns, x and y: the simulated data of Xu et al. 2019, section 5.2.

    The variance of each Gaussian is 0.05. As many rows as for training are held out. The density is known.

    Args:
        kind: ``grid`` has 25 Gaussians, at -4, -2, 0, 2 and 4 in both columns. ``ring`` has 8, evenly spaced on the
            unit circle. ``turned`` is the grid turned by 30 degrees, and ``cells`` has 17 Gaussians of the grid.
            The columns of these two depend on each other.
        size: number of training rows.
        normalisation: representation of numbers, as in ``dataset=table``: ``quantile``, ``modes`` or ``standard``.
        seed: seed of the rows.
    """
    centres = _centres(kind)
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(len(centres), size=2 * size)] + _STD * rng.standard_normal((2 * size, 2))
    values = {"x": rows[:, 0], "y": rows[:, 1]}
    columns = [fitting.fit(Column(n, "continuous"), v[:size], normalisation, seed) for n, v in values.items()]
    feature = Table(tuple(columns), rows=size)
    stored = feature.store(values, seed)
    return Dataset(
        f"simulated {kind}",
        {"x": feature},
        {"x": stored[:size]},
        {"x": stored[size:]},
        modes=Modes(centres, _STD),
    )


def _centres(kind: Simulated) -> np.ndarray:
    """The means of the Gaussians ``[modes, 2]``."""
    if kind == "ring":
        angles = 2 * np.pi * np.arange(8) / 8
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    places = np.arange(-4.0, 5.0, 2.0)
    grid = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    if kind == "turned":
        cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
        return np.asarray(grid @ np.array([[cos, sin], [-sin, cos]]))
    return grid[sorted(np.random.default_rng(0).permutation(25)[:17])] if kind == "cells" else grid


def _embedded(name: str, options: _Options) -> Dataset:
    rules = schemas.read(str(_HOME / f"{name}.yaml")) if options.normalisation == "range" else None
    return _dataset(name, files.read(str(_HOME / f"{name}.csv.gz")), f"dataset={name}", options, {}, rules)


def _dataset(
    name: str,
    contents: Contents,
    where: str,
    options: _Options,
    kinds: Mapping[str, str],
    rules: Schema | None,
) -> Dataset:
    """The data set of the contents of a file.

    Args:
        name: name of the data set.
        contents: the contents of the file.
        where: the file, for messages.
        options: the options of the table.
        kinds: kinds of columns by name, which replace inferred kinds and those of the schema.
        rules: the schema, or None.
    """
    _check_options(contents, where, options)
    chosen: dict[str, Column | str] = {**(rules.columns if rules else {}), **kinds}
    chosen = _with_label(contents, chosen, options, where)
    if is_public := options.normalisation == "range":
        if kinds:
            raise UserError(
                f"dataset.columns={kinds}: dataset.normalisation=range takes kinds from dataset.schema."
            )
        roles = frozenset(name for name in (options.group, options.split) if name is not None)
        inferred = public.described(contents, rules, roles, where)
    else:
        inferred = inference.infer(contents, where, chosen)
    inferred = _without_roles(inferred, options)
    values = contents.values(inferred.columns, where, infers=not is_public)
    passed_over = Counter[str]()
    kept = _meeting(inferred.columns, values, rules, contents, where, options, passed_over)
    training, held_out, how = _split(contents, values, options, where)
    training, held_out = training[kept[training]], held_out[kept[held_out]]
    for column in inferred.columns if rules else ():
        outside = (
            _outside(column, values[column.name][training]) if column.numeric else np.zeros(len(training), bool)
        )
        if outside.any():
            passed_over[f"training rows outside the range of {column.name}"] = int(outside.sum())
        training = training[~outside]
    if is_public:
        training, unknown = _storable(inferred.columns, values, training, "training", "the schema does")
        passed_over.update(unknown)
    if not len(training):
        reasons = ", ".join(passed_over) or "no row is a training row"
        raise UserError(f"{where}: no row is left for training ({reasons}).")
    columns = [
        fitting.fit(c, values[c.name][training], options.normalisation, options.seed) for c in inferred.columns
    ]
    source = "the schema does" if is_public else "training rows do"
    held_out, unknown = _storable(columns, values, held_out, "held-out", source)
    passed_over.update(unknown)
    label = None if options.label is None else [c.name for c in columns].index(options.label)
    feature = Table(
        tuple(columns),
        label,
        inferred.left_out,
        tuple(contents.columns) if inferred.left_out else (),
        rules.constraints if rules else (),
        contents.separator,
        len(training),
        is_public,
    )

    originals = {
        "training": {name: column[training] for name, column in values.items()},
        "held_out": {name: column[held_out] for name, column in values.items()},
    }

    def part(name: str, seed: int) -> dict[str, np.ndarray]:
        stored = feature.store(originals[name], seed)
        return {"x": stored} | ({} if label is None else {"label": feature.labels(stored)})

    return Dataset(
        f"{name} ({contents.rows:,} rows)",
        spec_of(feature, None if label is None else columns[label].width),
        part("training", options.seed),
        part("held_out", options.seed + 1) if len(held_out) else None,
        class_names=() if label is None else tuple(columns[label].entries()),
        passed_over=passed_over,
        notes=(*contents.notes, *_notes(columns, inferred), how if len(held_out) else "no row is held out"),
        subject="table",
        documents={"schema.yaml": schemas.text(feature)},
        columns=originals,
        canaries=options.canaries,
    )


def _check_options(contents: Contents, where: str, options: _Options) -> None:
    """Raise a UserError if an option names a column that does not exist, or if options contradict each other."""
    for option in ("label", "group", "time", "split"):
        name = getattr(options, option)
        if name is not None and name not in contents.columns:
            near = nearest(name, contents.columns)
            raise UserError(
                f"dataset.{option}={name}: {where.partition('=')[2]} has no such column.{near} Columns: "
                f"{', '.join(contents.columns)}."
            )
    chosen = [option for option in ("group", "time", "split") if getattr(options, option) is not None]
    if len(chosen) > 1:
        both = " and ".join(f"dataset.{option}" for option in chosen)
        raise UserError(f"{both}: each says which rows are held out. Set one of them.")
    if chosen and chosen != ["split"] and not options.hold_out:
        raise UserError(f"dataset.{chosen[0]}: holds out no rows with dataset.hold_out=0. Set e.g. 0.2.")
    if options.label is not None and options.label in (options.group, options.split):
        raise UserError(f"dataset.label={options.label}: this column also divides the rows. Choose another column.")


def _with_label(
    contents: Contents, chosen: Mapping[str, Column | str], options: _Options, where: str
) -> dict[str, Column | str]:
    """The chosen kinds of columns, in which the label is a column of categories."""
    found = dict(chosen)
    if (name := options.label) is not None:
        known = formats.without_missing(contents.columns[name]).drop_null()
        distinct = pc.unique(known)
        if not 2 <= len(distinct) <= _CLASSES:
            raise UserError(
                f"dataset.label={name}: the column has {len(distinct):,} different values. A label has 2 to "
                f"{_CLASSES:,} classes. Choose another column, or set dataset.label=null."
            )
        if len(distinct) > max(len(known) / 2, 2):
            raise UserError(
                f"dataset.label={name}: the column has {len(distinct):,} different values in {len(known):,} rows. "
                "The classes of a label have at least two rows on average. Choose another column, or set "
                "dataset.label=null."
            )
        kind = found.get(name, "boolean" if inference.boolean(name, distinct) else "categorical")
        stated = kind.kind if isinstance(kind, Column) else kind
        if stated not in ("categorical", "boolean"):
            raise UserError(
                f"dataset.label={name}: a label is categorical or boolean. Change its kind in the schema or in "
                "dataset.columns."
            )
        found[name] = kind
    for name in (options.group, options.split):
        if name is not None:
            found[name] = "id"
    return found


def _without_roles(inferred: Inferred, options: _Options) -> Inferred:
    """The columns, in which the columns that divide the rows have the reason for which they are left out."""
    reasons, left_out = dict(inferred.reasons), list(inferred.left_out)
    for number, one in enumerate(left_out):
        if one.name == options.split:
            reasons[one.name] = "says which rows are held out"
            left_out[number] = LeftOut(one.name, "constant", "train", stored_type=one.stored_type)
        if one.name == options.group:
            reasons[one.name] = "the group of a row"
    return dataclasses.replace(inferred, left_out=tuple(left_out), reasons=reasons)


def _split(
    contents: Contents, values: Mapping[str, np.ndarray], options: _Options, where: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """The indices of the training rows and of the held-out rows, in the order of the file, and how they differ."""
    n, share = contents.rows, options.hold_out
    outside = np.zeros(n, bool)
    rng = np.random.default_rng(options.seed)
    how = "held-out rows are drawn at random"
    if options.split is not None:
        outside = _named_split(contents, options.split)
        how = f"the column {options.split} says which rows are held out"
    elif options.time is not None and share:
        outside = _latest(values, options.time, share)
        how = f"held-out rows, {100 * outside.mean():.3g} %, have the largest values of {options.time}"
    elif options.group is not None and share:
        outside = _groups(contents, options.group, share, rng)
        how = f"no value of {options.group} has training and held-out rows"
    elif share:
        label = values[options.label] if options.label is not None else np.zeros(n)
        classes = _classes(label)
        for rows, number in zip(classes, _shared([len(rows) for rows in classes], share), strict=True):
            outside[rng.permutation(rows)[:number]] = True
    if outside.all():
        raise UserError(f"{where}: no row is left for training. Hold out fewer rows.")
    return np.flatnonzero(~outside), np.flatnonzero(outside), how


def _classes(label: np.ndarray) -> list[np.ndarray]:
    """The indices of the rows of each class, in the order of the classes."""
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(label.tolist()):
        rows.setdefault(str(value), []).append(row)
    return [np.array(rows[value]) for value in sorted(rows)]


def _shared(sizes: Sequence[int], share: float) -> list[int]:
    """The number of held-out rows of each class. Their sum is the share of all rows, if each class keeps a row."""
    exact = [share * size for size in sizes]
    found = [min(int(number + 1e-9), size) for number, size in zip(exact, sizes, strict=True)]
    missing = max(round(sum(exact)) - sum(found), 0)
    spare = [i for i, size in enumerate(sizes) if found[i] + 1 < size]
    for i in sorted(spare, key=lambda i: found[i] - exact[i])[:missing]:
        found[i] += 1
    return found


def _texts(contents: Contents, name: str) -> np.ndarray:
    """The texts of a column that is not learned ``[n]``, with None for missing values."""
    return formats.texts_of(formats.without_missing(contents.columns[name]))


def _named_split(contents: Contents, name: str) -> np.ndarray:
    texts = _texts(contents, name)
    for text in set(texts):
        if str(text).lower() not in (*_TRAIN, *_HELD_OUT):
            raise UserError(
                f"dataset.split={name}: the column has the value {text!r}. Its values must be train for training "
                "rows, and test, val or valid for held-out rows."
            )
    return np.array([text.lower() in _HELD_OUT for text in texts], bool)


def _latest(values: Mapping[str, np.ndarray], name: str, share: float) -> np.ndarray:
    """Whether each row is among the latest. Rows of the same time are on the same side."""
    if name not in values or values[name].dtype == object:
        raise UserError(
            f"dataset.time={name}: the column is no date and no number that the model learns. Choose another "
            f"column, or give it a kind, e.g. {formats.advice(name, 'integer')}."
        )
    times = np.where(np.isnan(values[name]), -np.inf, values[name])
    first = np.sort(times)[len(times) - max(round(share * len(times)), 1)]
    found = np.asarray(times >= first if first > times.min() else times > first)
    if found.sum() > max(2 * share * len(times), 1):
        raise UserError(
            f"dataset.time={name}: so many rows have the same value that {100 * found.mean():.3g} % of the rows "
            f"would be held out, in place of {100 * share:.3g} %. Choose another column, or set dataset.hold_out."
        )
    return found


def _groups(contents: Contents, name: str, share: float, rng: np.random.Generator) -> np.ndarray:
    """Whether each row belongs to a held-out group. A row without a group is a group of its own."""
    texts = _texts(contents, name)
    groups = [f"row {row}" if text is None else f"group {text}" for row, text in enumerate(texts)]
    sizes = Counter(groups)
    names = sorted(sizes)
    if len(names) < 2:
        raise UserError(f"dataset.group={name}: all rows belong to one group. Choose another column.")
    chosen, rows = set[str](), 0
    for at in rng.permutation(len(names))[:-1]:
        if rows >= share * len(groups):
            break
        chosen.add(names[at])
        rows += sizes[names[at]]
    return np.array([group in chosen for group in groups], bool)


def _storable(
    columns: Sequence[Column], values: Mapping[str, np.ndarray], rows: np.ndarray, split: str, known: str
) -> tuple[np.ndarray, dict[str, int]]:
    """The rows whose values the columns can represent, and the number of other rows by the reason.

    Args:
        split: ``training`` or ``held-out``, the kind of the rows.
        known: source of the values that the columns can represent, with its verb: ``training rows do``.
    """
    unknown: dict[str, int] = {}
    for column in columns:
        found = values[column.name][rows]
        kept = column.storable(found)
        if not kept.all():
            example = found[~kept][0]
            text = "a missing value" if example is None or example != example else f"a value, e.g. {example!r},"
            reason = f"{split} rows with {text} of {column.name} that {known} not have"
            unknown[reason] = int((~kept).sum())
        rows = rows[kept]
    return rows, unknown


def _meeting(
    columns: Sequence[Column],
    values: Mapping[str, np.ndarray],
    rules: Schema | None,
    contents: Contents,
    where: str,
    options: _Options,
    passed_over: Counter[str],
) -> np.ndarray:
    """Whether each row has a label and meets the rules of the schema. ``passed_over`` counts the other rows."""
    kept = np.ones(len(values[columns[0].name]), bool)

    def leave_out(rows: np.ndarray, reason: str) -> None:
        if (rows & kept).any():
            passed_over[reason] = int((rows & kept).sum())
        kept[rows] = False

    if options.label is not None:
        leave_out(np.array([value is None for value in values[options.label]]), f"rows without {options.label}")
    described = {column.name: column for column in columns}
    for column in columns if rules else ():
        found = values[column.name]
        if column.categories:
            known = {*column.categories, None}
            leave_out(np.array([value not in known for value in found]), f"rows with another {column.name}")
    stated = [
        constraints.parse(text, tuple(contents.columns), where) for text in (rules.constraints if rules else ())
    ]
    for rule in constraints.in_order(stated, where):
        constraints.check_numbers(rule, described, where)
        keys = {name: _texts(contents, name) for name in rule.names if name not in values}
        fits = constraints.met(rule, {**values, **keys}, constraints.decimals_of(rule, described))
        leave_out(~fits, f"rows that violate {rule.text}")
    return kept


def _outside(column: Column, values: np.ndarray) -> np.ndarray:
    """Whether each value is outside the range of a schema."""
    low = -np.inf if column.low is None else column.low
    high = np.inf if column.high is None else column.high
    found: np.ndarray = (values < low) | (values > high)
    return found


def _notes(columns: Sequence[Column], inferred: Inferred) -> list[str]:
    """Lines with the columns of each kind, the columns that are left out, and the missing values."""
    found = []
    for kind in inference.KINDS:
        names = [column.name for column in columns if column.kind == kind]
        if names:
            found.append(f"{kind}: {_some(names)}")
    if inferred.reasons:
        found.append(f"not learned: {_some([f'{name} ({why})' for name, why in inferred.reasons.items()])}")
    if inferred.missing:
        each = [f"{name} {100 * share:.3g} %" for name, share in inferred.missing.items()]
        found.append(f"missing values: {_some(each)}")
    return [*found, *inferred.notes[:_SHOWN]]


def _some(names: Sequence[str]) -> str:
    shown = [name or "(no name)" for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
