"""Streamed data: bit-identical to resident data, in bounded memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY
from PIL import Image
from test_run import manifest, records

import gan_cli
from gan_cli.data import capacity, features
from gan_cli.data import loader as loader_module
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import spec_of
from gan_cli.data.feed import Selection
from gan_cli.data.folder import folder
from gan_cli.data.loader import Loader
from gan_cli.errors import UserError

RUN = [*TINY, "dataset=folder", "dataset.path=images", "dataset.resolution=8"]


@pytest.fixture(autouse=True)
def _images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images()


def make_images():
    """Write forty images in two classes to a folder and to a zip, both in the working directory."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile("images.zip", "w") as archive:
        for i in range(40):
            file = Path(f"images/{'ab'[i % 2]}/{i:02}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (11, 9, 3), np.uint8)).save(file)
            archive.write(file, file.relative_to("images").as_posix())


def train(*overrides):
    return gan_cli.train(list(overrides), quiet=True)


@pytest.mark.parametrize(
    "more",
    [["strategy.n_critic=2", "dataset.flip=true"], pytest.param(["train.ensemble=2"], marks=pytest.mark.slow)],
)
def test_streamed_equals_resident(more):
    resident = train(*RUN, *more, "name=resident", "dataset.stream=false")
    streamed = train(*RUN, *more, "name=streamed", "dataset.stream=true")
    pairs = zip(resident.members or [resident], streamed.members or [streamed], strict=True)
    for a, b in pairs:
        assert manifest(a.directory, 8) == manifest(b.directory, 8)
        assert records(a.directory) == records(b.directory)


def test_resume(tmp_path):
    whole = train(*RUN, "dataset.stream=true", "name=whole", "train.steps=12")
    train(*RUN, "dataset.stream=true", "name=cut", "train.steps=8")
    again = train("resume=outputs/cut", "train.steps=12")
    assert manifest(again.directory, 12) == manifest(whole.directory, 12)


def test_a_zip_is_read_by_many_threads():
    files = folder(path="images.zip", resolution=8, stream=True)
    resident = folder(path="images.zip", resolution=8, stream=False)
    with loader_module.ThreadPoolExecutor(8) as pool:
        taken = files.take(np.arange(40).repeat(20).reshape(100, 8), pool)
    np.testing.assert_array_equal(taken["x"].reshape(40, 20, 8, 8, 3)[:, 7], resident.examples["x"])
    np.testing.assert_array_equal(taken["label"].reshape(40, 20)[:, 0], resident.examples["label"])
    assert files.spec == resident.spec


def test_a_bad_image_is_replaced_by_another(caplog):
    Path("images/a/00.png").write_bytes(b"no image")
    files = folder(path="images", resolution=8, stream=True)
    np.testing.assert_array_equal(files.take(np.array([0]))["x"], files.take(np.array([1]))["x"])
    assert caplog.text.count("a/00.png") == 1
    refusing = folder(path="images", resolution=8, stream=True, on_error="refuse")
    with pytest.raises(UserError, match=r"a/00\.png"):
        refusing.take(np.array([0]))


def test_an_image_that_becomes_unreadable_ends_the_run():
    with pytest.raises(Exception, match=r"b/07\.png"):
        Path("images/b/07.png").write_bytes(b"no image")
        train(*RUN, "dataset.stream=true", "dataset.on_error=refuse", "train.steps=40")


class Endless:
    """A million examples, each of which is made when it is read."""

    shape, labels = (8, 8, 3), None

    def __len__(self):
        return 10**6

    def __getitem__(self, i):
        return {"x": np.full(self.shape, i % 256, np.uint8)}

    def fingerprint(self):
        return "endless"


def test_memory_is_bounded(monkeypatch):
    """The batches of a call fit the limit, and only the batches of the next call are read ahead."""
    monkeypatch.setattr(loader_module, "_BYTES", 10 * 4 * 8 * 8 * 3)
    data = Dataset("endless", spec_of(features.Image(8, 8, 3)), Endless())  # type: ignore[arg-type]
    asked = []

    def order(step, length):
        asked.append((step, length))
        return [Selection({"": np.arange(step * 4, (step + length) * 4).reshape(length, 1, 4)})]

    loader = Loader(data, order, stack=False, place=jax.device_put)
    assert loader.longest(100) == 10 and loader.longest(7) == 7 and loader.longest(13) == 1
    asked.clear()
    first = loader.get(0, 10, 10)
    assert isinstance(first["x"], jax.Array) and first["x"].shape == (10, 1, 4, 8, 8, 3)
    np.testing.assert_array_equal(loader.get(10, 10, 0)["x"][:, 0, :, 0, 0, 0], np.arange(40, 80).reshape(10, 4))
    loader.close()
    assert asked == [(0, 10), (10, 10)]


def test_data_larger_than_the_memory_are_streamed(monkeypatch):
    monkeypatch.setattr("gan_cli.data.capacity.os.sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 7)
    assert folder(path="images", resolution=16).feed.streams  # 30,720 bytes exceed the memory of 28,672
    monkeypatch.setattr("gan_cli.data.capacity.os.sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 70)
    assert not folder(path="images", resolution=16).feed.streams


@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_of_a_control_group_is_a_limit(tmp_path, monkeypatch, version):
    """Limits of the group of the process and of the groups around it, in files of both versions."""
    root = tmp_path / "memory" if version == 1 else tmp_path
    inner = root / "slurm/job"
    inner.mkdir(parents=True)
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    (root / "slurm" / name).write_text(f"{3 * 2**20}\n")
    (inner / name).write_text(f"{2**63 - 4096}\n" if version == 1 else "max\n")
    (tmp_path / "cgroup").write_text("0::/slurm/job\n" if version == 2 else "0::/\n4:cpu,memory:/slurm/job\n")
    monkeypatch.setattr(capacity, "_GROUP_OF_PROCESS", tmp_path / "cgroup")
    monkeypatch.setattr(capacity, "_CONTROL_GROUPS", tmp_path)
    assert capacity.available_memory() == 3 * 2**20
    monkeypatch.setattr(capacity, "_GROUP_OF_PROCESS", tmp_path / "none")
    (root / name).write_text("4096")
    assert capacity.available_memory() == 4096
