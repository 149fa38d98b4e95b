"""Sweeps, with real processes: what each job is given, what is left of it, and the table that ranks them."""

import contextlib
import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from upsweep.common import ranks
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image
from upsweep.metrics.figure import Figure
from upsweep.runs.layout import RESULT
from upsweep.runs.progress import Progress
from upsweep.runs.result import FIGURES_OF_VERSION_1, Result
from upsweep.sweeps import processes
from upsweep.sweeps.jobs import Planned, telling_lines
from upsweep.sweeps.launcher import OnceEach
from upsweep.sweeps.live import LiveTable, PlainLines, Status, display, seconds_left
from upsweep.sweeps.overrides import quoted

ROOT = Path(__file__).parents[1]


def result(state="finished", psnr=None, **rest):
    figures = {} if psnr is None else {"psnr": psnr}
    return Result(
        state=state, choices={}, overrides=[], seed=1, scale=2, declared=FIGURES_OF_VERSION_1, figures=figures, **rest
    )


# ---------------------------------------------------------------------------------------------- live


def test_the_time_left_counts_what_runs_and_what_waits():
    done = Status(Path(), {}, started_at=0.0, result=result(seconds=10.0))
    running = Status(Path(), {}, started_at=100.0, progress=Progress(seconds_left=4.0))
    waiting = Status(Path(), {})
    assert seconds_left({"0": waiting}, 1, now=110.0) is None
    # A job takes 10 s, or 10 + 4: 12 on average; two of them wait.
    jobs = {"0": done, "1": running, "2": waiting, "3": waiting}
    assert seconds_left(jobs, 1, now=110.0) == pytest.approx(4 + 2 * 12)
    assert seconds_left(jobs, 2, now=110.0) == pytest.approx((4 + 2 * 12) / 2)


