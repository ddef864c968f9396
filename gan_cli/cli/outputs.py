"""Writes the outputs of a task for ``gan-sample``: a folder of pictures, arrays, one picture or an animation."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gan_cli.cli import series_files
from gan_cli.data.tables import suffix_of
from gan_cli.errors import UserError
from gan_cli.storage import files, marks
from gan_cli.views import SIDE

if TYPE_CHECKING:
    import numpy as np

    from gan_cli.data.tables.feature import Table
    from gan_cli.storage.marks import Origin
    from gan_cli.trained.restore import RestoredRun
    from gan_cli.trained.rows import RowSampler
    from gan_cli.trained.sampling import Arrays, TaskRunner
    from gan_cli.views.drawings import InputRequest

log = logging.getLogger(__name__)
# The entry `Software` of PNG files in a folder, and the end of .npy files, by which --overwrite recognises them.
_SOFTWARE = "gan-sample"
_ROWS = 1000  # number of rows of a table if run.json does not contain the number of training rows
_Made = Iterator[tuple[int, "Arrays"]]  # the numbers and the outputs of pictures


def check_folder(folder: Path, overwrite: bool) -> None:
    """Check that the folder of the samples will hold no other files, which would enter an FID of the folder.

    Args:
        folder: the folder, which need not exist.
        overwrite: whether samples that gan-sample wrote to the folder earlier are allowed.

    Raises:
        UserError: the folder contains another file or folder.
    """
    files_, folders = _contents(folder)
    if (files_ or folders) and not overwrite:
        raise UserError(
            f"--out {folder}: holds {len(files_):,} files already, and the samples would mix with them. Choose "
            "another folder, or add --overwrite, which removes the samples that gan-sample wrote there earlier."
        )
    others = [path for path in files_ if not _is_sample(path)]
    others += [path for path in folders if not any(file.is_relative_to(path) for file in files_)]
    if others:
        raise UserError(
            f"--out {folder}: holds {others[0].relative_to(folder)}, which gan-sample did not write, so "
            "--overwrite does not remove it. Choose another folder."
        )


def _contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """A pair: the files in a folder and its sub-folders, and all sub-folders, each after the folders inside it.

    Symbolic links count as files.
    """
    files_, folders = list[Path](), list[Path]()
    for parent, inside, names in os.walk(folder, topdown=False):
        files_ += [Path(parent, name) for name in names]
        for name in inside:
            path = Path(parent, name)
            (files_ if path.is_symlink() else folders).append(path)
    return sorted(files_), folders


def _remove_samples(folder: Path) -> None:
    """Remove everything in a folder that ``check_folder`` has checked."""
    files_, folders = _contents(folder)
    for path in files_:
        path.unlink()
    for path in folders:
        path.rmdir()


def _is_sample(path: Path) -> bool:
    """Whether gan-sample wrote this picture or array as a sample in a folder."""
    from PIL import Image

    if path.suffix not in (".png", ".npy") or not path.is_file():
        return False
    try:
        if path.suffix == ".npy":
            return path.read_bytes().endswith(_SOFTWARE.encode())
        with Image.open(path) as picture:
            return picture.info.get("Software") == _SOFTWARE
    except OSError:
        return False


def write_arrays(options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest) -> str:
    """Write the outputs of the task as an ``.npz`` file, with the inputs that do not come from ``--input``.

    Returns:
        A text that describes what was written, e.g. "64 samples (28, 28, 1) uint8".
    """
    import numpy as np

    from gan_cli.data.text.feature import Tokens
    from gan_cli.trained import translation

    n = request.number(SIDE**2)
    inputs = request.draw(runner, n)
    parts = list(translation.stored(runner, run.state, inputs, request.seed))
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in runner.task.outputs}
    if request.last is not None:
        outputs[runner.main] = series_files.levels_of(outputs[runner.main], request.last)
    for name, x in inputs.items():
        if request.options.get(name) != "--input":
            outputs.setdefault("labels" if name == "label" else name, x)
    if isinstance(runner.feature, Tokens):
        outputs["vocabulary"] = np.array(runner.feature.vocabulary)
    with_data = "dataset" in request.options.values()
    marks.write_arrays(options.out, outputs, origin_of(options, run, mixed=with_data))
    main = outputs[runner.main]
    return f"{n:,} {runner.main} {main.shape[1:]} {main.dtype}"


def origin_of(options: argparse.Namespace, run: RestoredRun, mixed: bool = False) -> Origin | None:
    """The origin of the outputs for their provenance marks, or None with ``--no-provenance``.

    Args:
        mixed: whether the file also contains or shows real examples.
    """
    return replace(run.origin(options.seed), mixed=mixed) if options.provenance else None


def check_table(options: argparse.Namespace, runner: TaskRunner, request: InputRequest) -> None:
    """Raise a UserError if an option for tables does not fit the task."""
    from gan_cli.data.series.feature import Series
    from gan_cli.data.tables.feature import Table

    if isinstance(runner.feature, Table) and options.draw not in (None, "grid"):
        raise UserError(
            f"--draw {options.draw}: needs images, and the {runner.main} of this run are rows of a table. "
            "Leave out --draw."
        )
    if isinstance(runner.feature, Table) and options.out.suffix in (".gif", ""):
        raise UserError(
            f"--out {options.out}: the {runner.main} of this run are rows of a table. Use --out FILE.csv, .csv.gz, "
            ".parquet or .npz, or FILE.png for a chart of the columns."
        )
    if not isinstance(runner.feature, Table):
        noun = f"the {runner.main} of this run are {runner.feature.noun}, not rows of a table"
        series = isinstance(runner.feature, Series)
        if suffix_of(options.out) and not (series and options.out.suffix == ".csv"):
            arrays = "FILE.csv, or FILE.npz for arrays" if series else "FILE.npz for arrays, or FILE.png"
            raise UserError(f"--out {options.out}: {noun}. Use --out {arrays}.")
        for name, value in (("--where", options.where), ("--balance", options.balance)):
            if value:
                raise UserError(f"{name}: {noun}. Leave out {name}, or use --class.")
    for name, value in (("--where", options.where), ("--balance", options.balance)):
        if value and request.given:
            source = next(iter(request.options.values()))
            raise UserError(f"{name}: selects among rows from random latents. Leave out {name} or {source}.")


def write_table(
    options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest, modules: Sequence[str]
) -> str:
    """Write the rows of a table as CSV, Parquet, a chart, or an ``.npz`` file with an array for each column.

    Returns:
        A text that describes what was written, e.g. "10,000 rows".
    """
    import numpy as np

    from gan_cli.data.tables import arrays
    from gan_cli.data.tables import files as table_files
    from gan_cli.data.tables.feature import Table
    from gan_cli.views import pictures, tables

    table = runner.feature
    assert isinstance(table, Table)
    _check_original(options, modules)
    n = request.number(run.examples or _ROWS)
    parts, sampler = rows_of(options, run, runner, request, n)
    if suffix_of(options.out):
        with table_files.Writer(options.out, table, origin_of(options, run)) as writer:
            for part in parts:
                writer.write(part)
    else:
        made = list(parts)
        whole = {name: np.concatenate([part[name] for part in made]) for name in made[0]}
        if options.out.suffix == ".npz":
            found = arrays.arrays_of(table.columns, whole)
            marks.write_arrays(options.out, found, origin_of(options, run))
        else:
            real = _training_rows(options, run, table, modules)
            origin = origin_of(options, run, mixed=real is not None)
            pictures.write(options.out, tables.chart(tables.summary(table, real, whole)), origin)
    for line in sampler.lines() if sampler else ():
        print(line)
    return f"{n:,} rows"


def _check_original(options: argparse.Namespace, modules: Sequence[str]) -> None:
    """Raise a UserError if ``--out`` is a file from which the run has read its data."""
    from gan_cli.config import stored
    from gan_cli.storage.run_directory import facts

    dataset = stored.load(facts(options.run), modules, ())["dataset"]
    for name in ("path", "schema"):
        file = files.expanded(str(dataset.get(name) or ""))
        if options.out.exists() and file.is_file() and options.out.samefile(file):
            raise UserError(f"--out {options.out}: is the file dataset.{name} of the run. Choose another file.")


def _training_rows(
    options: argparse.Namespace, run: RestoredRun, table: Table, modules: Sequence[str]
) -> Arrays | None:
    """Training rows that meet the conditions of the options, by column. None if there are none, or without data."""
    from gan_cli.data.tables import conditions
    from gan_cli.trained import restore
    from gan_cli.views import tables

    try:
        data = run.experiment.dataset or restore.load_data(options.run, modules)
    except UserError as error:
        log.warning("The chart shows no training rows, because the data of the run cannot be loaded: %s", error)
        return None
    real = table.values(data.spread(tables.ROWS))
    met = conditions.meets([conditions.parse(text, table.columns) for text in options.where], real)
    return {name: values[met] for name, values in real.items()} if met.any() else None


def rows_of(
    options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest, n: int
) -> tuple[Iterator[Arrays], RowSampler | None]:
    """The rows that the options request, in parts, and their sampler. None for rows from inputs of the user.

    Raises:
        UserError: a condition does not fit the columns, or contradicts ``--class``.
    """
    import jax

    from gan_cli.data.tables import conditions
    from gan_cli.data.tables.feature import Table
    from gan_cli.trained.rows import RowSampler

    table = runner.feature
    assert isinstance(table, Table)
    if request.given:
        stored = runner.stored(run.state, request.draw(runner, n), request.seed)
        return (table.restore(jax.device_get(part[runner.main])) for part in stored), None
    where = [conditions.parse(text, table.columns) for text in options.where]
    balance = conditions.with_categories(options.balance, table.columns) if options.balance else None
    conditions.check_together(where, balance)
    label = table.label_column
    if options.label is not None and label is not None and label in (balance, *(one.column for one in where)):
        raise UserError(
            f"--class {options.label}: determines {label.name} already. "
            "Leave out --class, or the condition on this column."
        )
    sampler = RowSampler(
        runner, run.state, lambda n, first: request.draw(runner, n, first), request.seed, where, balance
    )
    return sampler.parts(n), sampler


def write_folder(options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest) -> str:
    """Write the images of the task as a folder of pictures, with the names of the inputs or with numbers.

    Returns:
        A text that describes what was written, e.g. "64 pictures".
    """
    from gan_cli.trained import translation

    _check_pictures(options, runner)
    n = request.number(SIDE**2)
    inputs = request.draw(runner, n)
    names = request.names[:n] or [f"{i:0{max(len(str(n - 1)), 5)}}" for i in range(n)]
    _remove_samples(options.out)
    file_names = _FileNames()
    written = iter([file_names.of(name) for name in names])
    for part in translation.stored(runner, run.state, inputs, request.seed):
        for output in part[runner.main]:
            _write_picture(options.out / next(written), runner, output, origin_of(options, run))
    return f"{n:,} pictures"


def _check_pictures(options: argparse.Namespace, runner: TaskRunner) -> None:
    """Raise a UserError if the main output of the task cannot be written as pictures."""
    from gan_cli.views.kinds import view

    chosen = view(runner.feature)
    if chosen.one is None:
        raise UserError(
            f"--out {options.out}: the {runner.main} of this run are {chosen.noun}, which cannot be written as a "
            f"folder of pictures. Use --out FILE.npz for an array, or --out FILE.png for one picture of all."
        )


def _write_picture(path: Path, runner: TaskRunner, output: np.ndarray, origin: Origin | None) -> None:
    """Write one stored output to ``path`` plus the suffix of its format."""
    from gan_cli.views.kinds import view

    write = view(runner.feature).one
    assert write is not None
    suffix, content = write(output, _SOFTWARE)
    marks.write(path.with_name(path.name + suffix), content, origin)


class _FileNames:
    """Makes the paths of outputs, relative to the folder and without suffix, from the names of pictures.

    The paths are all different, and have the sub-folders of the names. No path leads outside of the folder.
    """

    def __init__(self) -> None:
        self._used = set[str]()

    def of(self, name: str) -> Path:
        """The path for the next name."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")] or ["picture"]
        parts[-1] = parts[-1].rpartition(".")[0] or parts[-1]
        number, unique = 2, "/".join(parts)
        while unique in self._used:
            number, unique = number + 1, f"{'/'.join(parts)}-{number}"
        self._used.add(unique)
        return Path(unique)


