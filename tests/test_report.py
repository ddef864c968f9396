"""Reports in a browser, of run and sweep directories that the tests write without training."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gan_cli.cli.report import main
from gan_cli.config import check, compose, identity
from gan_cli.config.quoting import as_typed
from gan_cli.errors import UserError
from gan_cli.views import pictures, report

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><!--<script>"
CONFIG = {
    "loss": {"_target_": "gan_cli.losses.hinge", "_partial_": True},
    "optim": {"lr": 2e-4, "decay_steps": 4000},
    "train": {"steps": 4000},
    "name": "a",
}


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows_png(path: Path, labels: Any, shade: int = 0) -> None:
    """Write a picture with labels of its rows, each of which is 20 pixels high."""
    text = PngInfo()
    text.add_text("Rows", labels if isinstance(labels, str) else json.dumps(labels))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((120, 160), shade, np.uint8)).save(path, pnginfo=text)


def records(n: int = 40) -> list[dict[str, Any]]:
    """A log of ``n`` records, in which the generator's loss has a gap at step 700."""
    return [
        {
            "step": 100 * i,
            "discriminator/loss": 1 / i,
            "generator/loss": None if i == 7 else 1 + i / n,
            "generator/grad_norm": 10.0**-i,
            **({"eval/fid": 400 - 5 * i} if i % 10 == 0 else {}),
            "steps_per_second": 100.0,
            "time": 1e9 + i,
        }
        for i in range(1, n + 1)
    ]


def run(folder: Path, *, pictures: int = 4, log: list[dict[str, Any]] | None = None, **facts: Any) -> Path:
    """Write a run directory without training; ``facts`` replace entries of its run.json."""
    (folder / "samples").mkdir(parents=True)
    told = {
        "status": "finished",
        "command": ["gan-train", "name=a"],
        "differences": [{"key": "optim.lr", "default": 1e-4, "value": 2e-4}],
        "seed": 0,
        "versions": {"jax": "0.12"},
        "devices": ["CPU"],
        "git": {"commit": "c0ffee", "clean": True},
        "config": CONFIG,
        "history": [
            {"command": ["gan-train"], "started": "2026-01-01", "status": "stopped", "step": 9, "seconds": 5}
        ],
        "step": 4000,
        "seconds": 10.0,
        "final": {"eval/fid": 200.0, "generator/loss": 2.0},
        "objective": {"name": "fid", "value": 200.0, "step": 4000},
    }
    (folder / "run.json").write_text(json.dumps(told | facts))
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in (records() if log is None else log))
    )
    for i in range(pictures):
        (folder / "samples" / f"{1000 * (i + 1)}.png").write_bytes(png(50 * i % 256))
    if pictures:
        (folder / "samples" / "real.png").write_bytes(png(255))
    return folder


def data(page: Path, block: str = "report") -> Any:
    """A data block of a report, read up to the first end of a script, as a browser reads it."""
    return json.loads(page.read_text().split(f'id="{block}">', 1)[1].split("</script>", 1)[0])


# ---- The contents of a report.


def test_thinned_curves_keep_ends_extremes_and_gaps():
    values: list[float | None] = list(np.sin(np.arange(5000) / 50))
    values[1234], values[3456], values[2222] = 9.0, -9.0, None
    points = list(zip(map(float, range(5000)), values, strict=True))
    kept = report.thin(points, 300)
    assert len(kept) <= 300 and kept == sorted(kept, key=lambda point: point[0])
    assert {points[0], points[-1], points[1234], points[3456], points[2222]} <= set(kept)
    assert report.thin(points[:300], 300) == points[:300]


def test_curves_are_what_was_logged(tmp_path):
    page = report.write(run(tmp_path / "a"))
    blocks = {curve["name"]: data(page, f"curve-{i}")[0] for i, curve in enumerate(data(page)["curves"])}
    assert blocks["eval/fid"] == {"from": 1000, "by": 1000, "y": [350, 300, 250, 200]}
    assert blocks["generator/loss"]["y"][6] is None and blocks["generator/loss"]["y"][7] == 1.2
    assert data(page)["curves"][0]["name"] == "eval/fid" and "time" not in blocks


