"""Searches: what W&B's agent would run, and Optuna's, with real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from upsweep.common.errors import UserError
from upsweep.runs.result import Result

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    *("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_val_batches=1", "callbacks.pictures=null"),
    *("data.patch_size=8", "data.patches_per_epoch=32", "generator.width=4", "generator.depth=1"),
]


def environment(**extra: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


# W&B's agent


def drawn(parameter: dict[str, Any]) -> Any:
    return parameter["values"][-1] if "values" in parameter else parameter["max"]


def agents_command(sweep: dict[str, Any]) -> list[str]:
    """What `wandb agent` makes of the file for one run, by the client's own code (as `Agent._command_run` does)."""
    from wandb.sdk.launch.sweeps import utils

    arguments = {name: {"value": drawn(parameter)} for name, parameter in sweep["parameters"].items()}
    known: dict[str, list[str]] = utils.create_sweep_command_args({"args": arguments})
    known |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    command: list[str] = []
    for word in utils.create_sweep_command(sweep["command"]):
        command += known[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return command


def test_the_agents_command_is_one_of_ours_and_every_value_exists() -> None:
    sweep = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    command = agents_command(sweep)
    assert command[:3] == ["/usr/bin/env", "python", "src/train.py"]
    assert "optimizer.lr=0.01" in command and "norm=bn" in command
    assert not any(word.startswith("-") for word in command)
    assert sweep["metric"] == {"name": "val/psnr", "goal": "maximize"}
    for group in ("init", "norm", "upsampler"):
        for name in sweep["parameters"][group]["values"]:
            assert (ROOT / "conf" / group / f"{name}.yaml").is_file()


@pytest.mark.slow
def test_the_agents_command_trains(tmp_path: Path) -> None:
    sweep = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    command = agents_command(sweep)
    bin_ = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    subprocess.run(
        [*command, *TINY, "logger.mode=offline"],
        cwd=tmp_path,
        env=environment(PATH=bin_, WANDB_RUN_ID="abc"),
        check=True,
        timeout=120,
    )
    result = Result.read(tmp_path / "outputs" / "wandb" / "abc")
    assert result is not None and result.state == "finished"
    assert result.choices["norm"] == "bn"


# Optuna, with a stand-in for the training

DOOR = """
import os, signal, sys, time
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from upsweep.cli import door
from upsweep.analysis.ranking import chosen
from upsweep.runs.result import Result
from upsweep.sweeps.jobs import declared_in

@door("train", config_path=Path(__file__).parents[1] / "conf")
def main(config):
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    with (folder / "starts").open("a") as file: file.write("started\\n")
    if Path("hang").exists() and config.x > 0.5: time.sleep(60)
    while Path("slow").exists() and hydra.job.num == 0 and len([*folder.parent.glob("*/result.json")]) < 11:
        time.sleep(0.05)  # until all others are done
    state = "pruned" if config.x > config.prune_above else "finished"
    value = -(config.x - 0.3) ** 2 - config.penalty[config.act]
    declared = declared_in(config)
    if declared[0].better == "lower": value = -value
    if config.act == "fail": raise RuntimeError("a bug")
    Result(state=state, choices=chosen(hydra.runtime.choices), overrides=list(hydra.overrides.task), seed=1, scale=2,
           declared=declared, figures={declared[0].name: value}, objective=value if state == "finished" else None
    ).write(folder)

if __name__ == "__main__":
    main()
"""
CONFIG = """
defaults: [_self_, {override hydra/launcher: quick}, {override hydra/sweeper: search}]
x: 0.0
act: good
prune_above: 1
penalty: {good: 0, bad: 1, fail: 0}
resume: null
task: {figures: [{name: f, title: F, better: higher}]}
hydra: {sweep: {dir: sweep}, run: {dir: run}, sweeper: {trials: 8}}
"""
QUICK = "defaults: [process]\nparallel: 1\npreload: []\n"
SPACE = ["-m", "x=interval(0,1)"]


@pytest.fixture
def door(tmp_path: Path) -> Path:
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    for name, text in {
        "src/train.py": DOOR,
        "conf/train.yaml": CONFIG,
        "conf/hydra/launcher/quick.yaml": QUICK,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def search(door: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "src/train.py", *arguments],
        cwd=door,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def trials(door: Path) -> list[Any]:
    import optuna

    from upsweep.sweeps.search import NAME, storage_in

    file = door / "sweep" / "study.journal"
    return list(optuna.load_study(study_name=NAME, storage=storage_in(file)).trials)


def of_state(door: Path, name: str) -> list[Any]:
    return [trial for trial in trials(door) if trial.state.name == name]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a=b,c", {"choices": ("b", "c")}),
        ("a=choice('x y',2)", {"choices": (r"x\ y", "2")}),
        ("a=range(1,9,2)", {"low": 1, "high": 7, "step": 2, "log": False}),
        ("a=tag(log,range(1,9))", {"low": 1, "high": 8, "step": 1, "log": True}),
        ("a=range(0,1,0.25)", {"low": 0.0, "high": 0.75, "step": 0.25, "log": False}),
        ("a=interval(0,2)", {"low": 0.0, "high": 2.0, "step": None, "log": False}),
        ("a=tag(log,interval(0.001,1))", {"low": 0.001, "high": 1.0, "step": None, "log": True}),
        ("a=int(interval(1,9))", {"low": 1, "high": 8, "step": 1, "log": False}),
    ],
)
def test_hydras_grammar_is_the_search_space(line: str, expected: dict[str, Any]) -> None:
    pytest.importorskip("optuna")
    from upsweep.sweeps.search import distribution_of

    found = distribution_of(OverridesParser.create().parse_override(line))
    assert {key: getattr(found, key) for key in expected} == expected


