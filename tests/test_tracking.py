"""Runs as they lie on disk, read back by W&B's own reader; and what an offline run must never do."""

import csv
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from tests.small_results import PSNR

from upsweep.common.errors import UserError
from upsweep.doors.train import logger
from upsweep.imaging.lettering import labelled
from upsweep.imaging.tiles import Panel
from upsweep.runs.about import About
from upsweep.runs.result import Result
from upsweep.tracking.csv_run import CsvRun
from upsweep.tracking.explained import log_explanation
from upsweep.tracking.run_log import RunLog
from upsweep.tracking.server import PATIENCE, obstacle
from upsweep.tracking.wandb_run import WandbRun, best_of, run_name

CONF = Path(__file__).resolve().parents[1] / "conf"
BEST = {"psnr": "max", "loss": "min"}
PANEL = Panel("coffee", np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3), "coffee: SR 31.00 dB")

# What a job does, in a process of its own, and as if its sources were in another repository.
JOB = """
import sys
from pathlib import Path
import numpy as np
from upsweep.tracking import wandb_run as tracking
from upsweep.imaging.tiles import Panel

folder, repository = map(Path, sys.argv[1:])
tracking.SOURCE = repository
run = tracking.WandbRun(
    folder,
    best={"psnr": "max", "loss": "min"},
    config={"init": {"fan": "effective"}, "trainer": {"max_epochs": 3}},
    choices={"generator": "fsrcnn", "init": "he"},
    flat={"seed": 0, "scale": 2},
    overrides=["init=he", "seed=0", "data.root=/some/where"],
    tags=["mine"],
)
for step, psnr, loss in [(10, 30.0, 0.5), (20, 31.0, 0.25), (30, 30.5, 0.75)]:
    run.log_metrics({"train/loss": loss}, step=step - 1)
    run.log_metrics({"val/psnr": psnr, "lr": loss}, step=step)
pixels = np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3)
run.log_pictures("pictures", [Panel("coffee", pixels, "coffee: SR 31.00 dB")], step=30)
run.log_summary({"parameters": 12464, "macs_per_pixel": 1560.5})
run.finish()
print(run.sync_command)
"""


class Recorder:
    """A loopback server that notes the first line of whatever reaches it, and answers `reply`, or never."""

    def __init__(self, reply: bytes | None = None) -> None:
        self.reply = reply
        self.seen: list[bytes] = []
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed: the test is over
                return
            self._open.append(connection)
            self.seen.append(connection.recv(65536).split(b"\r\n")[0])
            if self.reply is not None:
                connection.sendall(self.reply)
                connection.close()

    def close(self) -> None:
        for one in (self._server, *self._open):
            one.close()


@contextmanager
def recorder(reply: bytes | None = None) -> Iterator[Recorder]:
    server = Recorder(reply)
    try:
        yield server
    finally:
        server.close()


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment without W&B's variables, keys or proxies, and with an empty home."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "XDG_")) and "proxy" not in k.lower()}
    return {**kept, "HOME": str(home), "NETRC": str(home / ".netrc")}


