"""What a training promises: the same numbers again, honest figures, a file for every end."""

import csv
import errno
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from tests.small_job import NET, RECIPE, TRAINER, small_job
from torch import nn
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader, TensorDataset

from upsweep.analysis.tables import print_results
from upsweep.common.errors import UserError
from upsweep.data.photos import TRAIN, photo_files
from upsweep.data.sources import Contents, Folder, Photos
from upsweep.imaging.files import to_uint8
from upsweep.imaging.resize import enlarge, level_of, shrink
from upsweep.metrics.metric import PSNR, SSIM
from upsweep.metrics.protocol import Protocol
from upsweep.networks import checkpoints
from upsweep.objectives.distilled import Distilled
from upsweep.runs import history
from upsweep.runs.about import About
from upsweep.runs.identity import Identity, judging_of
from upsweep.runs.progress import Progress
from upsweep.runs.result import Result
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tasks.super_resolution.pictures import busiest
from upsweep.tracking.csv_run import CsvRun
from upsweep.training import schedules
from upsweep.training.accessory import Accessory
from upsweep.training.callbacks import EMA, Checkerboard, EarlyStopping, Pictures, ShowProgress, Throughput
from upsweep.training.job import Job, train
from upsweep.training.records import History, KeepCrop, KeepIdentity
from upsweep.training.saving import SaveBest, SaveLast
from upsweep.training.start import newest
from upsweep.training.workers import workers

DOOR = Path(__file__).resolve().parent.parent / "src" / "train.py"


@pytest.fixture
def job(tmp_path: Path, cache: Path) -> Job:
    """A training of two epochs of three batches, on the real photos."""
    return make_job(tmp_path / "run", cache)


def make_job(folder: Path, cache: Path, **changes: Any) -> Job:
    shown = {"callbacks": [SaveBest(folder), SaveLast(folder), Throughput(), ShowProgress(folder, every=0)]}
    return small_job(folder, cache, **{**shown, "choices": {"generator": "deconvnet", "init": "he"}, **changes})


def task_of(job: Job) -> Any:
    return job.task


def weights(job: Job, *, ema: bool = True) -> dict[str, torch.Tensor]:
    return checkpoints.generator_weights(checkpoints.read(job.folder / "checkpoints" / "last.ckpt"), ema=ema)


def averaging(job: Job, decay: float) -> Job:
    return replace(job, callbacks=[EMA(decay), *job.callbacks])


# a whole training


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(tmp_path: Path, cache: Path) -> None:
    jobs = [make_job(tmp_path / str(i), cache, seed=seed) for i, seed in enumerate((0, 0, 1))]
    for each in jobs:
        assert train(each).state == "finished"
    first, second, other = (weights(each) for each in jobs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_result_holds_the_figures_of_the_best_checkpoint(job: Job) -> None:
    result = train(job)
    assert Result.read(job.folder) == result
    assert result.state == "finished" and result.checkpoint is not None
    generator = checkpoints.load_generator(Path(result.checkpoint))
    psnr, ssim, bicubic = PSNR(task_of(job).protocol, 2), SSIM(task_of(job).protocol, 2), PSNR(task_of(job).protocol, 2)
    with torch.no_grad():
        for image in list(task_of(job).data.val_dataloader())[:2]:
            sr = generator(image.lr)
            psnr.update(sr, image.hr)
            ssim.update(sr, image.hr)
            bicubic.update(enlarge(image.lr, 2), image.hr)
    assert result.figures["psnr"] == pytest.approx(psnr.compute().item(), abs=1e-6)
    assert result.figures["ssim"] == pytest.approx(ssim.compute().item(), abs=1e-6)
    assert result.baseline["psnr"] == pytest.approx(bicubic.compute().item(), abs=1e-6)
    assert result.lead() == pytest.approx(result.figures["psnr"] - result.baseline["psnr"])
    assert result.objective == result.figures["psnr"]
    assert result.parameters == sum(p.numel() for p in generator.parameters())


def test_a_finished_training_says_so_in_its_progress_file(job: Job) -> None:
    train(job)
    progress = Progress.read(job.folder)
    assert progress is not None
    assert (progress.step, progress.steps, progress.epochs) == (6, 6, 2)
    assert progress.seconds_left == 0


def lines_of(job: Job) -> list[dict[str, float]]:
    with (job.folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: float(value) if value else math.nan for key, value in row.items()} for row in rows]


def recorded(job: Job) -> Job:
    return replace(job, callbacks=[*job.callbacks, History(job.folder), KeepCrop(job.folder, size=48)])


