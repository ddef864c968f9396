"""Files of series for ``gan-sample``: the past of a forecast, and samples as a table of time steps."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gan_cli.errors import UserError
from gan_cli.storage import marks
from gan_cli.views import SIDE

if TYPE_CHECKING:
    import numpy as np

    from gan_cli.trained.restore import RestoredRun
    from gan_cli.trained.sampling import TaskRunner
    from gan_cli.types import Feature
    from gan_cli.views.drawings import InputRequest


def is_past(options: argparse.Namespace, needed: Mapping[str, Feature]) -> bool:
    """Whether ``--input`` is a table with the past of a forecast, the only input that must be provided."""
    from gan_cli.data.series.feature import Series

    return (
        list(needed) == ["past"]
        and isinstance(needed["past"], Series)
        and any(suffix in (".csv", ".parquet") for suffix in options.input.suffixes)
    )


def read_past(options: argparse.Namespace, run: RestoredRun, feature: Feature) -> tuple[np.ndarray, Any]:
    """The past of a forecast in the table ``--input``, the same for each of ``--num`` scenarios.

    Returns:
        A pair: the last steps of the table, ``[num, length, columns]`` in the unit of the run's data, and the last
        row ``[columns]`` of the table if these are log-returns, else None.

    Raises:
        UserError: the file cannot be read, lacks a column, has too few rows, or has several series.
    """
    import numpy as np

    from gan_cli.data.series.feature import Series
    from gan_cli.data.series.files import column_names, read_sequences
    from gan_cli.data.series.windows import check_positive, log_returns

    assert isinstance(feature, Series)
    dataset = run.experiment.config.get("dataset") or {}
    source = f"--input {options.input}"
    identity = dataset.get("id") if dataset.get("id") in column_names(options.input, source) else None
    found = read_sequences(options.input, feature.names, identity, dataset.get("time"), source)
    if len(found.ids) > 1:
        raise UserError(
            f"{source}: has {len(found.ids):,} series in the column {identity}, e.g. {found.ids[0]} and "
            f"{found.ids[1]}, and a forecast follows one. Keep the rows of one series."
        )
    (levels,), (rows,) = found.values, found.rows
    returns = feature.returns
    wanted = feature.length + returns
    if len(levels) < wanted:
        why = f" for {feature.length} log-returns" if returns else ""
        raise UserError(
            f"{source}: has {len(levels):,} row{'s' * (len(levels) != 1)}, and a forecast of this run needs the "
            f"last {wanted}{why}. Add earlier rows."
        )
    levels, rows = levels[-wanted:], rows[-wanted:]
    if returns:
        remedy = "Correct the value, or train with dataset.values=levels."
        check_positive(source, feature.names, levels, rows, remedy)
    past = log_returns(levels) if returns else levels
    repeated = np.repeat(past[None].astype(np.float32), options.num or SIDE**2, axis=0)
    return repeated, levels[-1] if returns else None


def levels_of(returns: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The levels ``[n, steps, columns]`` that follow ``last`` ``[columns]`` with the given log-returns."""
    import numpy as np

    levels: np.ndarray = last * np.exp(np.cumsum(returns, axis=1, dtype=np.float64))
    return levels.astype(np.float32)


def write_csv(options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest) -> str:
    """Write windows of series as a CSV file with the columns ``series``, ``step`` and those of the data.

    Returns:
        A text that describes what was written, e.g. "64 samples (24, 5)".

    Raises:
        UserError: the outputs of the task are no series.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv

    from gan_cli.data.series.feature import Series
    from gan_cli.trained import translation

    feature = runner.feature
    if not isinstance(feature, Series):
        raise UserError(
            f"--out {options.out}: the {runner.main} of this run are {feature.noun}, which are not written as "
            "a table. Use --out FILE.npz for arrays."
        )
    n = request.number(SIDE**2)
    parts = translation.stored(runner, run.state, request.draw(runner, n), request.seed)
    samples = np.concatenate([part[runner.main] for part in parts])
    if request.last is not None:
        samples = levels_of(samples, request.last)
    table = {"series": np.repeat(np.arange(n), feature.length), "step": np.tile(np.arange(feature.length), n)}
    table |= {name: samples[..., i].ravel() for i, name in enumerate(feature.names)}
    arrays = [pa.array(column) for column in table.values()]
    made = pa.Table.from_arrays(arrays, names=list(table))
    content = io.BytesIO()
    pa.csv.write_csv(made, content)
    marks.write(options.out, content.getvalue(), run.origin(options.seed) if options.provenance else None)
    return f"{n:,} {runner.main} {samples.shape[1:]}"
