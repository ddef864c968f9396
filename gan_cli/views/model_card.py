"""The model card of a run, in sentences (Mitchell et al. 2019): use, data, metrics, copying, privacy and failures.

The user states the use, the data, the licence and the contact (options ``card.*``). All other sentences come from
``run.json`` and from the evaluations of ``gan-eval``. Both files are not trusted, so each value is checked first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_STATED = {
    "intended_use": "Intended use",
    "out_of_scope": "Not intended for",
    "licence": "Licence",
    "contact": "Contact",
}
_NOT_STATED = "Not stated."
Row = tuple[str, list[str]]


def rows(facts: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of the model card: pairs of a title and of sentences.

    Args:
        facts: the contents of the run's ``run.json``.
        evaluations: the contents of the run's ``evaluations.json``, oldest first.
    """
    config = facts.get("config")
    stated = config.get("card") if isinstance(config, Mapping) else None
    stated = stated if isinstance(stated, Mapping) else {}
    given = {name: value for name in (*_STATED, "data") if isinstance(value := stated.get(name), str) and value}
    found = _figures(facts, evaluations)
    return [
        *((title, [given.get(name, _NOT_STATED)]) for name, title in _STATED.items()),
        ("Data", [given.get("data", _NOT_STATED), *_data(facts.get("data"))]),
        ("Metrics", _metrics(facts, evaluations)),
        ("Detectability", _detectability(found)),
        ("Copying", _copying(found)),
        ("Privacy", [*_privacy(facts.get("privacy")), *_audit(found, facts.get("privacy"))]),
        ("Known failures", _failures(facts, found)),
    ]


