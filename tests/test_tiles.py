"""Images in tiles equal the same images as a whole, in bounded memory."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from gan_cli.data.features import Image
from gan_cli.engine.state import TrainState
from gan_cli.errors import UserError
from gan_cli.models import resnet_translator, unet
from gan_cli.trained import tiles
from gan_cli.trained.sampling import TaskRunner
from gan_cli.types import Game, Task

A, B = Image(32, 32, 1), Image(32, 32, 2)


class Translating(Game):
    """A game that translates images in training mode, with given networks in sequence, one per output."""

    players = ("generator",)

    def __init__(self, networks, reach=True):
        graphs = [nnx.split(network) for network in networks]
        # Kernels of gain 1 instead of 0.02, so that the outputs have contrasts.
        states = [jax.tree.map(lambda x: 50 * x if x.ndim == 4 else x, state) for _, state in graphs]

        def apply(params, net_state, inputs, keys):
            assert len(keys) == 1
            x, made = inputs["a"], {}
            for i, (graph, _) in enumerate(graphs):
                network = nnx.merge(graph, params["generator"][i], copy=True)
                x = network(x, train=True, key=jax.random.fold_in(keys[0], i))
                made["bcd"[i]] = x
            return made

        outputs = {"bcd"[i]: network.target for i, network in enumerate(networks)}
        multiple = networks[0].multiple
        distance = sum(network.reach for network in networks) if reach else None
        self.tasks = {"a_to_b": Task({"a": A}, outputs, apply, multiple=multiple, reach=distance)}
        self.state = TrainState(
            params={"generator": states},
            opt_state={}, net_state={"generator": {}}, average={}, average_state={}, strategy=(), step=0,
        )  # fmt: skip


def unet_of(source, target, depth=2, **options):
    return unet.Generator(source, target, nnx.Rngs(0), width=2, depth=depth, init="xavier", **options)


def resnet_of(blocks=1, **options):
    return resnet_translator.Generator(A, B, nnx.Rngs(0), width=2, blocks=blocks, init="xavier", **options)


NETWORKS = {
    "shallow": lambda: [unet_of(A, B, norm="batch")],
    "unet": lambda: [unet_of(A, B, norm="batch", depth=3)],
    "resnet": lambda: [resnet_of(norm="instance", antialias=True, dropout=0.5)],
    "cycle": lambda: [unet_of(A, B, norm="instance"), unet_of(B, A, norm="batch", dropout=0.0)],
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("unet", "resnet", "cycle")]


def step_ratio(image, layout):
    """The largest step between neighbouring columns at a border of tiles, divided by the largest elsewhere."""
    steps = np.abs(np.diff(image, axis=2)).max((0, 1, 3))
    borders = sorted({tile.columns[1] - 1 for tile in layout.tiles} - {len(steps)})
    return steps[borders].max() / np.delete(steps, borders).max()


@pytest.mark.parametrize("name", ["shallow", *SLOW])
def test_tiles_equal_the_whole(name, monkeypatch):
    """Tiles see the statistics, and the dropout, of the whole image, so its contrasts may differ between tiles."""
    game = Translating(NETWORKS[name]())
    runner, state = TaskRunner(game, "a_to_b"), game.state
    height, width = 96, 128
    ramp = np.linspace(-1, 1, width) * np.linspace(0, 1, height)[:, None]
    noise = np.random.default_rng(0).uniform(-1, 1, (height, width))
    inputs = {"a": (0.5 * ramp + 0.5 * np.where(ramp > 0.2, noise, 0)).astype(np.float32)[None, :, :, None]}
    whole = runner(state, inputs, seed=3, first=5)
    assert tiles.rows_that_fit(runner, state, height, width) > 0
    channels = tiles._channels(runner, state, height, width)
    limit = tiles._bytes_of_tile(runner, state, (80, 88), channels)
    monkeypatch.setattr(tiles, "memory_limit", lambda: limit)
    assert tiles.rows_that_fit(runner, state, height, width) == 0
    found = tiles.translate(runner, state, inputs, seed=3, number=5)
    layout, _ = tiles._LAYOUTS[runner][height, width, limit]
    assert len(layout.tiles) > 1
    assert found.keys() == whole.keys()
    for output, made in found.items():
        np.testing.assert_allclose(made, whole[output], atol=1e-4)
        assert np.std(made) > 0.2
        assert step_ratio(made, layout) < 1.1


def test_statistics_of_a_tile_alone_would_be_visible():
    """The tiles of the first test differ in contrast, so an image whose tiles are translated alone has borders."""
    game = Translating([unet_of(A, B, norm="instance", dropout=0.0)])
    runner, state = TaskRunner(game, "a_to_b"), game.state
    left = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 1)).astype(np.float32)
    image = np.concatenate([left, 0.1 * left], 2)
    whole = runner(state, {"a": image})["b"]
    alone = runner(state, {"a": image[:, :, 16:]})["b"]
    assert np.abs(whole[:, :, 16:] - alone).max() > 0.3


def test_an_image_that_does_not_fit_is_refused_with_the_size_that_fits(monkeypatch):
    game = Translating([unet_of(A, B, norm="batch")])
    runner = TaskRunner(game, "a_to_b")
    channels = tiles._channels(runner, game.state, 64, 96)
    limit = tiles._bytes_of_tile(runner, game.state, (16, 16), channels)
    monkeypatch.setattr(tiles, "memory_limit", lambda: limit)
    image = {"a": np.zeros((1, 64, 96, 1), np.float32)}
    with pytest.raises(
        UserError, match=r"^an image of 64 x 96 pixels does not fit .* Images of up to about \d+ x \d+"
    ):
        tiles.translate(runner, game.state, image, seed=0, number=0)
    without = Translating([unet_of(A, B, norm="batch")], reach=False)
    with pytest.raises(UserError, match="the reach of its network is unknown"):
        tiles.translate(TaskRunner(without, "a_to_b"), without.state, image, seed=0, number=0)


@pytest.mark.parametrize(("length", "side", "overlap"), [(100, 100, 8), (100, 20, 8), (100, 36, 8), (96, 32, 12)])
def test_parts_of_tiles_cover_an_axis(length, side, overlap):
    found = tiles.axis_tiles(length, side, overlap)
    assert [end for _, _, end in found] == [*[first for _, first, _ in found[1:]], length] and found[0][1] == 0
    for start, first, end in found:
        assert 0 <= start <= length - side and first < end
        assert first - start >= overlap or start == 0
        assert start + side - end >= overlap or start + side == length


def test_statistics_of_parts_equal_those_of_the_whole():
    x = np.random.default_rng(0).normal(3, 2, (100, 4))
    parts = [(np.float32(len(p)), p.mean(0), ((p - p.mean(0)) ** 2).sum(0)) for p in (x[:7], x[7:30], x[30:])]
    mean, var = tiles._merged(parts)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, x.var(0), rtol=1e-6)
