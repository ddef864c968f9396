"""Evaluation of samples: features of samples and reference data, and the figures of each metric."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.errors import UserError, nearest
from gan_cli.metrics import NEITHER, Direction, Metric
from gan_cli.metrics.features import Examples, Extractor
from gan_cli.metrics.neighbours import neighbours
from gan_cli.storage import cache

log = logging.getLogger(__name__)
# Maximum number of reference examples. Published figures use 50,000, whose features fit into memory and cache.
MOST = 50_000
_LACKING = {
    "held_out": "held-out examples, and {name} has none. Use dataset=mnist5k, or another metric",
    "known_modes": "known modes, and {name} has none. Use dataset=ring or dataset=grid. For labelled images, use "
    "metric=classes",
    "fake_points": "points, and {name} consists of images. Use another metric",
    "fake_logits": "features with logits. Use features=classifier or features=inception",
    "fake_classes": "features of a classifier of the data. Use features=classifier, which requires labelled images",
    "real_classes": "labels, and {name} has none. Use another metric",
}


class Evaluator:
    """Evaluates sets of samples against one reference data set, whose features it computes once.

    Args:
        metrics: metrics by name.
        extractor: the feature extractor.
        data: the reference data set.
        samples: number of samples per evaluation.
        objective: name of the figure by which samples are ranked. None: the first figure that has a better
            direction.

    Attributes:
        features: description of the features.
        reference: description of the reference data.
        objective: name and better direction of the figure that ranks samples; None if no figure has a direction.

    Raises:
        UserError: a metric lacks an input or needs more samples, or the objective does not exist.
    """

    def __init__(
        self,
        metrics: dict[str, Metric],
        extractor: Extractor,
        data: Dataset,
        samples: int,
        objective: str | None = None,
    ):
        self._metrics, self.extractor, self.data = metrics, extractor, data
        for name, metric in metrics.items():
            if not isinstance(metric, Metric):
                raise UserError(f"metric={name}: its _target_ must return a gan_cli.metrics.Metric.")
        wanted: set[str] = set().union(*(metric.needs for metric in metrics.values()))
        self._inputs: dict[str, Any] = {"known_modes": data.modes, "held_out": None}
        for name, metric in metrics.items():
            if lack := lacking(metric, extractor, data):
                raise UserError(f"metric={name}: needs {lack}.")
            if (fewest := min(samples, data.size)) < metric.minimum:
                raise UserError(
                    f"metric={name}: needs at least {metric.minimum} samples and {metric.minimum} reference "
                    f"examples, but there are only {fewest}. Use more samples or a larger data set."
                )
        self.objective = self._objective(objective)
        found = self._of_data(data)
        self._inputs |= {"real": found["features"], "real_classes": found.get("labels")}
        if "held_out" in wanted:
            assert data.held_out is not None
            held_out = Dataset(data.name, data.spec, data.held_out, data.held_out_labels)
            self._inputs["held_out"] = self._of_data(held_out)["features"]
        self.features = self.extractor.name
        self.reference = f"{data.name}, {len(found['features']):,} examples"

    @property
    def terms(self) -> dict[str, str]:
        """Conditions on which figures depend, besides the number of samples and the seed."""
        return {"features": self.features, "reference": self.reference}

    def _objective(self, requested: str | None) -> tuple[str, Direction] | None:
        figures = {name: kind for metric in self._metrics.values() for name, kind in metric.figures.items()}
        directed = {name: kind for name, kind in figures.items() if kind != NEITHER}
        if requested is not None and requested not in directed:
            choices = f"Choose one of its figures: {', '.join(directed)}." if directed else "Choose other metrics."
            raise UserError(
                f"train.objective={requested}: metric=[{','.join(self._metrics)}] does not compute this figure, or "
                f"the figure has no better direction.{nearest(requested, directed)} {choices}"
            )
        chosen = requested or next(iter(directed), None)
        return None if chosen is None else (chosen, directed[chosen])

    def _figures(self, available: dict[str, Any]) -> Iterator[dict[str, float]]:
        """The figures of each metric, computed from its inputs."""
        for name, metric in self._metrics.items():
            try:
                yield metric(**{need: available[need] for need in metric.needs})
            except ValueError as error:
                raise UserError(f"metric={name}: {error}.") from error

    def _of_data(self, data: Dataset) -> dict[str, np.ndarray]:
        """Features and labels of at most ``MOST`` examples; the cache stores them."""
        rows = _rows(data)

        def make() -> dict[str, np.ndarray]:
            features, _ = self.extractor(_taken(data, rows))
            labelled = data.spec.num_classes is not None
            return {"features": features} | ({"labels": data.take(rows)["labels"]} if labelled else {})

        return cache.arrays("features", cache.digest(self.extractor.digest, data.fingerprint(), MOST), make)

    def nearest(self, examples: np.ndarray) -> np.ndarray:
        """For each example (uint8 image or point), the nearest reference example in feature space."""
        features, _ = self.extractor([examples])
        rows, _ = neighbours(features, self._inputs["real"])
        found: np.ndarray = self.data.take(_rows(self.data)[rows])["examples"]
        return found

    def __call__(self, batches: Iterable[Examples], seed: int = 0) -> dict[str, float]:
        """The figures of samples; no figures if a feature of the samples is not finite.

        Args:
            batches: the samples, uint8 images or points, in batches of any size.
            seed: seed of the random numbers that metrics draw.

        Raises:
            UserError: there are too few samples for a metric.
        """
        points: list[np.ndarray] = []

        def kept() -> Iterator[Examples]:
            for batch in batches:
                if not self.data.spec.is_image:
                    points.append(np.asarray(batch))
                yield batch

        features, logits = self.extractor(kept())
        if not np.isfinite(features).all():
            log.warning("the samples contain values that are not finite, so no metric is computed")
            return {}
        available = self._inputs | {
            "fake": features,
            "fake_logits": logits,
            "fake_classes": None if logits is None else logits.argmax(1),
            "fake_points": np.concatenate(points) if points else None,
            "seed": seed,
        }
        return {figure: value for figures in self._figures(available) for figure, value in figures.items()}


def lacking(metric: Metric, extractor: Extractor, data: Dataset) -> str | None:
    """Description of an input of the metric that neither the features nor the data provide, or None."""
    has = {
        "held_out": data.held_out is not None,
        "known_modes": data.modes is not None,
        "fake_points": not data.spec.is_image,
        "fake_logits": extractor.gives_logits,
        "fake_classes": extractor.of_classes,
        "real_classes": data.spec.num_classes is not None,
    }
    for need in _LACKING:
        if need in metric.needs and not has[need]:
            return _LACKING[need].format(name=data.name)
    return None


def _rows(data: Dataset) -> np.ndarray:
    """The rows of at most ``MOST`` reference examples, in random order."""
    return np.random.default_rng(0).permutation(data.size)[:MOST]


def _taken(data: Dataset, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        yield data.take(rows[start : start + BATCH])["examples"]
