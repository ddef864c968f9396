"""Writes pictures of the samples of a run in a background thread while the run trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from gan_cli.config.build import Experiment
from gan_cli.data.dataset import Dataset
from gan_cli.engine.state import TrainState
from gan_cli.metrics import diversity
from gan_cli.storage import files, marks, metrics_log
from gan_cli.storage.marks import Origin
from gan_cli.trained.sampling import TaskRunner, examples, shown_of
from gan_cli.types import Feature
from gan_cli.views import pictures
from gan_cli.views.kinds import kinds, view

# The names of pictures and samples of a step, after the number of the step and a dot.
_WRITTEN = ("png", "gif", "npz", "csv", f"csv{marks.BESIDE}", "txt", f"txt{marks.BESIDE}")


@dataclass(frozen=True)
class Rows:
    """The examples that the pictures of a task show at every step.

    Attributes:
        runner: runs the task.
        inputs: the inputs of the task by name, as networks see them.
        target: the true examples that the main output imitates, as networks see them. None if there are none.
    """

    runner: TaskRunner
    inputs: Mapping[str, np.ndarray]
    target: np.ndarray | None


def rows_of(runner: TaskRunner, data: Dataset, seed: int) -> Rows:
    """The examples that the pictures of a task show: held-out examples, or training examples if there are none."""
    shown, *made = runner.task.pictured or ("",)
    split, target = shown_of(runner, data)
    more = [] if target is None else [target]
    count = view(runner.task.inputs[shown]).in_rows(1 + len(made) + len(more))
    taken = examples(runner, data, split, count, more)
    inputs = {name: x for name, x in taken.items() if name in runner.task.inputs}
    inputs = runner.encoded(runner.inputs(seed, 0, len(inputs[shown])) | inputs)
    return Rows(runner, inputs, None if target is None else np.asarray(data.spec[target].encode(taken[target])))


class SampleWriter:
    """Writes pictures of the real data and of samples from fixed latents, in a background thread.

    If the game generates samples, the constructor starts writing a picture of the real data, and each call of
    ``draw`` starts writing a picture of samples. For each task with ``pictured`` inputs and outputs, ``draw`` also
    starts writing a picture of held-out examples above the outputs of the task, or of training examples if there
    are no held-out ones. No picture shows private data. For paired data, the last row shows the true examples that
    the outputs imitate. If the game has no tasks but a known equilibrium, ``draw`` starts writing a picture of the
    logged trajectory of the players.

    Args:
        experiment: the experiment of the run. Its seed determines the fixed latents.
        directory: the directory of the run. The pictures are written to the subdirectory ``samples/``.
        tasks: the runners of the game's tasks by name; empty for a run without data.

    Attributes:
        last: the path of the newest picture of samples or of a trajectory, or else of the first pictured task; None
            until such a picture is drawn.
        can_draw: whether the game generates samples.
    """

    def __init__(self, experiment: Experiment, directory: Path, tasks: Mapping[str, TaskRunner]):
        sampler = tasks.get("generate")
        self._data, self._seed, self._sampler = experiment.dataset, experiment.seed, sampler
        self._run = directory if not tasks and experiment.game.has_equilibrium else None
        self._folder = directory / "samples"
        secret = experiment.has_secret_seed
        stated = (None, 0, None) if secret else (experiment.fingerprint, 0, experiment.seed)
        self._origin = marks.origin_of(directory, *stated)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        # Pictures that are being written. The path is None for a picture that ``finished`` does not return.
        self._pending: list[tuple[Path | None, Future[None]]] = []
        self._drawn: set[int] = set()
        self.last: Path | None = None
        self.can_draw = sampler is not None
        # With an augmentation, the discriminator's input differs from the examples, so a picture of the input is
        # written too.
        private = self._data is not None and self._data.private
        self._augment = None
        if experiment.config.get("augment") and not private:
            self._augment = jax.jit(experiment.game.augmented)
        if sampler is not None and self._data is not None:
            if not private:
                self._pending.append((None, self._thread.submit(draw_real, self._data, self._folder / "real.png")))
            n = max(view(self._data.feature).count, diversity.SAMPLES)
            self._inputs = sampler.inputs(self._seed, 0, n)
        self._pictured: dict[str, Rows] = {}
        if self._data is not None and not private:
            for name, runner in tasks.items():
                if runner.task.pictured is not None:
                    self._pictured[name] = rows_of(runner, self._data, self._seed)

    def samples(self, state: TrainState) -> jax.Array | None:
        """Samples from the fixed latents, or None without a sampler. The method does not wait for the device."""
        if self._sampler is None:
            return None
        return self._sampler(state, self._inputs, self._seed)[self._sampler.main]

    def draw(self, step: int, samples: jax.Array | None, state: TrainState) -> None:
        """Start writing the pictures of a step: the samples, or the trajectory of the players, and pictured tasks.

        If the run uses an augmentation, a further picture shows the augmented input of the discriminator.

        Args:
            step: the number of the step. The picture is named after the step.
            samples: the result of the method ``samples`` at this step.
            state: the training state, which contains the strength of an adaptive augmentation.
        """
        if step in self._drawn:
            return
        self._drawn.add(step)
        origin = replace(self._origin, step=step)
        for name, rows in self._pictured.items():
            path = self._folder / name / f"{step}.png"
            outputs = rows.runner(state, rows.inputs, self._seed)
            self._pending.append((path, self._thread.submit(draw_rows, rows, outputs, path, origin)))
        if self._pictured:
            self.last = self._folder / next(iter(self._pictured)) / f"{step}.png"
        if not self.can_draw and not self._run:
            return
        self.last = self._folder / f"{step}.png"
        if self._run:
            job = self._thread.submit(draw_trajectory, self._run, self.last)
        else:
            assert self._data is not None
            job = self._thread.submit(draw_samples, self._data, np.asarray(samples), self.last, origin)
        self._pending.append((self.last, job))
        if self._augment is not None and samples is not None and self._data is not None:
            n = min(max(view(self._data.feature).count // 2, 1), self._data.size)
            both = np.concatenate([self._data.spread(n), np.asarray(samples[:n])])
            key = jax.random.fold_in(jax.random.key(self._seed), step)
            seen = self._augment(both, state.net_state, key, step)
            path = self._folder / "seen" / self.last.name
            job = self._thread.submit(draw_seen, self._data.feature, np.asarray(seen), path, origin)
            self._pending.append((None, job))

    @property
    def pending(self) -> list[Future[None]]:
        """The jobs that write the pictures, without those whose pictures ``finished`` has returned."""
        return [job for _, job in self._pending]

    def finished(self, wait: bool = False) -> list[Path]:
        """A list of the paths of new pictures of samples, trajectories or tasks, in the order of their steps.

        A picture is new if no earlier call of this method has returned its path.

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


