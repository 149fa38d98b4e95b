"""Figures of the user's own: metrics of torchmetrics, values that a callback logs; they count wherever others do."""

import csv
import json
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from skimage.metrics import normalized_root_mse
from tests.small_job import TRAINER, small_job
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as ms_ssim,
)
from torchmetrics.functional.image import visual_information_fidelity as vif
from torchmetrics.image import (
    MultiScaleStructuralSimilarityIndexMeasure,
    PeakSignalNoiseRatioWithBlockedEffect,
    RootMeanSquaredErrorUsingSlidingWindow,
    VisualInformationFidelity,
)
from torchmetrics.image.fid import FrechetInceptionDistance

from upsweep.analysis.ranking import declared, rank
from upsweep.analysis.tables import write_table
from upsweep.analysis.yardsticks import sentences
from upsweep.common.errors import UserError
from upsweep.metrics.figure import Figure, own_figures, ranked
from upsweep.metrics.own import OfEach, Own
from upsweep.metrics.protocol import Protocol
from upsweep.networks import checkpoints
from upsweep.runs import history
from upsweep.runs.identity import ranking_of
from upsweep.runs.layout import HISTORY
from upsweep.runs.result import Result
from upsweep.tracking.wandb_run import WandbRun
from upsweep.training.callbacks import EarlyStopping
from upsweep.training.job import Job, train
from upsweep.training.records import History

CONF = Path(__file__).resolve().parent.parent / "conf"
MAE = Figure(name="mae", title="MAE", better="lower", digits=4, baseline="bicubic")
QUICK = {**TRAINER, "limit_train_batches": 1, "limit_val_batches": 1}
SHARP = Figure(name="sharp", title="sharpness", better="lower")


class Says(pl.Callback):
    """Logs a value an epoch, in order; None: nothing."""

    def __init__(self, *values: float | None, name: str = "sharp") -> None:
        self.values, self.name = values, name

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if (value := self.values[trainer.current_epoch]) is not None:
            module.log(f"val/{self.name}", value)


def job_with(
    folder: Path, cache: Path, *own: Figure, by: str | None = None, metrics: Any = None, says: Any = None, **more: Any
) -> Job:
    """A small job with a history that is judged by figures of its own, too."""
    job = small_job(folder, cache, **{"trainer": QUICK, **more})
    job.task.judge_by(own, metrics, by)
    return replace(job, callbacks=[*([] if says is None else [says]), *job.callbacks, History(folder)])


class LastWord(Says):
    """Logs the value as late as a module can: after the module's own hook."""

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        own = module.on_validation_epoch_end

        def late() -> None:
            own()
            module.log(f"val/{self.name}", self.values[trainer.current_epoch])

        module.on_validation_epoch_end = late

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        pass


# ---- what a metric sees


@pytest.mark.parametrize(
    ("metric", "truth"),
    [
        (MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0), lambda a, b: ms_ssim(a, b, data_range=1.0)),
        (VisualInformationFidelity(), vif),
    ],
)
@pytest.mark.parametrize("protocol", [Protocol(), Protocol(name="rgb", space="rgb")])
def test_a_figure_is_the_mean_over_images_of_what_the_protocol_compares(
    tmp_path: Path, cache: Path, metric: Metric, truth: Any, protocol: Protocol
) -> None:
    job = small_job(tmp_path, cache, protocol=protocol)
    job.task.judge_by([Figure(name="mine", title="mine")], {"mine": metric})
    pairs = [(torch.rand(1, 3, side, 180), torch.rand(1, 3, side, 180)) for side in (180, 190)]
    values = []
    for sr, hr in pairs:
        job.task.feed(sr, hr, grey=False)
        job.task.feed_baseline(sr, hr, grey=False)
        seen = (protocol.planes(x[0], 2)[None].float() / 255 for x in (sr, hr))
        values.append(float(truth(*seen)))
    assert job.task.compute()["mine"] == pytest.approx(sum(values) / 2, abs=1e-6)
    assert metric._update_count == 0, "the user's own is left as it was"


