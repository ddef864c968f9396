"""One run as its directory sees it: what is watched, logged, drawn and saved of it.

A single run has one member, whose directory is the run's; each member of an ensemble has a directory of its own
under ``members/``, as complete as a single run's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gan_cli.config import names, stored
from gan_cli.config.build import Experiment
from gan_cli.engine.state import TrainState
from gan_cli.loggers import Guarded
from gan_cli.metrics import eigenvalues as spectrum
from gan_cli.metrics.evaluator import Evaluator
from gan_cli.metrics.objective import Best
from gan_cli.storage import checkpoint
from gan_cli.storage.checkpoint import Identity
from gan_cli.storage.records import Journal, MetricsLog
from gan_cli.trained.sampling import Sampler
from gan_cli.training.console import Reporter
from gan_cli.training.watch import Watch
from gan_cli.views.artist import Artist, forget_pictures

Arrays = dict[str, np.ndarray]


class Member:
    """The books of one run.

    Args:
        experiment: the run's own, without an ensemble.
        directory: where everything of it is.
        journal: its ``run.json``.
        identity: what must be equal where its checkpoints are used.
    """

    def __init__(self, experiment: Experiment, directory: Path, journal: Journal, identity: Identity):
        self.experiment, self.directory, self.journal, self.identity = experiment, directory, journal, identity
        self.watch = Watch(experiment.game.players, experiment.train.on_nan == "stop")
        self._open: list[Any] = []
        self._sampled: tuple[int, Any] | None = None
        self._judged: tuple[int, dict[str, float]] | None = None
        self.spectrum: dict[str, Any] = {}

    def begin(self, step: int, restored: bool, sampler: Sampler | None, evaluator: Evaluator | None) -> None:
        """Open the books at ``step``: what lies after it is cut off, since it will be written again."""
        self._sampler, self._evaluator = sampler, evaluator
        options = self.experiment.train
        self.metrics_log = MetricsLog(self.directory, step)
        self.latest = self.metrics_log.latest(step)
        forget_pictures(self.directory, step)
        self._terms = self._of_evaluation(step)
        self.journal.write("running", step=step, evaluation=self._terms)
        self.artist = Artist(self.experiment, self.directory, sampler)
        self.saver = checkpoint.Saver(checkpoint.newest(self.directory), self.identity, options.keep)
        self.saver.newest = step if restored else None
        self._best_saver = checkpoint.Saver(checkpoint.best(self.directory), self.identity, keep=1)
        self._open += [self.artist, self.saver, self._best_saver]
        self.best = Best(evaluator.objective if evaluator else None, options.patience)
        for record in self.metrics_log.records:
            if self._terms is not None and record["step"] > self._terms["since_step"]:
                self.best.see(record["step"], record)
        records = self.metrics_log.records
        self.loggers = [
            Guarded(name, logger(self.directory, records)) for name, logger in self.experiment.loggers.items()
        ]
        self._open += self.loggers

    def _of_evaluation(self, step: int) -> dict[str, Any] | None:
        """What the figures are of, and since which step: those of other terms compare with none to come."""
        if self._evaluator is None:
            return None
        options, objective = self.experiment.train, self._evaluator.objective
        terms = self._evaluator.terms | {
            "samples": options.eval_samples,
            "seed": self.experiment.seed,
            "objective": objective and objective[0],
        }
        facts = self.journal.before
        before = facts.get("evaluation") or {}
        metrics = stored.config_of(facts).get("metric") if facts else None
        same = terms.items() <= before.items() and metrics == names.encode(self.experiment.config)["metric"]
        return terms | {"since_step": before.get("since_step", 0) if same else step}

    @property
    def going(self) -> bool:
        """Whether it still trains: not diverged, or not to be stopped by that."""
        return not self.watch.stopped

    @property
    def improves(self) -> bool:
        """Whether training on is worth while: no stop was asked for where its figures get no better, or they do."""
        return not self.best.stale

    def look(self, at: int, metrics: Arrays, finite: Arrays, rate: float | None) -> None:
        """Take note of the steps up to ``at``: metrics ``[length]``, and which players' parameters are finite."""
        if not self.going:
            return
        options = self.experiment.train
        self.watch.look(at, metrics, finite)
        self.latest.clear()
        self.latest.update({name: float(values[-1]) for name, values in metrics.items()})
        if self._sampled is not None and self._sampled[0] == at:
            self.latest.update(self.artist.figures(self._sampled[1]))
            self.watch.look_at_samples(at, self.latest)
        judged = self._judged[1] if self._judged and self._judged[0] == at and self.watch.finite else {}
        self.latest.update(judged)
        if at % options.log_every == 0 or at == options.steps or judged:
            record = self.metrics_log.write(at, self.latest, rate)
            for logger in self.loggers:
                logger.log(record)

    def sample(self, step: int, state: TrainState) -> None:
        """Let the generator make what ``look`` judges and ``draw`` draws of this step. Waits for nothing."""
        self._sampled = step, self.artist.fixed(state)

    def evaluate(self, step: int, state: TrainState) -> None:
        """Compute the figures of this step that ``look`` takes note of. Waits for the device."""
        assert self._evaluator is not None and self._sampler is not None
        seed, n = self.experiment.seed, self.experiment.train.eval_samples
        figures = self._evaluator(self._sampler.numbered(state, seed, n), seed)
        self._judged = step, {f"eval/{name}": value for name, value in figures.items()}

    def save_best(self, step: int, state: TrainState) -> None:
        """Keep this step's state if no evaluation before was better."""
        if self._judged is not None and self.watch.finite and self.best.see(step, self._judged[1]):
            self._best_saver.save(step, state)

    def conclude(self, step: int, state: TrainState) -> None:
        """Evaluate the end, where no call has: of a run that was resumed there, by other metrics or for the first
        time."""
        if self._terms is None or (self._judged and self._judged[0] == step):
            return
        if self._terms["since_step"] < step and any(name.startswith("eval/") for name in self.latest):
            return
        self.evaluate(step, state)
        assert self._judged is not None
        self.latest.update(self._judged[1])
        record = self.metrics_log.amend(step, self.latest)
        for logger in self.loggers:
            logger.log({"step": step, "time": record["time"], **self._judged[1]})
        self.save_best(step, state)

    def draw(self, step: int, state: TrainState) -> None:
        """Draw the samples of this step."""
        if self._sampled is None or self._sampled[0] != step:
            self.sample(step, state)
        assert self._sampled is not None
        self.artist.draw(*self._sampled, state)

    def save(self, step: int, state: TrainState) -> None:
        """Save in the background; never a state that is not finite."""
        self._best_saver.wait()  # a resumed run takes from its log that this has been kept
        self.saver.wait()  # the one under way may be of this very step
        if self.watch.finite and self.saver.newest != step:
            self.saver.save(step, state)

    def check(self) -> None:
        """Raise what the background has come upon, and show the pictures that it has finished; never waits."""
        self.saver.check()
        self._best_saver.check()
        self._show(wait=False)

    def finish(self) -> None:
        """Wait for what is being written."""
        self.saver.wait()
        self._best_saver.wait()
        self._show(wait=True)

    def _show(self, wait: bool) -> None:
        for path in self.artist.finished(wait):
            for logger in self.loggers:
                logger.picture(int(path.stem), path)

    def end(self, status: str, step: int, state: TrainState, **facts: Any) -> dict[str, float]:
        """Write how it ended; returns the last metrics, with those of its samples."""
        options, final = self.experiment.train, dict(self.latest)
        if self.going and "diversity" not in final:  # stopped, or resumed, at the end
            final |= self.artist.figures(self.artist.fixed(state))
        self.watch.end(step, final)
        if options.eigenvalues and self.going:
            game, data, seed = self.experiment.game, self.experiment.dataset, self.experiment.seed
            self.spectrum = spectrum.of_game(game, data, options.batch_size, seed, state, options.eigenvalues)
        facts |= {"step": step, "final": final, "checkpoint": self.saver.newest}
        facts |= {**self.watch.story, **self.watch.suspicion, **self.spectrum, **self.best.story}
        self.journal.write(status, **facts)
        return final

    def tell(self, reporter: Reporter, final: dict[str, float]) -> None:
        """Say what became of it and where it is."""
        if self.watch.story:
            at, player, what = (self.watch.story[f"diverged_{part}"] for part in ("at", "player", "in"))
            reporter.warn(f"step {at}: the {player}'s {what} is not finite.")
            newest = self.saver.newest
            kept = "none was saved" if newest is None else f"checkpoint of step {newest}"
            reporter.say(f"last finite state: {kept}. Try a smaller optim.lr, optim.clip_norm=1, or penalty=r1.")
        for line in self.watch.collapse(final, self.experiment.config):
            reporter.warn(line)
        if "modes" in final:
            kept, quality = f"{final['modes']:.0f} of {final['modes_total']:.0f}", f"{final['quality']:.1%}"
            reporter.say(f"modes     {kept}, {quality} of the samples within 3 standard deviations of one")
        for line in self.best.tell():
            reporter.say(line)
        if self.spectrum:
            told = ", ".join(f"{real:.3g}{imaginary:+.3g}i" for real, imaginary in self.spectrum["eigenvalues"])
            reporter.say(f"game      {self.spectrum['verdict']}: eigenvalues of its Jacobian {told}")
        if self.artist.last is not None:
            reporter.say(f"grid      {self.artist.last}")
        if self.saver.newest is not None:
            reporter.say(f"checkpoint {self.directory / 'checkpoints' / str(self.saver.newest)}")
        reporter.say(f"log       {self.metrics_log.path}")

    def close(self) -> None:
        for opened in self._open:
            opened.close()
