"""Trained runs: samples by number, class and latents, interpolations, exports and inspection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, loss_value
from PIL import Image

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.sample import DRAWINGS
from gan_cli.cli.sample import main as gan_sample
from gan_cli.config.build import experiment
from gan_cli.errors import UserError
from gan_cli.trained import inspection, restore
from gan_cli.trained.sampling import TaskRunner, averaged
from gan_cli.views import drawings

DCGAN = [*TINY, "model=dcgan", "model.conditional=projection", "train.steps=4"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directories of a plain run and of a conditional run with convolutions, and the plain ``Run``."""
    root = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(root)
    try:
        plain = gan_cli.train([*TINY, "name=plain"], quiet=True)
        conditional = gan_cli.train([*DCGAN, "name=conditional"], quiet=True)
    finally:
        os.chdir(before)
    return {"plain": root / plain.directory, "conditional": root / conditional.directory, "run": plain}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sample(run: Path, *arguments: str) -> int:
    return gan_sample([str(run), *arguments])


def test_by_number_and_seed(runs):
    """Sample i of a seed does not depend on the number of samples, and equals sample i of ``Run.sample``."""
    for n, name in ((3, "a"), (700, "b")):
        assert sample(runs["plain"], f"--num={n}", "--seed=5", f"--out={name}.npz") == 0
    a, b = (np.load(f"{name}.npz")["samples"] for name in "ab")
    assert a.shape == (3, 28, 28, 1) and b.shape == (700, 28, 28, 1) and a.dtype == np.uint8
    assert np.abs(a.astype(int) - b[:3]).max() <= 1  # rounding depends on the batch size
    own = np.rint((runs["run"].sample(3, seed=5) + 1) * 127.5)
    assert np.abs(a - own).max() <= 1
    assert sample(runs["plain"], "--num=3", "--seed=6", "--out=c.npz") == 0
    assert not np.array_equal(a, np.load("c.npz")["samples"])
    assert sample(runs["plain"], "--num=3", "--seed=5", "--raw", "--out=d.npz") == 0
    assert not np.array_equal(a, np.load("d.npz")["samples"])
    np.savez("latents.npz", latents=np.load("a.npz")["latents"][::-1])
    assert sample(runs["plain"], "--latents=latents.npz", "--out=e.npz") == 0
    assert np.abs(np.load("e.npz")["samples"].astype(int) - a[::-1]).max() <= 1
    assert sample(runs["plain"], "--num=500", "--truncation=0.5", "--out=f.npz") == 0
    assert 0.4 < np.abs(np.load("f.npz")["latents"]).max() <= 0.5


@pytest.mark.slow
def test_pictures(runs):
    assert sample(runs["plain"], "--num=12", "--out=folder") == 0
    pictures = sorted(Path("folder").iterdir())
    assert [p.name for p in pictures[:2]] == ["00000.png", "00001.png"] and len(pictures) == 12
    assert np.asarray(Image.open(pictures[0])).shape == (28, 28)
    assert sample(runs["plain"], "--num=3", "--out=walk.gif") == 0
    with Image.open("walk.gif") as walk:
        assert walk.n_frames == 72 and walk.info["loop"] == 0
    assert set(DRAWINGS) == set(drawings.DRAWINGS)
    drawn = {}
    for what in DRAWINGS:
        if what not in ("walk", "codes"):  # codes are those of clips
            assert sample(runs["conditional"], "--num=4", f"--draw={what}", f"--out={what}.png") == 0
            drawn[what] = np.asarray(Image.open(f"{what}.png"))
    cell = 28 * 2 + 2
    assert drawn["interpolation"].shape == (4 * cell + 2, 9 * cell + 2)
    assert drawn["classes"].shape == (10 * cell + 2, 4 * cell + 2)
    assert drawn["activations"].shape == ((1 + 2 + 1) * cell + 2, 8 * cell + 2, 3)  # two stages and the gradient
    assert not np.array_equal(drawn["sefa"], drawn["ganspace"])


def test_files_state_their_run_step_and_seed(runs, capsys):
    """Files of ``gan-sample`` and of training fit their marks, name no path, and are equal the second time."""
    files = ["a.png", "folder", "a.gif", "a.npz"]
    for name in files:
        assert sample(runs["plain"], "--num=2", "--seed=3", f"--out={name}") == 0
    capsys.readouterr()
    assert gan_eval(["--verify", *files]) == 0
    printed = capsys.readouterr().out
    fingerprint = json.loads((runs["plain"] / "run.json").read_text())["fingerprint"]
    assert printed.count(f'run "plain" (fingerprint "{fingerprint}"), checkpoint of step 8, seed 3') == 5
    assert "\n5 fit\n" in printed and "not signed" in printed
    first = Path("a.png").read_bytes()
    assert str(runs["plain"].parents[1]).encode() not in first
    assert sample(runs["plain"], "--num=2", "--seed=3", "--out=a.png") == 0
    assert Path("a.png").read_bytes() == first
    assert gan_eval(["--verify", str(runs["plain"] / "samples" / "8.png")]) == 0
    assert gan_eval(["--verify", str(runs["plain"] / "samples" / "real.png")]) == 1  # not generated
    assert sample(runs["plain"], "--num=2", "--out=a.png", "--no-provenance") == 0
    assert gan_eval(["--verify", "a.png"]) == 1


