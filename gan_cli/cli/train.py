"""The command ``gan-train``, which composes and checks a configuration, and then trains a run or a sweep.

All errors in the input are reported before the directory of a run is made and before its steps are compiled. Errors
that can be detected without the data are reported before JAX is imported.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_cli.cli import hydra_settings
from gan_cli.cli.shell import check_target, exit_code, one_of_several, prepare_jax, version_text
from gan_cli.errors import RunFailed, UserError
from gan_cli.storage.run_directory import holds_run

if TYPE_CHECKING:
    from gan_cli.config.build import Experiment
    from gan_cli.training.run import Run


def train(overrides: Sequence[str] = (), *, config_dir: str | None = None, quiet: bool = False) -> Run:
    """Train a run, as the command ``gan-train`` does with the same overrides.

    Args:
        overrides: the arguments of the command line, e.g. ``["model=mlp", "optim=adam"]``.
        config_dir: a folder with your own configuration files, or None.
        quiet: whether to print warnings only.

    Returns:
        The result of the run. ``gan_cli.training.run.Run`` documents its attributes.

    Raises:
        UserError: the input is wrong. The message names the option and a remedy.
        RunFailed: an error ended the run after training had started.
    """
    from gan_cli.config import compose, quoting

    run = _single([*quoting.as_typed(overrides), *compose.search_path(config_dir)], quiet=quiet, log=False)
    if run is None:
        raise UserError(
            "dry_run=true: trains nothing, so there is no run to return. Use the command line: "
            "gan-train dry_run=true."
        )
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gan-train`` with the arguments of a command line, and return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    status = exit_code("gan-train", lambda: _main(arguments))
    if status in (1, 2) and "gan_cli.engine.processes" in sys.modules:
        from gan_cli.engine import processes

        processes.exit_without_barrier(status)
    return status


def _main(arguments: list[str]) -> int:
    from hydra._internal.utils import get_args_parser

    if "--version" in arguments:  # Hydra's parser would print Hydra's version
        print(version_text("gan-train"))
        return 0
    flags = get_args_parser().parse_intermixed_args(arguments)  # accepts flags before and after overrides
    hydra_settings.check_flags(flags)
    if flags.help:
        from gan_cli.cli.help import print_help

        print_help(flags.overrides, flags.config_dir)
        return 0
    if flags.hydra_help or flags.info is not None or flags.shell_completion:
        hydra_flags = [argument for argument in arguments if argument not in flags.overrides]
        return _ask_hydra([*hydra_flags, *flags.overrides])
    from gan_cli.config import compose, quoting

    overrides = quoting.as_typed(flags.overrides, sweep=flags.multirun)
    overrides += compose.search_path(flags.config_dir)
    if flags.cfg:
        _print_configuration(overrides, flags.cfg, flags.package, flags.resolve, flags.multirun)
        return 0
    from gan_cli.training.progress import optional_output

    with optional_output():
        if flags.multirun:
            return _sweep(overrides)
        run = _single(overrides)
        return run.exit_status if run else 0


def _single(overrides: list[str], quiet: bool = False, log: bool = True) -> Run | None:
    """Train the run that ``overrides`` describe, and return the result of the run; None after a dry run."""
    from hydra.core.utils import env_override
    from omegaconf import open_dict

    from gan_cli.config import check, compose

    with compose.session() as hydra:
        parsed = compose.parse(hydra, overrides)
        composed = compose.compose(hydra, overrides)
        hydra_settings.check_settings(parsed, composed, sweep=False)
        modules = compose.modules(parsed, composed)
        with compose.translated(hydra):
            directory, continues = _directory(composed, parsed)
        if continues:
            checked = check.check(_merged(hydra, composed, parsed, directory, modules), modules)
            # .hydra/ keeps the files that the first start of the run wrote.
            with open_dict(composed):
                composed.hydra.output_subdir = None
        else:
            checked = check.check(compose.ours(composed), modules)
            _check_new(directory, checked, parsed)
        with env_override(dict(composed.hydra.job.env_set)):  # JAX reads its variables when it is imported
            return _prepared(hydra, composed, parsed, checked, (directory, continues), quiet, log)


def _prepared(
    hydra: Any,
    composed: Any,
    parsed: list[Any],
    checked: dict[str, Any],
    place: tuple[Path, bool],
    quiet: bool,
    log: bool,
) -> Run | None:
    """Build the run of a checked configuration and train it, or describe it if the run is a dry run.

    Args:
        hydra: Hydra in the session that composed the configuration.
        composed: the composed configuration, including the ``hydra`` node.
        parsed: the parsed overrides on the command line.
        checked: the checked configuration.
        place: a pair: the directory of the run, and whether the command continues a run in this directory.
        quiet: whether to print warnings only.
        log: whether to configure Python's logging, which writes the log file of the run.
    """
    options = checked["train"]
    prepare_jax(join=options["devices"] != 1 and one_of_several(), cores=options["ensemble"] is not None)
    from gan_cli.engine import processes
    from gan_cli.privacy.leaks import Refused, lines
    from gan_cli.training.progress import Reporter

    # All processes use the directory of the first process, because their clocks may differ.
    named, continues, checked = processes.broadcast_from_primary(lambda: (str(place[0]), place[1], checked))
    directory = Path(named)
    reporter = Reporter(quiet or not processes.is_primary())
    try:
        experiment = processes.run_on_all(lambda: _built(checked, directory if continues else None))
    except Refused as error:
        for line in lines(error.verdicts) if checked["dry_run"] else ():
            reporter.say(line)
        raise
    if checked["dry_run"]:
        _dry_run(experiment, directory, reporter)
        return None
    if not continues:
        from gan_cli.training import init_from

        processes.broadcast_from_primary(lambda: init_from.transfer(experiment) is not None)
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    ours = not continues and (directory in missing or not _is_fixed(checked["name"], parsed))
    if not continues:
        directory = Path(processes.broadcast_from_primary(lambda: str(_new(directory, checked, parsed))))
    if not processes.is_primary():
        from gan_cli.training.run import follow

        return follow(experiment, directory)
    try:
        return _job(hydra, composed, parsed, experiment, directory, reporter, log)
    except UserError:
        if ours and not holds_run(directory):  # refused before the run has begun
            _unmake(directory, missing)
        raise


def _built(checked: dict[str, Any], resumes: Path | None) -> Experiment:
    """The experiment of a checked configuration. ``resumes`` is the directory of the run to resume, if any.

    The first process, which evaluates and logs, also checks the metrics and, for a new run, the loggers. A resumed
    run trains on without a logger that no longer works.
    """
    from gan_cli.config.build import build
    from gan_cli.engine import processes
    from gan_cli.loggers import check_packages

    experiment = build(checked, resumes=resumes)
    if processes.is_primary():
        experiment.check_evaluation()
        if resumes is None:
            check_packages(experiment.loggers)
    return experiment


def _job(
    hydra: Any,
    composed: Any,
    parsed: list[Any],
    experiment: Experiment,
    directory: Path,
    reporter: Any,
    log: bool,
) -> Run:
    """Train the run as a job of Hydra, which writes ``.hydra/``, configures the log and calls the callbacks."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import run_job
    from hydra.types import HydraContext
    from omegaconf import open_dict

    from gan_cli.config import check, compose, identity
    from gan_cli.training.run import train as run

    with open_dict(composed):
        composed.hydra.run.dir = str(directory)
    default = check.check(compose.ours(compose.compose(hydra, [])))
    origin = {
        "command": ["gan-train", *(override.input_line for override in parsed)],
        "differences": identity.differences(default, experiment.config),
    }
    raised: list[Exception] = []

    def task(_: Any) -> Run:
        try:
            return run(experiment, directory, origin, reporter)
        except Exception as error:
            raised.append(error)
            raise

    callbacks = Callbacks(composed)
    callbacks.on_run_start(config=composed, config_name=compose.CONFIG_NAME)
    try:
        job = run_job(
            task_function=task,
            config=composed,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
            configure_logging=log,
        )
    except ValueError as error:
        if isinstance(error.__cause__, OSError):  # the log file cannot be written
            raise error.__cause__ from None
        raise
    callbacks.on_run_end(config=composed, config_name=compose.CONFIG_NAME, job_return=job)
    if raised:  # Hydra would print advice about its internals before it raises the error
        raise raised[0]
    run_of_job: Run = job.return_value
    return run_of_job