@cache
def inspect(run: Path, *options: str) -> str:
    """What W&B's own reader says of a run's folder, once the run is finished."""
    (file,) = run.glob("run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(file)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_environment(run))
    return answer.stdout


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(inspect(run, "--summary"))
    return summary


def records_of(run: Path, kind: str) -> list[dict[str, Any]]:
    records = map(json.loads, inspect(run).splitlines())
    return [record[kind] for record in records if record["type"] == kind]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home and environment for W&B in this process, and its service stopped in the end."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in set(os.environ) - set(clean_environment(folder)):
        monkeypatch.delenv(name)
    for name in (
        "CACHE_DIR",
        "DATA_DIR",
        "CONFIG_DIR",
        "ERROR_REPORTING",
    ):  # set by the run, undone by pytest
        monkeypatch.setenv(f"WANDB_{name}", "")
        monkeypatch.delenv(f"WANDB_{name}")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NETRC", str(folder / ".netrc"))
    yield folder
    import wandb

    wandb.teardown()


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """One whole offline job of a sweep, run in a process whose every way out leads to a recorder."""
    base = tmp_path_factory.mktemp("offline")
    home, repository, job = base / "home", base / "repository", base / "my-sweep" / "3"
    for folder in (home, repository, job.parent):
        folder.mkdir()
    (job.parent / "sweep.json").write_text("{}")
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    with recorder() as server:
        ways_out = dict.fromkeys(["WANDB_BASE_URL", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"], server.url)
        before = {path for path in base.rglob("*") if path.is_file()}
        done = subprocess.run(
            [sys.executable, "-c", JOB, str(job), str(repository)],
            capture_output=True,
            text=True,
            cwd=home,
            env=clean_environment(home) | ways_out,
        )
        assert done.returncode == 0, done.stderr
    (run,) = (job / "wandb").glob("offline-run-*")
    written = {path for path in base.rglob("*") if path.is_file()} - before
    return {
        "run": run,
        "job": job,
        "home": home,
        "commit": commit,
        "seen": server.seen,
        "done": done,
        "new": written,
    }


def test_an_offline_run_asks_nobody_and_writes_only_into_its_own_folder(offline):
    assert offline["seen"] == []
    assert list(offline["home"].iterdir()) == []
    assert offline["new"] and all(path.is_relative_to(offline["job"]) for path in offline["new"])
    assert offline["done"].stdout == f"wandb sync {offline['run']}\n"
    assert offline["done"].stderr == ""


def test_config_name_tags_group_and_commit_are_on_disk(offline):
    summary = summary_of(offline["run"])
    assert summary["config"] == {
        "generator": "fsrcnn",
        "init": "he",
        "seed": 0,
        "scale": 2,
        "config": {"init": {"fan": "effective"}, "trainer": {"max_epochs": 3}},
    }
    assert summary["name"] == "init=he seed=0"
    assert summary["tags"] == ["mine", "generator=fsrcnn", "init=he"]
    assert (summary["state"], summary["exit_code"]) == ("finished", 0)
    (run,) = records_of(offline["run"], "run")
    assert run["run_group"] == "my-sweep"
    (commit,) = [e["git"]["commit"] for e in records_of(offline["run"], "environment") if "git" in e]
    assert commit == offline["commit"]


def test_history_has_every_value_at_its_step_and_the_summary_keeps_the_best(offline):
    history = [record["item"] for record in records_of(offline["run"], "history")]
    curve = {
        key: [(h["trainer/global_step"], h[key]) for h in history if key in h] for key in ("train/loss", "val/psnr")
    }
    assert curve["train/loss"] == [(9, 0.5), (19, 0.25), (29, 0.75)]
    assert curve["val/psnr"] == [(10, 30.0), (20, 31.0), (30, 30.5)]
    summary = summary_of(offline["run"])["summary"]
    assert summary["val/psnr"] == {"max": 31.0}
    assert summary["train/loss"] == {"min": 0.25}
    assert summary["lr"] == 0.75
    assert (summary["parameters"], summary["macs_per_pixel"]) == (12464, 1560.5)
    axes = {metric["name"]: metric["step_metric"] for metric in records_of(offline["run"], "metric")}
    assert axes == dict.fromkeys(["train/loss", "val/psnr", "lr", "pictures/coffee"], "trainer/global_step")


def test_pictures_are_there_with_their_captions(offline):
    (record,) = [r["item"] for r in records_of(offline["run"], "history") if "pictures/coffee.path" in r["item"]]
    assert record["pictures/coffee.caption"] == PANEL.caption
    assert record["trainer/global_step"] == 30
    with Image.open(offline["run"] / "files" / record["pictures/coffee.path"]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), PANEL.pixels)
        assert picture.info["Software"] == "upsweep"  # so that no data set takes it for a photo


class Crashing(pl.LightningModule):
    """One that logs in two steps and breaks in the third, or never."""

    def __init__(self, breaks: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.breaks = breaks

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        if self.breaks and index == 2:
            raise RuntimeError("the disk is full")
        loss = (self.weight * batch).sum()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("breaks", [True, False])
def test_a_crashed_job_is_marked_as_failed_and_a_whole_one_is_not(home, tmp_path, breaks):
    run = WandbRun(tmp_path / "job", best=BEST)
    trainer = pl.Trainer(
        logger=run,
        max_epochs=1,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data: torch.utils.data.DataLoader[torch.Tensor] = torch.utils.data.DataLoader(list(torch.arange(4.0)))  # type: ignore[arg-type]
    if breaks:
        with pytest.raises(RuntimeError, match="disk is full"):
            trainer.fit(Crashing(breaks), data)
    else:
        trainer.fit(Crashing(breaks), data)  # after which Lightning finalizes its loggers
        run.log_metrics({"val/psnr": 30.0}, step=4)
    directory = run.directory
    assert directory is not None
    run.finish()
    summary = summary_of(directory)
    assert (summary["state"], summary["exit_code"]) == (("failed", 1) if breaks else ("finished", 0))
    assert len([h for h in records_of(directory, "history") if "train/loss" in h["item"]]) == (2 if breaks else 4)
    assert list(home.iterdir()) == []


def answer(code: str, body: bytes = b"{}") -> bytes:
    return f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("key", "reply", "sentence"),
    [
        (False, answer("200 OK"), "there is no API key; run `wandb login` once, or set WANDB_API_KEY"),
        (True, None, "cannot be reached (no answer in 6 s): check the network"),
        (True, answer("503 Busy"), "cannot be reached (it answers 503): check the network"),
        (True, answer("401 Unauthorized"), "refuses the run"),
    ],
    ids=["no-key", "silent-server", "broken-server", "wrong-key"],
)
def test_an_online_run_that_cannot_start_says_why_and_goes_on_offline(
    home, tmp_path, monkeypatch, caplog, key, reply, sentence
):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with recorder(reply) as server, caplog.at_level(logging.WARNING, "upsweep"):
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        started = time.monotonic()
        run = WandbRun(tmp_path / "job", mode="online", best=BEST)
        run.log_metrics({"val/psnr": 31.0}, step=1)
        assert time.monotonic() - started < 15
        run.finish()
    (told,) = [record.getMessage() for record in caplog.records if record.name == "upsweep"]
    assert sentence in told and str(run.sync_command) in told
    assert run.mode == "offline" and run.directory is not None
    assert summary_of(run.directory)["summary"]["val/psnr"] == {"max": 31.0}
    assert list(home.iterdir()) == []
    assert not key or server.seen


def test_a_closed_port_is_noticed_at_once():
    with socket.create_server(("127.0.0.1", 0)) as once:
        url = f"http://127.0.0.1:{once.getsockname()[1]}"
    started = time.monotonic()
    assert "Connection refused" in str(obstacle(url))
    assert time.monotonic() - started < PATIENCE


def test_a_resumed_job_continues_its_run(home, tmp_path):
    parts = []
    for psnr in (30.0, 31.0):
        run = WandbRun(tmp_path / "job", best=BEST)
        run.log_metrics({"val/psnr": psnr}, step=1)
        run.finish()
        parts.append(run.directory)
    assert parts[0] != parts[1]
    assert len({summary_of(part)["run_id"] for part in parts if part}) == 1
    # Without this mark an upload of the second part overwrites the history of the first.
    assert all(records_of(part, "run")[0]["resume"] for part in parts if part)
    assert run.sync_command == f"wandb sync {parts[0]} {parts[1]}"


def test_only_rank_zero_opens_a_run(home, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    run = WandbRun(tmp_path / "job")
    run.log_metrics({"val/psnr": 30.0}, step=1)
    run.log_pictures("pictures", [PANEL], step=1)
    run.log_summary({"parameters": 1})
    run.finish()
    assert run.directory is None and not (tmp_path / "job").exists()


def test_a_disabled_run_takes_everything_and_keeps_nothing(home, tmp_path):
    run = WandbRun(tmp_path / "job", mode="disabled")
    run.log_metrics({"val/psnr": 30.0}, step=1)
    run.log_pictures("pictures", [PANEL], step=1)
    run.log_summary({"parameters": 1})
    run.finish()
    assert run.directory is None and run.sync_command is None
    assert list(home.iterdir()) == []


def test_an_unknown_mode_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=r"logger\.mode=onlin is unknown.*online, offline, disabled"):
        WandbRun(tmp_path, mode="onlin")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["init=he", "norm=bn", "seed=1"], "init=he norm=bn seed=1"),
        (["init.fan=torch", "hydra.run.dir=x", "data.root=/a/b", "++hydra.job.num=1"], "init.fan=torch"),
        (["init=he", "resume='/a/run'", "++judge_anew=true"], "init=he"),
        ([], "fsrcnn"),
        (["x=" + "1" * 200], "x=" + "1" * 126),
    ],
)
def test_the_name_says_what_the_command_line_chose(overrides, name):
    assert run_name(overrides, {"generator": "fsrcnn"}) == name


