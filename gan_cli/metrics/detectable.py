"""How well a classifier tells generated from real held-out examples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Label
from gan_cli.data.series.feature import Series
from gan_cli.metrics import LOWER, NEITHER, Direction, Metric, two_sample_auc
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.table_classifiers import areas
from gan_cli.metrics.tables import Columns, rows_of, taken
from gan_cli.types import Feature

_MOST = 5_000  # largest number of real examples, and of samples
_LEAST = 40  # fewer examples do not tell samples and data apart
_FOLDS = 5
_STEPS, _DENSE_STEPS = 200, 1000  # training steps of each classifier of images, and of other examples
_RESAMPLES = 1000  # bootstrap samples of the test examples
_Score = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def detectable() -> Metric:
    """Detectability: how well a classifier tells samples from real held-out examples that it has not seen.

    A classifier learns from four fifths of the held-out examples and of as many samples, and is tested on the last
    fifth. With five such classifiers, each example is tested once (a two-sample test by a classifier, Lopez-Paz and
    Oquab 2017, section 3, with cross-validation). Images are classified by a small convolutional network, rows of a
    table by gradient boosting, and other examples by a network of three dense layers. The values do not depend on
    the option ``features``. Needs at least 40 held-out examples, and reads at most 5,000. Windows of a series
    overlap, and have the metric ``discriminative`` instead.

    Trivial references: samples that are real examples, also copies of training examples, have an area of about 0.5,
    or more if the held-out examples differ from the training examples (dataset=mnist5k: 0.57). Noise has an area of
    1. The values are lower bounds: a larger classifier, or more held-out examples, detect more.

    Values:
    - detectable_auc: area under the ROC curve, mean of the five parts; lower is better, and 0.5 is ideal.
    - detectable_accuracy: share of the samples and the real examples, equally many, that are classified correctly;
      lower is better, and 0.5 is ideal.
    - detectable_auc_low, detectable_auc_high, detectable_accuracy_low, detectable_accuracy_high: 95 % intervals of
      the two values, from 1,000 bootstrap samples of the test examples; neither higher nor lower is better. The
      variation between trainings is not part of them.
    """

    def figures(fake_examples: np.ndarray, held_out_data: Dataset, seed: int) -> dict[str, float]:
        feature, count = held_out_data.feature, _count(len(fake_examples), held_out_data.size)
        rng = np.random.default_rng(seed)
        real = held_out_data.take(rng.permutation(held_out_data.size)[:count])[held_out_data.main]
        x = np.concatenate([real, fake_examples[rng.permutation(len(fake_examples))[:count]].astype(real.dtype)])

        def score(of_fake: np.ndarray, test: np.ndarray, fold: int) -> np.ndarray:
            spec = {"x": feature, "label": Label(2)}
            learnt, tested = ({"x": x[rows], "label": of_fake[rows].astype(np.int32)} for rows in (~test, test))
            data = Dataset("samples and held-out examples", spec, learnt, tested)
            steps = _STEPS if len(feature.shape) == 3 else _DENSE_STEPS
            classifier = Classifier(data, steps=steps, seed=seed + fold, cached=False)
            _, logits = classifier.logits(np.asarray(feature.encode(x[test])))
            scores: np.ndarray = logits[:, 1] - logits[:, 0]
            return scores

        return _cross_validated(count, score)

    values: dict[str, Direction] = dict.fromkeys(("detectable_auc", "detectable_accuracy"), LOWER)
    values |= dict.fromkeys([f"{name}_{end}" for name in values for end in ("low", "high")], NEITHER)
    return Metric(figures, values, _LEAST, cannot=_cannot, of_tables=Metric(of_rows, values, _LEAST))


def _cannot(feature: Feature, features: int | None) -> str | None:
    """Overlapping windows of both parts would be recognised, so that even real windows would seem detectable."""
    if isinstance(feature, Series):
        return "examples without common parts, unlike windows of a series. Use metric=discriminative"
    return None


def of_rows(fake_table: Columns, held_out_table: Columns, seed: int) -> dict[str, float]:
    """The values of the metric for rows of a table."""
    count = _count(rows_of(fake_table), rows_of(held_out_table))
    rng = np.random.default_rng(seed)
    parts = [taken(table, rng.permutation(rows_of(table))[:count]) for table in (held_out_table, fake_table)]
    x, categorical = two_sample_auc.matrix(*parts)

    def score(of_fake: np.ndarray, test: np.ndarray, fold: int) -> np.ndarray:
        return two_sample_auc.probabilities(x, categorical, of_fake, test, seed + fold) - 0.5

    return _cross_validated(count, score)


def _count(*sizes: int) -> int:
    """The number of samples, and of real examples: the same in each part, so that programs are compiled once."""
    if min(sizes) < _LEAST:
        raise ValueError(f"needs at least {_LEAST} samples and as many held-out examples, not {min(sizes)}")
    return min(*sizes, _MOST) // _FOLDS * _FOLDS


def _cross_validated(count: int, score: _Score) -> dict[str, float]:
    """The values from the scores of ``count`` real examples, then ``count`` samples, in random order each.

    Args:
        count: the number of real examples, a multiple of the number of parts.
        score: ``(which are samples, which are tested, number of the part) -> scores of the tested examples``, which
            are positive for examples that the classifier considers to be samples.
    """
    of_fake = np.arange(2 * count) >= count
    part_of = np.arange(2 * count) % _FOLDS
    scores = np.empty(2 * count)
    for fold in range(_FOLDS):
        scores[part_of == fold] = score(of_fake, part_of == fold, fold)
    right = (scores > 0) == of_fake
    rng, auc, accuracy = np.random.default_rng(0), [], []
    for fold in range(_FOLDS):
        test = part_of == fold
        n = int(test.sum())
        weights = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES)])
        auc.append(areas(scores[test], of_fake[test], weights))
        accuracy.append(weights @ right[test] / n)
    found: dict[str, float] = {}
    for name, values in (
        ("detectable_auc", np.mean(auc, axis=0)),
        ("detectable_accuracy", np.mean(accuracy, axis=0)),
    ):
        low, high = np.quantile(values[1:], [0.025, 0.975])
        found |= {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found
