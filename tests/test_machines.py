"""Other people's machines: environment variables, working folders and terminals, and what a dry run refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import HERE, TINY, TOY, environment
from PIL import Image

from gan_cli.cli.shell import prepare_jax
from gan_cli.cli.train import main


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start ``python -m gan_cli`` in the working folder."""
    return subprocess.run(
        [sys.executable, "-m", "gan_cli", *arguments],
        capture_output=True,
        text=True,
        env=environment(**variables),
    )


REFUSED = {
    "JAX_PLATFORM_NAME": "gpu",
    "JAX_DISABLE_JIT": "maybe",
    "JAX_NUM_CPU_DEVICES": "x",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
}
HONOURED = {
    "JAX_DEBUG_NANS": "1",
    "JAX_NUM_CPU_DEVICES": "2",
    "SLURM_STEP_NUM_TASKS": "x",
    "JAX_COORDINATOR_ADDRESS": "",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSAFEPATH": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONUTF8": "0",
    "LC_ALL": "C",
    "TERM": "dumb",
    "COLUMNS": "0",
    "TZ": "Nowhere/X",
    "TMPDIR": "/nowhere",
    "OMP_NUM_THREADS": "x",
    "CUDA_VISIBLE_DEVICES": "x",
    "HYDRA_FULL_ERROR": "1",
}


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    done = start(*TINY, JAX_PLATFORMS="cuda")
    assert done.returncode == 2 and "JAX_PLATFORMS=cuda" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_each_variable_is_honoured_or_answered_in_a_line(tmp_path):
    for name, value in REFUSED.items():
        done = start(*TINY, **{name: value})
        assert done.returncode == 2 and f"{name}=" in done.stderr, (name, done.stderr[-500:])
        assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
    done = start(*TOY, "train.devices=1", **HONOURED)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "value"), [("jax_enable_x64", True), ("jax_numpy_rank_promotion", "raise")])
def test_a_setting_of_jax_that_changes_the_steps_is_refused(name, value, capsys, tmp_path):
    before = getattr(jax.config, name)
    try:
        jax.config.update(name, value)
        assert main(TINY) == 2
    finally:
        jax.config.update(name, before)
    assert name.upper() in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_one_line(caplog, monkeypatch):
    directory = jax.config.jax_compilation_cache_dir
    Path("file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "file/cache")
    try:
        prepare_jax()
    finally:
        jax.config.update("jax_compilation_cache_dir", directory)
    (warned,) = caplog.messages
    assert "file/cache" in warned and "JAX_COMPILATION_CACHE_DIR" in warned


@pytest.mark.slow
def test_files_of_the_working_folder_do_not_replace_the_standard_library(tmp_path):
    """Neither in a run nor in the jobs of a sweep. The user's modules of the folder are still found."""
    for name in ("random", "logging", "queue", "jax"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    shutil.copy(HERE / "toy.py", tmp_path)
    done = start("--multirun", *TOY, "seed=1,2", "name=größe", PYTHONIOENCODING="ascii", PYTHONPATH="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "multirun/gr\\xf6\\xdfe/0" in done.stdout
    jobs = json.loads((tmp_path / "multirun/größe/sweep.json").read_text())
    assert [job["status"] for job in jobs] == ["finished"] * 2


# Runs that are refused. Each must be refused by a dry run with the same message, before a directory is made.
IMPOSSIBLE = [
    (["dataset=folder", "dataset.path=flat", "metric=[fid]"], "labels"),
    (["dataset=folder", "dataset.path=flat", "metric=[fid]", "features=classifier"], "labels"),
    (["metric=[modes]"], "metric=modes"),
    (["metric=[fid]", "features=inception"], "features.weights"),
    (["metric=[fid]", "features=inception", "features.weights=no'ne"], "no'ne"),
    (["train.devices=9"], "train.devices=9"),
    (["experiment=dirac_gan", "train.devices=9"], "train.devices=9"),
    (["dataset=folder", "dataset.path=flat", "train.batch_size=9"], "train.batch_size=9"),
    (["logger=[wandb]"], "gan_cli[track]"),
    (["name=file/x"], "is a file"),
    (["hydra.run.dir=file/x"], "is a file"),
    (["name=taken"], "holds a run already"),
    (["train.ensemble=2", "train.devices=2"], "train.ensemble"),
]


@pytest.mark.parametrize(("arguments", "word"), IMPOSSIBLE, ids=lambda value: " ".join(value))
def test_a_dry_run_refuses_what_the_run_refuses(arguments, word, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (tmp_path / "flat").mkdir()
    for i in range(8):
        Image.fromarray(np.full((28, 28), i, np.uint8)).save(tmp_path / "flat" / f"{i}.png")
    (tmp_path / "outputs/taken").mkdir(parents=True)
    (tmp_path / "outputs/taken/run.json").write_text("{}")
    (tmp_path / "outputs/file").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    small = ["train.batch_size=4", *arguments]
    assert main([*small, "dry_run=true"]) == 2
    said = capsys.readouterr().err
    assert word in said and "Traceback" not in said
    assert main(small) == 2
    assert capsys.readouterr().err == said
    assert sorted(tmp_path.rglob("*")) == before
