"""The report of ``python scripts/bench --gpu``: one JSON file, and one Markdown file with the same figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_SIDES = ("ours", "loader", "resident", "compiled", "graph")
_MISSING = "-"


class Report:
    """Collects the results, and writes both files after each of them.

    Args:
        path: the path of the JSON file. The Markdown file has the suffix ``.md``.
        facts: facts about the machine.
    """

    def __init__(self, path: Path, facts: dict[str, Any]):
        self._path = path
        self._content: dict[str, Any] = {
            "machine": facts,
            "devices": {},
            "cases": {},
            "parts": {},
            "not_measured": [],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def device(self, role: str, device: dict[str, Any]) -> None:
        """Note the device and the versions that a process has reported."""
        self._content["devices"].setdefault("jax" if role == "ours" else "torch", device)

    def case(self, name: str, row: dict[str, Any]) -> None:
        """Add the figures of a case."""
        self._content["cases"][name] = row
        self._write()

    def row(self, part: str, row: dict[str, Any], key: str = "") -> None:
        """Add a row to a part, or replace the row with the same ``key``."""
        rows = self._content["parts"].setdefault(part, {"rows": {}})["rows"]
        rows[key or str(len(rows))] = row
        self._write()

    def note(self, part: str, **facts: Any) -> None:
        """Add facts about a part."""
        self._content["parts"].setdefault(part, {"rows": {}}).update(facts)
        self._write()

    def fail(self, name: str, reason: str, side: str = "") -> None:
        """Note that a case, a part, or one side of it has failed."""
        self._missing(name, side, "failed", reason)

    def skip(self, name: str, reason: str) -> None:
        """Note that a case or a part was not started."""
        self._missing(name, "", "skipped", reason)

    def _missing(self, name: str, side: str, what: str, reason: str) -> None:
        line = " ".join(reason.split())
        print(f"{name}{f' {side}' if side else ''}: {what}: {line}", flush=True)
        self._content["not_measured"].append({"name": name, "side": side, "what": what, "reason": line})
        self._write()

    def _write(self) -> None:
        for path, text in (
            (self._path, json.dumps(self._content, indent=2) + "\n"),
            (self._path.with_suffix(".md"), self.markdown()),
        ):
            part = path.with_name(f"{path.name}.part")
            part.write_text(text)
            part.replace(path)

    def markdown(self) -> str:
        """The report as Markdown."""
        content = self._content
        lines = [f"- {name}: {', '.join(f'{k} {v}' for k, v in facts.items())}"
                 for name, facts in (("machine", content["machine"]), *content["devices"].items())]  # fmt: skip
        lines += [
            "",
            "Steps per second. Behind a speed of PyTorch: how many times as fast ours is at the same precision.",
            "",
        ]
        header = ["case", "precision", *_SIDES, "peak MiB (ours, resident)"]
        rows = [self._row(name, row, precision) for name, row in content["cases"].items()
                for precision in ("float32", "bfloat16")]  # fmt: skip
        lines += _table(header, rows)
        for part, found in content["parts"].items():
            if found["rows"]:
                header = list(dict.fromkeys(key for row in found["rows"].values() for key in row))
                cells = [[str(row.get(key, _MISSING)) for key in header] for row in found["rows"].values()]
                lines += ["", f"{part}:", "", *_table(header, cells)]
        if content["not_measured"]:
            lines += ["", "Not measured:", ""]
            lines += [f"- {one['name']} {one['side']}: {one['what']}: {one['reason']}".replace(" :", ":")
                      for one in content["not_measured"]]  # fmt: skip
        return "\n".join(lines) + "\n"

    @staticmethod
    def _row(name: str, row: dict[str, Any], precision: str) -> list[str]:
        def cell(side: str) -> str:
            key = f"{side}_{precision}"
            if key not in row["steps_per_second"]:
                return _MISSING
            ratio = f" ({row['ratio'][key]:.2f}x)" if key in row["ratio"] else ""
            return f"{row['steps_per_second'][key]:.4g}{ratio}"

        peaks = [row["peak_mebibytes"].get(f"{side}_{precision}") for side in ("ours", "resident")]
        return [name, precision, *map(cell, _SIDES),
                ", ".join(_MISSING if peak is None else f"{peak:.0f}" for peak in peaks)]  # fmt: skip


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, [" --- "] * len(header), *rows]
    return [f"| {' | '.join(cell.strip() for cell in line)} |" for line in lines]