def draw_samples(data: Dataset, samples: np.ndarray, path: Path, origin: Origin | None) -> None:
    """Write a picture of samples to ``path``.

    The view of the main feature chooses the kind of picture. It may also write the samples to other files. Private
    data are not drawn behind the samples.

    Args:
        data: the data set of the run.
        samples: the samples, as networks see them.
        path: the path of the picture.
        origin: the origin of the samples; None for real examples.
    """
    chosen = view(data.feature)
    real = data.spread(chosen.behind) if chosen.behind and not data.private else None
    shown = origin and replace(origin, mixed=real is not None)
    pictures.write(path, chosen.picture(samples[: chosen.count], real), shown)
    if chosen.animation is not None:
        marks.write(path.with_suffix(".gif"), chosen.animation(samples[: chosen.count]), origin)
    if chosen.write is not None:
        chosen.write(path, samples[: chosen.count], origin)
    if chosen.write_summary is not None:
        chosen.write_summary(path, samples[: chosen.count], real)


def draw_rows(rows: Rows, outputs: Mapping[str, jax.Array], path: Path, origin: Origin) -> None:
    """Write a picture of inputs and outputs of a task, e.g. images above their reconstructions."""
    shown, *made = rows.runner.task.pictured or ("",)
    parts = [rows.inputs[shown], *(np.asarray(outputs[name]) for name in made)]
    if rows.target is not None:
        parts.append(rows.target)
    picture, labels = view(rows.runner.task.inputs[shown]).rows(parts, kinds(rows.runner, rows.target is not None))
    pictures.write(path, picture, replace(origin, mixed=True), labels)


def draw_seen(feature: Feature, seen: np.ndarray, path: Path, origin: Origin) -> None:
    """Write a picture of augmented examples, which are the input of the discriminator.

    Args:
        feature: the feature of the examples.
        seen: the augmented examples. The first half is real, and the second half is generated.
        path: the path of the picture.
        origin: the origin of the generated examples.
    """
    path.parent.mkdir(exist_ok=True)
    half = len(seen) // 2
    pictures.write(path, view(feature).compared(seen[:half], seen[half:]), replace(origin, mixed=True))


def draw_trajectory(run: Path, path: Path) -> None:
    """Write a picture of the positions of the players at all logged steps of the run."""
    points = np.array([(record["x"], record["y"]) for record in metrics_log.read(run)], float)
    pictures.write(path, pictures.trajectory(points), None)


def draw_real(data: Dataset, path: Path) -> None:
    """Write a picture of evenly spaced examples of the data set, e.g. a chart of the columns of a table."""
    chosen = view(data.feature)
    if chosen.real is not None:
        pictures.write(path, chosen.real(data.spread(chosen.behind)), None)
        return
    examples = data.spread(chosen.count)
    pictures.write(path, chosen.picture(examples, examples), None)
    if chosen.animation is not None:
        marks.write(path.with_suffix(".gif"), chosen.animation(examples), None)


def remove_later_pictures(directory: Path, step: int, tasks: Iterable[str]) -> None:
    """Remove the pictures of steps after ``step``, because a run that resumes at ``step`` writes them again.

    Args:
        directory: the directory of the run.
        step: the step.
        tasks: names of the tasks with pictures. Other folders in ``samples/`` belong to users.
    """
    samples = directory / "samples"
    for folder in (samples, samples / "seen", *(samples / task for task in tasks)):
        for written in folder.iterdir() if folder.is_dir() else ():
            at = files.number(written.name.split(".")[0])
            if at is not None and at > step and written.name.split(".", 1)[1] in _WRITTEN:
                written.unlink()
