"""VAE runs: resuming, ensembles, devices, sweeps, evaluation, export and report work as for a GAN."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, Program, environment
from test_ensemble import Together
from test_run import manifest, records

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.report import main as gan_report
from gan_cli.cli.sample import main as gan_sample
from gan_cli.cli.train import main
from gan_cli.data.mnist5k import mnist5k
from gan_cli.storage import checkpoints, run_directory

GAMES = {
    "vae": [*TINY, "game=vae", "model.encoder.width=8", "train.sample_every=4"],
    "vae_gan": [*TINY, "game=vae_gan", "model.encoder.width=8", "train.sample_every=4"],
}
VAE = GAMES["vae"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*overrides):
    return gan_cli.train(list(overrides), quiet=True)


@pytest.mark.parametrize("game", GAMES)
def test_a_resumed_run_is_bit_identical(game):
    whole = train(*GAMES[game], "train.steps=12", "name=whole")
    train(*GAMES[game], "train.steps=4", "name=part")
    part = train("resume=outputs/part", "train.steps=12")
    assert manifest(whole.directory, 12) == manifest(part.directory, 12)
    assert records(whole.directory) == records(part.directory)
    # The choice of the game on the command line does not bring back the default loss, which the run does not use.
    assert train(f"game={game}", "resume=outputs/part", "train.steps=16").step == 16


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_each_member_of_an_ensemble_is_the_run_that_it_replaces(game):
    together = Together([*GAMES[game], "train.ensemble={optim.lr:[1e-4,1e-3],seed:[1,2]}"], vectorise=True)
    metrics = together.run(8)
    for i, own in enumerate(together.ensemble.members):
        program = Program(own)
        told = program.run(8)
        for name, values in told.items():
            np.testing.assert_allclose(metrics[name][i], values, rtol=1e-4, atol=1e-4, err_msg=name)
        for a, b in zip(*map(jax.tree.leaves, (program.state, together.member(i))), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_eight_devices_train_as_one(game):
    options = [*GAMES[game], "train.steps_per_call=1", "train.log_every=1", "optim=sgd", "optim.lr=0.001"]
    done = subprocess.run(
        [sys.executable, "-c", f"import test_devices as t; t.compare({options!r})"],
        cwd=Path(__file__).parent,
        env=environment(JAX_NUM_CPU_DEVICES="8"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_a_sweep_over_games_keeps_the_defaults_apart():
    """The GAN of the sweep has the default loss, and the VAE has none."""
    assert main(["--multirun", *VAE, "game=vae,gan", "name=sweep", "logger=none"]) == 0
    stored = [json.loads(Path(f"multirun/sweep/{i}/run.json").read_text())["config"] for i in (0, 1)]
    assert [bool(config["loss"]) for config in stored] == [False, True]


@pytest.mark.slow
def test_evaluation_of_checkpoints_with_watch():
    """--watch evaluates each checkpoint, and the checkpoint with the best likelihood is kept."""
    run = train(*VAE, "train.steps=12", "name=a").directory
    asked = ["--metrics=nll,elbo", "--features=random", "--num=50"]
    assert gan_eval(["outputs/a", *asked, "--watch"]) == 0
    found = run_directory.evaluations(run)
    assert [one["step"] for one in found] == [4, 8, 12]
    nll = {one["step"]: one["metrics"]["nll"] for one in found}
    assert checkpoints.steps(checkpoints.best_folder(run)) == [min(nll, key=nll.__getitem__)]
    assert gan_eval(["outputs/a", *asked, "--json=f.json"]) == 0
    (one,) = json.loads(Path("f.json").read_text())
    assert one["metrics"]["elbo"] <= -one["metrics"]["nll"]


@pytest.mark.parametrize("task", ["generate", "reconstruct", "encode"])
def test_an_exported_task_needs_no_package(task):
    """In a process without gan_cli, the program computes what gan-sample computes."""
    run = train(*VAE, "name=a").directory
    assert gan_sample([str(run), f"--task={task}", "--export=out"]) == 0
    if task == "generate":
        inputs = np.random.default_rng(0).standard_normal((16, 4), np.float32)
        given = ["--latents=in.npy"]
    else:
        x = mnist5k().take(np.arange(16))["x"]
        inputs, given = (x / 127.5 - 1).astype(np.float32), ["--input=x.npz"]
        np.savez("x.npz", x=x)
    np.save("in.npy", inputs)
    output = "codes" if task == "encode" else "samples"
    assert gan_sample([str(run), f"--task={task}", "--num=16", "--out=y.npz", *given]) == 0
    name = "generator" if task == "generate" else task
    code = f"""
import sys; sys.modules["gan_cli"] = sys.modules["flax"] = None
import jax, numpy as np
from pathlib import Path
from safetensors.numpy import load_file
program = jax.export.deserialize(bytearray(Path("out/{name}.stablehlo").read_bytes()))
np.save("z.npy", program.call(load_file("out/{name}.safetensors"), np.load("in.npy")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = np.load("z.npy"), np.load("y.npz")[output]
    if output == "samples":  # files contain 8-bit images
        found = np.rint((found + 1) * 127.5)
    np.testing.assert_allclose(found, expected, atol=1 if output == "samples" else 1e-4)


def test_report_shows_reconstructions_and_the_collapse():
    run = train(*VAE, "name=a", "game.beta=1000", "train.steps=40", "optim.lr=0.01")
    facts = json.loads((run.directory / "run.json").read_text())
    assert facts["posterior_collapse_suspected_at"] > 0 and run.metrics["vae/kl"] < 0.1
    assert gan_report(["outputs/a"]) == 0
    page = (run.directory / "report.html").read_text()
    assert "Posterior collapse suspected" in page and "reconstruct" in page
