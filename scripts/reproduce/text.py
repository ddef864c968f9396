"""The tables of texts: SeqGAN's synthetic task, and Shakespeare by character."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from evaluations import Bar, Evaluation, Row, Size, Table, data_file

from gan_cli.data.dataset import Dataset
from gan_cli.data.text import sources
from gan_cli.data.text.feature import Tokens
from gan_cli.games.language_model import LanguageModel
from gan_cli.metrics import Metric, RunTask, text_inputs
from gan_cli.metrics.bits_per_character import bits_per_character
from gan_cli.metrics.bleu import bleu
from gan_cli.metrics.copied import copied
from gan_cli.metrics.distinct import distinct
from gan_cli.metrics.forward_nll import forward_nll, fresh
from gan_cli.metrics.kneser_ney import log_probabilities
from gan_cli.metrics.oracle_nll import oracle_nll
from gan_cli.metrics.self_bleu import self_bleu
from gan_cli.metrics.text_baselines import bigrams, copies, one_token, unigrams
from gan_cli.trained.restore import restore_run
from gan_cli.trained.sampling import on_data, runners

_MOST = 50_000  # largest number of held-out texts
_SAMPLES = 10_000
_TEMPERATURES = (0.7, 0.8, 0.9, 1.0, 1.1)
_REAL, _BASELINE, _GAN = "fresh sentences", "language model", "GAN"
# The weights of the oracle of SeqGAN's authors, which may not be part of the repository.
_WEIGHTS = data_file("seqgan_oracle.npz")
Values = Mapping[str, float]


def _figures(data: Dataset, metrics: Sequence[Metric], texts: np.ndarray, **others: Any) -> dict[str, float]:
    """The values of texts ``[n, length]``."""
    feature = data.feature
    assert isinstance(feature, Tokens)
    inputs = _inputs(data) | {"fake_texts": text_inputs.cut(feature, texts), "seed": 0} | others
    return {name: value for metric in metrics for name, value in metric.computed(inputs).items()}


@functools.cache
def _inputs(data: Dataset) -> dict[str, Any]:
    return text_inputs.of_data(data, _MOST)


# ------------------------------------------------------------------------------------ SeqGAN's synthetic task


@functools.cache
def oracle_data() -> Dataset:
    """The sentences of ``experiment=oracle``, of the oracle of SeqGAN's authors if its weights are at hand."""
    return sources.oracle(path=str(_WEIGHTS) if _WEIGHTS.is_file() else None)


def oracle_values(texts: np.ndarray) -> dict[str, float]:
    """The values of sentences that need no generator."""
    return _figures(oracle_data(), (oracle_nll(), distinct(), copied(lengths=(4,))), texts)


def oracle_references(n: int) -> dict[str, dict[str, float]]:
    """The values of the rows without training. Four of the generators give unseen sentences no probability."""
    data = oracle_data()
    training, oracle = data.arrays["x"], data.oracle
    assert oracle is not None
    real = fresh(oracle, 0, n)
    made = {
        "one token": one_token(training, n, 0, oracle),
        "unigrams": unigrams(training, n, 0),
        "bigrams": bigrams(training, n, 0),
        "copies": copies(training, n, 0),
    }
    rows = {_REAL: oracle_values(real)}
    rows[_REAL]["forward_nll"] = rows[_REAL]["oracle_nll"]
    rows |= {name: oracle_values(texts) | {"forward_nll": math.inf} for name, texts in made.items()}
    words = len(oracle.embedding)
    smoothed = -float(log_probabilities(training, real, words, order=2).mean())
    return rows | {"bigrams, Kneser-Ney": {"forward_nll": smoothed}}


def _tasks_of(run: Any, data: Dataset) -> RunTask:
    """The tasks of a run: of the best checkpoint of a language model, which overfits, and of the last of a GAN."""
    restored = restore_run(run.directory)
    if isinstance(restored.experiment.game, LanguageModel):
        restored = restore_run(run.directory, best=True)
    return on_data(runners(restored.experiment.game), restored.state, data, 0)


