"""Every YAML file of every group is a choice that trains and has an effect."""

from __future__ import annotations

import itertools
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY, Program, free_programs
from PIL import Image

import gan_cli.data.tfds as tfds_module
from gan_cli.config.build import experiment
from gan_cli.data.scaling import normalise
from gan_cli.engine.state import init_state

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"

# Small networks of image translation.
SMALL_UNET = [
    "model=unet", "model.generator.depth=2", "model.generator.width=4", "model.discriminator.layers=1",
    "model.discriminator.width=4",
]  # fmt: skip
SMALL_RESNET = [
    "model=resnet_translator", "model.generator.blocks=0", "model.generator.width=4",
    "model.discriminator.layers=1", "model.discriminator.width=4",
]  # fmt: skip
# Options that a choice needs in order to run, or in order to differ from another choice: the hinge loss equals the
# Wasserstein loss until a logit leaves [-1, 1].
NARROW = ["model.generator.width=8", "model.discriminator.width=8"]
PIX2PIX = ["game=pix2pix", "dataset=edges", *SMALL_UNET]
CYCLEGAN = ["game=cyclegan", "dataset=digits_styles", *SMALL_UNET]
PAIRS = ["dataset.path={tmp}/pairs", "dataset.load=18", "dataset.resolution=16"]
TABLE = ["dataset=german_credit"]
CTGAN = [*TABLE, "game=ctgan", "sampler=log_frequency"]
SMALL_CLIPS = ["dataset.size=16", "dataset.digit_size=8", "dataset.frames=4"]
TEXT = ["game=text_gan", "dataset=shakespeare", "dataset.length=16", "model=text", *NARROW, "game.pretrain_steps=4"]
NEEDS = {
    ("game", "text_gan"): TEXT,
    ("game", "language_model"): ["dataset=shakespeare", "dataset.length=16", "model=text", *NARROW],
    ("model", "text"): [*TEXT[:3], *TEXT[4:]],
    ("model", "text_cnn"): [*TEXT[:3], *TEXT[4:]],
    ("dataset", "text"): [*TEXT[:1], *TEXT[2:], "dataset.path={tmp}/text.txt"],
    ("dataset", "shakespeare"): [*TEXT[:1], *TEXT[2:]],
    ("dataset", "oracle"): [*TEXT[:1], *TEXT[3:], "dataset.size=16", "dataset.held_out=16"],
    ("experiment", "oracle"): [*NARROW, "dataset.size=16", "dataset.held_out=16", "game.pretrain_steps=4"],
    ("experiment", "shakespeare"): [*NARROW, "dataset.length=16"],
    ("dataset", "table"): ["dataset.path={tmp}/table.csv"],
    ("game", "ctgan"): CTGAN,
    ("sampler", "log_frequency"): CTGAN,
    ("model", "ctgan"): TABLE,
    ("experiment", "table"): NARROW,
    ("experiment", "credit"): NARROW,
    ("experiment", "ctgan"): [*TABLE, *NARROW, "augment.packing.size=2"],
    ("experiment", "tvae"): [*TABLE, "model.generator.width=8", "model.encoder.width=8"],
    ("dataset", "folder"): ["dataset.path={tmp}/images"],
    ("dataset", "medmnist"): ["dataset.path={tmp}/pneumoniamnist.npz"],
    ("dataset", "edges"): PIX2PIX,
    ("dataset", "mosaic"): ["game=pix2pix", *SMALL_UNET],
    ("dataset", "paired"): ["game=pix2pix", *SMALL_UNET, *PAIRS],
    ("dataset", "unpaired"): ["game=cut", "game.identity=false", "game.layers=[0]", *SMALL_UNET, *PAIRS],
    ("dataset", "digits_styles"): CYCLEGAN,
    ("game", "pix2pix"): PIX2PIX,
    ("game", "cyclegan"): CYCLEGAN,
    ("game", "cut"): [*CYCLEGAN[1:], "game.layers=[0,1]"],
    ("model", "unet"): PIX2PIX,
    ("model", "resnet_translator"): [*PIX2PIX[:2], *SMALL_RESNET],
    ("experiment", "pix2pix"): [*SMALL_UNET[1:], *PAIRS],
    ("experiment", "cyclegan"): [*SMALL_RESNET[1:], *PAIRS],
    ("experiment", "cut"): [*SMALL_RESNET[1:], *PAIRS, "game.layers=[0,4]"],
    ("experiment", "horse2zebra"): [*SMALL_RESNET[1:], *PAIRS, "game.layers=[0,4]"],
    ("experiment", "edges"): SMALL_UNET[1:],
    ("experiment", "mosaic"): SMALL_UNET[1:],
    ("experiment", "digits_styles"): SMALL_UNET[1:],
    ("dataset", "series"): ["dataset.path={tmp}/series.csv"],
    ("game", "forecast"): ["dataset=stocks", "model=mlp"],
    ("model", "temporal"): ["dataset=stocks"],
    ("model", "recurrent"): ["dataset=stocks"],
    ("experiment", "series"): ["dataset.path={tmp}/series.csv", *NARROW],
    ("experiment", "sines"): NARROW,
    ("experiment", "stocks"): NARROW,
    ("dataset", "video"): ["dataset.path={tmp}/videos", "dataset.frames=2", "dataset.size=8"],
    ("dataset", "moving_digits"): SMALL_CLIPS,
    ("model", "mocogan"): ["dataset=moving_digits", *SMALL_CLIPS],
    ("experiment", "moving_digits"): [*NARROW, *SMALL_CLIPS],
    ("experiment", "moving_mnist"): [*NARROW, *SMALL_CLIPS],
    ("dataset", "tfds"): ["dataset.name=emnist/letters"],
    ("loss", "hinge"): ["optim.lr=0.05"],
    ("loss", "wgan"): ["optim.lr=0.05"],
    ("augment", "adaptive"): ["augment.adaptive.examples=64", "augment.adaptive.target=0.1"],
    ("strategy", "competitive"): ["optim=sgd", "optim.clip_norm=null"],
    ("estimator", "microbatched"): ["estimator.size=4"],
    ("estimator", "private"): ["estimator.noise_multiplier=1", "sampler=poisson", "metric=none"],
    ("game", "bilinear"): ["experiment=bilinear"],
    ("game", "quadratic"): ["experiment=quadratic"],
    ("game", "dirac_gan"): ["experiment=dirac_gan"],
    ("model", "dirac"): ["dataset=point"],
    ("dataset", "point"): ["model=dirac"],
    ("experiment", "pneumonia_private"): [
        "dataset.path={tmp}/pneumoniamnist.npz",
        "sampler.capacity=24",  # more than the 16 examples of the mock data
        *NARROW,
    ],
    ("experiment", "pneumonia"): ["dataset.path={tmp}/pneumoniamnist.npz", *NARROW],
    # An experiment keeps the size of its networks. These two are deep, and narrow networks compile faster.
    ("experiment", "r3gan"): NARROW,
    ("experiment", "stacked_mnist"): NARROW,
}
# Groups whose choices are tried in a game without networks, which compiles fast, except these choices.
SCALAR = {"optim": {"muon"}, "strategy": set[str]()}
# Choices whose programs take long to compile. The slow tests train them.
LONG = {
    "experiment": {
        *("pix2pix", "cyclegan", "cut", "horse2zebra", "edges", "mosaic", "digits_styles"),
        *("moving_digits", "moving_mnist"),
    },
    "dataset": {"paired", "unpaired", "edges", "mosaic", "digits_styles"},
    "model": {"resnet_translator", "mocogan"},
    "game": {"cyclegan", "cut"},
}
# Choices that train the same parameters by design.
LOGGERS = ("csv", "mlflow", "none", "tensorboard", "wandb")
EQUAL = {("logger", a, b) for a, b in itertools.combinations(LOGGERS, 2)}
EQUAL |= {("experiment", "cut", "horse2zebra")}  # the same settings; horse2zebra names its data
# Choices for games without this part; test_cli.py runs such a game, from tests/configs.
NOT_FOR_GAN = {("model", "none"), ("loss", "none"), ("dataset", "none")}
# Groups that evaluate samples and do not affect training; test_evaluate.py covers them.
EVALUATION = {"metric", "features"}
GROUPS = sorted(
    path.name
    for path in CONFIGS.iterdir()
    if path.is_dir() and path.name not in {"hydra", "hparams_search", "__pycache__", *EVALUATION}
)


