"""The ledger of a private run: the privacy that the run has spent, and how far its budget reaches.

``run.json`` states the ledger as its entry ``privacy``. A run that starts with the parameters of another private
run continues the ledger of that run, so that epsilon covers both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gan_cli.errors import UserError
from gan_cli.privacy import accounting
from gan_cli.privacy.accounting import Charge, Epsilon

_MOST_TRUNCATED = 1e-6  # largest probability that a run truncates a batch


@dataclass(frozen=True)
class Ledger:
    """The privacy that a run spends in a number of training steps.

    Attributes:
        delta: probability with which the guarantee may fail, including the probability of truncated batches.
        noise_multiplier: standard deviation of the noise, in units of the clipping norm.
        sampling_rate: probability with which a batch contains an example.
        per_step: number of noisy gradients of a training step.
        overflow: share of delta that a batch of limited capacity costs (``accounting.overflow``).
        target_epsilon: the budget: training stops before epsilon exceeds it. None without a budget.
        earlier: charges of the runs whose ledger this run continues.
    """

    delta: float
    noise_multiplier: float
    sampling_rate: float
    per_step: int
    overflow: float = 0.0
    target_epsilon: float | None = None
    earlier: tuple[Charge, ...] = ()

    def own(self, step: int) -> Charge:
        """The charge of this run up to a training step."""
        count = step * self.per_step
        return Charge(self.noise_multiplier, self.sampling_rate, count, self.overflow * count)

    def epsilon(self, step: int) -> Epsilon:
        """The epsilon that ``step`` training steps and the earlier runs have spent, at ``delta``."""
        return accounting.epsilon((*self.earlier, self.own(step)), self.delta)

    def last_step(self, steps: int) -> int:
        """The largest number of training steps up to ``steps`` that stays within the budget."""
        target = self.target_epsilon
        if target is None or self.epsilon(steps).value <= target:
            return steps
        low, high = 0, steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.epsilon(middle).value <= target else (low, middle)
        return low

    def reached(self, record: Mapping[str, Any]) -> int:
        """The number of training steps that ``run.json`` of this run states, 0 for a new run.

        A run that was killed repeats the steps after its newest checkpoint, with the same batches and the same
        noise. The repetition tells nothing new, so its steps are charged once.
        """
        return int(spent_by(record, "run")[-1].steps) // self.per_step if "privacy" in record else 0

    def facts(self, step: int) -> dict[str, Any]:
        """The entry ``privacy`` of ``run.json`` after a training step. ``steps`` counts noisy gradients."""
        spent = self.epsilon(step)
        return {
            "epsilon": spent.value,
            "delta": self.delta,
            **self.own(step)._asdict(),
            "accountant": spent.accountant,
            "target_epsilon": self.target_epsilon,
            "earlier": [charge._asdict() for charge in self.earlier],
        }

    def line(self, steps: int) -> str:
        """The guarantee of a run of ``steps`` training steps, as text."""
        spent = self.epsilon(steps)
        before = f", {self.epsilon(0).value:.3g} of it by earlier runs" if self.earlier else ""
        return (
            f"epsilon {spent.value:.3g} at delta {self.delta:g} after {self.own(steps).steps:,} noisy gradients"
            f"{before} ({spent.accountant}); noise multiplier {self.noise_multiplier:g}, sampling rate "
            f"{self.sampling_rate:.3g}"
        )

    def check_capacity(self, steps: int, rows: int, size: int, batch_size: int) -> None:
        """Raise a UserError if a run of ``steps`` training steps truncates a batch too probably.

        Args:
            steps: number of training steps.
            rows: capacity of a batch.
            size: number of examples.
            batch_size: mean number of examples in a batch.
        """
        count, allowed = max(steps * self.per_step, 1), min(_MOST_TRUNCATED, self.delta / 10)
        if count * self.overflow <= allowed:
            return
        enough = next(
            k for k in range(rows, size + 2) if count * accounting.overflow(size, batch_size, k) <= allowed
        )
        raise UserError(
            f"sampler.capacity={rows}: the run would truncate a batch of {batch_size} examples on average with a "
            f"probability of more than {allowed:g}, which estimator.target_delta must cover. Set sampler.capacity "
            f"to at least {enough}."
        )


def spent_by(record: Mapping[str, Any], where: str) -> tuple[Charge, ...]:
    """The charges of a private run according to its ``run.json``: those of earlier runs, then its own.

    Args:
        record: the contents of ``run.json``.
        where: the run, for messages.

    Raises:
        UserError: ``run.json`` does not state them, or is damaged.
    """
    stated = record.get("privacy")
    try:
        parts = [*stated["earlier"], stated]  # type: ignore[index]  # a missing entry raises a TypeError
        charges = tuple(Charge(*(part[entry] for entry in Charge._fields)) for part in parts)
        if not all(one.noise_multiplier >= 0 and 0 < one.sampling_rate <= 1 and one.steps >= 0 for one in charges):
            raise ValueError("numbers out of range")
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"{where}: run.json does not state the privacy that the run has spent, so epsilon would not cover it. "
            "Restore the file from a copy, or start a new run."
        ) from error
    return charges
