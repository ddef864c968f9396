"""The tables of results. For each table: its runs, the evaluation of their samples, and the values in papers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gan_cli.data import gaussians
from gan_cli.data.dataset import Dataset
from gan_cli.data.mnist5k import mnist5k
from gan_cli.data.scaling import normalise
from gan_cli.data.stacked_mnist import stacked_mnist
from gan_cli.data.tfds import tfds
from gan_cli.metrics import modes
from gan_cli.metrics.classifier import Classifier
from gan_cli.metrics.diversity import Diversity
from gan_cli.metrics.fid import distance, moments
from gan_cli.metrics.nearest_training import nearest_training
from gan_cli.metrics.precision_recall import precision_recall


@dataclass(frozen=True)
class Evaluation:
    """A method that computes the values of a table row from the samples of a run.

    Attributes:
        method: the text for the caption of the table that names the method, e.g. a classifier or the known modes.
        figures: a function that takes samples ``[n, *shape]`` in the range of the networks' output. It returns a
            mapping from the column of each value to the value.
    """

    method: str
    figures: Callable[[np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: the name of the row in the table.
        overrides: the overrides of ``gan-train`` for this row.
        paper: a mapping from columns to the values that a paper reports for the same setup.
        full: further overrides at the size "full".
        own_length: whether the experiment of this row sets the number of steps, whatever the size of the table.
    """

    name: str
    overrides: tuple[str, ...]
    paper: Mapping[str, str] = field(default_factory=dict)
    full: tuple[str, ...] = ()
    own_length: bool = False


@dataclass(frozen=True)
class Size:
    """How long the runs of a table are, and how many runs each row has.

    Attributes:
        overrides: the overrides that set the number of steps or the size of the data.
        seeds: the number of seeds for each row.
        evaluation: the ``evaluation`` of the table at this size. None if it does not depend on the size.
        references: the ``references`` of the table at this size. None if they do not depend on the size.
    """

    overrides: tuple[str, ...]
    seeds: int
    evaluation: Callable[[], Evaluation] | None = None
    references: Callable[[int], Mapping[str, np.ndarray]] | None = None


@dataclass(frozen=True)
class Table:
    """Rows that are trained and evaluated in the same way.

    Attributes:
        title: the title of the table, with its sources.
        columns: the names of the values in the table, in order. The values of a row are those of the evaluation,
            and the metrics that the overrides of the row choose.
        rows: the rows, which are trained and evaluated.
        samples: the number of samples for the evaluation of a run.
        evaluation: a function that returns the ``Evaluation`` of the samples.
        references: a function for the rows without training, such as real data and noise. It takes a number of
            samples, and returns a mapping from the name of each row to its samples.
        sizes: a mapping from "quick" and "full" to sizes. The quick size takes minutes on a CPU. The full size is
            the published setup.
    """

    title: str
    rows: Sequence[Row]
    columns: Sequence[str]
    samples: int
    evaluation: Callable[[], Evaluation]
    references: Callable[[int], Mapping[str, np.ndarray]]
    sizes: Mapping[str, Size]


# ------------------------------------------------------------------------------- the table of the article


def _digits() -> Evaluation:
    """An evaluation by a digit classifier: number and evenness of classes, and Frechet distance to real data."""
    data = mnist5k()
    classifier = Classifier(data)
    real = moments(classifier(_images(data))[0])

    def figures(samples: np.ndarray) -> dict[str, float]:
        features, probabilities = classifier(samples)
        shares = np.bincount(probabilities.argmax(1), minlength=10) / len(samples)
        seen = shares[shares > 0]
        return {
            "classes": float((shares >= 0.025).sum()),
            "evenness": float(-(seen * np.log(seen)).sum() / np.log(10)),
            "distance": distance(moments(features), real),
        }

    return Evaluation(_accuracy(classifier), figures)


def _images(data: Dataset) -> np.ndarray:
    """All training images of a data set, ``[n, height, width, channels]``, with values in [-1, 1]."""
    return np.asarray(normalise(data.take(np.arange(data.size))["x"]))


def _accuracy(classifier: Classifier) -> str:
    return f"a classifier with an accuracy of {classifier.accuracy:.1%} on {classifier.tested_on:,} held-out digits"


