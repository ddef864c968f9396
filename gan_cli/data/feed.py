"""Selection of the examples of each batch inside a compiled program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_cli.data import samplers
from gan_cli.data.features import Image
from gan_cli.data.samplers import Domain, Sampler
from gan_cli.types import Batch, Spec, Tree


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
        sampler: function ``(domain, batch_size) -> Sampler``, a choice of the group ``sampler``.
        domain_of: mapping from names of features to names of domains. Other features belong to the first domain.
        flip: whether each image is mirrored left to right with probability 1/2, independently in every batch.
        streams: whether the host streams batches to the device.
    """

    spec: Spec
    domains: Mapping[str, Domain]
    sampler: Callable[[Domain, int], Sampler] = samplers.shuffled
    domain_of: Mapping[str, str] = field(default_factory=dict)
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
            key: random key that selects the mirrored images.
        """
        taken = drawn if self.streams else self._take(arrays, drawn)
        batch = {name: feature.encode(jnp.asarray(taken[name])) for name, feature in self.spec.items()}
        for name, feature in self.spec.items():
            if self.flip and isinstance(feature, Image):  # all images of an example are mirrored alike
                mirrored = jax.random.bernoulli(key, 0.5, (len(batch[name]), 1, 1, 1))
                batch[name] = jnp.where(mirrored, batch[name][:, :, ::-1], batch[name])
        return batch | ({"mask": taken["mask"]} if "mask" in taken else {})

    def _take(self, arrays: Tree, drawn: Selection) -> dict[str, jax.Array]:
        first = next(iter(self.domains))
        taken = {name: array[drawn.indices[self.domain_of.get(name, first)]] for name, array in arrays.items()}
        return taken if drawn.mask is None else taken | {"mask": drawn.mask}
