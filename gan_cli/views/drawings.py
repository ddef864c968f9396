"""Drawings of trained networks, one function for each value of ``gan-sample --draw``.

Each drawing function takes the restored run, the sampler of the run and a request for latents. The function returns
a picture, or the list of the frames of an animation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gan_cli.errors import UserError
from gan_cli.trained import inspection
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import Sampler
from gan_cli.views import DRAWINGS, SIDE, pictures

_STEPS = 9  # the number of samples in a row of an interpolation or a traversal
_REACH = 4.0  # the largest distance of a traversal in each direction, in standard deviations of the latents
_STOPS, _FRAMES = 6, 12  # the random latents that a walk visits, and the frames from each of them to the next
_MANY = 5000  # the number of latents from which the principal components are computed


@dataclass(frozen=True)
class LatentRequest:
    """The latents and labels that a user requests from ``gan-sample``.

    Attributes:
        seed: the seed of the latents.
        num: the value of ``--num``: the number of samples, or of rows, columns or walks of a drawing. With None,
            each drawing uses its default.
        label: the class of all samples. With None, the samples take all classes in turn.
        truncation: the largest absolute value of the latents. With None, there is no limit.
        latents: an array ``[n, latent_dim]`` with the latents to use. With None, the latents are random.
    """

    seed: int
    num: int | None
    label: int | None
    truncation: float | None
    latents: np.ndarray | None

    def number(self, default: int) -> int:
        """The number of samples: ``num``, else the number of ``latents``, else ``default``."""
        return self.num or (default if self.latents is None else len(self.latents))

    def draw(self, sampler: Sampler, n: int, first: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """The latents and labels of the samples ``first`` to ``first + n - 1``, counted from 0.

        Returns:
            A pair: the latents ``[n, latent_dim]`` and the labels ``[n]``. If the run is not conditional, the
            labels are None.

        Raises:
            UserError: the array ``latents`` has fewer than ``first + n`` rows.
        """
        labels = sampler.labels(first, n)
        if labels is not None and self.label is not None:
            labels = np.full(n, self.label, np.int32)
        if self.latents is None:
            return sampler.latents(self.seed, first, n, self.truncation), labels
        if first + n > len(self.latents):
            raise UserError(
                f"--latents: the file has {len(self.latents)} latents, and {first + n} are needed. "
                "Choose a smaller --num."
            )
        return self.latents[first : first + n], labels


def grid(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """A grid of samples: 64 samples, or ``num`` or all ``latents`` if they are given."""
    return pictures.grid(images(run, sampler, *asked.draw(sampler, asked.number(SIDE**2))))


def interpolation(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """Samples of spherical interpolations between pairs of latents, one row for each pair."""
    rows = asked.num or SIDE
    latents, labels = asked.draw(sampler, 2 * rows)
    paths = inspection.slerp(latents[::2], latents[1::2], np.linspace(0, 1, _STEPS))
    return _rows(run, sampler, paths, None if labels is None else labels[:rows])


def walk(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> list[Image.Image]:
    """The frames of an animation that shows several closed walks through latent space at the same time."""
    walks = asked.num or 16
    latents, labels = asked.draw(sampler, walks * _STOPS)
    path = inspection.walk(latents.reshape(_STOPS, walks, -1), _FRAMES)
    labels = None if labels is None else np.tile(labels[:walks], len(path))
    samples = images(run, sampler, path.reshape(-1, path.shape[-1]), labels)
    return [pictures.grid(frame) for frame in samples.reshape(len(path), walks, *samples.shape[1:])]


def classes(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """A grid of samples with a row for each class and a column for each latent.

    Raises:
        UserError: the run is not conditional.
    """
    if sampler.game.classes is None:
        raise UserError(
            "--draw classes: this run is not conditional. Train a conditional run, e.g. with "
            "model.conditional=projection."
        )
    columns, count = asked.num or SIDE, sampler.game.classes
    latents, _ = asked.draw(sampler, columns)
    labels = np.repeat(np.arange(count, dtype=np.int32), columns)
    return pictures.grid(images(run, sampler, np.tile(latents, (count, 1)), labels), columns)


def sefa(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """Rows of samples whose latents move along the SeFa directions.

    These directions change the output of the generator's first layer most.
    """
    return _traversals(run, sampler, asked, inspection.sefa(sampler.game, run.state))


def ganspace(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """Rows of samples whose latents move along the GANSpace directions.

    These directions belong to the principal components of the output of the generator's first non-linear layer.
    """
    many = LatentRequest(asked.seed, None, asked.label, None, None).draw(sampler, _MANY)
    return _traversals(run, sampler, asked, inspection.ganspace(sampler.game, run.state, *many))


def activations(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """A picture of the discriminator's activations for real images and for samples.

    The first row shows the images and samples. Below it, each stage of a convolutional discriminator has a row of
    activation maps. The last row shows the saliency maps.

    Raises:
        UserError: the discriminator takes packs of images.
    """
    data = run.experiment.dataset
    assert data is not None
    if sampler.game.pack > 1:
        raise UserError(
            "--draw activations: the discriminator of this run takes packs of images, so a single image has no "
            "activations. Use a run without augment=[packing]."
        )
    n = asked.num or SIDE
    latents, labels = asked.draw(sampler, n)
    rows = np.linspace(0, data.size - 1, n).astype(int)
    taken = data.take(rows)
    both = np.concatenate([taken[data.main], images(run, sampler, latents, labels)])
    all_labels = None if labels is None else np.concatenate([taken["label"], labels])
    maps = inspection.activations(sampler.game, run.state, np.asarray(data.feature.encode(both)), all_labels)
    return pictures.maps(both, maps)


_Drawing = Callable[[RestoredRun, Sampler, LatentRequest], Image.Image | list[Image.Image]]


def draw(name: str, run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image | list[Image.Image]:
    """The picture for one value of ``gan-sample --draw``, or the list of the frames of an animation.

    Args:
        name: the value of ``--draw``, an entry of ``gan_cli.views.DRAWINGS``.
        run: the restored run.
        sampler: generates the samples.
        asked: the latents and labels that the user requests.
    """
    assert name in DRAWINGS
    drawing: _Drawing = globals()[name]
    return drawing(run, sampler, asked)


def images(run: RestoredRun, sampler: Sampler, latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """The images ``[n, h, w, c]`` in uint8 that the generator makes from ``latents`` ``[n, latent_dim]``."""
    return np.concatenate([np.asarray(part) for part in sampler.stored(run.state, latents, labels)])


def _traversals(run: RestoredRun, sampler: Sampler, asked: LatentRequest, directions: np.ndarray) -> Image.Image:
    rows = min(asked.num or SIDE, len(directions))
    latents, labels = asked.draw(sampler, 1)
    along = np.linspace(-_REACH, _REACH, _STEPS, dtype=np.float32)[None, :, None] * directions[:rows, None]
    paths = latents[None] + along.astype(np.float32)
    return _rows(run, sampler, paths, None if labels is None else np.repeat(labels, rows))


def _rows(run: RestoredRun, sampler: Sampler, paths: np.ndarray, labels: np.ndarray | None) -> Image.Image:
    """A picture with one row of samples for each path of latents.

    Args:
        paths: latents ``[rows, steps, latent_dim]``, with ``steps`` points on each path.
        labels: the class of each row, ``[rows]``; None if the run is not conditional.
    """
    rows, steps, _ = paths.shape
    each = None if labels is None else np.repeat(labels, steps)
    return pictures.grid(images(run, sampler, paths.reshape(rows * steps, -1), each), steps)
