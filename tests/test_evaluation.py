"""Promises of `upsweep.evaluation`: the papers' figures, whoever judges; tables and pictures that say what they are."""

import csv
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from tests.small_job import NET, RECIPE
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric

from upsweep.common.errors import UserError
from upsweep.doors.evaluate import own_at
from upsweep.evaluation import evaluate, mean, speed
from upsweep.evaluation.benchmarks import benchmark_images, find_benchmarks
from upsweep.evaluation.methods import Method, Views, asked, bicubic
from upsweep.evaluation.papers import comparison
from upsweep.evaluation.pictures import FULL_ERROR, MARK, TILE, heat, overview
from upsweep.evaluation.published import published, published_rows
from upsweep.evaluation.run import Evaluation, device_of_rank, evaluate_all
from upsweep.evaluation.speed import speed_of
from upsweep.evaluation.tables import Cell, Row
from upsweep.imaging.files import Picture, read_image
from upsweep.imaging.lettering import LINE
from upsweep.imaging.resize import enlarge
from upsweep.imaging.tiles import GAP
from upsweep.imaging.writing import write_image
from upsweep.metrics.figure import Figure
from upsweep.metrics.metric import PSNR, SSIM
from upsweep.metrics.protocol import Protocol
from upsweep.networks import checkpoints
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.runs.result import Result
from upsweep.tasks.super_resolution.data import EvalImages, batch_of_one
from upsweep.tasks.super_resolution.judging import bicubic as bicubic_sr
from upsweep.tasks.super_resolution.judging import pair, seen

ROOT = Path(__file__).resolve().parent.parent
DOOR = ROOT / "src" / "evaluate.py"
PROTOCOLS = {
    path.stem: Protocol(**{k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "_target_"})
    for path in (ROOT / "conf" / "protocol").glob("*.yaml")
}
SPEC: dict[str, Any] = {
    **NET,
    "recipe": {**RECIPE, "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}},
    "scale": 2,
    "channels": 1,
}


class Known(Upscaler):
    """Bicubic and a constant: an SR whose every figure can be worked out."""

    def __init__(self, channels: int, offset: float = 0.02) -> None:
        super().__init__(2, channels)
        self.offset = offset

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x, self.scale) + self.offset


