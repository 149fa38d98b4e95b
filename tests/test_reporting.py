"""The report: figures against SciPy and by hand, what is said of them, and the page in a real browser."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from html import unescape
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser, Dialog, Page, sync_playwright
from scipy import stats
from skimage.data import astronaut
from tests.small_results import CHOICES, PSNR, result

from upsweep.analysis.effects import Effect, effects, findings
from upsweep.analysis.sentences import chance, interaction_sentence, power_sentence, sentence
from upsweep.analysis.variance import Interaction, explained
from upsweep.common.errors import UserError
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image
from upsweep.metrics.figure import Figure
from upsweep.reporting.plots import LINE, axes, cells, kept_apart, lines, pareto, span, ticks
from upsweep.reporting.report import forest, html, write_report
from upsweep.reporting.sweep import find_sweep, read_sweep
from upsweep.runs.about import About
from upsweep.runs.result import FIGURES_OF_VERSION_1, Result, State
from upsweep.runs.strip import MOST_BYTES, read_strip, write_strip
from upsweep.runs.why import Why, declare

ROOT = Path(__file__).resolve().parent.parent
RMSE = Figure(name="rmse", title="RMSE", unit="%", better="lower", digits=3, noise=0.01, baseline="noisy")


def write_sweep(
    folder: Path,
    grid: Mapping[str, Sequence[str]],
    reached: Callable[[Mapping[str, str], np.random.Generator], float | None],
    epochs: int = 12,
    crops: bool = True,
    **of_results: Any,
) -> Path:
    """A sweep over `grid`; `reached` gives a run's final figure, or None where it diverges."""
    rng = np.random.default_rng(0)
    about = About.now({"scale": 2, "optimizer": {"lr": 2e-3}})
    hr = rng.integers(0, 256, (96, 96, 3), np.uint8)
    jobs = []
    for number, values in enumerate(product(*grid.values())):
        settings = dict(zip(grid, values, strict=True))
        overrides = [f"{key}={value}" for key, value in settings.items()]
        job = folder / str(number)
        job.mkdir(parents=True)
        jobs.append({"name": job.name, "number": number, "overrides": overrides})
        final = reached(settings, rng)
        size = 11_000 + 160 * (settings.get("norm") == "bn")
        write_result(job, settings, overrides, final, parameters=size, rng=rng, **of_results)
        config = {"init": {"_target_": settings.get("init", "he")}, "folder": f"{job.resolve()}/checkpoints"}
        About(**{**asdict(about), "config": {**about.config, **config}}).write(job)
        headline = of_results.get("figures", FIGURES_OF_VERSION_1)[0].name
        lines = [f"epoch,step,seconds,loss,{headline},other"]
        for epoch in range(1, (epochs if final is not None else 3) + 1):
            left = np.exp(-4 * epoch / epochs) * (1 + 0.2 * rng.random())
            now = (30.0 if final is None else final) - 4 * left
            lines.append(f"{epoch},{125 * epoch},{2.5 * epoch + rng.random():.3f},{0.02 + 0.08 * left},{now},0.9")
        (job / "history.csv").write_text("\n".join(lines) + "\n")
        if crops and final is not None:
            gap = np.full((96, 8, 3), 255, np.uint8)
            bicubic = (hr // 2) + 64
            sr = np.clip(hr.astype(int) + rng.integers(-20, 20, hr.shape), 0, 255).astype(np.uint8)
            write_image(job / "crop.png", Picture(np.concatenate([bicubic, gap, sr, gap, hr], axis=1)))
        if settings.get("norm") == "bn":
            said: dict[str, str | bool] = {"problem": "vanishing gradients", "group": "init"}
            said |= {"text": "The first layer sees 0.01 of the last.", "found": settings.get("seed") != "3"}
            (job / "diagnoses.json").write_text(json.dumps({"version": 1, "sentences": [said], "layers": []}))
    (folder / "sweep.json").write_text(json.dumps({"version": 1, **asdict(about), "jobs": jobs}))
    return folder


def write_result(
    job: Path,
    settings: Mapping[str, str],
    overrides: Sequence[str],
    final: float | None,
    *,
    parameters: int = 11_000,
    rng: np.random.Generator | None = None,
    figures: tuple[Figure, ...] = FIGURES_OF_VERSION_1,
    baseline: float = 31.5,
    luck: Mapping[str, float] | None = None,
) -> Result:
    """`luck`: by how much the best epoch is ahead of the last, by the norm."""
    state: State = "diverged" if final is None else "finished"
    rest: dict[str, Any] = {"reason": "the loss was not finite in epoch 3 (step 375)"} if final is None else {}
    result = Result(
        state=state,
        choices=CHOICES | {key: value for key, value in settings.items() if key in CHOICES},
        overrides=list(overrides),
        seed=int(settings.get("seed", 1)),
        scale=int(settings.get("scale", 2)),
        declared=figures,
        figures={} if final is None else {figures[0].name: final + (luck or {}).get(settings.get("norm", ""), 0.0)},
        last={} if final is None else {figures[0].name: final},
        baseline={figures[0].name: baseline},
        parameters=parameters,
        seconds=30.0 + (0 if rng is None else 5 * rng.random()) + (12.0 if settings.get("norm") == "bn" else 0.0),
        **rest,
    )
    result.write(job)
    return result


# ------------------------------------------------------------------------------- the worked example

DOCUMENT = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
ROWS = re.findall(r"\| (\w+) \| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", DOCUMENT)


def example() -> list[Result]:
    """The twelve runs of docs/report.md."""
    return [
        result(float(value), activation=activation, norm=norm, seed=str(seed))
        for activation, norm, *values, _ in ROWS
        for seed, value in enumerate(values, 1)
    ]


def test_every_number_of_the_worked_example_is_recomputed_from_its_table() -> None:
    table = np.array([[float(value) for value in values] for _, _, *values, _ in ROWS])
    means = table.mean(axis=1)
    assert [f"{mean:.2f}" for mean in means] == [row[-1] for row in ROWS]
    pairs = np.array([table[0] - table[1], table[2] - table[3]])
    relu, tanh = pairs.mean(axis=1)
    squares, df = ((pairs - pairs.mean(axis=1)[:, None]) ** 2).sum(), 2 * (3 - 1)
    deviation = np.sqrt(squares / df)
    error, error_of_one = deviation / np.sqrt(6), deviation / np.sqrt(3)
    both, alone = stats.t.ppf(1 - 0.05 / 2 / 2, df), stats.t.ppf(1 - 0.05 / 2, df)
    norm, activation = (relu + tanh) / 2, (means[2:] - means[:2]).mean()
    total = ((table - table.mean()) ** 2).sum()
    crossed = means.reshape(2, 2) - means.reshape(2, 2).mean(0) - means.reshape(2, 2).mean(1)[:, None] + table.mean()
    shares = {
        "activation": 12 * (activation / 2) ** 2,
        "norm x activation": 3 * (crossed**2).sum(),
        "norm": 12 * (norm / 2) ** 2,
        "seed": 4 * ((table.mean(axis=0) - table.mean()) ** 2).sum(),
        "rest": ((table - means[:, None] - table.mean(axis=0) + table.mean()) ** 2).sum(),
    }

    said = " ".join(DOCUMENT.split())
    for told in (
        f"{relu:.2f} dB with ReLU and {tanh:.2f} dB with tanh, {norm:.2f} dB on average",
        " dB with ReLU, by ".join(f"{a:.2f}, {b:.2f} and {c:.2f}" for a, b, c in pairs),
        f"sum to {squares:.4f}, with 2 + 2 = {df} degrees of freedom",
        f"√({squares:.4f} / {df}) = {deviation:.2f} dB",
        f"{deviation:.2f} dB / √6 = {error:.4f} dB",
        f"Student's t is {both:.2f} in place of {alone:.2f}",
        f"{norm:.2f} ± {both:.2f} × {error:.4f} dB, from {norm - both * error:.2f} to {norm + both * error:.2f} dB",
        f"it is {tanh:.2f} ± {both:.2f} × {deviation:.2f} / √3 dB",
        f"from {tanh - both * error_of_one:.2f} to {tanh + both * error_of_one:.2f} dB",
        ", ".join(f"{name} {100 * share / total:.1f} %" for name, share in shares.items()),
    ):
        assert told in said
    found = findings(example())
    assert found.comparisons == 2
    assert all(f"> {sentence(effect)}" in said for effect in found.effects)
    assert power_sentence(found.effects) in said
    of_norm, of_activation = found.effects
    assert (of_norm.difference, of_activation.difference) == pytest.approx((norm, activation))
    assert (of_norm.low, of_norm.high) == pytest.approx((norm - both * error, norm + both * error))
    variance = explained(found.studies[0])
    assert variance is not None
    for share in variance.shares:
        assert share.share == pytest.approx(shares[share.name] / total)


# --------------------------------------------------------------------------------------------- plots

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = pareto(points)
    for i, (cost, worth) in enumerate(points):
        beaten = any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)
        assert any(points[j] == (cost, worth) for j in front) != beaten, i
    assert [points[i][0] for i in front] == sorted({points[i][0] for i in front})


