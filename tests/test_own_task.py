"""A task of the user's own, from a folder outside of the repository, does all that the built-in one does.

It is that of docs/extending.md: a noisy image in, a clean one out, judged by a figure of which LOWER is better.
"""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from tests.small_job import TRAINER, small_job
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanAbsoluteError

from upsweep.analysis.effects import effects
from upsweep.analysis.ranking import rank
from upsweep.networks import Network, checkpoints
from upsweep.runs import history
from upsweep.runs.layout import BEST, CROP, HISTORY, MANIFEST, PAGE, TABLE
from upsweep.runs.result import Result
from upsweep.runs.verdicts import read_sentences
from upsweep.tasks import Compared, Task
from upsweep.training.callbacks import Pictures
from upsweep.training.diagnoses import Diagnoses
from upsweep.training.job import train
from upsweep.training.records import History, KeepCrop
from upsweep.training.saving import SaveBest

ROOT = Path(__file__).resolve().parent.parent
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTION = EXTENDING[EXTENDING.index("## Your own task") :].split("\n## ")[0]
FILES = dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", SECTION, re.DOTALL))
(COMMAND,) = re.findall(r"```sh run\n(.*?)```", SECTION, re.DOTALL)
TINY = ["trainer=cpu", "trainer.max_epochs=2", "data.patches_per_epoch=64", "logger=none"]
CLASSES = {"denoising.Denoiser"}


