"""A two-sample test of tables: how well a classifier distinguishes samples from real rows."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics import LOWER, Metric
from gan_cli.metrics.nearest_training import mean_ranks
from gan_cli.metrics.tables import Columns, frequent, is_number, require_sklearn, rows_of, taken, threads_for
from gan_cli.types import PositiveInt

_MOST = 50_000  # largest number of rows of each table
_LEAST = 40  # fewer rows do not tell two tables apart
_CATEGORIES = 250  # the classifier distinguishes at most 255 categories


def two_sample_auc(*, runs: PositiveInt = 3) -> Metric:
    """Two-sample test: the area under the ROC curve of a classifier of samples and real rows.

    Gradient boosting (the HistGradientBoostingClassifier of scikit-learn) learns from one half of the samples and
    of as many held-out rows (without held-out rows: training rows) to tell them apart, and is tested on the other
    halves (Lopez-Paz and Oquab 2017, section 3). Missing values and categories are inputs like any other. Needs at
    least 40 rows of each; below some hundred rows, the value varies by several hundredths between samples of the
    same quality.

    Values:
    - two_sample_auc: area under the ROC curve; lower is better. The area is 0.5 if samples and real rows have the
      same distribution, 1 if each row can be told apart, and differs from 0.5 in either direction by chance. Copies
      of training rows that are compared with training rows have an area below 0.5.

    Args:
        runs: number of classifiers, which differ in the halves. The value is their mean.
    """

    def figures(fake_table: Columns, unseen_table: Columns, seed: int) -> dict[str, float]:
        found = [area(unseen_table, fake_table, seed + run) for run in range(runs)]
        return {"two_sample_auc": float(np.mean(found))}

    return Metric(figures, {"two_sample_auc": LOWER}, minimum=_LEAST)


def area(real: Columns, fake: Columns, seed: int = 0) -> float:
    """Area under the ROC curve of one classifier, from the test halves of two tables."""
    rng = np.random.default_rng(seed)
    count = min(rows_of(real), rows_of(fake), _MOST)
    if count < _LEAST:
        raise ValueError(f"needs at least {_LEAST} samples and as many real rows, but there are only {count}")
    parts = [taken(table, rng.permutation(rows_of(table))[:count]) for table in (real, fake)]
    of_fake = np.arange(2 * count) >= count
    test = np.arange(2 * count) % count >= count // 2
    found = probabilities(*matrix(*parts), of_fake, test, seed)
    ranks = mean_ranks(found)[of_fake[test]]
    n = len(ranks)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * (test.sum() - n)))


def probabilities(
    x: np.ndarray, categorical: list[bool], of_fake: np.ndarray, test: np.ndarray, seed: int
) -> np.ndarray:
    """Probabilities that test rows are generated, by gradient boosting that learns from all other rows.

    Args:
        x: the rows, ``[n, columns]``.
        categorical: which columns are categories.
        of_fake: which rows are generated, ``[n]``.
        test: which rows are test rows, ``[n]``.
        seed: seed of the classifier.
    """
    require_sklearn("two_sample_auc")
    from sklearn.ensemble import HistGradientBoostingClassifier

    # The default, 20 rows in a leaf, would leave a tree of a small table without any branch.
    leaf = min(20, max(2, len(x) // 20))
    classifier = HistGradientBoostingClassifier(
        categorical_features=categorical, min_samples_leaf=leaf, random_state=seed % 2**32
    )
    with threads_for(len(x) // 2):
        found: np.ndarray = classifier.fit(x[~test], of_fake[~test]).predict_proba(x[test])[:, 1]
    return found


def matrix(*parts: Columns) -> tuple[np.ndarray, list[bool]]:
    """A pair: float64 ``[rows, columns]`` with NaN for a missing value, and which columns are categories."""
    columns, categorical = [], []
    for name, values in parts[0].items():
        each = [part[name] for part in parts]
        categorical.append(not is_number(values))
        columns.append(np.concatenate(each if is_number(values) else frequent(each, _CATEGORIES)))
    return np.stack(columns, axis=1), categorical