@pytest.mark.parametrize("case", ["running", "bare", "half a line", "diverged", "rubbish"])
def test_every_run_gets_a_report(case, tmp_path):
    folder = run(tmp_path / "a", pictures=0, log=[] if case == "bare" else None, status="running")
    told = json.loads((folder / "run.json").read_text())
    if case == "bare":
        told = {"config": {}}
    elif case == "half a line":
        with (folder / "metrics.jsonl").open("a") as log:
            log.write('[1]\n{"step": "x"}\n{"step": 4100, "generator/lo')
    elif case == "diverged":
        told |= {"status": "diverged", "diverged_at": 7, "diverged_player": "generator", "diverged_in": "loss"}
    elif case == "rubbish":
        told |= {name: [1, "x"] for name in told if name != "config"} | {"status": {"a": 1}, "final": {"a": "b"}}
        (folder / "evaluations.json").write_text('[{"metrics": 3}, 4]')
    (folder / "run.json").write_text(json.dumps(told))
    found = data(report.write(folder))
    assert found["alone"] and len(found["curves"]) == (0 if case == "bare" else 5)
    if case == "diverged":
        assert found["runs"][0]["notes"] == ["Diverged at step 7: the generator's loss is not finite."]
    assert ("running" in " ".join(found["runs"][0]["notes"])) == (case in ("running", "half a line"))


def test_only_pngs_of_a_sensible_size_are_included(tmp_path, monkeypatch):
    folder = run(tmp_path / "a", pictures=2)
    (folder / "samples" / "3000.png").write_text("<svg onload='alert(1)'>")
    (folder / "samples" / "real.png").write_bytes(png(0)[:16] + (60_000).to_bytes(4, "big") * 2 + png(0)[24:])
    (folder / "samples" / "4000.png").mkdir()
    told = data(report.write(folder))["runs"][0]
    assert [picture["step"] for picture in told["pictures"]] == [1000, 2000] and told["real"] is None
    monkeypatch.setattr(report, "_LARGEST", 10)
    assert data(report.write(folder))["runs"][0]["pictures"] == []


def test_many_pictures_are_thinned_and_the_last_is_kept(tmp_path):
    told = data(report.write(run(tmp_path / "a", pictures=230)))["runs"][0]
    steps = [picture["step"] for picture in told["pictures"]]
    assert len(steps) == 100 and steps[-1] == 230_000 and told["drawn"] == 230


def test_duration_counts_all_starts(tmp_path):
    assert data(report.write(run(tmp_path / "a")))["runs"][0]["seconds"] == 15
    started = {"status": "running", "started": "2001-09-09T01:46:40+0000", "history": []}
    assert data(report.write(run(tmp_path / "b", **started)))["runs"][0]["seconds"] == 40


def test_members_of_an_ensemble_are_compared(tmp_path):
    run(tmp_path / "e", pictures=0, log=[])
    for i in range(11):
        run(tmp_path / "e" / "members" / str(i), config=CONFIG | {"seed": i, "name": str(i)})
    found = data(report.write(tmp_path / "e"))
    assert [one["name"] for one in found["runs"]] == [str(i) for i in range(11)] and found["varied"] == ["seed"]


def test_labels_of_rows_are_data(tmp_path):
    """The labels come from the metadata of the newest picture of a task. Labels of another form are left out."""
    folder = run(tmp_path / "a", pictures=0)
    pictures.write(folder / "samples" / "t" / "1.png", Image.new("L", (9, 9)), None, ["input", "output"])
    for name, labels in {"a": ["x"] * 100, "b": "[1", "c": {"x": 1}, "d": [3, "y" * 99, HOSTILE[:30]]}.items():
        rows_png(folder / "samples" / name / "2.png", labels)
    (folder / "samples" / "e").mkdir()
    (folder / "samples" / "e" / "2.png").write_bytes(png(0)[:40])
    found = {task["name"]: task["rows"] for task in data(report.write(folder))["runs"][0]["tasks"]}
    assert found == {"a": [], "b": [], "c": [], "d": [HOSTILE[:30]], "e": [], "t": ["input", "output"]}
    both = data(report.compare([folder, run(tmp_path / "b")], tmp_path / "both.html"))["runs"]
    assert [one["drawn_at"] for one in both] == [2, 4000]  # a run without samples shows its first task


# ---- The model card.


def card(folder: Path) -> dict[str, str]:
    """The sentences of the model card by title."""
    return {title: " ".join(lines) for title, lines in data(report.write(folder))["runs"][0]["card"]}


