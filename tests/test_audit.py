"""The privacy audit: the one-run bound, membership inference, and the faults of private training that it finds."""

from __future__ import annotations

import dataclasses
import json
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from scipy.stats import norm

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.config import build_private
from gan_cli.config.build import experiment
from gan_cli.engine.state import init_state
from gan_cli.errors import UserError
from gan_cli.estimators import private
from gan_cli.metrics import Scores, one_run
from gan_cli.metrics.privacy import contradiction, likelihood_ratios, limits
from gan_cli.strategies.alternating import alternating
from gan_cli.trained import audit
from gan_cli.trained.restore import restore_run

DELTA = 1e-5


# ------------------------------------------------------------------------------------------------ the bound


def test_bound_of_right_guesses_in_closed_form():
    """If all r guesses are right, (1 / (1 + exp(-epsilon)))^r is the significance."""
    for r, level in ((200, 0.05), (40, 0.01)):
        q = level ** (1 / r)
        assert one_run.epsilon_of(r, r, r, 0.0, level) == pytest.approx(np.log(q / (1 - q)), rel=1e-6)
    assert one_run.p_value(10, 4, 0, 1.0, 0.0) == 1
    assert one_run.p_value(10, 1, 1, 1.0, 0.0) == pytest.approx(np.e / (1 + np.e))
    # One guess: P(B >= 1) + 2 m delta P(B = 0).
    assert one_run.p_value(10, 1, 1, 1.0, 1e-3) == pytest.approx((np.e + 0.02) / (1 + np.e))
    assert 3.8 < one_run.largest_bound(200, DELTA) < 4


def test_bound_equals_jax_privacy():
    auditing = pytest.importorskip("jax_privacy.auditing")
    for m, guesses, right, delta in ((200, 200, 180, 0.0), (200, 100, 96, 1e-5), (1000, 500, 430, 1e-4)):
        expected = auditing._epsilon_one_run(0, m, guesses, right, 0.05, delta)
        assert one_run.epsilon_of(m, guesses, right, delta, 0.05) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_bound_covers_randomised_response(epsilon):
    """Randomised response tells each coin with probability 1 / (1 + exp(-epsilon)). Few bounds exceed epsilon."""
    rng, runs = np.random.default_rng(0), 200
    found = []
    for _ in range(runs):
        included = rng.random(400) < 0.5
        told = np.where(rng.random(400) < 1 / (1 + np.exp(-epsilon)), included, ~included)
        found.append(one_run.lower_bound(told + 0.01 * rng.random(400), included, 0.0))
    assert np.mean(np.array(found) > epsilon) <= 0.05
    assert np.mean(found) > 0.3 * epsilon


def test_likelihood_ratios_recover_the_effect_of_training():
    """Scores of examples of any difficulty: the ratio equals that of two Gaussians with the common effect."""
    rng, n, effect, std = np.random.default_rng(0), 4_000, 0.5, 0.2
    difficulty = 10 * rng.standard_normal(n)
    trained = np.stack([half := rng.random((2, n)) < 0.5, ~half], 1).reshape(4, n)
    member = rng.random(n) < 0.5
    draw = lambda included: difficulty + effect * included + std * rng.standard_normal(included.shape)  # noqa: E731
    ratios = likelihood_ratios(Scores(draw(member), draw(trained), trained))
    auc = np.mean(ratios[member][:, None] > ratios[~member])
    assert auc == pytest.approx(norm.cdf(effect / (std * np.sqrt(1 + 1 / 4)) / np.sqrt(2)), abs=0.015)


def test_claims():
    figures = {"epsilon_promised": 1.0, "epsilon_counted": 1.0, "epsilon_lower_bound": 0.5}
    assert contradiction({}) is None and limits({}) is None
    assert contradiction(figures) is None
    assert "cannot test this claim" in limits(figures | {"epsilon_lower_bound_max": 0.9})
    assert "cannot test this claim" in limits({"epsilon_promised": 1.0})
    assert "could show up to 3.9" in limits(figures | {"epsilon_lower_bound_max": 3.9})
    assert "at least 1.2" in contradiction(figures | {"epsilon_lower_bound": 1.2})
    assert "spend 1.5" in contradiction(figures | {"epsilon_counted": 1.5})


