"""``Dataset``, the type of all data sets, and ``Source``, the protocol of streamed examples."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import jax
import numpy as np

from gan_cli.data import samplers
from gan_cli.data.features import Label, classes_of
from gan_cli.data.feed import Feed
from gan_cli.data.rendered import Rendered
from gan_cli.data.samplers import Domain, Sampler
from gan_cli.data.text.oracle import Oracle
from gan_cli.types import Duplicates, Feature, Spec

BATCH = 500  # number of examples that are read, generated or evaluated at a time
_ARRAYS = (np.ndarray, jax.Array, Rendered)
Array = Any  # a NumPy or JAX array, or ``Rendered``, which is read in the same way
_SHOWN = 12  # largest number of classes that a description names


class Modes(NamedTuple):
    """The modes of a synthetic mixture of Gaussians.

    Attributes:
        centres: means of the modes, ``[modes, features]``.
        std: standard deviation of every mode.
    """

    centres: np.ndarray
    std: float


class Canaries(NamedTuple):
    """Examples that test a claim of privacy (see ``gan_cli.data.canaries``).

    Attributes:
        examples: mapping from the names of the features to stored canaries ``[n, *stored_shape]``.
        included: booleans ``[n]``, whether each canary is one of the training examples.
    """

    examples: Mapping[str, np.ndarray]
    included: np.ndarray


class Source(Protocol):
    """Examples that are read from disk at each access. A source supports simultaneous reads by several threads."""

    @property
    def labels(self) -> np.ndarray | None:
        """int32 labels ``[n]``. None if the examples have no labels, or if only reading the examples tells them."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Mapping[str, Any]:
        """Example ``i``: its stored features by name."""
        ...

    def fingerprint(self) -> str:
        """A digest that identifies the examples, computed without reading all examples."""
        ...


