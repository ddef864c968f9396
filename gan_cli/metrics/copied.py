"""The share of the n-grams of samples of texts that are copied from the training texts."""

from __future__ import annotations

from gan_cli.metrics import LOWER, NEITHER, Direction, Metric, ngrams
from gan_cli.metrics.ngrams import Texts
from gan_cli.types import PositiveInt


def copied(*, lengths: tuple[PositiveInt, ...] = (2, 4, 8, 16)) -> Metric:
    """Copied n-grams: share of the n-grams of the samples that occur in the training texts, by length.

    Held-out texts share n-grams with the training texts too, and samples without copying share no more of them.
    Lengths beyond that of the texts are left out.

    Args:
        lengths: the numbers of tokens of an n-gram, e.g. [4, 8] for words, or [16, 32] for characters.

    Values:
    - copied_2, copied_4, copied_8, copied_16: share of the samples; lower is better, down to that of held-out
      texts.
    - copied_2_held_out, copied_4_held_out, copied_8_held_out, copied_16_held_out: share of the held-out texts, if
      there are any; neither higher nor lower is better.
    """

    def figures(fake_texts: Texts, training_texts: Texts, held_out_texts: Texts | None = None) -> dict[str, float]:
        kinds = {"": fake_texts} | ({} if held_out_texts is None else {"_held_out": held_out_texts})
        values = {
            f"copied_{n}{ending}": share
            for ending, texts in kinds.items()
            for n, share in zip(lengths, ngrams.copied(texts, training_texts, lengths), strict=True)
        }
        return {name: value for name, value in values.items() if value == value}

    named: dict[str, Direction] = {f"copied_{n}": LOWER for n in lengths}
    return Metric(figures, named | {f"copied_{n}_held_out": NEITHER for n in lengths}, minimum=1)
