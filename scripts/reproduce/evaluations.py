"""The types of tables: rows of runs that are trained and evaluated in the same way."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A function from a number of samples to the values of each row, or the argument of ``Evaluation.figures``, by name.
References = Callable[[int], Mapping[str, Any]]


def data_file(name: str) -> Path:
    """The path of a file in the folder ``GAN_CLI_DATA``, an environment variable, or in the working directory."""
    return Path(os.environ.get("GAN_CLI_DATA", ".")) / name


@dataclass(frozen=True)
class Evaluation:
    """A method that computes the values of a table row from the samples of a run.

    Attributes:
        method: the text for the caption of the table that names the method, e.g. a classifier or the known modes.
        figures: a function that takes samples ``[n, *shape]`` in the range of the networks' output, or the
            result of ``outputs``. It returns a mapping from the column of each value to the value.
        outputs: a function that takes a run and a number of samples, and returns the argument of ``figures``.
    """

    method: str
    figures: Callable[[Any], dict[str, float]]
    outputs: Callable[[Any, int], Any] = lambda run, samples: run.sample(samples)


@dataclass(frozen=True)
class Bar:
    """A bound on a value that a good generator keeps. Bars are passed together, not one by one.

    Attributes:
        column: the name of the value.
        at_least: smallest value that passes. None for no lower bound.
        at_most: largest value that passes. None for no upper bound.
    """

    column: str
    at_least: float | None = None
    at_most: float | None = None

    def passed(self, values: Mapping[str, float]) -> bool:
        """Whether the value of the column passes. A missing or undefined value does not."""
        value = values.get(self.column, math.nan)
        low = -math.inf if self.at_least is None else self.at_least
        return low <= value <= (math.inf if self.at_most is None else self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"{self.column} from {self.at_least:g} to {self.at_most:g}"
        bound = f"at least {self.at_least:g}" if self.at_most is None else f"at most {self.at_most:g}"
        return f"{self.column} {bound}"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: the name of the row in the table.
        overrides: the overrides of ``gan-train`` for this row.
        paper: a mapping from columns to the values that a paper reports for the same setup.
        full: further overrides at the size "full".
        own_length: whether the experiment of this row sets the number of steps, whatever the size of the table.
        one_by_one: whether the seeds are trained one after another, for training that no ensemble offers.
        before: a function that returns further overrides when the row is trained, e.g. the path of a run that it
            trains. None if there are none.
        best: whether the run is evaluated while it trains, as its experiment says, to keep its best checkpoint.
    """

    name: str
    overrides: tuple[str, ...]
    paper: Mapping[str, str] = field(default_factory=dict)
    full: tuple[str, ...] = ()
    own_length: bool = False
    one_by_one: bool = False
    before: Callable[[], Sequence[str]] | None = None
    best: bool = False


@dataclass(frozen=True)
class Size:
    """How long the runs of a table are, and how many runs each row has.

    Attributes:
        overrides: the overrides that set the number of steps or the size of the data.
        seeds: the number of seeds for each row.
        evaluation: the ``evaluation`` of the table at this size. None if it does not depend on the size.
        references: the ``references`` of the table at this size. None if they do not depend on the size.
    """

    overrides: tuple[str, ...]
    seeds: int
    evaluation: Callable[[], Evaluation] | None = None
    references: References | None = None


@dataclass(frozen=True)
class Table:
    """Rows that are trained and evaluated in the same way.

    Attributes:
        title: the title of the table, with its sources.
        columns: the names of the values in the table, in order. The values of a row come from the
            evaluation, and from the metrics that the overrides of the row choose.
        rows: the rows, which are trained and evaluated.
        samples: the number of samples for the evaluation of a run.
        evaluation: a function that returns the ``Evaluation`` of the samples.
        references: a function for the rows without training, such as real data and noise. It takes a number of
            samples, and returns a mapping from the name of each row to the argument of the figures, or to its
            values.
        sizes: a mapping from "quick" and "full" to sizes. The quick size takes minutes on a CPU. The full size is
            the published setup.
        summary: a pair: the name of a last row, and a function from the mean values of each trained row to its
            values, for rows that are repetitions of one experiment, e.g. on several splits of the data. None for
            others.
        bars: the bars, which a good generator passes together, or a function that makes them from the mean values
            of the rows by name. The text below the table names the failed bars of each row.
        verdict: a function from the mean values of the rows by name to a sentence below the table, or to None.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[str]
    samples: int
    evaluation: Callable[[], Evaluation]
    references: References
    sizes: Mapping[str, Size]
    summary: tuple[str, Callable[[list[Mapping[str, float]]], Mapping[str, float]]] | None = None
    bars: Sequence[Bar] | Callable[[Mapping[str, Mapping[str, float]]], Sequence[Bar]] = ()
    verdict: Callable[[Mapping[str, Mapping[str, float]]], str | None] = lambda rows: None
