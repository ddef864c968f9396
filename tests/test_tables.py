"""Tables: files, kinds of columns, schema, constraints, representation of values, and the data sets of tables."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from scipy.stats import kstest

from gan_cli.data import table as tables
from gan_cli.data.features import described, from_description
from gan_cli.data.tables import constraints, files, fitting, formats, inference, schema
from gan_cli.data.tables.columns import Column
from gan_cli.data.tables.feature import LeftOut, Table
from gan_cli.errors import UserError
from gan_cli.trained.tables import of_data

# Quotes, separators, line breaks and umlauts inside values, empty fields, and a byte-order mark.
ODD = ("", "NA", '"ö,ä"')
AWKWARD = '\ufeffname,Größe,when,"a, b",flag,amount,konst\r\n' + "".join(
    f'"Müller, ""{i % 3}""\nx",{"" if i % 5 == 0 else 150 + i % 40},{1 + i % 28:02d}.03.2024,'
    f"{ODD[i % 3]},{['yes', 'no'][i % 2]},{i * 7 % 13}.50,fix\r\n"
    for i in range(60)
)


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def loaded(path, **options):
    return tables.table(path=str(path), **options)


def restored(data, part="examples"):
    return data.feature.restore(getattr(data, part)["x"])


def test_an_awkward_file_comes_back_equal(tmp_path):
    """Rows go through the stored representation and come back as the texts of the file."""
    data = loaded(written(tmp_path / "a.csv", AWKWARD), hold_out=0.0)
    kinds = {column.name: column.kind for column in data.feature.columns}
    assert kinds == {
        "name": "categorical", "Größe": "integer", "when": "date", "a, b": "categorical", "flag": "boolean",
        "amount": "continuous",
    }  # fmt: skip
    assert [(one.name, one.kind, one.value) for one in data.feature.left_out] == [("konst", "constant", "fix")]
    files.write(tmp_path / "b.csv", data.feature, restored(data))
    before, after = (pa.csv.read_csv(
        tmp_path / name, parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True),
    ) for name in ("a.csv", "b.csv"))  # fmt: skip
    assert before.equals(after)
    assert (tmp_path / "b.csv").read_text().splitlines()[1].startswith('"Müller, ""0""')


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".csv.zip", ".parquet"])
def test_each_format_is_written_and_read(tmp_path, suffix):
    data = loaded(written(tmp_path / "a.csv", AWKWARD), hold_out=0.0)
    file = tmp_path / f"b{suffix}"
    files.write(file, data.feature, restored(data))
    again = loaded(file, hold_out=0.0)
    for name, values in restored(data).items():
        np.testing.assert_array_equal(restored(again)[name], values, name)


def test_the_types_of_a_parquet_file_come_back(tmp_path):
    n = 50
    before = pa.table({
        "small": pa.array([i % 7 for i in range(n)], pa.int8()),
        "real": pa.array([None if i % 9 == 0 else i * 0.25 for i in range(n)], pa.float32()),
        "flag": pa.array([i % 3 == 0 for i in range(n)]),
        "day": pa.array([19_754 + i for i in range(n)], pa.int32()).cast(pa.date32()),
        "time": pa.array([1_700_000_000 + i * 61 for i in range(n)]).cast(pa.timestamp("s")).cast(
            pa.timestamp("us", "Europe/Berlin")),
        "key": pa.array(range(1, n + 1), pa.int32()),
        "word": pa.array(["ä", "b", None, "c", "b"] * 10).dictionary_encode(),
    })  # fmt: skip
    pa.parquet.write_table(before, tmp_path / "a.parquet")
    data = loaded(tmp_path / "a.parquet", hold_out=0.0)
    files.write(tmp_path / "b.parquet", data.feature, restored(data))
    after = pa.parquet.read_table(tmp_path / "b.parquet")
    plain = before.set_column(6, "word", before["word"].cast(pa.string()))
    assert after.schema.equals(plain.schema)
    assert after.equals(plain)


def test_separators_decimal_commas_and_encodings(tmp_path):
    rows = "".join(f"{i % 7},{i % 100:02d};{'für' if i % 2 else 'ab'};{i % 30}\n" for i in range(300))
    data = loaded(written(tmp_path / "a.csv", "preis;wort;n\n" + rows, "cp1252"), hold_out=0.0)
    assert (data.feature.separator, data.feature.columns[0].decimal) == (";", ",")
    assert "Windows-1252" in data.notes[0]
    assert data.feature.columns[0] == data.feature.columns[0].__class__.from_json(data.feature.columns[0].to_json())
    files.write(tmp_path / "b.csv", data.feature, restored(data))
    assert (tmp_path / "b.csv").read_text() == "preis;wort;n\n" + rows
    tabs = loaded(written(tmp_path / "c.tsv", ("preis;wort;n\n" + rows).replace(";", "\t")), hold_out=0.0)
    assert tabs.feature.separator == "\t"


def contents(rows, **columns):
    return files.Contents({name: pa.chunked_array([pa.array(values)]) for name, values in columns.items()}, rows)


def test_kinds_are_inferred():
    n, rng = 400, np.random.default_rng(0)
    found = inference.infer(
        contents(
            n,
            counter=[str(i) for i in range(n)],
            customer_id=[str(i * 7919 + 5) for i in range(n)],
            code=[f"C-{i:05d}" for i in range(n)],
            zip=[f"0{1000 + i % 90}" for i in range(n)],
            text=[f"t{i % 350}" for i in range(n)],
            whole=[f"{i % 60}.0" for i in range(n)],
            money=[f"{value:.2f}" for value in rng.lognormal(3, 1, n)],
            free=[repr(float(value)) for value in rng.random(n)],
            ja=["nein" if i % 3 else "ja" for i in range(n)],
            bit=["0" if i % 3 else "1" for i in range(n)],
            us=[f"{1 + i % 12}/{1 + i % 28}/2020" for i in range(n)],
            moment=[f"2024-01-{1 + i % 28:02d}T10:{i % 60:02d}:00" for i in range(n)],
            nothing=["NA"] * n,
            lonely=["x" if i % 2 else "" for i in range(n)],
            infinite=["inf" if i % 2 else "sup" for i in range(n)],
        ),
        "file",
    )
    assert {c.name: (c.kind, c.decimals, c.format) for c in found.columns} == {
        "zip": ("categorical", None, ""),
        "text": ("categorical", None, ""),
        "whole": ("integer", 0, ".1f"),
        "money": ("continuous", 2, ".2f"),
        "free": ("continuous", None, ""),
        "ja": ("boolean", None, ""),
        "bit": ("boolean", None, ""),
        "us": ("date", None, "%m/%d/%Y"),
        "moment": ("date", None, "%Y-%m-%dT%H:%M:%S"),
        "lonely": ("categorical", None, ""),
        "infinite": ("categorical", None, ""),
    }
    assert found.left_out == (
        LeftOut("counter", "id", first=0), LeftOut("customer_id", "id"), LeftOut("code", "id", "C-", 5, 0),
        LeftOut("nothing", "constant"),
    )  # fmt: skip
    assert found.missing == {"lonely": 0.5}
    assert not any("thousands" in note for note in found.notes)  # counter and customer_id are whole numbers


def test_many_different_texts_are_left_out_and_named(tmp_path):
    rng = np.random.default_rng(0)
    text = "".join(f"{value},{value % 3}\n" for value in rng.integers(0, 10_000, 20_000))
    data = loaded(written(tmp_path / "a.csv", "word,x\n" + text.replace(",", "w,")))
    assert [one.name for one in data.feature.left_out] == ["word"]
    assert "more than 1,000" in " ".join(data.lines())
    with pytest.raises(UserError, match=r"word=id"):
        loaded(
            written(tmp_path / "b.csv", "word,x\n" + "".join(f"w{i},{i % 9}\n" for i in range(20_000))),
            columns={"word": "categorical"},
        )


def numbers(kind, n=4000):
    rng = np.random.default_rng(1)
    return {
        "lognormal": np.round(rng.lognormal(8, 2, n), 2),
        "mixture": rng.choice([-50.0, 0.0, 900.0], n) + rng.standard_normal(n),
        "zeros": np.where(rng.random(n) < 0.9, 0.0, np.round(rng.exponential(5000, n))),
        "few": rng.choice([1.0, 2, 3, 4, 30], n, p=(0.5, 0.3, 0.15, 0.04, 0.01)),
        "ages": np.round(rng.normal(40, 12, n)),
        "gaps": np.where(rng.random(n) < 0.2, np.nan, rng.standard_normal(n)),
    }[kind]


@pytest.mark.parametrize("kind", ["lognormal", "mixture", "zeros", "few", "ages", "gaps"])
@pytest.mark.parametrize("normalisation", ["quantile", "modes", "standard"])
def test_numbers_come_back(kind, normalisation):
    """Values survive the representation, and the column survives JSON."""
    values = numbers(kind)
    whole = kind in ("zeros", "few", "ages")
    column = Column("x", "integer" if whole else "continuous", decimals=0 if whole else None)
    column = fitting.fit(column, values, normalisation)
    assert Column.from_json(json.loads(json.dumps(column.to_json()))) == column
    feature = Table((column,))
    back = feature.restore(feature.store({"x": values}))["x"]
    clipped = normalisation == "modes" and kind == "lognormal"  # a mode's scalar is at most 0.99
    tolerance = 1e-4 * np.nanstd(values)
    share = np.mean(np.isclose(back, values, rtol=1e-4, atol=tolerance, equal_nan=True))
    # A quantile function of 256 points and scalars of at most 3.7 standard deviations move the outermost values.
    assert share >= (0.98 if clipped else 0.99), share
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))


def test_scalars_of_quantiles_are_standard_normal():
    """Equal values are spread over their interval, so that the scalars are normal for steps, too."""
    for kind in ("lognormal", "ages"):
        values = numbers(kind)
        column = fitting.fit(Column("x", "continuous"), values)
        scalar, choice = column.store(values, np.random.default_rng(0))
        free = np.ones(len(values), bool) if choice is None else choice < column.ways
        assert kstest(scalar[free], "norm").pvalue > 0.01, kind
        # Standard normal scalars lead to the distribution of the data.
        drawn = column.restore(np.random.default_rng(1).standard_normal(4000), choice)
        assert kstest(drawn[free], values[free]).pvalue > 0.001, kind


def test_the_modes_of_a_mixture_are_found():
    rng = np.random.default_rng(0)
    values = rng.choice([-50.0, 0.0, 90.0], 4000) + 3 * rng.standard_normal(4000)
    column = fitting.fit(Column("x", "continuous"), values, "modes")
    means, stds = np.array(sorted(column.modes)).T
    np.testing.assert_allclose(means, [-50, 0, 90], atol=0.5)
    np.testing.assert_allclose(stds, 3, rtol=0.4)  # the mixture's prior widens its modes
    np.testing.assert_allclose(column.frequencies, [1 / 3] * 3, atol=0.03)


def test_the_feature_of_a_table_survives_run_json():
    data = tables.german_credit()
    stated = json.loads(json.dumps(described(data.spec)))
    assert stated["x"]["kind"] == "Table"
    assert from_description(stated) == data.spec
    assert len(json.dumps(stated)) < 25_000
    stated["x"]["columns"][0]["stored"] = 1
    with pytest.raises(ValueError, match="damaged"):
        from_description(stated)
    with pytest.raises(ValueError, match="not among the modules"):
        from_description({"x": {"kind": "gan_cli.data.tables.feature.Table", "columns": []}})


def test_decode_inverts_encode():
    data = tables.german_credit()
    stored, x = data.examples["x"], data.feature
    np.testing.assert_array_equal(x.decode(jnp.asarray(x.encode(stored))), stored)
    np.testing.assert_array_equal(data.examples["label"], x.labels(stored))
    for name, values in x.values(x.encode(stored)).items():
        np.testing.assert_array_equal(values, restored(data)[name], name)
    assert list(data.class_names) == ["bad", "good"]


def test_embedded_tables():
    """The numbers of rows and classes of UCI's pages."""
    adult = tables.adult()
    assert (adult.size, adult.held_out_size, adult.classes) == (32_561, 16_281, 2)
    np.testing.assert_array_equal(np.bincount(adult.examples["label"]), [24_720, 7_841])
    np.testing.assert_array_equal(np.bincount(adult.held_out["label"]), [12_435, 3_846])
    values = restored(adult)
    missing = {name: sum(v is None for v in column) for name, column in values.items() if column.dtype == object}
    assert {name: count for name, count in missing.items() if count} == {
        "workclass": 1836, "occupation": 1843, "native-country": 583
    }  # fmt: skip
    assert values["capital-gain"].max() == 99_999 and values["age"].min() == 17
    german = tables.german_credit()
    np.testing.assert_array_equal(np.bincount(german.examples["label"]), [240, 560])
    assert german.fingerprint() != tables.german_credit(seed=1).fingerprint()


