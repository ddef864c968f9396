"""Records one run in logs, evaluations, pictures and checkpoints, and decides about early stopping.

A single run has one recorder, which writes to the directory of the run. In an ensemble, each member has a recorder,
which writes the same files to a separate directory under ``members/``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

from gan_cli.config import stored
from gan_cli.config.build import Experiment
from gan_cli.engine.state import TrainState
from gan_cli.loggers import GuardedLogger
from gan_cli.metrics import eigenvalues
from gan_cli.metrics.diversity import SampleFigures
from gan_cli.metrics.evaluator import Evaluator
from gan_cli.metrics.objective import ObjectiveTracker
from gan_cli.storage import checkpoints
from gan_cli.storage.checkpoints import Identity
from gan_cli.storage.metrics_log import MetricsLog
from gan_cli.storage.run_record import RunRecord
from gan_cli.trained.sampling import TaskRunner, evaluated
from gan_cli.training.monitors import (
    CollapseMonitor,
    DivergenceMonitor,
    ModeCollapseMonitor,
    PosteriorCollapseMonitor,
)
from gan_cli.training.progress import Reporter

if TYPE_CHECKING:
    from gan_cli.views.sample_writer import SampleWriter

log = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]


class _Closable(Protocol):
    def close(self) -> None: ...


class RunRecorder:
    """Writes the records of one run: its log, metrics, pictures, checkpoints and ``run.json``.

    Args:
        experiment: the experiment of this run; for a member of an ensemble, the member's experiment.
        directory: the directory of the run.
        record: the writer of the run's ``run.json``.
        identity: the fingerprints that the run stores in its checkpoints. The run restores only checkpoints with
            these fingerprints.

    Attributes:
        latest: a mapping from the name of each metric to its value at the last recorded step.
        objective: the best value of the objective so far.
        eigenvalues: the entries of ``run.json`` about the eigenvalues of the game's Jacobian at the end of the run.
            Until then, and with ``train.eigenvalues=0``, the dictionary is empty.
        monitors: the states of the monitors that the restored checkpoint contains. For a new run, the dictionary is
            empty.
    """

    def __init__(self, experiment: Experiment, directory: Path, record: RunRecord, identity: Identity):
        self.experiment, self.directory, self.record, self.identity = experiment, directory, record, identity
        self.divergence = DivergenceMonitor(experiment.game.players, experiment.train.on_nan == "stop")
        # Checkpoints contain these names, and run.json contains them with the suffix "_suspected_at".
        self.collapses: dict[str, CollapseMonitor] = {
            "collapse": ModeCollapseMonitor(),
            "posterior_collapse": PosteriorCollapseMonitor(),
        }
        self.monitors: dict[str, Any] = {}
        self.eigenvalues: dict[str, Any] = {}
        self._open: list[_Closable] = []
        # The largest step of which a record, a picture or a checkpoint has told.
        self._told = experiment.ledger.reached(record.before) if experiment.ledger else 0
        self._samples: tuple[int, jax.Array | None] | None = None  # a pair: a step, and its samples
        self._evaluated: tuple[int, dict[str, float]] | None = None

    def begin(
        self,
        step: int,
        restored: bool,
        tasks: Mapping[str, TaskRunner],
        evaluator: Evaluator | None,
        keep: int,
    ) -> None:
        """Start recording at ``step``, and remove records of later steps, because the run repeats these steps.

        Args:
            restored: whether the state at ``step`` comes from a checkpoint.
            tasks: the runners of the game's tasks by name; empty for a run without data.
            evaluator: computes the metrics of the samples; None without metrics.
            keep: number of checkpoints to keep.
        """
        self._tasks, self._evaluator = tasks, evaluator
        data = self.experiment.dataset
        self.metrics_log = MetricsLog(self.directory, step)
        self.latest = self.metrics_log.latest(step)
        if (self.directory / "samples").exists():
            from gan_cli.views.sample_writer import remove_later_pictures  # not above, as in ``sample_writer``

            remove_later_pictures(self.directory, step, [name for name in tasks if tasks[name].task.pictured])
        self._terms = self._evaluation_terms(step)
        self._charge(step)
        newest = step if restored else None
        if restored and not self.training:  # a diverged member of an ensemble may have no checkpoint of the step
            newest = max(checkpoints.steps(checkpoints.newest_folder(self.directory)), default=None)
        self.record.write("running", step=step, checkpoint=newest, evaluation=self._terms)
        compares = data is not None and not data.private and "generate" in tasks
        self._sample_figures = SampleFigures(data) if data and compares else None
        self.saver = checkpoints.Saver(checkpoints.newest_folder(self.directory), self.identity, keep)
        self.saver.newest = self._noted = newest
        self._best_saver = checkpoints.Saver(checkpoints.best_folder(self.directory), self.identity, keep=1)
        self._open += [self.saver, self._best_saver]
        self._restore_monitors(evaluator)
        records = self.metrics_log.records
        self.loggers = [
            GuardedLogger(name, functools.partial(logger, self.directory, records), not self.record.before)
            for name, logger in self.experiment.loggers.items()
        ]
        self._open += self.loggers

    @functools.cached_property
    def sample_writer(self) -> SampleWriter:
        """Writes the pictures of the run.

        The first access follows the first call of the compiled program, so that neither the picture of the real
        data nor the import of the modules that draw delays the call.
        """
        from gan_cli.views.sample_writer import SampleWriter

        writer = SampleWriter(self.experiment, self.directory, self._tasks)
        self._open.append(writer)
        return writer

    def _evaluation_terms(self, step: int) -> dict[str, Any] | None:
        """A dictionary of the settings of the evaluation, and of the step since which the run uses these settings.

        Without metrics, the method returns None.

        Metric values are comparable only if the features, the number of samples and the seed are equal. After a
        change of these settings, the search for the best value therefore restarts.
        """
        if self._evaluator is None:
            return None
        objective = self._evaluator.objective
        terms = self._evaluator.terms | {
            "samples": self._evaluator.samples,
            "seed": self.experiment.seed,
            "objective": objective and objective[0],
        }
        facts = self.record.before
        before = (facts.get("evaluation") or {}) if isinstance(facts.get("config"), dict) else {}
        config = self.experiment.config
        metrics = stored.load(facts, config["modules"], ())["metric"] if before else None
        same = terms.items() <= before.items() and metrics == config["metric"]
        return terms | {"since_step": before.get("since_step", 0) if same else step}

    def _restore_monitors(self, evaluator: Evaluator | None) -> None:
        """Restore the monitors' states, so that a resumed run behaves like an uninterrupted run."""
        for name, monitor in self.collapses.items():
            monitor.restore(self.monitors.get(name, {}))
        self.objective = ObjectiveTracker(
            evaluator.objective if evaluator else None, self.experiment.train.patience
        )
        if self._terms is None:
            return
        if self.monitors.get("objective", {}).get("since_step") == self._terms["since_step"]:
            self.objective.restore(self.monitors["objective"])
            return
        # The checkpoint stores no best value (format 0), or a best value with other settings of the evaluation.
        for record in self.metrics_log.records:
            if record["step"] > self._terms["since_step"]:
                self.objective.observe(record["step"], record)

    def _monitor_states(self) -> dict[str, Any]:
        objective = (
            {} if self._terms is None else {"since_step": self._terms["since_step"]} | self.objective.state()
        )
        collapses = {name: monitor.state() for name, monitor in self.collapses.items()}
        return collapses | {"objective": objective}

    @property
    def has_saved(self) -> bool:
        """Whether an earlier process of the run has saved a checkpoint, according to ``run.json``."""
        before = self.record.before
        if "checkpoint" in before:
            return before["checkpoint"] is not None
        # Earlier versions stated the checkpoint only at the end of a run, and the step of a resumed run.
        return any(process.get("step") for process in (before, *before.get("history", ())))

    @property
    def training(self) -> bool:
        """Whether the run still trains: False after it diverges, unless ``train.on_nan=continue`` is set."""
        return not self.divergence.stopped

    @property
    def improving(self) -> bool:
        """Whether early stopping lets the run keep training.

        The value is True if early stopping is off, or if the objective has improved within ``train.patience``
        evaluations.
        """
        return not self.objective.stale

    def record_call(self, at: int, metrics: Arrays, finite: Arrays, rate: float | None) -> None:
        """Record the metrics of one call of the compiled program.

        Args:
            at: the number of the last step of the call.
            metrics: a mapping from the name of each metric to its values in the ``length`` steps of the call, an
                array ``[length]``.
            finite: a mapping from the name of each player to a boolean: whether all parameters of the player are
                finite after the last step of the call.
            rate: steps per second; None until the rate is known.
        """
        if not self.training:
            return
        options = self.experiment.train
        self.divergence.observe(at, metrics, finite)
        self.latest.clear()
        self.latest.update({name: float(values[-1]) for name, values in metrics.items()})
        if self._samples is not None and self._samples[0] == at:
            self.latest.update(self._figures_of(self._samples[1]))
            for monitor in self.collapses.values():
                monitor.observe(at, self.latest)
        current = self._evaluated is not None and self._evaluated[0] == at and self.divergence.finite
        evaluated = self._evaluated[1] if self._evaluated and current else {}
        self.latest.update(evaluated)
        logs = at % options.log_every == 0 or at == options.steps or bool(evaluated)
        if logs or (self._samples is not None and self._samples[0] == at):
            self.latest.update(self._charge(at, write=True))
        if logs:
            record = self.metrics_log.write(at, self.latest, rate)
            for logger in self.loggers:
                logger.log(record)

    def _charge(self, step: int, write: bool = False) -> dict[str, float]:
        """Enter a step into the ledger of a private run, before a record, a picture or a checkpoint tells of it.

        Args:
            step: the number of steps so far.
            write: whether to write ``run.json`` at once, instead of with the next entry.

        Returns:
            The metric ``privacy/epsilon`` of the step. Empty without private training.
        """
        ledger = self.experiment.ledger
        if ledger is None:
            return {}
        self._told = max(self._told, step)
        self.record.note(privacy=ledger.facts(self._told))
        if write:
            self.record.write("running", step=step)
        return {"privacy/epsilon": ledger.epsilon(step).value}

    def _figures_of(self, samples: jax.Array | None) -> dict[str, float]:
        return {} if samples is None or self._sample_figures is None else self._sample_figures(np.asarray(samples))

    def sample(self, step: int, state: TrainState) -> None:
        """Start generating samples from the fixed latents, and return before they are computed.

        ``record_call`` and ``draw`` use these samples.
        """
        self._samples = step, self.sample_writer.samples(state)

    def evaluate(self, step: int, state: TrainState) -> None:
        """Compute the metrics of the state, and keep them until ``record_call`` records the step."""
        assert self._evaluator is not None
        seed, n = self.experiment.seed, self.experiment.train.eval_samples
        figures = evaluated(self._evaluator, self._tasks, state, seed, n)
        self._evaluated = step, {f"eval/{name}": value for name, value in figures.items()}

    def save_best(self, step: int, state: TrainState) -> None:
        """Save ``state`` as the best checkpoint if the objective has its best value so far at this step."""
        if self._evaluated is None or not self.divergence.finite:
            return
        if self.objective.observe(step, self._evaluated[1]):
            self._best_saver.save(step, state, self._monitor_states())

    def evaluate_end(self, step: int, state: TrainState) -> None:
        """Evaluate the samples of the last step of the run, unless this step has been evaluated already.

        The evaluation is missing if a run was resumed at its last step: the loop then makes no steps. The resumed
        run may compute metrics that the earlier process did not compute.
        """
        if self._terms is None or (self._evaluated and self._evaluated[0] == step):
            return
        if self._terms["since_step"] < step and any(name.startswith("eval/") for name in self.latest):
            return
        self.evaluate(step, state)
        assert self._evaluated is not None
        self.latest.update(self._evaluated[1])
        record = self.metrics_log.amend(step, self.latest)
        for logger in self.loggers:
            logger.log({"step": step, "time": record["time"], **self._evaluated[1]})
        self.save_best(step, state)

    def draw(self, step: int, state: TrainState) -> None:
        """Start writing a picture of the samples of this step in a background thread."""
        if self._samples is None or self._samples[0] != step:
            self.sample(step, state)
        assert self._samples is not None
        self.sample_writer.draw(*self._samples, state)

    def save(self, step: int, state: TrainState) -> None:
        """Start saving a checkpoint in the background, if all parameters are finite."""
        # The monitors' states contain the number of the best step, so the best checkpoint must be complete first.
        self._best_saver.wait()
        self.saver.wait()  # the pending save may be a save of this step
        self._charge(step, write=True)
        if self.divergence.finite and self.saver.newest != step:
            self.saver.save(step, state, self._monitor_states(), after=self.sample_writer.pending)

    def rescue(self, step: int, state: TrainState) -> None:
        """Save a checkpoint after a failure of the run, unless saving itself has failed or the step is saved.

        Raises:
            RunFailed: the checkpoint could not be saved.
        """
        if self.saver.failed:
            return
        self.saver.wait()  # the pending save may be a save of this step
        self._charge(step, write=True)
        if self.saver.newest != step:
            self.saver.save(step, state, self._monitor_states())
            self.saver.wait()
        self.record.note(step=step, checkpoint=step)
        log.warning(
            "%s: the run has failed, but its state at step %d is saved. Resume the run when the cause is removed.",
            self.directory,
            step,
        )

    def check(self, step: int) -> None:
        """Raise errors of the background threads, and pass finished pictures to the loggers. Does not wait.

        If a new checkpoint is complete, ``run.json`` states it from now on.

        Args:
            step: the number of steps so far.
        """
        self.saver.check()
        self._best_saver.check()
        if self.saver.newest != self._noted:
            self._noted = self.saver.newest
            self.record.write("running", step=step, checkpoint=self._noted)
        self._log_pictures(wait=False)

    def finish(self) -> None:
        """Wait until all checkpoints and pictures are written, and pass the pictures to the loggers."""
        self.saver.wait()
        self._best_saver.wait()
        self._log_pictures(wait=True)

    def _log_pictures(self, wait: bool) -> None:
        for path in self.sample_writer.finished(wait):
            for logger in self.loggers:
                logger.picture(int(path.stem), path)

    def end(self, status: str, step: int, state: TrainState, **facts: Any) -> dict[str, float]:
        """Write the final entries of ``run.json``, and return the metrics of the last step and of the last samples.

        Args:
            status: the status of the run: finished, stopped or diverged.
            facts: further entries of ``run.json``.
        """
        options, final = self.experiment.train, dict(self.latest)
        if self.training and "diversity" not in final:  # e.g. the run stopped between two sample grids
            final |= self._figures_of(self.sample_writer.samples(state))
        if not self.divergence.facts:
            for monitor in self.collapses.values():
                monitor.observe_end(step, final)
        if options.eigenvalues and self.training:
            game, data, seed = self.experiment.game, self.experiment.dataset, self.experiment.seed
            self.eigenvalues = eigenvalues.of_game(game, data, options.batch_size, seed, state, options.eigenvalues)
        facts |= {"step": step, "final": final, "checkpoint": self.saver.newest}
        suspected = {
            f"{name}_suspected_at": monitor.suspected_at
            for name, monitor in self.collapses.items()
            if monitor.suspected_at is not None
        }
        facts |= {**self.divergence.facts, **suspected, **self.eigenvalues, **self.objective.facts}
        self.record.write(status, **facts)
        return final

    def report(self, reporter: Reporter, final: dict[str, float]) -> None:
        """Print the result of the run and the paths of its files.

        Args:
            final: the metrics that the method ``end`` returned.
        """
        if self.divergence.facts:
            at, player, what = (self.divergence.facts[f"diverged_{part}"] for part in ("at", "player", "in"))
            verb = "are" if what == "parameters" else "is"
            reporter.warn(f"step {at}: the {player}'s {what} {verb} not finite.")
            newest = self.saver.newest
            kept = "no checkpoint was saved" if newest is None else f"checkpoint of step {newest}"
            penalties = ",".join(dict.fromkeys([*self.experiment.config["penalty"], "r1"]))
            reporter.say(
                f"last finite state: {kept}. Try a smaller optim.lr, optim.clip_norm=1, or penalty=[{penalties}]."
            )
            if newest is not None:
                reporter.say(
                    "To continue from it in a new run with other options, add "
                    f"init_from={self.directory} init_parts=all."
                )
        for monitor in self.collapses.values():
            for line in monitor.advice(final, self.experiment.config, self.experiment.game.players):
                reporter.warn(line)
        if "modes" in final:
            kept, quality = f"{final['modes']:.0f} of {final['modes_total']:.0f}", f"{final['quality']:.1%}"
            reporter.say(f"modes     {kept}, {quality} of the samples within 3 standard deviations of a mode")
        for line in self.objective.summary():
            reporter.say(line)
        if self.eigenvalues:
            values = ", ".join(
                f"{real:.3g}{imaginary:+.3g}i" for real, imaginary in self.eigenvalues["eigenvalues"]
            )
            reporter.say(f"game      {self.eigenvalues['verdict']}; eigenvalues of its Jacobian: {values}")
        if self.sample_writer.last is not None:
            reporter.say(f"grid      {self.sample_writer.last}")
        if self.saver.newest is not None:
            reporter.say(f"checkpoint {self.directory / 'checkpoints' / str(self.saver.newest)}")
        reporter.say(f"log       {self.metrics_log.path}")

    def close(self) -> None:
        """Close the checkpoint savers, the loggers and the thread that writes pictures."""
        for opened in self._open:
            opened.close()
