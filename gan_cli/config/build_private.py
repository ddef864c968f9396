"""Private training in a configuration: the run of ``init_from``, the noise for a target epsilon, and the ledger."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_cli.config.check import from_environment
from gan_cli.config.names import encode
from gan_cli.data.dataset import Dataset
from gan_cli.data.samplers import too_large
from gan_cli.engine.state import TrainSetup
from gan_cli.errors import UserError
from gan_cli.estimators import Private
from gan_cli.privacy import accounting
from gan_cli.privacy.leaks import Source
from gan_cli.privacy.ledger import Ledger, spent_by
from gan_cli.storage import checkpoints
from gan_cli.storage.dotted import CHOICE
from gan_cli.storage.run_directory import facts, run_of


def source_of(config: Mapping[str, Any], data: Dataset) -> Source | None:
    """The run of ``init_from`` and its own earlier runs, as far as the private data are concerned. None without.

    Raises:
        UserError: ``init_from`` names no run, or ``run.json`` of a private run does not state its ledger.
    """
    if config["init_from"] is None:
        return None
    try:
        return _traced(Path(config["init_from"]), encode(config)["dataset"], data, frozenset())
    except UserError as error:
        raise UserError(f"init_from={config['init_from']}: {error}") from error


def _traced(path: Path, ours: Mapping[str, Any], data: Dataset, seen: frozenset[Path]) -> Source:
    run = run_of(path)
    record = facts(run)
    spent, theirs = None, record["config"].get("dataset") or {}
    same: bool | None = False
    if "privacy" in record:
        spent = spent_by(record, str(run))
    else:
        # The same file with other options, e.g. another split, has another fingerprint, and a copy another path.
        known = data.fingerprint(), *data.earlier
        same = (
            _choice(ours) == _choice(theirs)
            or (record.get("data") or {}).get("name") == data.name
            or checkpoints.data_of(run) in known
        )
    before = record["config"].get("init_from")
    if before is not None:
        try:
            if run in seen:
                raise UserError(f"{run}: starts from itself.")
            parent = _traced(Path(before), ours, data, seen | {run})
        except UserError:
            parent = Source(before, None, None, "")
        same = same or parent.same_data
        spent = spent or parent.spent
    return Source(str(run), spent, same, str((record.get("data") or {}).get("name", "no data")))


def _choice(dataset: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The choice of a stored group ``dataset`` and the real path of its files, or None without files."""
    path = dataset.get("path")
    if path is not None and "${" in str(path):
        with contextlib.suppress(UserError):
            path = from_environment({"dataset": {"path": path}})["dataset"]["path"]
    return dataset.get(CHOICE, dataset.get("_target_")), None if path is None else os.path.realpath(str(path))


def ledger_of(
    config: Mapping[str, Any],
    options: Private,
    setup: TrainSetup,
    data: Dataset,
    source: Source | None,
    resumes: Path | None,
) -> Ledger:
    """The ledger of a run, with the noise multiplier that ``target_epsilon`` and ``train.steps`` lead to.

    Args:
        config: the checked configuration.
        options: the options of ``estimator=private``.
        setup: the game and the strategy of the run.
        data: the data set.
        source: the run of ``init_from``, or None.
        resumes: the directory of the run to resume, whose earlier charges apply, or None for a new run.

    Raises:
        UserError: delta is too large, the capacity of the batches or the budget is too small, or no noise leads to
            ``target_epsilon``.
    """
    game, strategy, size, batch_size = setup.game, setup.strategy, data.size, config["train"]["batch_size"]
    steps, target = config["train"]["steps"], options.target_epsilon
    players = game.players if game.reads_data is None else game.reads_data
    if options.target_delta > 1 / size:
        raise UserError(
            f"estimator.target_delta={options.target_delta:g}: a run that publishes one of the {size:,} examples "
            f"would keep this guarantee. Set at most 1 / {size:,}, e.g. estimator.target_delta={0.1 / size:.1g}."
        )
    if batch_size > size:
        raise too_large(batch_size, size)
    rows = next(iter(data.feed.samplers(min(batch_size, size)).values())).rows
    earlier = (source.spent or ()) if source is not None else ()
    if resumes is not None:
        earlier = spent_by(facts(resumes), str(resumes))[:-1]

    def ledger(noise: float) -> Ledger:
        return Ledger(
            delta=options.target_delta,
            noise_multiplier=noise,
            sampling_rate=min(batch_size / size, 1.0),
            per_step=sum(strategy.updates[player] for player in players),
            overflow=accounting.overflow(size, batch_size, rows),
            target_epsilon=target,
            earlier=earlier,
        )

    first = ledger(options.noise_multiplier if options.noise_multiplier is not None else 1.0)
    first.check_capacity(steps, rows, size, batch_size)
    if options.noise_multiplier is None:
        assert target is not None  # ``private`` refuses a run without both
        found = accounting.noise_for(
            target, options.target_delta, lambda noise: (*earlier, ledger(noise).own(steps))
        )
        return ledger(found)
    if target is not None and not first.last_step(steps):
        raise UserError(
            f"estimator.target_epsilon={target:g}: the first step would spend {first.epsilon(1).value:.3g}. Set a "
            "larger target_epsilon or noise_multiplier, or estimator.noise_multiplier=null."
        )
    return first


def with_noise(config: dict[str, Any], noise_multiplier: float) -> dict[str, Any]:
    """A copy of the configuration with the noise multiplier. ``run.json`` stores it, so a resumed run keeps it."""
    found = copy.deepcopy(config)
    found["estimator"]["noise_multiplier"] = noise_multiplier
    return found
