"""Private training beside the gradient: accounting, the ledger, the noise key, leaks, and public schemas."""

from __future__ import annotations

import json
import math
import shutil
import stat
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from pyarrow import parquet
from scipy.stats import binom
from test_run import _folder, records, train  # noqa: F401  (a fixture)

import gan_cli
from gan_cli.cli import sample
from gan_cli.cli.eval import main as evaluate
from gan_cli.cli.train import main
from gan_cli.data import table
from gan_cli.data.features import described
from gan_cli.engine import randomness
from gan_cli.engine.state import init_state
from gan_cli.errors import UserError
from gan_cli.estimators import private
from gan_cli.privacy import accounting, noise_key
from gan_cli.privacy.accounting import Charge
from gan_cli.privacy.ledger import Ledger, spent_by
from gan_cli.storage import checkpoints, marks, run_directory

dp = pytest.importorskip("dp_accounting")
PRIVATE = [*TINY, "dataset=ring", "estimator=private", "sampler=poisson", "logger=none"]
NOISY = [*PRIVATE, "estimator.noise_multiplier=2"]


def privacy(directory: Path) -> dict:
    return json.loads((directory / "run.json").read_text())["privacy"]


def by_dp_accounting(facts: dict, interval: float = 1e-3) -> float:
    """The smaller bound of epsilon for one charge, computed with dp-accounting alone."""
    event = dp.PoissonSampledDpEvent(facts["sampling_rate"], dp.GaussianDpEvent(facts["noise_multiplier"]))
    found = []
    for accountant in (dp.rdp.RdpAccountant(), dp.pld.PLDAccountant(value_discretization_interval=interval)):
        found.append(accountant.compose(event, facts["steps"]).get_epsilon(facts["delta"]))
    return min(found)


# ------------------------------------------------------------------------------------------------ accounting


@pytest.mark.parametrize(
    ("batch", "size", "noise", "steps", "rdp", "both"),
    [
        (128, 60_000, 1, 450_000, 9.97, 9.40),  # MNIST of Bie et al. 2023
        (64, 4_500, 1, 5_000, 6.85, 6.30),
        (128, 60_000, 5, 325_000, 0.994, 0.914),  # the coarsest PLD bound, 1.29, exceeds the RDP bound
    ],
)
def test_known_figures(batch, size, noise, steps, rdp, both):
    charges = (Charge(noise, batch / size, steps),)
    assert accounting.rdp_epsilon(charges, 1e-5) == pytest.approx(rdp, abs=0.005)
    found = accounting.epsilon(charges, 1e-5)
    assert found.value == pytest.approx(both, abs=0.005) and found.accountant == "PLD"


def test_noise_for_a_target_is_the_smallest_with_four_digits():
    def charges(noise: float) -> tuple[Charge, ...]:
        return (Charge(noise, 0.02, 1_000),)

    noise = accounting.noise_for(2.0, 1e-5, charges)
    assert (
        accounting.epsilon(charges(noise), 1e-5).value <= 2 < accounting.epsilon(charges(noise * 0.998), 1e-5).value
    )
    assert float(f"{noise:.4g}") == noise
    with pytest.raises(UserError, match="earlier runs"):
        accounting.noise_for(0.1, 1e-5, lambda noise: (Charge(1.0, 0.01, 300), *charges(noise)))


def test_truncated_batches_are_charged_to_delta():
    # An example more among the size examples fills the last row with the same probability or less.
    assert accounting.overflow(800, 100, 120) == pytest.approx(binom.sf(119, 800, 1 / 8), rel=1e-9)
    assert accounting.overflow(800, 100, 801) == 0
    ledger = Ledger(1e-5, 2.0, 1 / 8, per_step=2, overflow=accounting.overflow(800, 100, 184))
    share = 600 * ledger.overflow
    assert 0 < share < 1e-9 and ledger.facts(300)["truncation"] == share
    assert ledger.epsilon(300) == accounting.epsilon((Charge(2.0, 1 / 8, 600),), 1e-5 - share)
    with pytest.raises(UserError, match=r"sampler\.capacity to at least 16\d\."):
        Ledger(1e-5, 2.0, 1 / 8, 2, accounting.overflow(800, 100, 120)).check_capacity(300, 120, 800, 100)


