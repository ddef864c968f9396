"""What reads the private data beside the noisy gradient, with a verdict for each: the leaks of private training.

A guarantee covers a run only if every value that leaves it is a function of noisy gradients and of public facts.
Each reader of the data is ``ok`` (it does not run, or reads public facts only), ``charged`` (its noise is part of
epsilon) or ``refused`` with the option that mends it. ``gan-train dry_run=true estimator=private`` prints the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax

from gan_cli.augment import Augment
from gan_cli.data import samplers
from gan_cli.data.dataset import Dataset
from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError
from gan_cli.losses import Loss
from gan_cli.penalties import Penalty
from gan_cli.privacy.accounting import Charge

_WIDTH = 24  # of the first column of the list


class Verdict(NamedTuple):
    """A reader of the data, the verdict, and the reason.

    Attributes:
        reader: what reads the data.
        verdict: ``ok``, ``charged`` or ``refused``.
        reason: why the guarantee covers the reader, or would break.
        change: the option that mends a refused reader.
    """

    reader: str
    verdict: Literal["ok", "charged", "refused"]
    reason: str
    change: str = ""

    def line(self) -> str:
        """The verdict as a line of text."""
        change = f" Set {self.change}." if self.change else ""
        return f"{self.reader:<{_WIDTH}}{self.verdict:<9}{self.reason}.{change}"


class Source(NamedTuple):
    """The run of ``init_from``, whose parameters a private run starts with.

    Attributes:
        run: the directory of the run.
        spent: the privacy that the run and the runs before it have spent, or None without private training.
        same_data: whether the run, or a run from which it started in turn, learned from the private data without
            private training. None if this cannot be told.
        learned: the data of the run, for messages.
    """

    run: str
    spent: tuple[Charge, ...] | None
    same_data: bool | None
    learned: str


class Parts(NamedTuple):
    """The parts of a game that may read the data: the loss, the penalties and the augmentations."""

    loss: Loss | None
    penalties: Mapping[str, Penalty]
    augments: Mapping[str, Augment]


class Refused(UserError):
    """The error that epsilon would not cover a reader of the data.

    Attributes:
        verdicts: the verdicts on all readers.
    """

    def __init__(self, message: str, verdicts: list[Verdict]):
        super().__init__(message)
        self.verdicts = verdicts


def verdicts(config: Mapping[str, Any], data: Dataset, parts: Parts, source: Source | None = None) -> list[Verdict]:
    """The verdicts on all readers of the data.

    Args:
        config: the checked configuration of the run.
        data: the data set.
        parts: the loss, the penalties and the augmentations of the game.
        source: the run of ``init_from``, or None.
    """
    return [
        _gradients(config),
        Verdict("other players", "ok", "functions of noisy gradients and of random numbers"),
        *_batches(config, data),
        *_networks(config, parts),
        *_representation(config, data),
        *_evaluation(config),
        *_start(source),
        *_left_out(data),
    ]


def check(found: list[Verdict]) -> None:
    """Raise ``Refused``, whose message names every option to change, if a reader is refused."""
    refused = [one for one in found if one.verdict == "refused"]
    if not refused:
        return
    changes = list(dict.fromkeys(change for one in refused for change in one.change.split()))
    if len(refused) == 1:
        raise Refused(
            f"estimator=private: {refused[0].reader}: {refused[0].reason}. Set {refused[0].change}.", found
        )
    raise Refused(
        f"estimator=private: epsilon would not cover the {', the '.join(one.reader for one in refused)}. Set "
        f"{' '.join(changes)}, as experiment=credit_private and pneumonia_private do "
        "(configs/experiment/credit_private.yaml). dry_run=true prints the reasons.",
        found,
    )


def lines(found: list[Verdict]) -> list[str]:
    """The list of all readers as lines of text, the refused ones first."""
    order = ("refused", "charged", "ok")
    return [one.line() for one in sorted(found, key=lambda one: order.index(one.verdict))]


def _gradients(config: Mapping[str, Any]) -> Verdict:
    options = config["estimator"]
    if options["target_epsilon"] is None and options["noise_multiplier"] is None:
        why = "neither an epsilon nor a noise multiplier says how much noise they carry"
        return Verdict("gradients", "refused", why, "estimator.target_epsilon=3")
    return Verdict("gradients", "charged", "clipped for each example, summed over a Poisson batch, and noised")


def _batches(config: Mapping[str, Any], data: Dataset) -> Iterator[Verdict]:
    target = str(config["sampler"]["_target_"]) if config["sampler"] else "shuffled"
    name = target.rpartition(".")[2]
    if target == f"{samplers.__name__}.{samplers.poisson.__name__}":
        yield Verdict("choice of examples", "ok", "each batch contains each example independently, by a secret key")
    else:
        why = f"sampler={name} chooses examples in a way that the accounting of epsilon does not cover"
        yield Verdict("choice of examples", "refused", why, "sampler=poisson")
    if data.streams:
        yield Verdict(
            "order of streamed data", "refused", "examples are streamed from disk", "dataset.stream=false"
        )
    if config["train"]["ensemble"] is not None:
        why = "each member of an ensemble would spend epsilon on the same data"
        yield Verdict("other members", "refused", why, "train.ensemble=null")


def _networks(config: Mapping[str, Any], parts: Parts) -> Iterator[Verdict]:
    model = config["model"] or {}
    discriminator = model.get("discriminator") or {}
    why = "the gradient of an example would depend on the other examples of the batch"
    if discriminator.get("norm") == "batch":
        yield Verdict("batch statistics", "refused", why, "model.discriminator.norm=layer")
    if discriminator.get("minibatch", "none") != "none":
        yield Verdict("minibatch layer", "refused", why, "model.discriminator.minibatch=none")
    kept = [name for name, one in parts.augments.items() if one.pack == 1 and not jax.tree.leaves(one.start)]
    if len(kept) < len(parts.augments):
        why = "packs and adaptive strengths depend on several examples of a batch"
        yield Verdict("augmentation", "refused", why, f"augment=[{','.join(kept)}]")
    kept = [name for name, one in parts.penalties.items() if not one.couples_batch]
    if len(kept) < len(parts.penalties):
        why = "the penalty of an example depends on the other examples of the batch"
        yield Verdict("penalty", "refused", why, f"penalty=[{','.join(kept)}]")
    if parts.loss is not None and (parts.loss.pairs or parts.loss.couples_batch):
        why = "the generator's loss compares generated with real examples"
        yield Verdict("generator's loss", "refused", why, "loss=nonsaturating")
    if config["game"].get("condition", "none") != "none":
        why = "conditions of generated rows are categories of the real rows of the batch"
        yield Verdict("conditions", "refused", why, "game.condition=none game.log_frequency=false")
    elif model.get("conditional", "none") != "none":
        why = "drawn with equal shares of all classes, or with public ones, and never from the batch"
        yield Verdict("labels of fakes", "ok", why)
    if config["train"]["precision"] != "float32":
        why = "rounding would let the gradient of an example exceed the clipping norm"
        yield Verdict("precision", "refused", why, "train.precision=float32")


def _representation(config: Mapping[str, Any], data: Dataset) -> Iterator[Verdict]:
    private = [name for name, feature in data.spec.items() if not feature.public]
    if not private:
        how = (
            "kinds, ranges and categories of a public schema" if isinstance(data.feature, Table) else "fixed ranges"
        )
        yield Verdict("representation", "ok", how)
    elif isinstance(data.feature, Table):
        why = "ranges, quantiles, categories and shares of the columns are computed from the rows"
        chosen = config["dataset"]
        changes = ["dataset.normalisation=range"] if chosen.get("normalisation") else []
        changes += ["dataset.schema=FILE"] if chosen.get("schema", "") is None else []
        yield Verdict("representation", "refused", why, " ".join(changes) or "dataset=CHOICE")
    else:
        why = (
            f"the feature {private[0]} ({data.spec[private[0]].noun}) holds statistics of the examples. Images, "
            "clips and tables with a schema can be private, series and texts cannot"
        )
        yield Verdict("representation", "refused", why, "dataset=CHOICE")
    if data.duplicates == "drop":
        why = "which examples are left out depends on the other examples"
        yield Verdict("removal of copies", "refused", why, "dataset.duplicates=keep")


def _evaluation(config: Mapping[str, Any]) -> Iterator[Verdict]:
    if config["metric"]:
        why = "figures that compare with the data, and a best checkpoint that they choose, carry no noise"
        yield Verdict("metrics", "refused", why, "metric=none")
    else:
        yield Verdict("metrics", "ok", "none during training; gan-eval reads the data later, outside the guarantee")
    if config["train"]["eigenvalues"]:
        yield Verdict("eigenvalues", "refused", "computed from a batch of the data", "train.eigenvalues=0")


def _start(source: Source | None) -> Iterator[Verdict]:
    if source is None:
        return
    if source.same_data is None:
        why = f"an earlier start of {source.run} cannot be read, and it may have learned from the private data"
        yield Verdict("init_from", "refused", why, "init_from=null")
    elif source.same_data:
        why = f"{source.run}, or a run before it, learned from the same data without private training"
        yield Verdict("init_from", "refused", why, "init_from=null")
    elif source.spent is not None:
        yield Verdict("init_from", "charged", f"the ledger of {source.run} continues")
    else:
        why = f"{source.run} learned from other data ({source.learned}), which you thereby declare public"
        yield Verdict("init_from", "ok", why)


def _left_out(data: Dataset) -> Iterator[Verdict]:
    yield Verdict("losses and logits", "ok", "logged without the terms of real examples")
    yield Verdict("pictures of real data", "ok", "not written")
    yield Verdict("diversity", "ok", "not computed, because it compares samples with real examples")
    yield Verdict("summaries of the data", "ok", "counts of classes, missing values and copies are not stored")
    yield Verdict("hash of the data", "ok", "stored as a keyed hash (HMAC)")
    if data.planted is not None:
        why = f"{len(data.planted.included):,} random examples, which belong to nobody"
        yield Verdict("canaries", "ok", why)
    yield Verdict("number of examples", "ok", f"{data.size:,}, taken to be public")
    held_out = f"{data.held_out_size:,} examples, which training does not read and epsilon does not cover"
    yield Verdict("held-out data", "ok", held_out)