@pytest.mark.parametrize(
    ("kind", "optimum"), [("grid", -3.06), ("ring", -1.70), ("turned", -3.06), ("cells", -2.68)]
)
def test_simulated_tables_have_the_published_optima(kind, optimum):
    """The mean log density of held-out rows equals that of Xu et al. 2019, and log k + entropy for apart modes."""
    data = tables.simulated(kind=kind)
    rows = np.stack(list(restored(data, "held_out").values()), axis=1)
    centres, std = data.modes
    square = ((rows[:, None] - centres) ** 2).sum(-1) / std**2
    density = np.exp(-square / 2).mean(1) / (2 * np.pi * std**2)
    assert abs(np.log(density).mean() - optimum) < 0.02
    assert (data.size, data.held_out_size) == (10_000, 10_000)


def split_table(path):
    rng = np.random.default_rng(0)
    rows = [
        f"{i % 40},{2000 + i % 10},{'train' if i % 4 else 'val'},{rng.random():.3f},{'ab'[i % 5 == 0]}"
        for i in range(400)
    ]
    return written(path, "who,year,part,x,y\n" + "\n".join(rows) + "\n")


def test_rows_are_held_out_by_group_time_or_column(tmp_path):
    path = split_table(tmp_path / "a.csv")
    by_class = loaded(path, label="y", columns={"who": "id"})
    np.testing.assert_array_equal(np.bincount(by_class.held_out["label"]), [64, 16])
    by_time = loaded(path, time="year")
    assert restored(by_time)["year"].max() == 2007 and by_time.held_out_size == 80
    by_group = loaded(path, group="who")
    assert (by_group.size, by_group.held_out_size) == (320, 80)
    assert "who" not in restored(by_group)
    by_column = loaded(path, split="part")
    assert (by_column.size, by_column.held_out_size) == (300, 100)
    files.write(tmp_path / "b.csv", by_column.feature, restored(by_column))
    assert set(files.read(str(tmp_path / "b.csv")).columns["part"].to_pylist()) == {"train"}


