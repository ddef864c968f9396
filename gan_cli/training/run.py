"""The training loop: restores or initialises a run, makes its steps, records them and ends the run.

``train`` starts and ends a run of one GAN or of an ensemble, and calls ``_train``, which contains the loop. The
directory of the run contains everything that a resumed run needs. ``storage/README.md`` describes its files.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli.config import names, stored
from gan_cli.config.build import Experiment
from gan_cli.data import canaries
from gan_cli.data.features import described
from gan_cli.engine import processes
from gan_cli.engine.compiled_steps import CompiledSteps
from gan_cli.engine.state import TrainState
from gan_cli.errors import RunFailed, UserError
from gan_cli.metrics.evaluator import Evaluator
from gan_cli.privacy import noise_key
from gan_cli.storage import checkpoints, locks, provenance
from gan_cli.storage.checkpoints import Identity
from gan_cli.storage.run_directory import holds_run
from gan_cli.storage.run_record import RunRecord
from gan_cli.trained.sampling import TaskRunner, runners
from gan_cli.training import ensemble as ensembles
from gan_cli.training import init_from, tuning
from gan_cli.training.dry_run import write_documents
from gan_cli.training.monitors import Profiler, Throughput
from gan_cli.training.progress import Reporter
from gan_cli.training.recorder import RunRecorder
from gan_cli.training.signals import StopSignal
from gan_cli.types import Tree

log = logging.getLogger(__name__)
EXIT_STATUS = {"finished": 0, "failed": 1, "diverged": 3}


@dataclass
class Run:
    """The result of a run.

    Attributes:
        directory: the directory with the files of the run.
        status: finished, stopped, diverged or failed.
        step: the last step of the run.
        metrics: a mapping from the names of the last metrics to their values, including the metrics of the last
            samples. For an ensemble, the mapping is empty, and the members have metrics.
        exit_status: the exit status of ``gan-train``: 0 if the run finished, 3 if the run diverged, 130 if SIGINT
            stopped the run, and 143 if another signal stopped the run.
        members: a list with the result of each member of an ensemble; empty for a single run.
        objective: the best value of the metric that ``train.objective`` selects. The value is None for an ensemble
            and for a run without evaluations.
    """

    directory: Path
    status: str
    step: int
    metrics: dict[str, float]
    exit_status: int
    members: list[Run] = field(default_factory=list)
    objective: float | None = None
    _draw: Callable[[int, int], np.ndarray | dict[str, np.ndarray]] | None = field(default=None, repr=False)
    _tasks: tuple[str, ...] = field(default=(), repr=False)

    def sample(self, n: int, seed: int = 0) -> np.ndarray | dict[str, np.ndarray]:
        """Draw ``n`` samples with the task ``generate``, with the moving average of the parameters.

        Sample i of a seed is the same for every ``n``.

        Returns:
            An array ``[n, *shape]``, or a mapping from the names of columns to arrays ``[n]`` for tables. The
            values of images are in [-1, 1].

        Raises:
            ValueError: the run is an ensemble, the game does not generate samples, or this process is not the first
                process of the run.
        """
        if self._draw is None:
            if self.members:
                raise ValueError(
                    "This run is an ensemble. Draw samples from one of its members, e.g. run.members[0].sample(16)."
                )
            if not processes.is_primary():
                raise ValueError(
                    "Only the first process of a run can draw samples. Call sample() in the first process."
                )
            if self._tasks:
                raise ValueError(
                    f"The game of this run has no task generate. Its tasks are: {', '.join(self._tasks)}. Run one "
                    f"of them on data: gan-sample {self.directory} --task {self._tasks[0]} --input INPUT --out OUT."
                )
            raise ValueError("The game of this run does not generate samples. Use another game, e.g. game=gan.")
        return self._draw(n, seed)


def train(experiment: Experiment, directory: Path, origin: dict[str, Any], reporter: Reporter) -> Run:
    """Train a run until it finishes, stops or diverges, and return its result.

    The run continues from the newest checkpoint in ``directory``. Without a checkpoint, it starts at step 0.

    Args:
        experiment: the networks, data and options of the run.
        directory: the directory of the run.
        origin: entries of ``run.json``: the command line that started the run, and the options whose values differ
            from the default.
        reporter: prints the progress.

    Raises:
        UserError: the checkpoints in the directory were saved with another configuration, data set or architecture,
            or another process trains in the directory.
        RunFailed: an error of another kind ended the run, e.g. a full disk. ``run.json`` then contains the status
            ``failed``.
    """
    checkpoints.check_path(directory)
    ensemble = experiment.ensemble
    places = ensembles.directories(directory, len(ensemble.members)) if ensemble else []
    with contextlib.ExitStack() as stack, StopSignal() as stop:
        processes.run_on_all(lambda: stack.enter_context(_alone([directory, *places])))
        data = _fingerprint(experiment)
        key = _noise_key(experiment, directory, data)
        record, identity = _record(directory, experiment, origin, data, key)
        if ensemble:
            members = [
                RunRecorder(member, place, *_record(place, member, origin, data, key))
                for member, place in zip(ensemble.members, places, strict=True)
            ]
        else:
            members = [RunRecorder(experiment, directory, record, identity)]
        try:
            run = _train(experiment, directory, record, members, reporter, stop, key)
        except BaseException as error:
            facts = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            for failed in {id(one): one for one in (record, *(m.record for m in members))}.values():
                # If the user's input was refused before this process wrote ``run.json``, the status of the run that
                # the directory already contains must not change.
                if failed.written or not isinstance(error, UserError):
                    with contextlib.suppress(OSError):  # a full disk must not hide the first error
                        failed.write("failed", **facts)
            if isinstance(error, UserError | RunFailed) or not isinstance(error, Exception):
                raise
            raise RunFailed(_explain(error, directory)) from error
    # The run is saved, so the signal handlers that were installed before training can be called now.
    stop.pass_on()
    return run


def follow(experiment: Experiment, directory: Path) -> Run:
    """Train in a process that writes no files, as part of a run of several processes.

    The first process of the run executes ``train``, which writes the files of the run. Every other process executes
    this function. All processes make the same calls of the compiled program.

    Raises:
        UserError: the first process refused to train, or the processes have different data.
        RunFailed: an error ended this process or another process of the run.
    """
    options = experiment.train
    with StopSignal() as stop:
        try:
            processes.run_on_all(lambda: None)  # raises if the first process could not lock the directory
            key = _noise_key(experiment, directory, _fingerprint(experiment))
            steps = experiment.compile(noise_key.key_of(key) if key else None)
            steps.use(processes.broadcast_from_primary(dict))
            try:
                restored = processes.broadcast_state_from_primary(lambda: None, [steps.abstract])
                state = steps.init() if restored is None else steps.assemble(restored, [True])
                step, agree_to_stop = int(state.step), processes.Agreement()
                while step < options.steps and not agree_to_stop(bool(stop.received)):
                    state, _, _ = steps.run(state, step)
                    step += steps.next_length(step)
                processes.barrier()
            finally:
                steps.close()
        except (UserError, RunFailed):
            raise
        except Exception as error:
            raise RunFailed(_explain(error, directory)) from error
    stop.pass_on()
    over = step < options.steps and stop.received
    return Run(directory, "stopped" if over else "finished", step, {}, stop.exit_status if over else 0)


def _fingerprint(experiment: Experiment) -> str | None:
    """The fingerprint of the data, or None without data.

    Raises:
        UserError: the processes of the run have different data.
    """
    data = experiment.dataset.fingerprint() if experiment.dataset else None
    processes.check_same("data", data or "none")
    return data


def _noise_key(experiment: Experiment, directory: Path, data: str | None) -> list[int] | None:
    """The words of the noise key of a private run, the same in all processes. None without private training.

    Raises:
        UserError: the run has begun, and its key is missing or was drawn for other data.
    """
    if experiment.ledger is None or data is None:
        return None

    def words() -> list[int]:
        if experiment.has_secret_seed:
            return noise_key.words_of_seed(experiment.seed, experiment.fingerprint, data)
        assert experiment.dataset is not None and data is not None
        return noise_key.words_of(directory, (data, *experiment.dataset.earlier), holds_run(directory))

    found: list[int] = processes.broadcast_from_primary(words)
    return found


def _record(
    directory: Path, experiment: Experiment, origin: dict[str, Any], data: str | None, key: list[int] | None
) -> tuple[RunRecord, Identity]:
    """A pair: the writer of ``run.json``, and the fingerprints that the run's checkpoints must have.

    Args:
        key: the words of the noise key of a private run, or None. The fingerprint of private data is keyed.
    """
    dataset, ledger = experiment.dataset, experiment.ledger
    record = RunRecord(
        directory,
        origin
        | {
            "seed": experiment.seed,
            **provenance.facts(experiment.devices.used),
            "fingerprint": experiment.fingerprint,
            "config": names.encode(experiment.config),
            # The features of the examples, so that gan-sample can build the networks without the data.
            "spec": described(dataset.spec) if dataset else None,
            "data": dataset.contents() if dataset else None,
        },
    )
    earlier = stored.earlier_fingerprints(record.before, experiment.config)
    earlier = tuple(one for one in dict.fromkeys(earlier) if one != experiment.fingerprint)
    record.note(earlier_fingerprints=earlier)
    before, hint = (dataset.earlier, dataset.hint) if dataset else ((), "")
    if ledger is not None and key is not None and data is not None:
        record.note(privacy=ledger.facts(ledger.reached(record.before)))
        data, before = noise_key.sealed(data, key), tuple(noise_key.sealed(one, key) for one in before)
    return record, Identity(experiment.fingerprint, data, earlier, before, hint)


def _explain(error: Exception, directory: Path) -> str:
    """A message with the error, the line of code that raised the error, and a remedy if one is known."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or directory}"
    first = (str(error).strip() or "no message").splitlines()[0][:300]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    advice = "\nTry a smaller train.batch_size, model or data set." if "RESOURCE_EXHAUSTED" in first else ""
    if jax.process_count() > 1:
        number, count = jax.process_index(), jax.process_count()
        advice += f"\nThis is process {number} of {count}. Another process may have failed first."
    return (
        f"{type(error).__name__}: {first}\n"
        f"at {frame.filename}:{frame.lineno}; the traceback is in {directory / 'run.json'}.{advice}"
    )


