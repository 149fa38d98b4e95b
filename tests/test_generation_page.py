"""The page of a sweep of generators: no scale, no baseline, five figures, two players, samples side by side."""

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from upsweep.imaging.tiles import side_by_side
from upsweep.metrics.figure import Figure
from upsweep.reporting.report import write_report
from upsweep.runs import crop, history
from upsweep.runs.about import About
from upsweep.runs.history import Epoch
from upsweep.runs.layout import CROP, HISTORY
from upsweep.runs.manifest import Entry, Manifest
from upsweep.runs.result import Result

FIGURES = (
    Figure(name="fd", title="FD (digits)", better="lower", digits=1, noise=2.0),
    Figure(name="kid", title="KID (digits)", better="lower", digits=3, noise=0.01),
    Figure(name="recall", title="recall (digits)", digits=3, noise=0.01),
)
REACHED = {"none": 90.0, "bn": 50.0}
EPOCHS = 6
SAMPLES = "Samples of the same latents"


def write_sweep(folder: Path) -> Path:
    """Four adversarial runs; batch norm reaches the lower distance, at a loss of G that rises and sinks below 0."""
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (238, 238, 3), np.uint8)
    about, jobs = About.now({"scale": None}), []
    for number, (norm, seed) in enumerate(product(REACHED, ("1", "2"))):
        job = folder / str(number)
        job.mkdir(parents=True)
        said = [f"norm={norm}", f"seed={seed}"]
        jobs.append(Entry(job.name, number, said))
        last = REACHED[norm] + 0.5 * rng.standard_normal()
        falling = [(last + 4 * (EPOCHS - n), 0.1 * n, 1.5 - 0.3 * n, 1.3 - 0.02 * n) for n in range(1, EPOCHS + 1)]
        lines = [
            Epoch(n, 100 * n, 2.0 * n, loss, {"fd": fd, "kid": fd / 100, "recall": recall}, {"discriminator": other})
            for n, (fd, recall, loss, other) in enumerate(falling, 1)
        ]
        history.write(job / HISTORY, lines)
        figures = {name: value for name, value in lines[-1].figures.items() if value is not None}
        Result(
            state="finished",
            choices={"task": "generation", "generator": "dcgan", "adversary": "dcgan", "norm": norm, "data": "digits"},
            overrides=said,
            seed=int(seed),
            scale=None,
            declared=FIGURES,
            figures=figures,
            last=figures,
            parameters=100_000 + 96 * (norm == "bn"),
            seconds=20.0 + number,
        ).write(job)
        about.write(job)
        pixels = side_by_side([rng.integers(0, 256, real.shape, np.uint8), real])
        crop.write(job / CROP, pixels, {"made": "samples", "wanted": "real images"}, SAMPLES)
    Manifest(about=about, jobs=tuple(jobs)).write(folder)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_sweep(tmp_path_factory.mktemp("sweep")))


@pytest.fixture(scope="module")
def data(report: Path) -> dict[str, Any]:
    html = report.read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def shown(report: Path) -> str:
    """What a reader sees."""
    html = re.sub(r"<(script|style).*?</\1>", "", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def test_every_figure_and_the_loss_of_every_player_has_a_curve(data: dict[str, Any]) -> None:
    assert [(curve["column"], curve["title"]) for curve in data["curves"]] == [
        ("fd", "Validation FD (digits); lower is better"),
        ("kid", "Validation KID (digits); lower is better"),
        ("recall", "Validation recall (digits)"),
        ("loss", "Training loss of the generator"),
        ("loss_discriminator", "Training loss of the discriminator"),
    ]
    for run in data["runs"]:
        assert {curve["column"] for curve in data["curves"]} < set(run["history"])


def test_the_page_says_nothing_of_a_scale_or_a_baseline(shown: str) -> None:
    told = shown.partition("How it was made")[0].casefold()
    for word in ("baseline", "bicubic", "scale", "gain", "psnr", " db", "hr ", "most detail", "original", "against ."):
        assert word not in told, word
    assert re.search(r"Best of 2: norm=bn with FD \(digits\) (49|50)\.\d ± \d\.\d over 2 seeds\.", shown)
    assert "norm=bn beats norm=none by" in shown


def test_samples_of_every_run_are_there_and_the_real_images_once(report: Path, shown: str) -> None:
    html = re.sub(r"<script.*?</script>", "", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert html.count("data:image/png") == 4 + 1
    assert f"{SAMPLES}; each run at its best epoch, with the FD (digits) of that." in shown
    assert shown.count("real images") == 3, "in both menus, and under the picture"


def test_a_run_without_real_images_has_its_samples_alone(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path)
    for job in map(str, range(4)):
        crop.write(folder / job / CROP, np.zeros((60, 60, 3), np.uint8), {"made": "samples"}, SAMPLES)
    html = re.sub(r"<script.*?</script>", "", write_report(folder).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert html.count("data:image/png") == 4 and "real images" not in html


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def page(browser: Browser, report: Path) -> Page:
    page = browser.new_page()
    page.goto(report.as_uri())
    return page


@needs_browser
def test_every_curve_is_drawn_and_a_loss_below_zero_too(page: Page, data: dict[str, Any]) -> None:
    for curve in data["curves"]:
        assert page.locator(f"#curve-{curve['column']} .scatterlayer .trace").count() >= 2, curve["column"]
    low, high = page.evaluate("document.getElementById('curve-loss').layout.yaxis.range")
    assert low < 1.5 - 0.3 * EPOCHS < 0 < 1.2 < high


@needs_browser
def test_the_wipe_goes_from_real_images_to_samples_and_between_runs(page: Page) -> None:
    left, right = (page.locator(f"#wipe-{side}") for side in ("left", "right"))
    assert page.locator("#left").input_value() == "0-wanted" and page.locator("#right").input_value() == "0-0"
    assert left.get_attribute("src") != right.get_attribute("src")
    page.locator("#left").select_option("0-1")
    assert left.get_attribute("src") == page.locator('button[data-crop="0-1"] img').get_attribute("src")


@needs_browser
def test_samples_are_large_enough_to_be_read(page: Page) -> None:
    box = page.locator('button[data-crop="0-0"] img').bounding_box()
    assert box is not None and box["width"] >= 238
