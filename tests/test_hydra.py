"""Hydra as people use it: settings, flags, names and paths as they are typed, programs that use Hydra too."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from conftest import TINY, TOY, environment
from hydra.conf import HydraConf, JobConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from gan_cli.cli.train import main
from gan_cli.config.quoting import as_typed, of_job, quoted
from gan_cli.errors import UserError
from gan_cli.storage.run_directory import runs

NASTY = [
    "größe",
    "o'brien",
    "a=([{",
    " lead and trail ",
    "x,y",
    'say "a"',
    "$HOME",
    "back\\",
    "it\\'s",
    "1e3",
    "true",
]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ----------------------------------------------------------------------------------------------- settings and flags

# Settings and flags that are refused, and a word of the message in addition to their name.
REFUSED = [
    (["hydra.sweep.dir=x"], "--multirun"),
    (["hydra.sweep.subdir=x"], "--multirun"),
    (["hydra.sweeper.max_batch_size=2"], "--multirun"),
    (["hydra/sweeper=basic"], "--multirun"),
    (["hydra.launcher.n_jobs=2"], "--multirun"),
    (["hydra/launcher=basic"], "--multirun"),
    (["hydra.mode=MULTIRUN"], "--multirun"),
    (["hydra.job.chdir=true"], "relative paths"),
    (["hydra.job.env_copy=[HOME]"], "inherit"),
    (["hydra.job.override_dirname=x"], "Leave it out"),
    (["hydra.job.config_name=x"], "Leave it out"),
    (["hydra.runtime.output_dir=x"], "Leave it out"),
    (["hydra.overrides.task=[x]"], "Leave it out"),
    (["hydra.help.header=x"], "Leave it out"),
    (["hydra.hydra_help.template=x"], "Leave it out"),
    (["--multirun", "hydra.run.dir=x"], "name=NAME"),
    (["--multirun", "hydra/launcher=basic", "hydra.sweep.subdir=x"], "launcher=process"),
    (["--multirun", "hydra.job.num=3"], "numbers"),
    (["--multirun", "hydra.mode=RUN"], "--multirun"),
    (["--multirun", "hydra.sweeper.params={seed:'1,2'}"], "YAML file"),
    (["--multirun", "hydra.sweep.subdir=same", "seed=1,2"], "several jobs"),
    (["resume=x", "hydra.run.dir=y"], "already selects"),
    (["--config-name", "x"], "--config-dir"),
    (["--config-path", "x"], "--config-dir"),
    (["--experimental-rerun", "x"], "resume=DIR"),
    (["--package", "optim"], "--cfg"),
    (["--resolve"], "--cfg"),
    (["--run", "--multirun"], "--run"),
    (["--config-dir", ".", "hydra.searchpath=[file://x]"], "one setting"),
]


@pytest.mark.parametrize(("arguments", "word"), REFUSED, ids=lambda value: " ".join(value))
def test_a_setting_without_effect_is_refused(arguments, word, capsys, tmp_path):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    names = [argument.split("=")[0] for argument in arguments if argument != "--multirun"]
    assert any(name in said for name in names) and word in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_setting_with_effect_is_honoured(gan_train):
    Path("own/optim").mkdir(parents=True)
    Path("own/optim/mine.yaml").write_text("defaults: [_common]\n_target_: gan_cli.optim.sgd\nlr: 0.25\n")
    (Path.cwd() / "hydra_calls.py").write_text(
        "from hydra.experimental.callback import Callback\n\n\n"
        "class Calls(Callback):\n"
        "    def on_run_start(self, config, **more):\n        print('run starts')\n\n"
        "    def on_job_start(self, config, **more):\n"
        "        import os\n\n        print('job starts', os.environ['MINE'])\n\n"
        "    def on_run_end(self, config, **more):\n        print('run ends')\n"
    )
    settings = {
        "hydra.run.dir": "o'brien/${hydra.job.name}-${hydra.job.override_dirname}",
        "hydra.job.name": "mine",
        "hydra.job.id": "7",
        "hydra.job.num": "7",
        "hydra.job.chdir": "false",
        "+hydra.job.env_set.MINE": "there",
        "hydra.job.config.override_dirname.kv_sep": "-",
        "hydra.job.config.override_dirname.exclude_keys": "[modules,experiment]",
        "hydra.output_subdir": "composed",
        "hydra.searchpath": "[file://own]",
        "hydra.verbose": "true",
        "hydra.mode": "RUN",
        "+hydra.callbacks.mine._target_": "hydra_calls.Calls",
        "hydra.job_logging.formatters.simple.format": "'line: %(message)s'",
        "hydra/hydra_logging": "none",
    }
    toy = [argument for argument in TOY if argument not in TOY[:2]]
    settings["hydra.searchpath"] = f"[file://own,file://{TOY[1]}]"
    done = gan_train(*toy, "optim=mine", *(f"{key}={value}" for key, value in settings.items()))
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "run starts" in said and "job starts there" in said and "run ends" in said
    run = Path("o'brien/mine-optim-mine")
    assert json.loads((run / "run.json").read_text())["config"]["optim"]["lr"] == 0.25
    assert (run / "mine.log").read_text().startswith("line: ")
    assert yaml.safe_load((run / "composed/hydra.yaml").read_text())["hydra"]["job"]["num"] == 7
    walked = {key.lstrip("+") for key in settings} | {arguments[-1].split("=")[0] for arguments, _ in REFUSED}
    walked |= {argument.split("=")[0] for arguments, _ in REFUSED for argument in arguments}
    for prefix, kind in (("hydra", HydraConf), ("hydra.job", JobConf)):
        for field in fields(kind):
            key = f"{prefix}.{field.name}"
            if field.name not in ("defaults", "job_logging", "hydra_logging", "overrides"):
                assert any(name.startswith((key, key.replace(".", "/"))) for name in walked), f"{key} is not tried"


@pytest.mark.slow
def test_settings_of_a_sweep(gan_train, tmp_path):
    sweep = ["--multirun", *TOY, "optim.lr=0.1,0.2", "hydra.sweep.dir=it's", "hydra.sweep.subdir=lr ${optim.lr}"]
    done = gan_train(*sweep, "hydra.sweeper.max_batch_size=1", "hydra.output_subdir=null")
    assert done.returncode == 0, done.stdout + done.stderr
    for job, lr in zip(json.loads((tmp_path / "it's/sweep.json").read_text()), ("0.1", "0.2"), strict=True):
        assert job["dir"] == f"it's/lr {lr}" and (tmp_path / job["dir"] / "run.json").is_file()
        assert not (tmp_path / job["dir"] / ".hydra").exists()
    assert [run.name for run in runs(tmp_path / "it's")] == ["lr 0.1", "lr 0.2"]


# -------------------------------------------------------------------------------------------------- names and paths


@pytest.mark.parametrize("text", NASTY)
def test_text_is_taken_as_it_is_typed(text):
    def read(override):
        return OverridesParser.create().parse_override(override)

    for sweep in (False, True):
        (override,) = as_typed([f"dataset.path={text}"], sweep=sweep)
        if sweep and text == "x,y":
            assert read(override).is_sweep_override()
            continue
        assert read(override).value() == text
        (again,) = as_typed([override])
        assert read(again).value() == text
    # The sweeper writes an element of a sweep into the override of a job.
    element = next(iter(read(f"dataset.path={quoted(text)},b").sweep_string_iterator()))
    (job,) = as_typed([of_job(f"dataset.path={element}")])
    assert read(job).value() == text


def test_values_of_hydras_grammar_keep_their_meaning():
    for override in (
        "name=null",
        "name=",
        "name='a b'",
        "optim.lr=1e-3",
        "optim=adam",
        "name=a",
        "~optim",
        "+name=a",
    ):
        assert as_typed([override]) == [override]
    assert as_typed(["name=a,b", "name=choice(a,b)"], sweep=True) == ["name=a,b", "name=choice(a,b)"]
    with pytest.raises(UserError, match="name: "):
        as_typed(["name=\udcf6"])
    with pytest.raises(UserError, match="name: "):
        as_typed(["name=a\0"])


def test_folders_with_any_name(capsys, monkeypatch):
    monkeypatch.setenv("WHERE", NASTY[1])
    for text in NASTY:
        folder = Path(text)
        folder.mkdir()
        for i in range(8):
            Image.new("L", (8, 8), i).save(folder / f"{i}.png")
    plan = ["dry_run=true", "dataset=folder", "train.batch_size=4"]
    for text in ("a=([{", "back\\"):
        assert main([*plan, f"dataset.path={text}", f"name={text}"]) == 0
        assert f"outputs/{text} (not made)" in capsys.readouterr().out
    assert main([*plan, "dataset.path=${oc.env:WHERE}"]) == 0


def test_a_run_below_a_folder_with_an_apostrophe(monkeypatch, tmp_path):
    place = tmp_path / "o'br[ie]n %20"
    (place / "own/loss").mkdir(parents=True)
    (place / "own/loss/mine.yaml").write_text("_target_: gan_cli.losses.hinge\n")
    monkeypatch.chdir(place)
    # Hydra's set-up of logging makes absl close the streams that pytest captures.
    monkeypatch.setattr("hydra.core.utils.configure_log", lambda *arguments, **options: None)
    assert main(["dry_run=true", "--config-dir", "own", "loss=mine"]) == 0
    Path("outputs/dry_run.png").unlink()
    assert main([*TOY, "name=a'c"]) == 0
    (run,) = Path("outputs").iterdir()
    assert run.name == "a'c" and json.loads((run / "run.json").read_text())["status"] == "finished"
    assert main(["--config-dir", "own", "loss=hing"]) == 2
    Path("${x}").mkdir()
    monkeypatch.chdir("${x}")
    assert main(["name=b"]) == 2 and not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("name=" + "x" * 300, ["outputs/xxx", "too long"]),
        ("name=a${b}", ["b", "without ${"]),
        ("dataset.path=${oc.env:X", ["dataset.path", "without ${"]),
        ("logger.tensorboard.x=o'b", ["type: "]),
    ],
    ids=["long", "interpolation", "unclosed", "quote"],
)
def test_other_text_is_answered_with_the_line_to_type(argument, words, capsys, tmp_path):
    assert main([argument, "dataset=folder"] if argument.startswith("dataset") else [argument]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and all(word in said for word in words), said
    if words == ["type: "]:
        (typed,) = shlex.split(said.split("type: ")[1])
        assert OverridesParser.create().parse_override(typed).value() == "o'b"
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ programs that use Hydra

OUTER = """
import logging, os, sys
import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
import gan_cli

