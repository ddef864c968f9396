"""Evaluates samples: computes their features and the reference's, and hands each metric what it names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.errors import UserError, nearest
from gan_cli.metrics import NEITHER, Direction, Metric
from gan_cli.metrics.features import Extractor
from gan_cli.metrics.neighbours import neighbours
from gan_cli.storage import cache

log = logging.getLogger(__name__)
# The most reference examples: as many as published figures are of, and as memory and the cache hold features of.
MOST = 50_000
_LACKING = {
    "held_out": "data that training never saw, and {name} holds none out",
    "known_modes": "known modes, which {name} does not have: dataset=ring or grid, or classes for labelled images",
    "fake_points": "points, and {name} has images",
    "fake_logits": "features with logits: features=classifier or inception",
    "fake_classes": "features that name the data's own classes: features=classifier, for labelled images",
    "real_classes": "labels, which {name} does not have",
}


class Evaluator:
    """Judges any number of sets of samples against one data set, whose features it computes once.

    Args:
        metrics: by name.
        extractor: of features.
        data: the reference.
        samples: how many there will be to evaluate.
        objective: the figure that says which samples are the best; None is the first that has a better and a worse.

    Attributes:
        features: what the features are, in words.
        reference: what the reference is, in words.
        objective: the figure's name, and its better direction; None where no figure has one.

    Raises:
        UserError: a metric needs what the data or the features do not have, or more samples; there is no such
            objective.
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
                raise UserError(f"metric {name}: must be a function of its options that returns a Metric.")
        wanted: set[str] = set().union(*(metric.needs for metric in metrics.values()))
        self._inputs: dict[str, Any] = {"known_modes": data.modes, "held_out": None}
        for name, metric in metrics.items():
            if lack := lacking(metric, extractor, data):
                raise UserError(f"metric {name}: needs {lack}.")
            if (fewest := min(samples, data.size)) < metric.minimum:
                raise UserError(f"metric {name}: needs {metric.minimum} samples and examples; there are {fewest}.")
        self.objective = self._objective(objective)
        found = self._of_data(data)
        self._inputs |= {"real": found["features"], "real_classes": found.get("labels")}
        if "held_out" in wanted:
            assert data.held_out is not None
            aside = Dataset(data.name, data.spec, data.held_out, data.held_out_labels)
            self._inputs["held_out"] = self._of_data(aside)["features"]
        self.features = self.extractor.name
        self.reference = f"{data.name}, {len(found['features']):,} examples"

    @property
    def terms(self) -> dict[str, str]:
        """What figures are of, beside the number of samples and the seed."""
        return {"features": self.features, "reference": self.reference}

    def _objective(self, asked: str | None) -> tuple[str, Direction] | None:
        figures = {name: kind for metric in self._metrics.values() for name, kind in metric.figures.items()}
        directed = {name: kind for name, kind in figures.items() if kind != NEITHER}
        if asked is not None and asked not in directed:
            raise UserError(
                f"train.objective={asked}: no such figure.{nearest(asked, directed)} Of metric="
                f"{list(self._metrics)} there are {', '.join(directed) or 'none'}."
            )
        chosen = asked or next(iter(directed), None)
        return None if chosen is None else (chosen, directed[chosen])

    def _figures(self, available: dict[str, Any]) -> Iterator[dict[str, float]]:
        """Each metric's figures, of what it names."""
        for name, metric in self._metrics.items():
            try:
                yield metric(**{need: available[need] for need in metric.needs})
            except ValueError as error:
                raise UserError(f"metric {name}: {error}.") from error

    def _of_data(self, data: Dataset) -> dict[str, np.ndarray]:
        """Features and labels of at most ``MOST`` examples; cached."""
        rows = _rows(data)

        def make() -> dict[str, np.ndarray]:
            features, _ = self.extractor(_taken(data, rows))
            labelled = data.spec.num_classes is not None
            return {"features": features} | ({"labels": data.take(rows)["labels"]} if labelled else {})

        return cache.arrays("features", cache.digest(self.extractor.digest, data.fingerprint(), MOST), make)

    def nearest(self, examples: np.ndarray) -> np.ndarray:
        """For each of some examples, as they lie in files, the one of the reference that is nearest to it."""
        features, _ = self.extractor([examples])
        found, _ = neighbours(features, self._inputs["real"])
        return self.data.take(_rows(self.data)[found])["examples"]

    def __call__(self, batches: Iterable[Any], seed: int = 0) -> dict[str, float]:
        """The figures of samples, which come in batches: uint8 images, or points.

        None where samples are not finite.

        Args:
            seed: of what metrics draw.

        Raises:
            UserError: there are too few of them.
        """
        points: list[np.ndarray] = []

        def kept() -> Iterator[Any]:
            for batch in batches:
                if not self.data.spec.is_image:
                    points.append(np.asarray(batch))
                yield batch

        features, logits = self.extractor(kept())
        if not np.isfinite(features).all():
            log.warning("the samples are not finite: no metric is computed")
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
    """What the metric needs that neither these features nor this reference have, in words; None where it can be."""
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
    """Which examples of a data set are compared with, in an order that says nothing about them."""
    return np.random.default_rng(0).permutation(data.size)[:MOST]


def _taken(data: Dataset, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        yield data.take(rows[start : start + BATCH])["examples"]
