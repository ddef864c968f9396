"""Trivial generators of texts for tables of results: one token, unigrams, bigrams, and copies.

All functions take training texts, ints ``[n, length]``, and make texts of the same length, so that the same metrics
judge them and the samples of a run.
"""

from __future__ import annotations

import numpy as np

from gan_cli.data.text.oracle import Oracle


def one_token(training: np.ndarray, n: int, seed: int, oracle: Oracle | None = None) -> np.ndarray:
    """``n`` texts that repeat one of the 100 most frequent tokens.

    With an oracle, it is the token whose repetition the oracle considers most likely, else the most frequent one.
    """
    frequent = np.argsort(-np.bincount(training.ravel()), kind="stable")[:100].astype(training.dtype)
    if oracle is not None:
        repeated = np.repeat(frequent[:, None], training.shape[1], axis=1)
        frequent = frequent[np.argsort(-oracle.log_likelihood(repeated).sum(1), kind="stable")]
    return np.full((n, training.shape[1]), frequent[0])


def unigrams(training: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``n`` texts of independent tokens with the frequencies of the training texts."""
    return np.random.default_rng(seed).choice(training.ravel(), (n, training.shape[1]))


def bigrams(training: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``n`` texts of a Markov chain: each token follows the token before it as often as in the training texts.

    The first token has the distribution of the first tokens. A token that nothing follows in the training texts is
    followed by a first token.
    """
    rng = np.random.default_rng(seed)
    before, after = training[:, :-1].ravel(), training[:, 1:].ravel()
    after = after[np.argsort(before, kind="stable")]
    counts = np.bincount(before, minlength=int(training.max()) + 1)
    starts = np.cumsum(counts) - counts
    found = np.empty((n, training.shape[1]), training.dtype)
    found[:, 0] = rng.choice(training[:, 0], n)
    for t in range(1, training.shape[1]):
        last = found[:, t - 1]
        followed = counts[last] > 0
        place = starts[last] + (rng.random(n) * counts[last]).astype(int)
        found[:, t] = np.where(followed, after[np.where(followed, place, 0)], rng.choice(training[:, 0], n))
    return found


def copies(training: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``n`` training texts, drawn at random with replacement."""
    return training[np.random.default_rng(seed).integers(len(training), size=n)]
