"""Evaluation of samples and translations: computes features of samples and reference data, then all metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.tables.feature import Table
from gan_cli.data.text.feature import Tokens
from gan_cli.errors import UserError, nearest
from gan_cli.metrics import (
    NEITHER,
    Audited,
    Direction,
    Metric,
    RunTask,
    clip_inputs,
    series_inputs,
    text_inputs,
)
from gan_cli.metrics.features import Examples, Extractor
from gan_cli.metrics.neighbours import neighbours
from gan_cli.metrics.targets import GENERATE, MOST, Target
from gan_cli.storage import cache
from gan_cli.types import Task

log = logging.getLogger(__name__)
# Inputs of a metric that do not belong to a single target. A metric with other inputs is computed for each target.
_OF_ALL = frozenset({"run_task", "audited", "seed", "pairs", "translated_classes", "labelled_data"})
_SAMPLES = ("fake", "fake_logits", "fake_classes", "fake_examples")
_AS_STORED = frozenset({"fake_examples", "fake_table", "fake_series", "fake_clips", "fake_texts"})
_UNSEEN_ROWS = frozenset({"held_out_table", "unseen_table"})
_UNSEEN = frozenset({"held_out_data", *_UNSEEN_ROWS})
_OF_TABLES = frozenset({"fake_table", "training_table", "table_label", *_UNSEEN_ROWS})
_TRANSLATED = frozenset({"pairs", "translated_classes"})
# Games that have the tasks of metrics. All other tasks belong to autoencoders.
_GAMES = {GENERATE: "gan", "cycle_a": "cyclegan", "cycle_b": "cyclegan"}
_LACKING = {
    "held_out": "held-out examples, but {name} has none. Use dataset=mnist5k, or another metric",
    "held_out_data": "held-out examples, but {name} has none. Use dataset=mnist5k, or another metric",
    "known_modes": "known modes, but {name} has none. Use dataset=ring, dataset=grid or dataset=simulated. For "
    "labelled images, use metric=classes",
    "fake_logits": "features with logits. Use features=classifier or features=inception",
    "fake_classes": "features of a classifier of the data. Use features=classifier, which requires labelled images",
    "held_out_table": "held-out rows, but {name} has none. Use a table with held-out rows, or another metric",
    "labelled_data": "a data set whose training and held-out examples have `label`, unlike {name}. Use "
    "dataset=mnist5k, or another metric",
    "real_classes": "labels, but {name} has none. Use another metric, e.g. metric=fid",
    "fake_table": "rows of a table, but {name} has none. Use dataset=table, or another metric",
    "table_label": "a column to predict, but {name} has no label. Set dataset.label=COLUMN, or use another metric",
    "pairs": "translated held-out pairs, but the game translates no held-out pairs of {name}. Use e.g. "
    "game=pix2pix dataset=edges, or another metric",
    "translated_classes": "translations of labelled images, but the game translates no images of {name} with "
    "labels of the same classes. Use e.g. game=pix2pix dataset=edges, or another metric",
    "fake_frames": "features of single frames, for clips. Use features=frames, or another metric",
    **series_inputs.LACKING,
    **clip_inputs.LACKING,
    **text_inputs.LACKING,
}


class Evaluator:
    """Evaluates sets of samples against reference data, whose features are computed once.

    Args:
        metrics: mapping from names to metrics.
        targets: the data with which the outputs of tasks are compared, by the name of the task. The targets have
            extractors if a metric reads features (see ``reads_features``).
        data: the data set.
        samples: number of samples per evaluation, and maximum number of translations.
        objective: name of the metric value that ranks checkpoints. If None, the evaluator uses the first value that
            can rank checkpoints.
        every: whether a metric that cannot be computed is an error. With False, the metric is left out with a
            warning.
        tasks: the tasks of the game that makes the samples, by name. Samples of other programs have none.

    Attributes:
        targets: the targets whose outputs the metrics read. Empty if all metrics only run tasks of the game.
        features: description of the features, or "none" if no metric reads features.
        reference: description of the reference data.
        samples: number of samples per evaluation; for translations, the largest number of inputs of a task.
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
        targets: Mapping[str, Target],
        data: Dataset,
        samples: int,
        objective: str | None = None,
        every: bool = True,
        tasks: Mapping[str, Task] = MappingProxyType({}),
    ):
        self.data, self._every, self._limit = data, every, samples
        if not every:
            metrics = _possible(
                metrics,
                lambda metric: lacking(metric, targets, data, tasks) or _too_few(metric, targets, samples),
            )
        self._metrics = metrics
        check_metrics(metrics, targets, samples)
        check_inputs(metrics, targets, data, tasks)
        self.objective = objective_of(metrics, objective, targets)
        self._wanted: frozenset[str] = frozenset().union(*(metric.needs for metric in metrics.values()))
        of_features = reads_features(metrics)
        self.targets = {name: one for name, one in targets.items() if of_features or self._translated(one)}
        with_features = {name: one for name, one in self.targets.items() if one.extractor is not None}
        self._of_data = {name: self._of_reference(one) for name, one in with_features.items()}
        self.features = _joined({name: self._features(one) for name, one in self.targets.items()}) or "none"
        self.reference = (
            _joined({name: one.described for name, one in self.targets.items()})
            or f"{data.name}, {data.held_out_size:,} held-out examples"
        )
        self.samples = max((one.count(samples) for one in self.targets.values()), default=samples)

    @property
    def terms(self) -> dict[str, str]:
        """A dictionary with two descriptions, ``features`` and ``reference``. All metric values depend on both."""
        return {"features": self.features, "reference": self.reference}

    def _translated(self, target: Target) -> bool:
        """Whether a metric compares each output of a target with the example to which it belongs."""
        return ("pairs" in self._wanted and target.paired) or self._classifies(target)

    def _classifies(self, target: Target) -> bool:
        return "translated_classes" in self._wanted and target.labelled

    def _features(self, target: Target) -> str:
        name = target.extractor.name if target.extractor else "none"
        if not self._classifies(target) or target.classifier is target.extractor:
            return name
        assert target.classifier is not None
        return f"{name}, classes by {target.classifier.name}"

    def _of_reference(self, target: Target) -> dict[str, Any]:
        """The inputs of metrics that depend on the reference of a target."""
        assert target.extractor is not None
        found = self._of_examples(target.reference, target.extractor)
        inputs: dict[str, Any] = {"known_modes": target.data.modes, "held_out": None}
        inputs |= self._of_table(target.data) if self._wanted & _OF_TABLES else {}
        inputs |= series_inputs.of_data(target.data, MOST) if self._wanted & set(series_inputs.SERIES) else {}
        inputs |= clip_inputs.of_data(target.data) if self._wanted & set(clip_inputs.CLIPS) else {}
        if target.extractor.frames:
            inputs["real_frames"] = _single(found["features"], target.extractor.frames)
        inputs |= text_inputs.of_data(target.data, MOST) if self._wanted & set(text_inputs.TEXTS) else {}
        inputs |= {"real": found["features"], "real_classes": found.get("labels"), "training": found["features"]}
        if "training" in self._wanted and target.reference is not target.data:
            inputs["training"] = self._of_examples(target.data, target.extractor)["features"]
        if "held_out" in self._wanted:
            held_out = target.data.only_held_out()
            inputs["held_out"] = self._of_examples(held_out, target.extractor)["features"]
        if "held_out_data" in self._wanted:
            inputs["held_out_data"] = target.data.only_held_out()
        return inputs

    def _of_table(self, data: Dataset) -> dict[str, Any]:
        """The inputs of metrics of tables that do not depend on samples, with at most ``MOST`` training rows."""
        from gan_cli.data.tables import files as table_files  # not above, because it loads PyArrow

        feature = data.feature
        assert isinstance(feature, Table)
        inputs: dict[str, Any] = {"training_table": table_files.training_rows(data, _rows(data))}
        if (held_out := table_files.held_out_rows(data)) is not None:
            inputs["held_out_table"] = held_out
        inputs["unseen_table"] = inputs.get("held_out_table", inputs["training_table"])
        if feature.label is not None:
            inputs["table_label"] = feature.columns[feature.label].name
        return inputs

    def _of_examples(self, data: Dataset, extractor: Extractor) -> dict[str, np.ndarray]:
        """A dictionary with the ``features`` and, for labelled data, the ``labels`` of at most ``MOST`` examples.

        The cache stores both arrays.
        """
        rows, feature = _rows(data), data.feature
        # Images with margins have the same fingerprint for every size of the crop.
        crop = () if feature.stored_shape == feature.shape else (feature.shape,)

        def make() -> dict[str, np.ndarray]:
            features, _ = extractor(_taken(data, rows))
            taken = data.take(rows) if data.classes is not None else {}
            return {"features": features} | ({"labels": taken["label"]} if "label" in taken else {})

        return cache.arrays("features", cache.digest(extractor.digest, data.fingerprint(), MOST, *crop), make)

    def nearest(self, examples: np.ndarray) -> np.ndarray:
        """For each stored sample of the task ``generate``, the nearest reference example in feature space."""
        target = self.targets[GENERATE]
        assert target.extractor is not None
        features, _ = target.extractor([examples])
        rows, _ = neighbours(features, self._of_data[GENERATE]["real"])
        found: np.ndarray = target.reference.take(_rows(target.reference)[rows])[target.reference.main]
        return found

    def __call__(
        self,
        samples: Mapping[str, Iterable[Examples]],
        seed: int = 0,
        run_task: RunTask | None = None,
        audited: Audited | None = None,
    ) -> dict[str, float]:
        """A dictionary from names to metric values. The dictionary is empty if a feature is NaN or infinite.

        Args:
            samples: the outputs of each target's task, as they are stored, in batches of any size. They are not
                read if all metrics only run tasks of the game.
            seed: seed of the random numbers that metrics draw.
            run_task: runs the tasks of the game on the reference data; None for samples of other programs.
            audited: trains reference runs of the evaluated run; None during training and for other samples.

        Raises:
            UserError: a metric needs more samples.
        """
        of_all: dict[str, Any] = {
            "run_task": run_task,
            "audited": audited,
            "seed": seed,
            "labelled_data": self.data,
        }
        of_all |= {need: {} for need in _TRANSLATED}
        by_task: dict[str, dict[str, Any]] = {}
        for name, target in self.targets.items():
            outputs = self._of_outputs(target, samples[name])
            if outputs is None:
                log.warning(
                    "the features of the samples contain NaN or infinite values, so no metric is computed. "
                    "Evaluate an earlier checkpoint."
                )
                return {}
            for need in _TRANSLATED & outputs.keys():
                of_all[need][name] = outputs.pop(need)
            by_task[name] = self._of_data.get(name, {}) | outputs
        return self._figures(by_task, of_all)

    def _figures(self, by_task: dict[str, dict[str, Any]], of_all: dict[str, Any]) -> dict[str, float]:
        """The values of all metrics, computed from the available inputs."""
        metrics, figures = self._metrics, dict[str, float]()
        counts = [len(inputs["fake"]) for inputs in by_task.values() if "fake" in inputs]
        if not self._every and counts:  # a file may contain fewer examples than requested
            metrics = _possible(metrics, lambda metric: _too_few(metric, self.targets, min(counts)))
        for name, metric in metrics.items():
            try:
                if metric.needs <= _OF_ALL:
                    figures |= metric.computed(of_all)
                    continue
                for task, inputs in by_task.items():
                    available, suffix = inputs | of_all, self.targets[task].suffix
                    found = metric.computed(available)
                    figures |= {f"{figure}{suffix}": value for figure, value in found.items()}
            except ValueError as error:
                _failed(name, error, self._every)
        return figures

    def _of_outputs(self, target: Target, batches: Iterable[Examples]) -> dict[str, Any] | None:
        """The inputs of metrics that depend on the outputs of a task, or None if a feature is NaN or infinite."""
        kept: list[np.ndarray] = []
        found: dict[str, Any]
        translated = self._translated(target)

        def seen() -> Iterator[Examples]:
            for batch in batches:
                if translated or _AS_STORED & self._wanted:
                    kept.append(np.asarray(batch))
                yield batch

        if target.extractor is None:
            logits, found = None, {"fake_examples": np.concatenate([np.asarray(batch) for batch in seen()])}
        else:
            features, logits = target.extractor(seen())
            if not np.isfinite(features).all():
                return None
            found = {
                "fake": features,
                "fake_logits": logits,
                "fake_classes": None if logits is None else logits.argmax(1),
                "fake_examples": np.concatenate(kept) if kept else None,
            }
            if target.extractor.frames:
                found["fake_frames"] = _single(features, target.extractor.frames)
        made = found["fake_series"] = found["fake_clips"] = found["fake_examples"]
        if isinstance(feature := target.data.feature, Tokens) and made is not None:
            found["fake_texts"] = text_inputs.cut(feature, made)
        if isinstance(feature, Table) and made is not None:
            found["fake_table"] = feature.restore(made)
            if target.data.modes is not None:
                found["fake_examples"] = np.stack(list(found["fake_table"].values()), axis=1)
        if self._classifies(target):
            if target.classifier is not target.extractor:
                assert target.classifier is not None
                _, logits = target.classifier(made[start : start + BATCH] for start in range(0, len(made), BATCH))
            assert logits is not None
            found["translated_classes"] = target.labels(self._limit)[: len(made)], logits.argmax(1)
        if "pairs" in self._wanted and target.paired:
            wanted = target.wanted(self._limit)[: len(made)]
            found["pairs"] = np.asarray(target.reference.feature.encode(made)), wanted
        if target.sources and target.extractor is not None:
            # The translations have the order of the data, and metrics may use a part of them.
            order = np.random.default_rng(0).permutation(len(features))
            found |= {name: found[name][order] for name in _SAMPLES if found[name] is not None}
        return found


