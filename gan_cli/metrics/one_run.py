"""The one-run audit: a lower bound on epsilon from guesses about the training data of a single run.

Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run". Each of m canaries is included in
the training data by a fair coin. An auditor sees the result of the run and guesses the coins of some canaries. Too
many right guesses contradict a claimed epsilon.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from scipy.stats import binom

_SHARES = (1, 2, 4)  # the auditor guesses all canaries, half of them and a quarter of them
_LARGEST = 50.0  # epsilons up to this value are distinguished


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Largest probability of at least ``right`` right guesses in any (epsilon, delta)-private run.

    With delta 0, this is P(B >= right), where B has the distribution Binomial(guesses, 1 / (1 + exp(-epsilon)))
    (theorem 3.1: an epsilon-private run tells no more than randomised response). A positive delta adds 2 m delta
    times the maximum over i of P(right > B >= right - i) / i (theorem 5.2, for m canaries).

    Args:
        canaries: number m of canaries.
        guesses: number of canaries whose coins are guessed.
        right: number of right guesses.
        epsilon: the claim.
        delta: the claim.
    """
    q = expit(epsilon)
    beta = float(binom.sf(right - 1, guesses, q))
    i = np.arange(1, right + 1)
    between = (binom.sf(right - i - 1, guesses, q) - beta) / i
    return float(min(beta + 2 * canaries * delta * np.max(between, initial=0.0), 1.0))


def epsilon_of(canaries: int, guesses: int, right: int, delta: float, significance: float) -> float:
    """The largest epsilon that ``right`` right guesses contradict at a significance level, 0 if there is none."""
    low, high = 0.0, _LARGEST
    if p_value(canaries, guesses, right, low, delta) > significance:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if p_value(canaries, guesses, right, middle, delta) <= significance:
            low = middle
        else:
            high = middle
    return low


def lower_bound(scores: np.ndarray, included: np.ndarray, delta: float, confidence: float = 0.95) -> float:
    """A lower bound on the epsilon of a run, which holds with probability ``confidence``.

    The auditor guesses that the canaries with the largest scores are included, and that as many canaries with the
    smallest scores are not. It guesses all canaries, half of them and a quarter of them. The result is the largest
    of the three bounds, each at a third of the significance (Bonferroni).

    Args:
        scores: ``[m]``, larger for canaries that seem to be included. They must not depend on ``included``, except
            through the run.
        included: ``[m]``, whether each canary was included.
        delta: delta of the claim, 0 for pure differential privacy.
        confidence: probability with which the bound holds.
    """
    order, m = np.argsort(scores, kind="stable"), len(scores)
    found = []
    for guesses in _guesses(m):
        half = guesses // 2
        right = int((~included[order[:half]]).sum() + included[order[m - half :]].sum())
        found.append(epsilon_of(m, guesses, right, delta, (1 - confidence) / len(_SHARES)))
    return max(found)


def largest_bound(m: int, delta: float, confidence: float = 0.95) -> float:
    """The bound that ``lower_bound`` finds for ``m`` canaries if every guess is right."""
    level = (1 - confidence) / len(_SHARES)
    return max(epsilon_of(m, guesses, guesses, delta, level) for guesses in _guesses(m))


def _guesses(m: int) -> list[int]:
    return [m // share // 2 * 2 for share in _SHARES]
