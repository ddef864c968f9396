"""Draws rows of a table that meet conditions, or that have equal numbers of each category of a column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import jax
import numpy as np

from gan_cli.data.tables import conditions
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.conditions import Condition
from gan_cli.data.tables.feature import Table
from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.trained.sampling import Arrays, TaskRunner

_LEAST = 2**18  # number of rows after which a condition that no row has met is given up
_MOST = 1000  # largest number of generated rows for each row that is asked for, if there are more than _LEAST


class Inputs(Protocol):
    """Returns the inputs of the task for ``n`` rows from row ``first`` on, counted from 0."""

    def __call__(self, n: int, first: int) -> Arrays: ...


class RowSampler:
    """Draws rows of a table from a trained task.

    Rows are generated in the order of their numbers, and row i of a seed is always the same. With conditions, the
    first rows that meet all of them are returned. With ``balance``, returned row j has the category j modulo the
    number of categories, and is the next generated row with this category that meets the conditions. The first
    returned rows of a seed therefore do not depend on how many rows are drawn.

    Args:
        runner: runs the task, whose main output is a table.
        state: the training state.
        inputs: provides the inputs of the task.
        seed: seed of the random numbers of the task.
        where: conditions on the rows.
        balance: a column with categories, or None.

    Attributes:
        table: the feature of the rows.
        generated: number of rows that were generated so far.
        met: number of generated rows that met all conditions.
        kept: number of rows that were returned, or are kept to be returned.
        by_input: the conditions that the class input of the task meets, as text.
        by_rejection: the conditions that are met by leaving out generated rows, as text.
    """

    def __init__(
        self,
        runner: TaskRunner,
        state: TrainState,
        inputs: Inputs,
        seed: int,
        where: Sequence[Condition] = (),
        balance: Column | None = None,
    ):
        assert isinstance(runner.feature, Table)
        self.table = runner.feature
        self.generated = self.met = self.kept = 0
        self._runner, self._state, self._inputs, self._seed = runner, state, inputs, seed
        self._where, self._balance = tuple(where), balance
        self.by_input: list[str] = []
        self._labels = self._label_rule()
        texts = [one.text for one in where] + ([] if balance is None else [_equal(balance)])
        self.by_rejection = [text for text in texts if text not in self.by_input]

    def _label_rule(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """The function from the numbers of rows to their classes, or None if nothing determines the classes."""
        label = self.table.label_column if "label" in self._runner.classes else None
        if label is None:
            return None
        for one in self._where:
            if one.column == label and one.sign == "=" and isinstance(one.value, str):
                code = label.categories.index(one.value)
                self.by_input.append(one.text)
                return lambda numbers: np.full(len(numbers), code, np.int32)
        if self._balance == label:
            self.by_input.append(_equal(label))
            return lambda numbers: (numbers % len(label.categories)).astype(np.int32)
        return None

    def lines(self) -> list[str]:
        """A list of lines that say how the conditions were met, after the rows were drawn."""
        found = [f"condition  {text}: by the class input of the generator" for text in self.by_input]
        rows = f"of {self.generated:,} generated rows"
        if self._balance is not None and self.by_rejection:
            share = f"{self.kept:,} {rows} are kept"
        else:
            share = f"{100 * self.met / max(self.generated, 1):.3g} % {rows} meet {'it' if len(self.by_rejection) == 1 else 'them'}"
        return found + ([f"condition  {', '.join(self.by_rejection)}: by rejection, {share}"] if self.by_rejection else [])

    def parts(self, n: int) -> Iterator[Arrays]:
        """Yields ``n`` rows in parts: mappings from the names of the columns to values.

        Raises:
            UserError: too few of the generated rows meet the conditions.
        """
        if self._balance is not None and self.by_rejection:
            yield from self._balanced(n, self._balance)
            return
        for rows in self._met(n):
            part = {name: values[: n - self.kept] for name, values in rows.items()}
            self.kept += len(next(iter(part.values())))
            yield part
            if self.kept == n:
                return

    def _balanced(self, n: int, column: Column) -> Iterator[Arrays]:
        """Yields ``n`` rows after all of them were generated, because their order is not that of the numbers."""
        codes = {text: code for code, text in enumerate(column.categories)}
        counts = np.zeros(len(codes), int)
        needed = (n - 1 - np.arange(len(codes))) // len(codes) + 1
        kept: list[tuple[np.ndarray, Arrays]] = []
        for rows in self._met(n):
            code_of = np.array([codes.get(text, -1) for text in rows[column.name]], int)
            places = np.full(len(code_of), n)
            for code in np.flatnonzero(counts < needed):
                at = np.flatnonzero(code_of == code)[: needed[code] - counts[code]]
                places[at] = (counts[code] + np.arange(len(at))) * len(codes) + code
                counts[code] += len(at)
            found = places < n
            kept.append((places[found], {name: values[found] for name, values in rows.items()}))
            self.kept = int(counts.sum())
            if self.kept == n:
                break
            rarest = int(np.argmin(np.where(needed > counts, counts, n)))
            named = f"has the category {column.categories[rarest]}"
            self._check(n, int(counts[rarest]), f"--balance {column.name}: ", named)
        order = np.argsort(np.concatenate([places for places, _ in kept]))
        whole = {name: np.concatenate([rows[name] for _, rows in kept])[order] for name in kept[0][1]}
        for start in range(0, n, self._runner.batch):
            yield {name: values[start : start + self._runner.batch] for name, values in whole.items()}

    def _met(self, n: int) -> Iterator[Arrays]:
        """Yields generated rows that meet all conditions, without end."""
        for rows in self._batches():
            met = conditions.meets(self._where, rows)
            self.met += int(met.sum())
            yield rows if met.all() else {name: values[met] for name, values in rows.items()}
            self._check(n, self.met, f"--where {' and '.join(one.text for one in self._where)}: ", "meets the condition")

    def _check(self, n: int, found: int, start: str, verb: str) -> None:
        """Raise a UserError if too few of the rows that were generated so far are as requested."""
        if self.generated < (max(_LEAST, _MOST * n) if found else _LEAST):
            return
        rows = f"{self.generated:,} generated rows"
        if not found:
            raise UserError(f"{start}none of {rows} {verb}. Choose another condition.")
        raise UserError(f"{start}only one in {self.generated // found:,} of {rows} {verb}. Choose a smaller --num.")

    def _batches(self) -> Iterator[Arrays]:
        """Yields generated rows in the order of their numbers, without end. All batches have the same size."""
        ahead = self._stored(0)
        while True:
            stored, ahead = ahead, self._stored(self.generated + self._runner.batch)
            self.generated += self._runner.batch
            yield self.table.restore(jax.device_get(stored))

    def _stored(self, first: int) -> jax.Array:
        inputs = self._inputs(self._runner.batch, first)
        if self._labels is not None:
            inputs["label"] = self._labels(np.arange(first, first + self._runner.batch))
        return next(self._runner.stored(self._state, inputs, self._seed, first))[self._runner.main]


def _equal(column: Column) -> str:
    return f"equal numbers of each {column.name}"