def test_one_channel_is_seen_as_scikit_image_sees_it(tmp_path: Path, cache: Path) -> None:
    job = small_job(tmp_path, cache)
    job.task.judge_by([MAE], {"mae": MeanAbsoluteError()})
    sr, hr = torch.rand(2, 1, 1, 40, 50)
    job.task.feed(sr, hr, grey=True)
    job.task.feed_baseline(hr, hr, grey=True)
    a, b = ((x[0, 0, 2:-2, 2:-2] * 255).round().double().numpy() / 255 for x in (sr, hr))
    rmse = normalized_root_mse(b, a, normalization="min-max") * (b.max() - b.min())
    figures = job.task.compute()
    assert figures["mae"] == pytest.approx(abs(a - b).mean(), abs=1e-7)
    assert figures["psnr"] == pytest.approx(-20 * math.log10(rmse), abs=1e-6), "the same pixels"
    assert job.task.baseline["mae"] == 0


def shipped(name: str, shave: int | None = None) -> Metric:
    """What `metrics=NAME` measures by, at scale 2."""
    said = OmegaConf.load(CONF / f"metrics/{name}.yaml")
    node = OmegaConf.create({"scale": 2, "protocol": {"shave": shave}, "metrics": said})
    metric: Metric = instantiate(OmegaConf.select(node, f"metrics.{name}.metric"))
    return metric


def test_vif_is_that_of_papers_which_take_grey_levels() -> None:
    hr, noise = torch.rand(2, 1, 3, 90, 80)
    sr = (0.8 * hr + 0.2 * noise) ** 2
    assert float(shipped("vif")(sr, hr)) == pytest.approx(float(vif(255 * sr, 255 * hr)), abs=1e-4)


@pytest.mark.parametrize(("shave", "border", "block"), [(None, 2, 8), (0, 0, 0), (3, 3, 8), (8, 8, 8)])
def test_psnr_b_finds_the_blocks_of_the_image_also_where_a_border_was_shaved(
    shave: int | None, border: int, block: int
) -> None:
    hr = torch.rand(1, 1, 80, 96)
    sr = (hr + torch.rand(1, 1, 10, 12).repeat_interleave(8, -1).repeat_interleave(8, -2)) / 2
    whole = PeakSignalNoiseRatioWithBlockedEffect(data_range=1.0)
    inside = (..., slice(block, 80 - border), slice(block, 96 - border))  # from the first whole block on
    shaved = (..., slice(border, 80 - border), slice(border, 96 - border))
    found = float(shipped("psnr_b", shave)(sr[shaved], hr[shaved]))
    assert found == float(whole(sr[inside], hr[inside]))
    assert found < -10 * math.log10(float((sr - hr).square().mean())) - 0.5, "edges cost something"


