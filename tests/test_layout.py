"""Folders and zip files of images: layouts, class numbers, what is left out, and fingerprints of streamed data."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.sample import main as gan_sample
from gan_cli.config.build import experiment
from gan_cli.data.folder import folder
from gan_cli.errors import UserError
from gan_cli.training import dry_run


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def png(value: int) -> bytes:
    """A grey image of one colour. All of these files have the same size."""
    buffer = io.BytesIO()
    Image.new("L", (9, 9), value).save(buffer, "BMP")
    return buffer.getvalue()


def make(*names: str, root: str = "data") -> None:
    for i, name in enumerate(names):
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(20 * i + 10) if name.endswith(".bmp") else b"not an image")


def load(path: str = "data", **options):
    return folder(path=path, resolution=4, channels=1, **options)


def values(data) -> list[int]:
    return [int(value) for value in data.take(np.arange(data.size))["x"][:, 0, 0, 0]]


def test_classes_have_natural_order_in_memory_and_streamed():
    make(*(f"{i}/a.bmp" for i in range(12)))
    Path("data/3/a.bmp").write_bytes(b"damaged")  # class 3 has no readable image, and keeps its number
    data, streamed = load(), load(stream=True)
    assert data.class_names == streamed.class_names == tuple(map(str, range(12)))
    assert data.classes == streamed.classes == 12
    for one in (data, streamed):
        taken = one.take(np.arange(one.size))
        named = zip(taken["label"], taken["x"][:, 0, 0, 0], strict=True)
        # an image of class c has the grey value 20 c + 10
        assert all(grey == 20 * label + 10 for label, grey in named)
    assert data.contents()["examples_per_class"][3] == 0
    assert set(load(layout="earlier").examples["label"]) == set(
        range(11)
    )  # as before: only classes with decoded images


def test_everything_left_out_is_said(caplog):
    make("a/0.bmp", "a/1.XCF", "a/2.xcf", "b/0.bmp", "b/notes", "b/.DS_Store", "../elsewhere/x.bmp")
    Path("data/c").symlink_to("../elsewhere")  # a class that is a symbolic link
    Path("data/a/loop").symlink_to("..")
    Path("data/b/gone.bmp").symlink_to("nowhere")
    os.mkfifo("data/b/pipe.bmp")
    data = load()
    assert data.class_names == ("a", "b", "c") and data.size == 3
    (line,) = [line for line in data.lines() if line.startswith("left out")]
    for part in (
        "2 .xcf files",
        "1 files without a suffix",
        "1 hidden files",
        "1 links to a folder that contains the link",
        "1 broken links",
        "1 pipes",
    ):
        assert part in line
    assert any("9x9 pixels, L" in line for line in data.lines())
    make("1.xcf", root="unknown")
    with pytest.raises(UserError, match=r"no images .* 1 \.xcf files"):
        load("unknown")


@contextlib.contextmanager
def another_user():
    """A folder in which this process has the rights of a user who is not root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.mark.parametrize("stream", [False, True])
def test_on_error_holds_for_what_may_not_be_read(stream, caplog):
    with another_user() as place:
        make("a/0.bmp", "a/1.bmp", "b/0.bmp", "c/0.bmp", root=str(place / "data"))
        (place / "data/a/0.bmp").chmod(0)
        (place / "data/c").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            data = load(str(place / "data"), stream=stream)
            assert 2 <= data.size <= 3 and data.class_names == ("a", "b")
            assert 10 not in values(data)
            assert data.fingerprint()
            with pytest.raises(UserError, match="data/c: the folder cannot be read"):
                load(str(place / "data"), on_error="refuse")
        finally:
            os.seteuid(user)
            (place / "data/c").chmod(0o755)
    assert "a/0.bmp: the image cannot be decoded (Permission denied)" in caplog.text
    assert "folders that cannot be read" in data.passed_over


def zipped(name: str, *members: str) -> str:
    with zipfile.ZipFile(name, "w") as archive:
        for i, member in enumerate(members):
            archive.writestr(member, png(20 * i + 10))
    return name


def test_zip_files_of_macos_and_windows():
    mac = zipped("mac.zip", "top/in/a/0.bmp", "top/in/b/0.bmp", "__MACOSX/top/._0.bmp", "top/.DS_Store")
    windows = zipped("windows.zip", "top\\in\\a\\0.bmp", "top\\in\\b\\0.bmp", "top\\in\\Thumbs.db")
    for path in (mac, windows):
        for stream in (False, True):
            data = load(path, stream=stream)
            assert data.class_names == ("a", "b") and values(data) == [10, 30]
    assert load(windows).passed_over == {".db files": 1}


def test_an_ambiguous_layout_is_refused_with_the_readings():
    make("a/0.bmp", "b/0.bmp", "b/1.bmp", "logo.bmp")
    with pytest.raises(UserError, match=r"(?s)1 image \(logo.bmp\).*layout=classes.*the 3.*layout=flat.* all 4"):
        load()
    flat, classes = load(layout="flat"), load(layout="classes")
    assert flat.size == 4 and flat.classes is None
    assert classes.examples["label"].tolist() == [0, 1, 1]
    assert classes.passed_over == {"images outside of the class folders": 1}
    make("train/a/0.bmp", "test/a/0.bmp", "extra/a/0.bmp", root="three")
    with pytest.raises(
        UserError, match=r"(?s)splits of the data.*extra.*layout=splits.*layout=classes.*layout=flat"
    ):
        load("three")


