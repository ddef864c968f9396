"""Writes an HTML page about a run, or about a comparison of several runs. The page needs no other files.

The contents of a run's directory are not trusted. The page contains them only as PNG images and as JSON, which the
page's script displays as text. The folder ``report/`` contains the page's template, style and scripts.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import shlex
import string
import struct
import time
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from gan_cli.config.stored import config_of
from gan_cli.errors import UserError
from gan_cli.storage import files, metrics_log, run_directory
from gan_cli.storage.dotted import leaves
from gan_cli.views import model_card, tables

_POINTS, _POINTS_EACH = 3000, 300  # the largest number of points of a curve, for a single run and in a comparison
_PICTURES = 100  # the largest number of pictures, and of text files, of a single run
_CHARACTERS = 1 << 14  # of a text file, a report contains at most this many characters
_LARGEST, _ALL = 16 << 20, 64 << 20  # the most bytes of one picture, and of all pictures of a report
_PIXELS = 1 << 26  # the largest number of pixels of a picture, because a small file can fill a browser's memory
_GIF = b"GIF89a"
_PNG = b"\x89PNG\r\n\x1a\n"
_ROWS, _LABEL = 64, 40  # the most rows of a picture that have labels, and the most characters of a label
_TEXTS = 1 << 14  # the number of bytes at the start of a picture that contain its metadata
_CHARTED = ("Series", "Table", "Video")  # the kinds of features whose pictures need the whole width
# For each ending of the name of a logged metric, the title of its chart. The order is the order of the charts.
_TOGETHER = {
    "loss": "Losses",
    "_logits": "Logits",
    "_accuracy": "Accuracies",
    "grad_norm": "Gradient norms",
    "update_ratio": "Update ratios",
}


def write(directory: Path, out: Path | None = None) -> Path:
    """Write the report of the runs in one directory, and return the path of the report.

    Args:
        directory: the directory of a run, a sweep or an ensemble.
        out: the path of the report. With None, the report is ``report.html`` in ``directory``.

    Raises:
        UserError: ``directory`` contains no run.
    """
    return compare([directory], out or directory / "report.html")


def compare(directories: Sequence[Path], out: Path) -> Path:
    """Write one report of all runs in several directories to ``out``, and return ``out``.

    Args:
        directories: directories of runs, sweeps and ensembles.
        out: the path of the report.

    Raises:
        UserError: one of the directories contains no run.
    """
    several = len(directories) > 1
    found = {name: path for directory in directories for name, path in _runs(directory, several).items()}
    alone = len(found) == 1
    runs = [_run(name, path) if alone else _one_of(name, path, len(found)) for name, path in found.items()]
    curves = [_curves(path, _POINTS if alone else _POINTS_EACH) for path in found.values()]
    names = sorted({name for of_run in curves for name in of_run}, key=lambda name: (_place(name)[:2], name))
    report = {
        "name": ", ".join(map(str, directories)),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "alone": alone,
        "runs": runs,
        "curves": [dict(zip(("name", "chart", "label"), (name, *_place(name)[1:]), strict=True)) for name in names],
        "varied": [] if alone else _varied(runs),
    }
    # Each metric has a separate block, so that the browser parses only the curves that it displays.
    blocks = {"report": report} | {
        f"curve-{i}": [of_run.get(name) for of_run in curves] for i, name in enumerate(names)
    }
    page = string.Template(_part("template.html")).substitute(
        css=_part("report.css"),
        js="\n".join(map(_part, ("elements.js", "plot.js", "report.js"))),
        data="\n".join(map(_block, blocks, blocks.values())),
    )
    files.write(out, lambda file: file.write(page.encode()))
    return out


def _part(name: str) -> str:
    return resources.files("gan_cli.views").joinpath("report", name).read_text(encoding="utf-8")


def _block(name: str, value: Any) -> str:
    """An HTML script element with ``value`` as JSON. ``<`` is escaped, so that no text ends the element."""
    text = json.dumps(files.jsonable(value), separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _runs(directory: Path, several: bool) -> dict[str, Path]:
    """A mapping from the name of each run in a directory to the path of the run.

    Args:
        directory: the directory of a run, a sweep or an ensemble.
        several: whether the report is about several directories. If so, the name of a run is its whole path.
            Otherwise, the name is the path relative to ``directory``.
    """
    paths = run_directory.runs(directory)
    if several or paths == [directory]:
        return {str(path): path for path in paths}
    inside = {path.relative_to(directory).as_posix(): path for path in paths}
    return {name.removeprefix("members/"): path for name, path in inside.items()}


def _run(name: str, path: Path) -> dict[str, Any]:
    """A run as a dictionary for JSON, for a page about a single run."""
    facts = run_directory.facts(path)
    tasks = _tasks(path / "samples")
    share = _ALL // (1 + len(tasks))
    return {
        **_summary(name, path, facts),
        "temperatures": _temperatures(path, facts),
        "config": _options(facts),
        "differences": _differences(facts.get("differences")),
        "notes": _notes(path, facts),
        "error": facts.get("traceback") or facts.get("error"),
        "evaluation": facts.get("evaluation"),
        "evaluations": run_directory.evaluations(path),
        "card": model_card.rows(facts, run_directory.evaluations(path)),
        "environment": _environment(facts),
        "history": [_earlier(start) for start in _list(facts.get("history")) if isinstance(start, dict)],
        **_filmstrip(path / "samples", share),
        "texts": _texts(path / "samples"),
        "tasks": [{"name": name, **_filmstrip(path / "samples" / name, share)} for name in tasks],
        "columns": _columns(path / "samples" / tables.SUMMARY),
        "charts": any(isinstance(one, dict) and one.get("kind") in _CHARTED for one in _features(facts)),
        "real": _picture(path / "samples" / "real.png"),
        "neighbours": _picture(path / "samples" / "neighbours.png"),
        "animations": _animations(path / "samples"),
    }


def _features(facts: dict[str, Any]) -> list[Any]:
    """The features of an example of a run, as ``run.json`` describes them."""
    spec = facts.get("spec")
    return list(spec.values()) if isinstance(spec, dict) else []


def _one_of(name: str, path: Path, count: int) -> dict[str, Any]:
    """A run as a dictionary for JSON, for a page that compares several runs.

    If the ``run.json`` of the run cannot be read, the run has the status ``unreadable`` and no options.

    Args:
        name: the name of the run on the page.
        path: the directory of the run.
        count: the number of runs on the page. Their pictures share the bytes that are allowed for all pictures.
    """
    try:
        facts = run_directory.facts(path)
    except UserError:
        facts = {"status": "unreadable", "config": {}}
    drawn = [path / "samples", *(path / "samples" / name for name in _tasks(path / "samples"))]
    pictures = next(filter(None, map(_pictures, drawn)), [])
    small = pictures and pictures[-1][2] <= max(_ALL // count, 1 << 20)
    return {
        **_summary(name, path, facts),
        "temperatures": _temperatures(path, facts),
        "config": _options(facts),
        "picture": _picture(pictures[-1][1]) if small else None,
        "drawn_at": pictures[-1][0] if pictures else None,
    }


def _summary(name: str, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    train = facts["config"].get("train")
    final = facts.get("final")
    figures = {key: _number(value) for key, value in final.items()} if isinstance(final, dict) else {}
    objective = facts.get("objective")
    return {
        "name": name,
        "status": run_directory.status(path, facts),
        "step": _number(facts.get("step")),
        "steps": _number(train.get("steps")) if isinstance(train, dict) else None,
        "seconds": _seconds(path, facts),
        "started": facts.get("started"),
        "figures": sorted(figures.items(), key=lambda figure: _place(figure[0])),
        "objective": objective if isinstance(objective, dict) else None,
    }


def _seconds(path: Path, facts: dict[str, Any]) -> float | None:
    """The duration of the run in seconds, summed over its processes; None if it is not known.

    A process that is still training counts from its start to its last record in the metrics log.
    """
    before = [_number(start.get("seconds")) for start in _list(facts.get("history")) if isinstance(start, dict)]
    last = _number(facts.get("seconds"))
    if facts.get("status") == "running":
        logged = max((_number(record.get("time")) or 0.0 for record in metrics_log.read(path)), default=0.0)
        with contextlib.suppress(ValueError):
            last = max(last or 0.0, logged - datetime.fromisoformat(str(facts.get("started"))).timestamp())
    return None if last is None else last + sum(filter(None, before))


def _notes(path: Path, facts: dict[str, Any]) -> list[str]:
    """Sentences about events of the run, e.g. its divergence. The report displays them above the metrics."""
    notes = []
    if "diverged_at" in facts:
        part = facts.get("diverged_in")
        what = f"the {facts.get('diverged_player')}'s {part} {'are' if part == 'parameters' else 'is'}"
        notes.append(f"Diverged at step {facts['diverged_at']}: {what} not finite.")
    if "collapse_suspected_at" in facts:
        since = facts["collapse_suspected_at"]
        notes.append(f"Mode collapse suspected since step {since}: the diversity of the samples is low.")
    if "posterior_collapse_suspected_at" in facts:
        since = facts["posterior_collapse_suspected_at"]
        notes.append(f"Posterior collapse suspected since step {since}: the KL term of the loss is near 0.")
    if "stopped_early_at" in facts:
        notes.append(f"Stopped early at step {facts['stopped_early_at']}: the objective no longer improved.")
    if "verdict" in facts:
        pairs = [pair for pair in _list(facts.get("eigenvalues")) if isinstance(pair, list) and len(pair) == 2]
        values = ", ".join(f"{_number(real) or 0:.3g}{_number(imaginary) or 0:+.3g}i" for real, imaginary in pairs)
        notes.append(f"The game at the end is {facts['verdict']}; eigenvalues of its Jacobian: {values}.")
    status = run_directory.status(path, facts)
    if status == "killed":
        notes.append("The process of the run was killed. The run can be resumed from its newest checkpoint.")
    elif status == "running":
        notes.append("When this report was written, the run was still running.")
    elif facts.get("status") == "running":
        notes.append(
            f"When this report was written on another machine, the run was {status}, or had been killed there."
        )
    return notes


def _earlier(start: dict[str, Any]) -> dict[str, Any]:
    """An earlier start of a run. Versions that did not detect killed processes recorded them as running."""
    return start | {"status": "killed"} if start.get("status") == "running" else start


def _environment(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    """A list of pairs (name, value) for the report's table about the program, the machine and the speed."""
    command, git, versions, init = (facts.get(name) for name in ("command", "git", "versions", "init"))
    commit = None
    if isinstance(git, dict):
        commit = f"{git.get('commit')}{'' if git.get('clean') else ', with uncommitted changes'}"
    rows = {
        "Command": shlex.join(map(str, command)) if isinstance(command, list) else command,
        "Seed": facts.get("seed"),
        "Devices": ", ".join(map(str, _list(facts.get("devices")))),
        **_data(facts.get("data")),
        "Host": facts.get("host"),
        "Commit": commit,
        "Python": facts.get("python"),
        **(versions if isinstance(versions, dict) else {}),
        "Seconds to the first call": facts.get("seconds_to_first_call"),
        "Steps per second": facts.get("steps_per_second"),
        "Initial parameters": init.get("checkpoint") if isinstance(init, dict) else None,
        "Newest checkpoint": facts.get("checkpoint"),
    }
    return [(name, value) for name, value in rows.items() if value not in (None, "")]