# ------------------------------------------------------------------------------------------------ canaries


def test_canaries_are_included_by_fair_coins():
    first, again = (experiment([*TINY, "dataset=mnist5k", "dataset.canaries=400"]).dataset for _ in range(2))
    other = experiment([*TINY, "dataset=mnist5k", "dataset.canaries=400", "seed=1"]).dataset
    included = first.planted.included
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert abs(included.sum() - 200) < 4 * 10 and (other.planted.included != included).any()
    assert first.size == 4_500 + included.sum() and first.held_out_size == 500
    for name, canaries in first.planted.examples.items():
        np.testing.assert_array_equal(first.arrays[name][4_500:], canaries[included])
    table = experiment(["experiment=credit", "dataset.canaries=50"]).dataset
    assert len(table.columns["training"]["age"]) == table.size == 800 + table.planted.included.sum()
    assert np.isfinite(table.feature.encode(table.planted.examples["x"])).all()
    with pytest.raises(UserError, match=r"dataset\.canaries=5"):
        from gan_cli.data import canaries
        from gan_cli.data.gaussians import ring

        canaries.planted(dataclasses.replace(ring(size=10), canaries=5), 0)


def test_training_does_not_compute_the_audit():
    with pytest.raises(UserError, match="gan-eval RUN --metrics privacy"):
        experiment([*TINY, "metric=[privacy]"])


# ------------------------------------------------------------------------------------------------ faults

# A discriminator of digits, trained for five steps on all examples. The generator has one unit, and makes nearly
# equal images, so that the canaries leave the only traces that differ between runs, except for the noise.
CANARIES, REAL, STEPS, REFERENCES, SEEDS = 200, 56, 5, 4, 20
EXPECTED = REAL + CANARIES // 2  # mean number of examples in a batch
OPTIONS = [
    "dataset=mnist5k", f"dataset.canaries={CANARIES}", "dataset.duplicates=keep", "model=mlp", "loss=nonsaturating",
    "model.conditional=projection", "model.discriminator.width=128", "model.discriminator.depth=1",
    "model.discriminator.dropout=0", "model.generator.width=1", "model.latent_dim=1", "optim=sgd", "optim.lr=0.3",
    "estimator=private", "estimator.noise_multiplier=1", "sampler=poisson", "metric=none",
]  # fmt: skip
# The fault and the clipping norm. The norms are below those of the gradients without clipping.
FAULTS = {"noise off": 0.2, "noise / sqrt(batch)": 0.2, "clip off": 0.2, "labels unclipped": 0.05}