def test_splits():
    """The classes come from the training images, and the test images are held out."""
    make("Train/a/0.bmp", "Train/b/0.bmp", "TEST/b/0.bmp", "val/a/0.bmp")
    data = load()
    assert data.class_names == ("a", "b") and data.examples["label"].tolist() == [0, 1] and values(data) == [10, 30]
    assert data.held_out["x"][:, 0, 0, 0].tolist() == [50, 70] and data.held_out["label"].tolist() == [1, 0]
    streamed = load(stream=True)
    assert streamed.held_out is None and streamed.size == 2
    assert streamed.passed_over == {"held-out images, because the data are streamed": 2}
    assert load(layout="classes").class_names == ("TEST", "Train", "val")


def test_a_streamed_fingerprint_covers_contents_but_not_times_and_place():
    make("a/0.bmp", "b/0.bmp")
    before = load(stream=True).fingerprint()
    os.utime("data/a/0.bmp", (1, 1))
    Path("data").rename("moved")
    assert load("moved", stream=True).fingerprint() == before
    Path("moved/a/0.bmp").write_bytes(png(200))  # of equal size
    assert load("moved", stream=True).fingerprint() != before


RUN = [*TINY, "train.batch_size=4", "dataset=folder", "dataset.path=data", "dataset.resolution=8"]


def test_a_run_stores_shows_and_accepts_class_names(capsys):
    make(*(f"{name}/{i}.bmp" for name in ("cats", "dogs") for i in range(3)), "cats/0.xcf")
    told = dry_run.describe(experiment(RUN))
    assert "classes   2: 0 cats (3), 1 dogs (3)" in told and "left out  1 .xcf files" in told
    gan_cli.train([*RUN, "name=x", "model.conditional=concat"])
    assert "classes   2: 0 cats (3), 1 dogs (3)" in capsys.readouterr().out
    stored = json.loads(Path("outputs/x/run.json").read_text())["data"]
    assert stored["classes"] == ["cats", "dogs"] and stored["left_out"] == {".xcf files": 1}
    for text, label in (("dogs", 1), ("0", 0)):
        assert gan_sample(["outputs/x", f"--class={text}", "--num=3", "--out=x.npz"]) == 0
        assert (np.load("x.npz")["labels"] == label).all()
    assert "of class cats" in capsys.readouterr().out
    assert gan_sample(["outputs/x", "--class=dog"]) == 2
    assert "Did you mean 'dogs'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["true", "false"])
def test_runs_of_earlier_versions_resume(stream, monkeypatch):
    """A renumbered folder is refused with the option that restores the earlier numbers; other folders resume."""
    make(*(f"{name}/{i}.bmp" for name in ("2", "10") for i in range(3)))
    make(*(f"{name}/{i}.bmp" for name in ("a", "b") for i in range(3)), root="alike")
    with monkeypatch.context() as patched:  # the fingerprint and the reading of earlier versions
        patched.setattr("gan_cli.data.streamed_folder.Files.fingerprint", lambda files: files.earlier_fingerprint())
        more = [f"dataset.stream={stream}", "train.steps=4"]
        gan_cli.train([*RUN, *more, "name=renumbered", "dataset.layout=earlier"], quiet=True)
        gan_cli.train([*RUN, *more, "name=alike", "dataset.path=alike"], quiet=True)
    for name in ("renumbered", "alike"):
        path = Path(f"outputs/{name}/run.json")
        facts = json.loads(path.read_text())
        del facts["config"]["dataset"]["layout"], facts["data"]
        path.write_text(json.dumps(facts))
    assert gan_cli.train(["resume=outputs/alike", "train.steps=8"], quiet=True).step == 8
    with pytest.raises(UserError, match=r"add dataset\.layout=earlier"):
        gan_cli.train(["resume=outputs/renumbered", "train.steps=8"], quiet=True)
    more = ["dataset.layout=earlier", "train.steps=8"]
    assert gan_cli.train(["resume=outputs/renumbered", *more], quiet=True).step == 8


def test_one_image_trains_and_three_images_are_evaluated(capsys, caplog):
    make("0.bmp")
    one = [*RUN, "train.batch_size=1", "name=one", "train.sample_every=4"]
    assert gan_cli.train(one, quiet=True).status == "finished"
    assert "diversity needs at least 2 examples" in caplog.text
    make("0.bmp", "1.bmp", "2.bmp", root="three")
    assert gan_eval(["data", "three", "--reference=three", "--features=pixels", "--json=x.json"]) == 0
    assert "precision_recall needs at least 4 reference examples" in capsys.readouterr().err
    small, three = (result["metrics"] for result in json.loads(Path("x.json").read_text()))
    assert set(small) == {
        "sliced_wasserstein",
        "l1",
        "psnr",
        "ssim",
        "ssim_p5",
    }  # the names are equal, so the images are pairs
    assert "kid" in three and "precision" not in three
    assert gan_eval(["three", "--reference=three", "--features=pixels", "--metrics=precision_recall"]) == 2
    assert "needs at least 4 reference examples" in capsys.readouterr().err
