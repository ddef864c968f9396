"""Run directories of earlier versions (earlier_runs/) are resumed, sampled, evaluated and reported."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import HERE, TINY

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.report import main as gan_report
from gan_cli.cli.sample import main as gan_sample
from gan_cli.config import identity, names, stored
from gan_cli.config.build import experiment
from gan_cli.engine import randomness
from gan_cli.errors import UserError
from gan_cli.storage import checkpoints, run_directory
from gan_cli.trained import restore
from gan_cli.trained.sampling import TaskRunner

FIXTURES = sorted(path.parent for path in (HERE / "earlier_runs").glob("*/*/expected.json"))


@pytest.fixture(params=FIXTURES, ids=lambda path: f"{path.parent.name}-{path.name}")
def run(request, tmp_path, monkeypatch):
    """A copy of a fixture, and the values that the earlier version recorded."""
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(request.param, tmp_path / "run")
    return copy, json.loads((copy / "expected.json").read_text())


def test_an_earlier_run_restores_the_recorded_state(run):
    """Every array, the next batch and the next key equal the values that the earlier version recorded."""
    path, expected = run
    for name, noted in expected["runs"].items():
        loaded = restore.restore_run(path / name, data=True)
        e, step = loaded.experiment, loaded.step
        assert step == expected["step"]
        arrays = {
            name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            for name, array in checkpoints.by_name(loaded.state).items()
        }
        assert arrays == noted["arrays"]
        key = jax.random.key_data(randomness.step_key(e.seed, np.int32(step)))
        assert np.asarray(key).tolist() == noted["key"]
        order = randomness.order(e.dataset.feed, e.seed, step, 1, e.strategy.batches, e.train.batch_size)
        assert np.asarray(order.indices[""])[0].tolist() == noted["indices"]
        samples = np.concatenate([np.asarray(s) for s in TaskRunner(e.game).numbered(loaded.state, 0, 4)])
        atol = 1.0 if samples.dtype == np.uint8 else 1e-4  # rounding may change a pixel by one level
        np.testing.assert_allclose(samples.reshape(4, -1)[:, ::25].astype(float), noted["samples"], atol=atol)


def test_an_earlier_run_resumes(run):
    """Ten more steps give the losses of the earlier version, and convert the run to the current format."""
    path, expected = run
    for steps in (expected["step"], expected["step"] + 10):  # the second: new format, old checkpoints
        gan_cli.train([f"resume={path}", f"train.steps={steps}"], quiet=True)
    for name, noted in expected["runs"].items():
        facts = run_directory.facts(path / name)
        assert facts["format"] == run_directory.FORMAT and facts["status"] == "finished"
        assert "gan_cli." not in json.dumps(facts["config"])
        final = {key: facts["final"][key] for key in noted["losses"]}
        assert final == pytest.approx(noted["losses"], rel=1e-4, abs=1e-5)


def test_an_earlier_run_is_sampled_evaluated_and_reported(run):
    path, expected = run
    names = list(expected["runs"])
    assert gan_sample([str(path / names[0]), "--out", "samples.npz", "--num", "3"]) == 0
    assert gan_eval([str(path), "--metrics", "sliced_wasserstein", "--features", "random", "--num", "20"]) == 0
    assert gan_report([str(path), "--out", "report.html"]) == 0
    page = Path("report.html").read_text()
    assert ('"optim.lr"' if len(names) > 1 else '["loss","') in page  # several runs: the varied option


@pytest.mark.parametrize(("key", "value"), [("loss", "hinge"), ("optim.b1", "0.4"), ("seed", "7")])
def test_training_options_of_an_earlier_run_cannot_change(key, value, tmp_path):
    path = shutil.copytree(HERE / "earlier_runs/format0/mlp", tmp_path / "run")
    with pytest.raises(UserError, match="a resumed run cannot change"):
        gan_cli.train([f"resume={path}", f"{key}={value}"], quiet=True)


def test_an_edited_configuration_does_not_fit_the_checkpoints(tmp_path):
    path = shutil.copytree(HERE / "earlier_runs/format0/mlp", tmp_path / "run")
    facts = json.loads((path / "run.json").read_text())
    facts["config"]["optim"]["b1"] = 0.4
    (path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="another configuration"):
        gan_cli.train([f"resume={path}", "train.steps=30"], quiet=True)


def test_a_newer_format_is_refused_in_one_line(tmp_path):
    path = shutil.copytree(HERE / "earlier_runs/format0/ring", tmp_path / "run")
    facts = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(facts | {"format": run_directory.FORMAT + 1}))
    with pytest.raises(UserError, match="newer version of gan_cli") as error:
        restore.restore_run(path)
    assert "\n" not in str(error.value)


def test_a_stored_choice_that_no_longer_exists_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"loss=hingee: this version has no such choice. Did you mean 'hinge'"):
        names.decode({"loss": {"_choice_": "hingee"}})


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=r3gan", "dataset=grid", "model=pacgan"],
        ["strategy=lookahead", "strategy@strategy.inner=extragradient", "optim@optim.discriminator=sgd"],
        ["experiment=quadratic"],
        ["metric=[fid,modes]", "features=pixels", "logger=[csv,wandb]", "dataset=ring", "model=pacgan"],
    ],
)
def test_stored_configurations_name_choices_instead_of_targets(overrides):
    """A stored configuration contains no Python path of this package, and decodes to the original."""
    config = experiment(overrides).config
    encoded = names.encode(config)
    assert "gan_cli." not in json.dumps(encoded) and "_partial_" not in json.dumps(encoded)
    assert names.decode(encoded) == config


def test_the_command_that_started_a_run_also_resumes_it(tmp_path, monkeypatch):
    """model=dirac leaves out options that have defaults, which does not count as a changed option."""
    monkeypatch.chdir(tmp_path)
    command = ["experiment=dirac_gan", "name=x", "logger=none"]
    gan_cli.train([*command, "train.steps=20"], quiet=True)
    assert gan_cli.train([*command, "train.steps=30", "resume=auto"], quiet=True).step == 30


def test_the_command_that_started_a_run_before_models_had_encoders_also_resumes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [*TINY, "model=mlp", "name=x", "logger=none"]
    gan_cli.train([*command, "model.encoder=null"], quiet=True)  # such a run has no encoder in its configuration
    assert gan_cli.train([*command, "train.steps=12", "resume=auto"], quiet=True).step == 12
    with pytest.raises(UserError, match=r"model.encoder.width=9: .* cannot change"):
        gan_cli.train([*command, "model.encoder.width=9", "resume=auto"], quiet=True)


@pytest.mark.parametrize(
    ("generator", "name"),
    [({"_target_": "mynets.Gen"}, "mlp"), (None, "mlp"), ({"_target_": "gan_cli.models.dcgan.Generator"}, "dcgan")],
)
def test_any_model_of_format_0_gets_the_name_of_a_choice(generator, name):
    model = {"_target_": "gan_cli.models.Model", "generator": generator}
    assert stored.config_of({"config": {"model": model}})["model"]["_choice_"] == name


def test_damaged_facts_give_no_earlier_fingerprints():
    config = experiment([]).config
    facts = {"format": 1, "config": names.encode(config), "fingerprint": identity.fingerprint(config)}
    for damaged in (None, 7, [{}], "x"):
        found = stored.earlier_fingerprints(facts | {"earlier_fingerprints": damaged}, config)
        assert found == (facts["fingerprint"],)
    assert stored.earlier_fingerprints(facts | {"format": []}, config) == (facts["fingerprint"],)
    assert stored.earlier_fingerprints({"config": 3}, config) == stored.earlier_fingerprints({}, config) == ()
