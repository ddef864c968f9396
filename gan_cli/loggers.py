"""Loggers write copies of a run's metrics and samples in other formats or to tracking services.

A run always writes ``metrics.jsonl`` and ``samples/``. When a run resumes, each logger receives all existing
records. A log therefore contains each record exactly once, even if the logger is added when the run resumes.
A run does not depend on its loggers: if a tracking service fails, training continues and the run's directory stays
complete.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
import io
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from gan_cli.errors import UserError
from gan_cli.storage import files, run_directory
from gan_cli.storage.dotted import leaves

log = logging.getLogger(__name__)

Record = dict[str, Any]


class Logger(Protocol):
    """Receives the metrics and sample grids of a run.

    The configuration selects a function ``(directory, records, **options) -> Logger`` that creates the logger. The
    argument ``directory`` is the run's directory, and ``records`` contains the existing records of
    ``metrics.jsonl``.
    """

    def log(self, record: Record) -> None:
        """Log one record of ``metrics.jsonl``."""

    def picture(self, step: int, path: Path) -> None:
        """Log one picture, a PNG file: ``samples/<step>.png``, or ``samples/<task>/<step>.png``."""

    def close(self) -> None:
        """Write pending data and close the logger."""


class TensorBoard:
    """Logger for TensorBoard. When a run resumes, its event files are rewritten from records and sample grids."""

    _SUFFIX = ".gan_cli"  # of the names of event files, because users may store other files in the folder

    def __init__(self, directory: Path, records: Sequence[Record]):
        from tensorboardX import SummaryWriter

        folder = directory / "tensorboard"
        events = list(folder.glob("events.out.tfevents.*"))
        ours = [path for path in events if path.name.endswith(self._SUFFIX)]
        for path in ours or events:  # in the folder of an earlier version, the event files have no suffix
            path.unlink()
        self._writer = SummaryWriter(str(folder), flush_secs=30, filename_suffix=self._SUFFIX)
        for record in records:
            self.log(record)
        samples = directory / "samples"
        for picture in sorted([*samples.glob("*.png"), *samples.glob("*/*.png")]):
            if picture.parent != samples / "seen" and (step := files.number(picture.stem)) is not None:
                self.picture(step, picture)

    def log(self, record: Record) -> None:
        for name, value in record.items():
            if name not in ("step", "time") and value is not None:
                self._writer.add_scalar(name, value, record["step"], record["time"])

    def picture(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(
                _title(path),
                np.asarray(image.convert("RGBA" if image.mode == "RGBA" else "RGB")),
                step,
                dataformats="HWC",
            )

    def close(self) -> None:
        self._writer.close()


def tensorboard(directory: Path, records: Sequence[Record]) -> TensorBoard:
    """TensorBoard event files in ``tensorboard/``, to be viewed with ``tensorboard --logdir outputs``."""
    return TensorBoard(directory, records)


class CsvTable:
    """Logger that writes ``metrics.csv``."""

    def __init__(self, directory: Path, records: Sequence[Record]):
        self._path, self._records = directory / "metrics.csv", list(records)
        self._columns: list[str] = []
        self._rewrite()

    def log(self, record: Record) -> None:
        self._records.append(record)
        if record.keys() <= set(self._columns):
            with self._path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(record)
        else:  # the record contains a metric that has no column yet
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
    """CSV table ``metrics.csv`` with a row for each logged step and a column for each metric."""
    return CsvTable(directory, records)


class WandB:
    """Logger for Weights & Biases. When a run resumes, logging continues in the existing W&B run."""

    def __init__(self, directory: Path, records: Sequence[Record], options: dict[str, Any]):
        wandb = _module("wandb")
        self._image = wandb.Image
        self._known = _ServiceRun(directory / "wandb.json", lambda: uuid.uuid4().hex)
        os.environ.setdefault("WANDB_SILENT", "true")
        with _opened(
            "wandb", "Run the command wandb login, or set logger.wandb.mode=offline, which needs no account"
        ):
            self._run = wandb.init(
                id=self._known.identity,
                resume="allow",
                name=directory.name,
                dir=str(directory),
                config=run_directory.facts(directory)["config"],
                **options,
            )
        # W&B's default step axis drops data of earlier steps, for example a picture that is logged late.
        self._run.define_metric("*", step_metric="step")
        for record in records:
            self.log(record)

    def log(self, record: Record) -> None:
        if self._known.lacks(record["step"]):
            self._run.log({"step": record["step"], **_figures(record)})
            self._known.note(record["step"])

    def picture(self, step: int, path: Path) -> None:
        if self._known.lacks(step):
            self._run.log({"step": step, _title(path): self._image(str(path))})

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
    """Weights & Biases, a tracking service (``pip install 'gan_cli[track]'``).

    Args:
        project: W&B project of the run.
        entity: W&B user or team that owns the run. With null, W&B uses the default entity of the account.
        group: W&B group of the run. With null, the run has no group.
        mode: time of the upload. With ``online``, the logger uploads the data during training. With ``offline``,
            the logger writes the data to the run's directory, and the command ``wandb sync`` uploads them later.
    """
    return WandB(directory, records, {"project": project, "entity": entity, "group": group, "mode": mode})


class MLflow:
    """Logger for MLflow. When a run resumes, logging continues in the existing MLflow run."""

    def __init__(self, directory: Path, records: Sequence[Record], experiment: str, uri: str | None):
        tracking = _module("mlflow.tracking")
        with _opened(
            "mlflow",
            "Check that the server is running, or set logger.mlflow.uri=sqlite:///mlflow.db, which needs no server",
        ):
            self._client = tracking.MlflowClient(tracking_uri=uri)
            self._known = _ServiceRun(directory / "mlflow.json", lambda: self._new(directory, experiment))
            self._run = self._known.identity
            self._client.update_run(self._run, status="RUNNING")
        for record in records:
            self.log(record)

    def _new(self, directory: Path, experiment: str) -> str:
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        run: str = self._client.create_run(place, run_name=directory.name).info.run_id
        for key, value in leaves(run_directory.facts(directory)["config"]):
            if value != {}:  # an empty mapping is a configuration group without a choice
                self._client.log_param(run, key, str(value)[:500])  # MLflow limits the length of a parameter
        return run

    def log(self, record: Record) -> None:
        if self._known.lacks(record["step"]):
            at = int(1000 * record["time"])
            for name, value in _figures(record).items():
                self._client.log_metric(self._run, name, value, at, record["step"])
            self._known.note(record["step"])

    def picture(self, step: int, path: Path) -> None:
        if self._known.lacks(step):
            self._client.log_artifact(self._run, str(path), _title(path))

    def close(self) -> None:
        self._client.set_terminated(self._run)


def mlflow(
    directory: Path, records: Sequence[Record], *, experiment: str = "gan_cli", uri: str | None = None
) -> MLflow:
    """MLflow, a tracking service (``pip install 'gan_cli[track]'``).

    Args:
        experiment: name of the MLflow experiment. The experiment is created if it does not exist.
        uri: address of the tracking server or database, for example ``sqlite:///mlflow.db``. With null, the address
            comes from the environment variable ``MLFLOW_TRACKING_URI``.
    """
    return MLflow(directory, records, experiment, uri)


class GuardedLogger:
    """Wraps a logger so that a failure of the logger does not stop the run.

    After the first exception, for example because a service is down, the wrapper logs a warning and ignores all
    later records and pictures.

    Args:
        name: name of the logger, for the warning.
        make: function that creates the logger.
        new: whether the run starts for the first time.

    Raises:
        UserError: the run starts for the first time, and the logger cannot be used at all, for example because a
            package is missing.
    """

    def __init__(self, name: str, make: Callable[[], Logger], new: bool):
        self._name = name
        self._logger: Logger | None = None
        try:
            self._logger = make()
        except Exception as error:
            if new and isinstance(error, UserError):
                raise
            self._switch_off(error)

    def log(self, record: Record) -> None:
        self._try(lambda logger: logger.log(record))

    def picture(self, step: int, path: Path) -> None:
        self._try(lambda logger: logger.picture(step, path))

    def close(self) -> None:
        self._try(lambda logger: logger.close())

    def _try(self, act: Callable[[Logger], None]) -> None:
        if self._logger is None:
            return
        try:
            act(self._logger)
        except Exception as error:
            self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        self._logger = None
        reason = str(error).strip().removeprefix(f"logger={self._name}: ") or type(error).__name__
        log.warning(
            "logger=%s: logging failed and is switched off (%s). Training continues, and the run's directory "
            "contains all metrics. If the run is resumed, the logger receives the missing metrics.",
            self._name,
            reason.rstrip("."),
        )


def _title(path: Path) -> str:
    """The title of a picture at a tracking service: ``samples``, or ``samples/<task>`` for another task."""
    return "samples" if path.parent.name == "samples" else f"samples/{path.parent.name}"


def _figures(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.items() if name not in ("step", "time") and value is not None}


class _ServiceRun:
    """The identifier of a run at a tracking service, and the newest step that the service has received.

    A file stores the identifier and the step, so that a resumed run keeps its identifier. A run that resumes from
    an earlier checkpoint repeats some steps. The repeated steps are not logged again, because the service has
    already received them.

    Args:
        path: path of the file that stores the identifier and the step.
        make: function that returns the identifier of a new run at the service. The function is called if the
            file does not exist or cannot be read.
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
        """Whether ``step`` must be logged, because no earlier process of the run has logged it."""
        return step > self._before

    def note(self, step: int) -> None:
        """Store ``step`` as the newest step that the service has received."""
        files.write_json(self._path, {"id": self.identity, "step": step})


def check_packages(loggers: Iterable[str]) -> None:
    """Raise a UserError if the package of one of the named loggers is missing. No package is imported."""
    for name in loggers:
        if name in ("wandb", "mlflow") and importlib.util.find_spec(name) is None:
            raise _missing(name, f"No module named {name!r}")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name.split(".")[0], error) from error


def _missing(logger: str, reason: object) -> UserError:
    return UserError(
        f"logger={logger}: a required package is missing ({reason}). "
        "Install the packages: pip install 'gan_cli[track]'"
    )


@contextlib.contextmanager
def _opened(name: str, advice: str) -> Iterator[None]:
    """Context manager that adds advice to an exception of a tracking service."""
    try:
        yield
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"logger={name}: the tracking service cannot be opened: {first}. {advice}."
        ) from error
