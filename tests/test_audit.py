"""The privacy audit: the one-run bound, likelihood ratios, and what the metric says about a run."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest
from conftest import TINY
from scipy.special import expit, logit
from test_run import _folder, train  # noqa: F401  (a fixture)

from gan_cli.cli.eval import main
from gan_cli.data import canaries
from gan_cli.metrics import Scores, one_run
from gan_cli.metrics.privacy import contradiction, likelihood_ratios, limits

# ------------------------------------------------------------------------------------------------ the bound


@pytest.mark.parametrize("guesses", [10, 200, 1_000])
def test_the_bound_of_right_guesses_only_has_a_closed_form(guesses):
    # All guesses are right with probability q^guesses, where q = 1 / (1 + exp(-epsilon)).
    found = one_run.epsilon_of(guesses, guesses, guesses, 0.0, 0.05)
    np.testing.assert_allclose(found, logit(0.05 ** (1 / guesses)), rtol=1e-6)


def test_the_bound_without_evidence_is_0():
    assert one_run.epsilon_of(200, 200, 100, 1e-5, 0.05) == 0
    assert one_run.p_value(200, 200, 0, 1.0, 1e-5) == 1
    assert one_run.p_value(4, 4, 4, 0.0, 0.0) == 1 / 16


def test_the_largest_bound_of_200_canaries():
    assert 3.5 < one_run.largest_bound(200, 1e-5) < 4.5
    assert one_run.largest_bound(20, 1e-5) < one_run.largest_bound(200, 1e-5) < one_run.largest_bound(2_000, 1e-5)
    coins = np.arange(200) % 2 == 0
    assert one_run.lower_bound(coins.astype(float), coins, 1e-5) == one_run.largest_bound(200, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize(("canaries", "guesses", "right"), [(200, 200, 150), (200, 50, 49), (1_000, 100, 100)])
def test_the_bound_equals_jax_privacy(canaries, guesses, right, delta):
    auditing = pytest.importorskip("jax_privacy.auditing")
    for epsilon in (0.1, 1.0, 3.0):
        own = one_run.p_value(canaries, guesses, right, epsilon, delta)
        theirs = auditing._one_run_p_value(canaries, guesses, right, epsilon, delta)
        np.testing.assert_allclose(own, theirs, rtol=1e-9)
    theirs = auditing._epsilon_one_run(0.0, canaries, guesses, right, 0.05, delta)
    np.testing.assert_allclose(one_run.epsilon_of(canaries, guesses, right, delta, 0.05), theirs, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_the_bound_covers_randomised_response(epsilon):
    # Each coin is told truthfully with probability q, which is epsilon-private and the worst case of theorem 3.1.
    rng, wrong, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        coins = rng.random(100) < 0.5
        told = coins ^ (rng.random(100) > expit(epsilon))
        wrong += one_run.lower_bound(told + 0.1 * rng.random(100), coins, 0.0) > epsilon
    assert wrong <= 0.05 * runs


def test_likelihood_ratios_recover_a_common_effect():
    # Scores a_i + d t_i plus noise of standard deviation s: the expected ratio is +-d^2 / (2 s^2).
    rng, n, effect, std = np.random.default_rng(0), 5_000, 1.0, 0.5
    own, base = rng.random(n) < 0.5, rng.normal(0, 3, n)
    half = np.stack([rng.random(n) < 0.5 for _ in range(2)])
    trained = np.stack([half[0], ~half[0], half[1], ~half[1]])
    references = base + effect * trained + std * rng.normal(size=(4, n))
    ratios = likelihood_ratios(Scores(base + effect * own + std * rng.normal(size=n), references, trained))
    assert ratios[own].mean() > 1 and ratios[~own].mean() < -1
    # The base of an example is estimated from 4 scores, so the difference has the variance s^2 (1 + 1/4).
    correct = np.mean((ratios > 0) == own)
    np.testing.assert_allclose(correct, 0.8145, atol=0.02)  # Phi(d / 2 / (s sqrt(1.25)))


# ------------------------------------------------------------------------------------------------ the verdict


def test_the_verdict_on_a_promise():
    figures = {"epsilon_promised": 1.0, "epsilon_counted": 1.0, "epsilon_lower_bound_max": 3.9}
    assert contradiction(figures | {"epsilon_lower_bound": 0.4}) is None
    assert "at least 1.2" in (contradiction(figures | {"epsilon_lower_bound": 1.2}) or "")
    assert "spend 1.5" in (contradiction(figures | {"epsilon_counted": 1.5, "epsilon_lower_bound": 0.0}) or "")
    assert "cannot test this claim" in (limits(figures | {"epsilon_promised": 8.0}) or "")
    assert "cannot test this claim" in (limits({"epsilon_promised": 1.0}) or "")
    assert limits({"membership_auc": 0.5}) is None


# ------------------------------------------------------------------------------------------------ a run

RUN = [*TINY, "estimator=private", "estimator.target_epsilon=1", "sampler=poisson", "logger=none", "metric=none",
       "dataset=mnist5k", "dataset.canaries=200", "train.steps=4", "train.batch_size=64", "name=a"]  # fmt: skip


@pytest.mark.slow
def test_an_audited_run(tmp_path, capsys):
    run = train(*RUN)
    file = canaries.path(run.directory)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with np.load(file) as arrays:
        coins = arrays["included"]
        assert arrays["x"].shape[0] == len(coins) == 200 and 70 < coins.sum() < 130
    command = [str(run.directory), "--metrics", "privacy", "--json", "audit.json"]
    assert main(command) == 0
    figures = json.loads(open("audit.json").read())[0]["metrics"]
    for name in ("membership_auc", "membership_generator_auc"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]
    assert 0 <= figures["epsilon_lower_bound"] <= figures["epsilon_promised"] <= 1 < figures["epsilon_lower_bound_max"]
    assert "could show up to" in capsys.readouterr().out

    # An accountant that counts half of the steps promises too little.
    record = json.loads((run.directory / "run.json").read_text())
    record["privacy"]["epsilon"] *= 0.7
    (run.directory / "run.json").write_text(json.dumps(record))
    assert main(command) == 1
    assert capsys.readouterr().err.count("\n") >= 1
