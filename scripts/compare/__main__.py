"""Whether two commits compile the same programs: equal text is equal numerics and equal speed.

    python scripts/compare OLD [NEW]                  # NEW without: the checkout as it stands

Each side is a worktree of its own, in which ``lower.py`` lowers some thirty configurations and samples the run
directories of ``tests/earlier_runs``. StableHLO texts are compared with their symbols renamed in order of
appearance. Where the texts of a configuration differ, both sides train it for 20 steps and their arrays are
compared: equal, or within 1e-6 of the largest value of each array. Ends with status 1 where neither holds.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
STEPS, TOLERANCE = 20, 1e-6


def worktree(commit: str | None, place: Path) -> Path:
    """A checkout of the commit, importable; without a commit, this checkout."""
    if commit is not None:
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", "--quiet", place, commit], check=True)
        (place / "gan_cli" / "configs").symlink_to("../configs")
        return place
    return ROOT


def run(tree: Path, out: Path, *arguments: str) -> None:
    """``lower.py`` in a tree: its own, or, of a commit that has none, ours."""
    own = tree / "scripts" / "compare" / "lower.py"
    script = own if own.exists() else ROOT / "scripts" / "compare" / "lower.py"
    out.mkdir(exist_ok=True)
    command = [sys.executable, str(script), str(out), str(ROOT / "tests" / "earlier_runs"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_COMPILATION_CACHE_DIR": str(out / "xla")}
    done = subprocess.run(command, cwd=out, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{tree}: lower.py failed:\n{done.stderr[-2000:]}")


def difference(old: Path, new: Path) -> float:
    """The largest difference of two files of arrays, each array's relative to its largest value."""
    a, b = np.load(old), np.load(new)
    if [x.shape for x in a.values()] != [x.shape for x in b.values()]:
        return float("inf")
    pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a.values(), b.values(), strict=True)]
    return max(float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-12)) for x, y in pairs)


def compare(trees: Sequence[Path], place: Path) -> int:
    """Print a line for each configuration and fixture that is not equal; the exit status."""
    outs = [place / side for side in ("old", "new")]
    for tree, out in zip(trees, outs, strict=True):
        print(f"lowering {tree}", flush=True)
        run(tree, out)
    old, new = (json.loads((out / "programs.json").read_text()) for out in outs)
    names = [name for name in old["programs"] if old["programs"][name] != new["programs"].get(name)]
    status = 0
    for name in names:
        if name not in new["programs"]:
            print(f"{name}: missing")
            status = 1
            continue
        for tree, out in zip(trees, outs, strict=True):
            run(tree, out, "--steps", str(STEPS), name)
        found = difference(*(out / f"{name}.npz" for out in outs))
        verdict = "arrays equal" if found == 0 else f"arrays differ by {found:.1e}"
        print(f"{name}: texts differ; after {STEPS} steps {verdict}\n{excerpt(old, new, name)}")
        status |= found > TOLERANCE
    drawn = {name for name in old["samples"] if old["samples"][name] != new["samples"].get(name)}
    for name in sorted(drawn):
        print(f"{name}: gan-sample writes other bytes")
        status = 1
    equal = len(old["programs"]) - len(names)
    fixtures = len(old["samples"]) - len(drawn)
    print(f"{equal} of {len(old['programs'])} configurations: texts equal; {fixtures} of {len(old['samples'])} "
          f"fixtures: samples equal (Python {sys.version.split()[0]})")  # fmt: skip
    return int(status)


def excerpt(old: dict[str, Any], new: dict[str, Any], name: str, lines: int = 12) -> str:
    """The first lines that differ."""
    for part, text in old["programs"][name].items():
        other = new["programs"][name][part]
        if text != other:
            changed = difflib.unified_diff(text.splitlines(), other.splitlines(), "old", "new", lineterm="", n=0)
            return "\n".join(f"    {line[:150]}" for line, _ in zip(changed, range(lines), strict=False))
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW", nargs="?")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            trees = [worktree(options.old, place / "old_tree"), worktree(options.new, place / "new_tree")]
            status = compare(trees, place)
        finally:
            for tree in place.glob("*_tree"):
                subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
