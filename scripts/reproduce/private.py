"""The tables of private training: what generators are worth at epsilon 1, 3, 10 and without privacy.

Each table has the rows that cost no training: real data, and the simple generators of
``gan_cli.metrics.private_baselines``, which read the data once under the same epsilon and delta.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from evaluations import Evaluation, Row, Size, Table, data_file
from PIL import Image

import gan_cli
from gan_cli.data.dataset import Dataset
from gan_cli.data.digits_styles import digits_styles
from gan_cli.data.features import Label
from gan_cli.data.medmnist import medmnist
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.scaling import normalise
from gan_cli.data.table import adult, german_credit
from gan_cli.data.tables import feature
from gan_cli.metrics import train_on_synthetic
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.fid import distance, moments
from gan_cli.metrics.pair_trends import mean_pair_distance
from gan_cli.metrics.privacy import privacy
from gan_cli.metrics.private_baselines import class_gaussians, class_means, within_label
from gan_cli.metrics.table_classifiers import compared
from gan_cli.metrics.tables import Columns
from gan_cli.metrics.two_sample_auc import area
from gan_cli.trained.audit import audited
from gan_cli.trained.restore import restore_run

_EPSILONS = (1, 3, 10)
_DELTA = 1e-5
_RUNS = 3  # classifiers of each value
_LARGEST = 9.0  # norm to which the baselines clip images with values from 0 to 1; digits have a mean norm of 9.2
_XRAYS = data_file("pneumoniamnist.npz")


class _Found(NamedTuple):
    """What a run yields for its evaluation.

    Attributes:
        samples: the samples.
        stated: the epsilon that a private run has spent, and the values of its audit.
        data: the data of the run.
    """

    samples: Any
    stated: dict[str, float]
    data: Dataset


def _of_run(run: Any, samples: int) -> _Found:
    record = json.loads((run.directory / "run.json").read_text())
    restored = restore_run(run.directory, data=True)
    assert restored.experiment.dataset is not None
    stated = {"epsilon": record["privacy"]["epsilon"]} if "privacy" in record else {}
    if record["config"]["init_from"] is None:  # reference runs cannot repeat the training of another run
        attack = privacy().function(audited=functools.partial(audited, restored), seed=0)
        stated["membership_auc"] = attack["membership_auc"]
    return _Found(run.sample(samples), stated, restored.experiment.dataset)


def _rows(
    experiment: str,
    *overrides: str,
    steps: tuple[int, int, int],
    name: str = "GAN",
    before: Callable[[], Sequence[str]] | None = None,
) -> list[Row]:
    """A row of private training for each epsilon.

    Args:
        experiment: name of the experiment.
        overrides: further overrides of all rows.
        steps: number of training steps at each epsilon.
        name: the name of the rows, to which epsilon is added.
        before: as for ``Row``.
    """
    # Keys that derive from the seed repeat the table. A run that is published draws its key from the system.
    private = (f"experiment={experiment}", "metric=none", "estimator.reproducible=true", *overrides)
    return [
        Row(
            f"{name}, epsilon {epsilon}",
            (*private, f"estimator.target_epsilon={epsilon}", f"train.steps={one}"),
            one_by_one=True,
            before=before,
        )
        for epsilon, one in zip(_EPSILONS, steps, strict=True)
    ]


def _plain(experiment: str, *overrides: str, name: str = "GAN without privacy") -> Row:
    """The row of an experiment without privacy, by default with the networks and options of the private rows."""
    common = (f"experiment={experiment}", "metric=none", "estimator=mean", *overrides)
    return Row(name, common, one_by_one=True)


# ----------------------------------------------------------------------------------------------- images


class _Images:
    """The evaluation and the references of labelled images.

    Args:
        load: a function that returns the data set.
    """

    def __init__(self, load: Callable[[], Dataset]):
        self._load = load

    @functools.cached_property
    def data(self) -> Dataset:
        return self._load()

    @functools.cached_property
    def classifier(self) -> Classifier:
        return Classifier(self.data)

    @functools.cached_property
    def real(self) -> tuple[np.ndarray, np.ndarray]:
        return moments(self._features(self.data.arrays["x"]))

    def _features(self, stored: np.ndarray) -> np.ndarray:
        return self.classifier(np.asarray(normalise(stored)))[0]

    def values(self, stored: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The values of stored images and their classes: of classifiers that learn from them, and FID."""
        learnt = train_on_synthetic.compared(
            self.data, {"x": stored, "label": labels.astype(np.int32)}, runs=_RUNS, kinds=["tstr"]
        )
        return {
            "accuracy": learnt["tstr_accuracy"],
            "auc": learnt["tstr_auc"],
            "fid": distance(moments(self._features(stored)), self.real),
        }

    def evaluation(self) -> Evaluation:
        label = self.data.spec["label"]
        assert isinstance(label, Label)
        classes = label.classes

        def figures(found: _Found) -> dict[str, float]:
            """The values of samples whose classes follow each other, 0, 1, ..., 0, 1, ..."""
            stored = np.asarray(self.data.feature.decode(found.samples))
            return found.stated | self.values(stored, np.arange(len(stored)) % classes)

        method = f"{_RUNS} classifiers for each value, tested on {self.classifier.tested_on:,} images"
        return Evaluation(method, figures, _of_run)

    def references(self, n: int) -> dict[str, dict[str, float]]:
        data = self.data
        assert data.held_out is not None
        real = train_on_synthetic.compared(data, data.arrays, runs=_RUNS, kinds=["trtr"])
        found = {
            "real images": {
                "accuracy": real["trtr_accuracy"],
                "auc": real["trtr_auc"],
                "fid": distance(moments(self._features(data.held_out["x"])), self.real),
            }
        }
        x, labels = data.arrays["x"] / 255.0, data.arrays["label"]
        for name, make in {"noisy class means": class_means, "noisy class Gaussians": class_gaussians}.items():
            for epsilon in _EPSILONS:
                made, classes = make(x, labels, n, epsilon=epsilon, delta=_DELTA, clip=_LARGEST, seed=0)
                stored = np.rint(made * 255).astype(np.uint8)
                found[f"{name}, epsilon {epsilon}"] = {"epsilon": epsilon} | self.values(stored, classes)
        return found