def _digit_references(n: int) -> dict[str, np.ndarray]:
    data = mnist5k()
    noise = np.random.default_rng(1).uniform(-1, 1, (n, 28, 28, 1)).astype(np.float32)
    return {"500 held-out digits": _images(data.only_held_out()), "uniform noise": noise}


# The setup of experiment=seed_mlp, whose optimiser is Adam. The evaluation uses the generator's moving average.
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


def _planar(data: Dataset) -> tuple[Evaluation, Callable[[int], dict[str, np.ndarray]]]:
    """The evaluation and the reference samples for a data set of points whose modes are known.

    The references are a function that returns real data and noise by name, from a number of samples.
    """
    assert data.modes is not None
    known, points = data.modes, data.take(np.arange(data.size))["x"]

    def figures(samples: np.ndarray) -> dict[str, float]:
        return modes.coverage(samples, known)

    def references(n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        low, high = points.min(0), points.max(0)
        return {
            "real data": points[rng.permutation(len(points))[:n]],
            "uniform noise": rng.uniform(low, high, (n, 2)).astype(np.float32),
        }

    return Evaluation("the known modes", figures), references


Figures = tuple[str, str]  # the number of modes, and the fraction of high-quality samples


def _plane(name: str, data: Dataset, plain: Figures, packed: dict[int, Figures]) -> Table:
    """The table of a mixture of Gaussians in the plane.

    Args:
        name: the name of the mixture and of its experiment.
        data: the points of the mixture.
        plain: the paper's values for the GAN without packing.
        packed: a mapping from the size of the packs to the paper's values for PacGAN.
    """
    evaluation, references = _planar(data)
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
        lambda: evaluation,
        references,
        {"quick": Size(("train.steps=20000",), 2), "full": Size((), 10)},
    )


def _reported(figures: Figures) -> dict[str, str]:
    return dict(zip(("modes_hit", "quality"), figures, strict=True))


# ------------------------------------------------------------------------------------ a thousand modes


def _stacked() -> Evaluation:
    """An evaluation of images of three digits, one for each channel, with a digit classifier.

    The values are the number of modes that occur, and the KL divergence from the uniform distribution over all
    modes.
    """
    classifier = Classifier(mnist5k())

    def figures(samples: np.ndarray) -> dict[str, float]:
        digits = [classifier(samples[..., colour : colour + 1])[1].argmax(1) for colour in range(3)]
        counts = np.bincount(np.stack(digits, 1) @ (100, 10, 1), minlength=1000)
        shares = counts[counts > 0] / len(samples)
        return {"modes": float((counts > 0).sum()), "kl": float((shares * np.log(1000 * shares)).sum())}

    return Evaluation(_accuracy(classifier), figures)


def _stacked_references(n: int) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).uniform(-1, 1, (n, 28, 28, 3)).astype(np.float32)
    return {"real data": _images(stacked_mnist(size=n)), "uniform noise": noise}


_PACKED = ("experiment=stacked_mnist", "augment=[packing]")

STACKED = Table(
    "Stacked MNIST (the protocol of Srivastava et al. 2017; the figures of Lin et al. 2018, table 2)",
    [
        # The paper of VEEGAN (Srivastava et al. 2017) reports 99 modes and a KL divergence of 3.40.
        Row("DCGAN", ("experiment=stacked_mnist",), {"modes": "78.9", "kl": "4.50"}),
        Row("PacDCGAN2", (*_PACKED, "train.batch_size=128"), {"modes": "1000", "kl": "0.06"}),
    ],
    ("modes", "kl"),
    26_000,
    _stacked,
    _stacked_references,
    {"quick": Size(("train.steps=2000",), 1), "full": Size(("dataset.digits=mnist",), 10)},
)


# ----------------------------------------------------------------------- the effect of the precision on quality

PRECISION = Table(
    "The default GAN in either precision",
    [Row(precision, (f"train.precision={precision}",)) for precision in ("float32", "bfloat16")],
    ("classes", "evenness", "distance"),
    1000,
    _digits,
    _digit_references,
    {"quick": Size(("train.steps=10000",), 3), "full": Size((), 5)},
)

