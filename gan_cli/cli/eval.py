"""The command ``gan-eval``, which evaluates samples of runs and of other programs."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_cli.cli import verify
from gan_cli.cli.shell import add_modules, add_version, check_target, exit_code, prepare_jax, show_warnings
from gan_cli.config.options import import_user_modules
from gan_cli.config.quoting import quoted
from gan_cli.errors import RunFailed, UserError
from gan_cli.storage import files, run_directory

if TYPE_CHECKING:
    from gan_cli.data.dataset import Dataset
    from gan_cli.trained.evaluation import CheckpointEvaluator
    from gan_cli.trained.tables import TableReference
    from gan_cli.types import Feature

_POLL = 5.0  # --watch looks for new checkpoints every _POLL seconds
_ACROSS = 5  # the largest number of runs for which the table has a column for each run, instead of a row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gan-eval`` with the arguments of a command line, and return the exit status."""
    return exit_code("gan-eval", lambda: _main(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gan-eval",
        description="Evaluate the samples of runs against their training data, or samples of other programs "
        "against --reference. Samples of other programs are read from an image folder, a zip file of images, or an "
        ".npz file with an array `samples` ([n, h, w, c] in 0..255). Translations of images are evaluated on the "
        "test images of a run: of the run itself, or by another program, in a FOLDER with the names of the test "
        "images (gan-eval RUN FOLDER). With a folder as --reference, images of equal names are compared in pairs. "
        "Tables are read from CSV or Parquet files, as subjects and as --reference.",
    )
    add = parser.add_argument
    add(
        "subjects",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="the directory of a run, a sweep or an ensemble; or an image folder, a zip file, an .npz file or a "
        "table (CSV or Parquet)",
    )
    add(
        "--metrics",
        metavar="A,B,...",
        help="the metrics to compute, separated by commas: names of files in configs/metric (default: all metrics "
        "that the data and the features allow)",
    )
    add(
        "--features",
        default="auto",
        metavar="NAME",
        help="the feature space of the metrics: classifier, inception, pixels, random, or auto, which selects "
        "classifier for images and pixels for points (default: auto)",
    )
    add(
        "--weights",
        metavar="FILE",
        help="the file with the weights of the Inception network; required for --features inception",
    )
    add(
        "--num",
        type=int,
        metavar="N",
        help="the number of samples to evaluate for each RUN; a folder or file with fewer samples is evaluated "
        "completely (default: 10,000; for tables all rows of a file, and as many rows as a run was trained on)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="the seed of the latents and of the metrics' random choices, from 0 to 2^32 - 1 (default: 0)",
    )
    add(
        "--reference",
        metavar="PATH",
        help="the data to compare with: an image folder, a zip file, an .npz file, a table, or the name of a file "
        "in configs/dataset; images are resized to the size of the samples (default: the data on which the run was "
        "trained)",
    )
    add(
        "--held-out",
        type=Path,
        metavar="FILE",
        help="rows of a table that the generator has not seen, beside a table as --reference (default: metrics "
        "that need held-out rows are left out)",
    )
    add(
        "--label",
        metavar="COLUMN",
        help="the column of a table that classifiers predict (default: the label of the run)",
    )
    add(
        "--schema",
        type=Path,
        metavar="FILE",
        help="the schema of the table in --reference, as gan-train writes it (default: inferred from the table)",
    )
    add(
        "--baselines",
        action="store_true",
        help="for tables, also evaluate real rows, a bootstrap of the training rows, and rows with independent "
        "columns (default: off)",
    )
    add(
        "--task",
        metavar="TASK",
        help="the task that images of other programs result from, e.g. a_to_b, if the run or the --reference has "
        "several domains (default: the only task of the run)",
    )
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write the results to this file, as a JSON list with one object for each RUN (default: no file)",
    )
    add(
        "--raw",
        action="store_true",
        help="evaluate the generator's parameters as trained (default: their moving average)",
    )
    add(
        "--best",
        action="store_true",
        help="evaluate the checkpoint with the best value of the run's objective (default: the newest checkpoint)",
    )
    add(
        "--step",
        type=int,
        metavar="N",
        help="evaluate the checkpoint of this step (default: the newest checkpoint)",
    )
    add(
        "--verify",
        action="store_true",
        help="instead of an evaluation, print which run, checkpoint and seed each FILE claims to come from, and "
        "whether its content still fits its provenance mark; status 1 if one does not, or has no mark "
        "(default: off)",
    )
    add(
        "--watch",
        action="store_true",
        help="evaluate each new checkpoint of a single run until the run ends, and keep a copy of the best "
        "checkpoint if the run does not compute metrics (default: off)",
    )
    add_modules(parser)
    add_version(parser)
    return parser