def test_charges_of_several_runs_compose():
    earlier = (Charge(2.0, 0.1, 100), Charge(3.0, 0.05, 200))
    ledger = Ledger(1e-5, 2.0, 0.1, per_step=1, target_epsilon=4.0, earlier=earlier)
    accountant = dp.rdp.RdpAccountant()
    for noise, rate, steps, _ in (*earlier, Charge(2.0, 0.1, 50)):
        accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), steps)
    assert accounting.rdp_epsilon((*earlier, ledger.own(50)), 1e-5) == pytest.approx(accountant.get_epsilon(1e-5))
    last = ledger.last_step(400)
    assert ledger.epsilon(last).value <= 4 < ledger.epsilon(last + 1).value
    assert spent_by({"privacy": json.loads(json.dumps(ledger.facts(50)))}, "run") == (*earlier, ledger.own(50))


# ------------------------------------------------------------------------------------- the ledger of a run


def test_the_ledger_counts_what_the_run_does():
    run = train(*NOISY, "strategy.n_critic=3", "name=a")
    facts = privacy(run.directory)
    _, arrays = checkpoints.load_arrays(run.directory / "checkpoints")
    updates = {name: int(array) for name, array in arrays.items() if name.endswith("count")}
    assert {n for name, n in updates.items() if "discriminator" in name} == {24} == {facts["steps"]}
    assert {n for name, n in updates.items() if "generator" in name} == {8}

    words = noise_key.words_of(
        run.directory, [json.loads((run.directory / "private/noise.key").read_text())["data"]], True
    )
    data = gan_cli.experiment(NOISY).dataset
    order = randomness.stream(noise_key.key_of(words), "order")
    sizes = np.asarray(data.feed.select(order, np.arange(2_000), 8).mask).sum(1)
    assert abs(sizes.mean() - facts["sampling_rate"] * data.size) < 4 * sizes.std() / math.sqrt(2_000)

    assert facts["epsilon"] == pytest.approx(by_dp_accounting(facts), abs=1e-6)
    assert records(run.directory)[-1]["privacy/epsilon"] == facts["epsilon"]
    assert records(run.directory)[0]["privacy/epsilon"] < facts["epsilon"]


@pytest.mark.slow
def test_a_resumed_run_keeps_noise_and_ledger():
    options = [*PRIVATE, "estimator.target_epsilon=1"]
    whole = train(*options, "estimator.reproducible=true", "name=whole")
    run = train(*options, "name=a")
    key = (run.directory / "private/noise.key").read_bytes()
    facts = privacy(run.directory)
    assert facts["noise_multiplier"] == privacy(whole.directory)["noise_multiplier"]
    assert facts["epsilon"] == pytest.approx(1, abs=1e-2) and facts["epsilon"] <= 1

    # A run that was killed after step 8 with a checkpoint of step 4 repeats steps, and does not unspend them.
    shutil.rmtree(run.directory / "checkpoints/8")
    again = train("resume=outputs/a", "train.steps=6")
    assert again.step == 6 and privacy(run.directory) == facts

    # The noise was chosen for 8 steps, so more steps exceed the budget.
    again = train("resume=outputs/a", "train.steps=800")
    assert again.step == 8 and privacy(run.directory) == facts
    assert (run.directory / "private/noise.key").read_bytes() == key
    with pytest.raises(UserError, match=r"estimator\.target_epsilon"):
        train("resume=outputs/a", "estimator.target_epsilon=9")
    with pytest.raises(UserError, match=r"metrics.*metric=none"):
        train("resume=outputs/a", "metric=[fid]", "features=pixels")


@pytest.mark.slow
def test_training_stops_before_the_budget_is_exceeded():
    budget = 1.2
    more = ["train.steps=10000", "train.log_every=100", "train.steps_per_call=100", "train.checkpoint_every=0"]
    run = train(*NOISY, "dataset.size=400", f"estimator.target_epsilon={budget}", *more, "name=a")
    facts = privacy(run.directory)
    assert run.status == "finished" and run.step == facts["steps"] < 10_000
    assert facts["epsilon"] <= budget < by_dp_accounting(facts | {"steps": facts["steps"] + 1})


