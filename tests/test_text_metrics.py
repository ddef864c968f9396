"""Metrics of texts against closed forms, NLTK and Texygen's figures; runs of texts; the table of the oracle."""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import import_reference

import gan_cli
from gan_cli.cli import eval as gan_eval
from gan_cli.cli import report
from gan_cli.cli import sample as gan_sample
from gan_cli.data.text import oracle, sources
from gan_cli.data.text.feature import Tokens
from gan_cli.metrics import kneser_ney, ngrams, text_baselines, text_inputs
from gan_cli.metrics.bits_per_character import bits_per_character
from gan_cli.metrics.copied import copied
from gan_cli.metrics.forward_nll import forward_nll
from gan_cli.metrics.held_out_nll import held_out_nll
from gan_cli.metrics.oracle_nll import nats
from gan_cli.views import texts

RNG = np.random.default_rng(0)
# BLEU-2 to 5 of SeqGAN's sentences, and BLEU-2 of two others, against each other (Zhu et al. 2018, table of
# self-BLEU), as Texygen publishes them.
SELF_BLEU = {"seqgan": (0.950, 0.840, 0.670, 0.489), "mle": (0.916,), "leakgan": (0.966,)}


def words(n, most=9):
    """Random texts of 0 to ``most`` letters."""
    return [[str(token) for token in RNG.choice(list("abcdefg"), RNG.integers(most + 1))] for _ in range(n)]


# ---- N-grams


def test_bleu_by_hand():
    """Two of three words and one of two pairs match, "the" once; the nearer reference has two words."""
    found = ngrams.bleu([["the", "the", "cat"]], [["the", "cat"], ["a", "dog", "or", "a", "cat"]], 3)[0]
    assert found == pytest.approx([2 / 3, math.sqrt(2 / 3 * 1 / 2), (2 / 3 * 1 / 2 * 0.1 / 1) ** (1 / 3)])
    # One word of two, and the penalty exp(1 - 4 / 2) of a short text.
    assert ngrams.bleu([["a", "x"]], [["a", "b", "c", "d"]], 1)[0, 0] == pytest.approx(math.exp(-1) / 2)
    assert ngrams.bleu([["x"]], [["a"]]).max() == 0
    with pytest.raises(ValueError, match="a reference other than the sample"):
        ngrams.self_bleu([["a"]])


def test_integers_and_words_have_the_same_bleu():
    tokens = RNG.integers(0, 5, (20, 7))
    assert np.array_equal(ngrams.self_bleu(tokens), ngrams.self_bleu([list(map(str, row)) for row in tokens]))
    parts = [row[:length] for row, length in zip(tokens, RNG.integers(0, 8, 20), strict=True)]
    lists = [row.tolist() for row in parts]
    assert np.array_equal(ngrams.bleu(parts, tokens), ngrams.bleu(lists, tokens.tolist()))


@pytest.mark.comparison
def test_bleu_equals_that_of_nltk():
    bleu_score = import_reference("nltk.translate.bleu_score")
    method = bleu_score.SmoothingFunction().method1

    def of_nltk(references, sample):
        return [bleu_score.sentence_bleu(references, sample, (1 / n,) * n, method) for n in range(1, 6)]

    for _ in range(20):
        samples, references = words(10), words(int(RNG.integers(1, 6)))
        wanted = [of_nltk(references, sample) for sample in samples]
        assert ngrams.bleu(samples, references) == pytest.approx(np.array(wanted), abs=1e-9)
        wanted = [of_nltk(samples[:i] + samples[i + 1 :], sample) for i, sample in enumerate(samples)]
        assert ngrams.self_bleu(samples) == pytest.approx(np.array(wanted), abs=1e-9)


@pytest.mark.parametrize("model", SELF_BLEU)
def test_self_bleu_equals_the_published_figures_of_texygen(model):
    """Texygen's figures are those of all sentences that it ships, with words separated by spaces."""
    folder = Path(os.environ.get("GAN_CLI_DATA", "none"), "texygen")
    if not folder.is_dir():
        pytest.skip("GAN_CLI_DATA names no folder with texygen/")
    with gzip.open(folder / f"{model}.txt.gz", "rt") as file:
        samples = [line.split() for line in file]
    found = ngrams.self_bleu(samples).mean(0)[1:]
    assert found[: len(SELF_BLEU[model])] == pytest.approx(SELF_BLEU[model], abs=0.002)


