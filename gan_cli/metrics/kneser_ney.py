"""N-gram language models with interpolated, modified Kneser-Ney smoothing: a baseline for networks."""

from __future__ import annotations

import numpy as np

from gan_cli.metrics.ngrams import running

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
        training: training texts, ints ``[n, length]``. Overlapping windows count as the text from which they
            are cut.
        texts: the texts, ints ``[m, length]``.
        words: number of tokens of the vocabulary.
        order: largest number of tokens of an n-gram.
        discounts: discounts of n-grams with the counts 1, 2, and 3 or more. None estimates them for each length of
            n-grams (equation 26).
    """
    both = [np.asarray(running(training), np.int64), np.asarray(texts, np.int64)]
    order = min(order, *(part.shape[1] for part in both))
    # Column j of grams[k] has the codes of the n-grams of k tokens that start at token j, of the training texts and
    # of the texts. contexts[k] maps these codes to the codes of the first k - 1 tokens.
    grams, contexts = [[np.zeros_like(part) for part in both]], [np.zeros(0, int)]
    for k in range(1, order + 1):
        before = (part[:, : part.shape[1] - 1] if k > 1 else part for part in grams[-1])
        pairs = [context * words + part[:, k - 1 :] for context, part in zip(before, both, strict=True)]
        known, codes = np.unique(np.concatenate([part.ravel() for part in pairs]), return_inverse=True)
        split = np.split(codes, [pairs[0].size])
        grams.append([part.reshape(pair.shape) for part, pair in zip(split, pairs, strict=True)])
        contexts.append(known // words)
    found = np.full(texts.shape, 1 / words)
    for k in range(1, order + 1):
        seen, gram = grams[k][0].ravel(), grams[k][1]
        if k < order:  # each different n-gram of k + 1 tokens counts once for its last k tokens
            _, first = np.unique(grams[k + 1][0], return_index=True)
            seen = grams[k][0][:, 1:].ravel()[first]
        counts = np.bincount(seen, minlength=len(contexts[k]))
        removed = np.append(0, discounts or _discounts(counts))[np.minimum(counts, 3)]
        total, spread = (np.bincount(contexts[k], values) for values in (counts, removed))
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