@pytest.mark.parametrize("strategy", ["alternating", "simultaneous", "optimistic", "extragradient", "lookahead"])
def test_each_noisy_gradient_of_a_strategy_is_charged(strategy, monkeypatch):
    """The noisy gradients of a step, counted while its program is traced, are those that the ledger charges."""
    e, drawn = gan_cli.experiment([*NOISY, f"strategy={strategy}"]), []

    def counted(*arguments):
        drawn.append(arguments)
        return noised(*arguments)

    noised = private._noised
    monkeypatch.setattr(private, "_noised", counted)
    rows = e.train.batch_size + 8
    batch = {"x": jnp.zeros((rows, 2)), "label": jnp.zeros(rows, int), "mask": jnp.ones(rows)}
    jax.eval_shape(e.setup.step, init_state(e.setup), [batch] * e.setup.strategy.batches, jax.random.key(0))
    assert len(drawn) == e.ledger.per_step > 0


def test_a_guarantee_without_worth_is_computed_quickly():
    """RDP alone bounds a large epsilon: the PLD bound would need gigabytes."""
    found = accounting.epsilon((Charge(0.02, 0.1, 3000),), 1e-5)
    assert found.accountant == "RDP" and 100 < found.value < math.inf
    with pytest.raises(UserError, match=r"because the bounds are not that tight\. Set a larger target_epsilon\.$"):
        accounting.noise_for(1e-9, 1e-9, lambda noise: (Charge(noise, 0.5, 10_000),))


@pytest.mark.slow
def test_init_from_continues_the_ledger():
    first = train(*NOISY, "name=first")
    second = train(*NOISY, "train.steps=4", "init_from=outputs/first", "name=second")
    facts, before = privacy(second.directory), privacy(first.directory)
    assert facts["earlier"] == [{name: before[name] for name in Charge._fields}]
    assert before["epsilon"] < facts["epsilon"] < before["epsilon"] + by_dp_accounting(facts)
    resumed = train("resume=outputs/second", "train.steps=8")
    assert privacy(resumed.directory)["earlier"] == facts["earlier"]


@pytest.mark.slow
def test_init_from_a_run_without_privacy():
    plain = [*TINY, "train.steps=4", "dataset=ring", "logger=none"]
    train(*plain, "name=plain")
    train(*plain, "dataset=grid", "init_from=outputs/plain", "name=tuned")
    train(*plain, "dataset=grid", "name=public")
    for source in ("plain", "tuned"):  # the second learned from the same data in its first life
        with pytest.raises(UserError, match=r"init_from.*init_from=null"):
            gan_cli.experiment([*NOISY, f"init_from=outputs/{source}"])
    allowed = gan_cli.experiment([*NOISY, "init_from=outputs/public"])
    assert any("declare public" in one.reason for one in allowed.leaks)
    shutil.rmtree("outputs/plain")
    with pytest.raises(UserError, match="cannot be read"):
        gan_cli.experiment([*NOISY, "init_from=outputs/tuned"])


@pytest.mark.slow
def test_init_from_finds_training_without_privacy_anywhere_before():
    """A run without privacy on the private data, after a private run, and under another path of the data."""
    train(*NOISY, "name=first")
    train(*TINY, "train.steps=4", "dataset=ring", "logger=none", "init_from=outputs/first", "name=tuned")
    with pytest.raises(UserError, match=r"init_from.*learned from the same data"):
        gan_cli.experiment([*NOISY, "init_from=outputs/tuned"])

    Path("schema.yaml").write_text(SCHEMA, encoding="utf-8")
    write_customers(Path("rows.csv"), 0)
    Path("link.csv").symlink_to("rows.csv")
    Path("elsewhere").mkdir()
    shutil.copy("rows.csv", "elsewhere/rows.csv")
    train(*TINY, "train.steps=4", "dataset=table", "dataset.path=rows.csv", "logger=none", "name=plain")
    private = [*NOISY, "dataset=table", "dataset.schema=schema.yaml", "init_from=outputs/plain"]
    for path in ("./rows.csv", "link.csv", "elsewhere/rows.csv"):
        with pytest.raises(UserError, match=r"init_from.*learned from the same data"):
            gan_cli.experiment([*private, f"dataset.path={path}"])


@pytest.mark.slow
def test_steps_are_repeated_with_equal_rounding_only():
    run = train(*NOISY, "name=a")
    shutil.rmtree(run.directory / "checkpoints/8")
    record = run.directory / "run.json"
    facts = json.loads(record.read_text())
    record.write_text(json.dumps(facts | {"devices": ["gpu:0 NVIDIA H200"]}))
    with pytest.raises(UserError, match=r"repeat the steps 5 to 8.*devices \['gpu:0 NVIDIA H200'\] instead of"):
        train("resume=outputs/a")
    assert json.loads(record.read_text())["devices"] == ["gpu:0 NVIDIA H200"]
    record.write_text(json.dumps(facts))
    assert train("resume=outputs/a").step == 8