def test_a_value_of_held_out_rows_only_is_named(tmp_path):
    rows = "".join(f"{'new' if i == 399 else 'old'},{'' if i == 398 else 5},{i}\n" for i in range(400))
    data = loaded(
        written(tmp_path / "a.csv", "c,m,t\n" + rows), time="t", columns={"t": "integer", "c": "categorical"}
    )
    assert data.held_out_size == 78
    assert "1 held-out rows with a value, e.g. 'new', of c that training rows do not have" in " ".join(data.lines())


def ordered(path, n=300, wrong=0):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 50, n), rng.integers(0, 50, n)
    rows = [f"{i},{x},{y},{x + y + (i < wrong)},{x + 5}" for i, (x, y) in enumerate(zip(a, b, strict=True))]
    return written(path, "key,a,b,total,end\n" + "\n".join(rows) + "\n")


def test_the_program_accepts_the_schema_that_it_wrote(tmp_path):
    """Also for awkward names, dates and categories, and with constraints that a person has added."""
    path = written(tmp_path / "a.csv", AWKWARD)
    data = loaded(path, label="flag")
    file = tmp_path / "schema.yaml"
    file.write_text(data.documents["schema.yaml"])
    again = loaded(path, label="flag", schema=str(file))
    assert again.feature == data.feature and again.fingerprint() == data.fingerprint()
    assert again.documents == data.documents
    rows = "".join(f"{i * 1e-9},{10.0**i if i < 20 else 1},{'😀 yes no~'[i % 9]!r}\n" for i in range(50))
    path = written(tmp_path / "c.csv", "tiny,large,text: odd\n" + rows)
    file.write_text(loaded(path).documents["schema.yaml"])
    assert loaded(path, schema=str(file)).feature == loaded(path).feature
    path = ordered(tmp_path / "b.csv", wrong=3)
    lines = "constraints: [a <= end, a + b = total, unique key]"
    file.write_text(loaded(path).documents["schema.yaml"].replace("constraints: []", lines))
    data = loaded(path, schema=str(file))
    assert data.feature.constraints == ("a <= end", "a + b = total", "unique key")
    assert data.size + data.held_out_size == 297
    assert "3 rows that violate a + b = total" in " ".join(data.lines())