def reads_features(metrics: Mapping[str, Metric]) -> bool:
    """Whether any of the metrics compares features of samples and data.

    All others only run tasks of the game, or compare each translation with its example.
    """
    return not all(metric.needs <= _OF_ALL for metric in metrics.values())


def suited(metrics: Mapping[str, Metric], data: Dataset, tasks: Mapping[str, Task]) -> dict[str, Metric]:
    """The metrics that are made for the kind of data, from all metrics, for a choice that the user leaves open.

    Rows of tables and texts are compared by metrics of their own. Distances in the space that networks see, as of
    ``fid``, depend on the normalisation of tables and on the numbers of tokens, so these metrics are computed for
    tables and texts only if they are chosen. The same holds for metrics that train reference runs.
    """
    metrics = {name: metric for name, metric in metrics.items() if "audited" not in metric.needs}
    texts = frozenset(text_inputs.TEXTS)
    if isinstance(data.feature, Tokens):
        return {name: metric for name, metric in metrics.items() if metric.needs & texts}
    if not isinstance(data.feature, Table):
        return {name: metric for name, metric in metrics.items() if not metric.needs & (_OF_TABLES | texts)}
    inputs = _OF_TABLES | ({"known_modes"} if data.modes is not None else set())
    return {
        name: metric
        for name, metric in metrics.items()
        if metric.needs & inputs or (metric.tasks and all(task in tasks for task in metric.tasks))
    }


