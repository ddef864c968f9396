"""Rerun a table of results, and compare the means over seeds with the values in the papers.

    python scripts/reproduce TABLE [--size quick|full] [--rows adam ...]

For each row, the script trains an ensemble of runs that differ in the seed, as `gan-train` does. The script writes
outputs/reproduce/TABLE-SIZE.json and a Markdown table, outputs/reproduce/TABLE-SIZE.md. It runs each seed once and
reports all seeds. The column `diverged` counts diverged runs, and the means do not include these runs.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from evaluations import Bar, Evaluation, Row, Size, Table
from tables import GROUPS, TABLES

import gan_cli
from gan_cli.storage import provenance


def measure(row: Row, size: Size, evaluation: Evaluation, samples: int, folder: str) -> dict[str, Any]:
    """Train a run for each seed of a row, and evaluate its samples.

    Args:
        row: the row of the table.
        size: the size of the table, which sets the number of steps and of seeds.
        evaluation: the method of the evaluation.
        samples: the number of samples of each run.
        folder: the folder for the runs, relative to ``outputs/``.

    Returns:
        The results of the row as a dictionary for JSON.
    """
    began = time.monotonic()
    cadences = {"sample": 0, "checkpoint": 0, "log": 1000} | ({} if row.best else {"eval": 0})
    quiet = ("logger=none", *(f"train.{cadence}_every={steps}" for cadence, steps in cadences.items()))
    length = () if row.own_length else size.overrides
    overrides = [*row.overrides, *length, *quiet, *(row.before() if row.before else ())]
    name = f"name={folder}/{re.sub('[^A-Za-z0-9]+', '-', row.name).strip('-')}"
    if row.one_by_one:
        runs = [gan_cli.train([*overrides, f"seed={seed}", f"{name}-{seed}"]) for seed in range(size.seeds)]
    else:
        runs = gan_cli.train([*overrides, f"train.ensemble={size.seeds}", name]).members
    if stopped := [run for run in runs if run.status == "stopped"]:
        raise SystemExit(stopped[0].exit_status)
    finished = [run for run in runs if run.status == "finished"]
    found = [_evaluated(member) | evaluation.figures(evaluation.outputs(member, samples)) for member in finished]
    return {
        "row": row.name,
        "overrides": list(row.overrides),
        "paper": dict(row.paper),
        "seeds": size.seeds,
        "diverged": size.seeds - len(finished),
        "ours": {
            name: {"mean": float(np.mean([f[name] for f in found])), "std": float(np.std([f[name] for f in found]))}
            for name in (found[0] if found else ())
        },
        "each": found,
        "steps": max(run.step for run in runs),
        "seconds": round(time.monotonic() - began, 1),
    }


def _evaluated(member: Any) -> dict[str, float]:
    """The values of the metrics that a run has computed at its end, by name."""
    return {name.removeprefix("eval/"): value for name, value in member.metrics.items() if name.startswith("eval/")}


def _values(found: Any, evaluation: Evaluation) -> dict[str, float]:
    """The values of a row without training, from its values or from the argument of ``Evaluation.figures``."""
    if isinstance(found, dict) and all(np.ndim(value) == 0 for value in found.values()):
        return found
    return evaluation.figures(found)


def markdown(table: Table, lines: list[dict[str, Any]], method: str) -> str:
    """The table in Markdown, with the values that a paper reports in brackets.

    Args:
        table: the table, whose title and columns are written.
        lines: for each row, its results as a dictionary.
        method: the text that names the method of the evaluation in the caption.
    """
    head = ["", *table.columns, "diverged", "steps", "seconds"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for line in lines:
        cells = [line["row"]]
        for column in table.columns:
            ours = line["ours"].get(column)
            text = (
                "-"
                if ours is None
                else f"{ours['mean']:.3g}" + (f" ± {ours['std']:.2g}" if line["seeds"] > 1 else "")
            )
            cells.append(text + (f" ({line['paper'][column]})" if column in line["paper"] else ""))
        trained = line["seeds"] > 0
        cells += [
            f"{line['diverged']} of {line['seeds']}" if trained else "",
            f"{line['steps']:,}" if trained else "",
        ]
        rows.append([*cells, f"{line['seconds']:.0f}" if trained else ""])
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    caption = f"{table.title}. Evaluated with {method}, on {table.samples:,} samples."
    means = {line["row"]: {name: value["mean"] for name, value in line["ours"].items()} for line in lines}
    bars = table.bars(means) if callable(table.bars) else table.bars
    below = [failures(bars, lines)] if bars else []
    below += [text] if (text := table.verdict(means)) else []
    return "\n\n".join([caption, body, *below]) + "\n"


def failures(bars: Sequence[Bar], lines: list[dict[str, Any]]) -> str:
    """The bars, and those that each row fails, as a list in Markdown. Trained rows are judged seed by seed."""
    texts = [f"Bars, to be passed together: {'; '.join(map(str, bars))}.\n"]
    for line in lines:
        means = {name: value["mean"] for name, value in line["ours"].items()}
        if not all(bar.column in means for bar in bars):  # e.g. a row with a likelihood and without samples
            continue
        seeds = line.get("each") or [means]
        passing = sum(all(bar.passed(one) for bar in bars) for one in seeds)
        failed = [bar.column for bar in bars if not all(bar.passed(one) for one in seeds)]
        verdict = f"fails {', '.join(failed)}" if failed else "passes all bars"
        counted = f" ({passing} of {line['seeds']} seeds pass all bars)" if line["seeds"] else ""
        texts.append(f"- {line['row']}: {verdict}{counted}")
    return "\n".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", choices=[*TABLES, *GROUPS], help="the table, or the tables, to rerun")
    parser.add_argument(
        "--size",
        choices=["quick", "full"],
        default="quick",
        help="quick takes minutes on a CPU; full has the published number of steps and seeds (default: quick)",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        default=None,
        help="only the rows whose name contains one of these texts (default: all)",
    )
    arguments = parser.parse_args()
    for name in GROUPS.get(arguments.table, (arguments.table,)):
        rerun(name, arguments.size, arguments.rows)


def rerun(name: str, size_name: str, chosen: list[str] | None) -> None:
    """Compute a table, write it and print it.

    Args:
        name: the name of the table.
        size_name: the name of its size, quick or full.
        chosen: texts, one of which the name of a row must contain. None for all rows.
    """
    table = TABLES[name]
    size = table.sizes[size_name]
    evaluation = (size.evaluation or table.evaluation)()
    references = (size.references or table.references)(table.samples)
    lines = [_untrained(row, _values(found, evaluation)) for row, found in references.items()]
    folder = f"reproduce/{name}-{size_name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path("outputs/reproduce") / f"{name}-{size_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    hardware = f"{provenance.describe(jax.devices()[0])}, JAX {jax.__version__}"
    facts = {"title": table.title, "size": size_name, "hardware": hardware, "evaluation": evaluation.method}
    rows = [row for row in table.rows if chosen is None or any(part in row.name for part in chosen)]
    for row in rows:
        row = replace(row, overrides=row.overrides + (row.full if size_name == "full" else ()))
        lines.append(measure(row, size, evaluation, table.samples, folder))
        if table.summary and row.name == rows[-1].name:
            # The seeds of a row share its data, so they are averaged before the rows are summarised.
            means = [
                {name: value["mean"] for name, value in line["ours"].items()} for line in lines if line["seeds"]
            ]
            each = [one for one in means if one]
            if len(each) > 1:
                lines.append(_untrained(table.summary[0], table.summary[1](each)))
        path.write_text(json.dumps(facts | {"rows": lines}, indent=2) + "\n")
        path.with_suffix(".md").write_text(f"{markdown(table, lines, evaluation.method)}\n{hardware}.\n")
    print(markdown(table, lines, evaluation.method))
    print(f"{hardware}. Written to {path} and {path.with_suffix('.md')}.")


def _untrained(name: str, values: Mapping[str, float]) -> dict[str, Any]:
    """A row that is not trained, as ``measure`` returns it."""
    ours = {column: {"mean": value, "std": 0.0} for column, value in values.items()}
    return {"row": name, "paper": {}, "seeds": 0, "ours": ours}


if __name__ == "__main__":
    main()
