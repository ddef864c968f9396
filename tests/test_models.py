"""Layers against their formulas, and networks against the shapes of the data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gan_cli import threefry
from gan_cli.data.features import Image, Vector
from gan_cli.errors import UserError
from gan_cli.models import conv, dcgan, mlp, resnet
from gan_cli.models.layers import BatchNorm, Block, Finish, LayerNorm, dense

X = np.random.default_rng(0).normal(2.0, 3.0, size=(6, 4, 4, 5)).astype(np.float32)
KEY = jax.random.key(0)


def test_batch_norm():
    norm = BatchNorm(5)
    norm.scale[...], norm.bias[...] = jnp.arange(1.0, 6.0), jnp.arange(5.0)
    y = norm(jnp.array(X), train=True)
    mean, var = X.mean((0, 1, 2)), X.var((0, 1, 2))
    expected = (X - mean) / np.sqrt(var + 1e-5) * np.arange(1, 6) + np.arange(5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-5)
    running = norm(jnp.array(X), train=False)
    expected = (X - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5) * np.arange(1, 6) + np.arange(5)
    np.testing.assert_allclose(running, expected, rtol=1e-4, atol=1e-4)


def test_layer_norm_normalises_each_example():
    y = LayerNorm(5)(jnp.array(X), train=True)
    flat = np.asarray(y).reshape(6, -1)
    np.testing.assert_allclose(flat.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(flat.std(1), 1, rtol=1e-4)


def test_spectral_norm_reaches_the_largest_singular_value():
    layer = dense(7, 5, nnx.Rngs(0), init=nnx.initializers.lecun_normal(), spectral=True)
    x = jnp.eye(7)
    for _ in range(100):
        y = layer(x, train=True)
    sigma = np.linalg.svd(np.asarray(layer.kernel[...]), compute_uv=False)[0]
    np.testing.assert_allclose(y, layer.kernel[...] / sigma, rtol=1e-3, atol=1e-4)
    before = layer.u[...]
    layer(x, train=False)
    np.testing.assert_array_equal(layer.u[...], before)


def test_dropout_keeps_the_mean_and_is_off_when_sampling():
    finish = Finish(10, norm="none", activation="relu", dropout=0.3)
    x = jnp.ones((1000, 10))
    y = np.asarray(finish(x, train=True, key=KEY))
    assert set(np.unique(y.round(4))) == {0.0, np.float32(round(1 / 0.7, 4))}
    assert abs((y == 0).mean() - 0.3) < 0.02
    np.testing.assert_array_equal(finish(x, train=False, key=KEY), x)


@pytest.mark.parametrize("p", [0.7, 0.5, 0.123, 0.999])
@pytest.mark.parametrize("shape", [(7,), (64, 33), (3, 5, 5, 9)])
def test_masks_of_dropout_are_those_of_jax(p, shape):
    np.testing.assert_array_equal(threefry.bernoulli(KEY, p, shape), jax.random.bernoulli(KEY, p, shape))


def test_no_bias_before_batch_norm():
    def block(norm):
        options = {"activation": "relu", "dropout": 0.0, "init": nnx.initializers.lecun_normal()}
        return Block(dense, 3, 4, nnx.Rngs(0), norm=norm, **options)

    assert block("batch").linear.bias is None
    assert block("layer").linear.bias is not None


SPECS = {
    "digits": Image(28, 28, 1),
    "colour": Image(32, 32, 3),
    "large": Image(64, 64, 3),
    "points": Vector(2),
}


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "spectral"])
@pytest.mark.parametrize(
    ("family", "data"),
    [
        (mlp, "digits"),
        (mlp, "points"),
        (dcgan, "digits"),
        (dcgan, "colour"),
        (dcgan, "large"),
        (resnet, "digits"),
        (resnet, "colour"),
        (resnet, "large"),
    ],
)
def test_shapes(family, data, norm):
    spec = SPECS[data]

    def run():
        generator = family.Generator(spec, 3, nnx.Rngs(0), width=4, norm=norm)
        discriminator = family.Discriminator(spec, nnx.Rngs(0), width=4, norm=norm)
        fake = generator(jnp.zeros((2, 3)), train=True, key=KEY)
        return fake, discriminator(fake, train=True, key=KEY)

    fake, logits = jax.eval_shape(run)
    assert fake.shape == (2, *spec.shape)
    assert logits.shape == (2,)


def test_sngan_has_the_papers_size():
    """Parameters counted by hand from the tables for 32x32x3 (Miyato et al. 2018, tables 3 and 4)."""
    spec = SPECS["colour"]

    def count(module):
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))

    def conv(k, a, b):
        return k * k * a * b + b

    c = 256
    block = 2 * conv(3, c, c) + conv(1, c, c) + 2 * 2 * c  # two batch normalisations, each a scale and a bias
    generator = 128 * 16 * c + 16 * c + 3 * block + 2 * c + conv(3, c, 3)
    d = 128
    discriminator = conv(3, 3, d) + conv(3, d, d) + conv(1, 3, d)  # the first block
    discriminator += 2 * conv(3, d, d) + conv(1, d, d) + 2 * 2 * conv(3, d, d) + d + 1
    assert count(nnx.eval_shape(lambda: resnet.Generator(spec, 128, nnx.Rngs(0)))) == generator
    assert count(nnx.eval_shape(lambda: resnet.Discriminator(spec, nnx.Rngs(0)))) == discriminator


def test_fused_resampling_equals_the_plain_form():
    """The fused 4x4 forms equal a 3x3 convolution before halving or after doubling, in value and gradient."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((2, 6, 8, 3), (3, 3, 3, 4)))

    def derivatives(f):
        return f(x, kernel), jax.grad(lambda x, k: (f(x, k) ** 3).sum(), (0, 1))(x, kernel)

    pairs = [
        (resnet.conv_then_halve, lambda x, k: resnet.halve(conv.conv(x, k, 1))),
        (resnet.double_then_conv, lambda x, k: conv.conv(resnet.double(x), k, 1)),
    ]
    for fused, plain in pairs:
        for a, b in zip(*map(jax.tree.leaves, (derivatives(fused), derivatives(plain))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(jnp.abs(b).max()))


def test_unbounded_data_have_no_tanh():
    generator = mlp.Generator(SPECS["points"], 2, nnx.Rngs(0))
    assert np.abs(generator(100 * jnp.ones((1, 2)), train=False, key=KEY)).max() > 2


@pytest.mark.parametrize(
    ("shape", "depth"),
    [((28, 30, 1), None), ((30, 30, 1), None), ((28, 28, 1), 3), ((7, 7, 1), None)],
)
def test_dcgan_refuses_unsuitable_shapes(shape, depth):
    with pytest.raises(UserError, match="dcgan"):
        dcgan.Generator(Image(*shape), 3, nnx.Rngs(0), depth=depth)


def test_convolutional_networks_refuse_points():
    with pytest.raises(UserError, match="generates images, but the examples of the data set are points"):
        dcgan.Generator(Vector(2), 3, nnx.Rngs(0))


def test_minibatch_features():
    """Identical examples have no spread and are close to each other; for distant examples the opposite holds."""
    from flax import nnx

    from gan_cli.models.layers import Minibatch

    alike, strangers = jnp.ones((5, 7)), 1e3 * jax.random.normal(jax.random.key(0), (5, 7))
    std = Minibatch("std", 7, nnx.Rngs(0))
    np.testing.assert_allclose(std(alike)[:, 7], 1e-4, rtol=1e-3)
    np.testing.assert_allclose(std(strangers)[:, 7], np.asarray(strangers).std(0).mean(), rtol=1e-4)
    near = Minibatch("discrimination", 7, nnx.Rngs(0))
    np.testing.assert_allclose(near(alike)[:, 7:], 4, rtol=1e-5)
    assert near(strangers).shape == (5, 107) and near(strangers)[:, 7:].max() < 0.1
    assert Minibatch("none", 7, nnx.Rngs(0))(alike) is alike
    # The formula, in which the columns initially have length 1 for any number of features.
    many, x = Minibatch("discrimination", 300, nnx.Rngs(0)), np.random.default_rng(0).normal(size=(4, 300))
    columns = np.asarray(many.projection[...])
    for length in (1.0, 0.5):
        many.log_length[...] = jnp.full(500, np.log(length))
        points = length * (x @ (columns / np.linalg.norm(columns, axis=0))).reshape(4, 100, 5)
        expected = np.exp(-np.abs(points[:, None] - points[None]).sum(-1)).sum(1) - 1
        np.testing.assert_allclose(many(jnp.asarray(x, jnp.float32))[:, 300:], expected, rtol=1e-3)


def test_maxout_is_the_largest_of_its_pieces():
    """|x| = max(x, -x) is a maxout unit of two pieces (Goodfellow et al. 2013, figure 1)."""
    from flax import nnx

    from gan_cli.models.pacgan import Discriminator

    network = Discriminator(Vector(1), nnx.Rngs(0), width=1, depth=1, pieces=2)
    network.layers[0].kernel[...] = jnp.array([[1.0, -1.0]])
    network.out.kernel[...] = jnp.ones((1, 1))
    x = jnp.array([[-2.0], [0.5]])
    np.testing.assert_allclose(network(x, train=True, key=jax.random.key(0)), [2.0, 0.5])


def test_grouped_convolution_and_resampling_of_r3gan():
    from jax import lax

    from gan_cli.models import r3gan

    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 12))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 6))
    native = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    )
    np.testing.assert_allclose(r3gan._grouped(x, kernel), native, rtol=1e-4, atol=1e-4)
    # Doubling is linear interpolation, except at the edge, which is padded with zeros. Halving is a quarter of the
    # adjoint of doubling.
    larger = jax.image.resize(x, (2, 16, 16, 12), "linear")
    np.testing.assert_allclose(r3gan.double(x)[:, 1:-1, 1:-1], larger[:, 1:-1, 1:-1], rtol=1e-4, atol=1e-5)
    y = jax.random.normal(jax.random.key(2), (2, 4, 4, 12))
    np.testing.assert_allclose((r3gan.halve(x) * y).sum(), (x * r3gan.double(y)).sum() / 4, rtol=1e-4)


def test_r3gan_has_as_many_parameters_as_its_authors_networks():
    """The counts are from the authors' code with its CIFAR-10 options (width 768, 2 blocks a stage, 96 groups)."""
    from flax import nnx

    from gan_cli.models.r3gan import Discriminator, Generator

    spec, options = Image(32, 32, 3), {"width": 768, "blocks": 2, "expansion": 2, "groups": 96}
    for make, expected in (
        (lambda: Generator(spec, 64, nnx.Rngs(0), **options), 20_732_160),
        (lambda: Discriminator(spec, nnx.Rngs(0), **options), 20_683_776),
    ):
        shapes = nnx.state(nnx.eval_shape(make), nnx.Param)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_r3gan_blocks_start_as_the_identity():
    """The last kernel of each block is initialised to zero."""
    from flax import nnx

    from gan_cli.models.r3gan import Discriminator, ResidualBlock

    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 8))
    block = ResidualBlock(8, 2, 4, 6, nnx.Rngs(0))
    np.testing.assert_array_equal(block(x, train=True), x)
    images = jnp.ones((3, 28, 28, 1))
    assert Discriminator(Image(28, 28, 1), nnx.Rngs(0), width=8)(
        images, train=True, key=jax.random.key(0)
    ).shape == (3,)
