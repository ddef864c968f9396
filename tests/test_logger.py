"""Loggers: a spreadsheet or a tracking service receives each record of metrics.jsonl exactly once."""

from __future__ import annotations

import csv
import json
import struct
import sys
from pathlib import Path

import pytest
from conftest import TINY, TOY

import gan_cli
from gan_cli.errors import UserError
from gan_cli.loggers import GuardedLogger, TensorBoard


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def twice(*options: str) -> Path:
    """Train a run, resume it, and return its directory, whose log covers both."""
    gan_cli.train([*TINY, "train.sample_every=4", "name=a", *options], quiet=True)
    return gan_cli.train(["resume=outputs/a", "train.steps=16"], quiet=True).directory


def test_csv_has_every_figure_once():
    run = twice("logger=[csv,tensorboard]", "metric=[fid]", "features=pixels", "train.eval_every=8")
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, records(run), strict=True):
        assert {name: float(value) for name, value in row.items() if value} == {
            name: value for name, value in record.items() if value is not None
        }
    assert (
        [row["step"] for row in rows] == ["4", "8", "12", "16"] and rows[1]["eval/fid"] and not rows[0]["eval/fid"]
    )


# Threads of MLflow open its database, and close it only when they are garbage-collected.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_mlflow_has_every_figure_once():
    tracking = pytest.importorskip("mlflow.tracking", reason="pip install mlflow-skinny sqlalchemy")
    run = twice("logger=mlflow", "logger.mlflow.uri=sqlite:///runs.db")
    client = tracking.MlflowClient(tracking_uri="sqlite:///runs.db")
    (found,) = client.search_runs([client.get_experiment_by_name("gan_cli").experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["optim.lr"] == "0.0002"
    history = client.get_metric_history(found.info.run_id, "generator/loss")
    assert [(m.step, m.value) for m in history] == [(r["step"], r["generator/loss"]) for r in records(run)]
    pictures = [Path(artifact.path).name for artifact in client.list_artifacts(found.info.run_id, "samples")]
    assert sorted(pictures) == ["12.png", "16.png", "4.png", "8.png"]


def blocks(content: bytes):
    """The records of a log in LevelDB's format: 32 KiB blocks of pieces with checksum, length and kind."""
    at, whole = 7, b""  # after the header of the file
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last piece
            yield whole
            whole = b""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_wandb_has_every_figure_once():
    """The figures are read from wandb's offline files, which hold the data to upload."""
    wandb_internal_pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="pip install wandb")
    run = twice("logger=wandb", "logger.wandb.mode=offline")
    found, identities = {}, set()
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for data in blocks(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                identities.add(record.run.run_id)
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            if "generator/loss" in items:
                assert items["step"] not in found
                found[items["step"]] = items["generator/loss"]
    assert found == {r["step"]: r["generator/loss"] for r in records(run)}
    assert len(identities) == 1


def toy(*overrides: str) -> Path:
    """Train a game that compiles in a fraction of a second, and return the run's directory."""
    run = gan_cli.train([TOY[2], *overrides], config_dir=TOY[1], quiet=True)
    assert run.status == "finished"
    return run.directory


def test_a_missing_package_is_refused_at_the_first_start_only(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)  # which makes importing it an ImportError
    with pytest.raises(UserError, match=r"logger=wandb: a required package .* pip install 'gan_cli\[track\]'"):
        toy(TOY[3], "logger=wandb")
    toy(TOY[3], "name=a")
    toy("resume=outputs/a", "train.steps=50", "logger=wandb")
    assert caplog.text.count("logger=wandb: logging failed and is switched off (a required package is missing") == 1


def test_a_service_that_cannot_be_opened_does_not_end_the_run(caplog):
    """Neither when the run starts nor when it resumes."""
    pytest.importorskip("mlflow.tracking", reason="pip install mlflow-skinny sqlalchemy")
    unreachable = ["logger=mlflow", "logger.mlflow.uri=sqlite:////dev/null/runs.db"]
    toy(TOY[3], "name=a", *unreachable)
    run = toy("resume=outputs/a", "train.steps=50")
    assert [record["step"] for record in records(run)] == [10, 20, 30, 40, 50]
    assert (
        caplog.text.count("logger=mlflow: logging failed and is switched off (the tracking service cannot be ") == 2
    )
    assert "uri=sqlite:///mlflow.db" in caplog.text


def test_tensorboard_keeps_the_files_of_the_user(tmp_path):
    folder, logged = tmp_path / "tensorboard", [{"step": 1, "time": 0.0, "x/loss": 1.0}]
    TensorBoard(tmp_path, []).close()
    (ours,) = folder.iterdir()
    ours.rename(ours.with_suffix(""))  # the name that earlier versions used
    (folder / "notes.md").write_text("mine")
    (folder / "mine").mkdir()
    TensorBoard(tmp_path, logged).close()
    (folder / "events.out.tfevents.2.host").write_text("mine")
    TensorBoard(tmp_path, logged).close()
    names = {path.name for path in folder.iterdir()}
    assert {"notes.md", "mine", "events.out.tfevents.2.host"} < names and len(names) == 4


def test_a_failing_service_does_not_end_the_run(caplog):
    class Down:
        calls = 0

        def log(self, record):
            self.calls += 1
            raise ConnectionError("no route")

        picture = close = log

    down = Down()
    guarded = GuardedLogger("down", lambda: down, new=True)
    guarded.log({"step": 1})
    guarded.log({"step": 2})
    guarded.close()
    assert down.calls == 1 and caplog.text.count("logger=down: logging failed and is switched off (no route)") == 1
