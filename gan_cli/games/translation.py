"""The base class of the games of image translation: networks by direction, adversarial terms, and tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.augment import Augment
from gan_cli.data.features import Image
from gan_cli.errors import UserError
from gan_cli.games import image_pool
from gan_cli.games.gan import DISCRIMINATOR, GENERATOR
from gan_cli.games.networks import Network, PenalisedGame
from gan_cli.losses import Loss, masked_mean
from gan_cli.models import TranslationModel
from gan_cli.penalties import Penalty, penalty_terms
from gan_cli.types import Batch, ByPlayer, Feature, LossTerms, Metrics, Spec, Task, Term, Tree

Images = dict[str, jax.Array]  # mapping from names of domains to images ``[batch, h, w, c]``
DOMAINS = ("a", "b")


class Direction(NamedTuple):
    """A translation: the name of its task, and the domains of its input and its output."""

    name: str
    source: str
    target: str


A_TO_B, B_TO_A = Direction("a_to_b", "a", "b"), Direction("b_to_a", "b", "a")


def direction_of(name: str) -> Direction:
    """The direction with a name, the value of the option ``direction``."""
    return {one.name: one for one in (A_TO_B, B_TO_A)}[name]


class Translation(PenalisedGame):
    """A game that translates images of one domain into images of another, for any networks, loss and penalties.

    The discriminators judge patches. An adversarial loss receives the logits of all patches, and the loss of an
    example is the mean over its patches. The critic of a penalty is the mean logit of the patches. The
    discriminator's adversarial loss has the factor 1/2, as in the code of Isola et al. (2017) and of Zhu et al.
    (2017). Penalties do not have this factor. ``lsgan`` itself has a second factor 1/2 (Mao et al. 2017), which
    their code lacks: the discriminator's loss is 1/4 of the sum of both squared terms, and a penalty of the same
    ``gamma`` weighs twice as much, compared with the adversarial loss, as in their code.

    The parameters and the network state of a player are mappings from the names of its networks: the direction
    (``a_to_b``) of a generator, and the domain (``b``) whose images a discriminator judges.

    A trained generator translates each image on its own, as in the code of Isola et al. (2017): dropout is on, and
    normalisation uses the statistics of the single image. With ``norm=batch``, training uses the statistics of the
    whole batch, which are the same only for batches of one image.

    Args:
        game: name of the game in error messages.
        spec: the features of an example: the images ``a`` and ``b``. Labels are ignored.
        model: the networks. Each network is built once for each direction.
        loss: the adversarial loss of each player.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input.
        precision: data type in which the networks compute, float32 or bfloat16.
        directions: the translations, each of which has a generator and a discriminator.
        adversarial: factor of the adversarial loss of the generator. With 0, the discriminator is not trained.
        conditional: whether the discriminator receives the source as well, concatenated along the channels.
        latents: number of channels of noise that are appended to the input of the generator.
        pool: number of images in each image pool. 0 disables the pools.

    Raises:
        UserError: the data, the networks, the penalties and the augmentations are not compatible with each other.
    """

    players = (DISCRIMINATOR, GENERATOR)
    averaged: tuple[str, ...] = (GENERATOR,)
    shares_fakes = True

    def __init__(
        self,
        game: str,
        spec: Spec,
        model: TranslationModel,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
        *,
        directions: Sequence[Direction],
        adversarial: float | jax.Array,
        conditional: bool = False,
        latents: int = 0,
        pool: int = 0,
    ):
        _check_parts(game, spec, model, augments)
        self.spec: Spec = spec
        self.directions, self._conditional, self._latents, self._pool = directions, conditional, latents, pool
        self.adversarial, self.penalties, self._augments = loss, penalties, augments
        self._weight = adversarial
        self._trains_discriminator = bool(adversarial != 0)
        self._images = {name: _without_margins(spec[name]) for name in DOMAINS}
        self.networks: dict[str, dict[str, Network]] = {
            DISCRIMINATOR: {one.target: Network(self._discriminator(model, one), precision) for one in directions},
            GENERATOR: {one.name: Network(self._generator(model, one), precision) for one in directions},
        }
        self._couples_batch = any(one.couples_batch for one in self.networks[DISCRIMINATOR].values())
        if self._couples_batch or loss.couples_batch or any(n.couples_batch for n in self._generators):
            self.coupled = frozenset(self.players)
        adapts = any(jax.tree.leaves(augment.start) for augment in augments.values())
        if not self.coupled and (pool or adapts or any(penalty.couples_batch for penalty in penalties.values())):
            self.coupled = frozenset({DISCRIMINATOR})
        self.tasks = {one.name: self._task(one) for one in directions}
        self._check_networks()

    @property
    def _generators(self) -> list[Network]:
        return list(self.networks[GENERATOR].values())

    def _generator(self, model: TranslationModel, direction: Direction) -> Callable[[jax.Array], Any]:
        source, target = self._images[direction.source], self._images[direction.target]
        source = source.widened(source.shape[-1] + self._latents)
        return lambda key: model.generator(source, target, nnx.Rngs(key))

    def _discriminator(self, model: TranslationModel, direction: Direction) -> Callable[[jax.Array], Any]:
        feature = self._images[direction.target]
        if self._conditional:
            feature = feature.widened(self._images[direction.source].shape[-1] + feature.shape[-1])
        return lambda key: model.discriminator(feature, nnx.Rngs(key))

    def _check_networks(self) -> None:
        """Raise a UserError if a penalty or the output of a network is not compatible with the game."""
        for name, penalty in self.penalties.items():
            if penalty.per_example and self._couples_batch:
                raise UserError(
                    f"penalty.{name}: needs a discriminator that processes each example independently, without "
                    "batch normalisation (Gulrajani et al. 2017, section 4). Use "
                    "model.discriminator.norm=instance, or penalty=[r1]."
                )

        key = jax.random.key(0)
        zeros = {name: jnp.zeros((2, *one.shape)) for name, one in self._images.items()}

        def fakes() -> Images:
            return self.fake(*self.init(key), self.noise(zeros, key), key, jnp.int32(0))[0]

        def logits() -> list[jax.Array]:
            params, net_state = self.init(key)
            found = []
            for one in self.directions:
                x = self._discriminator_input(one, zeros, zeros[one.target], net_state, key, 0)
                found.append(self._discriminate(one, params[DISCRIMINATOR][one.target], net_state, x, key)[0])
            return found

        for domain, made in jax.eval_shape(fakes).items():
            if made.shape[1:] != (wanted := self._images[domain].shape):
                raise UserError(
                    f"model.generator: returns images of shape {made.shape[1:]}, but the images {domain} of the "
                    f"data set have the shape {wanted}. Correct the __call__ method of the generator, or choose "
                    "another model."
                )
        for found in jax.eval_shape(logits):
            if len(found.shape) != 3 or found.shape[0] != 2 or 0 in found.shape:
                raise UserError(
                    f"model.discriminator: returns logits of shape {found.shape} for 2 images, but the shape must "
                    "be (2, rows, columns), one logit per patch. Choose larger images, fewer layers "
                    "(model.discriminator.layers), or another model."
                )

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: initial parameters and initial network state, as mappings from the name of each player.

        The state of the discriminator contains the state of adaptive augmentations and the image pool, for each
        domain. The pools are empty.
        """
        params: ByPlayer = {}
        states: ByPlayer = {}
        for i, player in enumerate(self.players):
            own_key = jax.random.fold_in(key, i)
            made = {
                name: network.init(jax.random.fold_in(own_key, j))
                for j, (name, network) in enumerate(self.networks[player].items())
            }
            params[player] = {name: one for name, (one, _) in made.items()}
            states[player] = {"networks": {name: state for name, (_, state) in made.items()}}
        targets = [one.target for one in self.directions]
        # Copies, because a donated state must not contain the same buffer twice.
        states[DISCRIMINATOR]["augment"] = {
            domain: {name: jax.tree.map(jnp.copy, augment.start) for name, augment in self._augments.items()}
            for domain in targets
        }
        if self._pool:
            states[DISCRIMINATOR]["pool"] = {
                domain: image_pool.empty(self._pool, self._images[domain].shape) for domain in targets
            }
        return params, states

    def fake(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[Images, ByPlayer]:
        """A pair: the translations of the batch by the domains that they imitate, and the new network state."""
        key = jax.random.fold_in(key, len(self.players))
        fakes, states = {}, {}
        for i, one in enumerate(self.directions):
            fakes[one.target], states[one.name] = self._translate(
                one, params, net_state, self._generator_input(one, batch), jax.random.fold_in(key, i)
            )
        kept = net_state[GENERATOR]["networks"] | states
        return fakes, net_state | {GENERATOR: {"networks": kept}}

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: Images | None = None,
    ) -> LossTerms:
        """The terms of a player's loss: the adversarial loss, the penalties, and ``_reconstruction_terms``.

        ``fake`` contains the translations that ``self.fake`` returns for the same arguments. If ``fake`` is None,
        the method calls ``self.fake``. Running statistics of the generator follow these translations only.
        """
        if fake is None:
            fake, generator_state = self.fake(params, net_state, batch, key, step)
            net_state = net_state | {GENERATOR: generator_state[GENERATOR]}
        own_key = jax.random.fold_in(key, self.players.index(player))
        if player == DISCRIMINATOR:
            # No stop_gradient on ``fake``: second-order strategies differentiate through the generator.
            return self._discriminator_loss(params, net_state, batch, fake, own_key, step)
        adversarial_key, reconstruction_key = jax.random.split(own_key)
        terms = {}
        if self._trains_discriminator:
            values = sum(
                self._generator_adversarial(
                    one, params, net_state, batch, fake, jax.random.fold_in(adversarial_key, i), step
                )
                for i, one in enumerate(self.directions)
            )
            terms["adversarial"] = Term(jnp.asarray(values), self._weight)
        terms |= self._reconstruction_terms(params, net_state, batch, fake, reconstruction_key)
        metrics = {
            f"{GENERATOR}/{name}": masked_mean(term.values, batch.get("mask")) for name, term in terms.items()
        }
        return LossTerms(terms, net_state, metrics)

    def _reconstruction_terms(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, fake: Images, key: jax.Array
    ) -> dict[str, Term]:
        """The terms of the generator's loss, by name, that tie a translation to its source."""
        raise NotImplementedError

    def _generator_adversarial(
        self,
        direction: Direction,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        fake: Images,
        key: jax.Array,
        step: jax.Array,
    ) -> jax.Array:
        """The adversarial loss of the generator of a direction, ``[batch]``."""
        own = params[DISCRIMINATOR][direction.target]
        real_key, fake_key, augment_key = jax.random.split(key, 3)
        pair = self._pair(direction, batch, fake[direction.target], net_state, augment_key, step)
        # The compiler removes this forward pass if the generator's loss does not depend on the real logits.
        real, _ = self._discriminate(direction, own, net_state, pair[0], real_key)
        made, _ = self._discriminate(direction, own, net_state, pair[1], fake_key)
        return self.adversarial.generator(_patches(real), _patches(made)).mean(1)

    def _discriminator_loss(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        fake: Images,
        key: jax.Array,
        step: jax.Array,
    ) -> LossTerms:
        if not self._trains_discriminator:  # the gradient is zero
            return LossTerms({"adversarial": Term(jnp.zeros(len(batch[DOMAINS[0]])))}, net_state, {})
        terms: dict[str, Term] = {}
        metrics: Metrics = {}
        state = {name: dict(part) for name, part in net_state[DISCRIMINATOR].items()}
        for i, one in enumerate(self.directions):
            domain, own_key = one.target, jax.random.fold_in(key, i)
            made = fake[domain]
            if self._pool:
                pool_key = jax.random.fold_in(own_key, 1)
                made, state["pool"][domain] = image_pool.query(state["pool"][domain], made, pool_key)
            found, state["networks"][domain], state["augment"][domain] = self._discriminator_terms(
                one, params, net_state, batch, made, own_key, step
            )
            suffix = f"_{domain}" if len(self.directions) > 1 else ""
            metrics |= {f"{DISCRIMINATOR}/{name}{suffix}": value for name, value in found.metrics.items()}
            for name, term in found.terms.items():
                terms[name] = term._replace(values=terms[name].values + term.values) if name in terms else term
        return LossTerms(terms, net_state | {DISCRIMINATOR: state}, metrics)

    def _discriminator_terms(
        self,
        direction: Direction,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        made: jax.Array,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[LossTerms, Tree, Tree]:
        """The loss of one discriminator for the generated images ``made``.

        Returns a triple: the loss, the new state of the network and the new state of the augmentations.
        """
        own, mask = params[DISCRIMINATOR][direction.target], batch.get("mask")
        state = net_state[DISCRIMINATOR]["networks"][direction.target]
        real_key, fake_key, penalty_key, augment_key = jax.random.split(key, 4)
        real, made = self._pair(direction, batch, made, net_state, augment_key, step)
        if self._couples_batch:
            of_real, state = self._discriminate(direction, own, net_state, real, real_key)
            after = _with_network(net_state, direction.target, state)
            of_fake, state = self._discriminate(direction, own, after, made, fake_key)
        else:  # one forward pass has fewer and larger operations
            # Real and generated images alternate, so that each device receives pairs with the same index.
            both = jnp.stack([real, made], axis=1).reshape(-1, *real.shape[1:])
            logits, state = self._discriminate(direction, own, net_state, both, real_key)
            of_real, of_fake = logits.reshape(-1, 2, *logits.shape[1:]).swapaxes(0, 1)
        of_real, of_fake = _patches(of_real), _patches(of_fake)
        terms = {"adversarial": Term(self.adversarial.discriminator(of_real, of_fake).mean(1), 0.5)}
        # In the metrics, each patch is a row.
        rows = None if mask is None else jnp.repeat(mask, of_real.shape[1])
        above = self.adversarial.above_boundary(of_real.ravel(), of_fake.ravel(), rows)
        metrics = {
            "real_logits": masked_mean(of_real.ravel(), rows),
            "fake_logits": masked_mean(of_fake.ravel(), rows),
            "real_accuracy": masked_mean(above[0] > 0, rows),
            "fake_accuracy": masked_mean(above[1] < 0, rows),
        }
        adapted = net_state[DISCRIMINATOR]["augment"][direction.target]
        metrics |= {
            f"{name}_{quantity}": value for name, own in adapted.items() if own for quantity, value in own.items()
        }
        above_of_real = jax.lax.stop_gradient(above[0].reshape(of_real.shape).mean(1))
        adapted = {name: augment.adapt(adapted[name], above_of_real) for name, augment in self._augments.items()}

        def critic(own: Tree, x: jax.Array, key: jax.Array) -> jax.Array:
            return _patches(self._discriminate(direction, own, net_state, x, key)[0]).mean(1)

        penalised = penalty_terms(self.penalties, critic, own, real, made, key=penalty_key, step=step)
        metrics |= {
            name: masked_mean(term.values, mask)
            for name, term in penalised.items()
            if self.penalties[name].interval == 1  # most values of the others would be zero
        }
        return LossTerms(terms | penalised, {}, metrics), state, adapted

    def _pair(
        self,
        direction: Direction,
        batch: Batch,
        made: jax.Array,
        net_state: ByPlayer,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """A pair: the real and the generated inputs of a discriminator, augmented independently."""
        real_key, fake_key = jax.random.split(key)
        real = self._discriminator_input(direction, batch, batch[direction.target], net_state, real_key, step)
        return real, self._discriminator_input(direction, batch, made, net_state, fake_key, step)

    def _discriminator_input(
        self,
        direction: Direction,
        batch: Batch,
        x: jax.Array,
        net_state: ByPlayer,
        key: jax.Array,
        step: int | jax.Array,
    ) -> jax.Array:
        """The input of a discriminator for real or generated images ``x``.

        The source that a conditional discriminator receives is transformed like ``x``.
        """
        states = net_state[DISCRIMINATOR]["augment"][direction.target]
        source = batch[direction.source]
        for i, (name, augment) in enumerate(self._augments.items()):
            own_key = jax.random.fold_in(key, i)
            x = augment.apply(x, own_key, step, states[name])
            if self._conditional:
                source_key = own_key if augment.alike else jax.random.fold_in(own_key, 1)
                source = augment.apply(source, source_key, step, states[name])
        return jnp.concatenate([source, x], axis=-1) if self._conditional else x

    def augmented(self, x: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array) -> jax.Array:
        """Images ``x`` ``[n, h, w, c]`` after the augmentations of the discriminator's input.

        With two discriminators, adaptive augmentations have the state that belongs to the discriminator of the
        domain ``b``, for the images of both domains.
        """
        states = net_state[DISCRIMINATOR]["augment"]
        states = states["b"] if "b" in states else states[self.directions[0].target]
        for i, (name, augment) in enumerate(self._augments.items()):
            x = augment.apply(x, jax.random.fold_in(key, i), step, states[name])
        return x

    def _generator_input(self, direction: Direction, inputs: Batch) -> jax.Array:
        """The input of a generator: the images of the source with the channels of noise."""
        x = inputs[direction.source]
        if not self._latents:
            return x
        noise = jnp.broadcast_to(inputs["latents"][:, None, None], (*x.shape[:3], self._latents))
        return jnp.concatenate([x, noise], axis=-1)

    def _translate(
        self, direction: Direction, params: ByPlayer, net_state: ByPlayer, x: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """A pair: the translations of ``x``, and the new state of the network."""
        own, state = params[GENERATOR][direction.name], net_state[GENERATOR]["networks"][direction.name]
        return self.networks[GENERATOR][direction.name](own, state, x, train=True, key=key)

    def _discriminate(
        self, direction: Direction, own: Tree, net_state: ByPlayer, x: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """A pair: the logits of the patches ``[batch, h', w']``, and the new state of the network."""
        state = net_state[DISCRIMINATOR]["networks"][direction.target]
        return self.networks[DISCRIMINATOR][direction.target](own, state, x, train=True, key=key)

    def network(self, player: str, name: str, params: ByPlayer, net_state: ByPlayer) -> Any:
        """A player's network with the given parameters and network state, as a callable Flax module.

        The return type is Any, because the attributes of a module depend on the model.
        """
        return self.networks[player][name].module(params[player][name], net_state[player]["networks"][name])

    def _task(self, direction: Direction) -> Task:
        """The task that translates images in a direction."""

        def translate(params: ByPlayer, net_state: ByPlayer, inputs: Batch, key: jax.Array) -> Batch:
            x = self._generator_input(direction, inputs)
            return {direction.target: self._translate(direction, params, net_state, x, key)[0]}

        return self._image_task(
            direction,
            (direction.target,),
            translate,
            pictured=(direction.source, direction.target),
            imitates=direction.target,
        )

    def _image_task(
        self,
        direction: Direction,
        outputs: Sequence[str],
        apply: Callable[[ByPlayer, ByPlayer, Batch, jax.Array], Batch],
        *,
        pictured: tuple[str, ...],
        imitates: str | None = None,
    ) -> Task:
        """A task on images of any size that processes one image after another.

        Args:
            direction: the translation of the input.
            outputs: names of the outputs, of which ``cycle`` is an image of the source.
            apply: ``(params, net_state, inputs, key) -> outputs`` for inputs of one row.
            pictured: the attribute of the task.
            imitates: the attribute of the task.
        """

        def each(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
            def one(row: tuple[Batch, jax.Array]) -> Batch:
                single = {name: x[None] for name, x in row[0].items()}
                return {name: x[0] for name, x in apply(params, net_state, single, row[1]).items()}

            # The tiles of a large image observe the normalisation layers, which ``vmap`` would hide.
            if keys.shape[0] == 1:
                return apply(params, net_state, inputs, keys[0])
            made: Batch = jax.vmap(one)((inputs, keys))
            return made

        source = self._images[direction.source]
        used = self._generators if "cycle" in outputs else [self.networks[GENERATOR][direction.name]]
        multiple = math.lcm(*(network.multiple or 1 for network in used))
        reaches = [network.reach for network in used]
        # The reach counts from an aligned block, and the outputs of a network that the next network reads are the
        # pixels of whole blocks.
        declared = [-(-reach // multiple) * multiple for reach in reaches if reach is not None]
        return Task(
            {direction.source: source},
            {name: source if name == "cycle" else self._images[name] for name in outputs},
            each,
            pictured=pictured,
            imitates=imitates,
            multiple=multiple,
            reach=sum(declared) if len(declared) == len(reaches) else None,
        )


def _check_parts(game: str, spec: Spec, model: TranslationModel, augments: dict[str, Augment]) -> None:
    """Raise a UserError if the model, the data or the augmentations are not suitable for translation."""
    if not isinstance(model, TranslationModel):
        raise UserError(
            f"model: game={game} translates images, and this model does not. Set model=unet or "
            "model=resnet_translator, or choose another game, e.g. game=gan."
        )
    if not all(isinstance(spec.get(name), Image) for name in DOMAINS):
        raise UserError(
            f"dataset: game={game} translates between images a and b, and this data set has the features "
            f"{', '.join(spec)}. Set e.g. dataset=edges, dataset=paired or dataset=unpaired."
        )
    sizes = [" x ".join(map(str, spec[name].shape[:2])) for name in DOMAINS]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"dataset: game={game} needs images a and b of equal size, and they have {sizes[0]} and {sizes[1]} "
            f"pixels. Set dataset.resolution to one size for both."
        )
    packing = next((name for name, augment in augments.items() if augment.pack > 1), None)
    if packing is not None:
        raise UserError(
            f"augment=[{packing}]: game={game} judges patches of single images, but the discriminator would "
            f"receive packs. Remove {packing} from augment=[...]."
        )


def check_equal_channels(option: str, spec: Spec, remedy: str) -> None:
    """Raise a UserError if the images of the two domains have different numbers of channels.

    Args:
        option: the option that needs equal numbers of channels, with its value.
        spec: the features of an example.
        remedy: the end of the error message.
    """
    channels = [spec[name].shape[-1] for name in DOMAINS]
    if channels[0] != channels[1]:
        raise UserError(
            f"{option}: passes images of the target through the generator, which needs equal numbers of channels, "
            f"and a has {channels[0]} and b has {channels[1]}. {remedy}"
        )


def _without_margins(feature: Feature) -> Image:
    """The feature of the images that networks see, without the margins that training crops."""
    assert isinstance(feature, Image)
    return dataclasses.replace(feature, load=None)


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean absolute difference of images ``[batch, h, w, c]``, ``[batch]``."""
    return jnp.abs(x - y).mean((1, 2, 3))


def _patches(logits: jax.Array) -> jax.Array:
    """Logits ``[batch, h', w']`` as ``[batch, h' * w']``."""
    return logits.reshape(len(logits), -1)


def _with_network(net_state: ByPlayer, domain: str, state: Tree) -> ByPlayer:
    """``net_state`` with a new state of the discriminator of a domain."""
    own = net_state[DISCRIMINATOR]
    return net_state | {DISCRIMINATOR: own | {"networks": own["networks"] | {domain: state}}}
