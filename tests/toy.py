"""A game with two scalar parameters and no networks or data, an autoencoder, and games and loggers that fail."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data import samplers
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, Label, Number, Vector
from gan_cli.metrics import LOWER, NEITHER, Metric
from gan_cli.types import Game, LossTerms, Task, Term


class Bilinear(Game):
    """min over x, max over y of x*y, whose only equilibrium is the origin."""

    players = ("x", "y")

    def __init__(self, *, x: float = 1.0, y: float = 0.0):
        self.start = {"x": x, "y": y}

    def init(self, key: Any) -> Any:
        return {name: jnp.float32(value) for name, value in self.start.items()}, {"x": (), "y": ()}

    def loss(
        self, player: str, params: Any, net_state: Any, batch: Any, key: Any, step: Any, fake: Any = None
    ) -> LossTerms:
        value = params["x"] * params["y"]
        metrics = {"distance": params["x"] ** 2 + params["y"] ** 2}
        return LossTerms({"value": Term(value if player == "x" else -value)}, net_state, metrics)


class Saboteur(Bilinear):
    """The bilinear game whose ``init`` fails or diverges; ``how`` is raise, exit, kill, diverge or none."""

    def __init__(self, *, how: str = "none"):
        super().__init__()
        self.how = how

    def init(self, key: Any) -> Any:
        if self.how == "raise":
            raise RuntimeError("sabotage")
        if self.how == "exit":
            raise SystemExit(7)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "diverge":
            self.start["x"] = float("inf")
        return super().init(key)


class Interrupting:
    """A logger that sends signal ``number`` to this process when ``step`` is logged."""

    def __init__(self, directory: Any, records: Any, *, step: int, number: int):
        self.step, self.number = step, number

    def log(self, record: Any) -> None:
        if record["step"] == self.step:
            os.kill(os.getpid(), self.number)

    def picture(self, step: int, path: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Slow:
    """A logger that takes ``seconds`` to write a record."""

    def __init__(self, directory: Any, records: Any, *, seconds: float):
        self.seconds = seconds

    def log(self, record: Any) -> None:
        time.sleep(self.seconds)

    def picture(self, step: int, path: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Autoencoder(Game):
    """A linear autoencoder of two players with tasks on data: reconstruct, encode, score and noisy."""

    players = ("encoder", "decoder")

    def __init__(self, spec: Any, *, codes: int = 3):
        self.spec, self._codes = spec, codes
        self._x = x = spec["x"]
        samples, vector = {"samples": x}, {"codes": Vector(codes)}
        self.tasks = {
            "generate": Task({"latents": Vector(codes)}, samples, self._generate, self._prior),
            "reconstruct": Task({"x": x}, samples, self._reconstruct, pictured=("x", "samples")),
            "encode": Task(
                {"x": x}, vector, lambda params, _, inputs, keys: {"codes": self._encode(params, inputs["x"])}
            ),
            "score": Task({"x": x}, {"error": Number(), "norm": Number()}, self._score),
            "noisy": Task({"x": x, "label": Label(10)}, vector, self._noisy),
        }

    def init(self, key: Any) -> Any:
        a, b = jax.random.normal(key, (2, self._x.size, self._codes)) / self._x.size**0.5
        return {"encoder": {"kernel": a}, "decoder": {"kernel": b.T}}, {"encoder": (), "decoder": ()}

    def loss(
        self, player: str, params: Any, net_state: Any, batch: Any, key: Any, step: Any, fake: Any = None
    ) -> LossTerms:
        return LossTerms({"error": Term(self._score(params, net_state, batch, key)["error"])}, net_state, {})

    def _prior(self, key: Any, truncation: Any) -> Any:
        return {"latents": jax.random.normal(key, (self._codes,))}

    def _encode(self, params: Any, x: Any) -> Any:
        return x.reshape(x.shape[0], -1) @ params["encoder"]["kernel"]

    def _codes_of(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        return {"codes": self._encode(params, inputs["x"])}

    def _generate(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        z = inputs["latents"]
        return {"samples": (z @ params["decoder"]["kernel"]).reshape(z.shape[0], *self._x.shape)}

    def _reconstruct(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        return self._generate(params, net_state, {"latents": self._encode(params, inputs["x"])}, keys)

    def _score(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        x, made = inputs["x"], self._reconstruct(params, net_state, inputs, keys)["samples"]
        flat = (x - made).reshape(x.shape[0], -1)
        return {"error": (flat**2).mean(1), "norm": (x.reshape(x.shape[0], -1) ** 2).sum(1)}

    def _noisy(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        noise = jax.vmap(lambda key: jax.random.normal(key, (self._codes,)))(keys)
        return {"codes": self._encode(params, inputs["x"]) * 0 + noise + 100.0 * inputs["label"][:, None]}


def toy_score() -> Metric:
    """A metric that reads the tasks of ``Autoencoder`` on held-out data."""

    def figures(run_task: Any) -> dict[str, float]:
        found = run_task("score", "held_out", None)
        return {"toy_score": float(found["error"].mean()), "toy_count": float(len(found["x"]))}

    directions = {"toy_score": LOWER, "toy_count": NEITHER}
    return Metric(figures, directions, minimum=1, tasks=("score",), held_out_tasks=True)


class Translator(Game):
    """A translation by a matrix of channels, ``b = a W``, for images whose sides are multiples of 4."""

    players = ("generator",)

    def __init__(self, spec: Any):
        self.spec, self._a, self._b = spec, spec["a"], spec["b"]
        a, b = {"a": self._a}, {"b": self._b}
        self.tasks = {
            "a_to_b": Task(a, b, self._a_to_b, pictured=("a", "b"), imitates="b", multiple=4, reach=0),
            "cycle_a": Task(a, b | {"cycle": self._a}, self._cycle, pictured=("a", "b", "cycle"), multiple=4),
            "noisy": Task(a, b, self._noisy, imitates="b", multiple=4),
        }

    def init(self, key: Any) -> Any:
        kernel = 0.1 + 0.5 * jnp.eye(self._a.channels, self._b.channels)
        return {"generator": {"kernel": kernel}}, {"generator": ()}

    def loss(
        self, player: str, params: Any, net_state: Any, batch: Any, key: Any, step: Any, fake: Any = None
    ) -> LossTerms:
        error = (batch["a"] @ params["generator"]["kernel"] - batch["b"]) ** 2
        return LossTerms({"error": Term(error.reshape(error.shape[0], -1).mean(1))}, net_state, {})

    def _a_to_b(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        assert not inputs["a"].shape[1] % 4 and not inputs["a"].shape[2] % 4
        return {"b": inputs["a"] @ params["generator"]["kernel"]}

    def _cycle(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        made = self._a_to_b(params, net_state, inputs, keys)
        return made | {"cycle": made["b"] @ params["generator"]["kernel"].T}

    def _noisy(self, params: Any, net_state: Any, inputs: Any, keys: Any) -> Any:
        made = self._a_to_b(params, net_state, inputs, keys)["b"]
        return {"b": made + jax.vmap(lambda key: jax.random.normal(key))(keys)[:, None, None, None] / 4}


def images(*, a: int = 1, b: int = 3, bits: int = 8, paired: bool = True) -> Dataset:
    """Random 8x8 images of ``a`` and ``b`` channels, in one domain or in two. Six of each are held out."""
    rng, spec = np.random.default_rng(0), {"a": Image(8, 8, a, bits), "b": Image(8, 8, b, bits)}
    sizes = {"a": 18, "b": 18 if paired else 21}
    all_ = {
        name: rng.integers(0, 2**bits, (size, 8, 8, spec[name].channels), spec[name].dtype)
        for name, size in sizes.items()
    }
    domains = {} if paired else {"a": "a", "b": "b"}
    training, held_out = ({name: x[part] for name, x in all_.items()} for part in (slice(6, None), slice(6)))
    return Dataset("toy images", spec, training, held_out, domain_of=domains)


def poisson(domain: samplers.Domain, batch_size: int, *, capacity: int | None = None) -> samplers.Sampler:
    """A sampler that has the name of Poisson sampling, and is none."""
    return samplers.shuffled(domain, batch_size)