# ---------------------------------------------------------------------------------- the key, and what is written


def test_the_key_stays_with_training(capsys):
    run = train(*NOISY, "name=a")
    file = run.directory / "private/noise.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    words = [str(word) for word in json.loads(file.read_text())["key"]]
    for other in run.directory.rglob("*"):
        if other.is_file() and other != file:
            assert not any(word.encode() in other.read_bytes() for word in words), other

    shutil.copytree(run.directory, "copy", ignore=shutil.ignore_patterns("private"))
    assert sample.main(["copy", "--num", "4", "--out", "samples.npz"]) == 0
    with pytest.raises(UserError, match="no noise key, so it can sample but not resume"):
        train("resume=copy", "train.steps=12")
    with pytest.raises(UserError, match="drawn for other data"):
        noise_key.words_of(run.directory, ["other"], begun=True)

    # Another run draws another key, also in the directory of a run that was removed.
    left = noise_key.words_of(run.directory, ["other"], begun=False)
    assert [str(word) for word in left] != words
    other = train(*NOISY, "name=b")
    assert other.metrics["discriminator/grad_norm"] != run.metrics["discriminator/grad_norm"]


def test_nothing_that_is_written_reads_the_data():
    run = train(*NOISY, "train.sample_every=8", "dataset=german_credit", "name=a")
    names = {path.name for path in run.directory.rglob("*")}
    assert "real.png" not in names and "8.png" in names
    charged = {name for name in run.metrics if name.startswith("discriminator/")}
    assert charged == {f"discriminator/{one}" for one in ("loss", "grad_norm", "update_ratio")}
    assert "diversity" not in run.metrics
    facts = json.loads((run.directory / "run.json").read_text())
    assert facts["data"]["examples_per_class"] == facts["data"]["notes"] == []
    plain = table.german_credit(normalisation="range").fingerprint()
    assert checkpoints.data_of(run.directory) not in (None, plain)
    columns = json.loads((run.directory / "samples/columns.json").read_text())["columns"]
    assert all("real" not in column for column in columns)


@pytest.mark.slow
def test_a_reproducible_run_has_no_key():
    options = [*NOISY, "estimator.reproducible=true", "train.sample_every=8"]
    runs = [train(*options, f"name={name}") for name in ("a", "b")]
    first, second = (checkpoints.load_arrays(run.directory / "checkpoints")[1] for run in runs)
    assert [name for name in first if (first[name] != second[name]).any()] == []
    assert not (runs[0].directory / "private").exists()
    mark, _ = marks.verify(runs[0].directory / "samples/8.png")
    assert mark["step"] == 8 and mark["seed"] is None and mark["fingerprint"] is None
    assert run_directory.facts(runs[0].directory)["fingerprint"] not in (None, mark["fingerprint"])
    # The difference of two runs with one key would be free of noise, so other options lead to another key.
    keys = {
        tuple(noise_key.words_of_seed(*one)) for one in ((0, "a", "b"), (0, "a", "c"), (0, "c", "b"), (1, "a", "b"))
    }
    assert len(keys) == 4


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (["sampler=shuffled"], "sampler=poisson"),
        (["modules=[toy]", "sampler._target_=toy.poisson"], "sampler=poisson"),
        (["metric=[fid]", "features=pixels"], "metric=none"),
        (["model.discriminator.norm=batch"], "model.discriminator.norm=layer"),
        (["model.discriminator.minibatch=std"], "model.discriminator.minibatch=none"),
        (["augment=[packing]"], "augment=[]"),
        (["penalty=[r1,dragan]"], "penalty=[r1]"),
        (["loss=relativistic"], "loss=nonsaturating"),
        (["train.eigenvalues=4"], "train.eigenvalues=0"),
        (["train.ensemble=2"], "train.ensemble=null"),
        (["train.precision=bfloat16"], "train.precision=float32"),
        (["dataset=german_credit", "dataset.normalisation=quantile"], "dataset.normalisation=range"),
        (["dataset=table", "dataset.path=rows.csv"], "dataset.schema=FILE"),
        (["estimator.noise_multiplier=null"], "estimator.target_epsilon=3"),
    ],
)
def test_leaks_are_refused(change, advice):
    write_customers(Path("rows.csv"), 0)
    with pytest.raises(UserError) as error:
        gan_cli.experiment([*NOISY, *change])
    assert f"Set {advice}." in str(error.value) and "\n" not in str(error.value)


