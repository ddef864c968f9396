"""Images as they are: sizes that are not square, one to four channels, transparency, AVIF and HEIC."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import nnx
from PIL import Image
from PIL import features as pillow

import gan_cli
from gan_cli import augment, transforms
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.sample import main as gan_sample
from gan_cli.config.build import experiment
from gan_cli.config.check import convert
from gan_cli.config.reference import type_text
from gan_cli.data import features, images
from gan_cli.data.dataset import Dataset
from gan_cli.data.external import external_samples
from gan_cli.data.folder import folder
from gan_cli.data.inputs import read_inputs
from gan_cli.data.tfds import Records
from gan_cli.errors import UserError
from gan_cli.metrics import inception
from gan_cli.models import conditional, dcgan, mlp, pacgan, r3gan, resnet
from gan_cli.models.layers import stages
from gan_cli.types import Resolution
from gan_cli.views import pictures

KEY = jax.random.key(0)
WIDE = features.Image(24, 40, 4)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep_png(values: tuple[int, ...] | np.ndarray) -> bytes:
    """A PNG file with 16 bits for each channel: grey, grey and opacity, RGB or RGBA. A tuple is a single pixel."""
    pixels = np.array(values, ">u2").reshape(*(np.shape(values) if np.ndim(values) == 3 else (1, 1, -1)))
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels)),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def palette() -> bytes:
    """A palette image of a red and a fully transparent half."""
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1, 0, 1])
    return encoded(image, transparency=1)


def test_a_resolution_is_a_side_or_height_and_width():
    assert convert(32, Resolution) == 32 and convert([24, 40], Resolution) == [24, 40]
    assert type_text(Resolution) == "whole number >= 1 or [whole number >= 1, whole number >= 1]"
    for wrong, words in [
        ([24], "must be a list of 2 values"),
        ([0, 24], "must be at least 1"),
        (0, "must be at least 1"),
        ("ab", "must be a whole number"),
    ]:
        with pytest.raises(ValueError, match=words):
            convert(wrong, Resolution)


# What becomes of the top left pixel with 1, 3 and 4 channels. Half of red on white is (255, 127, 127).
@pytest.mark.parametrize(
    ("content", "grey", "colour", "opaque"),
    [
        (encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 128))), 165, (255, 127, 127), (255, 0, 0, 128)),
        (encoded(Image.new("LA", (4, 4), (0, 128))), 127, (127,) * 3, (0, 0, 0, 128)),
        (encoded(Image.new("RGB", (4, 4), "red"), transparency=(255, 0, 0)), 255, (255,) * 3, (255,) * 3 + (0,)),
        (palette(), 76, (255, 0, 0), (255, 0, 0, 255)),
        (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), 76, (255, 0, 0), (255, 0, 0, 255)),
        (deep_png((32896,)), 128, (128,) * 3, (128,) * 3 + (255,)),
        (deep_png((65535, 0)), 255, (255,) * 3, (255,) * 3 + (0,)),
        (deep_png((65535, 0, 0)), 76, (255, 0, 0), (255, 0, 0, 255)),
        (deep_png((65535, 0, 0, 32896)), 165, (255, 127, 127), (255, 0, 0, 128)),
    ],
    ids=["RGBA", "LA", "RGB with a key", "palette", "CMYK", "grey 16", "LA 16", "RGB 16", "RGBA 16"],
)
def test_every_colour_mode_with_every_number_of_channels(content, grey, colour, opaque):
    for channels, expected in ((1, (grey,)), (3, colour), (4, opaque)):
        side = 2 if content == palette() else 1
        np.testing.assert_allclose(images.decode(content, side, channels)[0, 0], expected, atol=1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_kept_and_converted(channels):
    """All 16 bits of PNG files survive; 8 bits are the rounded share of the range, and fill 16 bits times 257."""
    deep = np.random.default_rng(channels).integers(1, 65536, (5, 7, channels), np.uint16)
    deep[..., -1] |= 256  # the opacity is not 0 with 8 bits either
    content = deep_png(deep)
    kept = images.decode(content, None, channels, 16)
    np.testing.assert_array_equal(kept, deep)
    flat = images.decode(content, None, channels)
    assert flat.dtype == np.uint8 and np.abs(flat - deep / 257).max() <= 1
    shallow = encoded(Image.fromarray(np.squeeze(flat)))
    size = None if channels == 2 else 4
    expected = 257 * images.decode(shallow, size, channels).astype(int)
    np.testing.assert_array_equal(images.decode(shallow, size, channels, 16), expected)
    for other in (1, 3, 4):  # colours change as with 8 bits
        found, expected = (images.decode(content, None, other, bits).astype(float) for bits in (8, 16))
        assert np.abs(expected / 257 - found).max() < 2


@pytest.mark.parametrize(("order", "compression"), [("<", 1), (">", 1), ("<", 8), (">", 8)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_files_of_16_bits(order, compression, channels):
    """TIFF files in both byte orders, without compression and with Deflate, written by hand."""
    deep = np.random.default_rng(0).integers(1, 65536, (6, 5, channels), np.uint16)
    strip = deep.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if compression == 8 else strip
    offset = 8 + len(strip) + len(strip) % 2
    tags = [(256, 4, [5]), (257, 4, [6]), (258, 3, [16] * channels), (259, 3, [compression])]
    tags += [(262, 3, [2 if channels > 1 else 1]), (273, 4, [8]), (277, 3, [channels]), (278, 4, [6])]
    tags += [(279, 4, [len(strip)]), (284, 3, [1])] + ([(338, 3, [2])] if channels == 4 else [])
    beyond, entries = offset + 2 + 12 * len(tags) + 4, b""
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    for tag, kind, values in tags:
        code = {3: "H", 4: "I"}[kind]
        data = struct.pack(f"{order}{len(values)}{code}", *values)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values))
        entries += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", beyond)
    content = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, offset) + strip.ljust(
        offset - 8, b"\0"
    )
    content += struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + bits
    np.testing.assert_array_equal(images.decode(content, None, channels, 16), deep)


def test_any_number_of_channels_comes_from_pages_and_arrays():
    deep = np.random.default_rng(0).integers(0, 65536, (6, 5, 7), np.uint16)
    pages = [Image.fromarray(deep[..., i]) for i in range(7)]
    array = io.BytesIO()
    np.save(array, deep)
    for content in (encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), array.getvalue()):
        np.testing.assert_array_equal(images.decode(content, None, 7, 16), deep)
        small = images.decode(content, 3, 7)
        assert small.shape == (3, 3, 7) and small.dtype == np.uint8
        with pytest.raises(images.BadImage, match=r"7 (channels|pages)"):
            images.decode(content, None, 5)
    with pytest.raises(images.BadImage, match="has 3 channels, not 5"):
        images.decode(encoded(Image.new("RGB", (4, 4))), None, 5)
    for values, words in (
        (np.zeros(3), "shape"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.zeros((2, 2), complex), "type"),
    ):
        array = io.BytesIO()
        np.save(array, values)
        with pytest.raises(images.BadImage, match=words):
            images.decode(array.getvalue(), None, 1)


def test_examples_of_16_bits_are_evaluated_and_read_as_inputs(tmp_path):
    """Arrays of both numbers of bits have the same meaning to networks and metrics."""
    deep, flat = features.Image(4, 4, 1, 16), features.Image(4, 4, 1)
    values = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
    np.savez("flat.npz", samples=values)
    np.savez("deep.npz", samples=values.astype(np.uint16) * 257)
    for feature in (deep, flat):
        for name in ("flat", "deep"):
            found = external_samples(Path(f"{name}.npz"), feature)
            assert found.feature.bits == {"flat": 8, "deep": 16}[name]
            np.testing.assert_allclose(found.feature.encode(found.arrays["x"]), flat.encode(values), atol=1e-6)
    np.testing.assert_array_equal(read_inputs(Path("flat.npz"), {"x": deep})[0]["x"], values.astype(int) * 257)
    np.testing.assert_array_equal(read_inputs(Path("deep.npz"), {"x": deep})[0]["x"], values.astype(int) * 257)
    with pytest.raises(UserError, match=r"has values from .* Save images \[n, 4, 4, 1\] in 0\.\.255"):
        read_inputs(Path("deep.npz"), {"x": flat})


def test_an_image_is_cropped_to_the_shape_and_hidden_colours_do_not_bleed():
    """The middle of a tall image is kept, and the colour of a transparent pixel does not enter its neighbours."""
    tall = np.zeros((90, 20, 3), np.uint8)
    tall[35:55] = 255
    assert images.decode(encoded(Image.fromarray(tall)), (10, 20), 3).min() == 255
    assert images.decode(encoded(Image.fromarray(tall)), (10, 20), 4).shape == (10, 20, 4)
    hidden = np.zeros((40, 40, 4), np.uint8)
    hidden[..., 1], hidden[10:30, 10:30] = 255, (255, 0, 0, 255)  # a red square on invisible green
    found = images.decode(encoded(Image.fromarray(hidden)), 15, 4)
    assert 0 in found[..., 3] and 255 in found[..., 3] and (found[..., 1][found[..., 3] > 0] < 8).all()
    assert (found[found[..., 3] == 0] == (255, 255, 255, 0)).all()


def test_hidden_colours_do_not_bleed_in_16_bits_either():
    """Colours are resized in proportion to their opacity, as Pillow resizes RGBA."""
    values = np.zeros((8, 8, 4), np.float32)
    values[:, :3] = (1, 0, 0, 0)  # hidden red
    values[:, 3:] = (0, 1, 0, 1)
    small = images.fitted_values(values, (4, 4, 4), 16)
    eight = images.fitted(Image.fromarray(np.uint8(values * 255)), (4, 4, 4))
    seen = small[..., 3] > 1000
    assert small[seen][:, 0].max() == 0 and small[seen][:, 1].min() == 65535
    np.testing.assert_allclose(small / 257, eight, atol=1.5)


def test_a_turned_jpeg_is_decoded_at_full_detail():
    """The EXIF orientation exchanges the sides after JPEG's decoder has chosen the reduced size."""
    stripes = np.zeros((64, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(stripes), "JPEG", exif=exif, quality=95)
    found = images.decode(turned, (1024, 32), 1)
    assert found.shape == (1024, 32, 1) and abs(found.astype(int).mean() - 127) < 3
    image = Image.open(io.BytesIO(turned))
    image.draft("RGB", (2048, 2048))
    assert image.size == (2048, 64)


@pytest.mark.skipif(not pillow.check("avif"), reason="this build of Pillow cannot read AVIF")
def test_avif_files_are_read_with_their_transparency():
    Path("new").mkdir()
    Image.new("RGBA", (60, 40), (0, 0, 255, 128)).save("new/a.avif")
    data = folder(path="new", resolution=(24, 40), channels=4)
    assert data.feature.shape == (24, 40, 4)
    np.testing.assert_allclose(data.examples["x"][0, 0, 0], (0, 0, 255, 128), atol=4)


def test_heic_files_are_read_or_passed_over_with_the_remedy():
    Path("phone").mkdir()
    Image.new("RGB", (60, 40), "red").save("phone/a.png")
    if ".heic" in images.SUFFIXES:
        Image.new("RGB", (60, 40), "blue").save("phone/b.heic", "HEIF")
        assert folder(path="phone", resolution=8).examples["x"][:, 0, 0, 2].tolist() == pytest.approx(
            [0, 255], abs=5
        )
        return
    for name in ("b.heic", "c.HEIC"):
        Path("phone", name).write_bytes(b"\0\0\0\x18ftypheic")
    data = folder(path="phone", resolution=8)
    assert data.size == 1 and data.passed_over == {".heic files (to read HEIC: pip install pillow-heif)": 2}


def test_tfds_images_keep_their_opacity():
    class Source(list):
        pass

    pixels = np.full((24, 40, 4), (255, 0, 0, 128), np.uint8)
    for shape, expected in (((24, 40, 4), (255, 0, 0, 128)), ((8, 8, 3), (255, 127, 127))):
        records = Records(Source([{"image": pixels}]), "own", "image", shape, "refuse", ())
        np.testing.assert_allclose(records.read(0)["x"][0, 0], expected, atol=1)
        assert records.read(0)["x"].shape == shape


@pytest.mark.parametrize("family", [mlp, dcgan, resnet, r3gan, pacgan])
@pytest.mark.parametrize("wrapper", [None, *conditional.DISCRIMINATORS.values()])
def test_networks_generate_wide_images_of_four_channels(family, wrapper):
    size = {"width": 4}

    def run():
        rngs = nnx.Rngs(0)
        generator = family.Generator(WIDE, 3, rngs, **size)
        x = generator(jnp.zeros((2, 3)), train=True, key=KEY)
        if wrapper is None:
            return x, family.Discriminator(WIDE, rngs, **size)(x, train=True, key=KEY)
        model = gan_cli.models.Model(
            latent_dim=3, generator=None, discriminator=lambda s, r: family.Discriminator(s, r, **size)
        )
        return x, wrapper(model, WIDE, 3, rngs)(x, jnp.zeros(2, jnp.int32), train=True, key=KEY)

    made, logits = jax.eval_shape(run)
    assert made.shape == (2, 24, 40, 4) and jax.tree.leaves(logits)[0].shape == (2,)


@pytest.mark.parametrize(
    ("shape", "depth", "lowest", "doublings"),
    [
        ((28, 28), None, (7, 7), 2),
        ((64, 64), 2, (16, 16), 2),
        ((24, 40), None, (6, 10), 2),
        ((160, 96), None, (10, 6), 4),
        ((8, 200), None, (4, 100), 1),
    ],
)
def test_stages(shape, depth, lowest, doublings):
    assert stages("dcgan", features.Image(*shape, 3), depth) == (lowest, doublings)


@pytest.mark.parametrize(
    ("shape", "depth", "suggested"),
    [
        ((30, 40), None, "[28,36]"),
        ((256, 144), None, "[256,128]"),
        ((33, 33), None, "32"),
        ((6, 40), None, "[8,40]"),
        ((24, 40), 4, "64"),
        ((1, 1), None, "8"),
    ],
)
def test_a_size_that_cannot_be_generated_is_refused_with_one_that_can(shape, depth, suggested):
    with pytest.raises(UserError, match="cannot generate images of") as refused:
        stages("dcgan", features.Image(*shape, 3), depth)
    assert f"dataset.resolution={suggested}. " in str(refused.value) and "\n" not in str(refused.value)
    sides = json.loads(suggested)
    stages("dcgan", features.Image(*(sides if isinstance(sides, list) else [sides] * 2), 3), depth)


def test_changes_of_colour_leave_the_opacity_unchanged():
    """Colour operations change the first three channels as in an RGB image. Moves and holes change all four."""
    x = jax.random.uniform(KEY, (50, 8, 12, 4), minval=-1.0)
    amount = jnp.linspace(0.5, 1.5, 50)
    for change in (transforms.brightness, transforms.scale, transforms.contrast, transforms.saturation):
        changed = change(x, amount)
        np.testing.assert_array_equal(changed[..., 3], x[..., 3])
        np.testing.assert_array_equal(changed[..., :3], change(x[..., :3], amount))
        assert change(x[..., :2], amount).shape == (50, 8, 12, 2)
    equal = jnp.broadcast_to(x[..., :1], x.shape)
    moved = transforms.cut_out(transforms.shift(transforms.quarter_turns(equal, KEY), KEY, 1 / 4), KEY, 0.5)
    np.testing.assert_array_equal(moved, np.broadcast_to(moved[..., :1], moved.shape))
    colours = augment.diffaugment(translation=False, cutout=False).apply(x, KEY, 0, ())
    np.testing.assert_array_equal(colours[..., 3], x[..., 3])
    assert (np.asarray(colours != x)[..., :3]).mean() > 0.9


def test_augmentations_of_wide_images():
    x = jax.random.uniform(KEY, (200, 8, 12, 3))
    turned = np.asarray(transforms.quarter_turns(x, KEY))
    upside_down = (turned == np.asarray(x)[:, ::-1, ::-1]).all((1, 2, 3))
    assert (upside_down | (turned == np.asarray(x)).all((1, 2, 3))).all() and 60 < upside_down.sum() < 140
    hole = np.asarray(transforms.cut_out(jnp.ones((400, 8, 12, 1)), KEY, 0.5))[..., 0] == 0
    assert hole.sum((1, 2)).max() == 24  # 4 x 6 pixels
    adaptive = augment.adaptive()
    assert adaptive.apply(x, KEY, 0, {"p": jnp.float32(0.9)}).shape == x.shape


def test_inception_blends_rgba_with_white(monkeypatch):
    seen = []
    monkeypatch.setattr(inception, "_network", lambda params, x: seen.append(np.asarray(x[:, 0, 0])))
    inception.apply({}, jnp.full((1, 6, 9, 4), jnp.array([255, 0, 51, 51]), jnp.uint8))
    np.testing.assert_allclose(seen[0], (np.array([[255, 204, 214.2]]) - 128) / 128, atol=1e-5)


def test_a_grid_of_transparent_images_is_transparent():
    rng = np.random.default_rng(0)
    made = rng.integers(0, 256, (6, 60, 70, 4), np.uint8)
    pictures.write(Path("grid.png"), pictures.grid(made, columns=3), None)
    with Image.open("grid.png") as image:
        assert image.mode == "RGBA"
        pixels = np.asarray(image)
    for i, one in enumerate(made):
        top, left = i // 3 * 62 + 2, i % 3 * 72 + 2
        np.testing.assert_array_equal(pixels[top : top + 60, left : left + 70], one)
    assert (pixels[:2, :, 3] == 0).all()
    maps = pictures.maps(made, [np.ones((6, 10, 10))])
    assert maps.mode == "RGBA" and np.asarray(maps)[70, 10].tolist() == [255] * 4
    with Image.open(io.BytesIO(pictures.animate([image, image]))) as gif:
        white = np.asarray(gif.convert("RGB"))[0, 0]
    np.testing.assert_array_equal(white, 255)


def write_drawings(n: int = 24) -> None:
    """Coloured discs and boxes on a transparent ground, 30 x 50 pixels, in two classes."""
    rng = np.random.default_rng(0)
    for i in range(n):
        pixels = np.zeros((30, 50, 4), np.uint8)
        pixels[5:20, i : i + 20] = (*rng.integers(0, 256, 3), 200)
        file = Path("drawings", "ab"[i % 2], f"{i:02}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


@pytest.mark.slow
def test_a_run_of_wide_transparent_images_from_training_to_evaluation(capsys):
    """Training with all pictures, a resumed run, all kinds of samples, and gan-eval with every source."""
    write_drawings()
    options = ["dataset=folder", "dataset.path=drawings", "dataset.resolution=[24,40]", "dataset.channels=4"]
    options += ["dataset.flip=true", "augment=[diffaugment]", "train.sample_every=8", "train.eval_samples=16"]
    options += ["model=dcgan", "metric=[sliced_wasserstein]", "features=pixels", "logger=[tensorboard]"]
    run = gan_cli.train([*TINY, *options, "name=x"], quiet=True)
    for name in ("real", "8", "seen/8"):
        with Image.open(run.directory / "samples" / f"{name}.png") as image:
            assert image.mode == "RGBA"
    facts = json.loads((run.directory / "run.json").read_text())
    assert facts["config"]["dataset"]["resolution"] == [24, 40]
    image = {"kind": "Image", "height": 24, "width": 40, "channels": 4}
    assert facts["spec"] == {"x": image, "label": {"kind": "Label", "classes": 2}}
    gan_cli.train(["resume=outputs/x", "train.steps=12"], quiet=True)
    for out in ("s.png", "s.gif", "s.npz", "s", "i.png --draw=interpolation", "a.png --draw=activations"):
        assert gan_sample(["outputs/x", "--num=4", f"--out={out.split()[0]}", *out.split()[1:]]) == 0
    with Image.open("s/00003.png") as image, Image.open("s.png") as together:
        assert image.mode == together.mode == "RGBA" and image.size == (40, 24)
    with np.load("s.npz") as arrays:
        assert arrays["samples"].shape == (4, 24, 40, 4)
    common = ["--features=pixels", "--metrics=sliced_wasserstein", "--num=16"]
    assert gan_eval(["outputs/x", "s", "s.npz", *common, "--json=own.json"]) == 0
    assert gan_eval(["outputs/x", "s", *common, "--reference=drawings", "--json=other.json"]) == 0
    own, other = json.loads(Path("own.json").read_text()), json.loads(Path("other.json").read_text())
    # The images of the reference are resized to the samples, as in training, so the figures are equal.
    assert [r["metrics"] for r in own[:2]] == [r["metrics"] for r in other]
    assert own[1]["metrics"] == own[2]["metrics"]  # the folder and the array hold the same samples
    assert gan_eval(["s", *common, "--reference=s", "--json=same.json"]) == 0
    assert json.loads(Path("same.json").read_text())[0]["metrics"]["sliced_wasserstein"] < 1e-3
    capsys.readouterr()


def test_sides_and_channels_leave_a_stored_square_as_it_was():
    """A run that stores one number keeps its fingerprint, and equal sides in a list give the same images."""
    write_drawings(8)
    square = folder(path="drawings", resolution=16)
    pair = folder(path="drawings", resolution=(16, 16))
    assert square.fingerprint() == pair.fingerprint() and isinstance(square, Dataset)
    whole = experiment([*TINY, "dataset=folder", "dataset.path=drawings", "dataset.resolution=16"])
    assert whole.config["dataset"]["resolution"] == 16
