"""Selection of the examples of each batch inside a compiled program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_cli.data import samplers
from gan_cli.data.features import Image
from gan_cli.data.samplers import Domain, Sampler
from gan_cli.types import Batch, Spec, Tree

_CROP = 1  # number of the random stream of the crops, folded into the key of a batch


class Selection(NamedTuple):
    """The examples of one or several batches.

    Attributes:
        indices: mapping from the name of each domain to the indices of the examples, int32 ``[..., rows]``.
        mask: float32 ``[..., rows]``, 1 for the rows of a batch, 0 for padding. None if the sampler does not pad.
    """

    indices: dict[str, Any]
    mask: Any = None


@dataclass(frozen=True, eq=False)
class Feed:
    """Selects batches inside a compiled program, from arrays on the device or from streamed batches.

    A streamed batch has the same examples as a batch from arrays on the device, because the indices of a batch are
    a function of the seed and the step.

    Attributes:
        spec: the features of an example by name.
        domains: mapping from names to domains, the sets of examples that are drawn independently.
        domain_of: mapping from the names of all features to the names of their domains.
        sampler: function ``(domain, batch_size) -> Sampler``, a choice of the group ``sampler``.
        flip: whether each image is mirrored left to right with probability 1/2, independently in every batch. The
            images of an example are mirrored alike.
        streams: whether the host streams batches to the device.
    """

    spec: Spec
    domains: Mapping[str, Domain]
    domain_of: Mapping[str, str]
    sampler: Callable[[Domain, int], Sampler] = samplers.shuffled
    flip: bool = False
    streams: bool = False

    def samplers(self, batch_size: int) -> dict[str, Sampler]:
        """Mapping from the name of each domain to its sampler.

        Raises:
            UserError: the sampler cannot draw batches of this size from the data.
        """
        return {name: self.sampler(domain, batch_size) for name, domain in self.domains.items()}

    def draw(self, arrays: Tree, key: jax.Array, numbers: jax.Array, batch_size: int) -> Tree:
        """The streamed data or the selection from which ``batch`` builds the batches with the given numbers.

        If the host streams batches, ``arrays`` already contains the batches, and the method returns ``arrays``.
        Otherwise, the method returns a ``Selection``. The leading axes of the result are ``numbers.shape``.
        """
        return arrays if self.streams else self.select(key, numbers, batch_size)

    def select(self, key: jax.Array, numbers: jax.Array, batch_size: int) -> Selection:
        """The examples of the batches with the given numbers, which are the leading axes of the arrays.

        Each domain has its own random stream. The stream of the first domain is ``key``.
        """
        indices, masks = {}, []
        for i, (name, sampler) in enumerate(self.samplers(batch_size).items()):
            # Samplers fold the numbers of epochs and batches, which are smaller than these numbers, into the key.
            own = jax.random.fold_in(key, 2**32 - i) if i else key
            indices[name] = sampler.indices(own, numbers)
            masks += [sampler.mask(own, numbers)] if sampler.mask else []
        # ``gan_cli.config.build`` refuses samplers that pad for data with several domains.
        return Selection(indices, masks[0] if masks else None)

    def batch(self, arrays: Tree, drawn: Tree, key: jax.Array) -> Batch:
        """One batch: the features of its examples by name, as networks see them.

        Args:
            arrays: the data set on the device. This argument is not used if the host streams batches.
            drawn: the entry for this batch in the result of ``draw``.
            key: random key that selects the crops and the mirrored images.
        """
        taken = drawn if self.streams else self._take(arrays, drawn)
        # As in ``select``, the key of the first domain is ``key``.
        keys = {name: jax.random.fold_in(key, 2**32 - i) if i else key for i, name in enumerate(self.domains)}
        batch = {}
        for name, feature in self.spec.items():
            stored, own = jnp.asarray(taken[name]), keys[self.domain_of[name]]
            if not isinstance(feature, Image):
                batch[name] = feature.encode(stored)
                continue
            # The images of an example share the key, so that they are cropped and mirrored alike.
            batch[name] = feature.encode(_cropped(stored, feature, jax.random.fold_in(own, _CROP)))
            if self.flip:
                mirrored = jax.random.bernoulli(own, 0.5, (len(stored), 1, 1, 1))
                batch[name] = jnp.where(mirrored, batch[name][:, :, ::-1], batch[name])
        return batch | ({"mask": taken["mask"]} if "mask" in taken else {})

    def _take(self, arrays: Tree, drawn: Selection) -> dict[str, jax.Array]:
        taken = {name: array[drawn.indices[self.domain_of[name]]] for name, array in arrays.items()}
        return taken if drawn.mask is None else taken | {"mask": drawn.mask}


def _cropped(stored: jax.Array, feature: Image, key: jax.Array) -> jax.Array:
    """A random crop of each stored image with margins ``[rows, *stored_shape]``. Others are returned unchanged.

    Images of equal margins are cropped alike with equal keys.
    """
    if feature.load is None or stored.shape[1:] != feature.stored_shape:
        return stored
    down, across = jax.random.split(key)
    tops = jax.random.randint(down, (len(stored),), 0, feature.load[0] - feature.height + 1)
    lefts = jax.random.randint(across, (len(stored),), 0, feature.load[1] - feature.width + 1)

    def crop(one: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        image, top, left = one
        return jax.lax.dynamic_slice(image, (top, left, 0), feature.shape)

    # One after the other: on a CPU, a vmap takes 30 times as long, because it becomes a gather of single values.
    cropped: jax.Array = jax.lax.map(crop, (stored, tops, lefts))
    return cropped