def _main(options: argparse.Namespace) -> int:
    if options.verify:
        _check_verify(options)
        return verify.main(options.subjects)
    if options.num is not None and options.num < 2:
        raise UserError(f"--num {options.num}: must be at least 2.")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {options.seed}: must be from 0 to 2^32 - 1.")
    chosen = options.best or options.step is not None
    if options.best and options.step is not None:
        raise UserError("--best and --step: these options exclude each other. Choose one of them.")
    runs = [run for subject in options.subjects for run in _expand(subject)]
    if options.watch and (len(runs) != 1 or not run_directory.holds_run(runs[0])):
        raise UserError("--watch: needs the directory of a single run, e.g. gan-eval outputs/digits --watch.")
    if options.watch and chosen:
        raise UserError("--watch: evaluates every new checkpoint of the run. Leave out --best and --step.")
    if options.watch and options.json:
        raise UserError("--watch: writes the results to the directory of the run. Leave out --json.")
    if options.task and all(run_directory.holds_run(run) or _is_table(str(run)) for run in runs):
        raise UserError(
            f"--task {options.task}: needs a folder or file with images of another program. Leave it out."
        )
    _check_table_options(options, runs)
    if options.json:
        check_target(options.json)
    show_warnings("gan-eval")
    evaluator = _checkpoint_evaluator(options)
    if options.watch:
        return _watch(runs[0], evaluator)
    # Runs come first, because samples of other programs can be compared with the training data of a run.
    runs.sort(key=run_directory.holds_run, reverse=True)
    results, errors = [], []
    for run in runs:
        try:
            if run_directory.holds_run(run):
                results.append(evaluator.run(run, best=options.best, step=options.step))
            else:
                results.append(evaluator.examples(run, options.task))
        except UserError as error:  # the other runs are evaluated nevertheless
            errors.append(error)
    if results and options.baselines:
        try:
            results += evaluator.baselines()
        except UserError as error:
            errors.append(error)
    if results:
        _print(results)
        if options.json:
            files.write_json(options.json, results)
    _check_privacy(results)
    if errors:
        raise UserError("\n".join(map(str, errors)))
    return 0


def _check_verify(options: argparse.Namespace) -> None:
    """Raise a UserError if an option has no effect beside ``--verify``."""
    plain = vars(_parser().parse_args([".", "--verify"]))
    for name, value in vars(options).items():
        if name != "subjects" and value != plain[name]:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"--verify: evaluates nothing. Leave out {option}.")


def _check_table_options(options: argparse.Namespace, runs: Sequence[Path]) -> None:
    """Raise a UserError if an option has no effect on the kind of the subjects and of --reference."""
    table = bool(options.reference) and _is_table(options.reference)
    trained, tables = any(map(run_directory.holds_run, runs)), [_is_table(str(run)) for run in runs]
    if options.reference and run_directory.holds_run(Path(options.reference)):
        raise UserError(
            f"--reference {options.reference}: is a run. Name it beside the samples, which are then compared with "
            f"its data: gan-eval {options.reference} {runs[0]}."
        )
    if options.features != "auto" and all(tables):
        raise UserError(
            f"--features {options.features}: rows in files are compared by their columns. Leave it out."
        )
    if not trained and not any(tables):
        for name, given in (("--label", options.label is not None), ("--baselines", options.baselines)):
            if given:
                raise UserError(f"{name}: needs rows of a table, e.g. gan-eval FAKE.csv. Leave it out.")
    for name in ("held_out", "schema"):
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is not None and not table:
            raise UserError(f"{option} {value}: needs a table as --reference, e.g. --reference TRAIN.csv. Add it.")
        if value is not None and not value.exists():
            raise UserError(f"{option} {value}: there is no such file. Check the path.")
    if options.watch and options.baselines:
        raise UserError("--watch: evaluates a run in training. Leave out --baselines.")


def _is_table(name: str) -> bool:
    from gan_cli.data.tables import is_table

    return is_table(Path(name))


