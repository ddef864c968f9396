"""The core of ``gan-eval``: evaluates checkpoints of runs, and examples in files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.external import external_samples
from gan_cli.errors import UserError
from gan_cli.metrics import Metric, RunTask
from gan_cli.metrics.evaluator import Evaluator, reads_features
from gan_cli.metrics.features import Extractor
from gan_cli.metrics.objective import ObjectiveTracker
from gan_cli.storage import checkpoints, files, run_directory
from gan_cli.trained import restore
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import TaskRunner, on_data, runners
from gan_cli.types import Feature, Task

log = logging.getLogger(__name__)
_NEIGHBOURS = 32  # number of samples in the picture of nearest training examples


class CheckpointEvaluator:
    """Evaluates checkpoints and files of examples with the same metrics, features, sample count and seed.

    Args:
        metrics: dictionary from names to metrics.
        features: function that returns the feature extractor for a reference data set.
        every: whether a metric that cannot be computed with the features and the reference is an error. With False,
            the metric is left out with a warning.
        num: number of samples to draw from each checkpoint, and maximum number of examples to evaluate from a file.
        seed: seed of the latents, of the choice of examples from a file, and of the random numbers of the metrics.
        raw: whether to evaluate the generator's latest parameters instead of their moving average.
        reference: function that returns the data set with which samples of a feature are compared; None if
            no run is evaluated. With None, samples of a run are compared with the training data of the run.
        modules: the user's Python modules. The configuration of a run may use their functions and classes.
        draw_neighbours: function ``(folder, feature, samples, neighbours)`` that writes a picture into ``folder``.
            It shows each sample above its nearest training example.
    """

    def __init__(
        self,
        metrics: dict[str, Metric],
        features: Callable[[Dataset], Extractor],
        *,
        every: bool,
        num: int,
        seed: int,
        raw: bool,
        reference: Callable[[Feature | None], Dataset] | None,
        modules: Sequence[str],
        draw_neighbours: Callable[[Path, Feature, np.ndarray, np.ndarray], None],
    ):
        self._metrics, self._features, self._every = metrics, features, every
        self._num, self._seed, self._raw, self._modules = num, seed, raw, modules
        self._reference, self._draw_neighbours = reference, draw_neighbours
        self._evaluators: dict[tuple[str, frozenset[str]], Evaluator] = {}
        self._references: dict[Path, Dataset] = {}
        self._runners: dict[Path, dict[str, TaskRunner]] = {}
        self._last: Dataset | None = None  # the reference of the most recently evaluated run

    def run(self, path: Path, *, best: bool = False, step: int | None = None) -> dict[str, Any]:
        """Evaluate samples of a run, and store the result in the run's directory.

        Args:
            path: directory of the run.
            best: whether to evaluate the checkpoint with the best value of the objective instead of the newest.
            step: step of the checkpoint to evaluate. None evaluates the newest checkpoint.

        Returns:
            The dictionary that is added to ``evaluations.json``. It contains the path of the run (``run``), a
            dictionary from names to metric values (``metrics``), and the settings on which the values depend
            (``features``, ``reference``, ``samples``, ``seed``, ``step`` and ``weights``).

        Raises:
            UserError: the run or the checkpoint does not exist, or the metrics cannot be computed for the run.
        """
        run, evaluator = self._load(path, best, step)
        tasks = self._of_run(run)
        samples = tasks["generate"].numbered(run.state, self._seed, self._num)
        run_task = on_data(tasks, run.state, evaluator.data, self._seed)
        found = self._figures(str(path), evaluator, samples, self._num, run_task)
        found |= {"step": run.step, **self._weights}
        self._keep(run, found, evaluator)
        return found

    def examples(self, path: Path) -> dict[str, Any]:
        """Evaluate examples in a folder or zip file of images, or in an ``.npz`` file.

        The examples are compared with the reference that was passed to the constructor. If this reference is None,
        the examples are compared with the reference of the most recently evaluated run.

        Returns:
            A dictionary with the entries that the method ``run`` returns, except ``step`` and ``weights``.

        Raises:
            UserError: the examples at ``path`` cannot be read, or there is no reference.
        """
        reference = self._last or (self._reference and self._reference(None))
        if reference is None:
            raise UserError(
                f"{path}: examples that are not samples of a run need a reference. "
                "Add a reference, for example --reference=mnist5k."
            )
        data = external_samples(path, reference.feature)
        rows = np.random.default_rng(self._seed).permutation(data.size)[: self._num]
        parts = (data.take(rows[i : i + BATCH])[data.main] for i in range(0, len(rows), BATCH))
        return self._figures(str(path), self._evaluator(reference, {}), parts, len(rows), None)

    def watch(self, path: Path) -> Iterator[dict[str, Any]]:
        """Evaluate the checkpoints of a run that have no stored evaluation with the current settings.

        If the run was configured without metrics, the checkpoint with the best value of the objective is copied to
        the folder ``best`` of the run. Otherwise, training itself saves the best checkpoint.

        Yields:
            For each newly evaluated checkpoint, the dictionary that the method ``run`` returns.

        Raises:
            UserError: the run does not exist, or the metrics cannot be computed for the run.
        """
        if not checkpoints.steps(checkpoints.newest_folder(path)):
            return  # the run has not saved a checkpoint yet
        run, evaluator = self._load(path, False, None)
        terms = {**evaluator.terms, "samples": self._num, "seed": self._seed, **self._weights}
        aim = evaluator.objective and evaluator.objective[0]
        known = {
            one["step"]: one
            for one in run_directory.evaluations(path)
            if terms.items() <= one.items() and (aim is None or aim in one["metrics"])
        }
        for step in checkpoints.steps(run.folder.parent):
            if step not in known:
                try:
                    known[step] = self.run(path, step=step)
                except UserError:
                    if step in checkpoints.steps(run.folder.parent):
                        raise
                    continue  # training has deleted the checkpoint in the meantime
                yield known[step]
            if not run.experiment.metrics:
                best = ObjectiveTracker(evaluator.objective, patience=0)
                for at in sorted(known):
                    best.observe(at, {f"eval/{name}": value for name, value in known[at]["metrics"].items()})
                if best.step == step:
                    with contextlib.suppress(FileNotFoundError):  # training has deleted the checkpoint
                        checkpoints.copy(run.folder.parent / str(step), checkpoints.best_folder(path))

    @property
    def _weights(self) -> dict[str, str]:
        return {"weights": "raw" if self._raw else "average"}

    def _load(self, path: Path, best: bool, step: int | None) -> tuple[RestoredRun, Evaluator]:
        data = self._reference is None and path not in self._references
        run = restore.restore_run(path, data=data, best=best, step=step, raw=self._raw, modules=self._modules)
        if "generate" not in run.experiment.game.tasks:
            raise UserError(
                f"{path}: the game of this run has no task generate, so there are no samples to evaluate. Choose "
                "another run."
            )
        feature = self._of_run(run)["generate"].feature
        own = self._references.get(path, run.experiment.dataset)
        reference = self._reference(feature) if self._reference else own
        assert reference is not None
        self._last = self._references[path] = reference
        if feature.shape != reference.feature.shape:
            raise UserError(
                f"{path}: the samples have the shape {feature.shape}, but the examples of the reference have the "
                f"shape {reference.feature.shape}. Choose a --reference of the same shape."
            )
        return run, self._evaluator(reference, run.experiment.game.tasks)

    def _of_run(self, run: RestoredRun) -> dict[str, TaskRunner]:
        """The runners of a run's tasks, shared by all checkpoints of the run so that each is compiled only once."""
        if run.directory not in self._runners:
            self._runners[run.directory] = runners(run.experiment.game)
        return self._runners[run.directory]

    def _evaluator(self, reference: Dataset, tasks: Mapping[str, Task]) -> Evaluator:
        key = reference.fingerprint(), frozenset(tasks)
        if key not in self._evaluators:
            extractor = self._features(reference) if reads_features(self._metrics) else None
            self._evaluators[key] = Evaluator(
                self._metrics, extractor, reference, self._num, every=self._every, tasks=tasks
            )
        return self._evaluators[key]

    def _figures(
        self, name: str, evaluator: Evaluator, samples: Iterator[Any], n: int, run_task: RunTask | None
    ) -> dict[str, Any]:
        figures = {name: float(value) for name, value in evaluator(samples, self._seed, run_task).items()}
        return {"run": name, **evaluator.terms, "samples": n, "seed": self._seed, "metrics": figures}

    def _keep(self, run: RestoredRun, found: dict[str, Any], evaluator: Evaluator) -> None:
        """Store an evaluation in the run's directory, and write the picture of nearest training examples."""
        path, folder = run.directory / "evaluations.json", run.directory / "samples"
        try:
            files.write_json(path, [*run_directory.evaluations(run.directory), found])
        except OSError as error:
            log.warning(
                "%s: the evaluation cannot be stored (%s). Check the free disk space and the permissions.",
                path,
                error.strerror or error,
            )
            return
        if folder.is_symlink():
            log.warning(
                "%s: the folder is a symbolic link, so the picture of the nearest training examples "
                "is not written. "
                "Replace the link with a folder.",
                folder,
            )
            return
        try:
            if self._reference is None and evaluator.extractor is not None:
                numbered = self._of_run(run)["generate"].numbered(run.state, self._seed, _NEIGHBOURS)
                samples = np.asarray(next(numbered))
                self._draw_neighbours(folder, evaluator.data.feature, samples, evaluator.nearest(samples))
        except OSError as error:
            log.warning(
                "%s: the picture of the nearest training examples cannot be written (%s). "
                "Check the free disk space and the permissions.",
                folder,
                error.strerror or error,
            )
