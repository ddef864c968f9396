"""Data of image translation: pairs and domains, their files, their crops, and wrong input."""

from __future__ import annotations

import shutil
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_cli.data import features, paired_digits, tfds
from gan_cli.data.dataset import Dataset
from gan_cli.data.digits_styles import digits_styles, enlarged
from gan_cli.data.feed import Selection
from gan_cli.data.loader import Loader
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.paired import paired
from gan_cli.data.unpaired import unpaired
from gan_cli.engine import randomness
from gan_cli.errors import UserError

KEY = jax.random.key(0)


def test_edges_and_mosaics_are_pairs_of_the_digits_of_mnist5k():
    digits = mnist5k()
    for data in (paired_digits.edges(), paired_digits.mosaic()):
        for part, of_digits in ((data.arrays, digits.arrays), (data.held_out, digits.held_out)):
            np.testing.assert_array_equal(part["b"], of_digits["x"])
            np.testing.assert_array_equal(part["label"], of_digits["label"])
            assert np.unique(part["a"]).tolist() == [0, 255]
    mosaic = paired_digits.mosaic().arrays["a"][7, ..., 0] / 255
    means = digits.arrays["x"][7, ..., 0].reshape(7, 4, 7, 4).mean((1, 3)) / 255
    np.testing.assert_array_equal(mosaic, np.kron(means > 0.3, np.ones((4, 4))))


def test_the_edges_of_a_step_are_a_double_line():
    picture = np.zeros((1, 6, 6, 1), np.uint8)
    picture[:, :, 3:] = 255
    expected = np.array([0, 0, 255, 255, 0, 0])
    np.testing.assert_array_equal(paired_digits.edge_map(picture)[0, ..., 0], np.tile(expected, (6, 1)))
    # The magnitude of a vertical step of height t is 4t / (4 sqrt 2) = t / sqrt 2, so 0.2 is reached at 72.1.
    for height, seen in ((72, 0), (73, 255)):
        assert paired_digits.edge_map(picture // 255 * np.uint8(height)).max() == seen


@pytest.mark.comparison
def test_edges_equal_those_of_scikit_image():
    filters = pytest.importorskip("skimage.filters")
    digits = mnist5k().arrays["x"][::50]
    found = np.stack([filters.sobel(digit[..., 0] / 255) > 0.2 for digit in digits])
    np.testing.assert_array_equal(paired_digits.edge_map(digits)[..., 0] > 0, found)


def test_digits_of_two_styles_are_unpaired_labelled_and_held_out_in_equal_shares():
    data = digits_styles()
    assert {name: domain.size for name, domain in data.domains.items()} == {"a": 4500, "b": 1501}
    assert all(domain.classes == 10 for domain in data.domains.values())
    of_b = np.bincount(data.held_out["label_b"])
    np.testing.assert_array_equal(
        of_b, np.bincount(np.concatenate([data.arrays["label_b"], data.held_out["label_b"]])) // 6
    )
    assert data.summary.endswith("4,500 examples of a (28, 28, 1), 1,501 examples of b (28, 28, 1)")
    assert "held out  500 examples of a, 296 examples of b" in data.lines()
    assert data.contents()["domains"]["b"]["held_out"] == 296
    b = data.only("b")
    assert (b.size, b.held_out_size, b.classes) == (1501, 296, 10)
    assert data.only_held_out().domains["b"].size == 296
    large = enlarged(np.full((1, 8, 8), 16, np.uint8))[0, ..., 0]
    assert (large[4:24, 4:24] == 255).all() and large.sum() == 255 * 20 * 20


@pytest.mark.comparison
def test_digits_of_scikit_learn():
    """The shipped file has the images and labels of scikit-learn, in the same order."""
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    with np.load(Path(paired_digits.__file__).with_name("digits8x8.npz")) as arrays:
        np.testing.assert_array_equal(arrays["images"], load_digits().images)
        np.testing.assert_array_equal(arrays["labels"], load_digits().target)


def write(file: str, image: np.ndarray) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)