def _train(
    experiment: Experiment,
    directory: Path,
    record: RunRecord,
    members: list[RunRecorder],
    reporter: Reporter,
    stop: StopSignal,
    key: list[int] | None,
) -> Run:
    options, data = experiment.train, experiment.dataset
    reporter.say(f"device    {provenance.summary(experiment.devices.used)}")
    if options.precision == "bfloat16" and experiment.devices.used[0].platform == "cpu":
        reporter.say("precision bfloat16 is usually slower than float32 on a CPU (about 0.7 times the speed)")
    reporter.say(f"data      {data.summary if data else 'none'}")
    # Data that come with the package need no description.
    for line in data.lines() if data and (data.notes or data.passed_over or data.copies) else ():
        reporter.say(line)

    # 1. Start from the newest valid checkpoint, or initialise from the seed. The steps are not compiled yet.
    steps = experiment.compile(noise_key.key_of(key) if key else None)
    records = [record, *(member.record for member in members)]
    tuning.keep(steps, records, record.before, reporter)
    step, state, restored = _start(steps, experiment, members, reporter)
    if restored:
        reporter.say(f"resumed   from step {step}")
    sizes = {player: sum(x.size for x in jax.tree.leaves(p)) for player, p in steps.abstract.params.items()}
    reporter.say(f"players   {', '.join(f'{player} {size:,} parameters' for player, size in sizes.items())}")
    if experiment.ensemble:
        reporter.say(f"ensemble  {len(members)} members that differ in {', '.join(experiment.ensemble.varied)}")
    for line in _privacy(experiment):
        reporter.say(line)
    if experiment.config["game"].get("pretrain_steps", 0) >= options.steps:
        reporter.warn(
            f"game.pretrain_steps is at least train.steps={options.steps}, so the discriminator is never trained. "
            "Set a larger train.steps."
        )
    reporter.say(f"directory {directory}")

    if not record.before and options.tune != "off":
        tuning.tune(steps, state, options, records, reporter)

    tasks = runners(experiment.game) if data else {}
    evaluator = _evaluator(experiment, reporter)

    # 2. Prepare the records. Each member's recorder keeps the records up to ``step`` and removes later records,
    # because the run repeats the later steps.
    record.write("running", step=step)
    if data:
        write_documents(data, directory)
    if data and data.planted:
        canaries.write(directory, data.planted)
    throughput = Throughput(step)
    profiler = Profiler(directory, options.profile, options.steps - step > steps.steps_per_call)
    in_flight: list[tuple[int, Tree, Tree]] = []
    finite: Tree = None
    agree_to_stop = processes.Agreement()

    def settle(pending: int) -> None:
        """Record the results of calls of the compiled program, until at most ``pending`` calls are unrecorded."""
        while len(in_flight) > pending:
            at, metrics, finite = in_flight.pop(0)
            metrics, finite = jax.device_get((metrics, finite))
            throughput.tick(at)
            for i, member in enumerate(members):
                member.record_call(at, steps.of_member(metrics, i), steps.of_member(finite, i), throughput.rate)
            text = _summary(members, throughput)
            reporter.update(at, text)
            if at % options.log_every == 0 or at == options.steps:
                reporter.logged(at, options.steps, text, throughput.left(options.steps))

    def each(act: Callable[[RunRecorder, int, TrainState], None]) -> None:
        """Call ``act`` with the recorder, the step and the state of every member that still trains."""
        for i, member in enumerate(members):
            if member.training:
                act(member, step, steps.member(state, i))

    def save_all() -> None:
        """Start saving the state of every member, after all members have completed their previous checkpoint."""
        for member in members:
            member.saver.wait()
        each(RunRecorder.save)

    def any_training() -> bool:
        return any(member.training and member.improving for member in members)

    def due(every: int) -> bool:
        return bool(every) and step % every == 0

    def rescue() -> None:
        """After a failure, save the state after the last completed call, unless it is already saved.

        Further failures are only logged, so that they do not hide the first failure.
        """
        if step == start or any(leaf.is_deleted() for leaf in jax.tree.leaves(state)):
            return  # the failed call of the compiled program has consumed the state
        with contextlib.suppress(Exception):  # the first failure may be a failure of recording
            settle(0)
        for i, member in enumerate(members):
            try:
                if member.training and all(jax.device_get(steps.of_member(finite, i)).values()):
                    member.rescue(step, steps.member(state, i))
            except Exception as error:
                log.warning("%s: the state of step %d could not be saved (%s).", member.directory, step, error)

    # 3. Make the steps. After each call of the compiled program, the loop evaluates, records, writes pictures and
    # saves, in this order. Only states without NaN or infinity are saved.
    start = step
    try:
        # Because the members save one after the other, they need two checkpoints to always have a common step.
        keep = options.keep if len(members) == 1 else max(options.keep, 2)
        for member in members:
            member.begin(step, restored, tasks, evaluator, keep)
        reporter.start(step, options.steps)
        while step < options.steps and not agree_to_stop(bool(stop.received) or not any_training()):
            length = steps.next_length(step)
            profiler.before_call(state)
            state, metrics, finite = steps.run(state, step)
            step += length
            in_flight.append((step, metrics, finite))
            draw, save = due(options.sample_every), due(options.checkpoint_every)
            evaluates = evaluator is not None and (due(options.eval_every) or step == options.steps)
            if draw:
                each(RunRecorder.sample)
            if evaluates:
                each(RunRecorder.evaluate)
            settle(0 if draw or save or evaluates or step == options.steps or throughput.first is None else 1)
            if draw and step < options.steps:
                each(RunRecorder.draw)
            if evaluates:
                each(RunRecorder.save_best)
            if save and step < options.steps:
                save_all()
            for member in members:
                member.check(step)
        settle(0)
        # 4. End the run. A finished run and a stopped run both end with a checkpoint and a picture. The metrics of
        # the last step are computed only for a finished run.
        profiler.close(state)
        if step == options.steps:
            each(RunRecorder.evaluate_end)
        save_all()
        each(RunRecorder.draw)
        for member in members:
            member.finish()
        processes.barrier()
    except Exception:  # a second Ctrl-C (KeyboardInterrupt) ends the process without saving
        rescue()
        raise
    finally:
        reporter.stop()
        steps.close()
        for member in members:
            member.close()

    over = "stopped" if step < options.steps and any_training() else "finished"
    timing = {"seconds_to_first_call": throughput.first, "steps_per_second": throughput.rate}
    runs = []
    for i, member in enumerate(members):
        status, member_state = over if member.training else "diverged", steps.member(state, i)
        final = member.end(status, step, member_state, **timing)
        exit_status = stop.exit_status if status == "stopped" else EXIT_STATUS[status]
        drawer = functools.partial(_samples, tasks["generate"], member_state) if "generate" in tasks else None
        runs.append(
            Run(
                member.directory, status, step, final, exit_status,
                objective=member.objective.value, _draw=drawer, _tasks=tuple(tasks),
            )
        )  # fmt: skip
    rate = f", {_speed(throughput.rate)}" if throughput.rate else ""
    first = (
        f", first steps after {throughput.first:.1f} s, compilation included"
        if throughput.first is not None
        else ""
    )
    status = over if any(member.training for member in members) else "diverged"
    reporter.say(f"{status:9} at step {step}{rate}{first}")
    if profiler.path is not None:
        reporter.say(f"profile   {profiler.path}")
    if experiment.ensemble is None:
        members[0].report(reporter, runs[0].metrics)
        _report(experiment, directory, reporter)
        return runs[0]
    results = [(run.status, run.metrics) for run in runs]
    table = ensembles.report(reporter, members, experiment.ensemble.overrides, results)
    record.write(status, step=step, members=table, **timing)
    _report(experiment, directory, reporter)
    exit_status = stop.exit_status if status == "stopped" else EXIT_STATUS[status]
    return Run(directory, status, step, {}, exit_status, runs)


