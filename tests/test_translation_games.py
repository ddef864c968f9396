"""Games of image translation: losses by hand, the image pool, tasks, and errors that name the remedy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import translators
from conftest import import_reference, loss_value
from translators import batch, game

from gan_cli.augment import Augment, diffaugment, noise, packing
from gan_cli.data.features import Image, Vector
from gan_cli.engine.state import TrainSetup, init_state
from gan_cli.errors import UserError
from gan_cli.estimators import mean, microbatched
from gan_cli.games import image_pool
from gan_cli.games.cut import patch_nce
from gan_cli.games.gan import GAN
from gan_cli.games.vae import VAE
from gan_cli.losses import hinge, lsgan, relativistic
from gan_cli.models import Model, TranslationModel
from gan_cli.optim import adam
from gan_cli.penalties import orthogonal, r1, wgan_gp
from gan_cli.strategies.alternating import alternating
from gan_cli.trained.sampling import TaskRunner

KEY, STEP = jax.random.key(3), jnp.int32(0)


def terms(one, player, batch):
    """The initial state of a game, and the terms of a player's loss."""

    @jax.jit
    def both(batch):
        params, net_state = one.init(KEY)
        return params, net_state, one.loss(player, params, net_state, one.noise(batch, KEY), KEY, STEP)

    return both(batch)


def values(found, name):
    term = found.terms[name]
    return float(term.weight), np.asarray(term.values)


def absolute(x, y):
    return np.abs(np.asarray(x) - np.asarray(y)).mean((1, 2, 3))


# ------------------------------------------------------------------------------------------------------ the pool


def test_the_pool_is_that_of_a_plain_loop():
    """The algorithm of the published code, as a loop over a list; gradients pass through new images only."""
    size, pool, stored = 3, image_pool.empty(3, (2, 2, 1)), []
    swapped, query = 0, jax.jit(image_pool.query)
    of_sum = jax.jit(jax.grad(lambda x, pool, key: query(pool, x, key)[0].sum()))
    for turn in range(5):
        made = np.asarray(jax.random.normal(jax.random.key(turn), (4, 2, 2, 1)))
        key = jax.random.fold_in(KEY, turn)
        expected, returned_new = [], []
        for image, own in zip(made, jax.random.split(key, 4), strict=True):
            swap_key, place_key = jax.random.split(own)
            shown = image
            if len(stored) < size:
                stored.append(image)
            elif jax.random.bernoulli(swap_key):
                place = int(jax.random.randint(place_key, (), 0, size))
                shown, stored[place] = stored[place], image
                swapped += 1
            expected.append(shown)
            returned_new.append(shown is image)
        slope = of_sum(made, pool, key)
        found, pool = query(pool, made, key)
        np.testing.assert_array_equal(found, np.stack(expected))
        np.testing.assert_array_equal(pool["images"][: len(stored)], np.stack(stored))
        np.testing.assert_array_equal(slope[:, 0, 0, 0], np.array(returned_new, np.float32))
    assert int(pool["count"]) == size and 4 < swapped < 13


@pytest.mark.slow
def test_the_discriminators_of_cyclegan_judge_the_pool():
    """With a full pool, the loss on generated images is that of new or stored images, and the pool is stored."""
    one = game("cyclegan", pool=2)
    params, net_state = jax.jit(one.init)(KEY)
    images = jnp.full((2, 8, 8, 1), 0.7)
    full = {"images": images, "count": jnp.int32(2)}
    net_state["discriminator"]["pool"] = {"a": full, "b": full}
    drawn = batch(1)
    fakes, _ = jax.jit(one.fake)(params, net_state, drawn, KEY, STEP)
    loss = jax.jit(lambda key: one.loss("discriminator", params, net_state, drawn, key, STEP, fakes))
    discriminator = one.network("discriminator", "b", params, net_state)
    of_new, of_old = (
        float(discriminator(x, train=True, key=KEY).mean()) for x in (fakes["b"], images[:1])
    )  # of the metric, the mean logit
    seen = set()
    for i in range(12):
        found = loss(jax.random.key(i))
        logit = float(found.metrics["discriminator/fake_logits_b"])
        swapped = abs(logit - of_old) < 1e-6
        assert swapped or abs(logit - of_new) < 1e-6
        pool = found.net_state["discriminator"]["pool"]["b"]["images"]
        assert int((pool == fakes["b"][0]).all((1, 2, 3)).sum()) == swapped
        seen.add(swapped)
    assert seen == {True, False}