def test_what_nothing_can_be_drawn_from_is_one_sentence() -> None:
    pytest.importorskip("optuna")
    from upsweep.sweeps.search import distribution_of

    for line in ("a=tag(log,interval(0,1))", "a=range(3,3)"):
        with pytest.raises(UserError, match=r"^a=.* cannot be searched: "):
            distribution_of(OverridesParser.create().parse_override(line))


def test_a_search_never_waits_for_its_slowest_trial(door: Path) -> None:
    (door / "slow").touch()
    done = search(door, *SPACE, "hydra.sweeper.trials=12", "hydra.launcher.parallel=2")
    assert done.returncode == 0, done.stderr
    assert len(of_state(door, "COMPLETE")) == 12
    lines = [line for line in done.stdout.splitlines() if " started" in line or " finished after" in line]
    ended = next(i for i, line in enumerate(lines) if line.startswith("job 0 finished"))
    assert lines[0].startswith("job 0 started") and ended >= len(lines) - 2, "it was among the last two to end"


def test_a_launcher_that_takes_batches_is_refused(door: Path) -> None:
    done = search(door, *SPACE, "hydra/launcher=basic")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("A search runs with hydra/launcher=process, slurm or ray")


def test_a_search_finds_what_is_good_and_tells_the_study_everything(door: Path) -> None:
    done = search(door, *SPACE, "act=good,bad", "hydra.sweeper.trials=16", "hydra.launcher.parallel=2")
    assert done.returncode == 0, done.stderr
    told = trials(door)
    assert [trial.state.name for trial in told] == ["COMPLETE"] * 16
    for trial in told:
        x, act = trial.params["x"], trial.params["act"]
        assert trial.value == pytest.approx(-((x - 0.3) ** 2) - (act == "bad"), abs=1e-5)
    best = max(told, key=lambda trial: trial.value)
    assert best.params["act"] == "good" and abs(best.params["x"] - 0.3) < 0.15
    assert f"Best: {best.value:.3f} with x={best.params['x']:.6g} act=good" in done.stdout
    assert "16 trials, 0 of them pruned or diverged" in done.stdout
    assert len([path for path in (door / "sweep").iterdir() if path.is_dir()]) == 16