def grey(value: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


@pytest.fixture(autouse=True)
def _directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


LAYOUTS = {
    "joined": "{split}{domain}/{i}.png",
    "underscore": "data/{split}_{lower}/{i}.png",
    "split first": "{split}/{domain}/{i}.png",
    "domain first": "top/{domain}/{split}/{i}.png",
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_with_splits(layout, zipped):
    for domain, base in (("A", 0), ("B", 100)):
        for split, first, number in (("train", 0, 3), ("test", 10, 2), ("val", 20, 1)):
            for i in range(first, first + number):
                name = LAYOUTS[layout].format(split=split, domain=domain, lower=domain.lower(), i=i)
                write(f"files/{name}", grey(base + i))
    path = shutil.make_archive("files", "zip", "files") if zipped else "files"
    for data in (paired(path=path), unpaired(path=path)):
        assert data.spec == {"a": features.Image(4, 6, 1), "b": features.Image(4, 6, 1)}
        assert {name: array[:, 0, 0, 0].tolist() for name, array in data.arrays.items()} == {
            "a": [0, 1, 2], "b": [100, 101, 102]
        }  # fmt: skip
        assert {name: array[:, 3, 5, 0].tolist() for name, array in data.held_out.items()} == {
            "a": [10, 11], "b": [110, 111]
        }  # fmt: skip
        assert sum(count for kind, count in data.passed_over.items() if kind == "images of the split val") == 2
        assert data.held_out_names == {"a": ("10", "11"), "b": ("10", "11")}
    assert data.domain_of == {"a": "a", "b": "b"}


@pytest.mark.parametrize("folder", ["side/train", "side"])
def test_pictures_side_by_side(folder):
    rng = np.random.default_rng(0)
    both = rng.integers(0, 256, (20, 4, 13, 3), np.uint8)  # the middle column of an odd width belongs to no half
    for i, image in enumerate(both):
        write(f"{folder}/{i:02}.png", image)
    data = paired(path="side")
    held_out = np.isin(np.arange(20), [5, 15])  # a tenth, without a folder test
    np.testing.assert_array_equal(data.arrays["a"], both[~held_out, :, :6])
    np.testing.assert_array_equal(data.arrays["b"], both[~held_out, :, 7:])
    assert len(data.held_out["b"]) == 2 and paired(path="side", hold_out=0).held_out is None
    halved = paired(path="side", resolution=2, channels_b=1)
    assert halved.arrays["a"].shape[1:] == (2, 2, 3) and halved.arrays["b"].shape[1:] == (2, 2, 1)


def test_folders_of_other_names_with_classes_and_images_of_16_bits():
    for i in range(12):
        name = f"{'cats' if i % 2 else 'dogs'}/{i}.png"
        write(f"files/photos/{name}", np.full((4, 4), 1000 * i + 7, np.uint16))
        write(f"files/paintings/{name.replace('png', 'bmp')}", np.full((4, 4, 3), i, np.uint8))
    data = paired(path="files", domains=("photos", "Paintings"), hold_out=0.25)
    assert data.spec["a"] == features.Image(4, 4, 1, bits=16) and data.spec["b"] == features.Image(4, 4, 3)
    assert (data.size, data.held_out_size, data.class_names) == (9, 3, ("cats", "dogs"))
    for part in (data.arrays, data.held_out):
        numbers = part["b"][:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(part["a"][:, 0, 0, 0], 1000 * numbers + 7)
        np.testing.assert_array_equal(part["label"], 1 - numbers % 2)
    apart = unpaired(path="files", domains=("photos", "paintings"), hold_out=0, bits=8)
    assert apart.held_out is None and apart.spec["a"].bits == 8
    np.testing.assert_array_equal(apart.arrays["label_b"], [0] * 6 + [1] * 6)
    assert apart.domains["b"].classes == 2
    assert data.held_out_names["b"] == ("cats/3", "dogs/0", "dogs/6")
    assert paired(path="files", domains=("photos", "paintings"), labelled=False).classes is None


WRONG = [
    (paired, {"path": "nothing"}, r"dataset.path=nothing: there is no such folder or zip file"),
    (unpaired, {"path": "files/trainA/0.png"}, r"the file is not a zip file"),
    (paired, {"path": "empty"}, r"there are no images in the folder or zip file"),
    (paired, {}, r"1 of the images \(3 of A and 2 of B\) have no partner of .*: trainA/2.png\. .*on_error=skip"),
    (unpaired, {"path": "files/trainA"}, r"no folders of two domains.*trainA and trainB.*choose dataset=paired"),
    (unpaired, {"domains": ("A", "C")}, r"no training images of the domain C.*folder trainC"),
    (paired, {"domains": ("A", "train")}, r"dataset.domains=\[A,train\]: .*different names"),
    (unpaired, {"domains": ("A", "a")}, r"dataset.domains=\[A,a\]: .*different names"),
    (unpaired, {"resolution": None, "path": "sizes"}, r"dataset.resolution=null: .*6x4 \(trainA/0.png\) and 8x4"),
    (unpaired, {"load": 5}, r"dataset.load=\[5, 5\]: must be at least as large as the crops, which are 4x6"),
    (unpaired, {"path": "more"}, r"A and B have different class folders; .*birds, dogs.*dataset.labelled=false"),
    (unpaired, {"labelled": True}, r"dataset.labelled=true: not every training image"),
    (unpaired, {"path": "only"}, r"there are no training images, only the splits test"),
    (paired, {"path": "twice"}, r"trainA/0.bmp, trainA/0.png differ in the suffix only"),
    (unpaired, {"on_error": "refuse", "path": "bad"}, r"trainB/1.png: the image cannot be decoded"),
    (paired, {"path": "scans"}, r"contains NIfTI files, which only dataset=folder reads"),
    (unpaired, {"path": "tfds:horses", "bits": 8}, r"dataset.bits=8: an option of files"),
    (unpaired, {"path": "tfds:horses", "domains": ("x", "y")}, r"dataset.domains=\[x,y\]: an option of files"),
    (unpaired, {"path": "tfds:horses", "resolution": 9, "load": 8}, r"dataset.load=\[8, 8\]: must be at least"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "options", "message"), WRONG, ids=[message[:40] for *_, message in WRONG])
def test_wrong_input_is_refused(read, options, message):
    for domain, number in (("A", 3), ("B", 2)):
        for i in range(number):
            write(f"files/train{domain}/{i}.png", grey(i))
            write(f"bad/train{domain}/{i}.png", grey(i))
            write(f"only/test{domain}/{i}.png", grey(i))
        write(f"sizes/train{domain}/0.png", grey(0, width=6 if domain == "A" else 8))
        write(f"twice/train{domain}/0.png", grey(0))
        for name in ("cats", "dogs" if domain == "A" else "birds"):
            write(f"more/{domain}/{name}/0.png", grey(0))
    write("twice/trainA/0.bmp", grey(0))
    Path("bad/trainB/1.png").write_bytes(b"no image")
    Path("empty").mkdir()
    Path("scans/trainA").mkdir(parents=True)
    Path("scans/trainA/0.nii").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        read(**{"path": "files"} | options)


def test_arrays_of_any_number_of_channels():
    for domain in "AB":
        Path(f"arrays/train{domain}").mkdir(parents=True)
        for i in range(3):
            np.save(
                f"arrays/train{domain}/{i}.npy", np.full((4, 6, 5 if domain == "A" else 2), 1000 * i, np.uint16)
            )
    data = paired(path="arrays")
    assert data.spec == {"a": features.Image(4, 6, 5, bits=16), "b": features.Image(4, 6, 2, bits=16)}
    assert data.arrays["a"][:, 3, 5, 4].tolist() == [0, 1000, 2000]


def test_dicom_files_are_read_without_the_names_of_patients(caplog):
    sample = Path(pytest.importorskip("pydicom.data").get_testdata_file("CT_small.dcm")).read_bytes()
    for i, name in enumerate(("DOE", "ROE", "POE")):
        for domain in "AB":
            file = Path(f"scans/train{domain}/{name}/{i}.dcm")
            file.parent.mkdir(parents=True)
            file.write_bytes(sample if i else sample[:2000])
    data = paired(path="scans", on_error="skip", stream=False, hold_out=0)
    assert data.spec["a"] == features.Image(128, 128, 1, bits=16) and data.size == 2 and not data.class_names
    assert len(np.unique(data.arrays["a"])) > 256
    assert "file 1 of 6 in the order of their names" in caplog.text and "DOE" not in caplog.text
    assert paired(path="scans", on_error="skip", stream=True, labelled=True).class_names == ("0", "1", "2")


@pytest.mark.parametrize("halves", [False, True])
def test_without_a_resolution_images_of_other_sizes_are_refused(halves, caplog):
    """Also beyond the 64 files whose headers are read at the start."""
    for i in range(65):
        for name in ("train",) if halves else ("trainA", "trainB"):
            write(f"files/{name}/{i:02}.png", grey(i, width=8 if i == 63 else 6))
    with pytest.raises(UserError, match=r"63\.png: .*it has [48]x4 pixels, and other images [36]x4; .*resolution"):
        paired(path="files")
    data = paired(path="files", on_error="skip", hold_out=0)
    assert data.size == 64 and data.arrays["b"].shape[2] == (3 if halves else 6) and "63.png" in caplog.text


def test_incomplete_pairs_are_skipped_and_named(caplog):
    for domain, number in (("A", 6), ("B", 4)):
        for i in range(number):
            write(f"files/train{domain}/{i}.png", grey(i))
    Path("files/trainB/1.png").write_bytes(b"no image")
    data = paired(path="files", on_error="skip", stream=False)
    assert data.arrays["a"][:, 0, 0, 0].tolist() == data.arrays["b"][:, 0, 0, 0].tolist() == [0, 2, 3]
    assert "trainA/4.png, trainA/5.png" in caplog.text and "trainB/1.png" in caplog.text
    assert data.passed_over["images without a partner"] == 2
    assert data.passed_over["pairs that cannot be decoded"] == 1
    streamed = paired(path="files", on_error="skip", stream=True)
    np.testing.assert_array_equal(streamed.take(np.array([1]))["a"], data.arrays["a"][1:2])


def places(read, **options) -> Dataset:
    """Data with images whose values state their row, their column and their number."""
    if not Path("places").exists():
        rows, columns = np.mgrid[:6, :7]
        for i in range(24):
            for domain in "AB":
                image = np.stack([rows * 10, columns * 10, np.full((6, 7), 10 * i)], axis=-1)
                write(f"places/train{domain}/{i:02}.png", image.astype(np.uint8))
    return read(**{"path": "places", "resolution": (4, 4), "load": (6, 7), "flip": True, "hold_out": 0} | options)


def test_the_images_of_a_pair_are_cropped_and_mirrored_alike():
    seen = {}
    for read in (paired, unpaired):
        data = places(read)
        batches = [randomness.batch_of(data, 0, 24, number) for number in range(6)]
        seen[read] = {name: np.concatenate([np.rint((x[name] + 1) * 127.5) for x in batches]) for name in "ab"}
    for x in (seen[paired]["a"], seen[unpaired]["a"], seen[unpaired]["b"]):
        tops, columns = x[:, 0, 0, 0] // 10, x[:, 0, :, 1] // 10
        mirrored = columns[:, 0] > columns[:, 3]
        lefts = columns.min(1)
        assert np.bincount(tops.astype(int), minlength=3).min() > 24  # of 144; 48 are expected for each
        assert np.bincount(lefts.astype(int), minlength=4).min() > 18  # 36 are expected
        assert 48 < mirrored.sum() < 96
        np.testing.assert_array_equal(np.abs(np.diff(columns)), 1)
    np.testing.assert_array_equal(seen[paired]["a"], seen[paired]["b"])
    # The first domain has the crops of a data set with one domain, and the second has others.
    np.testing.assert_array_equal(seen[unpaired]["a"], seen[paired]["a"])
    crops = [
        np.stack([x[:, 0, 0, 0], x[:, 0, :, 1].min(1), x[:, 0, 0, 1] > x[:, 0, 3, 1]])
        for x in seen[unpaired].values()
    ]
    assert (crops[0] == crops[1]).all(0).mean() < 0.2  # 1 of 24 is expected


def test_held_out_images_and_features_are_not_cropped_at_random():
    data = places(unpaired)
    assert data.held_out == {} or data.held_out is None
    assert data.spec["a"].stored_shape == (6, 7, 3) and data.only("b").arrays["x"].shape[1:] == (6, 7, 3)
    write("places/testB/0.png", np.zeros((9, 9, 3), np.uint8))
    data = places(unpaired)
    assert "no images of A are held out, so that metrics use its training images" in data.notes[0]
    assert data.held_out["b"].shape == (1, 4, 4, 3) and "a" not in data.held_out and data.held_out_size == 0
    assert data.only("b").held_out_size == 1 and data.only("a").held_out is None
    assert data.only_held_out().size == 1
    centre = data.arrays["a"][:, 1:5, 1:5]
    np.testing.assert_allclose(data.spec["a"].encode(data.arrays["a"]), centre / np.float32(127.5) - 1)


@pytest.mark.parametrize("read", [paired, unpaired])
def test_streamed_batches_equal_those_in_memory_at_every_step(read):
    resident, streamed = places(read, stream=False), places(read, stream=True)
    assert streamed.streams and not resident.streams and streamed.domains.keys() == resident.domains.keys()
    assert streamed.only("b").take(np.array([3]))["x"].shape == (1, 6, 7, 3)
    assert streamed.fingerprint() == places(read, stream=True).fingerprint()
    loader = Loader(
        streamed,
        lambda step, length: [jax.tree.map(np.asarray, randomness.order(streamed.feed, 5, step, length, 1, 6))],
        stack=False,
        place=lambda tree: tree,
    )
    later = loader.get(3, 2, 0)  # a resumed run begins at step 3
    loader.close()
    for step in (3, 4):
        expected = randomness.batch_of(resident, 5, 6, step)
        key = randomness.batch_keys(5, step, 1)[0]
        found = streamed.feed.batch(None, {name: array[step - 3, 0] for name, array in later.items()}, key)
        selected = jax.tree.map(lambda leaf: leaf[0, 0], randomness.order(resident.feed, 5, step, 1, 1, 6))
        on_device = resident.feed.batch(resident.arrays, selected, key)
        for name in "ab":
            np.testing.assert_array_equal(found[name], expected[name])
            np.testing.assert_array_equal(on_device[name], expected[name])


def test_data_with_one_image_keep_the_mirrored_images_of_earlier_versions():
    data = Dataset(
        "x", {"x": features.Image(2, 2, 1)}, {"x": np.arange(256, dtype=np.uint8).reshape(64, 2, 2, 1)}, flip=True
    )
    selection = Selection({"": jnp.arange(64)})
    mirrored = jax.random.bernoulli(KEY, 0.5, (64, 1, 1, 1))
    plain = data.feature.encode(jnp.asarray(data.arrays["x"]))
    expected = np.where(mirrored, plain[:, :, ::-1], plain)
    np.testing.assert_array_equal(data.feed.batch(data.arrays, selection, KEY)["x"], expected)


@pytest.mark.parametrize("stream", [False, True])
def test_domains_of_tfds(monkeypatch, stream):
    sizes = {"trainA": 5, "trainB": 7, "testA": 2, "testB": 3}

    class Builder:
        data_path = Path()
        info = types.SimpleNamespace(
            file_format=types.SimpleNamespace(value="array_record"),
            features={"image": types.SimpleNamespace(shape=(None, None, 3))},
            splits=sizes,
            version="3.0.0",
        )

        def as_data_source(self, split):
            value = list(sizes).index(split) * 10
            return [{"image": np.full((9, 11, 3), value + i, np.uint8), "label": 0} for i in range(sizes[split])]

    monkeypatch.setattr(tfds, "_builder", lambda module, full, directory: Builder())
    data = unpaired(path="tfds:cycle_gan/horse2zebra:3.0.0", resolution=4, load=6, stream=stream)
    assert {name: domain.size for name, domain in data.domains.items()} == {"a": 5, "b": 7}
    assert data.spec["b"] == features.Image(4, 4, 3, load=(6, 6))
    assert {name: array[:, 0, 0, 0].tolist() for name, array in data.held_out.items()} == {
        "a": [20, 21], "b": [30, 31, 32]
    }  # fmt: skip
    taken = data.take({"a": np.arange(2), "b": np.arange(7)})
    assert taken["a"].shape == (2, 6, 6, 3) and taken["b"][:, 5, 0, 1].tolist() == list(range(10, 17))
    with pytest.raises(UserError, match=r"dataset.resolution=null: the images of cycle_gan/horse2zebra"):
        unpaired(path="tfds:cycle_gan/horse2zebra")
    monkeypatch.setattr(Builder, "as_data_source", lambda self, split: {}[split])
    with pytest.raises(UserError, match=r"dataset.path=tfds:horses: the data set has no split trainA"):
        unpaired(path="tfds:horses", resolution=4)