class Hungry(Upscaler):
    """Takes 64 MB for a moment."""

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x, self.scale) + torch.ones(16_000_000)[-1] - 1


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of odd sizes, one of them grey."""
    folder = tmp_path_factory.mktemp("five")
    noise = np.random.default_rng(0)
    for i in range(5):
        coarse = noise.integers(0, 256, (12 + i, 10, 1 if i == 3 else 3), dtype=np.uint8)
        write_image(folder / f"{i}.png", Picture(coarse.repeat(5, axis=0).repeat(5, axis=1)[:-1]), marked=False)
    return folder


def trained(folder: Path, *, seed: int = 0, result: Result | None = None, **changes: Any) -> Path:
    """The folder of a run with a checkpoint, and with a result where one is given."""
    torch.manual_seed(seed)
    spec = {**SPEC, **changes}
    generator = checkpoints.build(spec)
    state = {
        "state_dict": {f"generator.{name}": value for name, value in generator.state_dict().items()},
        checkpoints.KEY: checkpoints.describe(spec),
    }
    (folder / "checkpoints").mkdir(parents=True)
    checkpoints.save(state, folder / "checkpoints" / "best.ckpt")
    if result is not None:
        result.write(folder)
    return folder


def finished(**choices: str) -> Result:
    return Result(state="finished", choices={"generator": "deconvnet", **choices}, overrides=[], seed=1, scale=2)


# ---- the published figures ----

DATA = Path(os.environ.get("UPSWEEP_DATA", ""))
real = pytest.mark.skipif(
    "UPSWEEP_DATA" not in os.environ or not (DATA / "benchmarks").is_dir(), reason="needs $UPSWEEP_DATA/benchmarks"
)
# What is known of bicubic on Set5 (PSNR at x2, x3, x4): of the papers' protocol and of others in use.
SET5 = {
    "paper": ((33.661, 0.9299), (30.392, 0.8682), (28.421, 0.8104)),
    "rgb_lr_uint8": ((33.673, 0.9303), (30.403, 0.8689), (28.429, 0.8111)),
    "rgb": ((31.787, 0.9086), (28.624, 0.8383), (26.692, 0.7731)),
    "full_range_y": ((32.351, None), (29.081, None), (27.107, None)),
}


@lru_cache
def known_images(name: str, scale: int) -> EvalImages:
    return benchmark_images(name, DATA, scale=scale, channels=1)


def test_files_of_other_kinds_in_a_folder_of_hr_images_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.gif").touch()
    with pytest.raises(UserError, match=r"has no images\. 1 file is passed over .*: a\.gif\.$"):
        find_benchmarks([str(tmp_path)], None)
    write_image(tmp_path / "b.png", Picture(np.zeros((4, 4, 3), np.uint8)), marked=False)
    (benchmark,) = find_benchmarks([str(tmp_path)], None)
    assert len(benchmark.files) == 1 and "1 file is passed over" in caplog.text


@real
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", SET5)
def test_every_protocol_gives_its_known_figures(name: str, scale: int) -> None:
    psnr, ssim = mean(evaluate(Bicubic(scale=scale), known_images("set5", scale), PROTOCOLS[name]))
    known_psnr, known_ssim = SET5[name][scale - 2]
    assert psnr == pytest.approx(known_psnr, abs=0.005)
    assert known_ssim is None or ssim == pytest.approx(known_ssim, abs=0.0002)


@real
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("name", "title", "psnr_off", "ssim_off"),
    [
        ("set5", "Set5", 0.005, 0.0002),
        ("set14", "Set14", 0.015, 0.0009),
        pytest.param("bsd100", "BSD100", 0.015, 0.0009, marks=pytest.mark.slow),
    ],
)
def test_bicubic_is_what_was_published(name: str, title: str, psnr_off: float, ssim_off: float, scale: int) -> None:
    fact = published(scale, [title])["Bicubic"][title]
    psnr, ssim = mean(evaluate(Bicubic(scale=scale), known_images(name, scale)))
    assert round(psnr, 3) == pytest.approx(fact.values["psnr"], abs=psnr_off)
    assert round(ssim, 4) == pytest.approx(fact.values["ssim"], abs=ssim_off + 1e-9)


def test_published_rows_hold_under_the_papers_protocol_alone() -> None:
    rows = published_rows(2, ["Set5", "Urban100"], Protocol())
    assert {row.method for row in rows} >= {"Bicubic", "VDSR", "EDSR-baseline"}
    (set5, urban100) = comparison(2, Protocol(), ["Set5", "Urban100"], rows).columns
    assert set5.text(rows[0].cells["Set5"]) == "33.66/0.9299"
    (doubtful,) = (row for row in rows if row.method == "SRCNN(ECCV14)")
    assert urban100.text(doubtful.cells["Urban100"]) == "28.65/0.8909*"
    (mixed,) = (row for row in published_rows(2, ["Set5", "BSD100"], Protocol()) if row.method.endswith("papers)"))
    assert mixed.source == "published, Set5: one source; BSD100: two sources"
    assert published_rows(2, ["my photos"], Protocol()) == []
    for other in (replace(Protocol(), shave=0), *(p for name, p in PROTOCOLS.items() if name != "paper")):
        assert published_rows(2, ["Set5"], other) == []
        assert "published figures are left out" in comparison(2, other, ["Set5"], []).caption


# ---- judging ----


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_figures_are_those_of_the_metrics(photos: Path, name: str, channels: int) -> None:
    protocol, generator = PROTOCOLS[name], Known(channels)
    images = benchmark_images(str(photos), scale=2, channels=channels)
    figures = evaluate(generator, images, protocol)
    metrics = PSNR(protocol, 2), SSIM(protocol, 2)
    for i, each in enumerate(figures):
        image = seen(batch_of_one([images[i]]), protocol, 2)
        sr, hr = pair(generator(image.lr), image, protocol, 2)
        for metric, figure in zip(metrics, each[1:3], strict=True):
            metric.update(sr, hr, grey=i == 3)
            assert metric.last.item() == pytest.approx(figure, abs=1e-6)
    assert [each.image for each in figures] == ["0", "1", "2", "3", "4"]
    assert mean(figures) == pytest.approx([metric.compute().item() for metric in metrics], abs=1e-6)


def test_what_is_judged_and_handed_out_is_what_the_protocol_says(photos: Path) -> None:
    images = benchmark_images(str(photos), scale=2, channels=1)
    given = {}
    evaluate(
        Known(1),
        images,
        PROTOCOLS["rgb_lr_uint8"],
        on_image=lambda image, sr, _: given.update({image.name: (image, sr)}),
    )
    image, sr = given["0"]
    assert image.rgb_lr is not None
    levels = image.rgb_lr * 255
    assert (levels - levels.round()).abs().max() < 1e-3, "the LR is a uint8 image"
    luma = pair(sr, image, PROTOCOLS["rgb_lr_uint8"], 2)[1] * 255
    assert (luma - luma.round()).abs().max() > 0.1, "the HR luma is not rounded"
    assert torch.equal(sr, Known(1)(image.lr))
    levels = bicubic_sr(image, PROTOCOLS["rgb_lr_uint8"], 2) * 255
    assert levels.shape[1] == 3 and (levels - levels.round()).abs().max() < 1e-3, "and so is bicubic's SR"
    plain = batch_of_one([images[0]])
    assert all(a is b for a, b in zip(seen(plain, Protocol(), 2), plain, strict=True)), "the papers' is as prepared"


def test_an_image_that_cannot_be_judged_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image"):
        evaluate(Known(1), [])
    with pytest.raises(UserError, match=r"^0: its SR has .* and its HR"):
        evaluate(Known(1), benchmark_images(str(photos), scale=3, channels=1))
    write_image(tmp_path / "small.png", Picture(np.zeros((14, 40, 3), np.uint8)), marked=False)
    with pytest.raises(UserError, match=r"small.* 40x14 pixels .* need 15x15"):
        evaluate_all(
            Evaluation(
                folder=tmp_path,
                methods=[bicubic(2)],
                benchmarks=find_benchmarks(str(tmp_path), None),
                protocol=Protocol(),
            )
        )
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"needs all of its images: .*broken\.png"):
        benchmark_images(str(tmp_path), scale=2, channels=1)


@pytest.mark.slow
def test_one_process_and_two_come_to_the_same(photos: Path, tmp_path: Path) -> None:
    checkpoint = trained(tmp_path / "run")
    said = []
    for devices in (1, 2):
        arguments = [f"checkpoint={checkpoint}", f"benchmark={photos}", f"devices={devices}", "device=cpu"]
        told = subprocess.run(
            [sys.executable, DOOR, *arguments, "speed=false", f"hydra.run.dir={tmp_path / str(devices)}"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stderr
        said.append((tmp_path / str(devices) / "images.csv").read_text())
    assert len(said[0].splitlines()) == 1 + 2 * 5
    assert said[0] == said[1], "to the last digit"
    pictures = [sorted(p.name for p in (tmp_path / d / "pictures").rglob("*.png")) for d in "12"]
    assert pictures[0] == pictures[1] == [f"{i}.png" for i in range(5)]


def test_devices_are_told_apart() -> None:
    assert device_of_rank("cpu", 1, 2) == torch.device("cpu")
    for wrong in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"device={wrong}"):
            device_of_rank(wrong, 0, 1)
    with pytest.raises(UserError, match="devices=0"):
        Evaluation(folder=Path(), methods=[], benchmarks=[], protocol=Protocol(), devices=0)


# ---- what is asked for ----


def test_rows_are_named_by_what_differs(tmp_path: Path) -> None:
    a = trained(tmp_path / "sweep" / "0", result=finished(init="he", norm="bn"))
    b = trained(tmp_path / "sweep" / "1", result=finished(init="xavier", norm="bn"))
    replace(finished(init="lsuv", norm="bn"), state="diverged").write(trained(tmp_path / "sweep" / "10"))
    assert [m.name for m in asked(sweep=str(tmp_path / "sweep"))] == ["init=he", "init=xavier"]
    assert [m.name for m in asked(checkpoint=[str(a), str(b / "checkpoints" / "best.ckpt")])] == [
        "init=he",
        "init=xavier",
    ]
    assert [m.name for m in asked(checkpoint=str(a))] == ["deconvnet"]
    c = trained(tmp_path / "c", result=finished(init="he", norm="bn"))
    assert [m.name for m in asked(checkpoint=[str(a), str(c)])] == [
        "deconvnet 0",
        "deconvnet c",
    ]
    (viewed,) = asked(checkpoint=str(a), views=Views(self_ensemble=True, tile=8))
    assert viewed.name == "deconvnet, self-ensemble, tile 8"
    x3 = trained(tmp_path / "x3", scale=3, channels=3)
    assert [(m.scale, m.channels) for m in asked(checkpoint=[str(a), str(x3)])] == [(2, 1), (3, 3)]
    assert [m.scale for m in asked(method="bicubic")] == [2, 3, 4]


def test_views_compose_and_change_what_they_say(tmp_path: Path) -> None:
    run_folder = str(trained(tmp_path / "run"))
    x = torch.rand(1, 1, 20, 17)
    (plain,), (tiled,) = asked(checkpoint=run_folder), asked(checkpoint=run_folder, views=Views(tile=8))
    (mirrored,) = asked(checkpoint=run_folder, views=Views(self_ensemble=True))
    (both,) = asked(checkpoint=run_folder, views=Views(self_ensemble=True, tile=8))
    with torch.no_grad():
        whole, in_tiles, averaged, all_of_it = (m.generator()(x) for m in (plain, tiled, mirrored, both))
        flipped = mirrored.generator()(x.flip(-1)).flip(-1)
    torch.testing.assert_close(whole, in_tiles, rtol=0, atol=1e-5)
    torch.testing.assert_close(averaged, all_of_it, rtol=0, atol=1e-5)
    torch.testing.assert_close(averaged, flipped, rtol=0, atol=1e-5)
    assert (averaged - whole).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "nothing to judge"),
        ({"method": "release", "scale": 7}, "upsweep has no trained weights for scale=7"),
        ({"method": "lanczos"}, "method=lanczos is unknown"),
        ({"method": "bicubic", "scale": 2.5}, "scale=2.5 must be a whole number"),
        ({"checkpoint": "RUN", "scale": 3}, "enlarges 2 times"),
        ({"checkpoint": "RUN", "views": Views(ema=True)}, "no moving average"),
        ({"checkpoint": "nowhere.ckpt"}, "There is no checkpoint at nowhere.ckpt"),
        ({"checkpoint": "."}, r"has no checkpoints/best\.ckpt"),
        ({"sweep": "nowhere"}, "sweep=nowhere is not a folder"),
        ({"sweep": "RUN"}, "no finished job"),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "RUN")
    with pytest.raises(UserError, match=sentence) as caught:
        asked(**given)
    assert "\n" not in str(caught.value)


def test_benchmarks_are_names_or_folders(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSWEEP_DATA", raising=False)
    (found,) = find_benchmarks(str(photos), None)
    assert [path.name for path in found.files] == [f"{i}.png" for i in range(5)]
    root = tmp_path / "data"
    (root / "Set5").mkdir(parents=True)
    for file in found.files:
        (root / "Set5" / file.name).symlink_to(file)
    assert [b.title for b in find_benchmarks("all", root)] == ["Set5"]
    assert [b.title for b in find_benchmarks("set5", root)] == ["Set5"]
    for asked_for, where, sentence in (
        ("all", None, "data.root=PATH"),
        ("all", tmp_path / "run", "not a folder"),
        ("set6", root, "There is no benchmark set6: choose all, set5"),
        (["set5", "set14"], root, "Set14 was not found"),
        (["set5", "Set5"], root, "Set5 twice"),
        ([], root, "is empty"),
    ):
        with pytest.raises(UserError, match=sentence):
            find_benchmarks(asked_for, where)


@pytest.mark.parametrize("given", ["Set5", "Set5/HR", "set5"])
def test_a_folder_of_a_benchmark_is_that_benchmark_without_its_lr(photos: Path, tmp_path: Path, given: str) -> None:
    for place in ("HR", "LR_bicubic/X2"):
        shutil.copytree(photos, tmp_path / "benchmark" / given.partition("/")[0] / place)
    (found,) = find_benchmarks(str(tmp_path / "benchmark" / given), None)
    assert found.title == "Set5" and found.published
    assert [path.parent.name for path in found.files] == ["HR"] * 5


def test_folders_of_one_name_have_columns_of_their_own(photos: Path, tmp_path: Path) -> None:
    for place in ("A/HR", "B/HR", "B/hr", "b/hr", "C/Set5/HR", "D/Set5/mine", "one/my set", "two/my_set"):
        shutil.copytree(photos, tmp_path / place, dirs_exist_ok=True)

    def titles(*places: str) -> list[str]:
        found = find_benchmarks([str(tmp_path / place) for place in places], None)
        columns = comparison(2, Protocol(), [each.title for each in found], []).columns
        assert len({column.prefix for column in columns}) == len(places)
        return [column.title for column in columns]

    assert titles("A/HR") == ["HR"]
    assert titles("A/HR", "B/HR") == ["A/HR", "B/HR"]
    assert titles("A/HR", "B/hr") == ["A/HR", "B/hr"]  # a CSV has small letters alone
    assert titles("one/my set", "two/my_set", "A") == ["one/my set", "two/my_set", "A"]
    assert titles("C/Set5", "D/Set5") == ["Set5/HR", "D/Set5"]
    with pytest.raises(UserError, match=r"^benchmark names HR twice\.$"):
        titles("A/HR", "B/../A/HR")
    with pytest.raises(UserError, match=r"B/HR and another folder differ in capitals or spaces alone.*rename one"):
        titles("B/HR", "b/hr")


def test_images_that_papers_did_not_judge_have_no_published_rows(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(photos, tmp_path / "own" / "Set5" / "mine")
    shutil.copytree(photos, tmp_path / "more" / "Set5")
    shutil.copy(photos / "0.png", tmp_path / "more" / "Set5" / "again.png")

    def sources(folder: Path) -> list[str]:
        benchmarks = find_benchmarks(str(folder), None)
        judged = Evaluation(
            folder=tmp_path, methods=[bicubic(2)], benchmarks=benchmarks, protocol=Protocol(), speed=False
        )
        return [row.source.partition(",")[0] for comparison in evaluate_all(judged) for row in comparison.rows]

    assert sources(tmp_path / "own" / "Set5") == ["measured"]
    assert sources(tmp_path / "more" / "Set5") == ["measured"]
    assert "Set5 has 5 images, this copy has 6" in caplog.text
    (tmp_path / "more" / "Set5" / "again.png").unlink()
    assert "published" in sources(tmp_path / "more" / "Set5")


# ---- what is written ----


def test_an_evaluation_leaves_tables_figures_and_pictures(photos: Path, tmp_path: Path) -> None:
    checkpoint = trained(tmp_path / "run", result=finished())
    out = tmp_path / "out"
    out.mkdir()
    (table,) = evaluate_all(
        Evaluation(
            folder=out,
            methods=[
                *asked(method="bicubic", scale=2),
                *asked(checkpoint=str(checkpoint)),
                *asked(checkpoint=str(checkpoint)),
            ],
            benchmarks=find_benchmarks(str(photos), None),
            protocol=Protocol(),
            device="cpu",
            speed=False,
        )
    )
    title = photos.name
    with (out / "images.csv").open() as file:
        images = list(csv.DictReader(file))
    assert [(row["method"], row["image"]) for row in images] == [
        (m, str(i)) for m in ("bicubic", "deconvnet", "deconvnet (2)") for i in range(5)
    ]
    with (out / "table_x2.csv").open() as file:
        bicubic_row, ours, again = list(csv.DictReader(file))
    mine = [row for row in images if row["method"] == "deconvnet"]
    assert again == {**ours, "method": "deconvnet (2)"}
    assert float(ours[f"{title}_psnr"]) == pytest.approx(np.mean([float(row["psnr"]) for row in mine]), abs=1e-9)
    assert float(ours[f"{title}_ssim"]) == pytest.approx(np.mean([float(row["ssim"]) for row in mine]), abs=1e-9)
    assert bicubic_row["parameters"] == "0" and int(ours["parameters"]) > 0 and ours["milliseconds"] == ""
    assert ours["checkpoint"].endswith("best.ckpt") and ours["protocol"] == "paper"
    for text in ((out / "table_x2.md").read_text(), (out / "table_x2.tex").read_text(), table.table().plain()):
        assert "protocol paper: luma of BT.601 in studio range, rounded" in text
        assert f"{float(ours[f'{title}_psnr']):.2f}/{float(ours[f'{title}_ssim']):.4f}" in text
    pictures = sorted((out / "pictures" / "x2" / "deconvnet").rglob("*.png"))
    assert [path.name for path in pictures] == [f"{i}.png" for i in range(5)]
    assert read_image(pictures[0]).pixels.shape[1] == 4 * TILE + 3 * GAP
    assert not (out / "pictures" / "x2" / "bicubic").exists()


def test_any_whole_scale_has_its_bicubic_row(photos: Path, tmp_path: Path) -> None:
    found = find_benchmarks(str(photos), None)
    for scale in (5, 6):
        methods = asked(method="bicubic", scale=scale)
        judged = Evaluation(folder=tmp_path, methods=methods, benchmarks=found, protocol=Protocol(), speed=False)
        (table,) = evaluate_all(judged)
        assert [row.method for row in table.rows] == ["bicubic"] and table.rows[0].cells[photos.name].values["psnr"] > 5


def mae_at(scale: int) -> dict[Figure, Metric]:
    return {Figure(name="mae", title=f"MAE at x{scale}", digits=4, better="lower"): MeanAbsoluteError()}


def test_metrics_of_the_users_own_stand_beside_psnr_and_ssim(photos: Path, tmp_path: Path) -> None:
    tables = evaluate_all(
        Evaluation(
            folder=tmp_path,
            methods=[bicubic(2), bicubic(4)],
            benchmarks=find_benchmarks(str(photos), None),
            protocol=Protocol(),
            own=mae_at,
            device="cpu",
            speed=False,
            pictures=False,
        )
    )
    said = [table.caption.split(";")[0] for table in tables]
    assert said == [f"Mean PSNR in dB / SSIM / MAE at x{scale} at x{scale}" for scale in (2, 4)]
    with (tmp_path / "images.csv").open() as file:
        of_images = [float(row["mae"]) for row in csv.DictReader(file) if row["scale"] == "2"]
    image = batch_of_one([benchmark_images(str(photos), scale=2, channels=1)[0]])
    a, b = (Protocol().planes(x[0], 2, grey=image.rgb_hr is None) for x in (bicubic_sr(image, Protocol(), 2), image.hr))
    assert of_images[0] == pytest.approx(float((a - b).abs().mean() / 255), abs=1e-6)
    cell = tables[0].rows[-1].cells[photos.name]
    assert cell.values["mae"] == pytest.approx(np.mean(of_images))
    column = tables[0].columns[0]
    assert column.text(Cell({"psnr": 30.0, "ssim": 0.9})) == "30.00/0.9000/-", "published rows lack it"


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"far": {"figure": {"better": "lower"}}}, "metrics.far has no metric"),
        ({"psnr": {"figure": {"better": "higher"}}}, "psnr is declared twice"),
        (
            {
                "fid": {
                    "figure": {"better": "lower"},
                    "metric": {
                        "_target_": "torchmetrics.image.fid.FrechetInceptionDistance",
                        "feature": {"_target_": "torch.nn.Flatten"},
                        "input_img_size": [1, 9, 9],
                        "normalize": True,
                    },
                }
            },
            "metrics.fid compares two sets of images",
        ),
    ],
)
def test_a_metric_that_an_evaluation_cannot_take_is_one_sentence(
    tmp_path: Path, metrics: dict[str, Any], said: str
) -> None:
    own = partial(own_at, OmegaConf.create({"metrics": metrics, "scale": None}))
    with pytest.raises(UserError, match=said):
        evaluate_all(
            Evaluation(folder=tmp_path, methods=[bicubic(2)], benchmarks=[], protocol=Protocol(), own=own, device="cpu")
        )


def test_latex_is_escaped_and_a_cell_that_is_not_known_is_a_dash() -> None:
    row = Row("a_b & 50%", {"Set5": Cell({"psnr": 30.126, "ssim": 0.91234})})
    bicubic_row = Row("bicubic", {"Set5": Cell({"psnr": 33.66, "ssim": 0.93})})
    worse = Row("mine", {"Set5": Cell({"psnr": 31.884, "ssim": 0.95})}, checkpoint="best.ckpt")
    said = comparison(2, Protocol(), ["Set5"], [bicubic_row, worse]).caption
    assert "better without a network: mine on Set5 (below bicubic: 1.78 dB)" in said
    table = comparison(2, Protocol(), ["Set5", "Set14"], [row])
    assert r"a\_b \& 50\% & 30.13/0.9123 & - & measured \\" in table.latex()
    assert "| a_b & 50% | 30.13/0.9123 | - | measured |" in table.markdown()
    assert table.csv().splitlines()[1] == "a_b & 50%,2,paper,30.126,0.91234,,,,,,,measured,"


def test_a_picture_marks_and_magnifies_the_place_of_the_largest_error(photos: Path) -> None:
    images: EvalImages = benchmark_images(str(photos), scale=2, channels=1)
    given = []

    class Spotted(Known):
        def body(self, x: Tensor) -> Tensor:
            y = enlarge(x, 2)
            y[..., :2, :] = -1  # at the border, where nothing is judged
            y[..., 40:44, 30:34] = 1
            return y

    evaluate(Spotted(1), images, on_image=lambda *each: given.append(each))
    image, sr, figures = given[4]
    pixels = overview(image, sr, figures)
    assert pixels.shape[1] == 4 * TILE + 3 * GAP and pixels.dtype == np.uint8
    height, width = image.hr.shape[-2:]
    assert (height, width) == (78, 50), "magnified is a square of 50, somewhere below the border"
    top = LINE
    whole_height = round(height * TILE / width)
    marked = np.argwhere((pixels[top : top + whole_height, :TILE] == MARK).all(axis=-1))
    first, last = marked.min(axis=0)[0] * width / TILE, marked.max(axis=0)[0] * width / TILE
    assert first <= 40 and last >= 44 and first > 1
    error = pixels[LINE + whole_height + GAP :, 3 * (TILE + GAP) :]
    assert error.shape == (TILE, TILE, 3)
    brightest = heat(torch.ones(1, 1))[0, 0]
    assert (error == brightest).all(axis=-1).mean() > 15 / 50**2, "the spot is in the crop, and bright"


def test_colours_of_errors() -> None:
    levels = torch.tensor([[0.0, FULL_ERROR / 255, 1.0]])
    black, bright, beyond = heat(levels)[0].astype(int)
    assert black.sum() < 10 and bright.sum() > 600 and (bright == beyond).all()
    ramp = heat(torch.linspace(0, FULL_ERROR / 255, 64)[None])[0].astype(int)
    assert (np.diff(ramp @ [299, 587, 114]) > 0).all(), "brighter is worse, in grey too"


def test_memory_is_what_a_run_takes() -> None:
    # A fresh process, as `measure` has it: in this one, other tests may have left room for both.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        lean, hungry = pool.map(speed_of, (Known(1, 0.0), Hungry(2, 1)), [torch.device("cpu")] * 2)
    assert lean.megabytes < 30 and 62 < hungry.megabytes < 94
    assert min(lean.milliseconds, hungry.milliseconds) > 0


class Endless(Upscaler):
    """Asks for 40 TB, as PyTorch does where memory is too small, for LR that is wider than `fits`."""

    def __init__(self, fits: int) -> None:
        super().__init__(2, 1)
        self.fits = fits

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x, self.scale) if x.shape[-1] <= self.fits else torch.empty(10**13)


@dataclass(frozen=True, kw_only=True)
class EndlessMethod(Method):
    fits: int

    def plain(self) -> Upscaler:
        return Endless(self.fits)


def test_an_evaluation_outlives_memory_that_is_too_small_for_timing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A thread for the process that imports torch anew: the error is the same.
    monkeypatch.setattr(speed, "ProcessPoolExecutor", lambda count, mp_context: ThreadPoolExecutor(count))
    monkeypatch.setattr(speed, "LEAST", 1)
    monkeypatch.setattr(speed, "ENOUGH", 0.0)

    def judged(fits: int) -> Evaluation:
        methods = [EndlessMethod(name="mine", scale=2, fits=fits, checkpoint=tmp_path / "mine.ckpt")]
        found = find_benchmarks(str(photos), None)
        return Evaluation(folder=tmp_path, methods=methods, benchmarks=found, protocol=Protocol(), device="cpu")

    (table,) = evaluate_all(judged(64))
    assert [row.milliseconds is None for row in table.rows] == [False, True]
    assert (tmp_path / "images.csv").is_file() and "mine was not timed: " in caplog.text
    with pytest.raises(UserError, match=r"^0: out of memory for its LR of 25x29 pixels: .* tile=128\.$"):
        evaluate_all(judged(0))


@pytest.mark.slow
def test_the_door_judges_a_generator_of_the_users_own(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from upsweep.networks.upscalers.deconvnet import DeconvNet\nclass Mine(DeconvNet):\n    pass\n",
        encoding="utf-8",
    )
    own = tmp_path / "conf" / "generator" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# Mine\n_target_: mine.Mine\n", encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    try:
        checkpoint = trained(tmp_path / "run", _target_="mine.Mine")
    finally:
        sys.path.remove(str(tmp_path))
    command = [
        sys.executable,
        str(DOOR),
        f"checkpoint={checkpoint}",
        f"benchmark={photos}",
        "pictures=false",
        "device=cpu",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}", "OMP_NUM_THREADS": "1"}
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "'mine.Mine', which is neither upsweep's nor named by your config" in refused.stderr
    command.append(f"--config-dir={tmp_path / 'conf'}")
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    (folder,) = (p.parent for p in tmp_path.glob("outputs/evaluate/*/table_x2.csv"))
    assert told.stdout.rstrip().endswith(str(folder))
    with (folder / "table_x2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["milliseconds"]) > 0 and float(row["megabytes"]) > 3 for row in rows)


@pytest.mark.parametrize("question", [["--help"], ["--cfg", "job"]])
def test_the_door_answers_without_torch(question: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", str(DOOR), *question]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert {"hydra", "upsweep"} <= imported
    assert not imported & {"torch", "pytorch_lightning", "numpy", "rich"}