def test_classes(runs):
    assert sample(runs["conditional"], "--num=20", "--out=a.npz") == 0
    found = np.load("a.npz")
    np.testing.assert_array_equal(found["labels"], np.arange(20) % 10)
    assert sample(runs["conditional"], "--num=20", "--class=3", "--out=b.npz") == 0
    three = np.load("b.npz")
    assert (three["labels"] == 3).all()
    np.testing.assert_array_equal(found["latents"], three["latents"])
    run = restore.restore_run(runs["conditional"])
    draw = TaskRunner(run.experiment.game)
    inputs = ({"latents": a["latents"], "label": a["labels"]} for a in (found, three))
    each, threes = (np.asarray(draw(run.state, one)["samples"]) for one in inputs)
    np.testing.assert_array_equal(np.abs(each - threes).max((1, 2, 3)) < 1e-7, found["labels"] == 3)


@pytest.mark.parametrize("kind", ["plain", "conditional"])
def test_export_runs_without_this_package(runs, kind):
    """In a process without gan_cli and Flax, the exported generator gives the same samples at any batch size."""
    assert sample(runs[kind], "--export=out") == 0
    block = "import sys; sys.modules['gan_cli'] = sys.modules['flax'] = None; sys.argv = ['x', 'x.npz']\n"
    code = block + "import runpy; runpy.run_path('out/example.py')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = restore.restore_run(runs[kind])
    latents = np.random.default_rng(0).standard_normal((16, 4), np.float32)
    facts = json.loads(Path("out/generator.json").read_text())
    labels = np.arange(16, dtype=np.int32) % 10 if facts["labels"] else None
    inputs = {"latents": latents} | ({} if labels is None else {"label": labels})
    expected = np.asarray(TaskRunner(run.experiment.game)(run.state, inputs)["samples"])
    np.testing.assert_allclose(np.load("x.npz")["samples"], expected, atol=1e-5)
    program = jax.export.deserialize(bytearray(Path("out/generator.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")


WRONG = [
    (["--class=3"], "is not conditional"),
    (["--num=0"], "at least 1"),
    (["--truncation=0"], "greater than 0"),
    (["--step=5"], "Choose one of the available steps (4, 8)"),
    (["--best"], "there is no checkpoint"),
    (["--out=x.jpg"], "must end in"),
    (["--out=x.gif", "--draw=sefa"], "--draw sefa: writes a .png file"),
    (["--out=x.npz", "--draw=sefa"], "--draw sefa: writes a .png file"),
    (["--draw=classes"], "is not conditional"),
    (["--latents=none.npy"], "cannot be read"),
    (["--latents=l.npy"], "latents [n, 4]"),
    (["--out=file/x.png"], "cannot be written"),
    (["--export=file"], "cannot be written"),
    (["--export=e", "--num=3"], "Leave out --num"),
    (["--draw=classes", "--class=3"], "Leave out --class 3"),
]


def test_wrong_input(runs, capsys):
    np.save("l.npy", np.zeros((3, 5)))
    Path("file").write_text("")
    for arguments, told in WRONG:
        assert sample(runs["plain"], *arguments) == 2, arguments
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1, (arguments, error)
    packed = gan_cli.train([*TINY, "train.steps=4", "augment=[packing]", "name=packed"], quiet=True).directory
    capsys.readouterr()
    assert sample(packed, "--draw=activations") == 2 and "packs of images" in capsys.readouterr().err
    assert sample(runs["conditional"], "--class=10") == 2
    assert "classes 0 to 9" in capsys.readouterr().err
    assert gan_sample(["nowhere"]) == 2 and "no such directory" in capsys.readouterr().err
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["file", "l.npy", "outputs"]


def test_a_run_is_sampled_without_the_location_of_its_data(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(tmp_path / "images" / f"{i}.png")
    monkeypatch.setenv("DATA_HOME", str(tmp_path / "images"))
    data = ["dataset=folder", "dataset.path=${oc.env:DATA_HOME}", "dataset.resolution=8"]
    run = gan_cli.train([*TINY, "train.steps=4", *data, "name=a"], quiet=True).directory
    monkeypatch.delenv("DATA_HOME")
    assert sample(run, "--num=3", "--out=x.npz") == 0
    assert np.load("x.npz")["samples"].shape == (3, 8, 8, 3)


def test_great_circles():
    """Points between latents of equal length have the same length; the ends are exact; a walk is closed."""
    a, b = np.array([[2.0, 0, 0]], np.float32), np.array([[0, 2.0, 0]], np.float32)
    way = inspection.slerp(a, b, np.array([0, 0.5, 1]))
    np.testing.assert_allclose(way[0], [[2, 0, 0], [2**0.5, 2**0.5, 0], [0, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(inspection.slerp(a, a, np.array([0.3]))[0], a, atol=1e-6)
    path = inspection.walk(np.stack([a, b]), 4)
    assert path.shape == (8, 1, 3)
    np.testing.assert_allclose(path[[0, 4], 0], [[2, 0, 0], [0, 2, 0]], atol=1e-6)


def test_sefa_and_ganspace_find_the_strongest_directions(runs):
    """SeFa's directions are orthonormal and ordered by their effect on the first layer.

    GANSpace finds a planted direction.
    """
    run = restore.restore_run(runs["plain"])
    game = run.experiment.game
    found = inspection.sefa(game, run.state)
    np.testing.assert_allclose(found @ found.T, np.eye(4), atol=1e-5)
    kernel = np.asarray(game.network("generator", *averaged(run.state)).entry.kernel[...])
    moved = np.linalg.norm(found @ kernel, axis=1)
    np.testing.assert_allclose(moved, np.linalg.svd(kernel, compute_uv=False), rtol=1e-5)
    # A generator whose first layer depends almost only on the third latent.
    entry = run.state.average["generator"]
    planted = jax.tree.map(
        lambda x: x * jnp.array([[0.01], [0.01], [1], [0.01]]) if x.shape == (4, 8) else x, entry
    )
    state = run.state._replace(average={"generator": planted})
    latents = np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float32)
    assert abs(inspection.ganspace(game, state, latents)[0, 2]) > 0.99


@pytest.mark.parametrize("kind", ["concat", "projection", "acgan"])
@pytest.mark.parametrize("choice", ["model=mlp", "model=dcgan", "dataset=ring"])
def test_both_players_use_the_label(kind, choice):
    """The losses and the samples change with the labels."""
    e = experiment([*TINY, choice, f"model.conditional={kind}"])
    game, data = e.game, e.dataset
    params, net_state = game.init(jax.random.key(0))
    taken = data.take(np.arange(0, data.size, data.size // 8)[:8])
    x = jnp.asarray(taken["x"], jnp.float32) / (127.5 if data.feature.noun == "images" else 1)
    labels = jnp.asarray(taken["label"])
    for player in game.players:
        values = [
            float(
                loss_value(game, player, params, net_state, {"x": x, "label": y}, jax.random.key(1), jnp.int32(0))[
                    0
                ]
            )
            for y in (labels, (labels + 1) % data.classes)
        ]
        assert np.isfinite(values).all() and abs(values[0] - values[1]) > 1e-6, player
    generate = game.tasks["generate"]
    keys = jax.random.split(jax.random.key(0), 2)
    latents = jax.vmap(lambda key: generate.prior(key, None)["latents"])(keys)
    inputs = ({"latents": latents, "label": jnp.full(2, k)} for k in (0, 1))
    a, b = (generate.apply(params, net_state, one, keys)["samples"] for one in inputs)
    assert float(jnp.abs(a - b).max()) > 1e-4


def test_projection_equals_its_formula():
    """logit(x, y) = out(features) + direction_y . features (Miyato and Koyama 2018, eq. 8)."""
    e = experiment([*TINY, "model.conditional=projection"])
    params, net_state = e.game.init(jax.random.key(0))
    network = e.game.network("discriminator", params, net_state)
    x, y = jax.random.normal(jax.random.key(1), (5, 28, 28, 1)), jnp.array([0, 3, 3, 9, 1])
    key = jax.random.key(0)
    features = network.network.features(x, train=False, key=key)
    expected = network.network.out(features, train=False)[:, 0]
    expected += (features * network.head.kernel[...].T[y]).sum(1)
    np.testing.assert_allclose(network(x, y, train=False, key=key), expected, rtol=1e-5)


def test_conditional_needs_labels():
    with pytest.raises(UserError, match="needs one label per input"):
        experiment([*TINY, "model.conditional=concat", "augment=[packing]"])
    plain = [option for option in TINY if not option.startswith("model")]
    with pytest.raises(UserError, match="needs labels"):
        experiment([*plain, "model=dirac", "dataset=point", "model.conditional=acgan"])


def test_a_folder_holds_the_samples_of_one_command_only(runs, tmp_path, capsys, monkeypatch):
    """Otherwise, an FID of the folder would be of a mixture."""
    monkeypatch.chdir(tmp_path)
    assert sample(runs["plain"], "--num=20", "--out=d") == 0
    assert len(list(Path("d").iterdir())) == 20
    assert sample(runs["plain"], "--num=5", "--out=d") == 2
    assert "20 files" in capsys.readouterr().err and len(list(Path("d").iterdir())) == 20
    assert sample(runs["plain"], "--num=5", "--out=d", "--overwrite") == 0
    assert sorted(path.name for path in Path("d").iterdir()) == [f"{i:05}.png" for i in range(5)]
    Image.new("L", (28, 28)).save("d/00007.png")  # a picture of another program
    before = {path: path.read_bytes() for path in Path("d").iterdir()}
    assert sample(runs["plain"], "--num=5", "--out=d", "--overwrite") == 2
    assert "00007.png" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("d").iterdir()} == before
    assert sample(runs["plain"], "--out=d.png", "--overwrite") == 2
