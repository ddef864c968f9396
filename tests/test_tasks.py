"""Tasks on data: inputs from files, the order of rows, random numbers, metrics on tasks, pictures and exports."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import toy
from conftest import HERE
from PIL import Image

import gan_cli
from gan_cli.cli.sample import main as gan_sample
from gan_cli.data.features import Label, Number, Vector
from gan_cli.data.inputs import read_inputs
from gan_cli.data.mnist5k import mnist5k
from gan_cli.errors import UserError
from gan_cli.metrics.evaluator import lacking
from gan_cli.metrics.features import pixels
from gan_cli.metrics.fid import fid
from gan_cli.trained import restore
from gan_cli.trained.evaluation import CheckpointEvaluator
from gan_cli.trained.sampling import TaskRunner
from gan_cli.views import sample_writer

OPTIONS = [
    "--config-dir", str(HERE / "configs"), "modules=[toy]", "game=autoencoder", "model=none", "loss=none",
    "optim.lr=1e-3", "train.batch_size=8", "train.steps=12", "train.steps_per_call=4", "train.log_every=4",
    "train.checkpoint_every=4", "train.sample_every=4", "train.ema=0", "features=pixels", "train.eval_samples=10",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(root)
    try:
        options = ["name=a", "metric=[toy_score]", "train.eval_every=4", "train.report=true"]
        return root / gan_cli.train([*OPTIONS[2:], *options], config_dir=OPTIONS[1], quiet=True).directory
    finally:
        os.chdir(before)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sample(run: Path, *arguments: str) -> int:
    return gan_sample([str(run), "--modules=toy", *arguments])


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def digits():
    return mnist5k().examples["x"][:600]


def test_outputs_are_in_the_order_of_the_input(run, digits):
    """The reconstructions of the linear autoencoder are x A B, in the order of the rows, for each kind of file."""
    np.savez("x.npz", x=digits)
    np.savez("samples.npz", samples=digits[:5], labels=np.arange(5))
    np.save("x.npy", digits[:5])
    restored = restore.restore_run(run, modules=["toy"])
    a, b = (np.asarray(restored.state.params[name]["kernel"]) for name in ("encoder", "decoder"))
    codes = (digits.reshape(len(digits), -1) / np.float32(127.5) - 1) @ a
    assert sample(run, "--task=encode", "--input=x.npz", "--out=codes.npz") == 0
    found = np.load("codes.npz")
    assert list(found) == ["codes"]
    np.testing.assert_allclose(found["codes"], codes, rtol=1e-4, atol=1e-4)
    assert sample(run, "--task=reconstruct", "--input=x.npz", "--out=y.npz") == 0
    found = np.load("y.npz")
    assert list(found) == ["samples"] and found["samples"].dtype == np.uint8
    expected = np.clip(np.rint((codes @ b + 1) * 127.5), 0, 255).reshape(digits.shape)
    assert np.abs(found["samples"] - expected).max() <= 1
    for name in ("samples.npz", "x.npy"):
        assert sample(run, "--task=reconstruct", f"--input={name}", "--num=3", "--out=z.npz") == 0
        assert np.abs(np.load("z.npz")["samples"].astype(int) - found["samples"][:3]).max() <= 1
    assert sample(run, "--task=score", "--input=x.npy", "--out=s.npz") == 0
    scores = np.load("s.npz")
    assert list(scores) == ["error", "norm"] and scores["error"].shape == (5,)
    # The codes decode to the reconstructions.
    assert sample(run, "--latents=codes5.npz", "--out=w.npz") == 2
    np.savez("codes5.npz", latents=np.load("codes.npz")["codes"][:5])
    assert sample(run, "--latents=codes5.npz", "--out=w.npz") == 0
    assert np.abs(np.load("w.npz")["samples"].astype(int) - found["samples"][:5]).max() <= 1


def test_pictures_keep_their_names(run, digits):
    """A folder of reconstructions has the names of the input; a zip file and the folder give the same images."""
    Path("in/b").mkdir(parents=True)
    names = ("10.png", "9.png", "b/c.png", "b_c.png")
    for i, name in enumerate(names):
        Image.fromarray(digits[i, ..., 0]).save(Path("in") / name)
    Image.fromarray(digits[4, ..., 0]).save("in/b/c.tif")
    assert sample(run, "--task=reconstruct", "--input=in", "--out=out") == 0
    assert files("out") == ["10.png", "9.png", "b/c-2.png", "b/c.png", "b_c.png"]
    np.save("x.npy", digits[:4])
    assert sample(run, "--task=reconstruct", "--input=x.npy", "--out=y.npz") == 0
    expected = np.load("y.npz")["samples"][..., 0]
    for i, name in enumerate(names):
        assert np.abs(np.asarray(Image.open(Path("out") / name)).astype(int) - expected[i]).max() <= 1
    with zipfile.ZipFile("in.zip", "w") as archive:
        for name in (*names, "b/c.tif"):
            archive.write(Path("in") / name, name)
        archive.writestr("/evil.png", Path("in/9.png").read_bytes())
    assert sample(run, "--task=reconstruct", "--input=in.zip", "--out=zipped") == 0
    assert files("zipped") == sorted([*files("out"), "evil.png"])
    for name in files("out"):
        assert (Path("zipped") / name).read_bytes() == (Path("out") / name).read_bytes()
    assert sample(run, "--task=reconstruct", "--input=in/9.png", "--out=one.png") == 0
    cell = 28 * 2 + 2  # the image above its reconstruction
    shown = np.asarray(Image.open("one.png"))
    assert shown.shape == (2 * cell + 2, cell + 2)
    np.testing.assert_array_equal(shown[2:58:2, 2:58:2], digits[1, ..., 0])


def test_a_row_depends_on_its_number_and_seed_only(run, digits):
    """Random numbers of a task do not depend on the number of rows, and differ between rows and seeds."""
    np.savez("x.npz", x=digits, label=np.arange(len(digits)) % 10)
    drawn = {}
    for name, more in {"a": ["--num=3"], "b": [], "c": ["--seed=1"], "d": ["--class=7"]}.items():
        assert sample(run, "--task=noisy", "--input=x.npz", f"--out={name}.npz", *more) == 0
        drawn[name] = np.load(f"{name}.npz")["codes"]
    np.testing.assert_array_equal(drawn["a"], drawn["b"][:3])
    noise = drawn["b"] - 100 * (np.arange(len(digits)) % 10)[:, None]
    assert len(np.unique(noise.round(3), axis=0)) == len(digits) and abs(noise.std() - 1) < 0.05
    assert np.abs(drawn["b"] - drawn["c"]).max(1).min() > 0
    np.testing.assert_allclose(drawn["d"], noise + 700, atol=1e-3)
    # The noise of a row differs from the latents of the row, although both have the same size.
    latents = TaskRunner(restore.restore_run(run, modules=["toy"]).experiment.game).inputs(0, 0, 3)["latents"]
    assert np.abs(latents - noise[:3]).max() > 0.1


def test_another_prior_replaces_the_prior_of_a_task():
    game = toy.Autoencoder(mnist5k().spec)
    runner = TaskRunner(game, prior=lambda key, truncation: {"latents": 5 + jax.random.normal(key, (3,))})
    np.testing.assert_allclose(
        runner.inputs(2, 1, 4)["latents"], 5 + TaskRunner(game).inputs(2, 0, 5)["latents"][1:], rtol=1e-6
    )


WRONG = [
    (["--task=generat"], "Did you mean 'generate'? Choose from: generate, reconstruct, encode, score, noisy."),
    (["--task=reconstruct", "--num=501"], "there are 500 held-out examples of mnist5k. Choose a smaller --num"),
    (["--input=x.npz"], "takes no inputs from files. Leave out --input, or choose a task"),
    (["--task=encode", "--input=none.npz"], "no such file"),
    (["--task=encode", "--input=small.npz"], "has the shape [2, 8, 8, 1]. Save images [n, 28, 28, 1]"),
    (["--task=encode", "--input=other.npz"], "no array `x`. Its arrays are: y. Save an array of this name: images"),
    (["--task=encode", "--input=scaled.npz"], "values from 0 to 1. Save images [n, 28, 28, 1] in 0..255"),
    (["--task=encode", "--input=nan.npz"], "NaN or infinity"),
    (["--task=encode", "--input=text.txt"], "none of the known formats"),
    (["--task=encode", "--input=broken.npz"], "cannot be read"),
    (["--task=encode", "--input=empty"], "no images that can be decoded"),
    (["--task=encode", "--input=x.npz", "--num=9"], "has 2 rows, and 9 are needed. Choose a smaller --num"),
    (["--task=encode", "--input=x.npz", "--class=1"], "the task encode takes no class"),
    (["--task=encode", "--input=x.npz", "--truncation=1"], "draws no latents"),
    (["--task=encode", "--input=x.npz", "--latents=x.npz"], "has no input `latents`. Its inputs are: x"),
    (["--task=encode", "--input=x.npz", "--out=folder"], "the codes of this run are points"),
    (["--task=score", "--input=x.npz"], "the task score computes numbers"),
    (["--task=noisy", "--input=x.npz", "--out=a.npz"], "has no labels, and the task noisy needs the class"),
    (["--task=noisy", "--input=classes.npz", "--out=a.npz"], "values from 0 to 10. Save labels [n] from 0 to 9"),
    (["--task=noisy", "--input=short.npz", "--out=a.npz"], "different lengths (x 2, label 1)"),
    (["--task=reconstruct", "--input=x.npz", "--draw=sefa"], "the task reconstruct draws no latents"),
    (["--draw=sefa"], "needs a generator, and the players of this run are encoder, decoder"),
    (["--export=e", "--input=x.npz"], "Leave out --input"),
]


def test_wrong_input(run, digits, capsys):
    np.savez("x.npz", x=digits[:2])
    np.savez("small.npz", x=digits[:2, :8, :8])
    np.savez("other.npz", y=digits[:2])
    np.savez("scaled.npz", x=digits[:2] / 255)
    np.savez("nan.npz", x=np.full((2, 28, 28, 1), np.nan))
    np.savez("classes.npz", x=digits[:2], label=[0, 10])
    np.savez("short.npz", x=digits[:2], labels=[0])
    Path("text.txt").write_text("")
    Path("broken.npz").write_bytes(b"PK\x03\x04nothing")
    Path("empty").mkdir()
    before = sorted(Path.cwd().iterdir())
    for arguments, told in WRONG:
        assert sample(run, *arguments) == 2, arguments
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1, (arguments, error)
    assert sorted(Path.cwd().iterdir()) == before


def test_inputs_of_other_kinds():
    """Vectors become float32; several inputs need their names; pictures do not provide vectors."""
    np.savez("x.npz", codes=np.arange(6).reshape(2, 3), x=np.ones(2))
    found, names = read_inputs(Path("x.npz"), {"codes": Vector(3), "x": Number(), "label": Label(4)})
    assert names == [] and {name: x.dtype for name, x in found.items()} == {"codes": np.float32, "x": np.float32}
    np.save("x.npy", np.zeros((2, 3)))
    with pytest.raises(UserError, match=r"no array `codes`. Its arrays are: none. .* points \[n, 3\]"):
        read_inputs(Path("x.npy"), {"codes": Vector(3), "x": Number()})
    Path("folder").mkdir()
    with pytest.raises(UserError, match=r"Use an \.npz file with `codes` \(points \[n, 3\]\)"):
        read_inputs(Path("folder"), {"codes": Vector(3)})
    with pytest.raises(UserError, match="too large for float32"):
        np.savez("x.npz", codes=np.full((1, 3), 1e300))
        read_inputs(Path("x.npz"), {"codes": Vector(3)})


def test_metrics_run_tasks_on_held_out_data(run, digits):
    """Training and gan-eval compute the mean error over all held-out digits. Samples in files have no tasks."""
    restored = restore.restore_run(run, data=True, modules=["toy"])
    a, b = (np.asarray(restored.state.params[name]["kernel"]) for name in ("encoder", "decoder"))
    x = restored.experiment.dataset.held_out["x"].reshape(500, -1) / 127.5 - 1
    expected = float(((x - x @ a @ b) ** 2).mean())
    final = json.loads((run / "run.json").read_text())["final"]
    assert final["eval/toy_score"] == pytest.approx(expected, rel=1e-4) and final["eval/toy_count"] == 500
    metrics = {"toy_score": toy.toy_score(), "fid": fid()}
    common = {"num": 10, "seed": 0, "raw": False, "modules": ["toy"], "draw_neighbours": lambda *_: None}
    evaluator = CheckpointEvaluator(metrics, pixels, every=True, reference=None, **common)
    assert evaluator.run(run)["metrics"]["toy_score"] == pytest.approx(expected, rel=1e-4)
    np.savez("x.npz", samples=digits)
    with pytest.raises(UserError, match="metric=toy_score: needs a game with the task score"):
        evaluator.examples(Path("x.npz"))
    some = CheckpointEvaluator(metrics, pixels, every=False, reference=lambda spec: mnist5k(), **common)
    assert set(some.examples(Path("x.npz"))["metrics"]) == {"fid"}
    labelled = toy.toy_score()._replace(tasks=("noisy",))
    tasks, data = restored.experiment.game.tasks, mnist5k()
    unlabelled = dataclasses.replace(data, held_out={"x": data.held_out["x"]})
    assert lacking(labelled, {}, mnist5k(), tasks) is None
    assert "held-out examples" in lacking(labelled, {}, unlabelled, tasks)
    assert lacking(toy.toy_score(), {}, mnist5k()) == "a game with the task score, e.g. game=vae"


def test_training_draws_tasks(run, tmp_path):
    """Held-out images stand above their reconstructions, also in TensorBoard and in the report.

    The pictures of steps that a resumed run repeats are removed.
    """
    pictures = sorted((run / "samples" / "reconstruct").iterdir())
    assert [path.name for path in pictures] == ["12.png", "4.png", "8.png"]
    cell = 28 * 2 + 2
    shown = np.asarray(Image.open(pictures[0]))
    assert shown.shape == (8 * cell + 2, 8 * cell + 2)
    first = shown[2:58:2, 2:58:2]
    assert any(np.array_equal(first, image[..., 0]) for image in mnist5k().held_out["x"])
    page = (run / "report.html").read_text()
    data = json.loads(page.split('id="report">')[1].split("</script>")[0])
    (task,) = data["runs"][0]["tasks"]
    assert task["name"] == "reconstruct" and [one["step"] for one in task["pictures"]] == [4, 8, 12]
    events = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    assert events.count(b"samples/reconstruct") == 3
    before = {path: path.read_bytes() for path in pictures}
    sample_writer.remove_later_pictures(run, 4, ["reconstruct"])
    assert [path.name for path in (run / "samples" / "reconstruct").iterdir()] == ["4.png"]
    for path, content in before.items():
        path.write_bytes(content)


def test_export_of_a_task_with_two_players(run, digits):
    """Without gan_cli, exported tasks compute the same. The weights are those of the players that a task reads."""
    names = ["reconstruct", "encode", "noisy", "score", "generate"]
    for task in names:
        assert sample(run, f"--task={task}", f"--export={task}") == 0
    from safetensors.numpy import load_file

    assert set(load_file("reconstruct/reconstruct.safetensors")) == {
        "encoder.params.kernel",
        "decoder.params.kernel",
    }
    assert (
        set(load_file("encode/encode.safetensors"))
        == set(load_file("generate/generator.safetensors"))
        == {"params.kernel"}
    )
    facts = json.loads(Path("noisy/noisy.json").read_text())
    assert facts["inputs"] == ["x", "labels"] and facts["outputs"] == ["codes"] and facts["task"] == "noisy"
    assert facts["x"] == {"shape": ["n", 28, 28, 1], "dtype": "float32", "low": -1.0, "high": 1.0}
    block = "import sys; sys.modules['gan_cli'] = sys.modules['flax'] = None\n"
    code = block + "import runpy\nfor n in sys.argv[1:]: runpy.run_path(f'{n}/example.py')"
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    program = jax.export.deserialize(bytearray(Path("noisy/noisy.stablehlo").read_bytes()))
    arguments = np.zeros((7, 28, 28, 1), np.float32), np.zeros(7, np.int32)
    assert len(np.unique(program.call(load_file("noisy/noisy.safetensors"), *arguments), axis=0)) == 7
    restored = restore.restore_run(run, modules=["toy"])
    x = digits[:7] / np.float32(127.5) - 1
    program = jax.export.deserialize(bytearray(Path("score/score.stablehlo").read_bytes()))
    error, norm = program.call(load_file("score/score.safetensors"), x)
    expected = TaskRunner(restored.experiment.game, "score")(restored.state, {"x": x})
    np.testing.assert_allclose(error, expected["error"], rtol=1e-4)
    np.testing.assert_allclose(norm, expected["norm"], rtol=1e-4)
