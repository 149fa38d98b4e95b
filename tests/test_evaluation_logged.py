"""What an evaluation leaves in W&B: in the run of each checkpoint, or in a run of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.small_results import PSNR
from tests.test_tracking import home, summary_of  # noqa: F401 - a fixture

from upsweep.common.errors import UserError
from upsweep.evaluation.logged import log_evaluation
from upsweep.evaluation.tables import Cell, Column, Comparison, Judged, Row
from upsweep.runs.about import About
from upsweep.runs.result import Result
from upsweep.tracking.reopened import TARGET, options_of
from upsweep.tracking.wandb_run import WandbRun

COLUMNS = [Column("Set5", [PSNR], prefix="set5_")]


def job(folder: Path) -> Path:
    """A run's folder with a result and a W&B run; its checkpoint."""
    run = WandbRun(folder, project="mine", choices={"init": folder.name})
    run.log_metrics({"val/psnr": 31.0}, step=1)
    run.finish()
    About(config={"logger": {"_target_": TARGET, "project": "mine"}}).write(folder)
    Result(state="finished", choices={"init": folder.name}, overrides=[], seed=0, scale=2).write(folder)
    return folder / "checkpoints" / "best.ckpt"


def row(name: str, psnr: float, checkpoint: Path | str = "") -> Row:
    return Row(name, {"Set5": Cell({"psnr": psnr})}, 12, checkpoint=str(checkpoint))


def judged(folder: Path, *rows: Row) -> Comparison:
    """Rows with two images each, of which those with a checkpoint have pictures."""
    images = []
    for each in rows:
        for image in ("baby", "bird"):
            file = folder / each.method / f"{image}.png" if each.checkpoint else None
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
            images.append(Judged(each.method, "Set5", image, {"psnr": each.cells["Set5"].values["psnr"]}, file))
    return Comparison("table_x2", "", COLUMNS, rows, {"scale": 2, "protocol": "paper"}, images)


def tables(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables of a W&B run's folder, by the start of their names."""
    found = {}
    for file in run.glob("files/media/table/evaluation/*.json"):
        said = json.loads(file.read_text())
        found[file.name.split("_")[0]] = [dict(zip(said["columns"], line, strict=True)) for line in said["data"]]
    return found


def newest(folder: Path) -> Path:
    return max(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.usefixtures("home")
def test_every_run_is_given_its_own_rows_beside_those_without_a_checkpoint(tmp_path):
    folder = tmp_path / "evaluation"
    files = {name: job(tmp_path / name) for name in ("he", "xavier")}
    rows = [row("bicubic", 30.0), row("he", 32.0, files["he"]), row("xavier", 31.0, files["xavier"])]
    said = list(log_evaluation(folder, [judged(folder, *rows)], {"mode": "offline", "project": "other"}, {}))
    assert len(said) == 2 and not (folder / "wandb").exists()
    for name, psnr in (("he", 32.0), ("xavier", 31.0)):
        run = newest(tmp_path / name)
        summary = summary_of(run)
        assert (summary["project"], summary["run_id"]) == ("mine", (tmp_path / name / "wandb" / "id").read_text())
        assert summary["summary"]["evaluation/set5_psnr"] == psnr
        found = tables(run)
        assert [(line["method"], line["set5_psnr"]) for line in found["table"]] == [("bicubic", 30.0), (name, psnr)]
        assert [(line["image"], line["method"], line["picture"]) for line in found["Set5"]] == [
            ("baby", "bicubic", None),
            ("bird", "bicubic", None),
            ("baby", name, "Image"),
            ("bird", name, "Image"),
        ]


@pytest.mark.usefixtures("home")
def test_weights_without_a_run_have_a_new_run_in_the_folder_of_the_evaluation(tmp_path):
    folder = tmp_path / "evaluation"
    rows = [row("bicubic", 30.0), row("one", 32.0, tmp_path / "one.ckpt"), row("two", 31.0, tmp_path / "two.ckpt")]
    list(log_evaluation(folder, [judged(folder, *rows)], {"mode": "offline"}, {"checkpoint": ["one.ckpt", "two.ckpt"]}))
    said = summary_of(newest(folder))
    assert said["name"] == "evaluation" and said["config"]["config"]["checkpoint"] == ["one.ckpt", "two.ckpt"]
    assert said["summary"]["evaluation/one/set5_psnr"] == 32.0 and said["summary"]["evaluation/two/set5_psnr"] == 31.0


@pytest.mark.usefixtures("home")
def test_bicubic_alone_has_a_run_of_its_own(tmp_path):
    list(log_evaluation(tmp_path / "evaluation", [judged(tmp_path, row("bicubic", 30.0))], {"mode": "offline"}, {}))
    assert [line["method"] for line in tables(newest(tmp_path / "evaluation"))["table"]] == ["bicubic"]


def test_another_logger_is_refused_in_one_sentence_and_wandb_is_found_among_several():
    assert options_of({}) is None
    wandb = {"_target_": TARGET, "mode": "online"}
    assert options_of(wandb) == options_of({"csv": {"_target_": "another"}, "wandb": wandb}) == {"mode": "online"}
    with pytest.raises(UserError, match="choose logger=wandb or none"):
        options_of({"_target_": "upsweep.tracking.csv_run.CsvRun"})