ConfigStore.instance().store(name="schema", node={"mine": 1})
OmegaConf.register_new_resolver("gan_cli.run_id", lambda x: "outer")


def state():
    loggers = [logging.getLogger(name) for name in (None, "gan_cli")]
    return (
        GlobalHydra.instance().hydra, GlobalHydra.instance().is_initialized(),
        HydraConfig.get().job.name,
        HydraConfig.get().runtime.output_dir, repr(ConfigStore.instance().repo), hydra.version.getbase(),
        os.getcwd(),
        OmegaConf.create({"a": "${gan_cli.run_id:x}"}).a, [(list(one.handlers), one.level) for one in loggers],
    )


@hydra.main(version_base="1.2", config_path=None, config_name="schema")
def main(config):
    before = state()
    assert gan_cli.train([*OPTIONS, "name=inner"], quiet=True).status == "finished"
    assert state() == before
    try:
        gan_cli.train(["optim=adamm"])
    except gan_cli.errors.UserError:
        gan_cli.experiment(OPTIONS)
    assert state() == before
    print("left alone", config.mine)


OPTIONS = sys.argv.pop(1).split()
main()
"""


@pytest.mark.slow
def test_a_program_with_hydra_finds_hydra_as_it_was(tmp_path):
    (tmp_path / "outer.py").write_text(OUTER)
    done = subprocess.run(
        [sys.executable, "outer.py", " ".join(TINY), "mine=2", "hydra.job.chdir=true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert "left alone 2" in done.stdout, done.stderr[-2000:]
