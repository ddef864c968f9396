"""Run directories of unknown origin are read as data, and nothing in them is executed."""

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
    """The unmodified directory of a run."""
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
    """A change of run.json that makes ``name`` the target of ``group``."""
    return lambda facts: facts["config"].update({group: {"_target_": name, **options}})


# Changes of run.json that would create a file if they were executed, or that would exhaust memory or time.
HOSTILE = {
    "a system function": target("loss", "os.system", command="touch hacked"),
    "a class of the standard library": target("loss", "subprocess.Popen", args=["touch", "hacked"]),
    "a function of an imported module": target("loss", "gan_cli.losses.jax.numpy.save", file="hacked", arr=1),
    "an internal function of this package": target(
        "loss", "gan_cli.storage.files.write_bytes", path="hacked", content="x"
    ),
    "a function that composes a configuration": target("loss", "gan_cli.cli.train.train", config_dir="evil"),
    "a target in a list": lambda f: f["config"]["model"].update(
        generator=[{"_target_": "os.system", "command": "touch hacked"}]
    ),
    "a function of a module that run.json names": lambda f: f["config"].update(
        modules=["os"], loss={"_target_": "os.system", "command": "touch hacked"}
    ),
    "a logger": target("logger", "os.system", command="touch hacked"),
    "an interpolation": lambda f: f["config"].update(seed="${oc.env:HOME}"),
    "an interpolation that evaluates code": lambda f: f["config"].update(name="${oc.decode:'__import__(1)'}"),
    "networks larger than memory": lambda f: f["config"]["model"]["generator"].update(width=10**7),
    "images larger than memory": lambda f: f["spec"].update(shape=[10**5, 10**5, 3]),
    "images of no size": lambda f: f["spec"].update(shape=[0, 28, 1]),
    "images without a shape": lambda f: f["spec"].update(shape="abc"),
    "infinitely many classes": lambda f: f["spec"].update(num_classes=1e400),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_configuration_is_refused(change, run, capsys):
    rewrite(run, HOSTILE[change])
    before = sorted(path.name for path in Path.cwd().iterdir())
    assert gan_sample(["run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gan-sample: ") and len(error.splitlines()) <= 3 and "Traceback" not in error
    if "images" not in change and "classes" not in change:  # gan-eval reads these from the data
        assert gan_eval(["run", "--metrics=fid", "--features=random", "--num=100"]) == 2
    assert sorted(path.name for path in Path.cwd().iterdir()) == before


def test_hydras_files_and_python_files_are_not_read(run):
    """Neither callbacks in .hydra/config.yaml nor Python files in the run directory are executed."""
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


def test_a_report_includes_no_picture_outside_the_run(run):
    secret = Path("secret.png")
    shutil.copy(run / "samples/4.png", secret)
    rewrite(run, lambda facts: facts.update(status="finished"))
    for name in ("4.png", "8.png", "real.png"):
        (run / "samples" / name).unlink()
        (run / "samples" / name).symlink_to(secret.absolute())
    assert gan_report(["run"]) == 0
    assert "data:image/png" not in (run / "report.html").read_text()


def test_no_pickle_is_read(run):
    """A pickle instead of a checkpoint or of an array of latents is refused."""
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