class Mean(Metric):
    """Takes sets as FID does: the difference of their means."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, 2), dist_reduce_fx="sum")

    def update(self, images: Tensor, real: bool) -> None:
        self.sums[int(real)] += torch.tensor([images.mean(), 1.0])

    def compute(self) -> Tensor:
        means = self.sums[:, 0] / self.sums[:, 1]
        return means[1] - means[0]


def test_a_metric_of_two_sets_is_fed_with_both_and_computed_once(tmp_path: Path, cache: Path) -> None:
    job = small_job(tmp_path, cache)
    job.task.judge_by([Figure(name="fid", title="FID", better="lower")], {"fid": Mean()}, "fid")
    for level in (0.2, 0.4):
        for feed in (job.task.feed, job.task.feed_baseline):
            feed(torch.full((1, 1, 30, 30), level), torch.full((1, 1, 30, 30), 0.8), grey=True)
    assert job.task.compute()["fid"] == pytest.approx(0.5, abs=0.002)
    assert job.task.shown.name == "psnr", "no single image has such a figure"


class NoNumber(MeanAbsoluteError):
    def compute(self) -> Any:
        return torch.zeros(3)


class Three(MeanAbsoluteError):
    def update(self, a: Tensor, b: Tensor, c: Tensor) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0), "metrics.x: Multi.* cannot be taken of these"),
        (NoNumber(), "metrics.x must give one number; NoNumber gives 3 numbers"),
        (Three(), r"metrics.x: Three.update takes a, b, c; it must take \(made, wanted\), \(images\), or"),
        (FrechetInceptionDistance(feature=torch.nn.Flatten(), input_img_size=(1, 9, 9)), "normalize=false needs bytes"),
    ],
)
def test_what_cannot_be_taken_of_these_images_is_one_sentence(metric: Metric, said: str) -> None:
    with pytest.raises(UserError, match=said):
        own = Own("x", metric)
        own.update(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 20))
        own.compute()


def test_a_metric_that_keeps_something_of_an_image_sees_the_next_one_anew() -> None:
    own = OfEach(Own("x", RootMeanSquaredErrorUsingSlidingWindow(window_size=5)), Protocol(), 2)
    values = []
    for size in ((30, 40), (50, 20)):
        own.update(*torch.rand(2, 1, 1, *size))
        values.append(float(own.last))
    assert own.compute().item() == pytest.approx(sum(values) / 2)


def test_an_image_without_a_finite_value_makes_the_mean_unknown(tmp_path: Path, cache: Path) -> None:
    class Lost(MeanAbsoluteError):
        def compute(self) -> Tensor:
            return torch.tensor(math.nan)

    job = small_job(tmp_path, cache)
    job.task.judge_by([SHARP], {"sharp": Lost()})
    job.task.feed(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 20), grey=True)
    job.task.feed_baseline(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 20), grey=True)
    assert math.isnan(job.task.compute()["sharp"])


# ---- a run


def test_a_figure_that_ranks_keeps_its_best_epoch_and_one_that_does_not_changes_nothing(
    tmp_path: Path, cache: Path
) -> None:
    plain = train(small_job(tmp_path / "plain", cache, trainer=QUICK))
    mae = {"mae": MeanAbsoluteError()}
    beside = train(job_with(tmp_path / "beside", cache, MAE, metrics=mae))
    ranks = train(job_with(tmp_path / "ranks", cache, MAE, metrics=mae, by="mae"))
    weights = [checkpoints.read(tmp_path / name / "checkpoints" / "best.ckpt") for name in ("plain", "beside")]
    assert weights[0]["state_dict"].keys() == weights[1]["state_dict"].keys(), "metrics are no part of what is saved"
    assert beside.figures["psnr"] == plain.figures["psnr"] and beside.declared[0].name == "psnr"
    assert ranks.headline == MAE and ranks.objective == ranks.figures["mae"] and "mae" in ranks.baseline
    values = {line.epoch: line.figures["mae"] or math.inf for line in history.read(tmp_path / "ranks" / HISTORY)}
    assert ranks.epoch == min(values, key=lambda epoch: values[epoch])
    assert Result.read(tmp_path / "ranks") == ranks


@pytest.mark.parametrize(("kind", "better", "best"), [(Says, "lower", 2), (LastWord, "higher", 3)])
def test_what_a_callback_or_the_module_logs_ranks_as_it_declares(
    tmp_path: Path, cache: Path, kind: type[Says], better: Any, best: int
) -> None:
    figure, trainer = replace(SHARP, better=better), {**QUICK, "max_epochs": 3}
    job = job_with(tmp_path, cache, figure, by="sharp", says=kind(2.0, 1.0, 4.0), trainer=trainer)
    result = train(job)
    assert (result.epoch, result.last["sharp"], result.objective) == (best, 4.0, {2: 1.0, 3: 4.0}[best])
    assert checkpoints.read(tmp_path / "checkpoints" / "best.ckpt")["epoch"] == best - 1
    assert [line.figures["sharp"] for line in history.read(tmp_path / HISTORY)] == [2.0, 1.0, 4.0]


def test_early_stopping_follows_what_ranks_or_what_it_is_told(tmp_path: Path, cache: Path) -> None:
    trainer = {**QUICK, "max_epochs": 5}
    job = job_with(tmp_path, cache, SHARP, by="sharp", says=Says(2.0, 3.0, 4.0, 5.0, 6.0), trainer=trainer)
    result = train(replace(job, callbacks=[*job.callbacks, EarlyStopping(patience=2)]))
    assert result.reason is not None and "sharpness has not improved for 2 epochs; the best was 2.00" in result.reason
    job = job_with(tmp_path / "other", cache, trainer=trainer)
    with pytest.raises(UserError, match=r"callbacks.early_stopping.figure=nonsense must be one of psnr, ssim"):
        train(replace(job, callbacks=[EarlyStopping("nonsense")]))


def test_a_declared_figure_that_nobody_logs_fails_the_run_only_if_it_ranks(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(job_with(tmp_path / "a", cache, SHARP))
    assert result.state == "finished" and "sharp" not in result.figures
    said = "metrics.sharp is declared, and nothing has logged it: log val/sharp in every validation"
    assert next(record.message for record in caplog.records if said in record.message).endswith("stays empty.")
    with pytest.raises(UserError, match="rank_by=sharp needs it"):
        train(job_with(tmp_path / "b", cache, SHARP, by="sharp"))


def test_a_value_of_an_earlier_epoch_is_not_taken_for_one_of_this(tmp_path: Path, cache: Path) -> None:
    result = train(job_with(tmp_path, cache, SHARP, says=Says(2.0, None)))
    assert [line.figures.get("sharp") for line in history.read(tmp_path / HISTORY)] == [2.0, None]
    assert "sharp" not in result.last


def test_what_nobody_declares_is_kept_everywhere_and_said_once(tmp_path: Path, cache: Path) -> None:
    jobs = {
        "0": train(job_with(tmp_path / "0", cache, says=Says(2.0, 3.0))),
        "1": train(job_with(tmp_path / "1", cache, says=Says(7.0, 8.0, name="loss"))),
    }
    assert jobs["0"].last["sharp"] == 3.0 and jobs["1"].last["loss"] == 8.0
    first, second = history.read(tmp_path / "1" / HISTORY)
    assert (first.figures["loss"], second.figures["loss"]) == (7.0, 8.0) and first.loss not in (None, 7.0)
    row, other = csv.DictReader(write_table(tmp_path / "results.csv", jobs).open(encoding="utf-8"))
    rows = {row["job"]: row, other["job"]: other}
    assert float(rows["0"]["sharp_last"]) == 3.0 and rows["1"]["sharp_last"] == ""
    (said,) = sentences(jobs)
    assert said.startswith("Logged, and not declared: val/sharp, val/loss.")


def test_a_lower_figure_that_ranks_turns_the_table_round(tmp_path: Path, cache: Path) -> None:
    runs = {}
    for name, value in (("much", 9.0), ("little", 1.0)):
        runs[name] = train(job_with(tmp_path / name, cache, SHARP, by="sharp", says=Says(value, value)))
    assert [*rank(runs)] == ["little", "much"] and declared(runs.values())[0] == SHARP


def test_a_run_goes_on_with_another_figure_but_not_ranked_by_another_one(tmp_path: Path, cache: Path) -> None:
    def going_on(epochs: int, by: str | None = None, **more: Any) -> Result:
        trainer, metrics = {**QUICK, "max_epochs": epochs}, {"mae": MeanAbsoluteError()}
        config = {"rank_by": by}
        return train(job_with(tmp_path, cache, MAE, metrics=metrics, by=by, config=config, trainer=trainer, **more))

    train(small_job(tmp_path, cache, trainer={**QUICK, "max_epochs": 1}))
    assert "mae" in going_on(2, resume=True).last
    with pytest.raises(UserError, match=r"rank_by was None and is now mae\. Bring back"):
        going_on(3, "mae", resume=True)
    anew = going_on(3, "mae", resume=True, judge_anew=True)
    assert (anew.epoch, anew.headline) == (3, MAE)


def test_what_measures_the_figure_that_ranks_is_a_part_of_how_a_run_is_ranked() -> None:
    metrics = {"x": {"figure": {}, "metric": {"_target_": "a.B", "side": 3}}, "y": None}
    assert ranking_of({"rank_by": None, "metrics": metrics}) == {}
    assert ranking_of({"rank_by": "x", "metrics": metrics}) == {
        "rank_by": "x",
        "metrics.x.metric._target_": "a.B",
        "metrics.x.metric.side": 3,
    }
    assert ranking_of({"rank_by": "psnr"}) == {"rank_by": "psnr"}


# ---- what the config says


def test_the_first_is_the_one_that_ranks_and_an_unknown_one_is_told_with_the_known() -> None:
    own = own_figures({"mae": {"figure": {"better": "lower"}}, "left_out": None})
    assert own == (Figure(name="mae", title="mae", better="lower"),)
    figures = (Figure(name="psnr", title="PSNR"), *own)
    assert [figure.name for figure in ranked(figures, "mae")] == ["mae", "psnr"] and ranked(figures) == figures
    with pytest.raises(UserError, match=r"rank_by=mea is not a figure of this run; choose from psnr, mae, or add it"):
        ranked(figures, "mea")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"x": 3}, r"metrics.x needs figure: \{title: x, better: higher\}"),
        ({"x": {"figure": {"better": "lower"}, "metrc": {}}}, "nothing else"),
        ({"x": {"figure": {"title": "X"}}}, "metrics.x.figure.better=None must be higher or lower"),
        ({"x": {"figure": {"better": "lower", "digit": 3}}}, "metrics.x.figure.digit is unknown; choose from title"),
        ({"seconds": {"figure": {"better": "lower"}}}, "metrics.seconds: results have a column of that name"),
        ({"a-b": {"figure": {"better": "lower"}}}, "needs a name of letters"),
    ],
)
def test_a_declaration_that_says_too_little_or_too_much_is_one_sentence(said: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        own_figures(said)


def test_a_figure_cannot_have_the_name_of_a_choice_whose_column_it_would_share() -> None:
    said = {"norm": {"figure": {"better": "lower"}}}
    assert own_figures(said)
    with pytest.raises(UserError, match=r"metrics\.norm: results have a column of that name"):
        own_figures(said, {"norm": {}, "metrics": said})


@pytest.mark.parametrize("file", sorted((CONF / "metrics").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_figure_that_comes_along_is_declared_as_its_metric_says(file: Path) -> None:
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    (figure,) = own_figures(said)
    metric = shipped(file.stem)
    assert [*said] == [file.stem] and (figure.better == "higher") is bool(metric.higher_is_better)


def test_the_summary_of_a_run_at_wandb_keeps_the_best_of_each_figure_in_its_direction(tmp_path: Path) -> None:
    figures = [Figure(name="ssim", title="SSIM"), Figure(name="no_ssim", title="no", better="lower")]
    run = WandbRun(tmp_path, figures=figures, best={"loss": "min"})
    keys = ("val/ssim", "val/no_ssim", "val/other_ssim", "train/loss")
    assert [run.kept(key) for key in keys] == ["max", "min", None, "min"]
    assert json.dumps(run._init["config"]["figures"][1]["better"]) == '"lower"'


# ---- as the page says it, and on two devices

EXTENDING = (CONF.parent / "docs" / "extending.md").read_text(encoding="utf-8")
PAGE = EXTENDING[EXTENDING.index("## Your own metric") :]
SMALL = ["trainer.max_epochs=1", "data.patches_per_epoch=32", "trainer=cpu", "logger=none"]


@pytest.mark.slow
def test_the_examples_of_the_page_rank_by_their_own_figure(tmp_path: Path) -> None:
    for name, text in re.findall(r"```\w+ file=(\S+)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    sweep, run = re.findall(r"```sh run\n(.*?)```", PAGE, re.DOTALL)
    for command in (sweep, run):
        variable, _, script, *arguments = shlex.split(command)
        environment = {**os.environ, **dict([variable.split("=")])}
        words = [sys.executable, str(CONF.parent / script), *arguments, *SMALL]
        subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    (table,) = tmp_path.glob("multirun/*/results.csv")
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    values = [float(row["edge_error_last"]) for row in rows]
    assert values == sorted(values) and len(values) == 2 and all(row["mae_bicubic"] for row in rows)
    (folder,) = tmp_path.glob("outputs/*")
    result = Result.read(folder)
    assert result is not None and result.headline is not None and result.headline.name == "sharpness"


@pytest.mark.slow
def test_two_devices_say_of_a_metric_what_one_says(tmp_path: Path) -> None:
    figures = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        still = ["optimizer=sgd", "optimizer.lr=0", "metrics=[ms_ssim,mae]", "rank_by=mae", "data.patches_per_epoch=64"]
        many = ["trainer=ddp", f"trainer.devices={devices}", "trainer.accelerator=cpu", f"hydra.run.dir={folder}"]
        command = [
            sys.executable,
            str(CONF.parent / "src" / "train.py"),
            *still,
            "trainer.max_epochs=1",
            "logger=none",
            *many,
        ]
        subprocess.run([*map(str, command)], cwd=tmp_path, check=True, capture_output=True)
        result = Result.read(folder)
        assert result is not None and result.state == "finished"
        figures.append(result.figures)
    assert figures[0].keys() == {"mae", "psnr", "ssim", "ms_ssim"}
    assert figures[1] == pytest.approx(figures[0], rel=1e-6)