def keeps_sizes(options: argparse.Namespace, runner: TaskRunner) -> bool:
    """Whether the outputs are images in the sizes of pictures, because the task accepts images of any size.

    A single picture of several inputs, e.g. a .png file for a folder, shows all in the size of the run.
    """
    from gan_cli.data.features import Image
    from gan_cli.data.images import SUFFIXES
    from gan_cli.data.inputs import holds_pictures

    if runner.task.multiple is None or options.input is None or not holds_pictures(options.input):
        return False
    if len(runner.given) != 1 or not isinstance(runner.task.inputs[runner.given[0]], Image):
        return False
    single = options.input.is_file() and options.input.name.lower().endswith(SUFFIXES)
    return options.out.suffix in ("", ".npz") or (single and options.draw is None and options.out.suffix == ".png")


def write_translated(
    options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest
) -> str:
    """Write the outputs of the task for pictures of any size, each in the size of its picture.

    The outputs are a folder of pictures with the names of the inputs, an ``.npz`` file, or one picture.

    Returns:
        A text that describes what was written, e.g. "64 pictures".
    """
    from gan_cli.data.features import Image
    from gan_cli.data.inputs import Pictures, no_images
    from gan_cli.trained import translation

    _check_pictures(options, runner)
    if runner.classes and request.label is None:
        raise UserError(
            f"--input {options.input}: has no labels, and the task {runner.name} needs the class of each row. Add "
            "--class CLASS, or use an .npz file with the labels."
        )
    feature = runner.task.inputs[runner.given[0]]
    assert isinstance(feature, Image)
    pictures = Pictures(options.input, feature, options.out)
    if request.num is not None and request.num > pictures.count:
        raise UserError(
            f"--input {options.input}: has {pictures.count} pictures, and {request.num} are needed. "
            "Choose a smaller --num."
        )
    names = list[str]()

    def images() -> Iterator[np.ndarray]:
        for name, image in itertools.islice(pictures, request.num):
            names.append(name)
            yield image

    def others(number: int) -> Arrays:
        return request.draw(runner, 1, number)

    made = _translated(options, names, translation.translated(runner, run.state, images(), others, request.seed))
    if options.out.suffix == "":
        count = _write_all(options, run, runner, names, made)
    elif options.out.suffix == ".npz":
        count = _write_rows(options, run, runner, request, made)
    else:
        count = _write_one(options, run, runner, made)
    if not count:
        raise no_images(options.input)
    left_out = min(request.num or pictures.count, pictures.count) - count
    skipped = f" ({left_out:,} skipped)" if left_out else ""
    return f"{count:,} picture{'s' if count > 1 else ''}{skipped}"


