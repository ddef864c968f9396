"""The benchmark of a GPU, dry on a CPU, processes that fail, and the speed of two versions in turn."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "scripts" / "bench"
sys.path += [str(BENCH), str(BENCH.parent / "compare")]
import children
import gpu
import gpu_report
import speed


@pytest.mark.parametrize(
    ("program", "seconds", "reason"),
    [
        ("import sys; sys.exit('no such device')", 60, "no such device"),
        ("raise ValueError('a\\nb')", 60, "b"),
        ("import os; os.kill(os.getpid(), 9)", 60, "the process ended with status -9"),
        ("import time; time.sleep(60)", 0.2, "no answer within 0 s"),
    ],
)
def test_a_process_that_fails_is_told_in_one_line(program, seconds, reason, tmp_path):
    process = children.Process(["-c", program], dict(os.environ), tmp_path / "log")
    with pytest.raises(children.Failed) as error:
        process.answer(seconds)
    assert str(error.value) == reason


def test_a_spent_budget_skips_all_parts(tmp_path):
    gpu.main(gpu.Plan(["mlp-64"], 1, 0.0, True, ["ensembles"], 60.0), tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())["not_measured"]
    assert [(one["name"], one["what"]) for one in found] == [("mlp-64", "skipped"), ("ensembles", "skipped")]


def test_the_report_has_the_figures_of_each_precision(tmp_path):
    report = gpu_report.Report(tmp_path / "bench.json", {})
    rates = {"ours_float32": 200.0, "resident_float32": 100.0, "ours_bfloat16": 300.0}
    report.case(
        "mlp-64",
        {"steps_per_second": rates, "ratio": {"resident_float32": 2.0}, "peak_mebibytes": {"ours_float32": 12.4}},
    )
    report.fail("mlp-64", "no\n device", side="graph_float32")
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert "| mlp-64 | float32 | 200 | - | 100 (2.00x) | - | - | 12, - |" in lines
    assert "| mlp-64 | bfloat16 | 300 | - | - | - | - | -, - |" in lines
    assert "- mlp-64 graph_float32: failed: no device" in lines


def test_two_versions_are_measured_in_turn(monkeypatch, tmp_path, capsys):
    """Both sides are this version, and one configuration does not exist."""
    monkeypatch.setattr(speed, "CONFIGURATIONS", [(4, "experiment=bilinear"), (4, "optim=adamm"), (4, "left=out")])
    speed.measure([Path(__file__).parents[1]] * 2, tmp_path, "i")
    title, row, failed = capsys.readouterr().out.splitlines()
    assert title.endswith("options") and row.endswith("  experiment=bilinear") and float(row.split()[0]) > 0
    assert failed.startswith("failed (old: ") and "optim=adamm" in failed


@pytest.mark.slow
def test_dry_run(tmp_path):
    """Two cases on a CPU. Without PyTorch, and where it cannot run, its sides are in the report with the reason."""
    command = [sys.executable, str(BENCH), "--gpu", "--dry-run", "--limit", "900", "--budget", "3000", "--parts"]
    subprocess.run(
        [*command, "--json", tmp_path / "b.json", "--cases", "mlp-64", "mlp-64-r1"], check=True, cwd=tmp_path
    )
    found = json.loads((tmp_path / "b.json").read_text())
    failed = {(one["name"], one["side"]): one["reason"] for one in found["not_measured"]}
    has_torch = importlib.util.find_spec("torch") is not None
    for case in ("mlp-64", "mlp-64-r1"):
        sides = {"ours_float32", "ours_bfloat16"}
        if has_torch:
            sides |= {"loader_float32", "resident_float32", "resident_bfloat16"}
            assert failed[case, "graph"] == "a CUDA graph needs a GPU"
        assert sides <= found["cases"][case]["steps_per_second"].keys()
    if has_torch:
        assert failed["mlp-64-r1", "compiled"] == "torch.compile does not support second derivatives"


@pytest.mark.comparison
def test_a_case_is_checked_and_measured(tmp_path):
    """The losses of both sides agree, and the tables have a row with their speeds and the floor of the step."""
    pytest.importorskip("torch")
    command = [sys.executable, str(BENCH), "--repeats", "1", "--cases", "mlp-64-r1", "--json", tmp_path / "b.json"]
    done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    (row,) = json.loads((tmp_path / "b.json").read_text())
    assert row["loss_difference"] < 1e-3 and min(row["ratio"].values()) > 0 and row["alone_fraction"] > 0
    assert row["flops_per_step"] > 1e8 and done.stdout.count("mlp-64-r1") == 3