# ---------------------------------------------------------------------------------------------------- the losses


_SLOW = pytest.mark.slow


@pytest.mark.parametrize("loss", [lsgan(), *(pytest.param(loss(), marks=_SLOW) for loss in (hinge, relativistic))])
def test_pix2pix_by_hand(loss):
    """The discriminator sees source and output side by side in the channels; its loss is halved."""
    one = game("pix2pix", (2, 3), loss)
    drawn = batch(3, (2, 3))
    params, net_state, found = terms(one, "generator", drawn)
    made = one.network("generator", "a_to_b", params, net_state)(drawn["a"], train=True, key=KEY)
    discriminator = one.network("discriminator", "b", params, net_state)
    real, fake = (
        discriminator(jnp.concatenate([drawn["a"], b], -1), train=True, key=KEY).reshape(3, -1)
        for b in (drawn["b"], made)
    )
    assert real.shape == (3, 16)
    for name, weight, expected in (
        ("l1", 100.0, absolute(made, drawn["b"])),
        ("adversarial", 1.0, loss.generator(real, fake).mean(1)),
    ):
        assert values(found, name)[0] == weight
        np.testing.assert_allclose(values(found, name)[1], expected, rtol=1e-5)
    _, _, found = terms(one, "discriminator", drawn)
    assert values(found, "adversarial")[0] == 0.5
    np.testing.assert_allclose(values(found, "adversarial")[1], loss.discriminator(real, fake).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.metrics["discriminator/real_logits"], real.mean(), rtol=1e-4)


def test_cyclegan_by_hand():
    """Cycle and identity terms, for both directions; the discriminator has two networks."""
    one = game("cyclegan", lambda_a=3.0, lambda_b=5.0, identity=0.1, pool=0)
    drawn = batch()
    params, net_state, found = terms(one, "generator", drawn)
    there, back = (one.network("generator", name, params, net_state) for name in ("a_to_b", "b_to_a"))
    there, back = (lambda x, net=net: net(x, train=True, key=KEY) for net in (there, back))
    a, b = drawn["a"], drawn["b"]
    for name, weight, expected in (
        ("cycle_a", 3.0, absolute(back(there(a)), a)),
        ("cycle_b", 5.0, absolute(there(back(b)), b)),
        ("identity_a", 0.3, absolute(back(a), a)),
        ("identity_b", 0.5, absolute(there(b), b)),
    ):
        np.testing.assert_allclose(values(found, name)[0], weight)
        np.testing.assert_allclose(values(found, name)[1], expected, rtol=1e-5)
    _, _, found = terms(one, "discriminator", drawn)
    expected = 0.0
    for domain, real, made in (("a", a, back(b)), ("b", b, there(a))):
        discriminator = one.network("discriminator", domain, params, net_state)
        logits = [discriminator(x, train=True, key=KEY).reshape(3, -1) for x in (real, made)]
        expected += lsgan().discriminator(*logits).mean(1)
    np.testing.assert_allclose(values(found, "adversarial")[1], expected, rtol=1e-5)


def test_the_contrastive_loss_is_the_cross_entropy_of_the_positive():
    """The published arrangement: the positive first, then the negatives with the positive masked out."""
    rng = np.random.default_rng(0)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.normal(size=(2, 2, 5, 8)))
    expected = []
    for image in range(2):
        negatives = q[image] @ k[image].T
        positives = np.diag(negatives).copy()
        np.fill_diagonal(negatives, -10.0)
        logits = np.concatenate([positives[:, None], negatives], axis=1) / 0.07
        expected.append((np.log(np.exp(logits).sum(1)) - logits[:, 0]).mean())
    np.testing.assert_allclose(patch_nce(q, k, 0.07), expected, rtol=1e-5)
    assert not jnp.any(jax.grad(lambda k: patch_nce(jnp.asarray(q), k, 0.07).sum())(jnp.asarray(k)))


