"""Texts: files, the oracle, the networks, the language model, and the GAN of texts with its two estimators."""

from __future__ import annotations

import functools
import gzip
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Program

from gan_cli.config.build import experiment
from gan_cli.data.text import oracle, sources
from gan_cli.data.text.feature import FREE, UNKNOWN, Tokens
from gan_cli.data.text.files import prompt_of
from gan_cli.errors import UserError
from gan_cli.estimators.per_example import clipped_sum
from gan_cli.games.language_model import LanguageModel
from gan_cli.games.text_gan import DISCRIMINATOR, TextGAN, discounted
from gan_cli.losses import nonsaturating
from gan_cli.models import TextModel
from gan_cli.models import text as text_networks
from gan_cli.models.text import ConvolutionalDiscriminator, Discriminator, Generator, draw

KEY = jax.random.key(0)
WORDS, LENGTH = 3, 3
ALL = np.array(list(itertools.product(range(WORDS), repeat=LENGTH)), np.int32)  # all texts
THREE = Tokens(LENGTH, ("a", "b", "c"))
ENDED = Tokens(LENGTH, ("a", "b", ""), end=2)
GENERATOR = functools.partial(Generator, width=5, embedding=4, depth=2)
MODEL = TextModel(GENERATOR, functools.partial(Discriminator, width=5, embedding=4))
CONVOLUTIONAL = TextModel(GENERATOR, functools.partial(ConvolutionalDiscriminator, width=3, embedding=4, dropout=0))
# Options of small runs of texts.
SMALL = [
    "model=text", "model.generator.width=8", "model.discriminator.width=8", "train.batch_size=8", "train.steps=8",
    "train.steps_per_call=4", "train.log_every=4", "train.checkpoint_every=4", "train.sample_every=0",
]  # fmt: skip


def gan(model=MODEL, feature=THREE, **options):
    return TextGAN({"x": feature}, model, nonsaturating(), {}, {}, "float32", **({"pretrain_steps": 0} | options))


def weights(game, scale=3.0):
    """Parameters far from uniform predictions."""
    params, net_state = game.init(KEY)
    return jax.tree.map(lambda x: scale * x, params), net_state


def score(game, params, net_state, tokens):
    """The log-likelihood of texts by the task ``score``."""
    inputs = {"x": jnp.asarray(tokens), "temperature": jnp.ones(len(tokens))}
    found = game.tasks["score"].apply(params, net_state, inputs, None)
    return -found["nll"] * found["tokens"]


# The oracle


def arrays(rng, words=6, width=3):
    shapes = {"embeddings": (words, width), "Wo": (width, words), "bo": (words,)}
    for gate in ("i", "f", "og", "c"):
        shapes |= {f"W{gate}": (width, width), f"U{gate}": (width, width), f"b{gate}": (width,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_the_oracle_is_the_network_of_yu_et_al(tmp_path):
    """Likelihoods equal a loop over words with the published equations, and samples have these probabilities."""
    rng = np.random.default_rng(0)
    given = arrays(rng)
    np.savez(tmp_path / "oracle.npz", **given)
    network = oracle.from_file(tmp_path / "oracle.npz")
    texts = np.array(list(itertools.product(range(6), repeat=2)), np.int32)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    wanted = []
    for text in texts:
        h, c, before, total = np.zeros(3), np.zeros(3), 0, 0.0
        for word in text:
            x = given["embeddings"][before]
            gate = {g: x @ given[f"W{g}"] + h @ given[f"U{g}"] + given[f"b{g}"] for g in ("i", "f", "og", "c")}
            c = sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["c"])
            h = sigmoid(gate["og"]) * np.tanh(c)
            logits = h @ given["Wo"] + given["bo"]
            total += logits[word] - np.log(np.exp(logits).sum())
            before = word
        wanted.append(total)
    np.testing.assert_allclose(network.log_likelihood(texts).sum(1), wanted, atol=1e-5)
    drawn = network.sample(np.random.default_rng(1), 20_000, 2)
    shares = np.bincount(drawn @ [6, 1], minlength=36) / 20_000
    expected = np.exp(wanted)
    assert np.abs(shares - expected).max() < 5 * np.sqrt(expected.max() / 20_000)


def test_sentences_of_the_oracle_are_fresh_and_reproducible():
    first, second = (sources.oracle(size=8, held_out=8) for _ in range(2))
    assert first.fingerprint() == second.fingerprint()
    assert first.oracle is not None and first.oracle.out.shape == (32, 5000)
    assert not set(map(tuple, first.examples["x"])) & set(map(tuple, first.held_out["x"]))


# Files


def test_windows_of_a_text(tmp_path):
    """Training windows overlap, held-out windows do not, and the vocabulary is that of the training part."""
    text = "abcd" * 20 + "dcba" * 5
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.replace("d", "d\r\n").encode("utf-8-sig")))
    data = sources.text(path=str(tmp_path / "a.txt.gz"), length=8, hold_out=0.2)
    assert data.feature.vocabulary == ("\n", "a", "b", "c", "d")
    whole = "abcd\n" * 20
    assert data.feature.texts(data.examples["x"]) == [whole[i : i + 8] for i in range(0, 93, 2)]
    assert data.feature.texts(data.held_out["x"]) == ["d\ncbad\nc", "bad\ncbad", "\ncbad\ncb"]