def test_points_are_means_over_the_seeds_that_finished() -> None:
    runs = [
        *(result(30.0 + i, init="he", seed=str(i)) for i in range(3)),
        result(33.0, init="xavier", seed="0"),
        result(50.0, "diverged", init="xavier", seed="1"),
    ]
    first, second = cells(runs, ["init"])
    assert (first["label"], first["value"], first["sd"], first["seeds"], first["of"]) == (
        "init=xavier",
        33.0,
        None,
        1,
        2,
    )
    assert (second["value"], second["sd"], second["seeds"]) == (31.0, 1.0, 3)


def test_points_and_the_front_know_where_less_is_better() -> None:
    priced = {"a": (0.3, 100), "b": (0.2, 200), "c": (0.4, 300)}
    runs = [
        replace(result(value, figure=RMSE, init=name), parameters=parameters, baseline={"rmse": 0.5})
        for name, (value, parameters) in priced.items()
    ]
    found = cells(runs, ["init"])
    assert [(cell["label"], cell["lead"]) for cell in found] == [
        ("init=b", pytest.approx(0.3)),
        ("init=a", pytest.approx(0.2)),
        ("init=c", pytest.approx(0.1)),
    ]
    assert [cell["label"] for cell in found if "parameters" in cell["fronts"]] == ["init=b", "init=a"]


def test_a_continuum_of_numbers_is_an_axis_not_a_list_of_choices() -> None:
    runs = [result(30.0, dropout__p=str(i / 100), init="he" if i % 2 else "xavier") for i in range(20)]
    found = {axis["name"]: axis for axis in axes(runs)}
    assert found["dropout.p"]["numeric"] and not found["init"]["numeric"]
    assert found["dropout.p"]["values"][1:3] == ["0.01", "0.02"]
    assert {effect.key for effect in effects(runs)} == {"init"}


@given(st.floats(-5, 0), st.floats(0.001, 20))
def test_an_axis_holds_its_effects_and_zero_with_few_round_ticks(low: float, high: float) -> None:
    effect = Effect(
        key="a", better="b", worse="c", difference=max(0, (low + high) / 2), low=low, high=high,
        pairs=2, planned=2, missing={},
    )  # fmt: skip
    left, right = span([effect])
    assert left <= low + 1e-6 and right >= high - 1e-6
    assert 2 <= len(ticks(left, right)) <= 8 and 0 in ticks(left, right)


def test_the_small_picture_is_an_svg_that_names_every_effect() -> None:
    trap = "<script>alert(1)</script>"
    runs = [
        result(p, norm=n, seed=s)
        for p, n, s in [(31, "none", "1"), (31.2, "none", "2"), (30, trap, "1"), (30.1, trap, "2")]
    ]
    drawn = forest(effects(runs), "A & B")
    texts = ["".join(node.itertext()) for node in ET.fromstring(drawn).iter() if node.tag.endswith("text")]
    assert texts[0] == "A & B"
    assert f"norm: none over {trap}" in texts
    assert any(text.startswith("1.05 (") for text in texts)


def test_the_small_picture_tells_verdicts_by_form_and_by_word() -> None:
    drawn = ET.fromstring(forest(effects(example()), "Worth"))
    words = [node.text for node in drawn.iter() if node.tag.endswith("tspan")]
    marks = [(node.tag.partition("}")[2], node.get("class")) for node in drawn.iter() if node.get("stroke-width")]
    assert dict(zip(words, marks, strict=True)) == {"ahead": ("rect", "ahead"), "beats": ("circle", "beats")}
    assert any("95 % intervals, together" in text for text in drawn.itertext())


@given(st.lists(st.floats(0, 100), max_size=16))
def test_names_at_lines_keep_their_order_and_their_distance_inside_the_picture(places: list[float]) -> None:
    height = max(170, LINE * len(places))
    moved = kept_apart(places, LINE, height)
    order = sorted(range(len(places)), key=places.__getitem__)
    gaps = [moved[b] - moved[a] for a, b in pairwise(order)]
    assert all(gap >= LINE - 1e-9 for gap in gaps)
    assert all(-1e-9 <= place <= height for place in moved)
    if all(places[b] - places[a] >= LINE for a, b in pairwise(order)):
        assert moved == places, "what is apart stays"


def test_a_line_breaks_where_no_run_finished_and_higher_means_lie_higher() -> None:
    means = [[30.0, None, 31.0], [None, None, None], [29.0, 32.0, 30.5]]
    of = {"of": ("norm", "init"), "share": 0.1, "rows": ["none", "bn", "in"], "columns": ["a", "b", "c"]}
    none, bn, instance = lines(Interaction(means=means, **of))["rows"]  # type: ignore[arg-type]
    assert [point is None for point in none["points"]] == [False, True, False] and none["end"] == none["points"][2]
    assert bn["end"] is None and bn["label"] is None
    ys = [instance["points"][i][1] for i in (1, 2, 0)]
    assert ys == sorted(ys), "the y of a picture grows downwards"


# ---------------------------------------------------------------------------------------------- page

GRID = {"init": ["xavier", "he"], "norm": ["none", "bn"], "seed": ["1", "2", "3"]}


def typical(settings: Mapping[str, str], rng: np.random.Generator) -> float:
    return 32.0 - 0.4 * (settings.get("norm") == "bn") + 0.05 * rng.standard_normal()


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def without_scripts(html: str) -> str:
    return re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", GRID, typical, crops=False)
    code = "import sys; from pathlib import Path; from upsweep.reporting.report import write_report; "
    code += "write_report(Path(sys.argv[1])); print({'torch', 'pytorch_lightning'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code, folder], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_hundred_runs_stay_below_ten_megabytes_whatever_their_pictures(tmp_path: Path) -> None:
    grid = {"init": ["a", "b", "c", "d", "e"], "norm": ["none", "bn"], "activation": ["x", "y"], "seed": list("12345")}
    folder = write_sweep(tmp_path, grid, typical, epochs=300)  # the crops are noise, which no PNG makes smaller
    assert len(list(folder.glob("*/crop.png"))) == 100
    page = write_report(folder)
    assert page.stat().st_size < 10e6
    html = without_scripts(page.read_text(encoding="utf-8"))
    assert html.count("data:image/png") == 102, "one of each run, and HR and bicubic once"
    assert set(re.findall(r' (?:src|href)="(data:|#|.{9})', html)) == {"data:", "#"}, "nothing is fetched"