def test_card_of_a_run_without_statements_evaluations_or_privacy(tmp_path):
    found = card(run(tmp_path / "a", final={}))
    assert {found[name] for name in ("Intended use", "Not intended for", "Licence", "Contact", "Data")} == {
        "Not stated."
    }
    assert found["Privacy"] == "Trained without a privacy guarantee. Not audited."
    assert found["Metrics"].startswith("Not computed") and found["Copying"].startswith("Not computed")
    assert found["Known failures"].startswith("None found.")


def test_card_of_a_private_run_with_failures(tmp_path):
    """The card has the user's statements, the values of the latest checkpoint, and all that monitors have found."""
    stated = {"licence": "CC BY 4.0", "data": HOSTILE, "contact": 3}
    folder = run(
        tmp_path / "a",
        config=CONFIG | {"card": stated},
        data={"name": "digits", "examples": 4500, "held_out": 500},
        final={"eval/fid": 200.0, "eval/classes": 10, "modes": 6.0, "modes_total": 8.0},
        privacy={
            "epsilon": 2.96, "delta": 1e-5, "noise_multiplier": 1.1, "sampling_rate": 0.01, "steps": 4000,
            "accountant": "pld",
        },
        collapse_suspected_at=3000,
    )  # fmt: skip
    metrics = {"fid": 27.77, "classes": 8, "classes_total": 10, "copying": 0.71, "memorised": 1}
    metrics |= {"detectable_auc": 0.72, "detectable_auc_low": 0.69, "detectable_auc_high": 0.75}
    metrics |= {"membership_auc": 0.53, "epsilon_lower_bound": 0.4, "epsilon_lower_bound_max": 1.2}
    terms = {"samples": 10_000, "features": "classifier", "reference": "digits", "seed": 0}
    (folder / "private").mkdir()
    (folder / "private/evaluations.json").write_text(
        json.dumps([terms | {"step": 4000, "metrics": metrics}, terms | {"step": 1000, "metrics": {"fid": 99.0}}])
    )
    found = card(folder)
    assert found["Licence"] == "CC BY 4.0" and found["Contact"] == "Not stated."
    assert found["Data"] == f"{HOSTILE} digits: 4,500 training examples, 500 held out."
    assert "fid 27.77" in found["Metrics"]
    assert found["Metrics"].endswith("Step 4,000, 10,000 samples, in classifier, against digits.")
    assert "0.72 (95 % interval 0.69 to 0.75" in found["Detectability"]
    assert found["Copying"].startswith("A sign of copying") and "0.71" in found["Copying"]
    assert found["Privacy"] == (
        "Differentially private: epsilon 2.96 at delta 1e-05, computed by the accountant pld. Noise multiplier "
        "1.1, sampling rate 0.01, steps 4000. Audit: an attack tells training examples from others with an area "
        "under the ROC curve of 0.53 (0.5 is chance). Audit with canaries: epsilon is at least 0.4 at 95 % "
        "confidence, where the canaries can show at most 1.2. The audit cannot test the privacy guarantee, because "
        "it has too few canaries."
    )
    assert found["Known failures"] == (
        "Mode collapse is suspected since step 3,000. 2 of 10 classes of the data are rare or missing among the "
        "samples. 2 of 8 modes of the data are rare or missing among the samples. The samples are suspiciously "
        "near to training examples."
    )


def test_card_options_are_free_and_typed_without_quotes():
    """A resumed run may change the card, because its options do not determine the result."""
    with compose.session() as hydra:
        overrides = as_typed(["card.licence=CC BY 4.0 (credit: A, B)", "card.data=null"])
        stated, plain = (check.check(compose.ours(compose.compose(hydra, one))) for one in (overrides, []))
        with pytest.raises(UserError, match=r"card\.license: no such option"):
            check.check(compose.ours(compose.compose(hydra, ["+card.license=MIT"])))
    assert stated["card"]["licence"] == "CC BY 4.0 (credit: A, B)" and plain["card"]["licence"] is None
    assert identity.fingerprint(stated) == identity.fingerprint(plain)