def _translated(
    options: argparse.Namespace, names: Sequence[str], made: Iterator[tuple[int, Arrays | UserError]]
) -> _Made:
    """Yields the numbers and outputs of ``made`` without the pictures that are too large, which it logs.

    Raises:
        UserError: all pictures are too large.
    """
    worked, too_large = False, list[tuple[str, UserError]]()
    for number, outputs in made:
        if isinstance(outputs, UserError):
            too_large.append((names[number], outputs))
            continue
        worked = True
        yield number, outputs
    if too_large and not worked:
        name, error = too_large[0]
        path = str(options.input) if options.input.name == name else f"{options.input}: {name}"
        raise UserError(f"--input {path}: {error}")
    for name, error in too_large:
        log.warning("%s: %s The picture is skipped.", name, error)


def _write_all(
    options: argparse.Namespace,
    run: RestoredRun,
    runner: TaskRunner,
    names: Sequence[str],
    made: _Made,
) -> int:
    """Write the main outputs as pictures with the names of the inputs, and return the number of pictures.

    Args:
        names: the names of the pictures so far, to which reading adds.
    """
    file_names, targets, count = _FileNames(), list[Path](), 0
    for number, outputs in made:
        if not count:
            _remove_samples(options.out)
        targets += [file_names.of(name) for name in names[len(targets) :]]
        _write_picture(options.out / targets[number], runner, outputs[runner.main], origin_of(options, run))
        count += 1
    return count