def test_what_was_written_by_others_is_text(tmp_path: Path) -> None:
    trap = "<script>alert('x')</script>&amp;\"'"
    folder = write_sweep(tmp_path, {"norm": ["none", trap], "seed": ["1", "2"]}, typical)
    said = {"version": 1, "sentences": [{"problem": trap, "found": True, "text": trap, "group": trap}]}
    (folder / "0" / "diagnoses.json").write_text(json.dumps(said))
    html = page_of(folder)
    assert "<script>alert" not in html
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["axes"][0]["values"] == ["none", trap]


def test_the_page_lets_only_its_own_styles_and_scripts_run(tmp_path: Path) -> None:
    html = page_of(write_sweep(tmp_path, {"norm": ["none", "bn"], "seed": ["1", "2"]}, typical))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert "unsafe" not in policy and "default-src 'none'" in policy
    allowed = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    for kind, tag in (("style-src", r"<style[^>]*>(.*?)</style>"), ("script-src", r"<script>(.*?)</script>")):
        found = re.findall(tag, html, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        assert {f"'sha256-{digest}'" for digest in digests} == set(allowed[kind]), kind
    assert not re.search(r"<[^>]*\s(style|on\w+)=", without_scripts(html)), "no attribute needs more"


@pytest.mark.parametrize(("every", "points"), [(50, 20), (1, 200)])
def test_a_long_history_keeps_its_ends_and_of_few_validations_every_one(
    tmp_path: Path, every: int, points: int
) -> None:
    (job,) = write_sweep(tmp_path, {"norm": ["none"]}, typical).glob("*/history.csv")
    rows = [f"{i},{i},{i},0.1,{30 + i / 1000 if i % every == 0 else ''}" for i in range(1, 1001)]
    job.write_text("\n".join(["epoch,step,seconds,loss,psnr", *rows]) + "\n")
    (run,) = read_sweep(tmp_path).runs
    steps, known = run.history["step"], [y for y in run.history["psnr"] if y is not None]
    assert (steps[0], steps[-1]) == (1, 1000) and 200 <= len(steps) <= 400
    assert len(known) == points and known[-1] == 31


def test_what_is_missing_or_broken_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, GRID, typical)
    (folder / "0" / "history.csv").write_text("epoch,step\n1,one\n")
    (folder / "1" / "crop.png").write_bytes(b"no picture")
    (folder / "2" / "diagnoses.json").write_text("[]")
    (folder / "3" / "result.json").unlink()
    (folder / "4" / "result.json").write_text("{")
    (folder / "6" / "about.json").write_text("")
    other = json.loads((folder / "5" / "about.json").read_text())
    (folder / "5" / "about.json").write_text(json.dumps(other | {"commit": "0123abc"}))
    sweep = read_sweep(folder)
    assert len(sweep.runs) == 12
    for part in ("0/history.csv", "1/crop.png", "2/diagnoses.json", "4/result.json", "6/about.json"):
        assert any(str(folder / part) in note for note in sweep.notes), part
    assert "2 of 12 jobs have no result (yet): 3, 4." in sweep.notes
    assert "The runs were made with 2 different values of commit; the first one is shown." in sweep.notes
    (norm,) = [effect for effect in effects([run.result for run in sweep.runs]) if effect.key == "norm"]
    assert (norm.pairs, norm.planned) == (4, 6)
    html = page_of(folder)
    assert '<td class="word">stopped</td>' in html and "2 of 6 pairs are missing" in html


def test_a_broken_entry_of_the_manifest_costs_its_own_job(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"norm": ["none", "bn"], "seed": ["1", "2"]}, typical, crops=False)
    manifest = json.loads((folder / "sweep.json").read_text())
    manifest["jobs"][1] = {"name": "1", "overrides": None}
    (folder / "sweep.json").write_text(json.dumps(manifest))
    sweep = read_sweep(folder)
    assert [run.name for run in sweep.runs] == ["0", "2", "3"]
    (note,) = sweep.notes
    assert "sweep.json cannot be read at its job 1" in note and note.endswith("and is left out.")


def test_the_only_result_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("")
    with pytest.raises(UserError, match=r"result\.json cannot be read"):
        write_report(tmp_path)


def falling(settings: Mapping[str, str], rng: np.random.Generator) -> float:
    return 0.2 + 0.1 * (settings.get("norm") == "bn") + 0.01 * rng.random()


def test_the_page_knows_the_figure_of_another_task(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, GRID, falling, crops=False, figures=(RMSE,), baseline=0.5)
    html = page_of(folder)
    (data,) = map(json.loads, re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL))
    assert (data["figure"]["better"], data["curves"][0]["baseline"]) == ("lower", 0.5)
    assert data["cells"][0]["settings"]["norm"] == "none"
    text = " ".join(re.sub(r"<[^>]*>", "", without_scripts(html)).split())
    assert re.search(
        r"Best of 4: init=\w+ norm=none with 0\.20\d ± 0\.00\d % over 3 seeds, \+0\.29\d % against noisy\.", text
    )
    assert "norm=none beats norm=bn by 0.1" in text and "mean difference in RMSE (in %; lower values are" in text
    assert "Validation RMSE, %" in text and "PSNR" not in text and "dB" not in text.split("How it was made")[0]
    assert "%, 95 % intervals, together" in (folder / "effects.svg").read_text()


def test_the_title_is_what_was_swept_and_the_folder_stands_above_it(tmp_path: Path) -> None:
    html = page_of(write_sweep(tmp_path / "2026-11-28_21-36-00-123456", GRID, typical, crops=False))
    assert "<title>init × norm, 12 runs · upsweep</title>" in html and "<h1>init × norm, 12 runs</h1>" in html
    assert '<p class="quiet">upsweep report · 2026-11-28_21-36-00</p>' in html
    (tmp_path / "one").mkdir()
    write_result(tmp_path / "one", {"init": "he"}, ["init=he"], 31.0)
    assert "<h1>deconvnet, 1 run</h1>" in page_of(tmp_path / "one")