def _of_run(run: Any, samples: int) -> dict[float, dict[str, float]]:
    """The values of a run at each temperature."""
    run_task = _tasks_of(run, oracle_data())
    found = {}
    for temperature in _TEMPERATURES:
        made = run_task("generate", {}, samples, temperature=temperature)["samples"]
        scored = functools.partial(run_task, temperature=temperature)
        likelihood = _figures(oracle_data(), (forward_nll(sentences=samples),), made, run_task=scored)
        found[temperature] = oracle_values(made) | likelihood
    return found


def _at_each(found: Mapping[float, Values]) -> dict[str, float]:
    """The values of a run at temperature 1 and, with the temperature in their names, at all temperatures."""
    curve = {f"{name}@{t:g}": value for t, values in found.items() for name, value in values.items()}
    return {**found[1.0], "temperature": 1.0, **curve}


_COMPARED = ("oracle_nll", "forward_nll", "distinct_2", "copied_4")
# Differences between runs of the same quality that 10,000 sentences do not tell apart.
_NOISE = {"forward_nll": 0.01, "distinct_2": 0.005, "copied_4": 0.0005}


def colder(means: Sequence[Values]) -> dict[str, float]:
    """The baseline at the temperature at which its sentences have the oracle NLL of those of the GAN.

    The values between two temperatures are interpolated linearly in the oracle NLL. They are NaN if no temperature
    of the table has this oracle NLL.

    Args:
        means: the values of the baseline and of the GAN, means over their seeds, as ``_at_each`` returns them.
    """
    baseline, gan = means
    return _on_curve(baseline, "oracle_nll", gan["oracle_nll"])


def _on_curve(values: Values, name: str, wanted: float) -> dict[str, float]:
    """The values of a run at the temperature, from cold to hot, at which the value ``name`` first is ``wanted``."""
    curve = [{one: values[f"{one}@{t:g}"] for one in _COMPARED} | {"temperature": t} for t in _TEMPERATURES]
    for a, b in itertools.pairwise(curve):
        low, high = a[name], b[name]
        if min(low, high) <= wanted <= max(low, high) and low != high:
            share = (wanted - low) / (high - low)
            return {one: (1 - share) * a[one] + share * b[one] for one in a}
    return dict.fromkeys(curve[0], math.nan)


def oracle_bars(rows: Mapping[str, Values]) -> list[Bar]:
    """The bars, from the values of the real sentences and, if it is trained, of the baseline."""
    real = rows[_REAL]
    bars = [
        Bar("oracle_nll", at_most=8.75),
        Bar("distinct_2", at_least=0.9 * real["distinct_2"]),
        Bar("copied_4", at_most=real["copied_4"]),
    ]
    if _BASELINE in rows:
        bars.append(Bar("forward_nll", at_most=rows[_BASELINE]["forward_nll"] + 0.1))
    return bars


def verdict(rows: Mapping[str, Values]) -> str | None:
    """Whether the GAN is more than a colder baseline, as a sentence. None unless both are trained."""
    if not {_BASELINE, _GAN} <= rows.keys():
        return None
    gan, baseline = rows[_GAN], rows[_BASELINE]
    cold, diverse = colder([baseline, gan]), _on_curve(baseline, "distinct_2", gan["distinct_2"])
    if math.isnan(cold["temperature"]):
        return (
            f"No temperature from {_TEMPERATURES[0]:g} to {_TEMPERATURES[-1]:g} gives the language model the "
            f"oracle NLL of the GAN, {gan['oracle_nll']:.2f}."
        )
    better = [name for name in ("forward_nll", "copied_4") if gan[name] < cold[name] - _NOISE[name]]
    better += ["distinct_2"] if gan["distinct_2"] > cold["distinct_2"] + _NOISE["distinct_2"] else []
    text = (
        f"Better than the language model at temperature {cold['temperature']:.2f}, of the same oracle NLL, in "
        f"{', '.join(better)}."
        if better
        else f"No more than a colder baseline: at temperature {cold['temperature']:.2f}, the language model has "
        "the same oracle NLL, and is at least as good in everything else."
    )
    if math.isnan(diverse["temperature"]):
        return text
    below = diverse["oracle_nll"] - gan["oracle_nll"]
    return (
        f"{text} At equal distinct 2-grams, the oracle NLL of the GAN is {abs(below):.2f} nats "
        f"{'below' if below > 0 else 'above'} that of the language model."
    )