# ------------------------------------------------------------------------------- GAN and VAE with one decoder


References = Callable[[int], dict[str, np.ndarray]]  # samples by the name of the row, from a number of samples


def _generative(data: Callable[[], Dataset]) -> tuple[Callable[[], Evaluation], References]:
    """The evaluation and the references of generated images, for a data set with labels and held-out images.

    Except for the diversity, the values are computed on the features of a classifier of the data.
    """
    loaded = functools.cache(data)

    def both() -> tuple[np.ndarray, np.ndarray]:
        """The training images and the held-out images in random order, because data sets may be sorted by class."""
        shuffle = np.random.default_rng(0).permutation
        return shuffle(_images(loaded())), shuffle(_images(loaded().only_held_out()))

    def evaluation() -> Evaluation:
        classifier, diversity = Classifier(loaded()), Diversity(loaded().spread(128))
        features, held_out = (classifier(images)[0] for images in both())
        expected = moments(features)

        def figures(samples: np.ndarray) -> dict[str, float]:
            found = classifier(samples)[0]
            return {
                "fid": distance(moments(found), expected),
                **precision_recall()(found, features),
                "diversity": diversity(samples),
                "copying": nearest_training()(found, features, held_out)["copying"],
            }

        return Evaluation(_accuracy(classifier), figures)

    def references(n: int) -> dict[str, np.ndarray]:
        real, held_out = both()
        noise = np.random.default_rng(1).uniform(-1, 1, (n, *real.shape[1:])).astype(np.float32)
        return {
            f"{len(held_out):,} held-out digits": held_out,
            "training digits": real[:n],
            "mean training digit": np.broadcast_to(real.mean(0), noise.shape),
            "uniform noise": noise,
        }

    return evaluation, references


# pythae's reproduction of a VAE on binary MNIST: 784-400-40-400-784, batch size 100, Adam with learning rate 1e-4,
# 500 epochs (clementchadebec/benchmark_VAE, examples/scripts/reproducibility/vae.py).
_DECODER = (
    "model=mlp",
    "model.latent_dim=40",
    "model.generator.width=400",
    "model.generator.depth=1",
    "model.generator.activation=relu",
    "train.batch_size=100",
)
_DISCRIMINATOR = ("model.discriminator.width=400", "model.discriminator.depth=1")
_ENCODER = ("model.encoder.width=400", "model.encoder.depth=1", "model.encoder.activation=relu")
_ADAM = ("optim.lr=1e-3", "optim.b1=0.9")
_VAE = (*_DECODER, *_ENCODER, *_ADAM, "game=vae", "game.binarisation=fixed", "metric=[nll]")
_MNIST5K, _MNIST = _generative(mnist5k), _generative(lambda: tfds(name="mnist", version="3.0.1", held_out="test"))

GAN_VS_VAE = Table(
    "GAN and VAE with the decoder 40-400-784 (330,784 parameters). In brackets: pythae on the full MNIST",
    [
        Row("GAN", (*_DECODER, *_DISCRIMINATOR)),
        Row("VAE", _VAE, {"nll": "89.8"}, full=("optim.lr=1e-4",)),
        Row("beta-VAE, beta 4", (*_VAE, "game.beta=4"), full=("optim.lr=1e-4",)),
        Row("VAE-GAN", (*_DECODER, *_ENCODER, *_DISCRIMINATOR, "game=vae_gan")),
    ],
    ("fid", "precision", "recall", "diversity", "nll", "copying"),
    4500,
    *_MNIST5K,
    {
        "quick": Size(("train.steps=6000",), 3),
        "full": Size(("dataset=mnist", "dataset.held_out=test", "train.steps=300000"), 3, *_MNIST),
    },
)

TABLES = {
    "article": ARTICLE,
    "stacked_mnist": STACKED,
    "precision": PRECISION,
    "gan_vs_vae": GAN_VS_VAE,
    "ring": _plane("ring", gaussians.ring(), ("6.3", "0.982"), {2: ("7.9", "0.956")}),
    "grid": _plane("grid", gaussians.grid(), ("17.3", "0.948"), {4: ("24.8", "0.936")}),
}