def test_generated_rows_meet_the_constraints(tmp_path):
    data = loaded(ordered(tmp_path / "a.csv"))
    table = Table(data.feature.columns, constraints=("a <= end", "a + b = total", "unique a, b, end"))
    rng = np.random.default_rng(1)
    columns = {name: rng.integers(0, 60, 500).astype(float) for name in ("a", "b", "total", "end")}
    columns["b"][:5] = np.nan
    checker = constraints.Checker(table)
    made = checker.repaired(columns)
    kept = checker.accepted(made)
    rows = {name: values[kept] for name, values in made.items()}
    assert 50 < kept.sum() < 300
    assert (rows["a"] <= rows["end"]).all()
    whole = ~np.isnan(rows["b"])
    np.testing.assert_array_equal((rows["a"] + rows["b"])[whole], rows["total"][whole])
    assert rows["total"][whole].max() <= data.feature.columns[2].high
    assert not np.isnan(rows["total"]).any()  # a sum with a missing term is left as it is
    # The keys of earlier rows are taken.
    assert not (checker.accepted(made) & ~np.isnan(made["b"])).any()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("a,b\n", {}, "no rows"),
        ("a,b\n1,2\n3\n", {}, "Expected 2 columns, got 1"),
        ("a,a\n1,2\n", {}, "two columns have the name 'a'"),
        ("a,b\n1,x\ninf,y\n", {}, "infinite value"),
        ("a,b\n1,x\n1e999,y\n", {}, "infinite value"),
        ("a\n" + "\0\1\2" * 50, {}, "not text"),
        ("a,b\n1,x\n2,y\n", {"label": "c"}, "no such column"),
        ("a,b\n1,x\n2,x\n", {"label": "b"}, "1 different values"),
        ("a,b\n1,x\n2,y\n", {"columns": {"c": "integer"}}, "no column 'c'"),
        ("a,b\n1,x\n2,y\n", {"columns": {"b": "integer"}}, "not of the kind integer"),
        ("a,b\n1,x\n2,y\n", {"columns": {"b": "number"}}, "kind 'number' of the column b does not exist"),
        ("a,b\n1,x\n2,y\n", {"time": "b"}, "no date and no number"),
        ("a,b\n1,x\n2,y\n", {"split": "b"}, "has the value"),
        ("a,b\n1,x\n2,y\n", {"split": "b", "time": "a"}, "Set one of them"),
        ("a,b\n5,x\n5,x\n", {}, "nothing to learn"),
        ("a,b\n1,x\n2,y\n", {"label": "a", "columns": {"a": "integer"}}, "a label is categorical"),
    ],
)
def test_wrong_input_is_answered_in_one_line(tmp_path, text, options, message):
    with pytest.raises(UserError) as error:
        loaded(written(tmp_path / "a.csv", text), **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 is not enough")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:40])
    for name in ("a.parquet", "a.gz", "missing.csv", ""):
        with pytest.raises(UserError) as error:
            loaded(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {a: {kind: whole}}", "kind 'whole' does not exist"),
        ("columns: {a: {kind: integer, lower: 1}}", "no entry 'lower'"),
        ("columns: {a: {kind: integer, low: 5, high: 1}}", "low is larger"),
        ("columns: {a: {kind: integer, low: much}}", "must be a number"),
        ("columns: {a: {kind: date, low: 5}}", "must be a date"),
        ("columns: {a: {kind: continuous, format: 5}}", "no format of numbers"),
        ("columns: {a: {kind: date, format: '%d-%b-%Y'}}", "no format of dates"),
        ("columns: {a: boolean}", "not of the kind boolean"),
        ("constraints: [a + b = total, b + end = total]", "both determine total"),
        ("constraints: [a + b = total, total + b = a]", "determine each other"),
        ("columns: {a: {kind: integer, categories: [x]}}", "has no categories"),
        ("columns: [a]", "must map names"),
        ("rows: 3", "no others"),
        ("columns: {a", "line"),
        ("columns: {other: integer}", "no column 'other'"),
        ("constraints: [a <= c]", "'c', which is no column"),
        ("constraints: [a is small]", "is no constraint"),
        ("constraints: [a <= key]", "compares numbers"),
    ],
)
def test_wrong_schemas_are_answered_in_one_line(tmp_path, text, message):
    path = ordered(tmp_path / "a.csv")
    with pytest.raises(UserError) as error:
        loaded(path, schema=written(tmp_path / "schema.yaml", text))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_schema_replaces_ranges_and_kinds(tmp_path):
    path, file = ordered(tmp_path / "a.csv"), tmp_path / "schema.yaml"
    file.write_text("columns: {a: {kind: continuous, low: 5, high: 40, decimals: 1}, b: categorical, key: integer}")
    data = loaded(path, schema=str(file))
    kinds = {column.name: column for column in data.feature.columns}
    assert (kinds["a"].low, kinds["a"].high, kinds["a"].decimals) == (5, 40, 1)
    assert kinds["b"].kind == "categorical" and kinds["key"].kind == "integer"
    assert "training rows outside the range of a" in " ".join(data.lines())
    assert schema.read(str(file)).columns["b"] == Column("b", "categorical")


