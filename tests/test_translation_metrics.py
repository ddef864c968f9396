"""Evaluation of translations: pairs, kept labels, a value for each direction, images of other programs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HERE, import_reference
from PIL import Image as Picture

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, Label
from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.metrics import l1, psnr, ssim
from gan_cli.metrics.cycle import cycle
from gan_cli.metrics.evaluator import Evaluator, check_inputs, objective_of, of_translations
from gan_cli.metrics.features import auto, pixels
from gan_cli.metrics.fid import fid
from gan_cli.metrics.label_kept import label_kept, renaming
from gan_cli.metrics.nearest_training import nearest_training
from gan_cli.metrics.targets import targets_of
from gan_cli.trained.evaluation import CheckpointEvaluator
from gan_cli.trained.sampling import evaluated, runners
from gan_cli.types import Game, Task

RNG = np.random.default_rng(0)
METRICS = {"ssim": ssim.ssim(), "psnr": psnr.psnr(), "l1": l1.l1()}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))


class Shifting(Game):
    """Translates images by an addition of 0.5 from a to b, and of -0.25 from b to a."""

    players = ("generator",)

    def __init__(self, spec: Any, directions: tuple[str, ...] = ("a_to_b", "b_to_a"), cycles: bool = False):
        add = {"a_to_b": 0.5, "b_to_a": -0.25}
        self.spec = spec
        self.tasks = {}
        for name in directions:
            a, b = name.split("_to_")
            self.tasks[name] = Task({a: spec[a]}, {b: spec[b]}, _added(a, {b: add[name]}), imitates=b)
        for a, b in (("a", "b"), ("b", "a")) if cycles else ():
            both = {b: add[f"{a}_to_{b}"], "cycle": 0.25}
            self.tasks[f"cycle_{a}"] = Task({a: spec[a]}, {b: spec[b], "cycle": spec[a]}, _added(a, both))


def _added(source: str, amounts: dict[str, float]) -> Any:
    return lambda params, state, inputs, keys: {name: inputs[source] + amount for name, amount in amounts.items()}


STATE = TrainState(0, {}, {}, {}, (), {}, {})


def figures(metrics: Any, game: Game, data: Dataset, n: int = 100, features: Any = pixels) -> dict[str, float]:
    evaluator = Evaluator(metrics, targets_of(data, game.tasks, features), data, n, tasks=game.tasks)
    return evaluated(evaluator, runners(game), STATE, 0, n)


def paired(n: int = 40, labels: bool = False) -> Dataset:
    """Grey images a, and b = a + 64, which ``Shifting`` translates exactly. Labels state the brightness."""
    label = np.arange(2 * n, dtype=np.int32) % 2
    x = RNG.integers(0, 30, (2 * n, 8, 8, 1)).astype(np.uint8) + (60 * label[:, None, None, None]).astype(np.uint8)
    spec: Any = {"a": Image(8, 8, 1), "b": Image(8, 8, 1)} | ({"label": Label(2)} if labels else {})
    arrays = {"a": x, "b": x + 64} | ({"label": label} if labels else {})
    parts = [{name: array[half] for name, array in arrays.items()} for half in (slice(n), slice(n, None))]
    return Dataset("pairs", spec, parts[0], parts[1])


def unpaired() -> Dataset:
    data = paired()
    held_out = {name: array[:-3] if name == "b" else array for name, array in data.held_out.items()}
    return dataclasses.replace(data, held_out=held_out, domain_of={"a": "a", "b": "b"})


def test_metrics_of_pairs_have_closed_forms():
    """Images of one colour: SSIM is its luminance term, PSNR and L1 follow from the difference of the colours."""
    made, wanted = np.full((2, 8, 9, 3), -0.5), np.full((2, 8, 9, 3), 0.5)
    np.testing.assert_allclose(ssim.similarity(made, wanted), (2 * 0.25 * 0.75 + 1e-4) / (0.625 + 1e-4), rtol=1e-12)
    np.testing.assert_allclose(psnr.ratio(made, wanted), -20 * np.log10(0.5), rtol=1e-12)
    np.testing.assert_allclose(l1.error(made, wanted), 0.5, rtol=1e-12)
    stored = RNG.integers(0, 2**16, (3, 7, 7, 1)).astype(np.uint16)
    assert METRICS["psnr"](pairs={"a_to_b": (stored, stored)}) == {"psnr": 100}
    assert METRICS["ssim"](pairs={"a_to_b": (stored, stored)}) == pytest.approx({"ssim": 1, "ssim_p5": 1})
    with pytest.raises(ValueError, match="at least 7x7 pixels, but these have 6x9"):
        ssim.similarity(made[:, :6], wanted[:, :6])


@pytest.mark.comparison
@pytest.mark.parametrize("kind", ["float", "uint8", "uint16"])
def test_metrics_of_pairs_agree_with_scikit_image(kind):
    reference = import_reference("skimage.metrics")
    x = RNG.random((4, 20, 31, 3))
    y = np.clip(x + RNG.normal(0, 0.1, x.shape), 0, 1)
    if kind != "float":
        most = np.iinfo(kind).max
        x, y = np.rint(x * most).astype(kind), np.rint(y * most).astype(kind)
    own = (2 * x - 1, 2 * y - 1) if kind == "float" else (x, y)
    x, y = (x, y) if kind == "float" else (x / most, y / most)
    similar = [
        reference.structural_similarity(a, b, win_size=7, data_range=1, channel_axis=-1)
        for a, b in zip(x, y, strict=True)
    ]
    noise = [reference.peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(x, y, strict=True)]
    found = {name: value for one in METRICS.values() for name, value in one(pairs={"a_to_b": own}).items()}
    expected = {"ssim": np.mean(similar), "ssim_p5": np.percentile(similar, 5), "psnr": np.mean(noise)}
    assert found == pytest.approx(expected | {"l1": np.abs(x - y).mean()}, abs=1e-6)


def test_kept_and_permuted_labels():
    """A translation that exchanges two of four classes keeps the others, and all after the renaming."""
    labels = np.arange(40) % 4
    swapped = np.array([0, 2, 1, 3])
    np.testing.assert_array_equal(renaming(labels, swapped[labels]), swapped)
    found = label_kept()(translated_classes={"a_to_b": (labels, swapped[labels]), "b_to_a": (labels, labels)})
    assert found["label_kept_a_to_b"] == 0.5 and found["label_kept"] == 0.75 and found["label_permuted"] == 1
    assert found["label_renamed_a_to_b"] == 2 and found["label_renamed_b_to_a"] == 0
    # Without a better renaming, the classes keep their names.
    np.testing.assert_array_equal(renaming(labels, np.zeros(40, int)), np.arange(4))


def test_translations_of_pairs():
    """The first direction is exact. Its values have no suffix, and the other direction is darker by 32 of 255."""
    data, both = paired(), ("a_to_b", "b_to_a")
    found = figures(METRICS | {"fid": fid()}, Shifting(data.spec, both), data)
    assert found["ssim"] == pytest.approx(1) and found["l1"] == 0 and found["psnr"] == 100
    assert found["l1_b_to_a"] == pytest.approx(32 / 255)
    assert found["psnr_b_to_a"] == pytest.approx(-20 * np.log10(32 / 255))
    # In the space of pixels, the exact direction has no distance, and the other that of the means.
    assert found["fid_a_to_b"] == pytest.approx(0, abs=1e-3) and "fid" not in found
    assert found["fid_b_to_a"] == pytest.approx(64 * (64 / 255) ** 2, rel=1e-3)
    one = figures(METRICS | {"fid": fid()}, Shifting(data.spec, both[1:]), data, n=9)
    assert one["l1"] == pytest.approx(32 / 255) and "l1_b_to_a" not in one and "fid_b_to_a" in one
    with pytest.raises(UserError, match=r"train.objective=fid: .* does not compute this value.* fid_a_to_b"):
        objective_of({"fid": fid()}, "fid", targets_of(data, Shifting(data.spec).tasks))
    chosen = objective_of(METRICS | {"fid": fid()}, "fid_b_to_a", targets_of(data, Shifting(data.spec).tasks))
    assert chosen == ("fid_b_to_a", "lower")


def test_covariances_of_large_images_are_refused():
    data = Dataset(
        "large",
        {name: Image(256, 256, 3) for name in "ab"},
        dict.fromkeys("ab", np.zeros((2, 256, 256, 3), np.uint8)),
    )
    game = Shifting(data.spec, ("a_to_b",))
    with pytest.raises(UserError, match=r"metric=fid: needs about 1440 GiB of memory for .* 196608 features\."):
        check_inputs({"fid": fid()}, targets_of(data, game.tasks, pixels), data, game.tasks)


def test_small_images_are_refused_before_training():
    small = {name: np.zeros((9, 6, 8, 1), np.uint8) for name in "ab"}
    data = Dataset("small", {name: Image(6, 8, 1) for name in "ab"}, small, small)
    game = Shifting(data.spec)
    with pytest.raises(UserError, match=r"metric=ssim: needs images of at least 7x7 pixels, but these have 6x8\."):
        check_inputs(METRICS, targets_of(data, game.tasks), data, game.tasks)


def test_unpaired_domains(caplog):
    """Domains of unequal size have distances and a cycle, but no pairs."""
    data = unpaired()
    game = Shifting(data.spec, cycles=True)
    found = figures({"fid": fid(), "cycle": cycle(), "nearest_training": nearest_training()}, game, data)
    assert found["cycle_l1"] == pytest.approx(0.125, abs=1e-6)
    assert {"fid_a_to_b", "fid_b_to_a", "copying_a_to_b"} <= found.keys()
    with pytest.raises(
        UserError, match=r"metric=ssim: needs translated held-out pairs, but the game translates no"
    ):
        figures(METRICS, game, data)
    targets = targets_of(data, game.tasks)
    assert list(of_translations(METRICS | {"fid": fid()}, targets, data)) == ["fid"]
    assert "metrics left out: ssim needs translated held-out pairs; psnr" in caplog.text
    assert of_translations(METRICS, targets, data) == METRICS  # an error states the reason
    evaluator = Evaluator({"fid": fid()}, targets_of(data, game.tasks, pixels), data, 100, tasks=game.tasks)
    assert evaluator.terms["features"] == "pixels" and evaluator.samples == 40
    assert evaluator.terms["reference"] == (
        "a_to_b: pairs, b, 37 held-out examples; b_to_a: pairs, a, 40 held-out examples"
    )
    # Without held-out images, the training images are translated and compared.
    training = dataclasses.replace(data, held_out=None)
    described = Evaluator({"fid": fid()}, targets_of(training, game.tasks, pixels), training, 100, tasks=game.tasks)
    assert "pairs, b, 40 training examples" in described.reference
    assert figures({"fid": fid()}, game, training).keys() == {"fid_a_to_b", "fid_b_to_a"}


def test_labels_are_judged_in_the_target_domain(caplog):
    """Exact translations keep their labels. Images without labels have thumbnails as features."""
    data = paired(60, labels=True)
    found = figures({"label_kept": label_kept()}, Shifting(data.spec, ("a_to_b",)), data)
    assert found["label_kept"] == found["label_kept_a_to_b"] == found["label_permuted"] == 1
    game = Shifting(data.spec, ("a_to_b",))
    assert figures({"fid": fid()}, game, data, features=auto).keys() == {"fid_a_to_b"}
    plain = paired()
    with pytest.raises(UserError, match="metric=label_kept: needs translations of labelled images"):
        figures({"label_kept": label_kept()}, Shifting(plain.spec), plain)
    evaluator = Evaluator({"fid": fid()}, targets_of(plain, Shifting(plain.spec).tasks, auto), plain, 100)
    assert evaluator.features == "thumbnails (8x8 pixels)" and "no labels" in caplog.text


def test_translations_of_other_programs(tmp_path, capsys):
    """Images belong to the test image of the same name, or of the same number if there are no names."""
    data = dataclasses.replace(paired(), held_out_names={name: tuple(f"s/{i}" for i in range(40)) for name in "ab"})
    for folder, names in (("made", range(40)), ("few", range(10)), ("wanted", range(40)), ("others", "xy")):
        Path(folder).mkdir()
        for name in names:
            image = data.held_out["b"][int(name) if name not in ("x", "y") else 0, ..., 0]
            Picture.fromarray(image - 32 * (folder == "made")).save(Path(folder, f"{name}.png"))
    np.savez("exact.npz", b=data.held_out["b"])

    def evaluator(every: bool = True) -> CheckpointEvaluator:
        return CheckpointEvaluator(
            METRICS | {"fid": fid()}, pixels, every=every, num=100, seed=0, raw=False,
            reference=lambda feature: data, modules=[], draw_neighbours=lambda *_: None,
        )  # fmt: skip

    found = evaluator().examples(Path("made"), "a_to_b")
    assert found["samples"] == 40 and found["metrics"]["l1"] == pytest.approx(32 / 255)
    assert found["metrics"]["fid_a_to_b"] == pytest.approx(64 * (64 / 255) ** 2, rel=1e-3)
    assert evaluator().examples(Path("few"), "a_to_b")["metrics"]["l1"] == 0
    assert evaluator().examples(Path("exact.npz"), "a_to_b")["metrics"]["l1"] == 0
    assert evaluator(every=False).examples(Path("others"), "a_to_b")["metrics"].keys() == {"fid_a_to_b"}
    with pytest.raises(UserError, match=r"may result from the task a_to_b or b_to_a. Add .* --task a_to_b"):
        evaluator().examples(Path("made"))
    with pytest.raises(UserError, match=r"--task a_to_c: there is no such translation. Did you mean 'a_to_b'"):
        evaluator().examples(Path("made"), "a_to_c")
    # A folder of targets: images of equal names are pairs.
    options = ["--reference=wanted", "--metrics=l1,ssim,fid", "--features=pixels", "--json=x.json"]
    assert gan_eval(["made", "few", *options]) == 0
    made, few = (one["metrics"] for one in json.loads(Path("x.json").read_text()))
    assert made["l1"] == pytest.approx(32 / 255) and few["l1"] == 0 and "fid" in made
    capsys.readouterr()
    assert gan_eval(["others", *options]) == 2
    assert "metric=l1: needs translated held-out pairs" in capsys.readouterr().err
    assert gan_eval(["nowhere", *options[1:], "--task=a_to_b"]) == 2


def test_a_run_is_evaluated_while_training_and_afterwards(tmp_path, capsys):
    """Values of the last step, the objective of one direction, and images of another program on the test images."""
    for part, n in (("train", 6), ("test", 5)):
        for domain in "AB":
            Path("data", part + domain).mkdir(parents=True)
        for i in range(n):
            image = RNG.integers(100, 200, (8, 8)).astype(np.uint8)
            Picture.fromarray(image).save(f"data/{part}A/{i}.png")
            Picture.fromarray(255 - image // 2).save(f"data/{part}B/{i}.png")
    toy = ["modules=[toy]", "game=translator", "model=none", "loss=none", "dataset=paired", "dataset.path=data"]
    steps = ["train.steps=4", "train.steps_per_call=2", "train.eval_every=2", "train.log_every=2", "optim.lr=1e-3"]
    every = ["train.checkpoint_every=2", "train.sample_every=0", "train.batch_size=2", "features=pixels", "name=t"]
    chosen = ["metric=[fid,ssim,l1]", "train.objective=fid_a_to_b"]
    run = gan_cli.train([*toy, *steps, *every, *chosen], config_dir=str(HERE / "configs"), quiet=True)
    records = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    facts = json.loads((run.directory / "run.json").read_text())
    best = min(records, key=lambda one: one["eval/fid_a_to_b"])
    assert facts["objective"] == {"name": "fid_a_to_b", "value": best["eval/fid_a_to_b"], "step": best["step"]}
    assert facts["evaluation"]["reference"] == "data, b, 5 held-out examples"
    assert facts["evaluation"]["samples"] == 5 and "diversity" not in run.metrics
    with pytest.raises(ValueError, match=r"no task generate. Its tasks are: a_to_b, cycle_a, noisy"):
        run.sample(1)
    options = ["--metrics=fid,ssim,l1", "--features=pixels", "--modules=toy"]
    assert gan_eval(["outputs/t", "data/testB", "--task=a_to_b", *options, "--json=x.json"]) == 0
    own, other = (one["metrics"] for one in json.loads(Path("x.json").read_text()))
    last = {name.removeprefix("eval/"): x for name, x in records[-1].items() if name.startswith("eval/")}
    assert own == pytest.approx(last) and {"l1", "l1_noisy", "fid_a_to_b", "fid_noisy"} <= own.keys()
    assert other["l1"] == 0 and other["ssim"] == pytest.approx(1) and other["fid_a_to_b"] < 1e-3
    capsys.readouterr()
    for arguments, told in (
        (["outputs/t", "data/testB"], "may result from the task a_to_b or noisy"),
        (["outputs/t", "--task=a_to_b"], "needs a folder or file with images of another program"),
        (["outputs/t", "--reference=mnist5k"], "reads the images a, but the reference has no images a, b"),
        (["outputs/t", "--reference=edges"], "have the shape"),
    ):
        assert gan_eval([*arguments, *options]) == 2
        assert told in capsys.readouterr().err, arguments
