"""The inputs of metrics of texts: sequences of tokens, without the tokens after the end of a text."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.text.feature import Tokens
from gan_cli.metrics.ngrams import Texts
from gan_cli.types import Feature

TEXTS = ("fake_texts", "training_texts", "held_out_texts", "oracle", "characters", "cut")
LACKING = {
    **dict.fromkeys(TEXTS, "texts, but {name} has none. Use dataset=shakespeare, or another metric"),
    "held_out_texts": "held-out texts, but {name} has none. Use dataset=shakespeare, or another metric",
    "oracle": "an oracle that knows the likelihood of a sentence, but {name} has none. Use dataset=oracle, or "
    "another metric",
    "characters": "texts of characters or words, but {name} has none. Use dataset=shakespeare, or another metric",
}


def available(data: Dataset) -> dict[str, bool]:
    """Whether a data set provides each input of metrics of texts. The order is that of the messages."""
    texts = isinstance(data.feature, Tokens)
    oracle = data.oracle is not None
    return {
        "fake_texts": texts,
        "training_texts": texts,
        "cut": texts,
        "oracle": oracle,
        "characters": texts and not oracle,
        "held_out_texts": texts and data.held_out is not None,
    }


def of_data(data: Dataset, most: int) -> dict[str, Any]:
    """The inputs that do not depend on samples. Empty if the data are no texts.

    Args:
        data: the data set.
        most: largest number of held-out texts.
    """
    feature = data.feature
    if not isinstance(feature, Tokens):
        return {}
    training = data.take(np.arange(data.size))[data.main]
    found: dict[str, Any] = {"training_texts": cut(feature, training), "oracle": data.oracle}
    found["cut"] = functools.partial(cut, feature)
    if data.held_out is not None:
        found["held_out_texts"] = cut(feature, data.held_out[data.main][:most])
    if data.oracle is None:
        found["characters"] = lambda tokens: characters(feature, tokens)
    return found


def cut(feature: Tokens, tokens: np.ndarray) -> Texts:
    """Texts ``[n, length]`` without their ends: a list of arrays, or the array itself if no text has an end."""
    tokens = np.asarray(tokens)
    if feature.end is None:
        return tokens
    return [row[:length] for row, length in zip(tokens, feature.lengths(tokens), strict=True)]


def characters(feature: Tokens, tokens: np.ndarray) -> int:
    """The number of characters of texts ``[n, length]``, with one for the space or the line break after each text.

    Windows of characters have none after them.
    """
    after = feature.unit == "word" or feature.end is not None
    return sum(len(text) + after for text in feature.texts(tokens))


def no_texts(feature: Feature, features: int | None) -> str | None:
    """The function ``Metric.cannot`` of a likelihood of examples with latents, which generators of texts lack."""
    return "a game with latents. For texts, use metric=held_out_nll" if isinstance(feature, Tokens) else None
