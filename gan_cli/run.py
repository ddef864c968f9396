"""A run's life: where it starts from, its steps, what it writes, and how it ends.

``train`` reads from top to bottom as the story of a run. Everything lies in the run's directory, and from there
it can be resumed: see the README for what is in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli import checkpoint, engine, provenance
from gan_cli.config import Experiment
from gan_cli.console import Reporter
from gan_cli.errors import RunFailed, UserError
from gan_cli.records import Journal, MetricsLog
from gan_cli.signals import StopSignal
from gan_cli.types import Tree
from gan_cli.views.artist import Artist, forget_pictures
from gan_cli.watch import Clock, Watch

EXIT_STATUS = {"finished": 0, "failed": 1, "diverged": 3}


@dataclass
class Run:
    """What a run has come to.

    Attributes:
        directory: where everything is.
        status: finished, stopped, diverged or failed.
        step: the last step made.
        metrics: the last logged metrics, with those of the final samples.
        exit_status: what the process that trained it ends with.
    """

    directory: Path
    status: str
    step: int
    metrics: dict[str, float]
    exit_status: int
    _draw: Any = field(default=None, repr=False)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """``n`` examples from the averaged generator, as the networks see data (images in [-1, 1])."""
        if self._draw is None:
            raise ValueError("this game draws no samples")
        return self._draw(n, seed)


def train(experiment: Experiment, directory: Path, command: list[str], reporter: Reporter) -> Run:
    """Train in ``directory``, from its newest checkpoint if it has one, until done, stopped or diverged.

    Raises:
        UserError: the directory's checkpoints are of another configuration, data set or architecture.
        RunFailed: something outside the run went wrong, such as a full disk; the directory says ``failed``.
    """
    with _alone(directory), StopSignal() as stop:
        journal = Journal(directory, experiment, command)
        try:
            run = _train(experiment, directory, journal, reporter, stop)
        except UserError:
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
                journal.write("failed", error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
            if isinstance(error, RunFailed) or not isinstance(error, Exception):
                raise
            raise RunFailed(_explain(error, directory)) from error
    # The handlers that were there before ours now see the signal: the run is saved.
    stop.pass_on()
    return run


def _explain(error: Exception, directory: Path) -> str:
    """What went wrong, where, and what to try."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or directory}"
    first = (str(error).strip() or "no message").splitlines()[0][:300]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    advice = "\nTry a smaller train.batch_size, model or data set." if "RESOURCE_EXHAUSTED" in first else ""
    return (
        f"{type(error).__name__}: {first}\n"
        f"at {frame.filename}:{frame.lineno}; the traceback is in {directory / 'run.json'}.{advice}"
    )


