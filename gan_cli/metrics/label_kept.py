"""The share of labels that a translation keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gan_cli.metrics import HIGHER, NEITHER, Metric


def label_kept() -> Metric:
    """Share of translations in which a classifier recognises the label of the original image.

    The classifier is trained on the labelled training images of the target domain. A translation that exchanges
    classes, e.g. draws each 2 as a 7, keeps few labels, but many after a renaming of the classes.

    Values:
    - label_kept: share of labels kept, mean over the tasks; higher is better. The value of each task has the suffix
      ``_<task>``.
    - label_permuted: share of labels kept after the best one-to-one renaming of the classes, mean over the tasks;
      neither higher nor lower is better.
    - label_renamed: number of classes that this renaming changes, mean over the tasks; neither higher nor lower is
      better.
    """

    def figures(translated_classes: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        by_task = {task: _of_task(*classes) for task, classes in translated_classes.items()}
        found = {name: float(np.mean([one[name] for one in by_task.values()])) for name in _FIGURES}
        return found | {f"{name}_{task}": value for task, one in by_task.items() for name, value in one.items()}

    return Metric(figures, _FIGURES, minimum=1)


_FIGURES = {"label_kept": HIGHER, "label_permuted": NEITHER, "label_renamed": NEITHER}


def _of_task(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    renamed = renaming(labels, predicted)
    return {
        "label_kept": float((labels == predicted).mean()),
        "label_permuted": float((renamed[labels] == predicted).mean()),
        "label_renamed": float((renamed != np.arange(len(renamed))).sum()),
    }


def renaming(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The one-to-one renaming of classes after which most labels equal the predictions, ``[classes]``.

    A class is renamed only if this increases the number of equal labels.

    Args:
        labels: the labels of the originals, ``[n]``.
        predicted: the predicted classes of the translations, ``[n]``.
    """
    from scipy.optimize import linear_sum_assignment

    classes = int(max(labels.max(), predicted.max())) + 1
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels, predicted), 1)
    # Less than one count in total, which decides between renamings that keep equally many labels.
    counts += np.eye(classes) / (2 * classes)
    found: np.ndarray = linear_sum_assignment(counts, maximize=True)[1]
    return found