def _image_table(title: str, rows: list[Row], load: Callable[[], Dataset], samples: int) -> Table:
    images = _Images(load)
    return Table(
        title,
        rows,
        ("epsilon", "accuracy", "auc", "fid", "membership_auc"),
        samples,
        images.evaluation,
        images.references,
        {"quick": Size((), 1), "full": Size((), 3)},
    )


@functools.cache
def _public_generator() -> tuple[str, ...]:
    """The override that starts a run with a generator of public digits: the 8x8 digits of ``digits_styles``."""
    data = digits_styles()
    with tempfile.TemporaryDirectory() as folder:
        for i, (image, label) in enumerate(zip(data.arrays["b"], data.arrays["label_b"], strict=True)):
            path = Path(folder) / str(label) / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)
        options = ("dataset=folder", f"dataset.path={folder}", "dataset.resolution=28", "dataset.channels=1")
        # The discriminator has another size, so that the run takes the generator alone.
        other = (
            "dataset.hold_out=0",
            "model.discriminator.width=128",
            "model.discriminator.depth=2",
            "train.steps=3000",
        )
        plain = _plain("digits_private", *options, *other)
        run = gan_cli.train([*plain.overrides, "logger=none", f"name=reproduce/public-digits-{time.time_ns()}"])
    return (f"init_from={run.directory}",)


# ----------------------------------------------------------------------------------------------- tables


