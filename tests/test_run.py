"""A run directory: its files, resuming, damage to its files, and the ways in which a run ends."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, TOY, command, environment
from PIL import Image
from test_data import prepared

import gan_cli
from gan_cli.config.schema import FREE
from gan_cli.errors import RunFailed, UserError
from gan_cli.storage import checkpoints

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
    assert (again.directory / "samples/16.png").read_bytes() == (long.directory / "samples/16.png").read_bytes()
    overrides = (again.directory / ".hydra/overrides.yaml").read_text()
    assert "name=short" in overrides and "resume" not in overrides


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
    elsewhere = {"name", "resume", "dry_run", "modules", "dataset.data_dir"}
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


def test_damage_to_all_checkpoints_fails_the_run():
    run = train(*RUN, "name=a")
    for step in (4, 8):
        flip_bits(run.directory / "checkpoints" / str(step))
    with pytest.raises(RunFailed, match="all checkpoints are damaged"):
        train("resume=outputs/a")
    shutil.rmtree(run.directory / "damaged")  # the remedy in the message
    assert train("resume=outputs/a").status == "finished"
    assert [r["step"] for r in records(run.directory)] == [4, 8]


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
    ("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 143), ("SIGUSR2", 143)]
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


def test_profile():
    """A profile traces calls after the first, for TensorBoard and Perfetto, and does not change training."""
    import gzip

    run = train(*RUN, "name=a", "train.profile=true", "train.steps=16")
    (trace,) = run.directory.glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("while" in event.get("name", "") or "fusion" in event.get("name", "") for event in events)
    assert manifest(run.directory, 16) == manifest(train(*RUN, "name=b", "train.steps=16").directory, 16)
