"""N-grams of texts: BLEU and self-BLEU, the share of distinct n-grams, and the share of copied n-grams.

All functions take texts as integer arrays ``[n, length]``, or as sequences of texts of any lengths whose tokens are
numbers or strings. An n-gram lies within one text. The counts of all texts are computed together, so that 10,000
samples against 10,000 references take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Texts = np.ndarray | Sequence[Sequence[Any]]
_COMPARED = 32  # windows that tell whether the windows of a text overlap; equal last tokens may be a coincidence
_EPSILON = 0.1  # matches of an order without matches (Chen and Cherry 2014, smoothing method 1; NLTK's value)


class _Grams(NamedTuple):
    """The n-grams of one length: the code of each n-gram, equal for equal n-grams, and the number of its text."""

    codes: np.ndarray
    text: np.ndarray


def bleu(samples: Texts, references: Texts, orders: int = 5) -> np.ndarray:
    """BLEU of each sample against all references (Papineni et al. 2002), float64 ``[n, orders]``.

    Column ``i`` is BLEU-(i + 1), with equal weights of the n-grams of up to i + 1 tokens. An order without matches
    counts 0.1 matches (Chen and Cherry 2014, method 1), as in ``nltk.translate.bleu_score.sentence_bleu`` with
    ``SmoothingFunction().method1``.

    Raises:
        ValueError: there are no samples or no references.
    """
    tokens, lengths = _joined(samples, references)
    count = len(samples)
    return _bleu(tokens, lengths, np.arange(len(lengths)) < count, np.arange(len(lengths)) >= count, orders)


def self_bleu(samples: Texts, orders: int = 5) -> np.ndarray:
    """BLEU of each sample against all other samples (Zhu et al. 2018, section 2.3), float64 ``[n, orders]``.

    Raises:
        ValueError: there are fewer than two samples.
    """
    tokens, lengths = _joined(samples)
    every = np.ones(len(lengths), bool)
    return _bleu(tokens, lengths, every, every, orders)


def distinct(texts: Texts, n: int) -> float:
    """The number of different n-grams divided by the number of n-grams (Li et al. 2016). NaN without n-grams.

    The value decreases with the number of texts, so only values of equal numbers of texts are comparable.
    """
    codes = _grams(*_joined(texts), n).codes
    return len(np.unique(codes)) / len(codes) if len(codes) else float("nan")


def copied(texts: Texts, training: Texts, lengths: Sequence[int]) -> list[float]:
    """For each length of n-grams, the share of those of the texts that occur in the training texts.

    The share is NaN if the texts have no n-grams of this length.
    """
    found = dict.fromkeys(lengths, float("nan"))
    for n, (codes, text) in enumerate(_orders(*_joined(texts, running(training)), max(lengths)), start=1):
        own = text < len(texts)
        if n in found and own.any():
            found[n] = float(np.isin(codes[own], codes[~own]).mean())
    return list(found.values())


def drawn(texts: Texts, n: int, seed: int) -> Texts:
    """At most ``n`` of the texts, drawn without replacement. Of overlapping windows, those that do not overlap."""
    if isinstance(texts, np.ndarray):
        texts = texts[:: -(-texts.shape[1] // stride_of(texts))]
    rows = np.random.default_rng(seed).permutation(len(texts))[:n]
    return texts[rows] if isinstance(texts, np.ndarray) else [texts[row] for row in rows]


def running(texts: Texts) -> Texts:
    """The running text ``[1, tokens]`` of which the texts are overlapping windows. Other texts are unchanged."""
    if not isinstance(texts, np.ndarray) or (stride := stride_of(texts)) == texts.shape[1]:
        return texts
    return np.concatenate([texts[:, :stride].ravel(), texts[-1, stride:]])[None]


def stride_of(texts: np.ndarray) -> int:
    """Number of tokens from a window ``[n, length]`` to the next. The length itself if windows do not overlap."""
    rows, length = texts[:_COMPARED], int(texts.shape[1])
    if len(rows) < _COMPARED:
        return length
    overlaps = (s for s in range(1, length) if np.array_equal(rows[:-1, s:], rows[1:, :-s]))
    return next(overlaps, length)


def _joined(*groups: Texts) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of all texts in one array, as numbers from 0, and the number of tokens of each text."""
    lengths = np.array([len(text) for group in groups for text in group], int)
    if all(isinstance(text, np.ndarray) for group in groups for text in group):
        flat = np.concatenate([np.zeros(0, int), *(text for group in groups for text in group)])
        return np.unique(flat, return_inverse=True)[1], lengths
    numbers: dict[Any, int] = {}
    every = (token for group in groups for text in group for token in text)
    return np.array([numbers.setdefault(token, len(numbers)) for token in every], int), lengths