def _table_of_rows(title: str, rows: list[Row], load: Callable[[int], Dataset], splits: int, samples: int) -> Table:
    """The table of the generators of rows, whose seeds train on different splits.

    Args:
        title: the title.
        rows: the trained rows.
        load: a function from the number of a split to the data.
        splits: the number of splits, over which the rows without training are averaged.
        samples: number of samples of each row.
    """

    def values(data: Dataset, fake: Columns) -> dict[str, float]:
        training, held_out = data.columns["training"], data.columns["held_out"]
        learnt = compared(fake, training, held_out, _label(data))
        return {
            "f1": learnt["tstr_f1"],
            "auc": learnt["tstr_auc"],
            "two_sample_auc": float(np.mean([area(held_out, fake, seed) for seed in range(_RUNS)])),
            "pair_tvd": mean_pair_distance(held_out, fake),
        }

    def untrained(data: Dataset, n: int, seed: int) -> dict[str, dict[str, float]]:
        table, training = data.feature, data.columns["training"]
        assert isinstance(table, feature.Table)
        found = {"real rows": values(data, training)}
        for epsilon in _EPSILONS:
            made = within_label(training, table.columns, _label(data), n, epsilon=epsilon, delta=_DELTA, seed=seed)
            found[f"noisy histograms within the label, epsilon {epsilon}"] = {"epsilon": epsilon} | values(
                data, made
            )
        return found

    def references(n: int) -> dict[str, dict[str, float]]:
        each = [untrained(load(split), n, split) for split in range(splits)]
        return {
            name: {value: float(np.mean([one[name][value] for one in each])) for value in row}
            for name, row in each[0].items()
        }

    def figures(found: _Found) -> dict[str, float]:
        return found.stated | values(found.data, found.samples)

    return Table(
        title,
        rows,
        ("epsilon", "f1", "auc", "two_sample_auc", "pair_tvd", "membership_auc"),
        samples,
        lambda: Evaluation("the four classifiers of Xu et al. 2019, and gradient boosting", figures, _of_run),
        references,
        {"quick": Size((), splits), "full": Size((), 3 * splits)},
    )


def _label(data: Dataset) -> str:
    table = data.feature
    assert isinstance(table, feature.Table) and table.label is not None
    return table.columns[table.label].name


_PNEUMONIA = ("pneumonia_private", f"dataset.path={_XRAYS}")
_CREDIT = ("credit_private", "dataset.seed=${seed}")
_ADULT = ("credit_private", "dataset=adult", "train.batch_size=512")

TABLES = {
    "private_digits": _image_table(
        "Private generators of 4,500 digits",
        [
            *_rows("digits_private", steps=(1000, 1000, 1000)),
            *_rows(
                "digits_private", steps=(300, 500, 1000), name="GAN, public generator", before=_public_generator
            ),
            _plain("digits_private"),
        ],
        mnist5k,
        4500,
    ),
    "private_pneumonia": _image_table(
        "Private generators of 4,708 chest X-rays (PneumoniaMNIST)",
        [*_rows(*_PNEUMONIA, steps=(1000, 1000, 1000)), _plain(*_PNEUMONIA)],
        lambda: medmnist(path=str(_XRAYS)),
        4708,
    ),
    "private_credit": _table_of_rows(
        "Private generators of 800 rows of German credit, on three splits",
        [*_rows(*_CREDIT, steps=(600, 600, 600)), _plain(*_CREDIT, "train.steps=600")],
        lambda split: german_credit(normalisation="range", seed=split),
        3,
        800,
    ),
    "private_adult": _table_of_rows(
        "Private generators of 32,561 rows of Adult",
        [
            *_rows(*_ADULT, steps=(600, 600, 600)),
            _plain(*_ADULT, "train.steps=600"),
            _plain("table", "sampler=shuffled", "train.steps=4000", name="experiment=table, without privacy"),
        ],
        lambda split: adult(normalisation="range"),
        1,
        32_561,
    ),
}
GROUPS = {"privacy": tuple(TABLES)}