@pytest.mark.comparison
def test_the_contrastive_loss_is_that_of_pytorch():
    torch = import_reference("torch")
    rng = np.random.default_rng(1)
    q, k = (torch.nn.functional.normalize(torch.tensor(x), dim=-1) for x in rng.normal(size=(2, 3, 7, 8)))
    expected = [
        torch.nn.functional.cross_entropy(one @ other.T / 0.2, torch.arange(7))
        for one, other in zip(q, k, strict=True)
    ]
    np.testing.assert_allclose(patch_nce(q.numpy(), k.numpy(), 0.2), torch.stack(expected), rtol=1e-5)


@pytest.mark.slow
def test_cut_contrasts_equal_places():
    """An unchanged image has a smaller contrastive loss than another image, also if it is mirrored twice."""
    one = game("cut", nce=2.0)
    drawn = batch()
    params, net_state, found = terms(one, "generator", drawn)
    assert {name: term.weight for name, term in found.terms.items()} == {
        "adversarial": 1.0, "nce": 1.0, "nce_identity": 1.0,
    }  # fmt: skip
    a, b = drawn["a"], drawn["b"]
    same, other = (jax.jit(lambda x: one._contrast(params, net_state, a, x, None, KEY))(x) for x in (a, b))
    assert (same < other).all() and (other > 1.0).all()
    fast = game("cut", nce=10.0, identity=False, flip_equivariance=True)
    _, _, found = terms(fast, "generator", drawn)
    assert found.terms.keys() == {"adversarial", "nce"} and found.terms["nce"].weight == 10.0
    seen = fast._generator_input(fast.directions[0], drawn | {"mirrored": jnp.array([True, False, True])})
    np.testing.assert_array_equal(seen, jnp.stack([a[0, :, ::-1], a[1], a[2, :, ::-1]]))
    # Layer 0 is the input, which the mirrored translation contains at the mirrored places.
    pixels = game("cut", identity=False, flip_equivariance=True, layers=(0,))
    state = pixels.init(KEY)
    mirrored = pixels._contrast(*state, a, a[:, :, ::-1], jnp.ones(3, bool), KEY)
    np.testing.assert_allclose(mirrored, pixels._contrast(*state, a, a, None, KEY), rtol=1e-6)


def test_without_an_adversary_the_discriminator_is_not_trained():
    one = game("pix2pix", adversarial=0.0)
    for player in one.players:
        _, _, found = terms(one, player, batch())
        assert "adversarial" not in found.terms if player == "generator" else not found.metrics
    params, net_state = jax.jit(one.init)(KEY)

    @jax.jit
    @jax.grad
    def slope(own):
        return loss_value(one, "discriminator", params | {"discriminator": own}, net_state, batch(), KEY, STEP)[0]

    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(slope(params["discriminator"])))


@pytest.mark.slow
def test_penalties_see_both_images_and_the_mean_logit():
    """The R1 penalty of pix2pix, by automatic differentiation of the mean logit at source and target."""
    one = game("pix2pix", penalties={"r1": r1(gamma=2.0), "orthogonal": orthogonal()})
    drawn = batch()
    params, net_state, found = terms(one, "discriminator", drawn)
    discriminator = one.network("discriminator", "b", params, net_state)
    both = jnp.concatenate([drawn["a"], drawn["b"]], -1)
    slope = jax.grad(lambda x: discriminator(x, train=True, key=KEY).mean((1, 2)).sum())(both)
    np.testing.assert_allclose(values(found, "r1")[1], jnp.square(slope).sum((1, 2, 3)) / 2, rtol=1e-4)
    # CycleGAN adds the penalties of its two discriminators.
    two = game("cyclegan", penalties={"orthogonal": orthogonal()})
    params, _, found = terms(two, "discriminator", drawn)
    expected = sum(orthogonal().function(None, params["discriminator"][d], None, None, KEY) for d in "ab")
    np.testing.assert_allclose(values(found, "orthogonal")[1], expected, rtol=1e-5)


@pytest.mark.slow
def test_augmentation_transforms_source_and_output_alike():
    """An image and its copy stay equal under shifts and colours, and differ under noise."""
    drawn = batch()
    for augment, equal in ((diffaugment(), True), (noise(), False)):
        one = game("pix2pix", augments={"augment": augment})
        _, net_state = jax.jit(one.init)(KEY)
        seen = one._discriminator_input(one.directions[0], drawn, drawn["a"], net_state, KEY, STEP)
        assert bool((seen[..., 0] == seen[..., 1]).all()) is equal
        assert not bool((seen[..., 0] == drawn["a"][..., 0]).all())


