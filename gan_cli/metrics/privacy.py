"""The privacy audit of a run: membership inference, and the lower bound on epsilon that canaries give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gan_cli.metrics import LOWER, NEITHER, Audited, Direction, Metric, Scores, one_run
from gan_cli.metrics.nearest_training import mean_ranks
from gan_cli.types import PositiveInt

_RESAMPLES = 1_000  # bootstrap samples of an interval
_RATES = {"1_in_1000": 0.001, "1_in_100": 0.01}  # false positives


def privacy(*, references: PositiveInt = 4, examples: PositiveInt = 500) -> Metric:
    """Privacy audit: whether the run tells its training examples from others, and its canaries.

    Membership inference by a likelihood ratio (LiRA; Carlini et al. 2022) against reference runs, which have the
    configuration and the number of steps of the run, and are trained on a random half of the examined examples. The
    score of an example is its log-likelihood or, without one, the discriminator's logit (LOGAN; Hayes et al. 2019),
    and for the generator minus the distance to the nearest sample. The reference runs of a private run are private
    too, with noise of their own. For runs with dataset.canaries, the metric also computes a lower bound on epsilon
    (Steinke et al. 2023). Only gan-eval computes this metric.

    Values, of which those of membership have 95 % bootstrap intervals, ``_low`` and ``_high``:
    - membership_auc: probability that a training example has a larger ratio than a held-out example; lower is
      better. 0.5 is chance.
    - membership_tpr_1_in_100, membership_tpr_1_in_1000: share of the training examples that are recognised with
      1 % and with 0.1 % false positives; lower is better. Chance is 0.01 and 0.001.
    - membership_generator_auc, and likewise for the other two: the same for samples of the generator.
    - epsilon_lower_bound: epsilon that the guessed canaries contradict, with 95 % confidence; lower is better.
    - epsilon_lower_bound_max: the bound if every guess were right; neither higher nor lower is better. A larger
      promise cannot be tested.
    - epsilon_promised: epsilon that run.json states, left out for a run that is not private; lower is better.
    - epsilon_counted: epsilon of the updates that the checkpoint counts; lower is better. It must not exceed
      epsilon_promised.

    Args:
        references: number of reference runs.
        examples: number of training examples that are examined, and of held-out examples.
    """

    if references < 2:
        raise ValueError(f"metric.privacy.references={references}: needs at least 2 reference runs")

    def figures(audited: Audited, seed: int) -> dict[str, float]:
        audit = audited(references, examples, seed)
        found: dict[str, float] = {}
        for name, scores in audit.by_network.items():
            found |= _membership(scores, audit.member, f"membership{name}", seed)
        if audit.canaries is not None:
            ratios = likelihood_ratios(audit.canaries)
            found["epsilon_lower_bound"] = one_run.lower_bound(ratios, audit.included, audit.delta)
            found["epsilon_lower_bound_max"] = one_run.largest_bound(len(ratios), audit.delta)
        return found | dict(audit.promised)

    return Metric(figures, _directions(), minimum=1)


def likelihood_ratios(scores: Scores) -> np.ndarray:
    """Log-likelihood ratio ``[n]`` of being a training example, against not being one.

    Both likelihoods are Gaussian (Carlini et al. 2022, section IV-C). Few reference runs cannot tell the effect of
    training on each example, so all examples share the effect d and the variance: the score of example i in
    reference run k is a_i + d t_ki plus noise, where t_ki says whether the run was trained on it. a_i and d are the
    least squares estimates.
    """
    trained = scores.trained.astype(float)
    residual, centred = scores.references - scores.references.mean(0), trained - trained.mean(0)
    effect = (residual * centred).sum() / max((centred**2).sum(), 1e-12)
    without = (scores.references - effect * trained).mean(0)
    variance = np.mean((scores.references - effect * trained - without) ** 2) + 1e-12
    return np.asarray(effect * (scores.run - without - effect / 2) / variance)


def contradiction(figures: Mapping[str, float]) -> str | None:
    """A sentence that says why the figures contradict the promised epsilon. None if they do not."""
    promised = figures.get("epsilon_promised")
    if promised is None:
        return None
    if (counted := figures["epsilon_counted"]) > promised * (1 + 1e-6):
        return (
            f"run.json promises epsilon {promised:.3g}, but the updates that the checkpoint counts spend "
            f"{counted:.3g}. The ledger of the run is wrong: do not rely on its guarantee."
        )
    if (bound := figures.get("epsilon_lower_bound", 0.0)) > promised:
        return (
            f"run.json promises epsilon {promised:.3g}, but the canaries show that it is at least {bound:.3g} "
            "(95 % confidence). Do not rely on the guarantee of the run."
        )
    return None


def limits(figures: Mapping[str, float]) -> str | None:
    """A sentence that says what the canaries can show about the promised epsilon. None without a promise."""
    promised = figures.get("epsilon_promised")
    if promised is None:
        return None
    largest = figures.get("epsilon_lower_bound_max")
    if largest is None:
        return f"epsilon {promised:.3g}: cannot test this claim without canaries (dataset.canaries=1000)."
    if largest < promised:
        return (
            f"epsilon {promised:.3g}: cannot test this claim, because the canaries can show at most {largest:.3g}. "
            "Use more of them."
        )
    return (
        f"epsilon {promised:.3g}: the canaries show that it is at least {figures['epsilon_lower_bound']:.3g} (95 % "
        f"confidence), and could show up to {largest:.3g}."
    )


def _membership(scores: Scores, member: np.ndarray, name: str, seed: int) -> dict[str, float]:
    """The figures of membership inference, with bootstrap intervals over examples."""
    ratios = likelihood_ratios(scores)
    inside, outside = ratios[member], ratios[~member]
    rng = np.random.default_rng(seed)
    samples = [_of(inside, outside)] + [
        _of(rng.choice(inside, len(inside)), rng.choice(outside, len(outside))) for _ in range(_RESAMPLES)
    ]
    found: dict[str, float] = {}
    for figure, value in samples[0].items():
        low, high = np.quantile([one[figure] for one in samples[1:]], (0.025, 0.975))
        found |= {
            f"{name}_{figure}": value,
            f"{name}_{figure}_low": float(low),
            f"{name}_{figure}_high": float(high),
        }
    return found


def _of(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    ranks = mean_ranks(np.concatenate([inside, outside]))[: len(inside)].sum()
    auc = (ranks - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside))
    found = {"auc": float(auc)}
    descending = np.sort(outside)[::-1]
    for figure, rate in _RATES.items():
        threshold = descending[int(rate * len(outside))]  # at most this share of the others exceeds it
        found[f"tpr_{figure}"] = float((inside > threshold).mean())
    return found


def _directions() -> dict[str, Direction]:
    figures = ["auc", *(f"tpr_{figure}" for figure in _RATES)]
    found: dict[str, Direction] = {}
    for name in ("membership", "membership_generator"):
        for figure in figures:
            found |= {f"{name}_{figure}": LOWER, f"{name}_{figure}_low": NEITHER, f"{name}_{figure}_high": NEITHER}
    return found | {
        "epsilon_lower_bound": LOWER,
        "epsilon_lower_bound_max": NEITHER,
        "epsilon_promised": LOWER,
        "epsilon_counted": LOWER,
    }
