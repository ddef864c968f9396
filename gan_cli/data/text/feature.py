"""The feature of a text: a sequence of tokens, each a character or a word of a vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gan_cli.types import Feature

FREE = -1  # in a prompt: a token that the generator chooses
UNKNOWN = "<unk>"  # the token of all words outside the vocabulary
# A word with inner apostrophes and hyphens, a marker such as <unk>, or a single punctuation mark.
_WORDS = re.compile(r"<\w+>|\w+(?:['\u2019-]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Tokens(Feature):
    """A text of at most ``length`` tokens, int32 ``[length]``, in files, in memory and in networks.

    Attributes:
        length: number of tokens.
        vocabulary: the text of each token. The number of a token is its place.
        unit: ``character`` or ``word``.
        end: number of the token that ends a text and fills the places after it. None if all texts have ``length``
            tokens.
        noun: the plural of an example in messages.
        lowest: the smallest number that a place may hold.
    """

    length: int
    vocabulary: tuple[str, ...]
    unit: Literal["character", "word"] = "character"
    end: int | None = None
    noun: str = "texts"
    dtype = np.int32
    values_name = "tokens"
    extractor = "pixels"
    lowest = 0

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # a property of an immutable feature
        return (self.length,)

    @property
    def start(self) -> int:
        """The number that stands for the beginning of a text, one more than those of all tokens."""
        return len(self.vocabulary)

    def lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Number of tokens ``[n]`` before the end of each text ``[n, length]``."""
        if self.end is None:
            return np.full(len(tokens), tokens.shape[1])
        lengths: np.ndarray = np.cumprod(tokens != self.end, axis=1).sum(1)
        return lengths

    def texts(self, tokens: np.ndarray) -> list[str]:
        """The texts of ``[n, length]`` tokens. Words are separated by spaces."""
        between = "" if self.unit == "character" else " "
        rows = zip(np.asarray(tokens), self.lengths(np.asarray(tokens)), strict=True)
        return [between.join(self.vocabulary[token] for token in row[:length]) for row, length in rows]

    def numbers(self, text: str) -> tuple[list[int], list[str]]:
        """A pair: the numbers of the tokens of a text, and its tokens that the vocabulary lacks.

        Words that the vocabulary lacks have the number of the unknown token, if there is one. Other tokens that it
        lacks have no number.
        """
        place = {token: number for number, token in enumerate(self.vocabulary)}
        tokens = split(text, self.unit)
        lacking = [token for token in tokens if token not in place]
        unknown = place.get(UNKNOWN) if self.unit == "word" else None
        numbers = (place.get(token, unknown) for token in tokens)
        return [number for number in numbers if number is not None], lacking


@dataclass(frozen=True)
class Prompt(Tokens):
    """The beginning of a text, followed by places that are ``FREE``, int32 ``[length]``."""

    lowest = FREE


def split(text: str, unit: str) -> list[str]:
    """The tokens of a text: its characters, or its words and punctuation marks."""
    return list(text) if unit == "character" else _WORDS.findall(text)


def vocabulary_of(tokens: Iterable[str]) -> tuple[str, ...]:
    """The different tokens in alphabetical order."""
    return tuple(sorted(set(tokens)))
