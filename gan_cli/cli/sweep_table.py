"""The table of a sweep: on the terminal while it runs, and as ``sweep.csv``."""

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
    """What sets each job apart, its status, newest figures and directory."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    shown = Table("job", "overrides", "status", "figures", "directory", title="sweep", title_justify="left")
    for job in jobs:
        shown.add_row(
            str(job.number),
            escape(" ".join(override for override in job.overrides if override not in common)),
            job.status,
            "\n".join(_figures(job)),
            str(job.directory),
        )
    return shown


def _figures(job: Job) -> list[str]:
    if not job.started and job.exit_status is None:
        return []
    facts = job.facts
    final = metrics_log.last(job.directory) if job.exit_status is None else facts.get("final", {})
    told = [f"step {final['step']:,}"] if "step" in final else []
    told += [f"{name} {value:.4g}" for name, value in final.items() if name.endswith("/loss") and value is not None]
    told += [
        f"{name} {final[name]:.4g}" for name in ("distance", "modes", "quality") if final.get(name) is not None
    ]
    if objective := facts.get("objective"):
        told.append(f"best {objective['name']} {objective['value']:.4g}")
    return told


def csv_text(records: Sequence[dict[str, Any]]) -> str:
    """A line a job: what was varied and each final figure in a column of its own."""
    lines = []
    for record in records:
        varied = dict(override.lstrip("+").split("=", 1) for override in record["overrides"] if "=" in override)
        apart = {key: record[key] for key in ("status", "dir", "objective")}
        lines.append({"job": record["job"]} | varied | apart | record["final"])
    columns = dict.fromkeys(column for line in lines for column in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