# --------------------------------------------------------------------------------- parts of the training loop


def _start(
    steps: CompiledSteps, experiment: Experiment, members: list[RunRecorder], reporter: Reporter
) -> tuple[int, Tree, bool]:
    """A tuple: the step and the state from which the run starts, and whether the run resumes from a checkpoint."""
    alive, restored = [True] * len(members), False

    def first_states() -> list[TrainState] | None:
        nonlocal restored
        found = _restore(steps, members, alive)
        restored = found is not None
        for member in members:
            _check_repeats(member, int(found[0].step) if found else 0)
        return found or _initial(experiment, members, reporter)

    states = processes.broadcast_state_from_primary(first_states, [steps.abstract] * len(members))
    if states is None:
        return 0, steps.init(), False
    return int(states[0].step), steps.assemble(states, alive), restored


def _initial(experiment: Experiment, members: list[RunRecorder], reporter: Reporter) -> list[TrainState] | None:
    """The members' states with the parameters that ``init_from`` provides, or None if ``init_from`` is null."""
    transferred = init_from.transfer(experiment)
    if transferred is None:
        return None
    for line in transferred.lines():
        reporter.say(line)
    for member in members:
        member.record.note(init=transferred.facts())
    return init_from.first_states(transferred, [member.experiment for member in members])


