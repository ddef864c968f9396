"""``gan-eval``: evaluate the samples of runs, or of any other program."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_cli.cli.shell import check_target, exit_code, prepare_jax, show_warnings
from gan_cli.config.options import import_user_modules
from gan_cli.errors import UserError
from gan_cli.storage import files, run_directory

if TYPE_CHECKING:
    from gan_cli.data.dataset import Dataset
    from gan_cli.trained.evaluation import CheckpointEvaluator

_POLL = 5.0  # seconds between looks at a run that is being watched
_ACROSS = 4  # runs side by side in the table; more are one below the other


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return exit_code("gan-eval", lambda: _main(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gan-eval",
        description="Judge the samples of runs against the data that they were trained on; or of any origin, "
        "an image folder or an .npz with an array `samples` ([n, h, w, c] in 0..255), against --reference.",
    )
    add = parser.add_argument
    add("subjects", nargs="+", type=Path, metavar="RUN", help="a run, a sweep, an image folder or zip, or an .npz")
    add("--metrics", metavar="A,B,...", help="files of the group metric; without, all that apply")
    add("--features", default="auto", metavar="NAME", help="auto, classifier, inception, pixels or random")
    add("--weights", metavar="FILE", help="the Inception network's, for --features inception")
    add("--num", type=int, default=10_000, metavar="N", help="samples of each (default: 10,000)")
    add("--seed", type=int, default=0, metavar="S", help="of the latents and of what metrics draw (default: 0)")
    add("--reference", metavar="PATH", help="an image folder, an .npz, or a file of the group dataset")
    add("--json", type=Path, metavar="FILE", help="write the figures there: a list of one object a run")
    add("--raw", action="store_true", help="the generator as trained, not its moving average")
    add("--best", action="store_true", help="the checkpoint with the best figure, not the newest")
    add("--step", type=int, metavar="N", help="the checkpoint of this step")
    add("--watch", action="store_true", help="judge each new checkpoint of a run that trains, and keep the best")
    add("--modules", default="", metavar="A,B,...", help="modules of your own that a run's configuration names")
    return parser


def _main(options: argparse.Namespace) -> int:
    if options.num < 2:
        raise UserError(f"--num {options.num}: must be at least 2.")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {options.seed}: must be from 0 to 2^32 - 1.")
    chosen = options.best or options.step is not None
    if options.best and options.step is not None:
        raise UserError("--best and --step: choose one.")
    runs = [run for subject in options.subjects for run in _expand(subject)]
    if options.watch and (len(runs) != 1 or not run_directory.holds_run(runs[0]) or chosen or options.json):
        raise UserError("--watch: takes one run, judges each of its checkpoints, and notes the figures there.")
    if options.json:
        check_target(options.json)
    show_warnings("gan-eval")
    evaluator = _checkpoint_evaluator(options)
    if options.watch:
        return _watch(runs[0], evaluator)
    runs.sort(key=run_directory.holds_run, reverse=True)  # other examples may be judged against a run's data
    found, wrong = [], []
    for run in runs:
        try:
            own = run_directory.holds_run(run)
            found.append(
                evaluator.run(run, best=options.best, step=options.step) if own else evaluator.examples(run)
            )
        except UserError as error:  # of several, the others are judged all the same
            wrong.append(error)
    if found:
        _print(found)
        if options.json:
            files.write_json(options.json, found)
    if wrong:
        raise UserError("\n".join(map(str, wrong)))
    return 0


def _expand(path: Path) -> list[Path]:
    """A run, or the runs of a sweep or ensemble; anything else stands for itself."""
    if not path.exists():
        raise UserError(f"{path}: there is no such run, folder or file.")
    try:
        return run_directory.runs(path)
    except UserError:
        return [path]


def _checkpoint_evaluator(options: argparse.Namespace) -> CheckpointEvaluator:
    asked = options.metrics or ",".join(_every_metric())
    if "none" in asked.split(","):
        raise UserError(f"--metrics {asked}: none is no metric here.")
    overrides = [f"metric=[{asked}]", f"features={options.features}"]
    if options.weights:
        overrides.append(f"features.weights='{options.weights}'")
    config = _composed(overrides)
    prepare_jax()
    from gan_cli.config.build import evaluation_of
    from gan_cli.trained.evaluation import CheckpointEvaluator
    from gan_cli.views.pictures import write_neighbours

    metrics, features = evaluation_of(config)
    return CheckpointEvaluator(
        metrics,
        features,
        every=options.metrics is not None,
        num=options.num,
        seed=options.seed,
        raw=options.raw,
        reference=_reference(options.reference) if options.reference else None,
        draw_neighbours=write_neighbours,
        modules=import_user_modules([name for name in options.modules.split(",") if name]),
    )


def _every_metric() -> list[str]:
    from importlib.resources import files as resources

    names = (entry.name for entry in resources("gan_cli.configs").joinpath("metric").iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and name != "none.yaml")


def _reference(named: str) -> Dataset:
    """The data at a path, or those that a file of the group ``dataset`` describes."""
    from gan_cli.config.build import dataset
    from gan_cli.data.external import external_samples

    if Path(named).exists() or len(Path(named).parts) > 1 or Path(named).suffix:
        return external_samples(Path(named))
    found = dataset(_composed([f"dataset={named}"]))
    if found is None:
        raise UserError(f"--reference {named}: has no data.")
    return found


def _composed(overrides: list[str]) -> dict[str, Any]:
    from gan_cli.config import check, compose

    with compose.session() as hydra:
        return check.check(compose.ours(compose.compose(hydra, overrides)))


def _watch(run: Path, evaluator: CheckpointEvaluator) -> int:
    """Evaluate each checkpoint of a run as it appears, until the run is over."""
    while True:
        over = not run_directory.in_training(run)
        new = list(map(_say, evaluator.watch(run)))
        if over and not new:
            return 0
        if not new:
            time.sleep(_POLL)


def _say(found: dict[str, Any]) -> None:
    figures = "  ".join(f"{name} {_told(value)}" for name, value in found["metrics"].items())
    print(f"step {found['step']}  {figures}", flush=True)


def _print(found: list[dict[str, Any]]) -> None:
    """A table: figures down, runs across; the other way round where there are many runs."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    names = list(dict.fromkeys(name for one in found for name in one["metrics"]))
    rows = [["", *(one["run"] for one in found)]]
    rows += [[name, *(_told(one["metrics"].get(name)) for one in found)] for name in names]
    if len(found) > _ACROSS:
        rows = [list(row) for row in zip(*rows, strict=True)]
    table = Table(*map(escape, rows[0]))
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    # Wide enough for whole figures where the output is a file.
    console = Console() if sys.stdout.isatty() else Console(width=max(120, 16 * len(rows[0])))
    console.print(table)
    terms = (
        f"{one['samples']:,} samples, seed {one['seed']}, in {one['features']}, against {one['reference']}"
        for one in found
    )
    print("\n".join(dict.fromkeys(terms)))


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