def _write_rows(
    options: argparse.Namespace,
    run: RestoredRun,
    runner: TaskRunner,
    request: InputRequest,
    made: _Made,
) -> int:
    """Write the outputs and the inputs that are drawn as an ``.npz`` file, and return the number of rows.

    Raises:
        UserError: the outputs differ in size.
    """
    import numpy as np

    found = dict(sorted(made, key=lambda pair: pair[0]))
    sizes = sorted({outputs[runner.main].shape[:2] for outputs in found.values()})
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = sizes[0], sizes[-1]
        raise UserError(
            f"--out {options.out}: an array holds images of one size, but the pictures have different ones, e.g. "
            f"{height} x {width} and {other_height} x {other_width} pixels. Use --out FOLDER."
        )
    if not found:
        return 0
    arrays = {name: np.stack([outputs[name] for outputs in found.values()]) for name in runner.task.outputs}
    rows = list(found)
    for name, x in request.draw(runner, rows[-1] + 1).items():
        arrays.setdefault("labels" if name == "label" else name, x[rows])
    marks.write_arrays(options.out, arrays, origin_of(options, run))
    return len(found)


def _write_one(options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, made: _Made) -> int:
    """Write the main output for a single picture as a picture, and return the number of pictures.

    Raises:
        UserError: images of this number of channels cannot be written as PNG.
    """
    from gan_cli.views.kinds import view

    write = view(runner.feature).one
    assert write is not None
    count = 0
    for _, outputs in made:
        suffix, content = write(outputs[runner.main], _SOFTWARE)
        if suffix != options.out.suffix:
            raise UserError(
                f"--out {options.out}: images with {runner.feature.shape[-1]} channels cannot be written as PNG. "
                f"Use --out FOLDER for {suffix} files, or --out FILE.npz."
            )
        marks.write(options.out, content, origin_of(options, run))
        count += 1
    return count


