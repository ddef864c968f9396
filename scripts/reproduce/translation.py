"""The tables of image translation: edges to digits, mosaics to digits, and two styles of digits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from evaluations import Evaluation, Row, Size, Table
from scipy import ndimage

from gan_cli.data.dataset import Dataset
from gan_cli.data.digits_styles import digits_styles, enlarged
from gan_cli.data.paired_digits import edges, mosaic
from gan_cli.data.scaling import normalise
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.fid import distance, moments
from gan_cli.metrics.l1 import error
from gan_cli.metrics.label_kept import renaming
from gan_cli.metrics.ssim import similarity
from gan_cli.trained.restore import restore_run
from gan_cli.trained.sampling import TaskRunner

# Translations of the held-out images by the name of the direction, with values in [-1, 1]. A row with several
# outputs for an image has a second translation, `again`.
Translations = Mapping[str, np.ndarray]


def _translated(data: Dataset, run: Any, tasks: Mapping[str, tuple[str, str]]) -> Translations:
    """Outputs of a run for the held-out images.

    Args:
        data: the data set.
        run: the run.
        tasks: mapping from the name of each result to a task and the name of one of its outputs.
    """
    assert data.held_out is not None
    restored = restore_run(run.directory)
    found = {}
    for i, (name, (task, output)) in enumerate(tasks.items()):
        runner = TaskRunner(restored.experiment.game, task)
        images = {one: data.held_out[one] for one in runner.given}
        drawn = runner.inputs(i, 0, len(next(iter(images.values())))) if runner.drawn else {}
        found[name] = np.asarray(runner(restored.state, runner.encoded(drawn | images), seed=i)[output])
    return found


# ------------------------------------------------------------------------------------------------- pairs


def _pairs(
    load: Callable[[], Dataset],
) -> tuple[Callable[[], Evaluation], Callable[[int], dict[str, Translations]]]:
    """The evaluation and the rows without training of data that consist of images ``a`` and digits ``b``."""
    loaded = functools.cache(load)

    def evaluation() -> Evaluation:
        data = loaded()
        assert data.held_out is not None
        classifier, real = Classifier(data.only("b")), np.asarray(normalise(data.held_out["b"]))
        labels, sharpness = data.held_out["label"], _gradient(real)
        expected = moments(classifier(real)[0])

        def figures(made: Translations) -> dict[str, float]:
            images = made["a_to_b"]
            similar, (features, classes) = similarity(images, real), classifier(images)
            found = {
                "ssim": float(similar.mean()),
                "ssim_p5": float(np.percentile(similar, 5)),
                "l1": float(error(images, real).mean()),
                "label_kept": float((classes.argmax(1) == labels).mean()),
                "fid": distance(moments(features), expected),
                "gradient": _gradient(images) / sharpness,
            }
            if "again" in made:
                found["diversity"] = float(error(images, made["again"]).mean())
            return found

        def translated(run: Any, samples: int) -> Translations:
            return _translated(data, run, {"a_to_b": ("a_to_b", "b"), "again": ("a_to_b", "b")})

        accuracy = f"{classifier.accuracy:.1%} on {classifier.tested_on:,} held-out digits"
        return Evaluation(f"a classifier with an accuracy of {accuracy}", figures, translated)

    def references(n: int) -> dict[str, Translations]:
        data = loaded()
        assert data.held_out is not None
        inputs, training = data.held_out["a"], data.arrays
        rows = {
            "real digits": data.held_out["b"],
            "blank": np.zeros_like(inputs),
            "the input itself": inputs,
            "digit of the nearest training input": training["b"][_nearest(inputs, training["a"])],
            "fill and erode": np.stack([_filled(image) for image in inputs]),
        }
        return {name: {"a_to_b": np.asarray(normalise(images))} for name, images in rows.items()}

    return evaluation, references


def _gradient(images: np.ndarray) -> float:
    """Mean magnitude of the gradient of images in [-1, 1], by differences of neighbouring pixels."""
    across, down = images[:, :-1, 1:] - images[:, :-1, :-1], images[:, 1:, :-1] - images[:, :-1, :-1]
    return float(np.hypot(across, down).mean())


def _nearest(inputs: np.ndarray, training: np.ndarray) -> np.ndarray:
    """The index of the binary training input with the fewest different pixels, for each binary input."""
    own, others = (images.reshape(len(images), -1).astype(np.float32) / 255 for images in (inputs, training))
    return (others.sum(1) - 2 * own @ others.T).argmin(1)


_SMALL = 40  # pixels of the largest hole that is the inside of a stroke rather than of a loop


def _filled(image: np.ndarray) -> np.ndarray:
    """A guess of the digit without training: an outline with its small holes filled, eroded by one pixel."""
    outline = image[..., 0] > 0
    holes, count = ndimage.label(~outline)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    small = (holes > 0) & (sizes[holes] <= _SMALL)
    return np.where(ndimage.binary_erosion(outline | small), 255, 0).astype(np.uint8)[..., None]


def _pair_table(name: str, title: str, load: Callable[[], Dataset], columns: tuple[str, ...]) -> Table:
    protocol = (f"experiment={name}", "metric=none")
    return Table(
        title,
        [
            Row("pix2pix", protocol, own_length=True),
            Row("the same generator with L1 alone", (*protocol, "game.adversarial=0"), own_length=True),
        ],
        columns,
        500,
        *_pairs(load),
        {"quick": Size((), 1), "full": Size((), 5)},
    )


EDGES = _pair_table("edges", "Edges to digits", edges, ("ssim", "ssim_p5", "l1", "label_kept", "fid", "gradient"))
MOSAIC = _pair_table(
    "mosaic", "Mosaics to digits", mosaic, ("fid", "gradient", "diversity", "ssim", "l1", "label_kept")
)


# ----------------------------------------------------------------------------------------- two styles of digits


def _styles() -> Evaluation:
    """The evaluation of translations between the two styles, in both directions."""
    data = digits_styles()
    assert data.held_out is not None
    real = {name: np.asarray(normalise(data.held_out[name])) for name in "ab"}
    classifiers = {name: Classifier(data.only(name)) for name in "ab"}
    expected = {name: moments(classifiers[name](real[name])[0]) for name in "ab"}

    def figures(made: Translations) -> dict[str, float]:
        found: dict[str, float] = {}
        for task, source, target in (("a_to_b", "a", "b"), ("b_to_a", "b", "a")):
            features, classes = classifiers[target](made[task])
            labels, predicted = data.held_out[f"label_{source}"], classes.argmax(1)  # type: ignore[index]
            renamed = renaming(labels, predicted)
            found |= {
                f"kept_{task}": float((labels == predicted).mean()),
                f"renamed_{task}": float((renamed != np.arange(len(renamed))).sum()),
                f"fid_{task}": distance(moments(features), expected[target]),
            }
        cycles = [error(made[f"cycle_{name}"], real[name]).mean() for name in "ab" if f"cycle_{name}" in made]
        return found | ({"cycle_l1": float(np.mean(cycles))} if cycles else {})

    def translated(run: Any, samples: int) -> Translations:
        outputs = {"a_to_b": ("a_to_b", "b"), "b_to_a": ("b_to_a", "a")}
        return _translated(data, run, outputs | {f"cycle_{name}": (f"cycle_{name}", "cycle") for name in "ab"})

    names = {"a": "MNIST", "b": "8x8 digits"}
    accuracy = ", ".join(
        f"{classifiers[name].accuracy:.1%} of {classifiers[name].tested_on:,} {names[name]}" for name in "ab"
    )
    return Evaluation(f"classifiers that recognise {accuracy}", figures, translated)


def _style_references(n: int) -> dict[str, Translations]:
    data = digits_styles()
    assert data.held_out is not None
    a, b = data.held_out["a"], data.held_out["b"]
    rows = {
        "no translation": {"a_to_b": a, "b_to_a": b},
        "resize by hand": {"a_to_b": _coarse(a), "b_to_a": _contrasted(b)},
    }
    return {
        name: {task: np.asarray(normalise(images)) for task, images in row.items()} for name, row in rows.items()
    }


def _coarse(digits: np.ndarray) -> np.ndarray:
    """MNIST digits in the style of the 8x8 digits: the 20x20 pixels in the middle, reduced and enlarged again."""
    middle = digits[:, 4:24, 4:24, 0].astype(np.float64)
    # Each of the 8x8 values is the mean of 2.5 x 2.5 pixels.
    halves = middle.repeat(2, axis=1).repeat(2, axis=2).reshape(len(middle), 8, 5, 8, 5).mean((2, 4))
    return enlarged(np.rint(halves / 255 * 16).astype(np.uint8))


def _contrasted(digits: np.ndarray) -> np.ndarray:
    """8x8 digits in the style of MNIST: narrower strokes by a contrast curve."""
    return np.clip((digits.astype(np.float64) - 96) * 2, 0, 255).astype(np.uint8)


DIGITS_STYLES = Table(
    "Digits in two styles, unpaired: MNIST (a) and the 8x8 digits of scikit-learn (b)",
    [Row("CycleGAN", ("experiment=digits_styles", "metric=none"), own_length=True)],
    ("kept_a_to_b", "kept_b_to_a", "renamed_a_to_b", "renamed_b_to_a", "fid_a_to_b", "fid_b_to_a", "cycle_l1"),
    500,
    _styles,
    _style_references,
    {"quick": Size((), 1), "full": Size((), 3)},
)

TABLES = {"edges": EDGES, "mosaic": MOSAIC, "digits_styles": DIGITS_STYLES}