def test_a_file_with_decimal_commas_keeps_its_texts(tmp_path):
    """Dates keep their points, and constants and classes their commas; dates are multiples of a day."""
    rows = "".join(
        f"{1 + i % 28:02d}.12.2021;{i % 7},{i % 90 + 10};0,50;{i % 2},5;{1 + i % 9}.234,5;{20200101 + i % 28};"
        f"2021-12-{1 + i % 28:02d} 00:00:00\n"
        for i in range(300)
    )
    data = loaded(written(tmp_path / "a.csv", "d;x;c;y;t;n;s\n" + rows), label="y", hold_out=0.0)
    assert data.class_names == ("0,5", "1,5")
    files.write(tmp_path / "b.csv", data.feature, restored(data))
    assert (tmp_path / "b.csv").read_text() == "d;x;c;y;t;n;s\n" + rows
    said = " ".join(data.lines())
    assert "t looks like numbers with marks between the thousands" in said
    assert "n looks like dates" in said and "dataset.columns.n=date" in said
    noise = np.random.default_rng(0).standard_normal(100)
    assert not (data.feature.columns[-1].restore(noise, np.zeros(100, int)) % 86400).any()
    quoted = loaded(written(tmp_path / "c.csv", "x,z\n" + "".join(f'"{i},5",{i % 3}\n' for i in range(60))))
    assert quoted.feature.columns[0].kind == "continuous"