def _train(experiment: Experiment, directory: Path, journal: Journal, reporter: Reporter, stop: StopSignal) -> Run:
    options, game, data = experiment.train, experiment.game, experiment.dataset
    device = jax.devices()[0]
    reporter.say(f"device    {provenance.describe(device)}")
    reporter.say(f"data      {f'{data.name}: {data.size:,} examples of {data.spec.shape}' if data else 'none'}")

    # 1. Where the run starts from: the newest checkpoint that verifies, else the seed. Nothing is compiled yet.
    identity = {"configuration": experiment.fingerprint, "data": data.fingerprint() if data else None}
    initial = functools.partial(engine.init, game, experiment.strategy, experiment.optimisers, experiment.seed)
    restored = checkpoint.restore(directory, jax.eval_shape(initial), identity)
    step, state = restored if restored else (0, jax.jit(initial)())
    state = jax.device_put(state)
    if restored:
        reporter.say(f"resumed   from step {step}")
    sizes = {player: sum(x.size for x in jax.tree.leaves(p)) for player, p in state.params.items()}
    reporter.say(f"players   {', '.join(f'{player} {size:,} parameters' for player, size in sizes.items())}")
    reporter.say(f"directory {directory}")

    # 2. History up to here is kept, what lies after the checkpoint is cut off: it will be written again.
    metrics_log = MetricsLog(directory, step)
    forget_pictures(directory, step)
    journal.write("running", step=step)
    loggers = [logger(directory, metrics_log.records) for logger in experiment.loggers.values()]

    # 3. The compiled program, with the data where it runs.
    program = engine.compile_chunk(
        game,
        experiment.strategy,
        data.resident if data else None,
        experiment.seed,
        options.batch_size,
        options.ema,
    )
    arrays = jax.device_put(data.arrays) if data else None
    artist = Artist(experiment, directory)
    saver = checkpoint.Saver(directory, identity, options.keep)
    saver.newest = step if restored else None
    watch = Watch(game.players, options.on_nan == "stop")
    clock = Clock(step)
    in_flight: list[tuple[int, Tree, Tree]] = []
    latest = metrics_log.latest(step)

    def settle(pending: int) -> None:
        """Look at finished calls until ``pending`` are in flight; the device works on meanwhile."""
        while len(in_flight) > pending:
            at, metrics, finite = in_flight.pop(0)
            metrics, finite = jax.device_get((metrics, finite))
            watch.look(at, metrics, finite)
            clock.tick(at)
            latest.clear()
            latest.update({name: float(values[-1]) for name, values in metrics.items()})
            text = _summary(latest, game.players, clock)
            reporter.update(at, text)
            if at % options.log_every == 0 or at == options.steps:
                record = metrics_log.write(at, latest, clock.rate)
                for logger in loggers:
                    logger.log(record)
                reporter.logged(at, options.steps, text, clock.left(options.steps))

    def show(paths: list[Path]) -> None:
        for path in paths:
            for logger in loggers:
                logger.picture(int(path.stem), path)

    def due(every: int) -> bool:
        return bool(every) and step % every == 0

    # 4. The steps. Order of effects: compute, look, draw, save. A checkpoint is only ever of a finite state.
    try:
        reporter.start(step, options.steps)
        while step < options.steps and not stop.received and not watch.stopped:
            length = min(options.steps_per_call - step % options.steps_per_call, options.steps - step)
            state, metrics, finite = program(state, arrays, length)
            step += length
            in_flight.append((step, metrics, finite))
            draw, keep = due(options.sample_every), due(options.checkpoint_every)
            settle(0 if draw or keep or step == options.steps or clock.first is None else 1)
            if draw and step < options.steps and not watch.stopped:
                artist.draw(step, state)
            if keep and step < options.steps and watch.finite and not watch.stopped:
                saver.save(step, state)
            saver.check()
            show(artist.finished())
        settle(0)
        # 5. The end, whatever it is, leaves a checkpoint that was waited for and a grid.
        saver.wait()
        if watch.finite and not watch.stopped and saver.newest != step:
            saver.save(step, state)
        if not watch.stopped:
            artist.draw(step, state)
        show(artist.finished(wait=True))
        saver.wait()
    finally:
        reporter.stop()
        artist.close()
        saver.close()
        for logger in loggers:
            logger.close()

    status = "diverged" if watch.stopped else "stopped" if stop.received and step < options.steps else "finished"
    final = latest | (artist.figures(state) if not watch.stopped else {})
    journal.write(
        status,
        step=step,
        final=final,
        seconds_to_first_call=clock.first,
        steps_per_second=clock.rate,
        checkpoint=saver.newest,
        **watch.story,
    )
    _say_end(reporter, directory, status, step, final, clock, saver, artist, metrics_log, watch)
    exit_status = stop.exit_status if status == "stopped" else EXIT_STATUS[status]
    drawer = functools.partial(artist.samples, state) if artist.can_draw else None
    run = Run(directory, status, step, final, exit_status, drawer)
    return run


# -------------------------------------------------------------------------------------- parts of the story


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the run's directory: two processes in one directory would corrupt it.

    The lock is the kernel's: it goes with the process, however that ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{directory}: another process is training in it.") from None
        yield


def _summary(metrics: dict[str, float], players: tuple[str, ...], clock: Clock) -> str:
    losses = "  ".join(f"{player} {metrics[f'{player}/loss']:.4g}" for player in players)
    return f"{losses}  {clock.rate:,.0f} steps/s" if clock.rate else losses


def _say_end(
    reporter: Reporter,
    directory: Path,
    status: str,
    step: int,
    final: dict[str, float],
    clock: Clock,
    saver: checkpoint.Saver,
    artist: Artist,
    metrics_log: MetricsLog,
    watch: Watch,
) -> None:
    rate = f", {clock.rate:,.0f} steps/s" if clock.rate else ""
    first = f", first call after {clock.first:.1f} s" if clock.first is not None else ""
    reporter.say(f"{status:9} at step {step}{rate}{first}")
    if watch.story:
        story = watch.story
        reporter.warn(
            f"step {story['diverged_at']}: the {story['diverged_player']}'s {story['diverged_in']} is not finite."
        )
        kept = f"checkpoint of step {saver.newest}" if saver.newest is not None else "none was reached"
        reporter.say(f"last finite state: {kept}. Try a smaller optim.lr, optim.clip_norm=1, or penalty=r1.")
    if "modes" in final:
        kept, quality = f"{final['modes']:.0f} of {final['modes_total']:.0f}", f"{final['quality']:.1%}"
        reporter.say(f"modes     {kept}, {quality} of the samples within 3 standard deviations of one")
    if artist.last is not None:
        reporter.say(f"grid      {artist.last}")
    if saver.newest is not None:
        reporter.say(f"checkpoint {directory / 'checkpoints' / str(saver.newest)}")
    reporter.say(f"log       {metrics_log.path}")
