"""Copied images: planted copies of every kind, the known copies of PneumoniaMNIST, and what is done about them."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from gan_cli.config.build import experiment
from gan_cli.data import duplicates
from gan_cli.data.dataset import Dataset
from gan_cli.data.duplicates import find, treated
from gan_cli.data.features import Image, Label, spec_of
from gan_cli.data.medmnist import medmnist
from gan_cli.data.mnist5k import mnist5k
from gan_cli.errors import UserError
from gan_cli.training import dry_run


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def textures(n: int, seed: int = 0, side: int = 12, channels: int = 1) -> np.ndarray:
    """Different images with structures of a few pixels."""
    x = np.random.default_rng(seed).uniform(0, 255, (n, side, side, channels))
    for axis in (1, 2):
        x = x + np.roll(x, 1, axis) + np.roll(x, 2, axis)
    return (x / 9).astype(np.uint8)


def _jpeg(x: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Pillow.fromarray(x[..., 0]).save(buffer, "JPEG", quality=80)
    return np.asarray(Pillow.open(buffer))[..., None]


def _rounded(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def planted(x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A copy of each kind of every image."""
    return {
        "shifted": np.stack([np.roll(one, (-1, 1)[i % 2], 1) for i, one in enumerate(x)]),
        "shifted, black edge": np.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1],
        "compressed": np.stack([_jpeg(one) for one in x]),
        "brighter": _rounded(x * 1.05),
        "noisy": _rounded(x + rng.normal(0, 2.55, x.shape)),
        "mirrored": x[:, :, ::-1],
    }


