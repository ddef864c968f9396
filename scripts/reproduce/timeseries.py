"""The tables of series: sines and a stock file by TimeGAN's protocol, and four shares that are split by time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
from evaluations import Evaluation, Row, Size, Table, data_file

from gan_cli.data.dataset import Dataset
from gan_cli.data.series.sources import series, sines, stocks
from gan_cli.errors import UserError
from gan_cli.metrics import Metric, series_inputs
from gan_cli.metrics.autocorrelation import autocorrelation
from gan_cli.metrics.discriminative import discriminative
from gan_cli.metrics.predictive import predictive
from gan_cli.metrics.returns import returns
from gan_cli.metrics.risk import risk
from gan_cli.metrics.series_baselines import block_bootstrap, garch, real_halves
from gan_cli.metrics.window_ratio import window_ratio

# The folder of the stock file of TimeGAN's authors, which may not be part of the repository.
_FILE = data_file("google_stock_timegan.csv.gz")
_RUNS = 10  # trainings of each judge, as in TimeGAN's protocol
_MOST = 50_000  # largest number of windows
_JUDGES: Mapping[str, Callable[[], Metric]] = {
    "discriminative": lambda: discriminative(runs=_RUNS),
    "predictive": lambda: predictive(runs=_RUNS),
    "window_ratio": window_ratio,
}
_FINANCE = {"returns": returns, "autocorrelation": autocorrelation, "risk": risk, "window_ratio": window_ratio}


def _stock_file() -> Dataset:
    if not _FILE.is_file():
        raise UserError(
            f"{_FILE}: there is no such file. Set the environment variable GAN_CLI_DATA to the folder with "
            f"{_FILE.name}, the stock file of TimeGAN's authors."
        )
    return series(path=str(_FILE), split="timegan")


def _figures(
    data: Dataset, metrics: Mapping[str, Callable[[], Metric]], fake: np.ndarray, real: np.ndarray | None = None
) -> dict[str, float]:
    """The values of generated windows ``[n, length, columns]``, in the units of the data.

    Args:
        data: the data set.
        metrics: functions that make the metrics.
        fake: the generated windows.
        real: the training windows with which they are compared. With None, those of the data set.
    """
    inputs = series_inputs.of_data(data, _MOST) | {"fake_series": fake, "seed": 0}
    if real is not None:
        inputs["real_series"] = real
    found: dict[str, float] = {}
    for make in metrics.values():
        found |= make().computed(inputs)
    return found


def _table(
    title: str,
    rows: list[Row],
    columns: tuple[str, ...],
    load: Callable[[], Dataset],
    metrics: Mapping[str, Callable[[], Metric]],
    trivial: Mapping[str, Callable[[np.ndarray, int, int], np.ndarray]],
    samples: int,
) -> Table:
    """The table of the generators of one data set.

    Args:
        title: the title.
        rows: the trained rows.
        columns: the names of the values.
        load: a function that returns the data set.
        metrics: functions that make the metrics.
        trivial: functions ``(training windows, n, seed) -> windows`` of the rows without training, by their names.
        samples: number of samples of each row.
    """
    loaded = functools.cache(load)

    def references(n: int) -> dict[str, dict[str, float]]:
        data = loaded()
        real = series_inputs.of_data(data, _MOST)["real_series"]
        halves = real_halves(real, 0)
        found = {"real windows": _figures(data, metrics, *halves)}
        return found | {name: _figures(data, metrics, make(real, n, 0)) for name, make in trivial.items()}

    return Table(
        title,
        rows,
        columns,
        samples,
        lambda: Evaluation("the program's metrics", lambda fake: _figures(loaded(), metrics, np.asarray(fake))),
        references,
        {"quick": Size((), 1), "full": Size((), 3)},
    )


# With split=timegan, copies have a window_ratio near 1, so window_copies tells whether windows are copied.
_SCORES = ("discriminative", "discriminative_strong", "predictive", "window_copies", "window_ratio")
TABLES = {
    "sines": _table(
        "Generators of sines, by TimeGAN's protocol, with the scores of TimeGAN (Yoon et al. 2019) in brackets",
        [
            Row(
                "experiment=sines",
                ("experiment=sines",),
                {"discriminative": "0.011", "predictive": "0.093"},
                own_length=True,
            )
        ],
        _SCORES,
        sines,
        _JUDGES,
        {"block bootstrap": block_bootstrap},
        10_000,
    ),
    "stock_file": _table(
        "Generators of TimeGAN's stock file, by its protocol, with the scores of TimeGAN in brackets",
        [
            Row(
                "experiment=series",
                ("experiment=series", f"dataset.path={_FILE}", "dataset.split=timegan"),
                {"discriminative": "0.102", "predictive": "0.038"},
                own_length=True,
            )
        ],
        _SCORES,
        _stock_file,
        _JUDGES,
        {"block bootstrap": block_bootstrap},
        3_000,
    ),
    "stocks": _table(
        "Generators of the log-returns of four shares, compared with later, held-out days",
        [Row("experiment=stocks", ("experiment=stocks",), own_length=True)],
        (
            "volatility_clustering_inside",
            "var_1_inside",
            "es_1_inside",
            "var_5_inside",
            "es_5_inside",
            "drawdown_inside",
            "acf_returns",
            "acf_absolute",
            "leverage",
            "returns_wasserstein",
            "window_ratio",
            "window_copies",
        ),
        stocks,
        _FINANCE,
        {"block bootstrap": block_bootstrap, "GARCH(1,1)": garch},
        5_000,
    ),
}
GROUPS = {"series": tuple(TABLES)}