def of_rows(metrics: Mapping[str, Metric], every: bool, **inputs: Any) -> dict[str, float]:
    """The values of metrics of tables for rows in files.

    Args:
        metrics: mapping from names to metrics.
        every: whether a metric that lacks an input is an error. With False, the metric is left out with a warning.
        inputs: the inputs of metrics of tables by name. None for missing held-out rows, or a missing label.

    Raises:
        UserError: an input of a metric is missing, or a metric needs more rows.
    """
    texts = {"held_out_table": "held-out rows. Add --held-out FILE", "table_label": "a label. Add --label COLUMN"}
    texts |= {"fake_table": "", "training_table": "", "unseen_table": "", "seed": ""}

    def problem(metric: Metric) -> str | None:
        for need in sorted(metric.needs):
            if need not in texts:
                return "data other than tables"
            if inputs[need] is None:
                return texts[need]
        read = ["fake_table", "training_table", *(metric.needs & _UNSEEN_ROWS)]
        least = min(len(next(iter(inputs[name].values()))) for name in read)
        return f"at least {metric.minimum} rows" if least < metric.minimum else None

    if not every:
        metrics = _possible(metrics, problem)
    figures = dict[str, float]()
    for name, metric in metrics.items():
        if text := problem(metric):
            raise UserError(f"metric={name}: needs {text}.")
        try:
            figures |= metric.computed(inputs)
        except ValueError as error:
            _failed(name, error, every)
    return figures