def _restore(steps: CompiledSteps, members: list[RunRecorder], alive: list[bool]) -> list[TrainState] | None:
    """The members' states at the newest step for which all members that have not diverged have a checkpoint.

    If a diverged member has no checkpoint of this step, it stays diverged. Its entry in ``alive`` becomes False,
    and the run trains without this member. If all members have diverged, the function treats them as members that
    have not diverged, so that they can train again.

    Returns:
        A list with one state for each member, or None if there is no such step.
    """
    diverged = [member for member in members if member.record.before.get("status") == "diverged"]
    live = [member for member in members if member not in diverged] or members
    found = checkpoints.restore([(member.directory, member.identity) for member in live], steps.abstract)
    if found is None:
        _check_that_nothing_is_lost(live)
        return None
    step, restored = found
    by_member = dict(zip(map(id, live), restored, strict=True))
    states = []
    for i, member in enumerate(members):
        if id(member) not in by_member:
            # A member with a checkpoint of this step diverged at a later step. The member resumes from the
            # checkpoint and diverges again.
            again = checkpoints.restore([(member.directory, member.identity)], steps.abstract, only=step)
            if again is None:
                alive[i] = False
                member.divergence.restore(member.record.before)
                states.append(restored[0].state)
                continue
            by_member[id(member)] = again[1][0]
        member.monitors = by_member[id(member)].monitors
        states.append(by_member[id(member)].state)
    return states