def test_the_page_shows_a_task_in_under_forty_lines() -> None:
    assert sum(len(text.splitlines()) for text in FILES.values()) + len(COMMAND.splitlines()) < 40


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside of the repository, with the page's files."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run(place: Path, script: str, *arguments: str) -> str:
    """What a door prints, given there; it must end well."""
    environment = {**os.environ, "PYTHONPATH": "my"}
    done = subprocess.run(
        [sys.executable, ROOT / "src" / script, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sweep(place: Path) -> Path:
    """The page's own sweep, made small."""
    variable, program, script, *arguments = shlex.split(COMMAND)
    assert (variable, program, script) == ("PYTHONPATH=my", "python", "src/train.py")
    run(place, "train.py", *arguments, *TINY, "hydra.sweep.dir=sweep")
    return place / "sweep"


def results(sweep: Path) -> dict[str, Result]:
    jobs = json.loads((sweep / MANIFEST).read_text(encoding="utf-8"))["jobs"]
    found = {job["name"]: Result.read(sweep / job["name"]) for job in jobs}
    return {name: result for name, result in found.items() if result is not None}


@pytest.mark.slow
def test_it_sweeps_and_the_least_error_is_the_best(sweep: Path) -> None:
    found = results(sweep)
    assert len(found) == 8 and {result.state for result in found.values()} == {"finished"}
    errors = [result.last["rmse"] for result in rank(found).values()]
    assert errors == sorted(errors), "the first has the least error"
    with (sweep / TABLE).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rmse_last"]) for row in rows] == errors
    for row in rows:
        assert float(row["gain"]) == pytest.approx(float(row["rmse_noisy"]) - float(row["rmse"]))
    assert len({row["rmse_noisy"] for row in rows}) == 1, "every seed is validated on the same noise"
    for effect in effects(list(found.values())):
        better, worse = (
            [r.last["rmse"] for r in found.values() if r.settings[effect.key] == value]
            for value in (effect.better, effect.worse)
        )
        assert sum(better) < sum(worse) and effect.difference is not None and effect.difference > 0


@pytest.mark.slow
def test_the_best_checkpoint_is_that_of_the_least_error(
    sweep: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place / "my")
    for name, result in results(sweep).items():
        lines = history.read(sweep / name / HISTORY)
        best = min(lines, key=lambda line: line.figures["rmse"] or 1.0)
        assert result.epoch == best.epoch
        state = checkpoints.read(sweep / name / BEST)
        assert int(state["epoch"]) + 1 == best.epoch
        assert state[checkpoints.KEY]["best"]["figures"] == result.figures


@pytest.mark.slow
def test_its_page_says_its_figure_and_nothing_of_another_task(sweep: Path) -> None:
    page = (sweep / PAGE).read_text(encoding="utf-8")
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "RMSE" in shown and ("against noisy" in shown or "worse than noisy" in shown)
    assert "PSNR" not in shown and " dB" not in shown


@pytest.mark.slow
def test_it_goes_on_for_longer(sweep: Path, place: Path) -> None:
    job = sweep / "0"
    before = Result.read(job)
    run(place, "train.py", f"resume={job}", "trainer.max_epochs=3")
    after = Result.read(job)
    assert before is not None and after is not None
    assert [line.epoch for line in history.read(job / HISTORY)] == [1, 2, 3]
    assert after.figures["rmse"] <= before.figures["rmse"]


@pytest.mark.slow
def test_a_search_looks_for_the_least_error(place: Path) -> None:
    import optuna

    from upsweep.sweeps.search import NAME, storage_in

    space = ["init=xavier,he", "optimizer.lr=tag(log,interval(1e-5,1e-2))"]
    fixed = ["norm=none", "upsampler=deconv", "hydra.sweeper.trials=3", "hydra.sweep.dir=search"]
    said = run(
        place, "train.py", "--config-dir", "my/conf", "task=denoising", "hparams_search=optuna", *space, *fixed, *TINY
    )
    study = optuna.load_study(study_name=NAME, storage=storage_in(place / "search" / "study.journal"))
    values = [trial.value for trial in study.trials if trial.value is not None]
    assert study.direction == optuna.study.StudyDirection.MINIMIZE and study.best_value == min(values)
    assert {result.figures["rmse"] for result in results(place / "search").values()} >= set(values)
    assert "Best: " in said


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_its_network_is_exported(sweep: Path, place: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, file = sweep / "1" / BEST, place / f"denoiser.{format}"
    run(place, "export.py", "--config-dir", "my/conf", f"checkpoint={checkpoint}", f"format={format}", f"output={file}")
    monkeypatch.syspath_prepend(place / "my")
    network = checkpoints.load_generator(checkpoint, allow=CLASSES)
    noisy = torch.rand(1, 1, 9, 14)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (made,) = session.run(None, {"input": noisy.numpy()})
        torch.testing.assert_close(torch.from_numpy(made), network(noisy).detach(), atol=1e-5, rtol=1e-4)
    else:
        again = checkpoints.load_generator(file, allow=CLASSES)
        assert torch.equal(again(noisy), network(noisy))


# Another, in this process: data of its own that say nothing of a batch size, and no baseline.


class Hole(NamedTuple):
    masked: Tensor
    full: Tensor


class Holes(pl.LightningDataModule):
    """Smooth squares with a hole in the middle."""

    def batches(self, count: int, size: int) -> DataLoader[Hole]:
        smooth = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(count))
        full = nn.functional.interpolate(smooth, size=16, mode="bilinear")
        masked = full.clone()
        masked[..., 6:10, 6:10] = 0
        pairs: Any = [Hole(*pair) for pair in zip(masked, full, strict=True)]
        return DataLoader(pairs, batch_size=size)

    def train_dataloader(self) -> DataLoader[Hole]:
        return self.batches(24, size=8)

    def val_dataloader(self) -> DataLoader[Hole]:
        return self.batches(8, size=4)


class Filler(Network):
    def __init__(self, channels: int = 1) -> None:
        super().__init__(channels)
        self.net = nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        filled: Tensor = self.net(x)
        return filled


class Filling(Task):
    def __init__(self) -> None:
        mae = {"name": "mae", "title": "MAE", "better": "lower", "digits": 4}
        super().__init__([mae], Holes(), {"mae": MeanAbsoluteError})

    def make(self, generator: Network, batch: Hole) -> list[Compared]:
        return [Compared(generator(batch.masked), batch.full)]

    def judge(self, generator: Network, batch: Hole) -> Tensor:
        made: Tensor = generator(batch.masked)
        self.feed(made, batch.full)
        return made


def test_a_task_with_data_of_its_own_and_no_baseline_trains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "upsweep")
    watched = [SaveBest(tmp_path), History(tmp_path), KeepCrop(tmp_path), Diagnoses(tmp_path), Pictures(tmp_path, 2)]
    result = train(
        small_job(
            tmp_path,
            tmp_path,
            task=Filling(),
            generator={"_target_": "tests.test_own_task.Filler"},
            callbacks=watched,
            trainer={**TRAINER, "limit_val_batches": None, "max_epochs": 3},
            scale=None,
        )
    )
    assert result.state == "finished" and result.lead() is None
    assert list(result.figures) == ["mae"] and result.baseline == {}
    known = [line.figures["mae"] for line in history.read(tmp_path / HISTORY)]
    assert result.figures["mae"] == pytest.approx(min(value for value in known if value is not None), rel=1e-5)
    assert "8 patches a step (batch_size 8 x" in caplog.text
    assert [said.problem for said in read_sentences(tmp_path)] == ["vanishing gradients", "cost"]
    assert not (tmp_path / CROP).exists() and not list(tmp_path.glob("pictures/*"))
