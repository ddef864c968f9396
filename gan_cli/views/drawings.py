"""Drawings of trained networks, one function for each value of ``gan-sample --draw``.

Each drawing function takes the restored run, the runner of a task that generates images from latents, and a request
for inputs of the task. The function returns a picture, or the list of the frames of an animation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from gan_cli.errors import UserError
from gan_cli.trained import inspection, translation
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import TaskRunner, averaged
from gan_cli.views import DRAWINGS, SIDE, pictures
from gan_cli.views.kinds import kinds, view

_STEPS = 9  # the number of samples in a row of an interpolation or a traversal
_REACH = 4.0  # the largest distance of a traversal in each direction, in standard deviations of the latents
_STOPS, _FRAMES = 6, 12  # the random latents that a walk visits, and the frames from each of them to the next
_CODES = 4  # the number of contents and of motions in a grid of clips
_MANY = 5000  # the number of latents from which the principal components are computed


@dataclass(frozen=True)
class InputRequest:
    """The inputs of a task that a user requests from ``gan-sample``.

    Attributes:
        seed: the seed of the inputs that are drawn.
        num: the value of ``--num``: the number of rows, or of rows, columns or walks of a drawing. With None, each
            drawing uses its default.
        label: the class of all rows. With None, the rows have the classes that the user provides, or take all
            classes in turn.
        truncation: the largest absolute value of Gaussian inputs. With None, there is no limit.
        given: the inputs that the user provides by name, ``[n, *stored_shape]``, in the format of files.
        options: for each input in ``given``, the command-line option that provides it.
        names: the names of the rows in the user's files, or an empty sequence.
        target: the true examples that the main output of the task imitates, ``[n, *stored_shape]``, or None.
        last: the levels ``[columns]`` before the first step of a forecast of log-returns, or None.
    """

    seed: int
    num: int | None
    label: int | None = None
    truncation: float | None = None
    given: Mapping[str, np.ndarray] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = ()
    target: np.ndarray | None = None
    last: np.ndarray | None = None

    def number(self, default: int) -> int:
        """The number of rows: ``num``, else the number of rows that the user provides, else ``default``."""
        return self.num or min(map(len, self.given.values()), default=default)

    def draw(self, runner: TaskRunner, n: int, first: int = 0) -> dict[str, np.ndarray]:
        """The inputs of the rows ``first`` to ``first + n - 1``, counted from 0, in the order of the task's inputs.

        Inputs that must be provided and are not in ``given`` are missing.

        Raises:
            UserError: the user provides fewer than ``first + n`` rows.
        """
        found = runner.inputs(self.seed, first, n, self.truncation)
        for name, rows in self.given.items():
            if first + n > len(rows):
                raise UserError(
                    f"{self.options[name]}: the file has {len(rows)} rows, and {first + n} are needed. "
                    "Choose a smaller --num."
                )
            found[name] = rows[first : first + n]
        if self.label is not None:
            found |= {name: np.full(n, self.label, np.int32) for name in runner.classes}
        return {name: found[name] for name in runner.task.inputs if name in found}


def picture(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image:
    """One picture of all outputs of the task, over the inputs that they are pictured with if there are any."""
    chosen = view(runner.feature)
    inputs = asked.draw(runner, asked.number(chosen.count))
    made = runner.feature.encode(images(run, runner, inputs, asked.seed))
    behind = runner.encoded(inputs)[runner.task.pictured[0]] if runner.task.pictured else None
    return chosen.picture(np.asarray(made), behind)


def rows(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> tuple[Image.Image, list[str]]:
    """The inputs above the outputs of the task, with the targets below if there are any, and labels of the rows."""
    n = asked.number(SIDE**2)
    inputs = asked.draw(runner, n)
    shown, *pictured = runner.pictured
    parts = list(translation.stored(runner, run.state, inputs, asked.seed))
    made = {name: np.concatenate([part[name] for part in parts]) for name in pictured}
    feature = runner.task.inputs[shown]
    both = [feature.encode(inputs[shown]), *(runner.task.outputs[name].encode(x) for name, x in made.items())]
    if asked.target is not None:
        both.append(runner.feature.encode(asked.target[:n]))
    return view(feature).rows([np.asarray(one) for one in both], kinds(runner, asked.target is not None))


def grid(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image:
    """A grid of samples: 64 samples, or ``num`` or all ``latents`` if they are given."""
    return pictures.grid(images(run, runner, asked.draw(runner, asked.number(SIDE**2)), asked.seed))


def interpolation(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image:
    """Samples of spherical interpolations between pairs of latents, one row for each pair."""
    rows = asked.num or SIDE
    latents, others = _latents(asked.draw(runner, 2 * rows))
    paths = inspection.slerp(latents[::2], latents[1::2], np.linspace(0, 1, _STEPS))
    return _rows(run, runner, paths, {name: x[:rows] for name, x in others.items()})


def walk(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> list[Image.Image]:
    """The frames of an animation that shows several closed walks through latent space at the same time."""
    walks = asked.num or 16
    latents, others = _latents(asked.draw(runner, walks * _STOPS))
    path = inspection.walk(latents.reshape(_STOPS, walks, -1), _FRAMES)
    inputs = {name: np.concatenate([x[:walks]] * len(path)) for name, x in others.items()}
    samples = images(run, runner, {"latents": path.reshape(-1, path.shape[-1])} | inputs)
    return [pictures.grid(frame) for frame in samples.reshape(len(path), walks, *samples.shape[1:])]


def classes(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image:
    """A grid of samples with a row for each class and a column for each latent.

    Raises:
        UserError: the run is not conditional.
    """
    if not runner.classes:
        raise UserError(
            "--draw classes: this run is not conditional. Train a conditional run, e.g. with "
            "model.conditional=projection."
        )
    columns, (name, count) = asked.num or SIDE, next(iter(runner.classes.items()))
    inputs = {name: np.concatenate([x] * count) for name, x in asked.draw(runner, columns).items()}
    inputs[name] = np.repeat(np.arange(count, dtype=np.int32), columns)
    return pictures.grid(images(run, runner, inputs), columns)


def sefa(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image:
    """Rows of samples whose latents move along the SeFa directions.

    These directions change the output of the generator's first layer most.
    """
    return _traversals(run, runner, asked, inspection.sefa(runner.game, run.state))


def ganspace(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image:
    """Rows of samples whose latents move along the GANSpace directions.

    These directions belong to the principal components of the output of the generator's first non-linear layer.
    """
    latents, others = _latents(InputRequest(asked.seed, None, asked.label).draw(runner, _MANY))
    return _traversals(
        run, runner, asked, inspection.ganspace(runner.game, run.state, latents, others.get("label"))
    )


def activations(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image:
    """A picture of the discriminator's activations for real images and for samples.

    The first row shows the images and samples. Below it, each stage of a convolutional discriminator has a row of
    activation maps. The last row shows the saliency maps.

    Raises:
        UserError: the discriminator takes packs of images.
    """
    data = run.experiment.dataset
    assert data is not None
    if runner.game.pack > 1:
        raise UserError(
            "--draw activations: the discriminator of this run takes packs of images, so a single image has no "
            "activations. Use a run without augment=[packing]."
        )
    n = asked.num or SIDE
    inputs = asked.draw(runner, n)
    rows = np.linspace(0, data.size - 1, n).astype(int)
    taken = data.take(rows)
    both = np.concatenate([taken[data.main], images(run, runner, inputs)])
    all_labels = np.concatenate([taken["label"], inputs["label"]]) if "label" in inputs else None
    maps = inspection.activations(runner.game, run.state, np.asarray(data.feature.encode(both)), all_labels)
    return pictures.maps(both, maps)


def codes(run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> tuple[np.ndarray, int]:
    """Clips with each of several contents in a row, and each of as many motions in a column.

    A row holds the content and varies the motion; a column holds the motion and varies the content.

    Returns:
        A pair: stored clips ``[n * n, frames, h, w, c]``, and the number n of columns.

    Raises:
        UserError: the generator has no motion codes.
    """
    game: Any = runner.game
    network = game.network("generator", *averaged(run.state)) if "generator" in runner.game.players else None
    size = getattr(getattr(network, "network", network), "motion_latents", 0)
    if not size or "latents" not in runner.drawn:
        raise UserError(
            "--draw codes: needs latents of the content and of the motion, which the generator of this run or the "
            f"task {runner.name} does not have. Train a run with game=gan model=mocogan, or leave out --draw."
        )
    n = asked.num or _CODES
    latents, others = _latents(asked.draw(runner, n))
    motions, contents = np.tile(latents[:, :size], (n, 1)), np.repeat(latents[:, size:], n, axis=0)
    inputs = {name: np.repeat(x, n, axis=0) for name, x in others.items()}
    inputs["latents"] = np.concatenate([motions, contents], axis=1)
    return images(run, runner, inputs, asked.seed), n


_Drawing = Callable[[RestoredRun, TaskRunner, InputRequest], Image.Image | list[Image.Image]]


def draw(name: str, run: RestoredRun, runner: TaskRunner, asked: InputRequest) -> Image.Image | list[Image.Image]:
    """The picture for one value of ``gan-sample --draw``, or the list of the frames of an animation.

    Args:
        name: the value of ``--draw``, an entry of ``gan_cli.views.DRAWINGS``.
        run: the restored run.
        runner: runs a task that generates images.
        asked: the inputs of the task that the user requests.

    Raises:
        UserError: the task or the players of the run do not allow the drawing.
    """
    assert name in DRAWINGS
    if name != "grid" and "latents" not in runner.drawn:
        raise UserError(
            f"--draw {name}: shows images of several latents, but the task {runner.name} draws no latents. "
            "Leave out --draw, or choose --task generate."
        )
    player = {"sefa": "generator", "ganspace": "generator", "activations": "discriminator"}.get(name)
    if player is not None and player not in runner.game.players:
        raise UserError(
            f"--draw {name}: needs a {player}, and the players of this run are {', '.join(runner.game.players)}. "
            "Choose another drawing, e.g. --draw interpolation."
        )
    drawing: _Drawing = globals()[name]
    return drawing(run, runner, asked)


def images(run: RestoredRun, runner: TaskRunner, inputs: Mapping[str, np.ndarray], seed: int = 0) -> np.ndarray:
    """The main output of the task for these inputs in the format of files: uint8 ``[n, h, w, c]`` for images."""
    return np.concatenate([part[runner.main] for part in translation.stored(runner, run.state, inputs, seed)])


def _latents(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A pair: the latents, and the other inputs by name."""
    return inputs["latents"], {name: x for name, x in inputs.items() if name != "latents"}


def _traversals(run: RestoredRun, runner: TaskRunner, asked: InputRequest, directions: np.ndarray) -> Image.Image:
    rows = min(asked.num or SIDE, len(directions))
    latents, others = _latents(asked.draw(runner, 1))
    along = np.linspace(-_REACH, _REACH, _STEPS, dtype=np.float32)[None, :, None] * directions[:rows, None]
    paths = latents[None] + along.astype(np.float32)
    return _rows(run, runner, paths, {name: np.repeat(x, rows, axis=0) for name, x in others.items()})


def _rows(run: RestoredRun, runner: TaskRunner, paths: np.ndarray, others: Mapping[str, np.ndarray]) -> Image.Image:
    """A picture with one row of samples for each path of latents.

    Args:
        paths: latents ``[rows, steps, latent_dim]``, with ``steps`` points on each path.
        others: the other inputs of each row by name, ``[rows, ...]``.
    """
    rows, steps, _ = paths.shape
    inputs = {name: np.repeat(x, steps, axis=0) for name, x in others.items()}
    return pictures.grid(images(run, runner, {"latents": paths.reshape(rows * steps, -1)} | inputs), steps)
