"""The core of ``gan-eval``: evaluates checkpoints of runs, and examples in files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.external import external_samples, names_of
from gan_cli.data.tables import is_table
from gan_cli.data.tables.feature import Table
from gan_cli.data.text.feature import Tokens
from gan_cli.errors import UserError, nearest
from gan_cli.metrics import Metric
from gan_cli.metrics.evaluator import Evaluator, for_data, of_rows, of_translations, reads_features, suited
from gan_cli.metrics.features import Extractor
from gan_cli.metrics.objective import ObjectiveTracker
from gan_cli.metrics.table_baselines import baselines
from gan_cli.metrics.tables import Columns, rows_of, taken
from gan_cli.metrics.targets import GENERATE, Target, targets_of, translations_of, with_features
from gan_cli.storage import checkpoints, files, run_directory
from gan_cli.storage.marks import Origin
from gan_cli.trained import restore
from gan_cli.trained.audit import audited
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import TaskRunner, evaluated, runners
from gan_cli.types import Feature, Task

if TYPE_CHECKING:
    from gan_cli.trained.tables import TableReference

log = logging.getLogger(__name__)
_NUMBER = 10_000  # number of samples by default
_NEIGHBOURS = 32  # number of samples in the picture of nearest training examples


class CheckpointEvaluator:
    """Evaluates checkpoints and files of examples with the same metrics, features, sample count and seed.

    Args:
        metrics: dictionary from names to metrics.
        features: function that returns the feature extractor for a reference data set.
        every: whether a metric that cannot be computed with the features and the reference is an error. With False,
            the metric is left out with a warning. Metrics of pairs and of labels are also left out for
            translations without pairs or labels, unless all metrics need them.
        num: number of samples to draw from each checkpoint, and maximum number of examples to evaluate from a file.
            With None, 10,000; for tables as many rows as the training data has, and all rows of a file.
        seed: seed of the latents, of the choice of examples from a file, and of the random numbers of the metrics.
        raw: whether to evaluate the generator's latest parameters instead of their moving average.
        reference: function that returns the data set with which samples of a feature are compared; None if
            no run is evaluated. With None, samples of a run are compared with the training data of the run.
        reference_path: the folder or file from which ``reference`` reads the data set; None for other data.
        table_reference: function that returns the rows with which rows in files are compared; None if ``reference``
            is not a file of a table.
        label: the column that is the class of the rows of a table. None for the label of the reference.
        modules: the user's Python modules. The configuration of a run may use their functions and classes.
        draw_neighbours: function ``(folder, feature, samples, neighbours, origin)`` that writes a picture into
            ``folder``.
            It shows each sample above its nearest training example.
    """

    def __init__(
        self,
        metrics: dict[str, Metric],
        features: Callable[[Dataset], Extractor],
        *,
        every: bool,
        num: int | None,
        seed: int,
        raw: bool,
        reference: Callable[[Feature | None], Dataset] | None,
        reference_path: Path | None = None,
        table_reference: Callable[[], TableReference] | None = None,
        label: str | None = None,
        modules: Sequence[str],
        draw_neighbours: Callable[[Path, Feature, np.ndarray, np.ndarray, Origin], None],
    ):
        self._metrics, self._features, self._every = metrics, features, every
        self._num, self._seed, self._raw, self._modules = num, seed, raw, modules
        self._reference, self._draw_neighbours = reference, draw_neighbours
        self._reference_path, self._table_reference, self._label = reference_path, table_reference, label
        self._evaluators: dict[tuple[str, frozenset[str]], Evaluator] = {}
        self._references: dict[Path, Dataset] = {}
        self._runners: dict[Path, dict[str, TaskRunner]] = {}
        # The reference and the tasks of the most recently evaluated run.
        self._last: tuple[Dataset, Mapping[str, Task]] | None = None

    def run(self, path: Path, *, best: bool = False, step: int | None = None) -> dict[str, Any]:
        """Evaluate samples or translations of a run, and store the result in the run's directory.

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
        number = self._number(evaluator.data)
        audit = functools.partial(audited, run)
        figures = evaluated(evaluator, self._of_run(run), run.state, self._seed, number, audit)
        found = self._result(path, evaluator, evaluator.samples, figures)
        found |= {"step": run.step, **self._weights}
        self._keep(run, found, evaluator)
        return found

    def examples(self, path: Path, task: str | None = None) -> dict[str, Any]:
        """Evaluate examples in a folder or zip file of images, or in an ``.npz`` file.

        The examples are compared with the reference of the most recently evaluated run. If no run has been
        evaluated, they are compared with the reference that was passed to the constructor.

        If the reference consists of domains, e.g. photographs ``a`` and paintings ``b``, the examples are
        translations of its held-out images. Each belongs to the held-out image of the same name or, if the images
        have no names, of the same number. Examples that are compared with a folder of images belong to the images
        of the same names, if all names are equal.

        Args:
            path: the folder or file.
            task: the task that the examples result from, e.g. ``a_to_b``. It may be None if there is only one.

        Returns:
            A dictionary with the entries that the method ``run`` returns, except ``step`` and ``weights``.

        Raises:
            UserError: the examples at ``path`` cannot be read, there is no reference, or the task is not clear.
        """
        if is_table(path):
            return self._table(path)
        target, data = self._target(path, task)
        name = target.imitates if target.sources else "samples"
        found = external_samples(path, target.data.feature, name)
        pairs = self._pairs(path, found, target, data)
        if pairs is None:
            if target.sources:
                log.warning(
                    "%s: the images cannot be matched with the test images, because neither their names nor their "
                    "numbers are equal. Only the distributions are compared.",
                    path,
                )
            rows = np.random.default_rng(self._seed).permutation(found.size)[: self._number(data)]
            # Only the distributions can be compared.
            target = dataclasses.replace(target, paired=False, sources={})
        else:
            order = np.random.default_rng(self._seed).permutation(len(pairs))[: self._number(data)]
            paired = target.paired or not target.sources
            rows, target = pairs[order, 0], dataclasses.replace(target, rows=pairs[order, 1], paired=paired)
        evaluator = self._evaluator(data, {}, target)
        parts = (found.take(rows[i : i + BATCH])[found.main] for i in range(0, len(rows), BATCH))
        return self._result(path, evaluator, len(rows), evaluator({target.task: parts}, self._seed))

    def _table(self, path: Path) -> dict[str, Any]:
        """Evaluate the rows of a file. The result has the entries that the method ``examples`` returns."""
        from gan_cli.trained import tables  # not above, because it loads PyArrow

        reference = self._rows_of_reference(str(path))
        made = tables.rows(path, reference)
        chosen = np.random.default_rng(self._seed).permutation(rows_of(made))[: self._num]
        return self._of_rows(str(path), taken(made, chosen), reference.training, reference)

    def baselines(self) -> list[dict[str, Any]]:
        """The results of trivial generators of tables (see ``gan_cli.metrics.table_baselines``), as of samples.

        Raises:
            UserError: the reference is not a table.
        """
        reference = self._rows_of_reference("--baselines")
        found = baselines(reference.training, reference.label, self._seed)
        return [self._of_rows(name, one.fake, one.training, reference) for name, one in found.items()]

    def _rows_of_reference(self, subject: str) -> TableReference:
        """The rows with which rows of tables are compared: of a file, or the reference of the last run."""
        if self._table_reference is not None:
            return self._table_reference()
        data = self._last[0] if self._last else self._reference(None) if self._reference else None
        if data is None or not isinstance(data.feature, Table):
            raise UserError(
                f"{subject}: rows of a table need a table as reference. Add e.g. --reference TRAIN.csv, or name a "
                "run of tables before the file: gan-eval RUN FAKE.csv."
            )
        from gan_cli.trained import tables  # not above, because it loads PyArrow

        return tables.of_data(data, self._label)

    def _of_rows(self, name: str, made: Columns, training: Columns, reference: TableReference) -> dict[str, Any]:
        metrics = self._metrics
        inputs = {
            "fake_table": made,
            "training_table": training,
            "held_out_table": reference.held_out,
            "unseen_table": training if reference.held_out is None else reference.held_out,
            "table_label": reference.label,
            "seed": self._seed,
        }
        metrics = {key: metric.of_tables or metric for key, metric in metrics.items()}
        if not self._every:
            metrics = {key: one for key, one in metrics.items() if one.needs <= inputs.keys()}
        values = of_rows(metrics, self._every, **inputs)
        settings = {"features": "columns", "reference": reference.described, "samples": rows_of(made)}
        return {"run": name, **settings, "seed": self._seed, "metrics": values}

    def _number(self, reference: Dataset) -> int:
        """The number of samples to evaluate."""
        if self._num is not None:
            return self._num
        return reference.size if isinstance(reference.feature, Table) else _NUMBER

    def _target(self, path: Path, task: str | None) -> tuple[Target, Dataset]:
        """A pair: the target of examples in files, and its data set.

        Raises:
            UserError: there is no reference, or the task is not clear.
        """
        if self._last is not None:
            data, tasks = self._last
        elif self._reference is not None:
            data = self._reference(None)
            tasks = translations_of(data)
        else:
            raise UserError(
                f"{path}: examples that are not samples of a run need a reference. "
                "Add a reference, for example --reference=mnist5k."
            )
        targets = targets_of(data, {} if GENERATE in tasks else tasks)
        if task is not None and task not in targets:
            raise UserError(
                f"--task {task}: there is no such translation.{nearest(task, targets)} Choose from: "
                f"{', '.join(targets)}."
            )
        if task is None and len(targets) > 1:
            raise UserError(
                f"{path}: the images may result from the task {' or '.join(targets)}. Add the task, e.g. --task "
                f"{next(iter(targets))}."
            )
        return targets[task or next(iter(targets))], data

    def _pairs(self, path: Path, found: Dataset, target: Target, data: Dataset) -> np.ndarray | None:
        """Row indices ``[n, 2]`` of examples in files, and of the images of the reference to which they belong.

        The result is None if neither names nor numbers tell which images belong together.
        """
        own, names = names_of(path, found, "flat"), tuple[str, ...]()
        if target.sources:
            source, examples = next(iter(target.sources.items()))
            names = data.held_out_names.get(source, ())
            if not (own and names):  # e.g. an .npz file
                return np.stack([np.arange(found.size)] * 2, 1) if found.size == examples.size else None
        elif self._reference_path is not None and self._last is None:
            names = names_of(self._reference_path, target.reference)
        numbers = {name: i for i, name in enumerate(names)}
        if not numbers.keys() >= set(own):  # without the folders, names are compared if they remain unique
            numbers = {Path(name).name: i for i, name in enumerate(names)}
            own = tuple(Path(name).name for name in own)
        pairs = np.array([(i, numbers[name]) for i, name in enumerate(own) if name in numbers], int).reshape(-1, 2)
        if not len(pairs) or len(set(own)) < len(own) or len(numbers) < len(names):
            return None
        if len(pairs) < len(own):
            if not target.sources:
                return None
            log.warning(
                "%s: %d of %d images are left out, because there is no test image of the same name, e.g. %s.",
                path,
                len(own) - len(pairs),
                len(own),
                next(name for name in own if name not in numbers),
            )
        return pairs

    def watch(self, path: Path) -> Iterator[dict[str, Any]]:
        """Evaluate the checkpoints of a run that have no stored evaluation with the current settings.

        If the run was configured without metrics, the checkpoint with the best value of the objective is copied to
        the folder ``best`` of the run. Otherwise, training itself saves the best checkpoint. A private run has no
        best checkpoint, because the choice would carry no noise.

        Yields:
            For each newly evaluated checkpoint, the dictionary that the method ``run`` returns.

        Raises:
            UserError: the run does not exist, or the metrics cannot be computed for the run.
        """
        if not checkpoints.steps(checkpoints.newest_folder(path)):
            return  # the run has not saved a checkpoint yet
        run, evaluator = self._load(path, False, None)
        terms = {**evaluator.terms, "samples": evaluator.samples, "seed": self._seed, **self._weights}
        aim = evaluator.objective and evaluator.objective[0]
        evaluated_steps = {
            one["step"]: one
            for one in run_directory.evaluations(path)
            if terms.items() <= one.items() and (aim is None or aim in one["metrics"])
        }
        for step in checkpoints.steps(run.folder.parent):
            if step not in evaluated_steps:
                try:
                    evaluated_steps[step] = self.run(path, step=step)
                except UserError:
                    if step in checkpoints.steps(run.folder.parent):
                        raise
                    continue  # training has deleted the checkpoint in the meantime
                yield evaluated_steps[step]
            if not run.experiment.metrics and not run_directory.is_private(path):
                best = ObjectiveTracker(evaluator.objective, patience=0)
                for at in sorted(evaluated_steps):
                    best.observe(
                        at, {f"eval/{name}": value for name, value in evaluated_steps[at]["metrics"].items()}
                    )
                if best.step == step:
                    with contextlib.suppress(FileNotFoundError):  # training has deleted the checkpoint
                        checkpoints.copy(run.folder.parent / str(step), checkpoints.best_folder(path))

    @property
    def _weights(self) -> dict[str, str]:
        return {"weights": "raw" if self._raw else "average"}

    def _load(self, path: Path, best: bool, step: int | None) -> tuple[RestoredRun, Evaluator]:
        data = self._reference is None and path not in self._references
        run = restore.restore_run(path, data=data, best=best, step=step, raw=self._raw, modules=self._modules)
        tasks = run.experiment.game.tasks
        features = [
            self._of_run(run)[name].feature for name, task in tasks.items() if task.imitates or name == GENERATE
        ]
        if not features:
            remedy = (
                f"Write the outputs of a task with gan-sample {path} --task {list(tasks)[-1]} --out FILE.npz, and "
                "evaluate FILE.npz with --reference DATA."
                if tasks
                else "Choose another run."
            )
            raise UserError(
                f"{path}: the game of this run has no task generate, so there are no samples to evaluate. {remedy}"
            )
        own = self._references.get(path, run.experiment.dataset)
        reference = self._reference(features[0]) if self._reference else own
        assert reference is not None
        self._last, self._references[path] = (reference, tasks), reference
        if self._label is not None:
            _check_label(path, self._label, reference)
        self._check(path, self._of_run(run), reference)
        return run, self._evaluator(reference, tasks)

    def _check(self, path: Path, tasks: Mapping[str, TaskRunner], reference: Dataset) -> None:
        """Raise a UserError if a feature that a task reads or imitates is missing, or has another shape."""
        for name, runner in tasks.items():
            if name == GENERATE:
                compared = {reference.main: runner.feature}
            elif runner.task.imitates:
                compared = {one: runner.task.inputs[one] for one in runner.given}
                compared[runner.task.imitates] = runner.feature
            else:
                continue
            missing = [one for one in compared if one not in reference.spec]
            if missing:
                raise UserError(
                    f"{path}: the task {name} of this run reads the images {', '.join(runner.given)}, but the "
                    f"reference has no images {', '.join(missing)}. Leave out --reference to use the test images "
                    "of the run, or choose a data set with these images, e.g. --reference edges."
                )
            for one, feature in compared.items():
                if feature.shape != reference.spec[one].shape:
                    raise UserError(
                        f"{path}: the samples have the shape {feature.shape}, but the examples of the reference "
                        f"have the shape {reference.spec[one].shape}. Choose a --reference of the same shape."
                    )

    def _of_run(self, run: RestoredRun) -> dict[str, TaskRunner]:
        """The runners of a run's tasks, shared by all checkpoints of the run so that each is compiled only once."""
        if run.directory not in self._runners:
            self._runners[run.directory] = runners(run.experiment.game)
        return self._runners[run.directory]

    def _evaluator(self, reference: Dataset, tasks: Mapping[str, Task], target: Target | None = None) -> Evaluator:
        """The evaluator of a game with ``tasks``, or of examples in files that are compared with ``target``."""
        if target is not None and target.rows is not None:
            return self._new_evaluator(reference, tasks, target)
        key = reference.fingerprint(), frozenset([target.task] if target else tasks)
        if key not in self._evaluators:
            self._evaluators[key] = self._new_evaluator(reference, tasks, target)
        return self._evaluators[key]

    def _new_evaluator(self, reference: Dataset, tasks: Mapping[str, Task], target: Target | None) -> Evaluator:
        targets = {target.task: target} if target else targets_of(reference, tasks)
        metrics = for_data(self._metrics, reference)
        if self._every and target is None:
            metrics = of_translations(metrics, targets, reference)
        if not self._every:
            metrics = suited(metrics, reference, tasks)
        targets = with_features(targets, self._features if reads_features(metrics) else None)
        return Evaluator(metrics, targets, reference, self._number(reference), every=self._every, tasks=tasks)

    def _result(self, path: Path, evaluator: Evaluator, n: int, figures: Mapping[str, float]) -> dict[str, Any]:
        values = {name: float(value) for name, value in figures.items()}
        return {"run": str(path), **evaluator.terms, "samples": n, "seed": self._seed, "metrics": values}

    def _keep(self, run: RestoredRun, found: dict[str, Any], evaluator: Evaluator) -> None:
        """Store an evaluation in the run's directory, and write the picture of nearest training examples.

        Nearest training examples of a private run are not drawn.
        """
        path, folder = run_directory.evaluations_path(run.directory), run.directory / "samples"
        try:
            files.write_json(path, [*run_directory.evaluations(run.directory), found])
        except OSError as error:
            log.warning(
                "%s: the evaluation cannot be stored (%s). Check the free disk space and the permissions.",
                path,
                error.strerror or error,
            )
            return
        if run_directory.is_private(run.directory):
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
            target = evaluator.targets.get(GENERATE)
            near = target is not None and not isinstance(target.data.feature, Tokens)  # numbers of words have none
            if self._reference is None and near and target is not None and target.extractor is not None:
                numbered = self._of_run(run)[GENERATE].numbered(run.state, self._seed, _NEIGHBOURS)
                samples = np.asarray(next(numbered))
                origin = run.origin(self._seed)
                self._draw_neighbours(folder, target.data.feature, samples, evaluator.nearest(samples), origin)
        except OSError as error:
            log.warning(
                "%s: the picture of the nearest training examples cannot be written (%s). "
                "Check the free disk space and the permissions.",
                folder,
                error.strerror or error,
            )


def _check_label(path: Path, label: str, reference: Dataset) -> None:
    """Raise a UserError if ``label`` is not the label of a run of a table."""
    feature = reference.feature
    own = feature.columns[feature.label].name if isinstance(feature, Table) and feature.label is not None else None
    if label != own:
        raise UserError(
            f"--label {label}: the label of {path} is {own or 'not set'}. Leave --label out, or write samples to a "
            "file with gan-sample and evaluate the file."
        )