def _figures(facts: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The newest value of each metric, by name. An evaluation of a later checkpoint counts as newer."""
    final = facts.get("final")
    found = _numbers(final if isinstance(final, Mapping) else {})
    for one in sorted(evaluations, key=lambda one: one["step"]):
        found |= _numbers(one["metrics"])
    return found


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = {str(name).removeprefix("eval/"): _number(value) for name, value in metrics.items()}
    return {name: value for name, value in found.items() if value is not None}


def _data(described: Any) -> list[str]:
    if not isinstance(described, Mapping):
        return []
    counts = [_count(described.get(name)) for name in ("examples", "held_out")]
    texts = [
        f"{count} {noun}" for count, noun in zip(counts, ("training examples", "held out"), strict=True) if count
    ]
    return [f"{described.get('name')}: {', '.join(texts)}."] if texts else []


def _metrics(facts: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence about the values of the newest evaluation by ``gan-eval`` or, without one, by the run itself."""
    final, terms, step = facts.get("final"), facts.get("evaluation"), facts.get("step")
    metrics = {name: x for name, x in final.items() if name.startswith("eval/")} if isinstance(final, dict) else {}
    if evaluations:
        terms = max(reversed(evaluations), key=lambda one: one["step"])
        metrics, step = terms["metrics"], terms["step"]
    values = ", ".join(f"{name} {value:.4g}" for name, value in _numbers(metrics).items())
    if not values:
        return ["Not computed. gan-eval computes them."]
    terms = terms if isinstance(terms, Mapping) else {}
    samples = f"{_count(terms.get('samples'))} samples" if _count(terms.get("samples")) else "samples"
    place = f", in {terms['features']}" if terms.get("features") not in (None, "none") else ""
    against = f", against {terms['reference']}" if terms.get("reference") else ""
    return [f"{values}.", f"Step {_count(step)}, {samples}{place}{against}."]


def _detectability(found: Mapping[str, float]) -> list[str]:
    if "detectable_auc" not in found:
        return ["Not computed. gan-eval computes it with --metrics detectable."]
    low, high = (found.get(f"detectable_auc_{end}", math.nan) for end in ("low", "high"))
    return [
        "A small classifier tells samples from real held-out examples with an area under the ROC curve of "
        f"{found['detectable_auc']:.2f} (95 % interval {low:.2f} to {high:.2f}; 0.5 is chance, 1 is certainty)."
    ]


def _copying(found: Mapping[str, float]) -> list[str]:
    """Sentences about the metrics of copying for images and points, tables, and series."""
    lines = []
    if "copying" in found and "memorised" in found:
        lines.append(
            f"{'A sign of copying' if found['memorised'] else 'No sign of copying'}: the probability that a sample "
            f"lies nearer to the training data than a held-out example is {found['copying']:.2f} (0.5 or less is "
            "expected without copying). Single samples may still be copies."
        )
    if "copies" in found:
        among = (
            f", and {100 * found['copies_held_out']:.2g} % of the held-out rows"
            if "copies_held_out" in found
            else ""
        )
        lines.append(f"{100 * found['copies']:.2g} % of the generated rows are equal to a training row{among}.")
    if "closest_record_share" in found:
        lines.append(
            f"{100 * found['closest_record_share']:.3g} % of the generated rows are nearer to a training row than "
            "to a held-out row (50 % is expected without copying)."
        )
    if "window_copies" in found:
        lines.append(f"{100 * found['window_copies']:.2g} % of the generated windows point at one training window.")
    return lines or ["Not computed. gan-eval computes it for data with held-out examples."]


def _privacy(spent: Any) -> list[str]:
    numbers = {name: _number(value) for name, value in spent.items()} if isinstance(spent, Mapping) else {}
    epsilon, delta = numbers.get("epsilon"), numbers.get("delta")
    if epsilon is None or delta is None:
        return ["Trained without a privacy guarantee."]
    terms = {"noise multiplier": "noise_multiplier", "sampling rate": "sampling_rate", "steps": "steps"}
    values = [f"{text} {numbers[name]:.6g}" for text, name in terms.items() if numbers.get(name) is not None]
    accountant = f", computed by the accountant {spent['accountant']}" if spent.get("accountant") else ""
    return [
        f"Differentially private: epsilon {epsilon:.4g} at delta {delta:.4g}{accountant}.",
        *([f"{', '.join(values).capitalize()}."] if values else []),
    ]


def _audit(found: Mapping[str, float], spent: Any) -> list[str]:
    """Sentences about the metrics of membership inference and of canaries."""
    lines = []
    if "membership_auc" in found:
        lines.append(
            "Audit: an attack tells training examples from others with an area under the ROC curve of "
            f"{found['membership_auc']:.2f} (0.5 is chance)."
        )
    bound, most = found.get("epsilon_lower_bound"), found.get("epsilon_lower_bound_max")
    promised = _number(spent.get("epsilon")) if isinstance(spent, Mapping) else None
    if bound is not None:
        largest = f", where the canaries can show at most {most:.3g}" if most is not None else ""
        lines.append(f"Audit with canaries: epsilon is at least {bound:.3g} at 95 % confidence{largest}.")
        if promised is not None and bound > promised:
            lines.append("The audit contradicts the privacy guarantee.")
        elif promised is not None and most is not None and most < promised:
            lines.append("The audit cannot test the privacy guarantee, because it has too few canaries.")
    return lines or ["Not audited."]


def _failures(facts: Mapping[str, Any], found: Mapping[str, float]) -> list[str]:
    """Sentences about what the monitors of the run and the metrics have found."""
    lines = []
    if "diverged_at" in facts:
        lines.append(f"Training diverged at step {_count(facts['diverged_at'])}.")
    elif facts.get("status") != "finished":
        lines.append(f"Training has not finished (status {facts.get('status')}).")
    for name, text in (("collapse", "Mode collapse"), ("posterior_collapse", "Posterior collapse")):
        if f"{name}_suspected_at" in facts:
            lines.append(f"{text} is suspected since step {_count(facts[f'{name}_suspected_at'])}.")
    for name in ("classes", "modes"):
        kept, total = found.get(name), found.get(f"{name}_total")
        if kept is not None and total is not None and kept < total:
            lines.append(
                f"{total - kept:.0f} of {total:.0f} {name} of the data are rare or missing among the samples."
            )
    if found.get("memorised"):
        lines.append("The samples are suspiciously near to training examples.")
    return lines or ["None found. The monitors and the computed metrics do not see every failure."]


def _number(value: Any) -> float | None:
    """``value`` if it is a finite number, else None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and abs(value) < 1e308 and math.isfinite(value) else None


def _count(value: Any) -> str:
    """A number of things with commas, or an empty text for another value."""
    number = _number(value)
    return "" if number is None else f"{number:,.0f}"
