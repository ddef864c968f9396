"""Metrics of tables: against SDMetrics, closed forms and tables whose values are known; gan-eval on files."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from gan_cli.cli import eval as command
from gan_cli.data.dataset import Dataset, Modes
from gan_cli.data.features import Vector, spec_of
from gan_cli.data.table import german_credit, simulated
from gan_cli.data.tables.feature import Table
from gan_cli.errors import UserError
from gan_cli.metrics import table_classifiers
from gan_cli.metrics.closest_record import closest_record, share
from gan_cli.metrics.column_shapes import column_shapes, shapes
from gan_cli.metrics.copies import copies, shares_of_copies
from gan_cli.metrics.evaluator import Evaluator, check_metrics, for_data, lacking, suited
from gan_cli.metrics.log_density import drawn, log_density
from gan_cli.metrics.pair_trends import cramers_v, pair_trends, strong_pairs, trends
from gan_cli.metrics.table_baselines import baselines
from gan_cli.metrics.tables import codes, frequent, rows_of, taken
from gan_cli.metrics.targets import targets_of
from gan_cli.metrics.train_on_synthetic import train_on_synthetic
from gan_cli.metrics.two_sample_auc import area, two_sample_auc


def mixed(seed: int, n: int, shift: float) -> dict[str, np.ndarray]:
    """Rows with numbers, a date, three categories and two, with missing values in all columns but the last."""
    rng = np.random.default_rng(seed)
    age = np.round(rng.normal(40 + shift, 12, n))
    income = np.exp(rng.normal(0, 1, n) + age / 50)
    day = np.floor(rng.uniform(0, 3000, n)) * 86400.0
    city = rng.choice(np.array(["Köln", "Bonn", "Ulm"], object), n, p=[0.5, 0.3 - shift / 20, 0.2 + shift / 20])
    owner = np.where(income + rng.normal(0, 1, n) > 3, "yes", "no").astype(object)
    for column, rate in ((age, 0.1), (income, 0.05), (day, 0.02)):
        column[rng.random(n) < rate] = np.nan
    city[rng.random(n) < 0.08] = None
    return {"age": age, "income": income, "day": day, "city": city, "owner": owner}


# Recorded from SDMetrics 0.32.0 with pandas 2.3.3 for the tables mixed(0, 400, 0) (real) and mixed(1, 300, 2)
# (synthetic): day as datetime64, numbers as numerical, and city and owner as categorical columns. The properties
# are ColumnShapes and ColumnPairTrends of sdmetrics.reports.single_table._properties. The third value is the score
# of the quality report, which averages over the pair (income, owner) only.
SHAPES = [0.9094251336898396, 0.9355234308224014, 0.9353192946413286, 0.8958469945355192, 0.9616666666666667]
TRENDS = [
    0.9941176476132151, 0.9624740297963132, 0.7275, 0.8083333333333333, 0.8851430895214247, 0.825,
    0.9033333333333333, 0.7833333333333333, 0.8516666666666667, 0.8766666666666667,
]  # fmt: skip
STRONG = 0.9033333333333333
CRAMERS_V = 0.0229864  # of city and owner, from scipy.stats.contingency through SDMetrics


def test_column_shapes_and_pair_trends_equal_those_of_sdmetrics():
    real, fake = mixed(0, 400, 0), mixed(1, 300, 2)
    assert list(shapes(real, fake).values()) == pytest.approx(SHAPES, abs=1e-6)
    assert list(trends(real, fake).values()) == pytest.approx(TRENDS, abs=1e-6)
    assert column_shapes()(fake, real)["column_shapes"] == pytest.approx(0.9275563040711511, abs=1e-6)
    found = pair_trends()(fake, real, real)
    assert found["pair_trends"] == pytest.approx(0.8617568100264286, abs=1e-6)
    assert found["pair_trends_strong"] == pytest.approx(STRONG, abs=1e-6)
    assert strong_pairs(real) == [("income", "owner")]
    assert cramers_v(codes(real["city"])[0], codes(real["owner"])[0]) == pytest.approx(CRAMERS_V, abs=1e-6)


def test_shapes_of_columns_without_values_or_shared_values():
    real = {"a": np.array([1.0, 2, np.nan]), "b": np.array(["x", "y", None], object)}
    fake = {"a": np.full(2, np.nan), "b": np.array(["z", "z"], object)}
    found = shapes(real, fake)
    assert math.isnan(found["a"])
    assert found["b"] == 0
    assert column_shapes()(fake, real)["column_shapes"] == 0
    alone = {"a": np.ones(2), "b": np.full(2, "z", object)}
    assert pair_trends()(alone, alone, alone) == {"pair_trends": 1, "pair_tvd": 0}
    with pytest.raises(ValueError, match="single column"):
        pair_trends()({"a": fake["a"]}, {"a": real["a"]}, {"a": real["a"]})


def test_pair_distance_of_two_columns_that_depend_on_each_other():
    """Two equal fair coins against independent ones: half of the mass is in the wrong cells."""
    coin = np.array(["heads", "tails"] * 500, object)
    real = {"a": coin, "b": coin.copy()}
    fake = {"a": coin, "b": np.array(["heads", "heads", "tails", "tails"] * 250, object)}
    assert pair_trends()(fake, real, real)["pair_tvd"] == pytest.approx(0.5)
    # A missing value is a value: all pairs of the samples differ from those of the data.
    absent = {"a": coin, "b": np.full(1000, None, object)}
    assert pair_trends()(absent, real, real)["pair_tvd"] == pytest.approx(1)


def test_two_sample_area_of_equal_and_different_tables():
    equal = [area(mixed(2 * s, 200, 0), mixed(2 * s + 1, 200, 0), s) for s in range(3)]
    assert np.mean(equal) == pytest.approx(0.5, abs=0.1)
    assert area(mixed(0, 300, 0), mixed(1, 300, 0) | {"age": mixed(1, 300, 0)["age"] + 30}) > 0.85
    only_missing = mixed(1, 300, 0) | {"city": mixed(0, 300, 0)["city"]}
    only_missing["city"][:] = None
    assert area(mixed(0, 300, 0), only_missing) > 0.9


def test_two_sample_area_of_small_tables():
    """Forty rows are enough for a tree with branches; fewer are refused."""
    first = {"a": np.arange(40.0)}
    assert area(first, {"a": np.arange(40.0) + 100}) == 1
    assert two_sample_auc().minimum == 40
    with pytest.raises(ValueError, match="at least 40"):
        area(first, taken(first, np.arange(39)))


def test_two_sample_test_reads_columns_of_many_categories():
    texts = np.array([f"c{i}" for i in range(700)] * 2, object)
    assert area({"a": texts}, {"a": texts}) == pytest.approx(0.5, abs=0.1)
    most, rest = frequent([np.array(["b", "a", "a", "c", None], object), np.array(["d", "a"], object)], 2)
    np.testing.assert_array_equal(most, [1, 0, 0, 1, np.nan])
    np.testing.assert_array_equal(rest, [1, 0])


def test_closest_record_share_of_copies_and_of_new_rows():
    rows = mixed(0, 900, 0)
    training, held_out, new = (taken(rows, np.arange(i, i + 300)) for i in (0, 300, 600))
    assert share(training, training, held_out) == 1
    assert share(held_out, training, held_out) == 0
    assert share(new, training, held_out) == pytest.approx(0.5, abs=0.09)  # three standard errors
    # As many training rows as held-out rows are drawn, so that their number alone favours none.
    assert share(new, taken(rows, np.r_[0:300, 400:600]), taken(rows, np.arange(300, 400))) == pytest.approx(
        0.5, abs=0.12
    )
    same = {"a": np.zeros(50)}
    assert share(same, same, same) == 0.5
    # Nearest by hand: |rank| differences are 1/4 to the training row and 3/4 to the held-out row.
    made, near, far = ({"a": np.array([x])} for x in (1.0, 2.0, 4.0))
    assert closest_record()(made, near, far, seed=0) == {
        "closest_record_share": 1, "closest_record_share_copies": 1
    }  # fmt: skip
    # A generator of copies: the third of the training rows that is drawn is near, and the rest is near to neither.
    found = closest_record()(new, taken(rows, np.arange(600)), taken(rows, np.arange(600, 800)), seed=0)
    assert found["closest_record_share_copies"] == pytest.approx(1 / 2 + 1 / 2 / 3, abs=0.05)


def test_copies_are_rows_as_they_are_written():
    training = {"a": np.array([1.25, 2.5, np.nan]), "b": np.array(["x", None, "y"], object)}
    fake = {"a": np.array([1.2500001, 2.5, np.nan, 1.25]), "b": np.array(["x", None, "y", "y"], object)}
    assert shares_of_copies(training, fake) == [0.75]
    assert copies()(fake, training, taken(training, np.array([0])))["copies_held_out"] == 1
    thirds = {"a": np.array([1 / 3, 2 / 3])}
    assert shares_of_copies(thirds, {"a": np.array([1 / 3, 1 / 3 + 1e-9])}) == [0.5]


def test_log_density_of_the_simulated_grid():
    """Published identity of the grid: -3.06 and -3.06 (CTGAN, 2019); closed form -log 25 - log(2 pi e 0.05)."""
    places = 2.0 * np.arange(-2, 3)
    grid = Modes(np.stack(np.meshgrid(places, places), -1).reshape(-1, 2), 0.05**0.5)
    optimum = -math.log(25) - math.log(2 * math.pi * math.e * 0.05)
    found = log_density()(drawn(grid, 10_000, 1), grid, 0)
    assert optimum == pytest.approx(-3.06, abs=0.005)
    assert found["log_density_optimum"] == pytest.approx(optimum, abs=0.03)
    assert found["log_density"] == pytest.approx(optimum, abs=0.03)
    assert found["log_density_test"] == pytest.approx(optimum, abs=0.1)
    # Too small a variance of 0.02: the density of the samples rises, the density of new rows falls.
    narrow = log_density()(drawn(Modes(grid.centres, 0.02**0.5), 10_000, 1), grid, 0)
    shift = -math.log(25) - math.log(2 * math.pi * 0.05) - 0.02 / 0.05
    assert narrow["log_density"] == pytest.approx(shift, abs=0.03)
    assert narrow["log_density_test"] < optimum - 0.4


def test_classifiers_of_tables():
    """A label that follows from a number, with noise; samples whose label is independent teach nothing."""
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal(600), rng.choice(np.array(["u", "v", None], object), 600)
    label = np.where(x + 0.2 * rng.standard_normal(600) > 0.8, "rare", "common").astype(object)
    table = {"x": x, "other": other, "label": label}
    training, held_out = taken(table, np.arange(300)), taken(table, np.arange(300, 600))
    independent = training | {"label": rng.permutation(training["label"])}
    good = table_classifiers.compared(training, training, held_out, "label")
    bad = table_classifiers.compared(independent, training, held_out, "label")
    assert good["tstr_f1"] == good["trtr_f1"] > 0.8
    assert good["tstr_auc"] > 0.95 > 0.65 > bad["tstr_auc"]
    assert bad["tstr_f1"] < 0.5 < good["tstr_f1_low"] < good["tstr_f1"] < good["tstr_f1_high"]
    assert bad["trtr_auc"] == good["trtr_auc"]
    number = table_classifiers.compared(training, training, held_out, "x")
    assert 0.2 < number["tstr_r2"] == number["trtr_r2"] < 1
    # The samples lack a class, have an unknown one, and an unknown category.
    strange = training | {"label": np.array(["common", "new"] * 150, object), "other": np.full(300, "w", object)}
    assert table_classifiers.compared(strange, training, held_out, "label")["tstr_f1"] == 0
    with pytest.raises(ValueError, match="none of the classes"):
        table_classifiers.compared(training | {"label": np.full(300, "new", object)}, training, held_out, "label")
    with pytest.raises(ValueError, match="fewer than two values"):
        table_classifiers.compared(training, training, taken(held_out, np.arange(1)), "label")


def test_area_equals_that_of_scikit_learn():
    from sklearn.metrics import f1_score, roc_auc_score

    rng = np.random.default_rng(0)
    scores, positive, weights = rng.integers(0, 9, 200) / 9, rng.random(200) < 0.3, rng.integers(0, 3, 200) * 1.0
    expected = roc_auc_score(positive, scores, sample_weight=weights)
    found = table_classifiers.areas(scores, positive, np.stack([weights, np.zeros(200)]))
    assert found[0] == pytest.approx(expected) and math.isnan(found[1])
    classes = np.array(["a", "b", "c"], object)[rng.integers(0, 3, 200)]
    table = {"x": rng.standard_normal(200), "y": classes}
    problem = table_classifiers._Problem(table, table, "y")
    probabilities = rng.dirichlet(np.ones(3), 200)
    named = np.array(["a", "b", "c"], object)[probabilities.argmax(1)]
    # Test rows of the first weights are all rows; those of the second lack the class c.
    found = problem._of_classifier(probabilities, np.stack([np.ones(200), classes != "c"]).astype(float))
    rest = classes != "c"
    f1 = [
        f1_score(classes, named, average="macro"),
        f1_score(classes[rest], named[rest], average="macro", labels=["a", "b"]),
    ]
    assert found["f1"] == pytest.approx(f1)
    assert found["auc"][0] == pytest.approx(roc_auc_score(classes, probabilities, multi_class="ovr"))


def test_baselines_keep_what_their_names_say():
    rows = mixed(0, 500, 0)
    found = baselines(rows, "owner")
    assert list(found) == ["real rows", "bootstrap", "independent within label", "independent columns"]
    real, bootstrap, within, independent = found.values()
    assert rows_of(real.fake) == rows_of(real.training) == 250
    assert shares_of_copies(rows, real.fake, bootstrap.fake) == [1, 1]
    distances = [
        pair_trends()(one.fake, one.training, rows)["pair_tvd"] for one in (bootstrap, within, independent)
    ]
    assert distances == sorted(distances)
    assert [str(v) for v in np.sort(within.fake["owner"])] == [str(v) for v in np.sort(rows["owner"])]
    for label in ("yes", "no"):
        income = [t["income"][t["owner"] == label] for t in (rows, within.fake)]
        assert np.nanmedian(income[1]) == pytest.approx(np.nanmedian(income[0]), rel=0.2)
    assert list(baselines(rows, None)) == ["real rows", "bootstrap", "independent columns"]


TABLE_METRICS = {
    "column_shapes": column_shapes(),
    "pair_trends": pair_trends(),
    "copies": copies(),
    "closest_record": closest_record(),
    "train_on_synthetic": train_on_synthetic(),
}


def test_the_evaluator_restores_rows_and_computes_all_metrics():
    """Training rows as samples: all columns are equal, all rows are copies, and the classifiers are the same."""
    from gan_cli.metrics.features import pixels

    data = replace(german_credit(), columns={})  # so that the reference, too, consists of stored rows
    assert isinstance(data.feature, Table)
    metrics = for_data(TABLE_METRICS, data)
    evaluator = Evaluator(metrics, targets_of(data, {}, pixels), data, data.size)
    found = evaluator({"generate": [data.arrays["x"]]})
    assert found["column_shapes"] == found["pair_trends"] == found["copies"] == 1
    # The 200 of 800 training rows that are drawn are at distance 0, and the others are as near to either part.
    assert found["closest_record_share"] == pytest.approx(200 / 800 + 600 / 800 / 2, abs=0.06)
    assert found["tstr_f1"] == pytest.approx(found["trtr_f1"], abs=0.1)
    assert evaluator.objective == ("column_shapes", "higher")


def test_likelihood_fitness_of_a_table_is_in_the_units_of_its_columns():
    from gan_cli.metrics.features import pixels

    data = simulated()
    evaluator = Evaluator({"log_density": log_density()}, targets_of(data, {}, pixels), data, data.size)
    found = evaluator({"generate": [data.arrays["x"]]})
    assert found["log_density"] == pytest.approx(-3.06, abs=0.05)


def test_inputs_that_data_lack():
    points = Dataset("points", spec_of(Vector(2)), {"x": np.zeros((50, 2), np.float32)})
    assert "rows of a table" in (lacking(column_shapes(), targets_of(points, {}), points) or "")
    credit = german_credit(hold_out=0.0, label=None)
    metrics = for_data(TABLE_METRICS, credit)
    assert lacking(metrics["copies"], targets_of(credit, {}), credit) is None
    assert "held-out rows" in (lacking(metrics["closest_record"], targets_of(credit, {}), credit) or "")
    few = german_credit(hold_out=0.03)
    with pytest.raises(UserError, match=r"at least 40 held-out rows, but .* has only 30"):
        check_metrics({"two_sample_auc": two_sample_auc()}, targets_of(few, {}), 800)
    assert isinstance(credit.feature, Table)
    alone = dataclasses.replace(credit.feature, columns=credit.feature.columns[:1])
    assert "two columns" in (pair_trends().cannot(alone, None) or "")
    labelless = german_credit(label=None)
    assert "dataset.label" in (lacking(metrics["train_on_synthetic"], targets_of(labelless, {}), labelless) or "")
    assert set(suited(metrics, points, {})) == set()
    assert set(suited(metrics, credit, {})) == set(metrics)


def written(path, table):
    """The path of a CSV file with the rows of a table, whose columns are in reverse order."""
    names = list(reversed(table))
    texts = [["" if v is None or v != v else str(v) for v in table[name]] for name in names]
    lines = [",".join(names), *(",".join(row) for row in zip(*texts, strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def judged(capsys, tmp_path, *arguments):
    """The exit status of gan-eval, its messages, and the results in its JSON file."""
    out = tmp_path / "out.json"
    out.unlink(missing_ok=True)
    status = command.main([*map(str, arguments), "--json", str(out)])
    return status, capsys.readouterr().err, json.loads(out.read_text()) if out.exists() else []


def test_gan_eval_judges_files(tmp_path, capsys):
    real, fake = mixed(0, 400, 0), mixed(1, 300, 2)
    train = written(tmp_path / "train.csv", real)
    test = written(tmp_path / "test.csv", mixed(2, 200, 0))
    made = written(tmp_path / "made.csv", {"extra": np.zeros(300), **fake})
    files = ["--reference", train, "--held-out", test, "--label", "owner"]
    status, _, results = judged(capsys, tmp_path, made, *files, "--baselines", "--metrics", "copies,closest_record")
    assert status == 0
    assert [one["run"] for one in results][1:] == list(baselines(real, "owner"))
    assert [one["metrics"]["copies"] for one in results[2:]] == [1, 0, 0]
    found = judged(capsys, tmp_path, made, *files)[2][0]["metrics"]
    assert found["column_shapes"] == pytest.approx(0.9275563040711511, abs=1e-6)
    assert found["pair_trends"] == pytest.approx(0.8617568100264286, abs=1e-6)
    expected = {"two_sample_auc", "closest_record_share", "copies", "tstr_f1", "trtr_f1", "tstr_auc", "trtr_auc"}
    assert expected <= set(found)
    status, messages, results = judged(capsys, tmp_path, made, "--reference", train)
    assert status == 0
    assert "closest_record needs held-out rows" in messages
    assert set(results[0]["metrics"]) == {
        "column_shapes", "copies", "pair_trends", "pair_trends_strong", "pair_tvd", "two_sample_auc"
    }  # fmt: skip


def test_a_run_as_reference_is_named_as_a_subject(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    made = written(tmp_path / "made.csv", mixed(1, 60, 0))
    status, messages, _ = judged(capsys, tmp_path, made, "--reference", tmp_path / "run")
    assert status == 2
    assert f"gan-eval {tmp_path / 'run'} {made}" in messages


def test_a_metric_that_cannot_be_computed_leaves_the_others(tmp_path, capsys):
    """A single column has no pairs, and 30 held-out rows are too few for the two-sample test."""
    age = {"age": mixed(0, 100, 0)["age"]}
    train, test = written(tmp_path / "train.csv", age), written(tmp_path / "test.csv", taken(age, np.arange(30)))
    status, messages, results = judged(capsys, tmp_path, train, "--reference", train, "--held-out", test)
    assert status == 0
    assert {"column_shapes", "copies", "closest_record_share"} <= set(results[0]["metrics"])
    assert "pair_trends" in messages and "two_sample_auc needs at least 40 rows" in messages


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["made.csv"], "need a table as reference"),
        (["made.csv", "--reference", "mnist5k"], "need a table as reference"),
        (["made.csv", "--reference", "train.csv", "--label", "ownr"], "there is no such column"),
        (["made.csv", "--reference", "train.csv", "--held-out", "none.csv"], "there is no such file"),
        (["made.csv", "--reference", "train.csv", "--metrics", "closest_record"], "needs held-out rows"),
        (["made.csv", "--reference", "train.csv", "--task", "nonsense"], "--task nonsense: needs a folder"),
        (["made.csv", "--reference", "train.csv", "--features", "inception"], "compared by their columns"),
        ([".", "--reference", "mnist5k", "--label", "owner"], "--label: needs rows of a table"),
        ([".", "--reference", "mnist5k", "--baselines"], "--baselines: needs rows of a table"),
        (["made.csv", "--reference", "train.csv", "--metrics", "fid"], "needs data other than tables"),
        (["made.csv", "--held-out", "train.csv"], "needs a table as --reference"),
        (["lacks.csv", "--reference", "train.csv"], "there is no column 'age'"),
        (["texts.csv", "--reference", "train.csv"], "which is no number"),
        (["noise.csv", "--reference", "train.csv"], "noise.csv"),
    ],
)
def test_wrong_tables_are_one_line(arguments, text, tmp_path, capsys):
    rows = mixed(0, 60, 0)
    written(tmp_path / "train.csv", rows)
    written(tmp_path / "made.csv", mixed(1, 60, 0))
    written(tmp_path / "lacks.csv", {name: rows[name] for name in ("income", "day", "city", "owner")})
    written(tmp_path / "texts.csv", rows | {"age": np.full(60, "old", object)})
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)))
    arguments = [str(tmp_path / one) if one.endswith(".csv") else one for one in arguments]
    status, messages, results = judged(capsys, tmp_path, *arguments)
    assert (status, results) == (2, [])
    assert text in messages
    assert len(messages.strip().splitlines()) == 1


def test_categories_that_the_reference_lacks_are_handled(tmp_path, capsys):
    train = written(tmp_path / "train.csv", mixed(0, 60, 0))
    rows = mixed(1, 60, 0)
    rows["city"][:5] = "Passau"
    made = written(tmp_path / "made.csv", rows)
    status, _, results = judged(capsys, tmp_path, made, "--reference", train, "--held-out", train)
    assert status == 0
    assert results[0]["metrics"]["copies"] == 0


def test_a_missing_scikit_learn_is_one_line(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"gan_cli\[table\]"):
        area(mixed(0, 60, 0), mixed(1, 60, 0))