# ----------------------------------------------------------------------------------------- gradients and strategies


@pytest.mark.slow
@pytest.mark.parametrize("name", translators.GAMES)
def test_a_shared_translation_gives_the_same_gradients(name):
    """A step that reuses the translations of the discriminator's turn equals a step that computes them again."""
    one = game(name, **({"pool": 2} if name == "cyclegan" else {}))
    optimisers = {player: adam(lr=1e-3) for player in one.players}
    moved = []
    for plays in (one, _unshared(one)):
        setup = TrainSetup(plays, alternating(plays, mean()), optimisers, 0)
        state = init_state(setup)
        for i in range(3):
            state, metrics = jax.jit(setup.step)(state, [batch(2, seed=i)], jax.random.key(i))
        moved.append((state, metrics))
    for a, b in zip(*map(jax.tree.leaves, moved), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)


def _unshared(one):
    class Other(type(one)):
        shares_fakes = False

        def __init__(self):
            self.__dict__ |= vars(one)

    return Other()


@pytest.mark.slow
def test_slices_give_the_gradient_of_the_batch():
    """The examples of pix2pix and CUT do not depend on each other; an image pool couples them."""
    one = game("pix2pix")
    assert not one.coupled and not game("cut").coupled and not game("cyclegan", pool=0).coupled
    assert game("cyclegan").coupled == {"discriminator"}
    params, net_state = jax.jit(one.init)(KEY)

    def loss(own, batch, key):
        return one.loss("generator", params | {"generator": own}, net_state, batch, key, STEP)

    drawn = batch(4)
    whole, parts = (
        jax.jit(lambda own, estimator=estimator: estimator.gradient(loss, own, drawn, KEY))(params["generator"])
        for estimator in (mean(), microbatched(size=2))
    )
    for a, b in zip(*map(jax.tree.leaves, (whole.gradient, parts.gradient)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- the tasks


def test_tasks_translate_row_by_row():
    """The output of a row depends on its image and its key only, for images of any size; dropout is on."""
    one = game("pix2pix", dropout=0.5)
    task = one.tasks["a_to_b"]
    assert task.imitates == "b" and task.pictured == ("a", "b") and task.multiple == 2
    params, net_state = jax.jit(one.init)(KEY)
    x = np.asarray(jax.random.normal(KEY, (3, 12, 6, 1)))
    keys = jax.random.split(KEY, 3)
    found = task.apply(params, net_state, {"a": x}, keys)["b"]
    network = one.network("generator", "a_to_b", params, net_state)
    for i in range(3):
        np.testing.assert_allclose(
            found[i], network(x[i : i + 1], train=True, key=keys[i])[0], rtol=1e-5, atol=1e-6
        )
    again = task.apply(params, net_state, {"a": x[::-1]}, keys[::-1])["b"][::-1]
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-6)
    assert not np.allclose(task.apply(params, net_state, {"a": x}, keys[::-1])["b"], found)


def test_a_cycle_is_the_translation_of_the_translation():
    one = game("cyclegan")
    params, net_state = jax.jit(one.init)(KEY)
    x, keys = np.asarray(jax.random.normal(KEY, (2, 8, 8, 1))), jax.random.split(KEY, 2)
    task = one.tasks["cycle_a"]
    assert list(task.outputs) == ["b", "cycle"] and task.imitates is None and one.tasks["a_to_b"].pictured is None
    whole = task.apply(params, net_state, {"a": x}, keys)
    back = one.tasks["b_to_a"].apply(params, net_state, {"b": whole["b"]}, keys)["a"]
    np.testing.assert_allclose(whole["cycle"], back, rtol=1e-5, atol=1e-6)


def test_the_reach_of_a_cycle_counts_whole_blocks():
    """The second generator reads whole blocks of the first one's outputs: reaches of 3 and 6 count as 4 and 8."""
    one = game("cyclegan")
    one.networks["generator"]["a_to_b"].reach, one.networks["generator"]["b_to_a"].reach = 3, 6
    one.networks["generator"]["b_to_a"].multiple = 4  # the other has 2
    task = one._cycle_task(one.directions[0])
    assert (task.multiple, task.reach) == (4, 12)


def test_pictures_of_the_augmentation_show_the_state_of_b():
    scale = Augment(lambda x, key, step, state: x * state, start=jnp.float32(1))
    one = game("cyclegan", augments={"scale": scale})
    state = {"discriminator": {"augment": {name: {"scale": factor} for name, factor in (("a", 1.0), ("b", 2.0))}}}
    np.testing.assert_array_equal(one.augmented(jnp.ones((1, 8, 8, 1)), state, KEY, STEP), 2)


def test_projections_have_the_initial_weights_of_the_option():
    """Glorot's normal distribution with gain 0.02, or N(0, 0.02^2), over 256 inputs and 256 outputs."""
    for init, std in (("xavier", 0.02 / 256**0.5), ("normal", 0.02)):
        params = game("cut", init=init).init(KEY)[0]["generator"]["projection"]
        (kernel,) = (x for x in jax.tree.leaves(params["out"][0]) if x.ndim == 2)
        assert abs(float(kernel.std()) / std - 1) < 0.02


def test_latents_are_channels_of_noise():
    one = game("pix2pix", latents=2, direction="b_to_a")
    runner = TaskRunner(one, "b_to_a")
    assert runner.drawn == ("latents",) and runner.given == ("b",)
    drawn = one.noise(batch(), KEY)
    assert drawn["latents"].shape == (3, 2)
    seen = one._generator_input(one.directions[0], drawn)
    np.testing.assert_array_equal(seen[..., :1], drawn["b"])
    np.testing.assert_array_equal(seen[1, 3, 4, 1:], drawn["latents"][1])
    params, net_state = jax.jit(one.init)(KEY)
    keys, b = jax.random.split(KEY, 3), drawn["b"]
    made = [
        one.tasks["b_to_a"].apply(params, net_state, {"b": b, "latents": z}, keys)["a"]
        for z in (drawn["latents"], -drawn["latents"])
    ]
    assert not np.allclose(*made)


# ------------------------------------------------------------------------------------------------------- the errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: game("pix2pix", augments={"packing": packing()}), r"augment=\[packing\]: game=pix2pix"),
        (lambda: game("cyclegan", (1, 3)), r"game.identity=0.5: .* a has 1 and b has 3.*game.identity=0\."),
        (lambda: game("cut", (1, 3)), "game.identity=true: .*game.identity=false"),
        (lambda: built(a=Image(8, 8, 1), b=Image(8, 6, 1)), "dataset: .*8 x 8 and 8 x 6.*dataset.resolution"),
        (lambda: built(x=Image(8, 8, 1)), "dataset: game=pix2pix .*features x.*dataset=edges"),
        (lambda: built(a=Vector(2), b=Vector(2)), "dataset: game=pix2pix translates between images"),
        (lambda: built(model=LATENT), "model: game=pix2pix .*model=unet"),
        (lambda: GAN(*other(), lsgan(), {}, {}, "float32"), "model: game=gan .*game=pix2pix"),
        (lambda: VAE(*other(), "float32"), "model: game=vae .*game=pix2pix"),
        (lambda: GAN(other()[0], LATENT, lsgan(), {}, {}, "float32"), "dataset: game=gan .*features a, b"),
        (lambda: built(model=TranslationModel(translators.Generator, Flat)), "model.discriminator: .*per patch"),
        (lambda: built(model=TranslationModel(Coarse, translators.Discriminator)), "model.generator: returns"),
    ],
)  # fmt: skip
def test_errors_name_the_remedy(make, message):
    with pytest.raises(UserError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_gradient_penalty_needs_a_discriminator_without_batch_normalisation(monkeypatch):
    monkeypatch.setattr(translators.Discriminator, "couples_batch", True)
    with pytest.raises(UserError, match=r"penalty.wgan_gp: .*norm=instance"):
        game("cut", penalties={"wgan_gp": wgan_gp()})


LATENT = Model(latent_dim=2, generator=None, discriminator=None)


class Flat(translators.Discriminator):
    """A discriminator without patches."""

    def __call__(self, x, *, train, key):
        return super().__call__(x, train=train, key=key).mean((1, 2))


class Coarse(translators.Generator):
    """A generator that halves the image."""

    def __call__(self, x, *, train, key):
        return super().__call__(x, train=train, key=key)[:, ::2, ::2]


def other():
    return translators.small()


def built(model=None, **spec):
    own, translation = translators.small()
    return translators.GAMES["pix2pix"](spec or own, model or translation, lsgan(), {}, {}, "float32")
