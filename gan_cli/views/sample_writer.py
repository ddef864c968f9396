"""Draws the samples of a run while it trains."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from gan_cli.config.build import Experiment
from gan_cli.data.dataset import Dataset
from gan_cli.engine.state import TrainState
from gan_cli.metrics import diversity
from gan_cli.storage import metrics_log
from gan_cli.trained.sampling import Sampler
from gan_cli.views import POINTS, SIDE, pictures


class SampleWriter:
    """Draws the real data once, and samples from fixed latents repeatedly, in a background thread.

    For a game without samples but with a known equilibrium, it draws the logged trajectory of the players.

    Args:
        experiment: the experiment of the run, whose seed determines the fixed latents.
        directory: the directory of the run. The pictures are written to ``samples/`` in it.
        sampler: draws samples from the generator; None if the game does not generate samples.

    Attributes:
        last: the path of the last picture, or None before the first.
        can_draw: whether the game generates samples.
    """

    def __init__(self, experiment: Experiment, directory: Path, sampler: Sampler | None):
        self._data, self._seed, self._sampler = experiment.dataset, experiment.seed, sampler
        self._run = directory if sampler is None and experiment.game.has_equilibrium else None
        self._folder = directory / "samples"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        # Pictures that are being written. The path is None if ``finished`` does not report the picture.
        self._pending: list[tuple[Path | None, Future[None]]] = []
        self._drawn: set[int] = set()
        self.last: Path | None = None
        self.can_draw = sampler is not None
        # With an augmentation, the discriminator's input differs from the examples, so it is drawn too.
        self._augment = jax.jit(experiment.game.augmented) if experiment.config.get("augment") else None
        if sampler is not None and self._data is not None:
            self._pending.append((None, self._thread.submit(draw_real, self._data, self._folder / "real.png")))
            n = max(SIDE**2, diversity.SAMPLES) if self._data.spec.is_image else POINTS
            self._latents, self._labels = sampler.latents(self._seed, 0, n), sampler.labels(0, n)

    def samples(self, state: TrainState) -> jax.Array | None:
        """The samples of the fixed latents, without waiting for the device; None without a sampler."""
        return self._sampler(state, self._latents, self._labels) if self._sampler else None

    def draw(self, step: int, samples: jax.Array | None, state: TrainState) -> None:
        """Draw the samples of this step; with an augmentation, also draw the discriminator's input.

        Args:
            samples: the result of ``samples`` at this step.
            state: the training state, whose network state holds the strength of an adaptive augmentation.
        """
        if (not self.can_draw and not self._run) or step in self._drawn:
            return
        self._drawn.add(step)
        self.last = self._folder / f"{step}.png"
        if self._run:
            job = self._thread.submit(draw_trajectory, self._run, self.last)
        else:
            assert self._data is not None
            job = self._thread.submit(draw_samples, self._data, np.asarray(samples), self.last)
        self._pending.append((self.last, job))
        if self._augment is not None and samples is not None and self._data is not None:
            n = min(SIDE**2 // 2 if self._data.spec.is_image else POINTS, self._data.size)
            both = np.concatenate([self._data.spread(n), np.asarray(samples[:n])])
            key = jax.random.fold_in(jax.random.key(self._seed), step)
            seen = self._augment(both, state.net_state, key, step)
            job = self._thread.submit(draw_seen, np.asarray(seen), self._folder / "seen" / self.last.name)
            self._pending.append((None, job))

    def finished(self, wait: bool = False) -> list[Path]:
        """The paths of the pictures of samples or trajectories that have been written since the last call.

        Args:
            wait: whether to wait until all pictures are written.

        Raises:
            OSError: a picture could not be written.
        """
        done = []
        while self._pending and (wait or self._pending[0][1].done()):
            path, job = self._pending.pop(0)
            job.result()
            if path is not None:
                done.append(path)
        return done

    def close(self) -> None:
        """Wait for the pictures that are being written, and end the background thread."""
        self._thread.shutdown(wait=True)


def draw_samples(data: Dataset, samples: np.ndarray, path: Path) -> None:
    """Draw a grid of images, or a scatter plot of points, which are also written to an ``.npz`` file."""
    if data.spec.is_image:
        pictures.write(path, pictures.grid(samples[: SIDE**2]))
    else:
        real = data.take(np.arange(min(POINTS, data.size)))["examples"]
        pictures.write(path, pictures.scatter(samples, real))
        pictures.write_points(path.with_suffix(".npz"), samples)


def draw_seen(seen: np.ndarray, path: Path) -> None:
    """Draw augmented examples that the discriminator receives: half real and half generated."""
    path.parent.mkdir(exist_ok=True)
    half = len(seen) // 2
    image = seen.ndim == 4
    pictures.write(path, pictures.grid(seen) if image else pictures.scatter(seen[half:], seen[:half]))


def draw_trajectory(run: Path, path: Path) -> None:
    """Draw the trajectory of the players through all logged steps of the run."""
    points = np.array([(record["x"], record["y"]) for record in metrics_log.read(run)], float)
    pictures.write(path, pictures.trajectory(points))


def draw_real(data: Dataset, path: Path) -> None:
    """Draw evenly spaced examples of the data set, in the same form as samples."""
    examples = data.spread(SIDE**2 if data.spec.is_image else POINTS)
    if data.spec.is_image:
        pictures.write(path, pictures.grid(examples))
    else:
        pictures.write(path, pictures.scatter(examples, examples))


def remove_later_pictures(directory: Path, step: int) -> None:
    """Remove the pictures of the steps after ``step``, because the resumed run draws them again."""
    for picture in (directory / "samples").glob("**/[0-9]*"):
        if int(picture.stem) > step:
            picture.unlink()
