"""A run's life: where it starts from, its steps, what it writes, and how it ends.

``train`` reads from top to bottom as the story of a run, of one GAN or of an ensemble. Everything lies in the run's
directory, and from there it can be resumed: see the README for what is in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli.config import names, stored
from gan_cli.config.build import Experiment
from gan_cli.engine import processes
from gan_cli.engine.compiled_steps import CompiledSteps
from gan_cli.engine.state import TrainState
from gan_cli.errors import RunFailed, UserError
from gan_cli.metrics.evaluator import Evaluator
from gan_cli.storage import checkpoint, provenance
from gan_cli.storage.checkpoint import Identity
from gan_cli.storage.records import Journal
from gan_cli.trained.sampling import Sampler
from gan_cli.training.console import Reporter
from gan_cli.training.member import Member
from gan_cli.training.signals import StopSignal
from gan_cli.training.watch import Clock, Trace
from gan_cli.types import Tree
from gan_cli.views import report

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
        members: the runs of an ensemble; of a single run, none.
        objective: the best value of the figure that a sweep optimises, or None where nothing was evaluated.
    """

    directory: Path
    status: str
    step: int
    metrics: dict[str, float]
    exit_status: int
    members: list[Run] = field(default_factory=list)
    objective: float | None = None
    _draw: Any = field(default=None, repr=False)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """The first ``n`` examples of a seed, from the averaged generator, as the networks see data (images in
        [-1, 1])."""
        if self._draw is None:
            raise ValueError("this game draws no samples, or this is an ensemble: its members do")
        return self._draw(n, seed)


def train(experiment: Experiment, directory: Path, origin: dict[str, Any], reporter: Reporter) -> Run:
    """Train in ``directory``, from its newest checkpoint if it has one, until done, stopped or diverged.

    Args:
        origin: what ``run.json`` is to tell of where the run comes from: the command, and how it differs from the
            default.

    Raises:
        UserError: the directory's checkpoints are of another configuration, data set or architecture.
        RunFailed: something outside the run went wrong, such as a full disk; the directory says ``failed``.
    """
    ensemble = experiment.ensemble
    places = [directory / "members" / str(i) for i in range(len(ensemble.members))] if ensemble else []
    with contextlib.ExitStack() as stack, StopSignal() as stop:
        processes.together(lambda: stack.enter_context(_alone([directory, *places])))
        data = _fingerprint(experiment)
        journal, identity = _journal(directory, experiment, origin, data)
        if ensemble:
            members = [
                Member(own, place, *_journal(place, own, origin, data))
                for own, place in zip(ensemble.members, places, strict=True)
            ]
        else:
            members = [Member(experiment, directory, journal, identity)]
        try:
            run = _train(experiment, directory, journal, members, reporter, stop)
        except BaseException as error:
            told = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            journals = {id(j): j for j in (journal, *(m.journal for m in members))}.values()
            for failed in journals:
                # What the user got wrong is no failure of the run that lies there, unless it had begun.
                if failed.written or not isinstance(error, UserError):
                    with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
                        failed.write("failed", **told)
            if isinstance(error, UserError | RunFailed) or not isinstance(error, Exception):
                raise
            raise RunFailed(_explain(error, directory)) from error
    # The handlers that were there before ours now see the signal: the run is saved.
    stop.pass_on()
    return run


def follow(experiment: Experiment, directory: Path) -> Run:
    """What the other processes of a run do while the first trains: the same calls, and nothing else.

    Raises:
        UserError, RunFailed: what kept the first from starting; or the first, or another, was lost.
    """
    options = experiment.train
    with StopSignal() as stop:
        try:
            processes.together(lambda: None)  # the first may not have the directory
            _fingerprint(experiment)
            program = experiment.compile()
            try:
                restored = processes.state_of_first(lambda: None, [program.abstract])
                state = program.init() if restored is None else program.assemble(restored, [True])
                step, ends = int(state.step), processes.Agreement()
                while step < options.steps and not ends(bool(stop.received)):
                    state, _, _ = program.run(state, step)
                    step += program.next_length(step)
                processes.wait()
            finally:
                program.close()
        except (UserError, RunFailed):
            raise
        except Exception as error:
            raise RunFailed(_explain(error, directory)) from error
    stop.pass_on()
    over = step < options.steps and stop.received
    return Run(directory, "stopped" if over else "finished", step, {}, stop.exit_status if over else 0)


