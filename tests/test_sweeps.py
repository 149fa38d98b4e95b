"""Sweeps, with real processes: what each job is given, what is left of it, and the table that ranks them."""

import contextlib
import csv
import io
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from upsweep.errors import UserError
from upsweep.imaging.files import Picture, write_image
from upsweep.sweeps import pool
from upsweep.sweeps.composing import OnceEach
from upsweep.sweeps.launcher import telling_lines
from upsweep.sweeps.live import LiveTable, Status, seconds_left
from upsweep.sweeps.results import (
    Progress,
    Result,
    chosen,
    differing,
    job_table,
    print_results,
    print_row,
    rank,
    seed_table,
    tuned_table,
    write_by_rename,
    write_csv,
)
from upsweep.sweeps.resuming import quoted

ROOT = Path(__file__).parents[1]


def result(state="finished", psnr=None, overrides=(), seed=1, **rest):
    choices = {"init": "he", "norm": "none"} | rest.pop("choices", {})
    return Result(state=state, psnr=psnr, choices=choices, overrides=list(overrides), seed=seed, scale=2, **rest)


# ------------------------------------------------------------------------------------------- records


def test_a_result_is_read_back_as_it_was_written(tmp_path):
    written = result(psnr=31.25, overrides=["data.root='a, b'"], parameters=12809, reason="ü\n{}")
    path = written.write(tmp_path)
    assert Result.read(tmp_path) == written
    assert json.loads(path.read_text())["version"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_what_is_not_finite_is_written_as_null(tmp_path):
    result(psnr=math.nan, gain=math.inf).write(tmp_path)
    read = Result.read(tmp_path)
    assert read is not None
    assert read.psnr is None and read.gain is None


def test_a_missing_record_is_none_and_a_broken_one_is_named(tmp_path):
    assert Result.read(tmp_path) is None
    assert Progress.read(tmp_path) is None
    for text in ('{"version": 1, "state": "fin', '{"version": 2}', '{"version": 1, "colour": 3}', "[]"):
        (tmp_path / Result.FILE).write_text(text)
        with pytest.raises(UserError, match=r"result\.json cannot be read"):
            Result.read(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = write_by_rename(tmp_path / "x", "old")
    with pytest.raises(UnicodeEncodeError):
        write_by_rename(path, "half\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_choices_are_those_of_the_project():
    of_hydra = {"init": "he", "generator@a.b": "fsrcnn", "hydra/launcher": "process", "debug": None}
    assert chosen(of_hydra) == {"init": "he", "generator": "fsrcnn"}
    chain = {"degradation": {"blur": {"sigma": 1}, "bicubic": {}}}  # Hydra does not list what has several names
    assert chosen(of_hydra, chain)["degradation"] == "[blur,bicubic]"
    assert chosen({**of_hydra, "degradation": "mine"}, chain)["degradation"] == "mine"


# --------------------------------------------------------------------------------------------- table


def test_rank_puts_the_best_first_and_what_went_wrong_last():
    jobs = {
        "diverged": result("diverged", 40.0),
        "blank": result(),
        "worse": result(psnr=29.0),
        "failed": result("failed"),
        "stopped": result("stopped", 35.0),
        "better": result(psnr=30.0),
    }
    assert list(rank(jobs)) == ["better", "worse", "blank", "stopped", "diverged", "failed"]


def test_the_columns_are_what_differs():
    jobs = {
        "0": result(choices={"init": "he"}, overrides=["init=he", "init.fan=torch", "lr=1"]),
        "1": result(choices={"init": "xavier"}, overrides=["init=xavier", "init.fan=effective", "lr=1"]),
    }
    assert differing([each.settings for each in jobs.values()]) == ["init", "init.fan"]
    assert job_table(jobs).headers[:4] == ["job", "init", "init.fan", "PSNR"]


def test_seeds_are_summed_up_by_mean_and_sample_deviation():
    psnrs = {"bn": [30.0, 30.3, 30.9], "none": [31.0, 31.1]}
    jobs = {
        f"{norm}{seed}": result(psnr=psnr, seed=seed, choices={"norm": norm}, overrides=[f"seed={seed}"])
        for norm, values in psnrs.items()
        for seed, psnr in enumerate(values)
    }
    jobs["none2"] = result("diverged", 99.0, seed=2, choices={"norm": "none"}, overrides=["seed=2"])
    table = seed_table(jobs)
    assert table is not None
    assert [[*row[:2], row[-1]] for row in table.rows] == [
        ["none", f"31.05 ± {statistics.stdev([31.0, 31.1]):.2f}", "2 of 3"],
        ["bn", "30.40 ± 0.46", "3 of 3"],  # sd of (-.4, -.1, .5) over n - 1 = 2: sqrt(.21)
    ]
    assert seed_table({"0": result(psnr=1.0), "1": result(psnr=2.0)}) is None


def test_every_choice_is_held_to_its_own_best_rate():
    psnr = {
        ("none", "1e-3"): (31.0, 31.2),
        ("none", "1e-2"): (32.0, None),  # higher, but one seed diverged
        ("bn", "1e-3"): (29.0, 31.9),
        ("bn", "1e-2"): (30.9, 31.0),
    }
    jobs = {
        f"{norm} {rate} {seed}": result(
            "diverged" if value is None else "finished",
            psnr=value,
            gain=value and value - 30,
            seed=seed,
            choices={"norm": norm},
            overrides=[f"optimizer.lr={rate}"],
        )
        for (norm, rate), values in psnr.items()
        for seed, value in enumerate(values)
    }
    table = tuned_table(jobs)
    assert table is not None
    assert list(table.headers) == ["norm", "optimizer.lr", "PSNR", "SSIM", "gain dB", "seeds"]
    assert table.rows == [
        ["none", "1e-3", "31.10 ± 0.14", "-", "+1.10 ± 0.14", "2 of 2"],
        ["bn", "1e-2", "30.95 ± 0.07", "-", "+0.95 ± 0.07", "2 of 2"],
    ]
    only_rates = {name: job for name, job in jobs.items() if name.startswith("bn")}
    one_rate = {name: job for name, job in jobs.items() if "1e-3" in name}
    assert tuned_table(only_rates) is None and tuned_table(one_rate) is None


def test_outside_a_terminal_nothing_is_cut_and_columns_are_aligned():
    long = "data.root='" + "x" * 300 + "'"
    out = io.StringIO()
    print_results({"0": result(psnr=30.123, overrides=[long]), "1": result("failed", reason="it broke")}, out)
    title, header, first, second, why = out.getvalue().splitlines()
    assert title == "1 of 2 jobs finished"
    assert "x" * 300 in first
    assert header.index("PSNR") + len("PSNR") == first.index("30.12") + len("30.12")
    assert second.endswith("failed")
    assert why == "job 1 failed: it broke"


def test_a_single_run_prints_what_was_set_by_hand():
    out = io.StringIO()
    print_row("run", result(psnr=30.0, gain=-0.5, overrides=["init=he", "lr=0.1"]), out)
    header, row = out.getvalue().splitlines()
    assert header.split()[:4] == ["job", "init", "lr", "PSNR"]
    assert row.split()[:4] == ["run", "he", "0.1", "30.00"]
    assert "-0.50" in row


def test_the_csv_has_unrounded_numbers(tmp_path):
    jobs = {"0": result(psnr=1 / 3, choices={"init": "a"}), "1": result(psnr=2 / 3, choices={"init": "b, c"})}
    with write_csv(tmp_path / "results.csv", jobs).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["init"], float(row["psnr"])) for row in rows] == [
        ("1", "b, c", 2 / 3),
        ("0", "a", 1 / 3),
    ]


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


# ---------------------------------------------------------------------------------------------- pool


def test_devices_are_dealt_out_once(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5,GPU-7")
    assert pool._shares(8, 1) == [("3",), ("5",), ("GPU-7",)]
    assert pool._shares(2, 1) == [("3",), ("5",)]
    assert pool._shares(8, 2) == [("3", "5")]
    assert pool._shares(2, None) == [(), ()]
    with pytest.raises(UserError, match="3 CUDA devices are visible"):
        pool._shares(1, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert pool._shares(3, 1) == [(), (), ()]
    with pytest.raises(UserError, match="parallel=0"):
        pool._shares(0, None)


@pytest.mark.parametrize("count", [0, -3])
def test_a_share_of_no_device_is_refused_also_where_there_are_none(monkeypatch, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match=f"devices_per_job={count}"):
        pool._shares(1, count)


def test_a_job_within_an_allocation_of_slurm_waits_for_no_tasks(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "2")
    env = pool._environment((), None, 12000)
    assert [name for name in env if name.startswith("SLURM")] == ["SLURM_JOB_ID"]


def test_no_trace_of_a_rank_is_handed_on(monkeypatch):
    for name in (*pool.RANK_VARIABLES, "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("KEPT", "yes")
    env = pool._environment((), threads=3, port=23456)
    assert not (pool.RANK_VARIABLES - {"MASTER_PORT"}) & env.keys()
    assert not any(name.startswith("TORCHELASTIC") for name in env)
    assert (env["MASTER_PORT"], env["KEPT"], env["OMP_NUM_THREADS"]) == ("23456", "yes", "3")
    assert env["OMP_WAIT_POLICY"] == "ACTIVE", "the user's own setting stays"


def test_ports_are_free_and_differ():
    ports: set[int] = set()
    for _ in range(50):
        ports.add(pool._free_port(ports))
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


# ------------------------------------------------------------------------------------ whole sweeps

DOOR = """
import json, os, random, signal, subprocess, sys, time
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from upsweep.cli import door
from upsweep.errors import UserError
from upsweep.imaging.files import Picture, write_image
from upsweep.sweeps.results import Progress, Result, chosen

@door("train")
def main(config):
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    seen = dict(env=dict(os.environ), random=random.random(), cwd=os.getcwd())
    seen["hydra"] = OmegaConf.to_container(hydra)
    seen["config"] = OmegaConf.to_container(config, resolve=True)
    (folder / "seen.json").write_text(json.dumps(seen, default=str))
    os.environ["LEAK"] = "1"
    random.seed(0)
    def end(state, **rest):
        Result(state=state, choices=chosen(hydra.runtime.choices), overrides=list(hydra.overrides.task),
               seed=config.seed, scale=2, **rest).write(folder)
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
    if act == "meet":  # goes on only when another job is running too
        (folder / "here").touch()
        deadline = time.monotonic() + 30
        while len(list(folder.parent.glob("*/here"))) < 2:
            if time.monotonic() > deadline: raise RuntimeError("nobody came")
            time.sleep(0.05)
    return end("finished", psnr=30.0 + config.seed, objective=30.0 + config.seed, seconds=1.0)

if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults: [_self_, {init: he}, {debug: null}, {override hydra/launcher: process}]
seed: 1
act: finish
text: plain
nested: {a: {b: 1}}
hydra: {sweep: {dir: sweep}, run: {dir: run}}
"""


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
    assert varying == {"MASTER_PORT"}
    assert first["random"] != second["random"]
    assert first["cwd"] == str(door)
    assert not (door / "sweep/report.html").exists(), "this config asks for none"


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
    with (door / "sweep/results.csv").open(newline="") as file:
        assert [row["act"] for row in csv.DictReader(file)][:2] == ["finish", "diverge"]


@pytest.mark.slow
def test_a_failed_batch_does_not_keep_hydras_sweeper_from_the_next(door):
    done = run(door, "-m", "act=bug,user,finish", "seed=1,2", "hydra.sweeper.max_batch_size=2")
    assert done.returncode == 1
    assert [state(door / "sweep" / str(i)) for i in range(6)] == ["failed"] * 4 + ["finished"] * 2
    assert "4 of 6 jobs did not finish (0, 1, 2, 3)" in done.stderr and "Traceback" not in done.stderr


def test_a_folder_has_one_sweep_at_a_time(door):
    first = started(door, "-m", "act=sleep", until=["sweep/0/progress.json"])
    second = run(door, "-m", "seed=5")
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert "is being written to by process" in second.stderr and "hydra.sweep.dir" in second.stderr


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
    assert line.startswith("The report could not be made (") and "python src/report.py sweep=" in line
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
    assert "holds a run already: -m resume=" in line and "hydra.sweep.dir" in line
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
def test_no_process_of_a_failed_job_is_left_behind(door):
    started = time.monotonic()
    assert run(door, "-m", "act=orphan,finish").returncode == 1
    assert time.monotonic() - started < 60  # the orphan would sleep for an hour
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
    deadline = time.monotonic() + 30
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
    out, err = sweep.communicate(timeout=30)
    assert sweep.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[signum], err
    assert "Traceback" not in err
    assert not (door / "sweep/2").exists()
    assert "job 2 stopped: not started" in out
    if signum == signal.SIGINT:  # the stand-in saves only then
        saved = [Result.read(door / "sweep" / name) for name in "01"]
        assert [each and each.psnr for each in saved] == [7.0, 7.0]
    assert [state(door / "sweep" / name) for name in "01"] == ["stopped", "stopped"]


@pytest.mark.slow
def test_a_second_signal_kills_at_once(door):
    sweep = started(door, "-m", "act=stubborn", "seed=1,2", until=["sweep/0/progress.json"])
    sweep.send_signal(signal.SIGINT)
    time.sleep(1)
    assert sweep.poll() is None, "the job ignores the first"
    sweep.send_signal(signal.SIGINT)
    sweep.communicate(timeout=10)
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
        (["--help", "init=hee"], "There is no init=hee; choose from he, xavier. Did you mean init=he?"),
        (["nested.a.c=1"], "There is no nested.a.c; choose from b."),
        (["act=user"], "Nothing to eat: buy bread."),
        (
            ["-m", "seed=1,2", "hydra.launcher.parallel=0"],
            "hydra.launcher.parallel=0 would never start a job",
        ),
        (["-m", "seed=1,2", "hydra.sweep.subdir=x"], "hydra.sweep.subdir gives two jobs the folder 'x'"),
        (["hydra.run.dir=src/train.py/x"], "Cannot use src/train.py/x: Not a directory."),
        (["-m", "seed=1,2", "hydra.sweep.dir=src/train.py/x"], "The output folder "),
    ],
)
def test_what_the_user_got_wrong_is_said_in_one_line(door, arguments, sentence):
    done = run(door, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(sentence)


@pytest.mark.parametrize(("extra", "arguments"), [({"HYDRA_FULL_ERROR": "1"}, []), ({}, ["debug=fast"])])
def test_a_traceback_is_shown_when_asked_for(door, extra, arguments):
    done = run(door, "act=user", *arguments, **extra)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "buy bread" in done.stderr


def test_a_bug_shows_its_traceback(door):
    done = run(door, "act=bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "RuntimeError: a bug" in done.stderr


def test_nothing_heavy_is_imported_before_a_job_runs(door):
    code = (
        "import sys, upsweep.cli, hydra_plugins.upsweep_launcher\n"
        "heavy = {'torch', 'rich', 'pytorch_lightning', 'wandb', 'numpy'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        "import upsweep.sweeps.launcher\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the real door, with ranks that fail

FAULT = """
import os, signal
from pathlib import Path
import pytorch_lightning as pl

class Fault(pl.Callback):
    def __init__(self, how):
        self.how, self.rank = how.split("_")
    def on_train_batch_start(self, trainer, *_):
        if self.how != "no" and trainer.global_rank == int(self.rank):
            Path(f"{self.how}_{self.rank}").touch()
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"a fault on rank {self.rank}")
"""


@pytest.fixture
def photos(tmp_path):
    """A folder of small pictures, of which an odd number is for validation, and a cheap job."""
    noise = np.random.default_rng(0)
    for folder, count in (("train", 2), ("val", 5)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            pixels = noise.integers(0, 256, (40 + 2 * i, 52, 3), dtype=np.uint8)
            write_image(tmp_path / folder / f"{i}.png", Picture(pixels))
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
    faults = ["raise_0", "raise_1", "kill_0", "kill_1", "no_0"]
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
            noticed = (job / Result.FILE).stat().st_mtime - (tmp_path / fault).stat().st_mtime
            assert noticed < 15, fault
    assert "RuntimeError: a fault on rank 0" in done.stdout
    assert "RuntimeError: a fault on rank 1" in done.stdout
    assert "job 2 failed: killed by SIGKILL" in done.stdout
    assert "job 3 failed: rank 1 was killed (SIGKILL)" in done.stdout
    deadline = time.monotonic() + 15  # W&B's service goes a moment after the process that it serves
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
    assert one is not None and one.psnr is not None
    assert two is not None and two.psnr is not None
    assert two.psnr == pytest.approx(one.psnr, abs=1e-6)
    assert two.ssim == pytest.approx(one.ssim, abs=1e-6)
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