def test_lines_of_words(tmp_path):
    """Each line is an example with an end. Rare and held-out words are unknown, and long lines are left out."""
    rows = ["A man's dog, there.", "a man's dog, there", "", "A a man's dog, dog there there.", *["a dog"] * 7]
    (tmp_path / "b.txt").write_text("\n".join(rows))
    options = {"path": str(tmp_path / "b.txt"), "unit": "word", "examples": "lines", "length": 6, "hold_out": 0.0}
    data = sources.text(**options)
    assert data.feature.vocabulary == (",", "a", "dog", "man's", "there", UNKNOWN, "")
    assert data.feature.texts(data.examples["x"][:3]) == [
        f"{UNKNOWN} man's dog , there {UNKNOWN}", "a man's dog , there", "a dog",
    ]  # fmt: skip
    assert list(data.feature.lengths(data.examples["x"][:3])) == [6, 5, 2]
    assert data.passed_over == {"lines of more than 6 tokens": 1}
    held_out = sources.text(**options | {"hold_out": 0.5})
    assert len(held_out.examples["x"]) + held_out.held_out_size == 9


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, "no such file"),
        (b"\x1f\x8b broken", {"path": "x.gz"}, "cannot be read"),
        ("Zeile\nfür".encode("latin1"), {}, "line 2 is not UTF-8"),
        ("a text".encode("utf-16-le"), {}, "null characters"),
        ("a text".encode("utf-16"), {}, "is UTF-16"),
        (b" \n ", {}, "no text"),
        (b"short", {"length": 20}, "dataset.length=20"),
        (b"a few words\n", {"length": 4, "examples": "lines"}, "the longest has 11"),
        (b"one\nof these is long\n", {"length": 4, "examples": "lines", "on_error": "refuse"}, "1 of 2 lines"),
        (b"aaaaaaaaaaz", {"length": 1, "hold_out": 0.1, "on_error": "refuse"}, "training text lacks: 'z'"),
    ],
)
def test_wrong_files(tmp_path, content, options, message):
    path = tmp_path / options.get("path", "x.txt")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        sources.text(**options | {"path": str(path)})
    assert "\n" not in str(raised.value)


def test_wrong_oracles(tmp_path):
    for content, message in (
        ({}, "has no array embeddings"),
        (arrays(np.random.default_rng(0)) | {"Wo": np.zeros((4, 6))}, "are not those of an oracle"),
    ):
        np.savez(tmp_path / "o.npz", **content)
        with pytest.raises(UserError, match=message):
            oracle.from_file(tmp_path / "o.npz")


