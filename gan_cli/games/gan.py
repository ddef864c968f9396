"""The adversarial game of a generator and a discriminator."""

from __future__ import annotations

import copy
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gan_cli.augment import Augment
from gan_cli.data.features import Raw, Vector, classes_of
from gan_cli.engine import devices
from gan_cli.errors import UserError
from gan_cli.games.networks import (
    Network,
    PenalisedGame,
    build_discriminator,
    build_generator,
    check_generates,
    label_classes,
    prior_of,
)
from gan_cli.losses import Loss, masked_mean
from gan_cli.models import Model
from gan_cli.penalties import Penalty, penalty_terms
from gan_cli.types import Batch, ByPlayer, LossTerms, Spec, Task, Term, Tree

DISCRIMINATOR, GENERATOR = "discriminator", "generator"


class DiscriminatorOutput(NamedTuple):
    """Output of the discriminator.

    Attributes:
        logits: ``[batch]``, or ``[batch, heads]`` of a discriminator of several networks.
        classes: class logits ``[batch, classes]``, only with AC-GAN.
    """

    logits: jax.Array
    classes: jax.Array | None = None

    @property
    def mean(self) -> jax.Array:
        """The mean logit of each example over the heads, ``[batch]``."""
        return self.logits if self.logits.ndim == 1 else self.logits.mean(1)


