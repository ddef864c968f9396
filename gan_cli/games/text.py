"""The part that games of texts share: the generator, its likelihood, and the tasks ``generate`` and ``score``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.data.features import Number, Vector
from gan_cli.data.text.feature import FREE, Prompt, Tokens
from gan_cli.errors import UserError
from gan_cli.games.networks import Network
from gan_cli.losses import masked_mean
from gan_cli.models import TextModel
from gan_cli.types import Batch, ByPlayer, Game, Metrics, Spec, Task, Tree

GENERATOR = "generator"


class TextGame(Game):
    """A game whose generator gives each token a distribution after the tokens before it.

    The network state of the generator is ``{"network": state}``.

    Args:
        name: name of the game in error messages.
        spec: the features of an example: ``x``, texts.
        model: the two networks.
        precision: data type in which the networks compute. Only float32 is possible.

    Raises:
        UserError: the data are no texts, or the networks are not those of texts.
    """

    averaged = (GENERATOR,)

    def __init__(self, name: str, spec: Spec, model: TextModel, precision: str):
        x = spec.get("x")
        if not isinstance(x, Tokens):
            raise UserError(
                f"dataset: game={name} learns texts, and the examples of this data set are "
                f"{next(iter(spec.values())).noun}. Choose a data set of texts, e.g. dataset=shakespeare, or "
                "another game, e.g. game=gan."
            )
        if not isinstance(model, TextModel):
            raise UserError(f"model: game={name} needs networks of texts. Set model=text or model=text_cnn.")
        if precision != "float32":
            raise UserError(f"train.precision={precision}: networks of texts compute in float32. Leave it out.")
        self.spec: Spec = spec
        self._x = x
        self.networks = {GENERATOR: Network(lambda key: model.generator(x, nnx.Rngs(key)), precision)}
        self.tasks = self._tasks()

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: initial parameters and initial network state, as mappings from the name of each player."""
        params: ByPlayer = {}
        net_state: ByPlayer = {}
        for i, name in enumerate(self.players):
            params[name], state = self.networks[name].init(jax.random.fold_in(key, i))
            net_state[name] = {"network": state}
        return params, net_state

    def log_likelihood(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        tokens: jax.Array,
        *,
        train: bool,
        key: jax.Array,
        temperature: jax.Array | float = 1.0,
    ) -> tuple[jax.Array, Tree]:
        """A pair: log-probabilities ``[batch, length]`` of the tokens in nats, and the new state of the network.

        The log-probabilities of the places after the end of a text are 0. The logits are divided by the
        temperature, a number or ``[batch, 1, 1]``.
        """
        own = net_state[GENERATOR]["network"]
        logits, state = self.networks[GENERATOR](params[GENERATOR], own, tokens, train=train, key=key)
        logits = logits / temperature
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=2)[..., 0]
        return (chosen - jax.nn.logsumexp(logits, axis=2)) * self.counted(tokens), state

    def counted(self, tokens: jax.Array) -> jax.Array:
        """1 for the tokens of a text up to its end, including the end, and 0 for the places after it."""
        return counted(tokens, self._x.end)

    def membership_scores(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array
    ) -> jax.Array | None:
        """The log-likelihood ``[n]`` of each text."""
        return self.log_likelihood(params, net_state, batch["x"], train=False, key=key)[0].sum(1)

    def _likelihood_metrics(self, values: jax.Array, tokens: jax.Array, mask: jax.Array | None) -> Metrics:
        """The mean negative log-likelihood of the tokens of a batch in nats, from log-probabilities."""
        total = masked_mean(-values.sum(1), mask)
        return {f"{GENERATOR}/nll": total / jnp.maximum(masked_mean(self.counted(tokens).sum(1), mask), 1e-9)}

    def _tasks(self) -> dict[str, Task]:
        x = self._x
        prompt = Prompt(x.length, x.vocabulary, x.unit, x.end, x.noun)

        def prior(key: jax.Array, truncation: float | None) -> Batch:
            return {
                "noise": jax.random.normal(key, (x.length,)),
                "temperature": jnp.float32(1),
                "prompt": jnp.full(x.length, FREE, jnp.int32),
            }

        def generate(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
            return {"samples": self._sample(params, net_state, inputs)}

        def score(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
            tokens = inputs["x"]
            # At temperature 0, as for samples, the most probable token has the probability 1 in float32.
            temperature = jnp.maximum(inputs["temperature"], 1e-6)[:, None, None]
            key = jax.random.key(0)
            values, _ = self.log_likelihood(
                params, net_state, tokens, train=False, key=key, temperature=temperature
            )
            number = self.counted(tokens).sum(1)
            return {"nll": -values.sum(1) / number, "tokens": number}

        usual, scores = {"temperature": jnp.float32(1)}, {"nll": Number(), "tokens": Number()}
        drawn = {"noise": Vector(x.length), "temperature": Number(), "prompt": prompt}
        return {
            "generate": Task(drawn, {"samples": x}, generate, prior, imitates="x"),
            "score": Task({"x": x, "temperature": Number()}, scores, score, lambda key, truncation: usual),
        }

    def _sample(self, params: ByPlayer, net_state: ByPlayer, inputs: Batch) -> jax.Array:
        """Texts ``[n, length]`` from the inputs of the task ``generate``."""
        network, own = self.networks[GENERATOR], net_state[GENERATOR]["network"]
        tokens: jax.Array = network(
            params[GENERATOR], own, inputs, train=False, key=jax.random.key(0), method="sample"
        )[0]
        return tokens


def counted(tokens: jax.Array, end: int | None) -> jax.Array:
    """1 for the tokens of texts ``[n, length]`` up to the token ``end``, and 0 for the places after it."""
    if end is None:
        return jnp.ones(tokens.shape)
    before = jnp.pad(tokens[:, :-1] != end, ((0, 0), (1, 0)), constant_values=True)
    return jnp.cumprod(before, axis=1).astype(jnp.float32)