_PATH = (f"dataset.path={_WEIGHTS}",) if _WEIGHTS.is_file() else ()
ORACLE = Table(
    "SeqGAN's synthetic task (Yu et al. 2017), with their oracle NLL in brackets",
    [
        Row(
            _BASELINE,
            ("experiment=oracle", "game=language_model", *_PATH),
            {"oracle_nll": "9.04"},
            own_length=True,
            best=True,
        ),
        Row(_GAN, ("experiment=oracle", *_PATH), {"oracle_nll": "8.74"}, own_length=True),
    ],
    ("temperature", *_COMPARED),
    _SAMPLES,
    lambda: Evaluation("the oracle", _at_each, _of_run),
    oracle_references,
    {"quick": Size((), 1), "full": Size((), 3)},
    summary=("language model at the oracle NLL of the GAN", colder),
    bars=oracle_bars,
    verdict=verdict,
)


# ---------------------------------------------------------------------------------------------- Shakespeare


@functools.cache
def _plays() -> Dataset:
    return sources.shakespeare()


def _play_values(texts: np.ndarray) -> dict[str, float]:
    return _figures(_plays(), (bleu(), self_bleu(), distinct(), copied(lengths=(16, 32))), texts)


def _plays_of_run(run: Any, samples: int) -> dict[str, float]:
    run_task = _tasks_of(run, _plays())
    made = run_task("generate", {}, samples)["samples"]
    return _play_values(made) | _figures(_plays(), (bits_per_character(),), made, run_task=run_task)


def _play_references(n: int) -> dict[str, dict[str, float]]:
    data = _plays()
    feature, training = data.feature, data.arrays["x"]
    assert isinstance(feature, Tokens) and data.held_out is not None
    held_out = data.held_out["x"]
    makers: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
        "one token": one_token,
        "unigrams": unigrams,
        "bigrams": bigrams,
        "copies": copies,
    }
    made = {name: _play_values(make(training, n, 0)) for name, make in makers.items()}
    # Of as many texts as there are samples: training texts or, for copies, held-out texts.
    endings = {"bleu_4": "real", "self_bleu_4": "real", "distinct_4": "real"}
    endings |= {"copied_16": "held_out", "copied_32": "held_out"}
    real = {name: made["copies"][f"{name}_{ending}"] for name, ending in endings.items()}
    rows = {"real text": real} | made
    for order in (1, 2, 5):
        logs = log_probabilities(training, held_out, len(feature.vocabulary), order)
        rows[f"{order}-grams, Kneser-Ney"] = {"bits_per_character": -float(logs.mean()) / math.log(2)}
    return rows


SHAKESPEARE = Table(
    "Shakespeare by character: a language model, and n-grams",
    [Row(_BASELINE, ("experiment=shakespeare",), own_length=True, best=True)],
    ("bits_per_character", "bleu_4", "self_bleu_4", "distinct_4", "copied_16", "copied_32"),
    800,  # there are 892 held-out windows
    lambda: Evaluation("the program's metrics", lambda values: values, _plays_of_run),
    _play_references,
    {"quick": Size((), 1), "full": Size((), 3)},
)

TABLES = {"oracle": ORACLE, "shakespeare": SHAKESPEARE}
