"""Use of a trained translation: pictures of any size, channels and bits, pictures during training, and exports."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import toy
from conftest import HERE
from PIL import Image

import gan_cli
from gan_cli.cli.sample import main as gan_sample
from gan_cli.data.images import decode
from gan_cli.errors import UserError
from gan_cli.trained import restore, tiles
from gan_cli.trained.sampling import TaskRunner
from gan_cli.views import pictures, sample_writer

OPTIONS = [
    "modules=[toy]", "game=translator", "model=none", "loss=none", "dataset=toy_images", "metric=none",
    "optim.lr=1e-3", "train.batch_size=4", "train.steps=2", "train.steps_per_call=2", "train.log_every=2",
    "train.checkpoint_every=2", "train.sample_every=2", "train.ema=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that trains a run on images of a number of channels ``a`` and ``b``, once for each."""

    @functools.cache
    def trained(a: int = 1, b: int = 3, bits: int = 8) -> Path:
        before = Path.cwd()
        os.chdir(tmp_path_factory.mktemp("runs"))
        try:
            data = [f"dataset.a={a}", f"dataset.b={b}", f"dataset.bits={bits}"]
            found = gan_cli.train([*OPTIONS, *data, "name=a"], config_dir=str(HERE / "configs"), quiet=True)
            return Path.cwd() / found.directory
        finally:
            os.chdir(before)

    return trained


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sample(directory: Path, *arguments: str) -> int:
    return gan_sample([str(directory), "--modules=toy", *arguments])


def random_image(*shape: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**bits, shape, np.uint8 if bits == 8 else np.uint16)


def kernel(directory: Path) -> np.ndarray:
    return np.asarray(restore.restore_run(directory, modules=["toy"]).state.params["generator"]["kernel"])


def expected(directory: Path, image: np.ndarray, bits: int = 8) -> np.ndarray:
    """The translation a W of a stored image ``[h, w, c]``, as a stored image."""
    half = (2**bits - 1) / 2
    return np.clip(np.rint((image / half - 1) @ kernel(directory) * half + half), 0, 2 * half)


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and np.abs(found.astype(float) - wanted).max() <= 1  # rounding


