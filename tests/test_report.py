"""The report, in a real browser."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import environment
from PIL import Image

from gan_cli.cli.report import main as gan_report
from gan_cli.views import report

HOSTILE = "</script><img src=x onerror=document.title='pwned'>"


def run_directory(path: Path, lr: float = 1e-3, records: int = 40, pictures: int = 3, **facts) -> Path:
    """A run's directory, written by hand: what the report must take as it comes."""
    (path / "samples").mkdir(parents=True)
    config = {"optim": {"lr": lr, "note": HOSTILE}, "seed": 1, "name": path.name}
    told = {
        "status": "finished", "step": 10 * records, "seconds": 12.5, "seed": 1, "config": config,
        "final": {"discriminator/loss": 1.2 * lr, "eval/fid": 3.0 / lr}, "command": ["gan-train", HOSTILE],
        "differences": [{"key": "optim.lr", "default": 2e-4, "value": lr}], "versions": {"jax": "0.12"},
    } | facts  # fmt: skip
    (path / "run.json").write_text(json.dumps(told))
    lines = []
    for i in range(1, records + 1):
        figures = {f"figure{k}": math.sin(i / 9 + k) for k in range(15)}
        losses = {"discriminator/loss": 1 / i, "generator/loss": None if i == 5 else i * lr, "eval/fid": 9 / i}
        lines.append(json.dumps({"step": 10 * i, **losses, **figures, "time": 0.0}))
    (path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 99')
    rng = np.random.default_rng(0)
    for i in range(pictures):
        noise = rng.integers(0, 256, (240, 240)).astype(np.uint8)
        Image.fromarray(noise).save(path / "samples" / f"{10 * (i + 1)}.png")
    return path


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", exc_type=ImportError)
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def look(browser, path: Path, width: int = 1200) -> None:
    browser.set_window_size(width, 900)
    browser.get(path.resolve().as_uri())


def check_silent(browser) -> None:
    """No console error, and no request but for the file itself."""
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"}
    assert all(url.startswith(("file:", "data:")) for url in urls), urls


def texts(browser, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def test_a_run(browser, tmp_path):
    """The slider moves, curves zoom and come back, gaps are gaps, and hostile text stays text."""
    run = run_directory(tmp_path / HOSTILE.replace("/", "").replace(" ", ""))
    look(browser, report.write([run]))
    check_silent(browser)
    title = browser.title
    assert "pwned" not in title.split("<")[0] and browser.execute_script("return document.images.length") == 1
    assert HOSTILE in texts(browser, "main")[0]
    source, step = (
        "return document.querySelector('#sample').src",
        "return document.querySelector('#step').textContent",
    )
    before = browser.execute_script(source)
    assert browser.execute_script(step) == "step 30"
    slider = browser.find_element("css selector", "#slider")
    slider.send_keys("\ue012")  # the left arrow
    assert browser.execute_script(step) == "step 20" and browser.execute_script(source) != before
    card = browser.find_element("css selector", ".cards .card")
    labels = "return [...arguments[0].querySelectorAll('text.x')].map(e => e.textContent)"
    paths = "return [...arguments[0].querySelectorAll('path')].map(e => e.getAttribute('d').split('M').length - 1)"
    whole = browser.execute_script(labels, card)
    assert browser.execute_script(paths, card) == [1, 2]  # the generator's loss has a gap
    card.find_element("css selector", "button.in").click()
    zoomed = browser.execute_script(labels, card)
    assert zoomed != whole
    card.find_element("css selector", ".chart").send_keys("\ue014")  # the right arrow pans
    assert browser.execute_script(labels, card) != zoomed
    card.find_element("css selector", "button.reset").click()
    assert browser.execute_script(labels, card) == whole
    check_silent(browser)


def test_a_sweep(browser, tmp_path):
    """Its table sorts numbers as numbers, any option is plotted over any figure, and 100 runs open at once."""
    for i in range(100):
        run_directory(tmp_path / str(i), lr=10 ** (-4 + i / 50), records=300, pictures=1)
    out = report.write([tmp_path])
    look(browser, out)
    check_silent(browser)
    timing = "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime"
    assert browser.execute_script(timing) < 20_000  # that it opens at all; how fast is measured by the benchmark
    rows = "#page .sortable tbody tr"
    assert len(texts(browser, rows)) == 100
    heads = texts(browser, ".sortable th")
    column = heads.index("optim.lr") + 1
    button = browser.find_elements("css selector", ".sortable th button")[column - 1]
    browser.execute_script("arguments[0].click(); arguments[0].click()", button)
    shown = [float(text) for text in texts(browser, f"{rows} td:nth-child({column})")]
    assert shown == sorted(shown, reverse=True) and len(set(shown)) > 50
    assert len(texts(browser, ".chart circle")) == 100
    from selenium.webdriver.support.ui import Select

    title = texts(browser, "#page h3")
    Select(browser.find_element("css selector", "#up")).select_by_value("eval/fid")
    assert texts(browser, "#page h3") != title and "eval/fid over optim.lr" in texts(browser, "#page h3")
    assert browser.execute_script("return document.images.length") == 100
    check_silent(browser)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_narrow_and_dark(browser, tmp_path, kind):
    """Nothing sticks out of a telephone's screen; the dark colours are others."""
    if kind == "run":
        out = report.write([run_directory(tmp_path / "a")])
    else:
        out = report.write([run_directory(tmp_path / str(i), lr=1e-3 * (i + 1)).parent for i in range(2)][:1])
    # Headless Chromium has no window narrower than 500, but takes any device's width.
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    colours = []
    for scheme in ("light", "dark"):
        feature = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
        look(browser, out)
        colours.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert colours[0] != colours[1]


def test_any_run_has_a_report(tmp_path):
    """One that runs, diverged, was never logged or drawn; pictures that are none are left out."""
    for name, facts in (("running", {"status": "running"}), ("diverged", {"status": "diverged", "diverged_at": 3})):
        assert report.write([run_directory(tmp_path / name, **facts)]).is_file()
    bare = run_directory(tmp_path / "bare")
    (bare / "metrics.jsonl").unlink()
    shutil.rmtree(bare / "samples")
    assert report.write([bare]).is_file()
    fake = run_directory(tmp_path / "fake", pictures=0)
    (fake / "samples" / "10.png").write_bytes(b"<svg onload=alert(1)>")
    assert "svg onload" not in report.write([fake]).read_text()


def test_thinning_keeps_extremes():
    pairs = [(i, math.sin(i / 100) + (50 if i == 1234 else 0)) for i in range(10_000)]
    kept = report._thinned(pairs, 300)
    assert len(kept) <= 301 and (1234, pairs[1234][1]) in kept and kept == sorted(kept)


def test_wrong_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_directory(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    for arguments, told in (
        (["nowhere"], "no such directory"),
        (["empty"], "no run"),
        (["broken"], "cannot be read"),
        (["a", "--out=a/run.json/x.html"], "cannot be written"),
        (["a", "a"], "--out FILE"),
    ):
        assert gan_report(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1, error
    assert not list(tmp_path.rglob("*.html"))
    code = "import sys; from gan_cli.cli.report import main; main(['a'])\n"
    code += "assert not {'jax', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), capture_output=True)
    assert (tmp_path / "a" / "report.html").is_file()