class GAN(PenalisedGame):
    """GAN: a generator against a discriminator, for any networks, loss, penalties and augmentations.

    Goodfellow et al. 2014. The game needs a model, a loss and a data set. Penalties and augmentations are optional.
    If the output activation of an example reads noise, e.g. to draw the categories of a row of a table, the latents
    of the game are those of the generator, followed by the noise.

    Args:
        spec: the features of an example: ``x`` and, for a conditional model, ``label``.
        model: the two networks.
        loss: the adversarial loss of each player.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input.
        precision: data type in which the networks compute, float32 or bfloat16. Parameters, logits, examples,
            losses and updates are float32 in both cases.

    Raises:
        UserError: the data, the networks, the penalties and the augmentations are not compatible with each other.
    """

    players = (DISCRIMINATOR, GENERATOR)
    averaged: tuple[str, ...] = (GENERATOR,)
    shares_fakes = True
    _private = False

    def __init__(
        self,
        spec: Spec,
        model: Model,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
    ):
        check_generates("gan", model, spec)
        self.spec: Spec = spec
        self.adversarial, self.penalties = loss.of_heads(), penalties
        self._changes = {name: augment for name, augment in augments.items() if augment.pack == 1}
        self._packing = next((augment for augment in augments.values() if augment.pack > 1), None)
        self.pack = self._packing.pack if self._packing else 1
        self._x = spec["x"]
        self._latent_dim = self._inputs(model)
        classes = label_classes(model, spec)
        self._labelled = classes is not None
        if self._labelled and self._packing is not None:
            raise UserError(
                f"model.conditional={model.conditional}: needs one label per input of the discriminator, and a "
                "pack has several labels. Set model.conditional=none, or remove packing from augment=[...]."
            )
        self.networks = self._networks(model, precision, classes)
        self._couples_batch = self.networks[DISCRIMINATOR].couples_batch
        # An augmentation with a state adapts to statistics of the batch.
        adapts = any(jax.tree.leaves(augment.start) for augment in augments.values())
        couples_pairs = bool(self._packing) or loss.couples_batch
        couples_penalty = adapts or any(penalty.couples_batch for penalty in penalties.values())
        self._couples_discriminator = self._couples_batch or couples_pairs or couples_penalty
        if couples_pairs or any(network.couples_batch for network in self.networks.values()):
            self.coupled = frozenset(self.players)
        elif couples_penalty:
            self.coupled = frozenset({DISCRIMINATOR})
        self.tasks = self._tasks()
        self._check()

    def _inputs(self, model: Model) -> int:
        """Number of values of the latents: those of the generator's input and the noise of ``Feature.head``."""
        return model.latent_dim + self._x.noise

    def _networks(self, model: Model, precision: str, classes: int | None) -> dict[str, Network]:
        x = self._x
        packed = x if self.pack == 1 else x.widened(x.shape[-1] * self.pack)
        return {
            DISCRIMINATOR: Network(build_discriminator(model, packed, classes), precision),
            GENERATOR: Network(build_generator(model, Raw(x) if x.noise else x, classes), precision),
        }

    def _tasks(self) -> dict[str, Task]:
        inputs: Spec = {"latents": Vector(self._latent_dim)}
        if self._labelled:
            inputs = {**inputs, "label": self.spec["label"]}
        prior = prior_of(self._x, self._latent_dim, classes_of(self.spec) if self._labelled else None)
        return {"generate": Task(inputs, {"samples": self._x}, self._samples, prior, imitates="x")}

    def _check(self) -> None:
        """Raise a UserError if a penalty or a network is not compatible with the other parts of the game."""
        for name, penalty in self.penalties.items():
            if penalty.per_example and self._couples_batch:
                raise UserError(
                    f"penalty.{name}: needs a discriminator that processes each example independently, without "
                    "batch normalisation and minibatch layers (Gulrajani et al. 2017, section 4). Use "
                    "model.discriminator.norm=layer model.discriminator.minibatch=none, or penalty=[r1]."
                )

        def shapes() -> tuple[jax.Array, jax.Array]:
            params, net_state = self.init(jax.random.key(0))
            key = jax.random.key(0)
            batch = self.noise({"x": jnp.zeros((2 * self.pack, *self._x.shape))}, key)
            labels = jnp.zeros(2, jnp.int32) if self._labelled else None
            fake, _ = self._generate(params, net_state, batch["latents"], labels, True, key)
            seen = self._input(self._judged(fake, batch), net_state, key, 0)
            output, _ = self._discriminate(params, net_state, seen, labels, key)
            return fake, output.logits

        fake, logits = jax.eval_shape(shapes)
        if fake.shape[1:] != self._x.shape:
            raise UserError(
                f"model.generator: returns examples of shape {fake.shape[1:]}, but the examples of the data set "
                f"have the shape {self._x.shape}. Correct the __call__ method of the generator, or choose "
                "another model."
            )
        if logits.ndim not in (1, 2) or len(logits) != 2:
            raise UserError(
                f"model.discriminator: returns logits of shape {logits.shape} for 2 inputs, but the shape must be "
                "(2,), one logit per input, or (2, heads). Correct the __call__ method of the discriminator, or "
                "choose another model."
            )

    def private(self) -> GAN:
        """A copy of the game in which the discriminator's loss alone reads the data, in terms that declare it.

        The labels of generated examples are drawn from ``Feature.class_shares`` or, without them, uniformly. The
        generator may have batch normalisation, whose statistics are of generated examples.

        Raises:
            UserError: the loss compares real with generated examples, so that the generator's loss reads the data.
        """
        if self.adversarial.pairs:
            raise UserError(
                "loss: the loss compares real with generated examples, so the generator would read the data as "
                "well. With estimator=private, set another loss, e.g. loss=nonsaturating."
            )
        game = copy.copy(self)
        game._private, game.reads_data = True, frozenset({DISCRIMINATOR})
        game.coupled = frozenset({DISCRIMINATOR}) if self._couples_discriminator else frozenset()
        return game

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: initial parameters and initial network state, as mappings from the name of each player."""
        params: ByPlayer = {}
        net_state: ByPlayer = {}
        for i, name in enumerate(self.players):
            params[name], state = self.networks[name].init(jax.random.fold_in(key, i))
            net_state[name] = {"network": state}
        # A copy, because a donated state must not contain the same buffer twice.
        adapted = {name: jax.tree.map(jnp.copy, augment.start) for name, augment in self._changes.items()}
        net_state[DISCRIMINATOR]["augment"] = adapted
        return params, net_state

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with latents ``[batch, latent_dim]`` and, in private training, labels of generated examples.

        Without private training, the generated examples have the labels of the batch.
        """
        key, _ = self._fake_keys(key)
        latents = devices.split(jax.random.normal(key, (len(batch["x"]), self._latent_dim)))
        if not (self._private and self._labelled):
            return batch | {"latents": latents}
        shares = jnp.asarray(self._x.class_shares or [1.0] * (classes_of(self.spec) or 1))
        labels = jax.random.categorical(jax.random.fold_in(key, 1), jnp.log(shares), shape=latents.shape[:1])
        return batch | {"latents": latents, "fake_label": devices.split(labels.astype(jnp.int32))}

    def _fake_labels(self, batch: Batch) -> jax.Array | None:
        return batch.get("fake_label", batch.get("label"))

    def _fake_keys(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A pair: the key of the latents, and the key of the generator's forward pass."""
        latent_key, key = jax.random.split(jax.random.fold_in(key, len(self.players)))
        return latent_key, key

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: jax.Array | None = None,
    ) -> LossTerms:
        """The terms of a player's loss: the adversarial loss, AC-GAN's classification loss, and the penalties.

        ``fake`` is the generated batch that ``self.fake`` returns for the same arguments. If ``fake`` is None, the
        method calls ``self.fake``.
        """
        if fake is None:
            fake, generator_state = self.fake(params, net_state, batch, key, step)
            net_state = net_state | {GENERATOR: generator_state[GENERATOR]}
        own_key = jax.random.fold_in(key, self.players.index(player))
        if player == DISCRIMINATOR:
            # No stop_gradient on ``fake``: second-order strategies differentiate through the generator.
            return self._discriminator_loss(params, net_state, batch, fake, own_key, step)
        labels = self._fake_labels(batch)
        real_key, fake_key = jax.random.split(own_key)
        real, fake = self._input_pair(batch, fake, net_state, own_key, step)
        # The compiler removes this forward pass if the generator's loss does not depend on the real logits.
        of_real, _ = self._discriminate(params, net_state, real, labels, real_key)
        of_fake, _ = self._discriminate(params, net_state, fake, labels, fake_key)
        terms = {"adversarial": Term(self.adversarial.generator(of_real.logits, of_fake.logits))}
        if of_fake.classes is not None:
            terms["classes"] = Term(_class_loss(of_fake, labels))
        return LossTerms(terms, net_state, {})

    def _discriminator_loss(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        fake: jax.Array,
        key: jax.Array,
        step: jax.Array,
    ) -> LossTerms:
        labels, fake_labels, mask = batch.get("label"), self._fake_labels(batch), batch.get("mask")
        real_key, fake_key, penalty_key = jax.random.split(key, 3)
        real, fake = self._input_pair(batch, fake, net_state, key, step)
        if self._couples_batch:
            of_real, state = self._discriminate(params, net_state, real, labels, real_key)
            after = net_state | {DISCRIMINATOR: {"network": state}}
            of_fake, state = self._discriminate(params, after, fake, labels, fake_key)
        elif self._private:  # the terms of real and of generated examples are differentiated separately
            of_real, state = self._discriminate(params, net_state, real, labels, real_key)
            of_fake, _ = self._discriminate(params, net_state, fake, fake_labels, fake_key)
        else:  # one forward pass over the real and the generated batch has fewer and larger operations
            twice = None if labels is None else jnp.repeat(labels, 2)
            # Real and generated examples alternate. If the batch is split over several devices, each device thus
            # receives pairs of a real and a generated example with the same index.
            both = jnp.stack([real, fake], axis=1).reshape(-1, *real.shape[1:])
            output, state = self._discriminate(params, net_state, both, twice, real_key)
            of_real, of_fake = (
                jax.tree.map(lambda x, i=i: x.reshape(-1, 2, *x.shape[1:])[:, i], output) for i in (0, 1)
            )
        terms = self._adversarial_terms(of_real.logits, of_fake.logits)
        real_logits, fake_logits = of_real.mean, of_fake.mean
        real_above, fake_above = self.adversarial.above_boundary(real_logits, fake_logits, mask)
        metrics = {
            f"{DISCRIMINATOR}/real_logits": masked_mean(real_logits, mask),
            f"{DISCRIMINATOR}/fake_logits": masked_mean(fake_logits, mask),
            f"{DISCRIMINATOR}/real_accuracy": masked_mean(real_above > 0, mask),
            f"{DISCRIMINATOR}/fake_accuracy": masked_mean(fake_above < 0, mask),
        }
        if of_real.classes is not None and labels is not None:
            terms |= self._summed("classes", _class_loss(of_real, labels), _class_loss(of_fake, fake_labels))
            correct = jnp.equal(of_real.classes.argmax(1), labels)
            metrics[f"{DISCRIMINATOR}/class_accuracy"] = masked_mean(correct, mask)
        adapted = net_state[DISCRIMINATOR]["augment"]
        for name, own in adapted.items():
            for quantity, value in own.items() if own else ():
                metrics[f"{DISCRIMINATOR}/{name}_{quantity}"] = value
        adapted = {
            name: augment.adapt(adapted[name], jnp.repeat(jax.lax.stop_gradient(real_above), self.pack))
            for name, augment in self._changes.items()
        }

        def critic(own: Tree, x: jax.Array, key: jax.Array, labels: jax.Array | None = labels) -> jax.Array:
            found, _ = self._discriminate(params | {DISCRIMINATOR: own}, net_state, x, labels, key)
            return found.logits if found.logits.ndim == 1 else found.logits.sum(1)

        penalised = penalty_terms(
            self.penalties,
            critic,
            params[DISCRIMINATOR],
            real,
            fake,
            key=penalty_key,
            step=step,
            critic_of_fakes=functools.partial(critic, labels=fake_labels),
        )
        metrics |= {
            f"{DISCRIMINATOR}/{name}": masked_mean(term.values, mask)
            for name, term in penalised.items()
            if self.penalties[name].interval == 1  # most values of the others would be zero
        }
        terms |= penalised
        return LossTerms(terms, net_state | {DISCRIMINATOR: {"network": state, "augment": adapted}}, metrics)

    def membership_scores(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array
    ) -> jax.Array | None:
        """The discriminator's logits ``[n]`` of examples without augmentation and dropout. None for packs."""
        if self.pack > 1:
            return None
        x, labels = self._judged(batch["x"], batch), batch.get("label")
        output, _ = self._apply(DISCRIMINATOR, params, net_state, x, labels, False, key)
        return (DiscriminatorOutput(*output) if isinstance(output, tuple) else DiscriminatorOutput(output)).mean

    def _adversarial_terms(self, real: jax.Array, fake: jax.Array) -> dict[str, Term]:
        """The discriminator's adversarial loss: in private training, a term of real and one of generated logits."""
        loss = self.adversarial.discriminator
        if not self._private:
            return {"adversarial": Term(loss(real, fake))}
        none = jnp.zeros_like(fake)  # the loss is the sum of a function of real and a function of generated logits
        return self._summed("adversarial", loss(real, none), loss(none, fake) - loss(none, none))

    def _summed(self, name: str, of_real: jax.Array, of_fake: jax.Array) -> dict[str, Term]:
        """The sum of the values of real and generated examples as a term, or as two terms in private training."""
        if not self._private:
            return {name: Term(of_real + of_fake)}
        return {name: Term(of_real), f"{name}_of_fakes": Term(of_fake, reads_data=False)}

    def fake(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, ByPlayer]:
        """A pair: an example for each latent vector of ``batch``, and the network state after the forward pass.

        If the game is conditional, the method generates one example for each label of ``batch``, which are the
        labels that ``noise`` draws in private training.
        """
        _, key = self._fake_keys(key)
        fake, state = self._generate(params, net_state, batch["latents"], self._fake_labels(batch), True, key)
        return fake, net_state | {GENERATOR: {"network": state}}

    def augmented(self, x: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array) -> jax.Array:
        """Examples ``x`` ``[n, *shape]`` after all augmentations except packing."""
        for i, (name, augment) in enumerate(self._changes.items()):
            own = net_state[DISCRIMINATOR]["augment"][name]
            x = augment.apply(x, jax.random.fold_in(key, i), step, own)
        return x

    def _judged(self, x: jax.Array, batch: Batch) -> jax.Array:
        """The values that the discriminator sees of the real or generated examples ``x`` of a batch."""
        return x

    def _input(self, x: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array) -> jax.Array:
        x = self.augmented(x, net_state, key, step)
        return self._packing.apply(x, key, step, ()) if self._packing else x

    def _input_pair(
        self, batch: Batch, fake: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """A pair: the real and the generated examples, augmented and packed with independent random numbers."""
        real_key, fake_key = jax.random.split(jax.random.fold_in(key, 3))
        real, fake = self._judged(batch["x"], batch), self._judged(fake, batch)
        return self._input(real, net_state, real_key, step), self._input(fake, net_state, fake_key, step)

    def _samples(
        self, params: ByPlayer, net_state: ByPlayer, inputs: dict[str, jax.Array], keys: jax.Array
    ) -> dict[str, jax.Array]:
        return {"samples": self.decode(params, net_state, inputs["latents"], inputs.get("label"))}

    def decode(
        self, params: ByPlayer, net_state: ByPlayer, latents: jax.Array, labels: jax.Array | None
    ) -> jax.Array:
        """Examples ``[n, *shape]`` from latents ``[n, latent_dim]``, and labels ``[n]`` of a conditional game.

        Normalisation layers use running statistics, and dropout is off.
        """
        return self._generate(params, net_state, latents, labels, False, jax.random.key(0))[0]

    def network(self, player: str, params: ByPlayer, net_state: ByPlayer) -> Any:
        """A player's network with the given parameters and network state, as a callable Flax module.

        The return type is Any, because the attributes of a module depend on the model.
        """
        return self.networks[player].module(params[player], net_state[player]["network"])

    def features(
        self, params: ByPlayer, net_state: ByPlayer, x: jax.Array, labels: jax.Array | None, key: jax.Array
    ) -> jax.Array:
        """The output ``[n, features]`` of the discriminator's last hidden layer, as in training."""
        network, own = self.networks[DISCRIMINATOR], net_state[DISCRIMINATOR]["network"]
        found: jax.Array = network(params[DISCRIMINATOR], own, x, labels, train=True, key=key, method="features")[0]
        return found

    def _generate(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        latents: jax.Array,
        labels: jax.Array | None,
        train: bool,
        key: jax.Array,
    ) -> tuple[jax.Array, Tree]:
        if not self._x.noise:
            return self._apply(GENERATOR, params, net_state, latents, labels, train, key)
        inputs, noise = self._split(latents)
        raw, state = self._apply(GENERATOR, params, net_state, inputs, labels, train, key)
        x = self._x.head(raw, noise)
        return x if labels is None or not self._labelled else self._x.with_label(x, labels), state

    def _split(self, latents: jax.Array) -> list[jax.Array]:
        """The input of the generator, and the noise of ``Feature.head``."""
        return jnp.split(latents, [self._latent_dim - self._x.noise], axis=1)

    def _discriminate(
        self, params: ByPlayer, net_state: ByPlayer, x: jax.Array, labels: jax.Array | None, key: jax.Array
    ) -> tuple[DiscriminatorOutput, Tree]:
        output, state = self._apply(DISCRIMINATOR, params, net_state, x, labels, True, key)
        return DiscriminatorOutput(*output) if isinstance(output, tuple) else DiscriminatorOutput(output), state

    def _apply(
        self,
        name: str,
        params: ByPlayer,
        net_state: ByPlayer,
        x: jax.Array,
        labels: jax.Array | None,
        train: bool,
        key: jax.Array,
    ) -> tuple[Any, Tree]:
        own = net_state[name]["network"]
        return self.networks[name](params[name], own, x, labels if self._labelled else None, train=train, key=key)


def _class_loss(output: DiscriminatorOutput, labels: jax.Array | None) -> jax.Array:
    """AC-GAN's cross-entropy ``[batch]`` between predicted and requested classes (Odena et al. 2017, eq. 3)."""
    cross_entropy: jax.Array = optax.softmax_cross_entropy_with_integer_labels(output.classes, labels)
    return cross_entropy
