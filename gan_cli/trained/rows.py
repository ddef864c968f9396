"""Draws rows of a table that meet conditions, or that have equal numbers of each category of a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from gan_cli.data.tables import conditions
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.conditions import Condition
from gan_cli.data.tables.constraints import Checker
from gan_cli.data.tables.feature import Table
from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.games.ctgan import CTGAN
from gan_cli.trained.sampling import Arrays, TaskRunner

_LEAST = 2**18  # number of rows after which a condition that no row has met is given up
_MOST = 1000  # largest number of generated rows for each row that is asked for, if there are more than _LEAST


class Inputs(Protocol):
    """Returns the inputs of the task for ``n`` rows from row ``first`` on, counted from 0."""

    def __call__(self, n: int, first: int) -> Arrays: ...


class _Guide(NamedTuple):
    """An input of the task that determines a category of the rows.

    Attributes:
        input: the name of the input: ``label``, which determines the class of a row, or ``condition``, the
            conditional vector of CTGAN, which most of the rows follow.
        values: the values of the input, which the rows take in turn.
        text: the condition that the input meets.
        balances: whether the condition is an equal number of rows with each category.
    """

    input: str
    values: np.ndarray
    text: str
    balances: bool


class RowSampler:
    """Draws rows of a table from a trained task. All rows meet the constraints of the table.

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
        self._guide = self._guide_of()
        self._checker = Checker(self.table)

    @property
    def _exact(self) -> bool:
        """Whether the class input alone gives the rows equal numbers of each category."""
        return self._guide is not None and self._guide.input == "label" and self._guide.balances

    def _guide_of(self) -> _Guide | None:
        """The input that makes the generator return rows with the requested categories, or None."""
        fixed = [one for one in self._where if one.sign == "=" and not one.column.numeric]
        wanted = [(one.column, one.text, [one.code]) for one in fixed]
        if self._balance is not None:
            every = list(range(len(self._balance.categories)))
            wanted.insert(0, (self._balance, _equal(self._balance), every))
        for column, text, codes in wanted:
            balances = column == self._balance and len(codes) > 1
            number = self.table.columns.index(column)
            if number == self.table.label and "label" in self._runner.classes:
                return _Guide("label", np.array(codes, np.int32), text, balances)
            game = self._runner.game
            if isinstance(game, CTGAN) and number in game.conditions.by_column:
                span = game.conditions.by_column[number]
                vectors = np.stack([game.conditions.vector(span, code) for code in codes])
                return _Guide("condition", vectors, text, balances)
        return None

    def lines(self) -> list[str]:
        """A list of lines that say how the conditions were met, after the rows were drawn."""
        texts = [one.text for one in self._where] + ([_equal(self._balance)] if self._balance else [])
        guide = self._guide
        ways = {"label": "by the class input", "condition": "by the conditional vector and rejection"}
        texts += [one.text for one in self._checker.constraints]
        how = [(text, ways[guide.input] if guide and text == guide.text else "by rejection") for text in texts]
        found = [f"condition {text}: {way}" for text, way in how]
        if any("rejection" in way for _, way in how):
            share = f"{self.kept:,}" if self._balance else f"{100 * self.met / max(self.generated, 1):.3g} %"
            found.append(f"accepted  {share} of {self.generated:,} generated rows")
        return found

    def parts(self, n: int) -> Iterator[Arrays]:
        """Yields ``n`` rows in parts: mappings from the names of the columns to values.

        Raises:
            UserError: too few of the generated rows meet the conditions.
        """
        if self._balance is not None and not (self._exact and not self._where and not self._checker.constraints):
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
            kept.append((places[found], _taken(rows, found)))
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
        wanted = [one.text for one in self._where] or [one.text for one in self._checker.constraints]
        start = f"{'--where' if self._where else 'the constraints of the run,'} {' and '.join(wanted)}: "
        verb = "meets the condition" if self._where else "meets the constraints"
        for rows in self._batches():
            rows = self._checker.repaired(rows)
            rows = _taken(rows, conditions.meets(self._where, rows))
            rows = _taken(rows, self._checker.accepted(rows))  # a key is taken by a row that meets the conditions
            self.met += len(next(iter(rows.values())))
            yield rows
            self._check(n, self.met, start, verb)

    def _check(self, n: int, found: int, start: str, verb: str) -> None:
        """Raise a UserError if too few of the rows that were generated so far are as requested."""
        if self.generated < (max(_LEAST, _MOST * n) if found else _LEAST):
            return
        rows = f"{self.generated:,} generated rows"
        if not found:
            remedy = "Choose another condition." if self._where or self._balance else "Train for longer."
            raise UserError(f"{start}none of {rows} {verb}. {remedy}")
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
        if self._guide is not None:
            values = self._guide.values
            inputs[self._guide.input] = values[np.arange(first, first + self._runner.batch) % len(values)]
        return next(self._runner.stored(self._state, inputs, self._seed, first))[self._runner.main]


def _taken(rows: Arrays, kept: np.ndarray) -> Arrays:
    return rows if kept.all() else {name: values[kept] for name, values in rows.items()}


def _equal(column: Column) -> str:
    return f"equal numbers of each {column.name}"
