"""Going on: the command line that `resume=` becomes, and real processes that are killed and end the same."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.utilities.exceptions import SIGTERMException
from tests.small_job import NET, RECIPE, TRAINER, small_job

from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.runs.about import About
from upsweep.runs.history import read as history
from upsweep.runs.layout import BEST, HISTORY, LAST
from upsweep.runs.result import REQUEUE, Result
from upsweep.sweeps.resuming import resumed
from upsweep.training import schedules
from upsweep.training.callbacks import Throughput
from upsweep.training.job import train as finish
from upsweep.training.records import History
from upsweep.training.saving import Preemption, SaveBest, SaveLast
from upsweep.training.start import start_of

ROOT = Path(__file__).resolve().parent.parent
DOOR = [sys.executable, str(ROOT / "src" / "train.py")]
TINY = [
    *("trainer=cpu", "logger=none", "callbacks.pictures=null", "generator.width=4", "generator.depth=1"),
    *("data.patch_size=8", "data.patches_per_epoch=160", "dropout=p20", "trainer.limit_val_batches=1"),
    "callbacks.ema.decay=0.9",
]


def a_run(folder: Path, overrides: list[str]) -> Path:
    hydra = {"job": {"config_name": "train"}, "runtime": {"config_sources": [{"provider": "main", "path": "/x"}]}}
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    return folder


def test_a_command_line_without_resume_stays_as_it_is() -> None:
    for line in (["init=he"], ["-m", "init=he,xavier"], ["resume=null"], []):
        assert resumed(line) == line


def test_a_run_goes_on_with_its_own_overrides_and_the_new_ones_go_first(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "a run, one=1", ["init=he", "trainer.max_epochs=2", "resume='/before'"])
    line = resumed([f"resume='{folder}'", "trainer.max_epochs=9"])
    assert line == [
        "--config-name=train",
        "init=he",
        "trainer.max_epochs=9",
        f"resume='{folder}'",
        f"hydra.run.dir='{folder}'",
        "hydra.mode=RUN",
    ]
    assert resumed(line) == line, "a rank that repeats the command line must not do it twice"


def test_a_run_goes_on_in_the_directory_of_its_start_and_new_paths_are_those_of_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("there", "here", "here/photos", "here/he", "here/8", "here/train"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "there")
    folder = a_run(tmp_path / "run", ["data.root=photos"])
    replace(About.now(), command=["python", "train.py", "data.root=photos"]).write(folder)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    typed = ["init=he", "generator.width=8", "data.val_root=photos", "--config-dir", "photos", "--config-name=train"]
    line = resumed(["resume=../run", *typed])
    assert Path.cwd() == tmp_path / "there" and "Resuming in" in capsys.readouterr().err
    assert sys.argv == [str(tmp_path / "here" / "train.py")]
    assert os.environ["PYTHONPATH"] == str(tmp_path / "here" / "mine")
    photos = tmp_path / "here" / "photos"
    assert line[:2] == [f"--config-dir={photos}", "--config-name=train"]
    assert line[2:6] == ["data.root=photos", "init=he", "generator.width=8", f"data.val_root='{photos}'"]


@pytest.mark.parametrize("name", ["overrides.yaml", "hydra.yaml"])
@pytest.mark.parametrize("text", ["", "- a\n- [", "hydra:", "7"])
def test_what_identifies_a_run_and_is_cut_is_refused(tmp_path: Path, name: str, text: str) -> None:
    folder = a_run(tmp_path / "run", ["init=he"])
    (folder / ".hydra" / name).write_text(text)
    with pytest.raises(UserError, match=r"\.hydra is empty or incomplete"):
        resumed([f"resume={folder}"])


def test_latest_is_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="resume=latest found nothing"):
        resumed(["resume=latest"])
    for name, age in (("b", 10), ("a", 5), ("c", 20)):
        path = a_run(tmp_path / "outputs" / name, []) / ".hydra" / "overrides.yaml"
        os.utime(path, (time.time() - age,) * 2)
    assert f"hydra.run.dir='{tmp_path}/outputs/a'" in resumed(["resume=latest"])


def test_a_sweep_without_overrides_is_the_one_that_was_started(tmp_path: Path) -> None:
    command = ["python", "train.py", "-m", "init=he,xavier", "hydra.launcher.parallel=2"]
    (tmp_path / "sweep.json").write_text(json.dumps({"command": command, "directory": "/d", "jobs": []}))
    place = [f"hydra.sweep.dir='{tmp_path}'", "hydra.launcher.resume=true"]
    assert resumed(["-m", f"resume={tmp_path}"]) == ["-m", "init=he,xavier", "hydra.launcher.parallel=2", *place]
    assert resumed(["-m", "--config-dir", "x", f"resume={tmp_path}", "hydra.launcher.parallel=3"]) == [
        *("-m", "--config-dir=x", "init=he,xavier", "hydra.launcher.parallel=3"),
        *place,
    ]


def test_values_that_are_typed_beside_a_sweep_are_added_to_it(tmp_path: Path) -> None:
    command = ["python", "train.py", "-m", "init=he,xavier", "+a.b=1", "seed=1,2,3", "hydra.launcher.parallel=2"]
    (tmp_path / "sweep.json").write_text(json.dumps({"command": command, "directory": "/d", "jobs": []}))
    line = resumed(["-m", f"resume={tmp_path}", "seed=4,5", "a.b=2"])
    kept = ["-m", "init=he,xavier", "hydra.launcher.parallel=2", "seed=1,2,3,4,5", "++a.b=2"]
    place = [f"hydra.sweep.dir='{tmp_path}'", "hydra.launcher.resume=true"]
    assert line == [*kept, *place]
    for typed, said in {
        "seed=range(3,6)": "seed=1,2,3,4,5",
        "seed=2": "seed=1,2,3",
        "init=icnr": "init=he,xavier,icnr",
        "init='a b',c": "init=he,xavier,'a b',c",
    }.items():
        assert said in resumed(["-m", f"resume={tmp_path}", typed])
    assert "a.b=2" in "".join(line), "a single value takes the place of a single value"
    command = ["python", "train.py", "-m", "init=glob(x*)", "norm=bn"]
    (tmp_path / "sweep.json").write_text(json.dumps({"command": command, "directory": "/d", "jobs": []}))
    assert "init=glob([x*,he])" in resumed(["-m", f"resume={tmp_path}", "init=he"])
    for sweeper, seeds in (("hydra.BasicSweeper", "1,2,3"), ("hydra_plugins.upsweep.SearchSweeper", "3")):
        said = f"hydra: {{sweeper: {{_target_: {sweeper}, params: {{seed: '1,2', norm: 'none,bn'}}}}}}"
        (tmp_path / "multirun.yaml").write_text(said)
        line = resumed(["-m", f"resume={tmp_path}", "seed=3", "norm=in"])
        assert {f"seed={seeds}", "norm=in"} <= {*line}, "an experiment's values, unless the command line had its own"


def test_a_search_is_a_sweep_also_without_m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "multirun" / "one"
    folder.mkdir(parents=True)
    command = ["python", "train.py", "hparams_search=optuna", "-cd", "more", "norm=none,bn"]
    (folder / "sweep.json").write_text(json.dumps({"command": command, "directory": "/d", "jobs": []}))
    place = [f"hydra.sweep.dir='{folder}'", "hydra.launcher.resume=true"]
    again = resumed(["hparams_search=optuna", "resume=latest", "hydra.sweeper.trials=60"])
    assert again == ["-cd=/d/more", "norm=none,bn", "hparams_search=optuna", "hydra.sweeper.trials=60", *place]


def test_a_run_goes_on_with_all_that_its_training_was_begun_with(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", ["init=refused"])
    command = ["python", "train.py", "-cp", "/conf", "--config-dir", "more", "init=he", "+a.b=1", "hydra.verbose=true"]
    placed = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.mode=RUN"]
    (folder / "about.json").write_text(json.dumps({"command": [*command, *placed], "directory": "/d"}))
    line = resumed([f"resume={folder}", "a.b=2"])
    assert line == ["-cp=/conf", "--config-dir=/d/more", "init=he", "hydra.verbose=true", "++a.b=2", *placed]
    line = resumed([f"resume={folder}", "-cd", "mine"])
    assert line == ["-cp=/conf", "-cd=mine", "init=he", "+a.b=1", "hydra.verbose=true", *placed]


@pytest.mark.parametrize("name", ["about.json", "sweep.json"])
def test_a_record_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    folder = a_run(tmp_path / "run", ["init=he"])
    (folder / name).write_text("")
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        resumed([*(["-m"] if name == "sweep.json" else []), f"resume={folder}"])


def test_a_folder_beside_the_one_to_go_on_in_is_refused(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", [])
    with pytest.raises(UserError, match=r"leave hydra\.run\.dir=other out"):
        resumed([f"resume={folder}", "hydra.run.dir=other"])


def test_one_line_begins_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    line = ["init=he", f"hydra.run.dir={tmp_path}/run", f"resume={tmp_path}/run"]
    assert resumed(line) == line, "there is nothing yet"
    a_run(tmp_path / "run", ["init=he"])
    placed = [f"resume='{tmp_path}/run'", f"hydra.run.dir='{tmp_path}/run'", "hydra.mode=RUN"]
    assert resumed(line) == ["--config-name=train", "init=he", *placed]


def test_a_folder_that_is_none_of_ours_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        resumed([f"resume={tmp_path / 'nowhere'}"])
    with pytest.raises(UserError, match="not the folder of a run"):
        resumed([f"resume={tmp_path}"])
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match="add -m"):
        resumed([f"resume={tmp_path}"])


# what does not fit

ADAM, SGD = ({"_target_": f"torch.optim.{name}", "lr": 0.1} for name in ("Adam", "SGD"))
STEP = {"_target_": "torch.optim.lr_scheduler.StepLR"}
BY_EPOCH = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.1)
IN_TURN: dict[str, Any] = {"schedulers": [BY_EPOCH], "milestones": []}
DCGAN = {"_target_": "upsweep.networks.discriminators.dcgan.DCGAN"}
TRAINED: dict[str, Any] = {
    "optimizer": ADAM,
    "factors": {"upsampler": 0.1},
    "scheduler": {"_target_": "upsweep.training.schedules.Cosine"},
    "adversary": {"discriminator": DCGAN, "optimizer": ADAM, "scheduler": STEP},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    finish(small_job(folder, cache, config=TRAINED))
    return folder


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"optimizer": SGD}, "optimizer=torch.optim.Adam, whose state does not fit optimizer=torch.optim.SGD"),
        ({"scheduler": STEP}, "does not fit scheduler=torch.optim.lr_scheduler.StepLR"),
        ({"factors": {}}, "factors={'upsampler': 0.1}, whose state does not fit factors=null"),
        ({"adversary": {}}, "does not fit adversary.discriminator=null"),
        ({"adversary": {**TRAINED["adversary"], "optimizer": SGD}}, "does not fit adversary.optimizer=torch.optim.SGD"),
        ({"adversary": {**TRAINED["adversary"], "scheduler": {}}}, "does not fit adversary.scheduler=null"),
    ],
)
def test_another_state_than_the_checkpoint_s_is_refused(trained: Path, now: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        start_of(trained, {**TRAINED, **now}, 2, resume=True)(NET)
    assert sentence in str(refused.value) and str(refused.value).endswith(": set it as it was, or begin a new run.")


def test_what_changes_no_state_is_taken_and_the_weights_that_a_run_began_with_may_be_gone(trained: Path) -> None:
    now = {
        "optimizer": {**ADAM, "lr": 0.2},
        "scheduler": {"_target_": "upsweep.training.schedules.Constant"},
        "adversary": {**TRAINED["adversary"], "loss": {"_target_": "upsweep.objectives.adversarial.losses.Hinge"}},
    }
    for gone in ({"init_from": "gone.ckpt"}, {"checkpoint": "wandb:a/b/gone:v1"}):
        assert start_of(trained, {**TRAINED, **now}, 2, resume=True, **gone)(NET).checkpoint == trained / LAST


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"factors": {"upsampler": 0.1}}, "loaded state dict has a different number of parameter groups"),
        ({"schedule": partial(torch.optim.lr_scheduler.SequentialLR, **IN_TURN)}, "_schedulers"),
        ({"objective": torch.nn.Bilinear(1, 1, 1)}, r"Error\(s\) in loading state_dict for Supervised: Missing key"),
    ],
)
def test_what_turns_out_not_to_fit_while_a_checkpoint_is_restored_is_one_sentence(
    trained: Path, cache: Path, changed: dict[str, Any], fault: str
) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=rf"^{trained / LAST} does not fit this training \(.*{fault}.*\): set all as it was"
    ):
        longer = {**TRAINER, "max_epochs": 3}
        finish(small_job(trained, cache, config=TRAINED, resume=True, trainer=longer, **changed))
    assert before == {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}


# limits that cut an epoch


SCHEDULES = {"of ours": schedules.Constant(), "by epoch": BY_EPOCH}


# A best checkpoint is saved before its epoch has ended, and before a scheduler that counts epochs has stepped.
@pytest.mark.parametrize(
    ("kept", "schedule"), [(SaveLast, "of ours"), (SaveLast, "by epoch"), (SaveBest, "of ours")], ids=str
)
@pytest.mark.parametrize("limits", [[2, None], [3, 9], [5, 7, 9], [6, 8, None]])
def test_a_training_that_a_limit_has_ended_goes_on_as_if_there_had_been_none(
    tmp_path: Path, cache: Path, limits: list[int | None], schedule: str, kept: type[SaveLast | SaveBest]
) -> None:
    """Nine steps in three epochs, in one go and in several: within an epoch, and at the end of one."""
    parts = {"generator": without_dropout(), "schedule": SCHEDULES[schedule]}

    def trained(folder: Path, limit: int | None, *, resume: bool = False) -> dict[str, torch.Tensor]:
        trainer = {
            **TRAINER,
            "max_epochs": 3,
            "limit_val_batches": 1,
            **({} if limit is None else {"max_steps": limit}),
        }
        job = small_job(folder, cache, **parts, resume=resume, trainer=trainer)
        throughput = Throughput()
        finish(replace(job, callbacks=[kept(folder), History(folder), throughput]))
        assert not throughput.failed
        return checkpoints.generator_weights(checkpoints.read(folder / (LAST if kept is SaveLast else BEST)))

    whole = trained(tmp_path / "whole", None)
    cut = [trained(tmp_path / "cut", limit, resume=i > 0) for i, limit in enumerate(limits)][-1]
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    lines = [
        [(line.epoch, line.step, line.figures) for line in history(tmp_path / run / HISTORY)]
        for run in ("whole", "cut")
    ]
    assert lines[0] == lines[1] and [line[:2] for line in lines[0]] == [(1, 3), (2, 6), (3, 9)]


def test_an_epoch_that_has_no_more_batches_now_than_it_had_when_it_was_cut_is_refused(
    tmp_path: Path, cache: Path
) -> None:
    finish(small_job(tmp_path, cache, trainer={**TRAINER, "max_steps": 2}))
    with pytest.raises(UserError, match=r"ended after 2 batches of an epoch, which has 1 now: set data\.patches_per"):
        finish(small_job(tmp_path, cache, resume=True, patches_per_epoch=4))


def without_dropout() -> dict[str, Any]:
    """An epoch that is cut draws other random numbers in its second part."""
    drop = {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}
    return {**NET, "recipe": {**RECIPE, "dropout": drop}}


# real processes


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Both: the weights and their average."""
    state = checkpoints.read(folder / "checkpoints" / "last.ckpt")
    average = checkpoints.generator_weights(state)
    return checkpoints.generator_weights(state, ema=False) | {f"average of {name}": w for name, w in average.items()}


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DOOR, *arguments], cwd=cwd, text=True, capture_output=True, check=True)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    epochs = [*TINY, "trainer.max_epochs=12"]
    train(*epochs, f"hydra.run.dir={tmp_path / 'whole'}", cwd=tmp_path)
    moments = random.Random(0)
    folder = tmp_path / "killed"
    killed = []
    for attempt in range(5):
        arguments = [f"resume={folder}"] if folder.exists() else [*epochs, f"hydra.run.dir={folder}"]
        job = subprocess.Popen([*DOOR, *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = done(folder)
        while job.poll() is None and done(folder) <= before + moments.choice((0, 1)):
            time.sleep(0.002)
        if attempt % 2:  # while a checkpoint is being written
            while job.poll() is None and not list((folder / "checkpoints").glob(".*.ckpt.*")):
                time.sleep(0.0002)
        else:
            time.sleep(moments.uniform(0, 0.3))
        job.send_signal(signal.SIGKILL)
        killed.append(job.wait() == -signal.SIGKILL)
    assert sum(killed) >= 3, "most of the kills must hit a run that still trains"
    train(f"resume={folder}", cwd=tmp_path)
    whole, again = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    first, second = Result.read(tmp_path / "whole"), Result.read(folder)
    assert first is not None and second is not None
    assert (first.figures, first.epoch) == (second.figures, second.epoch)


def done(folder: Path) -> int:
    """Epochs after which a checkpoint was saved."""
    found = [0]
    for name in ("fresh.ckpt", "last.ckpt"):  # a run that was stopped between the two goes on from the first
        with suppress(UserError):
            found.append(int(checkpoints.read(folder / "checkpoints" / name)["epoch"]) + 1)
    return max(found)


@pytest.mark.slow
def test_a_resumed_sweep_runs_only_what_is_missing_failed_or_new(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    sweep = ["-m", *TINY, "trainer.max_epochs=2", f"hydra.sweep.dir={folder}"]
    train(*sweep, "init=he,xavier", cwd=tmp_path)
    stamps = {name: (folder / name / "result.json").stat().st_mtime_ns for name in ("0", "1")}
    (folder / "1" / "result.json").unlink()
    out = train("-m", f"resume={folder}", cwd=tmp_path).stdout
    assert "1 of 2 jobs are kept, 1 to run." in out and "2 of 2 jobs finished" in out
    assert (folder / "0" / "result.json").stat().st_mtime_ns == stamps["0"]
    assert (folder / "1" / "result.json").stat().st_mtime_ns != stamps["1"]
    assert "Going on from" in (folder / "1" / "job.log").read_text()
    out = train(*sweep[:-1], "init=xavier,he_small_last", f"resume={folder}", cwd=tmp_path).stdout
    assert "2 of 3 jobs are kept, 1 to run." in out
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"0", "1", "2"}
    assert [job["name"] for job in json.loads((folder / "sweep.json").read_text())["jobs"]] == ["0", "1", "2"]


@pytest.mark.slow
def test_a_full_disk_ends_with_one_sentence_and_the_last_checkpoint_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(*TINY, "trainer.max_epochs=1", "callbacks.crop=null", f"hydra.run.dir={folder}", cwd=tmp_path)
    before = weights(folder)
    size = (folder / "checkpoints" / "last.ckpt").stat().st_size
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2},) * 2)"
    script = f"{limit}; import runpy, sys; sys.argv[0] = {DOOR[1]!r}; runpy.run_path({DOOR[1]!r}, run_name='__main__')"
    path = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    again = subprocess.run(
        [sys.executable, "-c", script, f"resume={folder}", "trainer.max_epochs=3"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env=path,
    )
    assert again.returncode == 1
    assert re.search(
        r"could not be written \(File too large; .* are free on the disk of .*\): free some space", again.stderr
    )
    assert "Traceback" not in again.stderr
    now = weights(folder)
    assert all(torch.equal(before[name], now[name]) for name in before)


class Terminate(pl.Callback):
    """Sends this process SIGTERM at the end of a training step."""

    def on_train_batch_end(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_in_a_training_is_answered_by_us_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)
    preemption = Preemption()
    trainer = pl.Trainer(
        max_steps=9, accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=[preemption, Terminate()]
    )
    try:
        with caplog.at_level("INFO", "pytorch_lightning"), pytest.raises(SIGTERMException):
            trainer.fit(BoringModel())
    finally:
        preemption.heard()
        signal.signal(signal.SIGTERM, before)
    assert trainer.global_step == 1
    assert "SIGTERM" not in caplog.text, "Lightning's handler, which may lock the ranks, ran too"


@pytest.mark.slow
def test_two_ranks_that_are_preempted_stop_at_once_and_go_on(tmp_path: Path) -> None:
    two = [*TINY[1:], "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=400"]
    folder = tmp_path / "run"
    job = subprocess.Popen([*DOOR, *two, f"hydra.run.dir={folder}"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not done(folder):
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 75
    stopped = Result.read(folder)
    assert stopped is not None and stopped.state == "stopped" and "SIGTERM" in str(stopped.reason)
    epochs = done(folder) + 1
    train(f"resume={folder}", f"trainer.max_epochs={epochs}", cwd=tmp_path)
    assert done(folder) == epochs


@pytest.mark.slow
def test_jobs_stop_and_save_when_their_launcher_is_killed(tmp_path: Path) -> None:
    sweep = ["-m", *TINY, "trainer.max_epochs=4000", "hydra.sweep.dir=sweep"]
    launcher = subprocess.Popen([*DOOR, *sweep], cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not done(tmp_path / "sweep" / "0"):
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 60
    while (stopped := Result.read(tmp_path / "sweep" / "0")) is None:
        assert time.monotonic() < deadline, "the job goes on"
        time.sleep(0.05)
    assert stopped.state == "stopped" and "SIGTERM" in str(stopped.reason)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "what"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, REQUEUE, "Stopped by SIGTERM")]
)
def test_who_stops_a_run_is_told_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int, what: str) -> None:
    folder = tmp_path / "my run"
    line = [*DOOR, *TINY, "trainer.max_epochs=200", f"hydra.run.dir={folder}"]
    job = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not done(folder):
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(number)
    _, said = job.communicate(timeout=60)
    assert job.returncode == code, said
    assert "Traceback" not in said
    assert said.endswith(f"{what}. Go on with: python {ROOT / 'src' / 'train.py'} 'resume={folder}'\n")
    stopped = Result.read(folder)
    assert stopped is not None and (stopped.state, "go on with resume=" in str(stopped.reason)) == ("stopped", True)
    epochs = done(folder)
    train(f"resume={folder}", f"trainer.max_epochs={epochs + 1}", cwd=tmp_path)
    assert done(folder) == epochs + 1


