"""The feature of a row of a table: how the columns are stored, and how networks see them.

A row is stored as float32 numbers: first the scalars of all columns that have one, then the choices of all columns
that have one, both in the order of the columns. Networks see the scalars as they are, and each choice as a one-hot
vector, its span:

    stored   scalar, scalar, ..., choice, choice, ...
    seen     scalar, scalar, ..., span of the first choice, span of the second choice, ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.tables.columns import Column
from gan_cli.types import ArrayT, Feature

TAU = 0.2  # temperature of the Gumbel-softmax in training (Xu et al. 2019, section 4.4)
_LARGEST = 6.0  # largest absolute value of a generated scalar, in standard deviations of the data


class Span(NamedTuple):
    """The one-hot vector of one choice: the number of its column, and its first place and width in a row."""

    column: int
    start: int
    width: int


@dataclass(frozen=True)
class LeftOut:
    """A column of the file that the model does not learn.

    Attributes:
        name: the name in the header of the file.
        kind: ``id`` for a column whose values identify rows, ``constant`` for a single value in all rows, and
            ``text`` for a column of too many different texts.
        value: the text in all rows of a constant column. Of an id, the text before the number, e.g. ``C-``.
        digits: the least number of digits of an id. Shorter numbers begin with zeros.
        first: the number of the first row of an id.
        stored_type: the type of the column in a Parquet file. Empty for a column of a text file.
    """

    name: str
    kind: Literal["id", "constant", "text"]
    value: str = ""
    digits: int = 0
    first: int = 1
    stored_type: str = ""


@dataclass(frozen=True)
class Table(Feature):
    """A row of a table.

    Attributes:
        columns: the columns that the model learns, in the order of the file.
        label: the number of the column that is the class of a row, or None. ``with_label`` replaces its span.
        left_out: the other columns of the file.
        order: the names of all columns in the order of the file. Empty if no column is left out.
        constraints: conditions that every row meets, as ``gan_cli.data.tables.constraints`` reads them, e.g.
            ``start <= end``.
        separator: the character between two values of a text file.
        rows: number of training rows, in which the frequencies of the columns were counted.
        public: whether a schema describes all columns, so that no statistics of the rows are among the attributes.
    """

    columns: tuple[Column, ...]
    label: int | None = None
    left_out: tuple[LeftOut, ...] = ()
    order: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    separator: str = ","
    rows: int = 0
    public: bool = False
    noun = "rows"
    values_name = "columns"
    extractor = "pixels"

    def __post_init__(self) -> None:
        # A run stores the columns as dictionaries.
        made = tuple(one if isinstance(one, Column) else Column.from_json(one) for one in self.columns)
        object.__setattr__(self, "columns", made)
        left_out = tuple(one if isinstance(one, LeftOut) else LeftOut(**one) for one in self.left_out)
        object.__setattr__(self, "left_out", left_out)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns in the order of the file, with the columns that are left out."""
        return self.order or tuple(column.name for column in self.columns)

    @property
    def scalars(self) -> int:
        """Number of columns with a scalar. The scalars are the first values of a row."""
        return sum(column.has_scalar for column in self.columns)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans of all columns with a choice, in the order of the columns."""
        found, start = [], self.scalars
        for number, column in enumerate(self.columns):
            if column.width:
                found.append(Span(number, start, column.width))
                start += column.width
        return tuple(found)

    @property
    def label_column(self) -> Column | None:
        """The column that is the class of a row, or None."""
        return None if self.label is None else self.columns[self.label]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return (self.scalars + sum(column.width for column in self.columns),)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return (self.scalars + sum(column.width > 0 for column in self.columns),)

    @property
    def noise(self) -> int:  # type: ignore[override]  # a property of an immutable feature
        """Number of standard normal values that ``head`` reads for each row: one for each place of a span."""
        return self.shape[0] - self.scalars

    @property
    def class_shares(self) -> tuple[float, ...] | None:  # type: ignore[override]  # of an immutable feature
        """The share of the training rows in each class of the label column. None without a label column."""
        return None if self.label is None else self.columns[self.label].frequencies or None

    @property
    def discrete(self) -> tuple[Span, ...]:
        """The spans of the columns of categories, whose values are no numbers, in the order of the columns."""
        return tuple(span for span in self.spans if not self.columns[span.column].numeric)

    def category_codes(self, stored: np.ndarray) -> np.ndarray:
        """The codes int32 ``[n, columns]`` of the columns ``discrete`` of stored rows."""
        places = [i for i, span in enumerate(self.spans, self.scalars) if span in self.discrete]
        return stored[:, places].astype(np.int32)

    def encode(self, stored: ArrayT) -> ArrayT:
        if isinstance(stored, np.ndarray):
            return np.asarray(self._encode(jnp.asarray(stored)))
        return self._encode(stored)

    def _encode(self, stored: jax.Array) -> jax.Array:
        parts = [stored[..., : self.scalars]]
        for place, span in enumerate(self.spans, self.scalars):
            parts.append(jax.nn.one_hot(stored[..., place].astype(jnp.int32), span.width, dtype=jnp.float32))
        return jnp.concatenate(parts, axis=-1)

    def decode(self, x: jax.Array) -> jax.Array:
        """Stored rows: the scalars, and the largest place of each span."""
        choices = [x[..., s.start : s.start + s.width].argmax(-1)[..., None] for s in self.spans]
        return jnp.concatenate([x[..., : self.scalars], *(one.astype(jnp.float32) for one in choices)], axis=-1)

    def head(self, x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """Rows from the raw output of a network: bounded scalars, and a Gumbel-softmax in each span.

        The largest place of a span is a sample of the categorical distribution of its logits (Jang et al. 2017,
        eq. 1 and 2).

        Args:
            x: raw output ``[batch, *shape]``.
            noise: standard normal values ``[batch, noise]``. With None, spans are softmax probabilities.
        """
        numbers, logits = x[..., : self.scalars], x[..., self.scalars :]
        if noise is not None:
            logits = (logits + gumbel(noise)) / TAU
        tanh = np.array([column.bounded for column in self.columns if column.has_scalar], bool)
        numbers = jnp.where(tanh, jnp.tanh(numbers), jnp.clip(numbers, -_LARGEST, _LARGEST))
        first = self.scalars
        spans = [jax.nn.softmax(logits[..., s.start - first : s.start - first + s.width]) for s in self.spans]
        return jnp.concatenate([numbers, *spans], axis=-1)

    def with_label(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """Rows ``[batch, *shape]`` whose label column has the classes ``labels`` ``[batch]``."""
        if self.label is None:
            return x
        span = next(one for one in self.spans if one.column == self.label)
        one_hot = jax.nn.one_hot(labels, span.width, dtype=x.dtype)
        return jnp.concatenate([x[..., : span.start], one_hot, x[..., span.start + span.width :]], axis=-1)

    def widened(self, channels: int) -> Feature:
        from gan_cli.data.features import Vector  # the inputs of a discriminator are numbers without a head

        return Vector(channels)

    def store(self, columns: Mapping[str, np.ndarray], seed: int = 0) -> np.ndarray:
        """Stored rows ``[n, *stored_shape]`` of columns as ``gan_cli.data.tables.files`` reads them.

        Args:
            columns: mapping from the names of the columns to arrays ``[n]``: float64 for numbers and dates, with
                NaN for a missing value, and strings for all other kinds, with None for a missing value.
            seed: seed of the random choice of a mode, and of the place of equal values among their quantiles.
        """
        rng = np.random.default_rng(seed)
        pairs = [column.store(columns[column.name], rng) for column in self.columns]
        scalars = [scalar for scalar, _ in pairs if scalar is not None]
        choices = [choice for _, choice in pairs if choice is not None]
        return np.stack([*scalars, *choices], axis=1).astype(np.float32)

    def values(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Mapping from the names of the columns to values ``[n]`` of rows ``[n, *shape]``, as of ``restore``."""
        return self.restore(np.asarray(self.decode(jnp.asarray(x))))

    def labels(self, stored: np.ndarray) -> np.ndarray:
        """The classes of stored rows ``[n, *stored_shape]``, int32 ``[n]``."""
        place = next(place for place, span in enumerate(self.spans) if span.column == self.label)
        return np.asarray(stored[:, self.scalars + place], np.int32)

    def restore(self, stored: np.ndarray) -> dict[str, np.ndarray]:
        """The inverse of ``store``: mapping from the names of the columns to arrays ``[n]`` of values."""
        scalars, choices = iter(stored.T[: self.scalars]), iter(stored.T[self.scalars :])
        return {
            column.name: column.restore(
                next(scalars).astype(np.float64) if column.has_scalar else None,
                next(choices).astype(int) if column.width else None,
            )
            for column in self.columns
        }

    def replaced(self, columns: Sequence[Column]) -> Table:
        """The same table with other descriptions of its columns."""
        return dataclasses.replace(self, columns=tuple(columns))


def gumbel(noise: jax.Array) -> jax.Array:
    """Standard Gumbel variables from standard normal variables of the same shape: -log(-log Phi(noise))."""
    # log Phi is computed directly, because Phi(noise) rounds to 1 for large values.
    return -jnp.log(-jax.scipy.stats.norm.logcdf(noise))