def _failed(name: str, error: ValueError, every: bool) -> None:
    """Raise a UserError for a metric that cannot be computed or, if the user did not choose it, log a warning."""
    if every:
        raise UserError(f"metric={name}: {error}.") from error
    log.warning("metric left out: %s: %s.", name, error)


def for_data(metrics: Mapping[str, Metric], data: Dataset) -> dict[str, Metric]:
    """The metrics in their form for a data set: for tables, ``Metric.of_tables`` takes the place of a metric."""
    table = isinstance(data.feature, Table)
    return {
        name: metric.of_tables if table and isinstance(metric, Metric) and metric.of_tables else metric
        for name, metric in metrics.items()
    }


def check_metrics(metrics: Mapping[str, Metric], targets: Mapping[str, Target], samples: int) -> None:
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
        for target in targets.values():
            noun = target.data.feature.noun
            if samples < metric.minimum:
                raise UserError(
                    f"metric={name}: needs at least {metric.minimum} samples per evaluation, but there are only "
                    f"{samples}. Increase the number of samples (gan-train: train.eval_samples, gan-eval: --num)."
                )
            if target.reference.size < metric.minimum:
                raise UserError(
                    f"metric={name}: needs at least {metric.minimum} reference examples, but "
                    f"{target.reference.name} has only {target.reference.size}. Use a larger data set."
                )
            if (unseen := _unseen(metric, target.data)) is not None and unseen < metric.minimum:
                raise UserError(
                    f"metric={name}: needs at least {metric.minimum} held-out {noun}, but {target.data.name} has "
                    f"only {unseen}. Hold out more {noun}, e.g. dataset.hold_out=0.5, or use another metric."
                )
            if target.count(samples) < metric.minimum:
                raise UserError(
                    f"metric={name}: needs at least {metric.minimum} translated images, but there are only "
                    f"{target.count(samples)} for {target.task}. Use more test images."
                )


