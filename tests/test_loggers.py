"""What TensorBoard, MLflow and loggers of one's own get of a run, read back from what they wrote."""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.common.errors import UserError
from upsweep.doors.train import logger
from upsweep.imaging.lettering import labelled
from upsweep.imaging.marks import is_marked
from upsweep.imaging.tiles import Panel
from upsweep.runs.about import About
from upsweep.runs.manifest import Manifest
from upsweep.runs.result import Result
from upsweep.tracking.csv_run import CsvRun
from upsweep.tracking.lightning_run import LightningRun
from upsweep.tracking.mlflow_run import MLflowRun
from upsweep.tracking.reopened import options_of
from upsweep.tracking.run_log import RunLog
from upsweep.tracking.several import Logs
from upsweep.tracking.ways import Way, for_data

ROOT = Path(__file__).resolve().parents[1]
DOOR = [sys.executable, str(ROOT / "src/train.py")]
PANEL = Panel("coffee", np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3), "coffee: SR 31.00 dB")
ABOUT: dict[str, Any] = {
    "config": {"init": {"fan": "effective"}, "trainer": {"max_epochs": 2}},
    "choices": {"init": "he", "norm": "bn"},
    "flat": {"seed": 3, "scale": 2},
    "overrides": ["init=he", "norm=bn", "optimizer.lr=2e-3", "data.root=/my/photos"],
}
TOLD = ("config", "state", "validation")  # to TensorBoard, as texts
TINY = [
    *("trainer=cpu", "trainer.max_epochs=1", "data.patches_per_epoch=32", "trainer.limit_val_batches=1"),
    *("generator.width=4", "generator.depth=1", "quiet=true", "report.enabled=false"),
]
needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="no TensorBoard here: make .venv")
needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="no MLflow here: make .venv")