def test_a_plain_experiment_is_told_all_that_must_change(capsys):
    status = main(["experiment=credit", "estimator=private", "dry_run=true"])
    output, error = capsys.readouterr()
    table_ = output.strip().splitlines()
    assert status == 2 and error.count("\n") == 1 and "configs/experiment/credit_private.yaml" in error
    for change in ("estimator.target_epsilon=3", "sampler=poisson", "loss=nonsaturating"):
        assert change in error and sum(change in line for line in table_) == 1
    assert sum(" refused " in line for line in table_) == 3


def test_delta_is_smaller_than_the_share_of_one_example():
    with pytest.raises(UserError, match=r"target_delta=0\.002.*at most 1 / 600"):
        gan_cli.experiment([*NOISY, "dataset.size=600", "estimator.target_delta=0.002"])


@pytest.mark.slow
def test_evaluations_of_a_private_run_stay_in_its_private_folder():
    run = train(*NOISY, "name=a")
    assert evaluate(["outputs/a", "--metrics", "fid", "--features", "pixels", "--num", "50"]) == 0
    (found,) = run_directory.evaluations(run.directory)
    assert "fid" in found["metrics"] and (run.directory / "private/evaluations.json").is_file()
    names = {path.name for path in run.directory.rglob("*")}
    assert not names & {"neighbours.png", "best"} and not (run.directory / "evaluations.json").exists()


# ------------------------------------------------------------------------------- tables of a public schema


SCHEMA = """
columns:
  id: {kind: id}
  age: {kind: integer, low: 0, high: 120}
  income: {kind: continuous, low: 0, high: 1e5, missing: true}
  since: {kind: date, low: "2000-01-01", high: "2030-12-31"}
  city: {kind: categorical, categories: [Bonn, Köln, Trier]}
  churn: {kind: boolean, categories: ["no", "yes"]}
"""


