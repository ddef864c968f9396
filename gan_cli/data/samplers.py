"""Samplers: each target in ``configs/sampler/`` is a function that selects the examples of every batch of a run.

A target is a function ``(domain, batch_size, *, options) -> Sampler``. A sampler is a pure function of a random key
and the numbers of the batches. The compiled program and the host therefore select the same examples, a resumed run
continues with the same batches, and streamed data give the same batches as data in memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.permutation import permuted
from gan_cli.errors import UserError
from gan_cli.types import PositiveInt

_OVERFLOW = 1e-12  # largest probability that a Poisson batch exceeds the default capacity
_MULTIPLE = 8  # the default capacity is a multiple of this number, so that up to 8 devices can divide a batch


class Domain(NamedTuple):
    """Examples from which a sampler draws the batches.

    Features of one domain are paired, e.g. images and their labels: the same index selects an example of each. Data
    sets with unpaired features, e.g. photographs and paintings, have several domains.

    Attributes:
        size: number of examples.
        classes: number of classes, or None if the examples have no labels.
        labels: int32 labels ``[size]``. None if the examples have no labels, or if the labels are known only after
            reading the examples.
        categories: function that returns the codes int32 ``[size, columns]`` of the columns of categories of a
            table, or None for examples of another kind. None if the examples are streamed.
    """

    size: int
    classes: int | None = None
    labels: np.ndarray | None = None
    categories: Callable[[], np.ndarray | None] | None = None


class Sampler(NamedTuple):
    """Selects the examples of every batch from a domain.

    Attributes:
        indices: ``(key, numbers) -> int32 [*numbers.shape, rows]``, the indices of the examples in the batches with
            the given numbers, which count the batches from the start of the run. ``key`` is a random key, which is
            the same for all batches of a run.
        rows: number of rows of a batch: ``batch_size``, or the capacity if the sampler pads.
        mask: ``(key, numbers) -> float32 [*numbers.shape, rows]``, 1 for the rows of a batch, and 0 for padding.
            None if the sampler does not pad.
        repeats: whether a batch may contain an example more than once, so that it may exceed the data set.
        needs_correction: whether the batches have another distribution than the data, which only a game that
            corrects for this sampler may learn from (``Game.sampler``).
    """

    indices: Callable[[jax.Array, jax.Array], jax.Array]
    rows: int
    mask: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    repeats: bool = False
    needs_correction: bool = False

    @property
    def pads(self) -> bool:
        """Whether batches differ in size, so that rows are padded and batches have a mask."""
        return self.mask is not None


def shuffled(domain: Domain, batch_size: int) -> Sampler:
    """Random order without replacement: each epoch visits every example once, in a new random order.

    An epoch consists of ``size // batch_size`` batches. The examples that do not fill a last batch are left out of
    the epoch.
    """
    per_epoch = domain.size // batch_size

    def indices(key: jax.Array, numbers: jax.Array) -> jax.Array:
        epochs, positions = numbers // per_epoch, numbers % per_epoch
        keys = jax.vmap(lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (2,)))(epochs.reshape(-1))
        keys = keys.reshape(*numbers.shape, 1, 2)
        places = positions[..., None] * batch_size + jnp.arange(batch_size)
        return permuted(places, domain.size, keys)

    return Sampler(indices, batch_size)


def balanced(domain: Domain, batch_size: int) -> Sampler:
    """Every class equally often, whatever the number of its examples. Needs data with labels.

    With K classes, the examples of a run take the classes 0, 1, ..., K-1, 0, 1, ... in turn. Within a class, the
    examples are drawn without replacement, in a new random order after each epoch of the class. The rows of each
    batch are in random order.
    """
    if domain.classes is None:
        raise UserError(
            "sampler=balanced: needs labels, and the data have none. Set sampler=shuffled, or choose data with "
            "labels, e.g. dataset=mnist5k."
        )
    if domain.labels is None:
        raise UserError(
            "sampler=balanced: the labels of these streamed data are known only after reading every example. Set "
            "sampler=shuffled or dataset.stream=false."
        )
    counts = np.bincount(domain.labels, minlength=domain.classes)
    if not counts.all():
        raise UserError(
            f"sampler=balanced: class {np.argmin(counts)} has no examples. Set sampler=shuffled, or choose data "
            "with examples of every class."
        )
    members = jnp.asarray(np.argsort(domain.labels, kind="stable"), jnp.int32)  # the examples, sorted by class
    sizes, starts = jnp.asarray(counts, jnp.int32), jnp.asarray(np.cumsum(counts) - counts, jnp.int32)
    classes, (rounds, rest) = domain.classes, divmod(batch_size, domain.classes)

    def batch(key: jax.Array, number: jax.Array) -> jax.Array:
        row_key, class_key = jax.random.split(key)
        order = jax.random.bits(jax.random.fold_in(row_key, number), (2,))
        rows = permuted(jnp.arange(batch_size), batch_size, order)
        # Slot t = number * batch_size + row of the run has the class t % classes, and is number t // classes of its
        # class. Both are computed without t, which may exceed 32 bits.
        slot = number % classes * rest + rows
        label, turn = slot % classes, number * rounds + number // classes * rest + slot // classes
        epochs, places = turn // sizes[label], turn % sizes[label]
        of_class = jax.vmap(jax.random.fold_in, (None, 0))(class_key, label)
        keys = jax.vmap(lambda key, epoch: jax.random.bits(jax.random.fold_in(key, epoch), (2,)))(of_class, epochs)
        within = permuted(places, sizes[label], keys, largest=int(counts.max()))
        return members[starts[label] + within]

    return Sampler(_of_each(batch), batch_size)


def too_large(batch_size: int, size: int) -> UserError:
    """The error that a batch has more rows than there are examples."""
    return UserError(
        f"train.batch_size={batch_size}: is larger than the data set, which has {size} examples. Set "
        f"train.batch_size to at most {size}."
    )


def poisson(domain: Domain, batch_size: int, *, capacity: PositiveInt | None = None) -> Sampler:
    """Poisson sampling: each batch contains each example independently, with probability batch_size/size.

    Privacy accounting assumes such batches (Abadi et al. 2016, section 3.1). ``train.batch_size`` is their mean
    size: a batch contains the first N examples of a new random permutation, with N drawn from
    Binomial(size, batch_size/size). All batches have the same number of rows, the capacity, and a mask that is 0
    for the rows after the first N. If N exceeds the capacity, which has a probability of at most 1e-12 for each
    batch, the batch contains as many of the N examples as it has rows.

    Args:
        capacity: number of rows of a batch, a multiple of the number of devices. With null, the smallest multiple
            of 8 that N exceeds with a probability of at most 1e-12. The examples do not depend on the capacity.
    """
    distribution = _binomial(domain.size, batch_size)
    exceeds = np.append(np.cumsum(distribution[:0:-1])[::-1], 0.0)  # the probability that N > k, for each k
    smallest = int(np.argmax(exceeds <= _OVERFLOW))
    rows = math.ceil(smallest / _MULTIPLE) * _MULTIPLE if capacity is None else capacity
    if rows < smallest:
        raise UserError(
            f"sampler.capacity={rows}: is too small for batches of {batch_size} examples on average, which may "
            f"have up to {smallest}. Set sampler.capacity to at least {smallest}, or to null."
        )
    # N is the number of bounds that a random integer of 64 bits reaches. The words of the bounds are compared
    # separately, because JAX computes with 32 bits. Floating-point numbers could give other N on other devices.
    bounds = [min(int(p * 2**64), 2**64 - 1) for p in (1 - exceeds[:smallest]).tolist()]
    high, low = (np.array([bound >> shift & 0xFFFFFFFF for bound in bounds], np.uint32) for shift in (32, 0))

    def words(key: jax.Array, number: jax.Array) -> jax.Array:
        return jax.random.bits(jax.random.fold_in(key, number), (4,))

    def batch(key: jax.Array, number: jax.Array) -> jax.Array:
        places = jnp.minimum(jnp.arange(rows), domain.size - 1)
        return permuted(places, domain.size, words(key, number)[2:])

    def mask(key: jax.Array, number: jax.Array) -> jax.Array:
        first, second = words(key, number)[:2]
        n = jnp.sum((first > high) | ((first == high) & (second >= low)))
        return (jnp.arange(rows) < n).astype(jnp.float32)

    return Sampler(_of_each(batch), rows, _of_each(mask))


def independent(domain: Domain, batch_size: int) -> Sampler:
    """Independent draws: each row of a batch is any of the examples, with equal probability.

    A batch may be larger than the data set, as with small tables.
    """

    def batch(key: jax.Array, number: jax.Array) -> jax.Array:
        return jax.random.randint(jax.random.fold_in(key, number), (batch_size,), 0, domain.size)

    return Sampler(_of_each(batch), batch_size, repeats=True)


def log_frequency(domain: Domain, batch_size: int) -> Sampler:
    """Training by sampling: rare categories of a table more often than in the data (Xu et al. 2019, section 4.3).

    For each row of a batch, a column of categories is chosen with equal probabilities, then one of its categories
    with a probability proportional to log(1 + n), where n is the number of its rows, and then one of these rows.
    ``game=ctgan`` corrects for this distribution. The rows of a table without categories have equal probabilities.
    """
    codes = domain.categories() if domain.categories else None
    if codes is None:
        raise UserError(
            "sampler=log_frequency: needs the rows of a table in memory. Set sampler=shuffled, or choose a table, "
            "e.g. dataset=table dataset.path=FILE.csv."
        )
    columns = codes.shape[1]
    if columns == 0:
        return independent(domain, batch_size)
    counts = np.zeros((columns, codes.max() + 1), np.int32)
    for column in range(columns):
        counts[column] = np.bincount(codes[:, column], minlength=counts.shape[1])
    members = jnp.asarray(np.argsort(codes, axis=0, kind="stable").T, jnp.int32)  # the rows, sorted by category
    starts, sizes = jnp.asarray(np.cumsum(counts, axis=1) - counts, jnp.int32), jnp.asarray(counts)
    # The logarithms of log(1 + n). A category without rows has the logarithm of 0.
    logits = jnp.log(jnp.log1p(sizes.astype(jnp.float32)))

    def batch(key: jax.Array, number: jax.Array) -> jax.Array:
        column_key, category_key, row_key = jax.random.split(jax.random.fold_in(key, number), 3)
        column = jax.random.randint(column_key, (batch_size,), 0, columns)
        category = jax.random.categorical(category_key, logits[column])
        place = jax.random.randint(row_key, (batch_size,), 0, sizes[column, category])
        return members[column, starts[column, category] + place]

    return Sampler(_of_each(batch), batch_size, repeats=True, needs_correction=True)


def _of_each(
    batch: Callable[[jax.Array, jax.Array], jax.Array],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The function ``(key, numbers)`` that applies ``batch``, a function ``(key, number)``, to each number."""

    def each(key: jax.Array, numbers: jax.Array) -> jax.Array:
        found: jax.Array = jnp.vectorize(functools.partial(batch, key), signature="()->(rows)")(numbers)
        return found

    return each


def _binomial(size: int, mean: int) -> np.ndarray:
    """Probabilities of the values 0, 1, ... of Binomial(size, mean/size).

    Values above ``mean`` + 12 sqrt(``mean``) + 40 are left out. Their probability is below 1e-30.
    """
    k = np.arange(min(size, int(mean + 12 * math.sqrt(mean) + 40)) + 1)
    if mean == size:
        return np.where(k == size, 1.0, 0.0)
    ratios = np.log((size - k[1:] + 1) / k[1:] * mean / (size - mean))  # of successive probabilities
    logs = np.append(0.0, np.cumsum(ratios))
    found: np.ndarray = np.exp(logs - logs.max())
    found /= found.sum()
    return found
