"""``init_from``: a run that starts with the parameters of another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, TOY
from test_run import _folder, manifest, records, train  # noqa: F401  (a fixture)

import gan_cli
from gan_cli.config.build import Experiment
from gan_cli.engine.state import init_state
from gan_cli.errors import UserError
from gan_cli.storage import checkpoints
from gan_cli.training import init_from

NORM = "model.generator.norm=batch"


def start(*overrides: str) -> tuple[Experiment, init_from.Transfer, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """An experiment, its transfer, and the arrays with and without ``init_from`` before the first step."""
    experiment = gan_cli.experiment([*TINY, "init_from=outputs/source", *overrides])
    transferred = init_from.transfer(experiment)
    assert transferred is not None
    fresh = jax.jit(lambda: init_state(experiment.setup))()
    return (
        experiment,
        transferred,
        checkpoints.by_name(init_from.first_states(transferred, [experiment])[0]),
        checkpoints.by_name(jax.device_get(fresh)),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of a game of two networks with batch normalisation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("source"))
        return train(*TINY, NORM, "name=source").directory.absolute()


@pytest.fixture(autouse=True)
def _source(_folder, trained) -> dict[str, np.ndarray]:  # noqa: F811
    """The arrays of the last checkpoint of the run outputs/source."""
    shutil.copytree(trained, "outputs/source")
    return checkpoints.load_arrays(trained / "checkpoints")[1]


@pytest.mark.parametrize("parts", ["weights", "averages", "all"])
def test_parts(parts, _source):
    _, _, started, fresh = start(f"init_parts={parts}", NORM, "loss=hinge", "dataset.flip=true")
    assert started["step"] == 0
    for name, array in started.items():
        field, _, rest = name.partition(".")
        if field in ("params", "net_state"):
            expected = _source[name]
        elif field in ("average", "average_state"):
            own = name if parts != "weights" else f"{'params' if field == 'average' else 'net_state'}.{rest}"
            expected = _source[own]
        elif name == "step":
            continue
        else:
            expected = _source[name] if parts == "all" else fresh[name]
        np.testing.assert_array_equal(array, expected, err_msg=name)


def test_arrays_of_another_shape_are_initialised_from_the_seed_and_listed(_source):
    _, transferred, started, fresh = start("model.latent_dim=5", "init_parts=all", "optim=sgd")
    kernel = "params.generator.blocks.0.linear.kernel.value"
    assert transferred.fresh[kernel] == "[5, 8] here, [4, 8] in the checkpoint"
    assert {"opt_state.discriminator", "opt_state.generator"} <= transferred.fresh.keys()
    np.testing.assert_array_equal(started[kernel], fresh[kernel])
    # The average of a fresh array starts at the fresh array.
    np.testing.assert_array_equal(started[kernel.replace("params", "average")], fresh[kernel])
    assert any("blocks.0.linear.kernel ([5, 8] here" in line for line in transferred.lines())
    bias = "params.discriminator.blocks.0.linear.bias.value"
    np.testing.assert_array_equal(started[bias], _source[bias])


@pytest.mark.parametrize("option", ["optim=schedule_free", "strategy=lookahead"])
def test_copies_of_the_parameters_in_other_states_are_of_the_new_parameters(option, _source):
    """Schedule-free optimisers and lookahead keep the parameters of the start in their states."""
    _, _, started, fresh = start(option, NORM)
    kernel = "generator.blocks.0.linear.kernel.value"
    wanted, before = _source[f"params.{kernel}"], fresh[f"params.{kernel}"]
    state = {
        k: v for k, v in started.items() if k.startswith(("opt_state", "strategy")) and v.shape == wanted.shape
    }
    assert any(np.array_equal(array, wanted) for array in state.values() if array.shape == wanted.shape)
    assert not any(np.array_equal(array, before) for array in state.values() if array.shape == wanted.shape)


@pytest.mark.slow
def test_a_run_records_its_source_and_resumes_like_any_other():
    options = [*TINY, "init_from=outputs/source/checkpoints/4", NORM, "optim.lr=1e-5"]
    whole = train(*options, "name=whole", "train.steps=12")
    train(*options, "name=parts")
    Path("outputs/source").rename("moved")  # a resumed run does not need the source
    again = train("resume=outputs/parts", "train.steps=12")
    assert manifest(again.directory, 12) == manifest(whole.directory, 12)
    assert records(again.directory) == records(whole.directory)
    for run in (whole, again):
        facts = json.loads((run.directory / "run.json").read_text())["init"]
        assert facts["checkpoint"] == "outputs/source/checkpoints/4" and facts["step"] == 4 and not facts["fresh"]
    with pytest.raises(UserError, match="which a resumed run cannot change"):
        train("resume=outputs/parts", "init_from=moved", "train.steps=16")


@pytest.mark.slow
def test_every_member_of_an_ensemble_starts_from_the_source():
    train(*TINY, "name=both", "init_from=outputs/source", "train.ensemble=2", NORM)
    with pytest.raises(UserError, match=r"Choose one of its members, e\.g\. outputs/both/members/0"):
        train(*TINY, "init_from=outputs/both", NORM)
    single = train(*TINY, "name=single", "init_from=outputs/source", "seed=1", NORM)
    member = checkpoints.load_arrays(Path("outputs/both/members/1/checkpoints"))[1]
    alone = checkpoints.load_arrays(single.directory / "checkpoints")[1]
    for name, array in alone.items():
        np.testing.assert_allclose(member[name], array, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["init_from=outputs/none"], "init_from=outputs/none: outputs/none: there is no such directory"),
        (["init_from=outputs"], "init_from=outputs: outputs: the directory contains no run"),
        (["init_from=outputs/source/checkpoints/5"], "no such directory"),
        (["init_from=outputs/source/best"], "has not saved a best checkpoint"),
        (
            ["init_from=outputs/source", "model.generator.width=9", "model.discriminator.width=9"],
            "no weight of the",
        ),
        (["init_parts=all"], "init_parts=all: needs init_from=DIR"),
        (["init_from=outputs/source", "init_parts=optimiser"], "must be one of weights, averages, all"),
    ],
)
def test_refused_before_a_directory_is_made(overrides, message):
    for dry in ("true", "false"):
        with pytest.raises(UserError, match=message):
            train(*TINY, "name=new", "model.discriminator.width=9", f"dry_run={dry}", *overrides)
    assert not Path("outputs/new").exists()


def test_a_game_without_networks():
    folder, options = TOY[1], [*TOY[2:], "train.steps=8"]
    train(*options, "name=toy", config_dir=folder)
    run = train(*options, "name=again", "init_from=outputs/toy", config_dir=folder)
    assert run.status == "finished"
