"""Samples of tables: files, conditions, balance, charts of training, and the report."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import TINY
from PIL import Image
from scipy.stats import contingency, pearsonr

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.report import main as gan_report
from gan_cli.cli.sample import main as gan_sample
from gan_cli.data.table import table as load
from gan_cli.data.tables import conditions
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError
from gan_cli.views import tables
from gan_cli.views.associations import associations

CITIES = ["Köln, Süd", 'the "Hill"', "Bad\nHomburg", ""]
NAMES = ["client", "Größe", "city", "since", "paid", 'kind "x"', "start", "end", "land"]


def awkward(path: Path) -> Path:
    """A file with a byte-order mark, quotes, commas, line breaks, umlauts, empty fields, an id and a constant."""
    rng = np.random.default_rng(0)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(NAMES)
    for i in range(300):
        start = int(rng.integers(0, 50))
        writer.writerow([
            f"K-{i:05d}", f"{rng.normal(170, 9):.1f}" if rng.random() < 0.8 else "", rng.choice(CITIES),
            f"{rng.integers(1, 28):02d}.{rng.integers(1, 13):02d}.{rng.integers(2000, 2020)}",
            rng.choice(["yes", "no"], p=(0.3, 0.7)), rng.choice(["a", "b"]), start,
            start + int(rng.integers(0, 20)), "DE",
        ])  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + file.getvalue().encode())
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A conditional run with a constraint, three steps long."""
    root = tmp_path_factory.mktemp("tables")
    path = awkward(root / "clients.csv")
    (root / "schema.yaml").write_text("constraints: [start <= end]\n")
    before = Path.cwd()
    os.chdir(root)
    try:
        trained = gan_cli.train(
            [
                *TINY, "dataset=table", f"dataset.path={path}", "dataset.label=paid", "name=run", "metric=[]",
                f"dataset.schema={root / 'schema.yaml'}", "model.conditional=concat", "train.sample_every=4",
                "train.steps=8", "train.report=true",
            ],
            quiet=True,
        )  # fmt: skip
    finally:
        os.chdir(before)
    return root / trained.directory


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(run: Path, *arguments: str, out: str = "s.csv") -> list[dict[str, str]]:
    assert gan_sample([str(run), f"--out={out}", *arguments]) == 0
    with Path(out).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_have_the_columns_of_the_original(run):
    """A sampled file is read with the same kinds of columns, order, ranges and left-out columns as the original."""
    sampled = rows(run)
    assert len(sampled) == 240  # the training rows: 20 % of 300 are held out
    assert list(sampled[0]) == NAMES and {row["land"] for row in sampled} == {"DE"}
    assert [row["client"] for row in sampled[:2]] == ["K-00000", "K-00001"]
    assert {row["city"] for row in sampled} <= {*CITIES}
    assert all(int(row["start"]) <= int(row["end"]) for row in sampled)
    before, after = (load(path=str(path)) for path in (run.parent.parent / "clients.csv", Path("s.csv").resolve()))
    assert kinds(after.feature) == kinds(before.feature)
    assert [one.kind for one in after.feature.left_out] == ["id", "constant"]
    assert gan_sample([str(run), "--out=s.parquet"]) == 0
    parquet = pa.parquet.read_table("s.parquet").to_pylist()
    assert [row["city"] or "" for row in parquet] == [row["city"] for row in sampled]
    assert gan_sample([str(run), "--out=s.npz"]) == 0
    arrays = np.load("s.npz")
    assert arrays["start"].dtype == np.int64 and arrays["since"].dtype == np.dtype("datetime64[s]")
    assert arrays["city"].tolist() == [row["city"] for row in sampled]


def kinds(table: Table) -> list[tuple[object, ...]]:
    return [(one.name, one.kind, one.missing, one.format) for one in table.columns]


def test_rows_depend_on_the_seed_and_their_number(run):
    """The first rows of a seed are the same for every number of rows, also with conditions and balance."""
    for arguments in ([], ["--balance=city", "--where=since>=2010-01-01"]):
        few, many = (rows(run, f"--num={n}", *arguments) for n in (5, 9000 if not arguments else 40))
        assert few == many[:5]
    assert few != rows(run, "--num=5", "--seed=1", *arguments)


def test_where(run, capsys):
    sampled = rows(run, "--num=30", "--where=since>=2010-01-01", "--where=Größe=", "--where=paid=yes")
    assert len(sampled) == 30
    for row in sampled:
        assert datetime.strptime(row["since"], "%d.%m.%Y") >= datetime(2010, 1, 1)
        assert row["Größe"] == "" and row["paid"] == "yes"
    said = capsys.readouterr().out
    assert "condition paid=yes: by the class input" in said
    assert "condition since>=2010-01-01: by rejection" in said and "% of 8,192 generated rows" in said
    assert {row["city"] for row in rows(run, "--num=30", "--where=city=Köln, Süd")} == {"Köln, Süd"}
    assert {row["paid"] for row in rows(run, "--num=9", "--class=yes")} == {"yes"}


