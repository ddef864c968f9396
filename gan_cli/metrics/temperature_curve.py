"""Quality against diversity of samples of texts over temperatures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gan_cli.data.text.oracle import Oracle
from gan_cli.metrics import NEITHER, Metric, RunTask, ngrams
from gan_cli.metrics.ngrams import Texts
from gan_cli.metrics.oracle_nll import nats
from gan_cli.types import PositiveFloat, PositiveInt


def temperature_curve(
    *, temperatures: tuple[PositiveFloat, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1), samples: PositiveInt = 1000
) -> Metric:
    """Quality and diversity of samples at several temperatures, for curves of several runs in one chart.

    A colder generator makes better and less diverse texts, so a generator is better than another one if its curve
    is (Caccia et al. 2020, "Language GANs falling short"). gan-report draws the curves. Quality is the oracle NLL
    if the data have an oracle, else BLEU-4 against held-out texts. Diversity is the share of distinct 2-grams.

    Args:
        temperatures: the temperatures.
        samples: number of samples at each temperature.

    Values:
    - oracle_nll_at_1, ...: oracle NLL of samples at a temperature; neither higher nor lower is better.
    - bleu_4_at_1, ...: BLEU-4 of samples at a temperature; neither higher nor lower is better.
    - distinct_2_at_1, ...: share of distinct 2-grams of these samples; neither higher nor lower is better.
    """

    def figures(
        run_task: RunTask,
        cut: Callable[[np.ndarray], Texts],
        oracle: Oracle | None = None,
        held_out_texts: Texts | None = None,
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for temperature in temperatures:
            made = cut(run_task("generate", {}, samples, temperature=temperature)["samples"])
            if oracle is not None:
                found[f"oracle_nll_at_{temperature:g}"] = nats(oracle, np.asarray(made))
            elif held_out_texts is not None:
                found[f"bleu_4_at_{temperature:g}"] = float(ngrams.bleu(made, held_out_texts, 4)[:, -1].mean())
            found[f"distinct_2_at_{temperature:g}"] = ngrams.distinct(made, 2)
        return found

    kinds = ("oracle_nll", "bleu_4", "distinct_2")
    names = [f"{kind}_at_{temperature:g}" for kind in kinds for temperature in temperatures]
    return Metric(figures, dict.fromkeys(names, NEITHER), tasks=("generate",))
