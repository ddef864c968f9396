"""Runs the tasks of a trained game. Row ``i`` of a seed does not depend on how many rows are computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.dataset import BATCH, Dataset
from gan_cli.data.features import Image, Label
from gan_cli.data.tables.feature import Table
from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError, nearest
from gan_cli.metrics import Audited, RunTask, Split
from gan_cli.metrics.evaluator import Evaluator, has_held_out
from gan_cli.metrics.targets import GENERATE, cropped
from gan_cli.types import ByPlayer, Game, Prior

Arrays = dict[str, np.ndarray]
_MOST = 50_000  # the largest number of examples on which a metric runs a task
ROWS = 8192  # number of rows of a table in one call, which writes a million rows a minute on 2 cores
PIXELS = 2**19  # the largest number of pixels of the input images of one call


class TaskRunner:
    """Runs one task of a game, such as ``generate``, on inputs that are drawn or provided.

    All batches have the same size, so that the task is compiled only once.

    Args:
        game: the game.
        name: the name of the task.
        prior: draws the inputs in place of the prior of the task, e.g. a mixture of Gaussians fitted to codes.

    Attributes:
        drawn: names of the inputs that the prior draws.
        classes: the numbers of classes of the inputs that are labels, by name.
        given: names of the inputs that must be provided, in the order of the task's inputs.
        main: name of the first output.
        pictured: name of an input followed by names of outputs that a picture shows below it: those of the task or,
            for a task from images to images, its only input that is provided and its first output. Else empty.
        feature: the feature of the first output.
        batch: the largest number of rows of one call. Tasks that read large images have smaller batches, because
            the networks keep values of every pixel.

    Raises:
        UserError: the game has no such task.
    """

    def __init__(self, game: Game, name: str = GENERATE, prior: Prior | None = None):
        if name not in game.tasks:
            raise UserError(
                f"--task {name}: this run has no such task.{nearest(name, game.tasks)} "
                f"Choose from: {', '.join(game.tasks) or 'none'}."
            )
        self.game, self.name, self.task = game, name, game.tasks[name]
        task, prior = self.task, _both(self.task.prior, prior)
        drawn = jax.eval_shape(lambda: prior(jax.random.key(0), None)) if prior else {}
        self.drawn = tuple(name for name in task.inputs if name in drawn)
        self.classes = {name: one.classes for name, one in task.inputs.items() if isinstance(one, Label)}
        self.given = tuple(name for name in task.inputs if name not in {*self.drawn, *self.classes})
        self.main, self.feature = next(iter(task.outputs.items()))
        translates = len(self.given) == 1 and isinstance(task.inputs[self.given[0]], Image)
        both = (self.given[0], self.main) if translates and isinstance(self.feature, Image) else ()
        self.pictured: tuple[str, ...] = task.pictured or both
        images = [math.prod(one.shape[:2]) for one in task.inputs.values() if len(one.shape) == 3]
        self.batch = max(min(BATCH, PIXELS // max(images, default=1)), 1)
        if isinstance(self.feature, Table):
            self.batch = ROWS

        def draw(seed: Any, first: Any, n: int, truncation: float | None) -> dict[str, jax.Array]:
            assert prior is not None
            key = jax.random.key(seed)
            numbers = first + jnp.arange(n, dtype=jnp.uint32)
            return jax.vmap(lambda number: prior(jax.random.fold_in(key, number), truncation))(numbers)

        def outputs(state: TrainState, inputs: Any, seed: Any, numbers: Any) -> dict[str, jax.Array]:
            # The prior of row i uses the key of the seed and i, so the task uses a key that is derived from it.
            key = jax.random.key(seed)
            keys = jax.vmap(lambda number: jax.random.fold_in(jax.random.fold_in(key, number), 1))(numbers)
            return task.apply(*averaged(state), inputs, keys)

        def stored(state: TrainState, inputs: Any, seed: Any, numbers: Any) -> dict[str, jax.Array]:
            encoded = {name: task.inputs[name].encode(x) for name, x in inputs.items()}
            found = outputs(state, encoded, seed, numbers)
            return {name: feature.decode(found[name]) for name, feature in task.outputs.items()}

        self._draw = jax.jit(draw, static_argnums=(2, 3))
        self._outputs, self._stored = jax.jit(outputs), jax.jit(stored)

    def inputs(self, seed: int, first: int, n: int, truncation: float | None = None) -> Arrays:
        """The inputs of rows ``first`` to ``first + n - 1`` of a seed that need not be provided.

        The prior draws each row from the key of the seed and the number of the row. If the prior draws no classes,
        row ``i`` has the class ``i`` modulo the number of classes.

        Args:
            seed: seed of the inputs.
            first: number of the first row, counted from 0.
            n: number of rows.
            truncation: limit on the absolute value of each Gaussian number. The numbers then have a truncated
                normal distribution (Brock et al. 2019, section 3.1). With None, there is no limit.
        """
        drawn = self._draw(np.uint32(seed), np.uint32(first), n, truncation) if self.drawn else {}
        numbers = np.arange(first, first + n, dtype=np.int32)
        found = {name: np.asarray(x) for name, x in drawn.items()}
        found |= {name: numbers % count for name, count in self.classes.items() if name not in found}
        return {name: found[name] for name in self.task.inputs if name in found}

    def encoded(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Inputs in the format of files, as networks see them."""
        return {name: np.asarray(self.task.inputs[name].encode(x)) for name, x in inputs.items()}

    def __call__(
        self, state: TrainState, inputs: Mapping[str, np.ndarray], seed: int = 0, first: int = 0
    ) -> dict[str, jax.Array]:
        """The outputs by name, ``[n, *shape]``, as networks see them; the values of images are in [-1, 1].

        JAX computes the outputs asynchronously, so the method may return before they are computed.

        Args:
            state: the training state.
            inputs: the inputs of the task by name, ``[n, *shape]``, as networks see them.
            seed: seed of the random numbers of the task.
            first: number of the first row, which determines the random numbers of the rows.
        """
        parts = list(self.batches(state, inputs, seed, first))
        return {name: jnp.concatenate([part[name] for part in parts]) for name in self.task.outputs}

    def batches(
        self, state: TrainState, inputs: Mapping[str, np.ndarray], seed: int = 0, first: int = 0
    ) -> Iterator[dict[str, jax.Array]]:
        """Yields the outputs that ``__call__`` returns in batches."""
        return self._parts(self._outputs, state, inputs, seed, first)

    def stored(
        self, state: TrainState, inputs: Mapping[str, np.ndarray], seed: int = 0, first: int = 0
    ) -> Iterator[dict[str, jax.Array]]:
        """Yields batches of outputs in the format of files, as arrays on the device.

        The inputs have the format of files too. Images are uint8 with values from 0 to 255. Vectors and numbers
        have the format that ``__call__`` uses.
        """
        return self._parts(self._stored, state, inputs, seed, first)

    def apply(
        self, state: TrainState, inputs: Mapping[str, np.ndarray], seed: int, numbers: np.ndarray
    ) -> dict[str, jax.Array]:
        """The outputs of one batch of rows with any numbers ``[n]``, as networks see them.

        JAX compiles the task for each number of rows and each size of images.
        """
        outputs: dict[str, jax.Array] = self._outputs(
            state, dict(inputs), np.uint32(seed), numbers.astype(np.uint32)
        )
        return outputs

    def numbered(self, state: TrainState, seed: int, n: int) -> Iterator[jax.Array]:
        """Yields batches of the first ``n`` rows of the main output for a seed, in the format of files.

        No input of the task may have to be provided.
        """
        for part in self.stored(state, self.inputs(seed, 0, n), seed):
            yield part[self.main]

    def _parts(
        self,
        run: Callable[[TrainState, Any, Any, Any], dict[str, jax.Array]],
        state: TrainState,
        inputs: Mapping[str, np.ndarray],
        seed: int,
        first: int,
    ) -> Iterator[dict[str, jax.Array]]:
        n = len(next(iter(inputs.values())))
        size = min(self.batch, n)
        for start in range(0, n, size):
            # Repeated rows fill up the last batch, because JAX would compile the task again for another size.
            rows = np.arange(start, start + size) % n
            numbers = (first + rows).astype(np.uint32)
            made = run(state, {name: x[rows] for name, x in inputs.items()}, np.uint32(seed), numbers)
            yield {name: x[: n - start] for name, x in made.items()}