def test_the_summary_of_a_metric_is_chosen_by_a_part_of_its_name():
    assert [best_of(name, BEST) for name in ("val/psnr_gain", "train/loss", "lr")] == ["max", "min", None]


def test_csv_files_hold_metrics_config_summary_and_pictures(tmp_path):
    run = CsvRun(tmp_path, config={"init": {"fan": "torch"}}, choices={"init": "he"}, flat={"seed": 0})
    run.log_metrics({"val/psnr": 30.0}, step=1)
    run.log_metrics({"val/psnr": 31.0, "lr": 0.5}, step=2)
    run.log_pictures("pictures", [PANEL], step=2)
    run.log_summary({"parameters": 12464})
    run.finish(exit_code=0)
    folder = tmp_path / "csv" / "version_0"
    with (folder / "metrics.csv").open() as file:
        rows = [(row["step"], row["val/psnr"], row["lr"]) for row in csv.DictReader(file)]
    assert rows == [("1", "30.0", ""), ("2", "31.0", "0.5")]
    said = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert said["config"] == {"init": {"fan": "torch"}}
    assert (said["init"], said["seed"], said["parameters"], said["exit_code"]) == ("he", 0, 12464, 0)
    with Image.open(folder / "pictures" / "coffee-2.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), labelled(PANEL.pixels, [PANEL.caption]))
        assert picture.info["Description"] == PANEL.caption


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "logger").glob("*.yaml")))
def test_every_logger_of_the_config_takes_the_same_call(name, tmp_path, monkeypatch):
    if name in ("tensorboard", "mlflow"):
        pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(overrides=[f"+logger={name}"]).logger
    nested = {"generator": {"_target_": "never.made"}}  # the config of a run must not come to life in its logger
    run = logger(node, tmp_path, config=nested, choices={"init": "he"}, flat={"seed": 0}, overrides=[], figures=())
    if name == "none":
        assert run is None
        return
    assert isinstance(run, RunLog) and isinstance(run, pl.loggers.Logger)
    assert getattr(run, "mode", "disabled") == "disabled"  # WANDB_MODE got through


