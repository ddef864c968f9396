"""Draws what a run's generator makes while it trains."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli.config.build import Experiment
from gan_cli.engine.state import TrainState
from gan_cli.metrics import diversity
from gan_cli.storage import metrics_log
from gan_cli.trained.sampling import Sampler
from gan_cli.views import pictures


class SampleWriter:
    """Draws the first samples of the run's seed, and the real data once; pictures are written in the background.

    Of a game without samples but with an equilibrium, the players' trajectory is drawn, as it was logged.
    """

    def __init__(self, experiment: Experiment, directory: Path, sampler: Sampler | None):
        self._data, self._seed, self._sampler = experiment.dataset, experiment.seed, sampler
        self._run = directory if sampler is None and experiment.game.has_equilibrium else None
        self._folder = directory / "samples"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._pending: list[tuple[Path | None, Future]] = []  # and what is told of as written
        self._drawn: set[int] = set()
        self.last: Path | None = None
        self.can_draw = sampler is not None
        # What the discriminator is shown is drawn where it is not what the data and the generator give.
        self._shown = jax.jit(experiment.game.shown) if experiment.config.get("augment") else None  # type: ignore
        if sampler is not None and self._data is not None:
            self._pending.append((None, self._thread.submit(draw_real, self._data, self._folder / "real.png")))
            n = max(pictures.SIDE**2, diversity.SAMPLES) if self._data.spec.is_image else pictures.POINTS
            self._latents, self._labels = sampler.latents(self._seed, 0, n), sampler.labels(0, n)

    def samples(self, state: TrainState) -> jax.Array | None:
        """What the generator makes of the fixed latents, not waited for; None of a game without samples."""
        return self._sampler(state, self._latents, self._labels) if self._sampler else None

    def draw(self, step: int, samples: jax.Array | None, state: TrainState) -> None:
        """Draw what ``samples`` gave at this step, and what the discriminator is shown of it."""
        if (not self.can_draw and not self._run) or step in self._drawn:
            return
        self._drawn.add(step)
        self.last = self._folder / f"{step}.png"
        if self._run:
            job = self._thread.submit(draw_trajectory, self._run, self.last)
        else:
            job = self._thread.submit(draw_samples, self._data, np.asarray(samples), self.last)
        self._pending.append((self.last, job))
        if self._shown is not None and samples is not None and self._data is not None:
            n = min(pictures.SIDE**2 // 2 if self._data.spec.is_image else pictures.POINTS, self._data.size)
            both = np.concatenate([self._data.spread(n), np.asarray(samples[:n])])
            key = jax.random.fold_in(jax.random.key(self._seed), step)
            seen = self._shown(both, state.net_state, key, step)
            job = self._thread.submit(draw_seen, np.asarray(seen), self._folder / "seen" / self.last.name)
            self._pending.append((None, job))

    def finished(self, wait: bool = False) -> list[Path]:
        """Grids and trajectories that have been written since the last call; with ``wait``, all that were drawn.

        Raises:
            OSError: one could not be written.
        """
        done = []
        while self._pending and (wait or self._pending[0][1].done()):
            path, job = self._pending.pop(0)
            job.result()
            if path is not None:
                done.append(path)
        return done

    def close(self) -> None:
        self._thread.shutdown(wait=True)


def draw_samples(data: Any, samples: np.ndarray, path: Path) -> None:
    """A grid of images; or points over the real ones, and the points themselves beside it."""
    if data.spec.is_image:
        pictures.write(path, pictures.grid(samples[: pictures.SIDE**2]))
    else:
        real = data.take(np.arange(min(pictures.POINTS, data.size)))["examples"]
        pictures.write(path, pictures.scatter(samples, real))
        pictures.write_points(path.with_suffix(".npz"), samples)


def draw_seen(seen: np.ndarray, path: Path) -> None:
    """Real examples and then as many generated ones, both as the discriminator is shown them."""
    path.parent.mkdir(exist_ok=True)
    half = len(seen) // 2
    image = seen.ndim == 4
    pictures.write(path, pictures.grid(seen) if image else pictures.scatter(seen[half:], seen[:half]))


def draw_trajectory(run: Path, path: Path) -> None:
    """The players' positions at each logged step."""
    points = np.array([(record["x"], record["y"]) for record in metrics_log.read(run)], float)
    pictures.write(path, pictures.trajectory(points))


def draw_real(data: Any, path: Path) -> None:
    """The real data as the samples are drawn: the first examples of each class in turn, where there are classes."""
    examples = data.spread(pictures.SIDE**2 if data.spec.is_image else pictures.POINTS)
    if data.spec.is_image:
        pictures.write(path, pictures.grid(examples))
    else:
        pictures.write(path, pictures.scatter(examples, examples))


def remove_later_pictures(directory: Path, step: int) -> None:
    """Remove the pictures of later steps, which a resumed run will draw again."""
    for picture in (directory / "samples").glob("**/[0-9]*"):
        if int(picture.stem) > step:
            picture.unlink()