def shares_found(x: np.ndarray, number: int) -> tuple[dict[str, float], float]:
    """A pair: the share of each kind of planted copies that is found, and the share of near copies besides."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(x))[:number]
    copies = planted(x[rows], rng)
    found = find([duplicates._Images(Image(*x.shape[1:]), [x, *copies.values()])])
    pairs = set(map(tuple, found.pairs.tolist()))
    shares = {
        kind: float(np.mean([(row, len(x) + k * number + i) in pairs for i, row in enumerate(rows)]))
        for k, kind in enumerate(copies)
    }
    own = found.pairs[(found.pairs < len(x)).all(1) & ~found.exact]
    return shares, len(np.unique(own)) / len(x)


def test_planted_copies_of_digits(figure):
    data = mnist5k()
    assert data.held_out is not None
    shares, own = shares_found(np.concatenate([data.arrays["x"], data.held_out["x"]]), 100)
    for kind, share in shares.items():
        figure(f"planted copies of digits, {kind}", f"{share:.0%} found")
    assert min(shares.values()) >= 0.95
    assert own <= 0.005


def pneumonia(held_out: str) -> Dataset:
    folder = os.environ.get("GAN_CLI_DATA")
    if not folder:
        pytest.skip("GAN_CLI_DATA does not name a folder with pneumoniamnist.npz")
    return medmnist(path=str(Path(folder) / "pneumoniamnist.npz"), held_out=held_out)  # type: ignore[arg-type]


def test_copies_of_pneumoniamnist():
    # The file has 18 repeated training images, and 8 validation images that are also training images.
    data = treated(pneumonia("val"))
    equal, shared, *rest = data.copies
    assert equal.startswith("18 training images are equal to another training image, e.g. number ")
    assert shared.startswith("8 held-out images are equal to a training image, e.g. number held-out ")
    assert len(rest) == 1, "no near copies, only the advice"
    assert treated(replace(pneumonia("val"), duplicates="drop")).size == 4708 - 26
    assert treated(replace(pneumonia("test"), duplicates="drop")).size == 4708 - 18
    shares, own = shares_found(pneumonia("val").arrays["x"], 100)
    assert min(shares.values()) >= 0.95
    assert own <= 0.005


def labelled(x: np.ndarray, labels: list[int], held_out: np.ndarray | None = None, **options) -> Dataset:
    tests = None if held_out is None else {"x": held_out, "label": np.zeros(len(held_out), np.int32)}
    spec = spec_of(Image(*x.shape[1:]), 2)
    return Dataset("textures", spec, {"x": x, "label": np.array(labels, np.int32)}, tests, **options)


def test_copies_are_named_and_left_out():
    a, b, c, d = textures(4)
    x, held_out = np.stack([a, b, a, _rounded(b * 0.95), c, d]), np.stack([c[:, ::-1], textures(1, 1)[0]])
    data = labelled(x, [0, 1, 1, 1, 0, 1], held_out, duplicates="warn")
    told = treated(data)
    assert told.copies[:-1] == (
        "1 training image is equal to another training image, 1 of them with another label, e.g. number 2 = 0",
        "1 training image is nearly equal to another training image, e.g. number 3 = 1",
        "1 held-out image is nearly equal to a training image, e.g. number held-out 0 = training 4",
    )
    assert "copies    " + told.copies[0] in told.lines()
    assert told.contents()["copies"] == list(told.copies)
    assert told.fingerprint() == data.fingerprint()
    dropped = treated(replace(data, duplicates="drop"))
    assert dropped.copies == ()
    np.testing.assert_array_equal(dropped.arrays["x"], np.stack([a, b, d]))
    assert dropped.arrays["label"].tolist() == [0, 1, 1]
    assert dropped.passed_over == {"copies of other images": 3}
    assert dropped.fingerprint() != data.fingerprint()
    assert treated(dropped).arrays["x"].shape == dropped.arrays["x"].shape
    kept = replace(data, duplicates="keep")
    assert treated(kept) is kept


@pytest.mark.parametrize("duplicates", ["warn", "drop"])
def test_copies_among_held_out_images_are_named(duplicates):
    """They distort metrics, but leaving out training images is no remedy."""
    a, b, c, d = textures(4)
    found = treated(labelled(np.stack([a, b]), [0, 1], np.stack([c, d, c, d[:, ::-1]]), duplicates=duplicates))
    assert found.copies == (
        "1 held-out image is equal to another held-out image, e.g. number held-out 2 = held-out 0",
        "1 held-out image is nearly equal to another held-out image, e.g. number held-out 3 = held-out 1",
    )


def test_data_without_copies_are_unchanged():
    data = mnist5k(duplicates="drop")
    found = treated(data)
    assert (found.copies, found.passed_over, found.fingerprint()) == ((), {}, data.fingerprint())


def test_copies_of_copies_are_left_out():
    # The second image is a shift of the first one, and the third one a shift of the second one.
    digit = mnist5k().arrays["x"][:1]
    x = np.concatenate([np.roll(digit, k, 1) for k in range(3)])
    assert len(find([duplicates._Images(Image(28, 28, 1), [x])]).pairs) == 2
    assert treated(labelled(x, [0, 0, 0], duplicates="drop")).size == 1


def test_images_of_one_colour_are_copies_if_they_are_equal():
    x = np.full((4, 12, 12, 3), 255, np.uint8)
    x[3] = 254
    found = find([duplicates._Images(Image(12, 12, 3), [x])])
    assert found.pairs.tolist() == [[0, 1], [0, 2]]


def test_colours_distinguish_images():
    grey = textures(1)
    x = np.concatenate([grey * np.array([1, 0.2, 0.2]), grey * np.array([0.2, 0.2, 1])]).astype(np.uint8)
    assert not len(find([duplicates._Images(Image(12, 12, 3), [x])]).pairs)


def test_images_of_16_bits_and_with_margins():
    x = textures(3, side=16)
    wide = x.astype(np.uint16) * 257
    feature = Image(12, 12, 1, bits=16, load=(16, 16))
    held_out = np.stack([feature.centre(wide)[1][:, ::-1], wide[2, :12, :12] // 2 + 100])
    found = find([duplicates._Images(feature, [wide, held_out])])
    assert found.pairs.tolist() == [[1, 3]]


def test_pairs_are_copies_if_both_images_are():
    a, b = textures(4), textures(4, 1)
    a[1], b[1] = a[0], b[0]
    a[3] = a[2]
    spec = {"a": Image(12, 12, 1), "b": Image(12, 12, 1)}
    data = Dataset("pairs", spec, {"a": a, "b": b}, duplicates="drop")
    assert treated(data).size == 3


def test_domains_are_searched_separately():
    a, b = textures(4), textures(5, 1)
    a[3], b[0] = a[1], b[4]
    b[1] = a[0]
    spec = {"a": Image(12, 12, 1), "b": Image(12, 12, 1), "label_b": Label(2)}
    examples = {"a": a, "b": b, "label_b": np.zeros(5, np.int32)}
    domains = {"a": "a", "b": "b", "label_b": "b"}
    data = Dataset("domains", spec, examples, domain_of=domains, duplicates="warn")
    lines = [line[:29] for line in treated(data).copies[:-1]]
    assert lines == ["a: 1 training image is equal ", "b: 1 training image is equal "]
    left = treated(replace(data, duplicates="drop")).arrays
    assert {name: len(x) for name, x in left.items()} == {"a": 3, "b": 4, "label_b": 4}


class Streamed:
    labels = None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        raise AssertionError("the images must not be read")

    def fingerprint(self) -> str:
        return "streamed"


def test_streamed_data_are_not_searched():
    data = Dataset("streamed", {"x": Image(12, 12, 1)}, Streamed(), duplicates="drop")
    assert treated(data).copies == ("not searched for, because the data are streamed",)


def test_nothing_left():
    x = textures(3)
    with pytest.raises(UserError, match="every training image of textures is a copy of a held-out image"):
        treated(labelled(x, [0, 1, 1], x, duplicates="drop"))


def test_large_data_are_searched_once(monkeypatch):
    x = textures(duplicates._CACHED, side=8)
    x[7] = x[5]
    data = labelled(x, [0] * len(x), duplicates="warn")
    first = treated(data).copies
    monkeypatch.setattr(duplicates, "find", None)
    assert treated(data).copies == first
    assert first[0].endswith("e.g. number 7 = 5")


def test_a_run_names_copies_and_leaves_them_out(tmp_path):
    x = textures(20)[..., 0]
    x[3] = x[2]
    parts = {"train": x[:10], "val": x[10:15], "test": x[15:]}
    arrays = {f"{split}_images": part for split, part in parts.items()}
    arrays |= {f"{split}_labels": np.zeros((len(part), 1), np.uint8) for split, part in parts.items()}
    np.savez(tmp_path / "small.npz", **arrays)
    options = ["dataset=medmnist", f"dataset.path={tmp_path}/small.npz", "train.batch_size=4"]
    lines = dry_run.describe(experiment(options))
    assert sum(line.startswith("copies    1 training image is equal") for line in lines) == 1
    lines = dry_run.describe(experiment([*options, "dataset.duplicates=drop"]))
    assert any("9 examples" in line for line in lines)
    assert "left out  1 copies of other images" in lines
