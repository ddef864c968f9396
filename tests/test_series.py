"""Series: files, windows, the feature, networks, forecasts and the files of gan-sample."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import TINY, Program
from flax import nnx

import gan_cli
from gan_cli.cli.eval import main as gan_eval
from gan_cli.cli.sample import main as gan_sample
from gan_cli.cli.series_files import levels_of, read_past
from gan_cli.config.build import experiment
from gan_cli.data.features import Image, described, from_description
from gan_cli.data.series import sources
from gan_cli.data.series.feature import Series
from gan_cli.errors import UserError
from gan_cli.models import recurrent, temporal
from gan_cli.trained import restore

FEATURE = Series(24, ("a", "b"), (1.0, -2.0), (3.0, 0.5))
SMALL = [*TINY, "dataset=stocks"]


def write(path, rows, header="date,a,b"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


@pytest.fixture
def prices(tmp_path):
    """A file with 100 days of two positive columns."""
    rng = np.random.default_rng(0)
    levels = np.exp(np.cumsum(0.02 * rng.standard_normal((100, 2)), axis=0)) * (10, 200)
    dates = np.datetime64("2020-01-01") + np.arange(100)
    return write(
        tmp_path / "prices.csv", [f"{d},{a!r},{b!r}" for d, (a, b) in zip(dates, levels.tolist(), strict=True)]
    ), levels


def test_windows_split_by_time_share_no_step(prices):
    path, levels = prices
    data = sources.series(path=path, length=10, hold_out=0.2)
    assert data.arrays["x"].shape == (71, 10, 2)
    assert data.held_out["x"].shape == (11, 10, 2)
    np.testing.assert_allclose(data.arrays["x"][3], levels[3:13], rtol=1e-6)
    np.testing.assert_allclose(data.held_out["x"][0], levels[80:90], rtol=1e-6)
    assert set(data.arrays["x"].ravel()).isdisjoint(data.held_out["x"].ravel())
    # The scaling is that of the training part only.
    np.testing.assert_allclose(data.feature.centre, levels[:80].mean(0))
    np.testing.assert_allclose(data.feature.scale, levels[:80].std(0))


def test_returns_are_differences_of_logarithms(prices):
    path, levels = prices
    data = sources.series(path=path, length=10, values="returns", hold_out=0)
    returns = np.diff(np.log(levels), axis=0)
    np.testing.assert_allclose(data.arrays["x"][5], returns[5:15], atol=1e-7)
    assert data.held_out is None
    rebuilt = levels_of(data.arrays["x"][5:6], levels[5])
    np.testing.assert_allclose(rebuilt[0], levels[6:16], rtol=1e-5)


def test_timegan_shuffles_windows_and_scales_over_all(prices):
    path, levels = prices
    data = sources.series(path=path, length=10, split="timegan", hold_out=0.2)
    both = np.concatenate([data.arrays["x"], data.held_out["x"]])
    assert len(data.arrays["x"]) == 73
    starts = [int(np.argmin(np.abs(levels[:, 0] - window[0, 0]))) for window in both]
    assert sorted(starts) == list(range(91))
    assert starts != sorted(starts)
    seen = data.feature.encode(both)
    assert (seen.min(), seen.max()) == pytest.approx((-1, 1), abs=1e-6)


def test_series_with_an_id_are_cut_at_one_date(tmp_path):
    """A series that starts late has its held-out steps in the same days as the others."""
    dates = np.datetime64("2020-01-01") + np.arange(50)
    rows = [f"{d},{name},{i + 100 * k}" for k, name in enumerate("uv") for i, d in enumerate(dates) if i >= 30 * k]
    data = sources.series(path=write(tmp_path / "two.csv", rows, "day,name,a"), length=5, id="name", hold_out=0.2)
    train, held_out = data.arrays["x"][..., 0], data.held_out["x"][..., 0]
    assert train.max() == 139
    assert set(held_out.ravel() % 100) == set(range(40, 50))
    assert not (np.ptp(train, axis=1) > 4).any()  # no window joins two series


def test_files_with_a_byte_order_mark_and_gzip(tmp_path):
    text = '\ufeff"Umsatz, netto","Größe"\n' + "".join(f"{i},{i * i}\n" for i in range(40))
    path = tmp_path / "umsatz.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    data = sources.series(path=str(path), length=8)
    assert data.feature.names == ("Umsatz, netto", "Größe")
    assert data.name == "umsatz"


DAYS = [f"2020-01-{i:02d},{i},{i * 2}" for i in range(1, 31)]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (DAYS, {"length": 31}, "a window is longer than the series"),
        (DAYS, {"length": 29}, "0.2 of which is held out"),
        (DAYS[::-1], {}, "date is out of order"),
        ([*DAYS, DAYS[-1]], {}, "rows 30 and 31 have the same date"),
        ([*DAYS[:-1], "2020-01-30,inf,3"], {}, "the column a has an infinite value in row 30"),
        ([*DAYS[:-1], "2020-01-30,,3"], {}, "the column a has no value in row 30"),
        ([*DAYS[:-1], "2020-01-30,x,3"], {}, "the column a is not numeric"),
        ([*DAYS[:-1], "2020-01-30,-1,3"], {"values": "returns"}, "the value -1 in row 30"),
        ([f"{day.rpartition(',')[0]},5" for day in DAYS], {}, "the column b is constant"),
        (DAYS, {"columns": ["c"]}, "has no column c"),
        (DAYS, {"columns": ["a", "a"]}, "names the column a twice"),
        ([f"09:{i:02d}:00,{i},{i}" for i in range(30)], {}, "the column date has times without a date (time32[s])"),
        ([f"09:{i:02d}:00,{i},{i}" for i in range(30)], {"time": "date"}, "neither dates nor numbers (time32[s])"),
        ([*DAYS, "1,2"], {}, "cannot be read as a table"),
    ],
)
def test_wrong_files_are_answered_in_one_line(tmp_path, rows, options, message):
    path = write(tmp_path / "wrong.csv", rows)
    with pytest.raises(UserError) as error:
        sources.series(**{"path": path, "length": 10, **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_notes_name_gaps_counted_rows_and_lost_steps(tmp_path):
    rows = [f"{i},{2010 + 2 * (i > 20)}-01-{i + 1:02d},{i * i}" for i in range(30)]
    data = sources.series(path=write(tmp_path / "gap.csv", rows, ",date,a"), length=8)
    assert data.feature.names == ("a",)
    notes = "\n".join(data.notes)
    assert "the column without a name counts the rows and is left out" in notes
    assert "the largest step in time is 731 times the median step" in notes
    assert "the held-out 6 steps are fewer than dataset.length=8; they are left out of training too" in notes


def test_series_with_a_short_training_part_are_counted(tmp_path):
    rows = [f"{name},{i}" for name, n in (("u", 40), ("v", 11)) for i in range(n)]
    data = sources.series(path=write(tmp_path / "two.csv", rows, "name,a"), length=10, id="name")
    assert data.passed_over == {"series with fewer than 10 training steps": 1}


def test_dates_written_as_text_in_parquet_are_dates(tmp_path):
    table = pa.table({"date": [f"2020-01-{i:02d}" for i in range(1, 31)], "a": range(30)})
    pa.parquet.write_table(table, tmp_path / "text.parquet")
    assert sources.series(path=str(tmp_path / "text.parquet"), length=5).feature.names == ("a",)


def test_duplicate_names_of_columns_are_refused(tmp_path):
    with pytest.raises(UserError, match="two columns with the name a"):
        sources.series(path=write(tmp_path / "twice.csv", DAYS, "date,a,a"), length=10)


def test_embedded_data_have_the_published_properties():
    data = sources.stocks()
    assert data.feature.names == ("AAPL", "GOOG", "IBM", "MSFT")
    assert (data.size, data.held_out_size) == (1695, 406)
    # Apple rose from 1.97 to 56.14 dollars in these days.
    total = data.arrays["x"][:, 0].sum(0) + data.arrays["x"][-1, 1:].sum(0)
    held_out = data.held_out["x"]
    total = total + held_out[:, 0].sum(0) + held_out[-1, 1:].sum(0)
    assert np.exp(total[0]) == pytest.approx(430.47 / 15.13, rel=0.01)
    sines = sources.sines(size=1000, held_out=10)
    x = sines.arrays["x"]
    assert x.shape == (1000, 24, 5)
    # The first value is (1 + sin p) / 2 with p uniform in [0, 0.1].
    assert x[:, 0].min() >= 0.5
    assert x[:, 0].mean() == pytest.approx(0.5 + (1 - np.cos(0.1)) / 0.1 / 2, abs=5e-4)
    paper = sources.sines(size=1000, held_out=10, law="paper").arrays["x"]
    assert paper[:, 0].var() == pytest.approx(1 / 8, rel=0.05)


def test_feature_is_invertible_and_stored_in_run_json():
    x = np.random.default_rng(0).standard_normal((5, 24, 2)).astype(np.float32)
    np.testing.assert_allclose(FEATURE.decode(jnp.asarray(FEATURE.encode(x))), x, atol=1e-6)
    bounded = Series(24, ("a",), (1.0,), (2.0,), returns=True, bounded=True)
    for feature in (FEATURE, bounded):
        assert from_description(described({"x": feature}))["x"] == feature
    assert np.abs(bounded.head(jnp.full((1, 24, 1), 9.0))).max() <= 1


@pytest.mark.parametrize("dilation", [1, 4, 16])
def test_causal_convolution_equals_the_library(dilation):
    layer = temporal.causal(3, 5, nnx.Rngs(0), init=nnx.initializers.lecun_normal(), dilation=dilation)
    x = jax.random.normal(jax.random.key(0), (2, 24, 3))
    expected = jax.lax.conv_general_dilated(
        x, layer.kernel[...], (1,), [(2 * dilation, 0)], rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )  # fmt: skip
    np.testing.assert_allclose(layer(x, train=True), expected, atol=1e-5)


def test_recurrent_layer_equals_the_library():
    """Flax's cell has the same gates, except that its kept share is 1 - ours, which renames nothing else."""
    layer = recurrent.Gated(3, 4, nnx.Rngs(0))
    cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(1))
    inputs = jnp.split(layer.inputs.kernel[...], 3, axis=1)
    states = jnp.split(layer.kernel[...], 3, axis=1)
    cell.dense_i.kernel[...] = jnp.concatenate(inputs, axis=1)
    cell.dense_h.kernel[...] = jnp.concatenate(states, axis=1)
    x = jax.random.normal(jax.random.key(0), (2, 6, 3))
    state = jnp.zeros((2, 4))
    for t in range(6):
        state, _ = cell(state, x[:, t])
    np.testing.assert_allclose(layer(x, train=True)[:, -1], state, atol=1e-5)


