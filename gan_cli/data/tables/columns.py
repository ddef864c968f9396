"""The columns of a table: their kinds, and the numbers that represent their values.

The value of a column is represented by at most one scalar and at most one choice. A category is a choice. A number
is a scalar, beside a choice if the column has several modes, single values that many rows share (spikes), or
missing values. The entries of a choice are in this order:

    categories | modes of the scalar, spikes, missing
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["continuous", "integer", "categorical", "boolean", "date"]
NUMBERS = ("continuous", "integer", "date")  # the kinds whose values are numbers
_FOUR = 4.0  # a mode's scalar is (value - mean) / (4 std) (Xu et al. 2019, section 4.2)
_EDGE = 1e-4  # smallest and, mirrored, largest quantile of a scalar


@dataclass(frozen=True)
class Column:
    """A column that the model learns.

    Attributes:
        name: the name in the header of the file.
        kind: ``continuous``, ``integer``, ``categorical``, ``boolean`` or ``date``. The values of a date are
            seconds since 1970-01-01, UTC.
        categories: the texts of the categories, for ``categorical`` and ``boolean``, in the order of their codes.
        missing: whether values may be missing. The last entry of the choice means a missing value.
        low: smallest value of a number.
        high: largest value of a number.
        decimals: number of decimals of a number in the file. None if values are not rounded.
        format: the format in a text file: of a date, as for ``strftime``, or of a number with a fixed number of
            decimals, e.g. ``.2f``. Other numbers are written with as few digits as they need.
        decimal: the decimal point or comma of a number in a text file.
        unit: the seconds of which all values of a date are multiples: a day, an hour, a minute or a second.
        stored_type: the type of the column in a Parquet file, e.g. ``int8``. Empty for a column of a text file.
        spikes: single values of a number that are entries of the choice.
        modes: pairs of mean and standard deviation, with which a number is normalised: one pair, or the modes of a
            mixture (Xu et al. 2019, section 4.2). Empty if ``points`` define the scalar.
        points: increasing values at the cumulative shares ``cumulative``, the quantile function. The scalar is the
            standard normal quantile of the share of smaller values.
        cumulative: shares in [0, 1] of the values up to each point. With ``steps``, the share of values that are
            equal to or smaller than the point; else the values between two points are interpolated.
        steps: whether only the values ``points`` occur.
        frequencies: share of the training rows with each entry of the choice.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    missing: bool = False
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    format: str = ""
    decimal: str = "."
    unit: float = 1.0
    stored_type: str = ""
    spikes: tuple[float, ...] = ()
    modes: tuple[tuple[float, float], ...] = ()
    points: tuple[float, ...] = ()
    cumulative: tuple[float, ...] = ()
    steps: bool = False
    frequencies: tuple[float, ...] = ()

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers or dates."""
        return self.kind in NUMBERS

    @property
    def has_scalar(self) -> bool:
        """Whether a scalar represents the value, alone or beside a choice."""
        return bool(self.modes or self.points)

    @property
    def bounded(self) -> bool:
        """Whether the scalar lies in [-1, 1], as with several modes."""
        return len(self.modes) > 1

    @property
    def ways(self) -> int:
        """Number of entries of the choice with which the value is computed from the scalar."""
        return max(len(self.modes), 1) if self.has_scalar else 0

    @property
    def width(self) -> int:
        """Number of entries of the choice. 0 if the column has no choice."""
        entries = len(self.categories) + self.ways + len(self.spikes) + self.missing
        return 0 if entries == 1 and self.has_scalar else entries

    def entries(self) -> list[str]:
        """The texts of the entries of the choice, for messages and conditions."""
        ways = [f"mode {i}" for i in range(self.ways)]
        spikes = [f"{value:g}" for value in self.spikes]
        return [*self.categories, *ways, *spikes, *(["missing"] if self.missing else [])]

    def absent(self, values: np.ndarray) -> np.ndarray:
        """Whether each of the values ``[n]`` is missing."""
        return np.isnan(values) if self.numeric else np.asarray(np.equal(values, np.array(None, object)), bool)

    def storable(self, values: np.ndarray) -> np.ndarray:
        """Whether ``store`` accepts each of the values ``[n]``, which may be unknown categories or missing."""
        if not self.numeric:
            known = {*self.categories, None} if self.missing else set(self.categories)
            return np.fromiter((value in known for value in values), bool, len(values))
        return np.full(len(values), True) if self.missing else ~np.isnan(values)

    def store(self, values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray | None, np.ndarray | None]:
        """A pair: the scalars and the choices ``[n]`` of values ``[n]``. None for a part that the column lacks.

        Args:
            values: float64 with NaN for a missing value, or strings with None for a missing value.
            rng: draws the mode of each number, and the place of equal numbers among their quantiles.

        Raises:
            ValueError: a category is unknown, or a value is missing in a column without missing values.
        """
        return self._store_numbers(values, rng) if self.numeric else (None, self._store_categories(values))

    def _store_categories(self, values: np.ndarray) -> np.ndarray:
        codes = {text: code for code, text in enumerate(self.categories)}
        if self.missing:
            codes |= {None: len(self.categories)}  # type: ignore[dict-item]  # a missing value is None
        unknown = next((value for value in values if value not in codes), "")
        if unknown != "":
            text = "a missing value" if unknown is None else f"the value {unknown!r}"
            raise ValueError(f"the column {self.name} has {text}, which the training rows do not have")
        return np.fromiter((codes[value] for value in values), int, len(values))

    def _store_numbers(
        self, values: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        from scipy.special import ndtri  # not above, because SciPy loads slowly

        choice = np.zeros(len(values), int)
        scalar = np.zeros(len(values))
        absent = np.isnan(values)
        if absent.any() and not self.missing:
            raise ValueError(f"the column {self.name} has a missing value, which the training rows do not have")
        free = ~absent
        for number, spike in enumerate(self.spikes):
            choice[values == spike] = self.ways + number
            free &= values != spike
        choice[absent] = self.width - 1
        if self.modes:
            mode = self._mode(values[free], rng)
            mean, std = np.array(self.modes)[mode].T
            width = _FOUR * std if self.bounded else std
            scalar[free] = (values[free] - mean) / width
            choice[free] = mode
            if self.bounded:
                scalar = np.clip(scalar, -0.99, 0.99)
        elif self.points:
            scalar[free] = ndtri(np.clip(self._shares(values[free], rng), _EDGE, 1 - _EDGE))
            # The scalars of other entries are noise, so that networks cannot recognise them by their scalar.
            scalar[~free] = rng.standard_normal((~free).sum())
        else:  # other numbers, of held-out rows, count as the nearest spike
            choice[free] = np.abs(values[free, None] - np.array(self.spikes)).argmin(1)
        return (scalar if self.has_scalar else None), (choice if self.width else None)

    def _mode(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The mode of each value, drawn from its posterior distribution."""
        if len(self.modes) == 1:
            return np.zeros(len(values), int)
        weights = np.array(self.frequencies[: len(self.modes)]) + 1e-12
        mean, std = np.array(self.modes).T
        logs = np.log(weights) - np.log(std) - 0.5 * ((values[:, None] - mean) / std) ** 2
        shares = np.exp(logs - logs.max(1, keepdims=True)).cumsum(1)
        drawn = rng.random(len(values)) * shares[:, -1]
        found: np.ndarray = (drawn[:, None] > shares).sum(1)
        return found

    def _shares(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The share of smaller values, where equal values are spread evenly over their interval."""
        points, cumulative = np.array(self.points), np.array(self.cumulative)
        if self.steps:
            place = np.clip(np.searchsorted(points, values), 0, len(points) - 1)
            before = np.append(0.0, cumulative)[place]
            found: np.ndarray = before + rng.random(len(values)) * (cumulative[place] - before)
            return found
        # A value that several points share has the interval between the first and the last of them.
        first = np.searchsorted(points, values, "left")
        last = np.searchsorted(points, values, "right") - 1
        shares = np.interp(values, points, cumulative)
        tied = last > first
        low, high = cumulative[np.minimum(first, len(points) - 1)], cumulative[np.maximum(last, 0)]
        return np.asarray(np.where(tied, low + rng.random(len(values)) * (high - low), shares))

    def restore(self, scalar: np.ndarray | None, choice: np.ndarray | None) -> np.ndarray:
        """The inverse of ``store``: values ``[n]``, rounded to ``decimals`` and within ``low`` and ``high``."""
        if not self.numeric:
            assert choice is not None
            texts = np.array([*self.categories, None], object)
            taken: np.ndarray = texts[np.clip(choice, 0, len(texts) - 1)]
            return taken
        from scipy.special import ndtr  # not above, because SciPy loads slowly

        n = len(scalar) if scalar is not None else len(choice)  # type: ignore[arg-type]  # one of them is not None
        at = np.zeros(n, int) if choice is None else choice
        values = np.zeros(n)
        if scalar is not None and self.modes:
            mean, std = np.array(self.modes)[np.minimum(at, len(self.modes) - 1)].T
            values = mean + scalar * (_FOUR * std if self.bounded else std)
        elif scalar is not None:
            values = self._quantiles(ndtr(scalar))
        if self.kind == "date":
            values = np.round(values / self.unit) * self.unit
        elif self.decimals is not None:
            values = np.round(values, self.decimals)
        if self.low is not None and self.high is not None:
            values = np.clip(values, self.low, self.high)
        for number, spike in enumerate(self.spikes):
            values = np.where(at == self.ways + number, spike, values)
        return np.where(at == self.width - 1, math.nan, values) if self.missing else values

    def _quantiles(self, shares: np.ndarray) -> np.ndarray:
        points, cumulative = np.array(self.points), np.array(self.cumulative)
        if self.steps:
            return np.asarray(points[np.minimum(np.searchsorted(cumulative, shares), len(points) - 1)])
        return np.asarray(np.interp(shares, cumulative, points))

    def to_json(self) -> dict[str, Any]:
        """The column as a dictionary for ``run.json``, without entries that have their default value."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in dataclasses.asdict(self).items() if value != defaults[name]}

    @classmethod
    def from_json(cls, stated: dict[str, Any]) -> Column:
        """The column that ``to_json`` has written, also after a round trip through JSON.

        Raises:
            TypeError: an entry is unknown or missing.
        """
        return cls(**{name: _tuples(value) for name, value in stated.items()})


def _tuples(value: Any) -> Any:
    """The value with tuples in place of lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