def _both(first: Prior | None, second: Prior | None) -> Prior | None:
    """The prior that draws the inputs of ``second``, and the other inputs of ``first``."""
    if first is None or second is None:
        return first or second
    return lambda key, truncation: {**first(key, truncation), **second(key, truncation)}


def runners(game: Game) -> dict[str, TaskRunner]:
    """A mapping from the names of all tasks of a game to their runners. Nothing is compiled."""
    return {name: TaskRunner(game, name) for name in game.tasks}


def evaluated(
    evaluator: Evaluator,
    runners: Mapping[str, TaskRunner],
    state: TrainState,
    seed: int,
    n: int,
    audited: Audited | None = None,
) -> dict[str, float]:
    """The metric values of a state: of ``n`` samples, and of translations of at most ``n`` images.

    Args:
        evaluator: computes the metrics.
        runners: mapping from the names of the tasks to their runners.
        state: the training state.
        seed: seed of the samples and of the metrics.
        n: number of samples.
        audited: trains reference runs, for metrics that need them.
    """

    def outputs(name: str) -> Iterator[jax.Array]:
        runner, target = runners[name], evaluator.targets[name]
        count = target.count(n)
        for part in runner.stored(state, runner.inputs(seed, 0, count) | target.inputs(n), seed):
            yield part[runner.main]

    samples = {name: outputs(name) for name in evaluator.targets}
    return evaluator(samples, seed, on_data(runners, state, evaluator.data, seed), audited)


