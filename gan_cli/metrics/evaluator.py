"""Evaluation of samples: computes the features of samples and reference data, then all metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.errors import UserError, nearest
from gan_cli.metrics import NEITHER, Direction, Metric, RunTask
from gan_cli.metrics.features import Examples, Extractor
from gan_cli.metrics.neighbours import neighbours
from gan_cli.storage import cache
from gan_cli.types import Task

log = logging.getLogger(__name__)
# Maximum number of reference examples, as in published evaluations. Their features fit into memory and cache.
MOST = 50_000
_LACKING = {
    "held_out": "held-out examples, but {name} has none. Use dataset=mnist5k, or another metric",
    "known_modes": "known modes, but {name} has none. Use dataset=ring or dataset=grid. For labelled images, use "
    "metric=classes",
    "fake_logits": "features with logits. Use features=classifier or features=inception",
    "fake_classes": "features of a classifier of the data. Use features=classifier, which requires labelled images",
    "real_classes": "labels, but {name} has none. Use another metric, e.g. metric=fid",
}


class Evaluator:
    """Evaluates sets of samples against one reference data set, whose features are computed once.

    Args:
        metrics: mapping from names to metrics.
        extractor: the feature extractor. None if no metric reads features (see ``reads_features``).
        data: the reference data set.
        samples: number of samples per evaluation.
        objective: name of the metric value that ranks checkpoints. If None, the evaluator uses the first value that
            can rank checkpoints.
        every: whether a metric that cannot be computed is an error. With False, the metric is left out with a
            warning.
        tasks: the tasks of the game that makes the samples, by name. Samples of other programs have none.

    Attributes:
        features: description of the features, or "none" if no metric reads features.
        reference: description of the reference data.
        objective: pair of the name and the direction (``lower`` or ``higher``) of the metric value that ranks
            checkpoints. None if no metric value can rank checkpoints.

    Raises:
        UserError: an input of a metric is missing, or a metric needs more samples or reference examples (with
            ``every=False``: this is the case for all metrics), no metric computes the objective, or the objective
            cannot rank checkpoints.
    """

    def __init__(
        self,
        metrics: dict[str, Metric],
        extractor: Extractor | None,
        data: Dataset,
        samples: int,
        objective: str | None = None,
        every: bool = True,
        tasks: Mapping[str, Task] = MappingProxyType({}),
    ):
        self.extractor, self.data, self._every = extractor, data, every
        if not every:
            metrics = _possible(
                metrics,
                lambda metric: lacking(metric, extractor, data, tasks) or _too_few(metric, data.size, samples),
            )
        self._metrics = metrics
        check_metrics(metrics, data, samples)
        wanted: set[str] = set().union(*(metric.needs for metric in metrics.values()))
        self._keeps = "fake_examples" in wanted
        self._inputs: dict[str, Any] = {"known_modes": data.modes, "held_out": None}
        check_inputs(metrics, extractor, data, tasks)
        self.objective = objective_of(metrics, objective)
        if extractor is None:
            self.features, self.reference = "none", f"{data.name}, {data.held_out_size:,} held-out examples"
            return
        found = self._of_data(data, extractor)
        self._inputs |= {"real": found["features"], "real_classes": found.get("labels")}
        if "held_out" in wanted:
            self._inputs["held_out"] = self._of_data(data.only_held_out(), extractor)["features"]
        self.features = extractor.name
        self.reference = f"{data.name}, {len(found['features']):,} examples"

    @property
    def terms(self) -> dict[str, str]:
        """A dictionary with two descriptions, ``features`` and ``reference``. All metric values depend on both."""
        return {"features": self.features, "reference": self.reference}

    def _figures(self, available: dict[str, Any]) -> Iterator[dict[str, float]]:
        """Yields, for each metric, a dictionary from names to metric values, computed from the available inputs."""
        metrics = self._metrics
        if not self._every and "fake" in available:  # a file may contain fewer examples than requested
            samples = len(available["fake"])
            metrics = _possible(metrics, lambda metric: _too_few(metric, self.data.size, samples))
        for name, metric in metrics.items():
            try:
                yield metric(**{need: available[need] for need in metric.needs})
            except ValueError as error:
                raise UserError(f"metric={name}: {error}.") from error

    def _of_data(self, data: Dataset, extractor: Extractor) -> dict[str, np.ndarray]:
        """A dictionary with the ``features`` and, for labelled data, the ``labels`` of at most ``MOST`` examples.

        The cache stores both arrays.
        """
        rows = _rows(data)

        def make() -> dict[str, np.ndarray]:
            features, _ = extractor(_taken(data, rows))
            taken = data.take(rows) if data.classes is not None else {}
            return {"features": features} | ({"labels": taken["label"]} if "label" in taken else {})

        return cache.arrays("features", cache.digest(extractor.digest, data.fingerprint(), MOST), make)

    def nearest(self, examples: np.ndarray) -> np.ndarray:
        """For each stored example, the nearest reference example in feature space."""
        assert self.extractor is not None
        features, _ = self.extractor([examples])
        rows, _ = neighbours(features, self._inputs["real"])
        found: np.ndarray = self.data.take(_rows(self.data)[rows])[self.data.main]
        return found

    def __call__(
        self, batches: Iterable[Examples], seed: int = 0, run_task: RunTask | None = None
    ) -> dict[str, float]:
        """A dictionary from names to metric values. The dictionary is empty if a feature is NaN or infinite.

        Args:
            batches: the samples, as they are stored, in batches of any size. They are not read if no metric reads
                features.
            seed: seed of the random numbers that metrics draw.
            run_task: runs the tasks of the game on the reference data; None for samples of other programs.

        Raises:
            UserError: a metric needs more samples.
        """
        available = self._inputs | {"run_task": run_task, "seed": seed}
        if self.extractor is not None:
            of_samples = self._of_samples(self.extractor, batches)
            if of_samples is None:
                log.warning(
                    "the features of the samples contain NaN or infinite values, so no metric is computed. "
                    "Evaluate an earlier checkpoint."
                )
                return {}
            available |= of_samples
        return {figure: value for figures in self._figures(available) for figure, value in figures.items()}

    def _of_samples(self, extractor: Extractor, batches: Iterable[Examples]) -> dict[str, Any] | None:
        """The inputs of metrics that depend on the samples, or None if a feature is NaN or infinite."""
        kept: list[np.ndarray] = []

        def seen() -> Iterator[Examples]:
            for batch in batches:
                if self._keeps:
                    kept.append(np.asarray(batch))
                yield batch

        features, logits = extractor(seen())
        if not np.isfinite(features).all():
            return None
        return {
            "fake": features,
            "fake_logits": logits,
            "fake_classes": None if logits is None else logits.argmax(1),
            "fake_examples": np.concatenate(kept) if kept else None,
        }


def reads_features(metrics: Mapping[str, Metric]) -> bool:
    """Whether any of the metrics compares samples with data. All others only run tasks of the game."""
    return not all(metric.needs <= {"run_task", "seed"} for metric in metrics.values())


def check_metrics(metrics: Mapping[str, Metric], data: Dataset, samples: int) -> None:
    """Check that there are enough samples and reference examples for all metrics, without computing features.

    Raises:
        UserError: a metric needs more samples or reference examples, or an object in ``metrics`` is not a
            ``Metric``.
    """
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise UserError(
                f"metric={name}: the function in _target_ must return a gan_cli.metrics.Metric, but it "
                f"returned {type(metric).__name__}. Correct the function."
            )
        if samples < metric.minimum:
            raise UserError(
                f"metric={name}: needs at least {metric.minimum} samples per evaluation, but there are only "
                f"{samples}. Increase the number of samples (gan-train: train.eval_samples, gan-eval: --num)."
            )
        if data.size < metric.minimum:
            raise UserError(
                f"metric={name}: needs at least {metric.minimum} reference examples, but {data.name} has only "
                f"{data.size}. Use a larger data set."
            )


def _possible(metrics: Mapping[str, Metric], problem: Callable[[Metric], str | None]) -> dict[str, Metric]:
    """The metrics without a problem. A warning names the other metrics.

    Raises:
        UserError: every metric has a problem.
    """
    problems = {name: problem(metric) for name, metric in metrics.items()}
    needs = [f"{name} needs {text.split(',')[0].split('.')[0]}" for name, text in problems.items() if text]
    if needs and len(needs) == len(metrics):
        raise UserError(f"no metric can be computed: {'; '.join(needs)}. Use more samples or a larger data set.")
    if needs:
        log.warning("metrics left out: %s.", "; ".join(needs))
    return {name: metric for name, metric in metrics.items() if not problems[name]}


def _too_few(metric: Metric, examples: int, samples: int) -> str | None:
    """The minimum that the metric requires, if there are fewer reference examples or samples. Otherwise, None."""
    noun = "reference examples" if examples < metric.minimum else "samples"
    return f"at least {metric.minimum} {noun}" if min(examples, samples) < metric.minimum else None


def check_inputs(
    metrics: Mapping[str, Metric], extractor: Extractor | None, data: Dataset, tasks: Mapping[str, Task]
) -> None:
    """Raise a UserError if the data, the features or the tasks of the game lack an input of a metric.

    No features are computed.
    """
    for name, metric in metrics.items():
        if lack := lacking(metric, extractor, data, tasks):
            raise UserError(f"metric={name}: needs {lack}.")


def objective_of(metrics: Mapping[str, Metric], requested: str | None) -> tuple[str, Direction] | None:
    """A pair: name and direction of the metric value that ranks checkpoints.

    If no metric value can rank checkpoints, the function returns None.

    Args:
        metrics: mapping from names to metrics.
        requested: name of the metric value, or None for the first metric value that can rank checkpoints.

    Raises:
        UserError: no metric computes the requested value, or the requested value cannot rank checkpoints.
    """
    figures = {name: kind for metric in metrics.values() for name, kind in metric.figures.items()}
    directed = {name: kind for name, kind in figures.items() if kind != NEITHER}
    if requested is not None and requested not in directed:
        problem = (
            f"cannot rank checkpoints, because neither higher nor lower values of {requested} are better."
            if requested in figures
            else f"metric=[{','.join(metrics)}] does not compute this value.{nearest(requested, directed)}"
        )
        remedy = (
            f"Set train.objective to one of {', '.join(directed)}, or add another metric to metric=[...]."
            if directed
            else "Add a metric that can rank checkpoints, e.g. metric=[fid], or set train.objective=null."
        )
        raise UserError(f"train.objective={requested}: {problem} {remedy}")
    chosen = requested or next(iter(directed), None)
    return None if chosen is None else (chosen, directed[chosen])


def lacking(
    metric: Metric, extractor: Extractor | None, data: Dataset, tasks: Mapping[str, Task] = MappingProxyType({})
) -> str | None:
    """Message text about the first missing input of the metric, with a remedy. None if no input is missing.

    Args:
        metric: the metric.
        extractor: the feature extractor. None if no metric reads features (see ``reads_features``).
        data: the reference data set.
        tasks: the tasks of the game that makes the samples, by name.
    """
    has = {
        "held_out": data.held_out is not None,
        "known_modes": data.modes is not None,
        "fake_logits": extractor is not None and extractor.gives_logits,
        "fake_classes": extractor is not None and extractor.of_classes,
        "real_classes": data.classes is not None,
    }
    for need in _LACKING:
        if need in metric.needs and not has[need]:
            return _LACKING[need].format(name=data.name)
    for task in metric.tasks:
        if task not in tasks:
            return f"a game with the task {task}, e.g. game=vae"
        label = tasks[task].inputs.get("label")
        if label is not None and data.spec.get("label") != label:
            return (
                f"reference data with the same classes as the run, but {data.name} has others. Use another metric"
            )
        if metric.held_out_tasks and not has_held_out(tasks[task], data):
            return _LACKING["held_out"].format(name=data.name)
    return None


def has_held_out(task: Task, data: Dataset) -> bool:
    """Whether the data set has held-out examples, with labels if the task needs labels."""
    return data.held_out is not None and ("label" not in task.inputs or "label" in data.held_out)


def _rows(data: Dataset) -> np.ndarray:
    """The row indices of at most ``MOST`` reference examples, in random order."""
    return np.random.default_rng(0).permutation(data.size)[:MOST]


def _taken(data: Dataset, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        yield data.take(rows[start : start + BATCH])[data.main]