def write_picture(options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest) -> str:
    """Write a picture or an animation of the outputs of the task.

    Returns:
        The name of the drawing, "points" for a scatter plot, or "pairs" for inputs above their outputs.
    """
    from gan_cli.views import drawings, pictures
    from gan_cli.views.kinds import view

    name: str = options.draw or ("walk" if options.out.suffix == ".gif" else "grid")
    feature = runner.task.outputs[runner.main]
    chosen = view(feature)
    if not feature.shape:
        raise UserError(
            f"--out {options.out}: the task {runner.name} computes {feature.noun}, which are not shown as a "
            "picture. Use --out FILE.npz for arrays."
        )
    if chosen.one is None:
        if options.draw is None and name != "grid":
            raise UserError(
                f"--out {options.out}: a .gif file shows a walk of images, and the {runner.main} of this run are "
                f"{chosen.noun}. Use --out FILE.png for one picture of all {runner.main}."
            )
        if name != "grid":
            raise UserError(
                f"--draw {name}: needs images, and the {runner.main} of this run are {chosen.noun}. "
                "Leave out --draw and use --out FILE.png."
            )
        origin = origin_of(options, run, mixed=bool(runner.task.pictured))
        pictures.write(options.out, drawings.picture(run, runner, request), origin)
        return chosen.noun
    if options.draw is None and name == "grid" and request.given and runner.pictured:
        picture, labels = drawings.rows(run, runner, request)
        pictures.write(options.out, picture, origin_of(options, run, mixed=True), labels)
        return "pairs"
    drawing = drawings.draw(name, run, runner, request)
    origin = origin_of(options, run, mixed=name == "activations")
    if isinstance(drawing, list):
        marks.write(options.out, pictures.animate(drawing), origin)
        return name
    pictures.write(options.out, drawing, origin)
    return name