def test_prompts():
    assert list(prompt_of("ca", THREE, "--input p.txt")) == [2, 0, FREE]
    with pytest.raises(UserError, match=r"--input p.txt: has 4 characters, and the texts of this run have 3"):
        prompt_of("abca", THREE, "--input p.txt")
    with pytest.raises(UserError, match="lacks: 'x', 'y'"):
        prompt_of("xy", THREE, "--input p.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["game=text_gan", "penalty=[r1]"], r"penalty\.r1: is a function of real-valued examples"),
        (["game=text_gan", "augment=[diffaugment]"], r"augment\.diffaugment: changes real-valued examples"),
        (["game=text_gan", "train.precision=bfloat16"], "compute in float32"),
        (["game=text_gan", "dataset=ring"], "learns texts, and the examples of this data set are"),
        (["game=language_model", "model=mlp"], "needs networks of texts"),
        (["game=language_model", "penalty=[r1]"], "does not use the group penalty"),
        (["game=gan", "model=mlp"], "the examples of this data set are texts"),
        (["game=vae", "model=mlp"], "the examples of this data set are texts"),
        (["game=gan", "dataset=ring"], "these networks write texts"),
        (["game=pix2pix", "dataset=edges"], "translates images"),
    ],
)
def test_wrong_combinations(options, message):
    chosen = dict(option.split("=", 1) for option in ["dataset=shakespeare", *SMALL, *options])
    with pytest.raises(UserError, match=message):
        experiment([f"{name}={value}" for name, value in chosen.items()])


# Networks


def test_draw_is_the_inverse_of_the_distribution_function():
    rng = np.random.default_rng(0)
    for words in (2, 5, 4999):
        logits = 3 * rng.standard_normal(words)
        if words > 2:
            logits[[0, words - 1]] = -np.inf  # impossible words at both ends
        uniform = np.concatenate([[0.0, 1.0], rng.random(500)])
        below = np.exp(logits - np.logaddexp.reduce(logits)).cumsum()
        wanted = np.searchsorted(below, np.minimum(uniform, 1 - 2**-24) * below[-1], side="right")
        found = np.asarray(draw(jnp.broadcast_to(jnp.float32(logits), (502, words)), jnp.float32(uniform)))
        same = found == wanted
        # Rounding decides within 1e-5 of a step of the function.
        assert np.abs(below[np.minimum(found, wanted)] - uniform)[~same].max(initial=0) < 1e-5
        assert same.mean() > 0.98 and np.isfinite(logits[found]).all()


@pytest.mark.parametrize("feature", [THREE, ENDED])
def test_scores_are_the_probabilities_of_samples(feature):
    """Probabilities of all texts sum to one, and samples have these probabilities at temperatures 1 and 1/2."""
    game = LanguageModel({"x": feature}, MODEL, "float32")
    params, net_state = weights(game)
    texts = np.array(sorted({tuple(text) for text in ended(ALL, feature)}), np.int32)
    log_p = np.asarray(score(game, params, net_state, texts))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
    n = 20_000
    task = game.tasks["generate"]
    inputs = jax.vmap(lambda key: task.prior(key, None))(jax.random.split(KEY, n))
    samples = np.asarray(task.apply(params, net_state, inputs, None)["samples"])
    assert samples.dtype == np.int32
    shares = np.array([(samples == text).all(1).mean() for text in texts])
    assert np.abs(shares - np.exp(log_p)).max() < 5 * np.sqrt(np.exp(log_p).max() / n)
    cold = task.apply(params, net_state, inputs | {"temperature": jnp.zeros(n)}, None)["samples"]
    assert len(np.unique(np.asarray(cold), axis=0)) == 1
    # At temperature 1/2, the first token has the softmax of twice its logits.
    first = np.array([np.exp(log_p[texts[:, 0] == word]).sum() for word in range(WORDS)]) ** 2
    half = task.apply(params, net_state, inputs | {"temperature": jnp.full(n, 0.5)}, None)["samples"]
    shares = np.bincount(np.asarray(half)[:, 0], minlength=WORDS) / n
    assert np.abs(shares - first / first.sum()).max() < 0.02