def test_distinct_and_copied_ngrams():
    samples, training = [["a", "b", "a", "b"], ["c", "a"]], [["a", "b", "c"], ["b", "a"]]
    assert ngrams.distinct(samples, 2) == 3 / 4  # ab, ba, ab, ca
    assert ngrams.copied(samples, training, (1, 2, 3)) == [1, 3 / 4, 0]
    assert math.isnan(ngrams.copied(samples, training, (5,))[0])
    values = copied(lengths=(2, 9)).computed({"fake_texts": samples, "training_texts": training})
    assert values == {"copied_2": 3 / 4}


def test_overlapping_windows_are_joined_and_drawn_apart():
    text = RNG.integers(0, 9, 200)
    windows = np.stack([text[i : i + 12] for i in range(0, 189, 4)])
    assert ngrams.stride_of(windows) == 4
    assert np.array_equal(ngrams.running(windows)[0], text)
    apart = ngrams.drawn(windows, 5, 0)
    assert {tuple(row) for row in apart} <= {tuple(row) for row in windows[::3]}
    other = RNG.integers(0, 9, (50, 12))
    assert ngrams.running(other) is other


# ---- Kneser-Ney


def test_kneser_ney_is_a_distribution():
    training, before = RNG.integers(0, 4, (6, 6)), RNG.integers(0, 4, (6, 5))
    for discounts in (None, (0.75, 0.75, 0.75)):
        every = [np.c_[before, np.full(6, word)] for word in range(5)]  # word 4 is unseen
        logs = [kneser_ney.log_probabilities(training, one, 5, 3, discounts)[:, -1] for one in every]
        assert np.exp(logs).sum(0) == pytest.approx(np.ones(6))


@pytest.mark.comparison
def test_kneser_ney_equals_that_of_nltk():
    """With one discount, and a text in which every token is preceded by another one."""
    lm, util = import_reference("nltk.lm"), import_reference("nltk.util")
    training, text = RNG.integers(0, 5, (1, 600)), RNG.integers(0, 5, 30)
    model = lm.KneserNeyInterpolated(4, discount=0.6)
    model.fit([list(util.everygrams([*map(str, training[0])], max_len=4))], [*map(str, range(5))])
    wanted = [math.log(model.score(str(text[i]), [*map(str, text[max(0, i - 3) : i])])) for i in range(30)]
    found = kneser_ney.log_probabilities(training, text[None], 5, 4, (0.6, 0.6, 0.6))[0]
    assert found == pytest.approx(np.array(wanted), abs=1e-12)


# ---- Likelihoods, by tasks of a generator that is known


def scored(tokens):
    """The task ``score`` of a generator that gives token t the probability (t + 1) / 6, up to the end 2."""
    logs = np.log((tokens + 1) / 6) * (np.cumsum(tokens == 2, axis=1) - (tokens == 2) == 0)
    number = np.minimum((tokens != 2).cumprod(1).sum(1) + 1, tokens.shape[1])
    return {"x": tokens, "nll": -logs.sum(1) / number, "tokens": number}


def test_likelihoods_weigh_texts_by_their_tokens():
    held_out = np.array([[0, 2, 2], [1, 1, 1]])
    total = math.log(6) + math.log(2) + 3 * math.log(3)
    feature = Tokens(3, ("a", "bc", ""), "word", end=2)
    inputs = {
        "run_task": lambda task, split, n, **numbers: scored(held_out if isinstance(split, str) else split["x"]),
        "held_out_texts": text_inputs.cut(feature, held_out),
        "characters": lambda tokens: text_inputs.characters(feature, tokens),
    }
    assert held_out_nll().computed(inputs)["held_out_nll"] == pytest.approx(total / 5)
    bits = bits_per_character().computed(inputs)["bits_per_character"]
    assert bits == pytest.approx(total / math.log(2) / len("a\nbc bc bc\n"))


def test_forward_nll_scores_sentences_that_are_not_those_of_the_data():
    class Fixed:
        def sample(self, rng, n):
            return rng.integers(0, 2, (n, 4))

    inputs = {"run_task": lambda task, given, n: scored(given["x"]), "oracle": Fixed(), "seed": 0}
    found = forward_nll(sentences=4000).computed(inputs)["forward_nll"]
    assert found == pytest.approx((math.log(6) + math.log(3)) / 2, abs=0.02)


