"""Runs of image translation: resuming, ensembles, devices, starting from another run, and refused combinations."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import HERE, Program, environment
from test_ensemble import Together
from test_run import manifest, records

import gan_cli
from gan_cli.config import compose
from gan_cli.config.build import experiment
from gan_cli.errors import UserError
from gan_cli.storage import checkpoints

BASE = [
    "modules=[translators]", "model=translator", "train.batch_size=2", "train.steps=12", "train.steps_per_call=4",
    "train.log_every=4", "train.checkpoint_every=4", "train.sample_every=0",
]  # fmt: skip
GAMES = {
    "pix2pix": [*BASE, "game=pix2pix", "dataset=random_pairs"],
    "cyclegan": [*BASE, "game=cyclegan", "dataset=random_domains", "game.pool=20"],
    "cut": [*BASE, "game=cut", "dataset=random_domains", "game.layers=[0,1]"],
}
CONFIGS = str(HERE / "configs")
SEARCH = compose.search_path(CONFIGS)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*overrides):
    return gan_cli.train(list(overrides), config_dir=CONFIGS, quiet=True)


def built(*overrides):
    return experiment([*overrides, *SEARCH])


def test_a_run_that_is_resumed_with_a_half_filled_pool_is_bit_identical():
    """After 4 of 12 steps with two images each, 8 of the 20 places of each pool are filled; in the end all are."""
    cyclegan = GAMES["cyclegan"]
    whole = train(*cyclegan, "name=whole")
    train(*cyclegan, "train.steps=4", "name=part")
    _, arrays = checkpoints.load_arrays(Path("outputs/part/checkpoints"), 4)
    for domain in "ab":
        pool = f"net_state.discriminator.pool.{domain}"
        assert arrays[f"{pool}.count"] == 8
        filled = np.any(arrays[f"{pool}.images"], (1, 2, 3))
        np.testing.assert_array_equal(filled, np.arange(20) < 8)
    part = train("resume=outputs/part", "modules=[translators]", "train.steps=12")
    assert manifest(whole.directory, 12) == manifest(part.directory, 12)
    assert records(whole.directory) == records(part.directory)
    _, arrays = checkpoints.load_arrays(Path("outputs/part/checkpoints"), 12)
    assert arrays["net_state.discriminator.pool.a.count"] == 20
    # Another run may start with the networks, here with pools of another size, which start empty.
    other = train(*cyclegan, "game.pool=3", "train.steps=4", "init_from=outputs/part", "name=other")
    assert other.step == 4


def test_wrong_combinations_are_refused():
    for game, change, message in (
        ("pix2pix", "dataset=random_domains", r"dataset: this game needs pairs.*game=cyclegan"),
        ("pix2pix", "dataset=mnist5k", r"dataset: game=pix2pix translates between images a and b"),
        ("pix2pix", "game=gan", r"model: game=gan makes examples from latents"),
        ("pix2pix", "model=mlp", r"model: game=pix2pix translates images, .*model=unet"),
        ("cyclegan", "estimator=microbatched", r"estimator=microbatched: .*game.pool=0"),
        ("cyclegan", "train.ensemble={game.identity:[0.5,1.0]}", r"game.identity changes the compiled program"),
        ("pix2pix", "game.direction=c_to_a", r"game.direction=c_to_a: must be one of a_to_b, b_to_a"),
        ("cut", "augment=[packing]", r"augment=\[packing\]: game=cut"),
    ):
        with pytest.raises(UserError, match=message):
            built(*GAMES[game], change)


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_each_member_of_an_ensemble_is_the_run_that_it_replaces(game):
    option = {"pix2pix": "game.l1:[1.0,100.0]", "cyclegan": "game.lambda_a:[1.0,10.0]", "cut": "game.nce:[0.5,1.0]"}
    overrides = [*GAMES[game], f"train.ensemble={{{option[game]},seed:[1]}}", *SEARCH]
    together = Together(overrides, vectorise=False)
    metrics = together.run(8)
    for i, own in enumerate(together.ensemble.members):
        program = Program(own)
        for name, values in program.run(8).items():
            np.testing.assert_allclose(metrics[name][i], values, rtol=1e-4, atol=1e-4, err_msg=name)
        for a, b in zip(*map(jax.tree.leaves, (program.state, together.member(i))), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_eight_devices_train_as_one(game):
    """Also the image pools are equal, although each device generates a part of the images."""
    options = [
        *GAMES[game], "train.batch_size=8", "train.steps=4", "train.steps_per_call=1", "train.log_every=1",
        "optim=sgd", "optim.lr=0.001", *SEARCH,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", f"import test_devices as t; t.compare({options!r})"],
        cwd=Path(__file__).parent,
        env=environment(JAX_NUM_CPU_DEVICES="8"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.search("Traceback", done.stderr)