def bounds(fault: str | None, clip: float, runs: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The lower bounds on epsilon of ``runs`` runs that promise epsilon 1, against the same reference runs."""
    accounting = pytest.importorskip("gan_cli.privacy.accounting")
    whole = experiment(OPTIONS)
    game, setup, data = whole.game, whole.setup, whole.dataset
    own = {
        name: jnp.concatenate([jnp.asarray(game.spec[name].encode(x)) for x in (data.arrays[name][:4_500:81], one)])
        for name, one in data.planted.examples.items()
    }
    noise = accounting.noise_for(1.0, DELTA, lambda sigma: (accounting.Charge(sigma, 1.0, STEPS),))
    noise *= {"noise off": 0.0, "noise / sqrt(batch)": EXPECTED**-0.5}.get(fault, 1.0)
    intact = private.clipped_sum

    def faulty(function, params, rows, mask, bound):
        clipped, whole = intact(function, params, rows, mask, bound), intact(function, params, rows, mask, 1e9)
        if fault == "clip off":
            return whole
        # The gradient of the label's embedding, the kernel of the projection discriminator's head.
        return clipped | {"head": whole["head"]} if fault == "labels unclipped" else clipped

    monkeypatch.setattr(private, "clipped_sum", faulty)
    estimator = private.bound(private.private(max_grad_norm=clip, noise_multiplier=noise), EXPECTED, game.spec)
    strategy, start = alternating(game, estimator), init_state(setup)
    coins = np.random.default_rng(1).random((REFERENCES + runs, CANARIES)) < 0.5

    def scores(one):
        included, key = one
        batch = own | {"mask": jnp.concatenate([jnp.ones(REAL), included])}

        def step(state, key):
            return strategy.step(setup.optimisers, state, [batch], key)[0], None

        state, _ = jax.lax.scan(step, start, jax.random.split(key, STEPS))
        canaries = {name: x[REAL:] for name, x in own.items()}
        return game.membership_scores(state.params, state.net_state, canaries, key)

    keys = jax.random.split(jax.random.key(3), len(coins))
    found = np.asarray(jax.jit(lambda xs: jax.lax.map(scores, xs))((jnp.asarray(coins, jnp.float32), keys)))
    of_references = found[:REFERENCES], coins[:REFERENCES]
    return [
        one_run.lower_bound(likelihood_ratios(Scores(found[i], *of_references)), coins[i], DELTA)
        for i in range(REFERENCES, len(coins))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_audit_finds_faults(fault, monkeypatch):
    [bound] = bounds(fault, FAULTS[fault], 1, monkeypatch)
    assert bound > 1


@pytest.mark.slow
def test_the_audit_finds_no_fault_in_intact_runs(monkeypatch):
    found = bounds(None, 0.2, SEEDS, monkeypatch)
    assert sum(bound <= 1 for bound in found) >= SEEDS - 1


@pytest.mark.slow
@pytest.mark.parametrize("optim", ["adam", "sgd"])
def test_updates_are_counted_with_every_optimiser(optim, tmp_path, monkeypatch):
    pytest.importorskip("dp_accounting")
    monkeypatch.chdir(tmp_path)
    options = [*TINY, "dataset=ring", *OPTIONS[-4:], "optim.lr=0.1", f"optim={optim}", "strategy.n_critic=3"]
    run = gan_cli.train([*options, "logger=none"], quiet=True)
    assert audit._updates(restore_run(run.directory)) == 24


@pytest.mark.slow
def test_a_ledger_of_half_the_steps_contradicts_the_checkpoint(tmp_path, monkeypatch, capsys):
    """An accountant that is fed half the updates promises epsilon 1, and the optimiser counts twice as many.

    Canaries cannot show this fault: twice the updates at the noise of epsilon 1 lead to epsilon 1.5. The best guess
    from the sum of all noisy gradients is right for 57 % of the coins, and 200 canaries contradict epsilon 1 only
    above 80 %.
    """
    pytest.importorskip("dp_accounting")
    monkeypatch.chdir(tmp_path)
    whole = build_private.ledger_of

    def half(*arguments):
        made = build_private.Ledger
        monkeypatch.setattr(
            build_private, "Ledger", lambda **options: made(**options | {"per_step": options["per_step"] // 2})
        )
        try:
            return whole(*arguments)
        finally:
            monkeypatch.setattr(build_private, "Ledger", made)

    monkeypatch.setattr("gan_cli.config.build.ledger_of", half)
    options = [
        "experiment=credit_private", "dataset.canaries=40", "model.generator.width=8",
        "model.discriminator.width=8", "strategy.n_critic=2", "train.steps=10", "train.steps_per_call=5",
        "train.batch_size=50", "train.report=false", "estimator.target_epsilon=1", "name=half", "logger=none",
    ]  # fmt: skip
    assert gan_cli.train(options, quiet=True).status == "finished"
    kept = tmp_path / "outputs/half/private/canaries.npz"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert gan_eval(["outputs/half", "--metrics", "privacy", "--json", "found.json"]) == 1
    output = capsys.readouterr()
    assert "could show up to" in output.out
    assert "checkpoint counts spend 1.2" in output.err and output.err.count("\n") <= 2
    [result] = json.loads((tmp_path / "found.json").read_text())
    figures = result["metrics"]
    assert figures["epsilon_counted"] > 1.2 > figures["epsilon_promised"]
    assert 0 <= figures["epsilon_lower_bound"] <= figures["epsilon_lower_bound_max"]
    for name in ("membership", "membership_generator"):
        assert figures[f"{name}_auc_low"] <= figures[f"{name}_auc"] <= figures[f"{name}_auc_high"]