@pytest.mark.slow
def test_a_preempted_run_exits_with_the_code_to_requeue_and_goes_on(tmp_path: Path) -> None:
    epochs = [*TINY, "trainer.max_epochs=40"]
    folder = tmp_path / "run"
    job = subprocess.Popen([*DOOR, *epochs, f"hydra.run.dir={folder}"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not done(folder):
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 75
    stopped = Result.read(folder)
    assert stopped is not None and stopped.state == "stopped" and "SIGTERM" in str(stopped.reason)
    train(f"resume={folder}", "trainer.max_epochs=41", cwd=tmp_path)
    assert done(folder) == 41


@pytest.mark.slow
def test_a_command_that_is_refused_leaves_a_finished_run_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start = tmp_path / "start.safetensors"
    checkpoints.save_release(checkpoints.build(NET), NET, start)
    train(*TINY, "trainer.max_epochs=2", f"init_from={start}", f"hydra.run.dir={folder}", cwd=tmp_path)
    start.unlink()  # the run has a checkpoint of its own
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".json", ".ckpt")}
    for arguments, sentence in (
        ([f"resume={folder}", "generator.width=8"], "does not fit the generator"),
        (
            [f"resume={folder}", "optimizer=adam", "trainer.max_epochs=3"],
            "was trained with optimizer=upsweep.training.optimizers.Muon",
        ),
        ([f"resume={folder}", "+factors.upsampler=0.1", "trainer.max_epochs=3"], "was trained with factors=null"),
        ([f"resume={folder}", "trainer.accelerator=tpu"], "This machine cannot train with"),
        ([f"resume={folder}", "trainer.max_epochs=1"], "trainer.max_epochs=1 must be 2 or more"),
        ([*TINY, "init=xavier", f"hydra.run.dir={folder}"], "already has a run"),
    ):
        refused = subprocess.run([*DOOR, *arguments], cwd=tmp_path, text=True, capture_output=True)
        assert refused.returncode == 1 and sentence in refused.stderr.splitlines()[-1]
        assert kept == {path: path.read_bytes() for path in kept}
    train(f"resume={folder}", "trainer.max_epochs=3", cwd=tmp_path)
    assert done(folder) == 3


@pytest.mark.slow
def test_a_run_that_is_under_way_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = subprocess.Popen([*DOOR, *TINY, "trainer.max_epochs=4000", f"hydra.run.dir={folder}"], cwd=tmp_path)
    while not done(folder):
        assert job.poll() is None
        time.sleep(0.01)
    second = subprocess.run([*DOOR, f"resume={folder}"], cwd=tmp_path, text=True, capture_output=True)
    job.kill()
    job.wait()
    assert second.returncode == 1
    assert f"process {job.pid} of " in second.stderr and " is writing to " in second.stderr
    train(f"resume={folder}", f"trainer.max_epochs={done(folder)}", cwd=tmp_path)


@pytest.mark.slow
def test_a_run_that_is_preempted_before_its_first_step_wants_to_be_run_again(tmp_path: Path) -> None:
    job = subprocess.Popen([*DOOR, *TINY, "hydra.run.dir=run"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not (tmp_path / "run" / ".lock").exists():
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 75
    train(*TINY, "trainer.max_epochs=1", "hydra.run.dir=run", cwd=tmp_path)
