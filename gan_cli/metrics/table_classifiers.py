"""Train on synthetic, test on real, for tables: classifiers learn a column from generated or from real rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gan_cli.metrics import HIGHER, NEITHER, Direction, Metric
from gan_cli.metrics.tables import (
    Columns,
    frequent,
    is_number,
    missing,
    require_sklearn,
    rows_of,
    several_columns,
    taken,
    threads_for,
)
from gan_cli.storage import cache

KINDS = ("tstr", "trtr")
_MOST = 35_000  # largest number of rows from which a classifier learns, and on which it is tested
_CATEGORIES = 50  # categories of a column beyond the most frequent ones share one input
_CLASSES = 20  # a label of more different numbers is a quantity, not a class
_RESAMPLES = 200  # bootstrap samples of the test rows
Scores = dict[str, float]


def of_tables(fraction: float, runs: int) -> Metric:
    """The metric ``train_on_synthetic`` for tables.

    Args:
        fraction: share of the real training rows that the classifiers of real rows see.
        runs: number of classifiers of each kind.
    """

    def figures(
        fake_table: Columns, training_table: Columns, held_out_table: Columns, table_label: str
    ) -> dict[str, float]:
        return compared(fake_table, training_table, held_out_table, table_label, fraction=fraction, runs=runs)

    names = [f"{kind}_{value}" for value in ("f1", "auc", "accuracy", "r2") for kind in KINDS]
    directions: dict[str, Direction] = {name: NEITHER if name.startswith("trtr") else HIGHER for name in names}
    bounds = [f"tstr_{value}_{end}" for value in ("f1", "auc", "r2") for end in ("low", "high")]
    return Metric(figures, directions | dict.fromkeys(bounds, NEITHER), minimum=2, cannot=several_columns)


def compared(
    fake: Columns, training: Columns, held_out: Columns, label: str, *, fraction: float = 1.0, runs: int = 1
) -> dict[str, float]:
    """The values of the metric for generated rows ``fake``, tested on the rows ``held_out``.

    Raises:
        ValueError: the label is constant, or its values are missing, in the training or held-out rows.
    """
    require_sklearn("train_on_synthetic")
    rng = np.random.default_rng(0)
    tables = [_labelled(_sampled(table, rng), label) for table in (fake, training, held_out)]
    fake, training, held_out = tables
    problem = _Problem(training, held_out, label)
    real = taken(training, np.arange(max(int(np.ceil(fraction * rows_of(training))), 1)))
    digest = cache.digest("table_classifiers 2", _bytes(real), _bytes(training), _bytes(held_out), label, runs)

    def of_real() -> dict[str, np.ndarray]:
        return {name: np.array(value) for name, value in problem.scores(real, runs).items()}

    found = {"tstr": problem.scores(fake, runs)}
    found["trtr"] = {name: float(value) for name, value in cache.arrays("classifier", digest, of_real).items()}
    values = [name for name in found["tstr"] if not name.endswith(("_low", "_high"))]
    figures = {f"{kind}_{name}": found[kind][name] for name in values for kind in KINDS}
    return figures | {f"tstr_{name}": value for name, value in found["tstr"].items() if name not in values}


def _sampled(table: Columns, rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows = rows_of(table)
    return taken(table, rng.permutation(rows)[:_MOST] if rows > _MOST else np.arange(rows))


def _labelled(table: Columns, label: str) -> dict[str, np.ndarray]:
    """The rows whose label is not missing."""
    return taken(table, np.flatnonzero(~missing(table[label])))


def _bytes(table: Columns) -> bytes:
    """The contents of a table, for a digest."""
    return b"".join(
        values.tobytes() if is_number(values) else "\0".join(map(str, values)).encode() for values in table.values()
    )


class _Problem:
    """The prediction of a label from the other columns of real rows.

    Args:
        training: the real training rows, which define the inputs and the classes.
        held_out: the test rows.
        label: the column to predict.
    """

    def __init__(self, training: Columns, held_out: Columns, label: str):
        self._label, self._training = label, training
        self._names = [name for name in training if name != label]
        for text, table in (("training", training), ("held-out", held_out)):
            values = table[label]
            if len(values) < 2 or all(value == values[0] for value in values):
                raise ValueError(f"the column {label} has fewer than two values in the {text} rows")
        if not self._names:
            raise ValueError(f"the table has no column except {label}")
        values = np.unique(training[label])
        self.regression = is_number(training[label]) and (
            len(values) > _CLASSES or bool((values != values.round()).any())
        )
        self._classes = {value: code for code, value in enumerate(values)}
        self._scaling = {
            name: (float(np.nanmean(column)), float(np.nanstd(column)) or 1.0)
            for name, column in training.items()
            if is_number(column) and not np.isnan(column).all()
        }
        self._x, self._y = self._matrices(held_out)

    def _matrices(self, table: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Inputs ``[n, inputs]`` and labels ``[n]`` of the rows whose class the training rows have."""
        if not self.regression:
            known = np.fromiter((value in self._classes for value in table[self._label]), bool, rows_of(table))
            table = taken(table, np.flatnonzero(known))
        x = np.concatenate([self._inputs(name, table[name]) for name in self._names], axis=1)
        labels = table[self._label]
        if self.regression:
            return x, labels
        return x, np.fromiter((self._classes[value] for value in labels), int, len(labels))

    def _inputs(self, name: str, values: np.ndarray) -> np.ndarray:
        """Standardised numbers beside a flag of missing values, or one-hot categories of the training rows."""
        training = self._training[name]
        if is_number(training):
            mean, std = self._scaling.get(name, (0.0, 1.0))
            scaled = (values - mean) / std
            flags = [np.isnan(values)] if np.isnan(training).any() else []
            return np.stack([np.nan_to_num(scaled), *flags], axis=1).astype(np.float32)
        of_training, ranks = frequent([training, values], _CATEGORIES)
        known = np.unique(of_training[~np.isnan(of_training)])
        flags = [np.isnan(ranks)] if np.isnan(of_training).any() else []
        return np.stack([*(ranks == code for code in known), *flags], axis=1).astype(np.float32)

    def scores(self, table: Columns, runs: int) -> Scores:
        """The mean values of all models that learn from ``table``, and the bounds of their intervals."""
        x, y = self._matrices(table)
        if self.regression:
            return self._means([self._regression(x, y)])
        if not len(y):
            raise ValueError(f"the samples have none of the classes of the column {self._label}")
        return self._means([self._probabilities(make, x, y) for make in _classifiers(len(self._classes), runs)])

    def _probabilities(self, make: Callable[[], Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Probabilities ``[test rows, classes]`` of a classifier, also of classes that its rows lack."""
        found = np.zeros((len(self._x), len(self._classes)))
        present = np.unique(y)
        if len(present) == 1:
            found[:, present[0]] = 1
            return found
        with threads_for(0):  # the network's batches are small: threads would slow it down on a busy machine
            found[:, present] = _fitted(make(), x, y).predict_proba(self._x)
        return found

    def _regression(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingRegressor

        with threads_for(len(y)):
            fitted = _fitted(HistGradientBoostingRegressor(random_state=0), x, y)
            predicted: np.ndarray = fitted.predict(self._x)
        return predicted

    def _means(self, predicted: list[np.ndarray]) -> Scores:
        """The values for all test rows, and 95 % intervals from bootstrap samples of the test rows."""
        rng, n = np.random.default_rng(0), len(self._y)
        counts = rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES)
        values = self._values(predicted, np.concatenate([np.ones((1, n)), counts]))
        whole = {name: float(found[0]) for name, found in values.items()}
        for name in [name for name in values if name != "accuracy"]:
            ends = np.nanquantile(values[name][1:], [0.025, 0.975])
            whole |= {f"{name}_low": float(ends[0]), f"{name}_high": float(ends[1])}
        return whole

    def _values(self, predicted: list[np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
        """The values ``[samples]`` for several weights ``[samples, n]`` of the test rows."""
        if self.regression:
            mean = weights @ self._y / weights.sum(1)
            rest = np.mean([weights @ (self._y - one) ** 2 for one in predicted], axis=0)
            return {"r2": 1 - rest / (weights * (self._y - mean[:, None]) ** 2).sum(1)}
        each = [self._of_classifier(one, weights) for one in predicted]
        return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}

    def _of_classifier(self, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The values ``[samples]`` of a classifier. F1 is averaged over the classes of which there are rows."""
        named, size = probabilities.argmax(1), len(self._classes)
        right = weights * (named == self._y)
        of_class, chosen, met = (
            np.stack([np.bincount(codes, one, size) for one in each])
            for codes, each in ((self._y, weights), (named, weights), (self._y, right))
        )
        f1 = np.where(of_class > 0, 2 * met / np.maximum(of_class + chosen, 1e-9), np.nan)
        judged = [1] if size == 2 else range(size)
        each = np.stack([areas(probabilities[:, k], self._y == k, weights) for k in judged])
        return {
            "f1": f1[:, self._rarer] if size == 2 else np.nanmean(f1, axis=1),
            "auc": each[0] if size == 2 else np.nanmean(each, axis=0),
            "accuracy": right.sum(1) / weights.sum(1),
        }

    @property
    def _rarer(self) -> int:
        """The rarer of two classes in the real training rows, the positive class."""
        counts = [int((self._training[self._label] == value).sum()) for value in self._classes]
        return int(np.argmin(counts))


def _classifiers(classes: int, runs: int) -> list[Callable[[], Any]]:
    """The classifiers of Xu et al. 2019, with the settings of SDGym for the data set Adult."""
    from sklearn.ensemble import AdaBoostClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.tree import DecisionTreeClassifier

    def of_seed(seed: int) -> list[Callable[[], Any]]:
        return [
            lambda: DecisionTreeClassifier(max_depth=15, class_weight="balanced", random_state=seed),
            lambda: AdaBoostClassifier(random_state=seed),
            lambda: LogisticRegression(class_weight="balanced", max_iter=50),
            lambda: MLPClassifier((50,), max_iter=50, random_state=seed),
        ]

    return [make for seed in range(runs) for make in of_seed(seed)]


def _fitted(model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """The model after fitting, without warnings that the published number of iterations is too small."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x, y)


def areas(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Areas ``[samples]`` under the ROC curve with weights ``[samples, n]`` of the examples.

    NaN if one of the classes has no weight.
    """
    order = np.argsort(scores, kind="stable")
    sums = np.zeros((len(scores) + 1, len(weights)))
    np.cumsum(weights.T[order], axis=0, out=sums[1:])
    ranked, own = scores[order], weights[:, positive].T
    first, last = (np.searchsorted(ranked, scores[positive], side) for side in ("left", "right"))
    # The weight below each positive example, where examples of the same score count as 1/2. Of each pair of
    # positive examples, one half counts, and the rest are the negative examples.
    below = (own * (sums[first] + sums[last]) / 2).sum(0)
    of_class = own.sum(0)
    pairs = of_class * (sums[-1] - of_class)
    found: np.ndarray = np.divide(
        below - of_class**2 / 2, pairs, out=np.full(len(weights), np.nan), where=pairs > 0
    )
    return found