def _check_repeats(member: RunRecorder, step: int) -> None:
    """Raise a UserError if a private run would repeat steps, and the repeated steps could be rounded differently.

    A killed run repeats the steps after its newest checkpoint. The repetition has the same noise, so it tells
    nothing new only if it is bit-identical.
    """
    ledger, record, directory = member.experiment.ledger, member.record, member.directory
    told = 0 if ledger is None else ledger.reached(record.before)
    if step >= told:
        return
    before, now = provenance.rounding(record.before), provenance.rounding(record.facts)
    if changed := [f"{name} {before[name]} instead of {now[name]}" for name in now if before[name] != now[name]]:
        raise UserError(
            f"{directory}: the private run has to repeat the steps {step + 1} to {told}, and with another rounding "
            f"their noise would partly cancel. Resume the run as before, with {', '.join(changed)}, or continue in "
            f"a new run with init_from={directory}, which adds its own epsilon."
        )


def _check_that_nothing_is_lost(members: list[RunRecorder]) -> None:
    """Raise a UserError if runs without a checkpoint to restore have saved checkpoints earlier.

    The runs would otherwise start again at step 0. A run that was killed before its first checkpoint may do this.
    """
    if any(member.record.before and not member.has_saved for member in members):
        return
    folders = [checkpoints.newest_folder(member.directory) for member in members if member.has_saved]
    if folders:
        folder = min(folders, key=lambda folder: len(checkpoints.steps(folder)))
        raise UserError(
            f"{folder}: contains no checkpoint to resume from, although the run has saved one. The run would start "
            "again at step 0, and replace its metrics and pictures. Copy the checkpoints back into the folder. To "
            "train again from step 0, start a new run under another name, e.g. name=again."
        )