def test_a_run_leaves_a_line_an_epoch_how_it_was_made_and_one_crop(job: Job) -> None:
    job = recorded(replace(job, config={"scale": 2}))
    result = train(job)
    first, second = lines_of(job)
    assert (first["epoch"], first["step"], second["epoch"], second["step"]) == (1, 3, 2, 6)
    assert 0 < first["seconds"] < second["seconds"] and second["loss"] > 0
    assert result.figures["psnr"] == pytest.approx(max(first["psnr"], second["psnr"]), abs=1e-4), "logged as float32"
    about = About.read(job.folder)
    assert about is not None
    assert about.config == {"scale": 2} and about.versions["torch"] == torch.__version__ and about.machine["cores"]
    with Image.open(job.folder / "crop.png") as picture:
        assert picture.size == (3 * 48 + 2 * 8, 48)
        crop = np.asarray(picture.convert("RGB"))
    task_of(job).data.setup()
    hr = task_of(job).data.val_dataloader().dataset[0].rgb_hr
    assert hr is not None
    top, left = busiest(hr, (48, 48))
    np.testing.assert_array_equal(crop[:, -48:], to_uint8(hr[:, top : top + 48, left : left + 48]))


def test_a_history_goes_on_where_the_checkpoint_was_and_bicubic_has_one_line(tmp_path: Path, cache: Path) -> None:
    job = recorded(make_job(tmp_path / "run", cache))
    train(job)
    before = lines_of(job)
    with (job.folder / "history.csv").open("a") as file:  # of an epoch that the checkpoint does not know
        file.write("3,9,99.0,0.1,30.0,0.9\n")
    train(recorded(make_job(tmp_path / "run", cache, resume=True, trainer={**TRAINER, "max_epochs": 3})))
    after = lines_of(job)
    assert after[:2] == before and [line["epoch"] for line in after] == [1, 2, 3]
    assert before[1]["seconds"] < after[2]["seconds"] < 99
    bicubic = {"_target_": "upsweep.networks.upscalers.bicubic.Bicubic", "recipe": RECIPE}
    job = recorded(make_job(tmp_path / "bicubic", cache, generator=bicubic))
    result = train(job)
    (line,) = lines_of(job)
    assert (
        line["step"] == 0
        and math.isnan(line["loss"])
        and line["psnr"] == pytest.approx(result.figures["psnr"], abs=1e-4)
    )
    assert (job.folder / "crop.png").is_file()


def test_a_loss_that_is_not_finite_ends_as_diverged_and_is_no_error(tmp_path: Path, cache: Path) -> None:
    job = make_job(tmp_path / "run", cache, objective=nn.MSELoss(), optimizer=partial(torch.optim.SGD, lr=1e30))
    result = train(job)
    assert result.state == "diverged" and "not finite" in str(result.reason)
    assert result.objective is None
    assert json.loads((job.folder / "result.json").read_text())["state"] == "diverged"


def test_a_failure_is_written_down_and_raised(tmp_path: Path, cache: Path) -> None:
    class Broken(nn.Module):
        def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("the objective broke")

    job = make_job(tmp_path / "run", cache, objective=Broken())
    with pytest.raises(RuntimeError, match="the objective broke"):
        train(job)
    result = Result.read(job.folder)
    assert result is not None and (result.state, result.reason) == ("failed", "the objective broke")


def test_bicubic_is_judged_without_a_training_and_gains_nothing(tmp_path: Path, cache: Path) -> None:
    spec = {"_target_": "upsweep.networks.upscalers.bicubic.Bicubic", "recipe": RECIPE}
    result = train(make_job(tmp_path / "run", cache, generator=spec))
    assert result.state == "finished" and result.parameters == 0
    assert result.lead() == 0 and 25 < result.figures["psnr"] < 45


@pytest.mark.parametrize("channels", [1, 3])
def test_the_rgb_protocol_judges_generators_of_one_and_three_channels(
    tmp_path: Path, cache: Path, channels: int
) -> None:
    job = make_job(tmp_path / "run", cache, generator={**NET, "channels": channels}, protocol=Protocol("rgb", "rgb"))
    task_of(job).data.channels = channels
    result = train(job)
    assert 5 < result.figures["psnr"] < 45


def test_training_starts_from_the_weights_of_a_checkpoint(tmp_path: Path, cache: Path) -> None:
    first = make_job(tmp_path / "first", cache)
    train(first)
    still = partial(torch.optim.SGD, lr=0.0)
    path = first.folder / "checkpoints" / "last.ckpt"
    second = make_job(tmp_path / "second", cache, checkpoint=path, optimizer=still, seed=5)
    train(second)
    assert all(torch.equal(weights(first)[name], value) for name, value in weights(second).items())


def test_a_checkpoint_that_is_missing_or_does_not_fit_is_one_sentence(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"There is no checkpoint at .*nowhere\.ckpt"):
        train(make_job(tmp_path / "a", cache, checkpoint=tmp_path / "nowhere.ckpt"))
    first = make_job(tmp_path / "first", cache)
    train(first)
    path = first.folder / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="does not fit"):
        train(make_job(tmp_path / "b", cache, checkpoint=path, generator={**NET, "width": 5}))


