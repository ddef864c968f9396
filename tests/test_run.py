"""A run directory: its files, resuming, damage to its files, and the ways in which a run ends."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, TOY, command, environment
from PIL import Image
from test_data import prepared

import gan_cli
from gan_cli.config.schema import FREE
from gan_cli.engine.compiled_steps import CompiledSteps
from gan_cli.errors import RunFailed, UserError
from gan_cli.storage import checkpoints
from gan_cli.storage.metrics_log import MetricsLog
from gan_cli.views import sample_writer
from gan_cli.views.sample_writer import SampleWriter

RUN = [*TINY, "train.sample_every=4"]
TIMINGS = {"time", "steps_per_second"}


def train(*overrides, **more):
    return gan_cli.train([*overrides], quiet=True, **more)


def records(directory: Path) -> list[dict]:
    """The records of metrics.jsonl, without timings."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def manifest(directory: Path, step: int) -> dict:
    """Hashes of all arrays of a checkpoint, which are equal exactly if the states are equal."""
    file = directory / "checkpoints" / str(step)
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        found = checkpointer.restore(file.absolute(), args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
    return found["manifest"]["arrays"]


def status(directory: Path) -> str:
    return json.loads((directory / "run.json").read_text())["status"]


def tensorboard_steps(directory: Path, tag: str) -> list[int]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_contents_of_a_run_directory():
    run = train(*RUN, "name=a", "train.keep=1")
    names = {p.relative_to(run.directory).as_posix() for p in run.directory.rglob("*")}
    assert {"run.json", "metrics.jsonl", ".hydra/config.yaml", ".hydra/overrides.yaml", "samples/real.png"} <= names
    assert {"samples/4.png", "samples/8.png"} <= names
    assert sorted(p.name for p in (run.directory / "checkpoints").iterdir()) == ["8"]
    with Image.open(run.directory / "samples/8.png") as image:
        assert image.width == image.height > 8 * 28
    facts = json.loads((run.directory / "run.json").read_text())
    assert facts["status"] == "finished" and facts["step"] == 8 and facts["seed"] == 0
    assert facts["command"][0] == "gan-train" and "name=a" in facts["command"]
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["devices"] and "git" in facts
    assert facts["final"]["generator/loss"] == run.metrics["generator/loss"]
    assert [r["step"] for r in records(run.directory)] == [4, 8]
    assert {"generator/loss", "discriminator/loss", "discriminator/real_logits"} <= records(run.directory)[0].keys()
    assert tensorboard_steps(run.directory, "generator/loss") == [4, 8]


def test_points_are_saved_beside_the_scatter_plot():
    run = train(*RUN, "name=ring", "dataset=ring")
    samples = np.load(run.directory / "samples/8.npz")["samples"]
    assert samples.shape == (2500, 2)
    assert run.metrics["modes_total"] == 8 and 0 <= run.metrics["quality"] <= 1


def test_resumed_past_the_end_equals_uninterrupted():
    long = train(*RUN, "name=long", "train.steps=16", "optim.schedule=cosine", "optim.decay_steps=16")
    short = train(*RUN, "name=short", "train.steps=8", "optim.schedule=cosine", "optim.decay_steps=16")
    # A killed run may have logged steps after its last checkpoint, and its last line may be incomplete.
    with (short.directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "generator/loss": 99}\n{"step": 16, "gene')
    again = train("resume=outputs/short", "train.steps=16")
    assert again.step == 16
    assert manifest(again.directory, 16) == manifest(long.directory, 16)
    assert records(again.directory) == records(long.directory)
    assert tensorboard_steps(again.directory, "generator/loss") == [4, 8, 12, 16]
    pictures = [np.asarray(Image.open(run.directory / "samples/16.png")) for run in (again, long)]
    np.testing.assert_array_equal(*pictures)
    overrides = (again.directory / ".hydra/overrides.yaml").read_text()
    assert "name=short" in overrides and "resume" not in overrides


FOREIGN = [  # names that resemble the names of the program's files
    *("samples/10 (1).png", "samples/99 copy.png", "samples/099.png", "samples/notes/99.png", "samples/99.md"),
    *(
        "samples/seen/99 (1).png",
        "samples/\u0669\u0669.png",
        "checkpoints/99",
        "checkpoints/8.bak/data",
        "99/run.txt",
    ),
    *("best/notes.txt", "members/notes.txt", "tensorboard.txt", "metrics.jsonl.orig"),
]


def test_files_of_others_are_neither_read_nor_removed():
    run = train(*RUN, "name=a")
    for name in FOREIGN:
        (run.directory / name).parent.mkdir(exist_ok=True, parents=True)
        (run.directory / name).write_text("not ours")
    shutil.copytree(run.directory / "checkpoints/8", run.directory / "checkpoints/8 (copy)")
    again = train("resume=outputs/a", "train.steps=16", "train.keep=1", "train.report=true")
    assert again.step == 16 and checkpoints.steps(again.directory / "checkpoints") == [16]
    assert [(again.directory / name).read_text() for name in FOREIGN] == ["not ours"] * len(FOREIGN)
    assert (run.directory / "checkpoints/8 (copy)").is_dir()


def test_decay_steps_are_fixed_at_the_first_start():
    """A schedule over the whole run keeps its length when the run is extended."""
    first = train(*RUN, "name=a", "optim.schedule=linear")
    before = manifest(first.directory, 8)
    again = train("resume=outputs/a", "train.steps=12")
    after = manifest(again.directory, 12)
    kernels = [name for name in before if name.startswith("params") and name.endswith("kernel.value")]
    assert kernels and all(before[name] == after[name] for name in kernels)  # the rate had reached zero


# A new value for every option that may change on resume, in groups that may change together.
OTHER = [
    {
        "train.steps": "12",
        "train.steps_per_call": "2",
        "train.log_every": "8",
        "train.sample_every": "8",
        "train.checkpoint_every": "8",
        "train.keep": "1",
        "train.on_nan": "continue",
        "train.tune": "retune",
    },
    {
        "train.steps": "12",
        "metric": "[fid]",
        "features": "pixels",
        "train.eval_every": "8",
        "train.eval_samples": "9",
        "train.objective": "fid",
        "train.patience": "5",
        "train.report": "true",
    },
    {
        "train.steps": "12",
        "train.profile": "true",
        "train.eigenvalues": "2",
        "train.devices": "all",
        "logger": "none",
        "dataset.path": "moved",
        "dataset.on_error": "refuse",
    },
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on a folder of images, for tests to copy and resume."""
    root = tmp_path_factory.mktemp("finished")
    (root / "images").mkdir()
    for i in range(16):
        Image.new("RGB", (9, 9), (i * 16, 0, 0)).save(root / "images" / f"{i}.png")
    before = Path.cwd()
    os.chdir(root)
    train(*RUN, "name=a", "dataset=folder", "dataset.path=images", "dataset.resolution=8")
    os.chdir(before)
    return root


@pytest.mark.parametrize("changes", OTHER)
def test_free_keys_may_change_on_resume(changes, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    os.chdir(tmp_path / "copy")
    shutil.copytree("images", "moved")
    run = train("resume=outputs/a", *(f"{key}={value}" for key, value in changes.items()))
    assert run.step == 12
    config = json.loads((run.directory / "run.json").read_text())["config"]
    # A group is stored as the configuration of its choice.
    chosen = {"logger": "none", "features": "pixels", "metric": f"[{', '.join(config['metric'] or ())}]"}
    for key, value in changes.items():
        found = functools.reduce(lambda node, part: node[part], key.split("."), config)
        assert str(chosen.get(key, found)).lower() == value, key


def test_every_free_key_is_tested():
    elsewhere = {"name", "resume", "dry_run", "modules", "dataset.data_dir", "dataset.layout", "card"}
    assert set().union(*OTHER) == FREE - elsewhere


@pytest.mark.parametrize(
    "change", ["optim.lr=0.1", "optim=sgd", "train.batch_size=4", "seed=1", "model.generator.width=9"]
)
def test_training_options_cannot_change_on_resume(change, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    os.chdir(tmp_path / "copy")
    with pytest.raises(UserError, match=r"resumed run cannot change"):
        train("resume=outputs/a", change)


def test_other_data_are_refused_on_resume(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    os.chdir(tmp_path / "copy")
    Image.new("RGB", (9, 9), "blue").save("images/3.png")
    with pytest.raises(UserError, match="another data"):
        train("resume=outputs/a", "train.steps=12")


def test_resume_auto_starts_then_continues():
    command_line = [*RUN, "name=batch", "resume=auto"]
    assert train(*command_line).step == 8
    longer = [o.replace("train.steps=8", "train.steps=12") for o in command_line]
    assert train(*longer).step == 12
    assert [r["step"] for r in records(Path("outputs/batch"))] == [4, 8, 12]
    with pytest.raises(UserError, match="cannot change"):
        train(*longer, "optim=sgd")


def flip_bits(folder: Path) -> None:
    """Flip a bit at 15 places, because Orbax's files also contain bytes that belong to no array."""
    file = max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    for place in range(1, 16):
        content[len(content) * place // 16] ^= 1
    file.write_bytes(content)


def truncate(folder: Path) -> None:
    file = max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    os.truncate(file, file.stat().st_size // 2)


def lose_a_file(folder: Path) -> None:
    max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size).unlink()


def lose_the_manifest(folder: Path) -> None:
    shutil.rmtree(folder / "manifest")


# Orbax leaves callbacks on a closed event loop when a read fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [flip_bits, truncate, lose_a_file, lose_the_manifest])
def test_a_damaged_checkpoint_is_set_aside(damage, caplog):
    run = train(*RUN, "name=a")
    whole = manifest(run.directory, 8)
    damage(run.directory / "checkpoints/8")
    again = train("resume=outputs/a")
    assert "damaged" in caplog.text
    assert (run.directory / "damaged/8").is_dir()
    assert manifest(again.directory, 8) == whole
    assert [r["step"] for r in records(run.directory)] == [4, 8]


# Orbax leaves callbacks on a closed event loop when a read fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damage_to_all_checkpoints_fails_the_run_and_moves_none():
    run = train(*RUN, "name=a")
    folder = run.directory / "checkpoints"
    shutil.copytree(folder, "copy")
    for step in (4, 8):
        flip_bits(folder / str(step))
    with pytest.raises(RunFailed, match=r"checkpoints/8: .* damaged .* All checkpoints stay where they are"):
        train("resume=outputs/a")
    assert checkpoints.steps(folder) == [4, 8] and not (run.directory / "damaged").exists()
    facts = json.loads((run.directory / "run.json").read_text())
    assert (facts["status"], facts["step"], facts["checkpoint"]) == ("failed", 8, 8)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="no checkpoint"):
        train("resume=outputs/a")
    shutil.copytree("copy", folder)  # the remedy in both messages
    assert train("resume=outputs/a").status == "finished"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def toy(*overrides: str):
    """Train a game with two scalar parameters, which compiles in a fraction of a second."""
    return train(*TOY[2:], *overrides, config_dir=TOY[1])


def test_a_run_whose_checkpoints_are_missing_is_refused():
    run = toy("name=a")
    (run.directory / "checkpoints").rename("elsewhere")
    before = contents(run.directory)
    for command_line in (["resume=outputs/a", "modules=[toy]"], [*TOY[2:], "name=a", "resume=auto"]):
        with pytest.raises(
            UserError, match=r"no checkpoint .* start again at step 0, .* Copy the checkpoints back"
        ):
            train(*command_line, config_dir=TOY[1])
    assert contents(run.directory) == before
    Path("elsewhere").rename(run.directory / "checkpoints")  # the remedy in the message
    assert train("resume=outputs/a", "modules=[toy]", config_dir=TOY[1]).status == "finished"


def test_an_ensemble_that_has_lost_the_checkpoints_of_a_member_is_refused():
    run = toy("name=a", "train.ensemble=2", "train.keep=1")
    for member in run.members:  # members that save one after the other need two to have a common step
        assert checkpoints.steps(member.directory / "checkpoints") == [20, 40]
    shutil.rmtree(run.members[1].directory / "checkpoints")
    with pytest.raises(UserError, match="members/1/checkpoints: contains no checkpoint"):
        train("resume=outputs/a", "modules=[toy]", config_dir=TOY[1])


def test_a_run_without_a_checkpoint_starts_again():
    """A run that diverged or was killed before its first checkpoint loses nothing."""
    diverging = ["game=saboteur", "game.how=diverge", "name=a", "resume=auto"]
    assert toy(*diverging).status == "diverged"
    assert toy(*diverging).status == "diverged"
    path = Path("outputs/a/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running", "step": 0}))  # as after a kill
    assert toy(*diverging).status == "diverged"


# Orbax and TensorStore would read these names as patterns, addresses, two folders or invalid text.
@pytest.mark.parametrize(
    "name", [b"q[1]", b"a*", b"a**", b"a?", b"{a,b}", b"a\\b", b"50%41", b"a b", b"#a", b"gs:", b"\xff\xfe"]
)
def test_checkpoints_in_folders_of_any_name(name, tmp_path):
    run = tmp_path / os.fsdecode(name)
    run.mkdir()
    state, identity = {"w": np.arange(6.0)}, checkpoints.Identity("x", None)
    checkpoints.check_path(run)
    checkpoints.save(run / "checkpoints", 3, state, identity, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == [run.name]
    _, (found,) = checkpoints.restore([(run, identity)], state)
    np.testing.assert_array_equal(found.state["w"], state["w"])


def test_a_path_that_orbax_cannot_use_is_refused_before_training(monkeypatch):
    Path("q[1]").mkdir()
    os.chdir("q[1]")
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **b: Path("missing/folder").mkdir())
    with pytest.raises(UserError, match=r"outputs/a/checkpoints.*special characters.*TMPDIR"):
        toy("name=a")
    assert not Path("outputs/a/run.json").exists()


# Orbax leaves callbacks on a closed event loop when a read fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_that_cannot_be_read_back_replaces_no_other(monkeypatch, tmp_path):
    """Without a symbolic link, Orbax cannot read the checkpoints that it writes below ``q[1]``."""
    run = tmp_path / "q[1]"
    state, identity = {"w": np.arange(6.0)}, checkpoints.Identity("x", None)
    checkpoints.save(run / "checkpoints", 1, state, identity, keep=1)
    before = contents(run / "checkpoints/1")
    with monkeypatch.context() as without_links:
        without_links.setattr(checkpoints, "_PLAIN", re.compile(".*"))
        saver = checkpoints.Saver(run / "checkpoints", identity, keep=1)
        saver.save(2, state)
        with pytest.raises(RunFailed, match=r"could not be written and read back .* Earlier checkpoints are kept"):
            saver.wait()
        saver.close()
    assert contents(run / "checkpoints/1") == before and saver.failed
    step, _ = checkpoints.restore([(run, identity)], state)
    assert step == 1 and (run / "damaged/2").is_dir()


def test_a_checkpoint_follows_the_pictures_of_earlier_steps(monkeypatch):
    """A run that resumes from a checkpoint does not draw earlier pictures again, so they must be complete."""
    original, missing = checkpoints.save, []

    def save(folder, step, *arguments):
        drawn = [at for at in range(2, step + 1, 2) if not (folder.parent / f"samples/{at}.png").exists()]
        missing.extend((step, at) for at in drawn)
        original(folder, step, *arguments)

    def slow(*arguments):
        time.sleep(0.2)
        draw(*arguments)

    draw = sample_writer.draw_samples
    monkeypatch.setattr(checkpoints, "save", save)
    monkeypatch.setattr(sample_writer, "draw_samples", slow)
    run = [*TINY, "train.steps=8", "train.steps_per_call=2", "train.sample_every=2", "train.checkpoint_every=2"]
    train(*run, "name=a")
    assert checkpoints.steps(Path("outputs/a/checkpoints"))[-1] == 8 and missing == [(8, 8)]  # drawn after it


def failing(original, at):
    """A method that fails at its call number ``at``, as on a file system with an error."""
    calls = itertools.count(1)

    def method(*arguments):
        if next(calls) == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "a/file")
        return original(*arguments)

    return method


