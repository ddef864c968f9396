"""Privacy accounting: epsilon and delta of noisy gradients on Poisson batches, and the noise for a given epsilon.

The guarantee is (epsilon, delta)-differential privacy for data sets that differ by one example, present or absent.
One charge is one noisy sum of clipped gradients on one Poisson batch: the subsampled Gaussian mechanism.
dp-accounting computes two upper bounds of epsilon, from Renyi differential privacy (RDP; Mironov et al. 2019) and
from the privacy loss distribution (PLD; Koskela et al. 2020; Doroshenko et al. 2022). Both hold, so the smaller one
counts.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from gan_cli.errors import UserError

# Intervals of the discretised privacy loss. Rounding adds up over the charges of a run, so the bound at the
# coarsest interval may exceed the bound from RDP. The next interval is then tried.
_INTERVALS = (1e-3, 1e-4, 1e-5)
# Above this bound from RDP, epsilon promises nothing, and the PLD bound needs gigabytes of memory.
_LARGEST_EPSILON = 100.0
_LARGEST_NOISE = 1e6
_DIGITS = 4  # significant digits of a noise multiplier that follows from a target, rounded up


class Charge(NamedTuple):
    """Equal noisy gradients of a run.

    Attributes:
        noise_multiplier: standard deviation of the noise, in units of the clipping norm.
        sampling_rate: probability with which a batch contains an example.
        steps: number of noisy gradients.
        truncation: share of delta that the limited capacity of the batches costs (``overflow``).
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    truncation: float = 0.0


class Epsilon(NamedTuple):
    """An upper bound of epsilon, and the accountant that computed it: ``RDP`` or ``PLD``."""

    value: float
    accountant: str


def epsilon(charges: tuple[Charge, ...], delta: float) -> Epsilon:
    """The smaller of the RDP and the PLD bound of epsilon for the composition of charges.

    Args:
        charges: all charges on the same data.
        delta: probability with which the bound may fail, including the truncation of batches. With 0 or less
            beside the truncation, the bound is infinite.

    Raises:
        UserError: dp-accounting is not installed.
    """
    delta -= sum(charge.truncation for charge in charges)
    charges = tuple(charge._replace(truncation=0.0) for charge in charges if charge.steps)
    if not charges:
        return Epsilon(0.0, "RDP")
    if not delta > 0 or any(charge.noise_multiplier <= 0 for charge in charges):
        return Epsilon(math.inf, "RDP")
    return _epsilon(charges, delta)


@functools.lru_cache(maxsize=4096)
def _epsilon(charges: tuple[Charge, ...], delta: float) -> Epsilon:
    rdp = rdp_epsilon(charges, delta)
    if rdp > _LARGEST_EPSILON:
        return Epsilon(rdp, "RDP")
    for interval in _INTERVALS:
        if (pld := _pld_epsilon(charges, delta, interval)) <= rdp:
            return Epsilon(pld, "PLD")
    return Epsilon(rdp, "RDP")


def rdp_epsilon(charges: tuple[Charge, ...], delta: float) -> float:
    """The bound of epsilon from Renyi differential privacy, without truncation, within milliseconds."""
    dp = _library()
    accountant = dp.rdp.RdpAccountant()
    for charge in charges:
        accountant.compose(_event(charge), charge.steps)
    return float(accountant.get_epsilon(delta))


def _pld_epsilon(charges: tuple[Charge, ...], delta: float, interval: float) -> float:
    dp = _library()
    accountant = dp.pld.PLDAccountant(value_discretization_interval=interval)
    for charge in charges:
        accountant.compose(_event(charge), charge.steps)
    return float(accountant.get_epsilon(delta))


def _event(charge: Charge) -> Any:
    dp = _library()
    return dp.PoissonSampledDpEvent(charge.sampling_rate, dp.GaussianDpEvent(charge.noise_multiplier))


def _library() -> Any:
    """The module ``dp_accounting``, which has no types. It is imported only for private runs."""
    try:
        import dp_accounting
    except ImportError as error:
        raise UserError(
            "estimator=private: needs dp-accounting, which is not installed. Run: pip install 'gan_cli[privacy]'"
        ) from error
    # It warns of each Renyi order that it leaves out. The bound is then the smallest of fewer valid bounds.
    logging.getLogger("absl").setLevel(logging.ERROR)
    return dp_accounting


def noise_for(target: float, delta: float, charges: Callable[[float], tuple[Charge, ...]]) -> float:
    """The smallest noise multiplier with which epsilon is at most ``target``, rounded up to four digits.

    Args:
        target: the largest epsilon.
        delta: probability with which the bound may fail, including the truncation of batches.
        charges: maps a noise multiplier to the charges of the whole run.

    Raises:
        UserError: no noise leads to the target, e.g. because earlier charges exceed it.
    """

    def bisect(meets: Callable[[float], bool], low: float, high: float, precision: float) -> float:
        while high > low * (1 + precision):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if meets(middle) else (middle, high)
        return high

    def by_rdp(noise: float) -> bool:
        found = charges(noise)
        return rdp_epsilon(found, delta - sum(charge.truncation for charge in found)) <= target

    def by_both(noise: float) -> bool:
        return epsilon(charges(noise), delta).value <= target

    high = 1.0
    while not by_rdp(high):
        high *= 4
        if high > _LARGEST_NOISE:
            why, remedy = "the bounds are not that tight", "Set a larger target_epsilon."
            if len(charges(high)) > 1:
                why = "earlier runs on the same data have spent more"
                remedy = "Set a larger target_epsilon, or leave out init_from."
            raise UserError(
                f"estimator.target_epsilon={target:g}: no noise leads to this epsilon, because {why}. {remedy}"
            )
    low = high / 4
    while by_rdp(low):
        low /= 4
    # RDP narrows the range at little cost. The PLD bound needs up to a fifth less noise, rarely more.
    high = bisect(by_rdp, low, min(4 * low, high), 0.02)
    low = high / 1.25
    while by_both(low):
        low /= 2
    return _rounded_up(bisect(by_both, low, high, 10**-_DIGITS))


def _rounded_up(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.{_DIGITS}g}")


def overflow(size: int, batch_size: int, capacity: int) -> float:
    """Largest share of delta that one batch of limited capacity costs: the probability that it is full.

    A batch with more examples than ``capacity`` is truncated, which the bounds of epsilon leave out. Consider a
    mechanism that outputs a mark in place of a truncated batch. Two neighbouring data sets lead to the mark with
    probabilities that differ by at most P(N = capacity) * rate, and otherwise to outputs that the bounds cover. The
    truncated mechanism differs from it with the probability of the mark, P(N > capacity). Their sum is at most
    P(N >= capacity), for N examples drawn from Binomial(size, rate).

    Args:
        size: number of examples.
        batch_size: mean number of examples in a batch.
        capacity: number of rows of a batch.
    """
    from scipy.special import betainc  # not above, because runs without privacy need no SciPy, which loads slowly

    if capacity > size:
        return 0.0
    return float(betainc(capacity, size - capacity + 1, batch_size / size)) if batch_size < size else 1.0