@pytest.mark.parametrize("module", [temporal, recurrent])
def test_networks_refuse_images(module):
    with pytest.raises(UserError, match="reads windows of series"):
        module.Discriminator(Image(8, 8, 1), nnx.Rngs(0))


@pytest.mark.slow
def test_options_of_the_networks_have_an_effect():
    x = jax.random.normal(jax.random.key(1), (4, 24, 2))
    z = jax.random.normal(jax.random.key(1), (4, 3))
    changes = {
        temporal: [{"norm": n} for n in ("batch", "layer", "spectral")]
        + [{"dropout": 0.5}, {"activation": "tanh"}],
        recurrent: [{"dropout": 0.5}],
    }
    for module, others in changes.items():
        found = []
        for options in [{}, {"depth": 1}, *others]:
            options = {"width": 8, "depth": 2, **options}
            generator = module.Generator(FEATURE, 3, nnx.Rngs(0), **options)
            discriminator = module.Discriminator(FEATURE, nnx.Rngs(0), **options)
            encoder = module.Encoder(FEATURE, 6, nnx.Rngs(0), **options)
            outputs = [net(v, train=True, key=jax.random.key(0)) for net, v in
                       ((generator, z), (discriminator, x), (encoder, x))]  # fmt: skip
            assert [one.shape for one in outputs] == [(4, 24, 2), (4,), (4, 6)]
            found.append(outputs)
        for i, first in enumerate(found):
            for second in found[:i]:
                assert not any(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_step_of_the_discriminator_depends_on_no_later_step():
    network = temporal.Discriminator(FEATURE, nnx.Rngs(0), width=8, depth=2)
    x = jax.random.normal(jax.random.key(1), (1, 24, 2))
    later = x.at[:, 20:].add(1.0)
    a, b = (network.features(v, train=True, key=jax.random.key(0)).reshape(24, 8) for v in (x, later))
    np.testing.assert_array_equal(a[:20], b[:20])
    assert not np.allclose(a[20:], b[20:])


def test_forecasts_depend_on_the_past_and_keep_it():
    program = Program(experiment([*SMALL, "model=temporal", "game=forecast", "game.past=5", "game.horizon=3"]))
    game, state = program.experiment.game, program.state
    past = jax.random.normal(jax.random.key(0), (2, 5, 4))
    latents = jnp.ones((2, 4))
    forecast = game.tasks["forecast"]
    made = forecast.apply(state.params, state.net_state, {"past": past, "latents": latents}, None)["samples"]
    assert made.shape == (2, 3, 4)
    assert not np.allclose(made[0], made[1])
    window = jnp.concatenate([jnp.zeros((2, 16, 4)), past, jnp.zeros((2, 3, 4))], axis=1)
    completed = game.tasks["complete"].apply(state.params, state.net_state, {"x": window, "latents": latents}, None)
    np.testing.assert_array_equal(completed["samples"][:, :21], window[:, :21])
    np.testing.assert_allclose(completed["samples"][:, 21:], made, atol=1e-6)
    batch = game.noise({"x": window}, jax.random.key(1))
    fake, _ = game.fake(state.params, state.net_state, batch, jax.random.key(2), 0)
    np.testing.assert_array_equal(fake[:, :5], past)


@pytest.mark.parametrize("options", [["game.past=20"], ["game.horizon=24"]])
def test_past_and_horizon_must_fit_into_a_window(options):
    with pytest.raises(UserError, match="do not fit into a window of 24 steps"):
        experiment([*SMALL, "model=temporal", "game=forecast", *options])


def test_forecast_needs_series():
    with pytest.raises(UserError, match="game=forecast: learns the future of series"):
        experiment([*TINY, "dataset=ring", "game=forecast"])


@pytest.mark.parametrize("model", ["temporal", "mlp", "recurrent"])
@pytest.mark.slow
def test_autoencoders_of_series_train(model):
    small = [f"model.{part}.width=8" for part in ("generator", "encoder")]
    options = ["game=vae", "game.likelihood=gaussian", f"model={model}", *small]
    program = Program(experiment([*[o for o in SMALL if "discriminator" not in o], *options]))
    assert all(np.isfinite(values).all() for values in program.run(4).values())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directories of a run of game=gan and of a run of game=forecast, both on stocks."""
    root = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(root)
    try:
        small = [*SMALL, "model=temporal", "train.sample_every=4"]
        plain = gan_cli.train([*small, "name=plain"], quiet=True)
        forecast = gan_cli.train([*small, "game=forecast", "name=forecast"], quiet=True)
    finally:
        os.chdir(before)
    return {"plain": root / plain.directory, "forecast": root / forecast.directory, "run": plain}


@pytest.fixture
def past(tmp_path):
    """A file with 30 prices of the four shares, and the prices."""
    levels = np.linspace(10, 20, 30)[:, None] * np.arange(1, 5)
    rows = [f"{i},{','.join(map(str, row))}" for i, row in enumerate(levels.tolist())]
    return write(tmp_path / "past.csv", rows, "day,AAPL,GOOG,IBM,MSFT"), levels


def test_pictures_of_a_run(runs):
    assert {path.name for path in (runs["plain"] / "samples").iterdir()} == {"real.png", "4.png", "8.png"}
    assert (runs["forecast"] / "samples" / "complete" / "8.png").is_file()


def test_samples_have_the_unit_of_the_data(runs, tmp_path, capsys):
    for name, status in (("g.npz", 0), ("g.csv", 0), ("g.csv.gz", 2), ("g.parquet", 2)):
        assert gan_sample([str(runs["plain"]), "--num=7", f"--out={tmp_path / name}"]) == status
    assert capsys.readouterr().err.count("Use --out FILE.csv, or FILE.npz") == 2
    made = np.load(tmp_path / "g.npz")["samples"]
    assert made.shape == (7, 24, 4) and made.dtype == np.float32
    assert made.std() < 0.2  # log-returns
    np.testing.assert_allclose(runs["run"].sample(7), made, atol=1e-6)
    # The file of samples is a data set.
    data = sources.series(path=str(tmp_path / "g.csv"), length=24, id="series", time="step", hold_out=0)
    np.testing.assert_allclose(data.arrays["x"], made, atol=1e-6)


def test_scenarios_follow_the_last_prices(runs, past, tmp_path):
    path, levels = past
    out = tmp_path / "scenarios.npz"
    assert gan_sample([str(runs["forecast"]), "--task=forecast", f"--input={path}", "--num=5", f"--out={out}"]) == 0
    made = np.load(out)
    assert made["samples"].shape == (5, 8, 4)
    # The same latents and log-returns of the past in an array give the same returns.
    returns = np.diff(np.log(levels), axis=0)[-16:].astype(np.float32)
    np.savez(tmp_path / "past.npz", past=np.repeat(returns[None], 5, axis=0))
    arguments = ["--task=forecast", f"--input={tmp_path / 'past.npz'}", f"--out={tmp_path / 'r.npz'}"]
    assert gan_sample([str(runs["forecast"]), *arguments]) == 0
    steps = np.load(tmp_path / "r.npz")["samples"]
    np.testing.assert_allclose(made["samples"], levels[-1] * np.exp(np.cumsum(steps, axis=1)), rtol=1e-4)
    assert len(np.unique(made["samples"][:, 0, 0])) == 5


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (
            "forecast",
            ["--task=forecast", "--input={short}"],
            "has 9 rows, and a forecast of this run needs the last 17",
        ),
        ("forecast", ["--task=forecast", "--input={other}"], "has no column AAPL"),
        ("forecast", ["--task=forecast", "--input={zero}"], "AAPL has the value 0 in row 9, and log-returns need"),
        ("forecast", ["--task=forecast"], "needs the inputs `past` (windows [n, 16, 4])"),
        ("forecast", [], "this run has no such task. Choose from: forecast, complete"),
        ("plain", ["--draw=walk", "--out=w.gif"], "needs images"),
        ("plain", ["--out={folder}"], "cannot be written as a folder of pictures"),
    ],
)
def test_wrong_requests(runs, tmp_path, capsys, run, arguments, message):
    rows = [f"{i}{',5' * 4}" for i in range(9)]
    names = {
        "short": write(tmp_path / "short.csv", rows, "day,AAPL,GOOG,IBM,MSFT"),
        "other": write(tmp_path / "other.csv", rows, "day,a,b,c,d"),
        "zero": write(
            tmp_path / "zero.csv", [f"{i}{f',{5 * (i != 8)}' * 4}" for i in range(20)], "day,AAPL,GOOG,IBM,MSFT"
        ),
        "folder": str(tmp_path / "folder"),
    }
    arguments = [f"--out={tmp_path / 'o.npz'}", *(argument.format(**names) for argument in arguments)]
    assert gan_sample([str(runs[run]), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_past_of_several_series_is_refused(tmp_path):
    path = write(tmp_path / "two.csv", [f"{name},{i}" for name in "uv" for i in range(20)], "name,a")
    config = {"dataset": {"id": "name", "time": None}}
    run = SimpleNamespace(experiment=SimpleNamespace(config=config))
    with pytest.raises(UserError, match="has 2 series in the column name"):
        read_past(SimpleNamespace(input=Path(path), num=3), run, Series(5, ("a",), (0.0,), (1.0,)))


def test_gan_eval_says_how_to_judge_forecasts(runs, capsys):
    assert gan_eval([str(runs["forecast"])]) == 2
    assert "--task complete --out FILE.npz" in capsys.readouterr().err


@pytest.mark.parametrize(("run", "task"), [("plain", "generate"), ("forecast", "forecast")])
def test_export(runs, tmp_path, run, task):
    assert gan_sample([str(runs[run]), "--export", str(tmp_path), f"--task={task}"]) == 0
    facts = json.loads((tmp_path / f"{'generator' if task == 'generate' else task}.json").read_text())
    assert facts["samples"]["shape"] == ["n", 8 if task == "forecast" else 24, 4]


@pytest.mark.slow
def test_exact_resume(runs, tmp_path, monkeypatch):
    """A run that stops after four steps and is resumed equals the run that never stopped."""
    monkeypatch.chdir(tmp_path)
    options = [*SMALL, "model=temporal", "train.sample_every=4", "game=forecast", "name=stopped"]
    gan_cli.train([*options, "train.steps=4"], quiet=True)
    resumed = gan_cli.train(["resume=outputs/stopped", "train.steps=8"], quiet=True)
    states = [restore.restore_run(path).state.params for path in (tmp_path / resumed.directory, runs["forecast"])]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_ensembles_of_forecasts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gan_cli.train([*SMALL, "model=mlp", "game=forecast", "train.ensemble=2", "name=two"], quiet=True)
    a, b = (restore.restore_run(tmp_path / "outputs" / "two" / "members" / str(i)).state.params for i in range(2))
    first, second = (jax.tree.leaves(one)[0] for one in (a, b))
    assert first.shape == second.shape and not np.array_equal(first, second)


@pytest.mark.slow
def test_augmentations_pack_series_or_are_refused():
    program = Program(experiment([*SMALL, "model=mlp", "augment=[packing,noise]"]))
    assert all(np.isfinite(values).all() for values in program.run(4).values())
    with pytest.raises(UserError, match="augment=diffaugment: the augmentation changes images"):
        experiment([*SMALL, "model=mlp", "augment=[diffaugment]"])
