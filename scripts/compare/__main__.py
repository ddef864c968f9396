"""Check whether two commits compile equal programs. Equal programs have equal results and equal speed.

    python scripts/compare OLD [NEW]                  # without NEW: the current checkout
    python scripts/compare OLD [NEW] --speed          # the speed of about seventy configurations
    python scripts/compare OLD [NEW] --speed wgan     # the speed of those whose options contain wgan

The script checks out each commit into a worktree. For each worktree, ``lower.py`` lowers about thirty
configurations to StableHLO, and draws samples from the runs in ``tests/earlier_runs``. The symbols in the StableHLO
texts are renamed in the order of their appearance, and the texts of the two commits are compared. If the texts of a
configuration differ, the script trains the configuration for 20 steps with each commit, and compares the arrays of
the training states.

The exit status is 1 if arrays differ by more than 1e-6 of the largest value of the array, if samples differ, or if
a configuration is missing in the new commit. Otherwise, the exit status is 0.

With ``--speed``, the script instead measures the steps of both commits, in turn (``speed.py``).
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
import speed

ROOT = Path(__file__).resolve().parents[2]
STEPS, TOLERANCE = 20, 1e-6


def worktree(commit: str | None, place: Path) -> Path:
    """Check out ``commit`` at ``place``, and return the path. For None, return the current checkout instead."""
    if commit is not None:
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", "--quiet", place, commit], check=True)
        (place / "gan_cli" / "configs").symlink_to("../configs")
        return place
    return ROOT


def run(tree: Path, out: Path, *arguments: str) -> None:
    """Run ``lower.py`` of the current checkout with the package in ``tree``."""
    script = Path(__file__).with_name("lower.py")
    out.mkdir(exist_ok=True)
    command = [sys.executable, str(script), str(out), str(ROOT / "tests" / "earlier_runs"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_COMPILATION_CACHE_DIR": str(out / "xla")}
    done = subprocess.run(command, cwd=out, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{tree}: lower.py failed:\n{done.stderr[-2000:]}")


def difference(old: Path, new: Path) -> float:
    """The largest relative difference between the arrays in two files, or infinity if shapes differ.

    Differences are relative to the largest absolute value in the array.
    """
    a, b = np.load(old), np.load(new)
    if [x.shape for x in a.values()] != [x.shape for x in b.values()]:
        return float("inf")
    pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a.values(), b.values(), strict=True)]
    return max(float(np.abs(x - y).max(initial=0) / max(np.abs(x).max(initial=0), 1e-12)) for x, y in pairs)


def compare(trees: Sequence[Path], place: Path) -> int:
    """Compare two commits, print each configuration and each fixture that differs, and return the exit status.

    Args:
        trees: the checkouts of the old and of the new commit.
        place: the folder for the results.
    """
    outs = [place / side for side in ("old", "new")]
    for tree, out in zip(trees, outs, strict=True):
        print(f"lowering {tree}", flush=True)
        run(tree, out)
    old, new = (json.loads((out / "programs.json").read_text()) for out in outs)
    names = [name for name in old["programs"] if old["programs"][name] != new["programs"].get(name)]
    status = 0
    for name in names:
        if name not in new["programs"]:
            print(f"{name}: missing in the new commit")
            status = 1
            continue
        for tree, out in zip(trees, outs, strict=True):
            run(tree, out, "--steps", str(STEPS), name)
        found = difference(*(out / f"{name}.npz" for out in outs))
        verdict = "the arrays are equal" if found == 0 else f"the arrays differ by {found:.1e}"
        print(f"{name}: the texts differ; after {STEPS} steps, {verdict}\n{excerpt(old, new, name)}")
        status |= found > TOLERANCE
    drawn = {name for name in old["samples"] if old["samples"][name] != new["samples"].get(name)}
    for name in sorted(drawn):
        print(f"{name}: the samples of gan-sample differ")
        status = 1
    equal = len(old["programs"]) - len(names)
    fixtures = len(old["samples"]) - len(drawn)
    print(f"{equal} of {len(old['programs'])} configurations have equal texts; {fixtures} of {len(old['samples'])} "
          f"fixtures have equal samples (Python {sys.version.split()[0]})")  # fmt: skip
    return int(status)


def excerpt(old: dict[str, Any], new: dict[str, Any], name: str, lines: int = 12) -> str:
    """The first lines in which the StableHLO texts of a configuration differ, as a unified diff."""
    for part, text in old["programs"][name].items():
        other = new["programs"][name][part]
        if text != other:
            changed = difflib.unified_diff(text.splitlines(), other.splitlines(), "old", "new", lineterm="", n=0)
            return "\n".join(f"    {line[:150]}" for line, _ in zip(changed, range(lines), strict=False))
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", metavar="OLD", help="the first commit")
    parser.add_argument("new", metavar="NEW", nargs="?", help="the second commit (default: the current checkout)")
    parser.add_argument(
        "--speed", metavar="TEXT", nargs="?", const="",
        help="measure the speed of the configurations whose options contain TEXT (default: of all)",
    )  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            trees = [worktree(options.old, place / "old_tree"), worktree(options.new, place / "new_tree")]
            if options.speed is None:
                status = compare(trees, place)
            else:
                speed.measure(trees, place, options.speed)
                status = 0
        finally:
            for tree in place.glob("*_tree"):
                subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
