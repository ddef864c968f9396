"""The command line: wrong input, help, dry runs, sweeps, the Python API."""

from __future__ import annotations

import csv
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, TOY, command, environment
from PIL import Image

import gan_cli
from gan_cli.cli import launcher
from gan_cli.cli.train import main
from gan_cli.config import check, compose, names, stored
from gan_cli.errors import UserError

# Arguments, and words that the message must contain: the key, the value, a similar name or the choices.
WITHOUT_JAX = [
    (["optim=adamm"], ["optim=adamm", "'adam'", "rmsprop"]),
    (["penalty=[r1,r9]"], ["penalty=r9", "r2"]),
    (["optim.lrr=1"], ["optim.lrr", "'lr'"]),
    (["+foo=1"], ["foo", "no such option"]),
    (["foo.bar=1"], ["foo.bar", "no such option"]),
    (["+optim.zoo=1"], ["optim.zoo", "clip_norm"]),
    (["optim.discriminator.lrr=1"], ["optim.discriminator.lrr", "'lr'"]),
    (["model.generator.wdth=3"], ["model.generator.wdth", "'width'"]),
    (["penalty.r1.gamma=1"], ["penalty.r1", "penalty=[r1]"]),
    (["dataset=tfds"], ["dataset.name", "needed"]),
    (["train.batch_size=0"], ["train.batch_size=0", "at least 1"]),
    (["train.batch_size=-3"], ["train.batch_size=-3", "at least 1"]),
    (["optim.lr=0"], ["optim.lr=0", "greater than 0"]),
    (["optim.lr=[1,2]"], ["optim.lr=[1, 2]", "number"]),
    (["optim.lr=fast"], ["optim.lr=fast", "number"]),
    (["train.steps=1.5"], ["train.steps=1.5", "whole number"]),
    (["train.ema=1"], ["train.ema=1", "less than 1"]),
    (["dry_run=maybe"], ["dry_run=maybe", "true or false"]),
    (["model.generator.norm=bach"], ["model.generator.norm=bach", "'batch'", "spectral"]),
    (["train.log_every=150"], ["train.log_every=150", "train.steps_per_call=100"]),
    (
        ["strategy=lookahead", "strategy.inner=simultaneous"],
        ["strategy.inner=simultaneous", "strategy@strategy.inner"],
    ),
    (["model.generator=dcgan"], ["model.generator=dcgan", "another model="]),
    (["model.discriminator=null"], ["model.discriminator=null", "another model="]),
    (["train.ensemble={}"], ["train.ensemble={}", "seed"]),
    (["penalty=[r1]", "penalty.r1.interval=0"], ["penalty.r1.interval=0", "at least 1"]),
    (["model=none"], ["model", "needs a model"]),
    (["optim"], ["optim", "KEY=VALUE"]),
    (["optim.lr=[1"], ["optim.lr=[1", "KEY=VALUE"]),
    (["modules=1"], ["modules=1", "list"]),
    (["optim=null"], ["null"]),
    (["seed=-1"], ["seed=-1", "at least 0"]),
    (["name=../x"], ["name=../x"]),
    (["resume=missing"], ["resume=missing", "no such directory"]),
    (["resume=empty"], ["resume=empty", "no run"]),
    (["resume=auto"], ["resume=auto", "name="]),
    (["loss._target_=os.system"], ["os.system", "not allowed"]),
    (["loss._target_=gan_cli.losses.jax.jit"], ["gan_cli.losses.jax.jit", "no public function"]),
    (["loss._target_=gan_cli.losses.os.system"], ["gan_cli.losses.os.system", "no public function"]),
    (["loss._target_=gan_cli.losses._cross_entropy"], ["_cross_entropy", "no public function"]),
    (["loss._target_=optax._src.alias.sgd"], ["optax._src.alias.sgd", "not allowed"]),
    (["modules=[os]", "loss._target_=os.system"], ["os.system", "no public function"]),
    (["seed=${oc.env:HOME}"], ["seed=", "oc.env", "dataset.path"]),
    (["train.steps=${foo}"], ["train.steps", "foo"]),
    (["--config-dir", "missing"], ["--config-dir missing"]),
    (["--config-dir", "own", "loss=hing"], ["loss=hing", "'hinge'", "typo"]),
    (["--config-dir", "own", "loss=syntax"], ["syntax.yaml", "line 3", "YAML"]),
    (["--config-dir", "own", "loss=typo"], ["loss.lable", "no such option"]),
    (["--config-dir", "own", "experiment=typo"], ["train.stepz", "'steps'"]),
    (["--config-dir", "own", "experiment=modules"], ["modules", "command line"]),
    (["train.ensemble={optim.lrr:[1,2]}"], ["train.ensemble", "optim.lrr", "'optim.lr'"]),
    (["train.precision=float16"], ["train.precision", "bfloat16"]),
    (["seed=1", "--multirun", "optim=adam,sdg"], ["optim=sdg", "'sgd'"]),
    (["--multirun", "resume=auto", "seed=1,2"], ["resume=auto", "name=NAME"]),
    (["--multirun", "resume=somewhere", "seed=1,2"], ["resume=DIR"]),
]
WITH_JAX = [
    (["train.batch_size=4501"], ["train.batch_size=4501", "4500"]),
    (["optim.discriminatr.lr=1"], ["optim.discriminatr", "'discriminator'"]),
    (["penalty=[wgan_gp]", "model.discriminator.norm=batch"], ["penalty.wgan_gp", "norm=layer"]),
    (["penalty=[dragan]", "model.discriminator.minibatch=std"], ["penalty.dragan", "r1"]),
    (["optim.discriminator.lr_end=1e-5"], ["discriminator", "lr_end", "schedule=linear"]),
    (
        ["optim.schedule=linear", "optim.warmup_steps=10", "optim.decay_steps=10"],
        ["warmup_steps=10", "decay_steps=10"],
    ),
    (["optim=schedule_free", "optim.weight_clip=1"], ["weight_clip", "sampled"]),
    (["optim=schedule_free", "strategy=extragradient"], ["strategy=extragradient", "strategy=alternating"]),
    (["strategy=optimistic", "optim.weight_clip=1"], ["strategy=optimistic", "optim.weight_clip"]),
    (["train.eigenvalues=200000"], ["train.eigenvalues=200000", "GiB"]),
    (["metric=[fid]", "train.eval_samples=1"], ["metric=fid", "train.eval_samples"]),
    (["metric=[fid]", "train.objective=fed"], ["train.objective=fed", "'fid'"]),
    (["experiment=dirac_gan", "metric=[fid]"], ["metric=[fid]", "metric=none"]),
    (["experiment=dirac_gan", "model=mlp"], ["game=dirac_gan", "model=dirac"]),
    (["penalty=[r1]", "train.ensemble={penalty.r1.interval:[1,4]}"], ["penalty.r1.interval", "--multirun"]),
    (["train.ensemble={optim.discriminatr.lr:[1,4]}"], ["optim.discriminatr", "'discriminator'"]),
    (["strategy=competitive"], ["strategy=competitive", "optim=sgd"]),
    (["augment=[packing]", "augment.packing.size=3"], ["train.batch_size=64", "augment.packing.size=3"]),
    (["augment=[diffaugment]", "dataset=ring"], ["augment=diffaugment", "noise"]),
    (["game=dirac_gan", "model=dirac"], ["model=dirac", "dataset=point"]),
    (
        ["train.ensemble=200", "model.generator.width=8192", "model.discriminator.width=8192"],
        ["train.ensemble", "GiB"],
    ),
    (["model=dcgan", "dataset=ring"], ["dcgan", "model=mlp"]),
    (["model=dcgan", "model.generator.depth=5"], ["depth=5", "28 x 28"]),
    (
        ["model=dcgan", "dataset=folder", "dataset.path=images", "dataset.resolution=30"],
        ["30 x 30", "dataset.resolution"],
    ),
    (["dataset=folder", "dataset.path=missing"], ["dataset.path=missing"]),
    (["dataset=folder", "dataset.path=empty"], ["dataset.path=empty", "no images"]),
    (["dataset=folder", "dataset.path=${oc.env:UNSET_VARIABLE}"], ["dataset.path", "UNSET_VARIABLE"]),
    (
        ["dataset=mnist", "dataset.data_dir=empty"],
        ["mnist:3.0.1", "not prepared", "download_and_prepare", "mnist5k"],
    ),
    (["dataset=tfds", "dataset.name=mnnist"], ["mnnist", "'mnist'"]),
    (["dataset=tfds", "dataset.name=mnist", "dataset.version=9.9.9"], ["mnist:9.9.9"]),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the files and folders that the wrong inputs above refer to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNSET_VARIABLE", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    for i in range(70):
        Image.new("RGB", (20, 30), (i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
    for file, text in {
        "loss/syntax.yaml": "_target_: gan_cli.losses.hinge\nfoo: [1, 2\nbar: 3\n",
        "loss/typo.yaml": "_target_: gan_cli.losses.hinge\nlable: 0.9\n",
        "experiment/typo.yaml": "# @package _global_\ntrain: {stepz: 5}\n",
        "experiment/modules.yaml": "# @package _global_\nmodules: [os]\n",
    }.items():
        path = tmp_path / "own" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def tree(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize(("arguments", "named"), WITHOUT_JAX + WITH_JAX, ids=lambda value: " ".join(value))
def test_wrong_input(arguments, named, folder, capsys):
    before = tree(folder)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert 1 <= len(err.strip().splitlines()) <= 5
    for word in named:
        assert word in err, err
    assert tree(folder) == before


def test_wrong_input_is_reported_without_jax(folder):
    """None of these inputs may import JAX, Flax, Optax, Orbax or TFDS; all run in one process."""
    program = (
        "import json, sys\n"
        "from gan_cli.cli.train import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    assert main(arguments) == 2, arguments\n"
        "    loaded = {'jax', 'flax', 'optax', 'orbax', 'tensorflow_datasets'} & set(sys.modules)\n"
        "    assert not loaded, (arguments, loaded)\n"
    )
    cases = json.dumps([arguments for arguments, _ in WITHOUT_JAX])
    done = subprocess.run([sys.executable, "-c", program, cases], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hydra-help"], ["--config-dir"]),
        (["--info", "defaults"], ["optim/adam"]),
        (["--shell-completion", "install=bash"], ["complete"]),
    ],
    ids=lambda value: value[0],
)
def test_options_of_hydra(arguments, words, gan_train):
    done = gan_train(*arguments)
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


def test_completion(gan_train, tmp_path):
    line = "gan-train optim=adam"
    done = subprocess.run(
        command("-sc", "query=bash"),
        env=environment(COMP_LINE=line, COMP_POINT=str(len(line))),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["optim=adam", "optim=adamw"]


def test_cfg_with_a_wrong_option_exits_with_2(gan_train):
    done = gan_train("--cfg", "job", "optim=adamm")
    assert done.returncode == 2
    assert "'adam'" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run(folder, capsys):
    assert (
        main(["dry_run=true", "dataset=folder", "dataset.path=images", "name=planned", "train.batch_size=10"]) == 0
    )
    said = capsys.readouterr().out
    assert "70 examples" in said and "parameters" in said
    with Image.open(folder / "outputs" / "dry_run.png") as picture:
        assert picture.width == picture.height > 8 * 32
    assert not (folder / "outputs" / "planned").exists()


def test_dry_run_of_points_on_a_line(folder):
    assert main(["dry_run=true", "experiment=dirac_gan"]) == 0
    Image.open(folder / "outputs" / "dry_run.png").load()


def test_a_game_without_model_loss_or_data(gan_train, tmp_path):
    """A game with two scalar parameters, from a user's module, runs, logs and saves like any other."""
    done = gan_train(*TOY, "name=toy")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "outputs/toy/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [10, 20, 30, 40]
    assert {"x/loss", "y/loss", "distance"} <= records[0].keys()
    assert (tmp_path / "outputs/toy/checkpoints/40").is_dir()
    again = gan_train(*TOY, "name=toy", "resume=auto", "train.steps=60")
    assert again.returncode == 0 and (tmp_path / "outputs/toy/checkpoints/60").is_dir(), again.stderr
    ignored = gan_train(*TOY, "dataset=ring")
    assert ignored.returncode == 2 and "does not use the group" in ignored.stderr
    unnamed = gan_train(*TOY[:2], *TOY[3:])  # without modules=[toy]
    assert unnamed.returncode == 2 and "modules=[toy]" in unnamed.stderr


def test_python_api(folder):
    run = gan_cli.train([*TINY, "name=api"], quiet=True)
    assert run.status == "finished"
    assert run.directory == Path("outputs/api")
    assert np.isfinite(run.metrics["generator/loss"])
    samples = run.sample(5, seed=1)
    assert samples.shape == (5, 28, 28, 1)
    assert np.abs(samples).max() <= 1
    np.testing.assert_array_equal(samples, run.sample(5, seed=1))
    assert not np.array_equal(samples, run.sample(5, seed=2))
    with pytest.raises(UserError, match="Did you mean"):
        gan_cli.train(["optim=adamm"])


def test_runs_of_the_same_second_do_not_share_a_directory(folder):
    runs = [gan_cli.train(TINY, quiet=True) for _ in range(2)]
    assert runs[0].directory != runs[1].directory
    from gan_cli.config.compose import claim

    assert [claim(Path("x/a")).name for _ in range(3)] == ["a", "a-1", "a-2"]


def test_a_named_run_is_not_overwritten(folder):
    gan_cli.train([*TINY, "name=once"], quiet=True)
    before = {path: path.stat().st_mtime_ns for path in Path("outputs/once").rglob("*")}
    with pytest.raises(UserError, match="resume=auto"):
        gan_cli.train([*TINY, "name=once"], quiet=True)
    assert {path: path.stat().st_mtime_ns for path in Path("outputs/once").rglob("*")} == before


def test_a_sweep_survives_failing_jobs(gan_train, tmp_path):
    """A job that raises, exits or is killed leaves the others alone; table and exit status report it."""
    done = gan_train("--multirun", *TOY, "game=saboteur", "game.how=none,diverge,raise,exit,kill", "name=sweep")
    assert done.returncode == 1
    statuses = ["finished", "diverged", "failed", "exit 7", "killed by signal 9"]
    table = done.stdout[done.stdout.index("sweep  ") :]
    rows = [row for row in table.splitlines() if "game.how=" in row]
    for number, (row, status) in enumerate(zip(rows, statuses, strict=True)):
        assert status in row and f"multirun/sweep/{number}" in row, (row, status)
    assert json.loads((tmp_path / "multirun/sweep/0/run.json").read_text())["status"] == "finished"
    failed = json.loads((tmp_path / "multirun/sweep/2/run.json").read_text())
    assert failed["status"] == "failed" and "sabotage" in failed["traceback"]
    assert "RuntimeError: sabotage" in done.stdout and "Traceback" not in done.stdout
    assert gan_train("--multirun", *TOY, "optim.lr=0.1,0.2", "name=sweep").returncode == 2


@pytest.mark.slow
def test_sweep_of_several_jobs_at_a_time(gan_train, tmp_path):
    """The sweep's records describe each job; a second start skips finished jobs and runs all others."""
    sweep = ["--multirun", *TOY, "optim.lr=0.1,0.2,0.3", "name=sweep", "hydra.launcher.n_jobs=2"]
    done = gan_train(*sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads((tmp_path / "multirun/sweep/sweep.json").read_text())
    assert [job["status"] for job in jobs] == ["finished"] * 3
    assert [f"optim.lr={lr}" in job["overrides"] for job, lr in zip(jobs, (0.1, 0.2, 0.3), strict=True)] == [
        True
    ] * 3
    assert all(job["final"]["distance"] > 0 and job["objective"] is None for job in jobs)
    with (tmp_path / "multirun/sweep/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["optim.lr"] for row in rows] == ["0.1", "0.2", "0.3"]
    assert [float(row["distance"]) for row in rows] == [job["final"]["distance"] for job in jobs]
    places = [tmp_path / job["dir"] for job in jobs]
    shutil.rmtree(places[1])
    before = [(place / "run.json").stat().st_mtime_ns for place in (places[0], places[2])]
    again = gan_train(*sweep, "resume=auto")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [(place / "run.json").stat().st_mtime_ns for place in (places[0], places[2])] == before
    assert again.stdout.count("already finished") == 2
    assert json.loads((places[1] / "run.json").read_text())["status"] == "finished"
    longer = gan_train(*sweep, "resume=auto", "train.steps=80")
    assert longer.returncode == 0 and "already finished" not in longer.stdout
    assert {json.loads((place / "run.json").read_text())["step"] for place in places} == {80}
    told = (tmp_path / "multirun/sweep/sweep.json").read_text()
    assert gan_train(*sweep[:-1], "resume=auto", "optim=sgd,sdg").returncode == 2
    assert (tmp_path / "multirun/sweep/sweep.json").read_text() == told


def test_jobs_share_the_machine(monkeypatch):
    """Two jobs on three GPUs use one GPU each; four jobs on two GPUs use a part of a GPU's memory each."""
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert [launcher._part_of_the_gpus(slot, 2) for slot in range(2)] == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in "45"
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    shares = [launcher._part_of_the_gpus(slot, 4) for slot in range(4)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0", "1", "0", "1"]
    assert {share["XLA_PYTHON_CLIENT_MEM_FRACTION"] for share in shares} == {"0.450"}
    assert launcher._part_of_the_gpus(0, 1) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launcher._part_of_the_gpus(1, 4) == {}


def test_basic_launcher_stays_available(gan_train, tmp_path):
    done = gan_train("--multirun", *TOY, "optim.lr=0.1,0.2", "hydra/launcher=basic", "hydra.sweep.dir=basic")
    assert done.returncode == 0, done.stderr
    jobs = json.loads((tmp_path / "basic/sweep.json").read_text())
    assert [job["status"] for job in jobs] == ["finished"] * 2 and "optim.lr=0.2" in jobs[1]["overrides"]


def test_environment_is_left_alone(folder):
    importlib.import_module("tensorboardX")  # sets an environment variable on its first import
    before = dict(os.environ)
    gan_cli.train([*TINY, "name=env"], quiet=True)
    assert dict(os.environ) == before


def test_another_choice_drops_the_experiments_options_for_the_replaced_choice():
    def composed(*overrides):
        with compose.session() as hydra:
            return check.check(compose.ours(compose.compose(hydra, ["experiment=ring", *overrides])))

    assert composed("optim=sgd")["optim"] == composed("experiment=seed_mlp", "optim=sgd")["optim"]
    assert composed("optim=sgd", "optim.lr=3")["optim"]["lr"] == 3
    assert composed("optim=adam") == composed() == composed("penalty=[r2,r1]")
    one = composed("penalty=[r1]")["penalty"]
    assert one == {"r1": composed()["penalty"]["r1"]} and composed("penalty=none")["penalty"] == {}
    assert composed("model=pacgan")["model"]["generator"]["width"] == 400
    with pytest.raises(UserError, match=r"penalty\.r2"):
        composed("penalty=[r1]", "penalty.r2.gamma=3")
    with pytest.raises(UserError, match=r"optim\.b1"):
        composed("optim=sgd", "optim.b1=0.5")


def test_defaults_of_groups_that_the_game_does_not_use_do_not_count(folder):
    """A choice that a user makes is refused, also if it equals the default."""
    (folder / "own/experiment").mkdir(parents=True, exist_ok=True)
    for name, body in {
        "same": "defaults:\n  - override /game: bilinear\n  - override /loss: nonsaturating\n",
        "values": "defaults:\n  - override /game: bilinear\nmodel: {latent_dim: 3}\n",
    }.items():
        (folder / f"own/experiment/{name}.yaml").write_text(f"# @package _global_\n{body}")

    def composed(*overrides):
        with compose.session() as hydra:
            found = compose.compose(hydra, [*overrides, *compose.search_path("own")])
            return check.check(compose.ours(found))

    unused = {group: {} for group in ("model", "loss", "dataset", "penalty", "augment")}
    for overrides in (["game=bilinear"], ["experiment=bilinear"], ["game=bilinear", "model=none", "penalty=none"]):
        assert {group: composed(*overrides)[group] for group in unused} == unused
    assert composed("experiment=bilinear", "game=gan")["loss"] == composed()["loss"] != {}
    for group, *overrides in [
        ("loss", "game=bilinear", "loss=nonsaturating"),
        ("loss", "game=bilinear", "loss.smoothing=0.0"),
        ("loss", "experiment=same"),
        ("model", "experiment=values"),
        ("penalty", "game=bilinear", "penalty=[r1]"),
        ("model", "experiment=seed_mlp", "game=bilinear"),
    ]:
        with pytest.raises(UserError, match=f"^{group}: this game does not use the group"):
            composed(*overrides)


def test_a_sweep_over_a_group_that_the_game_does_not_use_is_refused(folder, capsys):
    assert main(["--multirun", "game=bilinear", "loss=hinge,wgan", "name=sweep"]) == 2
    assert capsys.readouterr().err.startswith("gan-train: loss: this game does not use the group loss.")
    assert not Path("multirun").exists()


@pytest.mark.parametrize(
    "node",
    [
        {"model": {"generator": [{"_target_": "builtins.print"}]}},
        {"model": {"generator": {"inner": {"_target_": "os.getcwd"}}}},
        {"model": {"generator": {"_target_": "optax.sgd", "learning_rate": [{"_target_": "os.getcwd"}]}}},
        {"loss": {"_target_": "gan_cli.cli.train.train", "config_dir": "evil"}},
        {"loss": {"_target_": "gan_cli.storage.files.write_json"}},
        {"model": {"generator": ["${oc.env:HOME}"]}},
        {"model": {"generator": {"_args_": [1]}}},
    ],
)
def test_nothing_hides_from_the_allow_list(node):
    """Hydra also instantiates targets in lists and plain mappings, so the allow list applies to them too."""
    with compose.session() as hydra:
        checked = check.check(compose.ours(compose.compose(hydra, [])))
    ((group, value),) = node.items()
    hostile = checked | {group: checked[group] | value}
    with pytest.raises(UserError):
        stored.load({"format": 1, "config": hostile}, [])
    assert stored.load({"format": 1, "config": names.encode(checked)}, []) == checked


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("metric=none", "metric=none: a search needs an objective"),
        ("train.ensemble=2", "an ensemble has no objective"),
        ("hydra.sweeper.direction=[minimize,maximize]", "a run has one objective"),
    ],
)
def test_a_search_without_an_objective_is_refused(option, says, folder, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'gan_cli[sweep]'")
    assert main(["--multirun", "hparams_search=rates", option, "name=search"]) == 2
    assert says in capsys.readouterr().err and not Path("multirun").exists()


@pytest.mark.slow
def test_a_search_in_which_every_trial_fails_ends_with_a_message(gan_train, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'gan_cli[sweep]'")
    tiny = [*TINY, "train.eval_every=8", "train.eval_samples=100", "features=random", "hydra.sweeper.n_trials=1"]
    rates = ["optim.generator.lr=1e30", "optim.discriminator.lr=1e30"]
    done = gan_train("--multirun", "hparams_search=rates", *tiny, *rates, "name=search")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no trial of the search has a value of the objective" in done.stderr.splitlines()[-1]
    assert "diverged" in done.stdout[done.stdout.index("sweep  ") :]
    jobs = json.loads((tmp_path / "multirun/search/sweep.json").read_text())
    assert [(job["status"], job["objective"]) for job in jobs] == [("diverged", None)]


@pytest.mark.slow
def test_a_search_is_resumed(gan_train, tmp_path):
    """Optuna's trials are stored in the sweep's directory; a second start adds trials with new numbers."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'gan_cli[sweep]'")
    tiny = [*TINY, "train.eval_every=8", "train.eval_samples=100", "features=random", "hydra.sweeper.n_trials=1"]
    search = ["--multirun", "hparams_search=rates", *tiny, "name=search"]
    first = gan_train(*search)
    assert first.returncode == 0, first.stdout + first.stderr
    again = gan_train(*search, "resume=auto")
    assert again.returncode == 0, again.stdout + again.stderr
    jobs = json.loads((tmp_path / "multirun/search/sweep.json").read_text())
    assert [job["job"] for job in jobs] == [0, 1] and all(job["objective"] > 0 for job in jobs)
    assert jobs[0]["overrides"] != jobs[1]["overrides"]
    optuna = pytest.importorskip("optuna")
    study = optuna.load_study(study_name="rates", storage=f"sqlite:///{tmp_path}/multirun/search/optuna.db")
    assert [trial.value for trial in study.trials] == pytest.approx([job["objective"] for job in jobs])
