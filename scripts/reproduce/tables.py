"""The tables of results. For each table: its runs, the evaluation of their samples, and the values in papers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import private
import tabular
import text
import timeseries
import translation
import video
from evaluations import Evaluation, References, Row, Size, Table, data_file

from gan_cli.data import duplicates, gaussians
from gan_cli.data.dataset import Dataset
from gan_cli.data.features import Image
from gan_cli.data.medmnist import medmnist
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
from gan_cli.metrics.train_on_synthetic import compared

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
    "The article's 128-128 GAN on 4,500 digits: optimisers and remedies",
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
    known_modes, points = data.modes, data.take(np.arange(data.size))["x"]

    def figures(samples: np.ndarray) -> dict[str, float]:
        return modes.coverage(samples, known_modes)

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

# ------------------------------------------------------------------------------- X-rays for training a classifier

_SHARES = {"5": 0.05, "10": 0.1, "100": 1.0}  # shares of the real images, by the suffix of the column
_RUNS = 3  # classifiers per value


class _Pneumonia:
    """The evaluation and the references of generated X-rays.

    The folder of pneumoniamnist.npz is the environment variable GAN_CLI_DATA, or the working directory.
    """

    path = data_file("pneumoniamnist.npz")

    @functools.cached_property
    def data(self) -> Dataset:
        return medmnist(path=str(self.path))

    @functools.cached_property
    def by_class(self) -> list[np.ndarray]:
        """The training images of each class."""
        return [self.data.arrays["x"][self.data.arrays["label"] == label] for label in range(2)]

    @functools.cached_property
    def classifier(self) -> Classifier:
        return Classifier(self.data)

    def features(self, stored: np.ndarray) -> np.ndarray:
        return self.classifier(np.asarray(normalise(stored)))[0]

    @functools.cached_property
    def real(self) -> np.ndarray:
        return self.features(self.data.arrays["x"])

    @functools.cached_property
    def validation(self) -> np.ndarray:
        held_out = medmnist(path=str(self.path), held_out="val").held_out
        assert held_out is not None
        return held_out["x"]

    def likeness(self, stored: np.ndarray) -> dict[str, float]:
        """The values of a row that need no labels."""
        found = self.features(stored)
        image = self.data.feature
        assert isinstance(image, Image)
        return {
            "fid": distance(moments(found), moments(self.real)),
            "copied": float(duplicates.copied(stored, self.data.arrays["x"], image).mean()),
            "copying": nearest_training()(found, self.real, self.features(self.validation))["copying"],
        }

    def learnt(self, by_class: Sequence[np.ndarray]) -> dict[str, float]:
        """The values of classifiers that are trained on images of each class, alone and beside real images."""
        labels = np.concatenate([np.full(len(one), label, np.int32) for label, one in enumerate(by_class)])
        fake = {"x": np.concatenate(list(by_class)), "label": labels}
        found = compared(self.data, fake, runs=_RUNS, kinds=["tstr"])
        values = {"auc": found["tstr_auc"], "accuracy": found["tstr_accuracy"]}
        for suffix, share in _SHARES.items():
            with_real = compared(self.data, fake, fraction=share, runs=_RUNS, kinds=["both"])
            values |= {f"auc_{suffix}": with_real["both_auc"], f"accuracy_{suffix}": with_real["both_accuracy"]}
        return values

    def figures(self, samples: np.ndarray) -> dict[str, float]:
        """The values of samples, in which class 0 and class 1 alternate: as many of each class as real images."""
        stored = np.asarray(self.data.feature.decode(samples))
        by_class = [stored[label::2][: len(real)] for label, real in enumerate(self.by_class)]
        return self.likeness(np.concatenate(by_class)) | self.learnt(by_class)

    def evaluation(self) -> Evaluation:
        accuracy = f"{self.classifier.accuracy:.1%} on {self.classifier.tested_on} test images"
        method = f"a classifier with an accuracy of {accuracy}"
        return Evaluation(f"{method}, and {_RUNS} classifiers for each value", self.figures)

    def references(self, n: int) -> dict[str, dict[str, float]]:
        rng = np.random.default_rng(0)
        real: dict[str, float] = {}
        for suffix, share in _SHARES.items():
            found = compared(self.data, self.data.arrays, fraction=share, runs=_RUNS, kinds=["trtr"])
            real |= {f"auc_{suffix}": found["trtr_auc"], f"accuracy_{suffix}": found["trtr_accuracy"]}
        real |= {"auc": real["auc_100"], "accuracy": real["accuracy_100"]}
        gaussian = [_gaussian(one, 20, rng) for one in self.by_class]
        copies = [rng.choice(one[rng.permutation(len(one))[:50]], len(one)) for one in self.by_class]
        rows = {"Gaussian in 20 principal components": gaussian, "50 copied images a class": copies}
        made = {name: self.likeness(np.concatenate(one)) | self.learnt(one) for name, one in rows.items()}
        return {"real images": self.likeness(self.validation) | real, **made}


def _gaussian(images: np.ndarray, components: int, rng: np.random.Generator) -> np.ndarray:
    """As many images as ``images``, uint8, from a Gaussian that is fitted to their first principal components."""
    x = images.reshape(len(images), -1).astype(np.float64)
    mean = x.mean(0)
    _, scales, axes = np.linalg.svd(x - mean, full_matrices=False)
    codes = rng.standard_normal((len(x), components)) * scales[:components] / np.sqrt(len(x) - 1)
    drawn = np.clip(np.rint(codes @ axes[:components] + mean), 0, 255)
    return drawn.astype(np.uint8).reshape(images.shape)


_XRAYS = _Pneumonia()
PNEUMONIA = Table(
    "A conditional GAN of chest X-rays (PneumoniaMNIST), whose images train a classifier",
    [
        Row(
            "experiment=pneumonia",
            ("experiment=pneumonia", f"dataset.path={_XRAYS.path}", "metric=none"),
            own_length=True,
        )
    ],
    (
        "auc",
        "accuracy",
        "fid",
        "auc_5",
        "auc_10",
        "auc_100",
        "accuracy_5",
        "accuracy_10",
        "accuracy_100",
        "copied",
        "copying",
    ),
    2 * 3494,  # the larger class has 3,494 images, and the classes alternate
    _XRAYS.evaluation,
    _XRAYS.references,
    {"quick": Size((), 1), "full": Size((), 3)},
)

TABLES = {
    "pneumonia": PNEUMONIA,
    "article": ARTICLE,
    "stacked_mnist": STACKED,
    "precision": PRECISION,
    "gan_vs_vae": GAN_VS_VAE,
    **translation.TABLES,
    **tabular.TABLES,
    **timeseries.TABLES,
    **private.TABLES,
    **video.TABLES,
    **text.TABLES,
    "ring": _plane("ring", gaussians.ring(), ("6.3", "0.982"), {2: ("7.9", "0.956")}),
    "grid": _plane("grid", gaussians.grid(), ("17.3", "0.948"), {4: ("24.8", "0.936")}),
}

GROUPS = (
    tabular.GROUPS | timeseries.GROUPS | private.GROUPS
)  # the names of several tables by the name of their group
