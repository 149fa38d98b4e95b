"""The table that a training leaves in its log, and what it tells its log of its model and its data."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.small_job import TRAINER, small_job

from upsweep.imaging.resize import shrink
from upsweep.imaging.tiles import Panel
from upsweep.runs.identity import Identity
from upsweep.tasks.super_resolution.data import EvalImage, batch_of_one
from upsweep.tasks.super_resolution.pictures import cut, place
from upsweep.tracking.csv_run import CsvRun
from upsweep.training.callbacks import Pictures
from upsweep.training.job import train
from upsweep.training.saving import SaveBest


class Noting(CsvRun):
    """A log that notes what it is told of models and data."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.models: list[tuple[Path, Mapping[str, Any]]] = []
        self.data: list[tuple[str, Mapping[str, str], Mapping[str, Any]]] = []

    def log_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        self.models.append((checkpoint, metadata))

    def log_data(self, name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        self.data.append((name, digests, metadata))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "csv" / "version_0" / "images.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_is_that_of_the_best_epoch_and_its_figures_have_the_mean_of_the_result(
    tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "run"
    worse = partial(torch.optim.SGD, lr=30.0)  # every epoch is worse than the one before
    trainer = {**TRAINER, "max_epochs": 3}
    job = small_job(folder, cache, trainer=trainer, optimizer=worse)
    log = Noting(folder)
    result = train(replace(job, logger=log, callbacks=[SaveBest(folder), Pictures(folder, count=2)]))
    assert result.epoch < 3, "or else this test could not tell the best epoch from the last"
    rows = table(folder)
    assert list(rows[0]) == ["image", "LR", "SR", "HR", "psnr", "ssim", "psnr_bicubic", "ssim_bicubic", "epoch"]
    assert {row["epoch"] for row in rows} == {str(result.epoch)} and len(rows) == 2
    for name, value in (result.figures | {"psnr_bicubic": result.baseline["psnr"]}).items():
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(value, abs=1e-6)
    sizes = [Image.open(folder / "csv" / "version_0" / rows[0][tile]).size for tile in ("LR", "SR", "HR")]
    assert sizes[1] == sizes[2] == (2 * sizes[0][0], 2 * sizes[0][1])


def test_a_job_tells_its_log_of_its_images_and_at_its_end_of_its_best_checkpoint(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "run"
    log = Noting(folder)
    job = small_job(folder, cache, logger=log, choices={"data": "photos"})
    result = train(job)
    ((checkpoint, said),) = log.models
    assert str(checkpoint) == result.checkpoint and checkpoint.is_file()
    assert said["figures"] == result.figures and (said["seed"], said["scale"]) == (1, 2)
    assert said["choices"] == {"data": "photos"} and said["parameters"] == result.parameters
    ((name, digests, more),) = log.data
    kept = Identity.read(folder)
    assert kept is not None and name == "photos"
    parts = {"training": kept.training, "validation": kept.validation}
    assert digests == {f"{part}/{name}": digest for part, each in parts.items() for name, digest in each.items()}
    assert more["size"].keys() == digests.keys() and more["size"]["training/astronaut.png"] == "512x512"


def test_a_table_shows_one_place_of_lr_sr_and_hr_in_the_colours_of_lr() -> None:
    rgb = torch.zeros(3, 480, 640)
    rgb[:, 101:301, 203:403] = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(1))
    small = shrink(rgb, 2)
    image = batch_of_one([EvalImage("x", small[:1], rgb[:1], small, rgb)])
    top, left = corner = place(image, 200)
    assert abs(top - 101) <= 2 and abs(left - 203) <= 2 and top % 2 == left % 2 == 0
    tiles = cut(image, rgb[None, :1], corner, 200)
    pixels = {name: tile.pixels for name, tile in tiles.items() if isinstance(tile, Panel)}
    assert {name: each.shape for name, each in pixels.items()} == {
        "LR": (100, 100, 3),
        "SR": (200, 200, 3),
        "HR": (200, 200, 3),
    }
    wanted = (rgb[:, top : top + 200, left : left + 200] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels["HR"], wanted)
    assert np.ptp(pixels["SR"].astype(int), axis=2).max() > 0, "SR of luma is shown in colour"


def test_a_place_at_the_border_of_an_odd_image_is_cut_to_whole_pixels_of_lr() -> None:
    rgb = torch.rand(3, 33, 45, generator=torch.Generator().manual_seed(1))[:, :33, :45]
    image = batch_of_one([EvalImage("x", shrink(rgb, 3)[:1], rgb[:1], None, None)])
    tiles = cut(image, rgb[None, :1], place(image))
    assert [tile.pixels.shape for tile in tiles.values() if isinstance(tile, Panel)] == [
        (11, 15, 3),
        (33, 45, 3),
        (33, 45, 3),
    ]
