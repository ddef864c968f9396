"""Games of tables: GAN, CTGAN and VAE of rows, the samplers of tables, and everything that a run of them can do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, Program
from safetensors.numpy import load_file
from scipy.special import log_softmax
from scipy.stats import chisquare, norm
from test_ensemble import Together
from test_run import manifest, records
from toy_tables import toy_table

import gan_cli
from gan_cli.config.build import experiment
from gan_cli.data import samplers
from gan_cli.data.samplers import Domain
from gan_cli.engine.state import init_state
from gan_cli.errors import UserError
from gan_cli.games import likelihoods
from gan_cli.games.ctgan import Conditions
from gan_cli.trained import export, restore
from gan_cli.trained.sampling import TaskRunner

KEY = jax.random.key(0)
TABLE = [*TINY, "dataset=german_credit"]
CTGAN = [
    *TABLE, "game=ctgan", "model=ctgan", "sampler=log_frequency", "loss=wgan", "penalty=[wgan_gp]",
    "augment=[packing]", "train.batch_size=40", "augment.packing.size=10",
]  # fmt: skip
VAE = [*TABLE, "game=vae", "game.likelihood=table", "model.encoder.width=8"]
GAMES = {"gan": [*TABLE, "model.conditional=auto"], "ctgan": CTGAN, "vae": [*VAE, "model.conditional=auto"]}


@pytest.fixture(scope="module")
def data():
    return toy_table()


def law(codes):
    """p(v) of each category of a column: its probability under ``log_frequency``, given the column."""
    counts = np.bincount(codes)
    return np.log1p(counts) / np.log1p(counts).sum()


def test_log_frequency_draws_rows_with_the_published_probabilities(data):
    """Each row has the probability mean over the columns of p(v) / n(v), for its category v (Xu et al. 2019)."""
    codes = data.feature.category_codes(data.examples["x"])
    expected = np.mean([law(one)[one] / np.bincount(one)[one] for one in codes.T], axis=0)
    np.testing.assert_allclose(expected.sum(), 1)
    sampler = samplers.log_frequency(data.domains[""], 500)
    drawn = np.asarray(sampler.indices(KEY, jnp.arange(400).reshape(4, 100)))
    assert drawn.shape == (4, 100, 500)
    np.testing.assert_array_equal(drawn[2, 7], sampler.indices(KEY, jnp.int32(207)))  # depends on the number only
    assert chisquare(np.bincount(drawn.ravel(), minlength=data.size), expected * drawn.size).pvalue > 1e-3


def test_independent_draws_are_even_and_may_exceed_the_data():
    drawn = samplers.independent(Domain(7), 500).indices(KEY, jnp.arange(100))
    assert chisquare(np.bincount(np.ravel(drawn))).pvalue > 1e-3


@pytest.mark.parametrize("log_frequency", [True, False])
def test_conditions_of_real_rows_have_the_distribution_of_the_sampler(data, log_frequency):
    """Drawn from its posterior, the condition has the law by which the sampler chose a column and a category."""
    table, codes = data.feature, data.feature.category_codes(data.examples["x"])
    conditions = Conditions(table, table.discrete)
    chosen = samplers.log_frequency if log_frequency else samplers.independent
    rows = chosen(data.domains[""], 200_000).indices(KEY, jnp.int32(0))
    x = table.encode(jnp.asarray(data.examples["x"]))[rows]
    found = conditions.of_rows(x, jax.random.key(1), log_frequency)
    expected = [law(one) if log_frequency else np.bincount(one) / len(one) for one in codes.T]
    np.testing.assert_allclose(found.mean(0), np.concatenate(expected) / len(expected), atol=5e-3)
    spans = jnp.concatenate([x[:, s.start : s.start + s.width] for s in table.discrete], axis=1)
    assert np.all((found * spans).sum(1) == 1)  # every row meets its condition


def test_categories_without_rows_leave_the_posterior_as_it_is(data):
    """A schema may name categories that no training row has."""
    table = data.feature
    plan = table.discrete[0]
    wider = dataclasses.replace(
        table.columns[plan.column],
        categories=(*table.columns[plan.column].categories, "x", "y"),
        frequencies=(*table.columns[plan.column].frequencies, 0.0, 0.0),
    )
    columns = tuple(wider if i == plan.column else one for i, one in enumerate(table.columns))
    wide = dataclasses.replace(table, columns=columns)
    weights = Conditions(table, table.discrete)._log_weights(plan)
    found = Conditions(wide, wide.discrete)._log_weights(wide.discrete[0])
    np.testing.assert_allclose(found[: plan.width], weights)


def test_conditions_of_samples_have_the_frequencies_of_the_data(data):
    table = data.feature
    conditions = Conditions(table, table.discrete)
    found = jax.vmap(conditions.draw)(jax.random.split(KEY, 100_000)).mean(0)
    expected = np.concatenate([table.columns[s.column].frequencies for s in table.discrete]) / 3
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_cross_entropy_of_a_condition(data):
    """-log softmax(logits of the column)[category], for the column of the condition alone."""
    table = data.feature
    conditions = Conditions(table, table.discrete)
    raw = np.random.default_rng(0).standard_normal((2, *table.shape)).astype(np.float32)
    plan, _, credit = table.discrete
    vectors = np.stack([conditions.vector(plan, 2), conditions.vector(credit, 0)])
    expected = [
        -log_softmax(raw[0, plan.start : plan.start + 3])[2],
        -log_softmax(raw[1, credit.start : credit.start + 2])[0],
    ]
    np.testing.assert_allclose(conditions.cross_entropy(raw, vectors), expected, rtol=1e-5)


def test_the_discriminator_of_ctgan_sees_packs_of_rows_and_their_conditions():
    e = experiment(CTGAN)
    game, batch = e.game, {"x": e.dataset.feature.encode(jnp.asarray(e.dataset.examples["x"][:40]))}
    params, state = jax.eval_shape(game.init, KEY)
    width = e.dataset.feature.size + game.tasks["generate"].inputs["condition"].size
    assert params["discriminator"]["blocks"][0]["linear"]["kernel"].shape[0] == 10 * width

    def terms(params, state):
        return dict(game.loss("generator", params, state, game.noise(batch, KEY), KEY, jnp.int32(0)).terms)

    found = jax.eval_shape(terms, params, state)
    shapes = {name: term.values.shape for name, term in found.items()}
    assert shapes == {"adversarial": (4,), "condition": (40,)}


def test_ctgan_without_conditions_is_a_gan_of_packs():
    e = experiment([*CTGAN, "game.condition=none", "game.log_frequency=false", "sampler=shuffled"])
    assert e.game.tasks["generate"].inputs.keys() == {"latents"}


@pytest.mark.parametrize("conditional", ["none", "auto", "projection", "acgan"])
def test_samples_have_the_requested_class_and_the_classes_of_the_data(conditional):
    e = experiment([*TABLE, f"model.conditional={conditional}"])
    runner, state = TaskRunner(e.game), init_state(e.setup)
    table, inputs = e.dataset.feature, TaskRunner(e.game).inputs(3, 0, 4000)
    assert inputs["latents"].shape == (4000, 4 + table.noise)
    samples = np.concatenate([np.asarray(part["samples"]) for part in runner.stored(state, inputs, 3)])
    credit = table.restore(samples)["credit"]
    if conditional == "none":
        assert set(credit) == {"bad", "good"}  # the generator makes the label like any other column
        return
    np.testing.assert_array_equal(credit, np.array(["bad", "good"])[inputs["label"]])
    assert abs((credit == "good").mean() - table.class_shares[1]) < 0.03
    assert runner.classes == {"label": 2}  # gan-sample --class


def test_auto_is_no_condition_without_labels():
    e = experiment([*TABLE, "model.conditional=auto", "dataset.label=null"])
    assert e.game.tasks["generate"].inputs.keys() == {"latents"}


def test_the_likelihood_of_a_row(data):
    """The sum of the log-densities of the numbers and the log-probabilities of the categories (SciPy)."""
    table = data.feature
    raw = np.random.default_rng(0).standard_normal((5, *table.shape)).astype(np.float32)
    x = np.asarray(table.encode(data.examples["x"][:5]))
    found = likelihoods.table(raw, jnp.log(jnp.full(1, 0.3**2)), x, table)
    expected = [norm.logpdf(x[:, 0], raw[:, 0], 0.3)]
    expected += [
        (log_softmax(raw[:, s.start : s.start + s.width], axis=1) * x[:, s.start : s.start + s.width]).sum(1)
        for s in table.spans
    ]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-4)


def test_a_vae_draws_numbers_with_their_deviation_and_takes_the_most_probable_categories():
    e = experiment(VAE)
    state, task = init_state(e.setup), e.game.tasks["generate"]
    n = 5000
    latents = jnp.zeros((n, 4))
    table = e.dataset.feature
    noise = jax.random.normal(KEY, (n, table.scalars))
    x = task.apply(state.params, state.net_state, {"latents": latents, "noise": noise}, jax.random.split(KEY, n))
    x = np.asarray(x["samples"])
    np.testing.assert_allclose(x[:, : table.scalars].std(0), 0.1, rtol=0.05)  # the initial deviations
    assert len(np.unique(np.asarray(table.decode(x))[:, table.scalars :], axis=0)) == 1


def test_a_deviation_beyond_its_limit_can_return():
    """The limits hold for the deviation, and not for its gradient."""
    game = experiment(VAE).game

    def deviation(parameter):
        return jnp.exp(game._log_variance({"log_variance": parameter}) / 2)

    for parameter, limit in ((-20.0, 0.01), (3.0, 1.0)):
        value, slope = jax.value_and_grad(deviation)(parameter)
        assert value == pytest.approx(limit)
        assert slope == pytest.approx(limit / 2)


REFUSED = [
    (["game=vae"], "game.likelihood=bernoulli: is no distribution of rows"),
    (["game=vae", "game.likelihood=gaussian"], "Set game.likelihood=table"),
    (["game=vae", "game.likelihood=table", "dataset=mnist5k"], "is no distribution of images"),
    (["game=vae_gan"], "game=vae_gan reconstructs examples without noise"),
    (["game=ctgan"], "sampler=shuffled: the losses of this game assume the batches of sampler=log_frequency"),
    (["game=ctgan", "sampler=log_frequency", "game.condition=label"], "sampler=log_frequency draws rows by all"),
    (["game=ctgan", "game.log_frequency=false", "game.condition=label", "dataset.label=null"], "has no label"),
    (["game=ctgan", "sampler=log_frequency", "model.conditional=concat"], "Set model.conditional=none"),
    (["game=ctgan", "dataset=grid"], "game=ctgan learns rows of tables, and this data set has points"),
    (["sampler=log_frequency"], "sampler=log_frequency: draws the examples with other frequencies"),
    (["game=vae", "game.likelihood=table", "sampler=log_frequency"], "does not correct for them"),
    (["game=ctgan", "game.log_frequency=false", "sampler=log_frequency"], "Set sampler=shuffled"),
    (["sampler=log_frequency", "dataset=grid"], "sampler=log_frequency: needs the rows of a table"),
    (["estimator=microbatched", "estimator.size=4", "augment=[packing]"], "divides the batch"),
    (["train.batch_size=900"], "is larger than the data set, which has 800 examples"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_in_one_line(overrides, message):
    with pytest.raises(UserError) as error:
        experiment([*TABLE, *overrides])
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.fixture
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*overrides):
    return gan_cli.train(list(overrides), quiet=True)


@pytest.mark.parametrize("game", ["ctgan", *(pytest.param(one, marks=pytest.mark.slow) for one in ("gan", "vae"))])
def test_a_resumed_run_is_bit_identical_and_starts_another_run(game, _folder):
    whole = train(*GAMES[game], "train.steps=8", "name=whole")
    train(*GAMES[game], "train.steps=4", "name=part")
    part = train("resume=outputs/part", "train.steps=8")
    assert manifest(whole.directory, 8) == manifest(part.directory, 8)
    assert records(whole.directory) == records(part.directory)
    assert train(*GAMES[game], "init_from=outputs/whole", "name=tuned").step == 8


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_an_exported_program_makes_the_same_rows(game, _folder):
    run = train(*GAMES[game], "train.steps=4", "name=run")
    restored = restore.restore_run(run.directory)
    export.write(restored, Path("program"))
    program = jax.export.deserialize(bytearray(Path("program/generator.stablehlo").read_bytes()))
    weights = load_file("program/generator.safetensors")
    runner = TaskRunner(restored.experiment.game)
    inputs = runner.inputs(5, 0, 30)
    found = program.call(weights, *inputs.values())
    np.testing.assert_allclose(found, runner(restored.state, inputs)["samples"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("game", ["gan", "vae"])
def test_slices_and_poisson_batches_of_uncoupled_games(game):
    """The mean over slices is the mean over the batch, and batches of Poisson sampling have a mask."""
    base = [*GAMES[game], "optim=sgd"] + ["model.discriminator.dropout=0"] * (game == "gan")
    slices = ["estimator=microbatched", "estimator.size=4"]
    whole, sliced, _ = (Program(experiment([*base, *more])).run(2) for more in ([], slices, ["sampler=poisson"]))
    player = "vae" if game == "vae" else "generator"
    np.testing.assert_allclose(sliced[f"{player}/loss"], whole[f"{player}/loss"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_each_member_of_an_ensemble_is_the_run_that_it_replaces(game):
    # SGD, because Adam divides by the size of the gradient, and so magnifies rounding where it is almost zero.
    together = Together([*GAMES[game], "optim=sgd", "train.ensemble={seed:[1,2]}"], vectorise=True)
    together.run(8)
    for i, own in enumerate(together.ensemble.members):
        program = Program(own)
        program.run(8)
        for a, b in zip(*map(jax.tree.leaves, (together.member(i).params, program.state.params)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["simultaneous", "extragradient", "optimistic", "unrolled", "consensus"])
def test_strategies_of_ctgan(strategy):
    metrics = Program(experiment([*CTGAN, f"strategy={strategy}"])).run(2)
    assert all(np.isfinite(values).all() for values in metrics.values())