def test_a_search_goes_down_where_less_is_better(door: Path) -> None:
    done = search(door, "-m", "x=0.1,0.3,0.9", "task.figures.0.better=lower", "hydra.sweeper.trials=5")
    assert done.returncode == 0, done.stderr
    told = of_state(door, "COMPLETE")
    assert all(trial.value == pytest.approx((float(trial.params["x"]) - 0.3) ** 2) for trial in told)
    best = min(told, key=lambda trial: trial.value)
    assert f"Best: {best.value:.3f} with x={best.params['x']}" in done.stdout
    other = search(door, "-m", "resume=sweep", "x=0.1,0.3,0.9", "task.figures.0.better=higher")
    assert other.returncode == 1 and "does not look for higher values" in other.stderr
    other = search(door, "-m", "resume=sweep", "task.figures.0.better=lower", "task.figures.0.name=ssim")
    assert other.returncode == 1 and "looks for the best f, not ssim" in other.stderr


@pytest.mark.slow
def test_the_same_search_asks_the_same_questions(door: Path) -> None:
    asked = []
    for seed in (1, 1, 2):
        assert search(door, *SPACE, "hydra.sweeper.trials=2", f"hydra.sweeper.seed={seed}").returncode == 0
        asked.append([trial.params for trial in trials(door)])
        (door / "sweep").rename(door / f"sweep {len(asked)}")
    assert asked[0] == asked[1] != asked[2]


def test_a_combination_is_trained_once(door: Path) -> None:
    done = search(door, "-m", "x=0.1,0.2", "hydra.sweeper.trials=6")
    assert done.returncode == 0, done.stderr
    assert len(of_state(door, "COMPLETE")) == 6
    assert len(list((door / "sweep").glob("*/result.json"))) == 2


def test_a_search_that_has_all_its_trials_or_more_ends_at_once_when_it_goes_on(door: Path) -> None:
    assert search(door, *SPACE, "hydra.sweeper.trials=2").returncode == 0
    for more in ([], ["hydra.sweeper.trials=1"]):
        done = search(door, "-m", "resume=sweep", *more)
        assert done.returncode == 0 and "2 trials, 0 of them" in done.stdout, done.stderr


def test_a_sampler_that_has_drawn_all_there_is_ends_the_search(door: Path) -> None:
    brute = "hydra.sweeper.sampler._target_=optuna.samplers.BruteForceSampler"
    done = search(door, "-m", "x=0.1,0.2", brute)
    assert done.returncode == 0 and "2 trials, 0 of them" in done.stdout, done.stderr
    for words in (["x=0.1,0.2", "act=fail", brute, "hydra.sweep.dir=failing"], ["resume=failing"]):
        assert "2 of 2 trials did not finish" in search(door, "-m", *words).stderr, "what failed is run again"


def test_a_study_whose_last_line_a_full_disk_has_cut_goes_on(door: Path) -> None:
    import optuna

    from upsweep.sweeps.search import NAME, storage_in

    file = door / "study.journal"
    optuna.create_study(storage=storage_in(file), study_name=NAME).ask()
    whole = file.read_bytes()
    for cut in (b"{", whole.splitlines()[-1][:-1]):
        file.write_bytes(file.read_bytes() + cut)
        optuna.load_study(study_name=NAME, storage=storage_in(file)).ask()
    assert len(optuna.load_study(study_name=NAME, storage=storage_in(file)).trials) == 3
    file.write_bytes(b"no journal\n" + whole)
    refused = search(door, *SPACE, "hydra.sweeper.study=study.journal")
    assert refused.returncode == 1 and "The study study.journal cannot be read" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_nobody_waits_for_the_lock_of_a_study_that_cannot_be_written(tmp_path: Path) -> None:
    from upsweep.sweeps.search import WholeLines

    file = tmp_path / "study.journal"
    file.mkdir()  # root may write into every file
    for _ in range(2):
        with pytest.raises(OSError, match="directory"):
            WholeLines(file).acquire()
        assert list(tmp_path.iterdir()) == [file]