@pytest.mark.parametrize("where", [(MetricsLog, "write"), (CompiledSteps, "_fed"), (SampleWriter, "finished")])
def test_a_failure_of_the_host_saves_the_last_finite_state(where, monkeypatch, caplog):
    whole = toy("name=whole")
    with monkeypatch.context() as broken:
        broken.setattr(*where, failing(getattr(*where), 2))
        with pytest.raises(RunFailed, match="Input/output error: a/file"):
            toy("name=a", "train.checkpoint_every=0", "logger=none")
    facts = json.loads(Path("outputs/a/run.json").read_text())
    step = facts["step"]
    assert facts["status"] == "failed" and facts["checkpoint"] == step > 0
    assert checkpoints.steps(Path("outputs/a/checkpoints")) == [step]
    assert f"its state at step {step} is saved" in caplog.text
    assert train("resume=outputs/a", "modules=[toy]", config_dir=TOY[1]).status == "finished"
    assert manifest(Path("outputs/a"), whole.step) == manifest(whole.directory, whole.step)
    if where[0] is not MetricsLog:
        assert records(Path("outputs/a")) == records(whole.directory)


def test_a_failure_of_saving_is_not_followed_by_another_save(monkeypatch):
    attempts = []

    def save(folder, step, *_):
        attempts.append(step)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "save", save)
    with pytest.raises(RunFailed, match=r"could not be written .*No space left"):
        toy("name=a")
    assert len(attempts) == 1


