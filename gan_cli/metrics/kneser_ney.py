"""N-gram language models with interpolated, modified Kneser-Ney smoothing: a baseline for networks."""

from __future__ import annotations

import numpy as np

_FALLBACK = (0.5, 1.0, 1.5)  # discounts where counts of 1 to 4 are missing, as KenLM's --discount_fallback


def log_probabilities(
    training: np.ndarray,
    texts: np.ndarray,
    words: int,
    order: int = 5,
    discounts: tuple[float, float, float] | None = None,
) -> np.ndarray:
    """Log-probabilities of the tokens of texts in nats, each after the tokens before it, float64 ``[m, length]``.

    The model is interpolated Kneser-Ney with three discounts (Chen and Goodman 1999, section 3): the counts of the
    longest n-grams are their occurrences in the training texts, and the count of a shorter n-gram is the number of
    different tokens that precede it. The recursion ends with the uniform distribution, so that no token has the
    probability 0. The first tokens of a text have shorter contexts.

    Args:
        training: training texts, ints ``[n, length]``.
        texts: the texts, of the same length.
        words: number of tokens of the vocabulary.
        order: largest number of tokens of an n-gram.
        discounts: discounts of n-grams with the counts 1, 2, and 3 or more. None estimates them for each length of
            n-grams (equation 26).
    """
    both, count = np.concatenate([training, texts]).astype(np.int64), len(training)
    order = min(order, both.shape[1])
    # Column j of grams[k] has the codes of the n-grams of k tokens that start at token j. contexts[k] maps these
    # codes to the codes of the first k - 1 tokens.
    grams, contexts = [np.zeros_like(both)], [np.zeros(0, int)]
    for k in range(1, order + 1):
        own = grams[-1][:, : both.shape[1] - k + 1] * words + both[:, k - 1 :]
        pairs, codes = np.unique(own, return_inverse=True)
        grams.append(codes.reshape(own.shape))
        contexts.append(pairs // words)
    found = np.full(texts.shape, 1 / words)
    for k in range(1, order + 1):
        seen = grams[k][:count].ravel()
        if k < order:  # each different n-gram of k + 1 tokens counts once for its last k tokens
            _, first = np.unique(grams[k + 1][:count], return_index=True)
            seen = grams[k][:count, 1:].ravel()[first]
        counts = np.bincount(seen, minlength=len(contexts[k]))
        removed = np.append(0, discounts or _discounts(counts))[np.minimum(counts, 3)]
        total, spread = (np.bincount(contexts[k], values) for values in (counts, removed))
        gram = grams[k][count:]
        context, shorter = contexts[k][gram], found[:, k - 1 :]
        kept = (counts - removed)[gram] + spread[context] * shorter
        found[:, k - 1 :] = np.where(total[context] > 0, kept / np.maximum(total[context], 1), shorter)
    logs: np.ndarray = np.log(found)
    return logs


def _discounts(counts: np.ndarray) -> tuple[float, ...]:
    """The discounts of the counts 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    if not n[1:5].all():
        return _FALLBACK
    share = n[1] / (n[1] + 2 * n[2])
    found = tuple(float(i - (i + 1) * share * n[i + 1] / n[i]) for i in (1, 2, 3))
    return found if all(0 <= one <= i for i, one in enumerate(found, start=1)) else _FALLBACK