def test_the_lock_of_a_killed_process_is_seen_to_be_old(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from upsweep.sweeps.search import storage_in

    monkeypatch.chdir(door)
    storage = storage_in(Path("conf/study.journal"))
    storage._backend._lock.acquire()
    assert (door / "conf/study.journal.lock").stat().st_mtime > 0, "Optuna looks where the link leads"


@pytest.mark.slow
def test_a_pruned_job_is_no_failure_and_a_failed_one_is(door: Path) -> None:
    done = search(door, *SPACE, "prune_above=0.5")
    assert done.returncode == 0, done.stderr
    assert {trial.params["x"] > 0.5 for trial in of_state(door, "PRUNED")} == {True}
    assert {trial.params["x"] > 0.5 for trial in of_state(door, "COMPLETE")} == {False}
    (door / "sweep").rename(door / "first")
    failing = search(door, "-m", "x=0.1", "act=good,fail", "hydra.sweeper.trials=6")
    assert failing.returncode == 1
    assert "trials did not finish" in failing.stderr and "Traceback" not in failing.stderr
    assert {trial.params["act"] for trial in of_state(door, "FAIL")} == {"fail"}
    assert {trial.params["act"] for trial in of_state(door, "COMPLETE")} == {"good"}


def hangs(folder: Path) -> bool:
    """Whether a job, which takes no time by itself, is still there."""
    time.sleep(0.5)
    return not (folder / "result.json").exists()


@pytest.mark.slow
def test_a_search_that_was_stopped_goes_on_with_what_it_had(door: Path) -> None:
    (door / "hang").touch()
    process = subprocess.Popen(
        [sys.executable, "src/train.py", *SPACE],
        cwd=door,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (hung := [p.parent for p in (door / "sweep").glob("*/starts") if hangs(p.parent)]):
        assert process.poll() is None and time.monotonic() < deadline, "no job hangs"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    (door / "hang").unlink()
    before = trials(door)
    assert before[-1].state.name == "FAIL"
    refused = search(door, *SPACE)
    assert refused.returncode == 1 and "has a search: continue it with -m resume=" in refused.stderr
    done = search(door, "-m", "resume=sweep")
    assert done.returncode == 0, done.stderr
    after = trials(door)
    assert len(of_state(door, "COMPLETE")) == 8
    assert [trial.state.name for trial in after[len(before) - 1 : len(before) + 1]] == ["FAIL", "COMPLETE"]
    assert after[len(before)].params == before[-1].params, "what was stopped is run again, first"
    assert (hung[0] / "starts").read_text().split() == ["started"] * 2
    assert len({trial.params["x"] for trial in of_state(door, "COMPLETE")}) == 8, "no question is asked twice"
    other = search(door, "-m", "x=0.1,0.2", "resume=sweep")
    assert other.returncode == 1 and "has a search over another x" in other.stderr


@pytest.mark.slow
def test_two_workers_share_a_study_and_stop_none_of_each_others_trials(door: Path) -> None:
    (door / "sweep").mkdir()
    shared = [*SPACE, "hydra.sweeper.study=sweep/study.journal", "hydra.sweeper.trials=6"]
    workers = [
        subprocess.Popen(
            [sys.executable, "src/train.py", *shared, f"hydra.sweep.dir={name}", f"hydra.sweeper.seed={seed}"],
            cwd=door,
            env=environment(),
            stdout=subprocess.DEVNULL,
        )
        for seed, name in enumerate(("one", "two"))
    ]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    states = [trial.state.name for trial in trials(door)]
    assert set(states) == {"COMPLETE"} and 6 <= len(states) <= 7, "both may begin the last at the same moment"
    by_folder = {name: len(list((door / name).glob("*/result.json"))) for name in ("one", "two")}
    assert sum(by_folder.values()) == len(states) and min(by_folder.values()) >= 1


def test_a_worker_repeats_no_trial_of_another_one(door: Path) -> None:
    shared = [*SPACE, "hydra.sweeper.study=sweep/study.journal"]
    (door / "sweep").mkdir()
    for name, seed, count in (("one", 1, 1), ("two", 0, 2), ("three", 0, 3)):
        done = search(
            door, *shared, f"hydra.sweep.dir={name}", f"hydra.sweeper.seed={seed}", f"hydra.sweeper.trials={count}"
        )
        assert done.returncode == 0, done.stderr
        assert (door / name / "0" / "result.json").is_file(), name
    assert len({trial.params["x"] for trial in trials(door)}) == 3


def test_help_does_not_wait_for_optuna(door: Path) -> None:
    code = "import sys, upsweep.cli, hydra_plugins.upsweep; assert 'optuna' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def test_without_optuna_one_sentence_says_what_to_install(door: Path) -> None:
    (door / "src" / "optuna.py").write_text("raise ModuleNotFoundError('no optuna', name='optuna')")
    done = search(door, *SPACE)
    assert done.returncode == 1
    assert done.stderr == "A search needs Optuna: pip install -e '.[search]'.\n"


# pruning, with real trainings


def study_of(file: Path, overrides: list[str], before: list[list[float]]) -> Any:
    """A study on disk with complete trials of these val/psnr by epoch, and one that runs."""
    import optuna

    from upsweep.sweeps.search import NAME, OVERRIDES, storage_in

    study = optuna.create_study(storage=storage_in(file), study_name=NAME, direction="maximize")
    for figures in before:
        trial = study.ask()
        for epoch, psnr in enumerate(figures):
            trial.report(psnr, epoch)
        study.tell(trial, figures[-1])
    study.ask().set_user_attr(OVERRIDES, overrides)
    return study


@pytest.mark.slow
def test_a_training_below_the_median_is_pruned_and_one_above_it_is_not(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    for name, level in (("bad", 90.0), ("good", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        command = [*TINY, "logger=none", "trainer.max_epochs=3", "callbacks.checkerboard=null", "seed=7"]
        study = study_of(folder / "study.journal", command, [[level] * 3] * 5)
        pruner = "+callbacks.pruning"
        subprocess.run(
            [
                *(sys.executable, str(ROOT / "src/train.py"), *command, "hydra.run.dir=run"),
                *(f"{pruner}._target_=upsweep.training.pruning.Pruning", f"{pruner}.study=study.journal"),
                f"{pruner}.folder=run",
                f"{pruner}.pruner._target_=optuna.pruners.MedianPruner",
            ],
            cwd=folder,
            env=environment(),
            check=True,
            timeout=120,
        )
        result = Result.read(folder / "run")
        reported = study.trials[-1].intermediate_values
        assert result is not None
        if name == "bad":
            assert result.state == "pruned" and result.objective is None and result.complete
            assert str(result.reason).startswith("pruned after epoch 1, at ")
            assert reported == {0: pytest.approx(result.value)}
        else:
            assert result.state == "finished"
            assert max(reported.values()) == pytest.approx(result.value) and sorted(reported) == [0, 1, 2]


@pytest.mark.slow
def test_the_real_door_searches_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "src/train.py"), "hparams_search=optuna", *TINY, "logger=none"),
            *("hydra.sweeper.trials=2", "hydra.launcher.parallel=2", "hydra.sweep.dir=sweep", "norm=none"),
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = trials(tmp_path)
    assert [trial.state.name for trial in told] == ["COMPLETE"] * 2
    for trial in told:
        result = Result.read(tmp_path / "sweep" / str(trial.number))
        assert result is not None and result.value == trial.value
        assert trial.intermediate_values == {0: pytest.approx(result.value)}  # float32 on its way through Lightning
        assert result.choices["init"] == trial.params["init"] and result.choices["norm"] == "none"
        assert set(trial.params) == {"init", "upsampler", "optimizer.lr"}