def test_a_state_that_is_not_finite_is_not_saved_after_a_failure(monkeypatch):
    monkeypatch.setattr(CompiledSteps, "_fed", failing(CompiledSteps._fed, 2))
    with pytest.raises(RunFailed):
        toy("name=a", "game=saboteur", "game.how=diverge", "train.on_nan=continue")
    assert not Path("outputs/a/checkpoints").exists()


def test_another_dtype_or_shape_is_refused(tmp_path):
    state = {"a": np.ones((2, 3), np.float32)}
    x, y = (checkpoints.Identity(name, None) for name in "xy")
    checkpoints.save(tmp_path / "checkpoints", 1, state, x, 3, {"collapse": {"was_low": True}})
    step, (found,) = checkpoints.restore([(tmp_path, x)], state)
    np.testing.assert_array_equal(found.state["a"], state["a"])
    assert found.monitors == {"collapse": {"was_low": True}}
    assert checkpoints.restore(
        [(tmp_path, checkpoints.Identity("y", None, ("x",)))], state
    )  # an earlier fingerprint
    for like in ({"a": np.ones((2, 3), np.float16)}, {"a": np.ones((3, 2), np.float32)}, {"b": state["a"]}):
        with pytest.raises(UserError, match="architecture"):
            checkpoints.restore([(tmp_path, x)], like)
    with pytest.raises(UserError, match="another configuration"):
        checkpoints.restore([(tmp_path, y)], state)
    assert step == 1