def _expand(path: Path) -> list[Path]:
    """A list of the directories of all runs in ``path``.

    If ``path`` contains no run, the list contains only ``path``, which then holds samples of another program.

    Args:
        path: the directory of a run, a sweep or an ensemble, or a folder or file with samples.

    Raises:
        UserError: ``path`` does not exist.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such run, folder or file. Check the path.")
    try:
        return run_directory.runs(path)
    except UserError:
        return [path]


def _checkpoint_evaluator(options: argparse.Namespace) -> CheckpointEvaluator:
    metrics_option = options.metrics or ",".join(_every_metric())
    if "none" in metrics_option.split(","):
        raise UserError(
            f"--metrics {metrics_option}: gan-eval needs a metric other than none. "
            f"Choose from: {', '.join(_every_metric())}."
        )
    overrides = [f"metric=[{metrics_option}]", f"features={options.features}"]
    if options.weights:
        overrides.append(f"features.weights={quoted(options.weights)}")
    config = _composed(overrides)
    prepare_jax()
    from gan_cli.config.build import evaluation_of
    from gan_cli.trained.evaluation import CheckpointEvaluator
    from gan_cli.views.kinds import write_neighbours

    metrics, features = evaluation_of(config)
    return CheckpointEvaluator(
        metrics,
        features,
        every=options.metrics is not None,
        num=options.num,
        seed=options.seed,
        raw=options.raw,
        reference=_reference(options.reference, options.held_out) if options.reference else None,
        reference_path=Path(options.reference) if options.reference and Path(options.reference).exists() else None,
        table_reference=_table_reference(options),
        label=options.label,
        draw_neighbours=write_neighbours,
        modules=import_user_modules([name for name in options.modules.split(",") if name]),
    )


def _every_metric() -> list[str]:
    from importlib.resources import files as resources

    names = (entry.name for entry in resources("gan_cli.configs").joinpath("metric").iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and name != "none.yaml")


def _table_reference(options: argparse.Namespace) -> Callable[[], TableReference] | None:
    """A function that reads the tables of the options. None if --reference is not a table."""
    if not options.reference or not _is_table(options.reference):
        return None
    from gan_cli.trained.tables import of_files

    read = functools.partial(of_files, Path(options.reference), options.held_out, options.label, options.schema)
    return functools.cache(read)


def _reference(name: str, held_out: Path | None) -> Callable[[Feature | None], Dataset]:
    """The reference data of ``--reference``, as a function of the feature of the samples.

    Only images in a folder or zip file, and tables, depend on the feature: images are resized to the shape of the
    samples, and rows are represented as the samples are.

    Args:
        name: the path of a folder or file with data, or the name of a file in ``configs/dataset``.
        held_out: the file with held-out rows of a table, or None.
    """
    from gan_cli.config.build import dataset
    from gan_cli.data.external import external_reference

    path = Path(name)
    if _is_table(name):
        return functools.cache(functools.partial(_table, path, held_out))
    if path.exists() and path.suffix != ".npz":
        return functools.cache(functools.partial(external_reference, path))
    if path.suffix or len(path.parts) > 1:
        data: Dataset | None = external_reference(path)
    else:
        data = dataset(_composed([f"dataset={name}"]))
    if data is None:
        raise UserError(
            f"--reference {name}: has no data. Choose a data set, e.g. --reference mnist5k, or the path of data."
        )
    found = data
    return lambda feature: found


def _table(path: Path, held_out: Path | None, feature: Feature | None) -> Dataset:
    from gan_cli.data.tables.feature import Table
    from gan_cli.trained.tables import dataset_of

    if not isinstance(feature, Table):
        raise UserError(
            f"--reference {path}: the rows of a table are compared with rows of a table only. Choose another "
            "reference, e.g. --reference mnist5k."
        )
    return dataset_of(path, held_out, feature)


def _composed(overrides: list[str]) -> dict[str, Any]:
    from gan_cli.config import check, compose

    with compose.session() as hydra:
        return check.check(compose.ours(compose.compose(hydra, overrides)))


def _watch(run: Path, evaluator: CheckpointEvaluator) -> int:
    """Evaluate each new checkpoint of a run until the run ends, and return the exit status 0."""
    while True:
        over = not run_directory.in_training(run)
        new = list(map(_say, evaluator.watch(run)))
        if over and not new:
            return 0
        if not new:
            time.sleep(_POLL)


def _say(result: dict[str, Any]) -> None:
    figures = "  ".join(f"{name} {_formatted(value)}" for name, value in result["metrics"].items())
    print(f"step {result['step']}  {figures}", flush=True)


def _print(results: list[dict[str, Any]]) -> None:
    """Print a table of all metric values, and below the table the settings on which the values depend.

    For at most five runs, the table has a row for each metric and a column for each run. For more runs, the table
    is transposed.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    names = list(dict.fromkeys(name for result in results for name in result["metrics"]))
    rows = [["", *(result["run"] for result in results)]]
    rows += [[name, *(_formatted(result["metrics"].get(name)) for result in results)] for name in names]
    if len(results) > _ACROSS:
        rows = [list(row) for row in zip(*rows, strict=True)]
    table = Table(*map(escape, rows[0]))
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    # Without a terminal, the table is wide enough to contain every value in full.
    console = Console() if sys.stdout.isatty() else Console(width=max(120, 16 * len(rows[0])))
    console.print(table)
    subjects: dict[str, list[str]] = {}
    for result in results:
        subjects.setdefault(_terms(result), []).append(result["run"])
    for terms, of in subjects.items():
        print(terms if len(subjects) == 1 else f"{', '.join(of)}: {terms}")


def _check_privacy(results: Sequence[dict[str, Any]]) -> None:
    """Print what an audit can show about the promised epsilon of each run.

    Raises:
        RunFailed: the figures contradict the promise of a run.
    """
    from gan_cli.metrics.privacy import contradiction, limits

    for result in results:
        if text := limits(result["metrics"]):
            print(f"{result['run']}: {text}")
    wrong = [f"{result['run']}: {text}" for result in results if (text := contradiction(result["metrics"]))]
    if wrong:
        raise RunFailed("\n".join(wrong))


def _terms(result: dict[str, Any]) -> str:
    """The settings on which the values of a result depend."""
    if result["features"] == "none":
        return f"seed {result['seed']}, on {result['reference']}"
    counted = f"{result['samples']:,} samples, seed {result['seed']}, in {result['features']}"
    return f"{counted}, against {result['reference']}"


def _formatted(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