def ended(texts, feature):
    """Texts whose places after the end hold the end."""
    if feature.end is None:
        return texts
    over = np.cumsum(texts == feature.end, axis=1) > 0
    return np.where(over, feature.end, texts)


def test_samples_begin_with_the_prompt():
    game = LanguageModel({"x": ENDED}, MODEL, "float32")
    params, net_state = weights(game)
    task = game.tasks["generate"]
    inputs = jax.vmap(lambda key: task.prior(key, None))(jax.random.split(KEY, 64))
    for prompt in ([1, 1, FREE], [2, FREE, FREE]):
        samples = task.apply(params, net_state, inputs | {"prompt": jnp.tile(jnp.int32(prompt), (64, 1))}, None)
        known = [token for token in prompt if token != FREE]
        assert (np.asarray(samples["samples"])[:, : len(known)] == known).all()
    assert (np.asarray(samples["samples"]) == 2).all()  # a text that has ended stays so


# Estimators


def test_returns():
    """Returns equal the double sum of eq. 4 of d'Autume et al. 2019."""
    rewards = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    wanted = [[sum(0.3 ** (s - t) * row[s] for s in range(t, 4)) for t in range(4)] for row in rewards]
    np.testing.assert_allclose(discounted(jnp.asarray(rewards), 0.3), wanted, atol=1e-6)


@pytest.mark.parametrize(("model", "feature"), [(MODEL, THREE), (MODEL, ENDED), (CONVOLUTIONAL, THREE)])
def test_the_score_function_is_the_gradient_of_the_expected_reward(model, feature):
    """Over all texts, weighted by their probabilities, REINFORCE is the exact gradient for any baseline."""
    game = gan(model, feature, gamma=1.0)
    params, net_state = weights(game)
    texts = jnp.asarray(np.array(sorted({tuple(text) for text in ended(ALL, feature)}), np.int32))
    counted = game.counted(texts)
    logits = game._logits(params, net_state, texts, KEY)
    rewards = 2 * jax.nn.sigmoid(logits) - 1
    total = (rewards * counted).sum(1) if rewards.ndim == 2 else rewards

    def expected(own):
        log_p = score(game, params | {"generator": own}, net_state, texts)
        return -(jnp.exp(log_p) * total).sum() / LENGTH

    def estimated(own):
        every = params | {"generator": own}
        at = net_state | {DISCRIMINATOR: net_state[DISCRIMINATOR] | {"baseline": jnp.float32(0.37)}}
        terms = game.loss("generator", every, at, {"x": texts}, KEY, 0, texts.astype(jnp.float32)).terms
        p = jax.lax.stop_gradient(jnp.exp(score(game, every, at, texts)))
        return (p * terms["adversarial"].values).sum()

    exact, found = (jax.grad(f)(params["generator"]) for f in (expected, estimated))
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(exact))
    assert scale > 1e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale + 1e-7), exact, found)


@pytest.mark.parametrize("straight_through", [False, True])
def test_cold_relaxed_texts_are_samples(straight_through):
    """At a low temperature, relaxed rows are one-hot vectors of samples with the generator's probabilities."""
    game = gan(feature=ENDED, gradient="gumbel", straight_through=straight_through, temperature=1e-3,
               temperature_end=1e-3)  # fmt: skip
    params, net_state = weights(game)
    n = 10_000
    batch = game.noise({"x": jnp.zeros((n, LENGTH), jnp.int32)}, KEY)
    relaxed, _ = game.fake(params, net_state, batch, KEY, 0)
    assert np.quantile(np.asarray(relaxed).max(2), 0.01) > 0.99
    texts = np.array(sorted({tuple(text) for text in ended(ALL, ENDED)}), np.int32)
    p = np.exp(np.asarray(score(game, params, net_state, texts)))
    hard = np.asarray(relaxed.argmax(2))
    shares = np.array([(hard == text).all(1).mean() for text in texts])
    assert np.abs(shares - p).max() < 0.02


def test_the_temperature_falls_by_the_same_factor_at_each_step():
    game = gan(gradient="gumbel", temperature=2.0, temperature_end=0.5, temperature_steps=4, pretrain_steps=10)
    assert [float(game.temperature(step)) for step in (0, 10, 12, 14, 20)] == pytest.approx([2, 2, 1, 0.5, 0.5])


