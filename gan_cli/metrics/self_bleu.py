"""BLEU of samples of texts against each other."""

from __future__ import annotations

from gan_cli.metrics import LOWER, NEITHER, Metric, ngrams
from gan_cli.metrics.ngrams import Texts

_ORDERS = range(2, 6)


def self_bleu() -> Metric:
    """Self-BLEU-2 to 5: the n-grams that each sample shares with the others (Zhu et al. 2018).

    The mean over the samples of the BLEU of a sample against all others, with the smoothing of the metric ``bleu``.
    The values measure diversity alone: random words have a small self-BLEU. They grow with the number of samples,
    so compare only values of equally many.

    Values:
    - self_bleu_2, self_bleu_3, self_bleu_4, self_bleu_5: self-BLEU of the samples; lower is better, down to the
      values of real texts.
    - self_bleu_2_real, self_bleu_3_real, self_bleu_4_real, self_bleu_5_real: self-BLEU of training texts; neither
      higher nor lower is better.
    - self_bleu_texts: number of the samples, and of the training texts; neither higher nor lower is better.
    """

    def figures(fake_texts: Texts, training_texts: Texts, seed: int) -> dict[str, float]:
        count = min(len(fake_texts), len(training_texts))
        found = {"self_bleu_texts": float(count)}
        for ending, texts in (("", fake_texts[:count]), ("_real", ngrams.drawn(training_texts, count, seed))):
            values = ngrams.self_bleu(texts).mean(0)
            found |= {f"self_bleu_{n}{ending}": float(values[n - 1]) for n in _ORDERS}
        return found

    named = [f"self_bleu_{n}_real" for n in _ORDERS] + ["self_bleu_texts"]
    return Metric(figures, {f"self_bleu_{n}": LOWER for n in _ORDERS} | dict.fromkeys(named, NEITHER))
