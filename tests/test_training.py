"""What a training promises: the same numbers again, honest figures, a file for every end."""

import json
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from upsweep import checkpoints
from upsweep.data.modules import PhotosData
from upsweep.errors import UserError
from upsweep.imaging.resize import enlarge, shrink
from upsweep.metrics import PSNR, SSIM, Protocol
from upsweep.sweeps.results import Progress, Result
from upsweep.training import schedules
from upsweep.training.callbacks import Pictures, ShowProgress, Throughput
from upsweep.training.job import Job, run, writable
from upsweep.training.module import level_of
from upsweep.training.saving import SaveLast, newest
from upsweep.training.tracking import CsvRun

RECIPE: dict[str, Any] = {
    "_target_": "upsweep.blocks.Recipe",
    "init": {"_target_": "upsweep.blocks.init.He"},
    "activation": {"_target_": "torch.nn.ReLU", "_partial_": True},
    "norm": {"_target_": "upsweep.blocks.norm.Norm"},
    "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.1},
    "upsampler": {"_target_": "upsweep.blocks.upsampler.Deconv"},
}
NET: dict[str, Any] = {
    "_target_": "upsweep.generators.deconvnet.DeconvNet",
    "recipe": RECIPE,
    "width": 4,
    "depth": 1,
}
TRAINER = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "limit_val_batches": 2}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def job(tmp_path: Path, cache: Path) -> Job:
    """A training of two epochs of three batches, on the real photos."""
    return make_job(tmp_path / "run", cache)