class Numbers(Logger):
    """A logger of somebody's own, as short as Lightning allows."""

    name, version = "numbers", None

    def __init__(self, breaks_at: str | None = None) -> None:
        self.lines: list[Any] = []
        self.breaks_at = breaks_at

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        self._add("params", dict(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._add("metrics", (dict(metrics), step))

    def finalize(self, status: str) -> None:
        self._add("finalize", status)

    def _add(self, what: str, line: Any) -> None:
        if what == self.breaks_at:
            raise ConnectionResetError("the server has gone\nand more")
        self.lines.append(line)


class Pictures(Numbers):
    def log_pictures(self, key: str, pictures: Any, step: int) -> None:
        self.lines.append((key, [picture.name for picture in pictures], step))


class Broken(CsvRun):
    """One that is derived from ours."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # type: ignore[override]
        raise ConnectionError("the server has gone")


def live(run: RunLog, checkpoint: Path | None = None) -> None:
    """What a training tells its log."""
    run.log_summary({"parameters": 12464})
    run.log_data("photos", {"a.png": "1f", "b.png": "2e"}, {"training": 2})
    for step, psnr in ((10, 30.0), (20, 31.0)):
        run.log_metrics({"val/psnr": psnr}, step=step)  # type: ignore[attr-defined]
        run.log_pictures("pictures", [PANEL], step)
    run.log_table("validation", [{"image": "coffee", "SR": PANEL, "psnr": 31.0}, {"image": "cat", "psnr": None}])
    if checkpoint is not None:
        run.log_model(checkpoint, {"best/psnr": 31.0})
    run.log_summary({"state": "finished", "best/psnr": 31.0})
    run.finish(0)


def tensorboard(folder: Path, **options: Any) -> LightningRun:
    return LightningRun(TensorBoardLogger(folder, name=None, version="tensorboard", **options), folder, **ABOUT)


@needs_tensorboard
def test_tensorboard_has_curves_pictures_words_a_table_and_hyperparameters_with_their_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    live(tensorboard(tmp_path))
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(point.step, point.value) for point in found.Scalars("val/psnr")] == [(10, 30.0), (20, 31.0)]
    assert [found.Scalars(key)[0].value for key in ("best/psnr", "parameters")] == [31.0, 12464.0]
    pictures = found.Images("pictures/coffee")
    assert [picture.step for picture in pictures] == [10, 20]
    (tmp_path / "seen.png").write_bytes(pictures[-1].encoded_image_string)
    with Image.open(tmp_path / "seen.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labelled(PANEL.pixels, [PANEL.caption]))
    words = {key: found.Tensors(f"{key}/text_summary")[0].tensor_proto.string_val[0].decode() for key in TOLD}
    assert words["state"] == "finished" and yaml.safe_load(words["config"])["config"] == ABOUT["config"]
    assert words["validation"].splitlines()[2:] == ["| coffee | coffee | 31 |", "| cat |  |  |"]
    begun = HParamsPluginData.FromString(found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    said = begun.session_start_info.hparams
    assert (said["init"].string_value, said["norm"].string_value, said["seed"].number_value) == ("he", "bn", 3)
    assert said["optimizer.lr"].number_value == 0.002 and "data.root" not in said
    declared = HParamsPluginData.FromString(found.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert {one.name.tag for one in declared.experiment.metric_infos} == {"best/psnr", "parameters"}


@needs_tensorboard
def test_a_resumed_run_goes_on_in_the_same_folder_of_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in (1, 2):
        run = tensorboard(tmp_path)
        run.log_metrics({"loss": 0.5}, step)
        run.finish(0)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [point.step for point in found.Scalars("loss")] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
    assert run.whereabouts == f"tensorboard --logdir {tmp_path / 'tensorboard'}"


def mlflow(job: Path, **more: Any) -> LightningRun:
    return LightningRun(MLflowRun(job, choices=ABOUT["choices"], overrides=ABOUT["overrides"]), job, **(ABOUT | more))


@needs_mlflow
def test_jobs_that_begin_at_once_all_say_which_images_they_read(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    together, names = Barrier(4), [f"photos {number}" for number in range(8)]
    runs = [MLflowRun(tmp_path / job) for job in "0123"]
    ways = [for_data(run) for run in runs]

    def say(use: Way | None) -> None:
        assert use is not None
        for name in names:
            together.wait(60)
            use(name, {"a.png": name}, {})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(say, ways))
    for run in runs:
        said = run.experiment.get_run(run.run_id).inputs.dataset_inputs
        assert {each.dataset.name for each in said} == set(names)


@needs_mlflow
def test_all_jobs_of_a_sweep_are_runs_in_one_file_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    home, sweep = tmp_path / "home", tmp_path / "it's (my) sweep é%20"
    home.mkdir()
    sweep.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    Manifest(about=About()).write(sweep)
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    for name in ("0", "1"):
        run = mlflow(sweep / name)
        live(run, checkpoint)
    database = sweep / "mlflow/mlflow.db"
    uri = f"sqlite:///{database}".replace("%", "%25")
    assert shlex.split(run.whereabouts or "") == ["mlflow", "ui", "--backend-store-uri", uri]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("upsweep")
    runs = client.search_runs([experiment.experiment_id])
    assert {one.info.run_id for one in runs} == {(sweep / n / "mlflow/id").read_text() for n in ("0", "1")}
    one, data = runs[0], runs[0].data
    assert (one.info.status, one.info.run_name) == ("FINISHED", "init=he norm=bn optimizer.lr=2e-3")
    assert [data.params[key] for key in ("init", "seed", "config/init/fan")] == ["he", "3", "effective"]
    assert [data.tags[key] for key in ("state", "sweep")] == ["finished", sweep.name]
    assert (data.metrics["best/psnr"], data.metrics["parameters"]) == (31.0, 12464.0)
    curve = client.get_metric_history(one.info.run_id, "val/psnr")
    assert [(point.step, point.value) for point in curve] == [(10, 30.0), (20, 31.0)]
    assert [given.dataset.name for given in one.inputs.dataset_inputs] == ["photos"]
    artifacts = sweep / "mlflow/artifacts" / one.info.run_id / "artifacts"
    assert (artifacts / "model/best.ckpt").read_bytes() == b"weights"
    assert (artifacts / "validation.csv").read_text().split() == ["image,SR,psnr", "coffee,coffee,31.0", "cat,,"]
    pictures = sorted((artifacts / "images").glob("pictures~coffee*.png"))
    assert len(pictures) == 2
    with pictures[0].open("rb") as file:
        assert is_marked(file)  # it is no photo to train on
    with Image.open(pictures[0]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), labelled(PANEL.pixels, [PANEL.caption]))
    assert list(home.iterdir()) == []


@needs_mlflow
def test_a_resumed_run_of_mlflow_goes_on_also_with_other_settings_and_fails_if_it_does(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    for step, config in ((1, {"trainer": {"max_epochs": 1}}), (2, {"trainer": {"max_epochs": 9}, "new": 1})):
        run = mlflow(tmp_path, config=config)
        run.log_metrics({"loss": 0.5}, step)
        run.finish(step - 1)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    (one,) = client.search_runs([client.get_experiment_by_name("upsweep").experiment_id])
    assert [point.step for point in client.get_metric_history(one.info.run_id, "loss")] == [1, 2]
    assert (one.data.params["config/trainer/max_epochs"], one.data.params["config/new"]) == ("1", "1")
    assert one.info.status == "FAILED"
    assert "MLFLOW_TRACKING_URI" not in os.environ  # or the next run in this process would obey it


def test_a_logger_of_ones_own_gets_numbers_and_settings_and_a_line_says_what_it_does_not_take(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = Numbers()
    with caplog.at_level(logging.INFO, logger="upsweep"):
        live(LightningRun(logger, tmp_path, **ABOUT), tmp_path / "best.ckpt")
    settings, *others = logger.lines
    assert settings["init"] == "he" and settings["config"] == ABOUT["config"]
    assert others == [
        ({"parameters": 12464.0}, 0),
        ({"val/psnr": 30.0}, 10),
        ({"val/psnr": 31.0}, 20),
        ({"best/psnr": 31.0}, 20),
        {"state": "finished"},
        "success",
    ]
    assert caplog.text.count("Numbers takes no pictures and no tables and no checkpoints and no names of images.") == 1


def test_a_logger_with_a_method_for_pictures_gets_them(tmp_path: Path) -> None:
    logger = Pictures()
    live(LightningRun(logger, tmp_path))
    assert ("pictures", ["coffee"], 20) in logger.lines


def test_lightnings_own_files_take_what_they_can(tmp_path: Path) -> None:
    live(LightningRun(CSVLogger(tmp_path), tmp_path, **ABOUT))
    (said,) = tmp_path.rglob("hparams.yaml")
    (table,) = tmp_path.rglob("metrics.csv")
    assert yaml.safe_load(said.read_text())["state"] == "finished" and "val/psnr" in table.read_text()


def test_a_logger_that_fails_in_the_middle_is_told_nothing_more_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = Numbers(breaks_at="metrics")
    live(LightningRun(logger, tmp_path))
    assert caplog.text.count("Numbers failed (the server has gone): the run continues without it.") == 1
    assert len(logger.lines) == 1  # what it was set to; it is not even closed


def test_files_that_cannot_be_written_and_what_is_derived_from_ours_end_no_run_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = logger(OmegaConf.create({"_target_": f"{__name__}.Broken"}), tmp_path / "a", **ABOUT)
    assert run is not None
    live(run)
    assert caplog.text.count("Broken failed (the server has gone): the run continues without it.") == 1
    run = logger(OmegaConf.create({"_target_": "upsweep.tracking.csv_run.CsvRun"}), tmp_path / "b", **ABOUT)
    assert run is not None
    run.log_summary({"parameters": 1})
    shutil.rmtree(tmp_path / "b")
    live(run)
    assert caplog.text.count("Csv failed ") == 1 and not (tmp_path / "b").exists()


def test_our_own_files_hold_what_they_held_without_the_adapter(tmp_path: Path) -> None:
    run = logger(OmegaConf.create({"_target_": "upsweep.tracking.csv_run.CsvRun"}), tmp_path, **ABOUT)
    assert run is not None
    live(run, tmp_path / "best.ckpt")
    run.finish(75)
    folder = tmp_path / "csv" / "version_0"
    said = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert said == {
        **{**ABOUT["choices"], **ABOUT["flat"], "config": ABOUT["config"], "overrides": ABOUT["overrides"]},
        **{"parameters": 12464, "state": "finished", "best/psnr": 31.0, "exit_code": 75},
    }
    assert sorted(path.name for path in folder.iterdir()) == [
        "hparams.yaml",
        "metrics.csv",
        "pictures",
        "validation",
        "validation.csv",
    ]


def test_a_logger_that_cannot_start_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    run = LightningRun(Numbers(breaks_at="params"), tmp_path)
    with pytest.raises(UserError, match=r"Numbers cannot start \(the server has gone\)"):
        run.log_summary({"parameters": 1})
    run.finish(1)  # says nothing more


def test_other_ranks_tell_a_logger_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = Numbers()
    live(LightningRun(logger, tmp_path))
    assert logger.lines == []


def test_what_a_logger_has_besides_is_found_on_its_adapter(tmp_path: Path) -> None:
    run = LightningRun(Numbers(), tmp_path)
    assert run.breaks_at is None and run.name == "numbers"
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = run.nothing_of_this_name


def test_each_of_several_logs_is_told_everything(tmp_path: Path) -> None:
    loggers = [Numbers(breaks_at="metrics"), Pictures()]
    logs = Logs([LightningRun(logger, tmp_path, **ABOUT) for logger in loggers])
    logs.log_summary({"parameters": 1})
    logs.log_pictures("pictures", [PANEL], 4)
    logs.finish(1)
    assert loggers[1].lines[1:] == [({"parameters": 1.0}, 0), ("pictures", ["coffee"], 4), "failed"]


def test_wandbs_options_are_found_among_several_loggers() -> None:
    wandb = {"_target_": "upsweep.tracking.wandb_run.WandbRun", "_partial_": True, "project": "mine"}
    csv = {"_target_": "upsweep.tracking.csv_run.CsvRun"}
    assert options_of(wandb) == options_of({"csv": csv, "wandb": wandb}) == {"project": "mine"}
    assert options_of({}) is None
    with pytest.raises(UserError, match=r"logger=upsweep\.tracking\.csv_run\.CsvRun cannot be used here"):
        options_of({"csv": csv})


def composed(place: Path, *words: str) -> dict[str, Any]:
    """What a command line makes of `logger`, with the configs of one's own in `place`/conf."""
    environment = {**os.environ, "UPSWEEP_CONF_FIRST": str(place / "conf")}
    done = subprocess.run(
        [*DOOR, *words, "--cfg", "job"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    node: dict[str, Any] = yaml.safe_load(done.stdout).get("logger")
    return node


def test_several_loggers_stand_beside_each_other_however_they_are_chosen(tmp_path: Path) -> None:
    for place, name, chosen in (
        (tmp_path, "local/default", "csv, wandb"),
        (tmp_path / "b", "experiment/mine", "csv, mlflow"),
    ):
        file = place / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"# @package _global_\ndefaults:\n  - override /logger: [{chosen}]\n")
    typed = composed(tmp_path, "logger=[wandb,tensorboard]", "logger.wandb.mode=online")
    assert list(typed) == ["wandb", "tensorboard"] and typed["wandb"]["mode"] == "online"
    assert "project" not in typed["tensorboard"]
    assert list(composed(tmp_path)) == ["csv", "wandb"]
    assert list(composed(tmp_path / "b", "experiment=mine")) == ["csv", "mlflow"]
    assert composed(tmp_path, "logger=wandb", "logger.project=mine")["project"] == "mine"
    assert composed(tmp_path, "logger=none") == {}


@pytest.mark.slow
@needs_mlflow
@needs_tensorboard
def test_a_sweep_with_two_loggers_writes_into_both_and_goes_on_in_both(tmp_path: Path, cache: Path) -> None:
    from mlflow import MlflowClient

    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    line = [*DOOR, "-m", "logger=[tensorboard,mlflow]", "init=he,xavier", *TINY, f"data.cache_dir={cache}"]
    line += ["hydra.launcher.parallel=2"]
    for words in ([*line, "hydra.sweep.dir=../sweep"], [*DOOR, "resume=../sweep/0", "trainer.max_epochs=2"]):
        subprocess.run(words, cwd=here, env={**os.environ, "HOME": str(home)}, check=True, timeout=250)
    assert list(here.iterdir()) == list(home.iterdir()) == []
    client = MlflowClient(f"sqlite:///{tmp_path}/sweep/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("upsweep").experiment_id])
    curves = {run.data.params["init"]: client.get_metric_history(run.info.run_id, "val/psnr") for run in runs}
    assert {init: len(curve) for init, curve in curves.items()} == {"he": 2, "xavier": 1}
    result = Result.read(tmp_path / "sweep/0")
    assert result is not None and result.choices["logger"] == "[tensorboard,mlflow]"
    assert curves["he"][-1].value == pytest.approx(result.last["psnr"], abs=1e-3)
    assert len(list(tmp_path.glob("sweep/0/tensorboard/events*"))) == 2
    assert json.loads((tmp_path / "sweep/1/result.json").read_text())["state"] == "finished"