def test_metrics_read_the_rows_of_the_file(tmp_path):
    """Held-out rows after the training rows keep their values, which the stored rows cannot have."""
    path = written(tmp_path / "a.csv", "t,y\n" + "".join(f"{i},{i * 1.5}\n" for i in range(400)))
    data = loaded(path, time="t", columns={"t": "integer"})
    reference = of_data(data)
    np.testing.assert_array_equal(reference.held_out["t"], np.arange(320, 400))
    np.testing.assert_array_equal(reference.training["y"], np.arange(320) * 1.5)
    with pytest.raises(UserError, match="so many rows have the same value"):
        loaded(
            written(tmp_path / "b.csv", "t,y\n" + "".join(f"{i // 200},{i % 9}\n" for i in range(400))),
            time="t",
            columns={"t": "integer"},
        )


def test_a_schema_written_by_hand_keeps_formats(tmp_path):
    path = written(
        tmp_path / "a.csv", "a,b\n" + "".join(f"{i % 70}.{i % 90 + 10},{'ny'[i % 2]}o\n" for i in range(200))
    )
    rules = "columns:\n  a: continuous\n  b: {kind: categorical, categories: [no, yo]}\n"
    data = loaded(path, schema=written(tmp_path / "s.yaml", rules))
    assert (data.feature.columns[0].decimals, data.feature.columns[0].format) == (2, ".2f")
    assert data.feature.columns[1].categories == ("no", "yo")
    with pytest.raises(UserError, match="not of the kind integer"):
        loaded(path, schema=written(tmp_path / "s.yaml", "columns: {a: integer}"))


