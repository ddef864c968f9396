"""Options of the compiler: the choice by measured speeds, its cache, and runs that keep their options."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import TINY

import gan_cli
from gan_cli.config.build import experiment
from gan_cli.engine import tuning
from gan_cli.engine.compiled_steps import CompiledSteps


class Scripted:
    """Compiled steps whose calls take prescribed seconds."""

    steps_per_call = 10

    def __init__(self, seconds: dict[str, list[float]]):
        self.seconds, self.compiled = seconds, set()

    def lower(self, state, length):
        return SimpleNamespace(as_text=lambda: "dense<0.5> program")

    def next_length(self, step):
        return self.steps_per_call

    def trial(self, step, options):
        name = next((name for name, found in tuning.VARIANTS.items() if found == options), "default")
        left = iter([9.0, *self.seconds[name] * 3])  # the first call compiles
        self.compiled.add(name)
        return lambda state: (state, next(left))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


DIRAC = [
    *("experiment=dirac_gan", "train.tune=auto", "train.steps=8", "train.steps_per_call=4"),
    *("train.log_every=4", "train.sample_every=0", "train.checkpoint_every=4"),
]
EQUAL = {name: [1.0] * 5 for name in ("default", *tuning.VARIANTS)}


def test_the_fastest_options_are_chosen_and_cached(cache):
    steps = Scripted(EQUAL | {"wide": [0.8] * 5, "onednn": [0.5, 2.0, 2.0, 2.0, 2.0]})
    choice = tuning.choose(steps, {}, 10, "retune")
    assert (choice.variant, choice.options, choice.speed) == ("wide", tuning.VARIANTS["wide"], 1.25)
    again = Scripted(EQUAL)
    assert tuning.choose(again, {}, 10**6, "auto") == choice and again.compiled == {"default"}
    assert tuning.choose(again, {}, 10, "retune").variant == "default" and len(again.compiled) == 3


def test_small_differences_keep_the_default_options(cache):
    choice = tuning.choose(Scripted(EQUAL | {"wide": [0.99] * 5}), {}, 10, "retune")
    assert (choice.variant, choice.options) == ("default", {})


def test_auto_measures_long_runs_only(cache):
    """With calls of one second, two variants take 2 * 9 + 5 * 3 * 1 = 33 s, 2 % of 1,650 calls."""
    for calls, measures in ((100, False), (1600, False), (1700, True)):
        assert (tuning.choose(Scripted(EQUAL), {}, calls, "auto") is not None) == measures


@pytest.mark.parametrize("name", tuning.VARIANTS)
def test_the_options_change_rounding_only(name):
    steps = experiment([*TINY, "model.discriminator.dropout=0"]).compile()
    expected, _ = steps.trial(0, {})(steps.init())
    found, _ = steps.trial(0, tuning.VARIANTS[name])(steps.init())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)
    assert not tuning._accepted({"xla_cpu_no_such_option": True})


def test_a_resumed_run_keeps_its_options(tmp_path, monkeypatch, capsys):
    """A run in two parts has the bits of an uninterrupted run. No start but the first chooses options."""
    monkeypatch.chdir(tmp_path)
    used = []
    compile_ = CompiledSteps._compile
    monkeypatch.setattr(CompiledSteps, "_compile", lambda self, o=None: used.append(o) or compile_(self, o))
    wide = tuning.Choice("wide", tuning.VARIANTS["wide"], 1.25, tuning.machine())
    monkeypatch.setattr(tuning, "choose", lambda *_: wide)
    whole = gan_cli.train([*DIRAC, "name=whole"], quiet=True)
    gan_cli.train([*DIRAC, "name=parts", "train.steps=4"], quiet=True)
    monkeypatch.setattr(tuning, "choose", lambda *_: pytest.fail("a resumed run measured again"))
    resumed = gan_cli.train(["resume=outputs/parts", "train.steps=8"], quiet=True)
    assert used[-1] == wide.options
    assert resumed.metrics == whole.metrics
    facts = json.loads((whole.directory / "run.json").read_text())
    assert facts["tuning"]["variant"] == "wide" and facts["compiler_options"] == wide.options

    path = Path("outputs/parts/run.json")
    facts = json.loads(path.read_text())
    facts["tuning"]["machine"] = "another processor, 8 cores"
    facts["compiler_options"]["xla_dump_to"] = "hacked"  # accepted by XLA, which would write files
    path.write_text(json.dumps(facts))
    gan_cli.train(["resume=outputs/parts", "train.steps=12"])
    printed = capsys.readouterr().out
    assert "keeps wide, measured on another processor, 8 cores; this machine is" in printed
    assert "leaves out xla_dump_to" in printed and not Path("hacked").exists()