def _fingerprint(experiment: Experiment) -> str | None:
    """That of the data, which must be the same in all processes."""
    data = experiment.dataset.fingerprint() if experiment.dataset else None
    processes.check_same("data", data or "none")
    return data


def _journal(
    directory: Path, experiment: Experiment, origin: dict[str, Any], data: str | None
) -> tuple[Journal, Identity]:
    """The run's ``run.json``, and what its checkpoints must carry."""
    journal = Journal(
        directory,
        origin
        | {
            "seed": experiment.seed,
            **provenance.facts(experiment.devices.used),
            "fingerprint": experiment.fingerprint,
            "config": names.encode(experiment.config),
            # What the networks are built for: a run can be sampled where its data are not.
            "spec": dataclasses.asdict(experiment.dataset.spec) if experiment.dataset else None,
        },
    )
    earlier = stored.earlier_fingerprints(journal.before, experiment.config)
    earlier = tuple(one for one in dict.fromkeys(earlier) if one != experiment.fingerprint)
    journal.note(earlier_fingerprints=earlier)
    return journal, Identity(experiment.fingerprint, data, earlier)


def _explain(error: Exception, directory: Path) -> str:
    """What went wrong, where, and what to try."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or directory}"
    first = (str(error).strip() or "no message").splitlines()[0][:300]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    advice = "\nTry a smaller train.batch_size, model or data set." if "RESOURCE_EXHAUSTED" in first else ""
    if jax.process_count() > 1:
        advice += f"\nThis is process {jax.process_index()} of {jax.process_count()}: another may have been lost."
    return (
        f"{type(error).__name__}: {first}\n"
        f"at {frame.filename}:{frame.lineno}; the traceback is in {directory / 'run.json'}.{advice}"
    )


def _train(
    experiment: Experiment,
    directory: Path,
    journal: Journal,
    members: list[Member],
    reporter: Reporter,
    stop: StopSignal,
) -> Run:
    options, data = experiment.train, experiment.dataset
    reporter.say(f"device    {provenance.summary(experiment.devices.used)}")
    reporter.say(f"data      {f'{data.name}: {data.size:,} examples of {data.spec.shape}' if data else 'none'}")

    # 1. Where the run starts from: the newest checkpoint that verifies, else the seed. Nothing is compiled yet.
    program = experiment.compile()
    step, state, restored = _start(program, members)
    if restored:
        reporter.say(f"resumed   from step {step}")
    sizes = {player: sum(x.size for x in jax.tree.leaves(p)) for player, p in program.abstract.params.items()}
    reporter.say(f"players   {', '.join(f'{player} {size:,} parameters' for player, size in sizes.items())}")
    if experiment.ensemble:
        reporter.say(f"ensemble  {len(members)} members, apart in {', '.join(experiment.ensemble.varied)}")
    reporter.say(f"directory {directory}")

    sampler = Sampler(experiment.game) if data and experiment.game.samples else None
    evaluator = _evaluator(experiment, reporter)

    # 2. History up to here is kept, what lies after the checkpoint is cut off: it will be written again.
    journal.write("running", step=step)
    clock, trace = Clock(step), Trace(directory, options.profile, options.steps - step > program.steps_per_call)
    in_flight: list[tuple[int, Tree, Tree]] = []
    ends = processes.Agreement()

    def settle(pending: int) -> None:
        """Look at finished calls until ``pending`` are in flight; the device works on meanwhile."""
        while len(in_flight) > pending:
            at, metrics, finite = in_flight.pop(0)
            metrics, finite = jax.device_get((metrics, finite))
            clock.tick(at)
            for i, member in enumerate(members):
                member.look(at, program.of_member(metrics, i), program.of_member(finite, i), clock.rate)
            text = _summary(members, clock)
            reporter.update(at, text)
            if at % options.log_every == 0 or at == options.steps:
                reporter.logged(at, options.steps, text, clock.left(options.steps))

    def each(act: Callable[[Member, int, TrainState], None]) -> None:
        """Draw or save every member that still trains."""
        for i, member in enumerate(members):
            if member.going:
                act(member, step, program.member(state, i))

    def goes_on() -> bool:
        return any(member.going and member.improves for member in members)

    def due(every: int) -> bool:
        return bool(every) and step % every == 0

    # 3. The steps. Order of effects: compute, evaluate, look, draw, save. A checkpoint is only of a finite state.
    try:
        for member in members:
            member.begin(step, restored, sampler, evaluator)
        reporter.start(step, options.steps)
        while step < options.steps and not ends(bool(stop.received) or not goes_on()):
            length = program.next_length(step)
            trace.before_call(state)
            state, metrics, finite = program.run(state, step)
            step += length
            in_flight.append((step, metrics, finite))
            draw, keep = due(options.sample_every), due(options.checkpoint_every)
            judge = evaluator is not None and (due(options.eval_every) or step == options.steps)
            if draw:
                each(Member.sample)
            if judge:
                each(Member.evaluate)
            settle(0 if draw or keep or judge or step == options.steps or clock.first is None else 1)
            if draw and step < options.steps:
                each(Member.draw)
            if judge:
                each(Member.save_best)
            if keep and step < options.steps:
                each(Member.save)
            for member in members:
                member.check()
        settle(0)
        # 4. The end, whatever it is, leaves a checkpoint that was waited for and a grid, and figures of its own.
        trace.close(state)
        if step == options.steps:
            each(Member.conclude)
        each(Member.save)
        each(Member.draw)
        for member in members:
            member.finish()
        processes.wait()
    finally:
        reporter.stop()
        program.close()
        for member in members:
            member.close()

    over = "stopped" if step < options.steps and goes_on() else "finished"
    timing = {"seconds_to_first_call": clock.first, "steps_per_second": clock.rate}
    runs = []
    for i, member in enumerate(members):
        status, own = over if member.going else "diverged", program.member(state, i)
        final = member.end(status, step, own, **timing)
        exit_status = stop.exit_status if status == "stopped" else EXIT_STATUS[status]
        drawer = functools.partial(_samples, sampler, own) if sampler else None
        runs.append(
            Run(member.directory, status, step, final, exit_status, objective=member.best.value, _draw=drawer)
        )
    rate = f", {_speed(clock.rate)}" if clock.rate else ""
    first = f", first call after {clock.first:.1f} s" if clock.first is not None else ""
    status = over if any(member.going for member in members) else "diverged"
    reporter.say(f"{status:9} at step {step}{rate}{first}")
    if trace.path is not None:
        reporter.say(f"profile   {trace.path}")
    if experiment.ensemble is None:
        members[0].tell(reporter, runs[0].metrics)
        _report(experiment, directory, reporter)
        return runs[0]
    table = []
    for member, run, apart in zip(members, runs, experiment.ensemble.apart, strict=True):
        table.append({"directory": str(run.directory), "status": run.status, "apart": apart, "final": run.metrics})
        named = " ".join(f"{key}={value}" for key, value in apart.items())
        reporter.say(f"{run.status:9} {run.directory}  {named}  {_figures(run.metrics, member)}")
    journal.write(status, step=step, members=table, **timing)
    _report(experiment, directory, reporter)
    exit_status = stop.exit_status if status == "stopped" else EXIT_STATUS[status]
    return Run(directory, status, step, {}, exit_status, runs)


# -------------------------------------------------------------------------------------- parts of the story


def _start(program: CompiledSteps, members: list[Member]) -> tuple[int, Any, bool]:
    """The step and state to start from, and whether they come from checkpoints."""
    alive = [True] * len(members)
    states = processes.state_of_first(lambda: _restore(program, members, alive), [program.abstract] * len(members))
    if states is None:
        return 0, program.init(), False
    return int(states[0].step), program.assemble(states, alive), True


def _restore(program: CompiledSteps, members: list[Member], alive: list[bool]) -> list[TrainState] | None:
    """The members' states in the newest checkpoints that they can go on from together.

    A member that had diverged by then stays as it was: diverged, no longer ``alive``, and without a part in the
    steps to come. Where all had, each is tried again.
    """
    dead = [member for member in members if member.journal.before.get("status") == "diverged"]
    live = [member for member in members if member not in dead] or members
    abstract = program.abstract
    found = checkpoint.restore([(member.directory, member.identity) for member in live], abstract)
    if found is None:
        return None
    step, states = found
    own = dict(zip(map(id, live), states, strict=True))
    for i, member in enumerate(members):
        if id(member) in own:
            continue
        # A checkpoint of this very step is from before it diverged, as it then will again.
        again = checkpoint.restore([(member.directory, member.identity)], abstract, only=step)
        if again is None:
            alive[i] = False
            member.watch.recall(member.journal.before)
        own[id(member)] = again[1][0] if again else states[0]
    return [own[id(member)] for member in members]


def _evaluator(experiment: Experiment, reporter: Reporter) -> Evaluator | None:
    """What judges the samples while the run trains; its needs are checked, and the data's features had, now."""
    data, options = experiment.dataset, experiment.train
    if not experiment.metrics:
        return None
    assert data is not None
    extractor = experiment.features(data)
    evaluator = Evaluator(experiment.metrics, extractor, data, options.eval_samples, options.objective)
    named = ", ".join(experiment.metrics)
    reporter.say(f"evaluates {options.eval_samples:,} samples by {named} in {evaluator.features}")
    return evaluator


