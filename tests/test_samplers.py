"""Samplers: recorded orders, balanced classes, Poisson batches, domains, and runs that use each sampler."""

from __future__ import annotations

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from scipy import stats
from test_run import manifest, records
from test_stream import RUN, make_images

import gan_cli
from gan_cli.config import check
from gan_cli.config.build import experiment
from gan_cli.data import samplers
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image, Label, Vector
from gan_cli.data.feed import Feed
from gan_cli.data.loader import Loader
from gan_cli.data.samplers import Domain
from gan_cli.engine import randomness
from gan_cli.errors import UserError

KEY = jax.random.key(4)


def order(domain, seed, step, length, batches, batch_size, sampler=samplers.shuffled):
    selected = randomness.order(Feed({}, {"": domain}, {}, sampler), seed, step, length, batches, batch_size)
    return np.asarray(selected.indices[""])


def test_shuffled_equals_the_order_of_earlier_versions():
    """The numbers were recorded before the group ``sampler`` existed."""
    first = [[261, 3254, 567, 3746, 883, 313], [4323, 3828, 1968, 3127, 2882, 69]]
    second = [[575, 2548, 1445, 3867, 1249, 4171], [3434, 1557, 68, 2762, 3612, 3615]]
    assert order(Domain(4500), 3, 0, 2, 2, 6).tolist() == [first, second]
    later = [[[1, 21, 17, 49, 37, 23, 15, 22]], [[26, 19, 21, 28, 48, 6, 37, 7]]]
    assert order(Domain(50), 7, 5, 2, 1, 8).tolist() == later
    many = order(Domain(1000), 0, 0, 100, 2, 64)
    recorded = "6308f113b89982c69301b644eb3597c7707b26f48da738966983950e3e617cd0"
    assert many.dtype == np.int32 and hashlib.sha256(many.tobytes()).hexdigest() == recorded


@pytest.mark.parametrize("batch_size", [1, 4, 6, 13])
def test_balanced_takes_the_classes_in_turn(batch_size):
    """After any number of batches, the counts of classes differ by at most one, and so do those of a class."""
    sizes, rng = [1, 3, 10, 50], np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), sizes)).astype(np.int32)
    domain = Domain(64, 4, labels)
    indices = order(domain, 5, 0, 90, 1, batch_size, samplers.balanced)[:, 0]
    np.testing.assert_array_equal(indices[70:], order(domain, 5, 70, 20, 1, batch_size, samplers.balanced)[:, 0])
    for batches in (1, 7, 90):
        counts = np.bincount(labels[indices[:batches].ravel()], minlength=4)
        assert np.ptp(counts) <= 1 and counts.sum() == batches * batch_size
        for label, size in enumerate(sizes):
            drawn = indices[:batches][labels[indices[:batches]] == label]
            each = np.bincount(drawn, minlength=64)[labels == label]
            assert each.sum() == counts[label] and np.ptp(each) <= 1, (label, size)
    if batch_size == 4:  # without the random order, row i would always have class i
        assert 15 < (labels[indices[:, 0]] == 0).sum() < 32


def test_balanced_draws_the_examples_of_a_class_uniformly():
    """The first batch of many runs: every example of a class is equally likely (chi-square, p > 0.001)."""
    labels = np.repeat(np.arange(2), [5, 20]).astype(np.int32)
    draw = samplers.balanced(Domain(25, 2, labels), 6).indices
    found = np.asarray(jax.vmap(lambda key: draw(key, jnp.int32(3)))(jax.random.split(KEY, 4000)))
    for label in (0, 1):
        counts = np.bincount(found.ravel(), minlength=25)[labels == label]
        assert counts.sum() == 12_000 and stats.chisquare(counts).pvalue > 1e-3


def test_balanced_counts_beyond_32_bits():
    """The slots of the batches exceed 2**32, and the batches are still balanced and without replacement."""
    labels = (np.arange(12) % 3).astype(np.int32)
    indices = np.asarray(samplers.balanced(Domain(12, 3, labels), 4096).indices(KEY, jnp.int32(1_200_000)))
    assert np.ptp(np.bincount(indices)) <= 1 and np.ptp(np.bincount(labels[indices])) <= 1


