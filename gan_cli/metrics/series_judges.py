"""Networks that judge generated series: recurrent ones as in TimeGAN, and random convolutions, which see more."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from gan_cli.metrics.series_statistics import stride_of

Weights = dict[str, jax.Array]
_BATCH = 128
_RATE = 1e-3  # learning rate of Adam, the default of TimeGAN's framework
_TESTED = 0.2  # share of the windows on which a discriminating judge is tested
_MOST = 5000  # largest number of real windows, and of generated windows, of the stronger judge
_KERNELS = 400  # random convolutions of the stronger judge
_RIDGES = np.logspace(-2, 6, 17)  # weights of the penalty from which the stronger judge chooses


def units_of(columns: int) -> int:
    """The number of hidden units of TimeGAN's judges: half the number of columns, and at least 1."""
    return max(columns // 2, 1)


def scaled(windows: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Windows ``[n, length, columns]`` in float32, scaled so that ``ends`` ``[2, columns]`` become 0 and 1."""
    low, high = ends
    result: np.ndarray = ((windows - low) / np.where(high > low, high - low, 1)).astype(np.float32)
    return result


def discriminative_scores(fake: np.ndarray, real: np.ndarray, *, steps: int, runs: int, seed: int) -> np.ndarray:
    """TimeGAN's discriminative score ``|0.5 - accuracy|`` of each run, ``[runs]`` (Yoon et al. 2019, section 5).

    A recurrent network learns to tell four fifths of the windows apart, and is tested on the others.

    Args:
        fake: generated windows ``[n, length, columns]``, scaled to [0, 1] as ``real``.
        real: real windows ``[n, length, columns]``.
        steps: number of training steps, each on 128 real and 128 generated windows.
        runs: number of networks, which differ in their weights and in the division of the windows.
        seed: seed of the first run; the others follow from it.
    """
    rng = np.random.default_rng(seed)
    rows = np.stack([np.stack([rng.permutation(len(x)) for x in (real, fake)]) for _ in range(runs)])
    train, test = np.split(rows, [len(real) - max(round(_TESTED * len(real)), 1)], axis=2)
    both = jnp.asarray(np.stack([real, fake]), jnp.float32)
    keys = jax.random.split(jax.random.key(seed), runs)
    accuracies = _accuracies(both, jnp.asarray(train), jnp.asarray(test), keys, steps, units_of(real.shape[2]))
    return np.abs(0.5 - np.asarray(accuracies, np.float64))


def predictive_scores(fake: np.ndarray, real: np.ndarray, *, steps: int, runs: int, seed: int) -> np.ndarray:
    """TimeGAN's predictive score of each run, ``[runs]``: a mean absolute error on real windows.

    A recurrent network reads all columns but the last, and predicts the last column one time step ahead. It is
    trained on generated windows. Of a single column, the network reads that column.

    Args:
        fake: generated windows ``[n, length, columns]``, scaled to [0, 1] as ``real``.
        real: real windows ``[m, length, columns]``.
        steps: number of training steps, each on 128 windows.
        runs: number of networks, which differ in their weights and batches.
        seed: seed of the first run; the others follow from it.
    """
    learnt, tested = (jnp.asarray(windows, jnp.float32) for windows in (fake, real))
    keys = jax.random.split(jax.random.key(seed), runs)
    return np.asarray(_errors(learnt, tested, keys, steps, units_of(real.shape[2])), np.float64)


def with_interval(name: str, scores: np.ndarray) -> dict[str, float]:
    """The mean of the scores ``[runs]``, and from two runs on its 95 % interval, by Student's t distribution."""
    mean, runs = float(scores.mean()), len(scores)
    if runs == 1:
        return {name: mean}
    half = float(stats.t.ppf(0.975, runs - 1) * scores.std(ddof=1) / math.sqrt(runs))
    return {name: mean, f"{name}_low": max(mean - half, 0.0), f"{name}_high": mean + half}


@functools.partial(jax.jit, static_argnames=("steps", "units"))
def _accuracies(
    both: jax.Array, train: jax.Array, test: jax.Array, keys: jax.Array, steps: int, units: int
) -> jax.Array:
    """The share of test windows that each network classifies correctly, ``[runs]``.

    Args:
        both: real and generated windows, ``[2, n, length, columns]``.
        train: row indices of the training windows of each run, real and generated, ``[runs, 2, n']``.
        test: the same of the test windows.
        keys: random keys ``[runs]``.
        steps: number of training steps.
        units: number of hidden units.
    """

    def taken(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        windows = jnp.concatenate([both[0][rows[0]], both[1][rows[1]]])
        return windows, jnp.repeat(jnp.array([1.0, 0.0]), rows.shape[1])

    def accuracy(train: jax.Array, test: jax.Array, key: jax.Array) -> jax.Array:
        def loss(weights: Weights, key: jax.Array) -> jax.Array:
            windows, labels = taken(train[:, jax.random.randint(key, (_BATCH,), 0, train.shape[1])])
            losses: jax.Array = optax.sigmoid_binary_cross_entropy(_logits(weights, windows)[:, -1], labels)
            return losses.mean()

        weights = _trained(loss, _initial(both.shape[-1], units, key), key, steps)
        windows, labels = taken(test)
        return ((_logits(weights, windows)[:, -1] > 0) == (labels > 0)).mean()

    return jax.vmap(accuracy)(train, test, keys)


@functools.partial(jax.jit, static_argnames=("steps", "units"))
def _errors(fake: jax.Array, real: jax.Array, keys: jax.Array, steps: int, units: int) -> jax.Array:
    """The mean absolute error of each network on real windows, ``[runs]``."""
    inputs = max(real.shape[-1] - 1, 1)

    def error(weights: Weights, windows: jax.Array) -> jax.Array:
        predicted = jax.nn.sigmoid(_logits(weights, windows[:, :-1, :inputs]))
        return jnp.abs(predicted - windows[:, 1:, -1]).mean()

    def of_run(key: jax.Array) -> jax.Array:
        def loss(weights: Weights, key: jax.Array) -> jax.Array:
            return error(weights, fake[jax.random.randint(key, (_BATCH,), 0, len(fake))])

        return error(_trained(loss, _initial(inputs, units, key), key, steps), real)

    return jax.vmap(of_run)(keys)


def _trained(loss: object, weights: Weights, key: jax.Array, steps: int) -> Weights:
    """The weights after ``steps`` steps of Adam on ``loss(weights, key)``."""
    optimiser = optax.adam(_RATE)

    def step(carry: tuple[Weights, optax.OptState], key: jax.Array) -> tuple[tuple[Weights, optax.OptState], None]:
        weights, state = carry
        updates, state = optimiser.update(jax.grad(loss)(weights, key), state, weights)  # type: ignore[arg-type]
        return (optax.apply_updates(weights, updates), state), None

    keys = jax.random.split(jax.random.fold_in(key, 1), steps)
    return jax.lax.scan(step, (weights, optimiser.init(weights)), keys)[0][0]


def _initial(columns: int, units: int, key: jax.Array) -> Weights:
    """The weights of a gated recurrent unit and of the logit: Glorot uniform, with gates that start open."""
    shapes = {"gates": (columns + units, 2 * units), "candidate": (columns + units, units), "out": (units, 1)}
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(shapes))
    weights = {name: glorot(one, shape) for (name, shape), one in zip(shapes.items(), keys, strict=True)}
    return weights | {"gates_bias": jnp.ones(2 * units), "candidate_bias": jnp.zeros(units), "bias": jnp.zeros(1)}


def _logits(weights: Weights, windows: jax.Array) -> jax.Array:
    """The logit after each time step of windows ``[n, length, columns]``: ``[n, length]`` (Cho et al. 2014)."""
    columns, units = windows.shape[-1], weights["out"].shape[0]
    gates_in = windows @ weights["gates"][:columns] + weights["gates_bias"]
    candidate_in = windows @ weights["candidate"][:columns] + weights["candidate_bias"]

    def step(hidden: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reset, update = jnp.split(jax.nn.sigmoid(inputs[0] + hidden @ weights["gates"][columns:]), 2, axis=1)
        candidate = jnp.tanh(inputs[1] + (reset * hidden) @ weights["candidate"][columns:])
        hidden = update * hidden + (1 - update) * candidate
        return hidden, hidden

    start = jnp.zeros((len(windows), units))
    _, hidden = jax.lax.scan(step, start, (gates_in.swapaxes(0, 1), candidate_in.swapaxes(0, 1)), unroll=4)
    return (hidden @ weights["out"] + weights["bias"])[..., 0].T


def strong_score(fake: np.ndarray, real: np.ndarray, seed: int) -> float:
    """``|0.5 - accuracy|`` of a judge of random convolutions and a ridge classifier (Dempster et al. 2020, 2021).

    Windows that overlap in time are never divided between training and test, because the judge would recognise
    windows instead of learning how real windows differ from generated ones.

    Args:
        fake: generated windows ``[n, length, columns]``: independent, or in the order of time.
        real: real windows ``[m, length, columns]`` in the order of time.
        seed: seed of the division of the windows and of the convolutions.
    """
    rng = np.random.default_rng(seed)
    n = min(len(fake), len(real), _MOST)
    counts = [_stretches(windows) for windows in (real, fake)]
    if counts[1] < len(fake):  # two halves of one series are tested in the same stretches of time
        counts = [min(counts)] * 2
    tested = {count: rng.permutation(count) < max(round(_TESTED * count), 1) for count in sorted(set(counts))}
    both = zip((real, fake), counts, strict=True)
    divided = zip(*(_divided_by_time(x, n, tested[count], rng) for x, count in both), strict=True)
    (real_train, fake_train), (real_test, fake_test) = (
        (a[: min(len(a), len(b))], b[: min(len(a), len(b))]) for a, b in divided
    )
    features = _Convolutions(real[real_train], fake[fake_train], rng)
    train = features(np.concatenate([real[real_train], fake[fake_train]]))
    test = features(np.concatenate([real[real_test], fake[fake_test]]))
    targets = np.repeat([1.0, -1.0], [len(real_train), len(fake_train)])
    predicted = _ridge(train, targets, test) > 0
    right = predicted == np.repeat([True, False], [len(real_test), len(fake_test)])
    return abs(0.5 - float(right.mean()))


def _overlap(windows: np.ndarray) -> int:
    """The number of windows before a window that overlap it."""
    return -(-int(windows.shape[1]) // stride_of(windows)) - 1


def _stretches(windows: np.ndarray) -> int:
    """The number of stretches of time that are not divided between training and test: all of them, if apart."""
    overlap = _overlap(windows)
    longest = max(4 * overlap, len(windows) // 100) if overlap else 1
    return max(len(windows) // longest, min(5, len(windows)))


def _divided_by_time(
    windows: np.ndarray, n: int, chosen: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Row indices of about ``n`` training and test windows together: ``(training, test)``, in random order.

    The test windows are the stretches of time in ``chosen``, bool ``[stretches]``, and training windows that
    overlap with them are left out.
    """
    overlap = _overlap(windows)
    tested = chosen[np.arange(len(windows)) * len(chosen) // len(windows)]
    near = np.convolve(tested, np.ones(2 * overlap + 1), mode="same")[: len(windows)] > 0
    apart = ~tested if near.all() else ~near  # few windows cannot be kept apart
    train, test = (rng.permutation(np.flatnonzero(rows)) for rows in (apart, tested))
    return train[: max(round(n * (1 - _TESTED)), 1)], test[: max(round(n * _TESTED), 1)]


class _Convolutions:
    """Features of windows: convolutions with random kernels, and products of neighbouring values.

    Each kernel reads random channels: the scaled values, their differences and the absolute differences. Its
    features are the share of places at which its output exceeds a threshold, and its largest output.

    Args:
        real: real training windows ``[n, length, columns]``.
        fake: generated training windows.
        rng: random numbers of the kernels.
    """

    def __init__(self, real: np.ndarray, fake: np.ndarray, rng: np.random.Generator):
        self._unit = real.mean((0, 1)), np.maximum(real.std((0, 1)), 1e-12)
        moves = np.diff(real, axis=1)
        self._moves = moves.mean((0, 1)), np.maximum(moves.std((0, 1)), 1e-12)
        some = self._channels(np.concatenate([real[:200], fake[:200]]))
        length, channels = some.shape[1:]
        width = min(5, length)
        self._kernels = []
        dilations = [2**i for i in range(1 + int(math.log2(max((length - 1) // max(width - 1, 1), 1))))]
        for dilation in dilations:
            count = _KERNELS // len(dilations)
            kernels = rng.standard_normal((width, channels, count))
            kernels -= kernels.mean(0)
            # Each kernel reads few channels, so that differences of one column do not drown in the others.
            reads = rng.random((channels, count)).argsort(0) < 2 ** rng.uniform(0, math.log2(channels + 1), count)
            kernels = (kernels * reads).astype(np.float32)
            outputs = np.asarray(_convolved(jnp.asarray(some), jnp.asarray(kernels), dilation))
            places = outputs.reshape(-1, count)
            thresholds = places[rng.integers(0, len(places), count), np.arange(count)]
            self._kernels.append((dilation, jnp.asarray(kernels), jnp.asarray(thresholds)))

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """The features ``[n, f]`` of windows ``[n, length, columns]``."""
        blocks = [self._of_block(windows[i : i + 500]) for i in range(0, len(windows), 500)]
        return np.concatenate(blocks).astype(np.float64)

    def _channels(self, windows: np.ndarray) -> np.ndarray:
        values, moves = (windows - self._unit[0]) / self._unit[1], np.diff(windows, axis=1)
        moves = np.pad((moves - self._moves[0]) / self._moves[1], ((0, 0), (1, 0), (0, 0)))
        # Far outliers would otherwise decide the scale of all features of generated windows.
        channels = np.concatenate([values, moves, np.abs(moves)], axis=2)
        clipped: np.ndarray = np.clip(channels, -100, 100).astype(np.float32)
        return clipped

    def _of_block(self, windows: np.ndarray) -> np.ndarray:
        x = self._channels(windows)
        found = [
            x.mean(1),
            x.std(1),
            x.min(1),
            x.max(1),
            *((x[:, lag:] * x[:, : x.shape[1] - lag]).mean(1) for lag in (1, 2)),
        ]
        columns = windows.shape[2]
        pairs = np.triu_indices(columns, 1)
        moves = x[..., columns : 2 * columns]
        found.append((moves[..., pairs[0]] * moves[..., pairs[1]]).mean(1))
        for dilation, kernels, thresholds in self._kernels:
            found += map(np.asarray, _pooled(jnp.asarray(x), kernels, thresholds, dilation))
        return np.concatenate(found, axis=1)


@functools.partial(jax.jit, static_argnames="dilation")
def _convolved(x: jax.Array, kernels: jax.Array, dilation: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernels, (1,), "VALID", rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
    )


@functools.partial(jax.jit, static_argnames="dilation")
def _pooled(x: jax.Array, kernels: jax.Array, thresholds: jax.Array, dilation: int) -> tuple[jax.Array, jax.Array]:
    outputs = _convolved(x, kernels, dilation)
    return (outputs > thresholds).mean(1), outputs.max(1)


def _ridge(train: np.ndarray, targets: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predictions ``[m]`` of ridge regression, whose penalty has the smallest leave-one-out error.

    Args:
        train: features ``[n, f]``.
        targets: -1 or 1, ``[n]``.
        test: features ``[m, f]``.
    """
    mean, scale = train.mean(0), train.std(0)
    scale[scale < 1e-9] = 1
    train, test = (train - mean) / scale, (test - mean) / scale
    values, vectors = np.linalg.eigh(train.T @ train)
    values, rotated = np.maximum(values, 0), train @ vectors
    found: dict[float, np.ndarray] = {}
    for penalty in _RIDGES:
        weights = rotated.T @ targets / (values + penalty)
        leverages = (rotated**2 / (values + penalty)).sum(1) + 1 / len(train)
        errors = (targets - targets.mean() - rotated @ weights) / np.maximum(1 - leverages, 1e-6)
        found[float((errors**2).mean())] = weights
    result: np.ndarray = targets.mean() + test @ vectors @ found[min(found)]
    return result