def _evaluator(experiment: Experiment, reporter: Reporter) -> Evaluator | None:
    """The object that evaluates the run's samples, or None without metrics.

    Creating the evaluator computes the features of the data.

    Raises:
        UserError: a metric cannot be computed with the data or the features of this run.
    """
    data, options = experiment.dataset, experiment.train
    if not experiment.metrics:
        return None
    assert data is not None
    n, objective, tasks = options.eval_samples, options.objective, experiment.game.tasks
    evaluator = Evaluator(experiment.metrics, experiment.targets, data, n, objective, tasks=tasks)
    metrics, features = ", ".join(experiment.metrics), evaluator.features
    translations = ", ".join(name for name, target in evaluator.targets.items() if target.sources)
    if features == "none":
        reporter.say(f"evaluates {metrics} on {evaluator.reference}")
    elif translations:
        reporter.say(f"evaluates {translations} of {evaluator.samples:,} images by {metrics} in {features}")
    else:
        reporter.say(f"evaluates {options.eval_samples:,} samples by {metrics} in {features}")
    return evaluator


def _privacy(experiment: Experiment) -> list[str]:
    """Lines that state the guarantee of a private run, and what limits its length."""
    ledger, steps, asked = experiment.ledger, experiment.train.steps, experiment.config["train"]["steps"]
    if ledger is None:
        return []
    lines = [f"privacy   {ledger.line(steps)}"]
    lines += [f"init      {one.reason}" for one in experiment.leaks if one.reader == "init_from"]
    if steps < asked:
        lines.append(
            f"budget    training stops at step {steps:,} of {asked:,}, because the next step would exceed "
            f"estimator.target_epsilon={ledger.target_epsilon:g}"
        )
    if experiment.has_secret_seed:
        lines.append(
            "seed      the noise derives from the seed, so the guarantee holds only while the seed is secret"
        )
    return lines


