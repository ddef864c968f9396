"""The table that describes the jobs of a sweep, for a terminal and for ``sweep.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from gan_cli.storage import metrics_log

if TYPE_CHECKING:
    from gan_cli.cli.sweep import Job


def table(jobs: Sequence[Job]) -> Table:
    """A table with one row for each job.

    The columns are the job's number, overrides, status, newest metrics and directory. Overrides that all jobs share
    are left out.
    """
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    rows = Table("job", "overrides", "status", "metrics", "directory", title="sweep", title_justify="left")
    for job in jobs:
        rows.add_row(
            str(job.number),
            escape(" ".join(override for override in job.overrides if override not in common)),
            job.status,
            "\n".join(_figures(job)),
            str(job.directory),
        )
    return rows


def _figures(job: Job) -> list[str]:
    if not job.started and job.exit_status is None:
        return []
    facts = job.facts
    final = metrics_log.last(job.directory) if job.exit_status is None else facts.get("final", {})
    lines = [f"step {final['step']:,}"] if "step" in final else []
    lines += [
        f"{name} {value:.4g}" for name, value in final.items() if name.endswith("/loss") and value is not None
    ]
    lines += [
        f"{name} {final[name]:.4g}" for name in ("distance", "modes", "quality") if final.get(name) is not None
    ]
    if objective := facts.get("objective"):
        lines.append(f"best {objective['name']} {objective['value']:.4g}")
    return lines


def csv_text(records: Sequence[dict[str, Any]]) -> str:
    """The text of ``sweep.csv``, which has a line for each job.

    The columns are the job's number, its overrides, status, directory and objective, and its final metrics.

    Args:
        records: the entries of ``sweep.json``.
    """
    lines = []
    for record in records:
        varied = dict(override.lstrip("+").split("=", 1) for override in record["overrides"] if "=" in override)
        outcome = {key: record[key] for key in ("status", "dir", "objective")}
        lines.append({"job": record["job"]} | varied | outcome | record["final"])
    columns = dict.fromkeys(column for line in lines for column in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