def test_where_wandb_fails_that_is_told_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def lost(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise ConnectionResetError("Connection lost")

    run = WandbRun(tmp_path)
    monkeypatch.setattr(run, "_log", lost)
    for step in range(3):
        run.log_metrics({"loss": 1.0}, step)
        run.log_summary({"state": "finished"})
    run.finish()
    assert len(calls) == 1
    assert caplog.text.count("W&B failed (Connection lost): the run continues without it.") == 1


class Own(WandbRun):
    def log_metrics(self, metrics, step=None):
        raise RuntimeError("no metrics")

    def log_table(self, key, rows):
        raise RuntimeError("no table")


def test_a_log_of_ones_own_that_is_derived_from_it_ends_no_run_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Own(tmp_path)
    run.log_table("images", [])
    run.log_metrics({"loss": 1.0}, 1)
    run.log_metrics({"loss": 1.0}, 2)
    assert [record.getMessage() for record in caplog.records if record.name == "upsweep"] == [
        "W&B did not take the table of the run (no table): it continues without.",
        "W&B failed (no metrics): the run continues without it.",
    ]


def test_an_empty_variable_of_wandbs_is_none_and_the_name_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_NOTES", "")
    run = WandbRun(tmp_path, name="mine", mode="disabled")
    assert run._init["name"] == "mine" and "WANDB_NOTES" not in os.environ


def explained(folder: Path, **options: Any) -> Path:
    """The part of a W&B run that an explanation adds."""
    before = set((folder / "wandb").glob("offline-run-*"))
    (said,) = log_explanation(folder, {"erf": 13.0, "diffusion": 12.5}, [PANEL], mode="offline", **options)
    (part,) = set((folder / "wandb").glob("offline-run-*")) - before
    assert said.startswith("upload with wandb sync ") and str(part) in said
    return part


def test_an_explanation_goes_into_the_jobs_own_run_and_changes_neither_its_steps_nor_its_best_values(home, tmp_path):
    job = tmp_path / "my-sweep" / "3"
    job.mkdir(parents=True)
    (job.parent / "sweep.json").write_text("{}")
    logger = {"_target_": "upsweep.tracking.wandb_run.WandbRun", "project": "mine", "tags": ["tagged"], "name": None}
    config = {"init": {"fan": "effective"}, "logger": logger}
    told: dict[str, Any] = {"choices": {"init": "he"}, "overrides": ["init=he", "seed=0"], "figures": (PSNR,)}
    run = WandbRun(job, project="mine", tags=["tagged"], config=config, flat={"seed": 0, "scale": 2}, **told)
    for step, psnr in ((10, 31.0), (20, 30.0)):
        run.log_metrics({"val/psnr": psnr}, step=step)
    run.finish()
    assert run.directory is not None
    About(config=config).write(job)
    result = Result(state="finished", choices=told["choices"], overrides=told["overrides"], seed=0, scale=2)
    replace(result, declared=told["figures"]).write(job)

    part = explained(job, project="upsweep", tags=[], name=None, best={"loss": "min"})
    before, after = summary_of(run.directory), summary_of(part)
    assert before["project"] == "mine"
    for same in ("run_id", "project", "name", "tags", "config"):
        assert after[same] == before[same], same
    assert records_of(part, "run")[0]["run_group"] == "my-sweep" and records_of(part, "run")[0]["resume"]
    said = after["summary"]
    assert (said["why/erf"], said["why/diffusion"]) == (13.0, 12.5)
    (logged,) = [record["item"] for record in records_of(part, "history")]
    with Image.open(part / "files" / logged["why/coffee.path"]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), PANEL.pixels)
    assert logged["why/coffee.caption"] == PANEL.caption
    assert "trainer/global_step" not in {*logged, *said} and "val/psnr" not in {*logged, *said}
    assert before["summary"]["val/psnr"] == {"max": 31.0}


def test_an_explanation_of_a_folder_without_a_run_is_a_run_of_its_own(home, tmp_path):
    part = explained(tmp_path / "why-two-networks", project="upsweep", name=None)
    said = summary_of(part)
    assert (said["name"], said["summary"]["why/erf"]) == ("why-two-networks", 13.0)
    assert summary_of(explained(tmp_path / "other", name="mine"))["name"] == "mine"
