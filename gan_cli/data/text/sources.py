"""Data sets of texts: a file of the user, Shakespeare's plays, and SeqGAN's synthetic task."""

from __future__ import annotations

import hashlib
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from gan_cli.data.dataset import Dataset
from gan_cli.data.text import oracle as oracles
from gan_cli.data.text.feature import Tokens
from gan_cli.data.text.files import Options, dataset_of, read
from gan_cli.storage import cache
from gan_cli.types import OnError, PositiveInt, Seed, Share, TextExamples, TextUnit

_SENTENCES = 1  # stream of random numbers of a seed from which sentences derive


def text(
    *,
    path: str,
    unit: TextUnit = "character",
    examples: TextExamples = "windows",
    length: PositiveInt = 128,
    min_count: PositiveInt = 2,
    hold_out: Share = 0.1,
    on_error: OnError = "skip",
) -> Dataset:
    """The text of a file in UTF-8, by character or by word.

    The vocabulary is that of the training part.

    Args:
        path: the file, which may be compressed (.gz).
        unit: ``character`` or ``word``. Words are separated by spaces and line ends, and each punctuation mark is a
            word. Samples separate all words by spaces.
        examples: with ``windows``, examples are windows of ``length`` tokens of a running text. A training window
            begins at every length / 4 tokens, and held-out windows do not overlap. With ``lines``, each line that
            is not empty is an example, such as a caption.
        length: number of tokens of an example, or the largest number of tokens of a line.
        min_count: words with fewer occurrences in the training part become the token ``<unk>``, as do held-out
            words that the training part lacks. Without effect on characters.
        hold_out: share of the text that is held out: its end, or random lines.
        on_error: treatment of lines with more than ``length`` tokens, and of held-out examples with characters that
            the training part lacks. ``skip`` leaves them out and states their number, ``refuse`` is an error.
    """
    least = min_count if unit == "word" else 1
    options = Options(unit, examples, length, least, hold_out, on_error)
    source = f"dataset.path={path}"
    return dataset_of(Path(path).name.partition(".")[0], read(Path(path), source), source, options)


def shakespeare(
    *,
    unit: TextUnit = "character",
    length: PositiveInt = 128,
    min_count: PositiveInt = 2,
    hold_out: Share = 0.1,
) -> Dataset:
    """Plays of Shakespeare, 1.1 million characters, in windows of a running text.

    The text is in the public domain and comes with the package. The end of the last play is held out.

    Args:
        unit: ``character`` or ``word``, as in ``dataset=text``.
        length: number of tokens of a window.
        min_count: words with fewer occurrences in the training part become the token ``<unk>``.
        hold_out: share of the text that is held out, its end.
    """
    least = min_count if unit == "word" else 1
    options = Options(unit, "windows", length, least, hold_out, "skip")
    with as_file(files("gan_cli.data.text") / "shakespeare.txt.gz") as path:
        return dataset_of("shakespeare", read(path, "dataset=shakespeare"), "dataset=shakespeare", options)


def oracle(
    *,
    path: str | None = None,
    length: PositiveInt = 20,
    size: PositiveInt = 10_000,
    held_out: PositiveInt = 10_000,
    seed: Seed = 0,
) -> Dataset:
    """Sentences of random words that an oracle network draws, SeqGAN's synthetic task.

    Yu et al. 2017, section 5.1. The oracle, an LSTM, gives the exact likelihood of any sentence. Words are the
    numbers from 0 to 4999.

    Args:
        path: an .npz file with the weights of the oracle, e.g. those of the authors. If null, weights of the same
            shapes are drawn from N(0, 1) with ``seed``.
        length: number of words in a sentence.
        size: number of training sentences.
        held_out: number of held-out sentences.
        seed: seed of the sentences and, without ``path``, of the weights.
    """
    network = oracles.seeded(seed) if path is None else oracles.from_file(Path(path))
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(one).data for one in network.weights)).hexdigest()

    def make() -> dict[str, np.ndarray]:
        rng = np.random.Generator(np.random.PCG64([seed, _SENTENCES]))
        return {"training": network.sample(rng, size, length), "held_out": network.sample(rng, held_out, length)}

    # Drawing 20,000 sentences takes seconds.
    drawn = cache.arrays("oracle", cache.digest(digest, length, size, held_out, seed), make)
    vocabulary = tuple(map(str, range(len(network.embedding))))
    return Dataset(
        "oracle",
        {"x": Tokens(length, vocabulary, "word", noun="sentences")},
        {"x": drawn["training"]},
        {"x": drawn["held_out"]},
        subject="text",
        oracle=network,
    )
