"""What can be drawn of a trained generator and discriminator; each drawing one function.

A drawing takes the run and what was asked for, and gives a picture, or the frames of an animation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gan_cli.data.scaling import normalise
from gan_cli.errors import UserError
from gan_cli.trained import inspection
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import Sampler
from gan_cli.views import DRAWINGS, pictures

_STEPS = 9  # pictures in a row, of an interpolation or a traversal
_REACH = 4.0  # how far a traversal goes each way, in standard deviations of the latents
_STOPS, _FRAMES = 6, 12  # of a walk: latents that it comes by, and pictures from one to the next
_MANY = 5000  # latents whose principal components are taken


@dataclass(frozen=True)
class LatentRequest:
    """Which latents: given ones, or those of a seed; of which class, and how far from zero."""

    seed: int
    num: int | None
    label: int | None
    truncation: float | None
    latents: np.ndarray | None

    def number(self, usual: int) -> int:
        """How many samples: as asked for, or all latents that were given, or as many as is usual."""
        return self.num or (usual if self.latents is None else len(self.latents))

    def draw(self, sampler: Sampler, n: int, first: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """``n`` latents from number ``first`` on, and labels where the run is conditional.

        Raises:
            UserError: fewer latents were given.
        """
        labels = sampler.labels(first, n)
        if labels is not None and self.label is not None:
            labels = np.full(n, self.label, np.int32)
        if self.latents is None:
            return sampler.latents(self.seed, first, n, self.truncation), labels
        if first + n > len(self.latents):
            raise UserError(f"--latents: {first + n} are needed, and there are {len(self.latents)}.")
        return self.latents[first : first + n], labels


def grid(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """Samples by number."""
    return pictures.grid(images(run, sampler, *asked.draw(sampler, asked.number(pictures.SIDE**2))))


def interpolation(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """A row for each pair of latents: from the one to the other on a great circle."""
    rows = asked.num or pictures.SIDE
    latents, labels = asked.draw(sampler, 2 * rows)
    ways = inspection.slerp(latents[::2], latents[1::2], np.linspace(0, 1, _STEPS))
    return _rows(run, sampler, ways, None if labels is None else labels[:rows])


def walk(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> list[Image.Image]:
    """Frames of closed walks through latents, side by side."""
    ways = asked.num or 16
    latents, labels = asked.draw(sampler, ways * _STOPS)
    path = inspection.walk(latents.reshape(_STOPS, ways, -1), _FRAMES)
    labels = None if labels is None else np.tile(labels[:ways], len(path))
    made = images(run, sampler, path.reshape(-1, path.shape[-1]), labels)
    return [pictures.grid(frame) for frame in made.reshape(len(path), ways, *made.shape[1:])]


def classes(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """A row for each class, a column for each latent."""
    if sampler.game.classes is None:
        raise UserError("--draw classes: this run knows no classes: train one with model.conditional=projection.")
    columns, count = asked.num or pictures.SIDE, sampler.game.classes
    latents, _ = asked.draw(sampler, columns)
    labels = np.repeat(np.arange(count, dtype=np.int32), columns)
    return pictures.grid(images(run, sampler, np.tile(latents, (count, 1)), labels), columns)


def sefa(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """One latent moved along the directions that change the first layer's output most, a row for each."""
    return _traversals(run, sampler, asked, inspection.sefa(sampler.game, run.state))


def ganspace(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """One latent moved along the principal components of the first non-linear layer, a row for each."""
    many = LatentRequest(asked.seed, None, asked.label, None, None).draw(sampler, _MANY)
    return _traversals(run, sampler, asked, inspection.ganspace(sampler.game, run.state, *many))


def activations(run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image:
    """Real images and then as many samples; below each what the stages of the discriminator make of it."""
    data = run.experiment.dataset
    assert data is not None
    if sampler.game.pack > 1:
        raise UserError("--draw activations: this run's discriminator looks at packs of images, not at one.")
    n = asked.num or pictures.SIDE
    latents, labels = asked.draw(sampler, n)
    rows = np.linspace(0, data.size - 1, n).astype(int)
    taken = data.take(rows)
    shown = np.concatenate([taken["examples"], images(run, sampler, latents, labels)])
    both = None if labels is None else np.concatenate([taken["labels"], labels])
    return pictures.maps(shown, inspection.activations(sampler.game, run.state, np.asarray(normalise(shown)), both))


def draw(what: str, run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> Image.Image | list[Image.Image]:
    """The drawing of this name: one of ``gan_cli.views.DRAWINGS``."""
    assert what in DRAWINGS
    return globals()[what](run, sampler, asked)


def images(run: RestoredRun, sampler: Sampler, latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """``[n, h, w, c]`` uint8."""
    return np.concatenate([np.asarray(part) for part in sampler.stored(run.state, latents, labels)])


def _traversals(run: RestoredRun, sampler: Sampler, asked: LatentRequest, directions: np.ndarray) -> Image.Image:
    rows = min(asked.num or pictures.SIDE, len(directions))
    latents, labels = asked.draw(sampler, 1)
    along = np.linspace(-_REACH, _REACH, _STEPS, dtype=np.float32)[None, :, None] * directions[:rows, None]
    ways = latents[None] + along.astype(np.float32)
    return _rows(run, sampler, ways, None if labels is None else np.repeat(labels, rows))


def _rows(run: RestoredRun, sampler: Sampler, ways: np.ndarray, labels: np.ndarray | None) -> Image.Image:
    """Rows of samples of ``[rows, steps, d]`` latents, a row of one class."""
    rows, steps, _ = ways.shape
    each = None if labels is None else np.repeat(labels, steps)
    return pictures.grid(images(run, sampler, ways.reshape(rows * steps, -1), each), steps)
