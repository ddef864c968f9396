"""``Dataset``, the type of all data sets, and ``Source``, the protocol of streamed examples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from gan_cli.data import samplers
from gan_cli.data.feed import Feed
from gan_cli.data.samplers import Domain, Sampler
from gan_cli.data.scaling import normalise
from gan_cli.types import Spec

BATCH = 500  # number of examples that are read, generated or evaluated at a time
_SHOWN = 12  # largest number of classes that a description names


class Modes(NamedTuple):
    """The modes of a synthetic mixture of Gaussians.

    Attributes:
        centres: means of the modes, ``[modes, features]``.
        std: standard deviation of every mode.
    """

    centres: np.ndarray
    std: float


class Source(Protocol):
    """Examples that are read from disk at each access. A source supports simultaneous reads by several threads."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """int32 labels ``[n]``. None if the examples have no labels, or if only reading the examples tells them."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Example ``i`` as uint8, and the label of the example (-1 if the examples have no labels)."""
        ...

    def fingerprint(self) -> str:
        """A digest that identifies the examples, computed without reading all examples."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: training examples with optional labels, and optional held-out examples.

    Attributes:
        name: name of the data set in messages and reports.
        spec: shape, range and classes of the examples as the networks receive them.
        examples: the training examples. Examples in memory are an array ``[n, *spec.shape]``, uint8 in 0..255 for
            images and float32 for points. Streamed examples are a ``Source``.
        labels: int32 labels ``[n]``. None for unlabelled examples, and for streamed examples, because a ``Source``
            returns each label together with the example.
        held_out: array ``[m, *spec.shape]`` of examples that are excluded from training. The dtype is uint8 for
            images and float32 for points. None if no examples are held out.
        held_out_labels: int32 labels ``[m]`` of the held-out examples, or None.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        modes: the modes of a synthetic mixture of Gaussians. None for other data sets.
        class_names: the names of the classes, in the order of their numbers. Empty if the classes have no names.
        passed_over: mapping from the kinds of files and examples that were left out to their numbers.
        notes: sentences about the files that were read, e.g. the sizes of the images.
        earlier: fingerprints that earlier versions of the program computed for the same examples and labels.
        hint: advice for a run that was started with another reading of the same files, or an empty text.
        sampler: function ``(domain, batch_size) -> Sampler``, selects the examples of each training batch.
    """

    name: str
    spec: Spec
    examples: np.ndarray | Source
    labels: np.ndarray | None = None
    held_out: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None
    flip: bool = False
    modes: Modes | None = None
    class_names: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    hint: str = ""
    sampler: Callable[[Domain, int], Sampler] = samplers.shuffled

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(self.examples)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Mapping with the arrays ``examples`` and, for labelled data, ``labels``. The data must be in memory."""
        assert isinstance(self.examples, np.ndarray)
        return {"examples": self.examples} | ({} if self.labels is None else {"labels": self.labels})

    @property
    def feed(self) -> Feed:
        """The ``Feed`` that selects the batches of this data set inside a compiled program."""
        return Feed(self.domains, self.sampler, flip=self.flip, streams=not isinstance(self.examples, np.ndarray))

    @property
    def domains(self) -> dict[str, Domain]:
        """Mapping from the names of the domains to the domains. All features of this data set are paired."""
        return {"": Domain(self.size, self.spec.num_classes, self._labels)}

    @property
    def _labels(self) -> np.ndarray | None:
        return self.labels if isinstance(self.examples, np.ndarray) else self.examples.labels

    def take(
        self, indices: np.ndarray | Mapping[str, np.ndarray], pool: Executor | None = None
    ) -> dict[str, np.ndarray]:
        """Mapping with the ``examples`` and, for labelled data, the ``labels`` at the given indices.

        Args:
            indices: integers of any shape, or a mapping from the names of the domains to such arrays. This shape
                becomes the leading axes of the returned arrays.
            pool: executor whose threads read from a ``Source`` in parallel. With None, the examples are read one by
                one.
        """
        if isinstance(indices, Mapping):
            (indices,) = indices.values()
        if isinstance(self.examples, np.ndarray):
            return {name: array[indices] for name, array in self.arrays.items()}
        source, flat = self.examples, np.ravel(indices)
        examples, labels = np.empty((len(flat), *source.shape), np.uint8), np.empty(len(flat), np.int32)

        def read(part: range) -> None:
            for i in part:
                examples[i], labels[i] = source[int(flat[i])]

        parts = [range(start, min(start + 16, len(flat))) for start in range(0, len(flat), 16)]
        list((pool.map if pool else map)(read, parts))
        taken = {"examples": examples.reshape(*indices.shape, *source.shape)}
        return taken | ({"labels": labels.reshape(indices.shape)} if source.labelled else {})

    def contents(self) -> dict[str, Any]:
        """A description of the data as a dictionary for ``run.json``."""
        return {
            "name": self.name,
            "examples": self.size,
            "held_out": 0 if self.held_out is None else len(self.held_out),
            "classes": list(self.class_names),
            "examples_per_class": self._counts(),
            "left_out": dict(self.passed_over),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """A list of lines that describe the classes and the files, and name everything that was left out."""
        found = [f"files     {note}" for note in self.notes]
        if self.held_out is not None:
            found.append(f"held out  {len(self.held_out):,} examples")
        if self.class_names:
            counts = self._counts()
            sizes = [f" ({counts[i]:,})" if counts else "" for i in range(len(self.class_names))]
            each = [
                f"{name}{size}" if name == str(i) else f"{i} {name}{size}"
                for i, (name, size) in enumerate(zip(self.class_names, sizes, strict=True))
            ]
            shown = each if len(each) <= _SHOWN else [*each[: _SHOWN - 1], "...", each[-1]]
            found.append(f"classes   {len(each):,}: {', '.join(shown)}")
        if self.passed_over:
            kinds = sorted(self.passed_over.items(), key=lambda kind: -kind[1])
            found.append(f"left out  {', '.join(f'{count:,} {kind}' for kind, count in kinds)}")
        return found

    def _counts(self) -> list[int]:
        if self._labels is None:
            return []
        counts: list[int] = np.bincount(self._labels, minlength=self.spec.num_classes or 0).tolist()
        return counts

    def spread(self, n: int) -> np.ndarray:
        """At most ``n`` training examples at evenly spaced indices.

        Images are scaled to [-1, 1], the input range of the networks; points are unchanged.
        """
        chosen = np.linspace(0, self.size - 1, min(n, self.size)).astype(int)
        return normalise(self.take(chosen)["examples"])

    def fingerprint(self) -> str:
        """A digest that identifies the training examples and labels.

        The digest of arrays is the SHA-256 of their shapes, dtypes and contents. The digest of streamed examples is
        the fingerprint of the ``Source``.
        """
        if not isinstance(self.examples, np.ndarray):
            return self.examples.fingerprint()
        digest = hashlib.sha256()
        for array in (self.examples, self.labels):
            if array is not None:
                digest.update(str((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
