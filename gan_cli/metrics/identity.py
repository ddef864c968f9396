"""Identity of a moving digit: whether a judge recognises one digit in all frames of a clip."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.metrics import HIGHER, NEITHER, Metric
from gan_cli.metrics.clip_inputs import at_least
from gan_cli.metrics.digit_judge import CLASSES, judge_of

_MOST = 5000  # largest number of samples


def identity() -> Metric:
    """Identity of a digit: share of neighbouring frames in which a judge recognises the same class.

    The judge is a classifier of windows around the centroids of the frames, which is trained on the frames of real
    clips at its first use and cached. A clip without motion keeps its identity, so read ``motion`` beside it. At
    most 5,000 samples are judged.

    Values:
    - identity_kept: share of pairs of neighbouring frames with the same class; higher is better.
    - identity_confidence: mean probability of the class of a frame; higher is better.
    - classes_effective: effective number of classes, exp of the entropy of the class shares of all frames; higher
      is better.
    - rarest_class: share of the frames in the rarest of the ten classes; higher is better.
    - identity_kept_real, identity_confidence_real: the same of the held-out clips; neither higher nor lower is
      better.
    - judge_accuracy: share of the frames of held-out clips in which the judge recognises the digit; neither higher
      nor lower is better. Below 0.97, a warning says so.
    """

    def figures(fake_clips: np.ndarray, moving_digits: Dataset) -> dict[str, float]:
        judge = judge_of(moving_digits)
        made, real = judge(fake_clips[:_MOST]), judge.real
        shares = np.bincount(made.classes.ravel(), minlength=CLASSES) / made.classes.size
        seen = shares[shares > 0]
        return {
            "identity_kept": kept(made.classes),
            "identity_kept_real": kept(real.classes),
            "identity_confidence": float(made.confidence.mean()),
            "identity_confidence_real": float(real.confidence.mean()),
            "classes_effective": float(np.exp(-(seen * np.log(seen)).sum())),
            "rarest_class": float(shares.min()),
            "judge_accuracy": judge.accuracy,
        }

    ranked = ("identity_kept", "identity_confidence", "classes_effective", "rarest_class")
    stated = ("identity_kept_real", "identity_confidence_real", "judge_accuracy")
    return Metric(
        figures, dict.fromkeys(ranked, HIGHER) | dict.fromkeys(stated, NEITHER), minimum=1, cannot=at_least(2)
    )


def kept(classes: np.ndarray) -> float:
    """The share of pairs of neighbouring frames with the same class, from the classes ``[n, frames]``."""
    return float((classes[:, 1:] == classes[:, :-1]).mean())