def poisson_batches(size, mean, count):
    """Batches as a matrix ``[count, size]`` of zeros and ones: whether a batch contains an example."""
    sampler = samplers.poisson(Domain(size), mean)
    numbers = jnp.arange(count)
    indices, mask = (np.asarray(jax.jit(f)(KEY, numbers)) for f in (sampler.indices, sampler.mask))
    assert indices.shape == mask.shape == (count, sampler.rows) and mask.dtype == np.float32
    assert (mask[:, :-1] >= mask[:, 1:]).all() and set(np.unique(mask)) == {0.0, 1.0}
    contained = np.zeros((count, size), np.int64)
    np.add.at(contained, (np.nonzero(mask)[0], indices[mask > 0]), 1)
    assert contained.max() == 1  # without replacement
    return contained, mask.sum(1).astype(int)


@pytest.mark.parametrize(("size", "mean"), [(30, 6), (12, 11), (1000, 8)])
def test_the_size_of_poisson_batches_is_binomial(size, mean):
    count = 20_000
    _, found = poisson_batches(size, mean, count)
    expected = count * stats.binom(size, mean / size).pmf(np.arange(size + 1))
    observed = np.bincount(found, minlength=size + 1)
    kept = expected >= 5
    pairs = [(values[kept].tolist(), values[~kept].sum()) for values in (observed, expected)]
    assert stats.chisquare(*([*common, rare] for common, rare in pairs)).pvalue > 1e-3


def test_the_examples_of_poisson_batches_are_independent():
    """Every example and every pair has its probability, q and q^2 (chi-square and normal bounds, fixed key)."""
    size, mean, count = 20, 5, 40_000
    contained, _ = poisson_batches(size, mean, count)
    q = mean / size
    z = (contained.sum(0) - count * q) / np.sqrt(count * q * (1 - q))
    assert stats.chi2(size).sf((z**2).sum()) > 1e-3
    pairs = (contained.T @ contained)[np.triu_indices(size, 1)]
    z = (pairs - count * q**2) / np.sqrt(count * q**2 * (1 - q**2))
    assert abs(z).max() < 4 and 0.8 < z.std() < 1.2
    # Batches are independent too: a batch and the next contain the same example with probability q^2.
    both = (contained[:-1] * contained[1:]).sum()
    assert abs(both - count * size * q**2) < 4 * np.sqrt(count * size * q**2)


@pytest.mark.parametrize(("size", "mean"), [(60_000, 256), (4500, 64), (10**7, 4096), (10, 1), (50, 49), (8, 8)])
def test_the_capacity_of_poisson_batches(size, mean):
    sampler = samplers.poisson(Domain(size), mean)
    assert sampler.pads and sampler.rows % 8 == 0
    assert stats.binom(size, mean / size).sf(sampler.rows) <= 1e-12
    # Eight rows fewer would be too few.
    assert sampler.rows == 8 or stats.binom(size, mean / size).sf(sampler.rows - 8) > 1e-12
    wide = samplers.poisson(Domain(size), mean, capacity=sampler.rows + 3)
    numbers = jnp.arange(3)
    for f in ("indices", "mask"):  # the capacity does not change the examples
        a, b = (getattr(one, f)(KEY, numbers) for one in (sampler, wide))
        np.testing.assert_array_equal(a, b[:, :-3])
    if size == mean:
        assert sampler.mask(KEY, numbers).sum(1).tolist() == [8, 8, 8]


class Pictures:
    """A ``Source`` of grey images, each of one value, under the name ``name``."""

    def __init__(self, name, values, labels=None):
        self.name, self.values, self.labels = name, values, labels

    def __len__(self):
        return len(self.values)

    def __getitem__(self, i):
        return {self.name: np.full((2, 2, 1), self.values[i], np.uint8), "label": self.labels and self.labels[i]}

    def fingerprint(self):
        return f"{self.name} {self.values}"


def unpaired(streams, sampler=samplers.shuffled):
    """Two domains: 60 images with labels, and 90 other images."""
    spec = {"a": Image(2, 2, 1), "label": Label(2), "b": Image(2, 2, 1)}
    labels = (np.arange(60) % 2).astype(np.int32)
    sources = {"": Pictures("a", range(60), labels.tolist()), "b": Pictures("b", range(100, 190))}
    flat = {one.name: np.stack([one[i][one.name] for i in range(len(one))]) for one in sources.values()}
    examples = sources if streams else flat | {"label": labels}
    return Dataset("unpaired", spec, examples, domain_of={"b": "b"}, sampler=sampler)