# ---- The command.


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "a"), run(tmp_path / "b")
    assert main(["a"]) == 0 and capsys.readouterr().out == "a/report.html\n"
    assert main(["a", "b", "--out", "new/both.html"]) == 0 and capsys.readouterr().out == "new/both.html\n"
    assert [one["name"] for one in data(Path("new/both.html"))["runs"]] == ["a", "b"]
    assert sorted(path.name for path in Path("a").iterdir()) == [
        "metrics.jsonl",
        "report.html",
        "run.json",
        "samples",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "none: there is no such directory."),
        (["empty"], "empty: the directory contains no run (there is no run.json)."),
        (["broken"], "broken: run.json cannot be read"),
        (["a", "empty"], "empty: the directory contains no run"),
        (["a", "a"], "--out: a report of several directories needs a path."),
        (["a", "--out", "empty"], "empty: cannot be written, because the path is a directory."),
        (["a", "--out", "a/run.json/x.html"], "a/run.json/x.html: cannot be written, because"),
    ],
)
def test_wrong_input(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "a")
    for name in ("empty", "broken"):
        Path(name).mkdir()
    Path("broken/run.json").write_text('{"status": "run')
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"gan-report: {said}") and told.err.count("\n") == 1 and not told.out
    assert not list(tmp_path.rglob("*.html"))


