"""The built-in documentation: ``--help``, ``--version``, ``--cfg``, and the generated page of all options."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import HERE, TINY, environment
from hydra.core.global_hydra import GlobalHydra

import gan_cli
from gan_cli.cli import eval as gan_eval
from gan_cli.cli import report, sample, train
from gan_cli.config import compose
from gan_cli.config.docstrings import parse
from gan_cli.config.reference import GROUPS, Reference

ROOT = HERE.parent
PROGRAMS = {"gan-train": train, "gan-eval": gan_eval, "gan-sample": sample, "gan-report": report}


@pytest.fixture(scope="module")
def reference():
    with compose.session() as hydra:
        yield Reference(hydra)
    GlobalHydra.instance().clear()


def said(capsys, *arguments: str, status: int = 0) -> str:
    """The output of gan-train, or its error message if ``status`` is not 0."""
    assert train.main(list(arguments)) == status
    out, err = capsys.readouterr()
    return out if status == 0 else err


def test_help_lists_every_group_and_choice_in_one_line_each(capsys, reference):
    text = said(capsys, "--help")
    for group in GROUPS:
        assert re.search(rf"^{group}: .*default: ", text, re.MULTILINE)
        for name, summary in reference.choices(group).items():
            assert re.search(rf"^  {name} +\S", text, re.MULTILINE), (group, name)
            assert 10 <= len(summary) <= 100, (group, name, summary)
            assert "``" not in summary
    assert "_common" not in text
    assert "dry_run" in text


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_every_choice_has_a_type_and_a_meaning(group, reference):
    for name in reference.choices(group):
        choice = reference.choice(group, name)
        for option in choice.options:
            assert option.meaning, f"{group}={name}: {option.key} has no entry in `Args:`"
            assert option.type, f"{group}={name}: {option.key}"
            assert "``" not in option.meaning + choice.text


def test_every_group_with_files_is_listed():
    folders = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir() and any(path.glob("*.yaml"))}
    assert folders == set(GROUPS)


def test_help_of_a_choice(capsys):
    text = said(capsys, "--help", "optim=adam", "penalty=[r1,r2]")
    assert re.search(r"optim\.b2 +0\.999 +number in \[0, 1\)\n +\S", text)
    assert re.search(r"optim\.clip_norm +null +number > 0 or null\n +\S", text)
    assert "Kingma and Ba 2015" in text
    assert "penalty.r1.gamma" in text and "penalty.r2.gamma" in text
    assert "model.discriminator.dropout" in said(capsys, "--help", "model=mlp")
    assert "strategy.inner.n_critic" in said(capsys, "--help", "strategy=lookahead")
    assert "train.batch_size" in said(capsys, "--help", "train")
    assert "override /dataset: ring" in said(capsys, "--help", "experiment=ring")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("optm=adam", ["optm", "'optim'"]),
        ("optim=adamm", ["optim=adamm", "'adam'", "rmsprop"]),
        ("optim=_common", ["optim=_common", "Choices"]),
        ("optim.lr", ["optim.lr", "optim=adam"]),
    ],
)
def test_help_of_unknown_names_suggests_existing_names(argument, words, capsys):
    text = said(capsys, "--help", argument, status=2)
    assert all(word in text for word in words), text


def test_help_of_a_choice_from_another_folder(capsys, tmp_path, monkeypatch):
    (tmp_path / "own" / "loss").mkdir(parents=True)
    (tmp_path / "own" / "loss" / "mine.yaml").write_text("_target_: help_losses.mine\n")
    (tmp_path / "help_losses.py").write_text(
        'def mine(*, scale: float = 2.0):\n    """My own loss.\n\n    Args:\n        scale: a factor.\n    """\n'
    )
    monkeypatch.chdir(tmp_path)
    text = said(capsys, "--help", "loss=mine", "modules=[help_losses]", "--config-dir", "own")
    assert "My own loss." in text and re.search(r"loss\.scale .*number\n +a factor\.", text)


def test_help_imports_no_jax(tmp_path):
    program = (
        "import sys\n"
        "from gan_cli.cli.train import main\n"
        "for arguments in (['--help'], ['--help', 'optim=adam'], ['--version'], ['--cfg', 'job']):\n"
        "    assert main(arguments) == 0\n"
        "    assert not {'jax', 'flax', 'optax', 'tensorflow_datasets'} & set(sys.modules), arguments\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", PROGRAMS)
def test_version(program, capsys):
    try:
        status = PROGRAMS[program].main(["--version"])
    except SystemExit as end:  # raised by argparse
        status = end.code
    assert status == 0
    assert capsys.readouterr().out == f"{program} (gan_cli) {gan_cli.__version__}\n"


def test_the_package_runs_as_a_program(tmp_path):
    def said(*arguments):
        started = [sys.executable, "-m", "gan_cli", *arguments]
        return subprocess.run(started, cwd=tmp_path, capture_output=True, text=True, env=environment())

    assert said("--version").stdout == f"gan-train (gan_cli) {gan_cli.__version__}\n"
    done = said("--cfg", "job", "--package", "optim")
    assert yaml.safe_load(done.stdout)["_target_"] == "gan_cli.optim.adam", done.stderr


def test_cfg_prints_the_configuration_that_runs(capsys, tmp_path, monkeypatch):
    """One run replaces a choice of its experiment; the other is resumed."""
    monkeypatch.chdir(tmp_path)
    command = [*TINY, "experiment=ring", "optim=sgd", "name=ring"]
    printed = yaml.safe_load(said(capsys, "--cfg", "job", *command))
    assert "b1" not in printed["optim"] and printed["optim"]["lr"] == 0.05
    gan_cli.train(command, quiet=True)
    ran = json.loads(Path("outputs/ring/run.json").read_text())["config"]
    for group in ("model", "optim", "train", "penalty"):
        expected = {key: value for key, value in ran[group].items() if not key.startswith("_")}
        for key, value in expected.items():
            if not isinstance(value, dict) and key != "decay_steps":
                assert printed[group][key] == value, (group, key)
    printed = yaml.safe_load(said(capsys, "--cfg", "job", "name=ring", "resume=auto", "train.steps=16"))
    assert printed["optim"]["lr"] == 0.05 and printed["train"]["steps"] == 16
    assert printed["train"]["batch_size"] == 8


def test_the_page_of_all_options_is_up_to_date():
    done = subprocess.run(
        [sys.executable, "scripts/reference", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_docstrings_are_split_into_their_parts():
    found = parse(
        """One line (Smith et al. 2020).

        More of it,
        in ``two`` lines:

        - an item
          on two lines
        - another

        Args:
            first: meaning of the first,
                on two lines.
            second: of the second.

        Raises:
            ValueError: never.
        """
    )
    assert found.summary == "One line (Smith et al. 2020)."
    assert found.text == "More of it, in `two` lines:\n\n- an item on two lines\n- another"
    assert found.meanings == {"first": "meaning of the first, on two lines.", "second": "of the second."}