def _data(described: Any) -> dict[str, Any]:
    """Rows about the data, from the entry ``data`` of ``run.json``."""
    if not isinstance(described, dict):
        return {}
    names, counts = _list(described.get("classes")), _list(described.get("examples_per_class"))
    counts = counts if len(counts) == len(names) else [None] * len(names)
    each = [
        f"{i} {name}" + ("" if count is None else f" ({count})")
        for i, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    left_out = described.get("left_out")
    kinds = left_out.items() if isinstance(left_out, dict) else ()
    return {
        "Data": described.get("name"),
        "Files": "; ".join(map(str, _list(described.get("notes")))),
        "Classes": ", ".join(each),
        "Left out": ", ".join(f"{count} {kind}" for kind, count in kinds),
    }


def _differences(stored: Any) -> list[tuple[str, Any, Any]] | None:
    """A list with a tuple (key, default, value) for each option that differs from the default.

    Args:
        stored: the entry ``differences`` of ``run.json``. If the entry is missing, the function returns None.
    """
    if not isinstance(stored, list):
        return None
    rows = [(str(one.get("key")), one.get("default"), one.get("value")) for one in stored if isinstance(one, dict)]
    return [row for row in rows if row[0] != "name" and not row[0].endswith("_partial_")]


def _options(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    """A list with a pair (dotted key, value) for each option of a run. Groups without a choice are left out."""
    found = leaves(config_of(facts))
    return [(key, value) for key, value in found if value != {} and not key.endswith("_partial_")]


def _varied(runs: list[dict[str, Any]]) -> list[str]:
    """The dotted keys of the options whose values differ between the runs.

    The function also removes all other options from the entry ``config`` of each run in ``runs``.
    """
    configs = [dict(run["config"]) for run in runs]
    read = [config for config in configs if config]
    keys = dict.fromkeys(key for config in read for key in config if key not in ("name", "resume"))
    varied = [key for key in keys if len({json.dumps(config.get(key)) for config in read}) > 1]
    for run, config in zip(runs, configs, strict=True):
        run["config"] = [(key, config.get(key)) for key in varied]
    return varied


def _curves(run: Path, most: int) -> dict[str, dict[str, Any]]:
    """A mapping from the name of each logged metric of a run to its curve, a dictionary for JSON.

    The entry ``y`` of a curve is the list of its values, with None for each value that is not finite. If the steps
    are evenly spaced, the entry ``from`` is the first step, and ``by`` is the difference between successive steps.
    Otherwise, the entry ``x`` is the list of the steps.

    Args:
        run: the directory of the run.
        most: the largest number of points of a curve.
    """
    found: dict[str, list[tuple[float, float | None]]] = {}
    for record in sorted(metrics_log.read(run), key=lambda record: record["step"]):
        for name, value in record.items():
            if name not in ("step", "time") and (value is None or isinstance(value, int | float)):
                found.setdefault(name, []).append((record["step"], _number(value)))
    return {name: _packed(thin(points, most)) for name, points in found.items()}


def _packed(points: list[tuple[float, float | None]]) -> dict[str, Any]:
    steps = [step for step, _ in points]
    start, by = steps[0], steps[-1] - steps[-2] if len(steps) > 1 else 1
    even = steps == [start + i * by for i in range(len(steps))]
    values = [None if y is None else float(f"{y:.6g}") for _, y in points]
    return ({"from": start, "by": by} if even else {"x": steps}) | {"y": values}


def thin(points: list[tuple[float, float | None]], most: int) -> list[tuple[float, float | None]]:
    """Reduce a list of points ``(step, value)`` to at most ``most`` points.

    The function keeps the first and the last point, and divides the list into intervals with equal numbers of
    points. In each interval, it keeps the points with the smallest and the largest value. If an interval contains
    values of None, the function also keeps the first of these points.
    """
    if len(points) <= most:
        return points
    stretches = (most - 2) // 3
    kept = {0, len(points) - 1}
    for i in range(stretches):
        stretch = range(len(points) * i // stretches, len(points) * (i + 1) // stretches)
        finite = [(value, j) for j in stretch if (value := points[j][1]) is not None]
        kept |= {min(finite)[1], max(finite)[1]} if finite else set()
        kept |= set([j for j in stretch if points[j][1] is None][:1])
    return [points[j] for j in sorted(kept)]


def _place(name: str) -> tuple[int, str, str]:
    """A tuple: the rank and the title of the chart for a logged metric, and the label of the metric's curve."""
    if name.startswith("eval/"):
        label = name.removeprefix("eval/")
        return 0, label.partition("_at_")[0], label  # one chart for all temperatures
    if name in ("modes", "modes_total"):
        return 1, "modes", name
    if name in ("x", "y"):
        return 2, "Players", name
    for rank, (ending, title) in enumerate(_TOGETHER.items(), start=3):
        if name.endswith(ending) and "/" in name:
            return rank, title, name.removesuffix(ending).rstrip("/").removeprefix("discriminator/") or name
    if name == "steps_per_second":
        return 99, "Steps per second", name
    player, _, what = name.rpartition("/")
    return (50, what, player) if player else (1, name, name)


def _pictures(folder: Path) -> list[tuple[int, Path, int]]:
    """A list with a tuple (step, path, bytes) for each picture of samples in a folder, sorted by step."""
    found = []
    for path in folder.glob("*.png"):
        with contextlib.suppress(OSError):
            if (step := files.number(path.stem)) is not None and path.is_file():
                found.append((step, path, path.stat().st_size))
    return sorted(found)


def _tasks(samples: Path) -> list[str]:
    """The names of the tasks with pictures, which are folders in ``samples/``; at most ten."""
    with contextlib.suppress(OSError):
        folders = [path for path in sorted(samples.iterdir()) if path.is_dir() and not path.is_symlink()]
        return [path.name for path in folders if path.name != "seen" and _pictures(path)][:10]
    return []


def _filmstrip(folder: Path, most: int) -> dict[str, Any]:
    """Pictures of a folder by step, and the number of all its pictures, as a dictionary for JSON.

    Args:
        folder: the folder of the pictures.
        most: the most bytes of all pictures.
    """
    steps = _pictures(folder)
    largest = max((size for _, _, size in steps), default=1)
    chosen = _evenly(steps, min(_PICTURES, max(1, most // max(largest, 1))))
    pictures = [(step, path, _picture(path)) for step, path, _ in chosen]
    included = [(step, path, picture) for step, path, picture in pictures if picture]
    return {
        "pictures": [{"step": step, **picture} for step, _, picture in included],
        "drawn": len(steps),
        "rows": _rows(included[-1][1]) if included else [],
    }


def _temperatures(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Quality and diversity of samples over temperatures, from the newest evaluation, or from the end of training.

    The entry ``quality`` names the value of the vertical axis, and ``points`` has the share of distinct 2-grams and
    the quality at each temperature. None without such an evaluation.
    """
    evaluations = [one.get("metrics") for one in run_directory.evaluations(path) if isinstance(one, dict)]
    final = facts.get("final")
    at_end = {name.removeprefix("eval/"): x for name, x in final.items()} if isinstance(final, dict) else None
    for values in (*reversed(evaluations), at_end):
        if not isinstance(values, dict):
            continue
        for quality in ("oracle_nll", "bleu_4"):
            at = [name.removeprefix(f"{quality}_at_") for name in values if name.startswith(f"{quality}_at_")]
            pairs = [(_number(values.get(f"distinct_2_at_{t}")), _number(values[f"{quality}_at_{t}"])) for t in at]
            if points := sorted(pair for pair in pairs if None not in pair):
                return {"quality": quality, "points": points}
    return None


def _texts(folder: Path) -> list[dict[str, Any]]:
    """The texts of samples by step, for data that consist of texts."""
    steps = sorted((step, path) for path in folder.glob("*.txt") if (step := files.number(path.stem)) is not None)
    found = []
    for step, path in _evenly(steps, _PICTURES):
        with contextlib.suppress(OSError):
            if not (path.is_symlink() or folder.is_symlink()) and path.is_file():
                with path.open(encoding="utf-8", errors="replace") as file:
                    found.append({"step": step, "text": file.read(_CHARACTERS)})
    return found


def _rows(path: Path) -> list[str]:
    """The labels of the rows of a picture, from top to bottom, or an empty list if the picture has none.

    The program that draws the picture stores them as the entry ``Rows`` of the metadata, a list in JSON.
    """
    labels: Any = None
    with contextlib.suppress(OSError, ValueError, struct.error), path.open("rb") as file:
        start = file.read(_TEXTS)
        at = len(_PNG)
        while (kind := start[at + 4 : at + 8]) not in (b"IDAT", b""):
            (length,) = struct.unpack(">I", start[at : at + 4])
            content = start[at + 8 : at + 8 + length]
            if kind == b"tEXt" and content.startswith(b"Rows\0"):
                labels = json.loads(content.removeprefix(b"Rows\0"))
            at += length + 12
    labels = [label for label in _list(labels) if isinstance(label, str) and len(label) <= _LABEL]
    return labels if len(labels) <= _ROWS else []


def _columns(path: Path) -> dict[str, Any] | None:
    """The distributions and associations of the columns of a table, or None if the file is missing or damaged."""
    found: Any = None
    with contextlib.suppress(OSError, ValueError):
        if not path.is_symlink() and path.stat().st_size <= _LARGEST:
            found = files.read_json(path)
    return found if tables.is_summary(found) else None


def _evenly(items: list[Any], most: int) -> list[Any]:
    """A list of at most ``most`` evenly spaced items of ``items``. It always includes the last of ``items``."""
    n = min(len(items), most)
    return [items[(i + 1) * len(items) // n - 1] for i in range(n)]


def _picture(path: Path) -> dict[str, Any] | None:
    """A PNG or GIF image as a dictionary for JSON, with the data URI and the width and height in pixels.

    The result is None if the file is missing, is no such image, is too large, or is reached by a symbolic link.
    """
    try:
        linked = path.is_symlink() or path.parent.is_symlink()  # a link may point outside the run's directory
        if linked or not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    kind = path.suffix.removeprefix(".")
    if not data.startswith(_GIF if kind == "gif" else _PNG) or len(data) < 24:
        return None
    width, height = struct.unpack("<HH", data[6:10]) if kind == "gif" else struct.unpack(">II", data[16:24])
    if not 0 < width * height <= _PIXELS:
        return None
    return {
        "src": f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        "width": width,
        "height": height,
    }


def _animations(samples: Path) -> list[dict[str, Any]]:
    """The animations of the real examples and of the newest samples, as dictionaries for JSON with their titles."""
    steps = sorted(step for path in samples.glob("*.gif") if (step := files.number(path.stem)) is not None)
    named = {"real": "real data"} | {str(step): f"samples at step {step}" for step in steps[-1:]}
    found = [(title, _picture(samples / f"{name}.gif")) for name, title in named.items()]
    return [{"title": title, **picture} for title, picture in found if picture]


def _number(value: Any) -> float | None:
    """``value`` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e308 and math.isfinite(value) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
