"""Sweeps on a Ray cluster: what jobs need and where they go, and whole sweeps on two nodes that share no folder."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from omegaconf import OmegaConf

from upsweep.common.errors import UserError
from upsweep.runs.layout import LAST
from upsweep.runs.result import Result

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # it looks when it is imported
ray = pytest.importorskip("ray")
from upsweep.sweeps import node  # noqa: E402
from upsweep.sweeps.node import Site, changed  # noqa: E402
from upsweep.sweeps.ray import Needs, fitting, needs  # noqa: E402
from upsweep.sweeps.travelling import pack, translated  # noqa: E402

SMALL = {"include_dashboard": False, "object_store_memory": 80 << 20}
ROOT = Path(__file__).resolve().parents[1]
REAL = str(ROOT / "src" / "train.py")

DOOR = """
import os, signal, time
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from upsweep.cli import door
from upsweep.analysis.ranking import chosen
from upsweep.runs.folders import writable
from upsweep.runs.layout import LAST
from upsweep.runs.progress import Progress
from upsweep.runs.result import FIGURES_OF_VERSION_1, Result
import beside

@door("train", config_path=Path(__file__).parents[1] / "conf")
def main(config):
    hydra = HydraConfig.get()
    folder = writable(Path(hydra.runtime.output_dir), resume=config.resume is not None)
    signs = Path(os.environ["UPSWEEP_SIGNS"])
    def sign(*what):
        with (signs / f"{hydra.job.num}").open("a") as file:
            file.write("|".join(map(str, (*what, time.monotonic()))) + "\\n")
    def end(state, **rest):
        Result(state=state, choices=chosen(hydra.runtime.choices), overrides=list(hydra.overrides.task),
               seed=config.seed, scale=2, **rest).write(folder)
        sign("end")
    def leave(*_):
        end("stopped", reason="interrupted")
        os._exit(130)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    last = folder / LAST
    last.parent.mkdir(exist_ok=True)
    epoch = int(last.read_text()) if config.resume and last.exists() else 0  # Ray may lose a job that has none yet
    sign("start", epoch, folder, Path.cwd(), os.environ["OMP_NUM_THREADS"], os.environ.get("NODE_RANK"))
    if config.act == "bug":
        sign("end")
        raise RuntimeError("a bug")
    while epoch < config.epochs:
        time.sleep(0.1)
        epoch += 1
        last.write_text(f"{epoch}")
        Progress(epoch=epoch, epochs=config.epochs).write(folder)
        while config.act == "wait" and epoch == 4 and not (signs / "go").exists(): time.sleep(0.1)
    print(f"written in {folder}", flush=True)
    end("finished", declared=FIGURES_OF_VERSION_1, figures={"psnr": 30.0 + config.seed}, objective=1.0)