def options(group: str, slow: bool) -> list[str]:
    found = sorted(p.stem for p in (CONFIGS / group).glob("*.yaml") if not p.stem.startswith("_"))
    found = [option for option in found if (group, option) not in NOT_FOR_GAN]
    return [option for option in found if (option in LONG.get(group, ())) == slow]


@pytest.fixture
def mock_data(monkeypatch, tmp_path):
    """Folders of images, pairs and videos, files of MedMNIST, a table and a series, and mock TFDS data."""
    rng = np.random.default_rng(0)
    for name, count in (("images", 12), ("pairs/trainA", 12), ("pairs/trainB", 12)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "videos").mkdir()
    for i in range(12):
        first, second = (Image.fromarray(rng.integers(0, 255, (10, 12, 3), np.uint8)) for _ in range(2))
        first.save(tmp_path / "videos" / f"{i}.gif", save_all=True, append_images=[second])
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 255, (16, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.arange(16, dtype=np.uint8)[:, None] % 2
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    values = rng.standard_normal((60, 2)).tolist()
    (tmp_path / "series.csv").write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in values))
    (tmp_path / "text.txt").write_text("a text of a few words. " * 20)
    rows = "".join(f"{rng.normal():.3f},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "table.csv").write_text(f"x,y\n{rows}")
    real_builder = tfds_module._builder

    def builder(tensorflow_datasets, full, directory):
        real = real_builder(tensorflow_datasets, full, directory)
        shape = real.info.features["image"].shape
        pixels = np.random.default_rng(len(full) * 1000 + sum(map(ord, full)))
        records = [{"image": pixels.integers(0, 255, shape, np.uint8), "label": i % 10} for i in range(16)]
        info = types.SimpleNamespace(
            file_format=types.SimpleNamespace(value="array_record"), features=real.info.features, splits=["train"]
        )
        return types.SimpleNamespace(data_path=tmp_path, info=info, as_data_source=lambda split: records)

    monkeypatch.setattr(tfds_module, "_builder", builder)
    return tmp_path


@pytest.mark.parametrize(
    ("group", "slow"),
    [(group, False) for group in GROUPS] + [pytest.param(group, True, marks=pytest.mark.slow) for group in LONG],
)
def test_every_choice_trains_and_differs_from_the_others(group, slow, mock_data):
    """Each choice of a group trains tiny networks, without recompiling, and leads to different parameters.

    All failures are raised together, with a traceback for each choice.
    """
    reached: dict[str, list[np.ndarray]] = {}
    failures: list[Exception] = []
    for i, option in enumerate(options(group, slow), 1):
        try:
            reached[option] = trained(group, option, mock_data)
        except Exception as error:
            error.add_note(f"in {group}={option}")
            failures.append(error)
        if i % 4 == 0:  # the programs of all choices together take gigabytes
            free_programs()
    for a, b in itertools.combinations(reached, 2):
        first, second = reached[a], reached[b]
        same = len(first) == len(second) and all(map(np.array_equal, first, second))
        if same and (group, a, b) not in EQUAL:
            failures.append(AssertionError(f"{group}={a} and {group}={b} train the same parameters"))
    if failures:
        raise ExceptionGroup(f"options of {group}", failures)


def trained(group: str, option: str, folder: Path) -> list[np.ndarray]:
    """The parameters after eight steps with a choice."""
    needs = [o.format(tmp=folder) for o in NEEDS.get((group, option), [])]
    if option not in SCALAR.get(group, {option}):
        needs = ["experiment=bilinear", *needs]
    others = {"model=dirac", "dataset=point", "experiment=bilinear", SMALL_UNET[0], SMALL_RESNET[0]}
    others |= {"model=text", "model=text_cnn"}
    pinned = group == "experiment" or others & {*needs, f"{group}={option}"}
    tiny = [o for o in TINY if not (pinned or needs[:1] == [f"experiment={option}"]) or not o.startswith("model")]
    program = Program(experiment([*tiny, f"{group}={option}", *needs]))
    for _ in range(2):
        metrics = program.run(4)
        for name, values in metrics.items():
            assert values.shape == (4,), name
            assert np.isfinite(values).all(), name
    assert all(program.finite.values())
    assert program.chunk._cache_size() == 1
    return [np.asarray(leaf) for leaf in jax.tree.leaves(program.state.params)]


def test_every_option_of_a_player_has_an_effect():
    """Each option of the networks (norm, dropout, width, depth, activation) and of the optimiser has an effect."""
    base = [*TINY, "optim.decay_steps=8"]
    changes = [
        f"model.{player}.{change}"
        for player in ("generator", "discriminator")
        for change in (
            "norm=batch",
            "norm=layer",
            "norm=spectral",
            "dropout=0.5",
            "width=9",
            "depth=1",
            "activation=tanh",
        )
    ]
    changes += ["optim.clip_norm=0.01", "optim.clip_value=0.001", "optim.weight_clip=0.01", "optim.warmup_steps=2"]
    changes += ["optim.schedule=linear", "optim.schedule=cosine", "strategy.fresh_latents=true"]
    changes += ["optim.schedule=linear optim.lr_end=1e-5", "optim.b2_start=0.9"]
    # The steps are not compiled, because compiling each variant would take longer than running all of them.
    # Schedules have an effect from the second step on.
    flat = {}
    for change in ["seed=0", "strategy=alternating", *changes]:  # the defaults: one step, two
        e = experiment([*base, *change.split()])
        state = init_state(e.setup)
        batch = {"x": normalise(jax.numpy.asarray(e.dataset.examples["x"][:8]))}
        for i in range(1 if change.startswith(("model", "seed")) else 2):
            state, _ = e.setup.step(state, [batch], jax.random.key(i))
        flat[change] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
    for a, b in itertools.combinations(flat, 2):
        assert not (flat[a].shape == flat[b].shape and np.array_equal(flat[a], flat[b])), (
            f"{a} and {b} are the same"
        )


def test_tfds_knows_every_shipped_data_set():
    """The name and version in each shipped file are in the registry of TFDS."""
    import tensorflow_datasets
    from omegaconf import OmegaConf

    checked = 0
    for path in (CONFIGS / "dataset").glob("*.yaml"):
        node = OmegaConf.load(path)
        if node.get("_target_") == "gan_cli.data.tfds.tfds" and not OmegaConf.is_missing(node, "name"):
            builder = tensorflow_datasets.builder_cls(node.name)
            assert node.version in {str(v) for v in [builder.VERSION, *builder.SUPPORTED_VERSIONS] if v}, path.name
            checked += 1
    assert checked >= 4
