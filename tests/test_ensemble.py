"""Ensembles: each member equals the run that it replaces, in numbers and on disk, even if other members fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, Program, environment
from test_run import manifest, records

import gan_cli
from gan_cli.config.build import experiment
from gan_cli.config.ensemble import of_jobs
from gan_cli.engine.devices import MemberDevices
from gan_cli.engine.ensemble import compile_ensemble, init_ensemble
from gan_cli.errors import UserError
from gan_cli.training.signals import StopSignal

# The varied options become traced numbers: a learning rate, the weight of a lazy penalty, and a seed of 32 bits.
VARIED = "train.ensemble={optim.lr:[1e-3,2e-3],penalty.r1.gamma:[0.1,1.0],seed:[1,4294967295]}"
BASE = [*TINY, "penalty=[r1]", "penalty.r1.interval=3", "optim.clip_norm=0.5", "train.ema=0.9"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*overrides):
    return gan_cli.train(list(overrides), quiet=True)


class Together:
    """The compiled program of an ensemble, and its state."""

    def __init__(self, overrides, vectorise):
        e = experiment(overrides)
        assert e.dataset is not None and e.ensemble is not None
        self.ensemble = e.ensemble
        make, varied, options = e.ensemble.make, e.ensemble.varied, e.train
        feed = e.dataset.feed
        freeze, self.devices = options.on_nan == "stop", MemberDevices(len(e.ensemble.members))
        self.chunk = compile_ensemble(
            make, varied, feed, options.batch_size, options.ema, freeze, vectorise, self.devices
        )
        self.arrays = jax.device_put(e.dataset.examples)
        self.state = jax.jit(lambda: init_ensemble(make, varied))()

    def member(self, i):
        return self.devices.row(self.state.state._replace(step=None), i)._replace(step=self.state.state.step)

    def run(self, length):
        self.state, metrics, self.finite = self.chunk(self.state, self.arrays, length)
        return jax.device_get(metrics)


# Four of the eight members, which combine each value of an option with each value of every other option.
COMPARED = (0, 3, 5, 6)


@pytest.fixture(scope="module")
def alone():
    """The compared members as single runs: initial state, metrics of 20 steps, final state."""
    found = {}
    for i, own in enumerate(experiment([*BASE, VARIED]).ensemble.members):
        if i in COMPARED:
            program = Program(own)
            found[i] = jax.device_get(program.state), program.run(20), jax.device_get(program.state)
    return found


@pytest.mark.parametrize("vectorise", [True, False])
def test_each_member_is_the_run_that_it_replaces(vectorise, alone):
    """The states and metrics agree within 1e-4 after 20 steps."""
    together = Together([*BASE, VARIED], vectorise)
    start = {i: jax.device_get(together.member(i)) for i in alone}
    metrics = together.run(20)
    assert together.state.alive.all() and together.chunk._cache_size() == 1
    for i, (begun, told, ended) in alone.items():
        for a, b in zip(*map(jax.tree.leaves, (begun, start[i])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        for name, values in told.items():
            np.testing.assert_allclose(metrics[name][i], values, rtol=1e-4, atol=1e-4, err_msg=name)
        for a, b in zip(*map(jax.tree.leaves, (ended, together.member(i))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert len({values.tobytes() for values in metrics["generator/loss"]}) == 8  # all members differ


def test_the_rate_of_one_player_may_vary():
    """optim.discriminator.lr may vary although the players share optim.lr by default."""
    together = Together([*TINY, "train.ensemble={optim.discriminator.lr:[1e-4,1e-2]}"], vectorise=True)
    metrics = together.run(4)
    for i, rate in enumerate((1e-4, 1e-2)):
        told = Program(experiment([*TINY, f"optim.discriminator.lr={rate}"])).run(4)
        np.testing.assert_allclose(metrics["generator/loss"][i], told["generator/loss"], rtol=1e-4)
    assert not np.allclose(*metrics["generator/loss"])


def test_lazy_penalties_stay_a_branch():
    """The step count is not batched, so the condition stays a branch.

    A select would compute the penalty at every step.
    """
    together = Together([*BASE, VARIED], vectorise=True)
    text = str(jax.make_jaxpr(together.chunk, static_argnums=2)(together.state, together.arrays, 3))
    assert " cond[" in text


@pytest.mark.parametrize("vectorise", [True, False])
def test_a_member_that_diverges_is_frozen(vectorise):
    """A learning rate of 1e9 makes gradient descent diverge; the other member is not affected."""
    together = Together(
        [*TINY, "optim=sgd", "optim.clip_norm=null", "train.ensemble={optim.lr:[0.01,1e9]}"], vectorise
    )
    metrics = together.run(12)
    assert together.state.alive.tolist() == [True, False]
    assert np.isfinite(metrics["generator/loss"][0]).all()
    seen = [values[1] for name, values in metrics.items() if name.endswith(("/loss", "/grad_norm"))]
    assert not np.isfinite(seen).all()
    frozen = [np.asarray(leaf) for leaf in jax.tree.leaves(together.member(1).params)]
    together.run(4)
    for a, b in zip(frozen, jax.tree.leaves(together.member(1).params), strict=True):
        np.testing.assert_array_equal(a, b)
    alone = Program(together.ensemble.members[0])
    alone.run(16)
    for a, b in zip(*map(jax.tree.leaves, (alone.state, together.member(0))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_directories():
    """Each member has a run directory with its metrics, and can be resumed alone."""
    run = train(*TINY, "train.ensemble=2", "train.sample_every=4", "name=e", "seed=5")
    assert run.status == "finished" and [member.status for member in run.members] == ["finished"] * 2
    for i in range(2):
        directory = run.directory / "members" / str(i)
        facts = json.loads((directory / "run.json").read_text())
        assert facts["status"] == "finished" and facts["seed"] == 5 + i
        assert facts["config"]["train"]["ensemble"] is None
        assert [r["step"] for r in records(directory)] == [4, 8]
        assert {p.name for p in (directory / "samples").iterdir()} == {"real.png", "4.png", "8.png"}
        assert run.members[i].sample(3).shape == (3, 28, 28, 1)
    whole = json.loads((run.directory / "run.json").read_text())
    assert [member["overrides"] for member in whole["members"]] == [{"seed": 5}, {"seed": 6}]
    alone = train("resume=outputs/e/members/1", "train.steps=12")
    assert alone.step == 12 and alone.directory == run.directory / "members/1"


@pytest.mark.parametrize("killed", ["both", "between"])
def test_resume(killed):
    """An interrupted ensemble resumes from the newest step that all members have, bit-identically."""
    options = [*TINY, "train.ensemble=3", "train.steps=12"]
    train(*options, "name=whole")
    train(*TINY, "train.ensemble=3", "name=cut", "train.steps=8")
    if killed == "between":  # only one member has saved step 8
        import shutil

        shutil.rmtree("outputs/cut/members/1/checkpoints/8")
    again = train("name=cut", "resume=auto", *options)
    assert again.step == 12
    for i in range(3):
        a, b = (Path(f"outputs/{name}/members/{i}") for name in ("whole", "cut"))
        assert manifest(a, 12) == manifest(b, 12)
        assert records(a) == records(b)


def test_resume_with_a_diverged_member():
    options = [*TINY, "optim=sgd", "optim.clip_norm=null", "train.ensemble={optim.lr:[0.01,1e9]}"]
    first = train(*options, "name=e")
    assert (first.status, first.exit_status) == ("finished", 0)
    assert [member.status for member in first.members] == ["finished", "diverged"]
    facts = json.loads(Path("outputs/e/members/1/run.json").read_text())
    assert facts["status"] == "diverged" and facts["diverged_at"] <= 8
    whole = train(*options, "name=whole", "train.steps=12")
    again = train("resume=outputs/e", "train.steps=12")
    assert [member.status for member in again.members] == ["finished", "diverged"]
    assert manifest(again.members[0].directory, 12) == manifest(whole.members[0].directory, 12)
    assert json.loads(Path("outputs/e/members/1/run.json").read_text())["diverged_at"] == facts["diverged_at"]


@pytest.mark.slow
def test_members_may_be_divided_over_devices():
    """On two devices, the last of which is not filled by three members, the tests above pass as well."""
    tests = [__file__, "-q", "-x", "-p", "no:cacheprovider", "-k", "replaces or frozen or (resume and not between)"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests, "-m", "not slow", "-n", "0"],
        env=environment(JAX_NUM_CPU_DEVICES="2"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ("{optim.lrr:[1,2]}", "no option optim.lrr.*optim.lr"),
        ("{optim.lr:[]}", "list of numbers"),
        ("{optim.lr:3}", "list of numbers"),
        ("{optim.lr:[1,-2]}", "optim.lr=-2.*greater than 0"),
        ("{optim.schedule:[1,2]}", "optim.schedule"),
        ("{model.generator.width:[8,16]}", "cannot vary"),
        ("{train.batch_size:[8,16]}", "cannot vary"),
        ("{strategy.n_critic:[1,2]}", "--multirun strategy.n_critic=1,2"),
        ("{optim.warmup_steps:[1,2]}", "--multirun optim.warmup_steps=1,2"),
        ("0", "at least 1"),
    ],
)
def test_invalid_ensembles_are_refused(asked, match):
    with pytest.raises(UserError, match=f"(?s){match}"):
        experiment([*TINY, f"train.ensemble={asked}"])


def test_an_ensemble_may_be_stopped_before_its_first_call(monkeypatch):
    monkeypatch.setattr(StopSignal, "received", signal.SIGTERM)
    run = train(*TINY, "train.ensemble=2")
    assert (run.status, run.step, run.exit_status) == ("stopped", 0, 143)
    assert {member.status for member in run.members} == {"stopped"}


@pytest.mark.parametrize(
    ("jobs", "ensemble"),
    [
        (["seed=0 model=mlp", "seed=1 model=mlp"], "model=mlp train.ensemble={seed:[0,1]}"),
        (["optim.lr=1e-3", "optim.lr=0.002"], "train.ensemble={optim.lr:[1e-3,0.002]}"),
        (["seed=0 optim.lr=1e-3", "seed=1 optim.lr=2e-3"], None),  # two of four combinations
        (["model=mlp", "model=dcgan"], None),
        (["strategy.n_critic=1", "strategy.n_critic=2"], None),
        (["seed=0", "seed=1 optim.lr=0.1"], None),
        (["seed=0", "seed=0"], None),
    ],
)
def test_jobs_that_an_ensemble_replaces(jobs, ensemble):
    found = of_jobs([job.split() for job in jobs])
    assert found == (ensemble.split() if ensemble else None)
    if found:
        assert len(experiment([*TINY, *found]).ensemble.members) == len(jobs)