class Renamed:
    """A ``Source`` with other names of its features.

    Args:
        source: the examples.
        names: mapping from the new names to the names of ``source``. Other features are left out.
    """

    def __init__(self, source: Source, names: Mapping[str, str]):
        self._source, self._names = source, dict(names)
        self.labels = source.labels if "label" in names else None

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Example ``i``: its stored features by their new names."""
        example = self._source[i]
        return {new: example[old] for new, old in self._names.items()}

    def fingerprint(self) -> str:
        """The fingerprint of the source, with the names."""
        return hashlib.sha256(f"{self._source.fingerprint()} {sorted(self._names.items())}".encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: training examples with optional labels, and optional held-out examples.

    Attributes:
        name: name of the data set in messages and reports.
        spec: the features of an example by name. Samples are compared with the main feature,
            which is the first.
        examples: the training examples. Examples in memory are a mapping from the names of the Spec to arrays
            ``[n, *stored_shape]``, which may be ``Rendered``. Streamed examples are a ``Source``, or a mapping from
            the names of domains to a ``Source`` for each.
        held_out: mapping from names to arrays ``[m, *stored_shape]`` of examples that are excluded from training,
            in memory or ``Rendered``. Labels may be missing. None if no examples are held out.
        flip: whether training mirrors each image left to right with probability 1/2, independently in every batch.
        modes: the modes of a synthetic mixture of Gaussians, for a table in the units of its columns. None for
            other data sets.
        class_names: the names of the classes, in the order of their numbers. Empty if the classes have no names.
        passed_over: mapping from the kinds of files and examples that were left out to their numbers.
        notes: sentences about the files that were read, e.g. the sizes of the images.
        earlier: fingerprints that earlier versions of the program computed for the same examples and labels.
        hint: advice for a run that was started with another reading of the same files, or an empty text.
        sampler: function ``(domain, batch_size) -> Sampler``, selects the examples of each training batch.
        domain_of: mapping from names of features to names of domains, for features that are not paired, e.g.
            photographs ``a`` and paintings ``b``. The other features belong to the domain of the main feature.
        held_out_names: mapping from features to the names of the files of their held-out images, without suffixes,
            in the order of ``held_out``. Empty for data without files. The names are never stored.
        duplicates: treatment of copied images: ``warn`` states their numbers, ``drop`` leaves out superfluous
            training images, and ``keep`` skips the search. ``gan_cli.config.build`` applies it to loaded data.
        copies: sentences about copied images (see ``gan_cli.data.duplicates``).
        subject: the word before each of the notes, e.g. ``files``.
        documents: mapping from names of text files, which a run writes into its directory, to their contents.
        columns: the columns of the ``training`` and of the ``held_out`` rows of a table by name, as they are in the
            file, because stored rows lie within the range of the training rows. Empty for other data.
        private: whether a run trains privately on the data, so that nothing that is computed from the examples is
            stored, printed or drawn.
        canaries: number of canaries that ``gan_cli.config.build`` adds, each by a fair coin.
        planted: the canaries, after the data set has been built for a run. None without canaries.
        oracle: the network that drew the examples of SeqGAN's synthetic task. None for other data sets.
    """

    name: str
    spec: Spec
    examples: Mapping[str, Array] | Mapping[str, Source] | Source
    held_out: Mapping[str, Array] | None = None
    flip: bool = False
    modes: Modes | None = None
    class_names: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    hint: str = ""
    sampler: Callable[[Domain, int], Sampler] = samplers.shuffled
    domain_of: Mapping[str, str] = field(default_factory=dict)
    duplicates: Duplicates = "keep"
    copies: tuple[str, ...] = ()
    held_out_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subject: str = "files"
    documents: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    private: bool = False
    canaries: int = 0
    planted: Canaries | None = None
    oracle: Oracle | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError if the Spec is not a mapping of features, or if an array does not fit its feature."""
        if not isinstance(self.spec, Mapping) or not all(isinstance(one, Feature) for one in self.spec.values()):
            raise ValueError(
                f"the Spec of the data set {self.name} must map names to features of gan_cli.data.features, e.g. "
                '{"x": Image(28, 28, 1), "label": Label(10)}'
            )
        for part in (self.arrays, self.held_out or {}):
            for name, array in part.items():
                if name not in self.spec:
                    raise ValueError(
                        f"the data set {self.name} has the array {name}, but its Spec has no such feature"
                    )
                dtype, shape = np.dtype(self.spec[name].dtype), self.spec[name].stored_shape
                if array.dtype != dtype or array.shape[1:] not in (shape, self.spec[name].shape):
                    raise ValueError(
                        f"the array {name} of the data set {self.name} holds {array.dtype} {array.shape[1:]}, but "
                        f"its feature stores {dtype} {shape}"
                    )
        for name in () if self.streams else self.spec:
            if name not in self.arrays:
                raise ValueError(f"the data set {self.name} has no array of the feature {name} of its Spec")
            array = self.arrays[name]
            if len(array) != (size := self.domains[self.domain(name)].size):
                raise ValueError(
                    f"the array {name} of the data set {self.name} holds {len(array)} examples, not {size}"
                )

    @property
    def main(self) -> str:
        """Name of the main feature, with which samples are compared."""
        return next(iter(self.spec))

    @property
    def feature(self) -> Feature:
        """The main feature."""
        return self.spec[self.main]

    @property
    def classes(self) -> int | None:
        """Number of classes, or None if the examples have no labels."""
        return classes_of(self.spec)

    @property
    def size(self) -> int:
        """Number of training examples."""
        return self.domains[self.domain(self.main)].size

    @property
    def held_out_size(self) -> int:
        """Number of held-out examples, in the domain of the main feature."""
        return len((self.held_out or {}).get(self.main, ()))

    @property
    def streams(self) -> bool:
        """Whether the examples are read from disk during training."""
        return bool(self.sources)

    @property
    def arrays(self) -> dict[str, Array]:
        """Mapping from names of features to arrays of the examples in memory. Empty for streamed examples."""
        found = self.examples.items() if isinstance(self.examples, Mapping) else ()
        return {name: array for name, array in found if isinstance(array, _ARRAYS)}

    @property
    def sources(self) -> dict[str, Source]:
        """Mapping from the names of the domains to streamed examples. Empty for examples in memory."""
        if not isinstance(self.examples, Mapping):
            return {self.domain(self.main): self.examples}
        return {name: one for name, one in self.examples.items() if not isinstance(one, _ARRAYS)}

    @property
    def feed(self) -> Feed:
        """The ``Feed`` that selects the batches of this data set inside a compiled program."""
        domain_of = {name: self.domain(name) for name in self.spec}
        return Feed(self.spec, self.domains, domain_of, self.sampler, self.flip, self.streams)

    @property
    def bytes_per_example(self) -> int:
        """Number of bytes of one stored example."""
        return sum(math.prod(one.stored_shape) * np.dtype(one.dtype).itemsize for one in self.spec.values())

    @property
    def domains(self) -> dict[str, Domain]:
        """Mapping from the names of the domains to the domains, the first of which contains the main feature."""
        found: dict[str, Domain] = {}
        for name in self.spec:
            domain = self.domain(name)
            part: Any = self.sources[domain] if self.streams else self.arrays[name]
            if domain not in found:
                label = self._label(domain)
                categories = None if self.streams else functools.partial(self.spec[name].category_codes, part)
                if label is None:
                    found[domain] = Domain(len(part), categories=categories)
                else:
                    labels = self.arrays.get(label) if isinstance(part, _ARRAYS) else part.labels
                    found[domain] = Domain(len(part), cast(Label, self.spec[label]).classes, labels, categories)
        return found

    def domain(self, name: str) -> str:
        """The name of the domain of a feature. The features of a domain belong to the same examples."""
        return self.domain_of.get(name, self.domain_of.get(self.main, ""))

    def _label(self, domain: str) -> str | None:
        """The name of the labels of a domain: ``label``, or else its first feature of this kind. None without."""
        names = [n for n, one in self.spec.items() if isinstance(one, Label) and self.domain(n) == domain]
        return "label" if "label" in names else next(iter(names), None)

    @property
    def summary(self) -> str:
        """The name, the number of examples and the shapes of the data set, by domain, for messages."""
        parts: dict[str, list[str]] = {}
        for name, feature in self.spec.items():
            if not isinstance(feature, Label):
                parts.setdefault(self.domain(name), []).append(f"{name} {feature.shape}")
        if parts == {self.domain(self.main): [f"{self.main} {self.feature.shape}"]}:
            return f"{self.name}: {self.size:,} examples of {self.feature.shape}"
        each = [
            f"{self.domains[domain].size:,} examples of {' and '.join(names)}" for domain, names in parts.items()
        ]
        return f"{self.name}: {', '.join(each)}"

    def take(
        self, indices: np.ndarray | Mapping[str, np.ndarray], pool: Executor | None = None
    ) -> dict[str, np.ndarray]:
        """The stored features, by name, of the examples at the given indices.

        Args:
            indices: a mapping from the names of the domains to integers of any shape, or only those of the domain
                of the main feature. This shape becomes the leading axes of the returned arrays.
            pool: executor whose threads read from a ``Source`` in parallel. With None, the examples are read one by
                one.
        """
        asked = indices if isinstance(indices, Mapping) else {self.domain(self.main): indices}
        taken: dict[str, np.ndarray] = {}
        for domain, at in asked.items():
            names = [name for name in self.spec if self.domain(name) == domain]
            taken |= self._read(domain, names, at, pool) if self.streams else {n: self.arrays[n][at] for n in names}
        return taken

    def _read(
        self, domain: str, names: list[str], indices: np.ndarray, pool: Executor | None
    ) -> dict[str, np.ndarray]:
        """The stored features of the streamed examples at ``indices`` of a domain."""
        source, flat, spec = self.sources[domain], np.ravel(indices), self.spec
        taken = {name: np.empty((len(flat), *spec[name].stored_shape), spec[name].dtype) for name in names}

        def read(part: range) -> None:
            for i in part:
                example = source[int(flat[i])]
                for name, array in taken.items():
                    array[i] = example[name]

        parts = [range(start, min(start + 16, len(flat))) for start in range(0, len(flat), 16)]
        list((pool.map if pool else map)(read, parts))
        return {name: array.reshape(*indices.shape, *array.shape[1:]) for name, array in taken.items()}

    def only(self, name: str) -> Dataset:
        """A data set of one feature, as ``x``, and its labels, as ``label``, without the other features.

        The labels of a feature ``a`` are the feature ``label_a``, or else ``label`` if both have the same domain.
        """
        domain, kept = self.domain(name), {"x": name}
        labels = next((one for one in (f"label_{name}", "label") if one in self.spec and one != name), None)
        if labels is not None and self.domain(labels) == domain:
            kept["label"] = labels
        part: Mapping[str, np.ndarray] | Source
        if self.streams:
            part = Renamed(self.sources[domain], kept)
        else:
            part = {new: self.arrays[old] for new, old in kept.items()}
        held_out = self.held_out or {}
        return Dataset(
            f"{self.name}, {name}",
            {new: self.spec[old] for new, old in kept.items()},
            part,
            {new: held_out[old] for new, old in kept.items() if old in held_out} if name in held_out else None,
            class_names=self.class_names,
        )

    def only_held_out(self) -> Dataset:
        """A data set whose training examples are the held-out examples of this data set."""
        assert self.held_out is not None
        spec = {name: feature for name, feature in self.spec.items() if name in self.held_out}
        return Dataset(self.name, spec, self.held_out, class_names=self.class_names, domain_of=self.domain_of)

    def contents(self) -> dict[str, Any]:
        """A description of the data as a dictionary for ``run.json``.

        The numbers are those of the domain of the main feature. The entry ``domains``, for data with several,
        has the numbers of each. The description of private data has no numbers but those of all examples.
        """
        domains = {
            name: {
                "examples": domain.size,
                "held_out": self._held_out_sizes().get(name, 0),
                "examples_per_class": [] if self.private else _counts(domain),
            }
            for name, domain in self.domains.items()
        }
        first = next(iter(domains.values()))
        return {
            "name": self.name,
            "examples": first["examples"],
            "held_out": first["held_out"],
            "classes": list(self.class_names),
            "examples_per_class": first["examples_per_class"],
            "left_out": {} if self.private else dict(self.passed_over),
            "notes": [] if self.private else list(self.notes),
            "copies": [] if self.private else list(self.copies),
        } | ({"domains": domains} if len(domains) > 1 else {})

    def lines(self) -> list[str]:
        """A list of lines that describe the classes and the files, and name everything that was left out.

        The lines about private data name the classes only, and the numbers of held-out examples and of all that was
        left out. The reasons are facts about the examples.
        """
        found = [] if self.private else [f"{self.subject:<10}{note}" for note in self.notes]
        if self.held_out is not None:
            held_out = [f"{size:,} examples of {domain}" for domain, size in self._held_out_sizes().items()]
            found.append(f"held out  {', '.join(held_out).removesuffix(' of ')}")
        if self.class_names:
            counts = [numbers for domain in self.domains.values() if (numbers := _counts(domain))]
            counts = [] if self.private else counts
            sizes = [
                f" ({' + '.join(f'{of_domain[i]:,}' for of_domain in counts)})" if counts else ""
                for i in range(len(self.class_names))
            ]
            each = [
                f"{name}{size}" if name == str(i) else f"{i} {name}{size}"
                for i, (name, size) in enumerate(zip(self.class_names, sizes, strict=True))
            ]
            shown = each if len(each) <= _SHOWN else [*each[: _SHOWN - 1], "...", each[-1]]
            found.append(f"classes   {len(each):,}: {', '.join(shown)}")
        if self.passed_over and self.private:
            total = sum(self.passed_over.values())
            found.append(f"left out  {total:,}, for reasons that a dry run without estimator=private states")
        elif self.passed_over:
            kinds = sorted(self.passed_over.items(), key=lambda kind: -kind[1])
            found.append(f"left out  {', '.join(f'{count:,} {kind}' for kind, count in kinds)}")
        found += [] if self.private else [f"copies    {line}" for line in self.copies]
        return found

    def _held_out_sizes(self) -> dict[str, int]:
        """Mapping from the names of the domains with held-out examples to the numbers of these examples."""
        held_out = self.held_out or {}
        return {self.domain(name): len(held_out[name]) for name in self.spec if name in held_out}

    def spread(self, n: int) -> np.ndarray:
        """At most ``n`` training examples at evenly spaced indices: their main feature as networks see it."""
        chosen = np.linspace(0, self.size - 1, min(n, self.size)).astype(int)
        return np.asarray(self.feature.encode(self.take(chosen)[self.main]))

    def fingerprint(self) -> str:
        """A digest that identifies the training examples.

        The digest of arrays is the SHA-256 of their shapes, dtypes and contents. The digest of streamed examples is
        the fingerprint of the ``Source``, or a digest of the fingerprints of several.
        """
        found = [source.fingerprint() for source in self.sources.values()]
        if len(found) == 1:
            return found[0]
        digest = hashlib.sha256("".join(found).encode())
        for array in self.arrays.values():
            digest.update(str((array.shape, array.dtype.str)).encode())
            if isinstance(array, Rendered):
                digest.update(repr(array.options).encode())
            for leaf in jax.tree.leaves(array):  # an array, or the sources of rendered examples
                digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()


def _counts(domain: Domain) -> list[int]:
    """The number of examples of each class, or an empty list if the labels are not known."""
    return [] if domain.labels is None else np.bincount(domain.labels, minlength=domain.classes or 0).tolist()
