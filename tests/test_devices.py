"""A batch split over devices or processes trains as on one device; losing a process ends the other processes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, command, environment
from test_run import manifest, records
from test_stream import make_images

from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.sample import main as gan_sample
from gan_cli.cli.train import main
from gan_cli.config.build import experiment
from gan_cli.errors import UserError
from gan_cli.storage import checkpoints

# Plain SGD, because Adam amplifies rounding errors where the exact gradient is zero.
SGD = ["optim=sgd", "optim.lr=0.01"]
DCGAN = ["model=dcgan", "model.generator.width=8", "model.discriminator.width=8"]


def trained(options: list[str], devices: int) -> tuple[list[np.ndarray], str]:
    """The arrays of the state after four steps, and the text of the compiled program."""
    made = experiment([*options, f"train.devices={devices}", "train.batch_size=16", "train.steps=4"])
    program = made.compile()
    state = program.init()
    for step in range(4):
        state, _, _ = program.run(state, step)
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    text = program.lower(state, 1).compile().as_text()
    program.close()
    return arrays, text


def compare(options: list[str], rtol: float = 1e-4) -> str:
    """Assert that eight devices train as one device; return the text of the program for eight devices."""
    one, _ = trained(options, 1)
    many, text = trained(options, 8)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * max(float(np.abs(a).max(initial=0)), 0.02))
    return text


def check(*options: str, only_sums: bool = True) -> None:
    """Compare eight devices with one device in a subprocess.

    The number of CPU devices must be set before JAX starts. With ``only_sums``, the program may communicate by
    all-reduce only.
    """
    code = f"import test_devices as t, re; text = t.compare({[*TINY, 'train.steps_per_call=1', *options]!r})\n"
    code += "print(*sorted(set(re.findall('(all-[a-z]+|collective-permute|reduce-scatter)(?:-start)?[(]', text))))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(JAX_NUM_CPU_DEVICES="8"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not only_sums or done.stdout.split() == ["all-reduce"]


def test_eight_devices_train_as_one_and_communicate_only_sums():
    check(*SGD, "model.generator.norm=batch", "model.discriminator.dropout=0.3")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        [*DCGAN, *SGD],  # statistics of the whole batch, and gradients of convolutions
        ["model=resnet", *DCGAN[1:], *SGD],
        [*SGD, "penalty=[r1,consistency]", "penalty.r1.interval=2"],
        [*SGD, "augment=[adaptive]"],
        [*SGD, "augment=[packing]"],
        [*SGD, "model.discriminator.minibatch=std"],
        [*SGD, "model.conditional=acgan"],
        ["strategy=consensus", "optim=sgd"],
        ["strategy=extragradient", "optim=adam"],
        [*SGD, "strategy.n_critic=2", "loss=wgan", "penalty=[wgan_gp]"],
        [*SGD, "sampler=balanced"],
        [*SGD, "sampler=poisson"],
        [*SGD, "estimator=microbatched", "estimator.size=8"],
    ],
    ids=lambda options: " ".join(options)[-40:],
)
def test_operations_on_the_whole_batch_on_eight_devices(options):
    check(*options, only_sums=False)


def test_impossible_numbers_of_devices_are_refused():
    with pytest.raises(UserError, match=r"train.devices=64: .* devices is 1\. .*JAX_NUM_CPU_DEVICES=64"):
        experiment(["train.devices=64"])
    with pytest.raises(UserError, match="must be at least 1 or must be all"):
        experiment(["train.devices=0"])
    with pytest.raises(UserError, match="an ensemble does not split its batches"):
        experiment(["train.devices=all", "train.ensemble=2"])


def test_a_sweep_must_be_started_as_one_task(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert main(["--multirun", "seed=1,2"]) == 2
    assert "start a sweep in one process" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_two_devices_is_evaluated_and_sampled_on_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    two = command(*TINY, "train.devices=2", "name=two")
    subprocess.run(two, env=environment(JAX_NUM_CPU_DEVICES="2"), check=True, capture_output=True)
    assert jax.device_count() == 1
    assert gan_eval(["outputs/two", "--features=random", "--num=100", "--metrics=kid"]) == 0
    assert gan_sample(["outputs/two", "--draw=activations", "--out=a.png"]) == 0 and Path("a.png").exists()


# ------------------------------------------------------------------------------------ several processes

CUTS = ["train.steps_per_call=10", "train.log_every=10", "train.checkpoint_every=10", "logger=none"]


def start(place: Path, *options: str, processes: int = 2) -> list[subprocess.Popen[str]]:
    """Start the processes of one run, which connect through a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        subprocess.Popen(
            command(*TINY, *CUTS, "train.devices=all", *options),
            cwd=place,
            env=environment(
                JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES=str(processes), JAX_PROCESS_ID=str(i)
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]


def end(processes: list[subprocess.Popen[str]], within: float = 120) -> list[tuple[int, str]]:
    """The exit status and the output of each process."""
    told = []
    for process in processes:
        try:
            said, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            pytest.fail(f"a process hangs: {said[-2000:]}")
        told.append((process.returncode, said))
    return told


def under_way(place: Path, *options: str) -> list[subprocess.Popen[str]]:
    """Start processes and wait until their run has saved its first checkpoint."""
    processes = start(place, "train.steps=1000000", "name=run", *options)
    deadline = time.monotonic() + 120
    while not (place / "outputs/run/checkpoints/10").is_dir():
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes), end(processes)
        time.sleep(0.1)
    return processes


