"""Train on synthetic, test on real: classifiers that learn from generated and are tested on real examples."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.metrics import HIGHER, NEITHER, Metric, RunTask, table_classifiers
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.nearest_training import mean_ranks
from gan_cli.metrics.targets import GENERATE
from gan_cli.types import PositiveInt, PositiveShare

KINDS = ("tstr", "trtr", "both")
_MOST = 50_000  # largest number of real images, and of generated images
_BATCH = 100  # images per step of the classifier


def train_on_synthetic(*, epochs: PositiveInt = 10, fraction: PositiveShare = 1.0, runs: PositiveInt = 1) -> Metric:
    """Train on synthetic, test on real: classifiers learn from generated images of each class, or rows.

    Three small convolutional classifiers are tested on the real held-out images. The first (tstr) is trained on
    generated images (Esteban et al. 2017, section 4.2; Ravuri and Vinyals 2019), as many of each class as there are
    real training images. The second (trtr) is trained on real training images, and the third (both) on the images
    of the first two together. All three take the same number of steps. Needs labelled images with held-out images,
    and a generator that takes a class, e.g. model.conditional=projection.

    For a table, four classifiers learn the label from all samples (tstr) and from real training rows (trtr), at
    most 35,000: a decision tree of depth 15, AdaBoost, logistic regression and a network of 50 hidden units (Xu et
    al. 2019, section 5.2). Each value is the mean of the four. Needs held-out rows and a label
    (dataset.label=COLUMN).

    Values:
    - tstr_auc: area under the ROC curve of the classifier of generated images, for several classes the mean over
      the classes, each against all others; higher is better.
    - tstr_accuracy: share of the held-out images whose class the classifier of generated images predicts; higher is
      better.
    - trtr_auc, trtr_accuracy: the same of the classifier of real images; neither higher nor lower is better.
    - both_auc, both_accuracy: the same of the classifier of real and generated images; higher is better.
    - tstr_f1, trtr_f1: for tables, in place of ``both``, the F1 score: of the rarer of two classes, or the mean
      over more classes. tstr_f1_low, tstr_f1_high, tstr_auc_low, tstr_auc_high: 95 % intervals of the values, from
      200 bootstrap samples of the held-out rows.
    - tstr_r2, trtr_r2: for tables in files whose label has more than 20 different numbers, in place of the other
      values, the coefficient of determination of gradient boosting; higher is better.

    Args:
        epochs: length of the training of each classifier of images, in passes over all real training images.
        fraction: share of the real training examples that the second and the third classifier see, chosen at random
            (images: within each class). The number of generated examples does not depend on it.
        runs: number of classifiers of each kind, which differ in their seed. The values are their means.
    """

    def figures(run_task: RunTask, labelled_data: Dataset) -> dict[str, float]:
        made = run_task(GENERATE, "training", _MOST)
        feature = labelled_data.feature
        fake = {"x": np.asarray(feature.decode(jnp.asarray(made["samples"]))), "label": made["label"]}
        return compared(labelled_data, fake, epochs=epochs, fraction=fraction, runs=runs)

    names = [f"{kind}_{value}" for kind in KINDS for value in ("auc", "accuracy")]
    return Metric(
        figures,
        {name: NEITHER if name.startswith("trtr") else HIGHER for name in names},
        tasks=(GENERATE,),
        of_tables=table_classifiers.of_tables(fraction, runs),
    )


def compared(
    data: Dataset,
    fake: Mapping[str, np.ndarray],
    *,
    epochs: int = 10,
    fraction: float = 1.0,
    runs: int = 1,
    kinds: Collection[str] = KINDS,
) -> dict[str, float]:
    """The values of the metric for generated images ``x``, ``[n, *stored_shape]``, with the classes ``label``.

    Args:
        data: labelled images with labelled held-out images.
        fake: the generated images as they are stored, and their classes.
        epochs: as for ``train_on_synthetic``.
        fraction: as for ``train_on_synthetic``.
        runs: as for ``train_on_synthetic``.
        kinds: the classifiers to train: tstr, trtr, both.
    """
    rows = np.random.default_rng(0).permutation(data.size)[:_MOST]
    steps = max(epochs * len(rows) // _BATCH, 1)
    taken = data.take(rows)
    real = _share({"x": taken[data.main], "label": taken["label"]}, fraction)
    both = {name: np.concatenate([real[name], fake[name].astype(real[name].dtype)]) for name in real}
    assert data.held_out is not None
    tests = {"x": data.held_out[data.main], "label": data.held_out["label"]}
    spec = {"x": data.feature, "label": data.spec["label"]}
    found: dict[str, list[float]] = {}
    for seed in range(runs):
        for kind in kinds:
            examples = {"tstr": fake, "trtr": real, "both": both}[kind]
            # Only the classifiers of real images will be trained again.
            trained = Classifier(
                Dataset(kind, spec, examples, tests), steps=steps, seed=seed, cached=kind == "trtr"
            )
            logits = trained.logits(data.feature.encode(jnp.asarray(tests["x"])))[1]
            found.setdefault(f"{kind}_auc", []).append(auc(_log_odds(logits), tests["label"]))
            found.setdefault(f"{kind}_accuracy", []).append(trained.accuracy)
    return {name: float(np.mean(values)) for name, values in found.items()}


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve, the mean over the classes, each against all others (Hand and Till 2001, section 2).

    The area is the probability that an example of the class has a higher score for it than an example of another
    class, where equal scores count as 1/2. Classes that have all or none of the examples are left out.

    Args:
        scores: ``[n, classes]``. Higher scores mean that the class is more likely.
        labels: classes of the examples, ``[n]``.

    Returns:
        The area, or NaN if all examples have the same class.
    """
    areas = []
    for label, score in enumerate(scores.T):
        of_class = labels == label
        n, m = int(of_class.sum()), int((~of_class).sum())
        if n and m:
            ranks = mean_ranks(score)[of_class].sum()
            areas.append((ranks - n * (n + 1) / 2) / (n * m))
    return float(np.mean(areas)) if areas else math.nan


def _log_odds(logits: np.ndarray) -> np.ndarray:
    """The log-odds of each class, in float64, because the probabilities of certain predictions round to 1."""
    logits = logits.astype(np.float64)
    others = [np.logaddexp.reduce(np.delete(logits, k, axis=1), axis=1) for k in range(logits.shape[1])]
    odds: np.ndarray = logits - np.stack(others, 1)
    return odds


def _share(examples: Mapping[str, np.ndarray], fraction: float) -> dict[str, np.ndarray]:
    """The first examples of each class, rounded up to whole examples, in their order."""
    labels = examples["label"]
    place = np.zeros(len(labels), int)
    for label, count in enumerate(np.bincount(labels)):
        place[labels == label] = np.arange(count)
    # Rounded first, because 0.07 * 100 is slightly more than 7 in floating-point numbers.
    kept = place < np.ceil(np.round(fraction * np.bincount(labels), 6))[labels]
    return {name: array[kept] for name, array in examples.items()}
