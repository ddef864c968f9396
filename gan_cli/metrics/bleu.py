"""BLEU of samples of texts against held-out texts."""

from __future__ import annotations

from gan_cli.metrics import HIGHER, NEITHER, Metric, ngrams
from gan_cli.metrics.ngrams import Texts

_ORDERS = range(2, 6)


def bleu() -> Metric:
    """BLEU-2 to BLEU-5: the n-grams that each sample shares with held-out texts (Papineni et al. 2002).

    Mean over the samples of the BLEU of a sample against all held-out texts, with smoothing method 1 of Chen and
    Cherry (2014), as in NLTK's ``sentence_bleu``. The values measure quality alone: one likely sentence, repeated,
    has a large BLEU. Read them beside ``self_bleu``. They grow with the number of references. Needs held-out
    texts.

    Values:
    - bleu_2, bleu_3, bleu_4, bleu_5: BLEU of the samples; higher is better, up to the values of real texts.
    - bleu_2_real, bleu_3_real, bleu_4_real, bleu_5_real: BLEU of as many training texts; neither higher nor lower
      is better.
    - bleu_references: number of held-out texts; neither higher nor lower is better.
    """

    def figures(fake_texts: Texts, training_texts: Texts, held_out_texts: Texts, seed: int) -> dict[str, float]:
        real = ngrams.drawn(training_texts, len(fake_texts), seed)
        found = {"bleu_references": float(len(held_out_texts))}
        for ending, texts in (("", fake_texts), ("_real", real)):
            values = ngrams.bleu(texts, held_out_texts).mean(0)
            found |= {f"bleu_{n}{ending}": float(values[n - 1]) for n in _ORDERS}
        return found

    named = [f"bleu_{n}_real" for n in _ORDERS] + ["bleu_references"]
    return Metric(figures, {f"bleu_{n}": HIGHER for n in _ORDERS} | dict.fromkeys(named, NEITHER), minimum=1)
