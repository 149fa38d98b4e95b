"""Sweeps on SLURM: what sbatch is told, and whole sweeps through a stand-in for SLURM and submitit's local executor."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import OmegaConf

from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.runs.layout import JOB_LOG
from upsweep.runs.result import Result

submitit = pytest.importorskip("submitit")
from upsweep.sweeps import slurm  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
REAL = str(ROOT / "src" / "train.py")
spec = importlib.util.spec_from_file_location("slurm_stand_in", Path(__file__).with_name("slurm_stand_in.py"))
assert spec is not None and spec.loader is not None
stand_in: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stand_in)

DOOR = """
import os, signal, time
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from upsweep.cli import door
from upsweep.analysis.ranking import chosen
from upsweep.runs.result import FIGURES_OF_VERSION_1, Result

@door("train", config_path=Path(__file__).parents[1] / "conf")
def main(config):
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    rank = int(os.environ.get("SLURM_PROCID", 0))
    (folder / f"rank{rank}").touch()
    def end(state, **rest):
        if rank == 0:
            Result(state=state, choices=chosen(hydra.runtime.choices), overrides=list(hydra.overrides.task),
                   seed=config.seed, scale=2, **rest).write(folder)
    def leave(*_):
        end("stopped", reason="preempted")
        os._exit(75)
    signal.signal(signal.SIGTERM, leave)
    if config.act == "bug" and rank == config.trainer.devices - 1: raise RuntimeError("a bug")
    if config.act == "kill" and rank == config.trainer.devices - 1: os.kill(os.getpid(), signal.SIGKILL)
    if config.act == "slow" and config.resume is None or config.act == "hang":
        deadline = time.monotonic() + 60
        while not (folder / "go").exists() and time.monotonic() < deadline: time.sleep(0.05)
    if config.act in ("bug", "kill"): time.sleep(60)  # for a rank that has failed
    end("finished", declared=FIGURES_OF_VERSION_1, figures={"psnr": 30.0 + config.seed}, objective=1.0)