def text_of(html: str) -> str:
    """What a reader sees, its white space made one."""
    shown = re.sub(r"<style.*?</style>", "", without_scripts(html), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", "", shown)).split())


def hanging(settings: Mapping[str, str], rng: np.random.Generator) -> float:
    """Batch norm helps the ReLU and harms tanh."""
    worth = 0.5 if settings["activation"] == "relu" else -1.1
    return 31.0 + worth * (settings["norm"] == "bn") + 0.03 * rng.standard_normal()


TWO = {"norm": ["none", "bn"], "activation": ["relu", "tanh"], "seed": ["1", "2", "3"]}


def test_the_page_says_each_verdict_in_a_word_and_its_mark(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, TWO, hanging, crops=False)
    html, found = page_of(folder), findings([run.result for run in read_sweep(folder).runs])
    said = re.findall(r'<li class="effect ([\w-]+)">\s*<b class="verdict"><i [^>]*></i>([^<]*)</b>', html)
    assert sorted(said) == sorted((effect.verdict.replace(" ", "-"), effect.verdict) for effect in found.effects)
    assert {effect.verdict for effect in found.effects} == {"ahead", "beats"}
    text = text_of(html)
    assert all(sentence(effect) in text for effect in found.effects)
    assert "With 2 comparisons, chance has 2 chances to fool us" in text and "all bars hold the true difference" in text
    assert "in some, the other value is or may be better." in text and "differ within a setting" in text
    assert text.index(sentence(found.effects[0])) < text.index("How to read it"), "effects are read first"
    assert "cannot tell which is better" not in text, "what no effect has is not explained"


def test_the_page_says_how_many_seeds_would_show_what_was_asked_for(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, TWO, hanging, crops=False)
    (seeds,) = {max(e.seeds_needed or 0 for e in effects([r.result for r in read_sweep(folder).runs], 0.03))}
    sweep = read_sweep(folder)
    html_of_it = html(sweep, findings([run.result for run in sweep.runs], 0.03))
    assert f"to find 0.03 dB in all of them, it takes about {seeds} seeds." in text_of(html_of_it)
    assert "to find 0.10 dB in all of them" in text_of(page_of(folder)), "twice what is noise"


def test_yardsticks_have_headings_of_their_own(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"scale": ["2", "3"], "norm": ["none", "bn"], "seed": ["1", "2"]}, typical)
    headings = re.findall(r"<h3>(.*?)</h3>", re.sub(r"</?span[^>]*>", "", page_of(folder)))
    assert headings == ["norm with scale=2", "norm with scale=3", "With scale=2", "With scale=3"]


def test_each_yardstick_has_its_own_best_and_nothing_is_the_best_of_all(tmp_path: Path) -> None:
    def psnr(settings: Mapping[str, str], rng: np.random.Generator) -> float | None:
        lost = settings == {"scale": "3", "norm": "bn", "seed": "2"}
        return None if lost else {"2": 33.0, "3": 30.0}[settings["scale"]] + (settings["norm"] == "bn")

    grid = {"scale": ["2", "3"], "norm": ["none", "bn"], "seed": ["1", "2"]}
    text = text_of(page_of(write_sweep(tmp_path, grid, psnr, crops=False)))
    assert "With scale=2: Best of 2: norm=bn with 34.00 ± 0.00 dB over 2 seeds, +2.50 dB against bicubic." in text
    assert "With scale=3: None of 2 beats bicubic; the best: norm=bn with 31.00 dB over 1 of 2 seeds, " in text
    assert "below bicubic: 0.50 dB." in text and "-0.50 dB" not in text.partition("<table")[0]
    assert text.count("Best of") == 1


def test_the_best_stands_on_rates_that_were_picked_on_other_seeds(tmp_path: Path) -> None:
    """Each rate of norm=bn is lucky with one seed: the best rate cell has 33, and what the other seed picks 31."""
    lucky = {("0.1", "1"): 35.0, ("0.2", "2"): 35.0}

    def psnr(settings: Mapping[str, str], rng: np.random.Generator) -> float:
        return 32.0 if settings["norm"] == "none" else lucky.get((settings["optimizer.lr"], settings["seed"]), 31.0)

    grid = {"norm": ["none", "bn"], "optimizer.lr": ["0.1", "0.2"], "seed": ["1", "2"]}
    text = text_of(page_of(write_sweep(tmp_path, grid, psnr, crops=False)))
    best = "Best of 2: norm=none with 32.00 ± 0.00 dB over 2 seeds, +0.50 dB against bicubic, at its best optimizer.lr."
    assert best in text
    assert "runs (each choice at its best rate), by type II" in text


def test_shares_have_no_p_where_no_second_seed_tells_what_chance_is(tmp_path: Path) -> None:
    grid = {"init": ["a", "b", "c"], "norm": ["none", "bn"], "activation": ["x", "y"]}
    folder = write_sweep(tmp_path, grid, typical, crops=False)
    (study,) = findings([run.result for run in read_sweep(folder).runs]).studies
    variance = explained(study)
    assert variance is not None and study.term.kind == "interactions"
    assert variance.shares[-1].df > 0 and all(share.p is None for share in variance.shares)
    assert "No second seed tells how much is chance, so p is not known" in text_of(page_of(folder))


def test_an_effect_that_is_nowhere_behind_names_no_place() -> None:
    """Ahead in half of the settings, the very same figures in the others, as of a dropout that is not used."""
    rng = np.random.default_rng(0)
    runs = [
        result(31 + 0.01 * rng.standard_normal() + (init in "ab") * (norm == "none"), init=init, norm=norm, seed=seed)
        for init, seed in product("abcd", "123")
        for norm in ("none", "bn")
    ]
    same = {(run.settings["init"], run.seed): run for run in runs if run.settings["norm"] == "bn"}
    runs = [
        replace(run, figures=same[run.settings["init"], run.seed].figures) if run.settings["init"] in "cd" else run
        for run in runs
    ]
    (norm,) = [effect for effect in effects(runs) if effect.key == "norm"]
    assert norm.verdict == "ahead" and "in 2 of them; the article" in sentence(norm)


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (0.0312, "p = 0.031"),
        (0.0501, "p = 0.0501"),
        (0.04996, "p = 0.04996"),
        (0.05, "p = 0.05"),
        (1.0, "p = 1"),
        (1e-9, "p < 0.001"),
    ],
)
def test_a_p_is_told_from_what_is_shown_by_its_digits(p: float, said: str) -> None:
    assert chance(p) == said


def test_the_table_of_variance_has_every_share_and_counts_what_is_left_out(tmp_path: Path) -> None:
    def psnr(settings: Mapping[str, str], rng: np.random.Generator) -> float | None:
        return None if settings == {"norm": "bn", "activation": "relu", "seed": "2"} else hanging(settings, rng)

    folder = write_sweep(tmp_path, TWO, psnr, crops=False)
    html = page_of(folder)
    (study,) = findings([run.result for run in read_sweep(folder).runs]).studies
    variance = explained(study)
    assert variance is not None and not variance.adds_up
    rows = re.findall(r'<td class="word">([^<]*)</td>\s*<td class="number">([\d.]+) %</td>', html)
    expected = {" × ".join(share.of): f"{100 * share.share:.1f}" for share in variance.shares}
    assert dict(rows) == expected and [name for name, _ in rows][2:] == ["norm × activation", "seed", "rest"]
    text = text_of(html)
    assert "Of the variance between 11 runs" in text and "do not add up to 100 %" in text
    assert "Left out, since they have no figure: 1 diverged." in text
    (interaction,) = variance.interactions
    means = [f"{mean:.2f}" for row in interaction.means for mean in row if mean is not None]
    assert re.findall(r'<td class="number">(\d\d\.\d\d)</td>', html.split('id="depends"')[1])[:4] == means
    hangs = r"depends on activation: norm=bn with relu \(by 0\.\d\d dB\); norm=none with tanh \(by 1\.\d\d dB\)\."
    assert re.search(f"Which norm is the best {hangs}", text)
    assert "Mean PSNR, dB (higher is better)" in text


def test_a_lead_that_changes_is_told_of_a_value_that_is_best_everywhere() -> None:
    means = [[30.0, 31.0, None], [29.5, 29.0, 28.0]]
    of = {"of": ("norm", "init"), "share": 0.1, "rows": ["none", "bn"], "columns": ["he", "xavier", "torch"]}
    told = interaction_sentence(Interaction(means=means, **of), PSNR)  # type: ignore[arg-type]
    assert told == (
        "norm=none has the best mean with every init, but its lead changes: with he (by 0.50 dB), xavier (by 2.00 dB)."
    )


