"""The command ``gan-sample``, which runs a task of a trained run, e.g. generates samples, or exports the task."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gan_cli.cli import clip_files, outputs, series_files, text_files
from gan_cli.cli.shell import add_modules, add_version, check_target, exit_code, prepare_jax, show_warnings
from gan_cli.config.options import import_user_modules
from gan_cli.data.tables import SUFFIXES, suffix_of
from gan_cli.errors import UserError, nearest
from gan_cli.storage import files
from gan_cli.views import DRAWINGS, POINTS, SIDE

if TYPE_CHECKING:
    import numpy as np

    from gan_cli.trained.restore import RestoredRun
    from gan_cli.trained.sampling import TaskRunner
    from gan_cli.types import Feature, Prior
    from gan_cli.views.drawings import InputRequest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``gan-sample`` with the arguments of a command line, and return the exit status."""
    return exit_code("gan-sample", lambda: _main(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gan-sample",
        description="Draw samples from the generator of a run, or run another task of it, with the moving average "
        "of its parameters. Sample i of a seed is the same for every --num.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the directory of a run, or of a member of an ensemble")
    add(
        "--task",
        default="generate",
        metavar="NAME",
        help="the task of the run, e.g. reconstruct for a VAE; a task that the run does not have is answered with "
        "the names of its tasks (default: generate)",
    )
    add(
        "--input",
        type=Path,
        metavar="FILE|DIR",
        help="the inputs of a task on data (default: held-out examples of the run's data set, or training examples "
        "if none are held out): an .npz file with arrays that have the names of the inputs (or "
        "`samples`), an .npy file, a folder or zip file of images, or a picture. The outputs keep the order. The "
        "past of a forecast has no default; it may be a .csv file, whose last rows all --num scenarios follow. "
        "Of a run of texts, a text file with which all samples begin. "
        "Image translation keeps the size and the name of each picture",
    )
    add(
        "--num",
        type=int,
        metavar="N",
        help=f"the number of samples or examples (default: {SIDE**2} images, {POINTS:,} points, "
        f"{text_files.NUMBER} texts, as many rows of a "
        "table as the run was trained on, or all rows of --latents or --input). For "
        f"a drawing other than grid, the number of rows, columns or walks (default: {SIDE} rows or columns, 16 "
        "walks)",
    )
    add("--seed", type=int, default=0, metavar="S", help="the seed of the latents, from 0 to 2^32 - 1 (default: 0)")
    add(
        "--class",
        dest="label",
        metavar="CLASS",
        help="the class of all samples of a conditional run: its name, or its number, counted from 0. A name has "
        "precedence over a number (default: all classes in turn)",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE|DIR",
        help="where to write: a .png file with one picture, an .npz file with arrays such as `samples`, "
        "a .gif file with a walk through latent space, or a folder of PNG files; for clips, an animation as .gif "
        "or .mp4, or a film strip as .png; for series, also a .csv file; for a table, a .csv, .csv.gz or .parquet "
        "file, an .npz file with an array for each column, or a chart as .png; for texts, also a .txt file "
        "(default: samples.png, and texts are printed)",
    )
    add(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="draw only rows of a table that meet a condition, e.g. 'age>=65', with one of the signs = != < <= > "
        ">=. `COLUMN=` means a missing value. Repeat --where for several conditions (default: all rows)",
    )
    add(
        "--balance",
        metavar="COLUMN",
        help="draw equal numbers of rows with each category of a column of a table, in turn (default: as the data)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="first remove the samples that gan-sample wrote to the folder earlier (default: refuse the folder)",
    )
    add(
        "--no-provenance",
        dest="provenance",
        action="store_false",
        help="leave out the provenance mark, which states in the metadata of the file that it is generated, and by "
        "which run, step and seed (default: write the mark)",
    )
    add(
        "--draw",
        choices=DRAWINGS,
        metavar="DRAWING",
        help=f"the content of the picture: {', '.join(DRAWINGS)} (default: grid; walk for a .gif file)",
    )
    add(
        "--latents",
        type=Path,
        metavar="FILE",
        help="use these latents: an .npy file, or an .npz file with an array `latents`, of shape [n, latent_dim] "
        "(default: random latents)",
    )
    add(
        "--prior",
        choices=("normal", "gmm"),
        help="the distribution of the latents: normal is N(0, I); gmm is a mixture of 10 Gaussians fitted to the "
        "codes of the training data, for a run with the task encode (default: normal)",
    )
    add(
        "--truncation",
        type=float,
        metavar="T",
        help="draw each value of the latents from a normal distribution truncated to [-T, T] (default: no limit)",
    )
    add(
        "--temperature",
        type=float,
        metavar="T",
        help="the temperature of samples of texts: the logits of each token are divided by it. Below 1, samples "
        "are more likely and less diverse; 0 chooses the most probable token (default: 1)",
    )
    add(
        "--raw",
        action="store_true",
        help="use the generator's parameters as trained (default: their moving average)",
    )
    add(
        "--best",
        action="store_true",
        help="use the checkpoint with the best value of the run's objective (default: the newest checkpoint)",
    )
    add("--step", type=int, metavar="N", help="use the checkpoint of this step (default: the newest checkpoint)")
    add(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the generator, or another --task, to this folder as StableHLO and safetensors, and draw no "
        "samples (default: off)",
    )
    add_modules(parser)
    add_version(parser)
    return parser


def _main(options: argparse.Namespace) -> int:
    printed = options.out is None  # if the samples are texts
    options.out = options.out or Path("samples.png")
    _check(options)
    show_warnings("gan-sample")
    prepare_jax()
    from gan_cli.data.tables.feature import Table
    from gan_cli.data.text.feature import Tokens
    from gan_cli.data.video.feature import Video
    from gan_cli.trained import restore
    from gan_cli.trained.sampling import TaskRunner

    modules = import_user_modules([name for name in options.modules.split(",") if name])
    data = options.draw == "activations" or options.prior == "gmm"
    run = restore.restore_run(
        options.run, data=data, best=options.best, step=options.step, raw=options.raw, modules=modules
    )
    runner = TaskRunner(run.experiment.game, options.task)
    text_files.check(options, runner)
    if options.prior == "gmm":
        runner = TaskRunner(run.experiment.game, options.task, _mixture(run, runner))
    if options.export:
        from gan_cli.trained import export

        for path in export.write(run, options.export, options.task):
            print(path)
        return 0
    clip_files.check(options, runner)
    keeps_sizes = outputs.keeps_sizes(options, runner)
    request = _request(options, run, runner, modules, read=not keeps_sizes)
    outputs.check_table(options, runner, request)
    suffix = options.out.suffix
    content: str | None
    if keeps_sizes:
        content = outputs.write_translated(options, run, runner, request)
    elif isinstance(runner.feature, Table):
        content = outputs.write_table(options, run, runner, request, modules)
    elif suffix == ".txt" or (isinstance(runner.feature, Tokens) and printed):
        content = text_files.write(options, run, runner, request, None if printed else options.out)
        if content is None:
            return 0
    elif suffix == ".npz":
        content = outputs.write_arrays(options, run, runner, request)
    elif suffix == ".csv":
        content = series_files.write_csv(options, run, runner, request)
    elif isinstance(runner.feature, Video):
        content = clip_files.write(options, run, runner, request)
    elif suffix == "":
        content = outputs.write_folder(options, run, runner, request)
    else:
        content = outputs.write_picture(options, run, runner, request)
    named = f" of class {run.class_names[request.label]}" if run.class_names and request.label is not None else ""
    print(f"{content}{named} of step {run.step}: {options.out}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise a UserError if the options contradict each other or are out of range, independently of the run."""
    if options.num is not None and options.num < 1:
        raise UserError(f"--num {options.num}: must be at least 1.")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {options.seed}: must be from 0 to 2^32 - 1.")
    if options.temperature is not None and not 0 <= options.temperature < math.inf:
        raise UserError(f"--temperature {options.temperature}: must be a finite number of at least 0.")
    if options.truncation is not None and not options.truncation > 0:
        raise UserError(f"--truncation {options.truncation}: must be greater than 0.")
    if options.truncation is not None and options.latents is not None:
        raise UserError("--truncation: applies to random latents only. Leave out --latents or --truncation.")
    if options.prior is not None and options.latents is not None:
        raise UserError("--prior: applies to random latents only. Leave out --latents or --prior.")
    if options.best and options.step is not None:
        raise UserError("--best and --step: these options exclude each other. Choose one of them.")
    if options.export:
        drawn = {
            "--draw": options.draw,
            "--num": options.num,
            "--class": options.label,
            "--latents": options.latents,
            "--input": options.input,
            "--prior": options.prior,
            "--where": options.where or None,
            "--balance": options.balance,
        }
        drawn |= {"--truncation": options.truncation, "--temperature": options.temperature}
        for name, value in drawn.items():
            if value is not None:
                raise UserError(f"--export {options.export}: draws no samples. Leave out {name}.")
        check_target(options.export / "generator.json")
        return
    if options.draw == "classes" and options.label is not None:
        raise UserError(f"--draw classes: shows all classes. Leave out --class {options.label}.")
    suffix = options.out.suffix
    if suffix not in (".png", ".npz", ".gif", ".mp4", ".txt", "") and not suffix_of(options.out):
        raise UserError(
            f"--out {options.out}: must end in .png, .npz or .gif, for a table or series in {', '.join(SUFFIXES)}, "
            "for clips in .mp4, for texts in .txt, or be a folder, e.g. --out samples.png."
        )
    formats = {"walk": [".gif"], "codes": [".gif", ".mp4", ".png"]}.get(options.draw, [".png"])
    any_but_gif = options.draw == "grid" and suffix != ".gif"
    if options.draw is not None and suffix not in formats and not any_but_gif:
        raise UserError(
            f"--draw {options.draw}: writes a {' or '.join(formats)} file. Set --out, e.g. --out "
            f"{options.out.stem}{formats[0]}."
        )
    if suffix == "" and options.out.exists() and not options.out.is_dir():
        raise UserError(
            f"--out {options.out}: is a file without an extension. Name a folder, or a .png, .npz or .gif file."
        )
    check_target(options.out if suffix else options.out / "0.png")
    if options.overwrite and suffix:
        raise UserError(f"--overwrite: applies to a folder. A file such as --out {options.out} is always replaced.")
    if not suffix:
        outputs.check_folder(options.out, options.overwrite)
        if options.input is not None and options.input.resolve().is_relative_to(options.out.resolve()):
            raise UserError(f"--out {options.out}: contains --input {options.input}. Choose another folder.")


def _mixture(run: RestoredRun, runner: TaskRunner) -> Prior:
    """The prior ``gmm``: a mixture of Gaussians, fitted to the codes of the run's training data.

    Raises:
        UserError: the task draws no latents, or the run has no task ``encode``.
    """
    from gan_cli.trained import mixture
    from gan_cli.trained.sampling import on_data, runners

    game = run.experiment.game
    if "latents" not in runner.drawn:
        raise UserError(f"--prior gmm: the task {runner.name} draws no latents. Leave out --prior.")
    if "encode" not in game.tasks:
        raise UserError(
            "--prior gmm: is fitted to codes of the training data, and this run has no task encode. Leave out "
            "--prior, or choose a run of an autoencoder, e.g. of game=vae."
        )
    data = run.experiment.dataset
    assert data is not None
    if data.private:
        raise UserError(
            "--prior gmm: is fitted to codes of the training data without noise, so the epsilon of this run "
            "would not cover the samples. Leave out --prior."
        )
    run_task = on_data(runners(game), run.state, data, 0)
    return mixture.fit(run_task("encode", "training", None)["codes"])


def _request(
    options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, modules: Sequence[str], read: bool = True
) -> InputRequest:
    """The inputs of the task that the options request. Without ``--input``, the data of the run provide them.

    Args:
        modules: the user's Python modules.
        read: whether to read the inputs from the file or folder ``--input``.

    Raises:
        UserError: the task does not accept the requested class, latents or inputs, or needs inputs from a file.
    """
    from gan_cli.data.features import Label
    from gan_cli.views.drawings import InputRequest

    task, label = runner.task, None
    if options.label is not None:
        if not runner.classes:
            if any(isinstance(one, Label) for other in runner.game.tasks.values() for one in other.inputs.values()):
                raise UserError(
                    f"--class {options.label}: the task {runner.name} takes no class. Leave out --class."
                )
            raise UserError(
                f"--class {options.label}: this run is not conditional. Leave out --class, or train a conditional "
                "run, e.g. with model.conditional=concat."
            )
        label = _label(options.label, next(iter(runner.classes.values())), run.class_names)
    given, sources, names, target, last = {}, {}, list[str](), None, None
    if options.latents is not None:
        if "latents" not in task.inputs:
            raise UserError(
                f"--latents {options.latents}: the task {runner.name} has no input `latents`. Its inputs are: "
                f"{', '.join(task.inputs)}. Leave out --latents."
            )
        given["latents"] = _latents(options.latents, task.inputs["latents"].size)
        sources["latents"] = "--latents"
    needed = {name: task.inputs[name] for name in runner.given if name not in given}
    if options.truncation is not None and not runner.drawn:
        raise UserError(
            f"--truncation {options.truncation}: the task {runner.name} draws no latents. Leave out --truncation."
        )
    if options.input is not None and read and series_files.is_past(options, needed):
        given["past"], last = series_files.read_past(options, run, needed["past"])
        sources["past"] = "--input"
    elif options.input is not None and read and not text_files.takes_prompt(options, runner):
        found, names = _inputs(options, run, runner, needed)
        given, sources = given | found, sources | dict.fromkeys(found, "--input")
    elif needed and read:
        found, target = _inputs_from_data(options, run, runner, needed, modules)
        given, sources = given | found, sources | dict.fromkeys(found, "dataset")
    rows = options.num or min(map(len, given.values()), default=text_files.NUMBER)
    of_texts = text_files.given(options, runner, rows)
    given, sources = given | of_texts, sources | {name: text_files.OPTIONS[name] for name in of_texts}
    return InputRequest(options.seed, options.num, label, options.truncation, given, sources, names, target, last)


def _inputs_from_data(
    options: argparse.Namespace,
    run: RestoredRun,
    runner: TaskRunner,
    needed: dict[str, Feature],
    modules: Sequence[str],
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The inputs of the task for ``--num`` examples of the run's data, and the targets of their outputs, or None.

    Raises:
        UserError: the data do not provide the inputs, cannot be loaded, or have fewer examples.
    """
    from gan_cli.data.inputs import described
    from gan_cli.trained import restore
    from gan_cli.trained.sampling import examples, shown_of
    from gan_cli.views.kinds import view

    any_size = runner.task.multiple is not None
    wanted = ", ".join(f"`{name}` ({described(feature, any_size)})" for name, feature in needed.items())
    remedy = "Add --input FILE, or --input FOLDER for images."
    if any(name not in (run.experiment.game.spec or {}) for name in runner.given):
        raise UserError(f"--task {runner.name}: needs the inputs {wanted}. {remedy}")
    try:
        data = run.experiment.dataset or restore.load_data(options.run, modules)
    except UserError as error:
        raise UserError(
            f"--task {runner.name}: needs the inputs {wanted}. {remedy} The data of the run cannot be loaded: "
            f"{error}"
        ) from error
    split, imitated = shown_of(runner, data)
    n = SIDE**2
    if options.out.suffix == ".png" and runner.pictured:
        n = view(runner.task.inputs[runner.pictured[0]]).in_rows(len(runner.pictured) + (imitated is not None))
    taken = examples(runner, data, split, options.num or n, [] if imitated is None else [imitated])
    target = None if imitated is None else taken.pop(imitated)
    count, noun = min(map(len, taken.values())), f"{split.replace('_', '-')} examples of {data.name}"
    if count < (options.num or 0):
        raise UserError(f"--num {options.num}: there are {count:,} {noun}. Choose a smaller --num.")
    print(f"inputs: {count:,} {noun}")
    return taken, target


def _inputs(
    options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, needed: dict[str, Feature]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The inputs and the names of the rows in the file or folder ``--input``.

    Raises:
        UserError: the task takes no inputs from files, or the file or folder does not fit the task.
    """
    from gan_cli.data.inputs import read_inputs

    tasks = {name: type(runner)(runner.game, name) for name in runner.game.tasks}
    if not needed:
        others = [name for name, other in tasks.items() if other.given]
        remedy = f", or choose a task that takes inputs, e.g. --task {others[0]}" if others else ""
        raise UserError(
            f"--input {options.input}: the task {runner.name} takes no inputs from files. "
            f"Leave out --input{remedy}."
        )
    labels = {} if options.label is not None else {name: runner.task.inputs[name] for name in runner.classes}
    every_nth = (run.experiment.config.get("dataset") or {}).get("every_nth", 1)  # of clips of dataset=video
    found, names = read_inputs(options.input, needed | labels, runner.task.multiple is not None, every_nth)
    if missing := [name for name in labels if name not in found]:
        raise UserError(
            f"--input {options.input}: has no labels, and the task {runner.name} needs the class of each row. Add "
            f"--class CLASS, or use an .npz file with the array `{missing[0]}`."
        )
    return found, names


def _label(text: str, classes: int, class_names: Sequence[str]) -> int:
    """The number of the class with the name or the number ``text``.

    Raises:
        UserError: the run has no such class.
    """
    if text in class_names:
        return class_names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    near = "" if text.isdecimal() else nearest(text, class_names)
    names = f" with the names {', '.join([*class_names[:20], *['...'][: len(class_names) - 20]])}"
    raise UserError(
        f"--class {text}: this run has the classes 0 to {classes - 1}{names if class_names else ''}.{near} "
        "Choose one of them."
    )


def _latents(path: Path, dim: int) -> np.ndarray:
    """The latents ``[n, dim]`` in an ``.npy`` or ``.npz`` file.

    Raises:
        UserError: the file cannot be read, or does not contain finite latents of this shape.
    """
    import numpy as np

    try:
        arrays = files.read_arrays(path)
        latents = np.asarray(arrays["latents" if "latents" in arrays else ""], np.float32)
    except KeyError as error:
        raise UserError(
            f"--latents {path}: contains no array `latents`. Save the latents under this name, or as an .npy file."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"--latents {path}: cannot be read ({error}). Choose an .npy or .npz file with an array of numbers."
        ) from error
    if latents.ndim != 2 or latents.shape[1] != dim or not len(latents):
        shape = list(latents.shape)
        raise UserError(
            f"--latents {path}: has the shape {shape}, and the generator of this run takes latents [n, {dim}]. "
            "Save latents of this shape."
        )
    if not np.isfinite(latents).all():
        raise UserError(f"--latents {path}: contains NaN or infinity. Save finite latents only.")
    return latents


if __name__ == "__main__":
    raise SystemExit(main())