def test_balance(run):
    assert Counter(row["paid"] for row in rows(run, "--num=31", "--balance=paid")) == {"no": 16, "yes": 15}
    sampled = rows(run, "--num=31", "--balance=city", "--where=start>3")
    assert sorted(Counter(row["city"] for row in sampled).values()) == [10, 10, 11]
    assert [row["city"] for row in sampled[:3]] == [row["city"] for row in sampled[3:6]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where=paid=maybe"], "never saw the category 'maybe'"),
        (["--where=Paid=yes"], "no column 'Paid'. Did you mean 'paid'?"),
        (["--where=start"], "is no condition"),
        (["--where=city<3"], "have no order"),
        (["--where=start>900"], "no row meets the condition, because the values of start are from"),
        (["--where=start=3.5"], "have 0 decimals"),
        (["--where=start="], "no value of the column start is missing"),
        (["--where=since>soon"], "is no date"),
        (["--where=start>=40", "--where=end<=12"], "none of 262,144 generated rows meets the condition"),
        (["--where=start<10", "--where=start>20"], "no value of start meets both"),
        (["--where=paid=yes", "--where=paid=no"], "no value of paid meets both"),
        (["--balance=paid", "--where=paid=no"], "excludes the category yes"),
        (["--balance=start"], "are numbers"),
        (["--class=yes", "--where=paid=no"], "determines paid already"),
        (["--out=folder"], "are rows of a table"),
        (["--draw=interpolation", "--out=s.png"], "needs images"),
    ],
)
def test_wrong_input(run, arguments, message, capsys):
    assert gan_sample([str(run), "--num=5", "--out=s.csv", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


COLUMNS = (
    Column("a", "integer", low=0.0, high=9.0, decimals=0, missing=True, points=(0.0, 9.0), cumulative=(0.0, 1.0)),
    Column("a=b", "categorical", ("x", "=y", ">z"), missing=True),
    Column("day", "date", format="%d.%m.%Y", points=(0.0, 1.0), cumulative=(0.0, 1.0)),
    Column("price", "continuous", decimal=","),
)


def test_conditions_compare_values():
    a = np.array([1, 2, math.nan, 9])
    for text, expected in (
        ("a=2", [0, 1, 0, 0]), ("a != 2", [1, 0, 1, 1]), ("a<=2", [1, 1, 0, 0]), ("a<2", [1, 0, 0, 0]),
        ("a>=2.0", [0, 1, 0, 1]), ("a>2", [0, 0, 0, 1]), ("a=", [0, 0, 1, 0]), ("a!=", [1, 1, 0, 1]),
    ):  # fmt: skip
        assert conditions.parse(text, COLUMNS).holds(a).tolist() == [bool(one) for one in expected], text
    texts = np.array(["x", "=y", None, ">z"], object)
    for text, expected in (("a=b==y", [0, 1, 0, 0]), ("a=b=>z", [0, 0, 0, 1]), ("a=b!=x", [0, 1, 1, 1])):
        assert conditions.parse(text, COLUMNS).holds(texts).tolist() == [bool(one) for one in expected], text
    day = datetime(2020, 3, 1, tzinfo=UTC).timestamp()
    for text in ("day=01.03.2020", "day=2020-03-01"):
        assert conditions.parse(text, COLUMNS).value == day
    assert conditions.parse("price>=1000,5", COLUMNS).value == 1000.5


def test_associations_equal_those_of_scipy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(500)
    texts = np.array(["a", "b", "c"], object)[rng.integers(0, 3, 500)]
    others = np.where(rng.random(500) < 0.3, texts, np.array(["p", "q"], object)[rng.integers(0, 2, 500)])
    y = x + rng.standard_normal(500) + 2 * (texts == "a")
    y[::7] = math.nan
    columns = [
        Column("x", "continuous"), Column("y", "continuous"), Column("t", "categorical", ("a", "b", "c")),
        Column("o", "categorical", ("a", "b", "c", "p", "q")),
    ]  # fmt: skip
    found = associations(columns, {"x": x, "y": y, "t": texts, "o": others})
    known = ~np.isnan(y)
    np.testing.assert_allclose(found[0, 1], pearsonr(x[known], y[known])[0], rtol=1e-6)
    table = contingency.crosstab(texts, others).count
    np.testing.assert_allclose(found[2, 3], contingency.association(table, "cramer"), rtol=1e-6)
    means = {text: y[known & (texts == text)].mean() for text in "abc"}
    fitted = np.array([means[text] for text in texts[known]])
    np.testing.assert_allclose(found[1, 2], fitted.std() / y[known].std(), rtol=1e-6)
    np.testing.assert_array_equal(found, found.T)


def test_files_of_rows_state_their_run(run, capsys):
    """Each format of ``gan-sample`` and the rows of training fit their marks. A changed row is noticed."""
    files = ["a.csv", "a.csv.gz", "a.csv.zip", "a.csv.zst", "a.parquet", "a.npz"]
    for name in files:
        assert gan_sample([str(run), "--num=50", "--seed=3", f"--out={name}"]) == 0
    capsys.readouterr()
    assert gan_eval(["--verify", *files, str(run / "samples" / "8.csv")]) == 0
    assert capsys.readouterr().out.count("checkpoint of step 8, seed 3.\n") == 6
    content = Path("a.csv").read_bytes()
    stated = json.loads(Path("a.csv.provenance.json").read_text())
    assert stated["run"] == "run" and stated["sha256"] == hashlib.sha256(content).hexdigest()
    Path("a.csv").write_bytes(content.replace(b",DE\n", b",FR\n", 1))
    assert gan_eval(["--verify", "a.csv"]) == 1
    assert "a.csv: changed" in capsys.readouterr().out
    assert gan_sample([str(run), "--num=50", "--no-provenance", "--out=a.csv"]) == 0
    assert gan_eval(["--verify", "a.csv"]) == 1 and not Path("a.csv.provenance.json").exists()


def test_training_draws_distributions_and_no_rows_of_the_data(run, capsys):
    """Training writes generated rows, charts and a summary, and the report shows the summary."""
    samples = run / "samples"
    assert {path.name for path in samples.iterdir()} == {
        "real.png", "4.csv", "4.csv.provenance.json", "4.png", "8.csv", "8.csv.provenance.json", "8.png",
        tables.SUMMARY,
    }  # fmt: skip
    with (samples / "8.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file)).keys() == dict.fromkeys(NAMES).keys()
    found = json.loads((samples / tables.SUMMARY).read_text())
    assert tables.is_summary(found) and found["step"] == 8
    assert [one["name"] for one in found["columns"]] == NAMES[1:-1]  # neither the id nor the constant
    for column in found["columns"]:
        assert abs(sum(column["real"]) - 1) < 1e-2 and abs(sum(column["generated"]) - 1) < 1e-2
    with Image.open(samples / "8.png") as chart:
        assert chart.size[0] == 1200
    page = (run / "report.html").read_text()
    assert '"associations"' in page and "K-0000" not in page
    (samples / tables.SUMMARY).write_text(json.dumps(found | {"columns": [{"name": 1}]}))
    assert gan_report([str(run), "--out=again.html"]) == 0
    assert '"associations"' not in Path("again.html").read_text()


def test_the_table_of_a_run_is_not_replaced(run, capsys):
    path = run.parent.parent / "clients.csv"
    before = path.read_bytes()
    assert gan_sample([str(run), f"--out={path}", "--num=5"]) == 2
    assert "is the file dataset.path of the run" in capsys.readouterr().err and path.read_bytes() == before


def test_a_wide_chart_shows_the_most_associated_columns():
    values = np.eye(120)
    values[3, 119] = values[119, 3] = 0.9
    kept = tables._most_associated({"real": values.tolist()})
    assert {3, 119} <= set(kept) and 12 + 150 + 2 * len(kept) * tables._cell(len(kept)) + 24 <= 1200


@pytest.mark.slow
def test_chart_of_many_columns():
    columns = tuple(Column(f"c{i}", "categorical", ("ä", "日本")) for i in range(60))
    values = {one.name: np.array(["ä", "日本"] * 5, object) for one in columns}
    chart = tables.chart(tables.summary(Table(columns), values, values))
    assert chart.size[0] == 1200 and len(np.unique(np.asarray(chart).reshape(-1, 3), axis=0)) > 10


def test_values_of_a_table_are_columns(run):
    feature = load(path=str(run.parent.parent / "clients.csv")).feature
    made = feature.values(np.asarray(feature.encode(jnp.zeros((3, *feature.stored_shape)))))
    assert set(made) == {column.name for column in feature.columns} and len(made["city"]) == 3


@pytest.mark.slow
def test_conditional_vector(tmp_path, capsys):
    """CTGAN takes a condition on a category as its conditional vector, and rejection makes it exact."""
    path = awkward(tmp_path / "clients.csv")
    trained = gan_cli.train(
        [
            *TINY, "dataset=table", f"dataset.path={path}", "game=ctgan", "model=ctgan", "metric=[]",
            "sampler=log_frequency", "name=ctgan", "train.steps=4",
        ],
        quiet=True,
    )  # fmt: skip
    capsys.readouterr()
    sampled = rows(trained.directory, "--num=20", "--where=paid=yes", "--where=start>3")
    assert {row["paid"] for row in sampled} == {"yes"} and len(sampled) == 20
    assert "condition paid=yes: by the conditional vector and rejection" in capsys.readouterr().out
    counts = Counter(row["city"] for row in rows(trained.directory, "--num=30", "--balance=city"))
    assert set(counts.values()) == {10}


def test_images_have_no_rows(tmp_path, capsys):
    from gan_cli.cli import outputs
    from gan_cli.cli.sample import _parser

    class Runner:
        feature, main = __import__("gan_cli.data.features", fromlist=["Image"]).Image(8, 8, 1), "samples"

    options = _parser().parse_args(["run", "--out=x.csv"])
    with pytest.raises(UserError, match=r"--out x.csv: the samples of this run are images, not rows"):
        outputs.check_table(options, Runner(), None)