if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults: [_self_, {override hydra/launcher: slurm}]
seed: 1
act: finish
resume: null
trainer: {devices: 1, num_nodes: 1, accelerator: cpu}
hydra: {sweep: {dir: sweep}, run: {dir: run}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A door of another project, beside a folder of SLURM's commands."""
    home = tmp_path / "a home"
    for name, text in {"src/train.py": DOOR, "conf/train.yaml": CONFIG}.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    stand_in.install(home / "bin")
    return home


@pytest.fixture
def started(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a sweep there; whatever of it is left at the end is killed."""

    def start(*arguments: str, door: str = "src/train.py", path: str | None = None) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "HYDRA"))}
        env |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        env["PATH"] = path or f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            [sys.executable, door, "-m", *arguments],
            cwd=home,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    yield start
    for process in processes_in(home):
        process.kill()


def processes_in(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def result(folder: Path) -> Result:
    read = Result.read(folder)
    assert read is not None
    return read


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def wants(**given: object) -> dict[str, Any]:
    """The launcher's settings under a trainer, as a job's config has them."""
    from hydra_plugins.upsweep import SlurmLauncherConf

    trainer = {"devices": 1, "num_nodes": 1, "accelerator": "auto"} | dict(given.pop("trainer", {}))  # type: ignore[call-overload]
    config = OmegaConf.create({"trainer": trainer, "hydra": {"launcher": OmegaConf.structured(SlurmLauncherConf)}})
    config.hydra.launcher = OmegaConf.merge(config.hydra.launcher, given)
    said: dict[str, Any] = OmegaConf.to_container(config.hydra.launcher, resolve=True)  # type: ignore[assignment]
    return said


# ------------------------------------------------------------------------------------- what sbatch is told


@pytest.mark.parametrize(("nodes", "devices"), [(1, 1), (1, 4), (2, 8)])
def test_the_script_is_what_lightning_expects(
    nodes: int, devices: int, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    asked = wants(
        trainer={"devices": devices, "num_nodes": nodes},
        time=90,
        partition="gpu",
        mem="32GB",
        setup=["module load cuda"],
        sbatch={"mail-user": "me@here"},
    )
    executor = submitit.SlurmExecutor(tmp_path / "%j")
    executor.update_parameters(**slurm.parameters(asked, "slurm", parallel=3))
    script = executor._make_submission_file_text(executor._submitit_command_str, "0")
    print(script)
    said = stand_in.options(script)
    assert said["ntasks-per-node"] == str(devices) and said["nodes"] == str(nodes)
    assert said["gpus-per-node"] == str(devices)
    assert said["signal"] == "USR2@90", "to the tasks, not to the batch shell (B:)"
    assert (said["time"], said["partition"], said["mem"], said["mail-user"]) == ("90", "gpu", "32GB", "me@here")
    assert "requeue" in said
    lines = script.splitlines()
    (srun,) = (line for line in lines if line.startswith("srun "))
    assert "--kill-on-bad-exit=1" in srun and "-m submitit.core._submit" in srun
    assert lines.index("module load cuda") < lines.index(srun)
    # Lightning, in the environment that SLURM makes of these options.
    for name, value in {**stand_in.environment(said, "1000_0"), "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert SLURMEnvironment.detect(), "not seen as interactive"
    lightning = SLURMEnvironment()
    assert lightning.creates_processes_externally
    lightning.validate_settings(num_devices=devices, num_nodes=nodes)
    assert lightning.world_size() == nodes * devices
    with pytest.raises(ValueError, match="does not match"):
        lightning.validate_settings(num_devices=devices + 1, num_nodes=nodes)


def test_gpus_follow_the_trainer_unless_they_are_given() -> None:
    def gpus(**given: object) -> object:
        return slurm.parameters(wants(**given), "slurm", 1)["gpus_per_node"]

    assert gpus(trainer={"devices": 4}) == 4
    assert gpus(trainer={"devices": 4, "accelerator": "cpu"}) == 0
    assert gpus(trainer={"devices": 4}, gpus_per_node=8) == 8


@pytest.mark.parametrize(
    ("cluster", "given", "sentence"),
    [
        (
            "slurm",
            {"trainer": {"devices": "auto"}},
            "tasks_per_node=auto must be a whole number above 0: it is trainer.d",
        ),
        ("slurm", {"time": 0}, r"time=0 must be a whole number above 0 \(minutes\)"),
        ("local", {"trainer": {"num_nodes": 2}}, "cluster=local runs on one node"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(cluster: str, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        slurm.parameters(wants(**given), cluster, 1)


def test_without_slurm_it_says_so(started: Callable[..., subprocess.Popen[str]]) -> None:
    sweep = started("seed=1,2", path=str(Path(sys.executable).parent))
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 1
    assert err.startswith("The command sbatch is not there:") and len(err.splitlines()) == 1


def test_without_submitit_it_says_so(home: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    (home / "src/submitit.py").write_text("raise ModuleNotFoundError('No module named submitit', name='submitit')")
    sweep = started("seed=1,2")
    _, err = sweep.communicate(timeout=60)
    assert (sweep.returncode, err) == (1, "SLURM needs submitit: pip install -e '.[slurm]'.\n")


# ------------------------------------------------------------------------------------------- whole sweeps


@pytest.mark.slow
def test_a_sweep_is_one_array_and_failures_are_named(home: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    sweep = started("act=finish,bug,kill", "trainer.devices=2", "hydra.launcher.parallel=2")
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 1, out + err
    assert [result(home / "sweep" / name).state for name in "012"] == ["finished", "failed", "failed"], out
    assert (home / "sweep/0/rank1").exists(), "both tasks ran the door"
    assert "RuntimeError: a bug" in out
    assert "rank 1 was killed (SIGKILL)" in out
    assert "2 of 3 jobs did not finish (1, 2)" in err
    assert stand_in.options((home / "bin/1000.sh").read_text())["array"] == "0-2%2"
    assert (home / "sweep/results.csv").exists() and (home / "sweep/sweep.json").exists()


def test_each_job_gets_the_tasks_that_its_trainer_has(
    home: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    sweep = started("trainer.devices=1,2")
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, out + err
    tasks = [stand_in.options((home / f"bin/{job}.sh").read_text())["ntasks-per-node"] for job in (1000, 2000)]
    assert tasks == ["1", "2"]


@pytest.mark.slow
def test_a_signal_cancels_the_jobs_which_save(home: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    sweep = started("act=hang", "seed=1,2,3", "hydra.launcher.parallel=2")
    until(lambda: (home / "sweep/0/rank0").exists() and (home / "sweep/1/rank0").exists())
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + signal.SIGINT, err
    assert [result(home / "sweep" / name).reason for name in "01"] == ["preempted", "preempted"]
    assert "Traceback" not in err
    states = [json.loads((home / f"bin/1000_{i}.json").read_text())["state"] for i in range(3)]
    assert states == ["CANCELLED"] * 3


def test_jobs_outlive_the_submitting_process_and_are_collected(
    home: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    sweep = started("act=slow,finish")
    until(lambda: (home / "sweep/0/rank0").exists() and (home / "sweep/1/result.json").exists())
    sweep.kill()
    sweep.wait()
    before = (home / "sweep/sweep.json").stat().st_mtime_ns
    again = started("resume=sweep")
    until(lambda: (home / "sweep/sweep.json").stat().st_mtime_ns > before)
    time.sleep(1)  # it looks at what is there
    (home / "sweep/0/go").touch()
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, out + err
    assert "1 of 2 jobs are kept, 1 to run." in out
    assert [result(home / "sweep" / name).state for name in "01"] == ["finished"] * 2
    assert len(list((home / "bin").glob("*.sh"))) == 1, "nothing was submitted again"


@pytest.mark.parametrize("how", ["submitit", "slurm"])
def test_a_job_that_is_preempted_comes_back_and_goes_on(
    how: str, home: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    sweep = started("act=slow", "seed=1,2")
    until(lambda: (home / "sweep/0/rank0").exists() and (home / "sweep/1/rank0").exists())
    stand = stand_in.Stand(home / "bin")
    if how == "submitit":  # the warning before the time is up: submitit stops the training and requeues the job
        stand.tell("1000_0", signal.SIGUSR2)
        stand.tell("1000_1", signal.SIGUSR2)
    else:  # SLURM takes the machine away and requeues the job itself
        stand.scontrol("requeue", "1000_0")
        stand.scontrol("requeue", "1000_1")
    out, err = sweep.communicate(timeout=90)
    assert sweep.returncode == 0, out + err
    assert [result(home / "sweep" / name).state for name in "01"] == ["finished"] * 2
    assert json.loads((home / "bin/1000_0.json").read_text())["restarts"] == 1


def test_submitits_local_executor_runs_a_sweep(home: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    sweep = started("act=finish,bug", "seed=1,2", "hydra.launcher.cluster=local", "hydra.launcher.parallel=2")
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 1, out + err
    assert [result(home / "sweep" / name).state for name in "0123"] == ["finished"] * 2 + ["failed"] * 2
    assert "RuntimeError: a bug" in out and "2 of 4 jobs did not finish (2, 3)" in err


# ------------------------------------------------------------------------------------- the real door

TINY = [
    *("trainer=cpu", "logger=none", "callbacks.pictures=null", "generator.width=4", "generator.depth=1"),
    *("data.patch_size=8", "data.patches_per_epoch=160", "trainer.limit_val_batches=1", "trainer.max_epochs=20"),
]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints.generator_weights(checkpoints.read(folder / "checkpoints" / "last.ckpt"))


@pytest.mark.slow
def test_a_training_that_submitit_requeues_ends_with_the_same_weights(
    home: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    on_this_machine = ["hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.parallel=2"]
    sweep = started(*TINY, *on_this_machine, "+callbacks.progress.every=0.5,0.6", "hydra.sweep.dir=sweep", door=REAL)
    until(lambda: (home / "sweep/0/checkpoints/last.ckpt").exists(), seconds=120)

    def task() -> psutil.Process | None:
        for process in processes_in(home):
            if "submitit.core._submit" in process.cmdline() and any(
                f"hydra.run.dir='{home / 'sweep' / '0'}'" in child.cmdline() for child in process.children()
            ):
                return process
        return None

    preempted = task()
    assert preempted is not None
    preempted.send_signal(signal.SIGUSR2)
    out, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, out + err
    log = (home / "sweep/0" / JOB_LOG).read_text()
    assert "Going on from" in log, log
    disturbed, whole = weights(home / "sweep/0"), weights(home / "sweep/1")
    assert all(torch.equal(disturbed[name], whole[name]) for name in whole)


@pytest.mark.slow
def test_two_ranks_on_slurm_are_preempted_and_go_on(home: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra/launcher=slurm"]
    sweep = started(*[a for a in TINY if a != "trainer=cpu"], *ddp, "hydra.sweep.dir=sweep", door=REAL)
    folder = home / "sweep/0"
    until(lambda: (folder / "checkpoints/last.ckpt").exists(), seconds=120)
    stand_in.Stand(home / "bin").tell("1000", signal.SIGUSR2)
    out, err = sweep.communicate(timeout=200)
    assert sweep.returncode == 0, out + err + (folder / JOB_LOG).read_text()
    log = (folder / JOB_LOG).read_text()
    assert "Going on from" in log and "x devices 2 x nodes 1" in log, log
    assert result(folder).epoch > 0 and result(folder).state == "finished"
    assert json.loads((home / "bin/1000.json").read_text())["restarts"] == 1
