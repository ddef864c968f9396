"""The tables: what is trained, how it is judged, and what the papers report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gan_cli.data import gaussians
from gan_cli.data.dataset import Dataset
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.scaling import normalise
from gan_cli.data.stacked_mnist import stacked_mnist
from gan_cli.metrics import modes
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.fid import distance, moments

Judge = Callable[[np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Row:
    """One line: its name, overrides of the command line, and what a paper reports for it, by metric.

    ``own_length`` says that it trains as long as its experiment does, whatever the table's size.
    """

    name: str
    overrides: tuple[str, ...]
    paper: Mapping[str, str] = field(default_factory=dict)
    own_length: bool = False


@dataclass(frozen=True)
class Size:
    """How long, and with how many seeds."""

    overrides: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class Table:
    """Rows that are trained and judged alike.

    Attributes:
        title: what it is, with the papers' sources.
        columns: the metrics shown, in order.
        samples: how many samples a run is judged on.
        judge: makes the function from samples to metrics.
        references: samples that need no training, by name: the real data, and noise.
        sizes: quick, for a CPU in minutes, and full, as published.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[str]
    samples: int
    judge: Callable[[], tuple[Judge, str]]
    references: Callable[[int], Mapping[str, np.ndarray]]
    sizes: Mapping[str, Size]


# ------------------------------------------------------------------------------------- the article's


def _digits() -> tuple[Judge, str]:
    data = mnist5k()
    classifier = Classifier(data)
    real = moments(classifier(np.asarray(normalise(data.take(np.arange(data.size))["examples"])))[0])

    def judge(samples: np.ndarray) -> dict[str, float]:
        features, probabilities = classifier(samples)
        shares = np.bincount(probabilities.argmax(1), minlength=10) / len(samples)
        seen = shares[shares > 0]
        return {
            "classes": float((shares >= 0.025).sum()),
            "evenness": float(-(seen * np.log(seen)).sum() / np.log(10)),
            "distance": distance(moments(features), real),
        }

    return judge, f"a classifier that names {classifier.accuracy:.1%} of 500 held-out digits right"


def _digit_references(n: int) -> dict[str, np.ndarray]:
    data = mnist5k()
    assert data.held_out is not None
    noise = np.random.default_rng(1).uniform(-1, 1, (n, 28, 28, 1)).astype(np.float32)
    return {"500 held-out digits": np.asarray(normalise(data.held_out)), "uniform noise": noise}


# As experiment=seed_mlp, whose optimiser is Adam's, but that the moving average is judged.
_ARTICLE = ("model=mlp", "model.latent_dim=100", "model.discriminator.dropout=0", "strategy=simultaneous")
_OPTIMISERS = {"sgd": ("optim.lr=0.05",), "momentum": ("optim.lr=0.02", "optim.momentum=0.5"), "adam": ()}
_HELP = {
    "none": (),
    "gradient clipping": ("optim.clip_norm=1",),
    "batch normalisation": ("model.generator.norm=batch", "model.discriminator.norm=batch"),
    "dropout": ("model.discriminator.dropout=0.3",),
}

ARTICLE = Table(
    "The article's 128-128 GAN on 4,500 digits: optimisers and what helps them",
    [
        Row(f"{optimiser}, {help_}", (*_ARTICLE, f"optim={optimiser}", "optim.clip_norm=null", *rate, *more))
        for optimiser, rate in _OPTIMISERS.items()
        for help_, more in _HELP.items()
    ],
    ("classes", "evenness", "distance"),
    1000,
    _digits,
    _digit_references,
    {
        "quick": Size(("train.steps=10000",), 5),
        "full": Size(("train.steps=40000",), 5),
    },
)


# ------------------------------------------------------------------------------ modes in the plane


