"""Evaluation of the checkpoints of runs, and of samples from files (the core of ``gan-eval``)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.external import external_samples
from gan_cli.errors import UserError
from gan_cli.metrics import Metric
from gan_cli.metrics.evaluator import Evaluator, lacking
from gan_cli.metrics.features import Extractor
from gan_cli.metrics.objective import ObjectiveTracker
from gan_cli.storage import checkpoints, files, run_directory
from gan_cli.trained import restore
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import Sampler

log = logging.getLogger(__name__)
_NEIGHBOURS = 32  # number of samples that are drawn with their nearest training examples


class CheckpointEvaluator:
    """Evaluates several sets of samples with the same metrics, features, sample count and seed.

    Args:
        metrics: metrics by name.
        features: returns the feature extractor for a reference data set.
        every: whether a metric that cannot be computed for these features and this reference is an error; if False,
            such metrics are left out.
        num: number of samples to evaluate from each set; all samples of a smaller set are evaluated.
        seed: seed of the latents and of the random numbers of the metrics.
        raw: whether to evaluate the generator's latest parameters instead of their moving average.
        reference: the data set to compare with; None compares the samples of a run with its training data.
        modules: additional Python modules that the configuration of a run may refer to.
        draw_neighbours: ``(folder, samples, neighbours)``: draws images above their nearest examples.
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
        reference: Dataset | None,
        modules: Sequence[str],
        draw_neighbours: Callable[[Path, np.ndarray, np.ndarray], None],
    ):
        self._metrics, self._features, self._every = metrics, features, every
        self._num, self._seed, self._raw, self._modules = num, seed, raw, modules
        self._reference, self._draw_neighbours = reference, draw_neighbours
        self._evaluators: dict[str, Evaluator] = {}
        self._references: dict[Path, Dataset] = {}
        self._samplers: dict[Path, Sampler] = {}
        self._last: Dataset | None = None  # the reference of the run that was evaluated last

    def run(self, path: Path, *, best: bool = False, step: int | None = None) -> dict[str, Any]:
        """Evaluate samples of a run, and store the result in the run's directory.

        Args:
            path: directory of the run.
            best: whether to evaluate the checkpoint with the best value of the objective.
            step: step of the checkpoint; None takes the newest.

        Returns:
            The metrics, and all settings that they depend on (features, reference, sample count, seed, step
            and weights).

        Raises:
            UserError: there is no such run or checkpoint, or the metrics cannot be computed for it.
        """
        run, evaluator = self._load(path, best, step)
        samples = self._sampler(run).numbered(run.state, self._seed, self._num)
        found = self._figures(str(path), evaluator, samples, self._num) | {"step": run.step, **self._weights}
        self._keep(run, found, evaluator)
        return found

    def examples(self, path: Path) -> dict[str, Any]:
        """Evaluate examples in a folder or zip file of images, or in an ``.npz`` file.

        They are compared with the reference or, if there is none, with the reference of the run evaluated last.

        Raises:
            UserError: there are no examples at ``path``, or there is no reference.
        """
        reference = self._reference or self._last
        if reference is None:
            raise UserError(
                f"{path}: this is not a run, so that it needs a reference to compare it with. Add --reference PATH."
            )
        data = external_samples(path, reference.spec)
        rows = np.random.default_rng(self._seed).permutation(data.size)[: self._num]
        parts = (data.take(rows[i : i + BATCH])["examples"] for i in range(0, len(rows), BATCH))
        return self._figures(str(path), self._evaluator(reference), parts, len(rows))

    def watch(self, path: Path) -> Iterator[dict[str, Any]]:
        """Evaluate each checkpoint of a run that has no stored evaluation with the same settings.

        The checkpoint with the best value of the objective is copied to the run's folder ``best``, unless the run
        itself computes metrics during training and therefore saves its best checkpoint there.

        Yields:
            The result for each newly evaluated checkpoint, as ``run`` returns it.

        Raises:
            UserError: there is no such run, or the metrics cannot be computed for it.
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
        reference = self._reference or self._references.get(path)
        data = reference is None
        run = restore.restore_run(path, data=data, best=best, step=step, raw=self._raw, modules=self._modules)
        reference = reference or run.experiment.dataset
        assert reference is not None
        self._last = self._references[path] = reference
        assert run.experiment.game.spec is not None
        made = run.experiment.game.spec.shape
        if made != reference.spec.shape:
            raise UserError(
                f"{path}: the samples have the shape {made}, but the examples of the reference have the shape "
                f"{reference.spec.shape}. Choose a --reference of the same shape."
            )
        return run, self._evaluator(reference)

    def _sampler(self, run: RestoredRun) -> Sampler:
        """The sampler of a run. All checkpoints of the run share it, so that it is compiled only once."""
        return self._samplers.setdefault(run.directory, Sampler(run.experiment.game))

    def _evaluator(self, reference: Dataset) -> Evaluator:
        key = reference.fingerprint()
        if key not in self._evaluators:
            extractor, metrics = self._features(reference), self._metrics
            if not self._every:
                metrics = {
                    name: metric for name, metric in metrics.items() if not lacking(metric, extractor, reference)
                }
            self._evaluators[key] = Evaluator(metrics, extractor, reference, self._num)
        return self._evaluators[key]

    def _figures(self, name: str, evaluator: Evaluator, samples: Iterator[Any], n: int) -> dict[str, Any]:
        figures = {name: float(value) for name, value in evaluator(samples, self._seed).items()}
        return {"run": name, **evaluator.terms, "samples": n, "seed": self._seed, "metrics": figures}

    def _keep(self, run: RestoredRun, found: dict[str, Any], evaluator: Evaluator) -> None:
        """Store the result in the run's directory, and draw some samples with their nearest training examples."""
        try:
            files.write_json(run.directory / "evaluations.json", [*run_directory.evaluations(run.directory), found])
            if (run.directory / "samples").is_symlink():
                raise OSError("the folder samples is a symbolic link")
            if evaluator.data.spec.is_image and self._reference is None:
                samples = np.asarray(next(self._sampler(run).numbered(run.state, self._seed, _NEIGHBOURS)))
                self._draw_neighbours(run.directory / "samples", samples, evaluator.nearest(samples))
        except OSError as error:
            log.warning("%s: the evaluation could not be stored (%s).", run.directory, error.strerror or error)