def make_job(folder: Path, cache: Path, **changes: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    seed = changes.get("seed", 1)
    saved = partial(pl.callbacks.ModelCheckpoint, folder / "checkpoints", enable_version_counter=False)
    return replace(
        Job(
            folder=folder,
            generator=NET,
            data=PhotosData(
                scale=2,
                channels=1,
                seed=seed,
                patch_size=8,
                batch_size=4,
                patches_per_epoch=12,
                cache_dir=str(cache),
            ),
            objective=nn.L1Loss(),
            optimizer=partial(torch.optim.Adam, lr=1e-3),
            schedule=schedules.Cosine(),
            protocol=Protocol(),
            trainer=TRAINER,
            callbacks=[
                saved(filename="best", monitor="val/psnr", mode="max"),
                SaveLast(folder / "checkpoints"),
                Throughput(),
                ShowProgress(folder, every=0),
            ],
            logger=None,
            seed=seed,
            scale=2,
            choices={"generator": "deconvnet", "init": "he"},
        ),
        **changes,
    )


def weights(job: Job) -> dict[str, torch.Tensor]:
    return checkpoints.generator_weights(checkpoints.read(job.folder / "checkpoints" / "last.ckpt"))


# a whole training


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(tmp_path: Path, cache: Path) -> None:
    jobs = [make_job(tmp_path / str(i), cache, seed=seed) for i, seed in enumerate((0, 0, 1))]
    for each in jobs:
        assert run(each).state == "finished"
    first, second, other = (weights(each) for each in jobs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_result_holds_the_figures_of_the_best_checkpoint(job: Job) -> None:
    result = run(job)
    assert Result.read(job.folder) == result
    assert result.state == "finished" and result.checkpoint is not None
    generator = checkpoints.load_generator(Path(result.checkpoint))
    psnr, ssim, bicubic = PSNR(job.protocol, 2), SSIM(job.protocol, 2), PSNR(job.protocol, 2)
    with torch.no_grad():
        for image in list(job.data.val_dataloader())[:2]:
            sr = generator(image.lr)
            psnr.update(sr, image.hr)
            ssim.update(sr, image.hr)
            bicubic.update(enlarge(image.lr, 2), image.hr)
    assert result.psnr == pytest.approx(psnr.compute().item(), abs=1e-6)
    assert result.ssim == pytest.approx(ssim.compute().item(), abs=1e-6)
    assert result.psnr_bicubic == pytest.approx(bicubic.compute().item(), abs=1e-6)
    assert result.psnr is not None and result.psnr_bicubic is not None
    assert result.gain == pytest.approx(result.psnr - result.psnr_bicubic)
    assert result.objective == result.psnr
    assert result.parameters == sum(p.numel() for p in generator.parameters())


def test_a_finished_training_says_so_in_its_progress_file(job: Job) -> None:
    run(job)
    progress = Progress.read(job.folder)
    assert progress is not None
    assert (progress.step, progress.steps, progress.epochs) == (6, 6, 2)
    assert progress.seconds_left == 0


def test_a_loss_that_is_not_finite_ends_as_diverged_and_is_no_error(tmp_path: Path, cache: Path) -> None:
    job = make_job(tmp_path / "run", cache, objective=nn.MSELoss(), optimizer=partial(torch.optim.SGD, lr=1e30))
    result = run(job)
    assert result.state == "diverged" and "not finite" in str(result.reason)
    assert result.objective is None
    assert json.loads((job.folder / "result.json").read_text())["state"] == "diverged"


def test_a_failure_is_written_down_and_raised(tmp_path: Path, cache: Path) -> None:
    class Broken(nn.Module):
        def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("the objective broke")

    job = make_job(tmp_path / "run", cache, objective=Broken())
    with pytest.raises(RuntimeError, match="the objective broke"):
        run(job)
    result = Result.read(job.folder)
    assert result is not None and (result.state, result.reason) == ("failed", "the objective broke")


def test_bicubic_is_judged_without_a_training_and_gains_nothing(tmp_path: Path, cache: Path) -> None:
    spec = {"_target_": "upsweep.generators.bicubic.Bicubic", "recipe": RECIPE}
    result = run(make_job(tmp_path / "run", cache, generator=spec))
    assert result.state == "finished" and result.parameters == 0
    assert result.gain == 0 and result.psnr is not None and 25 < result.psnr < 45


@pytest.mark.parametrize("channels", [1, 3])
def test_the_rgb_protocol_judges_generators_of_one_and_three_channels(
    tmp_path: Path, cache: Path, channels: int
) -> None:
    job = make_job(tmp_path / "run", cache, generator={**NET, "channels": channels}, protocol=Protocol("rgb", "rgb"))
    job.data.channels = channels
    result = run(job)
    assert result.psnr is not None and 5 < result.psnr < 45


def test_training_starts_from_the_weights_of_a_checkpoint(tmp_path: Path, cache: Path) -> None:
    first = make_job(tmp_path / "first", cache)
    run(first)
    still = partial(torch.optim.SGD, lr=0.0)
    path = first.folder / "checkpoints" / "last.ckpt"
    second = make_job(tmp_path / "second", cache, checkpoint=path, optimizer=still, seed=5)
    run(second)
    assert all(torch.equal(weights(first)[name], value) for name, value in weights(second).items())


def test_a_checkpoint_that_is_missing_or_does_not_fit_is_one_sentence(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"There is no checkpoint at .*nowhere\.ckpt"):
        run(make_job(tmp_path / "a", cache, checkpoint=tmp_path / "nowhere.ckpt"))
    first = make_job(tmp_path / "first", cache)
    run(first)
    path = first.folder / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="does not fit"):
        run(make_job(tmp_path / "b", cache, checkpoint=path, generator={**NET, "width": 5}))


def test_another_scale_takes_the_weights_that_fit_and_leaves_the_rest(tmp_path: Path, cache: Path) -> None:
    first = make_job(tmp_path / "first", cache)
    run(first)
    path = first.folder / "checkpoints" / "last.ckpt"
    still = partial(torch.optim.SGD, lr=0.0)
    data = PhotosData(
        scale=3, channels=1, seed=1, patch_size=8, batch_size=4, patches_per_epoch=12, cache_dir=str(cache)
    )
    net = {**NET, "scale": 3}
    second = make_job(tmp_path / "second", cache, generator=net, data=data, init_from=path, optimizer=still, scale=3)
    run(second)
    old, new = weights(first), weights(second)
    assert torch.equal(old["convs.0.layer.weight"], new["convs.0.layer.weight"])
    assert old["upsampler.0.layer.weight"].shape != new["upsampler.0.layer.weight"].shape
    with pytest.raises(UserError, match=r"Nothing in .* fits"):
        run(make_job(tmp_path / "third", cache, generator={**NET, "width": 5, "channels": 3}, init_from=path))


def test_the_log_holds_every_metric_by_its_name_and_the_pictures(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "run"
    job = make_job(folder, cache)
    job = replace(job, logger=CsvRun(folder), callbacks=[*job.callbacks, Pictures(folder, count=1)])
    run(job)
    lines = (folder / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert {
        *("train/loss", "lr", "val/psnr", "val/ssim", "val/psnr_bicubic", "val/psnr_gain"),
        *("time/epoch_seconds", "time/images_per_second"),
    } <= set(lines[0].split(","))
    assert [p.name for p in (folder / "pictures").iterdir()] == ["chelsea.png"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"output folder .* cannot be made"):
        writable(tmp_path / "file" / "run")


def test_a_folder_that_holds_a_run_is_not_written_over(job: Job) -> None:
    run(job)
    with pytest.raises(UserError, match="holds a run already"):
        writable(job.folder)
    assert writable(job.folder, resume=True) == job.folder


def test_every_level_of_a_pyramid_is_held_to_hr_shrunk_to_it() -> None:
    hr = torch.rand(2, 1, 16, 16)
    assert level_of(hr, 16) is hr
    assert torch.equal(level_of(hr, 8), shrink(hr, 2))


def test_the_best_figures_are_those_of_the_best_epoch(job: Job) -> None:
    result = run(job)
    state = checkpoints.read(job.folder / "checkpoints" / "best.ckpt")
    best = state[checkpoints.KEY]["best"]
    assert best["psnr"] == result.psnr and math.isfinite(best["psnr"])


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


@pytest.mark.parametrize("at", [(0, 1), (1, 0), (1, 2), (3, 1)])
def test_a_run_that_was_broken_off_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, cache: Path, at: tuple[int, int]
) -> None:
    trainer = {**TRAINER, "max_epochs": 4}
    undisturbed = make_job(tmp_path / "a", cache, trainer=trainer)
    whole = run(undisturbed)
    broken = make_job(tmp_path / "b", cache, trainer=trainer)
    with pytest.raises(KillError):
        run(replace(broken, callbacks=[*broken.callbacks, Killer(*at)]))
    result = run(make_job(tmp_path / "b", cache, trainer=trainer, resume=True))
    assert all(torch.equal(weights(undisturbed)[name], value) for name, value in weights(broken).items())
    assert (result.psnr, result.ssim, result.epoch) == (whole.psnr, whole.ssim, whole.epoch)


def test_a_resumed_run_trains_longer_where_it_is_told_to(tmp_path: Path, cache: Path) -> None:
    run(make_job(tmp_path / "run", cache))
    run(make_job(tmp_path / "run", cache, trainer={**TRAINER, "max_epochs": 3}, resume=True))
    assert checkpoints.read(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 9


def test_an_unreadable_last_checkpoint_falls_back_to_the_one_before_and_says_so(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    run(job)
    folder = job.folder / "checkpoints"
    last = folder / "last.ckpt"
    assert newest(folder) == last
    last.write_bytes(last.read_bytes()[:1000])
    assert newest(folder) == folder / "previous.ckpt"
    assert "last.ckpt is broken" in caplog.text and "Falling back" in caplog.text
    assert newest(job.folder) is None


def test_a_checkpoint_that_cannot_be_written_whole_leaves_the_one_before(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    run(job)
    before = (job.folder / "checkpoints" / "last.ckpt").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        run(
            replace(
                job, resume=True, trainer={**TRAINER, "max_epochs": 3}, callbacks=[SaveLast(job.folder / "checkpoints")]
            )
        )
    assert (job.folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert {p.name for p in (job.folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