def test_divergence_stops_and_keeps_the_last_finite_checkpoint(caplog):
    diverging = train(
        *RUN, "name=b", "optim=sgd", "optim.clip_norm=null", "optim.lr=1e3", "train.steps=400", "loss=lsgan"
    )
    assert (diverging.status, diverging.exit_status) == ("diverged", 3)
    facts = json.loads((diverging.directory / "run.json").read_text())
    assert facts["status"] == "diverged" and facts["diverged_player"] in ("generator", "discriminator")
    assert 1 <= facts["diverged_at"] <= diverging.step
    for step in checkpoints.steps(diverging.directory / "checkpoints"):
        assert step < facts["diverged_at"]
    assert f"step {facts['diverged_at']}" in caplog.text


def test_on_nan_continue_finishes_a_diverged_run():
    run = train(*RUN, "name=b", "optim=sgd", "optim.lr=1e30", "train.on_nan=continue")
    assert (run.status, run.step, run.exit_status) == ("finished", 8, 0)
    facts = json.loads((run.directory / "run.json").read_text())
    assert facts["diverged_at"] <= 4
    assert facts["checkpoint"] is None
    assert records(run.directory)[-1]["generator/loss"] is None  # JSON has no NaN


def test_environment_variables_are_stored_unresolved(monkeypatch, tmp_path):
    (tmp_path / "secret_place").mkdir()
    for i in range(8):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(tmp_path / "secret_place" / f"{i}.png")
    monkeypatch.setenv("DATA_HOME", "secret_place")
    run = train(*RUN, "name=a", "dataset=folder", "dataset.path=${oc.env:DATA_HOME}", "dataset.resolution=8")
    for file in run.directory.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".yaml", ".jsonl", ".log"):
            assert "${oc.env:DATA_HOME}" in file.read_text() or file.name not in ("run.json", "config.yaml")
            assert '"secret_place"' not in file.read_text()
    assert train("resume=outputs/a", "train.steps=12").step == 12