def _report(experiment: Experiment, directory: Path, reporter: Reporter) -> None:
    if experiment.train.report:
        reporter.say(f"report    {report.write(directory)}")


def _samples(sampler: Sampler, state: TrainState, n: int, seed: int) -> np.ndarray:
    return np.asarray(sampler(state, sampler.latents(seed, 0, n), sampler.labels(0, n)))


@contextlib.contextmanager
def _alone(directories: Sequence[Path]) -> Iterator[None]:
    """Hold the run's directories: two processes in one directory would corrupt it.

    The locks are the kernel's: they go with the process, however that ends.
    """
    with contextlib.ExitStack() as stack:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((directory / ".lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{directory}: another process is training in it.") from None
        yield


def _summary(members: list[Member], clock: Clock) -> str:
    """The players' losses, of an ensemble their means over the members that go on, and the speed."""
    going = [member for member in members if member.going] or members
    means = {
        player: float(np.mean([member.latest[f"{player}/loss"] for member in going]))
        for player in members[0].experiment.game.players
    }
    losses = "  ".join(f"{player} {mean:.4g}" for player, mean in means.items())
    if all("distance" in member.latest for member in going):  # to a known equilibrium
        losses += f"  distance {np.mean([member.latest['distance'] for member in going]):.4g}"
    many = f"{len(going)} of {len(members)} members  " if len(members) > 1 else ""
    return many + (f"{losses}  {_speed(clock.rate)}" if clock.rate else losses)


def _speed(rate: float) -> str:
    return f"{rate:,.0f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s"


def _figures(final: dict[str, float], member: Member) -> str:
    losses = {player: final.get(f"{player}/loss") for player in member.experiment.game.players}
    shown = [f"{player} {loss:.4g}" for player, loss in losses.items() if loss is not None]
    if "distance" in final:
        shown.append(f"distance {final['distance']:.4g}")
    if member.watch.suspicion:
        shown.append("collapse suspected")
    if member.spectrum:
        shown.append(member.spectrum["verdict"])
    if "modes" in final:
        shown.append(f"modes {final['modes']:.0f} of {final['modes_total']:.0f}, quality {final['quality']:.1%}")
    return "  ".join(shown)