def _planar(
    data: Dataset,
) -> tuple[Callable[[], tuple[Judge, str]], Callable[[int], dict[str, np.ndarray]]]:
    assert data.modes is not None
    known, points = data.modes, np.asarray(data.examples)

    def judge(samples: np.ndarray) -> dict[str, float]:
        return modes.coverage(samples, known)

    def references(n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        low, high = points.min(0), points.max(0)
        return {
            "real data": points[rng.permutation(len(points))[:n]],
            "uniform noise": rng.uniform(low, high, (n, 2)).astype(np.float32),
        }

    return lambda: (judge, "the known modes"), references


Figures = tuple[str, str]  # modes, and the share of high quality


def _plane(name: str, data: Dataset, plain: Figures, packed: dict[int, Figures]) -> Table:
    judge, references = _planar(data)
    protocol = (f"experiment=pacgan_{name}",)
    rows = [Row("GAN (PacGAN's protocol)", (*protocol, "augment=none", "train.batch_size=100"), _reported(plain))]
    rows += [
        Row(
            f"PacGAN{size}",
            (*protocol, f"augment.packing.size={size}", f"train.batch_size={100 * size}"),
            _reported(figures),
        )
        for size, figures in packed.items()
    ]
    rows.append(Row(f"experiment={name}", (f"experiment={name}",), own_length=True))
    return Table(
        f"The {name} of Gaussians (Srivastava et al. 2017; the protocol and figures of Lin et al. 2018, table 1)",
        rows,
        ("modes_hit", "modes", "quality", "divergence"),
        2500,
        judge,
        references,
        {"quick": Size(("train.steps=20000",), 2), "full": Size((), 10)},
    )


def _reported(figures: Figures) -> dict[str, str]:
    return dict(zip(("modes_hit", "quality"), figures, strict=True))


# ------------------------------------------------------------------------------------ a thousand modes


def _stacked() -> tuple[Judge, str]:
    classifier = Classifier(mnist5k())

    def judge(samples: np.ndarray) -> dict[str, float]:
        named = [classifier(samples[..., colour : colour + 1])[1].argmax(1) for colour in range(3)]
        counts = np.bincount(np.stack(named, 1) @ (100, 10, 1), minlength=1000)
        shares = counts[counts > 0] / len(samples)
        return {"modes": float((counts > 0).sum()), "kl": float((shares * np.log(1000 * shares)).sum())}

    return judge, f"a classifier that names {classifier.accuracy:.1%} of 500 held-out digits right"


def _stacked_references(n: int) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).uniform(-1, 1, (n, 28, 28, 3)).astype(np.float32)
    real = stacked_mnist(size=n)
    return {"real data": np.asarray(normalise(real.take(np.arange(n))["examples"])), "uniform noise": noise}


_PACKED = ("experiment=stacked_mnist", "augment=[packing]")

STACKED = Table(
    "Stacked MNIST (the protocol of Srivastava et al. 2017; the figures of Lin et al. 2018, table 2)",
    [
        Row("DCGAN", ("experiment=stacked_mnist",), {"modes": "78.9", "kl": "4.50"}),  # VEEGAN's paper: 99, 3.40
        Row("PacDCGAN2", (*_PACKED, "train.batch_size=128"), {"modes": "1000", "kl": "0.06"}),
    ],
    ("modes", "kl"),
    26_000,
    _stacked,
    _stacked_references,
    {"quick": Size(("train.steps=2000",), 1), "full": Size(("dataset.digits=mnist",), 10)},
)


# ------------------------------------------------------------------------- what precision costs in quality

PRECISION = Table(
    "The default GAN in either precision",
    [Row(precision, (f"train.precision={precision}",)) for precision in ("float32", "bfloat16")],
    ("classes", "evenness", "distance"),
    1000,
    _digits,
    _digit_references,
    {"quick": Size(("train.steps=10000",), 3), "full": Size((), 5)},
)

TABLES = {
    "article": ARTICLE,
    "stacked_mnist": STACKED,
    "precision": PRECISION,
    "ring": _plane("ring", gaussians.ring(), ("6.3", "0.982"), {2: ("7.9", "0.956")}),
    "grid": _plane("grid", gaussians.grid(), ("17.3", "0.948"), {4: ("24.8", "0.936")}),
}
