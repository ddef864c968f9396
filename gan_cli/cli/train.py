"""``gan-train``: compose a configuration, check it, and train, resume or sweep.

The order matters. Everything that can be wrong with the input is found before a directory is made and before
anything is compiled; what needs no data is found before JAX is even imported.
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

from gan_cli.cli.shell import exit_code, one_of_several, prepare_jax
from gan_cli.errors import RunFailed, UserError
from gan_cli.storage.run_directory import holds_run

if TYPE_CHECKING:
    from gan_cli.config.build import Experiment
    from gan_cli.training.run import Run


def train(overrides: Sequence[str] = (), *, config_dir: str | None = None, quiet: bool = False) -> Run:
    """Train as ``gan-train OVERRIDES`` would.

    Args:
        overrides: as on the command line: ``["model=mlp", "optim=adam"]``.
        config_dir: a folder of your own configurations.
        quiet: whether to print nothing but warnings.

    Returns:
        The run: ``directory``, ``status``, ``metrics``, ``sample(n)``.

    Raises:
        UserError: wrong input; its message says what and what the choices are.
        RunFailed: the run had started and could not go on.
    """
    from gan_cli.config import compose

    run = _single([*overrides, *compose.search_path(config_dir)], quiet=quiet, log=False)
    if run is None:
        raise UserError("dry_run=true trains nothing: use the command line.")
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    status = exit_code("gan-train", lambda: _main(arguments))
    if status in (1, 2) and "gan_cli.engine.processes" in sys.modules:
        from gan_cli.engine import processes

        processes.exit_without_barrier(status)
    return status


def _main(arguments: list[str]) -> int:
    from hydra._internal.utils import get_args_parser

    flags = get_args_parser().parse_intermixed_args(arguments)  # flags may stand anywhere
    if flags.help or flags.hydra_help or flags.cfg or flags.info is not None or flags.shell_completion:
        asked = [argument for argument in arguments if argument not in flags.overrides]
        return _ask_hydra([*asked, *flags.overrides])
    if flags.config_path or flags.config_name:
        raise UserError("--config-path and --config-name: use --config-dir for configurations of your own.")
    from gan_cli.config import compose

    overrides = [*flags.overrides, *compose.search_path(flags.config_dir)]
    if flags.multirun:
        return _sweep(overrides)
    run = _single(overrides)
    return run.exit_status if run else 0


def _single(overrides: list[str], quiet: bool = False, log: bool = True) -> Run | None:
    """One run, from overrides to its end; None after a dry run."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import run_job
    from hydra.types import HydraContext
    from omegaconf import open_dict

    from gan_cli.cli import resume
    from gan_cli.config import check, compose, identity, stored

    with compose.session() as hydra:
        parsed = compose.parse(hydra, overrides)
        composed = compose.compose(hydra, overrides)
        modules = compose.modules(parsed, composed)
        directory, continues = _directory(composed, parsed)
        if continues:
            earlier = stored.load(resume.read(directory), modules)
            now = check.with_defaults(check.resolve(compose.ours(composed)), modules)
            merged = resume.merge(earlier, now, parsed, lambda o: compose.is_group(hydra, o))
            checked = check.check(merged | {"modules": modules}, modules)
            # The run's own .hydra stays what its first start wrote.
            with open_dict(composed):
                composed.hydra.output_subdir = None
        else:
            checked = check.check(compose.ours(composed), modules)

        prepare_jax()
        from gan_cli.config.build import build
        from gan_cli.engine import processes

        if checked["train"]["devices"] != 1 and one_of_several():
            processes.join()
        # A directory named by the time, and what lies in it, is as the first process sees it.
        named, continues, checked = processes.broadcast_from_primary(lambda: (str(directory), continues, checked))
        directory = Path(named)
        experiment = processes.run_on_all(lambda: build(checked))
        from gan_cli.training.progress import Reporter

        reporter = Reporter(quiet or not processes.is_primary())
        if checked["dry_run"]:
            _dry_run(experiment, directory, reporter)
            return None
        if not continues:
            directory = Path(processes.broadcast_from_primary(lambda: str(_new(directory, checked, parsed))))
        if not processes.is_primary():
            from gan_cli.training.run import follow

            return follow(experiment, directory)
        with open_dict(composed):
            composed.hydra.run.dir = str(directory)

        from gan_cli.training.run import train as run

        default = check.check(compose.ours(compose.compose(hydra, [])))
        origin = {
            "command": ["gan-train", *overrides],
            "differences": identity.differences(default, checked),
        }
        raised: list[Exception] = []

        def task(_: Any) -> Run:
            try:
                return run(experiment, directory, origin, reporter)
            except Exception as error:
                raised.append(error)
                raise

        try:
            job = run_job(
                task_function=task,
                config=composed,
                job_dir_key="hydra.run.dir",
                job_subdir_key=None,
                hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(composed)),
                configure_logging=log,
            )
        except ValueError as error:
            if isinstance(error.__cause__, OSError):  # the log's file cannot be written
                raise error.__cause__ from None
            raise
        if raised:  # Hydra's own way of raising it prints advice about its internals first
            raise raised[0]
        return job.return_value


def _directory(composed: Any, parsed: Sequence[Any]) -> tuple[Path, bool]:
    """The run's directory, and whether there is a run in it to go on with."""
    asked, name = composed.resume, composed.name
    for key, value in (("resume", asked), ("name", name)):
        if value is not None and not isinstance(value, str | int):
            raise UserError(f"{key}={value}: must be text.")
    asked, name = (None if value is None else str(value) for value in (asked, name))
    if name is not None and (Path(name).is_absolute() or ".." in Path(name).parts or not name.strip("/. ")):
        raise UserError(f"name={name}: must be a plain name; a run's directory is outputs/<name>.")
    if asked not in (None, "auto"):
        if name is not None:
            raise UserError(f"resume={asked}: already says which run; leave out name={name}.")
        return Path(asked), True
    directory = Path(str(composed.hydra.run.dir))
    if asked == "auto":
        if not _is_fixed(name, parsed):
            raise UserError(
                "resume=auto: needs name=NAME. A directory named by the time would be a new one at each start."
            )
        return directory, holds_run(directory)
    return directory, False


