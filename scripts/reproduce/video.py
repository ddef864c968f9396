"""The table of moving digits: a MoCoGAN beside trivial generators, and bars that none of these passes together."""

from __future__ import annotations

import functools

import numpy as np
from evaluations import Bar, Evaluation, Row, Size, Table

from gan_cli.config import check, compose
from gan_cli.config.build import dataset
from gan_cli.data.dataset import Dataset
from gan_cli.metrics.clip_baselines import baselines
from gan_cli.metrics.digit_judge import judge_of
from gan_cli.metrics.evaluator import Evaluator
from gan_cli.metrics.features import auto
from gan_cli.metrics.fid import fid
from gan_cli.metrics.frame_differences import frame_differences
from gan_cli.metrics.frame_fid import frame_fid
from gan_cli.metrics.identity import identity
from gan_cli.metrics.motion import motion
from gan_cli.metrics.nearest_training import nearest_training
from gan_cli.metrics.targets import targets_of

_SAMPLES = 1000  # as many as held-out clips, because the Frechet distances depend on the number
_METRICS = {
    "identity": identity,
    "motion": motion,
    "frame_differences": frame_differences,
    "frame_fid": frame_fid,
    "fid": fid,
    "nearest_training": nearest_training,
}
BARS = (
    Bar("identity_kept", at_least=0.6),
    Bar("confidence_ratio", at_least=0.6),
    Bar("classes_effective", at_least=7),
    Bar("speed_ratio", at_least=0.85, at_most=1.15),
    Bar("speed_ks", at_most=0.3),
    Bar("line_residual", at_most=0.4),
    Bar("direction_resultant", at_most=0.3),
    Bar("direction_resultant_doubled", at_most=0.35),
    Bar("mass_variation", at_most=0.15),
)


@functools.cache
def data() -> Dataset:
    """The clips of ``experiment=moving_digits``."""
    with compose.session() as hydra:
        config = check.check(compose.ours(compose.compose(hydra, ["experiment=moving_digits"])))
    found = dataset(config)
    assert found is not None
    return found


@functools.cache
def _evaluator() -> Evaluator:
    return Evaluator(
        {name: make() for name, make in _METRICS.items()}, targets_of(data(), {}, auto), data(), _SAMPLES
    )


def figures(clips: np.ndarray) -> dict[str, float]:
    """The values of stored clips ``[n, frames, height, width, 1]``."""
    found = _evaluator()({"generate": [clips]})
    return found | {"confidence_ratio": found["identity_confidence"] / found["identity_confidence_real"]}


def _evaluation() -> Evaluation:
    judge = judge_of(data())
    method = (
        f"a judge that recognises {judge.accuracy:.1%} of the digits in held-out frames, in {_evaluator().features}"
    )
    return Evaluation(method, lambda samples: figures(np.asarray(data().feature.decode(samples))))


MOVING_DIGITS = Table(
    "One moving digit on 32x32 pixels, 2 pixels a frame, 12 frames",
    [Row("experiment=moving_digits", ("experiment=moving_digits", "metric=none"), own_length=True)],
    (*(bar.column for bar in BARS), "frame_difference_error", "frame_fid", "fid", "copying"),
    _SAMPLES,
    _evaluation,
    lambda n: {name: figures(clips) for name, clips in baselines(data(), n).items()},
    {"quick": Size((), 1), "full": Size((), 3)},
    bars=BARS,
)

TABLES = {"moving_digits": MOVING_DIGITS}