def test_command_starts_without_jax(tmp_path):
    run(tmp_path / "a")
    code = (
        "import sys; from gan_cli.cli.report import main; main(['a']); print({'jax', 'hydra'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "a/report.html\nset()\n"


# ---- The page.


class Page:
    """A report in a browser, with the operations that the tests need."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, path: Path, width: int = 1200) -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(path.absolute().as_uri())
        self.settle()

    def settle(self) -> None:
        """Wait until the page is drawn: charts draw only after they receive their size."""
        frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        self.driver.execute_async_script(frames)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {code}", *arguments)

    def texts(self, selector: str) -> list[str]:
        return self.js("[...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def choose(self, label: str, option: str) -> None:
        from selenium.webdriver.support.ui import Select

        box = self.driver.find_element("xpath", f"//label[starts-with(., '{label}')]/select")
        Select(box).select_by_visible_text(option)
        self.settle()

    def quiet(self) -> bool:
        """Whether the browser has logged no message."""
        return self.driver.get_log("browser") == []


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield Page(driver)
    driver.quit()


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[[int], Path]:
    def make(n: int) -> Path:
        for i in range(n):
            config = CONFIG | {
                "optim": {"lr": [1e-3, 2e-4, 1e-2][i % 3]},
                "seed": i,
                "penalty": {"r1": ["off", "on"][i % 2]},
            }
            facts = {"final": {"eval/fid": 200.0 - i}} if i else {"status": "diverged", "final": {"eval/fid": None}}
            run(tmp_path / "sweep" / str(i), pictures=1 if i else 0, config=config, objective=None, **facts)
        return report.write(tmp_path / "sweep")

    return make


def test_page_of_a_run(page, tmp_path):
    folder = run(tmp_path / "a")
    (folder / "samples" / "neighbours.png").write_bytes(png(9))
    terms = {"run": "a", "features": "pixels", "samples": 1000, "reference": "digits", "seed": 0}
    found = [terms | {"step": 4000, "metrics": {"kid": 0.25}}]
    (folder / "evaluations.json").write_text(json.dumps(found))
    page.open(report.write(folder))
    assert page.quiet()
    assert page.texts("h1") == [str(folder)] and page.texts(".status") == ["finished"]
    assert page.texts("h3")[:3] == ["fid", "Losses", "Gradient norms"]
    assert "kid0.25" in page.texts(".figures div") and "best fid, at step 4,000200" in page.texts(".figures div")
    assert page.texts("section h2")[:3] == ["Model card", "Samples", "Curves"]
    assert page.texts("tbody tr")[0] == "Intended useNot stated." and "optim.lr0.00010.0002" in page.texts(
        "tbody tr"
    )
    assert page.js("[...document.images].map((one) => one.alt)") == [
        "samples at step 4,000",
        "real data",
        "samples and their nearest training examples",
    ]
    assert page.js("document.querySelectorAll('a, link, script[src], iframe').length") == 0
    # The gap at step 700 splits the curve of the generator's loss in two.
    drawn = page.js(
        "[...document.querySelectorAll('.plot')[1].querySelectorAll('path')].map((p) => p.getAttribute('d'))"
    )
    assert [path.count("M") for path in drawn] == [1, 2]


def test_slider(page, tmp_path):
    page.open(report.write(run(tmp_path / "a")))
    slider, shown = page.find("input[type=range]"), page.find("#samples")
    last = shown.get_attribute("src")
    assert page.texts("output") == ["step 4,000"]
    slider.send_keys("\ue012")  # the left arrow
    assert page.texts("output") == ["step 3,000"] and shown.get_attribute("src") != last
    slider.send_keys("\ue014")
    assert page.texts("output") == ["step 4,000"] and shown.get_attribute("src") == last
    play = page.find(".slide button")
    play.click()
    assert page.texts("output") == ["step 1,000"] and play.text == "pause"
    page.driver.execute_async_script(
        "const done = arguments[0], out = document.querySelector('output');"
        "new MutationObserver(() => out.textContent === 'step 4,000' && done()).observe(out, { childList: true })"
    )
    assert shown.get_attribute("src") == last


def test_rows_of_a_task_have_labels(page, tmp_path):
    """Each label stands beside its row, and the slider shows the pictures of all steps."""
    folder, labels = run(tmp_path / "a", pictures=0), ["input", "output", "target"] * 2
    for step in (1, 2, 3):
        rows_png(folder / "samples" / "a_to_b" / f"{step}.png", labels, 40 * step)
    page.open(report.write(folder))
    assert page.texts(".rows li") == labels and page.texts("figcaption") == ["input, output, target, step 3"]
    of = "[...document.querySelectorAll('{}')].map((one) => one.getBoundingClientRect())"
    (picture,), places = page.js(f"[{of.format('.labelled img')}, {of.format('.rows li')}]")
    for i, place in enumerate(places):
        middle = (place["top"] + place["bottom"]) / 2
        assert abs(middle - picture["top"] - (20 * i + 10)) < 2 and place["right"] <= picture["left"]
    page.find("input[type=range]").send_keys("\ue012")  # the key Left
    assert page.texts("figcaption") == ["input, output, target, step 2"]
    assert page.quiet()


def test_zoom_pan_log_and_reset(page, tmp_path):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    page.open(report.write(run(tmp_path / "a")))
    chart = page.driver.find_elements("css selector", ".plot")[1]

    def across():
        page.settle()
        return page.js("[...arguments[0].querySelectorAll('.ticks-x text')].map((one) => one.textContent)", chart)

    def press(name):
        chart.find_element("css selector", f"button[title='{name}']").click()

    full = across()
    press("zoom in")
    near = across()
    assert near != full
    frame = chart.find_element("css selector", "svg")
    ActionChains(page.driver).drag_and_drop_by_offset(frame, -60, 0).perform()
    moved = across()
    assert moved != near
    press("show everything")
    assert across() == full
    frame.click()
    ActionChains(page.driver).scroll_from_origin(ScrollOrigin.from_element(frame), 0, -400).perform()
    assert across() != full
    frame.send_keys("0")
    assert across() == full
    frame.send_keys("+")
    assert across() == near
    frame.send_keys("0")
    ActionChains(page.driver).move_to_element(page.find("h1")).perform()
    frame.send_keys(Keys.ARROW_RIGHT)
    frame.send_keys(Keys.ARROW_RIGHT)
    legend = chart.find_element("css selector", ".legend").text.split("\n")
    assert legend == ["step 200", "discriminator 0.5", "generator 1.05"]
    ActionChains(page.driver).move_to_element_with_offset(frame, 20, 5).perform()
    assert chart.find_element("css selector", ".legend").text.startswith("step 2,")
    norms = page.driver.find_elements("css selector", ".plot")[2]
    norms.find_element("css selector", "input[type=checkbox]").click()
    page.settle()
    up = norms.find_elements("css selector", ".ticks-y text")
    assert {"1e\u221210", "1e\u221240"} <= {tick.text for tick in up}
    assert page.quiet()


def test_table_sorts(page, sweep):
    page.open(sweep(12))
    assert page.quiet()

    def sort(name):
        page.driver.find_element("xpath", f"//th/button[text()='{name}']").click()
        order = page.js("document.querySelector('th[aria-sort]').getAttribute('aria-sort')")
        return order, page.texts(".sortable tbody th")

    assert page.texts(".sortable thead th")[:6] == ["run", "status", "optim.lr", "seed", "penalty.r1", "step"]
    assert sort("run")[1] == [str(i) for i in range(12)]
    assert sort("seed")[1] == [str(i) for i in range(12)]
    assert sort("seed") == ("descending", [str(i) for i in reversed(range(12))])
    assert sort("eval/fid")[1] == [*map(str, reversed(range(1, 12))), "0"]  # missing values come last
    assert sort("eval/fid")[1] == [*map(str, range(1, 12)), "0"]
    lrs = sort("optim.lr") and page.texts(".sortable tbody td:nth-child(3)")
    assert lrs == sorted(lrs, key=float)
    assert page.texts(".gallery .none") == ["no picture"]
    assert page.js("[...document.images].every((one) => one.loading === 'lazy' && one.decoding === 'async')")


def test_scatter_and_overlay(page, sweep):
    from selenium.webdriver import ActionChains

    page.open(sweep(12))
    first, second = page.driver.find_elements("css selector", ".plot")

    def centres():
        page.settle()
        return page.js(
            "[...arguments[0].querySelectorAll('circle')].map((c) => [c.cx.baseVal.value, c.cy.baseVal.value])",
            first,
        )

    places = centres()
    assert len(places) == 11 and len({round(x) for x, _ in places}) == 3  # the diverged run has no figure
    assert "Runs without this metric: 1." in first.text
    page.choose("across", "seed")
    assert "eval/fid by seed" in first.text
    assert len({round(x) for x, _ in centres()}) == 11
    frame = first.find_element("css selector", "svg")
    page.js("arguments[0].scrollIntoView()", frame)
    x, y = centres()[0]
    to = round(x - frame.rect["width"] / 2), round(y - frame.rect["height"] / 2)
    ActionChains(page.driver).move_to_element_with_offset(frame, *to).perform()
    assert first.find_element("css selector", ".legend").text.split("\n") == ["1", "seed 1", "eval/fid 199"]
    page.choose("across", "penalty.r1")
    assert len({round(x) for x, _ in centres()}) == 2
    assert page.texts(".plot:first-of-type .ticks-x text")[:2] == ["off", "on"]
    page.choose("across", "optim.lr")
    before = centres()  # the values span a factor of 50, so the axis starts as logarithmic
    assert page.js("document.querySelector('.controls input').checked")
    page.driver.find_element("xpath", "//label[contains(., 'log across')]/input").click()
    assert centres() != before
    assert len(second.find_elements("css selector", "path")) == 12
    page.choose("curve", "generator/loss")
    assert second.find_element("css selector", "h3").text == "generator/loss"
    assert page.quiet()


@pytest.mark.parametrize("several", [False, True])
def test_hostile_text_stays_text(several, page, tmp_path):
    log = [{"step": 1, HOSTILE: 1.0, "__proto__": 2.0}, {"step": 2, HOSTILE: 2.0}]
    facts = {
        "config": {HOSTILE: HOSTILE, "__proto__": {"x": HOSTILE}, "train": {"steps": HOSTILE}},
        "differences": [{"key": HOSTILE, "default": HOSTILE, "value": [HOSTILE]}],
        "status": HOSTILE,
        "started": HOSTILE,
        "final": {HOSTILE: 1.0, "constructor": 1.0},
        "objective": {"name": HOSTILE, "value": 1, "step": HOSTILE},
        "command": [HOSTILE],
        "versions": {HOSTILE: HOSTILE},
        "error": HOSTILE,
        "verdict": HOSTILE,
    }
    folder = run(tmp_path / "s" / "0", log=log, **facts)
    (folder / "evaluations.json").write_text(json.dumps([{"run": HOSTILE, "metrics": {HOSTILE: HOSTILE}}]))
    if several:
        run(tmp_path / "s" / "1", log=log, **facts | {"config": {HOSTILE: "other"}})
    written = report.write(tmp_path / "s")
    page.open(written, 400)
    assert page.quiet()
    assert page.js("document.title") == str(tmp_path / "s")
    assert page.js("document.querySelectorAll('img[onerror]').length") == 0
    assert any(HOSTILE in text for text in page.texts("th"))
    assert page.js("document.documentElement.scrollWidth") <= 400
    assert HOSTILE not in written.read_text()


@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_is_wider_than_the_window(width, page, sweep, tmp_path):
    key = "a_" * 60
    long = run(tmp_path / "long", final={key: 1.0}, config=CONFIG | {key: key}, command=[key], status="running")
    for written in (sweep(3), report.write(long)):
        page.open(written, width)
        page.js("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.js("document.documentElement.scrollWidth") <= width
        assert page.quiet()
