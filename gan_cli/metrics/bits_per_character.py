"""The bits that a generator needs for a character of held-out texts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gan_cli.metrics import LOWER, Metric, RunTask
from gan_cli.metrics.held_out_nll import nats
from gan_cli.metrics.ngrams import Texts


def bits_per_character() -> Metric:
    """Negative log-likelihood of held-out texts under the generator, in bits per character.

    Values are comparable between vocabularies of characters and of words, as long as no word is unknown: an unknown
    word is one token, whatever its length. The space after a word and the end of a text count as a character each.
    Needs held-out texts, and a game with the task ``score``.

    Values:
    - bits_per_character: the bits; lower is better.
    """

    def figures(
        run_task: RunTask, held_out_texts: Texts, characters: Callable[[np.ndarray], int]
    ) -> dict[str, float]:
        scores = run_task("score", "held_out", None)
        bits = nats(scores) * float(scores["tokens"].sum(dtype=np.float64)) / np.log(2)
        return {"bits_per_character": float(bits / characters(scores["x"]))}

    return Metric(figures, {"bits_per_character": LOWER}, minimum=1, tasks=("score",), held_out_tasks=True)
