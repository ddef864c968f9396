"""Networks of image translation against PyTorch twins, published parameter counts and their declarations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gan_cli.data.features import Image, Vector
from gan_cli.errors import UserError
from gan_cli.models import patchgan, resnet_translator, translation, unet

KEY = jax.random.key(0)
RGB = Image(256, 256, 3)


def pictures(height=16, width=16, channels=2, n=2):
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (n, height, width, channels)), jnp.float32)


def unet_of(size=16, **options):
    options = {"width": 2, "depth": 3, "dropout": 0.0} | options
    return unet.Generator(Image(size, size, 2), Image(size, size, 3), nnx.Rngs(0), **options)


def resnet_of(size=16, **options):
    options = {"width": 2, "blocks": 2} | options
    return resnet_translator.Generator(Image(size, size, 2), Image(size, size, 3), nnx.Rngs(0), **options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: unet.Generator(RGB, RGB, nnx.Rngs(0)), 54.414),
        (lambda: unet.Generator(Image(128, 128, 3), RGB, nnx.Rngs(0), depth=7), 41.829),
        (lambda: resnet_translator.Generator(RGB, RGB, nnx.Rngs(0)), 11.378),
        (lambda: resnet_translator.Generator(RGB, RGB, nnx.Rngs(0), blocks=6), 7.838),
        (lambda: resnet_translator.Generator(RGB, RGB, nnx.Rngs(0), antialias=True), 11.378),
        (lambda: patchgan.PatchGAN(RGB, nnx.Rngs(0)), 2.765),
        (lambda: patchgan.PatchGAN(RGB.widened(6), nnx.Rngs(0), norm="batch"), 2.769),
        (lambda: patchgan.PatchGAN(RGB.widened(6), nnx.Rngs(0), layers=0, norm="batch"), 0.009),
    ],
    ids=[
        "unet_256",
        "unet_128",
        "resnet_9",
        "resnet_6",
        "resnet_9_antialiased",
        "patchgan",
        "patchgan_of_pix2pix",
        "pixelgan",
    ],
)
def test_published_sizes(make, expected):
    """Millions of parameters that the code of Isola et al., Zhu et al. and Park et al. prints."""
    shapes = nnx.state(nnx.eval_shape(make), nnx.Param)
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 3) == expected


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def twin(layer):
    """The PyTorch layers of a layer, with its weights."""
    import torch

    def tensor(x):
        return torch.tensor(np.asarray(x))

    if isinstance(layer, translation.Conv):
        bias, kernel = layer.linear.bias, tensor(layer.linear.kernel[...])
        options = {
            "kernel_size": layer.kernel,
            "stride": layer.stride,
            "padding": layer.pad,
            "bias": bias is not None,
        }
        if layer.transposed:
            kernel = kernel.permute(3, 2, 0, 1)
            extra = layer.stride + 2 * layer.pad - layer.kernel  # so that height and width exactly double
            made = torch.nn.ConvTranspose2d(kernel.shape[0], kernel.shape[1], output_padding=extra, **options)
        else:
            kernel = kernel.permute(3, 2, 0, 1)
            made = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], **options)
        made.weight.data = kernel.contiguous()
        if bias is not None:
            made.bias.data = tensor(bias[...])
        return made
    if isinstance(layer, translation.BatchNorm):
        made = torch.nn.BatchNorm2d(len(layer.scale[...]))
        made.weight.data, made.bias.data = tensor(layer.scale[...]), tensor(layer.bias[...])
        return made
    if isinstance(layer, translation.BlurredHalving):
        return Blur(torch.tensor([1.0, 2.0, 1.0]) / 4, False)
    if isinstance(layer, translation.BlurredDoubling):
        return Blur(torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4, True)
    if isinstance(layer, resnet_translator.ResidualBlock):
        return Residual(layer)
    return {
        translation.ReflectionPad: lambda: torch.nn.ReflectionPad2d(layer.pad),
        translation.InstanceNorm: lambda: torch.nn.functional.instance_norm,
        translation.Identity: torch.nn.Identity,
        translation.Dropout: torch.nn.Identity,
        translation.Relu: torch.nn.ReLU,
        translation.LeakyRelu: lambda: torch.nn.LeakyReLU(0.2),
    }[type(layer)]()


class Blur:
    """The filters of Zhang (2019): reflection padding before halving, replication padding before doubling."""

    def __init__(self, taps, doubles):
        self.kernel, self.doubles = taps[:, None] * taps[None], doubles

    def __call__(self, x):
        import torch.nn.functional as F

        kernel = self.kernel[None, None].repeat(x.shape[1], 1, 1, 1)
        if not self.doubles:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), kernel, stride=2, groups=x.shape[1])
        y = F.conv_transpose2d(F.pad(x, (1, 1, 1, 1), "replicate"), kernel, stride=2, padding=2, groups=x.shape[1])
        return y[:, :, 1:-1, 1:-1]


class Residual:
    def __init__(self, layer):
        self.parts = [twin(part) for part in layer.stack]

    def __call__(self, x):
        y = x
        for part in self.parts:
            y = part(y)
        return x + y


def randomised(network):
    """The network with biases and scales that differ from their initial values, so that a test notices them."""
    state = nnx.state(network, nnx.Param)
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(KEY, len(leaves))
    leaves = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    nnx.update(network, jax.tree.unflatten(structure, leaves))
    return network


def twin_of_stack(network, x):
    """The outputs of all layers of a network that is a sequence of layers."""
    import torch

    outputs, y = [], torch.tensor(nchw(x))
    with torch.no_grad():
        for layer in network.stack:
            y = twin(layer)(y)
            outputs.append(y)
    return outputs


@pytest.mark.comparison
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("antialias", [False, True])
def test_resnet_equals_its_pytorch_twin(norm, antialias):
    """Outputs and the layers of ``maps``, for images that are not square."""
    network, x = randomised(resnet_of(norm=norm, antialias=antialias)), pictures(12, 20)
    outputs = twin_of_stack(network, x)
    y = network(x, train=True, key=KEY)
    np.testing.assert_allclose(nchw(y), outputs[-1].tanh(), atol=2e-5)
    numbers = (0, 4, 8, 12)
    for number, found in zip(numbers, network.maps(x, numbers, train=True, key=KEY), strict=True):
        np.testing.assert_allclose(nchw(found), outputs[number], atol=1e-4)


@pytest.mark.comparison
@pytest.mark.parametrize(
    "options",
    [
        {"layers": 3, "norm": "instance"},
        {"layers": 2, "norm": "batch"},
        {"layers": 2, "norm": "instance", "antialias": True},
        {"layers": 0, "norm": "batch"},
    ],
)
def test_discriminators_equal_their_pytorch_twins(options):
    network = randomised(patchgan.PatchGAN(Image(28, 36, 2), nnx.Rngs(0), width=2, **options))
    x = pictures(28, 36)
    logits = network(x, train=True, key=KEY)
    np.testing.assert_allclose(logits, twin_of_stack(network, x)[-1][:, 0], atol=2e-5)


@pytest.mark.comparison
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_unet_equals_its_pytorch_twin(norm, depth):
    """The recursive description of Isola et al.: each level joins its input with the output of the level below."""
    import torch
    from torch.nn import functional as F

    network, x = randomised(unet_of(depth=depth, norm=norm)), pictures(16, 48)

    def level(y, i):
        inner = twin(network.downs[i])(y if i == 0 else F.leaky_relu(y, 0.2))
        inner = twin(network.norms[i])(inner)
        if i + 1 < depth:
            inner = level(inner, i + 1)
        made = twin(network.ups[depth - 1 - i])(F.relu(inner))
        if i == 0:
            return made.tanh()
        return torch.cat([y, twin(network.finishes[depth - 1 - i].norm)(made)], 1)

    with torch.no_grad():
        expected = level(torch.tensor(nchw(x)), 0)
    np.testing.assert_allclose(nchw(network(x, train=True, key=KEY)), expected, atol=2e-5)
    normalised = [not isinstance(norm, translation.Identity) for norm in network.norms]
    inner = [False] + [norm != "none"] * (depth - 2) + [False]  # the first and the innermost are not normalised
    assert normalised == inner[:depth]


def test_layers_of_a_unet():
    network, x = unet_of(), pictures()
    image, first, last = network.maps(x, (0, 1, 3), train=True, key=KEY)
    np.testing.assert_array_equal(image, x)
    assert first.shape == (2, 8, 8, 2) and last.shape == (2, 2, 2, 8)


@pytest.mark.parametrize("make", [unet_of, resnet_of])
def test_layers_that_do_not_exist(make):
    with pytest.raises(
        UserError, match=r"^game\.layers: the .* generator.* has no layer 40\. Set game\.layers=\[0,.*\]\."
    ):
        make().maps(pictures(), (0, 40), train=True, key=KEY)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("make", [unet_of, resnet_of])
def test_coupling_of_a_batch(make, norm):
    """``couples_batch`` is true exactly if an output depends on the other images of the batch."""
    network, x = make(norm=norm), pictures()
    graph, state = nnx.split(network)
    together = jax.jit(lambda x: nnx.merge(graph, state, copy=True)(x, train=True, key=KEY))
    alone = jnp.concatenate([together(x[:1]), together(x[1:])])
    assert network.couples_batch == (norm == "batch")
    assert (np.abs(together(x) - alone).max() > 1e-4) == network.couples_batch


def test_dropout_of_a_unet_is_noise_of_the_inner_blocks():
    network, x = unet_of(depth=4, dropout=0.5), pictures()
    assert [finish.dropout.rate for finish in network.finishes] == [0.5, 0.5, 0.5]
    assert [finish.dropout.rate for finish in unet_of(64, depth=6, dropout=0.5).finishes] == [0.5] * 3 + [0.0] * 2
    graph, state = nnx.split(network)

    def outputs(train):
        run = jax.jit(lambda key: nnx.merge(graph, state, copy=True)(x, train=train, key=key))
        return (run(jax.random.key(seed)) for seed in (0, 1))

    one, other = outputs(True)
    assert np.abs(one - other).max() > 1e-4
    np.testing.assert_array_equal(*outputs(False))


@pytest.mark.parametrize("options", [{}, {"antialias": True}], ids=["strided", "antialiased"])
@pytest.mark.parametrize("make", [unet_of, resnet_of])
def test_reach(make, options):
    """Not-a-number spreads from one block of input pixels exactly as far as ``reach`` declares."""
    if make is unet_of and options:
        pytest.skip("a U-Net has no anti-aliasing")
    network = make(norm="none", **options)
    block = network.multiple
    start = block * (2 + -(-network.reach // block))
    x = np.zeros((1, 2 * block, 2 * start + block, 2), np.float32)
    x[:, :, start : start + block] = np.nan
    y = jax.jit(lambda x: network(x, train=True, key=KEY))(x)
    touched = np.flatnonzero(np.isnan(np.asarray(y)).any((0, 1, 3)))
    assert network.reach == max(start - touched.min(), touched.max() - start - (block - 1))


def test_gradients_inside_a_loop():
    """Gradients of padded, filtered and transposed layers are the same inside a scan."""
    kernels, rngs = translation.initialiser("xavier"), nnx.Rngs(0)
    network = nnx.List(
        [
            translation.ReflectionPad(1),
            translation.Conv(2, 3, rngs, kernel=3, init=kernels),
            translation.InstanceNorm(),
            translation.BlurredHalving(),
            translation.Conv(3, 2, rngs, kernel=3, stride=2, pad=1, transposed=True, init=kernels),
            translation.BlurredDoubling(),
        ]
    )
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def gradient(params, x):
        def loss(params):
            stack = nnx.merge(graph, params, rest, copy=True)
            return (translation.run(stack, x[None], train=True, key=KEY)[-1] ** 2).mean()

        return jax.grad(loss)(params)

    x = pictures(8, 6)
    inside = jax.jit(lambda p: jax.lax.scan(lambda carry, x: (carry, gradient(p, x)), 0, x)[1])(params)
    outside = jax.jit(jax.vmap(gradient, (None, 0)))(params, x)
    for a, b in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)


def test_dropout():
    """Half of the values are zero, the others are doubled, and each image has its own mask."""
    x = jnp.ones((3, 8, 8, 64))
    y = np.asarray(jax.jit(lambda x: translation.Dropout(0.5)(x, train=True, key=KEY))(x))
    assert set(np.unique(y)) == {0.0, 2.0} and abs(y.mean() - 1) < 0.05
    masks = y.reshape(3 * 64, 64)  # of all pixels of all images
    assert len(np.unique(masks, axis=0)) == len(masks)


def test_precision_of_the_input_is_kept():
    x = pictures().astype(jnp.bfloat16)
    for network in (
        unet_of(),
        resnet_of(antialias=True),
        patchgan.PatchGAN(Image(16, 16, 2), nnx.Rngs(0), layers=2),
    ):
        graph, state = nnx.split(network)

        def run(x, graph=graph, state=state):
            return nnx.merge(graph, state, copy=True)(x, train=True, key=KEY)

        assert jax.eval_shape(run, x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: unet_of(28),
            r"^model\.generator\.depth=3: .* 28 x 28 .* multiples of 8\. .*depth=2 .*resolution=32",
        ),
        (lambda: unet_of(7), r"^model\.generator\.depth=3: .*\. Set dataset\.resolution=8"),
        (
            lambda: unet_of(7, depth=None),
            r"^model\.generator\.depth=null: .* multiples of 2\. Set dataset\.resolution=8",
        ),
        (lambda: resnet_of(30), r"^model=resnet_translator: .*multiples of 4 .*resolution=32"),
        (lambda: resnet_of(4), r"^model=resnet_translator: .*at least 8.*resolution=8"),
        (
            lambda: patchgan.PatchGAN(Image(16, 20, 3), nnx.Rngs(0)),
            r"^model\.discriminator\.layers=3: .*layers=2\.",
        ),
        (
            lambda: patchgan.PatchGAN(Image(4, 4, 3), nnx.Rngs(0)),
            r"^model\.discriminator\.layers=3: .*layers=0\.",
        ),
        (lambda: patchgan.PatchGAN(Vector(2), nnx.Rngs(0)), r"^model=patchgan: translates images, but .* points"),
    ],
)
def test_unsuitable_sizes(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_depth_null_is_the_deepest():
    assert [unet_of(size, depth=None).multiple for size in (28, 32, 16)] == [4, 32, 16]
