"""Train on synthetic, test on real: the area under the curve, good and useless images, and conditional runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, import_reference

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.config.build import experiment
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, spec_of
from gan_cli.errors import UserError
from gan_cli.metrics import train_on_synthetic
from gan_cli.metrics.train_on_synthetic import auc, compared


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_auc_of_known_orders():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]])
    assert auc(scores, np.array([0, 0, 1, 1])) == 1
    assert auc(scores, np.array([1, 1, 0, 0])) == 0
    # Of the four pairs of examples of different classes, one is in order, one is not, and two are tied or in order.
    assert auc(scores, np.array([0, 1, 0, 1])) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert np.isnan(auc(scores, np.zeros(4, int)))


@pytest.mark.comparison
@pytest.mark.parametrize("classes", [2, 5])
def test_auc_equals_scikit_learns(classes):
    metrics = import_reference("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 400)
    scores = rng.dirichlet(np.ones(classes), 400).round(2)  # rounded values have ties
    scores[:, 0] += 1 - scores.sum(1)
    expected = metrics.roc_auc_score(labels, scores[:, 1] if classes == 2 else scores, multi_class="ovr")
    if classes == 2:  # both classes have the same area only if their scores add up to 1
        np.testing.assert_allclose(auc(scores, labels), expected, atol=1e-12)
    else:
        assert auc(scores, labels) == pytest.approx(expected, abs=1e-12)


def bright_and_dark(n: int, seed: int) -> dict[str, np.ndarray]:
    """Noise images of 8x8 pixels, the left half of which is brighter in class 1 than in class 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int32) % 3 % 2  # a third of the images has class 1
    x = rng.uniform(0, 160, (n, 8, 8, 1))
    x[:, :, :4] += 90 * labels[:, None, None, None]
    return {"x": x.astype(np.uint8), "label": labels}


def data(n: int = 300) -> Dataset:
    return Dataset("halves", spec_of(Image(8, 8, 1), 2), bright_and_dark(n, 0), bright_and_dark(60, 1))


def test_good_and_useless_images():
    good, bad = bright_and_dark(300, 2), bright_and_dark(300, 3)
    bad["label"] = 1 - bad["label"]  # a generator that confuses the classes
    found = compared(data(), good, epochs=10)
    assert min(found[f"{kind}_auc"] for kind in ("tstr", "trtr", "both")) > 0.95
    assert found["tstr_accuracy"] > 0.9
    wrong = compared(data(), bad, epochs=10)
    assert wrong["tstr_auc"] < 0.05
    assert wrong["trtr_auc"] == found["trtr_auc"]


def test_a_share_keeps_the_proportions_of_the_classes():
    part = train_on_synthetic._share(bright_and_dark(300, 0), 0.05)
    assert np.bincount(part["label"]).tolist() == [10, 5]
    hundred = {"x": np.zeros((200, 1)), "label": np.arange(200) % 2}
    assert len(train_on_synthetic._share(hundred, 0.07)["label"]) == 14  # 0.07 * 100 > 7 in floating-point numbers


METRIC = ["metric=[train_on_synthetic]", "metric.train_on_synthetic.epochs=4", "logger=none"]
CONDITIONAL = [*TINY, "model=mlp", "model.conditional=projection", *METRIC]


def test_a_conditional_run_is_evaluated():
    parts = {"train": bright_and_dark(120, 0), "val": bright_and_dark(6, 1), "test": bright_and_dark(60, 1)}
    arrays = {f"{split}_images": part["x"][..., 0] for split, part in parts.items()}
    np.savez("halves.npz", **arrays, **{f"{split}_labels": part["label"][:, None] for split, part in parts.items()})
    data = ["dataset=medmnist", "dataset.path=halves.npz"]
    run = gan_cli.train([*CONDITIONAL, *data, "train.steps=4", "name=tiny"])
    names = {f"eval/{kind}_{value}" for kind in ("tstr", "trtr", "both") for value in ("auc", "accuracy")}
    assert {name for name in run.metrics if name.startswith("eval/")} == names
    assert run.metrics["eval/trtr_auc"] > 0.8
    assert gan_eval(["outputs/tiny", "--metrics", "train_on_synthetic", "--json", "found.json"]) == 0
    (found,) = json.loads(Path("found.json").read_text())
    assert {f"eval/{name}" for name in found["metrics"]} == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.conditional=none"], "a generator that takes a class. Set model.conditional=projection"),
        (["dataset=stacked_mnist", "dataset.size=200"], "whose training and held-out examples have `label`"),
    ],
)
def test_runs_that_cannot_be_evaluated(options, message):
    with pytest.raises(UserError, match=message):
        experiment([*CONDITIONAL, *options]).check_evaluation()