def _report(experiment: Experiment, directory: Path, reporter: Reporter) -> None:
    if experiment.train.report:
        from gan_cli.views import report  # not above, because the modules that draw would delay the first call

        reporter.say(f"report    {report.write(directory)}")


def _samples(runner: TaskRunner, state: TrainState, n: int, seed: int) -> np.ndarray | dict[str, np.ndarray]:
    samples = runner(state, runner.inputs(seed, 0, n), seed)[runner.main]
    return runner.task.outputs[runner.main].values(np.asarray(samples))


@contextlib.contextmanager
def _alone(directories: Sequence[Path]) -> Iterator[None]:
    """A context manager that locks directories, so that no other process can train in them at the same time.

    If the file system has no locks, the context manager only logs a warning.

    Raises:
        UserError: another process has locked one of the directories.
    """
    with contextlib.ExitStack() as stack:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locks.acquire(directory))
            except locks.NoLocks as error:
                from gan_cli.storage import orbax_files  # not above, because it loads Orbax

                log.warning(
                    "%s: the file system has no locks (%s), so a second process that trains in this directory is "
                    "not detected. Start only one process for each directory.",
                    directory,
                    error.strerror,
                )
                orbax_files.save_without_locks()
                break  # the other directories are on the same file system
            except locks.Held:
                raise UserError(
                    f"{directory}: another process is training in this directory. "
                    "Wait until the process ends, or train in another directory, e.g. with name=NAME."
                ) from None
        yield


def _summary(members: list[RunRecorder], throughput: Throughput) -> str:
    """The players' losses and the speed, as text. Losses of an ensemble are means over the members in training."""
    training = [member for member in members if member.training] or members
    means = {
        player: float(np.mean([member.latest[f"{player}/loss"] for member in training]))
        for player in members[0].experiment.game.players
    }
    losses = "  ".join(f"{player} {mean:.4g}" for player, mean in means.items())
    if all("distance" in member.latest for member in training):  # the distance to a known equilibrium
        losses += f"  distance {np.mean([member.latest['distance'] for member in training]):.4g}"
    many = f"{len(training)} of {len(members)} members  " if len(members) > 1 else ""
    return many + (f"{losses}  {_speed(throughput.rate)}" if throughput.rate else losses)


def _speed(rate: float) -> str:
    return f"{rate:,.0f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s"
