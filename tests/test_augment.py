"""Augmentations of the discriminator's input, on images for which the result is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, Program, loss_value

from gan_cli import augment, transforms
from gan_cli.config.build import experiment
from gan_cli.data.feed import Selection
from gan_cli.engine.state import init_state
from gan_cli.errors import UserError

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(9), (400, 8, 8, 3), minval=-1.0)


def test_shift_moves_whole_pixels_and_fills_with_zeros():
    moved = np.asarray(transforms.shift(IMAGES, KEY, 1 / 4))
    found = set()
    for before, after in zip(np.asarray(IMAGES), moved, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        places = [(i, j) for i in range(5) for j in range(5) if (padded[i : i + 8, j : j + 8] == after).all()]
        assert len(places) == 1
        found.update(places)
    assert len(found) == 25


def test_cut_out_leaves_a_square_of_half_the_side():
    hole = np.asarray(transforms.cut_out(jnp.ones((400, 8, 8, 1)), KEY, 0.5))[..., 0] == 0
    sizes = hole.sum((1, 2))
    assert sizes.max() == 16 and sizes.min() >= 4  # a part of the square may lie outside the image
    for one in hole:
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        assert one.sum() == len(rows) * len(columns) and np.ptp(rows) < 4 and np.ptp(columns) < 4


def test_flips_and_quarter_turns():
    flipped = np.asarray(transforms.flip(IMAGES, KEY))
    mirrored = (flipped == np.asarray(IMAGES)[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (flipped == np.asarray(IMAGES)).all((1, 2, 3))).all() and 150 < mirrored.sum() < 250
    turned = np.asarray(transforms.quarter_turns(IMAGES, KEY))
    which = [(turned == np.rot90(IMAGES, k, (1, 2))).all((1, 2, 3)) for k in range(4)]
    assert np.sum(which, 0).min() == 1 and min(w.sum() for w in which) > 60


def test_colours():
    ones = jnp.ones(400)
    np.testing.assert_allclose(transforms.brightness(IMAGES, 0.3 * ones), IMAGES + 0.3, rtol=1e-6)
    grey = np.asarray(transforms.saturation(IMAGES, 0 * ones))
    np.testing.assert_allclose(grey, np.repeat(np.asarray(IMAGES).mean(3, keepdims=True), 3, 3), atol=1e-6)
    stretched = np.asarray(transforms.contrast(IMAGES, 2 * ones))
    np.testing.assert_allclose(stretched.std((1, 2, 3)), 2 * np.asarray(IMAGES).std((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(stretched.mean((1, 2, 3)), np.asarray(IMAGES).mean((1, 2, 3)), atol=1e-6)


def test_noise_is_annealed_to_nothing():
    change = augment.noise(std=0.5, anneal_steps=100)
    for step, std in ((0, 0.5), (50, 0.25), (100, 0.0), (500, 0.0)):
        np.testing.assert_allclose((change.apply(IMAGES, KEY, step, ()) - IMAGES).std(), std, rtol=0.02)


@pytest.mark.parametrize("name", ["diffaugment", "adaptive"])
def test_gradients_pass_through_the_augmentation(name):
    change = getattr(augment, name)()
    state = {"p": jnp.float32(0.9)} if name == "adaptive" else ()
    slope = jax.grad(lambda x: (change.apply(x, KEY, 0, state) * IMAGES).sum())(IMAGES)
    assert np.isfinite(slope).all() and (np.abs(slope).max((1, 2, 3)) > 0).all()
    again = change.apply(IMAGES, jax.random.key(1), 0, state)
    assert (np.asarray(again) != np.asarray(change.apply(IMAGES, KEY, 0, state))).any((1, 2, 3)).mean() > 0.9


def test_adaptive_brightness_and_contrast_as_in_stylegan2_ada():
    """The matrices compute c (x + b): contrast scales about zero, the middle of [-1, 1], not about the mean."""
    brightness, contrast = augment._ADAPTIVE[3:5]
    brighter = np.asarray(brightness(IMAGES, KEY) - IMAGES)
    stronger = np.asarray(contrast(IMAGES, KEY) / IMAGES)
    for change in (brighter, stronger):
        np.testing.assert_allclose(
            change, np.broadcast_to(change[:, :1, :1, :1], change.shape), rtol=1e-3, atol=1e-5
        )
    assert (stronger > 0).all() and stronger.std() > 0.1


def test_adaptive_strength_follows_the_confidence_of_the_discriminator():
    change = augment.adaptive(target=0.6, examples=1000)
    assert (change.apply(IMAGES, KEY, 0, change.start) == IMAGES).all()
    sure, unsure = jnp.ones(100), jnp.concatenate([jnp.ones(60), -jnp.ones(40)])
    p = change.adapt(change.start, sure)
    np.testing.assert_allclose(p["p"], 0.1)
    np.testing.assert_allclose(change.adapt(p, unsure)["p"], 0.0)
    np.testing.assert_allclose(change.adapt({"p": jnp.float32(1.0)}, sure)["p"], 1.0)


@pytest.mark.parametrize("chosen", ["augment=[adaptive]", "augment=[adaptive,packing]"])
def test_adaptive_strength_is_stored_in_the_state_and_logged(chosen):
    """A batch of 8 examples changes the strength by 8/64, packed or not."""
    options = [chosen, "augment.adaptive.examples=64", "augment.adaptive.target=0.0", "optim.lr=0.01"]
    program = Program(experiment([*TINY, *options]))
    told = [program.run(4)["discriminator/adaptive_p"] for _ in range(3)]
    state = program.state.net_state["discriminator"]["augment"]["adaptive"]["p"]
    told = np.concatenate(told)
    assert told[0] == 0 and told.max() > 0.5
    np.testing.assert_allclose(np.abs(np.diff(told)).max(), 8 / 64, rtol=1e-5)
    assert abs(float(state - told[-1])) in (0, 8 / 64)  # 0 if half of the logits are positive


def test_packing_puts_neighbours_side_by_side():
    images = jnp.arange(4 * 2 * 2 * 3.0).reshape(4, 2, 2, 3)
    packed = augment.packing(size=2).apply(images, KEY, 0, ())
    assert packed.shape == (2, 2, 2, 6)
    for i in range(2):
        np.testing.assert_array_equal(packed[i], np.concatenate([images[2 * i], images[2 * i + 1]], -1))
    points = jnp.arange(12.0).reshape(6, 2)
    np.testing.assert_array_equal(augment.packing(size=3).apply(points, KEY, 0, ()), points.reshape(2, 6))


def test_packed_discriminator_receives_packs():
    e = experiment([*TINY, "augment=[packing]", "augment.packing.size=4"])
    params = e.game.init(KEY)[0]["discriminator"]
    assert jax.tree.leaves(params["blocks"][0]["linear"]["kernel"])[0].shape == (28 * 28 * 4, 8)
    with pytest.raises(UserError, match="multiple of"):
        experiment([*TINY, "augment=[packing]", "augment.packing.size=3"])


def test_augmentation_changes_both_kinds_of_logits_and_the_penalty():
    """Real and fake examples are augmented, and R1 is computed on augmented examples."""
    plain, noisy = (
        experiment([*TINY, "model.discriminator.dropout=0.0", "penalty=[r1]", *more])
        for more in ([], ["augment=[noise]", "augment.noise.std=3"])
    )
    batch = plain.dataset.feed.batch(jax.device_put(plain.dataset.examples), Selection({"": jnp.arange(8)}), KEY)
    found = []
    for e in (plain, noisy):
        params, net_state = e.game.init(KEY)
        found.append(loss_value(e.game, "discriminator", params, net_state, batch, KEY, jnp.int32(0))[1])
    for name in ("real_logits", "fake_logits", "r1"):
        assert found[0][f"discriminator/{name}"] != found[1][f"discriminator/{name}"]


def test_image_augmentations_refuse_points():
    for name in ("diffaugment", "adaptive"):
        with pytest.raises(UserError, match="changes images"):
            experiment([f"augment=[{name}]", "dataset=ring", "model.latent_dim=2"])


def test_shown_images_are_augmented_but_not_packed():
    e = experiment([*TINY, "augment=[diffaugment,packing]"])
    state = init_state(e.setup)
    images = jnp.ones((8, 28, 28, 1))
    shown = e.game.augmented(images, state.net_state, KEY, 0)
    assert shown.shape == images.shape and (np.asarray(shown) != 1).any()