def of_translations(
    metrics: Mapping[str, Metric], targets: Mapping[str, Target], data: Dataset
) -> dict[str, Metric]:
    """The metrics without the metrics that need pairs or labels of translations which the targets lack.

    A warning names the omitted metrics. If all metrics lack them, the function returns all metrics.
    """

    def problem(metric: Metric) -> str | None:
        return _untranslated(metric, targets, data)

    return dict(metrics) if all(map(problem, metrics.values())) else _possible(metrics, problem)


def _untranslated(metric: Metric, targets: Mapping[str, Target], data: Dataset) -> str | None:
    """Message text about missing pairs or labels of translations. None if the metric lacks neither."""
    for need in _TRANSLATED & metric.needs:
        if not any(one.paired if need == "pairs" else one.labelled for one in targets.values()):
            return _LACKING[need].format(name=data.name)
    return None


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


def _too_few(metric: Metric, targets: Mapping[str, Target], samples: int) -> str | None:
    """The minimum that the metric requires, if there are fewer reference examples or samples. Otherwise, None."""
    for target in targets.values():
        if (unseen := _unseen(metric, target.data)) is not None and unseen < metric.minimum:
            return f"at least {metric.minimum} held-out {target.data.feature.noun}"
        noun = "reference examples" if target.reference.size < metric.minimum else "samples"
        if min(target.reference.size, target.count(samples)) < metric.minimum:
            return f"at least {metric.minimum} {noun}"
    return None


def _unseen(metric: Metric, data: Dataset) -> int | None:
    """The number of held-out examples that a metric reads as they are stored. None for other metrics."""
    return data.held_out_size if metric.needs & _UNSEEN and data.held_out is not None else None


def check_inputs(
    metrics: Mapping[str, Metric], targets: Mapping[str, Target], data: Dataset, tasks: Mapping[str, Task]
) -> None:
    """Raise a UserError if the data, the features or the tasks of the game do not meet the needs of a metric.

    No features are computed.
    """
    for name, metric in metrics.items():
        if lack := lacking(metric, targets, data, tasks):
            raise UserError(f"metric={name}: needs {lack}.")


def figures_of(metric: Metric, targets: Mapping[str, Target]) -> dict[str, Direction]:
    """The names and directions of all values of a metric.

    A metric that compares distributions has values for each task, with the target's suffix. A metric that reads
    ``pairs`` has values without a suffix for the first task, and with a suffix for further tasks. A metric that
    reads ``translated_classes`` has values with a suffix for each task, and values without a suffix for all tasks
    together.
    """
    if not metric.needs <= _OF_ALL:
        suffixes = [target.suffix for target in targets.values()]
    elif "translated_classes" in metric.needs:
        suffixes = ["", *(f"_{name}" for name, target in targets.items() if target.labelled)]
    else:
        paired = [f"_{name}" for name, target in targets.items() if target.paired]
        suffixes = ["", *(paired[1:] if "pairs" in metric.needs else ())]
    return {f"{name}{suffix}": kind for suffix in suffixes for name, kind in metric.figures.items()}