def on_data(runners: Mapping[str, TaskRunner], state: TrainState, data: Dataset, seed: int) -> RunTask:
    """The input ``run_task`` of metrics: a function that runs a task of a game on examples of a data set.

    Args:
        runners: mapping from the names of the tasks to their runners.
        state: the training state.
        data: the data set.
        seed: seed of the random numbers of the tasks.
    """

    def run_task(task: str, split: Split | Mapping[str, np.ndarray], n: int | None, **numbers: float) -> Arrays:
        runner = runners[task]
        inputs = examples(runner, data, split, n) if isinstance(split, str) else dict(split)
        count = len(next(iter(inputs.values()))) if inputs else n or _MOST
        if runner.drawn:
            inputs = runner.inputs(seed, 0, count) | inputs
        inputs |= {name: np.full(count, number, np.float32) for name, number in numbers.items()}
        inputs = runner.encoded(inputs)
        # Only one batch is on the device at a time.
        parts = [jax.device_get(part) for part in runner.batches(state, inputs, seed)]
        return inputs | {name: np.concatenate([part[name] for part in parts]) for name in runner.task.outputs}

    return run_task


def examples(runner: TaskRunner, data: Dataset, split: str, n: int | None, more: Sequence[str] = ()) -> Arrays:
    """The inputs of a task for ``n`` examples of a data set in random order, in the format of files.

    Training images with margins are cropped to the size that networks see. Inputs of the same domain belong to the
    same examples. If the inputs have several domains, the number of rows is limited by the smallest domain.

    Args:
        runner: the runner of the task. The features of the data set have the names of the task's inputs.
        data: the data set.
        split: ``training``, or ``held_out`` for examples that are excluded from training.
        n: number of examples. With None, or if there are fewer, all examples, but at most 50,000.
        more: names of further features of the data set, of the same examples.
    """
    if split == "held_out":
        assert has_held_out(runner.task, data)
        data = data.only_held_out()
    names = (*runner.given, *runner.classes, *more)
    sizes = {(domain := data.domain(name)): data.domains[domain].size for name in names}
    count = min(n or _MOST, _MOST, *sizes.values())
    order = {domain: np.random.default_rng(0).permutation(size)[:count] for domain, size in sizes.items()}
    taken = data.take(order)
    return {name: cropped(data.spec[name], taken[name]) for name in names}


def shown_of(runner: TaskRunner, data: Dataset) -> tuple[str, str | None]:
    """The examples on which a picture shows a task: held-out ones if the data set has any, else training examples.

    Returns:
        A pair: the split, and the feature that the main output imitates, or None. The feature is None for examples
        that lack it, e.g. unpaired data.
    """
    split = "held_out" if has_held_out(runner.task, data) else "training"
    there, target = data.spec if split == "training" else data.held_out or {}, runner.task.imitates
    paired = (
        target is not None
        and target in there
        and all(data.domain(target) == data.domain(name) for name in runner.given)
    )
    return split, target if paired else None


def averaged(state: TrainState) -> tuple[ByPlayer, ByPlayer]:
    """A pair of mappings by player: the parameters and the network states for sampling.

    For players with moving averages in ``state``, the mappings contain the moving averages.
    """
    return state.params | state.average, state.net_state | state.average_state


def raw(state: TrainState) -> TrainState:
    """A copy of the state without moving averages, so that samples are drawn with the latest parameters."""
    return state._replace(average={}, average_state={})