def test_another_scale_takes_the_weights_that_fit_and_leaves_the_rest(tmp_path: Path, cache: Path) -> None:
    first = make_job(tmp_path / "first", cache)
    train(first)
    path = first.folder / "checkpoints" / "last.ckpt"
    still = partial(torch.optim.SGD, lr=0.0)
    sizes: dict[str, Any] = {"patch_size": 8, "batch_size": 4, "patches_per_epoch": 12, "cache_dir": str(cache)}
    at_x3 = PatchData(source=Photos(), scale=3, channels=1, seed=1, **sizes)
    net = {**NET, "scale": 3}
    second = make_job(tmp_path / "second", cache, generator=net, data=at_x3, init_from=path, optimizer=still, scale=3)
    train(second)
    old, new = weights(first), weights(second)
    assert torch.equal(old["convs.0.layer.weight"], new["convs.0.layer.weight"])
    assert old["upsampler.0.layer.weight"].shape != new["upsampler.0.layer.weight"].shape
    with pytest.raises(UserError, match=r"Nothing in .* fits"):
        train(make_job(tmp_path / "third", cache, generator={**NET, "width": 5, "channels": 3}, init_from=path))


def test_a_deconvolution_of_another_scale_is_not_taken_though_its_kernel_fits(tmp_path: Path) -> None:
    spec = {"_target_": "upsweep.networks.upscalers.fsrcnn.FSRCNN", "recipe": RECIPE, "d": 4, "s": 2, "m": 1}
    two, three = (checkpoints.build({**spec, "scale": scale}) for scale in (2, 3))
    before = three.upsampler.weight.clone()  # type: ignore[union-attr, operator]
    assert two.upsampler.weight.shape == before.shape  # type: ignore[union-attr]
    left = checkpoints.transfer(three, two.state_dict(), tmp_path / "x2.ckpt", without=("upsampler",))
    assert left == ["upsampler.weight", "upsampler.bias"]
    assert torch.equal(three.upsampler.weight, before)  # type: ignore[arg-type, union-attr]
    assert torch.equal(three.extract.layer.weight, two.extract.layer.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("given", [{"precision": "banana"}, {"strategy": "banana"}, {"devices": -1}])
def test_what_the_trainer_does_not_know_is_one_sentence(tmp_path: Path, cache: Path, given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="This machine cannot train with"):
        train(make_job(tmp_path / "run", cache, trainer={**TRAINER, **given}))


def test_a_disk_that_fills_up_under_any_file_is_one_sentence(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            def no_room(*_: Any) -> Path:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr("upsweep.runs.record.write_whole", no_room)  # from now on
            no_room()

    with pytest.raises(UserError, match=r"No space left on device.*resume="):
        train(make_job(tmp_path / "run", cache, callbacks=[Full()]))


def test_the_log_holds_every_metric_by_its_name_and_the_pictures(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "run"
    job = make_job(folder, cache)
    job = replace(job, logger=CsvRun(folder), callbacks=[*job.callbacks, Pictures(folder, count=1)])
    train(job)
    lines = (folder / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert {
        *("train/loss", "lr", "val/psnr", "val/ssim", "val/psnr_bicubic", "val/psnr_gain"),
        *("time/epoch_seconds", "time/images_per_second"),
    } <= set(lines[0].split(","))
    assert [p.name for p in (folder / "pictures").iterdir()] == ["chelsea.png"]


def test_a_device_that_is_not_there_or_no_number_of_epochs_is_one_sentence(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="This machine cannot train with"):
        train(make_job(tmp_path / "a", cache, trainer={**TRAINER, "accelerator": "tpu"}))
    with pytest.raises(UserError, match=r"trainer\.max_epochs=abc must be a whole number"):
        train(make_job(tmp_path / "b", cache, trainer={**TRAINER, "max_epochs": "abc"}))
    with pytest.raises(UserError, match=r"trainer\.accumulate_grad_batches=0 must be"):
        train(make_job(tmp_path / "c", cache, trainer={**TRAINER, "accumulate_grad_batches": 0}))


def test_every_level_of_a_pyramid_is_held_to_hr_shrunk_to_it() -> None:
    hr = torch.rand(2, 1, 16, 16)
    assert level_of(hr, 16) is hr
    assert torch.equal(level_of(hr, 8), shrink(hr, 2))


def test_the_best_figures_are_those_of_the_best_epoch(job: Job) -> None:
    result = train(job)
    state = checkpoints.read(job.folder / "checkpoints" / "best.ckpt")
    best = state[checkpoints.KEY]["best"]
    assert best["figures"] == result.figures and math.isfinite(best["figures"]["psnr"])
    assert best["epoch"] + 1 == result.epoch == state["epoch"] + 1, "one best: file and figures agree"


def test_the_last_figures_are_those_of_the_last_epoch_also_of_a_run_that_had_nothing_left(
    tmp_path: Path, cache: Path
) -> None:
    job = recorded(make_job(tmp_path / "run", cache))
    result = train(job)
    last = lines_of(job)[-1]
    assert result.last == pytest.approx({"psnr": last["psnr"], "ssim": last["ssim"]}, abs=1e-4)
    assert result.value == result.last["psnr"] and set(result.last) == set(result.figures)
    assert result.figures["psnr"] >= result.last["psnr"]
    again = train(recorded(make_job(tmp_path / "run", cache, resume=True)))
    assert (again.last, again.figures) == (result.last, result.figures)
    read = Result.read(job.folder)
    assert read is not None and read.last == result.last and read.tuned == ["optimizer.lr"]


# the average of the weights, and stopping early


class Record(pl.Callback):
    """Keeps the generator's weights after every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._keep(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._keep(pl_module)

    def _keep(self, module: pl.LightningModule) -> None:
        self.steps.append({name: p.detach().double().clone() for name, p in module.generator.named_parameters()})  # type: ignore[union-attr]


def test_the_average_is_that_of_the_weights_after_every_step_and_training_does_not_feel_it(
    tmp_path: Path, cache: Path
) -> None:
    plain, averaged = make_job(tmp_path / "a", cache), averaging(make_job(tmp_path / "b", cache), 0.5)
    record = Record()
    train(plain)
    train(replace(averaged, callbacks=[record, *averaged.callbacks]))
    expected, *later = record.steps
    assert len(later) == 6
    for t, step in enumerate(later, start=1):
        d = min(0.5, (1 + t) / (10 + t))
        expected = {name: d * expected[name] + (1 - d) * step[name] for name in expected}
    found = weights(averaged)
    assert all(torch.allclose(found[name].double(), value, atol=1e-7) for name, value in expected.items())
    raw = weights(averaged, ema=False)
    assert all(torch.equal(raw[name], value) for name, value in weights(plain).items())
    assert any(not torch.equal(raw[name], found[name]) for name in raw)


def test_validation_judges_the_average_which_a_checkpoint_gives_unless_it_is_asked_for_the_weights(
    tmp_path: Path, cache: Path
) -> None:
    norm = {"_target_": "upsweep.blocks.norm.BatchNorm"}  # its running statistics and its counter are averaged too
    job = averaging(make_job(tmp_path / "run", cache, generator={**NET, "recipe": {**RECIPE, "norm": norm}}), 0.9)
    result = train(job)
    assert result.checkpoint is not None
    figures = {}
    for ema in (True, False):
        generator = checkpoints.load_generator(Path(result.checkpoint), ema=ema)
        psnr = PSNR(task_of(job).protocol, 2)
        with torch.no_grad():
            for image in list(task_of(job).data.val_dataloader())[:2]:
                psnr.update(generator(image.lr), image.hr)
        figures[ema] = psnr.compute().item()
    assert result.figures["psnr"] == pytest.approx(figures[True], abs=1e-6)
    assert result.figures["psnr"] != pytest.approx(figures[False], abs=1e-3)


@pytest.mark.slow
def test_two_devices_hold_the_same_average_without_a_word_about_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [
        *("trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=2", "callbacks.ema.decay=0.9", "logger=none"),
        *("data.patches_per_epoch=128", "generator.width=4", f"hydra.run.dir={folder}"),
    ]
    subprocess.run([sys.executable, DOOR, *command], cwd=tmp_path, check=True, capture_output=True)
    result = Result.read(folder)
    assert result is not None and result.checkpoint is not None
    generator = checkpoints.load_generator(Path(result.checkpoint))  # of rank 0; rank 1 judged every second image
    psnr = PSNR(Protocol(), 2)
    data = PatchData(source=Photos(), scale=2, channels=1, seed=1, cache_dir=str(tmp_path / "cache"))
    data.setup()
    with torch.no_grad():
        for image in data.val_dataloader():
            psnr.update(generator(image.lr), image.hr)
    assert result.figures["psnr"] == pytest.approx(psnr.compute().item(), abs=1e-5)


def test_an_average_that_is_no_longer_wanted_is_forgotten(tmp_path: Path, cache: Path) -> None:
    train(averaging(make_job(tmp_path / "run", cache), 0.9))
    longer = make_job(tmp_path / "run", cache, trainer={**TRAINER, "max_epochs": 3}, resume=True)
    train(averaging(longer, 0.0))
    assert checkpoints.EMA not in checkpoints.read(tmp_path / "run" / "checkpoints" / "last.ckpt")


def test_a_step_that_gathers_three_batches_is_averaged_once(tmp_path: Path, cache: Path) -> None:
    job = averaging(make_job(tmp_path / "run", cache, trainer={**TRAINER, "accumulate_grad_batches": 3}), 0.9)
    record = Record()
    train(replace(job, callbacks=[record, *job.callbacks]))
    start, first, second = record.steps[0], record.steps[3], record.steps[6]
    for name, value in weights(job).items():
        once = 2 / 11 * start[name] + 9 / 11 * first[name]
        assert torch.allclose(value.double(), 3 / 12 * once + 9 / 12 * second[name], atol=1e-7)


def test_an_average_that_never_moves_is_refused() -> None:
    with pytest.raises(UserError, match=r"callbacks\.ema\.decay=1"):
        EMA(1)


def test_a_training_that_no_longer_gains_stops(tmp_path: Path, cache: Path) -> None:
    job = make_job(
        tmp_path / "run",
        cache,
        trainer={**TRAINER, "max_epochs": 9},
        optimizer=partial(torch.optim.SGD, lr=0.0),
    )
    stop = pl.callbacks.EarlyStopping("val/psnr", mode="max", patience=2)
    result = train(replace(job, callbacks=[*job.callbacks, stop]))
    assert (result.state, result.epoch) == ("finished", 1)
    assert checkpoints.read(job.folder / "checkpoints" / "last.ckpt")["epoch"] == 2


def test_early_stopping_says_why_and_the_job_has_finished(tmp_path: Path, cache: Path, capsys) -> None:
    job = make_job(
        tmp_path / "run",
        cache,
        trainer={**TRAINER, "max_epochs": 9},
        optimizer=partial(torch.optim.SGD, lr=0.0),
    )
    stop = EarlyStopping(patience=2)
    result = train(replace(job, callbacks=[*job.callbacks, stop]))
    best = job.task.headline.text(result.figures["psnr"])
    why = f"stopped early, after epoch 3: PSNR has not improved for 2 epochs; the best was {best}, in epoch 1"
    assert (result.state, result.reason) == ("finished", why)
    assert Result.read(job.folder) == result
    print_results({"run": result})
    assert f"job run finished: {why}" in capsys.readouterr().out


def still_job(folder: Path, cache: Path, stop: EarlyStopping, epochs: int, **more: Any) -> Job:
    """A training that never gains anything."""
    trainer = {**TRAINER, "max_epochs": epochs, **more.pop("trainer", {})}
    job = make_job(folder, cache, trainer=trainer, optimizer=partial(torch.optim.SGD, lr=0.0), **more)
    return replace(job, callbacks=[*job.callbacks, stop])


def test_a_run_that_goes_on_waits_as_long_as_it_is_told_now(tmp_path: Path, cache: Path) -> None:
    assert "after epoch 2" in str(train(still_job(tmp_path, cache, EarlyStopping(patience=1), 9)).reason)
    again = train(still_job(tmp_path, cache, EarlyStopping(patience=3), 9, resume=True))
    assert "after epoch 4: PSNR has not improved for 3 epochs" in str(again.reason)


def test_early_stopping_counts_validations_and_says_so(tmp_path: Path, cache: Path) -> None:
    result = train(still_job(tmp_path, cache, EarlyStopping(patience=1), 9, trainer={"val_check_interval": 0.34}))
    assert "stopped early, in epoch 1: PSNR has not improved for 1 validation;" in str(result.reason)


def test_a_training_that_came_to_its_end_was_not_stopped_early(tmp_path: Path, cache: Path) -> None:
    assert train(still_job(tmp_path, cache, EarlyStopping(patience=1), 2)).reason is None
    with pytest.raises(UserError, match=r"^callbacks\.early_stopping\.patience=0 must be at least 1\.$"):
        EarlyStopping(patience=0)


# going on


class KillError(Exception):
    """Stands for a kill: nothing after it runs."""


class Killer(pl.Callback):
    """Ends the process, as far as it can within one, when a batch of an epoch begins."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            raise KillError


@pytest.mark.parametrize(
    ("at", "decay", "precision"),
    [
        *((at, decay, "32-true") for at in [(0, 1), (1, 0), (1, 2), (3, 1)] for decay in (0.0, 0.9)),
        ((1, 2), 0.9, "64-true"),
    ],
)
def test_a_run_that_was_broken_off_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, cache: Path, at: tuple[int, int], decay: float, precision: str
) -> None:
    trainer = {**TRAINER, "max_epochs": 4, "precision": precision}
    undisturbed = averaging(make_job(tmp_path / "a", cache, trainer=trainer), decay)
    whole = train(undisturbed)
    broken = averaging(make_job(tmp_path / "b", cache, trainer=trainer), decay)
    with pytest.raises(KillError):
        train(replace(broken, callbacks=[*broken.callbacks, Killer(*at)]))
    result = train(averaging(make_job(tmp_path / "b", cache, trainer=trainer, resume=True), decay))
    for ema in (True, False):
        first, second = weights(undisturbed, ema=ema), weights(broken, ema=ema)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert {f"{value.dtype}" for value in first.values()} == {f"torch.float{precision[:2]}"}
    assert (result.figures["psnr"], result.figures["ssim"], result.epoch) == (
        whole.figures["psnr"],
        whole.figures["ssim"],
        whole.epoch,
    )


class Shuffled(pl.LightningDataModule):
    """Squares of random grey as a user's own data, in an order that hangs on torch's random numbers."""

    scale = 2

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers = workers

    def _batches(self, count: int, seed: int, **loading: Any) -> DataLoader[tuple[torch.Tensor, ...]]:
        hr = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(avg_pool2d(hr, 2), hr), batch_size=4, **loading)

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return self._batches(16, 1, shuffle=True, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return self._batches(4, 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_on_data_of_a_users_own_goes_on_in_the_order_of_the_whole_one(
    tmp_path: Path, cache: Path, workers: int
) -> None:
    def job(name: str, epochs: int, **more: Any) -> Job:
        trainer = {**TRAINER, "max_epochs": epochs}
        still = schedules.Constant()  # it does not hang on the number of epochs
        return make_job(tmp_path / name, cache, data=Shuffled(workers), schedule=still, trainer=trainer, **more)

    for each in (job("whole", 3), job("parts", 2), job("parts", 3, resume=True)):
        train(each)
    whole, parts = (weights(job(name, 3)) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_resumed_run_trains_longer_where_it_is_told_to(tmp_path: Path, cache: Path) -> None:
    train(make_job(tmp_path / "run", cache))
    train(make_job(tmp_path / "run", cache, trainer={**TRAINER, "max_epochs": 3}, resume=True))
    assert checkpoints.read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 9


def test_a_finished_run_that_goes_on_and_is_killed_has_stopped(tmp_path: Path, cache: Path) -> None:
    left: list[Result | None] = []  # what a kill would leave

    class Look(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            left.append(Result.read(tmp_path))

    for resume in (False, True):
        job = make_job(tmp_path, cache, trainer={**TRAINER, "max_epochs": 3 if resume else 2}, resume=resume)
        train(replace(job, callbacks=[Look(), *job.callbacks]))
    first, *_, last = left
    assert first is None, "a run that is killed in its first epoch begins anew"
    assert last is not None and (last.state, last.complete, last.epochs, last.objective) == ("stopped", False, 3, None)
    assert last.figures and last.last and f"go on with resume={tmp_path}" in str(last.reason)
    result = Result.read(tmp_path)
    assert result is not None and result.state == "finished"


def test_a_run_that_goes_on_keeps_the_picture_of_its_start(tmp_path: Path, cache: Path) -> None:
    start, end = (tmp_path / "pictures" / f"checkerboard_{when}.png" for when in ("start", "end"))
    seen = []
    for epochs in (1, 2):
        job = make_job(tmp_path, cache, trainer={**TRAINER, "max_epochs": epochs}, resume=epochs > 1)
        train(replace(job, callbacks=[*job.callbacks, Checkerboard(tmp_path)]))
        seen.append((start.read_bytes(), end.read_bytes()))
    assert seen[0][0] == seen[1][0] and seen[0][1] != seen[1][1]


def test_a_run_that_goes_on_with_another_objective_is_told_so(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (
        {"objective": {"_target_": name}, "scheduler": {}} for name in ("torch.nn.L1Loss", "torch.nn.MSELoss")
    )
    train(make_job(tmp_path / "run", cache, config=first))
    for config, warnings in ((first, 0), (second, 1)):
        train(make_job(tmp_path / "run", cache, config=config, resume=True, trainer={**TRAINER, "max_epochs": 3}))
        assert caplog.text.count("continues with another objective than") == warnings


def test_weights_of_another_skip_or_centre_are_refused_to_a_resumed_run_and_told_to_others(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job(tmp_path / "run", cache)
    train(job)
    longer = {**TRAINER, "max_epochs": 3}
    silent = {**NET, "_target_": "upsweep.networks.upscalers.sesr.SESR"}  # whose own centre is 0.5
    for more in ({}, {"resume": True, "trainer": longer}):
        train(make_job(tmp_path / "silent", cache, generator=silent, **more))
    for other in ({"centre": 0.5}, {"skip": "none"}, {"symmetry": "p4"}):
        with pytest.raises(UserError, match=rf"was trained with generator\.{next(iter(other))}="):
            train(make_job(tmp_path / "run", cache, generator={**NET, **other}, resume=True, trainer=longer))
    assert "were trained with" not in caplog.text
    weights = job.folder / "checkpoints" / "last.ckpt"
    for name in ("checkpoint", "init_from"):
        caplog.clear()
        given: dict[str, Any] = {name: weights}
        train(make_job(tmp_path / name, cache, generator={**NET, "centre": 0.5}, **given))
        assert "were trained with generator.centre=0.0" in caplog.text


def test_an_initialisation_that_finds_no_layer_is_told(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = {**RECIPE, "init": {"_target_": "upsweep.blocks.init.ICNR"}}
    train(make_job(tmp_path / "run", cache, generator={**NET, "recipe": recipe}))
    assert "init=icnr does the same as init=he" in caplog.text


def test_an_unreadable_last_checkpoint_falls_back_to_the_one_before_and_says_so(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    train(job)
    folder = job.folder / "checkpoints"
    last = folder / "last.ckpt"
    assert newest(job.folder) == last
    last.write_bytes(last.read_bytes()[:1000])
    assert newest(job.folder) == folder / "previous.ckpt"
    assert "last.ckpt is broken" in caplog.text and "Falling back" in caplog.text
    assert newest(folder) is None


def test_a_checkpoint_that_cannot_be_written_whole_leaves_the_one_before(
    job: Job, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    train(job)
    before = (job.folder / "checkpoints" / "last.ckpt").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        train(make_job(job.folder, cache, resume=True, trainer={**TRAINER, "max_epochs": 3}))
    assert (job.folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert {p.name for p in (job.folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


@pytest.mark.slow
def test_the_loss_of_two_devices_is_that_of_all_their_patches(tmp_path: Path) -> None:
    still = ["optimizer=sgd", "optimizer.lr=0", "trainer.max_epochs=1", "data.patches_per_epoch=128", "logger=none"]
    losses = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        many = ["trainer=ddp", f"trainer.devices={devices}", "trainer.accelerator=cpu", f"hydra.run.dir={folder}"]
        subprocess.run([sys.executable, DOOR, *still, *many], cwd=tmp_path, check=True, capture_output=True)
        (epoch,) = history.read(folder / "history.csv")
        losses.append(epoch.loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5), "the patches are the same, and no weight moves"


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_the_last_weights_are_judged_whatever_the_rhythm_of_validation(tmp_path: Path, cache: Path, every: int) -> None:
    trainer = {**TRAINER, "max_epochs": 4, "check_val_every_n_epoch": every}
    job = recorded(make_job(tmp_path, cache, trainer=trainer))
    result = train(job)
    judged = [line.epoch for line in history.read(tmp_path / "history.csv") if line.figures["psnr"] is not None]
    assert judged == sorted({*range(every, 5, every), 4})
    assert result.figures and (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_a_run_that_was_moved_goes_on_and_its_best_checkpoint_stays_the_one_of_its_figures(
    tmp_path: Path, cache: Path
) -> None:
    def figures_of(folder: Path) -> Any:
        return checkpoints.read(folder / "checkpoints" / "best.ckpt")[checkpoints.KEY]["best"]["figures"]

    first = train(make_job(tmp_path / "here", cache))
    (tmp_path / "here").rename(tmp_path / "there")
    longer = {**TRAINER, "max_epochs": 3}
    start = make_job(tmp_path / "there", cache, resume=True, trainer=longer)
    assert train(start).figures == figures_of(tmp_path / "there")

    class Spoil(pl.Callback):
        def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            for parameter in module.generator.parameters():  # type: ignore[union-attr]
                parameter.data.fill_(1.0)

    before = figures_of(tmp_path / "there")
    spoilt = make_job(tmp_path / "there", cache, resume=True, trainer={**TRAINER, "max_epochs": 4})
    last = train(replace(spoilt, callbacks=[Spoil(), *spoilt.callbacks]))
    assert last.figures == before == figures_of(tmp_path / "there") and last.figures["psnr"] >= first.figures["psnr"]


def test_a_run_on_other_images_or_otherwise_judged_is_refused_until_it_is_told_to_judge_anew(
    tmp_path: Path, cache: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, path in photo_files(TRAIN).items():
        Image.open(path).convert("L").crop((100, 100, 180, 180)).save(photos / f"{Path(name).stem}.png")

    def judged(epochs: int, space: str = "y", **more: Any) -> Job:
        data = PatchData(
            source=Folder(root=str(photos), val_share=0.4),
            scale=2,
            channels=1,
            seed=1,
            patch_size=8,
            batch_size=4,
            patches_per_epoch=12,
            cache_dir=str(cache),
        )
        config = {"protocol": {"space": space}}
        trainer = {**TRAINER, "max_epochs": epochs}
        return recorded(make_job(tmp_path / "run", cache, data=data, config=config, trainer=trainer, **more))

    first = train(judged(1))
    identity = Identity.read(tmp_path / "run")
    assert identity is not None and len(identity.training) + len(identity.validation) == len(TRAIN)
    assert first.judged_on == identity.yardstick
    train(judged(2, resume=True))
    with pytest.raises(
        UserError, match=r"begun with other data, or another way to judge: protocol.space was y and is now rgb\."
    ):
        train(judged(3, "rgb", resume=True))
    shutil.copy(photos / "retina.png", photos / "new.png")
    Image.new("L", (80, 80), 128).save(photos / "ihc.png")
    before = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(UserError, match=r"1 image new \(new.png\); 1 image changed \(ihc.png\)\. Bring back"):
        train(judged(3, resume=True))
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    with pytest.raises(UserError, match="has all its 2 epochs behind it"):
        train(judged(2, resume=True, judge_anew=True))
    anew = train(judged(3, resume=True, judge_anew=True))
    assert anew.epoch == 3
    assert [epoch.epoch for epoch in history.read(tmp_path / "run" / "history.csv")] == [3]
    again = Identity.read(tmp_path / "run")
    assert again is not None and identity.validation.keys() - {"new.png"} == again.validation.keys() - {"new.png"}
    train(judged(4, resume=True))


@pytest.mark.parametrize("limit", [0.5, 0.25])
def test_a_run_of_before_its_limits_were_written_down_goes_on_as_its_config_says(tmp_path: Path, limit: float) -> None:
    config = {"scale": 2, "trainer": {"limit_val_batches": 0.5}}
    old = Identity(training={"a": "1"}, validation={"b": "2"}, judging={"scale": 2})
    old.write(tmp_path)
    About(config=config).write(tmp_path)
    task = SimpleNamespace(contents=Contents({"a": "1"}, {"b": "2"}))
    module: Any = SimpleNamespace(task=task, begun_as=old.digest, identity=None, epochs_before=1)
    trainer: Any = SimpleNamespace(ckpt_path="last.ckpt", is_global_zero=True, max_epochs=2)
    keeps = KeepIdentity(tmp_path, judging_of({**config, "trainer": {"limit_val_batches": limit}}))
    with (
        nullcontext()
        if limit == 0.5
        else pytest.raises(UserError, match=r"trainer\.limit_val_batches was 0\.5 and is now 0\.25")
    ):
        keeps.on_fit_start(trainer, module)


def test_what_fails_in_an_accessory_is_told_once_and_the_training_goes_on(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Torn(Accessory):
        calls = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.calls += 1
            raise OSError(errno.ENAMETOOLONG, "File name too long", "x.png")

    torn, job = Torn(), make_job(tmp_path / "run", cache)
    result = train(replace(job, callbacks=[torn, *job.callbacks]))
    assert result.state == "finished" and torn.calls == 1
    assert caplog.text.count("Torn failed and is left out from here on: [Errno 36] File name too long") == 1


def test_pictures_of_images_with_long_or_alike_names_are_all_kept(tmp_path: Path, cache: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    names = ["日本.png", "中国.png", "a b.png", "a(b.png", "a(b.bmp", f"{'long ' * 48}.png"]
    for name, path in zip(names, photo_files(TRAIN).values(), strict=True):
        Image.open(path).convert("L").crop((100, 100, 180, 180)).save(photos / name)
    source = Folder(root=str(tmp_path), val_root=str(photos))
    shutil.copy(photos / names[0], tmp_path / "train.png")
    small: dict[str, Any] = {"patch_size": 8, "batch_size": 4, "patches_per_epoch": 12, "cache_dir": str(cache)}
    data = PatchData(source=source, scale=2, channels=1, seed=1, **small)
    trainer = {**TRAINER, "limit_val_batches": 1.0}
    job = make_job(tmp_path / "run", cache, data=data, trainer=trainer, callbacks=[Pictures(tmp_path / "run", 9)])
    assert train(job).state == "finished"
    kept = sorted(path.stem for path in (tmp_path / "run" / "pictures").iterdir())
    assert len(kept) == len(names) and {"日本", "中国"} <= set(kept)


def test_what_a_data_worker_cannot_hand_over_ends_the_loader_with_its_cause() -> None:
    items: Any = [0, 1]
    loader = DataLoader(items, num_workers=1, collate_fn=lambda _: lambda: 0)  # which no pickle holds
    watched = workers()
    with pytest.raises(RuntimeError) as caught:
        list(loader)
    said = watched.why(caught.value)
    assert said is not None and "pickle" in said and "data.num_workers=0" in said

    def refuse(_: Any) -> None:
        raise UserError("The cache has vanished.")

    with pytest.raises(UserError) as raised:
        list(DataLoader(items, num_workers=1, collate_fn=refuse))
    assert watched.why(raised.value) == "The cache has vanished."
    assert watched.why(RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ")) is not None
    assert watched.why(ValueError("another")) is None


def test_a_teacher_and_its_statistics_are_no_part_of_a_checkpoint(tmp_path: Path, cache: Path) -> None:
    recipe = {**RECIPE, "norm": {"_target_": "upsweep.blocks.norm.BatchNorm"}}
    train(make_job(tmp_path / "teacher", cache, generator={**NET, "recipe": recipe}))
    for resume in (False, True):
        objective = Distilled(nn.MSELoss(), tmp_path / "teacher")
        assert any(name.endswith("running_mean") for name in objective.state_dict()), "it has some"
        trainer = {**TRAINER, "max_epochs": 3 if resume else 2}
        result = train(make_job(tmp_path / "run", cache, objective=objective, resume=resume, trainer=trainer))
        assert result.state == "finished"
    saved = checkpoints.read(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert not [name for name in saved["state_dict"] if name.startswith("objective.")]


def test_an_objective_that_gives_many_values_is_one_sentence(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"The objective gives \(4, 1, 16, 16\) values, and must give one"):
        train(make_job(tmp_path, cache, objective=nn.MSELoss(reduction="none")))
