"""The share of distinct n-grams of samples of texts."""

from __future__ import annotations

from gan_cli.metrics import NEITHER, Metric, ngrams
from gan_cli.metrics.ngrams import Texts

_LENGTHS = range(1, 5)


def distinct() -> Metric:
    """Distinct n-grams: different n-grams of the samples divided by all, for n of 1 to 4 (Li et al. 2016).

    The values of good samples are near those of real texts: smaller values mean repetition, larger ones noise. They
    fall with the number of texts, so equally many samples and training texts are compared.

    Values:
    - distinct_1, distinct_2, distinct_3, distinct_4: share of the samples; neither higher nor lower is better.
    - distinct_1_real, distinct_2_real, distinct_3_real, distinct_4_real: share of training texts; neither higher
      nor lower is better.
    - distinct_texts: number of the samples, and of the training texts; neither higher nor lower is better.
    """

    def figures(fake_texts: Texts, training_texts: Texts, seed: int) -> dict[str, float]:
        count = min(len(fake_texts), len(training_texts))
        real = ngrams.drawn(training_texts, count, seed)
        found = {"distinct_texts": float(count)}
        for n in _LENGTHS:
            found[f"distinct_{n}"] = ngrams.distinct(fake_texts[:count], n)
            found[f"distinct_{n}_real"] = ngrams.distinct(real, n)
        return found

    named = [f"distinct_{n}{ending}" for n in _LENGTHS for ending in ("", "_real")] + ["distinct_texts"]
    return Metric(figures, dict.fromkeys(named, NEITHER), minimum=1)