def test_a_simple_terminal_gets_lines_since_nothing_can_be_drawn_again(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    with display({"0": Status(Path(), {"seed": "1"}, started_at=0.0)}, 1, terminal) as tick:
        tick()
    assert terminal.getvalue().startswith("job 0 started")


def test_the_live_table_keeps_to_the_height_and_shows_what_matters():
    jobs = {str(i): Status(Path(), {"seed": str(i)}, result=result()) for i in range(40)}
    jobs["run"] = Status(Path(), {"seed": "40"}, started_at=0.0, progress=Progress(epoch=2, epochs=9))
    jobs["bad"] = Status(Path(), {"seed": "41"}, result=result("failed"))
    live = LiveTable(jobs, 1, io.StringIO())
    table = live.table(height=10)
    live.close()
    assert len(table.rows) == 10
    assert [row[0] for row in table.rows[:2]] == ["run", "bad"]
    assert "2/9" in table.rows[0]
    assert "32 jobs not shown" in table.title


@pytest.mark.parametrize(
    ("figure", "value", "cell", "said"),
    [
        (FIGURES_OF_VERSION_1[0], 30.123, "30.12", "PSNR 30.12 dB"),
        (Figure(name="rmse", title="RMSE", better="lower", digits=4), 0.12345, "0.1235", "RMSE 0.1235"),
    ],
)
def test_what_runs_is_shown_with_the_headline_of_its_task(figure, value, cell, said):
    progress = Progress(epoch=1, epochs=2, figures={figure.name: value, "other": 7.0}, seconds_left=5.0)
    job = Status(Path("/none"), {"seed": "1"}, figure, started_at=0.0, progress=progress)
    live = LiveTable({"0": job}, 1, io.StringIO())
    table = live.table(height=10)
    live.close()
    assert dict(zip(table.headers, table.rows[0], strict=True))[figure.title] == cell
    job.result = replace(result(), declared=(figure,), figures={figure.name: value})
    out = io.StringIO()
    PlainLines({"0": job}, 1, out).update()
    assert out.getvalue().endswith(f", {said}\n")


def test_a_job_below_its_baseline_is_shown_so():
    ended = replace(result(), figures={"psnr": 28.0}, last={}, baseline={"psnr": 29.776})
    job = Status(Path("/none"), {"seed": "1"}, FIGURES_OF_VERSION_1[0], started_at=0.0, result=ended)
    live = LiveTable({"0": job}, 1, io.StringIO())
    assert live.table(height=10).rows[0][-1] == "finished, below bicubic: 1.78 dB"
    live.close()
    out = io.StringIO()
    PlainLines({"0": job}, 1, out).update()
    assert out.getvalue().endswith("PSNR 28.00 dB, below bicubic: 1.78 dB\n")


def test_a_job_that_ended_is_told_once_though_a_search_shows_its_jobs_batch_by_batch():
    jobs = {"0": Status(Path("/none"), {"seed": "1"}, FIGURES_OF_VERSION_1[0], started_at=0.0, result=result())}
    out = io.StringIO()
    for _ in range(2):
        with display(jobs, 1, out):
            pass
    assert out.getvalue().count("job 0 finished") == 1


# ----------------------------------------------------------------------------------------- processes


def test_a_job_within_an_allocation_of_slurm_waits_for_no_tasks(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "2")
    env = processes.environment((), None, 12000)
    assert [name for name in env if name.startswith("SLURM")] == ["SLURM_JOB_ID"]


def test_no_trace_of_a_rank_is_handed_on(monkeypatch):
    for name in (*ranks._LEFT, "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("KEPT", "yes")
    env = processes.environment((), threads=3, port=23456)
    assert not (ranks._LEFT - {"MASTER_PORT"}) & env.keys()
    assert not any(name.startswith("TORCHELASTIC") for name in env)
    assert (env["MASTER_PORT"], env["KEPT"], env["OMP_NUM_THREADS"]) == ("23456", "yes", "3")
    assert env["OMP_WAIT_POLICY"] == "ACTIVE", "the user's own setting stays"


def test_ports_are_free_and_differ():
    ports: set[int] = set()
    for _ in range(50):
        ports.add(processes.free_port(ports))
    assert len(ports) == 50


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_quoted_value_is_read_back_by_hydra(text):
    override = OverridesParser.create().parse_override(f"key={quoted(text)}")
    assert OmegaConf.create({"key": override.value()}).key == text


def test_the_config_of_a_job_is_composed_once_for_the_sweeper_and_the_launcher():
    composed = []

    class Loader:
        def load_sweep_config(self, master, overrides):
            composed.append(overrides)
            return OmegaConf.create({"choice": overrides[0], "twice": "${choice}${choice}"})

    once, master = OnceEach(cast(Any, Loader())), OmegaConf.create()
    jobs = [["a"], ["b"]]
    validated = [once(master, job) for job in jobs]
    planned = [once(master, job) for job in jobs]
    assert composed == jobs and planned == validated and planned[1].twice == "bb"
    first = once(master, ["a"])
    first.choice = "changed by the launcher"
    assert once(master, ["a"]).choice == "a", "two jobs may be alike"


@pytest.mark.parametrize("quiet", [False, True])
def test_composing_that_takes_long_is_told_once_and_never_in_a_quiet_sweep(monkeypatch, capsys, quiet):
    class Loader:
        def load_sweep_config(self, master, overrides):
            return OmegaConf.create({})

    clock = iter(range(0, 100, 3))
    monkeypatch.setattr("upsweep.sweeps.launcher.time.monotonic", lambda: float(next(clock)))
    once = OnceEach(cast(Any, Loader()))
    for job in (["a"], ["b"], ["c"]):
        once(OmegaConf.create({"quiet": quiet}), job)
    assert capsys.readouterr().err.count("Composing the configs of all jobs") == (0 if quiet else 1)


def test_a_log_tells_which_error_came_first_and_how_it_ended(tmp_path):
    log = tmp_path / "job.log"
    log.write_text(
        "start\n" * 20_000
        + """[rank1]: Traceback (most recent call last):
[rank1]:   File "a.py", line 1, in f
[rank1]:     f()
[rank1]:     ^^^
[rank1]: ValueError: the cause

Traceback (most recent call last):
  File "b.py", line 2, in g
    g()
RuntimeError: a peer has gone
"""
        + "10%\r50%\r100%\n\nclosing\n"
    )
    assert telling_lines(log) == [
        *("ValueError: the cause", "RuntimeError: a peer has gone"),
        *("10%", "50%", "100%", "closing"),
    ]
    log.write_bytes(b"Nothing to eat:\xff buy bread.\n")
    assert telling_lines(log) == ["Nothing to eat:\ufffd buy bread."]


def test_a_job_that_died_before_its_log_existed_has_failed_alone(tmp_path):
    assert telling_lines(tmp_path / "job.log") == []
    config = OmegaConf.create({"seed": 1, "tuned": ["lr"], "hydra": {"runtime": {"choices": {"init": "he"}}}})
    (tmp_path / "0").mkdir()
    left = Planned("0", tmp_path / "0", 0, ["init=he"], config).result(1, None)
    assert (left.state, left.reason, left.tuned) == ("failed", "exit code 1", ["lr"])
    assert Result.read(tmp_path / "0") == left


# ------------------------------------------------------------------------------------ whole sweeps

DOOR = """
import json, os, random, signal, subprocess, sys, time
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from upsweep.cli import door
from upsweep.common.errors import UserError
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image
from upsweep.analysis.ranking import chosen
from upsweep.runs.progress import Progress
from upsweep.runs.result import Result
from upsweep.sweeps.jobs import declared_in

@door("train", config_path=Path(__file__).parents[1] / "conf")
def main(config):
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    seen = dict(env=dict(os.environ), random=random.random(), cwd=os.getcwd())
    seen["hydra"] = OmegaConf.to_container(hydra)
    seen["config"] = OmegaConf.to_container(config, resolve=True)
    (folder / "seen.json").write_text(json.dumps(seen, default=str))
    os.environ["LEAK"] = "1"
    random.seed(0)
    def end(state, psnr, **rest):
        Result(state=state, choices=chosen(hydra.runtime.choices), overrides=list(hydra.overrides.task),
               seed=config.seed, scale=2, declared=declared_in(config), figures={"psnr": psnr}, **rest).write(folder)
        return rest.get("objective")
    act = config.act
    if act == "user": raise UserError("Nothing to eat: buy bread.")
    if act == "bug": raise RuntimeError("a bug")
    if act == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if act == "silent": return None
    if act == "late":
        end("finished", psnr=99.0)
        os._exit(3)
    if act == "diverge": return end("diverged", psnr=50.0)
    if act == "orphan":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / "child").write_text(str(child.pid))
        raise RuntimeError("a rank failed")
    if act in ("sleep", "stubborn"):
        if act == "stubborn": signal.signal(signal.SIGINT, signal.SIG_IGN)
        Progress(epoch=1, epochs=9).write(folder)
        try:
            time.sleep(120)
        except KeyboardInterrupt:
            end("stopped", psnr=7.0)
            sys.exit(1)
    if act == "alone" and not (folder / "mark").exists():
        (folder / "mark").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if act == "meet":  # goes on only when another job is running too
        (folder / "here").touch()
        deadline = time.monotonic() + 60
        while len(list(folder.parent.glob("*/here"))) < 2:
            if time.monotonic() > deadline: raise RuntimeError("nobody came")
            time.sleep(0.05)
    return end("finished", psnr=30.0 + config.seed, objective=30.0 + config.seed, seconds=1.0)

if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults: [_self_, {init: he}, {debug: null}, {override hydra/launcher: quick}]
seed: 1
act: finish
text: plain
nested: {a: {b: 1}}
resume: null
task: {figures: [{name: psnr, title: PSNR, unit: dB, noise: 0.05, baseline: bicubic}]}
hydra: {sweep: {dir: sweep}, run: {dir: run}}
"""

QUICK = "defaults: [process]\nparallel: 1\npreload: []\n"


@pytest.fixture
def door(tmp_path):
    """A door of another project, in a folder whose name is a trap."""
    home = tmp_path / 'it\'s, a="trap" {x}'
    files = {
        "src/train.py": DOOR,
        "conf/train.yaml": CONFIG,
        "conf/other.yaml": CONFIG + "other: true\n",
        "conf/init/he.yaml": "{fan: effective, gain: 1}",
        "conf/init/xavier.yaml": "{fan: effective, gain: 2}",
        "conf/debug/fast.yaml": "{}",
        "conf/hydra/launcher/quick.yaml": QUICK,
        "more conf/init/mine.yaml": "{fan: mine}",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    return home


def environment(**extra):
    unset = {"HYDRA_FULL_ERROR", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"}
    env = {name: value for name, value in os.environ.items() if name not in unset}
    return env | {"PYTHONPATH": str(ROOT / "src")} | extra


def run(door, *arguments, **extra):
    return subprocess.run(
        [sys.executable, "src/train.py", *arguments],
        cwd=door,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=120,
    )


def seen(folder):
    return json.loads((folder / "seen.json").read_text())


def state(folder):
    read = Result.read(folder)
    return None if read is None else read.state


def test_every_value_arrives_as_hydras_own_launcher_hands_it_on(door):
    arguments = [
        "--config-name=other",
        "--config-dir=more conf",
        "-m",
        "init=mine",
        r"""text='it\'s a=b, {c: [d]} "e" \\',"two  spaces",'a,b=c'""",
        "nested.a.b=[1,'x, y']",
        "+new.key='=,'",
        "hydra.sweep.dir='out, a=b/it\\'s'",
        "hydra.sweep.subdir=${hydra:job.num}-${hydra:runtime.choices.init}",
        "hydra.job.name='my name'",
    ]
    ours = run(door, *arguments)
    assert ours.returncode == 0, ours.stderr
    out = door / "out, a=b" / "it's"
    names = ["0-mine", "1-mine", "2-mine"]
    mine = {name: seen(out / name) for name in names}
    basic = run(door, *arguments, "hydra/launcher=basic")
    assert basic.returncode == 0, basic.stderr
    for name in names:
        theirs = seen(out / name)
        assert mine[name]["config"] == theirs["config"]
        assert mine[name]["hydra"]["job"] == theirs["hydra"]["job"]
        assert mine[name]["hydra"]["overrides"]["task"] == theirs["hydra"]["overrides"]["task"]
        assert mine[name]["hydra"]["runtime"]["output_dir"] == str(out / name)
    assert mine["0-mine"]["config"]["text"] == """it's a=b, {c: [d]} "e" \\"""
    assert {job["name"] for job in json.loads((out / "sweep.json").read_text())["jobs"]} == set(names)


def test_nothing_of_one_job_reaches_the_next(door):
    done = run(door, "-m", "seed=1,2", LOCAL_RANK="1", WORLD_SIZE="2", MASTER_ADDR="nowhere", PL_GLOBAL_SEED="7")
    assert done.returncode == 0, done.stderr
    first, second = seen(door / "sweep/0"), seen(door / "sweep/1")
    assert not {"LEAK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "PL_GLOBAL_SEED"} & second["env"].keys()
    varying = {name for name, value in first["env"].items() if second["env"].get(name) != value}
    assert varying == {"MASTER_PORT", "UPSWEEP_PARENT"}
    assert first["random"] != second["random"]
    assert first["cwd"] == str(door)
    assert not (door / "sweep/report.html").exists(), "this config asks for none"


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
def test_jobs_whose_server_was_killed_run_again_without_it(door):
    done = run(door, "-m", "act=alone,finish")
    assert done.returncode == 0, done.stderr
    assert "job 0 starts again: the process that had forked it was killed." in done.stdout
    assert [state(door / "sweep" / name) for name in ("0", "1")] == ["finished", "finished"]


def test_failures_are_named_and_the_others_finish(door):
    acts = ["user", "bug", "kill", "silent", "late", "diverge", "finish"]
    done = run(door, "-m", f"act={','.join(acts)}", "hydra.launcher.parallel=2")
    assert done.returncode == 1
    states = {act: state(door / "sweep" / str(i)) for i, act in enumerate(acts)}
    assert states == dict.fromkeys(acts, "failed") | {"diverge": "diverged", "finish": "finished"}
    lines = done.stdout.splitlines()
    table = lines[lines.index("1 of 7 jobs finished") + 2 :][:7]
    assert [row.split()[1] for row in table[:2]] == ["finish", "diverge"]
    assert "Nothing to eat: buy bread." in done.stdout
    assert "RuntimeError: a bug" in done.stdout
    assert "job 2 failed: killed by SIGKILL" in done.stdout
    assert "job 3 failed: it ended without writing result.json" in done.stdout
    assert "job 4 failed: exit code 3" in done.stdout
    assert "5 of 7 jobs did not finish (0, 1, 2, 3, 4)" in done.stderr
    assert "Traceback" not in done.stderr
    (bug,) = (read for read in [Result.read(door / "sweep/1")] if read is not None)
    assert bug.headline is not None and bug.headline.title == "PSNR", "as its config's task declares it"
    with (door / "sweep/results.csv").open(newline="") as file:
        assert [row["act"] for row in csv.DictReader(file)][:2] == ["finish", "diverge"]


@pytest.mark.slow
def test_a_failed_batch_does_not_keep_hydras_sweeper_from_the_next(door):
    done = run(door, "-m", "act=bug,user,finish", "seed=1,2", "hydra.sweeper.max_batch_size=2")
    assert done.returncode == 1
    assert [state(door / "sweep" / str(i)) for i in range(6)] == ["failed"] * 4 + ["finished"] * 2
    assert "4 of 6 jobs did not finish (0, 1, 2, 3)" in done.stderr and "Traceback" not in done.stderr


def test_the_same_job_twice_is_run_once_and_the_sweep_goes_on_later(door):
    done = run(door, "-m", "seed=1,2,1")
    assert done.returncode == 0 and "1 of 3 jobs are the same as others, and are run once." in done.stdout
    assert [job["name"] for job in json.loads((door / "sweep/sweep.json").read_text())["jobs"]] == ["0", "1"]
    again = run(door, "-m", "seed=1,2,1", "hydra.launcher.resume=true")
    assert again.returncode == 0 and "2 of 2 jobs are kept, 0 to run." in again.stdout


def test_a_sweep_goes_on_without_the_weights_that_its_jobs_began_with(door):
    (door / "gone.ckpt").touch()
    assert run(door, "-m", "act=silent", "+init_from=gone.ckpt").returncode == 1
    (door / "gone.ckpt").unlink()
    (door / "sweep/0/checkpoints").mkdir()
    assert "init_from=gone.ckpt: there is no such checkpoint" in run(door, "-m", "resume=sweep").stderr
    (door / "sweep/0/seen.json").unlink()
    (door / "sweep/0/checkpoints/last.ckpt").touch()
    run(door, "-m", "resume=sweep")
    assert (door / "sweep/0/seen.json").is_file(), "the job has a checkpoint of its own, and runs"


def test_a_sweep_goes_on_with_more_seeds_alone_and_its_table_has_all(door):
    assert run(door, "-m", "init=he,xavier", "seed=1,2").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in door.glob("sweep/*/result.json")}
    done = run(door, "-m", "resume=sweep", "seed=3")
    assert done.returncode == 0 and "4 of 6 jobs are kept, 2 to run." in done.stdout
    assert "6 of 6 jobs finished" in done.stdout and before == {path: path.stat().st_mtime_ns for path in before}
    with (door / "sweep/results.csv").open(newline="") as file:
        ran = {(row["init"], row["seed"]) for row in csv.DictReader(file)}
    assert ran == {(init, seed) for init in ("he", "xavier") for seed in "123"}
    assert len(json.loads((door / "sweep/sweep.json").read_text())["jobs"]) == 6
    (door / "sweep/1/result.json").unlink()  # of the first command: a plain resume still knows it
    assert "5 of 6 jobs are kept, 1 to run." in run(door, "-m", "resume=sweep").stdout
    (door / "sweep/4/result.json").unlink()
    told = run(door, "-m", "resume=sweep", "+data.num_workers=2").stdout
    assert "5 of 6 jobs are kept, 1 to run." in told, "a word that changes no figure makes no other job"
    jobs = json.loads((door / "sweep/sweep.json").read_text())["jobs"]
    assert len(jobs) == 6 and "+data.num_workers=2" in jobs[4]["overrides"]


@pytest.mark.parametrize("stream", ["pipe", "/dev/full", "closed"])
def test_a_sweep_whose_words_nobody_hears_ends_all_the_same(door, stream):
    reading, writing = os.pipe()
    os.close(reading)
    out = writing if stream == "pipe" else os.open("/dev/full" if stream == "/dev/full" else os.devnull, os.O_WRONLY)
    command = shlex.join([sys.executable, "src/train.py", "-m", "seed=1,2"]) + (" >&-" if stream == "closed" else "")
    done = subprocess.run(["sh", "-c", command], cwd=door, env=environment(), stdout=out, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len((door / "sweep" / "results.csv").read_text().splitlines()) == 3


def test_words_that_an_encoding_does_not_know_are_written_otherwise_and_files_before_words(door):
    done = run(door, "-m", "seed=1,2", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and r"\xb1 sample sd" in done.stdout
    assert len((door / "sweep" / "results.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_job_that_hangs_is_stopped_when_its_time_is_over(door):
    done = run(door, "-m", "act=finish,sleep", "hydra.launcher.timeout=0.2", "hydra.launcher.parallel=2")
    assert done.returncode == 1 and "job 1 stopped: it took more than hydra.launcher.timeout=0.2 minutes" in done.stdout
    assert [state(door / "sweep" / name) for name in "01"] == ["finished", "stopped"]
    done = run(door, "-m", "seed=4", "hydra.launcher.timeout=0", "hydra.sweep.dir=other")
    assert done.returncode == 1 and "hydra.launcher.timeout=0" in done.stderr


def test_a_folder_has_one_sweep_at_a_time(door):
    first = started(door, "-m", "act=sleep", until=["sweep/0/progress.json"])
    second = run(door, "-m", "seed=5")
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert " is writing to " in second.stderr and "hydra.sweep.dir" in second.stderr


@pytest.mark.slow
def test_a_sweep_ends_with_its_report_also_where_all_failed(door):
    done = run(door, "-m", "act=user,bug", "+report.enabled=true")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    report = door / "sweep" / "report.html"
    assert f"Report: {report}" in done.stdout
    assert "No run has finished with a PSNR" in report.read_text(encoding="utf-8")


def test_a_report_that_cannot_be_made_is_one_sentence_and_loses_nothing(door):
    (door / "sweep" / "report.html").mkdir(parents=True)
    done = run(door, "-m", "seed=1", "+report.enabled=true")
    assert done.returncode == 0 and "31.00" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("The report could not be made (") and f"python {ROOT / 'src' / 'report.py'} 'sweep=" in line
    assert (door / "sweep" / "results.csv").is_file()
    said = json.loads((door / "sweep" / "sweep.json").read_text())
    assert said["machine"]["system"] and said["versions"]["python"] and "commit" in said


@pytest.mark.slow
def test_an_old_result_is_not_taken_for_a_new_one(door):
    assert run(door, "-m", "act=diverge").returncode == 0, "a diverged job is no failure"
    assert run(door, "-m", "act=silent").returncode == 1
    assert state(door / "sweep/0") == "failed"


def test_a_finished_sweep_is_not_overwritten(door):
    assert run(door, "-m", "seed=1,2").returncode == 0
    before = {path: path.read_bytes() for path in door.glob("sweep/**/*") if path.suffix in (".json", ".csv")}
    again = run(door, "-m", "seed=3,1,2")
    assert again.returncode == 1 and "Traceback" not in again.stderr
    (line,) = again.stderr.splitlines()
    assert "already has a run: -m resume=" in line and "hydra.sweep.dir" in line
    assert before == {path: path.read_bytes() for path in before}
    other = run(door, "-m", "seed=3", "hydra.sweep.subdir=another")
    assert other.returncode == 1 and f"{door / 'sweep/0'} already has a run: -m resume=" in other.stderr
    assert before == {path: path.read_bytes() for path in before}, "its table and its list of jobs would be lost"


@pytest.mark.parametrize("text", ["", '{"version": 2, "state": "fin'])
def test_a_broken_record_of_one_job_costs_that_job_alone(door, text):
    assert run(door, "-m", "seed=1,2,3").returncode == 0
    kept = (door / "sweep/0/seen.json").stat().st_mtime_ns
    (door / "sweep/1/result.json").write_text(text)
    manifest = json.loads((door / "sweep/sweep.json").read_text())
    manifest["jobs"][2] = None if text else {"name": "2"}
    (door / "sweep/sweep.json").write_text(json.dumps(manifest))
    done = run(door, "-m", "resume=sweep")
    assert done.returncode == 0, done.stderr
    entry, record = done.stderr.splitlines()
    assert "sweep.json cannot be read at its job 2" in entry and entry.endswith("that job is run again.")
    assert record.startswith("Job 1 is run again: ") and "1/result.json cannot be read" in record
    assert "1 of 3 jobs are kept, 2 to run." in done.stdout
    assert (door / "sweep/0/seen.json").stat().st_mtime_ns == kept
    with (door / "sweep/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["state"]) for row in rows] == [(seed, "finished") for seed in "321"]
    assert "resume" not in rows[0], "that a job went on is no choice"


@pytest.mark.slow
def test_no_process_of_a_failed_job_is_left_behind(door):
    started = time.monotonic()
    assert run(door, "-m", "act=orphan,finish").returncode == 1
    assert time.monotonic() - started < 60  # the orphan would sleep for ten minutes
    child = int((door / "sweep/0/child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_jobs_run_side_by_side_with_devices_and_threads_of_their_own(door):
    sweep = ["-m", "act=meet", "seed=1,2", "hydra.launcher.parallel=2", "hydra.launcher.devices_per_job=1"]
    done = run(door, *sweep, CUDA_VISIBLE_DEVICES="4,6")
    assert done.returncode == 0, done.stdout
    envs = [seen(door / "sweep" / name)["env"] for name in "01"]
    assert {env["CUDA_VISIBLE_DEVICES"] for env in envs} == {"4", "6"}
    assert len({env["MASTER_PORT"] for env in envs}) == 2
    assert {env["OMP_NUM_THREADS"] for env in envs} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    assert {env["OMP_WAIT_POLICY"] for env in envs} == {"PASSIVE"}


def started(door, *arguments, until):
    sweep = subprocess.Popen(
        [sys.executable, "src/train.py", *arguments],
        cwd=door,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not all((door / path).exists() for path in until):
        assert time.monotonic() < deadline, "the jobs did not start"
        time.sleep(0.05)
    return sweep


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_jobs_save_and_starts_no_more(door, signum):
    until = [f"sweep/{i}/progress.json" for i in (0, 1)]
    arguments = ["-m", "act=sleep", "seed=1,2,3", "hydra.launcher.parallel=2"]
    sweep = started(door, *arguments, until=until)
    sweep.send_signal(signum)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[signum], err
    assert "Traceback" not in err
    assert "Go on with: " in err and shlex.quote(f"resume={door / 'sweep'}") in err
    assert not (door / "sweep/2").exists()
    assert "job 2 stopped: not started" in out
    if signum == signal.SIGINT:  # the stand-in saves only then
        saved = [Result.read(door / "sweep" / name) for name in "01"]
        assert [each and each.value for each in saved] == [7.0, 7.0]
        assert shlex.split(err.partition("Interrupted. Go on with: ")[2])[-2:] == ["-m", f"resume={door / 'sweep'}"]
    assert [state(door / "sweep" / name) for name in "01"] == ["stopped", "stopped"]


@pytest.mark.slow
def test_a_second_signal_kills_at_once(door):
    sweep = started(door, "-m", "act=stubborn", "seed=1,2", until=["sweep/0/progress.json"])
    sweep.send_signal(signal.SIGINT)
    time.sleep(1)
    assert sweep.poll() is None, "the job ignores the first"
    sweep.send_signal(signal.SIGINT)
    sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + signal.SIGINT


SWEEPER = '''
import json
from dataclasses import dataclass
from pathlib import Path
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class Climber(Sweeper):
    """Asks for two batches, the second around the best of the first."""
    def setup(self, *, hydra_context, task_function, config):
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)
    def sweep(self, arguments):
        self.folder.mkdir(exist_ok=True)
        first = self.launcher.launch([(*arguments, "seed=1"), (*arguments, "seed=5")], initial_job_idx=0)
        best = max(job.return_value for job in first)
        second = self.launcher.launch([(*arguments, f"seed={int(best) - 30 + 1}")], initial_job_idx=2)
        told = [(job.overrides, job.return_value, job.working_dir, job.cfg.seed) for job in [*first, *second]]
        (self.folder / "told.json").write_text(json.dumps(told))

@dataclass
class ClimberConf:
    _target_: str = "hydra_plugins.climber.Climber"

ConfigStore.instance().store(group="hydra/sweeper", name="climber", node=ClimberConf)
'''


def test_a_sweeper_learns_each_objective(door):
    (door / "src/hydra_plugins").mkdir()
    (door / "src/hydra_plugins/climber.py").write_text(SWEEPER)
    done = run(door, "-m", "hydra/sweeper=climber", "text=x")
    assert done.returncode == 0, done.stderr
    folder = str(door / "sweep")
    assert json.loads((door / "sweep/told.json").read_text()) == [
        [["text=x", f"seed={seed}"], 30.0 + seed, f"{folder}/{i}", seed] for i, seed in enumerate((1, 5, 6))
    ]
    with (door / "sweep/results.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["6", "5", "1"]


# ----------------------------------------------------------------------------------- one sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["init=hee"], "There is no init=hee; choose from he, xavier. Did you mean init=he?"),
        (["-m", "init=he,hee"], "There is no init=hee; choose from he, xavier. Did you mean init=he?"),
        (["init.fann=1"], "There is no init.fann; choose from fan, gain. Did you mean init.fan?"),
        (
            ["--cfg", "job", "init.fann=1"],
            "There is no init.fann; choose from fan, gain. Did you mean init.fan?",
        ),
        (["-m", "--cfg", "job"], "--cfg and --info show the config of one job: leave -m out."),
        (["--help", "init=hee"], "There is no init=hee; choose from he, xavier. Did you mean init=he?"),
        (["nested.a.c=1"], "There is no nested.a.c; choose from b."),
        (["act=user"], "Nothing to eat: buy bread."),
        (
            ["-m", "seed=1,2", "hydra.launcher.parallel=0"],
            "hydra.launcher.parallel=0 must be auto, or a whole number above 0",
        ),
        (["-m", "seed=1,2", "hydra.sweep.subdir=x"], "hydra.sweep.subdir gives two jobs the folder 'x'"),
        (["-m", "hydra.sweep.subdir=${init}"], "hydra.sweep.subdir: While dereferencing interpolation '${init}'"),
        (["hydra.run.dir=src/train.py/x"], "Cannot use src/train.py/x: Not a directory."),
        (["-m", "seed=1,2", "hydra.sweep.dir=src/train.py/x"], "The output folder "),
    ],
)
def test_what_the_user_got_wrong_is_said_in_one_line(door, arguments, sentence):
    done = run(door, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(sentence)


def test_a_traceback_is_shown_when_asked_for(door):
    done = run(door, "act=user", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "buy bread" in done.stderr


def test_what_the_user_got_wrong_is_one_line_in_debug_too(door):
    done = run(door, "act=user", "debug=fast")
    assert (done.returncode, done.stderr) == (1, "Nothing to eat: buy bread.\n")


def test_a_bug_shows_its_traceback(door):
    done = run(door, "act=bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "RuntimeError: a bug" in done.stderr


def test_nothing_heavy_is_imported_before_a_job_runs(door):
    code = (
        "import sys, upsweep.cli, hydra_plugins.upsweep\n"
        "heavy = {'torch', 'rich', 'pytorch_lightning', 'wandb', 'numpy'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "import upsweep.sweeps.launcher\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the real door, with ranks that fail

FAULT = """
import os, signal, time
from pathlib import Path
import pytorch_lightning as pl

class Fault(pl.Callback):
    def __init__(self, how):
        self.how, self.rank = how.split("_")
    def on_train_batch_start(self, trainer, *_):
        if self.how != "no" and trainer.global_rank == int(self.rank):
            Path(f"{self.how}_{self.rank}").touch()
            if self.how in ("kill", "leave"):
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"a fault on rank {self.rank}")
        if self.how == "leave":
            time.sleep(200)  # as NCCL waits for a rank that has gone
"""


@pytest.fixture
def photos(tmp_path):
    """A folder of small pictures, of which an odd number is for validation, and a cheap job."""
    noise = np.random.default_rng(0)
    for folder, count in (("train", 2), ("val", 5)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            pixels = noise.integers(0, 256, (40 + 2 * i, 52, 3), dtype=np.uint8)
            write_image(tmp_path / folder / f"{i}.png", Picture(pixels), marked=False)
    return [
        *("data=folder", f"data.root={tmp_path / 'train'}", f"data.val_root={tmp_path / 'val'}"),
        *("data.patch_size=8", "data.batch_size=2", "data.patches_per_epoch=8", "trainer.max_epochs=1"),
        *("trainer=ddp", "trainer.accelerator=cpu", f"hydra.sweep.dir={tmp_path / 'sweep'}"),
    ]


def train(folder, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "src/train.py"), *arguments],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=280,
    )


def processes_in(folder):
    """The live processes, of a sweep and its helpers, that were started in this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
    return found


@pytest.mark.slow
def test_ranks_that_fail_stop_their_own_job_only(tmp_path, photos):
    (tmp_path / "fault.py").write_text(FAULT)
    faults = ["raise_0", "raise_1", "kill_0", "kill_1", "leave_1", "no_0"]
    done = train(
        tmp_path,
        *("-m", *photos, "hydra.launcher.parallel=2"),
        *("+callbacks.fault._target_=fault.Fault", f"+callbacks.fault.how={','.join(faults)}"),
    )
    assert done.returncode == 1, done.stderr
    jobs = {fault: tmp_path / "sweep" / str(i) for i, fault in enumerate(faults)}
    assert {fault: state(job) for fault, job in jobs.items()} == dict.fromkeys(faults, "failed") | {"no_0": "finished"}
    for fault, job in jobs.items():
        if fault != "no_0":
            noticed = (job / RESULT).stat().st_mtime - (tmp_path / fault).stat().st_mtime
            assert noticed < 15, fault
    assert "RuntimeError: a fault on rank 0" in done.stdout
    assert "RuntimeError: a fault on rank 1" in done.stdout
    assert "job 2 failed: killed by SIGKILL" in done.stdout
    assert "job 3 failed: rank 1 was killed (SIGKILL)" in done.stdout
    assert "job 4 failed: rank 1 was killed (SIGKILL)" in done.stdout
    deadline = time.monotonic() + 60  # W&B's service goes a moment after the process that it serves
    while (left := processes_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.mark.slow
def test_one_device_and_two_judge_alike(tmp_path, photos):
    both = ("trainer.devices=1,2", "optimizer.lr=0", "hydra.launcher.parallel=2")
    done = train(tmp_path, "-m", *photos, *both)
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = tmp_path / "sweep"
    one, two = (Result.read(sweep / name) for name in "01")
    assert one is not None and two is not None and set(one.figures) == {"psnr", "ssim"}
    assert two.figures == pytest.approx(one.figures, abs=1e-6)
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1", "wandb"]
    assert [(sweep / name / "train_ddp_process_1.log").exists() for name in "01"] == [False, True]
    for name in "01":
        assert len(list((sweep / name / "wandb").glob("offline-run-*"))) == 1
        assert {path.name for path in (sweep / name / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize("question", [["--help"], ["--cfg", "job"]])
def test_the_real_door_answers_without_what_only_a_training_needs(question):
    """The seconds that it takes are measured by benchmarks/startup.py; these are the imports that would cost them."""
    door = [sys.executable, "-X", "importtime", str(ROOT / "src/train.py"), *question]
    told = subprocess.run(door, env=environment(), check=True, capture_output=True, text=True).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.splitlines()}
    assert {"hydra", "upsweep"} <= imported
    assert not imported & {"torch", "pytorch_lightning", "wandb", "numpy", "rich", "skimage", "optuna"}
