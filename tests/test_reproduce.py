"""Tables of results: rows that train and rows that do not fill each column of the Markdown and of the JSON file."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts/reproduce"
SMALL = ("model.generator.width=4", "model.discriminator.width=4", "train.steps=2", "train.batch_size=2")


@pytest.fixture
def reproduce(monkeypatch, tmp_path):
    """The module ``scripts/reproduce/__main__.py``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPTS / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The first run has a metric of its own, whose values join those of the table's evaluation.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("mosaic", ("metric=[label_kept]",)),
        ("digits_styles", ()),
        ("mixtures", ()),
        ("private_credit", ("train.batch_size=100",)),
    ],
)
def test_a_table_has_a_value_in_each_column(name, extra, reproduce, monkeypatch):
    table = reproduce.TABLES[name]
    row = replace(table.rows[0], overrides=(*table.rows[0].overrides, *SMALL, *extra))
    sizes = {"quick": replace(table.sizes["quick"], seeds=2)}
    small = replace(table, rows=[row], sizes=sizes)
    if name == "private_credit":  # its rows without training take a minute
        small = replace(small, references=lambda n: {"real rows": {"auc": 0.7}})
    monkeypatch.setitem(reproduce.TABLES, name, small)
    monkeypatch.setattr(sys, "argv", ["reproduce", name])
    reproduce.main()
    of_file = json.loads(Path(f"outputs/reproduce/{name}-quick.json").read_text())["rows"]
    trained, untrained = of_file[-1], of_file[:-1]
    assert (trained["row"], trained["seeds"], trained["diverged"], trained["steps"]) == (row.name, 2, 0, 2)
    assert set(table.columns) <= set(trained["ours"]) == set(trained["each"][0])
    text = Path(f"outputs/reproduce/{name}-quick.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(untrained) + 1
    assert all("±" in cell for cell in lines[-1][1 : 1 + len(table.columns)])


def test_the_failed_bars_of_each_row_are_named_seed_by_seed(reproduce):
    bars = [reproduce.Bar("a", at_least=1), reproduce.Bar("b", at_least=0, at_most=2)]
    seeds = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 5.0}, {"a": 2.0}]
    lines = [
        {"row": "real", "seeds": 0, "ours": {"a": {"mean": 1.0}, "b": {"mean": 0.0}}},
        {"row": "trained", "seeds": 3, "ours": {"a": {"mean": 2.0}, "b": {"mean": 1.0}}, "each": seeds},
    ]
    assert reproduce.failures(bars, lines).splitlines() == [
        "Bars, to be passed together: a at least 1; b from 0 to 2.",
        "",
        "- real: passes all bars",
        "- trained: fails b (1 of 3 seeds pass all bars)",
    ]
