"""Targets: for each task that imitates a feature of the data, the data with which metrics compare its output."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, Label
from gan_cli.metrics import features as extractors
from gan_cli.metrics.features import Extractor
from gan_cli.types import Feature, Task

log = logging.getLogger(__name__)
GENERATE = "generate"
# Maximum number of reference examples, as in published evaluations. Their features fit into memory and cache.
MOST = 50_000


@dataclass(frozen=True, eq=False)
class Target:
    """The data that the main output of a task imitates.

    Samples from latents are compared with the training data. Translations of held-out images are compared with the
    held-out images of the other domain. A domain without held-out images uses its training images.

    Attributes:
        task: name of the task, ``generate`` for samples of other programs.
        imitates: name of the imitated feature in the data set.
        data: the training examples of the imitated feature.
        reference: the examples with which the output is compared.
        extractor: the feature extractor of the imitated feature. None if no metric reads features.
        sources: mapping from the inputs of the task that are features of the data to the examples from which the
            inputs are taken. Empty for samples from latents.
        paired: whether the reference contains the true output for each example of ``sources``.
        rows: row indices of the examples of ``sources`` and, if they are paired, of the reference that belong to
            samples of another program. None if the task computes the outputs.
    """

    task: str
    imitates: str
    data: Dataset
    reference: Dataset
    extractor: Extractor | None = None
    sources: Mapping[str, Dataset] = field(default_factory=dict)
    paired: bool = False
    rows: np.ndarray | None = None

    @property
    def suffix(self) -> str:
        """The end of the names of metric values: empty for ``generate``, ``_<task>`` for other tasks."""
        return "" if self.task == GENERATE else f"_{self.task}"

    @functools.cached_property
    def classifier(self) -> Extractor | None:
        """A classifier of the imitated feature, or None if it is not an image or has no labels."""
        if self.extractor is not None and self.extractor.of_classes:
            return self.extractor
        return extractors.classifier(self.data) if self.data.classes and len(self.data.feature.shape) == 3 else None

    @property
    def features(self) -> int | None:
        """The number of features of an example. None without an extractor, or for a classifier, which has few."""
        if self.extractor is None or self.extractor.gives_logits:
            return None
        feature = self.data.feature
        example = jax.ShapeDtypeStruct((1, *feature.stored_shape), feature.dtype)
        shape: tuple[int, ...] = jax.eval_shape(self.extractor.apply, self.extractor.params, example)[0].shape
        return shape[1]

    @property
    def labelled(self) -> bool:
        """Whether the inputs and the imitated feature have labels of the same classes."""
        source = next(iter(self.sources.values()), None)
        return source is not None and source.classes is not None and source.classes == self.data.classes

    @property
    def described(self) -> str:
        """The name and the size of the reference, for messages and results."""
        if not self.sources:
            return f"{self.reference.name}, {min(self.reference.size, MOST):,} examples"
        split = "training" if self.reference is self.data else "held-out"
        return f"{self.reference.name}, {min(self.reference.size, MOST):,} {split} examples"

    def count(self, samples: int) -> int:
        """The number of outputs that an evaluation with at most ``samples`` samples computes."""
        if self.rows is not None:
            return min(len(self.rows), samples)
        return min(samples, *(source.size for source in self.sources.values())) if self.sources else samples

    def inputs(self, samples: int) -> dict[str, np.ndarray]:
        """At most ``samples`` inputs of the task that are features of the data, as they are stored, by name.

        Training images with margins are cropped to the size of the feature.
        """

        return {
            name: cropped(source.feature, source.take(self._rows(source, samples))["x"])
            for name, source in self.sources.items()
        }

    def labels(self, samples: int) -> np.ndarray:
        """The labels ``[n]`` of the examples that the method ``inputs`` returns."""
        source = next(iter(self.sources.values()))
        return source.take(self._rows(source, samples))["label"]

    def wanted(self, samples: int) -> np.ndarray:
        """The true outputs for the inputs that the method ``inputs`` returns, as networks see them."""
        taken = self.reference.take(self._rows(self.reference, samples))[self.reference.main]
        return np.asarray(self.reference.feature.encode(taken))

    def _rows(self, data: Dataset, samples: int) -> np.ndarray:
        """The rows of the inputs, which are the same for all sources of one size, so that pairs stay together.

        They are in ascending order. If all rows are translated, the number of a row is thus that of the image, and
        the task draws the same random numbers as ``gan-sample`` for a folder with these images.
        """
        if self.rows is not None:
            return self.rows[: self.count(samples)]
        return np.sort(np.random.default_rng(0).permutation(data.size)[: self.count(samples)])


def targets_of(
    data: Dataset, tasks: Mapping[str, Task], features: Callable[[Dataset], Extractor] | None = None
) -> dict[str, Target]:
    """The targets of all tasks that imitate a feature of a data set, by the name of the task.

    Without tasks, the samples of another program are compared with the main feature.

    Args:
        data: the data set.
        tasks: the tasks of the game that makes the samples, by name.
        features: function that returns the feature extractor for a data set; None if no metric reads features.
    """
    found = {}
    for name, task in tasks.items():
        # Games of users may be older than the attribute ``imitates``.
        imitates = task.imitates
        if name == GENERATE and imitates not in data.spec:
            imitates = data.main
        if imitates is not None and imitates in data.spec:
            found[name] = _target(name, task, data, imitates)
    if not tasks:
        found[GENERATE] = Target(GENERATE, data.main, data, data)
    return with_features(found, features)


def with_features(
    targets: Mapping[str, Target], features: Callable[[Dataset], Extractor] | None
) -> dict[str, Target]:
    """The targets with feature extractors, or without if ``features`` is None."""
    if features is None:
        return dict(targets)
    return {name: dataclasses.replace(one, extractor=_extractor(one, features)) for name, one in targets.items()}


def translations_of(data: Dataset) -> dict[str, Task]:
    """The tasks of translation between the features of a data set, without a game that computes them.

    They describe images that another program has translated. The mapping is empty for data of a single feature.
    """
    spec = {name: feature for name, feature in data.spec.items() if not isinstance(feature, Label)}

    def missing(*_: object) -> dict[str, object]:
        raise NotImplementedError("images of another program are read from files")

    return {
        f"{a}_to_{b}": Task({a: spec[a]}, {b: spec[b]}, missing, imitates=b)  # type: ignore[arg-type]
        for a in spec
        for b in spec
        if a != b
    }


def cropped(feature: Feature, examples: np.ndarray) -> np.ndarray:
    """Stored examples of a feature. Images with margins are cropped to the size that networks see."""
    return feature.centre(examples) if isinstance(feature, Image) else examples


def _target(name: str, task: Task, data: Dataset, imitates: str) -> Target:
    sources = [one for one in task.inputs if one in data.spec and not isinstance(data.spec[one], Label)]
    if not sources:
        alone = data if imitates == data.main else data.only(imitates)
        return Target(name, imitates, alone, alone)
    held_out = data.held_out or {}
    own = data.only(imitates)
    paired = all(data.domain(one) == data.domain(imitates) for one in sources)
    return Target(
        name,
        imitates,
        own,
        _test_data(own),
        sources={one: _test_data(data.only(one)) for one in sources},
        paired=paired and all(one in held_out for one in (*sources, imitates)),
    )


def _test_data(data: Dataset) -> Dataset:
    """The held-out examples, or the training examples if there are none."""
    return data if data.held_out is None else data.only_held_out()


def _extractor(target: Target, features: Callable[[Dataset], Extractor]) -> Extractor:
    """The feature extractor of a target. For translations, ``features=auto`` also accepts images without labels."""
    data, chosen = target.data, getattr(features, "func", features)
    if target.sources and chosen is extractors.auto and data.feature.extractor == "classifier" and not data.classes:
        _warn_of_thumbnails(data.name)
        return extractors.thumbnails(data)
    return features(data)


@functools.cache  # warns once for each data set
def _warn_of_thumbnails(name: str) -> None:
    log.warning(
        "%s: the images have no labels, so metrics compare thumbnails, which show no details. For values that are "
        "comparable with published values, use features=inception features.weights=FILE (gan-eval: --features "
        "inception --weights FILE).",
        name,
    )
