"""Objects that observe a run while it trains: divergence, mode and posterior collapse, speed and a profile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gan_cli.types import Tree

# JAX does not annotate these functions.
_block_until_ready: Callable[[Tree], Tree] = jax.block_until_ready
_stop_trace: Callable[[], None] = jax.profiler.stop_trace

_METRIC = {"loss": "loss", "gradient": "grad_norm"}
# Mode collapse is suspected below this ratio of the samples' diversity to the data's diversity. Well-trained
# generators reach 0.7 or more.
_LOW_DIVERSITY = 0.5
# Posterior collapse is suspected below this mean of KL(q(z|x) || p(z)), in nats per example. The mean bounds the
# mutual information of examples and latents (Hoffman and Johnson 2016, section 2). 0.1 nats are a seventh of a bit.
# VAEs that use their latents have 10 to 30 nats on MNIST.
_LOW_KL = 0.1


class DivergenceMonitor:
    """Finds the first step at which a loss, a gradient norm or a parameter is NaN or infinite.

    The monitor checks gradient norms, because gradient clipping can hide an overflow. Clipping scales a gradient of
    infinite norm to zero. The player's parameters then stay constant, and the losses remain finite.

    Args:
        players: the names of the players.
        stops: whether the run stops when it diverges (``train.on_nan=stop``).

    Attributes:
        finite: whether all parameters were finite when ``observe`` was last called.
        facts: the entries ``diverged_at``, ``diverged_player`` and ``diverged_in`` of ``run.json``. The dictionary
            is empty until the run diverges.
    """

    def __init__(self, players: tuple[str, ...], stops: bool):
        self._players, self._stops = players, stops
        self.finite = True
        self.facts: dict[str, Any] = {}

    def observe(self, at: int, metrics: dict[str, np.ndarray], finite: dict[str, np.ndarray]) -> None:
        """Search the results of one call of the compiled program for NaN and infinity.

        The first step with a value that is not finite is stored in ``facts``. After that, ``facts`` does not
        change.

        Args:
            at: the number of the last step of the call.
            metrics: a mapping from the name of each metric to its values in the ``length`` steps of the call, an
                array ``[length]``.
            finite: a mapping from the name of each player to a boolean: whether all parameters of the player are
                finite after the last step of the call.
        """
        self.finite = all(bool(ok) for ok in finite.values())
        if self.facts:
            return
        length = len(next(iter(metrics.values())))
        found: list[tuple[int, str, str]] = []
        for player in self._players:
            for what in ("loss", "gradient"):
                wrong = np.flatnonzero(~np.isfinite(metrics[f"{player}/{_METRIC[what]}"]))
                if len(wrong):
                    found.append((at - length + int(wrong[0]) + 1, player, what))
            if not finite[player]:
                found.append((at, player, "parameters"))
        if found:
            step, player, what = min(found, key=lambda place: place[0])
            self.facts = {"diverged_at": step, "diverged_player": player, "diverged_in": what}

    def restore(self, facts: dict[str, Any]) -> None:
        """Restore ``facts`` from the contents of ``run.json``, which an earlier process of the run has written."""
        self.facts = {name: value for name, value in facts.items() if name.startswith("diverged_")}

    @property
    def stopped(self) -> bool:
        """Whether the run has diverged and must therefore stop."""
        return self._stops and bool(self.facts)


class CollapseMonitor:
    """Suspects a collapse when a metric is low at two consecutive observations, or at the end of a run.

    During training, one low value is not enough, because the metrics are low in the first steps of many runs.

    Attributes:
        name: the kind of collapse, which begins the warning.
        suspected_at: the step at which the monitor began to suspect the collapse; None without a suspicion.
    """

    name: str

    def __init__(self) -> None:
        self.suspected_at: int | None = None
        self._was_low = False

    def is_low(self, figures: dict[str, float]) -> bool:
        """Whether the metrics of a step indicate a collapse. Without the monitor's metric, the result is False."""
        raise NotImplementedError

    def explain(
        self, figures: dict[str, float], config: dict[str, Any], players: Sequence[str]
    ) -> tuple[str, list[str]]:
        """A pair: a sentence that states the metric, and options to try, without those that ``config`` uses."""
        raise NotImplementedError

    def observe(self, at: int, figures: dict[str, float]) -> None:
        """Update ``suspected_at`` from the metrics of step ``at``."""
        low = self.is_low(figures)
        if not low:
            self.suspected_at = None
        elif self._was_low and self.suspected_at is None:
            self.suspected_at = at
        self._was_low = low

    def observe_end(self, at: int, figures: dict[str, float]) -> None:
        """Update ``suspected_at`` from the metrics of the last step of a run."""
        if self.is_low(figures) and self.suspected_at is None:
            self.suspected_at = at

    def state(self) -> dict[str, Any]:
        """The monitor's state, which checkpoints store so that a resumed run behaves like an uninterrupted run."""
        return {"suspected_at": self.suspected_at, "was_low": self._was_low}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that the method ``state`` returned. An empty dictionary resets the monitor."""
        self.suspected_at, self._was_low = state.get("suspected_at"), bool(state.get("was_low"))

    def advice(self, figures: dict[str, float], config: dict[str, Any], players: Sequence[str]) -> list[str]:
        """A list of two lines for the user: a warning, and options to try. Without a suspicion, the list is empty.

        Args:
            figures: the metrics of the last step and of the last samples, by name.
            config: the configuration of the run, from which ``advice`` finds the options that are not in use.
            players: the names of the players.
        """
        if self.suspected_at is None:
            return []
        sentence, options = self.explain(figures, config, players)
        return [
            f"step {self.suspected_at}: {self.name} suspected. {sentence}",
            f"Try one of: {', '.join(options)}.",
        ]


class ModeCollapseMonitor(CollapseMonitor):
    """Suspects mode collapse when the samples are much less diverse than the data."""

    name = "mode collapse"

    def is_low(self, figures: dict[str, float]) -> bool:
        return figures.get("diversity", 1.0) < _LOW_DIVERSITY

    def explain(
        self, figures: dict[str, float], config: dict[str, Any], players: Sequence[str]
    ) -> tuple[str, list[str]]:
        ratio = figures.get("diversity", 0.0)
        lower = [f"a smaller optim.{player}.lr" for player in ("generator", "decoder") if player in players]
        return (
            f"The diversity of the last samples is {ratio:.0%} of the data's diversity.",
            [*_untried(config, players), *lower, *_smaller_beta(config)] or ["a smaller optim.lr"],
        )


class PosteriorCollapseMonitor(CollapseMonitor):
    """Suspects posterior collapse when the KL term of a VAE is near 0, or when none of its latents is active.

    The posteriors then equal the prior, and the codes of all examples are alike (Bowman et al. 2016, section 3.1).
    """

    name = "posterior collapse"

    def is_low(self, figures: dict[str, float]) -> bool:
        return _of_any_player(figures, "kl", math.inf) < _LOW_KL or figures.get("eval/active_units") == 0

    def explain(
        self, figures: dict[str, float], config: dict[str, Any], players: Sequence[str]
    ) -> tuple[str, list[str]]:
        kl = _of_any_player(figures, "kl", 0.0)
        options = config["game"]
        values = {"kl_warmup": (0, max(config["train"]["steps"] // 10, 1)), "free_bits": (None, 0.1)}
        untried = [
            f"game.{name}={value}"
            for name, (off, value) in values.items()
            if name in options and options[name] == off
        ]
        return (
            f"The KL term is {kl:.2g} nats per example: the codes contain almost no information on the examples.",
            [*_smaller_beta(config), *untried],
        )


def _of_any_player(figures: dict[str, float], metric: str, default: float) -> float:
    """The value of a metric of whichever player logs it, e.g. ``vae/kl``; ``default`` if no player does."""
    return next((value for name, value in figures.items() if name.split("/")[1:] == [metric]), default)


def _smaller_beta(config: dict[str, Any]) -> list[str]:
    return ["a smaller game.beta"] if "beta" in config["game"] else []


def _untried(config: dict[str, Any], players: Sequence[str]) -> list[str]:
    """Overrides of a discriminator that can reduce mode collapse, without those that the configuration uses."""
    if "discriminator" not in players:
        return []
    lists = [
        f"{group}=[{','.join([*config[group], name])}]"
        for group, name, player in (("penalty", "r1", "discriminator"), ("augment", "packing", "generator"))
        if name not in config[group] and player in players
    ]
    options = (config["model"] or {}).get("discriminator", {})
    values = {"dropout": (0.0, 0.3), "minibatch": ("none", "std")}
    return lists + [
        f"model.discriminator.{name}={value}" for name, (off, value) in values.items() if options.get(name) == off
    ]


class Throughput:
    """Measures the time that the first call of the compiled program takes, and then the steps per second.

    The first call includes compilation, so it does not count for the steps per second.

    Args:
        step: the step at which the run starts.

    Attributes:
        first: seconds from the creation of this object to the end of the first call; None until this call ends.
    """

    def __init__(self, step: int):
        self._began = time.monotonic()
        self.first: float | None = None
        self._step = self._first_step = step

    def tick(self, step: int) -> None:
        """Record the current time as the time at which the run has made all steps up to ``step``."""
        self._now = time.monotonic()
        if self.first is None:
            self.first = self._now - self._began
            self._since, self._first_step = self._now, step
        self._step = step

    @property
    def rate(self) -> float | None:
        """Steps per second since the first call of the compiled program ended; None until the second call ends."""
        made = self._step - self._first_step
        return made / (self._now - self._since) if made else None

    def left(self, steps: int) -> float | None:
        """The expected seconds until step ``steps``; None while ``rate`` is None."""
        return (steps - self._step) / self.rate if self.rate else None


class Profiler:
    """Records a profile of two calls of the compiled program with JAX's profiler.

    The first call includes compilation. If the run makes several calls, the profile therefore begins with the
    second call. TensorBoard with its profile plug-in displays the directory of the profile. Perfetto displays the
    file ``perfetto_trace.json.gz`` in this directory.

    Args:
        directory: the directory of the run. The profile is written to the subdirectory ``profile/``.
        wanted: whether to record a profile.
        several: whether the run makes more than one call.

    Attributes:
        path: the directory of the profile; None until the profile is written.
    """

    _CALLS = 2

    def __init__(self, directory: Path, wanted: bool, several: bool):
        self._directory = directory / "profile"
        self._wait = int(several) if wanted else None
        self._running = 0
        self.path: Path | None = None

    def before_call(self, state: Tree) -> None:
        """Start or end the profile if necessary. The run does this before every call of the compiled program.

        Args:
            state: the training state at the end of the previous call.
        """
        if self._running:
            self._running += 1
            if self._running > self._CALLS:
                self.close(state)
        elif self._wait == 0:
            _block_until_ready(state)
            jax.profiler.start_trace(str(self._directory), create_perfetto_trace=True)
            self._running = 1
        if self._wait is not None:
            self._wait -= 1

    def close(self, state: Tree) -> None:
        """If a profile is being recorded, wait until ``state`` is computed, and write the profile."""
        if self._running:
            _block_until_ready(state)
            _stop_trace()
            self.path, self._running, self._wait = self._directory, 0, None