def test_domains_have_independent_streams():
    """The first domain keeps the stream of a data set with one domain; features of a domain stay paired."""
    data = unpaired(streams=False)
    assert data.size == 60 and {name: domain.size for name, domain in data.domains.items()} == {"": 60, "b": 90}
    numbers = jnp.arange(40)[:, None]
    selected = data.feed.select(KEY, numbers, 6)
    a, b = (np.asarray(selected.indices[name])[:, 0] for name in ("", "b"))
    np.testing.assert_array_equal(a, Feed({}, {"": Domain(60)}, {}).select(KEY, numbers, 6).indices[""][:, 0])
    for indices, size in ((a, 60), (b, 90)):  # epochs of 10 and of 15 batches
        epochs = indices[: 40 // (size // 6) * (size // 6)].reshape(-1, size)
        assert (np.sort(epochs) == np.arange(size)).all()
    same = Feed({}, {"": Domain(60), "b": Domain(60)}, {}).select(KEY, numbers, 6).indices
    # Two independent permutations agree in one place on average, here in 4 epochs.
    assert (np.asarray(same[""]) == np.asarray(same["b"])).sum() < 15
    batch = data.feed.batch(data.arrays, jax.tree.map(lambda leaf: leaf[3, 0], selected), KEY)
    seen = {name: np.rint((batch[name][:, 0, 0, 0] + 1) * 127.5).astype(int).tolist() for name in "ab"}
    assert seen == {"a": a[3].tolist(), "b": (b[3] + 100).tolist()}
    assert batch["label"].tolist() == (a[3] % 2).tolist()


@pytest.mark.parametrize("sampler", [samplers.shuffled, samplers.poisson])
def test_unpaired_streams_equal_unpaired_arrays(sampler):
    resident, streamed = unpaired(False, sampler), unpaired(True, sampler)
    assert {n: d.size for n, d in streamed.domains.items()} == {n: d.size for n, d in resident.domains.items()}
    assert streamed.streams and streamed.fingerprint() != resident.fingerprint()
    loader = Loader(
        streamed,
        lambda step, length: [jax.tree.map(np.asarray, randomness.order(streamed.feed, 5, step, length, 2, 6))],
        stack=False,
        place=lambda tree: tree,
    )
    batches = loader.get(3, 2, 0)
    loader.close()
    selected = randomness.order(resident.feed, 5, 3, 2, 2, 6)
    assert batches.keys() == {"a", "b", "label"} | ({"mask"} if sampler is samplers.poisson else set())
    for at in np.ndindex(2, 2):
        x = resident.feed.batch(resident.arrays, jax.tree.map(lambda leaf, at=at: leaf[at], selected), KEY)
        y = streamed.feed.batch(None, {name: array[at] for name, array in batches.items()}, KEY)
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_arrays_of_a_domain_have_one_length():
    with pytest.raises(ValueError, match="label of the data set wrong holds 4 examples, not 5"):
        arrays = {"x": np.zeros((5, 1), np.float32), "label": np.zeros(4, np.int32)}
        Dataset("wrong", {"x": Vector(1), "label": Label(2)}, arrays)


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images()


def train(*overrides):
    return gan_cli.train([*RUN, *overrides], quiet=True)


@pytest.mark.slow
@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("sampler", ["balanced", "poisson"])  # test_stream.py covers the default
def test_streamed_equals_resident_and_resumes(sampler):
    """Streamed, resident, interrupted and ensemble runs reach the same parameters."""
    more = [f"sampler={sampler}", "strategy.n_critic=2"]
    resident = train(*more, "name=resident", "dataset.stream=false")
    streamed = train(*more, "name=streamed", "dataset.stream=true")
    assert manifest(resident.directory, 8) == manifest(streamed.directory, 8)
    assert records(resident.directory) == records(streamed.directory)
    train(*more, "name=cut", "dataset.stream=true", "train.steps=4")
    again = gan_cli.train(["resume=outputs/cut", "train.steps=8"], quiet=True)
    assert manifest(again.directory, 8) == manifest(resident.directory, 8)


@pytest.mark.slow
@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("sampler", ["balanced", "poisson"])
def test_an_ensemble_draws_the_batches_of_single_runs(sampler):
    more = [f"sampler={sampler}", "dataset.stream=true"]
    both = train(*more, "name=both", "train.ensemble=2")
    for seed, member in enumerate(both.members):
        alone = train(*more, f"name=alone{seed}", f"seed={seed}")
        a, b = records(member.directory), records(alone.directory)
        assert a[-1]["discriminator/loss"] == pytest.approx(b[-1]["discriminator/loss"], rel=1e-5)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("sampler", ["balanced", "poisson"])
def test_the_host_and_the_program_draw_the_same_batches(sampler):
    e = experiment([*RUN, f"sampler={sampler}", "dataset.stream=true"])
    steps = e.compile()
    streamed = steps.loader.get(3, 2, 0)
    steps.close()
    resident = experiment([*RUN, f"sampler={sampler}", "dataset.stream=false"]).dataset
    feed, numbers = resident.feed, randomness.batch_numbers(jnp.int32(3), 2, 1)
    selected = feed.draw(None, randomness.stream(e.seed, "order"), numbers, 8)
    for i in range(2):
        drawn = jax.tree.map(lambda leaf, i=i: leaf[i, 0], selected)
        a = feed.batch(resident.arrays, drawn, KEY)
        b = e.dataset.feed.batch(None, jax.tree.map(lambda leaf, i=i: leaf[i, 0], streamed), KEY)
        assert a.keys() == b.keys() == {"x", "label"} | ({"mask"} if sampler == "poisson" else set())
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        assert sampler != "balanced" or np.bincount(a["label"]).tolist() == [4, 4]


REFUSED = [
    (["sampler=balanced", "dataset=point", "model=dirac"], "sampler=balanced: needs labels"),
    (["sampler=poisson", "augment=[packing]", "augment.packing.size=2"], "sampler: pads the batch"),
    (["sampler=poisson", "sampler.capacity=9"], "sampler.capacity=9: is too small"),
    (["sampler=poisson", "train.batch_size=4501"], "is larger than the data set"),
    (["sampler=balanced", "experiment=bilinear"], "sampler=balanced: a sampler selects examples"),
    (["sampler=poisson", "train.devices=1", "sampler.capacity=0"], "sampler.capacity=0: must be at least 1"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused_in_one_line(overrides, message):
    tiny = [] if "experiment=bilinear" in overrides or "model=dirac" in overrides else TINY
    with pytest.raises(UserError) as error:
        experiment([*tiny, *overrides])
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


def test_balanced_needs_examples_and_labels_of_every_class():
    with pytest.raises(UserError, match="class 1 has no examples"):
        samplers.balanced(Domain(4, 3, np.array([0, 2, 2, 0], np.int32)), 2)
    with pytest.raises(UserError, match=r"known only after reading.*dataset\.stream=false"):
        samplers.balanced(Domain(4, 3), 2)


def test_padding_is_refused_for_coupled_games_and_several_domains(monkeypatch):
    with pytest.raises(UserError, match=r"pads the batch with rows that do not count.*sampler=shuffled"):
        experiment([*TINY, "sampler=poisson", "model.discriminator.norm=batch"])
    with pytest.raises(
        UserError, match=r"sampler.capacity=40: must be a multiple of estimator.size=16, e.g. .*=48"
    ):
        experiment([*TINY, "sampler=poisson", "estimator=microbatched", "sampler.capacity=40"])
    monkeypatch.setattr(Dataset, "domains", {"": Domain(4500), "b": Domain(90)})
    with pytest.raises(UserError, match="domains , b cannot form pairs"):
        experiment([*TINY, "sampler=poisson"])
    experiment([*TINY, "sampler=shuffled"])


@pytest.mark.parametrize(
    ("group", "target"),
    [("dataset", "gan_cli.data.samplers.shuffled"), ("sampler", "gan_cli.data.mnist5k.mnist5k")],
)
def test_the_groups_dataset_and_sampler_are_separate(group, target):
    config = dict(experiment(TINY).config) | {group: {"_target_": target}}
    with pytest.raises(UserError, match=rf"{group}\._target_={target}: not allowed"):
        check.check(config)


def test_a_run_without_the_key_is_shuffled_and_a_game_without_data_has_no_sampler():
    config = experiment(TINY).config
    assert check.check({key: value for key, value in config.items() if key != "sampler"}) == config
    assert not experiment(["experiment=bilinear"]).config["sampler"]


def test_the_first_examples_are_those_of_the_first_batches():
    e = experiment([*TINY, "sampler=poisson"])
    examples = randomness.first_examples(e.dataset, e.seed, 8, 20)
    selected = randomness.order(e.dataset.feed, e.seed, 0, 3, 1, 8)
    rows = np.asarray(selected.indices[""])[np.asarray(selected.mask) > 0][:20]
    stored = e.dataset.take(rows)
    np.testing.assert_allclose(examples["x"], stored["x"].astype(np.float32) / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(examples["label"], stored["label"])