def _is_fixed(name: str | None, parsed: Sequence[Any]) -> bool:
    """Whether the user chose the run's directory; otherwise it is named by the time."""
    return name is not None or any(override.key_or_group == "hydra.run.dir" for override in parsed)


def _new(directory: Path, checked: dict[str, Any], parsed: Sequence[Any]) -> Path:
    """A directory for a new run, made exclusively: two runs of the same second do not share one."""
    from gan_cli.config import compose

    if not _is_fixed(checked["name"], parsed):
        return compose.claim(directory)
    if holds_run(directory):
        raise UserError(
            f"{directory}: there is a run already. resume=auto goes on with it; or choose another name."
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _dry_run(experiment: Experiment, directory: Path, reporter: Any) -> None:
    """Say what would run, and draw the data as the networks will see it."""
    from gan_cli.training import dry_run

    for line in dry_run.describe(experiment):
        reporter.say(line)
    reporter.say(f"directory {directory} (not made)")
    if experiment.dataset is not None:
        reporter.say(f"data as the networks see it: {dry_run.draw(experiment, Path('outputs') / 'dry_run.png')}")


def _sweep(overrides: list[str]) -> int:
    """All jobs of a sweep, and a table of what became of them."""
    from hydra.types import RunMode

    from gan_cli.cli import launcher
    from gan_cli.cli.launcher import ProcessLauncher, SweepStopped
    from gan_cli.cli.sweep import Sweep, followed
    from gan_cli.config import compose

    if one_of_several():
        raise UserError("--multirun: start it once; each of several processes would run the whole sweep.")
    launcher.register()
    with compose.session() as hydra:
        overrides = [*overrides, "hydra.mode=MULTIRUN"]
        composed = compose.compose(hydra, overrides, RunMode.MULTIRUN)
        named = {override.key_or_group: override for override in compose.parse(hydra, overrides)}
        if "resume" in named and named["resume"].value() != "auto":
            raise UserError("resume=DIR: continues one run. A sweep goes on with name=NAME resume=auto.")
        fixed = "name" in named or "hydra.sweep.dir" in named
        if "resume" in named and not fixed:
            raise UserError("resume=auto: a sweep needs name=NAME to be found again.")
        directory = Path(str(composed.hydra.sweep.dir))
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        if not fixed:
            directory = compose.claim(directory)
        elif "resume" not in named and directory.exists() and any(directory.iterdir()):
            raise UserError(
                f"{directory}: there is a sweep already. resume=auto goes on with it; or choose another name."
            )
        ours = not fixed or directory in missing
        directory.mkdir(parents=True, exist_ok=True)  # a sweeper may keep its own records there
        ProcessLauncher.sweep = None
        stopped: int | None = None
        ours_launches = composed.hydra.launcher.get("_target_", "").endswith(ProcessLauncher.__name__)
        follows = contextlib.nullcontext() if ours_launches else followed(directory)
        try:
            with compose.translated(hydra), follows:
                hydra.multirun(compose.CONFIG_NAME, _task, [*overrides, f"hydra.sweep.dir='{directory}'"])
        except SweepStopped as stop:
            stopped = stop.args[0]
        except UserError:
            if not ProcessLauncher.sweep:
                ProcessLauncher.sweep = Sweep(directory)  # without a job: what an earlier start has noted stays
                if ours:
                    _unmake(directory, missing)
            raise
        finally:
            sweep = ProcessLauncher.sweep or Sweep.of_directory(directory)
            if sweep.jobs:
                sweep.write()
                sweep.end()
    if stopped is not None:
        return 130 if stopped == signal.SIGINT else 143
    return 0 if all(job.exit_status == 0 for job in sweep.jobs) else 1


def _unmake(directory: Path, missing: list[Path]) -> None:
    """Remove a sweep's directory that no job was started in, and those of its parents that were made for it."""
    shutil.rmtree(directory, ignore_errors=True)
    for parent in missing:
        with contextlib.suppress(OSError):  # another sweep is in it by now
            parent.rmdir()


def _task(config: Any) -> float | None:
    """One job of a sweep whose launcher runs it in its own process (basic, joblib, submitit)."""
    from hydra.core.hydra_config import HydraConfig

    settings = HydraConfig.get()
    more = [override for override in settings.overrides.hydra if override.startswith("hydra.searchpath")]
    if not any(override.startswith("resume=") for override in settings.overrides.task):
        more.append("resume=auto")  # where it was cut off, and its launcher starts it again
    run = train([*settings.overrides.task, *more, f"hydra.run.dir='{settings.runtime.output_dir}'"])
    if run.exit_status:
        raise RunFailed(f"{run.directory}: {run.status}")
    return run.objective


def _ask_hydra(arguments: list[str]) -> int:
    """Help, --cfg, --info and completion: Hydra's own, with our exit statuses."""
    import hydra

    from gan_cli.cli import launcher
    from gan_cli.config import compose

    compose.register()
    launcher.register()
    sys.argv = ["gan-train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us instead of ending the process
    with compose.session() as own:
        pass
    with compose.translated(own):
        hydra.main(
            version_base="1.3", config_path=f"pkg://{compose.CONFIG_MODULE}", config_name=compose.CONFIG_NAME
        )(_task)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