def save(path: str, image: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def opened(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pictures_keep_their_names_and_sizes(run, capsys):
    """No picture is resized or cropped, also if its sides are no multiples of 4. The rest of a folder is translated
    if a file is damaged, and a batch of pictures of equal size equals the single pictures."""
    sizes = {"one": (8, 8), "two": (8, 8), "x/odd": (7, 13), "x/y/small": (1, 2), "large": (40, 25)}
    images = {name: random_image(*size, 1, seed=i) for i, (name, size) in enumerate(sizes.items())}
    for name, image in images.items():
        save(f"in/{name}.png", image)
    Path("in/bad.jpg").write_text("nothing")
    assert sample(run(), "--task=a_to_b", "--input=in", "--out=out") == 0
    told = capsys.readouterr()
    assert (
        told.out == "5 pictures (1 skipped) of step 2: out\n"
        and told.err.count("\n") == 1
        and "bad.jpg" in told.err
    )
    found = {path.relative_to("out").as_posix(): path for path in Path("out").rglob("*.png")}
    assert sorted(found) == sorted(f"{name}.png" for name in sizes)
    for name, image in images.items():
        assert close(opened(f"out/{name}.png"), expected(run(), image))
    assert sample(run(), "--task=a_to_b", "--input=in/x/odd.png", "--out=odd.png") == 0
    np.testing.assert_array_equal(opened("odd.png"), opened("out/x/odd.png"))
    np.savez("in.npz", a=np.stack([images["one"], images["two"]]))
    assert sample(run(), "--task=a_to_b", "--input=in.npz", "--out=out.npz") == 0
    np.testing.assert_array_equal(np.load("out.npz")["b"][1], opened("out/two.png"))
    np.save("in.npy", images["x/odd"][None])
    assert sample(run(), "--task=cycle_a", "--input=in.npy", "--out=odd.npz") == 0
    np.testing.assert_array_equal(np.load("odd.npz")["b"][0], opened("odd.png"))
    assert close(np.load("odd.npz")["cycle"][0], expected_cycle(run(), images["x/odd"]))
    before = sorted(Path("out").rglob("*"))
    assert sample(run(), "--task=a_to_b", "--input=in/x", "--out=out", "--overwrite") == 0
    assert sorted(path.as_posix() for path in Path("out").rglob("*.png")) == ["out/odd.png", "out/y/small.png"]
    assert before != sorted(Path("out").rglob("*")) and not Path("out/x").exists()


def expected_cycle(directory: Path, image: np.ndarray) -> np.ndarray:
    own = kernel(directory)
    return np.clip(np.rint((image / 127.5 - 1) @ own @ own.T * 127.5 + 127.5), 0, 255)


def test_colours_are_those_of_the_model(run, capsys):
    """Colours become grey, and transparent pictures are blended with white, which is said once."""
    save("in/grey.png", random_image(9, 10, 1))
    save("in/colour.png", random_image(9, 10, 3))
    save("in/clear.png", random_image(9, 10, 4))
    save("in/clear2.png", random_image(9, 10, 4, seed=1))
    deep = random_image(9, 10, 3, bits=16)
    Path("in/deep.png").write_bytes(pictures.file_of(deep)[1])
    assert sample(run(), "--task=a_to_b", "--input=in", "--out=out") == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "blended with white" in told[0] and "converted to 8 bits" in told[1]
    for name in ("grey", "colour", "clear", "clear2", "deep"):
        grey = decode(Path(f"in/{name}.png").read_bytes(), None, 1)
        assert close(opened(f"out/{name}.png"), expected(run(), grey))


def test_opacity_and_16_bits_are_kept(run):
    """A model of 16 bits and four channels writes PNG files of 16 bits with opacity."""
    deep = random_image(6, 5, 4, bits=16)
    Path("in").mkdir()
    Path("in/deep.png").write_bytes(pictures.file_of(deep)[1])
    save("in/eight.png", random_image(6, 7, 4))
    directory = run(4, 4, 16)
    assert sample(directory, "--task=a_to_b", "--input=in", "--out=out") == 0
    assert close(decode(Path("out/deep.png").read_bytes(), None, 4, 16), expected(directory, deep, 16))
    eight = opened("in/eight.png").astype(np.uint16) * 257
    eight[eight[..., 3] == 0, :3] = 65535  # colours of transparent pixels are arbitrary
    assert close(decode(Path("out/eight.png").read_bytes(), None, 4, 16), expected(directory, eight, 16))
    grey = random_image(3, 8, 1, bits=16)
    Path("grey.png").write_bytes(pictures.file_of(grey)[1])
    assert opened("grey.png").dtype == np.uint16
    np.testing.assert_array_equal(opened("grey.png"), grey[..., 0])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_files_of_16_bits(channels):
    """Pillow reads the high bytes, and the metadata; the values survive a round trip."""
    image = random_image(5, 7, channels, bits=16)
    if channels == 4:
        image[..., 3] = np.maximum(image[..., 3], 1)
    suffix, content = pictures.file_of(image, "gan-sample")
    assert suffix == ".png"
    np.testing.assert_array_equal(decode(content, None, channels, 16), image)
    with Image.open(io.BytesIO(content)) as read:
        read.load()
        assert read.info["Software"] == "gan-sample" and read.size == (7, 5)
        if channels > 1:
            np.testing.assert_array_equal(np.asarray(read), image >> 8)


def test_images_without_colours(run, capsys):
    """Images of two channels become .npy files in a folder; pictures show the first channel in grey."""
    directory, images = run(2, 2), random_image(3, 6, 5, 2)
    np.save("in.npy", images)
    assert sample(directory, "--task=a_to_b", "--input=in.npy", "--out=out") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["00000.npy", "00001.npy", "00002.npy"]
    assert close(np.load("out/00002.npy"), expected(directory, images[2]))
    assert sample(directory, "--task=a_to_b", "--input=in.npy", "--num=2", "--out=out", "--overwrite") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["00000.npy", "00001.npy"]
    np.save("out/other.npy", images)
    assert sample(directory, "--task=a_to_b", "--input=in.npy", "--out=out", "--overwrite") == 2
    assert "holds other.npy, which gan-sample did not write" in capsys.readouterr().err
    assert sample(directory, "--task=a_to_b", "--input=in.npy", "--out=all.png") == 0
    shown = opened("all.png")
    zoom = 56 // 6
    assert shown.shape == (2 * (6 * zoom + 2) + 2, 3 * (5 * zoom + 2) + 2)
    np.testing.assert_array_equal(shown[2 : 2 + 6 * zoom : zoom, 2 : 2 + 5 * zoom : zoom], images[0, ..., 0])
    stored = random_image(2, 2, 2, 3) * np.uint16(257)
    np.testing.assert_array_equal(pictures.shown(stored), stored // 257)


def test_each_picture_has_its_own_random_numbers(run):
    """The noise of a picture depends on its place in the order of names and on --seed, not on other sizes."""
    for i, size in enumerate([(8, 8), (4, 4), (8, 8)]):
        save(f"in/{i}.png", np.full((*size, 1), 128, np.uint8))
    drawn = {}
    for name, options in {"a": [], "b": ["--seed=1"], "c": ["--num=2"]}.items():
        assert sample(run(), "--task=noisy", "--input=in", f"--out={name}", *options) == 0
        drawn[name] = {path.stem: int(opened(str(path))[0, 0, 0]) for path in sorted(Path(name).iterdir())}
    assert len(set(drawn["a"].values())) == 3 and drawn["a"] != drawn["b"]
    assert drawn["c"] == {name: drawn["a"][name] for name in "01"}


def test_large_pictures_are_translated_in_tiles_or_refused(run, monkeypatch, capsys):
    """With little memory, tiles give the same picture. A task whose reach is not known names the size that fits."""
    image = random_image(61, 90, 1)
    save("in/large.png", image)
    monkeypatch.setattr(tiles, "memory_limit", lambda: 20_000)
    assert sample(run(), "--task=a_to_b", "--input=in", "--out=out") == 0
    assert close(opened("out/large.png"), expected(run(), image))
    assert sample(run(), "--task=noisy", "--input=in", "--out=refused") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("gan-sample: --input in: large.png: an image of 64 x 92 pixels does not fit")
    assert "fit." in told and not Path("refused").exists()
    save("in/small.png", random_image(4, 4, 1))
    assert sample(run(), "--task=noisy", "--input=in", "--out=some") == 0
    assert [path.name for path in Path("some").iterdir()] == ["small.png"]
    said = capsys.readouterr()
    assert "(1 skipped)" in said.out and said.err.endswith("fit. The picture is skipped.\n")


WRONG = [
    (["--task=b_to_a", "--input=in"], "Choose from: a_to_b, cycle_a, noisy."),
    (["--input=in"], "--task generate: this run has no such task. Choose from: a_to_b, cycle_a, noisy."),
    (["--task=a_to_b", "--input=in", "--num=3", "--out=o"], "has 2 pictures, and 3 are needed. Choose a smaller"),
    (["--task=a_to_b", "--input=in", "--out=o.npz"], "e.g. 4 x 5 and 6 x 4 pixels. Use --out FOLDER."),
    (["--task=a_to_b", "--input=empty", "--out=o"], "contains no images that can be decoded"),
    (["--task=a_to_b", "--input=damaged", "--out=o"], "contains no images that can be decoded"),
    (["--task=a_to_b", "--input=none", "--out=o"], "no such file"),
    (["--task=a_to_b", "--input=rgb.npy", "--out=o"], "has the shape [2, 4, 4, 3]. Save images [n, h, w, 1]"),
    (["--task=a_to_b", "--input=in", "--out=."], "which gan-sample did not write"),
    (["--task=a_to_b", "--input=in/4.png", "--draw=sefa", "--out=o.png"], "draws no latents"),
]


def test_wrong_input(run, capsys):
    save("in/4.png", random_image(4, 5, 1))
    save("in/6.png", random_image(6, 4, 1))
    np.save("rgb.npy", random_image(2, 4, 4, 3))
    Path("empty").mkdir()
    Path("damaged").mkdir()
    Path("damaged/a.png").write_text("nothing")
    directory, before = run(), sorted(Path.cwd().iterdir())
    for arguments, told in WRONG:
        overwrite = ["--overwrite"] if "--out=." in arguments else []
        assert sample(directory, *arguments, *overwrite) == 2, arguments
        assert told in capsys.readouterr().err.splitlines()[-1], arguments
    assert sorted(Path.cwd().iterdir()) == before
    assert sample(directory, "--task=a_to_b", "--input=in", "--out=in/out") == 0
    assert sample(directory, "--task=a_to_b", "--input=in", "--out=in/out", "--overwrite") == 0
    assert sorted(path.name for path in Path("in/out").iterdir()) == ["4.png", "6.png"]  # outputs are no inputs
    assert sample(directory, "--task=a_to_b", "--input=in/out", "--out=in/out", "--overwrite") == 2
    assert "--out in/out: contains --input in/out" in capsys.readouterr().err


def test_training_draws_inputs_outputs_and_targets(run):
    """The rows show held-out images: grey inputs, outputs in colour and the true images."""
    directory = run()
    data = restore.restore_run(directory, data=True, modules=["toy"]).experiment.dataset
    with Image.open(directory / "samples" / "a_to_b" / "2.png") as picture:
        shown = np.asarray(picture)
        assert json.loads(picture.info["Rows"]) == ["input", "output", "target"] and picture.mode == "RGB"
    cell, zoom = 56 + 2, 7
    assert shown.shape == (3 * cell + 2, 6 * cell + 2, 3)
    rows = [
        np.stack([shown[y + 2 : y + 58 : zoom, x + 2 : x + 58 : zoom] for x in range(0, 6 * cell, cell)])
        for y in range(0, 3 * cell, cell)
    ]
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_array_equal(rows[0], data.held_out["a"][order].repeat(3, axis=-1))
    for found, image in zip(rows[1], data.held_out["a"][order], strict=True):
        assert close(found, expected(directory, image))
    np.testing.assert_array_equal(rows[2], data.held_out["b"][order])
    with Image.open(directory / "samples" / "cycle_a" / "2.png") as picture:
        assert json.loads(picture.info["Rows"]) == ["input", "output", "cycle"]


def test_without_input_the_held_out_images_of_the_run_are_translated(run, monkeypatch, capsys):
    """The picture shows inputs, outputs and targets. ``--input`` is needed only where the data cannot be loaded."""
    directory = run()
    assert sample(directory, "--task=a_to_b", "--num=2") == 0
    assert "inputs: 2 held-out examples of toy images" in capsys.readouterr().out
    with Image.open("samples.png") as picture:
        shown = np.asarray(picture)
        assert json.loads(picture.info["Rows"]) == ["input", "output", "target"]
    data, order = toy.images(), np.random.default_rng(0).permutation(6)
    cell, zoom = shown.shape[0] // 3, (shown.shape[0] // 3 - 2) // 8
    for i in range(2):
        column = shown[:, 2 + i * cell : i * cell + cell : zoom]
        np.testing.assert_array_equal(column[2:cell:zoom], data.held_out["a"][order[i]].repeat(3, axis=-1))
        np.testing.assert_array_equal(column[2 + 2 * cell : 3 * cell : zoom], data.held_out["b"][order[i]])
    assert sample(directory, "--task=a_to_b", "--num=7") == 2
    assert "--num 7: there are 6 held-out examples" in capsys.readouterr().err

    def missing(*_):
        raise UserError("dataset.path=gone: there is no such folder.")

    monkeypatch.setattr(restore, "load_data", missing)
    assert sample(directory, "--task=a_to_b") == 2
    told = capsys.readouterr().err
    assert "needs the inputs `a` (images [n, h, w, 1] in 0..255). Add --input" in told and "path=gone" in told


def test_unpaired_images_have_no_target():
    """Inputs are held-out images of their domain, or training images if the domain has no held-out ones."""
    data = toy.images(paired=False)
    runner = TaskRunner(toy.Translator(data.spec), "a_to_b")
    rows = sample_writer.rows_of(runner, data, 0)
    assert rows.target is None and rows.inputs["a"].shape == (6, 8, 8, 1)
    only_b = dataclasses.replace(data, held_out={"b": data.held_out["b"]})
    rows = sample_writer.rows_of(runner, only_b, 0)
    np.testing.assert_array_equal(
        rows.inputs["a"], data.spec["a"].encode(data.arrays["a"][np.random.default_rng(0).permutation(12)])
    )
    assert sample_writer.rows_of(runner, toy.images(), 0).target.shape == (6, 8, 8, 3)


def test_an_export_translates_images_of_any_size(run):
    """Without gan_cli, the program translates images of other sizes, with the random numbers of the seed 0."""
    for task in ("a_to_b", "noisy"):
        assert sample(run(), f"--task={task}", f"--export={task}") == 0
    facts = json.loads(Path("noisy/noisy.json").read_text())
    assert facts["a"]["shape"] == ["n", "height", "width", 1] and facts["multiple"] == 4
    block = "import sys; sys.modules['gan_cli'] = sys.modules['flax'] = None\n"
    code = block + "import runpy; runpy.run_path('a_to_b/example.py')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    from safetensors.numpy import load_file

    program = jax.export.deserialize(bytearray(Path("noisy/noisy.stablehlo").read_bytes()))
    x = np.random.default_rng(0).uniform(-1, 1, (3, 12, 20, 1)).astype(np.float32)
    found = program.call(load_file("noisy/noisy.safetensors"), x)
    restored = restore.restore_run(run(), modules=["toy"])
    wanted = TaskRunner(restored.experiment.game, "noisy")(restored.state, {"a": x})["b"]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
