"""Texts in files: reading, the split into training and held-out parts, vocabularies, and prompts."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.text.feature import FREE, UNKNOWN, Tokens, split
from gan_cli.errors import UserError
from gan_cli.types import OnError, TextExamples, TextUnit

_OVERLAP = 4  # training windows that contain a token, except near the ends of the text
_UNITS = {"character": "characters", "word": "words"}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the marks with which a file in UTF-16 begins
_SHOWN = 5  # tokens outside the vocabulary that a message names


@dataclass(frozen=True)
class Options:
    """The options of a data set of texts, as ``gan_cli.data.text.sources.text`` describes them."""

    unit: TextUnit
    examples: TextExamples
    length: int
    min_count: int
    hold_out: float
    on_error: OnError


def read(path: Path, option: str) -> str:
    """The text of a file in UTF-8, which may be compressed with gzip. Line ends become line feeds.

    Args:
        path: the file.
        option: the option that names the file, and its value, for error messages.

    Raises:
        UserError: the file cannot be read, is no text in UTF-8, or is empty.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except FileNotFoundError as error:
        raise UserError(f"{option}: there is no such file. Check the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{option}: the file cannot be read ({error}). Choose a text file.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith(_UTF_16):
            raise UserError(
                f"{option}: is UTF-16. Convert the file, e.g. with iconv -f utf-16 -t utf-8."
            ) from error
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{option}: line {line:,} is not UTF-8. Convert the file, e.g. with iconv -f latin1 -t utf-8."
        ) from error
    if "\0" in text:
        raise UserError(
            f"{option}: contains null characters, so it is no text in UTF-8. Convert the file, e.g. with "
            "iconv -f utf-16 -t utf-8."
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise UserError(f"{option}: contains no text. Choose another file.")
    return text


def dataset_of(name: str, text: str, source: str, options: Options) -> Dataset:
    """The data set of the windows or lines of a text.

    Args:
        name: name of the data set.
        text: the text.
        source: the option that names the text, and its value, for error messages.
        options: the options of the data set.

    Raises:
        UserError: the text is too short, or has tokens or lines that the data set cannot hold.
    """
    lines = options.examples == "lines"
    if lines:
        training, held_out, long = _lines(text, source, options)
    else:
        tokens = split(text, options.unit)
        kept = len(tokens) - round(options.hold_out * len(tokens))
        training, held_out, long = [tokens[:kept]], [tokens[kept:]], 0
    counts = Counter(token for one in training for token in one)
    vocabulary = tuple(sorted(token for token, count in counts.items() if count >= options.min_count))
    rare = len(vocabulary) < len(counts)
    end = None
    if options.unit == "word":
        vocabulary = (*vocabulary, UNKNOWN) if UNKNOWN not in vocabulary else vocabulary
    if lines:
        end = len(vocabulary)
        vocabulary = (*vocabulary, "")
    feature = Tokens(options.length, vocabulary, options.unit, end)
    place = {token: number for number, token in enumerate(vocabulary)}
    unknown = place.get(UNKNOWN, FREE) if options.unit == "word" else FREE
    numbered = [
        [np.array([place.get(token, unknown) for token in one], np.int32) for one in part]
        for part in (training, held_out)
    ]
    if lines:
        x, y = (_padded(part, feature) for part in numbered)
    else:
        x = _windows(numbered[0][0], options.length, max(1, options.length // _OVERLAP))
        y = _windows(numbered[1][0], options.length, options.length)
    if not len(x):
        raise UserError(
            f"dataset.length={options.length}: is longer than the training text of {source}, which has "
            f"{len(numbered[0][0]):,} {_UNITS[options.unit]}. Choose a smaller dataset.length."
        )
    lacking = sorted({token for one in held_out for token in one if token not in place}) if unknown == FREE else []
    foreign = (y == FREE).any(axis=1)
    if foreign.any() and options.on_error == "refuse":
        raise UserError(
            f"{source}: the held-out text has characters that the training text lacks: {_listed(lacking)}. Set "
            "dataset.on_error=skip to leave such examples out, or change dataset.hold_out."
        )
    y = y[~foreign]
    unit = _UNITS[options.unit]
    notes = [
        f"{sum(map(len, training)):,} training {unit}, {len(vocabulary):,} different tokens, "
        + (f"lines of at most {options.length} tokens" if lines else f"windows of {options.length} tokens")
    ]
    if rare:
        notes.append(
            f"words that occur fewer than {options.min_count} times in the training text are the token {UNKNOWN}"
        )
    if options.hold_out and not len(y):
        notes.append(f"nothing is held out, because dataset.hold_out={options.hold_out:g} is less than an example")
    passed_over = {
        f"lines of more than {options.length} tokens": long,
        f"held-out examples with characters that the training text lacks ({_listed(lacking)})": int(foreign.sum()),
    }
    return Dataset(
        name,
        {"x": feature},
        {"x": x},
        {"x": y} if len(y) else None,
        notes=tuple(notes),
        passed_over={kind: count for kind, count in passed_over.items() if count},
        subject="text",
    )


def prompt_of(text: str, feature: Tokens, option: str) -> np.ndarray:
    """The input ``prompt`` int32 ``[length]`` of the task ``generate`` for a text that samples begin with.

    Args:
        text: the beginning of the samples.
        feature: the feature of the samples.
        option: the option that provides the text, and its value, for error messages.

    Raises:
        UserError: the text is longer than a sample, or has tokens that the vocabulary lacks.
    """
    numbers, lacking = feature.numbers(text)
    unit = _UNITS[feature.unit]
    if lacking and (feature.unit == "character" or len(numbers) < len(split(text, feature.unit))):
        raise UserError(
            f"{option}: has {unit} that the vocabulary of the run lacks: {_listed(sorted(set(lacking)))}. Leave "
            "them out."
        )
    if len(numbers) > feature.length:
        raise UserError(
            f"{option}: has {len(numbers):,} {unit}, and the texts of this run have {feature.length}. Use a "
            "shorter prompt."
        )
    prompt = np.full(feature.length, FREE, np.int32)
    prompt[: len(numbers)] = numbers
    return prompt


def _lines(text: str, source: str, options: Options) -> tuple[list[list[str]], list[list[str]], int]:
    """A triple: training lines and held-out lines as tokens, and the number of lines that are too long."""
    every = [split(line.strip(), options.unit) for line in text.split("\n") if line.strip()]
    fit = [line for line in every if len(line) <= options.length]
    long = len(every) - len(fit)
    if long and (options.on_error == "refuse" or not fit):
        longest = max(map(len, every))
        raise UserError(
            f"{source}: {long:,} of {len(every):,} lines have more than dataset.length={options.length} tokens, "
            f"and the longest has {longest:,}. Choose a larger dataset.length"
            f"{', or dataset.on_error=skip to leave them out' if fit else ''}."
        )
    order = np.random.default_rng(0).permutation(len(fit))
    held = np.zeros(len(fit), bool)
    held[order[: round(options.hold_out * len(fit))]] = True
    training = [line for line, out in zip(fit, held, strict=True) if not out]
    if not training:
        raise UserError(f"dataset.hold_out={options.hold_out:g}: leaves no training lines. Choose a smaller share.")
    return training, [line for line, out in zip(fit, held, strict=True) if out], long


def _padded(lines: Sequence[np.ndarray], feature: Tokens) -> np.ndarray:
    """Lines as an array ``[n, length]``, filled up with the end token."""
    assert feature.end is not None
    found = np.full((len(lines), feature.length), feature.end, np.int32)
    for row, line in zip(found, lines, strict=True):
        row[: len(line)] = line
    return found


def _windows(tokens: np.ndarray, length: int, step: int) -> np.ndarray:
    """Windows ``[n, length]`` of consecutive tokens whose first tokens are ``step`` places apart."""
    if len(tokens) < length:
        return np.empty((0, length), np.int32)
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(tokens, length)[::step])


def _listed(tokens: Sequence[str]) -> str:
    more = ", ..." if len(tokens) > _SHOWN else ""
    return ", ".join(map(repr, tokens[:_SHOWN])) + more
