"""A run, or several, as one HTML file that needs nothing else: curves, pictures, figures, configuration.

What comes from a run's directory may come from anywhere: it goes into the page as data that the page shows as text,
and as pictures that are PNG files of bounded size.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from gan_cli import directory, files
from gan_cli.errors import UserError

_POINTS = 300  # of a curve; fewer where many runs are compared
_ALL_POINTS = 12_000  # of one figure over all runs
_PICTURES = 60  # of a run over time
_LARGEST = 8 * 2**20  # bytes of a picture
_PNG = b"\x89PNG\r\n\x1a\n"
_FACTS = ("status", "step", "seconds", "seed", "started", "steps_per_second", "seconds_to_first_call", "checkpoint")
_WATCHED = ("diverged_at", "diverged_player", "diverged_in", "collapse_suspected_at", "stopped_early_at", "error")
_MADE_WITH = ("command", "python", "versions", "devices", "git", "cpus", "fingerprint", "evaluation", "verdict")


def write(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of the run in a directory, or of the runs of a sweep, or of several, side by side.

    Args:
        out: where to; without it, ``report.html`` in the directory.

    Returns:
        Where it is.

    Raises:
        UserError: there is no run.
    """
    runs = [run for path in paths for run in directory.runs(path)]
    if out is None:
        if len(paths) > 1:
            raise UserError("several directories: --out FILE.")
        out = paths[0] / "report.html"
    single = len(runs) == 1
    points = min(_POINTS, max(_ALL_POINTS // len(runs), 50))
    root = paths[0] if len(paths) == 1 else None
    told = [_run(run, root, points, whole=single) for run in runs]
    name = paths[0].resolve().name if len(paths) == 1 else f"{len(runs)} runs"
    page = _page(name, {"title": name, "single": single, "runs": told})
    files.write_bytes(out, page.encode())
    return out


def _page(title: str, data: dict[str, Any]) -> str:
    parts = {name: resources("gan_cli.views").joinpath("page", name).read_text("utf-8") for name in (
        "page.html", "page.css", "page.js")}  # fmt: skip
    shown = title.replace("&", "&amp;").replace("<", "&lt;")
    # No text can end the element that it stands in.
    content = json.dumps(files.jsonable(data), separators=(",", ":")).replace("<", "\\u003c")
    slots = {"TITLE": shown, "CSS": parts["page.css"], "JS": parts["page.js"], "DATA": content}
    return re.sub(r"\{\{(TITLE|CSS|JS|DATA)\}\}", lambda match: slots[match[1]], parts["page.html"])


def _run(run: Path, root: Path | None, points: int, whole: bool) -> dict[str, Any]:
    """What the page tells of a run; ``whole``, with all its pictures and what it was made with."""
    facts = directory.facts(run)
    records = _records(run / "metrics.jsonl")
    config = dict(_flat(facts["config"]))
    told: dict[str, Any] = {
        "name": run.name if root is None or run == root else str(run.relative_to(root)),
        "facts": {name: facts[name] for name in (*_FACTS, *_WATCHED) if facts.get(name) is not None},
        "final": _numbers(facts.get("final")),
        "objective": facts.get("objective"),
        "config": config,
        "curves": _curves(records, points),
        "pictures": _pictures(run / "samples", _PICTURES if whole else 1),
    }
    if whole:
        told |= {
            "differences": facts.get("differences"),
            "history": facts.get("history"),
            "made_with": {name: facts[name] for name in _MADE_WITH if facts.get(name) is not None},
            "real": _picture(run / "samples" / "real.png"),
            "neighbours": _picture(run / "samples" / "neighbours.png"),
            "evaluations": _json(run / "evaluations.json"),
        }
    return told


def _records(path: Path) -> list[dict[str, Any]]:
    """The logged steps; a line that is half-written is left out."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            found.append(record)
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _curves(records: list[dict[str, Any]], points: int) -> dict[str, list[list[float | None]]]:
    """Steps and values of each logged figure, with its highest and lowest values kept where there are many."""
    names = dict.fromkeys(name for record in records for name in record if name not in ("step", "time"))
    curves = {}
    for name in names:
        pairs = [(record["step"], _rounded(record[name])) for record in records if name in record]
        curves[name] = [list(column) for column in zip(*_thinned(pairs, points), strict=True)]
    return curves


def _thinned(pairs: list[tuple[int, float | None]], points: int) -> list[tuple[int, float | None]]:
    if len(pairs) <= points:
        return pairs
    size = math.ceil(2 * len(pairs) / points)
    kept = []
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        finite = [(value, step) for step, value in part if value is not None]
        ends = {(step, value) for value, step in (min(finite), max(finite))} if finite else {part[0]}
        kept += sorted(ends)
    return kept if kept[-1] == pairs[-1] else [*kept, pairs[-1]]


def _rounded(value: Any) -> float | None:
    """Six digits, as many as a picture shows; None of what is not a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(f"{value:.6g}") if number else None


def _numbers(final: Any) -> dict[str, float | None]:
    return {str(name): _rounded(value) for name, value in final.items()} if isinstance(final, dict) else {}


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Options by dotted key."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        elif key != "_partial_":
            found.append((f"{prefix}{key}", value))
    return found


def _pictures(folder: Path, most: int) -> list[dict[str, Any]]:
    """The pictures of a run over time, the last one among them; evenly fewer where there are many."""
    steps = sorted(int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal())
    if len(steps) > most:
        steps = [steps[-1 - round(i * (len(steps) - 1) / max(most - 1, 1))] for i in range(most)][::-1]
    found = [{"step": step, "src": _picture(folder / f"{step}.png")} for step in steps]
    return [one for one in found if one["src"]]


def _picture(path: Path) -> str | None:
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST else b""
    except OSError:
        return None
    return "data:image/png;base64," + base64.b64encode(content).decode() if content.startswith(_PNG) else None