def _merged(
    hydra: Any, composed: Any, parsed: Sequence[Any], directory: Path, modules: Sequence[str]
) -> dict[str, Any]:
    """The configuration of a resumed run.

    The stored options apply, except that the command line replaces options that a resumed run may change.
    """
    from gan_cli.cli import resume
    from gan_cli.config import check, compose, stored

    earlier = stored.load(resume.read(directory), modules)
    now = check.with_defaults(check.resolve(compose.ours(composed)), modules)
    merged = resume.merge(earlier, now, parsed, lambda override: compose.is_group(hydra, override))
    return merged | {"modules": list(modules)}


def _print_configuration(
    overrides: list[str], part: str, package: str | None, resolve: bool, multirun: bool
) -> None:
    """Print the configuration that ``overrides`` describe as YAML.

    Args:
        overrides: the overrides on the command line.
        part: the value of ``--cfg``: "job" for gan-train's options, "hydra" for Hydra's options, "all" for both.
        package: the dotted key of the group or option to print. With None, all options are printed.
        resolve: whether to replace interpolations such as ``${oc.env:HOME}`` by their values.
        multirun: whether the configuration describes a sweep.
    """
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from gan_cli.config import compose

    with compose.session() as hydra:
        composed = compose.compose(hydra, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
        parsed = compose.parse(hydra, overrides)
        parts = {"job": compose.ours(composed), "hydra": OmegaConf.masked_copy(composed, ["hydra"])}
        config = parts.get(part, composed)
        directory, continues = _directory(composed, parsed) if part == "job" and not multirun else (None, False)
        if directory is not None and continues:
            config = OmegaConf.create(
                _merged(hydra, composed, parsed, directory, compose.modules(parsed, composed))
            )
        with compose.translated(hydra):
            if resolve:
                OmegaConf.resolve(config)
            if package is not None:
                selected = OmegaConf.select(config, package)
                if selected is None:
                    raise UserError(
                        f"--package {package}: the configuration has no such key. Leave out --package to see all "
                        "keys."
                    )
                config = selected
    print(OmegaConf.to_yaml(config).rstrip() if OmegaConf.is_config(config) else config)


def _directory(composed: Any, parsed: Sequence[Any]) -> tuple[Path, bool]:
    """A pair: the directory of the run, and whether the command continues a run in this directory."""
    asked, name = composed.resume, composed.name
    for key, value in (("resume", asked), ("name", name)):
        if value is not None and not isinstance(value, str | int):
            raise UserError(f"{key}={value}: must be text, e.g. {key}=digits.")
    asked, name = (None if value is None else str(value) for value in (asked, name))
    if name is not None and (Path(name).is_absolute() or ".." in Path(name).parts or not name.strip("/. ")):
        raise UserError(
            f"name={name}: must consist of directory names, e.g. name=digits for the directory outputs/digits."
        )
    if asked not in (None, "auto"):
        if name is not None:
            raise UserError(f"resume={asked}: already selects the run. Leave out name={name}.")
        if any(override.key_or_group == "hydra.run.dir" for override in parsed):
            raise UserError(f"resume={asked}: already selects the run. Leave out hydra.run.dir.")
        return Path(asked), True
    directory = Path(str(composed.hydra.run.dir))
    if asked == "auto":
        if not _is_fixed(name, parsed):
            raise UserError(
                "resume=auto: needs name=NAME. Without a name, every start creates a new directory, named after "
                "the start time, so there is no run to resume."
            )
        return directory, holds_run(directory)
    return directory, False


def _is_fixed(name: str | None, parsed: Sequence[Any]) -> bool:
    """Whether the user chose the run's directory. Otherwise, the directory is named after the start time."""
    return name is not None or any(override.key_or_group == "hydra.run.dir" for override in parsed)


def _check_new(directory: Path, checked: dict[str, Any], parsed: Sequence[Any]) -> None:
    """Raise a UserError if the directory of a new run cannot be made, or contains a run that the user chose."""
    hydra_settings.check_directory(directory)
    if _is_fixed(checked["name"], parsed) and holds_run(directory):
        raise UserError(
            f"{directory}: holds a run already. Continue the run with resume=auto, or choose another name."
        )
    check_target(directory / "run.json")


def _new(directory: Path, checked: dict[str, Any], parsed: Sequence[Any]) -> Path:
    """Make the directory of a new run, and return its path.

    If the user did not choose the directory, two runs that start in the same second get different directories.
    """
    from gan_cli.config import compose

    if not _is_fixed(checked["name"], parsed):
        return compose.claim(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _dry_run(experiment: Experiment, directory: Path, reporter: Any) -> None:
    """Print a description of the run, and write a picture of the examples that the networks would receive."""
    from gan_cli.training import dry_run

    for line in dry_run.describe(experiment):
        reporter.say(line)
    reporter.say(f"directory {directory} (not made)")
    if experiment.dataset is not None and not experiment.dataset.private:
        reporter.say(
            f"data as the networks receive them: {dry_run.draw(experiment, Path('outputs') / 'dry_run.png')}"
        )
        for file in dry_run.write_documents(experiment.dataset, Path("outputs")):
            reporter.say(f"{file.stem} of the data: {file}")


def _sweep(overrides: list[str]) -> int:
    """Run all jobs of a sweep, print a table of their results, and return the exit status."""
    from hydra.types import RunMode

    from gan_cli.cli import launcher
    from gan_cli.cli.launcher import ProcessLauncher, SweepStopped
    from gan_cli.cli.sweep import Sweep, alone, followed, settle
    from gan_cli.config import check, compose
    from gan_cli.config.quoting import quoted

    if one_of_several():
        raise UserError("--multirun: start a sweep in one process, because each process would run the whole sweep.")
    launcher.register()
    with compose.session() as hydra, contextlib.ExitStack() as stack:
        parsed = compose.parse(hydra, overrides)
        composed = compose.compose(hydra, overrides, RunMode.MULTIRUN)
        hydra_settings.check_settings(parsed, composed, sweep=True)
        named = {override.key_or_group: override for override in parsed}
        if "resume" in named and named["resume"].value() != "auto":
            raise UserError("resume=DIR: continues one run. To continue a sweep, use name=NAME resume=auto.")
        fixed = "name" in named or "hydra.sweep.dir" in named
        if "resume" in named and not fixed:
            raise UserError(
                "resume=auto: a sweep needs name=NAME. Without a name, every start creates a new directory, named "
                "after the start time, so there is no sweep to resume."
            )
        searches = _searches(composed)
        swept = {key for key, override in named.items() if override.is_sweep_override()}
        if not {"game", "experiment"} & {*swept, *(composed.hydra.sweeper.get("params") or {})}:
            for group in compose.unused(composed, parsed):
                raise check.unused_group(group)
        directory = Path(str(composed.hydra.sweep.dir))
        hydra_settings.check_directory(directory)
        ours_launches = composed.hydra.launcher.get("_target_", "").endswith(ProcessLauncher.__name__)
        if "hydra.sweep.subdir" in named and not ours_launches:
            raise UserError("hydra.sweep.subdir: applies to hydra/launcher=process only. Leave it out.")
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        if not fixed:
            directory = compose.claim(directory)
        elif "resume" not in named and directory.exists() and any(directory.iterdir()):
            raise UserError(
                f"{directory}: holds a sweep already. Continue the sweep with resume=auto, or choose another name."
            )
        ours = not fixed or directory in missing
        directory.mkdir(parents=True, exist_ok=True)  # a sweeper may store its records there
        ProcessLauncher.sweep = None
        stopped: int | None = None
        follows = contextlib.nullcontext() if ours_launches else followed(directory)
        settle(directory)
        stack.enter_context(alone(directory))
        settings = ["hydra.mode=MULTIRUN", f"hydra.sweep.dir={quoted(str(directory))}"]
        try:
            with compose.translated(hydra), follows:
                hydra.multirun(compose.CONFIG_NAME, _task, [*overrides, *settings])
        except SweepStopped as stop:
            stopped = stop.args[0]
        except UserError:
            if not (ProcessLauncher.sweep and any(job.started for job in ProcessLauncher.sweep.jobs)):
                # This sweep has started no job, so the records of an earlier start stay.
                ProcessLauncher.sweep = Sweep(directory)
                if ours:
                    _unmake(directory, missing)
            raise
        except ValueError as error:  # Optuna's sweeper asks for the best of no trials
            jobs = (ProcessLauncher.sweep or Sweep.of_directory(directory)).jobs
            if not searches or not jobs or any(job.objective is not None for job in jobs):
                raise
            raise RunFailed(
                f"{directory}: no trial of the search has a value of the objective, so there is no best trial. "
                "The table states how each trial ended, and the file output.txt in its directory states why."
            ) from error
        finally:
            sweep = ProcessLauncher.sweep or Sweep.of_directory(directory)
            if sweep.jobs:
                sweep.write()
                sweep.end()
    if stopped is not None:
        return 130 if stopped == signal.SIGINT else 143
    return 0 if all(job.exit_status == 0 for job in sweep.jobs) else 1


def _searches(composed: Any) -> bool:
    """Whether the sweeper searches for the best value of the objective, as Optuna's does.

    Raises:
        UserError: the runs of the search have no objective, or the search has several objectives.
    """
    from omegaconf import OmegaConf

    sweeper = composed.hydra.sweeper
    if sweeper.get("_target_", "").endswith("BasicSweeper"):
        return False
    if not composed.metric:
        raise UserError("metric=none: a search needs an objective. Choose a metric, e.g. metric=[fid].")
    if composed.train.ensemble is not None:
        raise UserError(
            "train.ensemble: an ensemble has no objective, so it cannot be a trial of a search. Leave it out."
        )
    if OmegaConf.is_list(sweeper.get("direction")) and len(sweeper.direction) > 1:
        raise UserError(
            "hydra.sweeper.direction: a run has one objective, so a search has one direction. Choose minimize or "
            "maximize."
        )
    return True


def _unmake(directory: Path, missing: list[Path]) -> None:
    """Remove the directory of a run or a sweep that was refused before it began.

    Args:
        directory: the directory of the run or the sweep.
        missing: a list of the directories that the command created: ``directory`` and its new parents. A parent is
            removed only if it is empty.
    """
    shutil.rmtree(directory, ignore_errors=True)
    for parent in missing:
        with contextlib.suppress(OSError):  # the parent holds another run by now
            parent.rmdir()


def _task(config: Any) -> float | None:
    """Run one job of a sweep, and return the value of its objective.

    Hydra's launchers basic, joblib and submitit call this function. The default launcher of gan-train does not.

    Raises:
        RunFailed: the job failed, diverged or was stopped.
    """
    from hydra.core.hydra_config import HydraConfig

    from gan_cli.config import quoting

    settings = HydraConfig.get()
    more = [override for override in settings.overrides.hydra if override.startswith("hydra.searchpath")]
    if not any(override.startswith("resume=") for override in settings.overrides.task):
        more.append("resume=auto")  # a job that the launcher starts a second time then continues
    task = [quoting.of_job(override) for override in settings.overrides.task]
    run = train([*task, *more, f"hydra.run.dir={quoting.quoted(settings.runtime.output_dir)}"])
    if run.exit_status:
        raise RunFailed(f"{run.directory}: the run ended with the status {run.status}.")
    return run.objective


def _ask_hydra(arguments: list[str]) -> int:
    """Let Hydra print the output of --hydra-help, --info or --shell-completion, and return exit status 0."""
    import hydra

    from gan_cli.cli import launcher
    from gan_cli.config import compose

    launcher.register()
    sys.argv = ["gan-train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors instead of ending the process
    with compose.session() as own:
        pass
    with compose.isolated(), compose.translated(own):
        hydra.main(
            version_base="1.3", config_path=f"pkg://{compose.CONFIG_MODULE}", config_name=compose.CONFIG_NAME
        )(_task)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
