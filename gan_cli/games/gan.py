"""The adversarial game of a generator and a discriminator."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gan_cli.augment import Augment
from gan_cli.data.features import classes_of
from gan_cli.engine import devices
from gan_cli.errors import UserError
from gan_cli.losses import Loss
from gan_cli.models import Model, conditional
from gan_cli.penalties import Critic, Penalty
from gan_cli.types import Batch, ByPlayer, Game, Metrics, Spec, Tree

DISCRIMINATOR, GENERATOR = "discriminator", "generator"


class DiscriminatorOutput(NamedTuple):
    """Output of the discriminator: logits ``[batch]`` and, only with AC-GAN, class logits ``[batch, classes]``."""

    logits: jax.Array
    classes: jax.Array | None = None


class GAN(Game):
    """GAN: a generator against a discriminator, for any networks, loss, penalties and augmentations.

    Goodfellow et al. 2014. The game needs a model, a loss and a data set. Penalties and augmentations are optional.

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
    samples = True
    shares_fakes = True

    def __init__(
        self,
        spec: Spec,
        model: Model,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
    ):
        self.spec: Spec = spec
        self.latent_dim, self.adversarial, self.penalties = model.latent_dim, loss, penalties
        self._changes = {name: augment for name, augment in augments.items() if augment.pack == 1}
        self._packing = next((augment for augment in augments.values() if augment.pack > 1), None)
        self.pack = self._packing.pack if self._packing else 1
        if model.conditional != "none":
            self._check_labels(model.conditional)
        self.classes = None if model.conditional == "none" else classes_of(spec)
        self._dtype = jnp.dtype(precision)
        self._x = x = spec["x"]
        if self.classes is None:
            packed = x if self.pack == 1 else x.widened(x.shape[-1] * self.pack)
            self._build = {
                DISCRIMINATOR: lambda key: model.discriminator(packed, nnx.Rngs(key)),
                GENERATOR: lambda key: model.generator(x, model.latent_dim, nnx.Rngs(key)),
            }
        else:
            classes, discriminator = self.classes, conditional.DISCRIMINATORS[model.conditional]
            self._build = {
                DISCRIMINATOR: lambda key: discriminator(model, x, classes, nnx.Rngs(key)),
                GENERATOR: lambda key: conditional.Generator(model, x, classes, nnx.Rngs(key)),
            }
        abstract = {name: nnx.eval_shape(build, jax.random.key(0)) for name, build in self._build.items()}
        self._graphs = {name: nnx.split(module, nnx.Param, ...)[0] for name, module in abstract.items()}
        self._couples_batch = bool(getattr(abstract[DISCRIMINATOR], "couples_batch"))  # noqa: B009
        self._check()

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
            key, latents = jax.random.key(0), jnp.zeros((2 * self.pack, self.latent_dim))
            labels = None if self.classes is None else jnp.zeros(2, jnp.int32)
            fake, _ = self._generate(params, net_state, latents, labels, True, key)
            output, _ = self._discriminate(params, net_state, self._input(fake, net_state, key, 0), labels, key)
            return fake, output.logits

        fake, logits = jax.eval_shape(shapes)
        if fake.shape[1:] != self._x.shape:
            raise UserError(
                f"model.generator: returns examples of shape {fake.shape[1:]}, but the examples of the data set "
                f"have the shape {self._x.shape}. Correct the __call__ method of the generator, or choose "
                "another model."
            )
        if logits.shape != (2,):
            raise UserError(
                f"model.discriminator: returns logits of shape {logits.shape} for 2 inputs, but the shape must be "
                "(2,), one logit per input. Correct the __call__ method of the discriminator, or choose another "
                "model."
            )

    def _check_labels(self, kind: str) -> None:
        if classes_of(self.spec) is None:
            raise UserError(
                f"model.conditional={kind}: needs labels, but the data set has none. Set model.conditional=none, "
                "or choose a data set with labels, e.g. dataset=mnist5k."
            )
        if self._packing is not None:
            raise UserError(
                f"model.conditional={kind}: needs one label per input of the discriminator, but a pack has several "
                "labels. Set model.conditional=none, or remove packing from augment=[...]."
            )

    def with_eager_penalties(self) -> GAN:
        """A copy of the game that applies every penalty at every step."""
        game = copy.copy(self)
        game.penalties = {name: penalty._replace(interval=1) for name, penalty in self.penalties.items()}
        return game

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: initial parameters and initial network state, as mappings from the name of each player."""
        params: ByPlayer = {}
        net_state: ByPlayer = {}
        for i, name in enumerate(self.players):
            subkey = jax.random.fold_in(key, i)
            _, *states = nnx.split(self._build[name](subkey), nnx.Param, ...)
            params[name], state = states
            net_state[name] = {"network": state}
        # A copy, because a donated state must not contain the same buffer twice.
        adapted = {name: jax.tree.map(jnp.copy, augment.start) for name, augment in self._changes.items()}
        net_state[DISCRIMINATOR]["augment"] = adapted
        return params, net_state

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
        """A pair: the player's scalar loss on a batch, and a pair of the new network state and the metrics.

        ``fake`` is the generated batch that ``self.fake`` returns for the same arguments. If ``fake`` is None, the
        method calls ``self.fake``.
        """
        if fake is None:
            fake, generator_state = self.fake(params, net_state, batch, key)
            net_state = net_state | {GENERATOR: generator_state[GENERATOR]}
        own_key = jax.random.fold_in(key, self.players.index(player))
        if player == DISCRIMINATOR:
            # No stop_gradient on ``fake``: second-order strategies differentiate through the generator.
            return self._discriminator_loss(params, net_state, batch, fake, own_key, step)
        real_key, fake_key = jax.random.split(own_key)
        real, fake = self._input_pair(batch["x"], fake, net_state, own_key, step)
        # The compiler removes this forward pass if the generator's loss does not depend on the real logits.
        of_real, _ = self._discriminate(params, net_state, real, batch.get("label"), real_key)
        of_fake, _ = self._discriminate(params, net_state, fake, batch.get("label"), fake_key)
        loss = self.adversarial.generator(of_real.logits, of_fake.logits).mean()
        return loss + _class_loss(of_fake, batch.get("label")), (net_state, {})

    def _discriminator_loss(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        fake: jax.Array,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[ByPlayer, Metrics]]:
        labels = batch.get("label")
        real_key, fake_key, penalty_key = jax.random.split(key, 3)
        real, fake = self._input_pair(batch["x"], fake, net_state, key, step)
        if self._couples_batch:
            of_real, state = self._discriminate(params, net_state, real, labels, real_key)
            after = net_state | {DISCRIMINATOR: {"network": state}}
            of_fake, state = self._discriminate(params, after, fake, labels, fake_key)
        else:  # one forward pass over the real and the generated batch has fewer and larger operations
            twice = None if labels is None else jnp.repeat(labels, 2)
            # Real and generated examples alternate. If the batch is split over several devices, each device thus
            # receives pairs of a real and a generated example with the same index.
            both = jnp.stack([real, fake], axis=1).reshape(-1, *real.shape[1:])
            output, state = self._discriminate(params, net_state, both, twice, real_key)
            of_real, of_fake = (
                jax.tree.map(lambda x, i=i: x.reshape(-1, 2, *x.shape[1:])[:, i], output) for i in (0, 1)
            )
        real_logits, fake_logits = of_real.logits, of_fake.logits
        loss = self.adversarial.discriminator(real_logits, fake_logits).mean()
        loss += _class_loss(of_real, labels) + _class_loss(of_fake, labels)
        real_above, fake_above = self.adversarial.above_boundary(real_logits, fake_logits)
        metrics = {
            f"{DISCRIMINATOR}/real_logits": real_logits.mean(),
            f"{DISCRIMINATOR}/fake_logits": fake_logits.mean(),
            f"{DISCRIMINATOR}/real_accuracy": (real_above > 0).mean(),
            f"{DISCRIMINATOR}/fake_accuracy": (fake_above < 0).mean(),
        }
        if of_real.classes is not None:
            metrics[f"{DISCRIMINATOR}/class_accuracy"] = jnp.mean(of_real.classes.argmax(1) == labels)
        adapted = net_state[DISCRIMINATOR]["augment"]
        for name, own in adapted.items():
            for what, value in own.items() if own else ():
                metrics[f"{DISCRIMINATOR}/{name}_{what}"] = value
        adapted = {
            name: augment.adapt(adapted[name], jnp.repeat(jax.lax.stop_gradient(real_above), self.pack))
            for name, augment in self._changes.items()
        }
        for i, (name, penalty) in enumerate(self.penalties.items()):
            key = jax.random.fold_in(penalty_key, i)

            def critic(own: Tree, x: jax.Array, key: jax.Array = key) -> jax.Array:
                return self._discriminate(params | {DISCRIMINATOR: own}, net_state, x, labels, key)[0].logits

            def value(
                own: Tree, penalty: Penalty = penalty, critic: Critic = critic, key: jax.Array = key
            ) -> jax.Array:
                return penalty.function(critic, own, real, fake, key)

            own = params[DISCRIMINATOR]
            if penalty.interval == 1:
                amount = value(own)
                metrics[f"{DISCRIMINATOR}/{name}"] = amount
            else:  # evaluated at the last step of each interval; not logged, because most values would be zero
                due = step % penalty.interval == penalty.interval - 1
                amount = jax.lax.cond(due, value, lambda own: jnp.zeros(()), own)
            weight = penalty.weight(step) if callable(penalty.weight) else penalty.weight
            loss += weight * penalty.interval * amount
        return loss, (net_state | {DISCRIMINATOR: {"network": state, "augment": adapted}}, metrics)

    def fake(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ByPlayer]:
        """A pair: as many generated examples as ``batch`` contains, and the network state after the forward pass.

        If the game is conditional, the method generates one example for each label of the batch.
        """
        latent_key, key = jax.random.split(jax.random.fold_in(key, len(self.players)))
        latents = devices.split(jax.random.normal(latent_key, (len(batch["x"]), self.latent_dim)))
        fake, state = self._generate(params, net_state, latents, batch.get("label"), True, key)
        return fake, net_state | {GENERATOR: {"network": state}}

    def augmented(self, x: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array) -> jax.Array:
        """Examples ``x`` ``[n, *shape]`` after all augmentations except packing."""
        for i, (name, augment) in enumerate(self._changes.items()):
            own = net_state[DISCRIMINATOR]["augment"][name]
            x = augment.apply(x, jax.random.fold_in(key, i), step, own)
        return x

    def _input(self, x: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array) -> jax.Array:
        x = self.augmented(x, net_state, key, step)
        return self._packing.apply(x, key, step, ()) if self._packing else x

    def _input_pair(
        self, real: jax.Array, fake: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """A pair: the real and the generated examples, augmented and packed with independent random numbers."""
        real_key, fake_key = jax.random.split(jax.random.fold_in(key, 3))
        return self._input(real, net_state, real_key, step), self._input(fake, net_state, fake_key, step)

    def decode(
        self, params: ByPlayer, net_state: ByPlayer, latents: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        """Examples ``[n, *shape]`` from latents ``[n, latent_dim]``.

        If the game is conditional, labels ``[n]`` are required. Normalisation layers use running statistics, and
        dropout is off.
        """
        return self._generate(params, net_state, latents, labels, False, jax.random.key(0))[0]

    def network(self, player: str, params: ByPlayer, net_state: ByPlayer) -> Any:
        """A player's network with the given parameters and network state, as a callable Flax module.

        The return type is Any, because the attributes of a module depend on the model.
        """
        return nnx.merge(self._graphs[player], params[player], net_state[player]["network"], copy=True)

    def _generate(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        latents: jax.Array,
        labels: jax.Array | None,
        train: bool,
        key: jax.Array,
    ) -> tuple[jax.Array, Tree]:
        return self._apply(GENERATOR, params, net_state, latents, labels, train, key)

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
        # ``network`` makes a copy, because the module's variables must belong to the innermost JAX trace.
        module = self.network(name, params, net_state)
        inputs = (x.astype(self._dtype),) if self.classes is None else (x.astype(self._dtype), labels)
        y = module(*inputs, train=train, key=key)
        return jax.tree.map(lambda y: y.astype(jnp.float32), y), nnx.state(module, nnx.Not(nnx.Param))


def _class_loss(output: DiscriminatorOutput, labels: jax.Array | None) -> jax.Array | float:
    """AC-GAN's mean cross-entropy between predicted and requested classes (Odena et al. 2017, eq. 3).

    The value is 0 for all other discriminators.
    """
    if output.classes is None or labels is None:
        return 0.0
    cross_entropy: jax.Array = optax.softmax_cross_entropy_with_integer_labels(output.classes, labels)
    return cross_entropy.mean()
