"""Metrics: the module of each metric defines a function that creates a ``Metric`` from the user's options.

The inputs of a metric are the parameters of its ``function``. The module ``gan_cli.metrics.evaluator`` passes these
inputs by name. Inputs that describe a task that imitates the data, such as ``generate`` or the translation
``a_to_b``:

    fake                        float32 features ``[n, f]`` of the samples
    real                        float32 features ``[n, f]`` of the reference data
    training                    float32 features ``[n, f]`` of the training data
    held_out                    float32 features ``[n, f]`` of the held-out data
    held_out_data               a ``Dataset`` whose examples are the held-out examples, as they are stored
    fake_logits                 logits ``[n, classes]`` of the samples, if the feature network computes logits
    fake_classes                predicted classes ``[n]``, if the feature network is a classifier of the data
    real_classes                labels ``[n]`` of the reference data, if it has labels
    fake_examples               samples ``[n, *stored_shape]`` as they are stored; of a table with known modes, the
                                values of its columns ``[n, columns]``
    known_modes                 ``Modes`` of the data, if the modes are known
    fake_table                  samples of a table: mapping from the names of the columns to arrays ``[n]``, float64
                                with NaN for numbers and dates, and strings with None for categories
    training_table              training rows of a table, in the same form
    held_out_table              held-out rows of a table, in the same form
    unseen_table                held-out rows of a table or, if there are none, training rows
    table_label                 name of the column that is the class of a row
    fake_series                 samples of a series, windows ``[n, length, columns]`` in the units of the data
    real_series                 training windows in the same form, in the order of time
    held_out_series             held-out windows in the same form, in the order of time
    test_series                 held-out windows or, if there are none, training windows, in the order of time
    series_range                ``[2, columns]``, the values that TimeGAN's scores scale to 0 and 1
    series_returns              whether the values of a series are known to be log-returns
    fake_clips                  samples of clips ``[n, frames, h, w, c]`` as they are stored
    real_clips                  at most 5,000 training clips in the same form
    real_centroids              centroids ``[n, frames, 2]`` of these clips, for clips of one moving digit
    moving_digits               the ``Dataset`` itself, for clips of one moving digit, with labels
    fake_frames                 float32 features ``[m, f]`` of single frames of the samples
    real_frames                 the same of the reference data
    fake_texts                  samples of texts: ints ``[n, length]``, or a list of int arrays if texts end earlier
    training_texts              training texts in the same form
    held_out_texts              held-out texts in the same form
    oracle                      ``Oracle`` that drew the data, if the data are its sentences
    cut                         function from texts int ``[n, length]`` to the form of ``fake_texts``
    characters                  function from texts int ``[n, length]`` to the number of their characters

The samples of ``generate`` are compared with the training data. A translation translates the held-out images of its
source, and is compared with the held-out images of its target (without held-out images: the training images). A
metric with at least one of these inputs is computed once for each such task. Its values have no suffix for
``generate``, and the suffix ``_<task>`` for other tasks, e.g. ``fid_a_to_b``.

Inputs that describe the whole game:

    pairs                       mapping from tasks to ``(made, wanted)``: translations of held-out images and their
                                true outputs, both ``[n, h, w, c]`` in [-1, 1]
    translated_classes          mapping from tasks to ``(labels, predicted)``: int ``[n]``, the labels of the
                                translated images, and the classes that a classifier of the target predicts for
                                their translations
    labelled_data               the reference data, a ``Dataset`` with labels, and with labelled held-out examples
    run_task                    a ``RunTask``, which runs the tasks of the game on examples of the reference data
    audited                     an ``Audited``, which trains reference runs of the evaluated run; only ``gan-eval``
                                provides it
    seed                        seed of the random numbers that the metric draws

A metric that reads ``pairs`` returns its values for the first task, and with the suffix ``_<task>`` for further
tasks. A metric that reads ``translated_classes`` returns its values for all tasks together, and with the suffix for
each task.

The rows of the arrays are in random order. Only the arrays of ``pairs`` and ``translated_classes``, and the real
windows of series, have the order of the data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

    from gan_cli.types import Feature

Direction = Literal["lower", "higher", "neither"]
LOWER: Direction = "lower"
HIGHER: Direction = "higher"
NEITHER: Direction = "neither"


Split = Literal["held_out", "training"]


class RunTask(Protocol):
    """Runs a task of a trained game on examples of the reference data."""

    def __call__(
        self, task: str, split: Split | Mapping[str, np.ndarray], n: int | None, **numbers: float
    ) -> dict[str, np.ndarray]:
        """The inputs and outputs of a task for ``n`` examples in random order, by name, ``[n, *shape]``.

        All arrays have the format that networks see: images are float32 in [-1, 1].

        Args:
            task: name of the task, one of the names in ``Metric.tasks``.
            split: ``held_out`` for examples that are excluded from training, or ``training``. Examples of other
                data are a mapping from the inputs of the task to stored examples, which keep their order. It is
                empty for a task that reads no data.
            n: number of examples. With None, or if there are fewer, all examples, but at most 50,000. Of a
                mapping, all examples are used.
            numbers: inputs of kind ``Number`` by name, the same for all examples, in place of the numbers that the
                prior of the task draws.
        """
        ...


class Scores(NamedTuple):
    """Scores of examples under a run and its reference runs, larger for examples that seem to be training examples.

    Attributes:
        run: scores under the run, ``[n]``.
        references: scores under the reference runs, ``[k, n]``.
        trained: booleans ``[k, n]``, whether each reference run was trained on each example.
    """

    run: np.ndarray
    references: np.ndarray
    trained: np.ndarray


class Audit(NamedTuple):
    """What a privacy audit knows about a run.

    Attributes:
        by_network: scores of the examined examples ``[n]``: by the networks that read the data (the empty name),
            and by the generator (``_generator``).
        member: booleans ``[n]``, whether each examined example is a training example of the run.
        canaries: scores ``[m]`` of the canaries, or None for a run without canaries.
        included: booleans ``[m]``, whether the run was trained on each canary.
        promised: the promised epsilon (``epsilon_promised``) and the epsilon of the updates that the checkpoint
            counts (``epsilon_counted``). Empty for a run without private training.
        delta: delta of the promise. 0 for a run without private training.
    """

    by_network: Mapping[str, Scores]
    member: np.ndarray
    canaries: Scores | None
    included: np.ndarray
    promised: Mapping[str, float]
    delta: float


class Audited(Protocol):
    """Audits a run with reference runs."""

    def __call__(self, references: int, examples: int, seed: int) -> Audit:
        """The scores of training examples, held-out examples and canaries.

        Args:
            references: number of reference runs.
            examples: largest number of training examples, and of held-out examples, that are examined.
            seed: seed of the choice of examples, and of the reference runs.
        """
        ...


class Metric(NamedTuple):
    """A metric: computes one or more values that describe a set of samples.

    Attributes:
        function: computes a dictionary from names to metric values. The parameters of the function are the inputs
            of the metric, which the docstring of this module lists.
        figures: mapping from the name of each metric value to its direction: ``lower`` if lower values are better,
            ``higher`` if higher values are better, or ``neither``.
        minimum: smallest number of samples, and smallest number of reference examples, that the metric needs.
        tasks: names of the tasks that the metric runs with its input ``run_task``.
        held_out_tasks: whether the metric runs these tasks on held-out examples.
        cannot: ``(feature, number of features) -> text or None``: a need that the examples of the compared feature
            of the data set do not meet, with a remedy. The second argument is None for features of a network that
            classifies, which are few, and if no metric reads features.
        of_tables: the metric that takes the place of this metric for tables. None for a metric without such a form.
    """

    function: Callable[..., dict[str, float]]
    figures: Mapping[str, Direction]
    minimum: int = 2
    tasks: tuple[str, ...] = ()
    held_out_tasks: bool = False
    cannot: Callable[[Feature, int | None], str | None] = lambda feature, features: None
    of_tables: Metric | None = None

    @property
    def needs(self) -> frozenset[str]:
        """The names of the inputs that the metric requires."""
        parameters = inspect.signature(self.function).parameters.values()
        return frozenset(one.name for one in parameters if one.default is one.empty)

    def computed(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """The values from the inputs by name. Inputs whose parameter has the default None may be missing."""
        names = inspect.signature(self.function).parameters
        return self.function(**{name: inputs[name] for name in names if name in self.needs or name in inputs})

    def __call__(self, *arguments: Any, **named: Any) -> dict[str, float]:
        return self.function(*arguments, **named)


def better(new: float, old: float, direction: Direction) -> bool:
    """Whether ``new`` is better than ``old``. Every number is better than NaN, and NaN is never better.

    Args:
        new: new metric value.
        old: previous metric value.
        direction: ``lower`` or ``higher``.
    """
    if new != new or old != old:
        return new == new
    return new > old if direction == HIGHER else new < old