def facts(place: Path) -> dict:
    return json.loads((place / "outputs/run/run.json").read_text())


@pytest.mark.slow
def test_two_processes_train_as_two_devices_and_resume_on_one_device(tmp_path):
    both = end(start(tmp_path, "train.steps=20", "name=two"))
    assert [code for code, _ in both] == [0, 0], both
    assert both[0][1].count("finished") == 1 and "step" not in both[1][1]  # only the first process reports
    alone = command(*TINY, *CUTS, "train.steps=20")
    two = environment(JAX_NUM_CPU_DEVICES="2")
    subprocess.run([*alone, "name=one", "train.devices=2"], cwd=tmp_path, env=two, check=True, capture_output=True)
    figures = [records(tmp_path / "outputs" / name) for name in ("two", "one")]
    for a, b in zip(*figures, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
    # Resume on one device, then on two processes again.
    more = ["name=two", "resume=auto", "train.steps=30", "train.devices=1"]
    subprocess.run([*alone, *more], cwd=tmp_path, env=environment(), check=True, capture_output=True)
    both = end(start(tmp_path, *more[:2], "train.steps=40"))
    assert [code for code, _ in both] == [0, 0] and "resumed   from step 30" in both[0][1]
    subprocess.run(
        [*alone, "name=one", "resume=auto", "train.devices=1", "train.steps=40"],
        cwd=tmp_path,
        env=environment(),
        check=True,
    )
    figures = [records(tmp_path / "outputs" / name) for name in ("two", "one")]
    for a, b in zip(*figures, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["shuffled", "poisson"])
def test_two_processes_each_read_half_of_a_stream(sampler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images()
    data = ["dataset=folder", "dataset.path=images", "dataset.resolution=8", f"sampler={sampler}"]
    runs = {"resident": [*data, "dataset.stream=false"], "stream": [*data, "dataset.stream=true"]}
    for name, options in runs.items():
        both = end(start(tmp_path, "train.steps=20", f"name={name}", *options))
        assert [code for code, _ in both] == [0, 0], both
    resident, stream = (tmp_path / "outputs" / name for name in runs)
    assert manifest(resident, 20) == manifest(stream, 20) and records(resident) == records(stream)


@pytest.mark.slow
@pytest.mark.parametrize("told", [[0], [1], [0, 1]], ids=["first", "second", "both"])
def test_a_stop_signal_to_any_process_saves_and_ends_all(told, tmp_path):
    processes = under_way(tmp_path)
    for i in told:
        processes[i].send_signal(signal.SIGTERM)
    (first, said), (second, _) = end(processes, within=60)
    assert first == 143 and second == (143 if 1 in told else 0), said
    run = facts(tmp_path)
    assert run["status"] == "stopped" and run["checkpoint"] == run["step"]


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    ("lost", "how", "within"),
    [(1, signal.SIGKILL, 10), (0, signal.SIGKILL, 10), (1, signal.SIGSTOP, 90)],
    ids=["killed", "the first killed", "hangs"],
)
def test_the_other_process_ends_soon_after_one_is_lost(lost, how, within, figure, request, tmp_path):
    """A closed connection is detected at once, and a process that stops answering after half a minute."""
    processes = under_way(tmp_path)
    processes[lost].send_signal(how)
    began = time.monotonic()
    ((code, said),) = end([processes[1 - lost]], within)
    took = time.monotonic() - began
    processes[lost].kill()
    processes[lost].communicate()
    assert code not in (0, 2)
    assert re.search("Another process may have failed first|another task died", said), said
    # The newest checkpoint is intact, and a single process resumes from it.
    newest = checkpoints.steps(checkpoints.newest_folder(tmp_path / "outputs/run"))[-1]
    goes_on = [*TINY, *CUTS, "name=run", "resume=auto", f"train.steps={newest + 10}"]
    done = subprocess.run(command(*goes_on), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and f"resumed   from step {newest}" in done.stdout, done.stderr
    what = request.node.callspec.id
    figure(
        f"Two processes, one lost ({what})", f"the other ends with a message after {took:.1f} s; one alone resumes"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["name=there"], "holds a run already"),
        (["train.batch_size=7"], "must be a multiple of the number of devices, 2"),
        (["optim.lrr=1"], "Did you mean 'lr'"),
    ],
)
def test_wrong_input_ends_all_processes(options, says, tmp_path):
    (tmp_path / "outputs/there").mkdir(parents=True)
    (tmp_path / "outputs/there/run.json").write_text("{}")
    for code, said in end(start(tmp_path, *options), within=60):
        assert code == 2 and says in said