if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults: [_self_, {override hydra/launcher: ray}]
seed: 1
act: finish
epochs: 5
resume: null
trainer: {devices: 1, num_nodes: 1, accelerator: cpu}
hydra: {sweep: {dir: sweep}, run: {dir: run}, launcher: {shared: false}}
"""


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------- what jobs need


def wants(**given: Any) -> dict[str, Any]:
    """The launcher's settings under a trainer, as a job's config has them."""
    from hydra_plugins.upsweep import RayLauncherConf

    trainer = {"devices": 1, "num_nodes": 1, "accelerator": "auto"} | given.pop("trainer", {})
    config = OmegaConf.create({"trainer": trainer, "hydra": {"launcher": OmegaConf.structured(RayLauncherConf)}})
    config.hydra.launcher = OmegaConf.merge(config.hydra.launcher, given)
    said: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    return dict(said)


def test_a_job_takes_what_its_trainer_asks_for() -> None:
    def of_a_node(gpus_there: bool = True, **given: Any) -> dict[str, float]:
        return needs(wants(**given), gpus_there).of_a_node

    assert of_a_node() == {"CPU": 1, "GPU": 1}
    assert of_a_node(gpus_there=False) == {"CPU": 1}
    assert of_a_node(gpus_there=False, trainer={"accelerator": "gpu"}) == {"CPU": 1, "GPU": 1}
    assert of_a_node(trainer={"accelerator": "cpu", "devices": 2}, cpus=4) == {"CPU": 8}
    assert of_a_node(trainer={"devices": 2, "num_nodes": 2}, cpus=4) == {"CPU": 8, "GPU": 2}
    assert of_a_node(trainer={"devices": "auto"}, gpus=0.5) == {"CPU": 1, "GPU": 0.5}
    assert of_a_node(resources={"big": 1}) == {"CPU": 1, "GPU": 1, "big": 1}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"cpus": 0}, "cpus=0 must be a whole number above 0"),
        ({"trainer": {"num_nodes": "two"}}, "nodes=two must be a whole number above 0"),
        ({"gpus": 1.5}, "gpus=1.5 must be a whole number or"),
        ({"gpus": -1}, "gpus=-1"),
    ],
)
def test_needs_that_cannot_be_are_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        needs(wants(**given), gpus_there=True)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "fit"),
    [
        (1, 1, 0, 7),
        (1, 2, 0, 3),  # 4, 2 and 1 CPUs
        (1, 1, 1, 3),
        (1, 1, 0.5, 5),  # 4 on 2 GPUs and 4 CPUs; 1 GPU, but 1 CPU
        (1, 8, 0, 0),
        (2, 1, 0, 3),  # 7 halves, of which no job takes two on one node
        (3, 1, 0, 1),
        (4, 1, 0, 0),
    ],
)
def test_so_many_jobs_fit_on_a_cluster(nodes: int, cpus: int, gpus: float, fit: int) -> None:
    cluster = [{"CPU": 4.0, "GPU": 2.0}, {"CPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}]
    assert fitting(Needs(nodes, 1, cpus, gpus), cluster) == fit


# -------------------------------------------------------------------------------------------- what travels


def test_the_files_that_changed_are_told_small_ones_first(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(b"0" * 2000)
    (tmp_path / "result.json").write_text("{}")
    for name in (".lock", ".result.json.12-0.part"):
        (tmp_path / name).touch()
    (tmp_path / "latest").symlink_to("result.json")
    first = list(changed(tmp_path, {}))
    assert [(name, size) for name, size, _ in first] == [("result.json", 2), ("checkpoints/last.ckpt", 2000)]
    told = {name: stamp for name, _, stamp in first}
    assert not list(changed(tmp_path, told))
    (tmp_path / "result.json").write_text("{...}")
    assert [name for name, *_ in changed(tmp_path, told)] == ["result.json"]


def test_large_files_come_back_at_the_end_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(node, "SMALL", 100)
    monkeypatch.setattr(node, "AT_ONCE", 1000)
    seat = node.Node(tmp_path / "marker", [], shared=None)
    (scratch,) = tmp_path.glob("job-*")
    folder = f"{scratch}/sweep/0"
    script = (
        "echo $PWD > a.json; head -c 900 /dev/zero > b.ckpt; cp b.ckpt c.ckpt; until [ -e go ]; do sleep 0.02; done"
    )
    seat.begin(["/bin/sh", "-c", script], {}, folder, folder, {f"{folder}/before.ckpt": b"of an earlier run"})
    told = dict[str, bytes]()

    def look() -> node.News:
        news = seat.look(every=60)
        told.update(news.files)
        return news

    until(lambda: (Path(folder) / "c.ckpt").exists() and look() and told.get("a.json"))
    assert told.pop("job.log", b"") == b""
    assert told == {"a.json": b"/sweep/0\n"}, "in the launcher's words; the small one alone"
    (Path(folder) / "go").touch()
    last = [look()]
    while last[-1].code is None:
        last.append(look())
    assert [len(news.files.get(name, b"")) for name in ("b.ckpt", "c.ckpt") for news in last[-2:]] in (
        [900, 0, 0, 900],
        [0, 900, 900, 0],
    )
    names = ["a.json", "b.ckpt", "c.ckpt", "before.ckpt", "go", "job.log"]
    assert last[-1].code == 0 and last[-1].names == frozenset(names)
    assert last[-2].code is None, "not before all is told"
    seat.clear()
    assert not scratch.exists()


def test_a_command_line_holds_on_a_node_without_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "start.ckpt").touch()
    run = f"hydra.run.dir='{tmp_path}/a sweep/0'"
    command = [
        *("/venv/bin/python", "/code/src/train.py", "--config-name=train", "--config-path=/code/conf"),
        *("init=he", "data.root=photos", "data.name=photos", "init_from=start.ckpt", "checkpoint=null", run),
    ]
    there = Site("node", "10.0.0.2", 20_000, "/usr/bin/python", home="/ray/pkg", scratch="/ray/pkg/job-1")
    said, files = translated(command, there)
    assert said == [
        *("/usr/bin/python", "/ray/pkg/code/src/train.py", "--config-name=train", "--config-path=/ray/pkg/code/conf"),
        *("init=he", f"data.root='{tmp_path}/photos'", "data.name=photos"),
        *(f"init_from='/ray/pkg/job-1{tmp_path}/start.ckpt'", "checkpoint=null"),
        f"hydra.run.dir='/ray/pkg/job-1{tmp_path}/a sweep/0'",
    ]
    assert files == {f"/ray/pkg/job-1{tmp_path}/start.ckpt": tmp_path / "start.ckpt"}
    here = Site("node", "10.0.0.2", 20_000, "/usr/bin/python")
    assert translated(command, here) == (["/usr/bin/python", *command[1:]], {})


def test_the_code_that_travels_is_the_project_s_and_upsweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("src", "conf", "mine", "photos"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.chdir(tmp_path)
    stage = tmp_path / "stage"
    command = [sys.executable, f"{tmp_path}/src/train.py", f"--config-path={tmp_path}/conf", "seed=1"]
    paths = pack(stage, command)
    links = {path for path in stage.rglob("*") if path.is_symlink()}
    own = {Path(f"{stage}{tmp_path}/{name}") for name in ("src", "conf", "mine")}
    assert links == own | {Path(f"{stage}{ROOT}/{name}") for name in ("src", "conf")}
    assert [stage / path for path in paths] == [Path(f"{stage}{tmp_path}/mine"), Path(f"{stage}{ROOT}/src")]


# --------------------------------------------------------------------------------------------- whole sweeps


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster whose first node takes no jobs."""
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 10}  # 5 s: a busy machine is not dead
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": soon, **SMALL})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> list[Any]:
    """Its two other nodes, of one CPU each."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1, **SMALL)
    return list(cluster.worker_nodes)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A door of another project, with a module of its own, and a folder for signs of its jobs."""
    home = tmp_path / "a home"
    for name, text in {"src/train.py": DOOR, "conf/train.yaml": CONFIG, "mine/beside.py": ""}.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (tmp_path / "signs").mkdir()
    return home


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def started(home: Path, cluster: Any) -> Iterator[Start]:
    """Starts a sweep there, in a process group of its own; whatever of it is left at the end is killed."""
    sweeps = list[subprocess.Popen[str]]()

    def start(*arguments: str, door: str = "src/train.py", **environment: str) -> subprocess.Popen[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "HYDRA"))}
        env |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}mine", "UPSWEEP_SIGNS": str(home.parent / "signs")}
        joined = f"hydra.launcher.address={cluster.address}"
        sweeps.append(
            subprocess.Popen(
                [sys.executable, door, "-m", joined, *arguments],
                cwd=home,
                env=env | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return sweeps[-1]

    yield start
    for sweep in sweeps:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)


def signs(home: Path, job: int) -> list[list[str]]:
    path = home.parent / "signs" / str(job)
    return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []


def running_at_once(home: Path) -> int:
    """How many jobs ran at a time, at most."""
    turns = sorted(
        (float(sign[-1]), 1 if sign[0] == "start" else -1)
        for path in (home.parent / "signs").iterdir()
        for sign in signs(home, int(path.name))
    )
    return max(sum(step for _, step in turns[: i + 1]) for i in range(len(turns)))


def states(home: Path) -> list[str]:
    return [result(folder).state for folder in sorted((home / "sweep").glob("[0-9]"))]


def result(folder: Path) -> Result:
    read = Result.read(folder)
    assert read is not None
    return read


def back(home: Path, *jobs: int) -> bool:
    """Whether the jobs' second epoch has come back."""
    return all((path := home / "sweep" / str(job) / LAST).exists() and int(path.read_text()) > 1 for job in jobs)


@pytest.mark.slow
def test_jobs_of_a_cluster_take_turns_and_their_folders_come_back(home: Path, nodes: list[Any], started: Start) -> None:
    sweep = started("act=finish,bug", "seed=1,2", "hydra.launcher.parallel=8")
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 1, out + err
    assert states(home) == ["finished"] * 2 + ["failed"] * 2, out + err
    assert "RuntimeError: a bug" in out and "2 of 4 jobs did not finish (2, 3)" in err
    assert running_at_once(home) <= 2, "there are two CPUs"
    _, epoch, folder, directory, threads, _, _ = signs(home, 0)[0]
    assert (epoch, threads) == ("0", "1")
    assert folder != str(home / "sweep/0") and folder.endswith(str(home / "sweep/0")), "a folder of the node's own"
    assert directory != str(home) and directory.endswith(str(home))
    assert not Path(folder).exists(), "it is gone from the node"
    assert (home / "sweep/0/job.log").read_text() == f"written in {home / 'sweep/0'}\n"
    assert not list(home.rglob("job-*")) and (home / "sweep/results.csv").exists()


@pytest.mark.slow
def test_a_job_goes_on_elsewhere_when_its_node_dies(home: Path, cluster: Any, nodes: list[Any], started: Start) -> None:
    sweep = started("act=wait", "seed=1,2", "epochs=6", "hydra.launcher.retries=1")
    until(lambda: back(home, 0, 1))
    cluster.remove_node(nodes[0], allow_graceful=False)
    time.sleep(1)
    (home.parent / "signs/go").touch()
    out, err = sweep.communicate(timeout=120)
    (home.parent / "signs/go").unlink()
    assert sweep.returncode == 0, out + err
    assert states(home) == ["finished"] * 2
    (said,) = (line for line in err.splitlines() if "Ray has lost" in line)
    lost = int(said.split(":")[0].removeprefix("Job "))
    assert "goes on from its last checkpoint elsewhere (1 of 1 times)" in said
    starts = [int(sign[1]) for sign in signs(home, lost) if sign[0] == "start"]
    assert len(starts) == 2 and starts[1] > 0
    assert len([sign for sign in signs(home, 1 - lost) if sign[0] == "start"]) == 1


@pytest.mark.slow
def test_ctrl_c_has_the_jobs_save_and_a_resumed_sweep_goes_on(home: Path, nodes: list[Any], started: Start) -> None:
    sweep = started("act=wait", "seed=1,2", "epochs=6", "hydra.launcher.parallel=1")
    until(lambda: back(home, 0))
    os.killpg(sweep.pid, signal.SIGINT)
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 128 + signal.SIGINT, out + err
    assert result(home / "sweep/0").reason == "interrupted" and not signs(home, 1)
    assert "Traceback" not in err
    (home.parent / "signs/go").touch()
    again = started("resume=sweep")
    out, err = again.communicate(timeout=90)
    assert again.returncode == 0, out + err
    assert states(home) == ["finished"] * 2
    assert int(signs(home, 0)[2][1]) > 0, "from its checkpoint"


@pytest.mark.slow
def test_no_job_outlives_a_killed_launcher(home: Path, nodes: list[Any], started: Start) -> None:
    sweep = started("act=wait", "seed=1,2", "epochs=6")
    until(lambda: back(home, 0, 1))
    jobs = [
        each for each in psutil.process_iter(["cmdline"]) if f"{home}/sweep/0'" in " ".join(each.info["cmdline"] or ())
    ]
    assert jobs
    sweep.kill()
    psutil.wait_procs(jobs, timeout=60)
    assert not any(job.is_running() for job in jobs)
    (home.parent / "signs/go").touch()
    again = started("resume=sweep")
    out, err = again.communicate(timeout=90)
    assert again.returncode == 0, out + err
    assert states(home) == ["finished"] * 2
    assert [int(signs(home, job)[-2][1]) > 0 for job in (0, 1)] == [True] * 2, "from what had come back"


@pytest.mark.slow
def test_a_job_on_several_nodes_gets_what_torchrun_would_set(home: Path, nodes: list[Any], started: Start) -> None:
    sweep = started("trainer.num_nodes=2", "epochs=1")
    out, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 0, out + err
    assert sorted(sign[5] for sign in signs(home, 0) if sign[0] == "start") == ["0", "1"]
    assert states(home) == ["finished"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("trainer.devices=4", "No job can start: each takes 4 CPUs, and the Ray cluster does not have that ("),
        ("hydra.launcher.address=127.0.0.1:1", "hydra.launcher.address=127.0.0.1:1: "),
        ("hydra.launcher.parallel=0", "hydra.launcher.parallel=0 must be auto, or a whole number above 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    asked: str, sentence: str, home: Path, nodes: list[Any], started: Start
) -> None:
    sweep = started(asked)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 1
    assert err.startswith(sentence) and len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_real_sweep_on_a_ray_of_its_own_leaves_nothing_at_home(home: Path, started: Start) -> None:
    tiny = ["debug=fast", "init=he,xavier", "hydra/launcher=ray", "hydra.sweep.dir=sweep"]
    sweep = started(
        *tiny, "hydra.launcher.address=null", door=REAL, HOME=str(home), RAY_AUTH_MODE="", RAY_AUTH_TOKEN=""
    )
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, out + err
    assert "the Ray cluster has 1 node" in out and states(home) == ["finished"] * 2
    assert not (home / ".ray").exists()