def objective_of(
    metrics: Mapping[str, Metric], requested: str | None, targets: Mapping[str, Target]
) -> tuple[str, Direction] | None:
    """A pair: name and direction of the metric value that ranks checkpoints.

    If no metric value can rank checkpoints, the function returns None.

    Args:
        metrics: mapping from names to metrics.
        requested: name of the metric value, or None for the first metric value that can rank checkpoints.
        targets: the targets of the tasks, by name.

    Raises:
        UserError: no metric computes the requested value, or the requested value cannot rank checkpoints.
    """
    figures = {name: kind for metric in metrics.values() for name, kind in figures_of(metric, targets).items()}
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
    metric: Metric,
    targets: Mapping[str, Target],
    data: Dataset,
    tasks: Mapping[str, Task] = MappingProxyType({}),
) -> str | None:
    """The first need of the metric that is not met, with a remedy, for a message. None if all needs are met.

    Args:
        metric: the metric.
        targets: the targets of the tasks, by name. Without extractors, features are missing.
        data: the data set.
        tasks: the tasks of the game that makes the samples, by name.
    """
    if "audited" in metric.needs and not tasks:
        return "a run, whose training it repeats, and no samples of other programs. Leave it out"
    if not targets and not metric.needs <= _OF_ALL:
        return "a game with a task whose output imitates the data, e.g. game=gan or game=pix2pix"
    if "labelled_data" in metric.needs and (data.classes is None or "label" not in (data.held_out or {})):
        return _LACKING["labelled_data"].format(name=data.name)
    if missing := _untranslated(metric, targets, data):
        return missing
    for target in targets.values():
        has = {
            "held_out": target.data.held_out is not None,
            "held_out_data": target.data.held_out is not None,
            "known_modes": target.data.modes is not None,
            "fake_logits": target.extractor is not None and target.extractor.gives_logits,
            "fake_classes": target.extractor is not None and target.extractor.of_classes,
            "real_classes": target.reference.classes is not None,
            **_has_table(target.data),
            "fake_frames": target.extractor is not None and target.extractor.frames > 0,
            **series_inputs.available(target.data),
            **clip_inputs.available(target.data),
            **text_inputs.available(target.data),
        }
        for need, available in has.items():
            if need in metric.needs and not available:
                return _LACKING[need].format(name=target.data.name)
    for target in targets.values():
        if (target.paired or "pairs" not in metric.needs) and (
            text := metric.cannot(target.data.feature, target.features)
        ):
            return text
    for task in metric.tasks:
        if task not in tasks:
            return f"a game with the task {task}, e.g. game={_GAMES.get(task, 'vae')}"
        label = tasks[task].inputs.get("label")
        if label is None and "labelled_data" in metric.needs:
            return "a generator that takes a class. Set model.conditional=projection, or use another metric"
        if label is not None and data.spec.get("label") != label:
            return (
                f"reference data with the same classes as the run, but {data.name} has others. Use another metric"
            )
        if metric.held_out_tasks and not has_held_out(tasks[task], data):
            return _LACKING["held_out"].format(name=data.name)
    return None


def _has_table(data: Dataset) -> dict[str, bool]:
    """Whether the data set provides each input of metrics of tables. The order is that of the messages."""
    feature = data.feature
    table = isinstance(feature, Table)
    label = isinstance(feature, Table) and feature.label is not None
    return dict.fromkeys(("fake_table", "training_table", "unseen_table"), table) | {
        "held_out_table": data.held_out is not None,
        "table_label": label,
    }


def has_held_out(task: Task, data: Dataset) -> bool:
    """Whether the data set has held-out examples with all features that the task reads."""
    held_out = data.held_out
    return held_out is not None and all(name in held_out for name in task.inputs if name in data.spec)


def _joined(texts: Mapping[str, str]) -> str:
    """The texts of all tasks, each after the name of the task. The text itself if all tasks have the same."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def _single(features: np.ndarray, frames: int) -> np.ndarray:
    """The features ``[n * frames, f]`` of single frames, from those of clips ``[n, frames * f]``."""
    return features.reshape(len(features) * frames, -1)


def _rows(data: Dataset) -> np.ndarray:
    """The row indices of at most ``MOST`` reference examples, in random order."""
    return np.random.default_rng(0).permutation(data.size)[:MOST]


def _taken(data: Dataset, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BATCH):
        yield data.take(rows[start : start + BATCH])[data.main]