def test_sums_keep_missing_values_and_are_repaired_in_order():
    columns = tuple(Column(name, "integer", low=0.0, high=99.0, decimals=0, missing=True) for name in "abcde")
    table = Table(columns, constraints=("c + d = e", "a + b = c"))
    rows = {"a": [1, 3, 4], "b": [1, 2, 3], "c": [9, np.nan, 3], "d": [0, 0, 5], "e": [1, 1, 1]}
    made = constraints.valid(table, {name: np.array(values, float) for name, values in rows.items()})
    np.testing.assert_array_equal(made["c"], [2, np.nan, 7])
    np.testing.assert_array_equal(made["e"], [2, 1, 12])


def test_rare_classes_are_held_out_and_identifiers_are_no_label(tmp_path):
    data = loaded(
        written(tmp_path / "a.csv", "y,x\n" + "".join(f"c{i // 2},{i % 7}\n" for i in range(200))), label="y"
    )
    assert data.held_out_size == 40
    with pytest.raises(UserError, match="at least two rows on average"):
        loaded(written(tmp_path / "b.csv", "y,x\n" + "".join(f"c{i},{i % 7}\n" for i in range(200))), label="y")


def test_odd_types_of_parquet(tmp_path):
    """Ids get a type that holds them, nanoseconds are dropped, and wide decimals are numbers."""
    n = 300
    pa.parquet.write_table(pa.table({
        "group": pa.array([i % 100 for i in range(n)], pa.int8()),
        "ns": pa.array([1_600_000_000_000_000_123 + 7 * i for i in range(n)], pa.timestamp("ns")),
        "day": pa.array([19_000 + i % 99 for i in range(n)], pa.int32()).cast(pa.date32()),
        "key": pa.array([f"K{200_000 + i}" for i in range(n)]),
        "wide": pa.array([Decimal(i) / 100 for i in range(n)], pa.decimal256(50, 2)),
    }), tmp_path / "a.parquet")  # fmt: skip
    data = loaded(tmp_path / "a.parquet", group="group", columns={"day": "id"})
    files.write(tmp_path / "b.parquet", data.feature, restored(data))
    after = pa.parquet.read_table(tmp_path / "b.parquet")
    assert after["group"].to_pylist()[-1] == data.size - 1 and after["day"].to_pylist()[:2] == ["1", "2"]
    assert after["key"].to_pylist()[0] == "K100001" and after["wide"].type == pa.float64()


def test_advice_can_be_typed():
    assert formats.advice("age", "id") == "set dataset.columns.age=id"
    assert formats.advice("opened on", "id") == "set 'dataset.columns={opened on: id}'"
    assert "schema" in formats.advice("Größe", "id")
