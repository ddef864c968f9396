"""Evaluation of samples: every metric and every feature space, while training and from the shell."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, environment
from PIL import Image

import gan_cli
from gan_cli.cli.eval import _composed, _every_metric
from gan_cli.cli.eval import main as gan_eval
from gan_cli.config.build import evaluation_of
from gan_cli.data.dataset import Dataset
from gan_cli.data.external import external_reference
from gan_cli.data.gaussians import ring
from gan_cli.data.mnist5k import mnist5k
from gan_cli.errors import UserError
from gan_cli.metrics import HIGHER, LOWER, NEITHER, better
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.evaluator import Evaluator, lacking
from gan_cli.metrics.objective import ObjectiveTracker
from gan_cli.metrics.targets import targets_of
from gan_cli.storage import checkpoints, run_directory
from gan_cli.trained import restore

QUICK = [*TINY, "train.steps=24", "train.eval_every=8", "train.eval_samples=200", "features=random"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / "cache"))


def few(data: Dataset, n: int = 400) -> Dataset:
    """A data set of ``n`` examples, spread evenly over ``data``."""
    rows = np.linspace(0, data.size - 1, n).astype(int)
    return Dataset(
        data.name, data.spec, data.take(rows), data.held_out,
        modes=data.modes,
    )  # fmt: skip


def test_every_metric_computes_figures_with_unique_names(monkeypatch):
    """Each metric of the group is computed on suitable data, and no two metrics have a figure of the same name."""
    monkeypatch.setattr(
        "gan_cli.metrics.detectable._STEPS", 5
    )  # test_detectable.py trains the classifier for longer
    metrics, features = evaluation_of(_composed([f"metric=[{','.join(_every_metric())}]", "features=random"]))
    images, points = few(mnist5k()), few(ring())
    named: dict[str, set[str]] = {}
    for name, metric in metrics.items():
        for data, kind in ((images, features), (points, features), (images, evaluation_of(_composed([]))[1])):
            targets = targets_of(data, {}, kind)
            if lacking(metric, targets, data) is None:
                samples = {"generate": [data.examples["x"][::2]]}
                figures = Evaluator({name: metric}, targets, data, 200)(samples)
                assert all(np.isfinite(value) for value in figures.values()), name
                assert figures.keys() == metric.figures.keys(), name
                assert any(direction != NEITHER for direction in metric.figures.values()), name
                named[name] = set(figures)
                break
    # Metrics of translations, or that run tasks of a game, are tested with the games that have these tasks.
    # Metrics of tables, of series, of clips, of texts and of privacy have tests of their own.
    own_tests = {"fake_table", "training_table", "fake_series", "fake_clips", "fake_frames", "fake_texts"}
    other = {"ssim", "psnr", "l1", "label_kept", "privacy"} | {
        name for name, metric in metrics.items() if metric.needs & own_tests
    }
    assert named.keys() | other == {name for name, metric in metrics.items() if not metric.tasks}
    for a, b in itertools.combinations(named, 2):
        assert not named[a] & named[b], (a, b)


def test_features_differ_and_are_cached(monkeypatch):
    data = few(mnist5k())
    found = {}
    for name in ("pixels", "random", "classifier"):
        extractor = evaluation_of(_composed([f"features={name}"]))[1](data)
        found[name] = extractor([data.examples["x"][:7], data.examples["x"][7:20]])[0]
        assert found[name].shape[0] == 20
        np.testing.assert_allclose(extractor([data.examples["x"][:20]])[0], found[name], rtol=1e-5, atol=1e-5)
    assert len({features.shape[1:] for features in found.values()}) == 2  # random and classifier: 64 features each
    assert not np.allclose(found["random"], found["classifier"])
    first = evaluation_of(_composed([]))[1](data)
    assert (
        "held-out" in first.name and first.name == evaluation_of(_composed(["features=classifier"]))[1](data).name
    )
    monkeypatch.setattr("gan_cli.metrics.classifier.Classifier._train", None)  # no second training
    evaluation_of(_composed([]))[1](data)


def test_better_and_best():
    assert better(1, 2, LOWER) and better(2, 1, HIGHER) and better(1, np.nan, LOWER)
    assert not better(np.nan, 1, LOWER)
    best = ObjectiveTracker(("x", LOWER), patience=2)
    for step, value, improved in ((1, 3.0, True), (2, 4.0, False), (3, 2.0, True), (4, 2.5, False)):
        assert best.observe(step, {"eval/x": value}) is improved
    assert not best.stale
    best.observe(5, {"eval/x": 2.0})
    assert best.stale
    assert best.facts == {"objective": {"name": "x", "value": 2.0, "step": 3}, "stopped_early_at": 5}
    # The log stores a non-finite value as None. Both are skipped, so that a resumed run counts evaluations equally.
    fresh = ObjectiveTracker(("x", LOWER), patience=2)
    assert not fresh.observe(1, {"eval/x": np.nan}) and not fresh.observe(2, {"eval/x": None}) and fresh.facts == {}


def test_training_evaluates_keeps_the_best_and_resumes_exactly(tmp_path):
    """Figures are logged at their steps, the best checkpoint has the best figure, and resuming changes nothing."""
    whole = gan_cli.train([*QUICK, "metric=[fid,kid]", "train.report=true", "name=whole"], quiet=True)
    assert '"eval/fid"' in (whole.directory / "report.html").read_text()
    records = [json.loads(line) for line in (whole.directory / "metrics.jsonl").read_text().splitlines()]
    figures = {r["step"]: r["eval/fid"] for r in records if "eval/fid" in r}
    assert list(figures) == [8, 16, 24]
    step = min(figures, key=figures.get)
    facts = json.loads((whole.directory / "run.json").read_text())
    assert facts["objective"] == {"name": "fid", "value": figures[step], "step": step}
    assert facts["evaluation"]["samples"] == 200 and "mnist5k" in facts["evaluation"]["reference"]
    assert (
        checkpoints.steps(checkpoints.best_folder(whole.directory)) == [step] and whole.objective == figures[step]
    )
    gan_cli.train([*QUICK, "metric=[fid,kid]", "train.steps=12", "name=part"], quiet=True)
    resumed = gan_cli.train(["resume=outputs/part", "train.steps=24"], quiet=True)
    again = [json.loads(line) for line in (resumed.directory / "metrics.jsonl").read_text().splitlines()]
    assert {r["step"]: r["eval/fid"] for r in again if "eval/fid" in r and r["step"] != 12} == figures
    # gan-eval computes the same figures from the same samples.
    assert gan_eval(["outputs/whole", "--metrics=fid", "--features=random", "--num=200", "--json=x.json"]) == 0
    (found,) = json.loads(Path("x.json").read_text())
    np.testing.assert_allclose(found["metrics"]["fid"], figures[24], rtol=1e-4)
    assert found["samples"] == 200 and found["seed"] == 0 and found["step"] == 24
    assert found["run"] == "outputs/whole" and "random" in found["features"] and "mnist5k" in found["reference"]
    assert json.loads(Path("outputs/whole/evaluations.json").read_text()) == [found]
    Image.open("outputs/whole/samples/neighbours.png").load()
    assert gan_eval(["outputs/whole", "--best", "--metrics=fid", "--features=random", "--num=200"]) == 0
    kept = json.loads(Path("outputs/whole/evaluations.json").read_text())[-1]
    assert kept["step"] == step
    np.testing.assert_allclose(kept["metrics"]["fid"], figures[step], rtol=1e-4)


def test_figures_of_other_features_are_not_compared(tmp_path):
    """A run that is resumed with other features restarts its best value, and is evaluated at its end."""
    first = gan_cli.train([*QUICK, "metric=[fid]", "name=a"], quiet=True)
    again = gan_cli.train(["resume=outputs/a", "features=pixels"], quiet=True)
    facts = json.loads((again.directory / "run.json").read_text())
    assert "pixels" in facts["evaluation"]["features"] and facts["evaluation"]["since_step"] == 24
    assert facts["objective"]["step"] == 24 and facts["objective"]["value"] != first.objective
    records = [json.loads(line) for line in (again.directory / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [4, 8, 12, 16, 20, 24]
    assert records[-1]["eval/fid"] == facts["final"]["eval/fid"] == facts["objective"]["value"]
    assert checkpoints.steps(checkpoints.best_folder(again.directory)) == [24]
    longer = gan_cli.train(["resume=outputs/a", "train.steps=32"], quiet=True)
    facts = json.loads((longer.directory / "run.json").read_text())
    assert facts["evaluation"]["since_step"] == 24 and facts["objective"]["step"] == 32


def test_watch_considers_matching_evaluations_only(tmp_path):
    """--watch ignores evaluations of other weights or metrics; a matching earlier evaluation may be the best."""
    options = [*TINY, "train.steps=12", "train.keep=9", "name=a"]
    run = gan_cli.train(options, quiet=True).directory
    asked = ["--features=random", "--num=200", "--metrics=fid"]
    assert gan_eval(["outputs/a", *asked, "--step=4", "--raw"]) == 0
    assert gan_eval(["outputs/a", *asked[:2], "--metrics=kid", "--step=8"]) == 0
    assert gan_eval(["outputs/a", *asked, "--step=4"]) == 0
    assert gan_eval(["outputs/a", *asked, "--watch"]) == 0
    found = [
        one for one in run_directory.evaluations(run) if one["weights"] == "average" and "fid" in one["metrics"]
    ]
    assert [one["step"] for one in found] == [4, 8, 12]
    best = min(found, key=lambda one: one["metrics"]["fid"])["step"]
    assert checkpoints.steps(checkpoints.best_folder(run)) == [best]
    # A run that was killed has ended, although its run.json still states "running".
    facts = json.loads((run / "run.json").read_text()) | {"status": "running"}
    (run / "run.json").write_text(json.dumps(facts))
    assert gan_eval(["outputs/a", *asked, "--watch"]) == 0
    # best/ links to another directory, from which nothing may be removed.
    Path("elsewhere/7").mkdir(parents=True)
    shutil.rmtree(run / "best")
    (run / "best").symlink_to(Path("elsewhere").absolute())
    assert gan_eval(["outputs/a", *asked, "--watch"]) == 2 and Path("elsewhere/7").is_dir()


def test_a_damaged_archive_is_reported(tmp_path):
    """With any single byte damaged, reading returns the original arrays or raises a UserError of one line."""
    samples = np.random.default_rng(0).integers(0, 255, (4, 3, 3, 1), np.uint8)
    np.savez_compressed("x.npz", samples=samples)
    whole = Path("x.npz").read_bytes()
    refused = []
    for i in range(len(whole)):
        Path("x.npz").write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            found = external_reference(Path("x.npz"))
        except UserError as error:
            assert "\n" not in str(error), f"byte {i}: {error}"
            refused.append(i)
        else:
            assert found.examples["x"].dtype == np.uint8, f"byte {i}"
            np.testing.assert_array_equal(found.examples["x"], samples, err_msg=f"byte {i}")
            assert found.classes is None, f"byte {i}"
    # Most bytes matter, but some (a time, a version) do not affect the arrays.
    assert len(whole) / 2 < len(refused) < len(whole)


def test_accuracy_is_measured_on_held_out_data():
    """Data sets that differ only in their held-out examples have different classifiers."""
    data = few(mnist5k())
    alone = Dataset(data.name, data.spec, data.examples)
    one, other = Classifier(data), Classifier(alone)
    assert one.digest != other.digest and (one.tested_on, other.tested_on) == (500, 40)


def test_stops_early_and_watches(tmp_path):
    """Patience ends a run that does not improve; gan-eval --watch keeps the best checkpoint of a run."""
    options = [*QUICK, "metric=[fid]", "optim.lr=1e-30", "optim.weight_clip=null", "train.steps=80", "train.keep=9"]
    run = gan_cli.train([*options, "train.patience=2", "name=early"], quiet=True)
    assert run.status == "finished" and run.step == 24
    assert json.loads((run.directory / "run.json").read_text())["stopped_early_at"] == 24
    watched = gan_cli.train([*TINY, "train.steps=16", "train.keep=9", "name=watched"], quiet=True)
    assert gan_eval(["outputs/watched", "--watch", "--metrics=fid", "--features=random", "--num=200"]) == 0
    found = json.loads((watched.directory / "evaluations.json").read_text())
    assert [one["step"] for one in found] == [4, 8, 12, 16]
    best = min(found, key=lambda one: one["metrics"]["fid"])["step"]
    assert checkpoints.steps(checkpoints.best_folder(watched.directory)) == [best]
    assert restore.restore_run(watched.directory, best=True).step == best


def test_samples_of_other_programs(tmp_path):
    """An archive and a folder of the same images have the same figures."""
    data = few(mnist5k())
    np.savez("samples.npz", samples=data.examples["x"][:100])
    np.savez("reference.npz", samples=data.examples["x"], labels=data.examples["label"])
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(data.examples["x"][:100]):
        Image.fromarray(image[..., 0]).save(tmp_path / "folder" / f"{i:03}.png")
    options = ["--features=pixels", "--metrics=precision_recall,sliced_wasserstein", "--json=x.json"]
    assert gan_eval(["samples.npz", "folder", "--reference=reference.npz", *options]) == 0
    first, second = json.loads(Path("x.json").read_text())
    assert first["run"] == "samples.npz" and first["samples"] == second["samples"] == 100
    assert first["metrics"]["precision"] > 0.9
    assert first["metrics"] == pytest.approx(second["metrics"], rel=1e-4)


AGAINST = ["--reference=mnist5k", "--features=pixels"]  # features without training
WRONG = [
    (["nowhere"], "no such run"),
    (["x.npz"], "--reference"),
    (["x.npz", "--reference=flat.npz"], "of the same shape"),
    (["x.npz", *AGAINST, "--metrics=fid,modes"], "known modes"),
    (["x.npz", *AGAINST, "--metrics=fidd"], "Did you mean 'fid'"),
    (["x.npz", "--reference=mnist5k", "--features=pixel"], "Did you mean 'pixels'"),
    (["x.npz", *AGAINST, "--json=no/such/../../x.npz/x.json"], "cannot be written"),
    (["x.npz", *AGAINST, "--num=1"], "at least 2"),
    (["empty", *AGAINST], "no images"),
    (["broken.npz", *AGAINST], "cannot be read"),
    (["float.npz", *AGAINST], "0..255"),
    (["one.npz", *AGAINST], "cannot be read"),
    (["run"], "no checkpoint"),
    (["changed"], "the architecture of the checkpoint differs"),
    (["x.npz", "--watch"], "needs the directory of a single run"),
    (["x.npz", *AGAINST, "--metrics=none"], "needs a metric other than none"),
    (["empty.npz", *AGAINST], "the array `samples` is empty"),
]


def test_wrong_input(tmp_path, capsys):
    np.savez("x.npz", samples=np.zeros((10, 28, 28, 1), np.uint8))
    np.savez("empty.npz", samples=np.zeros((3, 0, 0, 3), np.uint8))
    np.savez("flat.npz", samples=np.zeros((10, 2), np.float32))
    np.savez("float.npz", samples=np.random.default_rng(0).random((10, 28, 28, 1)))
    Path("broken.npz").write_bytes(b"PK\x03\x04nothing")
    Path("one.npz").write_bytes(b"")
    Path("empty").mkdir()
    run = gan_cli.train([*TINY, "train.steps=4"], quiet=True).directory
    facts = json.loads((run / "run.json").read_text())
    for name in ("run", "changed"):
        Path(name).mkdir()
    Path("run/run.json").write_text(json.dumps(facts))
    facts["config"]["model"]["generator"]["width"] = 9
    Path("changed/run.json").write_text(json.dumps(facts))
    (run / "checkpoints").rename("changed/checkpoints")
    capsys.readouterr()
    for arguments, told in WRONG:
        assert gan_eval(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert told in error and "Traceback" not in error, (arguments, error)
    with pytest.raises(UserError, match="Did you mean 'recall'"):
        gan_cli.train([*QUICK, "metric=[precision_recall]", "train.objective=recal"], quiet=True)
    with pytest.raises(UserError, match="known modes"):
        gan_cli.train([*QUICK, "metric=[modes]"], quiet=True)
    with pytest.raises(UserError, match=r"precision_recall: needs at least 4 samples .* only 2"):
        gan_cli.train([*QUICK, "metric=[precision_recall]", "train.eval_samples=2"], quiet=True)
    with pytest.raises(UserError, match="needs a metric"):
        gan_cli.train([*QUICK, "train.patience=2"], quiet=True)


def test_too_few_samples_give_a_warning(caplog):
    data = few(mnist5k())
    metrics, features = evaluation_of(_composed(["metric=[fid]", "features=pixels"]))
    Evaluator(metrics, targets_of(data, {}, features), data, 50)({"generate": [data.examples["x"][:50]]})
    assert "needs at least 785" in caplog.text


def test_a_sweep_optimises_the_objective(tmp_path):
    """The launcher returns the best figure of each job to the sweeper."""
    code = (
        "import sys; from gan_cli.cli import launcher, train\n"
        "own = launcher.ProcessLauncher.launch\n"
        "def told(self, *a, **k):\n"
        "    found = own(self, *a, **k); print('OBJECTIVE', found[0].return_value); return found\n"
        "launcher.ProcessLauncher.launch = told\n"
        f"sys.exit(train.main({['--multirun', *QUICK, 'metric=[fid]', 'name=sweep', 'seed=1']!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr
    objective = json.loads(Path("multirun/sweep/0/run.json").read_text())["objective"]["value"]
    assert f"OBJECTIVE {objective}" in done.stdout and "best fid" in done.stdout