# Training


@pytest.mark.parametrize("gradient", ["score", pytest.param("gumbel", marks=pytest.mark.slow)])
def test_pre_training_is_a_phase_of_the_run(gradient):
    """The discriminator rests until its end, and a run that stops inside the phase continues bit by bit."""
    e = experiment([
        *SMALL, "game=text_gan", "dataset=shakespeare", "dataset.length=8", f"game.gradient={gradient}",
        "game.pretrain_steps=4", "game.mle_weight=0",
    ])  # fmt: skip
    whole, parts = Program(e), Program(e)
    start = jax.device_get(whole.state.params)
    whole.run(4)
    rested = jax.device_get(whole.state.params)
    jax.tree.map(np.testing.assert_array_equal, rested[DISCRIMINATOR], start[DISCRIMINATOR])
    metrics = whole.run(4)
    assert (metrics["discriminator/loss"] > 0).all() and (metrics["generator/nll"] == 0).all()
    for length in (2, 4, 2):
        parts.run(length)
        parts.state = jax.device_put(jax.device_get(parts.state))
    jax.tree.map(
        np.testing.assert_array_equal, *(jax.device_get(one.state._replace(step=0)) for one in (whole, parts))
    )
    moved = jax.device_get(whole.state.params)
    for player in ("generator", "discriminator"):
        assert any(map(np.any, jax.tree.leaves(jax.tree.map(np.not_equal, moved[player], rested[player]))))


def test_a_language_model_learns_the_bigrams_of_a_text(tmp_path):
    """The likelihood of a text of period 3 approaches one."""
    (tmp_path / "x.txt").write_text("abc" * 200)
    e = experiment([
        *SMALL, "game=language_model", "dataset=text", f"dataset.path={tmp_path}/x.txt", "dataset.length=8",
        "optim.lr=0.05",
    ])  # fmt: skip
    metrics = Program(e).run(100)
    # The first letter of a window is one of three.
    assert metrics["generator/nll"][-1] < np.log(3) / 8 + 0.05 < metrics["generator/nll"][0]


def test_gradients_of_single_texts():
    """Private training clips the gradient of each text, as computed one text at a time."""
    game = LanguageModel({"x": ENDED}, MODEL, "float32").private()
    params, net_state = weights(game)
    texts = jnp.asarray(ended(ALL, ENDED)[::5])
    mask = jnp.arange(len(texts)) != 1

    def of_text(own, row):
        found = game.loss("generator", {"generator": own}, net_state, {"x": row[None]}, KEY, 0)
        (term,) = found.terms.values()
        return term.values.reshape(())

    found = clipped_sum(of_text, params["generator"], texts, mask, 0.05)
    wanted, gradient = jax.tree.map(jnp.zeros_like, params["generator"]), jax.jit(jax.grad(of_text))
    for row, counts in zip(texts, mask, strict=True):
        slope = gradient(params["generator"], row)
        norm = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(slope)))
        factor = counts * jnp.minimum(1, 0.05 / norm)
        wanted = jax.tree.map(lambda a, b, factor=factor: a + factor * b, wanted, slope)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted)


def test_the_gradient_of_a_layer_equals_that_of_its_loop():
    """The hand-written gradient of an LSTM layer equals that of JAX, also in second derivatives."""
    of_inputs = jax.random.normal(jax.random.key(0), (5, 3, 16))
    kernel = jax.random.normal(jax.random.key(1), (4, 16))

    def slope(layer):
        def first(x, kernel):
            return sum(jnp.sum(one**2) for one in jax.grad(lambda *a: jnp.sum(layer(*a) ** 2), (0, 1))(x, kernel))

        return jax.jit(lambda x, kernel: (first(x, kernel), jax.grad(first, (0, 1))(x, kernel)))

    found, expected = (slope(layer)(of_inputs, kernel) for layer in (text_networks.outputs, text_networks._scanned))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), found, expected)