def test_choices_that_do_not_hang_on_each_other_are_said_to_do_so(tmp_path: Path) -> None:
    html = page_of(write_sweep(tmp_path / "choices", GRID, typical, crops=False))
    assert "No pair of choices has a clear share (2 % or more)." in html and 'class="lines"' not in html
    assert 'id="depends"' not in page_of(write_sweep(tmp_path / "seeds", {"seed": ["1", "2", "3"]}, typical))


def test_runs_are_ranked_by_their_last_epoch_and_pictured_with_their_best_one(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, GRID, typical, luck={"bn": 2.0})
    html = page_of(folder)
    (data,) = map(json.loads, re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL))
    assert data["cells"][0]["settings"]["norm"] == "none" and data["cells"][0]["value"] < 32.2
    text = text_of(html)
    assert re.search(r"Best of 4: init=\w+ norm=none with 3[12]\.\d\d", text)
    assert "compared by the PSNR of their last epoch (PSNR last)" in text
    tiles = re.findall(r"<figcaption><b>\d+</b> <span class=\"number\">([\d.]+) dB</span><br>[^<]*norm=bn", html)
    assert len(tiles) == 6 and all(33 < float(value) < 34 for value in tiles)


def test_records_without_a_last_epoch_are_said_to_be_compared_at_their_best(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"norm": ["none", "bn"], "seed": ["1", "2"]}, typical, crops=False)
    mixed = "runs have no figures of their last epoch, and stand at their best one. That is a lucky epoch"
    assert mixed not in page_of(folder)
    for job in ("0", "1", "2", "3"):
        made = Result.read(folder / job)
        assert made is not None
        replace(made, last={}).write(folder / job)
        assert (f"{int(job) + 1} of 4 {mixed}" in page_of(folder)) == (job != "3")
    text = text_of(page_of(folder))
    assert "their best epoch, the only one on record. That favours choices whose curve jumps." in text
    assert "PSNR last" not in text


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (["1", "2"], "picked for each seed on the other seeds"),
        (["1"], "picked on the same runs that judge it, since there is one seed"),
    ],
)
def test_the_page_says_on_what_a_learning_rate_was_picked(tmp_path: Path, seeds: list[str], said: str) -> None:
    grid = {"norm": ["none", "bn"], "optimizer.lr": ["0.1", "0.2"], "seed": seeds}
    folder = write_sweep(tmp_path, grid, typical, crops=False)
    for job in folder.glob("*/result.json"):
        made = Result.read(job.parent)
        assert made is not None
        replace(made, tuned=["optimizer.lr", "optimizer.momentum"]).write(job.parent)
    text = text_of(page_of(folder))
    assert f"Each choice uses its own best optimizer.lr, {said}" in text
    assert "At the best optimizer.lr of each choice, mean" in text, "what was not swept is not named"


def test_the_page_says_which_jobs_were_judged_on_different_images(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"norm": ["none", "bn"], "seed": ["1", "2"]}, typical, crops=False)
    for job in ("1", "3"):  # of the second seed
        made = Result.read(folder / job)
        assert made is not None
        replace(made, baseline={"psnr": 28.25}).write(folder / job)
    html = page_of(folder)
    said = (
        "Jobs 0, 2 and jobs 1, 3 were judged on different images (bicubic 31.50 and 28.25 dB): their figures are not "
    )
    assert f"<li>{said}compared or averaged.</li>" in html
    (data,) = map(json.loads, re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL))
    assert [axis["name"] for axis in data["axes"]] == ["norm"], "it is no choice"
    assert {(cell["seeds"], cell["label"].partition(" ")[2]) for cell in data["cells"]} == {
        (1, "judged on=images 1"),
        (1, "judged on=images 2"),
    }
    assert [run["judged"] for run in data["runs"]] == ["images 1", "images 2"] * 2
    assert html.count('<td class="word">images 2</td>') == 4, "two runs, and two means of one seed"


def test_a_job_without_a_result_has_the_scale_and_the_seed_of_its_command_line(tmp_path: Path) -> None:
    folder = write_sweep(
        tmp_path, {"scale": ["2", "3"], "norm": ["none", "bn"], "seed": ["1", "2"]}, typical, crops=False
    )
    for job in ("4", "5", "6", "7"):  # all of scale=3
        (folder / job / "result.json").unlink()
    runs = read_sweep(folder).runs
    assert [(run.result.scale, run.result.seed) for run in runs[4:]] == [(3, 1), (3, 2), (3, 1), (3, 2)]
    counted = [(norm.on, norm.pairs, norm.planned) for norm in effects([run.result for run in runs])]
    assert counted == [("scale=2", 2, 2), ("scale=3", 0, 2)]


def test_the_page_says_how_it_was_made(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", GRID, typical, crops=False)
    html = without_scripts(page_of(folder))
    about = json.loads((folder / "sweep.json").read_text())
    for text in (about["commit"] or "not known", about["machine"]["system"], about["versions"]["python"]):
        assert text in html
    assert "init._target_" in html and "lr: 0.002" in html, "what differs, and what all share"
    assert str(folder / "0" / "checkpoints") not in html and "&lt;run&gt;/checkpoints" in html


def test_the_page_of_a_resumed_sweep_is_that_of_one_that_was_not(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"norm": ["none", "bn"], "seed": ["1", "2"]}, typical, crops=False)
    for job in map(str, range(4)):
        About(config={"scale": 2, "resume": None, "judge_anew": False}).write(folder / job)
    before = page_of(folder)
    for job in ("1", "2"):
        made = Result.read(folder / job)
        assert made is not None
        replace(made, overrides=[*made.overrides, f"resume='{folder / job}'", "judge_anew=true"]).write(folder / job)
        About(config={"scale": 2, "resume": str(folder / job), "judge_anew": True}).write(folder / job)
    assert page_of(folder) == before


def test_it_is_said_which_folder_is_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no sweep in .*multirun"):
        find_sweep("latest")
    with pytest.raises(UserError, match=r"sweep=nowhere does not exist"):
        find_sweep("nowhere")
    with pytest.raises(UserError, match=r"neither sweep\.json nor result\.json"):
        find_sweep(str(tmp_path))
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds several \(a, b\): give one of these folders\."):
        find_sweep(str(tmp_path))
    (tmp_path / "sweep.json").write_text('{"jobs": [{"name": "0", "overrides": []}]}')
    with pytest.raises(UserError, match="none of its 1 jobs has a result yet"):
        write_report(tmp_path)
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(UserError, match="not the manifest of a sweep"):
        write_report(tmp_path)


def test_the_door_makes_the_page_of_the_latest_sweep_and_writes_nothing_else(tmp_path: Path) -> None:
    write_sweep(tmp_path / "multirun" / "b", {"norm": ["none", "bn"], "seed": ["1", "2"]}, typical, crops=False)
    before = set(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, ROOT / "src" / "report.py"], cwd=tmp_path, text=True, capture_output=True, check=True
    )
    new = {tmp_path / "multirun" / "b" / name for name in ("report.html", "effects.svg")}
    assert set(tmp_path.rglob("*")) - before == new
    assert done.stdout.strip() == f"Report: {tmp_path / 'multirun' / 'b' / 'report.html'}"
    wrong = subprocess.run(
        [sys.executable, ROOT / "src" / "report.py", "sweep=gone"], cwd=tmp_path, text=True, capture_output=True
    )
    assert (
        wrong.returncode == 1
        and wrong.stderr == "sweep=gone does not exist: give the folder of a sweep, or of one run.\n"
    )


# ---------------------------------------------------------------------------------------------- why

