"""Runs of game=vae and game=vae_gan: training, exact resume, tasks, metrics, exports, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.sample import main as gan_sample
from gan_cli.config.build import experiment
from gan_cli.trained import mixture

SMALL = [*TINY, "model.encoder.width=8", "logger=none"]
VAE = [*SMALL, "game=vae", "loss=none"]
VAE_GAN = [*SMALL, "game=vae_gan", "model.discriminator.dropout=0"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def digits() -> np.ndarray:
    """The last 20 held-out digits, uint8 ``[20, 28, 28, 1]``."""
    held_out = experiment(VAE).dataset.only_held_out()
    return held_out.take(np.arange(held_out.size)[-20:])["x"]


def test_tasks_and_metrics_of_a_vae(capsys):
    """The arrays of each task are in the order of the input, and gan-eval and the task score agree."""
    gan_cli.train([*VAE, "name=v", "train.sample_every=8", "train.report=true"], quiet=True)
    assert Path("outputs/v/samples/8.png").exists() and Path("outputs/v/samples/reconstruct/8.png").exists()
    x = digits()
    np.savez("x.npz", x=x)
    np.savez("reversed.npz", x=x[::-1])
    for task, name, shape in (
        ("reconstruct", "samples", (20, 28, 28, 1)),
        ("encode", "codes", (20, 4)),
        ("score", "nll", (20,)),
    ):
        assert gan_sample(["outputs/v", f"--task={task}", "--input=x.npz", f"--out={task}.npz"]) == 0
        assert gan_sample(["outputs/v", f"--task={task}", "--input=reversed.npz", "--out=other.npz"]) == 0
        a, b = np.load(f"{task}.npz")[name], np.load("other.npz")[name]
        assert a.shape == shape
        if task != "score":  # the importance samples belong to the row
            np.testing.assert_allclose(a, b[::-1], atol=1e-5)
    assert gan_eval(["outputs/v", "--metrics", "nll,elbo,reconstruction,active_units", "--json", "F"]) == 0
    figures = json.loads(Path("F").read_text())[0]["metrics"]
    assert figures["nll"] <= -figures["elbo"] and figures["active_units"] in range(5)
    held_out = experiment(VAE).dataset.only_held_out()
    np.savez("held_out.npz", x=held_out.take(np.arange(held_out.size))["x"])
    gan_sample(["outputs/v", "--task=score", "--input=held_out.npz", "--out=all.npz"])
    scores = np.load("all.npz")
    assert set(scores["importance_samples"]) == {200}
    np.testing.assert_allclose(scores["nll"].mean(), figures["nll"], rtol=1e-3)
    np.testing.assert_allclose(scores["elbo"].mean(), figures["elbo"], rtol=1e-3)
    for task in ("generate", "score"):
        assert gan_sample(["outputs/v", f"--task={task}", f"--export={task}"]) == 0


def test_samples_of_the_mixture_follow_the_codes():
    """The mixture reproduces the mean and the covariance of codes far from N(0, I); row i does not depend on n."""
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.normal(3, 0.5, (500, 2)), rng.normal(-3, 0.2, (500, 2))]).astype(np.float32)
    prior = mixture.fit(codes)
    drawn = jax.vmap(lambda key: prior(key, None)["latents"])(jax.random.split(jax.random.key(0), 5000))
    np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=0.2)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), rtol=0.05)
    gan_cli.train([*VAE, "name=v"], quiet=True)
    for n in (3, 5):
        assert gan_sample(["outputs/v", "--prior=gmm", f"--num={n}", f"--out={n}.npz"]) == 0
    assert np.array_equal(np.load("3.npz")["latents"], np.load("5.npz")["latents"][:3])


def test_losses_of_the_vae_gan():
    """Each player's terms are those of Larsen et al. 2016, algorithm 1."""
    game = experiment([*VAE_GAN, "game.gamma=0.3"]).game
    params, net_state = game.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (6, 28, 28, 1), minval=-1)
    batch, key = game.noise({"x": x}, jax.random.key(2)), jax.random.key(3)
    terms = {p: game.loss(p, params, net_state, batch, key, jnp.int32(0)).terms for p in game.players}
    code = game.network("encoder", params, net_state)(x, train=False, key=key)
    mean, log_variance = code[:, :4], code[:, 4:]
    decode, discriminator = (game.network(name, params, net_state) for name in ("decoder", "discriminator"))
    posterior = mean + jnp.exp(log_variance / 2) * batch["posterior_noise"]
    reconstruction, sample = (decode(z, train=False, key=key) for z in (posterior, batch["latents"]))
    of = lambda images: discriminator(images, train=False, key=key)  # noqa: E731
    real, fakes = of(x), [of(reconstruction), of(sample)]
    kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(1)
    features = [discriminator.features(images, train=False, key=key) for images in (x, reconstruction)]
    distance = 0.5 * ((features[0] - features[1]) ** 2).sum(1)
    softplus = jax.nn.softplus
    expected = {
        "discriminator": {"adversarial": (softplus(-real) + sum(map(softplus, fakes)) / 2, 1.0)},
        "encoder": {"reconstruction": (distance, 1.0), "kl": (kl, 1.0)},
        "decoder": {
            "reconstruction": (distance, 0.3),
            "adversarial": (sum(softplus(-fake) for fake in fakes) / 2, 1.0),
        },
    }
    for player, wanted in expected.items():
        assert set(terms[player]) == set(wanted)
        for name, (values, weight) in wanted.items():
            np.testing.assert_allclose(terms[player][name].values, values, rtol=1e-4, atol=1e-5)
            assert terms[player][name].weight == weight


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "conditional"), [("vae", "concat"), ("vae_gan", "projection"), ("vae_gan", "acgan")]
)
def test_conditional_runs(game, conditional):
    options = [*(VAE if game == "vae" else VAE_GAN), f"model.conditional={conditional}", "name=c", "model=dcgan"]
    run = gan_cli.train([*options, "train.steps=4"], quiet=True)
    assert run.step == 4
    assert gan_sample(["outputs/c", "--num=12", "--out=c.npz"]) == 0
    assert "labels" in np.load("c.npz")


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (TINY, ["--task=reconstruct"], "--task reconstruct: this run has no such task"),
        (TINY, ["--prior=gmm"], "--prior gmm: is fitted to codes"),
        (VAE_GAN, ["--task=score"], "--task score: this run has no such task"),
    ],
)
def test_what_a_run_cannot_do_is_refused_in_one_line(options, arguments, message, capsys):
    gan_cli.train([*options, "name=r", "train.steps=4"], quiet=True)
    assert gan_sample(["outputs/r", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
