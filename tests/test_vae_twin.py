"""A VAE reaches the likelihood that PyTorch reaches with the same settings."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from conftest import command, environment, import_reference

from gan_cli.config.build import experiment
from gan_cli.data.mnist5k import mnist5k
from gan_cli.engine.state import init_state

pytestmark = pytest.mark.comparison
EPOCHS = 30
HIDDEN = [f"model.{part}.{option}" for part in ("encoder", "generator")
          for option in ("width=400", "depth=1", "activation=relu")]  # fmt: skip
SETTINGS = [
    "game=vae", "game.binarisation=threshold", "model=mlp", "model.latent_dim=40", *HIDDEN,
    "optim.lr=1e-4", "optim.b1=0.9", "optim.clip_norm=null", "train.ema=0", "train.batch_size=100",
    f"train.steps={45 * EPOCHS}", "train.steps_per_call=45", "train.log_every=45", "train.sample_every=0",
    "train.checkpoint_every=0", "train.eval_every=0", "metric=[nll]", "features=random", "logger=none",
]  # fmt: skip


def binary(images: np.ndarray) -> np.ndarray:
    return (images.reshape(len(images), -1) >= 128).astype(np.float32)


def weights(setup) -> list[tuple[np.ndarray, np.ndarray]]:
    """The initial kernels and biases of the encoder and the decoder, in the order of their use."""
    params = init_state(setup).params["vae"]
    layers = [
        layer
        for part in ("encoder", "decoder")
        for layer in (params[part]["blocks"][0]["linear"], params[part]["out"])
    ]
    return [(np.asarray(layer["kernel"][...]), np.asarray(layer["bias"][...])) for layer in layers]


def test_nll_of_held_out_digits(tmp_path):
    """Both sides start with the same weights; the order of the images and the noise differ."""
    twin = import_reference("vae_twin")
    # A process of its own, because the tests compile without optimisation.
    subprocess.run(command(*SETTINGS, "name=vae"), cwd=tmp_path, env=environment(XLA_FLAGS=""), check=True)
    ours = json.loads((tmp_path / "outputs/vae/run.json").read_text())["final"]["eval/nll"]
    data = mnist5k()
    twin.torch.manual_seed(0)
    vae = twin.VAE()
    vae.load(weights(experiment(SETTINGS).setup))
    twin.train(vae, twin.torch.from_numpy(binary(data.examples["x"])), EPOCHS)
    expected = vae.nll(twin.torch.from_numpy(binary(data.held_out["x"])), draws=200)
    assert ours == pytest.approx(expected, abs=0.3)
    assert 120 < expected < 140