DI = Figure(name="di", title="diffusion index", digits=1)
INVENTED = Figure(name="invented", title="invented detail", unit="%", better="lower", digits=1)


def explain(folder: Path, kilobytes: int = 3) -> Path:
    """Records of src/explain.py for every run that finished: DI falls and what is invented rises with the PSNR."""
    rng = np.random.default_rng(1)
    side = round((kilobytes * 1000 / 3) ** 0.5)
    for job in sorted({path.parent for path in folder.glob("*/result.json")}):
        reached = (Result.read(job) or result(None)).figures.get("psnr")
        if reached is None:
            continue
        share = [0.9, 0.5, 0.1]
        Why(
            image="coffee",
            window=[8, 16, 16],
            figures={"di": 50 - reached, "invented": reached - 30},
            declared=declare([DI, INVENTED]),
            spectrum={"frequency": [0.25, 0.5, 0.75], "restored": share, "invented": share[::-1], "power": [1.0] * 3},
        ).write(job)
        write_strip(job / "why.png", rng.integers(0, 256, (side, side, 3), np.uint8), "Left: the map, <b>.")
    return folder


def test_the_page_has_a_section_why_only_where_runs_were_explained(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, GRID, typical)
    before = page_of(folder)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', before, re.DOTALL)[0])
    assert 'id="why"' not in before and "#why" not in without_scripts(before)
    assert "scale" not in data and not any("spectrum" in run for run in data["runs"])
    after = page_of(explain(folder))
    assert 'href="#why"' in after and 'id="why"' in after
    for path in folder.glob("*/why.*"):
        path.unlink()
    assert page_of(folder) == before


def test_the_section_why_tells_every_figure_by_rank_and_counts_who_is_left_out(tmp_path: Path) -> None:
    folder = explain(write_sweep(tmp_path, GRID, typical))
    (folder / "4" / "why.json").unlink()
    html = page_of(folder)
    why = html[html.index('<section id="why"') : html.index('<section id="diagnoses"')]
    assert "11 of 12 runs were explained; the others are left out here." in text_of(why)
    seeds, runs = re.findall(r"<table>(.*?)</table>", why, re.DOTALL)
    assert "Mean ± sample sd over seeds" in seeds and seeds.count("<tr>") == 1 + 4
    heads = re.findall(r'<th [^>]*?class="(\w+)"( data-lower)?><button type="button">(.*?)</button>', runs)
    assert heads[0] == ("word", "", "job") and heads[-2] == ("number", "", "diffusion index")
    assert heads[-1] == ("number", " data-lower", "invented detail, %"), "a click sorts the best first"
    rows = [re.findall(r"<td [^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", runs, re.DOTALL)[1:]]
    psnr = [float(row[4]) for row in rows]
    assert len(rows) == 11 and psnr == sorted(psnr, reverse=True) and "4" not in [row[0] for row in rows]
    assert all(float(row[5]) == pytest.approx(50 - value, abs=0.1) for row, value in zip(rows, psnr, strict=True))
    assert "Left: the map, &lt;b&gt;. The whole pages lie" in why
    assert why.count("data:image/webp") == 11, "a strip that no record belongs to is not shown"


def test_the_section_why_says_how_figures_go_with_the_headline_and_that_it_is_no_cause(tmp_path: Path) -> None:
    few = text_of(page_of(explain(write_sweep(tmp_path / "few", GRID, typical))))
    assert "Spearman" not in few, "four settings"
    grid = {"init": list("abcdef"), "norm": ["none", "bn"], "seed": ["1", "2"]}
    many = text_of(page_of(explain(write_sweep(tmp_path / "many", grid, typical))))
    assert "Over these 12 settings a larger diffusion index goes with a lower PSNR: Spearman's rho -1.00 (-1.00" in many
    assert "a larger invented detail goes with a higher PSNR: Spearman's rho 1.00" in many
    assert "None of this is a cause" in many


def test_explanations_that_cannot_be_read_are_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = explain(write_sweep(tmp_path, GRID, typical))
    (folder / "0" / "why.json").write_text("{")
    (folder / "1" / "why.png").write_bytes(b"no picture")
    (folder / "2" / "why.png").write_bytes(bytes(MOST_BYTES + 1))
    broken = json.loads((folder / "3" / "why.json").read_text())
    (folder / "3" / "why.json").write_text(json.dumps(broken | {"declared": [{"title": "a figure without a name"}]}))
    uneven = broken | {"spectrum": {"frequency": [0.5], "restored": [], "invented": [0.1]}}
    (folder / "4" / "why.json").write_text(json.dumps(uneven))
    notes = read_sweep(folder).notes
    for part in ("0/why.json", "1/why.png", "2/why.png", "3/why.json"):
        assert any(f"{folder / part} cannot be read" in note for note in notes), part
    html = page_of(folder)
    assert "10 of 12 runs were explained" in text_of(html)
    (data,) = map(json.loads, re.findall(r'id="data">(.*?)</script>', html, re.DOTALL))
    assert sum("spectrum" in run for run in data["runs"]) == 9


def test_a_strip_is_the_picture_that_was_written_as_a_smaller_file(tmp_path: Path) -> None:
    pixels = np.ascontiguousarray(astronaut()[:256:2, :400])
    strip = read_strip(write_strip(tmp_path / "why.png", pixels, "A, b."))
    assert (strip.width, strip.shows) == (400, "A, b.")
    with Image.open(io.BytesIO(base64.b64decode(strip.webp))) as picture:
        assert picture.format == "WEBP"
        assert np.abs(np.asarray(picture, dtype=float) - pixels).mean() < 6
    assert 2 * len(strip.webp) < (tmp_path / "why.png").stat().st_size
    write_image(tmp_path / "plain.png", Picture(pixels))
    assert read_strip(tmp_path / "plain.png").shows == ""
    write_image(tmp_path / "large.png", Picture(np.zeros((1001, 1000, 3), np.uint8)))
    with pytest.raises(ValueError, match="1000x1001 pixels, more than 1,000,000"):
        read_strip(tmp_path / "large.png")


def test_a_hundred_explained_runs_stay_below_ten_megabytes_and_the_strips_that_are_shown_are_counted(
    tmp_path: Path,
) -> None:
    grid = {"init": ["a", "b", "c", "d", "e"], "norm": ["none", "bn"], "activation": ["x", "y"], "seed": list("12345")}
    folder = explain(write_sweep(tmp_path, grid, typical, epochs=300), kilobytes=30)
    spectrum = {name: [1 / (3 + i) for i in range(32)] for name in ("frequency", "restored", "invented")}
    for job in folder.glob("*/why.json"):
        job.write_text(json.dumps(json.loads(job.read_text()) | {"spectrum": spectrum}))
    html = page_of(folder)
    assert len(html.encode()) < 10_000_000
    shown = without_scripts(html).count("data:image/webp")
    assert f"The strips of the {shown} best of 100 runs are shown." in text_of(html) and shown >= 30
    (data,) = map(json.loads, re.findall(r'id="data">(.*?)</script>', html, re.DOTALL))
    assert sum("spectrum" in run for run in data["runs"]) == 100