def test_a_hostile_directory_is_read_as_data():
    run = train(*RUN, "name=a")
    path = run.directory / "run.json"
    facts = json.loads(path.read_text())
    for key, value in {
        "loss": {"_target_": "os.system", "command": "touch hacked"},
        "penalty": {"x": {"_target_": "gan_cli.training.run.os.system"}},
        "seed": "${oc.env:HOME}",
        "name": "${oc.decode:'1'}",
    }.items():
        path.write_text(json.dumps(facts | {"config": facts["config"] | {key: value}}))
        with pytest.raises(UserError):
            train("resume=outputs/a")
    path.write_text(
        json.dumps(facts | {"config": facts["config"] | {"modules": ["os"], "loss": {"_target_": "os.getcwd"}}})
    )
    with pytest.raises(UserError, match="not allowed"):
        train("resume=outputs/a")
    assert not Path("hacked").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a run that is not interrupted."""
    place = tmp_path_factory.mktemp("whole")
    subprocess.run(
        command(*TOY, "name=whole", "train.steps=1000"),
        cwd=place,
        env=environment(),
        check=True,
        capture_output=True,
    )
    return place / "outputs/whole"


@pytest.mark.parametrize(
    ("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143), ("SIGUSR1", 143), ("SIGUSR2", 143)]
)
def test_stop_signals_save_a_checkpoint(number, code, whole, gan_train, tmp_path):
    import signal

    value = int(getattr(signal, number))
    done = gan_train(
        *TOY,
        "name=a",
        "logger=interrupting",
        "logger.interrupting.step=20",
        f"logger.interrupting.number={value}",
        "train.checkpoint_every=0",
        "train.steps=1000",
    )
    assert done.returncode == code, done.stderr
    assert status(tmp_path / "outputs/a") == "stopped"
    stopped = json.loads((tmp_path / "outputs/a/run.json").read_text())["step"]
    assert 20 <= stopped < 1000 and checkpoints.steps(tmp_path / "outputs/a/checkpoints") == [stopped]
    again = gan_train(*TOY[:3], "resume=outputs/a", "logger=none", "train.steps=1000")
    assert again.returncode == 0, again.stderr
    assert manifest(tmp_path / "outputs/a", 1000) == manifest(whole, 1000)
    assert records(tmp_path / "outputs/a") == records(whole)


def test_earlier_handlers_are_called_after_saving(tmp_path):
    program = (
        "import signal, pathlib, gan_cli, sys\n"
        "def requeue(number, frame):\n"
        "    print('saved', sorted(p.name for p in pathlib.Path('outputs/a/checkpoints').iterdir()), flush=True)\n"
        "signal.signal(signal.SIGUSR2, requeue)\n"
        f"run = gan_cli.train({[*TOY[2:], 'name=a', 'logger=interrupting', 'logger.interrupting.step=20']!r}"
        " + ['logger.interrupting.number=12', 'train.steps=1000', 'train.checkpoint_every=0'],"
        f" config_dir={TOY[1]!r}, quiet=True)\n"
        "assert signal.getsignal(signal.SIGUSR2) is requeue\n"
        "print(run.status, run.step)\n"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    saved, last = done.stdout.splitlines()
    assert last.split()[0] == "stopped" and saved == f"saved ['{last.split()[1]}']"


def test_no_signal_handlers_outside_the_main_thread():
    import signal
    from concurrent.futures import ThreadPoolExecutor

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train, *TINY, "name=a").result()
    assert run.status == "finished" and signal.getsignal(signal.SIGTERM) is before


def test_interrupts_within_a_second_count_as_one(monkeypatch):
    import signal

    from gan_cli.training import signals

    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with signals.StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        now[0] += 0.9
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGINT
        now[0] += 0.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the double of the interrupt that has ended the run


def test_sighup_stays_ignored_under_nohup():
    import signal

    from gan_cli.training.signals import StopSignal

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_killed_run_is_not_called_running(tmp_path):
    """A run is running only while a process holds its lock, or exists if the file system has no locks."""
    import fcntl
    import platform
    from unittest import mock

    from gan_cli.storage import locks, run_directory
    from gan_cli.storage.run_record import RunRecord

    facts = {"status": "running", "host": platform.node(), "pid": os.getpid()}
    assert run_directory.status(tmp_path, facts) == "killed"  # for example a copy without the lock file
    with locks.acquire(tmp_path):
        assert run_directory.status(tmp_path, facts) == "running"
        with pytest.raises(locks.Held):
            locks.acquire(tmp_path)
    assert run_directory.status(tmp_path, facts) == "killed"
    assert run_directory.status(tmp_path, facts | {"host": "elsewhere"}) == "running on elsewhere"
    assert run_directory.status(tmp_path, facts | {"status": "stopped"}) == "stopped"
    with mock.patch.object(fcntl, "flock", side_effect=OSError(errno.ENOLCK, "No locks available")):
        assert run_directory.status(tmp_path, facts) == "running"
        assert run_directory.status(tmp_path, facts | {"pid": 2**22}) == "killed"
    # The next start of the run, which holds the lock, knows that the earlier process was killed.
    (tmp_path / "run.json").write_text(json.dumps(facts | {"step": 5}))
    RunRecord(tmp_path, {}).write("running")
    assert json.loads((tmp_path / "run.json").read_text())["history"][0]["status"] == "killed"


def test_full_disk_fails_and_earlier_checkpoints_stay_whole(tmp_path):
    """A limit on the size of files simulates a full disk, because writes fail in the same way."""
    small = [*TINY, "name=a", "train.checkpoint_every=4", "logger=none"]
    assert subprocess.run(command(*small), cwd=tmp_path, env=environment()).returncode == 0
    whole = manifest(tmp_path / "outputs/a", 8)
    limited = subprocess.run(
        ["sh", "-c", 'ulimit -f 64; exec "$@"', "sh", *command("resume=outputs/a", "train.steps=16")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 1
    assert "Traceback" not in limited.stderr and "could not be written" in limited.stderr
    assert manifest(tmp_path / "outputs/a", 8) == whole
    assert (
        subprocess.run(command("resume=outputs/a", "train.steps=16"), cwd=tmp_path, env=environment()).returncode
        == 0
    )
    assert status(tmp_path / "outputs/a") == "finished"


def test_unwritable_target(tmp_path, gan_train):
    (tmp_path / "outputs").write_text("a file where the directory should be")
    done = gan_train(*TINY)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "outputs" in done.stderr


def test_two_processes_in_one_directory(tmp_path, gan_train):
    import fcntl

    run = train(*TINY, "name=a")
    with (run.directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = gan_train("resume=outputs/a", "train.steps=12")
    assert done.returncode == 2 and "another process" in done.stderr
    assert status(run.directory) == "finished"


def test_prepared_data_may_move(tmp_path):
    """dataset.data_dir may change on resume, because the content of the data is checked, not the location."""
    prepared(tmp_path / "here", "array_record")
    tiny = [*TINY, "dataset=tfds", "dataset.name=mnist", "dataset.version=3.0.1"]
    train(*tiny, "name=a", f"dataset.data_dir={tmp_path / 'here'}")
    (tmp_path / "here").rename(tmp_path / "there")
    again = train("resume=outputs/a", "train.steps=12", f"dataset.data_dir={tmp_path / 'there'}")
    assert again.step == 12


@pytest.mark.slow
def test_profile():
    """A profile traces calls after the first, for TensorBoard and Perfetto, and does not change training."""
    import gzip

    run = train(*RUN, "name=a", "train.profile=true", "train.steps=16")
    (trace,) = run.directory.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("while" in event.get("name", "") or "fusion" in event.get("name", "") for event in events)
    assert manifest(run.directory, 16) == manifest(train(*RUN, "name=b", "train.steps=16").directory, 16)