def write_customers(path: Path, seed: int, rows: int = 300) -> None:
    rng = np.random.default_rng(seed)
    lines = ["id,age,income,since,city,churn"]
    for row in range(rows):
        income = "" if rng.random() < 0.1 * seed else f"{rng.normal(3e4 * (1 + seed), 5e3):.2f}"
        city, churn = rng.choice(["Bonn", "Köln"]), rng.choice(["no", "yes"])
        lines.append(
            f"{row},{rng.integers(20, 40 + 10 * seed)},{income},20{10 + seed}-01-0{1 + row % 9},{city},{churn}"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_public_schema_decides_all_of_a_column():
    Path("schema.yaml").write_text(SCHEMA, encoding="utf-8")
    specs = []
    for seed in (0, 1):
        write_customers(Path("rows.csv"), seed)
        data = table.table(path="rows.csv", label="churn", normalisation="range", schema="schema.yaml")
        specs.append(json.dumps(described(data.spec)))
    assert specs[0] == specs[1] and data.feature.public and data.feature.class_shares == (0.5, 0.5)
    restored = data.feature.values(np.asarray(data.feature.encode(data.arrays["x"])))
    kept = np.isnan(data.columns["training"]["income"])
    assert (np.isnan(restored["income"]) == kept).all() and kept.any()
    for name in ("age", "since", "city", "churn"):
        assert (restored[name] == data.columns["training"][name]).all()
    np.testing.assert_allclose(restored["income"][~kept], data.columns["training"]["income"][~kept], rtol=1e-5)


def test_decimal_signs_and_types_come_from_the_schema():
    """One row with a decimal comma, or a missing value in a column of integers, changes no other row."""
    schema = SCHEMA.replace("income: {kind: continuous", "income: {kind: continuous, decimal: ','")
    write_customers(Path("rows.csv"), 0, rows=40)
    text = Path("rows.csv").read_text(encoding="utf-8").replace(",", ";")
    Path("rows.csv").write_text(text.replace(".", ","), encoding="utf-8")
    Path("schema.yaml").write_text(schema, encoding="utf-8")
    commas = table.table(path="rows.csv", normalisation="range", schema="schema.yaml")
    assert commas.columns["training"]["income"].max() > 1_000 and 'decimal: ","' in commas.documents["schema.yaml"]
    Path("schema.yaml").write_text(SCHEMA, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"income has the value .*, which is no number.*schema, e\.g\. add `decimal"
    ):
        table.table(path="rows.csv", normalisation="range", schema="schema.yaml")

    specs = []
    for ages in ([30, 40, 50, 60], [30, 40, 50, None]):
        parquet.write_table(
            pa.table({"age": pa.array(ages, pa.int64() if None not in ages else pa.float64())}), "a.parquet"
        )
        Path("schema.yaml").write_text("columns: {age: {kind: integer, low: 0, high: 99, missing: true}}")
        data = table.table(path="a.parquet", normalisation="range", schema="schema.yaml", hold_out=0.0)
        specs.append(described(data.spec))
    assert specs[0] == specs[1]


def test_a_single_category_is_a_constant_that_samples_keep():
    Path("schema.yaml").write_text(SCHEMA.replace("[Bonn, Köln, Trier]", "[Bonn]"), encoding="utf-8")
    write_customers(Path("rows.csv"), 0)
    Path("rows.csv").write_text(
        Path("rows.csv").read_text(encoding="utf-8").replace("Köln", "Bonn"), encoding="utf-8"
    )
    feature = table.table(path="rows.csv", normalisation="range", schema="schema.yaml").feature
    assert [(one.name, one.kind, one.value) for one in feature.left_out] == [
        ("id", "id", ""),
        ("city", "constant", "Bonn"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  age: {kind: integer, low: 0, high: 120}\n", "", "does not describe the column 'age'"),
        (", high: 120", "", "must state `low` and `high`"),
        (", categories: [Bonn, Köln, Trier]", "", "must list the categories of the column 'city'"),
        ("  id:", "  number:", "the schema has the column 'number'"),
    ],
)
def test_an_incomplete_schema_is_refused(old, new, message):
    Path("schema.yaml").write_text(SCHEMA.replace(old, new), encoding="utf-8")
    write_customers(Path("rows.csv"), 0)
    with pytest.raises(UserError, match=message):
        table.table(path="rows.csv", normalisation="range", schema="schema.yaml")


def test_rows_left_out_are_counted_and_not_described():
    Path("schema.yaml").write_text(SCHEMA.replace("Köln, Trier", "Trier"), encoding="utf-8")
    write_customers(Path("rows.csv"), 0)
    options = ["dataset=table", "dataset.path=rows.csv", "dataset.schema=schema.yaml", "dataset.label=null"]
    data = gan_cli.experiment([*NOISY, *options]).dataset
    missing = 300 - data.size - data.held_out_size
    assert missing > 100 and f"left out  {missing}, for reasons" in "\n".join(data.lines())
    assert "Köln" not in "\n".join(data.lines()) and data.contents()["left_out"] == {}


@pytest.mark.slow
def test_the_way_of_the_owner_of_a_table():
    Path("mine.yaml").write_text(SCHEMA, encoding="utf-8")
    write_customers(Path("mine.csv"), 0, rows=500)
    small = ["train.steps=20", "train.steps_per_call=10", "train.log_every=10", "strategy.n_critic=1"]
    run = train("experiment=credit_private", "dataset=table", "dataset.path=mine.csv", "dataset.schema=mine.yaml",
                "estimator.target_epsilon=3", *small, "name=mine")  # fmt: skip
    assert 2.9 < privacy(run.directory)["epsilon"] <= 3
    assert sample.main(["outputs/mine", "--num", "50", "--out", "synthetic.csv"]) == 0
    lines = Path("synthetic.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id,age,income,since,city,churn" and len(lines) == 51


@pytest.mark.parametrize("experiment", ["credit_private", "pneumonia_private"])
def test_private_experiments_compose(experiment, tmp_path):
    images, labels = np.zeros((400, 28, 28), np.uint8), np.arange(400).reshape(-1, 1) % 2
    arrays = {
        f"{split}_{part}": x
        for split in ("train", "val", "test")
        for part, x in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    more = ["dataset.path=pneumoniamnist.npz"] if experiment == "pneumonia_private" else []
    built = gan_cli.experiment([f"experiment={experiment}", *more])
    target = built.config["estimator"]["target_epsilon"]
    assert 0.98 * target < built.ledger.epsilon(built.train.steps).value <= target
    assert {one.verdict for one in built.leaks} == {"ok", "charged"}
    assert jax.tree.leaves(built.setup.game.reads_data) == [frozenset({"discriminator"})]
