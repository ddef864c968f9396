"""Directories from anywhere: what is in them is read as data, whoever wrote it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.report import main as gan_report
from gan_cli.cli.sample import main as gan_sample


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The directory of a run that nobody has tampered with."""
    root, before = tmp_path_factory.mktemp("honest"), Path.cwd()
    os.chdir(root)
    run = gan_cli.train([*TINY, "train.sample_every=4", "name=a"], quiet=True)
    os.chdir(before)
    return root / run.directory


@pytest.fixture
def run(honest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(honest, "run")
    return Path("run")


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    facts = json.loads((run / "run.json").read_text())
    change(facts)
    (run / "run.json").write_text(json.dumps(facts))


def target(group: str, name: str, **options: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda facts: facts["config"].update({group: {"_target_": name, **options}})


# What would leave a file behind if it were called, or would not stop.
HOSTILE = {
    "a function of the system": target("loss", "os.system", command="touch hacked"),
    "a class of the language": target("loss", "subprocess.Popen", args=["touch", "hacked"]),
    "one that is walked to through an import": target(
        "loss", "gan_cli.losses.jax.numpy.save", file="hacked", arr=1
    ),
    "one of this package's own": target("loss", "gan_cli.storage.files.write_bytes", path="hacked", content="x"),
    "one that composes": target("loss", "gan_cli.cli.train.train", config_dir="evil"),
    "one in a list": lambda f: f["config"]["model"].update(
        generator=[{"_target_": "os.system", "command": "touch hacked"}]
    ),
    "one of a module that the file names": lambda f: f["config"].update(
        modules=["os"], loss={"_target_": "os.system", "command": "touch hacked"}
    ),
    "a logger": target("logger", "os.system", command="touch hacked"),
    "an interpolation": lambda f: f["config"].update(seed="${oc.env:HOME}"),
    "an interpolation that evaluates": lambda f: f["config"].update(name="${oc.decode:'__import__(1)'}"),
    "networks beyond the machine": lambda f: f["config"]["model"]["generator"].update(width=10**7),
    "images beyond the machine": lambda f: f["spec"].update(shape=[10**5, 10**5, 3]),
    "images of no size": lambda f: f["spec"].update(shape=[0, 28, 1]),
    "no images": lambda f: f["spec"].update(shape="abc"),
    "classes without end": lambda f: f["spec"].update(num_classes=1e400),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_configuration_is_refused(what, run, capsys):
    rewrite(run, HOSTILE[what])
    before = sorted(path.name for path in Path.cwd().iterdir())
    assert gan_sample(["run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gan-sample: ") and len(error.splitlines()) <= 3 and "Traceback" not in error
    if "images" not in what and "classes" not in what:  # its own data say what they are
        assert gan_eval(["run", "--metrics=fid", "--features=random", "--num=100"]) == 2
    assert sorted(path.name for path in Path.cwd().iterdir()) == before


def test_what_hydra_would_instantiate_is_not_looked_at(run):
    """A .hydra folder with callbacks, a config.yaml and Python beside it: none of these is read."""
    (run / ".hydra/config.yaml").write_text(
        "hydra:\n  callbacks:\n    evil: {_target_: os.system, command: touch hacked}\n"
        "loss: {_target_: os.system, command: touch hacked}\n"
    )
    for name in ("toyfile.py", "jax.py", "sitecustomize.py", "gan_cli.py"):
        (run / name).write_text("open('hacked', 'w')")
    assert gan_sample(["run", "--num=4"]) == 0
    assert gan_eval(["run", "--metrics=fid", "--features=random", "--num=100"]) == 0
    assert gan_report(["run"]) == 0
    assert not list(Path.cwd().rglob("hacked")) and "toyfile" not in sys.modules


def test_a_report_takes_no_picture_from_elsewhere(run):
    secret = Path("secret.png")
    shutil.copy(run / "samples/4.png", secret)
    rewrite(run, lambda facts: facts.update(status="finished"))
    for name in ("4.png", "8.png", "real.png"):
        (run / "samples" / name).unlink()
        (run / "samples" / name).symlink_to(secret.absolute())
    assert gan_report(["run"]) == 0
    assert "data:image/png" not in (run / "report.html").read_text()


def test_no_pickle_is_read(run):
    """Neither where a checkpoint is expected nor where an array is."""
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, ("touch hacked",)

    evil = pickle.dumps(Evil())
    for path in (run / "checkpoints/8").rglob("*"):
        if path.is_file():
            path.write_bytes(evil)
    Path("latents.npy").write_bytes(evil)
    assert gan_sample(["run", "--step=8"]) == 2
    assert gan_sample(["run", "--latents=latents.npy"]) == 2
    assert not Path("hacked").exists()