# ------------------------------------------------------------------------------------------- browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page without a network, in which nothing may have gone wrong in the end."""
    wrong: list[str] = []

    def refuse(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900}, **options)
    requests: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", refuse)
    yield page
    context.close()
    assert wrong == [] and {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report of twelve runs of which one diverged; opened once, since that takes a second."""

    def psnr(settings: Mapping[str, str], rng: np.random.Generator) -> float | None:
        gone = settings == {"init": "xavier", "norm": "bn", "seed": "2"}
        return None if gone else typical(settings, rng)

    with opened(browser, color_scheme="light") as page:
        page.goto(write_report(write_sweep(tmp_path_factory.mktemp("sweep"), GRID, psnr)).as_uri())
        yield page


def column(page: Page, header: str) -> list[str]:
    """The visible cells under a header of the table of every run."""
    cells: list[str] = page.evaluate(
        """header => {
            const table = [...document.querySelectorAll("#ranking table")].at(-1);
            const at = [...table.querySelectorAll("th")].findIndex((th) => th.textContent === header);
            return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].textContent);
        }""",
        header,
    )
    return cells


@needs_browser
def test_every_plot_is_drawn_and_the_effects_are_read_first(page: Page) -> None:
    for name in ("curve-psnr", "curve-loss", "plot-paths", "plot-parameters", "plot-seconds"):
        lines = page.locator(f"#{name} .scatterlayer .trace")
        assert lines.count() >= 2, name
    headings = page.locator("h2").all_inner_texts()
    assert headings[:3] == ["What each choice is worth", "What it depends on", "Ranking"]
    assert "norm=none beats norm=bn by 0.4" in page.locator("#effects").inner_text()
    assert page.locator("#effects .strip .mark").count() == 2
    assert "found in 4 of 6 runs" in page.locator("#diagnoses").inner_text()


@needs_browser
def test_what_gets_into_the_page_does_not_run(tmp_path: Path, browser: Browser) -> None:
    report = write_report(write_sweep(tmp_path, {"norm": ["none", "bn"], "seed": ["1", "2"]}, typical))
    traps = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'><i style='left: 9px' id=trap></i>"
    report.write_text(report.read_text(encoding="utf-8").replace("<main", f"{traps}<main"), encoding="utf-8")
    page = browser.new_page()
    page.goto(report.as_uri())
    assert page.locator("#plot-paths .trace").count() >= 2, "the page's own script ran"
    assert page.evaluate("[window.ran, document.getElementById('trap').style.left]") == [None, ""]
    left = page.evaluate(
        "[...document.querySelectorAll('#effects .strip .mark')].map((dot) => parseFloat(dot.style.left))"
    )
    assert left and all(0 <= place <= 100 for place in left)
    page.close()


@needs_browser
def test_the_table_sorts_by_any_column_and_what_has_no_figure_comes_last(page: Page) -> None:
    last = page.locator("#ranking table").last
    psnr = last.get_by_role("button", name="PSNR", exact=True)
    psnr.focus()
    page.keyboard.press("Enter")
    assert last.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    falling = column(page, "PSNR")
    page.keyboard.press("Enter")
    rising = column(page, "PSNR")
    assert falling[-1] == rising[-1] == "-", "the run that diverged"
    assert [float(x) for x in falling[:-1]] == sorted(map(float, falling[:-1]), reverse=True)
    assert [float(x) for x in rising[:-1]] == sorted(map(float, rising[:-1]))
    last.get_by_role("button", name="job").click()
    assert column(page, "job") == [str(i) for i in range(12)], "10 after 9, not after 1"
    last.get_by_role("button", name="norm").click()
    assert column(page, "norm") == ["bn"] * 6 + ["none"] * 6


@needs_browser
def test_a_filter_reaches_tables_plots_and_pictures(page: Page) -> None:
    page.get_by_role("checkbox", name="bn").press("Space")
    assert set(column(page, "norm")) == {"bn"} and len(column(page, "norm")) == 6
    assert page.locator("#count").inner_text() == "6 of 12 runs shown"
    assert page.locator("#curve-psnr .legend .traces").count() == 1
    assert page.locator(".of-run:visible .tile").count() == 5
    page.get_by_role("checkbox", name="he", exact=True).check()
    assert len(column(page, "norm")) == 3
    page.get_by_role("button", name="show all").click()
    assert len(column(page, "norm")) == 12 and page.locator("#count").inner_text() == "12 of 12 runs shown"


@needs_browser
def test_a_choice_has_one_colour_everywhere(page: Page) -> None:
    page.locator("#colour").select_option("init")

    def colours(plot: str, part: str) -> list[str]:
        found: list[str] = page.evaluate(
            "([plot, part]) => document.getElementById(plot).data.filter((t) => t.name && t.showlegend !== null)"
            ".map((t) => t.name + ' ' + t[part].color)",
            [plot, part],
        )
        return sorted(set(found))

    curves = colours("curve-psnr", "line")
    assert len(curves) == 2 and {text.split()[0] for text in curves} == {"init=he", "init=xavier"}
    assert colours("curve-loss", "line") == colours("plot-paths", "line") == colours("plot-seconds", "marker") == curves


@needs_browser
def test_the_wipe_moves_by_key_and_by_mouse_between_any_two_pictures(page: Page) -> None:
    shown = "getComputedStyle(document.getElementById('wipe-left')).clipPath"
    slider = page.get_by_role("slider")
    slider.focus()
    before = page.evaluate(shown)
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert slider.input_value() == "60" and page.evaluate(shown) != before
    box = page.locator("#wipe").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 50, steps=4)
    page.mouse.up()
    assert 15 <= int(slider.input_value()) <= 25
    before = page.locator("#wipe-right").get_attribute("src")
    page.locator("#right").select_option("0-wanted")
    hr = page.locator("#wipe-right").get_attribute("src")
    assert hr != before and hr == page.locator('button[data-crop="0-wanted"] img').get_attribute("src")
    page.locator('button[data-crop="0-2"]').click()
    assert page.locator("#right").input_value() == "0-2"


@needs_browser
def test_the_mean_of_runs_that_were_judged_at_other_steps_is_taken_at_the_same_ones(
    tmp_path: Path, browser: Browser
) -> None:
    sweep = write_sweep(tmp_path, {"norm": ["none"], "seed": ["1", "2"]}, typical, epochs=4)
    for job, steps in (("0", (100, 200, 300, 400)), ("1", (100, 250, 400, 600))):
        lines = [f"{i},{step},{step / (10 + 10 * int(job))},0.1,{step / 100},0.9" for i, step in enumerate(steps, 1)]
        (sweep / job / "history.csv").write_text("\n".join(["epoch,step,seconds,loss,psnr,other", *lines]) + "\n")
    shown = "(() => { const { x, y } = document.getElementById('curve-psnr').data.at(-1); return [x, y] })()"
    with opened(browser) as page:
        page.goto(write_report(sweep).as_uri())
        assert page.evaluate(shown) == [[100, 200, 250, 300, 400], [1, 2, 2.5, 3, 4]]
        page.get_by_role("radio", name="seconds").press("Space")
        x, y = page.evaluate(shown)
        assert x == pytest.approx([7.5, 15, 18.75, 22.5, 30]) and y == [1, 2, 2.5, 3, 4], "means of both at these steps"


@needs_browser
def test_steps_become_seconds(page: Page) -> None:
    last = "Math.max(...document.getElementById('curve-loss').data.flatMap((t) => t.x))"
    assert page.evaluate(last) == 125 * 12
    page.get_by_role("radio", name="seconds").press("Space")
    assert 25 < page.evaluate(last) < 35


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_section_why_draws_spectra_sorts_and_follows_the_filters(
    scheme: Literal["light", "dark"], tmp_path: Path, browser: Browser
) -> None:
    folder = explain(write_sweep(tmp_path, GRID, typical))
    with opened(browser, color_scheme=scheme) as page:
        page.goto(write_report(folder).as_uri())
        for kind in ("restored", "invented"):
            assert page.locator(f"#spectrum-{kind} .scatterlayer .trace").count() == 4, "runs and mean of each norm"
        peak = "Math.max(...document.getElementById('spectrum-restored').data[0].y)"
        assert page.evaluate(peak) == pytest.approx(90), "in %"
        lines = page.evaluate("document.getElementById('spectrum-restored').layout.shapes.map((line) => line.x0)")
        assert lines == [0.5], "the highest frequency of LR at scale 2"
        table = page.locator("#why table").last
        table.get_by_role("button", name="invented detail").click()
        rising = [float(text) for text in table.locator("tbody tr td:last-child").all_inner_texts()]
        assert len(rising) == 12 and rising == sorted(rising)
        page.get_by_role("checkbox", name="bn").press("Space")
        assert table.locator("tbody tr:visible").count() == 6
        assert page.locator("#why .of-run:not([hidden])").count() == 6
        assert page.locator("#spectrum-restored .scatterlayer .trace").count() == 2
        page.set_viewport_size({"width": 390, "height": 800})
        page.wait_for_function("() => document.documentElement.scrollWidth === 390", timeout=10_000)


@needs_browser
def test_light_and_dark_follow_the_system_and_the_button(page: Page) -> None:
    light, dark = "rgb(255, 255, 255)", "rgb(16, 20, 24)"
    paper = "getComputedStyle(document.body).backgroundColor"
    font = "document.getElementById('curve-psnr').layout.font.color"
    button = page.get_by_role("button", name="switch between light and dark")
    assert page.evaluate(paper) == light
    button.press("Enter")
    assert page.evaluate(paper) == dark and page.evaluate(font) == "#e4e8ed"
    button.press("Enter")
    assert page.evaluate(paper) == light
    page.evaluate("delete document.documentElement.dataset.theme")  # as if the button had not been used
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(paper) == dark
    page.emulate_media(color_scheme="light")


@needs_browser
def test_the_best_is_first_and_on_top_where_less_is_better(tmp_path: Path, browser: Browser) -> None:
    folder = write_sweep(tmp_path, GRID, falling, crops=False, figures=(RMSE,), baseline=0.5)
    with opened(browser) as page:
        page.goto(write_report(folder).as_uri())
        last = page.locator("#ranking table").last
        last.get_by_role("button", name="RMSE last").click()
        found = [float(cell) for cell in column(page, "RMSE last")]
        assert found == sorted(found), "the first click puts the best first"
        tops = page.evaluate(
            "document.getElementById('plot-paths').layout.annotations.filter((a) => a.x === 2 && a.y <= 1)"
            ".map((a) => [a.y, Number(a.text)])"
        )
        assert max(tops)[1] == found[0] and min(tops)[1] == found[-1]
        low, high = page.evaluate("document.getElementById('curve-rmse').layout.yaxis.range")
        assert low < found[0] < high and low < 0.5 < high, "the best and the baseline are seen"
        front = page.locator("#cost ol.front").first.inner_text()
        assert "%" in front and "dB" not in front


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_a_phone_and_a_desk(page: Page, width: int, tmp_path: Path) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_function("width => document.documentElement.scrollWidth === width", arg=width, timeout=10_000)
    page.wait_for_timeout(300)  # the plots follow
    for plot in page.locator(".pair .plot").all():
        box = plot.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.width == width
        assert len(set(shot.convert("L").resize((40, 40)).get_flattened_data())) > 20, "not a blank page"


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_words_of_plots_and_below_them_do_not_touch(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.wait_for_timeout(300)  # the plots follow
    gaps = page.evaluate(
        """() => [...document.querySelectorAll("figure .plot, #curves .plot")].map((plot) => {
            const title = plot.querySelector(".xtitle").getBoundingClientRect();
            const words = [...document.querySelectorAll("main p, figcaption")].map((p) => p.getBoundingClientRect());
            return Math.min(...words.map((p) => p.top - title.bottom).filter((gap) => gap > -9));
        })"""
    )
    assert gaps and min(gaps) >= 4, gaps


@needs_browser
def test_a_table_shows_that_it_scrolls_until_its_end(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    table = page.locator("#ranking .scroll").last

    def darkest() -> list[int]:
        """Of the three columns at the left and at the right edge, above the lowest shade."""
        with Image.open(io.BytesIO(table.screenshot())) as shot:
            grey = np.median(np.asarray(shot.convert("L"))[60:-30], axis=0)
        return [int(grey[:3].min()), int(grey[-3:].min())]

    table.evaluate("table => { table.scrollLeft = 0 }")
    left, right = darkest()
    assert left > 250 and right < 215, "more on the right"
    table.evaluate("table => { table.scrollLeft = 9999 }")
    left, right = darkest()
    assert left < 215 and right > 250, "more on the left"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_long_names_and_the_pictures_of_pairs_fit_a_phone_and_can_be_read(
    scheme: Literal["light", "dark"], tmp_path: Path, browser: Browser
) -> None:
    trap = "a_very_long_name_of_a_norm_<b>_that_nobody_would_give_it"

    def psnr(settings: Mapping[str, str], rng: np.random.Generator) -> float:
        return hanging({**settings, "norm": "bn" if settings["norm"] == trap else "none"}, rng)

    folder = write_sweep(tmp_path, {**TWO, "norm": ["none", trap]}, psnr, crops=False)
    with opened(browser, color_scheme=scheme) as page:
        page.set_viewport_size({"width": 400, "height": 900})
        page.goto(write_report(folder).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        (drawn,) = page.locator("svg.lines").all()
        assert page.evaluate(
            "svg => svg.getBBox().x + svg.getBBox().width <= svg.viewBox.baseVal.width", drawn.element_handle()
        )
        assert drawn.locator("text").all_text_contents()[-2:] == ["none", f"{trap[:13]}…"]
        assert page.locator("#depends tbody").first.inner_text().count("%") == 5
        ink, paper = (page.evaluate(f"getComputedStyle(document.body).{what}") for what in ("color", "backgroundColor"))
        assert drawn.locator("text").last.evaluate("text => getComputedStyle(text).fill") == ink != paper


@pytest.mark.slow
@needs_browser
def test_the_page_holds_with_one_run_none_finished_no_seeds_and_traps_for_names(
    tmp_path: Path, browser: Browser
) -> None:
    trap = "<script>alert(1)</script>"
    one = tmp_path / "one"
    one.mkdir()
    write_result(one, {"init": "he"}, ["init=he"], 31.0)
    failed = write_sweep(tmp_path / "failed", {"norm": ["none", "bn"]}, lambda *_: None)
    bare = write_sweep(tmp_path / "bare", {"norm": ["none", "bn"]}, typical)
    only_seeds = write_sweep(tmp_path / "seeds", {"seed": ["1", "2"]}, typical)
    traps = write_sweep(tmp_path / "traps", {"norm": ["none", trap, "a,b=c"], "seed": ["1", "2"]}, typical)
    texts = []
    with opened(browser) as page:
        for folder in (one, failed, bare, only_seeds, traps):
            page.goto(write_report(folder).as_uri())
            texts.append(page.locator("main").inner_text())
    assert "Does not beat bicubic: this run with 31.00 dB, below bicubic: 0.50 dB" in texts[0]
    assert "No run has finished with a PSNR." in texts[1] and "Why 2 of 2 did not finish" in texts[1]
    assert "in the only pair, which has no interval" in texts[2]
    assert "No choice was swept that could be compared" in texts[3] and "2 of 2" in texts[3]
    assert f"norm={trap}" in texts[4] and "norm=a,b=c" in texts[4]