# ---- Trivial generators, and the table of the oracle


@pytest.fixture
def table(monkeypatch):
    """The module of the tables of texts, with fewer sentences of an oracle with random weights."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts/reproduce"))
    module = importlib.import_module("text")
    small = sources.oracle(size=1000, held_out=300)
    monkeypatch.setattr(module, "oracle_data", lambda: small)
    module._inputs.cache_clear()
    return module


@pytest.mark.slow
def test_trivial_generators_fail_the_joint_bars(table):
    """Each fails a bar other than the likelihood of unseen sentences, and real sentences pass all."""
    rows = table.oracle_references(1000)
    bars = table.oracle_bars(rows)
    assert all(bar.passed(rows["fresh sentences"]) for bar in bars if bar.column != "oracle_nll")
    level = (
        rows["fresh sentences"]["oracle_nll"] + 3.0
    )  # the published oracle has the entropy 5.74 and the bar 8.75
    for name in ("one token", "unigrams", "bigrams", "copies"):
        values = rows[name]
        assert values["oracle_nll"] > level or not all(bar.passed(values) for bar in bars[1:]), name
    assert rows["one token"]["oracle_nll"] < rows["fresh sentences"]["oracle_nll"]
    assert rows["copies"]["copied_4"] == 1 and rows["copies"]["oracle_nll"] < level


def test_bigrams_follow_each_other_in_the_training_texts():
    training = RNG.integers(0, 30, (20, 8))
    made = text_baselines.bigrams(training, 50, 0)
    known = {pair for row in training for pair in itertools.pairwise(row)}
    ends = set(training[:, 0])
    assert all((a, b) in known or b in ends for row in made for a, b in itertools.pairwise(row))


def row(table, oracle_nll, forward_nll, distinct_2, copied_4, slope=0.0):
    """The values of a run, whose oracle NLL and distinct 2-grams grow with the temperature."""
    curve = {
        t: {
            "oracle_nll": oracle_nll + slope * (t - 1),
            "forward_nll": forward_nll,
            "distinct_2": distinct_2 + slope / 10 * (t - 1),
            "copied_4": copied_4,
        }
        for t in table._TEMPERATURES
    }
    return table._at_each(curve)


def test_the_verdict_compares_with_a_colder_baseline(table):
    baseline = row(table, 9.2, 7.6, 0.90, 0.001, slope=4)
    gan = row(table, 8.8, 7.7, 0.84, 0.001)
    cold = table.colder([baseline, gan])
    assert cold["temperature"] == pytest.approx(0.9) and cold["distinct_2"] == pytest.approx(0.86)
    rows = {table._BASELINE: baseline, table._GAN: gan}
    assert "No more than a colder baseline: at temperature 0.90" in table.verdict(rows)
    assert "0.20 nats above" in table.verdict(rows)
    rows[table._GAN] = row(table, 8.6, 7.7, 0.88, 0.001)
    assert (
        "in distinct_2. At equal distinct 2-grams, the oracle NLL of the GAN is 0.40 nats below"
        in table.verdict(rows)
    )
    rows[table._GAN] = row(table, 5.0, 7.7, 0.88, 0.001)
    assert "No temperature from 0.7 to 1.1" in table.verdict(rows)


def test_oracle_nll_is_that_of_the_oracle():
    network = oracle.seeded(0)
    sentences = network.sample(np.random.default_rng(0), 20)
    assert nats(network, sentences) == pytest.approx(-network.log_likelihood(sentences).mean())


# ---- Runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a small run of a language model of lines."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "lines.txt").write_text("".join(f"<b>{a}{b}</b>\n" for a in "abcde" for b in "vwxyz") * 4)
    options = [
        f"dataset.path={folder}/lines.txt", "dataset=text", "dataset.examples=lines", "dataset.length=10",
        "game=language_model", "model=text", "model.generator.width=8", "train.batch_size=8", "train.steps=8",
        "train.steps_per_call=4", "train.sample_every=4", "train.eval_samples=20", "logger=none",
        "metric=[bits_per_character,held_out_nll,temperature_curve]", "metric.temperature_curve.samples=10",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        gan_cli.train([*options, "name=run"])
    return folder / "outputs/run"


def test_a_run_writes_texts_with_marks(run):
    assert {"4.txt", "8.txt", "8.txt.provenance.json", "8.png"} <= {path.name for path in run.glob("samples/*")}
    assert len((run / "samples/8.txt").read_text().splitlines()) == texts.COUNT


def test_the_report_contains_texts_as_text(run, tmp_path):
    (run / "samples/8.txt").write_text("</script><b>text</b>\n")
    assert report.main([str(run), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "\\u003c/script>\\u003cb>text" in page and "</script><b>text" not in page
    assert '"temperatures":{"quality":"bleu_4","points":[[' in page


def test_gan_eval_computes_the_metrics_of_texts(run, tmp_path):
    assert gan_eval.main([str(run), "--num", "30", "--json", str(tmp_path / "values.json")]) == 0
    (found,) = json.loads((tmp_path / "values.json").read_text())
    names = {"bleu_2", "self_bleu_5", "distinct_2", "copied_4", "held_out_nll", "bits_per_character"}
    assert names <= found["metrics"].keys() and found["samples"] == 30
    assert not (run / "samples/neighbours.png").exists()


def test_gan_eval_reads_tokens_of_files(run, tmp_path, capsys):
    made = tmp_path / "made.npz"
    assert gan_sample.main([str(run), "--num", "30", "--out", str(made)]) == 0
    arrays = dict(np.load(made))
    # Another order of the vocabulary changes the numbers of the tokens only.
    order = RNG.permutation(len(arrays["vocabulary"]))
    np.savez(
        tmp_path / "other.npz", samples=np.argsort(order)[arrays["samples"]], vocabulary=arrays["vocabulary"][order]
    )
    values = tmp_path / "values.json"
    of_files = [str(run), str(made), str(tmp_path / "other.npz")]
    assert gan_eval.main([*of_files, "--metrics", "bleu,distinct", "--num", "30", "--json", str(values)]) == 0
    first, second, third = (one["metrics"] for one in json.loads(values.read_text()))
    assert second == third and second["bleu_2"] == pytest.approx(first["bleu_2"])
    np.savez(tmp_path / "bad.npz", samples=np.full((4, 10), 99))
    assert gan_eval.main([str(run), str(tmp_path / "bad.npz"), "--metrics", "distinct"]) == 2
    assert "bad.npz: the tokens must be numbers from 0 to" in capsys.readouterr().err


def test_gan_sample_prints_and_writes_texts(run, tmp_path, capsys):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("<b>c\n")
    arguments = [str(run), "--num", "3", "--temperature", "0", "--input", str(prompt)]
    assert gan_sample.main(arguments) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 3 and all(line.startswith("<b>c") for line in printed.splitlines())
    assert gan_sample.main([*arguments, "--out", str(tmp_path / "made.txt")]) == 0
    assert (tmp_path / "made.txt").read_text() == printed
    assert gan_sample.main([str(run), "--num", "3", "--temperature", "0.5", "--out", str(tmp_path / "v.npz")]) == 0
    arrays = np.load(tmp_path / "v.npz")
    assert arrays["samples"].shape == (3, 10) and arrays["samples"].dtype.kind == "i"
    assert "<" in arrays["vocabulary"] and np.array_equal(arrays["temperature"], np.full(3, 0.5, np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "--temperature -1.0: must be a finite number of at least 0"),
        (["--out", "made.gif"], "--out made.gif: the samples of this run are texts"),
        (["--truncation", "1"], "which have no latents. Use --temperature"),
        (["--out", "made"], "leave out --out to print them"),
        (["--task", "score", "--input", "x.npz", "--out", "made.txt"], "made.txt: the nll of this run are numbers"),
        (["--draw", "walk", "--out", "made.gif"], "the samples of this run are texts"),
    ],
)
def test_wrong_options_of_texts_are_answered_in_one_line(run, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert gan_sample.main([str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_texts_of_a_terminal_contain_no_control_characters():
    assert texts.printable("a\x1b[31mb\n\tc\x9b") == "a\ufffd[31mb\n\tc\ufffd"
    assert texts.content(["a\nb", "c"], True) == f"a\nb\n{'-' * 40}\nc\n{'-' * 40}\n"