def _orders(tokens: np.ndarray, lengths: np.ndarray, most: int) -> Iterator[_Grams]:
    """Yields the n-grams of 1 to ``most`` tokens."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(
        len(tokens)
    )  # tokens from here to the end of the text
    base, codes, start = int(tokens.max(initial=0)) + 1, np.zeros(len(tokens), int), np.arange(len(tokens))
    for n in range(1, most + 1):
        kept = left[start] >= n
        start = start[kept]
        # The code of the n - 1 tokens before, which is smaller than the number of tokens, and the last token.
        codes = np.unique(codes[kept] * base + tokens[start + n - 1], return_inverse=True)[1]
        yield _Grams(codes, text[start])


def _grams(tokens: np.ndarray, lengths: np.ndarray, n: int) -> _Grams:
    *_, found = _orders(tokens, lengths, n)
    return found


def _bleu(
    tokens: np.ndarray, lengths: np.ndarray, sample: np.ndarray, reference: np.ndarray, orders: int
) -> np.ndarray:
    """BLEU of the texts in ``sample`` against the other texts in ``reference``, both booleans ``[texts]``."""
    if not sample.any() or reference.sum() < 1 + (sample & reference).any():
        raise ValueError("BLEU needs at least one sample, and a reference other than the sample")
    logs = np.zeros(len(lengths))
    found = []
    for order, grams in enumerate(_orders(tokens, lengths, orders), start=1):
        matches, total = _matches(grams, len(lengths), reference)
        if order == 1:
            none = matches == 0
        logs = logs + np.log(np.where(matches > 0, matches, _EPSILON) / np.maximum(total, 1))
        found.append(np.where(none, 0, np.exp(logs / order)))
    penalty = _brevity(lengths, sample, reference)
    scores: np.ndarray = (np.stack(found, axis=1) * penalty[:, None])[sample]
    return scores


def _matches(grams: _Grams, texts: int, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each text, the number of n-grams that the other references contain, and the number of all n-grams.

    An n-gram counts as often as the other reference with the most occurrences contains it.
    """
    pairs, counts = np.unique(grams.codes * texts + grams.text, return_counts=True)
    codes, text = np.divmod(pairs, texts)
    kinds = int(codes.max(initial=-1)) + 1
    most, second, holder = np.zeros(kinds, int), np.zeros(kinds, int), np.full(kinds, -1)
    of_references = np.flatnonzero(reference[text])
    order = of_references[np.lexsort((counts[of_references], codes[of_references]))]
    last = np.append(codes[order][1:] != codes[order][:-1], True)[: len(order)]
    most[codes[order[last]]], holder[codes[order[last]]] = counts[order[last]], text[order[last]]
    before = np.append(last[1:] & ~last[:-1], False)[: len(order)]
    second[codes[order[before]]] = counts[order[before]]
    clipped = np.minimum(counts, np.where(holder[codes] == text, second[codes], most[codes]))
    return np.bincount(text, clipped, texts), np.bincount(text, counts, texts)


def _brevity(lengths: np.ndarray, sample: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The brevity penalty of each text, with the nearest length of another reference, the shorter one of two."""
    known, counts = np.unique(lengths[reference], return_counts=True)
    found = np.ones(len(lengths))
    for length in np.unique(lengths[sample]):
        for own in (False, True):
            others = known[counts > (own & (known == length))]
            if len(others):
                nearest = others[np.argmin(np.abs(others - length))]
                value = 1.0 if length >= nearest else np.exp(1 - nearest / length) if length else 0.0
                found[(lengths == length) & (reference == own)] = value
    return found
