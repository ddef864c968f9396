"""Loggers: where metrics go beside ``metrics.jsonl``.

A logger is a view of ``metrics.jsonl`` and ``samples/``: it is given the whole history when a run starts or
resumes, so that it never repeats a step or misses one, whenever it was switched on. A run never depends on one:
what a tracking service does not take is in the run's directory all the same.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from gan_cli.errors import UserError
from gan_cli.storage import files, run_directory
from gan_cli.storage.dotted import leaves

log = logging.getLogger(__name__)

Record = dict[str, Any]


class Logger(Protocol):
    """``(directory, records) -> Logger`` opens one on a run's directory with the records so far."""

    def log(self, record: Record) -> None:
        """Add one object of ``metrics.jsonl``."""

    def picture(self, step: int, path: Path) -> None:
        """Add one sample grid."""

    def close(self) -> None:
        """Flush what is pending."""


class TensorBoard:
    """Event files under ``tensorboard/``, written anew from the history when a run resumes."""

    def __init__(self, directory: Path, records: Sequence[Record]):
        from tensorboardX import SummaryWriter

        shutil.rmtree(directory / "tensorboard", ignore_errors=True)
        self._writer = SummaryWriter(str(directory / "tensorboard"), flush_secs=30)
        for record in records:
            self.log(record)
        for picture in sorted((directory / "samples").glob("[0-9]*.png")):
            self.picture(int(picture.stem), picture)

    def log(self, record: Record) -> None:
        for name, value in record.items():
            if name not in ("step", "time") and value is not None:
                self._writer.add_scalar(name, value, record["step"], record["time"])

    def picture(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def tensorboard(directory: Path, records: Sequence[Record]) -> TensorBoard:
    """TensorBoard event files: ``tensorboard --logdir outputs``."""
    return TensorBoard(directory, records)


class CsvTable:
    """``metrics.csv``: a line a logged step, a column a figure."""

    def __init__(self, directory: Path, records: Sequence[Record]):
        self._path, self._records = directory / "metrics.csv", list(records)
        self._columns: list[str] = []
        self._rewrite()

    def log(self, record: Record) -> None:
        self._records.append(record)
        if record.keys() <= set(self._columns):
            with self._path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(record)
        else:  # figures that were not logged before
            self._rewrite()

    def _rewrite(self) -> None:
        self._columns = list(dict.fromkeys(name for record in self._records for name in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._records)
        files.write_bytes(self._path, text.getvalue().encode())

    def picture(self, step: int, path: Path) -> None:
        pass

    def close(self) -> None:
        pass


def csv_table(directory: Path, records: Sequence[Record]) -> CsvTable:
    """A table for spreadsheets: ``metrics.csv`` in the run's directory."""
    return CsvTable(directory, records)


class WandB:
    """A run of Weights & Biases: under one identity, however often the run is resumed."""

    def __init__(self, directory: Path, records: Sequence[Record], options: dict[str, Any]):
        wandb = _module("wandb")
        self._image = wandb.Image
        self._known = _ServiceRun(directory / "wandb.json", lambda: uuid.uuid4().hex)
        os.environ.setdefault("WANDB_SILENT", "true")
        with _opened("wandb", "logger.wandb.mode=offline needs no account"):
            self._run = wandb.init(
                id=self._known.identity,
                resume="allow",
                name=directory.name,
                dir=str(directory),
                config=run_directory.facts(directory)["config"],
                **options,
            )
        # By its own count of calls, a picture that is written after later figures were logged would be left out.
        self._run.define_metric("*", step_metric="step")
        for record in records:
            self.log(record)

    def log(self, record: Record) -> None:
        if self._known.lacks(record["step"]):
            self._run.log({"step": record["step"], **_figures(record)})
            self._known.note(record["step"])

    def picture(self, step: int, path: Path) -> None:
        if self._known.lacks(step):
            self._run.log({"step": step, "samples": self._image(str(path))})

    def close(self) -> None:
        self._run.finish()


def wandb(
    directory: Path,
    records: Sequence[Record],
    *,
    project: str = "gan_cli",
    entity: str | None = None,
    group: str | None = None,
    mode: Literal["online", "offline"] = "online",
) -> WandB:
    """Weights & Biases (``pip install wandb``); ``mode=offline`` writes into the run's directory, to be synced."""
    return WandB(directory, records, {"project": project, "entity": entity, "group": group, "mode": mode})


class MLflow:
    """A run of MLflow: under one identity, however often the run is resumed."""

    def __init__(self, directory: Path, records: Sequence[Record], experiment: str, uri: str | None):
        tracking = _module("mlflow.tracking", "mlflow-skinny sqlalchemy")
        with _opened("mlflow", "logger.mlflow.uri=sqlite:///mlflow.db needs no server"):
            self._client = tracking.MlflowClient(tracking_uri=uri)
            self._known = _ServiceRun(directory / "mlflow.json", lambda: self._new(directory, experiment))
            self._run = self._known.identity
            self._client.update_run(self._run, status="RUNNING")
        for record in records:
            self.log(record)

    def _new(self, directory: Path, experiment: str) -> str:
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        run = self._client.create_run(place, run_name=directory.name).info.run_id
        for key, value in leaves(run_directory.facts(directory)["config"]):
            if value != {}:  # a group of which nothing was chosen
                self._client.log_param(run, key, str(value)[:500])  # as much as it takes
        return run

    def log(self, record: Record) -> None:
        if self._known.lacks(record["step"]):
            at = int(1000 * record["time"])
            for name, value in _figures(record).items():
                self._client.log_metric(self._run, name, value, at, record["step"])
            self._known.note(record["step"])

    def picture(self, step: int, path: Path) -> None:
        if self._known.lacks(step):
            self._client.log_artifact(self._run, str(path), "samples")

    def close(self) -> None:
        self._client.set_terminated(self._run)


def mlflow(
    directory: Path, records: Sequence[Record], *, experiment: str = "gan_cli", uri: str | None = None
) -> MLflow:
    """MLflow (``pip install mlflow-skinny sqlalchemy``), at ``uri`` or where ``MLFLOW_TRACKING_URI`` says."""
    return MLflow(directory, records, experiment, uri)


class GuardedLogger:
    """A logger whose failures, such as a service that is down, cost its own figures only."""

    def __init__(self, name: str, logger: Logger):
        self._name, self._logger, self._works = name, logger, True

    def log(self, record: Record) -> None:
        self._try(lambda: self._logger.log(record))

    def picture(self, step: int, path: Path) -> None:
        self._try(lambda: self._logger.picture(step, path))

    def close(self) -> None:
        self._try(self._logger.close)

    def _try(self, act: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            act()
        except Exception as error:
            self._works = False
            log.warning("logger=%s gives up: %s. The run goes on; its directory has everything", self._name, error)


def _figures(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if name not in ("step", "time") and value is not None}


class _ServiceRun:
    """What names a run to a service, the same whenever it is resumed, and the newest step that the service has.

    A resumed run may log again steps that it had lost with its process; the service has them from then.
    """

    def __init__(self, path: Path, make: Callable[[], str]):
        self._path = path
        try:
            told = files.read_json(path)
            self.identity, self._before = str(told["id"]), int(told["step"])
        except (OSError, ValueError, TypeError, KeyError):
            self.identity, self._before = make(), -1
            self.note(-1)

    def lacks(self, step: int) -> bool:
        """Whether this step is newer than what an earlier start has given."""
        return step > self._before

    def note(self, step: int) -> None:
        files.write_json(self._path, {"id": self.identity, "step": step})


def _module(name: str, packages: str | None = None) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        top = name.split(".")[0]
        raise UserError(f"logger={top}: needs a package: pip install {packages or top} ({error}).") from error


@contextlib.contextmanager
def _opened(name: str, advice: str) -> Iterator[None]:
    """Within it, what a service says against being used becomes a UserError."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"logger={name}: cannot be opened ({first}). {advice}.") from error
